from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save
from sklearn.svm import LinearSVC
from sklearn.utils.class_weight import compute_sample_weight

from vggfeat.classify import dual, svm
from vggfeat.classify.linear import LinearOneVsRest
from vggfeat.classify.measures import MEASURES, Measure, average_precision, predicted_class
from vggfeat.classify.probability import fit_sigmoids
from vggfeat.classify.svm import (
    DEFAULT_GRID,
    SvmSettings,
    balanced,
    choose_c,
    fit,
    undecided,
)
from vggfeat.errors import ClassifierError, VggfeatError

Arrays = tuple[np.ndarray, np.ndarray]


def settings(**changed: object) -> SvmSettings:
    fields: dict[str, object] = {
        "loss": "hinge",
        "grid": None,
        "choose_c": "shared",
        "difficult": "ignore",
        "class_weight": "none",
        "measure": "voc2007",
        "seed": 0,
        "device": "cpu",
        "workers": 2,
    }
    return SvmSettings(**{**fields, **changed})  # type: ignore[arg-type]  # by name


def data(n: int, seed: int, *, classes: int = 3, size: int = 12, noise: float = 1.0) -> Arrays:
    random = np.random.default_rng(seed)
    labels = np.where(random.random((n, classes)) < 0.4, 1, -1).astype(np.int8)
    x = labels @ np.random.default_rng(0).normal(size=(classes, size))
    x = x + noise * random.normal(size=x.shape)
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32), labels


@pytest.fixture(params=["dual", "LinearSVC"])
def solver(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways of fitting: on a Gram matrix, and without the memory for one."""
    if request.param == "LinearSVC":
        monkeypatch.setattr(svm, "_GRAM_SHARE", 0)
    return str(request.param)


@pytest.mark.parametrize("loss", ["hinge", "squared_hinge"])
def test_a_fit_is_linearsvcs(loss: str, solver: str) -> None:
    x, labels = data(80, 1)
    ours = fit(x, labels, ["a", "b", "c"], [0.5, 2.0, 8.0], settings(loss=loss))
    for k, c in enumerate((0.5, 2.0, 8.0)):
        theirs = LinearSVC(C=c, loss=loss, dual=True, tol=1e-8, max_iter=10**6, random_state=0)
        theirs.fit(x.astype(np.float64), labels[:, k] > 0)
        assert np.allclose(ours.coef[k], theirs.coef_[0], atol=5e-2)
        best = objective_of(theirs.coef_[0], theirs.intercept_[0], x, labels[:, k], c, loss)
        bound = 1.0001 if solver == "dual" else 1.001
        assert objective(ours, x, labels, k, c, loss) <= bound * best
    assert np.isnan(ours.gap) if solver == "LinearSVC" else 0 < ours.gap <= 1e-4


def test_too_many_images_for_a_gram_matrix_are_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    x, labels = data(80, 1)
    assert choose_c((x, labels), (x, labels), settings(grid=(1.0,))).solver == "dual"
    assert not caplog.messages
    monkeypatch.setattr(svm, "_free_bytes", lambda: 2 * 80 * 80 * 8 - 1)
    found = choose_c((x, labels), (x, labels), settings(grid=(1.0,)))
    assert found.solver == "LinearSVC"
    assert np.isnan(found.gap)
    assert "Gram matrix of 80 images" in caplog.messages[0]


def objective(model: LinearOneVsRest, x: Any, labels: Any, k: int, c: float, loss: str) -> float:  # noqa: ANN401  (arrays)
    return objective_of(model.coef[k], model.intercept[k], x, labels[:, k], c, loss)


def objective_of(w: Any, b: Any, x: Any, y: Any, c: float, loss: str) -> float:  # noqa: ANN401  (arrays)
    """½‖w‖² + ½b² + C Σ loss: LIBLINEAR regularises the bias too."""
    slack = np.maximum(0, 1 - y * (x.astype(np.float64) @ w + b))
    power = 1 if loss == "hinge" else 2
    return float(0.5 * (w @ w + b * b) + c * (slack**power).sum())


@pytest.mark.parametrize("loss", ["hinge", "squared_hinge"])
def test_a_balanced_fit_is_linearsvcs(loss: str, solver: str) -> None:
    """Of each class against the rest, as OneVsRestClassifier has it; difficult images apart."""
    x, labels = data(80, 1)
    labels[6:, 2] = -1
    labels[::9, 1] = 0
    ours = fit(x, labels, "abc", [0.5, 2.0, 8.0], settings(loss=loss, class_weight="balanced"))
    for k, c in enumerate((0.5, 2.0, 8.0)):
        used = labels[:, k] != 0
        theirs = LinearSVC(
            C=c, loss=loss, dual=True, class_weight="balanced", tol=1e-8, max_iter=10**6
        ).fit(x[used].astype(np.float64), labels[used, k] > 0)
        tolerance = 2e-3 if solver == "dual" else 5e-2  # that of LinearSVC's own stop
        assert np.allclose(ours.coef[k], theirs.coef_[0], atol=tolerance)
        assert ours.intercept[k] == pytest.approx(theirs.intercept_[0], abs=tolerance)


def test_balanced_weights_are_scikit_learns() -> None:
    _, labels = data(60, 2)
    labels[::7, 1] = 0
    for k, own in enumerate(balanced(labels).T):
        used = labels[:, k] != 0
        theirs = compute_sample_weight("balanced", labels[used, k])
        assert own[used] == pytest.approx(theirs, rel=1e-12)
        assert own[used].mean() == pytest.approx(1)
        assert (own[~used] == 1).all()


@pytest.mark.parametrize("loss", ["hinge", "squared_hinge"])
def test_difficult_images_are_left_out_or_negatives(loss: str, solver: str) -> None:
    x, labels = data(80, 2, classes=1)
    labels[::5] = 0
    kept = labels[:, 0] != 0
    ignoring = fit(x, labels, ["a"], [1.0], settings(loss=loss))
    without = fit(x[kept], labels[kept], ["a"], [1.0], settings(loss=loss))
    assert np.allclose(ignoring.coef, without.coef, atol=5e-3)
    negative = fit(x, labels, ["a"], [1.0], settings(loss=loss, difficult="negative"))
    relabelled = fit(x, np.where(labels == 0, -1, labels), ["a"], [1.0], settings(loss=loss))
    assert np.array_equal(negative.coef, relabelled.coef)
    assert not np.allclose(negative.coef, ignoring.coef, atol=5e-2)


def test_permuting_the_classes_permutes_the_columns() -> None:
    x, labels = data(60, 3)
    plain = fit(x, labels, ["a", "b", "c"], [1.0] * 3, settings())
    mixed = fit(x, labels[:, [2, 0, 1]], ["c", "a", "b"], [1.0] * 3, settings())
    assert np.allclose(mixed.coef, plain.coef[[2, 0, 1]], atol=1e-6)


@pytest.mark.slow
def test_processes_give_what_one_process_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(svm, "_GRAM_SHARE", 0)
    train, val = data(60, 4), data(40, 5)
    alone = choose_c(train, val, settings())
    monkeypatch.setattr(svm, "_SMALL", 0)
    shared = choose_c(train, val, settings())
    assert np.array_equal(alone.scores, shared.scores, equal_nan=True)
    assert alone.c == shared.c


def test_outputs_follow_when_the_gram_matrix_gets_finer() -> None:
    """Else those of float32 are carried through all larger C, and the gap is read from them."""
    x, labels = data(200, 6, size=3, noise=3)
    solver = svm._SharedGram(x, labels, settings(loss="squared_hinge"))
    for c, kind in ((0.0625, np.float32), (1.0, np.float64), (64.0, np.float64)):
        solver.fit(np.full(3, c), lambda count: None)
        assert solver._gram is not None
        assert solver._last is not None
        assert solver._gram.dtype == kind
        anew = solver._gram.astype(np.float64) @ (solver._last.alpha * labels)
        assert solver._last.outputs == pytest.approx(anew, rel=1e-9, abs=1e-9)


def test_c_is_the_best_on_val_by_the_experiments_measure() -> None:
    train, val = data(60, 6, noise=3), data(60, 7, noise=3)
    grid = (0.01, 1.0, 100.0)
    search = choose_c(train, val, settings(grid=grid, measure="voc2010"))
    means = []
    for i, c in enumerate(grid):
        model = fit(*train, ["a", "b", "c"], [c] * 3, settings())
        scores = model.decision_scores(val[0])
        each = [average_precision(scores[:, k], val[1][:, k], measure="voc2010") for k in range(3)]
        assert np.allclose(search.scores[i], each, atol=1e-6)
        means.append(np.mean(each))
    assert search.c == (grid[int(np.argmax(means))],) * 3
    assert np.allclose(search.means, means)
    assert search.grid == grid
    assert search.fits == 9


@pytest.mark.parametrize("choose", ["shared", "per-class"])
@pytest.mark.parametrize(
    ("grid", "nearest"),
    [((1.0, 10.0, 100.0), 1.0), ((0.001, 0.125, 16.0), 0.125), ((4.0, 0.25), 0.25), (None, 1.0)],
)
def test_of_equals_c_is_the_one_nearest_1(
    grid: tuple[float, ...] | None, nearest: float, choose: str
) -> None:
    """Of two equally near the smaller; and ties are no reason to grow the grid."""
    x, labels = data(40, 8, noise=0.01)
    search = choose_c((x, labels), (x, labels), settings(grid=grid, choose_c=choose))
    tried = tuple(sorted(grid or DEFAULT_GRID))
    assert search.means == (1.0,) * len(tried)
    assert search.c == (nearest,) * 3
    assert search.equals == (tried,) * 3
    assert search.grid == tried
    assert not search.at_edge
    assert not search.grown
    values = ", ".join(f"{c:.4g}" for c in tried)
    assert undecided(search, ["a", "b", "c"]) == (
        f"C: validation cannot tell these values apart (40 images): {values}; "
        f"{nearest:.4g} is taken, the nearest to 1."
    )


def searched(
    monkeypatch: pytest.MonkeyPatch, of: Callable[[float], Sequence[float]], **changed: object
) -> svm.CSearch:
    """Choose C of three classes whose numbers are given: `of` C, whatever the scores."""
    fitted: Iterator[float] = iter(())

    def numbers(scores: Any, labels: Any) -> Any:  # noqa: ANN401  (arrays)
        return np.array(of(next(fitted)), dtype=np.float64)

    made = Measure(name="made", label="", column="", short="", of_classes=numbers)
    monkeypatch.setitem(MEASURES, "made", made)

    class Recorded(svm._SharedGram):
        def fit(self, c: Any, check: Any) -> Any:  # noqa: ANN401  (arrays)
            nonlocal fitted
            fitted = iter([float(c[0])])
            return super().fit(c, check)

    monkeypatch.setattr(svm, "_SharedGram", Recorded)
    x, labels = data(20, 9)
    return choose_c((x, labels), (x, labels), settings(measure="made", **changed))


def test_the_grid_grows_for_a_value_that_beats_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    up = searched(monkeypatch, lambda c: [min(c, 2.0**9)] * 3)
    assert up.c == (2.0**9,) * 3
    assert up.grid[-1] == 2.0**10
    assert (up.grown, up.at_edge) == (True, False)
    down = searched(monkeypatch, lambda c: [-c] * 3)
    assert down.c == (down.grid[0],) * 3 == (2.0**-15,) * 3
    assert (down.grown, down.at_edge) == (True, True)


def test_a_plateau_at_an_edge_neither_grows_nor_counts_as_an_edge(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    level = searched(monkeypatch, lambda c: [float(c <= 2.0**-3)] * 3)
    assert level.c == (2.0**-3,) * 3
    both = searched(monkeypatch, lambda c: [float(c in {2.0**-4, 2.0**7})] * 3)
    assert both.c == (2.0**-4,) * 3
    for search in (level, both):
        assert search.grid == DEFAULT_GRID
        assert (search.grown, search.at_edge) == (False, False)


def test_means_that_differ_by_their_rounding_are_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    rounded = searched(monkeypatch, lambda c: [0.1, 0.2, 0.3] if c < 1 else [0.3, 0.2, 0.1])
    assert rounded.c == (1.0,) * 3
    assert len(set(rounded.means)) <= 2
    assert rounded.equals == (DEFAULT_GRID,) * 3


def test_each_class_tells_for_itself_whether_validation_decides(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One decides, one is level above 4, one has no number and takes what the mean says."""
    of = {4.0: [0.5, 0.9, np.nan], 8.0: [0.6, 0.9, np.nan]}
    search = searched(monkeypatch, lambda c: of.get(c, [0, 0, np.nan]), choose_c="per-class")
    assert search.c == (8.0, 4.0, 8.0)
    assert search.equals == ((8.0,), (4.0, 8.0), (8.0,))
    assert undecided(search, ["a", "b", "c"]) == (
        "C: validation cannot tell these values apart (20 images; 1 of 3 classes, b): 4, 8; "
        "4 is taken, the nearest to 1."
    )
    decided = searched(monkeypatch, lambda c: [c == 2] * 3)
    assert undecided(decided, ["a", "b", "c"]) is None


@pytest.mark.parametrize("measure", ["voc2007", "voc2010", "mean_class_recall", "accuracy"])
def test_validation_figures_are_those_of_the_exact_solution(measure: str) -> None:
    """As printed; a gap of 1e-3 misses AP by 0.5 points, recall by 1.6; one of 1e-4 AP by 0.2."""
    random = np.random.default_rng(37)
    classes = random.integers(0, 3, 120)
    x = np.maximum(random.normal(size=(120, 40)) + np.eye(3, 40)[classes], 0).astype(np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    labels = np.where(classes[:, None] == np.arange(3), 1, -1).astype(np.int8)
    grid = (0.25, 1.0, 4.0, 16.0, 64.0)
    train, val = (x[:60], labels[:60]), (x[60:], labels[60:])
    search = choose_c(train, val, settings(grid=grid, measure=measure))
    for c, mean in zip(grid, search.means, strict=True):
        scores = np.empty((60, 3))
        for k in range(3):
            theirs = LinearSVC(C=c, loss="hinge", tol=1e-9, max_iter=10**7, random_state=0)
            theirs.fit(train[0].astype(np.float64), train[1][:, k] > 0)
            scores[:, k] = theirs.decision_function(val[0])
        assert mean == pytest.approx(MEASURES[measure].of_all(scores, val[1])[0], abs=5e-5)


def test_a_grid_of_ones_own_never_grows() -> None:
    x, labels = data(40, 9, noise=0.01)
    assert choose_c((x, labels), (x, labels), settings(grid=(4.0,))).grid == (4.0,)


def test_one_c_for_each_class() -> None:
    train, val = data(60, 10, noise=3), data(60, 11, noise=3)
    grid = (0.01, 0.1, 1.0, 10.0, 100.0)
    search = choose_c(train, val, settings(grid=grid, choose_c="per-class"))
    assert search.c == tuple(grid[i] for i in search.scores.argmax(axis=0))


def test_a_class_without_a_positive_has_no_fit_and_no_score() -> None:
    x, labels = data(40, 12)
    labels[:, 1] = -1
    model = fit(x, labels, ["a", "b", "c"], [1.0] * 3, settings())
    scores = model.decision_scores(x)
    assert np.isnan(scores).all(axis=0).tolist() == [False, True, False]
    search = choose_c((x, labels), (x, labels), settings(grid=(1.0, 2.0)))
    assert np.isnan(search.scores[:, 1]).all()


@pytest.mark.parametrize(("grid", "c"), [(None, 1.0), ((0.25,), 0.25), ((0.5, 2.0), 0.5)])
def test_without_anything_to_measure_c_is_that_nearest_to_1(
    grid: tuple[float, ...] | None, c: float
) -> None:
    x, labels = data(40, 13)
    nothing = (x[:0], labels[:0])
    search = choose_c((x, labels), nothing, settings(grid=grid))
    assert search.c == (c,) * 3
    assert np.isnan(search.means).all()
    assert not search.at_edge
    assert undecided(search, ["a", "b", "c"]) is None


def test_mean_class_recall_chooses_c_by_the_argmax() -> None:
    random = np.random.default_rng(14)
    classes = random.integers(0, 3, 90)
    labels = np.where(classes[:, None] == np.arange(3), 1, -1).astype(np.int8)
    x = (np.eye(3)[classes] + random.normal(size=(90, 3)) * 0.3).astype(np.float32)
    search = choose_c(
        (x[:60], labels[:60]), (x[60:], labels[60:]), settings(measure="mean_class_recall")
    )
    assert search.scores.shape == (len(search.grid), 3)
    assert search.means == pytest.approx(search.scores.mean(axis=1))
    assert max(search.means) > 0.8


def test_what_does_not_converge_is_counted(monkeypatch: pytest.MonkeyPatch, solver: str) -> None:
    monkeypatch.setattr(svm, "_MAX_ITERATIONS", 1)
    monkeypatch.setattr(dual, "_MOST_EPOCHS", 1)
    x, labels = data(60, 15, noise=5)
    assert fit(x, labels, ["a", "b", "c"], [1e4] * 3, settings()).not_converged == 3
    assert choose_c((x, labels), (x, labels), settings(grid=(1e4,))).not_converged == 3


def test_the_check_hears_of_every_fit_and_may_stop_the_search(solver: str) -> None:
    x, labels = data(40, 16)
    heard: list[int] = []
    choose_c((x, labels), (x, labels), settings(grid=(0.5, 1.0)), heard.append)
    assert sum(heard) == 6

    def stop(count: int) -> None:
        raise VggfeatError("stopped")

    with pytest.raises(VggfeatError, match="stopped"):
        choose_c((x, labels), (x, labels), settings(), stop)


def test_the_highest_score_is_the_class() -> None:
    scores = np.array([[0.0, 2.0, 1.0], [np.nan, -5.0, np.nan], [np.nan] * 3])
    assert predicted_class(scores).tolist() == [1, 1, -1]


def test_a_classifier_is_saved_without_pickle(tmp_path: Path) -> None:
    x, labels = data(40, 17)
    model = fit(x, labels, ["a", "b", "c"], [1.0] * 3, settings())
    model.save(tmp_path / "m.safetensors", {"aggregate": "average"})
    with safe_open(tmp_path / "m.safetensors", framework="np") as file:
        assert np.array_equal(file.get_tensor("coef"), model.coef)
        assert np.array_equal(file.get_tensor("intercept"), model.intercept)
        assert json.loads(file.metadata()["classes"]) == ["a", "b", "c"]
        assert json.loads(file.metadata()["metadata"]) == {"aggregate": "average"}


@given(classes=st.integers(0, 5), size=st.integers(1, 9), seed=st.integers(0, 99))
def test_a_saved_classifier_reads_back_as_it_was(classes: int, size: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    coef = random.normal(size=(classes, size)).astype(np.float32)
    coef[random.random(classes) < 0.3] = np.nan  # a class that had nothing to learn from
    names = tuple(f"ü{k} \n{'x' * k}" for k in range(classes))
    model = LinearOneVsRest(classes=names, coef=coef, intercept=coef[:, 0].copy())
    with TemporaryDirectory() as folder:
        path = Path(folder) / "m.safetensors"
        again = LinearOneVsRest.load(path, model.save(path, {"any": "thing"}))
    assert again.classes == names
    assert np.array_equal(again.coef, coef, equal_nan=True)
    assert np.array_equal(again.intercept, coef[:, 0], equal_nan=True)
    x = random.normal(size=(3, size)).astype(np.float32)
    assert np.array_equal(again.decision_scores(x), model.decision_scores(x), equal_nan=True)


def saved(path: Path, tensors: dict[str, np.ndarray], header: dict[str, str]) -> str:
    """A safetensors file of anything; its SHA-256."""
    path.write_bytes(save(tensors, metadata=header))
    return hashlib.sha256(path.read_bytes()).hexdigest()


_COEF, _TWO = np.zeros((2, 3), np.float32), np.zeros(2, np.float32)


@pytest.mark.parametrize(
    ("tensors", "classes"),
    [
        ({"coef": _COEF}, '["a", "b"]'),
        ({"coef": _COEF, "intercept": _TWO}, '["a"]'),
        ({"coef": _COEF, "intercept": _TWO}, '["a", "a"]'),
        ({"coef": _COEF, "intercept": _TWO}, '"ab"'),
        ({"coef": _COEF, "intercept": _TWO}, "[1, 2]"),
        ({"coef": _COEF, "intercept": _TWO}, "7"),
        ({"coef": _COEF, "intercept": _TWO}, "["),
        ({"coef": _COEF, "intercept": _COEF}, '["a", "b"]'),
        ({"coef": _TWO, "intercept": _TWO}, '["a", "b"]'),
        ({"coef": _COEF.T.copy(), "intercept": _TWO}, '["a", "b"]'),
        ({"coef": _COEF.astype(np.float64), "intercept": _TWO}, '["a", "b"]'),
        ({"coef": _COEF, "intercept": _TWO.astype(np.int32)}, '["a", "b"]'),
    ],
)
def test_a_file_that_is_no_classifier_is_refused(
    tmp_path: Path, tensors: dict[str, np.ndarray], classes: str
) -> None:
    path = tmp_path / "m.safetensors"
    digest = saved(path, tensors, {"classes": classes})
    with pytest.raises(ClassifierError, match="is no classifier"):
        LinearOneVsRest.load(path, digest)


def test_sigmoids_are_kept_and_older_files_have_none(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    sigmoids = np.array([[-1.5, 0.25], [np.nan, np.nan]])
    model = LinearOneVsRest(classes=("a", "b"), coef=_COEF, intercept=_TWO, sigmoids=sigmoids)
    again = LinearOneVsRest.load(path, model.save(path, {}))
    assert again.sigmoids is not None
    assert np.array_equal(again.sigmoids, sigmoids, equal_nan=True)
    tensors = {"coef": _COEF, "intercept": _TWO}
    digest = saved(path, tensors, {"classes": '["a", "b"]', "metadata": "{}"})
    assert LinearOneVsRest.load(path, digest).sigmoids is None
    header = {"classes": '["a", "b"]', "format": "3"}
    digest = saved(path, tensors, header)
    with pytest.raises(ClassifierError, match=r"of format 3\. .* reads formats 1 to 2"):
        LinearOneVsRest.load(path, digest)
    for wrong in (sigmoids[:1], sigmoids.T[:1], sigmoids.astype(np.float32), np.zeros(2)):
        digest = saved(path, {**tensors, "sigmoids": wrong}, header | {"format": "2"})
        with pytest.raises(ClassifierError, match="is no classifier"):
            LinearOneVsRest.load(path, digest)


def test_sigmoids_are_fitted_to_validation_scores_of_the_training_part(solver: str) -> None:
    train, val = data(80, 30, noise=3), data(60, 31, noise=3)
    val[1][::6, 0] = 0
    search = choose_c(train, val, settings(choose_c="per-class", grid=(0.25, 4.0)))
    alone = fit(*train, "abc", search.c, settings())
    wanted = fit_sigmoids(alone.decision_scores(val[0]), val[1])
    assert search.sigmoids == pytest.approx(wanted, rel=0.05 if solver == "LinearSVC" else 1e-2)
    empty = (val[0][:0], val[1][:0])
    assert np.isnan(choose_c(train, empty, settings(grid=(1.0,))).sigmoids).all()


def test_a_classifier_of_another_digest_or_of_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    model = LinearOneVsRest(classes=("a", "b"), coef=_COEF, intercept=_TWO)
    digest = model.save(path, {})
    with pytest.raises(ClassifierError, match=r"sha256 \w{16}…, its result says 0000"):
        LinearOneVsRest.load(path, "0" * 64)
    path.write_bytes(b"short")
    with pytest.raises(ClassifierError, match=rf"its result says {digest[:16]}"):
        LinearOneVsRest.load(path, digest)
    for content in (b"short", b"", b"\xff" * 40):
        path.write_bytes(content)
        with pytest.raises(ClassifierError, match="is no classifier"):
            LinearOneVsRest.load(path, hashlib.sha256(content).hexdigest())
    path.unlink()
    with pytest.raises(ClassifierError, match=r"cannot be read: No such file.*vggfeat svm"):
        LinearOneVsRest.load(path, digest)
