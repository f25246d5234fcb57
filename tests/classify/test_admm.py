"""The solver for GPUs, on the processor: its certificate, and the solver that it goes before."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.classify.test_dual import LOSSES, dual_of, primal_of, problem, solved, weights
from tests.classify.test_svm import data
from tests.classify.test_svm import settings as svm_settings
from vggfeat.classify import svm
from vggfeat.classify.admm import Admm
from vggfeat.classify.dual import Effort, Loss, gram_matrix, solve
from vggfeat.classify.svm import balanced, choose_c, fit

DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("c", [2.0**-4, 1.0, 2.0**7])
def test_the_gap_is_reached_and_it_is_the_true_one(loss: Loss, c: float, device: str) -> None:
    x, y = problem(300, 1)
    y[::17] = 0
    found = Admm(x, device).solve((y, np.full(3, c), loss), 1e-3)
    assert (found.gap <= 1e-3).all()
    assert ((found.alpha >= 0) & (found.alpha <= (c if loss == "hinge" else np.inf))).all()
    assert (found.alpha[y == 0] == 0).all()
    w, b = weights(x, y, found)
    assert np.allclose(x @ w.T + b, found.outputs, atol=1e-9 * c * len(x))
    best = solved(x, y, c, loss, gap=1e-8)
    for k in range(3):
        primal = primal_of(x, y[:, k], c, loss, w[k], b[k])
        lower = dual_of(y[:, k], c, loss, w[k], b[k], found.alpha[:, k])
        assert primal == pytest.approx(found.primal[k], rel=1e-9)
        assert (primal - lower) / primal == pytest.approx(found.gap[k], abs=1e-9)
        assert primal <= best.primal[k] / (1 - 1e-3)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(2, 80),
    size=st.integers(1, 30),
    seed=st.integers(0, 2**31 - 1),
    loss=st.sampled_from(LOSSES),
    exponents=st.lists(st.integers(-10, 10), min_size=3, max_size=3),
)
def test_each_column_may_have_a_c_of_its_own(
    n: int, size: int, seed: int, loss: Loss, exponents: list[int]
) -> None:
    x, y = problem(n, seed, size=size)
    c = 2.0 ** np.array(exponents)
    found = Admm(x, "cpu").solve((y, c, loss), 1e-3)
    best = solve(gram_matrix(x, exact=True), (y, c, loss), Effort(gap=1e-6, seed=0, threads=2))
    # whatever it leaves undone it says: by no more than its gap is the primal above its minimum
    assert (found.primal * (1 - found.gap) <= best.primal * (1 + 1e-9)).all()
    assert (found.primal >= best.primal * (1 - 2e-6)).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_balanced_weights_give_the_processors_solution(loss: Loss) -> None:
    x, y = problem(120, 12)
    y[::11] = 0
    c, heavy = np.array([0.5, 4.0, 4.0]), balanced(y)
    found = Admm(x, "cpu").solve((y, c, loss), 1e-6, weights=heavy)
    best = solve(
        gram_matrix(x, exact=True), (y, c, loss), Effort(gap=1e-9, seed=0, threads=2), weights=heavy
    )
    assert (found.gap <= 1e-6).all()
    assert found.primal == pytest.approx(best.primal, rel=2e-6)
    limit = c * heavy if loss == "hinge" else np.inf
    assert ((found.alpha >= 0) & (found.alpha <= limit)).all()


def test_a_start_saves_iterations() -> None:
    x, y = problem(300, 2)
    solver, rounds = Admm(x, "cpu"), [0, 0]

    def count(run: int) -> None:
        rounds[run] += 1

    near = solver.solve((y, np.full(3, 4.0), "hinge"), 1e-6, None, lambda: count(0))
    solver.solve((y, np.full(3, 4.0), "hinge"), 1e-6, near, lambda: count(1))
    assert rounds[1] < rounds[0]


def test_the_gram_matrix_is_that_of_the_processor() -> None:
    x, _ = problem(50, 3)
    assert np.allclose(Admm(x, "cpu").gram(exact=True), gram_matrix(x, exact=True), rtol=1e-14)
    assert Admm(x, "cpu").gram(exact=False).dtype == np.float32


@pytest.mark.parametrize("loss", LOSSES)
def test_a_search_on_a_device_chooses_what_the_processor_chooses(
    loss: Loss, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, labels = data(160, 1)
    parts = (x[:100], labels[:100]), (x[100:], labels[100:])
    chosen = svm_settings(loss=loss, grid=(0.25, 1.0, 4.0))
    alone, fitted = choose_c(*parts, chosen), fit(x, labels, "abc", [0.25, 1.0, 4.0], chosen)
    monkeypatch.setattr(svm, "_admm", Admm)
    with_it, again = choose_c(*parts, chosen), fit(x, labels, "abc", [0.25, 1.0, 4.0], chosen)
    assert (alone.solver, with_it.solver) == ("dual", "dual, cpu")
    assert with_it.gap <= 1e-3
    assert again.gap <= 1e-4
    assert np.abs(with_it.scores - alone.scores).max() <= 0.02
    assert np.allclose(again.coef, fitted.coef, atol=2e-2)


def test_too_small_a_memory_leaves_the_search_to_the_processor(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    x, labels = data(80, 1)
    monkeypatch.setattr(Admm, "room", lambda device: Admm.need(len(x)) - 1)
    found = choose_c((x, labels), (x, labels), svm_settings(grid=(1.0,), device="cuda"))
    assert found.solver == "dual"
    assert "80 images are too many for the memory of cuda" in caplog.text
