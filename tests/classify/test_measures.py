from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from tests.support.reference import devkit_average_precision
from vggfeat.classify.measures import (
    MEASURES,
    RECALL_LEVELS,
    Measure,
    average_precision,
    mean_average_precision,
    mean_class_recall,
    measures_for,
    precision_recall,
    predicted_class,
)
from vggfeat.data import open_dataset
from vggfeat.errors import RecipeError
from vggfeat.extraction.workers import extract
from vggfeat.recipe import Machine, Recipe
from vggfeat.report.result import Result
from vggfeat.report.tables import build_tables, read_results
from vggfeat.report.text import percent, result_text
from vggfeat.transfer.run import evaluate, write, write_report
from vggfeat.watch import Watch

Devkits = Literal["voc2007", "voc2010"]
YEARS: dict[Devkits, int] = {"voc2007": 2007, "voc2010": 2012}


def by_devkit(scores: np.ndarray, labels: np.ndarray, measure: Devkits) -> float:
    truth = [(f"{i}", int(label)) for i, label in enumerate(labels)]
    results = [(f"{i}", float(s)) for i, s in enumerate(scores) if not np.isnan(s)]
    return devkit_average_precision(truth, results, YEARS[measure])


@pytest.mark.parametrize(
    ("scores", "labels", "voc2007", "voc2010"),
    [
        # precision 1 up to recall 1/2, then 2/3: six levels (0 … 0.5) at 1, five at 2/3
        ([0.9, 0.8, 0.7], [1, -1, 1], (6 + 5 * 2 / 3) / 11, (1 + 2 / 3) / 2),
        ([3.0, 2.0, 1.0], [1, 1, -1], 1.0, 1.0),
        ([3.0, 2.0, 1.0], [-1, -1, 1], 1 / 3, 1 / 3),
        ([3.0, 2.0, 1.0], [0, 1, -1], 1.0, 1.0),  # a leading difficult image counts as nothing
    ],
)
def test_hand_cases(scores: list[float], labels: list[int], voc2007: float, voc2010: float) -> None:
    s, y = np.array(scores), np.array(labels)
    assert average_precision(s, y, measure="voc2007") == pytest.approx(voc2007, abs=1e-15)
    assert average_precision(s, y, measure="voc2010") == pytest.approx(voc2010, abs=1e-15)


def test_the_recall_levels_are_matlabs_not_numpys() -> None:
    assert RECALL_LEVELS[3] == 0.30000000000000004
    assert RECALL_LEVELS[6] == 0.6
    assert np.arange(0, 1.1, 0.1)[6] != 0.6
    # five positives: a recall of exactly 3/5 must pass the level 0.6
    labels = np.array([1, 1, 1, *[-1] * 100, 1, 1])
    scores = -np.arange(len(labels), dtype=float)
    low = 5 / 105
    assert average_precision(scores, labels, measure="voc2007") == pytest.approx(
        (7 + 4 * low) / 11, abs=1e-12
    )


def test_ties_keep_the_order_of_the_ground_truth() -> None:
    equal = np.zeros(2)
    assert average_precision(equal, np.array([1, -1]), measure="voc2010") == 1.0
    assert average_precision(equal, np.array([-1, 1]), measure="voc2010") == 0.5


@pytest.mark.parametrize("absent", [np.nan, -np.inf])
def test_an_absent_score_ranks_last(absent: float) -> None:
    scores = np.array([absent, -1e300, -2e300])
    assert average_precision(scores, np.array([1, -1, -1]), measure="voc2010") == 1 / 3


def test_no_positive_is_no_number() -> None:
    assert np.isnan(average_precision(np.array([1.0, 2.0]), np.array([-1, 0])))


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match=r"\(3,\) and labels \(2,\)"):
        average_precision(np.zeros(3), np.ones(2, int))


def test_an_unknown_measure_names_the_nearest() -> None:
    with pytest.raises(RecipeError, match="Did you mean 'voc2007'"):
        average_precision(np.zeros(1), np.ones(1, int), measure="voc2006")  # type: ignore[arg-type]  # on purpose


@st.composite
def rankings(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    count = draw(st.integers(1, 40))
    label = st.sampled_from([1, 1, -1, -1, -1, 0])
    labels = draw(st.lists(label, min_size=count, max_size=count).filter(lambda y: 1 in y))
    score = st.one_of(st.integers(-3, 3).map(float), st.floats(-1, 1), st.just(float("nan")))
    scores = draw(st.lists(score, min_size=count, max_size=count))
    return np.array(scores), np.array(labels, dtype=np.int8)


@pytest.mark.slow
@given(rankings(), st.sampled_from(["voc2007", "voc2010"]))
@settings(max_examples=300, deadline=None)
def test_any_ranking_equals_the_devkit(
    ranking: tuple[np.ndarray, np.ndarray],
    measure: Devkits,
) -> None:
    ours = average_precision(*ranking, measure=measure)
    assert ours == pytest.approx(by_devkit(*ranking, measure), abs=1e-12)


@given(rankings())
@settings(max_examples=100, deadline=None)
def test_a_monotone_transform_of_the_scores_changes_nothing(
    ranking: tuple[np.ndarray, np.ndarray],
) -> None:
    scores, labels = ranking
    moved = np.round(scores, 6) * 4 + 1  # exact in binary after the rounding
    assert average_precision(moved, labels) == average_precision(np.round(scores, 6), labels)


@given(rankings())
@settings(max_examples=100, deadline=None)
def test_the_sklearn_measure_is_sklearns(ranking: tuple[np.ndarray, np.ndarray]) -> None:
    scores, labels = ranking
    scores = np.where(np.isnan(scores), -10, scores)
    kept = labels != 0
    theirs = average_precision_score(labels[kept] > 0, scores[kept])
    assert average_precision(scores, labels, measure="sklearn") == pytest.approx(theirs, abs=1e-12)


@pytest.mark.parametrize("measure", ["voc2007", "voc2010"])
@pytest.mark.parametrize(
    "scores_are",
    ["random", *(pytest.param(name, marks=pytest.mark.slow) for name in ("tied", "missing"))],
)
def test_the_official_lists_equal_the_devkit(
    shared: Path, measure: Devkits, scores_are: str
) -> None:
    dataset = open_dataset("voc2007", shared / "voc2007-imagesets", stored_ids=())
    labels = dataset.splits[0].test.labels
    random = np.random.default_rng(7)
    scores = random.normal(size=labels.shape) + 0.5 * labels
    if scores_are == "tied":
        scores = np.round(scores)
    if scores_are == "missing":
        scores[random.random(labels.shape) < 0.1] = np.nan
    mean, each = mean_average_precision(scores, labels, measure=measure)
    theirs = [by_devkit(scores[:, k], labels[:, k], measure) for k in range(20)]
    assert np.abs(each - theirs).max() <= 1e-12
    assert mean == pytest.approx(np.mean(theirs), abs=1e-12)


def test_the_mean_leaves_out_classes_without_a_positive_or_a_score() -> None:
    labels = np.array([[1, -1, 1], [-1, -1, -1]])
    scores = np.array([[1.0, 1.0, np.nan], [0.0, 0.0, np.nan]])
    mean, each = mean_average_precision(scores, labels, measure="voc2007")
    assert mean == 1.0
    assert np.isnan(each).tolist() == [False, True, True]


def test_precision_and_recall_after_each_image() -> None:
    recall, precision = precision_recall(np.array([3.0, 2.0, 1.0]), np.array([1, -1, 1]))
    assert recall.tolist() == [0.5, 0.5, 1.0]
    assert precision.tolist() == [1.0, 0.5, 2 / 3]


def test_mean_class_recall_weighs_every_class_alike() -> None:
    true = np.array([0, 0, 0, 0, 1, 2])
    predicted = np.array([0, 0, 0, 1, 1, -1])
    assert mean_class_recall(predicted, true) == pytest.approx((0.75 + 1 + 0) / 3)


def test_every_measure_is_the_mean_of_its_classes_or_images() -> None:
    random = np.random.default_rng(4)
    true = random.integers(0, 3, 50)
    labels = np.where(true[:, None] == np.arange(4), 1, -1)  # the last class does not occur
    scores = labels[:, :4] + random.normal(size=(50, 4))
    scores[3] = np.nan
    for name, measure in MEASURES.items():
        assert measure.name == name
        assert len(measure.short) <= 8
        mean, each = measure.of_all(scores, labels)
        assert np.isnan(each).tolist() == [False, False, False, True]
        weights = np.bincount(true) if name == "accuracy" else None
        assert mean == pytest.approx(np.average(each[:3], weights=weights))
    recall = MEASURES["mean_class_recall"].of_all(scores, labels)[0]
    assert recall == mean_class_recall(predicted_class(scores), true)
    ap = MEASURES["voc2010"].of_classes(scores, labels)[1]
    assert ap == average_precision(scores[:, 1], labels[:, 1], measure="voc2010")


def test_labels_and_the_experiment_say_what_is_measured() -> None:
    def names(*, one_class: bool, own: str) -> list[str]:
        return [measure.name for measure in measures_for(one_class=one_class, own=own)]

    assert names(one_class=False, own="voc2007") == ["voc2007", "voc2010"]
    recalls = ["mean_class_recall", "accuracy"]
    assert names(one_class=True, own="voc2007") == ["voc2007", "voc2010", *recalls]
    assert names(one_class=False, own="sklearn") == ["voc2007", "voc2010", "sklearn"]


def r_precision(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Of each class, the share of positives among as many first images as it has positives."""
    order = np.argsort(-scores, axis=0, kind="stable")
    ranked = np.take_along_axis(labels > 0, order, axis=0)
    count = (labels > 0).sum(axis=0)
    return np.array([ranked[:n, k].mean() if n else np.nan for k, n in enumerate(count)])


@pytest.mark.slow
def test_a_measure_is_added_in_one_place(
    tiny_voc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An entry of the table goes from the recipe through the search for C into every report."""
    added = Measure(
        name="r-precision",
        label="mean R-precision",
        column="R-precision",
        short="R-prec",
        of_classes=r_precision,
    )
    monkeypatch.setitem(MEASURES, added.name, added)
    recipe = Recipe.build(
        {
            "dataset": f"voc:{tiny_voc}",
            "models": ["vgg16-thin"],
            "weights": ["random:0"],
            "scales": [224],
            "grid": [0.1, 1.0, 10.0],
            "choose_c": "per-class",
            "measure": "r-precision",
        },
        "a test",
    )
    machine = Machine(cache=tmp_path / "features", results=tmp_path / "results", workers=1)
    extract(recipe, machine, Watch())
    evaluation = evaluate(recipe, machine, Watch())
    path = write(evaluation, machine)
    result, [run] = Result.read(path), evaluation.runs
    each = r_precision(run.fitted.scores, run.samples["test"].labels)
    assert [record.values["r-precision"] for record in result.classes] == each.tolist()
    assert list(result.means) == ["voc2007", "voc2010", "r-precision"]
    assert result.score == result.means["r-precision"] == pytest.approx(each.mean())
    val = run.samples["val"]
    for k, c in enumerate(run.fitted.search.c):
        row = run.fitted.search.grid.index(c)
        assert run.fitted.search.scores[row, k] == run.fitted.search.scores[:, k].max()
    assert result.splits[0].search.measure == "r-precision"
    assert any("cannot tell these values apart (6 images" in w for w in result.warnings)
    assert len(val.ids) == 6
    text = result_text(result)
    assert "R-prec" in text.splitlines()[0]
    assert f"r-precision {percent(result.score)} over 3 of 3 classes" in text
    page = write_report(path, machine).read_text("utf-8")
    assert "R-precision, %" in page
    assert "mean R-precision, over 3 of 3 classes" in page
    assert build_tables(read_results(machine.results)).ablations == ()
