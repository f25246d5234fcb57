"""Folds, draws of few images and class weights, from a folder to its result."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.svm import LinearSVC

from tests.conftest import photo
from vggfeat.errors import DatasetError
from vggfeat.extraction.workers import extract
from vggfeat.recipe import Machine, Recipe
from vggfeat.report.paper import substitutes
from vggfeat.report.result import Result
from vggfeat.report.text import result_text
from vggfeat.transfer.run import evaluate, write, write_report
from vggfeat.watch import Watch

CLASSES = {"ant": 9, "bee": 8, "cat": 4}


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Machine]:
    """A folder of three classes, and a machine that holds its descriptors."""
    root = tmp_path_factory.mktemp("protocols")
    for k, (name, count) in enumerate(CLASSES.items()):
        (root / "photos" / name).mkdir(parents=True)
        for n in range(count):
            pixels = photo(80, 80, seed=20 * k + n)
            pixels[:, :, k] //= 2
            Image.fromarray(pixels).save(root / "photos" / name / f"{n}.jpg")
    machine = Machine(cache=root / "features", results=root / "results", workers=2)
    extract(recipe(root / "photos"), machine, Watch())
    return root / "photos", machine


def recipe(root: Path, **changed: object) -> Recipe:
    values: dict[str, object] = {
        "dataset": f"folder:{root}",
        "models": ["vgg16-thin"],
        "weights": ["random:0"],
        "scales": [224],
        "mirror": False,
        "grid": [0.5, 1.0, 8.0],
    }
    return Recipe.build({**values, **changed}, "a test")


def test_folds_test_every_image_once_and_their_spread_is_told(
    described: tuple[Path, Machine], forwards: list[int]
) -> None:
    root, machine = described
    evaluation = evaluate(recipe(root, folds=4), machine, Watch())
    result, runs = evaluation.result, evaluation.runs
    assert len(runs) == len(result.splits) == 4
    tested = sorted(i for run in runs for i in run.samples["test"].ids)
    assert tested == sorted(f"{k}/{n}.jpg" for k, count in CLASSES.items() for n in range(count))
    recalls = []
    for run in runs:
        true = run.samples["test"].labels.argmax(axis=1)
        right = run.fitted.scores.argmax(axis=1) == true
        recalls.append(np.mean([right[true == k].mean() for k in range(3)]))
    assert [split.means["mean_class_recall"] for split in result.splits] == pytest.approx(recalls)
    assert result.score == pytest.approx(np.mean(recalls))
    assert result.deviations["mean_class_recall"] == pytest.approx(np.std(recalls, ddof=1))
    assert sum(count for _, _, count in result.confusion) == 21
    assert "standard deviation of 4 folds" in result_text(result)
    path = write(evaluation, machine)
    assert set(Result.read(path).classifiers) == {
        f"{result.name}-split{n}.safetensors" for n in (1, 2, 3, 4)
    }
    assert "standard deviation of 4 folds" in write_report(path, machine).read_text()
    assert forwards == []


def test_few_images_of_each_class_give_a_curve(
    described: tuple[Path, Machine], forwards: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    root, machine = described
    evaluation = evaluate(recipe(root, shots=[4, 1], draws=3), machine, Watch())
    result = evaluation.result
    few, more = result.shots
    assert (few.images, more.images) == (1, 4)
    assert (few.short, more.short) == (0, 1)  # of four cats one is tested
    assert len(few.scores) == len(more.scores) == len(result.splits) == len(evaluation.runs) == 3
    assert more.means["mean_class_recall"] == result.score
    assert more.deviations == result.deviations
    scores = [score for score in few.scores if score is not None]
    assert few.means["mean_class_recall"] == pytest.approx(np.mean(scores))
    assert few.deviations["mean_class_recall"] == pytest.approx(np.std(scores, ddof=1))
    assert [split.sizes for split in result.splits] == [{"train": 8, "val": 3, "test": 5}] * 3
    assert len({split.samples["test"].ids for split in evaluation.runs}) == 1
    assert "1 of 3 classes have fewer than 4 training images" in caplog.text
    warned = "\n".join(result.warnings)
    assert "1 of 3 classes have fewer than 4 training images, and train with all" in warned
    assert (
        "1 training image of each class: No C could be chosen, since no class can be measured "
        "on val; it is 1." in warned
    )
    assert forwards == []
    page = write_report(write(evaluation, machine), machine).read_text()
    assert "training images of each class (logarithmic)" in page


def test_one_value_of_c_is_that_of_every_draw(described: tuple[Path, Machine]) -> None:
    root, machine = described
    found = evaluate(recipe(root, shots=[1], draws=1, grid=[0.25]), machine, Watch()).result
    assert found.splits[0].c == (0.25,)
    assert found.deviations == {}


def test_balanced_classes_are_linearsvcs(described: tuple[Path, Machine]) -> None:
    root, machine = described
    wanted = recipe(root, class_weight="balanced", grid=[2.0])
    [run] = evaluate(wanted, machine, Watch()).runs
    train, val = (run.samples[part] for part in ("train", "val"))
    x = np.concatenate([train.x, val.x]).astype(np.float64)
    labels = np.concatenate([train.labels, val.labels])
    for k in range(3):
        theirs = LinearSVC(
            C=2.0, loss="hinge", class_weight="balanced", tol=1e-9, max_iter=10**6
        ).fit(x, labels[:, k] > 0)
        expected = theirs.decision_function(run.samples["test"].x.astype(np.float64))
        assert run.fitted.scores[:, k] == pytest.approx(expected, abs=2e-3)


def test_a_folder_with_parts_is_not_folded_unless_they_are_pooled(tmp_path: Path) -> None:
    for part, name, n in (
        (part, name, n) for part in ("train", "test") for name in "ab" for n in range(3)
    ):
        place = tmp_path / "photos" / part / name
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo(40, 40, seed=n)).save(place / f"{n}.png")
    machine = Machine(cache=tmp_path / "features")
    with pytest.raises(DatasetError, match=r"says itself which images are for training.*--pool"):
        evaluate(recipe(tmp_path / "photos", folds=3), machine, Watch())
    listed = "path,label,split\n" + "".join(
        f"photos/{part}/{name}/{n}.png,{name},{part}\n"
        for part in ("train", "test")
        for name in "ab"
        for n in range(3)
    )
    (tmp_path / "list.csv").write_text(listed)
    lists = recipe(tmp_path, folds=3, dataset=f"csv:{tmp_path}/list.csv")
    with pytest.raises(DatasetError, match=r"says itself which images are for training.*--pool"):
        evaluate(lists, machine, Watch())


def test_the_paper_has_neither_folds_nor_weights(described: tuple[Path, Machine]) -> None:
    root, machine = described
    changed = {"folds": 2, "class_weight": "balanced", "grid": [1.0]}
    result = evaluate(recipe(root, **changed), machine, Watch()).result
    kept = json.loads(result.model_dump_json())["recipe"]
    assert (kept["folds"], kept["class_weight"]) == (2, "balanced")
    reasons = substitutes(result)
    assert "balanced class weights" in reasons
    assert "folds of its images in the place of its splits" in reasons
