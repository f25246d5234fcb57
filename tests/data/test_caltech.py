from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from vggfeat.data import open_dataset
from vggfeat.data.caltech import SPLITS
from vggfeat.data.csv_list import as_csv
from vggfeat.data.records import Kind
from vggfeat.errors import DatasetError, DatasetNotFoundError

LISTS = Path(__file__).resolve().parents[2] / "datasets" / "caltech101"


def write_tree(root: Path, sizes: dict[str, int]) -> Path:
    """Write empty files in the true layout; nothing here reads a pixel."""
    for label, count in sizes.items():
        (root / label).mkdir(parents=True)
        for n in range(1, count + 1):
            (root / label / f"image_{n:04d}.jpg").touch()
    return root


def caltech101(folder: Path, **sizes: int) -> Path:
    every = {f"class{n:03d}": 31 for n in range(102 - len(sizes))} | sizes
    write_tree(folder / "caltech101" / "101_ObjectCategories", every)
    return folder


def test_the_protocol_of_caltech_101(tmp_path: Path) -> None:
    root = caltech101(tmp_path, BACKGROUND_Google=90, small=40)
    (root / "caltech101" / "101_ObjectCategories" / "BACKGROUND_Google" / "tmp").touch()
    dataset = open_dataset("caltech101", root)
    assert (dataset.kind, len(dataset.classes), len(dataset.items)) == (
        Kind.ONE_CLASS,
        102,
        100 * 31 + 130,
    )
    assert dataset.ignored == ("BACKGROUND_Google/tmp",)
    assert len(dataset.splits) == SPLITS == 3
    for split in dataset.splits:
        assert (split.train.labels > 0).sum(axis=0).tolist() == [24] * 102
        assert (split.val.labels > 0).sum(axis=0).tolist() == [6] * 102
        tested = dict(zip(dataset.classes, (split.test.labels > 0).sum(axis=0), strict=True))
        assert (tested["BACKGROUND_Google"], tested["small"], tested["class000"]) == (50, 10, 1)
        for part in (split.train, split.val, split.test):
            assert (part.labels.sum(axis=1) == 2 - 102).all()  # one class each
    first, second, third = (set(split.train.ids) for split in dataset.splits)
    assert len({frozenset(first), frozenset(second), frozenset(third)}) == 3


def test_the_protocol_of_caltech_256(tmp_path: Path) -> None:
    sizes = {f"{n:03d}.thing": 61 for n in range(1, 257)} | {"257.clutter": 100}
    root = write_tree(tmp_path / "256_ObjectCategories", sizes)
    (root / "001.thing" / "RENAME2").touch()
    (root / "001.thing" / "greg").mkdir()
    (root / "001.thing" / "greg" / "more.jpg").touch()
    dataset = open_dataset("caltech256", tmp_path)
    assert (len(dataset.items), len(dataset.classes)) == (256 * 61 + 100, 257)
    for split in dataset.splits:
        assert (split.train.labels > 0).sum(axis=0).tolist() == [48] * 257
        assert (split.val.labels > 0).sum(axis=0).tolist() == [12] * 257
        assert (split.test.labels > 0).sum(axis=0).tolist() == [1] * 256 + [40]
    assert open_dataset("caltech256", root).items == dataset.items


def test_the_order_is_a_hash_of_split_and_id_alone(tmp_path: Path) -> None:
    dataset = open_dataset("caltech101", caltech101(tmp_path))
    members = [f"class000/image_{n:04d}.jpg" for n in range(1, 32)]
    for number, split in enumerate(dataset.splits, 1):
        keyed = {hashlib.sha256(f"{number}:{i}".encode()).hexdigest(): i for i in members}
        order = [keyed[key] for key in sorted(keyed)]
        for part, ids in (("val", order[:6]), ("train", order[6:30]), ("test", order[30:])):
            own = [i for i in getattr(split, part).ids if i.startswith("class000/")]
            assert own == sorted(ids)


def test_the_committed_lists_are_those_of_the_real_images(shared: Path) -> None:
    dataset = open_dataset("caltech101", shared)
    assert (len(dataset.items), len(dataset.classes)) == (9144, 102)
    assert dataset.ignored == ("BACKGROUND_Google/tmp",)
    for number, split in enumerate(dataset.splits, 1):
        text = as_csv(dataset, split, "101_ObjectCategories")
        assert text == (LISTS / f"split{number}.csv").read_text()
        sizes = [len(part.ids) for part in (split.train, split.val, split.test)]
        folders = (shared / "caltech101" / "101_ObjectCategories").iterdir()
        tested = [min(50, len(list(folder.glob("*.jpg"))) - 30) for folder in folders]
        assert sizes == [24 * 102, 6 * 102, sum(tested)]


def test_a_committed_list_is_a_data_set_of_its_own(shared: Path, tmp_path: Path) -> None:
    (tmp_path / "split1.csv").write_bytes((LISTS / "split1.csv").read_bytes())
    images = shared / "caltech101" / "101_ObjectCategories"
    (tmp_path / "101_ObjectCategories").symlink_to(images)
    listed, named = (
        open_dataset(f"csv:{tmp_path / 'split1.csv'}", tmp_path),
        open_dataset("caltech101", shared),
    )
    assert listed.classes == named.classes
    for part in ("train", "val", "test"):
        ours, theirs = getattr(listed.splits[0], part), getattr(named.splits[0], part)
        assert ours.ids == tuple(f"101_ObjectCategories/{i}" for i in theirs.ids)
        assert np.array_equal(ours.labels, theirs.labels)


def test_a_class_that_is_missing_or_too_small_is_an_error(tmp_path: Path) -> None:
    root = caltech101(tmp_path / "few", tiny=30)
    with pytest.raises(DatasetError, match=r"Class 'tiny' of caltech101 has 30 images.*takes 30"):
        open_dataset("caltech101", root)
    lacking = caltech101(tmp_path / "lacking")
    for path in (lacking / "caltech101" / "101_ObjectCategories" / "class000").iterdir():
        path.unlink()
    with pytest.raises(DatasetError, match=r"has 101 classes with images. Expected 102"):
        open_dataset("caltech101", lacking)


def test_absence_says_where_it_looked_and_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError) as caught:
        open_dataset("caltech101", tmp_path)
    for text in ("caltech101/101_ObjectCategories", "`vggfeat datasets fetch caltech101`"):
        assert text in str(caught.value)


def test_a_store_stands_in_for_the_images(tmp_path: Path) -> None:
    dataset = open_dataset("caltech101", caltech101(tmp_path))
    stored = open_dataset(
        "caltech101", tmp_path / "nowhere", stored_ids=[item.id for item in dataset.items]
    )
    assert stored.classes == dataset.classes
    for ours, theirs in zip(stored.splits, dataset.splits, strict=True):
        assert ours.test.ids == theirs.test.ids
        assert np.array_equal(ours.test.labels, theirs.test.labels)
