from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from vggfeat.classify.measures import mean_average_precision
from vggfeat.data import open_dataset
from vggfeat.data.records import Dataset
from vggfeat.demo import run as demo
from vggfeat.demo.images import CLASSES, PARTS, make_voc
from vggfeat.recipe import Machine
from vggfeat.transfer.fit import fit_and_score
from vggfeat.watch import Watch


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("demo") / "data"
    make_voc(path)
    return path


@pytest.fixture(scope="module")
def dataset(root: Path) -> Dataset:
    return open_dataset(f"voc:{root}", Path())


def digest(root: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        if path.is_file():
            total.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return total.hexdigest()


@pytest.mark.slow
def test_the_seed_decides_every_byte(root: Path, tmp_path: Path) -> None:
    make_voc(tmp_path / "again")
    assert digest(tmp_path / "again") == digest(root)
    make_voc(tmp_path / "other", seed=1)
    assert digest(tmp_path / "other") != digest(root)


@pytest.mark.slow
def test_it_has_every_kind_of_label_and_enough_of_each(dataset: Dataset) -> None:
    split = dataset.splits[0]
    assert dataset.classes == CLASSES
    assert len(CLASSES) >= 6
    parts = {"train": split.train, "val": split.val, "test": split.test}
    assert {name: len(part.ids) for name, part in parts.items()} == PARTS
    assert sum(PARTS.values()) <= 120
    trainval = np.concatenate([split.train.labels, split.val.labels])
    assert ((trainval == 1).sum(axis=0) >= 8).all()
    assert ((split.test.labels == 1).sum(axis=0) >= 6).all()
    assert sum(int((part.labels == 0).sum()) for part in parts.values()) >= 5
    assert (split.test.labels == 1).sum() > len(split.test.ids)  # several objects in one image


@pytest.mark.slow
def test_the_labels_follow_from_the_annotations(root: Path, dataset: Dataset) -> None:
    split = dataset.splits[0]
    for part in (split.train, split.val, split.test):
        for image, row in zip(part.ids, part.labels, strict=True):
            tree = ElementTree.parse(root / "Annotations" / f"{image}.xml")
            clear = {
                o.findtext("name") for o in tree.iter("object") if o.findtext("difficult") == "0"
            }
            present = {o.findtext("name") for o in tree.iter("object")}
            expected = [1 if c in clear else 0 if c in present else -1 for c in CLASSES]
            assert row.tolist() == expected
            width = int(tree.findtext("size/width") or 0)
            for box in tree.iter("bndbox"):
                assert (
                    1 <= int(box.findtext("xmin") or 0) <= int(box.findtext("xmax") or 0) <= width
                )


@pytest.mark.slow
def test_sizes_and_shapes_are_mixed(root: Path) -> None:
    sizes = []
    for path in (root / "JPEGImages").iterdir():
        with Image.open(path) as image:
            sizes.append(image.size)
    assert len({round(width / height, 1) for width, height in sizes}) >= 5
    assert len(set(sizes)) > 60


@pytest.mark.slow
def test_the_demo_beats_chance_and_colour_and_permuted_labels_do_not(tmp_path: Path) -> None:
    outcome = demo.run(tmp_path / "demo", Watch())
    assert outcome.score >= outcome.chance_99 + 0.1
    assert outcome.score > outcome.colour
    assert outcome.chance_mean < outcome.chance_99
    text = outcome.comparison()
    assert f"{100 * outcome.score:.2f} % mAP" in text
    page = outcome.page.read_text()
    assert page.count("data:image/jpeg;base64,") > 20
    assert page.count("<svg") >= 3
    assert not re.search(r"""(src|href)=["']?https?:""", page)

    random = np.random.default_rng(1)
    samples = {
        part: sample
        if part == "test"
        else replace(sample, labels=random.permutation(sample.labels))
        for part, sample in outcome.evaluation.runs[0].samples.items()
    }
    recipe = demo.demo_recipe(tmp_path / "demo")
    scores = fit_and_score(samples, CLASSES, recipe, Machine(), Watch(), {}).scores
    permuted = mean_average_precision(scores, samples["test"].labels, measure="voc2007")[0]
    assert permuted <= outcome.chance_99


def test_chance_of_a_single_class_is_its_expectation() -> None:
    labels = np.where(np.arange(200) < 100, 1, -1).astype(np.int8)[:, None]
    scores = np.random.default_rng(0).normal(size=(200, 1))
    mean, ninety_ninth = demo.chance(scores, labels)
    assert mean == pytest.approx(0.53, abs=0.04)  # a little above the share of positives
    assert mean < ninety_ninth < mean + 0.15
