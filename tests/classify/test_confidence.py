"""Resampled scores against images that are really repeated, and chance against real deals."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vggfeat.classify.confidence import RESAMPLES, chance, interval, resampled, resamples
from vggfeat.classify.measures import (
    AP_MEASURES,
    DEALS,
    MEASURES,
    Average,
    Measure,
    average_precision,
    companion,
    mean_class_recall,
    predicted_class,
    resampled_average_precision,
)


def an_experiment(
    kind: str, count: int = 60, classes: int = 5, seed: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Scores with ties and absent ones, and labels; the last class has no positive."""
    random = np.random.default_rng(seed)
    if kind == "one class":
        true = random.integers(0, classes - 1, count)
        labels = np.where(true[:, None] == np.arange(classes), 1, -1)
    else:
        labels = random.choice([-1, 0, 1], (count, classes), p=[0.7, 0.1, 0.2])
        labels[labels[:, -1] > 0, -1] = -1
    scores = np.round(labels + random.normal(0, 1.2, (count, classes)), 1)
    scores[[3, 17]] = np.nan
    return scores, labels


def really(measure: Measure, scores: np.ndarray, labels: np.ndarray, counts: np.ndarray) -> float:
    """The slow reference: the images as often as they were drawn, and the measure of them."""
    rows = [i for i, times in enumerate(counts.tolist()) for _ in range(times)]
    return measure.of_all(scores[rows], labels[rows])[0]


def cases() -> list[tuple[str, str]]:
    return [
        (name, kind)
        for name, measure in MEASURES.items()
        for kind in ("one class", "many labels")
        if kind == "one class" or not measure.one_class
    ]


@pytest.mark.parametrize(("name", "kind"), cases())
def test_a_resampled_score_is_that_of_the_repeated_images(name: str, kind: str) -> None:
    scores, labels = an_experiment(kind)
    counts = resamples(len(labels), seed=3, split=1)[:, :150]
    found = resampled(MEASURES[name], scores, labels, counts)[0]
    expected = [really(MEASURES[name], scores, labels, column) for column in counts.T]
    assert np.abs(found - expected).max() <= 1e-12
    assert np.ptp(expected) > 0.1
    each = resampled(MEASURES[name], scores, labels, counts)[1]
    for number in (0, 77):
        rows = np.repeat(np.arange(len(labels)), counts[:, number])
        theirs = MEASURES[name].of_classes(scores[rows], labels[rows])
        assert each[:, number] == pytest.approx(theirs, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize("name", AP_MEASURES)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([0.0, 1.0, 2.0, np.nan]),
            st.sampled_from([-1, 0, 1]),
            st.integers(0, 3),
        ),
        min_size=1,
        max_size=12,
    )
)
@settings(max_examples=150)
def test_a_weighted_average_precision_is_that_of_the_repeated_list(
    name: Average, images: list[tuple[float, int, int]]
) -> None:
    """Copies stand together, before a later image of equal score."""
    scores, labels, counts = (np.array(column) for column in zip(*images, strict=True))
    rows = np.repeat(np.arange(len(images)), counts)
    expected = average_precision(scores[rows], labels[rows], measure=name)
    [found] = resampled_average_precision(scores, labels, counts[:, None], measure=name)
    assert found == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_where_every_image_is_drawn_once_the_score_is_that_of_the_images() -> None:
    scores, labels = an_experiment("one class", 300)
    once = np.ones((300, 1), dtype=np.int32)
    for measure in MEASURES.values():
        [found] = resampled(measure, scores, labels, once)[0]
        assert found == pytest.approx(measure.of_all(scores, labels)[0], abs=1e-12)


def test_a_class_without_a_positive_leaves_the_mean_of_that_resample() -> None:
    labels = np.array([[1, -1], [-1, 1], [-1, 1], [1, -1]])
    scores = np.array([[2.0, 1.0], [1.0, 2.0], [2.0, 1.0], [2.0, 1.0]])
    counts = np.array([[2, 0, 4], [0, 2, 0], [0, 2, 0], [2, 0, 0]])
    recalls = resampled(MEASURES["mean_class_recall"], scores, labels, counts)[0]
    assert recalls.tolist() == [1.0, 0.5, 1.0]
    nothing = resampled(MEASURES["voc2010"], scores, np.full((4, 2), -1), counts)[0]
    assert np.isnan(nothing).all()
    assert interval([nothing]) is None


def test_the_draws_are_seeded_and_as_many_as_there_are_images() -> None:
    counts = resamples(50, seed=7, split=1)
    assert counts.shape == (50, RESAMPLES)
    assert (counts.sum(axis=0) == 50).all()
    assert np.array_equal(counts, resamples(50, seed=7, split=1))
    assert not np.array_equal(counts, resamples(50, seed=7, split=2))
    assert not np.array_equal(counts, resamples(50, seed=8, split=1))
    first = np.bincount(np.random.RandomState([7, 1]).randint(0, 50, 50), minlength=50)
    assert counts[:, 0].tolist() == first.tolist()


def test_the_interval_of_an_accuracy_is_that_of_a_binomial() -> None:
    """Of n images p n are right: the resampled share has the deviation sqrt(p (1 − p) / n)."""
    n, right = 2000, 1600
    labels = np.where(np.arange(n)[:, None] % 2 == np.arange(2), 1, -1)
    scores = np.where(np.arange(n)[:, None] < right, labels, -labels).astype(float)
    means = resampled(MEASURES["accuracy"], scores, labels, resamples(n, 0, 1))[0]
    deviation = np.sqrt(0.8 * 0.2 / n)
    assert means.std() == pytest.approx(deviation, rel=0.1)
    found = interval([means])
    assert found is not None
    assert found == pytest.approx((0.8 - 1.96 * deviation, 0.8 + 1.96 * deviation), abs=2e-3)


def test_the_interval_of_several_splits_is_that_of_their_mean() -> None:
    """Splits are drawn from independently: of k alike it is narrower by the root of k."""
    scores, labels = an_experiment("one class", 400)
    recall = MEASURES["mean_class_recall"]
    each = [resampled(recall, scores, labels, resamples(400, 0, n))[0] for n in range(1, 5)]
    found, alone = interval(each), interval(each[:1])
    assert found is not None
    assert alone is not None
    joined = sorted(np.mean(each, axis=0).tolist())
    assert joined[24] <= found[0] <= joined[25]
    assert joined[974] <= found[1] <= joined[975]
    assert (alone[1] - alone[0]) / (found[1] - found[0]) == pytest.approx(2, rel=0.15)


def test_a_measure_without_a_fast_form_is_really_resampled() -> None:
    scores, labels = an_experiment("many labels", 20, 3)
    slow = Measure(
        name="slow", label="", column="", short="", of_classes=MEASURES["voc2010"].of_classes
    )
    counts = resamples(20, 0, 1)[:, :120]
    theirs = resampled(MEASURES["voc2010"], scores, labels, counts)[0]
    assert np.abs(resampled(slow, scores, labels, counts)[0] - theirs).max() <= 1e-12
    assert chance(slow, scores, labels, 0) == pytest.approx(
        chance(MEASURES["voc2010"], scores, labels, 0), abs=0.03
    )


@pytest.mark.parametrize("name", AP_MEASURES)
def test_chance_of_an_average_precision_is_that_of_all_orders(name: Average) -> None:
    labels = np.array([1, 1, -1, -1, -1, -1, -1])
    orders = set(permutations(labels.tolist()))
    every = [average_precision(-np.arange(7.0), np.array(o), measure=name) for o in orders]
    found = chance(MEASURES[name], np.arange(7.0)[:, None], labels[:, None], 0)
    assert found == pytest.approx(np.mean(every), abs=4 * np.std(every) / np.sqrt(DEALS))


def test_chance_of_an_average_precision_is_about_the_share_of_positives() -> None:
    labels = np.where(np.arange(4000)[:, None] % np.array([2, 10]) == 0, 1, -1)
    scores = np.random.default_rng(0).normal(size=(4000, 2))
    assert chance(MEASURES["sklearn"], scores, labels, 0) == pytest.approx(0.3, abs=0.005)
    assert 0.3 < chance(MEASURES["voc2007"], scores, labels, 0) < 0.35


def test_chance_of_recall_and_accuracy_is_the_mean_of_all_deals() -> None:
    labels = np.where(np.array([0, 0, 0, 1, 2])[:, None] == np.arange(4), 1, -1)
    scores = np.eye(4)[[0, 0, 1, 1, 3]].astype(float)
    scores[1] = np.nan
    deals = [scores[list(order)] for order in permutations(range(5))]
    for name in ("mean_class_recall", "accuracy"):
        expected = np.mean([MEASURES[name].of_all(some, labels)[0] for some in deals])
        assert chance(MEASURES[name], scores, labels, 0) == pytest.approx(expected, abs=1e-12)


def test_chance_of_recall_is_one_in_k() -> None:
    random = np.random.default_rng(0)
    labels = np.where(random.integers(0, 8, 500)[:, None] == np.arange(8), 1, -1)
    scores = random.normal(size=(500, 8))
    assert chance(MEASURES["mean_class_recall"], scores, labels, 0) == pytest.approx(1 / 8)


def test_accuracy_counts_every_image_alike() -> None:
    true = np.array([0, 0, 0, 0, 1, 2])
    predicted = np.array([0, 0, 0, 1, 1, 3])
    labels, scores = (np.where(k[:, None] == np.arange(4), 1, -1) for k in (true, predicted))
    mean, each = MEASURES["accuracy"].of_all(scores.astype(float), labels)
    assert mean == pytest.approx(4 / 6)
    assert each[:3].tolist() == [0.75, 1, 0]
    recall = mean_class_recall(predicted_class(scores.astype(float)), true)
    assert recall == pytest.approx((0.75 + 1 + 0) / 3)
    assert (companion("accuracy"), companion("mean_class_recall")) == (
        "mean_class_recall",
        "accuracy",
    )
    assert companion("voc2007") is None


@pytest.mark.parametrize("images", [0, 6])
def test_a_test_set_without_labels_has_neither_interval_nor_chance(images: int) -> None:
    """Of VOC 2012's only the server knows them: every label is 0."""
    scores = np.random.default_rng(0).normal(size=(images, 3))
    labels = np.zeros((images, 3), dtype=np.int8)
    for name in AP_MEASURES:
        means, each = resampled(MEASURES[name], scores, labels, resamples(images, 0, 1))
        assert each.shape == (3, RESAMPLES)
        assert np.isnan(means).all()
        assert interval([means]) is None
        assert np.isnan(chance(MEASURES[name], scores, labels, 0))
