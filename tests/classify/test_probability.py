"""Sigmoids and probabilities against scikit-learn's own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.multiclass import OneVsRestClassifier
from sklearn.svm import LinearSVC

from tests.classify.test_dual import problem
from vggfeat.classify.probability import fit_sigmoids, probabilities


@pytest.mark.parametrize("loss", ["hinge", "squared_hinge"])
def test_probabilities_of_two_sides_are_scikit_learns(loss: str) -> None:
    """Each class by itself, as where an image has any number of classes."""
    x, y = problem(400, 1)
    train, val, test = slice(0, 200), slice(200, 300), slice(300, 400)
    for k in range(y.shape[1]):
        svm = LinearSVC(C=2.0, loss=loss, dual=True, max_iter=10**5).fit(x[train], y[train, k] > 0)
        theirs = CalibratedClassifierCV(FrozenEstimator(svm), method="sigmoid")
        expected = theirs.fit(x[val], y[val, k] > 0).predict_proba(x[test])[:, 1]
        scores = [svm.decision_function(x[part])[:, None] for part in (val, test)]
        sigmoids = fit_sigmoids(scores[0], y[val, k : k + 1].astype(np.int8))
        found = probabilities(scores[1], sigmoids, one_class=False)
        assert found[:, 0] == pytest.approx(expected, abs=1e-4)
        assert sigmoids[0, 0] < 0


def test_probabilities_of_one_class_each_are_scikit_learns_and_sum_to_1() -> None:
    x, _ = problem(400, 2)
    classes = ((x - x.mean(axis=0)) @ np.random.default_rng(0).normal(size=(20, 4))).argmax(axis=1)
    svm = OneVsRestClassifier(LinearSVC(max_iter=10**5)).fit(x[:200], classes[:200])
    theirs = CalibratedClassifierCV(FrozenEstimator(svm), method="sigmoid")
    expected = theirs.fit(x[200:300], classes[200:300]).predict_proba(x[300:])
    labels = np.where(classes[:, None] == np.arange(4), 1, -1).astype(np.int8)
    sigmoids = fit_sigmoids(svm.decision_function(x[200:300]), labels[200:300])
    found = probabilities(svm.decision_function(x[300:]), sigmoids, one_class=True)
    assert found == pytest.approx(expected, abs=1e-4)
    assert found.sum(axis=1) == pytest.approx(np.ones(100))


@given(st.integers(0, 10**6), st.integers(2, 60), st.floats(-3, 3))
@settings(max_examples=25)
def test_a_sigmoid_is_the_minimum_of_the_cross_entropy(seed: int, n: int, power: float) -> None:
    random = np.random.default_rng(seed)
    labels = np.where(random.random(n) < 0.3, 1, -1).astype(np.int8)
    labels[:2] = 1, -1
    scores = 10**power * (random.normal(size=n) + 0.7 * labels)
    [(a, b)] = fit_sigmoids(scores[:, None], labels[:, None])
    plus, minus = (labels > 0).sum(), (labels < 0).sum()
    target = np.where(labels > 0, (plus + 1) / (plus + 2), 1 / (minus + 2))

    def cost(parameters: np.ndarray) -> float:
        z = parameters[0] * scores / 10**power + parameters[1]
        return float((target * z + np.logaddexp(0, -z)).sum())

    best = minimize(cost, [0.0, 0.0], tol=1e-12, method="Nelder-Mead", options={"maxiter": 4000})
    assert cost(np.array([a * 10**power, b])) <= best.fun + 1e-7


def test_what_has_one_side_only_has_no_probability() -> None:
    scores = np.array([[1.0, 2.0, np.nan], [-1.0, 0.5, np.nan], [0.2, 1.0, np.nan]])
    labels = np.array([[1, 1, 1], [-1, 1, -1], [0, 0, 1]], dtype=np.int8)
    sigmoids = fit_sigmoids(scores, labels)
    assert np.isnan(sigmoids).tolist() == [[False] * 2, [True] * 2, [True] * 2]
    each = probabilities(scores, sigmoids, one_class=False)
    assert np.isnan(each).tolist() == [[False, True, True]] * 3
    shared = probabilities(scores, sigmoids, one_class=True)
    assert shared[:, 0].tolist() == [1.0] * 3  # the only one that is known


def test_difficult_and_unreadable_images_teach_nothing() -> None:
    random = np.random.default_rng(3)
    labels = np.where(random.random((50, 1)) < 0.4, 1, -1).astype(np.int8)
    scores = labels + random.normal(size=(50, 1))
    kept = fit_sigmoids(scores[10:], labels[10:])
    hidden = labels.copy()
    hidden[:5], scores[5:10] = 0, np.nan
    assert fit_sigmoids(scores, hidden) == pytest.approx(kept)


def test_far_scores_neither_overflow_nor_vanish() -> None:
    sigmoids = np.array([[-1.0, 0.0], [-1.0, 0.0]])
    scores = np.array([[1e4, -1e4], [-1e4, -1e4], [np.nan, np.nan]])
    found = probabilities(scores, sigmoids, one_class=True)
    assert found[:2].tolist() == [[1.0, 0.0], [0.5, 0.5]]
    assert np.isnan(found[2]).all()
