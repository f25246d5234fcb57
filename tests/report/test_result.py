from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from vggfeat.report.result import (
    ClassResult,
    Example,
    Result,
    ResultError,
    Search,
    SplitOutcome,
    StoreUsed,
    upgraded,
)
from vggfeat.report.text import result_text

ROOT = Path(__file__).resolve().parents[2]


def one_class(name: str, ap: float | None) -> ClassResult:
    return ClassResult(
        name=name,
        c=0.5,
        train=7,
        test=0 if ap is None else 5,
        values={"voc2007": ap, "voc2010": ap},
        note="no positive in test: no AP" if ap is None else None,
        curve=() if ap is None else ((0.2, 1.0), (0.6, 0.75), (1.0, ap)),
        best=(Example(id="a.jpg", score=1.5, label=1), Example(id="b.jpg", score=1.0, label=-1)),
        worst=(Example(id="broken.jpg", score=-2.0, label=1),),
        false_positives=(Example(id="b.jpg", score=1.0, label=-1),),
    )


def result(*classes: ClassResult) -> Result:
    store = StoreUsed(
        model="vgg16-thin",
        region="image",
        weights="random:0",
        weights_family="random",
        weights_sha256="w" * 64,
        path="features/x/descriptors.h5",
        fingerprint="f" * 64,
        row_fingerprint="r" * 64,
        recipe={"net": "vgg16-thin", "profile": "oxford"},
        images=24,
        bytes=50_000,
        mean_norms=(12.5,),
        unreadable=1,
        zero=0,
        cropped=0,
    )
    known = [ap for c in classes if (ap := c.values["voc2007"]) is not None]
    mean = float(np.mean(known))
    return Result(
        name="x",
        recipe={"dataset": "voc2007", "models": ["vgg16-thin"], "scales": [256]},
        recipe_fingerprint="e" * 64,
        kind="multi-label",
        ignored=0,
        stores=(store,),
        descriptor_size=512,
        splits=(
            SplitOutcome(
                sizes={"train": 8, "val": 6, "test": 10},
                search=Search(
                    measure="voc2007",
                    grid=(0.25, 0.5, 1.0),
                    means=(0.3, 0.4, None),
                    grown=False,
                    at_edge=False,
                    fits=9,
                    not_converged=0,
                    solver="dual",
                    gap=5e-4,
                ),
                c=(1.0,),
                means={},
                counted={"voc2007": len(known), "voc2010": len(known)},
            ),
        ),
        classes=classes,
        confusion=(),
        means={"voc2007": mean, "voc2010": mean},
        deviations={},
        measure="voc2007",
        score=mean,
        warnings=("vgg16-thin has random weights (random:0): a substitute.",),
        seconds={"fit": 1.25},
        versions={"torch": "2.15.0"},
    )


SAMPLE = result(one_class("cat", 0.3), one_class("dog", 0.9), one_class("$x^$", None))


def test_the_text_has_every_number(tmp_path: Path) -> None:
    text = result_text(SAMPLE)
    assert "cat" in text
    assert "30.00" in text
    assert "voc2007 60.00 over 2 of 3 classes; descriptors of 512 numbers" in text
    assert "\ntrain 8, val 6, test 10 images\n" in text
    assert "C by voc2007 on val: 0.25: 30.00, 0.5: 40.00, 1: –" in text
    assert "note: vgg16-thin has random weights (random:0): a substitute." in text


def test_the_text_says_how_far_to_trust_a_score() -> None:
    trust = {
        "means": {"voc2007": 0.1, "voc2010": 0.1, "mean_class_recall": 0.6, "accuracy": 0.7},
        "intervals": {"mean_class_recall": (0.5512, 0.65), "accuracy": (0.66, 0.735)},
        "chance": {"mean_class_recall": 0.3333, "accuracy": 0.35},
        "resamples": 1000,
        "measure": "mean_class_recall",
    }
    lines = result_text(SAMPLE.model_copy(update=trust)).splitlines()
    assert (
        "95 % interval 55.12 to 65.00, chance 33.33 (1,000 resamples of the test images)" in lines
    )
    assert "accuracy 70.00, 95 % interval 66.00 to 73.50, chance 35.00" in lines
    assert "95 % interval –, chance –" in result_text(SAMPLE).splitlines()


AUTHORS = {"model": "vgg19", "weights_family": "oxford", "weights": "a.npz"}
DIGEST = "1a2b3c4d" + "0" * 56


@pytest.mark.parametrize(
    ("store", "said"),
    [
        (AUTHORS, None),
        (
            AUTHORS | {"weights_rounded_to_bits": 8},
            "the authors' weights (a.npz, rounded to 8 bits)",
        ),
        (AUTHORS | {"weights_family": "torchvision"}, "torchvision's weights (a.npz)"),
        (AUTHORS | {"weights_family": "own"}, "the weights a.npz (sha256 1a2b3c4d…)"),
        (
            AUTHORS | {"weights_family": "own", "weights_rounded_to_bits": 8},
            "the weights a.npz, rounded to 8 bits (sha256 1a2b3c4d…)",
        ),
        ({"weights_family": "random"}, "random weights (random:0)"),
    ],
)
def test_what_stands_for_the_authors_weights_is_said(store: dict[str, str], said: str) -> None:
    used = SAMPLE.stores[0].model_copy(update={"weights_sha256": DIGEST, **store})
    assert used.substitute == said
    assert used.imitated == (store.get("weights_family") == "random")
    thin = used.model_copy(update={"model": "vgg19-thin"})
    assert thin.imitated


def test_results_of_format_3_are_read(tmp_path: Path) -> None:
    """It had a field for each measure of a class; the committed results are of that format."""
    folder = Path(__file__).resolve().parents[2] / "results"
    for path in sorted(folder.glob("*.json")):
        document = json.loads(path.read_bytes())
        if document["format_version"] != 3:
            continue
        result = Result.read(path)
        assert result.format_version == 6
        assert (result.intervals, result.chance, result.resamples) == ({}, {}, None)
        for record, old in zip(result.classes, document["classes"], strict=True):
            fields = {"voc2007": "voc2007", "voc2010": "voc2010", "mean_class_recall": "recall"}
            assert record.values == {name: old[field] for name, field in fields.items()}
        own = [record.values[result.measure] for record in result.classes]
        assert result.score == pytest.approx(np.mean([v for v in own if v is not None]))
        assert f"{100 * (result.score or 0):.2f}" in result_text(result)
        assert Result.read(result.write(tmp_path)) == result


def test_results_of_format_4_are_read(tmp_path: Path) -> None:
    old = json.loads(SAMPLE.model_dump_json()) | {"format_version": 4}
    for name in ("intervals", "chance", "resamples"):
        del old[name]
    for name in ("weights_rounded_to_bits", "manifest_sha256"):
        del old["stores"][0][name]
    for name in ("intervals", "chance"):
        del old["splits"][0][name]
    path = tmp_path / "old.json"
    path.write_text(json.dumps(old))
    assert Result.read(path) == SAMPLE


def test_results_of_format_5_are_read(tmp_path: Path) -> None:
    """It kept no date, no place of the run, no decisions and no shots."""
    old = json.loads(SAMPLE.model_dump_json()) | {"format_version": 5}
    del old["date"], old["ran_in"], old["shots"]
    for record in old["classes"]:
        for example in (*record["best"], *record["worst"], *record["false_positives"]):
            del example["true"], example["predicted"]
    path = tmp_path / "old.json"
    path.write_text(json.dumps(old))
    assert Result.read(path) == SAMPLE


def test_an_absent_result_names_the_nearest_one(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match=r"^No result '.*x\.json'\. `vggfeat svm` writes one\.$"):
        Result.read(tmp_path / "nowhere" / "x.json")
    for name in ("voc2007-vgg16", "caltech101-vgg19"):
        (tmp_path / f"{name}.json").write_text("{}")
    with pytest.raises(ResultError, match=r"Did you mean 'voc2007-vgg16'\? `vggfeat svm` writes"):
        Result.read(tmp_path / "voc207-vgg16.json")
    with pytest.raises(ResultError, match=r"zzz\.json'\. `vggfeat svm` writes one"):
        Result.read(tmp_path / "zzz.json")


def test_format_3_of_many_labels_has_no_recall(tmp_path: Path) -> None:
    old = json.loads(SAMPLE.model_dump_json()) | {"format_version": 3}
    for record in old["classes"]:
        record |= {**record.pop("values"), "recall": None}
    path = tmp_path / "old.json"
    path.write_text(json.dumps(old))
    assert Result.read(path) == SAMPLE


@pytest.mark.parametrize("document", [[], 7, None, {}, {"format_version": 3, "classes": [1]}])
def test_what_is_no_result_is_left_as_it_is(document: object) -> None:
    assert upgraded(document) is document


def test_a_result_is_read_back_and_rubbish_is_refused(tmp_path: Path) -> None:
    path = SAMPLE.write(tmp_path)
    assert Result.read(path) == SAMPLE
    path.write_text('{"name": "x"}')
    with pytest.raises(ResultError, match="is no result of vggfeat"):
        Result.read(path)
    with pytest.raises(ResultError, match="is the result of another recipe"):
        SAMPLE.write(tmp_path)
    path.write_text("rubbish")
    with pytest.raises(ResultError, match="is in the way"):
        SAMPLE.write(tmp_path)


@pytest.mark.parametrize("path", sorted((ROOT / "results").glob("caltech101-*.json")), ids=str)
def test_a_recipe_is_kept_to_the_letter(path: Path) -> None:
    """It is checked when a result of the format before is read, and nothing of it changes."""
    there = json.loads(path.read_bytes())["recipe"]
    again = json.loads(Result.read(path).model_dump_json())["recipe"]
    assert json.dumps(again) == json.dumps(there)
