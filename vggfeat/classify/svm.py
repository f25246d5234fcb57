"""One-vs-rest linear SVMs, C chosen on the validation images, then fitted to train and val.

All classes and all C share one Gram matrix (`dual`). Where that does not fit into memory, each SVM
is fitted by scikit-learn's LinearSVC, which solves the same problem.
"""

from __future__ import annotations

import logging
import math
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vggfeat.child import others_kept_safe
from vggfeat.classify.linear import LinearOneVsRest
from vggfeat.classify.measures import Doubles, Floats, Labels, measure_of
from vggfeat.classify.probability import fit_sigmoids

if TYPE_CHECKING:  # who reads a classifier, or what a search has found, fits nothing
    from vggfeat.classify import admm, dual

_log = logging.getLogger(__name__)

DEFAULT_GRID = tuple(2.0**k for k in range(-4, 8))
_OUTERMOST = 15  # the grid grows to 2^±15 at most
_SAME = 1e-12  # two measured values closer than this are equal: means are rounded
# Relative duality gap. The order of scores hangs on it, and with few images one that moves is seen
# in the printed figures: at 1e-4 by up to 4 points. For few, the finer one costs next to nothing.
_GAP = 1e-4
_FINE_GAP = 1e-6
_FEW = 3_000  # images to learn from
_GRAM_SHARE = 0.5  # of the free memory
_TOLERANCE = 1e-3  # of LinearSVC
_MAX_ITERATIONS = 1_000  # LIBLINEAR's own
_SMALL = 20_000_000  # values read in all fits together; below, starting processes costs more


@dataclass(frozen=True, kw_only=True)
class SvmSettings:
    """How the SVMs are fitted.

    Attributes:
        loss: L2-regularised, in the dual; the bias is a constant feature 1, as LIBLINEAR's.
        grid: Values of C; None for 2^-4 ... 2^7, growing.
        choose_c: One C for all classes, or one each.
        difficult: Images of label 0 are left out, or negatives.
        class_weight: "balanced" as in `balanced`; "none" for the same C on both sides.
        measure: What C is chosen by: a name in `MEASURES`.
        seed: Of the coordinate order.
        device: "cpu", or the GPU that solves first; what it leaves, the processor finishes.
        workers: Threads, or processes of LinearSVC.
    """

    loss: Literal["hinge", "squared_hinge"]
    grid: tuple[float, ...] | None
    choose_c: Literal["shared", "per-class"]
    difficult: Literal["ignore", "negative"]
    class_weight: Literal["none", "balanced"]
    measure: str
    seed: int
    device: str
    workers: int


@dataclass(frozen=True, kw_only=True)
class CSearch:
    """How C was chosen.

    Attributes:
        c: K values.
        grid: The values tried, ascending.
        scores: (grid, K) validation measure of each class.
        means: The measure's mean for each value.
        equals: For each class the values that measure the same as the chosen one, that included,
            ascending; empty where nothing could be measured.
        images: On how many validation images.
        grown: Whether the default grid had to grow.
        at_edge: Whether a chosen C still lies at its edge and measures better than all others.
        fits: Number of SVMs fitted.
        not_converged: How many of them did not converge.
        solver: "dual", or "LinearSVC" where the Gram matrix does not fit into memory.
        gap: The largest relative duality gap; NaN for LinearSVC, which tells none.
        sigmoids: (K, 2), fitted to the validation scores at the chosen C; see `fit_sigmoids`.
    """

    c: tuple[float, ...]
    grid: tuple[float, ...]
    scores: Doubles
    means: tuple[float, ...]
    equals: tuple[tuple[float, ...], ...]
    images: int
    grown: bool
    at_edge: bool
    fits: int
    not_converged: int
    solver: str
    gap: float
    sigmoids: Doubles


def choose_c(
    train: tuple[Floats, Labels],
    val: tuple[Floats, Labels],
    settings: SvmSettings,
    check: Callable[[int], None] = lambda count: None,
) -> CSearch:
    """Choose C on the validation images, by the experiment's own measure.

    Among values that measure the same it takes the one nearest 1 in log2, of two the smaller.
    The default grid grows only for a value at its edge that measures better than all others.
    Deviates: the design takes the smaller of equals, which on a level measure runs to 2^-15, and
    all scores towards 0. Where nothing can be measured all values are equal.

    Args:
        train: (n, D) descriptors and (n, K) labels.
        val: The same, to measure on.
        settings: How to fit.
        check: Called now and then with the number of SVMs that have been fitted since; may raise.
    """
    labels = _training_labels(train[1], settings)
    measured: dict[float, tuple[float, Doubles]] = {}
    scored: dict[float, Doubles] = {}  # of val: few numbers beside the Gram matrix of train
    todo = list(settings.grid or DEFAULT_GRID)
    fits, failed, gap = 0, 0, float("nan")
    with _solver(train[0], labels, settings) as solver:
        while todo:
            for c in todo:
                scores = np.full(val[1].shape, np.nan)
                if len(scores):  # else there is nothing to choose by
                    found = solver.fit(np.full(labels.shape[1], c), check)
                    scores[:, solver.learnable] = val[0] @ found.coef.T + found.intercept
                    fits, failed = fits + len(found.intercept), failed + found.not_converged
                    gap = np.fmax(gap, found.gap)
                measured[c], scored[c] = measure_of(settings.measure).of_all(scores, val[1]), scores
            grid = sorted(measured)
            equals = _equals(measured, settings.choose_c)
            todo = [] if settings.grid else _beyond(grid, equals)
    chosen = tuple(_nearest_1(values or grid) for values in equals)
    at_chosen = np.stack([scored[c][:, k] for k, c in enumerate(chosen)], axis=1)
    return CSearch(
        c=chosen,
        grid=tuple(grid),
        scores=np.array([measured[c][1] for c in grid]),
        means=tuple(measured[c][0] for c in grid),
        equals=equals,
        images=len(val[1]),
        grown=settings.grid is None and len(grid) > len(DEFAULT_GRID),
        at_edge=len(grid) > 1 and not {(grid[0],), (grid[-1],)}.isdisjoint(equals),
        fits=fits,
        not_converged=failed,
        solver=solver.name,
        gap=float(gap),
        sigmoids=fit_sigmoids(at_chosen, _training_labels(val[1], settings)),
    )


def fit(
    x: Floats,
    labels: Labels,
    classes: Sequence[str],
    c: Sequence[float],
    settings: SvmSettings,
    check: Callable[[int], None] = lambda count: None,
) -> LinearOneVsRest:
    """Fit one SVM for each class.

    Args:
        x: (n, D) descriptors.
        labels: (n, K).
        classes: K names.
        c: K values of C.
        settings: How to fit.
        check: As in `choose_c`.
    """
    coef = np.full((labels.shape[1], x.shape[1]), np.nan, dtype=np.float32)
    intercept = np.full(labels.shape[1], np.nan, dtype=np.float32)
    with _solver(x, _training_labels(labels, settings), settings) as solver:
        found = solver.fit(np.array(c, dtype=np.float64), check)
    coef[solver.learnable], intercept[solver.learnable] = found.coef, found.intercept
    return LinearOneVsRest(
        classes=tuple(classes),
        coef=coef,
        intercept=intercept,
        not_converged=found.not_converged,
        gap=found.gap,
    )


def balanced(labels: Labels) -> Doubles:
    """Return what each image's C is multiplied by where both sides of a class weigh the same.

    scikit-learn's n / (2 n_side), for every class as the binary problem that it is: an image may
    show several classes, so that n / (K n_k) has no meaning, and here the mean weight is 1, so that
    a C means what it means without weights.

    Args:
        labels: (n, K) in {+1, −1, 0}, where images of 0 take no part; each class has both sides.

    Returns:
        (n, K); 1 for images that take no part.
    """
    used = (labels != 0).sum(axis=0)
    sides = (labels > 0).sum(axis=0), (labels < 0).sum(axis=0)
    weights: Doubles = np.ones(labels.shape)
    for side, count in zip((labels > 0, labels < 0), sides, strict=True):
        weights = np.where(side, used / (2 * count), weights)
    return weights


@dataclass(frozen=True, kw_only=True)
class _Found:
    """L fitted SVMs, in the order of the learnable classes."""

    coef: Floats  # (L, D)
    intercept: Floats  # (L,)
    not_converged: int
    gap: float


def undecided(search: CSearch, classes: Sequence[str]) -> str | None:
    """Say where the validation images leave C open; None where they decide.

    Args:
        search: How C was chosen.
        classes: K names.
    """
    open_ones = [k for k, values in enumerate(search.equals) if len(values) > 1]
    if not open_ones:
        return None
    first = open_ones[0]
    values = ", ".join(f"{c:.4g}" for c in search.equals[first])
    alike = len(open_ones) == len(classes) and len(set(search.equals)) == 1
    where = "" if alike else f"; {len(open_ones)} of {len(classes)} classes, {classes[first]}"
    return (
        f"C: validation cannot tell these values apart ({search.images} images{where}): {values}; "
        f"{search.c[first]:.4g} is taken, the nearest to 1."
    )


def _solver(x: Floats, labels: Labels, settings: SvmSettings) -> _SharedGram | _LinearSvcs:
    need, free = 8 * len(x) ** 2, _free_bytes()  # in float64, which a large C may need
    if need <= _GRAM_SHARE * free:
        return _SharedGram(x, labels, settings)
    _log.warning(
        "the Gram matrix of %d images needs %.1f GB of %.1f GB: LinearSVC fits each SVM alone",
        *(len(x), need / 1e9, free / 1e9),
    )
    return _LinearSvcs(x, labels, settings)


def _admm(x: Floats, device: str) -> admm.Admm | None:
    """Return what solves on a GPU; None on the processor, or where its memory is too small."""
    if device == "cpu":
        return None
    from vggfeat.classify.admm import Admm

    if Admm.need(len(x)) <= Admm.room(device):
        return Admm(x, device)
    _log.warning(
        "%d images are too many for the memory of %s: the SVMs stay on the CPU", len(x), device
    )
    return None


class _SharedGram:
    """Fits all classes at once; each call goes on from the one before."""

    def __init__(self, x: Floats, labels: Labels, settings: SvmSettings) -> None:
        self._admm = _admm(x, settings.device)
        self.name = f"dual, {settings.device}" if self._admm else "dual"
        self.learnable = _learnable(labels)
        self._x = x
        own = labels[:, self.learnable]
        self._y = own.astype(np.float64)
        self._weights = balanced(own) if settings.class_weight == "balanced" else None
        self._settings = settings
        self._gap = _FINE_GAP if len(x) <= _FEW else _GAP
        self._gram: Floats | None = None
        self._last: dual.Dual | None = None

    def __enter__(self) -> _SharedGram:
        return self

    def __exit__(self, *_: object) -> None:
        self._gram = self._last = self._admm = None

    def fit(self, c: Doubles, check: Callable[[int], None]) -> _Found:
        """Fit every learnable class; `c` has K values."""
        from vggfeat.classify import dual

        heaviest = 1 if self._weights is None else float(self._weights.max(initial=0))
        exact = dual.needs_exact(c * heaviest, self._gap)
        if self._gram is None or (exact and self._gram.dtype != np.float64):
            whole = self._admm.gram if self._admm else partial(dual.gram_matrix, self._x)
            self._gram = whole(exact=exact)
            if self._last is not None:  # its outputs are of the coarser matrix
                anew: Doubles = self._gram @ (self._last.alpha * self._y)
                self._last = replace(self._last, outputs=anew)
        settings = self._settings
        problems = (self._y, c[self.learnable], settings.loss)
        if self._admm:
            self._last = self._admm.solve(
                problems, self._gap, self._last, lambda: check(0), self._weights
            )
        self._last = found = dual.solve(
            self._gram,
            problems,
            dual.Effort(gap=self._gap, seed=settings.seed, threads=settings.workers),
            start=self._last,
            check=check,
            weights=self._weights,
        )
        beta = (found.alpha * self._y).astype(self._gram.dtype)  # as fine as what it comes from
        return _Found(
            coef=beta.T @ self._x,
            intercept=beta.sum(axis=0),
            not_converged=int((found.gap > self._gap).sum()),
            gap=float(found.gap.max(initial=0)),
        )


class _LinearSvcs:
    """Fits each class by itself, in processes that share one matrix through a memory map.

    LIBLINEAR's random generator is global, so threads would disturb each other; and each fit
    copies the matrix into nodes of its own, so memory bounds the number of processes.
    """

    name = "LinearSVC"

    def __init__(self, x: Floats, labels: Labels, settings: SvmSettings) -> None:
        self.learnable = _learnable(labels)
        self._x = np.ascontiguousarray(x, dtype=np.float64)
        self._labels = labels
        self._settings = settings
        self._pool: Any = None

    def __enter__(self) -> _LinearSvcs:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool = None

    def fit(self, c: Doubles, check: Callable[[int], None]) -> _Found:
        """Fit every learnable class; `c` has K values."""
        from joblib import Parallel, delayed

        coef = np.empty((len(self.learnable), self._x.shape[1]))
        intercept, failed = np.empty(len(self.learnable)), 0
        if self._pool is None:
            self._pool = Parallel(self._jobs(len(coef)), return_as="generator_unordered")
        tasks = (
            delayed(_fit_one)(self._x, self._labels[:, k], (row, c[k]), self._settings)
            for row, k in enumerate(self.learnable)
        )
        with others_kept_safe():
            for row, w, b, converged in self._pool(tasks):
                coef[row], intercept[row] = w, b
                failed += not converged
                check(1)
        return _Found(coef=coef, intercept=intercept, not_converged=failed, gap=float("nan"))

    def _jobs(self, tasks: int) -> int:
        if self._x.size * tasks < _SMALL:
            return 1
        nodes = 16 * int(np.count_nonzero(self._x)) + 1  # LIBLINEAR's copy: index and value
        return int(max(1, min(self._settings.workers, tasks, _free_bytes() // 2 // nodes)))


def _learnable(labels: Labels) -> list[int]:
    """Return the classes with a positive and a negative."""
    return np.flatnonzero((labels > 0).any(axis=0) & (labels < 0).any(axis=0)).tolist()


def _free_bytes() -> int:
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _fit_one(
    x: Doubles, labels: Labels, task: tuple[int, float], settings: SvmSettings
) -> tuple[int, Doubles, float, bool]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import LinearSVC

    row, c = task
    svm = LinearSVC(
        C=c,
        loss=settings.loss,
        dual=True,  # pinned: "auto" would change the solver between rows of one table
        tol=_TOLERANCE,
        max_iter=_MAX_ITERATIONS,
        random_state=settings.seed,
    )
    used = (labels != 0).astype(np.float64)  # LIBLINEAR drops rows of weight 0, without a copy here
    if settings.class_weight == "balanced":
        used *= balanced(labels[:, None])[:, 0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # counted and reported instead
        svm.fit(x, labels > 0, sample_weight=used if (used != 1).any() else None)
    return row, svm.coef_[0], float(svm.intercept_[0]), bool(svm.n_iter_ < _MAX_ITERATIONS)


def _training_labels(labels: Labels, settings: SvmSettings) -> Labels:
    if settings.difficult == "negative":
        return np.where(labels == 0, -1, labels).astype(np.int8)
    return labels


def _equals(
    measured: dict[float, tuple[float, Doubles]], how: Literal["shared", "per-class"]
) -> tuple[tuple[float, ...], ...]:
    """Return for each class the values of C that are best, ascending; none of what has no number.

    A class without a number of its own takes those of the mean.
    """
    grid = sorted(measured)
    means = np.array([measured[c][0] for c in grid])
    each = np.array([measured[c][1] for c in grid])

    def best(values: Doubles) -> tuple[float, ...]:
        at_best = values >= np.fmax.reduce(values) - _SAME
        return tuple(c for c, found in zip(grid, at_best, strict=True) if found)

    shared = best(means)
    if how == "shared":
        return (shared,) * int(each.shape[1])
    return tuple(best(column) or shared for column in each.T)


def _nearest_1(values: Sequence[float]) -> float:
    """Return the value nearest 1 in log2, of two the smaller."""
    return min(values, key=lambda c: (abs(math.log2(c)), c))


def _beyond(grid: list[float], equals: Sequence[tuple[float, ...]]) -> list[float]:
    """Return the next values of C on the sides where one at the edge beats all others."""
    more = []
    if (grid[0],) in equals and grid[0] > 2.0**-_OUTERMOST:
        more.append(grid[0] / 2)
    if (grid[-1],) in equals and grid[-1] < 2.0**_OUTERMOST:
        more.append(grid[-1] * 2)
    return more
