from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from tests.conftest import photo
from tests.data.test_action import write_tree as write_action_tree
from tests.support.reference import devkit_average_precision
from vggfeat import child
from vggfeat.classify.confidence import RESAMPLES, chance, resamples
from vggfeat.classify.measures import MEASURES, average_precision
from vggfeat.data import caltech
from vggfeat.errors import (
    DatasetError,
    ImageReadError,
    Interrupted,
    RecipeError,
    StaleStoreError,
    StoreNotFoundError,
)
from vggfeat.extraction import budget
from vggfeat.extraction.workers import extract
from vggfeat.nets.architectures import architecture
from vggfeat.nets.vgg import DenseVgg
from vggfeat.recipe import Machine, Recipe
from vggfeat.report.result import Result, ResultError
from vggfeat.report.text import percent, result_text
from vggfeat.store.layout import StorePlan
from vggfeat.store.reader import DescriptorStore
from vggfeat.transfer.given import values_from_stores
from vggfeat.transfer.run import evaluate, write, write_report
from vggfeat.transfer.score import Evaluation
from vggfeat.watch import Watch
from vggfeat.weights.find import find_weights, pooled


def recipe(root: Path, **changed: object) -> Recipe:
    values: dict[str, object] = {
        "dataset": f"voc:{root}",
        "models": ["vgg16-thin"],
        "weights": ["random:0"],
        "scales": [224],
        "grid": [0.1, 1.0, 10.0],
    }
    return Recipe.build({**values, **changed}, "a test")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(cache=tmp_path / "features", results=tmp_path / "results", workers=2)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_second_extract_runs_no_forward_pass(
    tiny_voc: Path, machine: Machine, forwards: list[int]
) -> None:
    [path] = extract(recipe(tiny_voc), machine, Watch())
    assert sum(forwards) == 24 * 2
    before = digest(path)
    forwards.clear()
    assert extract(recipe(tiny_voc), machine, Watch()) == [path]
    assert forwards == []
    assert digest(path) == before


def test_what_a_kill_left_beside_a_complete_store_is_removed(
    tiny_voc: Path, machine: Machine, forwards: list[int]
) -> None:
    [path] = extract(recipe(tiny_voc), machine, Watch())
    (path.parent / "shards" / "000").mkdir(parents=True)
    (path.parent / "shards" / "000" / "part-000000.json").write_text("{}")
    forwards.clear()
    extract(recipe(tiny_voc), machine, Watch())
    assert sorted(p.name for p in path.parent.iterdir()) == [
        "descriptors.h5",
        "descriptors.json",
        "plan.json",
    ]
    assert forwards == []


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["descriptors.h5", "descriptors.json", "plan.json"])
def test_a_damaged_store_beside_it_disturbs_nobody(
    tiny_voc: Path, machine: Machine, forwards: list[int], victim: str
) -> None:
    [path] = extract(recipe(tiny_voc, limit=2), machine, Watch())
    damaged = path.with_name(victim)
    damaged.write_bytes(damaged.read_bytes()[:-3])
    forwards.clear()
    [whole] = extract(recipe(tiny_voc, limit=3), machine, Watch())
    assert sum(forwards) == 2 * 9  # nothing could be copied
    evaluate(recipe(tiny_voc, limit=3), machine, Watch())
    with pytest.raises(StoreNotFoundError):
        evaluate(recipe(tiny_voc, limit=4), machine, Watch())
    with DescriptorStore.open(whole) as store:
        assert store.verify().faults == ()


@pytest.mark.slow
@pytest.mark.parametrize("same_size", [False, True])
def test_after_one_image_changed_exactly_it_is_computed(
    tiny_voc: Path, machine: Machine, forwards: list[int], same_size: bool
) -> None:
    [first] = extract(recipe(tiny_voc), machine, Watch())
    forwards.clear()
    image = tiny_voc / "JPEGImages" / "000007.jpg"
    if same_size:
        content = bytearray(image.read_bytes())
        content[-20] ^= 1
        image.write_bytes(content)
    else:
        Image.fromarray(photo(90, 120, seed=77)).save(image)
    [second] = extract(recipe(tiny_voc), machine, Watch())
    assert second != first
    assert sum(forwards) == 2
    with DescriptorStore.open(first) as old, DescriptorStore.open(second) as new:
        before, after = old.read(), new.read()
    changed = [i for i in range(24) if not np.array_equal(before.norms[i], after.norms[i])]
    assert [after.image_id[i] for i in changed] == ["000007"]


@pytest.mark.slow
def test_after_a_scale_was_added_exactly_it_is_computed(
    tiny_voc: Path, machine: Machine, forwards: list[int]
) -> None:
    extract(recipe(tiny_voc), machine, Watch())
    forwards.clear()
    [path] = extract(recipe(tiny_voc, scales=[224, 256]), machine, Watch())
    assert sum(forwards) == 24 * 2
    with DescriptorStore.open(path) as store:
        assert store.scales == (224, 256)
        assert store.verify().faults == ()


@pytest.mark.slow
def test_fewer_images_cost_nothing_once_all_are_there(
    tiny_voc: Path, machine: Machine, forwards: list[int]
) -> None:
    extract(recipe(tiny_voc), machine, Watch())
    forwards.clear()
    extract(recipe(tiny_voc, limit=3), machine, Watch())
    assert forwards == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "changed",
    [
        {"weights": ["random:1"]},
        {"profile": "torchvision"},
        {"mirror": False},
        {"interpolation": "bicubic"},
        {"tap": "fc6"},
        {"models": ["vgg19-thin"]},
    ],
)
def test_whatever_changes_a_row_makes_another_store(
    tiny_voc: Path, machine: Machine, forwards: list[int], changed: dict[str, object]
) -> None:
    [first] = extract(recipe(tiny_voc, limit=2), machine, Watch())
    forwards.clear()
    [second] = extract(recipe(tiny_voc, limit=2, **changed), machine, Watch())
    assert second != first
    assert sum(forwards) == 6 * (1 if changed.get("mirror") is False else 2)


@pytest.mark.parametrize(
    "changed",
    [
        {"aggregate": "stack"},
        *(
            pytest.param(changed, marks=pytest.mark.slow)
            for changed in ({"loss": "squared_hinge"}, {"measure": "voc2010"}, {"seed": 4})
        ),
    ],
)
def test_what_only_the_svm_sees_needs_no_new_store(
    tiny_voc: Path, machine: Machine, forwards: list[int], changed: dict[str, object]
) -> None:
    [first] = extract(recipe(tiny_voc), machine, Watch())
    forwards.clear()
    assert extract(recipe(tiny_voc, **changed), machine, Watch()) == [first]
    assert forwards == []


def test_the_result_is_that_of_the_devkit(tiny_voc: Path, machine: Machine) -> None:
    wanted = recipe(tiny_voc, scales=[224, 256])
    extract(wanted, machine, Watch())
    evaluation = evaluate(wanted, machine, Watch())
    result, test = evaluation.result, evaluation.runs[0].samples["test"]
    for k, name in enumerate(("cat", "dog", "emu")):
        rows = (tiny_voc / f"ImageSets/Main/{name}_test.txt").read_text().split()
        truth = list(zip(rows[::2], map(int, rows[1::2]), strict=True))
        scores = list(zip(test.ids, evaluation.runs[0].fitted.scores[:, k].tolist(), strict=True))
        assert result.classes[k].name == name
        for year, measure in ((2007, "voc2007"), (2012, "voc2010")):
            ours = result.classes[k].values[measure]
            assert ours == pytest.approx(devkit_average_precision(truth, scores, year), abs=1e-12)
    each = [ap for c in result.classes if (ap := c.values["voc2007"]) is not None]
    assert result.score == result.means["voc2007"] == pytest.approx(np.mean(each))
    assert result.splits[0].sizes == {"train": 8, "val": 6, "test": 10}
    assert result.stores[0].weights == "random:0"
    assert any("random weights" in warning for warning in result.warnings)
    assert not any("cannot tell" in warning for warning in result.warnings)


def test_values_of_c_that_validation_cannot_tell_apart_are_named(
    tiny_voc: Path, machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    wanted = recipe(tiny_voc, grid=[1.0, 1.001])
    extract(wanted, machine, Watch())
    result = evaluate(wanted, machine, Watch()).result
    doubt = (
        "C: validation cannot tell these values apart (6 images): 1, 1.001; "
        "1 is taken, the nearest to 1."
    )
    assert doubt in result.warnings
    assert doubt in caplog.text
    assert not any("edge" in warning for warning in result.warnings)
    assert result.splits[0].c == (1.0,)


@pytest.mark.slow
def test_the_interval_is_that_of_resampled_test_images(tiny_voc: Path, machine: Machine) -> None:
    wanted = recipe(tiny_voc, seed=3)
    extract(wanted, machine, Watch())
    evaluation = evaluate(wanted, machine, Watch())
    result, [run] = evaluation.result, evaluation.runs
    labels, scores = run.samples["test"].labels, run.fitted.scores
    draws = resamples(len(labels), seed=3, split=1)
    for name in ("voc2007", "voc2010"):
        each = [
            MEASURES[name].of_all(scores[rows], labels[rows])[0]
            for rows in (np.repeat(np.arange(len(labels)), counts) for counts in draws.T)
        ]
        expected = tuple(np.nanquantile(each, [0.025, 0.975]).tolist())
        assert result.intervals[name] == pytest.approx(expected, abs=1e-12)
        assert result.splits[0].intervals == result.intervals
        by_chance = chance(MEASURES[name], scores, labels, 3)
        assert result.chance[name] == result.splits[0].chance[name] == by_chance
    assert result.resamples == RESAMPLES
    rows = [np.repeat(np.arange(len(labels)), counts) for counts in draws.T]
    cats = [average_precision(scores[r, 0], labels[r, 0], measure="voc2007") for r in rows]
    expected = tuple(np.nanquantile(cats, [0.025, 0.975]).tolist())
    assert result.classes[0].interval == pytest.approx(expected, abs=1e-12)
    again = evaluate(wanted, machine, Watch()).result
    assert (again.intervals, again.chance) == (result.intervals, result.chance)


def test_a_result_reads_back_as_it_was_written(tiny_voc: Path, machine: Machine) -> None:
    extract(recipe(tiny_voc), machine, Watch())
    evaluation = evaluate(recipe(tiny_voc), machine, Watch())
    path = write(evaluation, machine)
    written = Result.read(path)
    at_writing = {name: getattr(written, name) for name in ("classifiers", "date", "ran_in")}
    assert written == evaluation.result.model_copy(update=at_writing)
    with safe_open(path.with_suffix(".safetensors"), framework="np") as file:
        assert np.array_equal(file.get_tensor("coef"), evaluation.runs[0].fitted.classifier.coef)
    assert write(evaluate(recipe(tiny_voc), machine, Watch()), machine) == path


def test_a_result_of_another_recipe_is_never_overwritten(tiny_voc: Path, machine: Machine) -> None:
    extract(recipe(tiny_voc), machine, Watch())
    path = write(evaluate(recipe(tiny_voc, name="x"), machine, Watch()), machine)
    before = path.read_bytes()
    other = evaluate(recipe(tiny_voc, name="x", loss="squared_hinge"), machine, Watch())
    with pytest.raises(ResultError, match="result of another recipe"):
        write(other, machine)
    assert path.read_bytes() == before


@pytest.mark.slow
def test_the_same_recipe_on_other_images_replaces_its_result(
    tiny_voc: Path, machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    extract(recipe(tiny_voc), machine, Watch())
    path = write(evaluate(recipe(tiny_voc), machine, Watch()), machine)
    Image.fromarray(photo(90, 120, seed=77)).save(tiny_voc / "JPEGImages" / "000007.jpg")
    extract(recipe(tiny_voc), machine, Watch())
    caplog.set_level("INFO", "vggfeat")
    assert write(evaluate(recipe(tiny_voc), machine, Watch()), machine) == path
    assert "is replaced: the same recipe, on other images" in caplog.text


@pytest.mark.slow
def test_on_error_raise_also_refuses_a_store_that_holds_an_unreadable_image(
    tiny_voc: Path, machine: Machine
) -> None:
    (tiny_voc / "JPEGImages" / "000003.jpg").write_bytes(b"")
    extract(recipe(tiny_voc), machine, Watch())
    strict = machine.model_copy(update={"on_error": "raise"})
    with pytest.raises(ImageReadError, match="'000003' cannot be read: it is empty"):
        extract(recipe(tiny_voc), strict, Watch())


def test_without_a_store_the_command_that_makes_it_is_named(
    tiny_voc: Path, machine: Machine
) -> None:
    with pytest.raises(StoreNotFoundError, match=r"not there.*`vggfeat extract`"):
        evaluate(recipe(tiny_voc), machine, Watch())


@pytest.mark.slow
def test_a_store_with_more_scales_and_images_serves(
    tiny_voc: Path, machine: Machine, forwards: list[int]
) -> None:
    extract(recipe(tiny_voc, scales=[224, 256]), machine, Watch())
    forwards.clear()
    small = evaluate(recipe(tiny_voc, scales=[256], limit=5), machine, Watch())
    assert small.result.splits[0].sizes == {"train": 5, "val": 5, "test": 5}
    assert small.runs[0].samples["train"].x.shape == (5, 512)
    assert forwards == []


def test_a_store_alone_serves_without_images(tiny_voc: Path, machine: Machine) -> None:
    [path] = extract(recipe(tiny_voc), machine, Watch())
    with_images = evaluate(recipe(tiny_voc), machine, Watch())
    for image in (tiny_voc / "JPEGImages").iterdir():
        image.unlink()
    (tiny_voc / "JPEGImages").rmdir()
    given = {"dataset": f"voc:{tiny_voc}", "grid": (0.1, 1.0, 10.0)}
    completed = Recipe.build(values_from_stores([path], given), "a test")
    assert completed.scales == (224,)
    alone = evaluate(completed, machine, Watch(), [path])
    assert np.array_equal(alone.runs[0].fitted.scores, with_images.runs[0].fitted.scores)
    assert alone.result.means == with_images.result.means


@pytest.mark.slow
def test_a_store_of_other_settings_is_refused(tiny_voc: Path, machine: Machine) -> None:
    [path] = extract(recipe(tiny_voc), machine, Watch())
    asked = {"dataset": f"voc:{tiny_voc}", "models": ("vgg19-thin",), "mirror": False}
    with pytest.raises(
        StaleStoreError,
        match=r"net 'vgg16-thin' there, 'vgg19-thin' asked for; mirror True there, False asked for",
    ):
        values_from_stores([path], asked)


@pytest.mark.slow
def test_late_fusion_stacks_the_nets(tiny_voc: Path, machine: Machine) -> None:
    both = recipe(tiny_voc, models=["vgg16-thin", "vgg19-thin"], limit=4)
    assert len(extract(both, machine, Watch())) == 2
    evaluation = evaluate(both, machine, Watch())
    x = evaluation.runs[0].samples["train"].x
    assert x.shape == (4, 1024)
    assert np.allclose(np.linalg.norm(x[:, :512], axis=1), np.sqrt(0.5), atol=1e-6)
    assert [s.model for s in evaluation.result.stores] == ["vgg16-thin", "vgg19-thin"]


@pytest.mark.slow
def test_unreadable_images_leave_training_and_rank_last(tiny_voc: Path, machine: Machine) -> None:
    for number in (1, 2, 20):
        (tiny_voc / "JPEGImages" / f"{number:06d}.jpg").write_bytes(b"")
    [path] = extract(recipe(tiny_voc), machine, Watch())
    assert set(json.loads(path.with_suffix(".json").read_text())["unreadable"]) == {
        "000001",
        "000002",
        "000020",
    }
    evaluation = evaluate(recipe(tiny_voc), machine, Watch())
    assert len(evaluation.runs[0].samples["train"].readable.ids) == 6
    lost = evaluation.runs[0].samples["test"].ids.index("000020")
    assert np.isnan(evaluation.runs[0].fitted.scores[lost]).all()
    assert np.isfinite(np.delete(evaluation.runs[0].fitted.scores, lost, axis=0)).all()
    assert any("3 images are unreadable" in w for w in evaluation.result.warnings)
    assert all("000020" not in [e.id for e in c.best] for c in evaluation.result.classes)


@pytest.mark.slow
def test_a_class_without_positives_is_named_and_leaves_the_mean(
    tiny_voc: Path, machine: Machine
) -> None:
    path = tiny_voc / "ImageSets/Main/dog_test.txt"
    path.write_text(path.read_text().replace(" 1\n", "-1\n"))
    extract(recipe(tiny_voc), machine, Watch())
    result = evaluate(recipe(tiny_voc), machine, Watch()).result
    dog = result.classes[1]
    assert dog.values == {"voc2007": None, "voc2010": None}
    assert dog.note == "no positive in test: no AP"
    assert result.splits[0].counted == {"voc2007": 2, "voc2010": 2}
    others = [result.classes[k].values["voc2007"] for k in (0, 2)]
    assert result.score == pytest.approx(np.mean([v for v in others if v is not None]))


def test_scikit_learns_measure_can_be_the_experiments_own(tiny_voc: Path, machine: Machine) -> None:
    wanted = recipe(tiny_voc, measure="sklearn")
    extract(wanted, machine, Watch())
    evaluation = evaluate(wanted, machine, Watch())
    labels, scores = evaluation.runs[0].samples["test"].labels, evaluation.runs[0].fitted.scores
    expected = np.mean(
        [
            average_precision(scores[:, k], labels[:, k], measure="sklearn")
            for k in range(3)
            if (labels[:, k] > 0).any()
        ]
    )
    assert evaluation.result.score == pytest.approx(expected)


def test_class_recall_needs_one_class_for_each_image(tiny_voc: Path) -> None:
    with pytest.raises(RecipeError, match="any number of classes"):
        recipe(tiny_voc, measure="mean_class_recall")


def several_labels(tiny_voc: Path) -> Path:
    """Write a list of the tree's images; every third has two labels, every fifth none."""
    path = tiny_voc / "JPEGImages" / "list.csv"
    rows = []
    for n in range(1, 25):
        labels = "" if n % 5 == 0 else "cat|dog" if n % 3 == 0 else ("cat", "dog")[n % 2]
        part = "train" if n < 9 else "val" if n < 15 else "test"
        rows.append(f"{n:06d}.jpg,{labels},{part}\n")
    path.write_text("path,label,split\n" + "".join(rows))
    return path


def test_a_list_of_several_labels_is_scored_without_being_told_how(
    tiny_voc: Path, machine: Machine
) -> None:
    wanted = recipe(tiny_voc, dataset=f"csv:{several_labels(tiny_voc)}")
    extract(wanted, machine, Watch())
    evaluation = evaluate(wanted, machine, Watch())
    labels, scores = evaluation.runs[0].samples["test"].labels, evaluation.runs[0].fitted.scores
    each = [average_precision(scores[:, k], labels[:, k], measure="voc2007") for k in range(2)]
    assert evaluation.result.score == pytest.approx(np.mean(each))
    told = recipe(tiny_voc, dataset=wanted.dataset, measure="voc2007")
    assert told.file_name() == wanted.file_name()


def test_class_recall_of_several_labels_is_refused_before_anything_is_computed(
    tiny_voc: Path, machine: Machine, forwards: list[int]
) -> None:
    path = several_labels(tiny_voc)
    wanted = recipe(tiny_voc, dataset=f"csv:{path}", measure="mean_class_recall")
    with pytest.raises(RecipeError, match=r"list.csv'. Its images have any number of classes"):
        extract(wanted, machine, Watch())
    assert forwards == []
    assert not machine.cache.exists()


def test_a_tree_of_2012_is_scored_by_the_area(tiny_voc: Path, machine: Machine) -> None:
    root = tiny_voc.rename(tiny_voc.with_name("VOC2012"))
    extract(recipe(root), machine, Watch())
    evaluation = evaluate(recipe(root), machine, Watch())
    labels, scores = evaluation.runs[0].samples["test"].labels, evaluation.runs[0].fitted.scores
    each = [average_precision(scores[:, k], labels[:, k], measure="voc2010") for k in range(3)]
    assert evaluation.result.measure == evaluation.result.recipe.measure == "voc2010"
    assert evaluation.result.score == pytest.approx(np.mean(each))


def test_a_folder_is_scored_by_mean_class_recall(tmp_path: Path, machine: Machine) -> None:
    root = tmp_path / "photos"
    for k, name in enumerate(("red", "green")):
        (root / name).mkdir(parents=True)
        for n in range(6):
            pixels = photo(90, 100, seed=n)
            pixels[:, :, k] = 255
            Image.fromarray(pixels).save(root / name / f"{n}.jpg")
    wanted = Recipe.build(
        {
            "dataset": f"folder:{root}",
            "models": ["vgg16-thin"],
            "weights": ["random:0"],
            "scales": [224],
        },
        "a test",
    )
    extract(wanted, machine, Watch())
    result = evaluate(wanted, machine, Watch()).result
    assert result.measure == "mean_class_recall"
    assert result.score == result.means["accuracy"] == 1.0
    assert [c.values["mean_class_recall"] for c in result.classes] == [1.0, 1.0]
    counted = evaluate(wanted.model_copy(update={"measure": "accuracy"}), machine, Watch()).result
    assert (counted.measure, counted.score) == ("accuracy", 1.0)
    assert counted.splits[0].search.measure == "accuracy"
    assert counted.intervals["accuracy"] == counted.classes[0].interval == (1.0, 1.0)
    assert "mean_class_recall 100.00, 95 % interval 100.00 to 100.00" in result_text(counted)


@pytest.fixture
def three_splits(
    tmp_path: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> tuple[Evaluation, Machine]:
    small = replace(caltech._PROTOCOLS["caltech101"], classes=3, train=5, test=4)
    monkeypatch.setitem(caltech._PROTOCOLS, "caltech101", small)
    for k, label in enumerate(("ant", "bee", "cat")):
        folder = tmp_path / "data" / "101_ObjectCategories" / label
        folder.mkdir(parents=True)
        for n in range(8):
            pixels = photo(90, 100, seed=10 * k + n)
            pixels[:, :, k] //= 2  # not all that easy, so that the splits differ
            Image.fromarray(pixels).save(folder / f"image_{n:04d}.jpg")
    machine = machine.model_copy(update={"data_root": tmp_path / "data"})
    defaults: dict[str, object] = {"aggregate": "stack", "measure": "mean_class_recall"}
    wanted = recipe(tmp_path, dataset="caltech101", grid=[1.0], **defaults)
    extract(wanted, machine, Watch())
    return evaluate(wanted, machine, Watch()), machine


def test_the_interval_of_several_splits_is_that_of_their_mean(
    three_splits: tuple[Evaluation, Machine],
) -> None:
    evaluation, _ = three_splits
    result = evaluation.result
    for name in ("mean_class_recall", "accuracy"):
        each = []
        for number, run in enumerate(evaluation.runs, 1):
            labels, scores = run.samples["test"].labels, run.fitted.scores
            draws = resamples(len(labels), seed=0, split=number)
            rows = [np.repeat(np.arange(len(labels)), counts) for counts in draws.T]
            each.append([MEASURES[name].of_all(scores[r], labels[r])[0] for r in rows])
        expected = tuple(np.quantile(np.mean(each, axis=0), [0.025, 0.975]).tolist())
        assert result.intervals[name] == pytest.approx(expected, abs=1e-12)
        assert result.chance[name] == pytest.approx(1 / 3, abs=0.05)
    right = [
        np.mean(run.fitted.scores.argmax(1) == run.samples["test"].labels.argmax(1))
        for run in evaluation.runs
    ]
    assert result.means["accuracy"] == pytest.approx(np.mean(right))
    assert result.deviations["accuracy"] == pytest.approx(np.std(right, ddof=1))
    assert "accuracy" not in result.classes[0].values


def test_several_splits_share_a_store_and_give_mean_and_deviation(
    three_splits: tuple[Evaluation, Machine],
) -> None:
    evaluation, machine = three_splits
    result = evaluation.result
    assert len(evaluation.runs) == len(result.splits) == 3
    recalls, by_class = [], []
    for run in evaluation.runs:
        true = run.samples["test"].labels.argmax(axis=1)
        right = run.fitted.scores.argmax(axis=1) == true
        each = [right[true == k].mean() for k in range(3)]
        by_class.append(each)
        recalls.append(np.mean(each))
    assert [split.means["mean_class_recall"] for split in result.splits] == pytest.approx(recalls)
    assert result.score == pytest.approx(np.mean(recalls))
    assert result.deviations["mean_class_recall"] == pytest.approx(np.std(recalls) * 1.5**0.5)
    recalls = [c.values["mean_class_recall"] for c in result.classes]
    assert recalls == pytest.approx(np.mean(by_class, axis=0))
    assert [split.sizes for split in result.splits] == [{"train": 12, "val": 3, "test": 9}] * 3
    [store] = result.stores
    assert store.images == 24
    text, spread = result_text(result), result.deviations["mean_class_recall"]
    assert f" {percent(result.score)} ± {percent(spread)} over 3 of 3 classes, mean ±" in text
    assert f"± {100 * spread:.1f}" in write_report(write(*three_splits), machine).read_text()


def test_a_result_names_its_classifiers_and_counts_what_was_taken_for_what(
    three_splits: tuple[Evaluation, Machine],
) -> None:
    evaluation, machine = three_splits
    result, path = evaluation.result, write(*three_splits)
    written = Result.read(path)
    at_writing = {name: getattr(written, name) for name in ("classifiers", "date", "ran_in")}
    assert written == result.model_copy(update=at_writing)
    assert {path.parent / name for name in written.classifiers} == set(
        machine.results.glob("*-split?.safetensors")
    )
    for name, digest in written.classifiers.items():
        assert hashlib.sha256((path.parent / name).read_bytes()).hexdigest() == digest
    counted = np.zeros((3, 3), int)
    for run in evaluation.runs:
        test, guesses = run.samples["test"], run.fitted.scores.argmax(axis=1)
        np.add.at(counted, (test.labels.argmax(axis=1), guesses), 1)
    pairs = [(int(t), int(g), int(counted[t, g])) for t, g in np.argwhere(counted)]
    assert list(result.confusion) == pairs


@pytest.mark.slow
def test_persons_are_described_by_their_boxes_and_their_images(
    tmp_path: Path, machine: Machine
) -> None:
    home = write_action_tree(tmp_path / "data") / "VOCdevkit" / "VOC2012"
    for n, path in enumerate(sorted((home / "JPEGImages").iterdir())):
        Image.fromarray(photo(90, 101, seed=n)).save(path, quality=95)
    machine = machine.model_copy(update={"data_root": tmp_path / "data"})
    wanted = recipe(tmp_path, dataset="voc2012-action", grid=[1.0])
    images, path = extract(wanted, machine, Watch())
    for k, person in enumerate(("2010_000002/1", "2010_000002/3")):
        image = Image.open(home / "JPEGImages" / "2010_000002.jpg")
        box = ((9, 0, 50, 80), (45, 19, 101, 90))[k]  # the second reaches the right border
        alone = tmp_path / f"alone{k}"
        alone.mkdir()
        image.crop(box).save(alone / "crop.png")
        [own] = extract(recipe(alone, dataset=f"folder:{alone}"), machine, Watch())
        with DescriptorStore.open(path) as persons, DescriptorStore.open(own) as crops:
            ours, theirs = persons.read([person]), crops.read(["crop.png"])
            assert np.array_equal(ours.descriptors, theirs.descriptors)
    evaluation = evaluate(wanted, machine, Watch())
    assert evaluation.result.score is None  # the labels of test are not public
    assert evaluation.runs[0].fitted.scores.shape == (3, 10)
    by_image, by_box = evaluation.result.stores
    assert (by_image.region, by_box.region) == ("image", "box")
    test = evaluation.runs[0].samples["test"]
    with DescriptorStore.open(images) as whole, DescriptorStore.open(path) as boxes:
        assert by_image.images == len(whole) < len(boxes) == by_box.images
        blocks = [whole.read([i.partition("/")[0] for i in test.ids]), boxes.read(test.ids)]
        halves = [rows.descriptors[:, 0] / np.sqrt(2) for rows in blocks]
    assert np.abs(test.x - np.concatenate(halves, axis=1)).max() < 1e-6
    notes = {c.name: c.note for c in evaluation.result.classes}
    assert notes["jumping"] == "no positive in test: no AP"
    for regions, width in ((("image", "box"), 101), (("box",), 9)):  # a box alone is narrower
        altered_recipe = evaluation.result.recipe.model_copy(update={"regions": regions})
        changed = {"recipe": altered_recipe}
        altered = evaluation.result.model_copy(update=changed).write(machine.results)
        page = write_report(altered, machine).read_text()
        widths = [int(w) for w in re.findall(r'<image id="p\d+" width="(\d+)"', page)]
        assert widths
        assert max(widths) == width


def test_a_flat_folder_has_descriptors_but_no_svm(tmp_path: Path, machine: Machine) -> None:
    root = tmp_path / "flat"
    root.mkdir()
    Image.fromarray(photo(90, 100, seed=1)).save(root / "only.png")
    wanted = recipe(root, dataset=f"folder:{root}")
    [path] = extract(wanted, machine, Watch())
    with DescriptorStore.open(path) as store:
        assert store.ids == ("only.png",)
    with pytest.raises(DatasetError, match="has no labels"):
        evaluate(wanted, machine, Watch())


class Stopping(Watch):
    """Asks to stop once `after` shards' worth of images are done."""

    def __init__(self, after: int) -> None:
        self.checks = 0
        self.after = after

    def stop_signal(self) -> int | None:
        return 15 if self.checks >= self.after else None

    def check(self, resume: str) -> None:
        self.checks += 1
        super().check(resume)


@pytest.mark.slow
def test_a_stopped_run_resumes_and_ends_in_the_same_bytes(
    tiny_voc: Path, machine: Machine, forwards: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def small(*_: Any) -> int:  # noqa: ANN401  (as the original)
        return 8

    monkeypatch.setattr(budget, "shard_rows", small)
    [quiet] = extract(recipe(tiny_voc), machine, Watch())
    other = machine.model_copy(update={"cache": machine.cache.with_name("second")})
    forwards.clear()
    with pytest.raises(Interrupted, match=r"Stopped by SIGTERM.*resume") as stopped:
        extract(recipe(tiny_voc), other, Stopping(after=1))
    assert stopped.value.exit_code == 143
    first = sum(forwards)
    [resumed] = extract(recipe(tiny_voc), other, Watch())
    assert digest(resumed) == digest(quiet)
    with DescriptorStore.open(resumed) as store:
        assert store.verify().faults == ()
    assert first < 48 <= sum(forwards)


@pytest.mark.slow
def test_the_search_stops_too(tiny_voc: Path, machine: Machine) -> None:
    extract(recipe(tiny_voc), machine, Watch())
    with pytest.raises(Interrupted, match="Nothing was written"):
        evaluate(recipe(tiny_voc), machine, Stopping(after=1))


@pytest.mark.slow
def test_a_plan_fixes_what_may_change_the_last_bits(tiny_voc: Path, machine: Machine) -> None:
    held = {}
    for precision in ("float32", "bfloat16"):
        wanted = recipe(tiny_voc, limit=1, precision=precision)
        [path] = extract(wanted, machine, Watch())
        held[precision] = json.loads(path.with_name("plan.json").read_text())["execution"]
    assert held["float32"] == {"device": "cpu", "processor": platform.machine()}
    assert held["bfloat16"] == held["float32"] | {
        "threads": torch.get_num_threads(),
        "window_pixels": 1 << 23,
        "batch_pixels": 1 << 20,
        "canvas": 32,
    }


def rows_of(path: Path, ids: Sequence[str]) -> bytes:
    with DescriptorStore.open(path) as store:
        rows = store.read(ids)
    return rows.descriptors.tobytes() + rows.norms.tobytes()


@pytest.mark.slow
@pytest.mark.parametrize(
    "elsewhere",
    [(8, {"memory": "100MB", "workers": 1}, 2), (24, {"memory": "5GB", "workers": 5}, 3)],
)
def test_stores_of_one_recipe_have_the_same_rows_wherever_they_were_made(
    tiny_voc: Path,
    machine: Machine,
    threads: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
    elsewhere: tuple[int, dict[str, object], int],
) -> None:
    shard, own, limit = elsewhere
    [whole] = extract(recipe(tiny_voc, scales=[224, 256]), machine, Watch())
    # a cache of its own: nothing can be copied
    other = machine.model_copy(update={**own, "cache": machine.cache.with_name("second")})
    monkeypatch.setattr(budget, "shard_rows", lambda *_: shard)
    threads(3)
    [part] = extract(recipe(tiny_voc, scales=[224, 256], limit=limit), other, Watch())
    with DescriptorStore.open(part) as store:
        ids = store.ids
    assert len(ids) == 3 * limit
    assert rows_of(part, ids) == rows_of(whole, ids)


_PLANNED_BEFORE = {"threads": 1, "window_pixels": 1 << 23, "batch_pixels": 1 << 17, "canvas": None}


@pytest.mark.slow
def test_a_store_that_an_earlier_version_planned_is_resumed(
    tiny_voc: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "shard_rows", lambda *_: 8)
    [quiet] = extract(recipe(tiny_voc), machine, Watch())
    other = machine.model_copy(update={"cache": machine.cache.with_name("second")})
    with pytest.raises(Interrupted):
        extract(recipe(tiny_voc), other, Stopping(after=1))
    [path] = other.cache.glob("*/plan.json")
    plan = json.loads(path.read_text())
    plan["execution"] |= _PLANNED_BEFORE
    path.write_text(json.dumps(plan))
    [resumed] = extract(recipe(tiny_voc), other, Watch())
    assert digest(resumed) == digest(quiet)
    assert json.loads(path.read_text()) == plan


@pytest.mark.parametrize(("precision", "obeyed"), [("float32", False), ("bfloat16", True)])
def test_a_plan_is_obeyed_where_it_decides_bits(
    tiny_voc: Path, machine: Machine, precision: str, *, obeyed: bool
) -> None:
    wanted = recipe(tiny_voc, limit=1, precision=precision)
    [path] = extract(wanted, machine, Watch())
    plan = StorePlan.read(path.parent)
    before = replace(plan, execution={**plan.execution, "threads": 77, "batch_pixels": 99})
    found = budget.execution_on(before, machine)
    assert (found["threads"] == 77) is obeyed
    assert (found["batch_pixels"] == 99) is obeyed


def test_what_is_free_decides_no_bit(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Free memory bounds only batches whose size changes no bit; `--memory` bounds any."""
    sysconf, free = os.sysconf, {"SC_AVPHYS_PAGES": 1000}
    monkeypatch.setattr(os, "sysconf", lambda name: free.get(name) or sysconf(name))
    monkeypatch.setitem(free, "SC_PHYS_PAGES", 1 << 22)
    cases: list[tuple[str, str]] = [
        ("vgg16", "float32"),
        ("vgg16", "bfloat16"),
        ("vgg11-lrn", "float32"),
    ]
    fewest, most = 1 << 16, 1 << 20
    found = [budget.execution_of(p, machine, architecture(net)) for net, p in cases]
    assert [execution["batch_pixels"] for execution in found] == [fewest, most, most]
    small = machine.model_copy(update={"memory": "100MB"})
    found = [budget.execution_of(p, small, architecture(net)) for net, p in cases]
    assert [execution["batch_pixels"] for execution in found] == [fewest] * 3


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bfloat16", pytest.param("int8", marks=pytest.mark.slow)])
def test_a_lower_precision_is_another_store_with_nearly_the_same_rows(
    tiny_voc: Path, machine: Machine, precision: str
) -> None:
    if precision == "int8":
        pytest.importorskip("openvino", reason='pip install "vggfeat[int8]"')
    exact, reduced = (
        extract(recipe(tiny_voc, precision=p), machine, Watch())[0] for p in ("float32", precision)
    )
    assert exact.parent != reduced.parent
    with DescriptorStore.open(exact) as one, DescriptorStore.open(reduced) as other:
        a, b = one.read(one.ids), other.read(one.ids)
    cosine = (a.descriptors * b.descriptors).sum(axis=2)
    assert 1e-9 < (1 - cosine).max() < 1e-3
    again = extract(recipe(tiny_voc, precision=precision), machine, Watch())
    assert again == [reduced]


@pytest.mark.slow
def test_several_devices_fill_one_store_with_the_same_rows(
    tiny_voc: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "shard_rows", lambda seconds, size: 2)  # twelve shards
    [alone] = extract(recipe(tiny_voc), machine, Watch())
    both = machine.model_copy(update={"device": "cpu,cpu", "cache": machine.cache / "both"})
    [together] = extract(recipe(tiny_voc), both, Watch())
    assert digest(together) == digest(alone)
    several = recipe(tiny_voc, tap=["pool5", "fc7", "fc6"])
    again = both.model_copy(update={"cache": machine.cache / "several"})
    stores = extract(several, machine, Watch())  # fc7 is there
    assert list(map(digest, extract(several, again, Watch()))) == list(map(digest, stores))


@pytest.mark.slow
def test_a_helper_can_do_all_of_the_work(tiny_voc: Path, machine: Machine) -> None:
    work = [recipe(tiny_voc).model_dump_json(), machine.model_dump_json()]
    assert child.start("vggfeat.extraction.helper", work).wait() == 0
    [path] = extract(recipe(tiny_voc), machine, Watch())
    other = machine.model_copy(update={"cache": machine.cache / "other"})
    assert digest(path) == digest(extract(recipe(tiny_voc), other, Watch())[0])
    broken = json.dumps([recipe(tiny_voc / "no").model_dump_json(), machine.model_dump_json()])
    done = subprocess.run(
        child.command("vggfeat.extraction.helper"),
        env=child.environment(),
        input=broken,
        text=True,
        check=False,
        capture_output=True,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("vggfeat: ")


def test_pools_round_as_the_recipe_says(tmp_path: Path, machine: Machine) -> None:
    """224×301: pool5 is 7×10 cells by Caffe's rule and 7×9 by torch's."""
    root = tmp_path / "photos"
    root.mkdir()
    Image.fromarray(photo(224, 301, seed=1)).save(root / "only.png")
    found = {}
    for pooling in (None, "ceil", "floor"):
        values = {"models": ("vgg16-thin",), "weights": ("random:0",), "scales": (224,)}
        wanted = Recipe.build({"dataset": f"folder:{root}", "pooling": pooling, **values}, "a test")
        [path] = extract(wanted, machine, Watch())
        with DescriptorStore.open(path) as store:
            found[pooling] = store.read().descriptors[0, 0] * store.read().norms[0, 0]
            assert store.recipe.get("pooling") == ("floor" if pooling == "floor" else None)
    for pooling, ceil in (("ceil", True), ("floor", False)):
        net = architecture("vgg16-thin")
        weights = pooled(find_weights(net, "random:0"), "ceil" if ceil else "floor")
        dense = DenseVgg(net, weights.load(), weights.profile, "fc7")
        image = torch.from_numpy(photo(224, 301, seed=1))
        with torch.inference_mode():
            both = [dense(one[None].contiguous()) for one in (image, image.flip(1))]
        expected = torch.stack(both).mean(dim=0)[0].numpy()
        error = np.linalg.norm(found[pooling] - expected) / np.linalg.norm(expected)
        assert error <= 1e-5
    assert np.array_equal(found[None], found["ceil"])
    assert not np.allclose(found["ceil"], found["floor"], rtol=1e-2)


def test_rows_of_boxes_are_not_taken_for_whole_images(tmp_path: Path, machine: Machine) -> None:
    home = write_action_tree(tmp_path / "data") / "VOCdevkit" / "VOC2012"
    for n, path in enumerate(sorted((home / "JPEGImages").iterdir())):
        Image.fromarray(photo(90, 101, seed=n)).save(path, quality=95)
    machine = machine.model_copy(update={"data_root": tmp_path / "data"})
    [boxes] = extract(recipe(tmp_path, dataset="voc2012-action", regions=["box"]), machine, Watch())
    [images] = extract(recipe(tmp_path, dataset=f"folder:{home / 'JPEGImages'}"), machine, Watch())
    with DescriptorStore.open(boxes) as persons, DescriptorStore.open(images) as whole:
        box, image = persons.read(["2010_000002/1"]), whole.read(["2010_000002.jpg"])
        assert np.array_equal(box.image_sha256, image.image_sha256)
        assert not np.allclose(box.descriptors, image.descriptors, atol=1e-3)
        assert persons.row_fingerprint != whole.row_fingerprint
