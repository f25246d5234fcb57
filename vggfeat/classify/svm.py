"""One-vs-rest linear SVMs, C chosen on the validation images, then fitted to train and val."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

import joblib
import numpy as np
import numpy.typing as npt
from safetensors.numpy import save
from sklearn.exceptions import ConvergenceWarning
from sklearn.svm import LinearSVC

from vggfeat.classify.measures import mean_average_precision, mean_class_recall
from vggfeat.publish import publish_bytes

Floats = npt.NDArray[np.floating]
Labels = npt.NDArray[np.int8]
Measure = Literal["voc2007", "voc2010", "sklearn", "mean_class_recall"]

DEFAULT_GRID = tuple(2.0**k for k in range(-4, 8))
_OUTERMOST = 15  # the grid grows to 2^±15 at most
_FALLBACK_C = 1.0  # where no validation image has a class, so that nothing can be measured
_TOLERANCE = 1e-3
_MAX_ITERATIONS = 1_000  # LIBLINEAR's own
_SMALL = 20_000_000  # values read in all fits together; below, starting processes costs more


@dataclass(frozen=True, kw_only=True)
class SvmSettings:
    """How the SVMs are fitted.

    Attributes:
        loss: LIBLINEAR's, L2-regularised, in the dual; the bias is a constant feature 1.
        grid: Values of C; None for 2^-4 ... 2^7, growing.
        choose_c: One C for all classes, or one each.
        difficult: Images of label 0 are left out, or negatives.
        measure: What C is chosen by.
        seed: Of LIBLINEAR's coordinate order.
        workers: Processes.
    """

    loss: Literal["hinge", "squared_hinge"]
    grid: tuple[float, ...] | None
    choose_c: Literal["shared", "per-class"]
    difficult: Literal["ignore", "negative"]
    measure: Measure
    seed: int
    workers: int


@dataclass(frozen=True, kw_only=True)
class CSearch:
    """How C was chosen.

    Attributes:
        c: K values.
        grid: The values tried, ascending.
        scores: (grid, K) validation AP of each class, or (grid, 1) mean class recall.
        means: The mean over classes for each value.
        grown: Whether the default grid had to grow.
        at_edge: Whether a chosen C still lies at its edge.
        fits: Number of SVMs fitted.
        not_converged: How many of them did not converge.
    """

    c: tuple[float, ...]
    grid: tuple[float, ...]
    scores: npt.NDArray[np.float64]
    means: tuple[float, ...]
    grown: bool
    at_edge: bool
    fits: int
    not_converged: int


@dataclass(frozen=True, kw_only=True)
class LinearOneVsRest:
    """K linear classifiers.

    Attributes:
        classes: K names.
        coef: (K, D) float32; NaN for a class that had no positive or no negative to learn from.
        intercept: (K,) float32.
        not_converged: Number of them that did not converge.
    """

    classes: tuple[str, ...]
    coef: npt.NDArray[np.float32]
    intercept: npt.NDArray[np.float32]
    not_converged: int = 0

    def decision_scores(self, x: Floats) -> npt.NDArray[np.float64]:
        """Return (n, K) scores of (n, D) descriptors; NaN columns for classes without a fit."""
        result: npt.NDArray[np.float64] = x.astype(np.float64) @ self.coef.T + self.intercept
        return result

    def save(self, path: Path, metadata: dict[str, Any]) -> None:
        """Write a safetensors file: coef, intercept, and the classes with `metadata` as JSON."""
        header = {"classes": json.dumps(self.classes), "metadata": json.dumps(metadata)}
        tensors = {"coef": self.coef, "intercept": self.intercept}
        publish_bytes(path, save(tensors, metadata=header))


def choose_c(
    train: tuple[Floats, Labels],
    val: tuple[Floats, Labels],
    settings: SvmSettings,
    check: Callable[[], None] = lambda: None,
) -> CSearch:
    """Choose C on the validation images, by the experiment's own measure; ties to the smaller.

    Args:
        train: (n, D) descriptors and (n, K) labels.
        val: The same, to measure on.
        settings: How to fit.
        check: Called after every fit; may raise.
    """
    labels = _training_labels(train[1], settings)
    measured: dict[float, npt.NDArray[np.float64]] = {}
    todo = list(settings.grid or DEFAULT_GRID)
    fits = failed = 0
    with _Fitter(train[0], labels, settings) as fitter:
        while todo:
            scores = {c: np.full(val[1].shape, np.nan) for c in todo}
            for (k, c), coef, intercept, converged in fitter.fit(product(fitter.learnable, todo)):
                scores[c][:, k] = val[0] @ coef + intercept
                fits, failed = fits + 1, failed + (not converged)
                check()
            measured |= {c: _measure(s, val[1], settings.measure) for c, s in scores.items()}
            grid = sorted(measured)
            chosen = _best(measured, settings.choose_c, labels.shape[1])
            todo = [] if settings.grid else _beyond(grid, chosen)
    return CSearch(
        c=tuple(chosen),
        grid=tuple(grid),
        scores=np.array([measured[c] for c in grid]),
        means=tuple(_mean(measured[c]) for c in grid),
        grown=settings.grid is None and len(grid) > len(DEFAULT_GRID),
        at_edge=len(grid) > 1
        and not np.isnan(np.array(list(measured.values()))).all()
        and any(c in {grid[0], grid[-1]} for c in chosen),
        fits=fits,
        not_converged=failed,
    )


def fit(
    x: Floats,
    labels: Labels,
    classes: Sequence[str],
    c: Sequence[float],
    settings: SvmSettings,
    check: Callable[[], None] = lambda: None,
) -> LinearOneVsRest:
    """Fit one SVM for each class.

    Args:
        x: (n, D) descriptors.
        labels: (n, K).
        classes: K names.
        c: K values of C.
        settings: How to fit.
        check: Called after every fit; may raise.
    """
    coef = np.full((labels.shape[1], x.shape[1]), np.nan, dtype=np.float32)
    intercept = np.full(labels.shape[1], np.nan, dtype=np.float32)
    failed = 0
    with _Fitter(x, _training_labels(labels, settings), settings) as fitter:
        for (k, _), w, b, converged in fitter.fit([(k, c[k]) for k in fitter.learnable]):
            coef[k], intercept[k] = w, b
            failed += not converged
            check()
    return LinearOneVsRest(
        classes=tuple(classes), coef=coef, intercept=intercept, not_converged=failed
    )


_Fit = tuple[tuple[int, float], npt.NDArray[np.float64], float, bool]


class _Fitter:
    """Fits many SVMs to one matrix, which the processes share through a memory map.

    LIBLINEAR's random generator is global, so threads would disturb each other; and each fit
    copies the matrix into nodes of its own, so memory bounds the number of processes.
    """

    def __init__(self, x: Floats, labels: Labels, settings: SvmSettings) -> None:
        self._x = np.ascontiguousarray(x, dtype=np.float64)
        self._labels = labels
        self._settings = settings
        self._pool: Any = None

    @property
    def learnable(self) -> list[int]:
        """The classes with a positive and a negative."""
        labels = self._labels
        return np.flatnonzero((labels > 0).any(axis=0) & (labels < 0).any(axis=0)).tolist()

    def __enter__(self) -> _Fitter:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool = None

    def fit(self, tasks: Iterable[tuple[int, float]]) -> Iterator[_Fit]:
        """Yield ((class, C), coef (D,), intercept, converged) as they are done, in any order."""
        tasks = list(tasks)
        if self._pool is None:
            jobs = self._jobs(len(tasks))
            self._pool = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered")
        settings = self._settings
        yield from self._pool(
            joblib.delayed(_fit_one)(
                self._x, self._labels[:, k], (k, c), settings.loss, settings.seed
            )
            for k, c in tasks
        )

    def _jobs(self, tasks: int) -> int:
        if self._x.size * tasks < _SMALL:
            return 1
        nodes = 16 * int(np.count_nonzero(self._x)) + 1  # LIBLINEAR's copy: index and value
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return max(1, min(self._settings.workers, tasks, free // 2 // nodes))


def _fit_one(
    x: npt.NDArray[np.float64], labels: Labels, task: tuple[int, float], loss: str, seed: int
) -> _Fit:
    svm = LinearSVC(
        C=task[1],
        loss=loss,
        dual=True,  # pinned: "auto" would change the solver between rows of one table
        tol=_TOLERANCE,
        max_iter=_MAX_ITERATIONS,
        random_state=seed,
    )
    used = (labels != 0).astype(np.float64)  # LIBLINEAR drops rows of weight 0, without a copy here
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # counted and reported instead
        svm.fit(x, labels > 0, sample_weight=used if (used == 0).any() else None)
    return task, svm.coef_[0], float(svm.intercept_[0]), bool(svm.n_iter_ < _MAX_ITERATIONS)


def _training_labels(labels: Labels, settings: SvmSettings) -> Labels:
    if settings.difficult == "negative":
        return np.where(labels == 0, -1, labels).astype(np.int8)
    return labels


def _measure(scores: Floats, labels: Labels, measure: Measure) -> npt.NDArray[np.float64]:
    """Return (K,) AP, or (1,) mean class recall."""
    if measure == "mean_class_recall":
        return np.array([mean_class_recall(predicted_class(scores), labels.argmax(axis=1))])
    return mean_average_precision(scores, labels, measure=measure)[1]


def predicted_class(scores: Floats) -> npt.NDArray[np.int64]:
    """Return the class of the highest score, (n,); −1 where an image has no score at all."""
    absent = np.isnan(scores).all(axis=1)
    return np.where(absent, -1, np.where(np.isnan(scores), -np.inf, scores).argmax(axis=1))


def _mean(values: npt.NDArray[np.float64]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _best(
    measured: dict[float, npt.NDArray[np.float64]], how: Literal["shared", "per-class"], count: int
) -> list[float]:
    """Return the best C for each of `count` classes; the first of equals, the grid ascending."""
    grid = sorted(measured)
    means = np.array([_mean(measured[c]) for c in grid])
    shared = _FALLBACK_C if np.isnan(means).all() else grid[int(np.nanargmax(means))]
    if how == "shared":
        return [shared] * count
    each = np.array([measured[c] for c in grid])
    return [
        shared if np.isnan(column).all() else grid[int(np.nanargmax(column))] for column in each.T
    ]


def _beyond(grid: list[float], chosen: list[float]) -> list[float]:
    """Return the next values of C on the sides where a chosen one lies at the edge."""
    more = []
    if grid[0] in chosen and grid[0] > 2.0**-_OUTERMOST:
        more.append(grid[0] / 2)
    if grid[-1] in chosen and grid[-1] < 2.0**_OUTERMOST:
        more.append(grid[-1] * 2)
    return more
