"""The dual solver against LIBLINEAR, its own certificate, and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score
from sklearn.svm import LinearSVC

from vggfeat.classify.dual import Dual, Effort, Loss, gram_matrix, needs_exact, solve
from vggfeat.classify.svm import balanced

Doubles = np.ndarray
LOSSES: list[Loss] = ["hinge", "squared_hinge"]


def problem(n: int, seed: int, *, size: int = 20, classes: int = 3) -> tuple[Doubles, Doubles]:
    """Return rectified unit rows, like descriptors, and labels that they do not tell for sure."""
    random = np.random.default_rng(seed)
    hidden = random.normal(size=(n, 8))
    x = np.maximum(hidden @ random.normal(size=(8, size)) + 2 * random.normal(size=(n, size)), 0)
    y = np.where(hidden @ random.normal(size=(8, classes)) > 1.5, 1.0, -1.0)
    y[0], y[1] = 1, -1
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9), y


def solved(
    x: Doubles, y: Doubles, c: float | Doubles, loss: Loss, gap: float = 1e-4, threads: int = 2
) -> Dual:
    penalties = np.broadcast_to(np.asarray(c, dtype=float), (y.shape[1],)).copy()
    effort = Effort(gap=gap, seed=0, threads=threads)
    gram = gram_matrix(x, exact=needs_exact(penalties, gap))
    return solve(gram, (y, penalties, loss), effort)


def weights(x: Doubles, y: Doubles, found: Dual) -> tuple[Doubles, Doubles]:
    beta = found.alpha * y
    return beta.T @ x, beta.sum(axis=0)


def primal_of(x: Doubles, y: Doubles, c: float, loss: Loss, w: Doubles, b: float) -> float:
    """½‖w‖² + ½b² + C Σ loss, in float64 and from the descriptors themselves."""
    used = y != 0
    slack = np.maximum(0, 1 - y[used] * (x[used] @ w + b))
    return float((w @ w + b * b) / 2 + c * (slack if loss == "hinge" else slack**2).sum())


def dual_of(y: Doubles, c: float, loss: Loss, w: Doubles, b: float, alpha: Doubles) -> float:
    ridge = 0 if loss == "hinge" else 1 / (2 * c)
    return float(alpha.sum() - (w @ w + b * b) / 2 - ridge / 2 * (alpha**2).sum())


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("c", [2.0**-4, 1.0, 2.0**7])
def test_the_objective_is_that_of_liblinear(loss: Loss, c: float) -> None:
    x, y = problem(300, 1)
    w, b = weights(x, y, solved(x, y, c, loss))
    for k in range(y.shape[1]):
        theirs = LinearSVC(C=c, loss=loss, dual=True, tol=1e-7, max_iter=10**6, random_state=0)
        theirs.fit(x, y[:, k] > 0)
        best = primal_of(x, y[:, k], c, loss, theirs.coef_[0], float(theirs.intercept_[0]))
        assert primal_of(x, y[:, k], c, loss, w[k], b[k]) <= 1.0001 * best


@given(
    st.integers(2, 400),
    st.integers(0, 10**6),
    st.floats(-15, 15),
    st.sampled_from(LOSSES),
    st.sampled_from([1e-2, 1e-3, 1e-6]),
)
@settings(max_examples=40, deadline=None)
def test_the_gap_is_a_certificate(n: int, seed: int, power: float, loss: Loss, gap: float) -> None:
    """What it says of itself holds for the weights, computed anew in float64."""
    x, y = problem(n, seed, classes=2)
    random = np.random.default_rng(seed)
    y[2:][random.random(y[2:].shape) < 0.1] = 0  # difficult ones
    c = 2.0**power
    found = solved(x, y, c, loss, gap)
    w, b = weights(x, y, found)
    assert (found.alpha >= 0).all()
    assert (found.alpha[y == 0] == 0).all()
    if loss == "hinge":
        assert (found.alpha <= c).all()
    rounding = 1e-8 if needs_exact(np.array([c]), gap) else min(gap, 1e-3) / 10
    for k in range(2):
        primal = primal_of(x, y[:, k], c, loss, w[k], b[k])
        lower = dual_of(y[:, k], c, loss, w[k], b[k], found.alpha[:, k])
        assert found.primal[k] == pytest.approx(primal, rel=rounding)
        assert (primal - lower) / primal <= max(found.gap[k], 0) + rounding
        assert found.gap[k] <= gap or power > 7  # beyond, it may say that it has not converged


@pytest.mark.parametrize("loss", LOSSES)
def test_one_image_of_each_class_has_a_closed_form(loss: Loss) -> None:
    """x₊ = e₁, x₋ = e₂: by symmetry b = 0, w = a·(e₁ − e₂), a = min(1, C) or 2C/(1 + 2C)."""
    x, y = np.eye(2), np.array([[1.0], [-1.0]])
    for c in (0.25, 0.5, 4.0):
        w, b = weights(x, y, solved(x, y, c, loss, gap=1e-9))
        a = min(1.0, c) if loss == "hinge" else 2 * c / (1 + 2 * c)
        assert w[0] == pytest.approx([a, -a], abs=1e-4)
        assert b[0] == pytest.approx(0, abs=1e-4)


@given(st.integers(0, 10**6), st.floats(5, 12), st.integers(5, 12))
@settings(max_examples=15, deadline=None)
def test_a_large_c_in_few_dimensions_converges(seed: int, power: float, size: int) -> None:
    """Nearly dependent free coordinates; equal images make them dependent altogether."""
    x, y = problem(200, seed, size=size, classes=2)
    x[100:150], y[100:150] = x[:50], y[:50]
    c = 2.0**power
    found = solved(x, y, c, "hinge", gap=1e-5)
    assert found.gap.max() <= 1e-5
    w, b = weights(x, y, found)
    for k in range(2):
        primal = primal_of(x, y[:, k], c, "hinge", w[k], b[k])
        lower = dual_of(y[:, k], c, "hinge", w[k], b[k], found.alpha[:, k])
        assert (primal - lower) / primal <= 1.1e-5


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("c", [0.5, 32.0])
def test_average_precision_is_that_of_liblinear(loss: Loss, c: float) -> None:
    x, y = problem(600, 7)
    train, test = slice(0, 300), slice(300, 600)
    w, b = weights(x[train], y[train], solved(x[train], y[train], c, loss, gap=1e-6))
    for k in range(y.shape[1]):
        theirs = LinearSVC(C=c, loss=loss, dual=True, tol=1e-8, max_iter=10**6, random_state=0)
        theirs.fit(x[train], y[train, k] > 0)
        ours, other = (
            average_precision_score(y[test, k] > 0, scores)
            for scores in (x[test] @ w[k] + b[k], theirs.decision_function(x[test]))
        )
        assert ours == pytest.approx(other, abs=1e-3)


@pytest.mark.parametrize("loss", LOSSES)
def test_outputs_do_not_drift_from_their_dual_variables(loss: Loss) -> None:
    """They are brought up to date in steps, through all C, and the gap is read from them."""
    x, y = problem(300, 8)
    gram = gram_matrix(x, exact=False)
    found = None
    for c in 2.0 ** np.arange(-4, 8):
        effort = Effort(gap=1e-3, seed=0, threads=2)
        found = solve(gram, (y, np.full(3, c), loss), effort, start=found)
        anew = gram.astype(np.float64) @ (found.alpha * y)
        assert found.outputs == pytest.approx(anew, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_warm_start_ends_where_a_cold_one_does(loss: Loss) -> None:
    x, y = problem(200, 2)
    gram = gram_matrix(x, exact=True)
    effort = Effort(gap=1e-6, seed=0, threads=2)
    found = None
    for c in (8.0, 0.125, 1.0):
        found = solve(gram, (y, np.full(3, c), loss), effort, start=found)
        cold = solve(gram, (y, np.full(3, c), loss), effort)
        assert found.primal == pytest.approx(cold.primal, rel=2e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_each_column_has_its_own_c(loss: Loss) -> None:
    x, y = problem(150, 3)
    together = solved(x, y, np.array([0.1, 1.0, 10.0]), loss, gap=1e-6)
    for k, c in enumerate((0.1, 1.0, 10.0)):
        alone = solved(x, y[:, k : k + 1], c, loss, gap=1e-6)
        assert together.primal[k] == pytest.approx(alone.primal[0], rel=2e-6)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("c", [0.25, 8.0])
def test_balanced_weights_are_those_of_liblinear(loss: Loss, c: float) -> None:
    x, y = problem(200, 9, classes=2)
    y[20:, 1] = -1  # few positives, so that their weight is large
    gram = gram_matrix(x, exact=True)
    effort = Effort(gap=1e-10, seed=0, threads=2)
    found = solve(gram, (y, np.full(2, c), loss), effort, weights=balanced(y))
    w, b = weights(x, y, found)
    for k in range(2):
        theirs = LinearSVC(
            C=c, loss=loss, dual=True, class_weight="balanced", tol=1e-9, max_iter=10**6
        ).fit(x, y[:, k] > 0)
        assert w[k] == pytest.approx(theirs.coef_[0], abs=1e-4)
        assert b[k] == pytest.approx(theirs.intercept_[0], abs=1e-4)
        bare = LinearSVC(C=c, loss=loss, dual=True, tol=1e-6, max_iter=10**6).fit(x, y[:, k] > 0)
        assert np.abs(bare.coef_[0] - w[k]).max() > 1e-2


@pytest.mark.parametrize("loss", LOSSES)
def test_a_weight_of_2_is_the_image_twice(loss: Loss) -> None:
    x, y = problem(90, 10, classes=2)
    heavy = np.ones(y.shape)
    heavy[::3] = 2
    penalties, effort = np.array([0.5, 4.0]), Effort(gap=1e-8, seed=0, threads=2)
    gram = gram_matrix(x, exact=True)
    near = solve(gram, (y, 3 * penalties, loss), effort, weights=heavy)
    found = solve(gram, (y, penalties, loss), effort, start=near, weights=heavy)
    twice = np.concatenate([np.arange(90), np.arange(0, 90, 3)])
    same = solve(gram_matrix(x[twice], exact=True), (y[twice], penalties, loss), effort)
    assert found.primal == pytest.approx(same.primal, rel=2e-8)
    assert weights(x, y, found)[0] == pytest.approx(weights(x[twice], y[twice], same)[0], abs=1e-3)


def test_weights_of_1_change_no_bit() -> None:
    x, y = problem(150, 11)
    gram, effort = gram_matrix(x, exact=False), Effort(gap=1e-5, seed=0, threads=2)
    for loss in LOSSES:
        bare = solve(gram, (y, np.full(3, 2.0), loss), effort)
        same = solve(gram, (y, np.full(3, 2.0), loss), effort, weights=np.ones(y.shape))
        assert np.array_equal(bare.alpha, same.alpha)


def test_an_image_of_label_0_is_as_good_as_absent() -> None:
    x, y = problem(120, 4, classes=1)
    masked = y.copy()
    masked[::3] = 0
    kept = masked[:, 0] != 0
    ours, theirs = solved(x, masked, 1.0, "hinge"), solved(x[kept], y[kept], 1.0, "hinge")
    assert ours.primal == pytest.approx(theirs.primal, rel=2e-4)


def test_the_same_call_gives_the_same_bytes_on_any_number_of_threads() -> None:
    x, y = problem(400, 5)
    one, other = (solved(x, y, 4.0, "hinge", threads=threads) for threads in (1, 2))
    assert np.array_equal(one.alpha, other.alpha)


def test_small_gaps_and_large_c_need_double_precision() -> None:
    assert not needs_exact(np.array([2.0**7]), 1e-3)
    assert not needs_exact(np.array([2.0**3]), 1e-4)
    assert needs_exact(np.array([1.0, 2.0**8]), 1e-3)
    assert needs_exact(np.array([2.0**4]), 1e-4)
    assert needs_exact(np.array([1.0]), 1e-6)
    x, _ = problem(50, 6)
    assert gram_matrix(x, exact=False).dtype == np.float32
    assert gram_matrix(x, exact=True) == pytest.approx(x @ x.T + 1)


def test_the_check_hears_of_every_problem_once() -> None:
    x, y = problem(60, 5, classes=40)
    heard: list[int] = []
    effort = Effort(gap=1e-4, seed=0, threads=2)
    solve(gram_matrix(x, exact=True), (y, np.ones(40), "hinge"), effort, check=heard.append)
    assert sum(heard) == 40
