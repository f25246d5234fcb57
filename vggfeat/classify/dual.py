"""Many linear SVMs at once, in the dual, on one Gram matrix that all classes and all C share.

Every column is one binary problem: L2-regularised, hinge or squared hinge loss, with the bias of
LIBLINEAR (a constant feature 1, regularised). In the dual (Hsieh et al. 2008, "A Dual Coordinate
Descent Method for Large-scale Linear SVM"):

    min ½ Σ_ij α_i α_j y_i y_j k_ij + r/2 Σ α_i² − Σ α_i,   0 ≤ α_i ≤ u,   k_ij = x_i·x_j + 1,

with r = 0, u = C for the hinge and r = 1/(2C), u = ∞ for its square; an image that has a weight has
a C of its own, weight times the column's, and so its own r and u. Coordinates are taken in random
blocks: inside a block each column makes some sweeps of coordinate descent on the block's own small
Gram matrix, then one product brings the outputs of all images up to date: in float64, so that no
rounding adds up, whatever the Gram matrix is kept in. Columns that take long get Newton steps on
their free coordinates (0 < α < u) in between.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, fields, replace
from threading import Event
from typing import Literal

import numpy as np
import numpy.typing as npt
from numba import njit
from threadpoolctl import threadpool_limits

from vggfeat.classify.measures import Doubles, Floats

Loss = Literal["hinge", "squared_hinge"]

_BLOCK = 256  # coordinates
_SWEEPS = 10  # over a block before the other blocks hear of it
_MOST_EPOCHS = 1_000
_PERIOD = 32  # epochs from one polishing to the next: what is left by then is ill-conditioned
_WORK = 4 * 10**9  # of Newton steps in each: the cubes of the numbers of free coordinates
_LEAST = 64  # free coordinates; steps on fewer cost as much
_SHIFT = 1e-6  # added to the diagonal, as a share of its mean: equal images make it singular
_TINY = 1e-300  # against division by 0
_TILE = 512  # images; a stretch of the outputs that stays in the fastest cache
_FEWEST, _MOST = 5, 32  # columns that go together
_LISTEN = 0.2  # seconds between calls of `check`
_IDLE = 0.01  # coordinates whose violation is below this share of the largest wait
# Outputs sum up n terms C·k, each k rounded: up to this C, at a gap of 1e-3, float32 keeps
# objectives right within a tenth of it (tested); for a smaller gap C has to be as much smaller.
_LARGE = 2.0**7


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How far, and on what, problems are solved.

    Attributes:
        gap: A column stops when its relative duality gap is no larger.
        seed: Of the order of coordinates.
        threads: That share the columns.
    """

    gap: float
    seed: int
    threads: int


@dataclass(frozen=True, kw_only=True)
class Dual:
    """The solution of K problems over n images.

    Attributes:
        alpha: (n, K) dual variables.
        outputs: (n, K), w·x + b of every image.
        primal: (K,) ½‖w‖² + ½b² + C Σ loss.
        gap: (K,) primal minus dual objective, as a share of the primal: by no more than that
            is the primal above its minimum.
    """

    alpha: Doubles
    outputs: Doubles
    primal: Doubles
    gap: Doubles


def gram_matrix(x: Floats, *, exact: bool) -> Floats:
    """Return x·xᵀ + 1, (n, n), for (n, D) descriptors: float64 if `exact`, else float32."""
    values: Floats = np.asarray(x, dtype=np.float64 if exact else np.float32)
    gram: Floats = values @ values.T
    gram += 1
    return gram


def needs_exact(c: Doubles, gap: float) -> bool:
    """Tell whether float32 is too coarse for a Gram matrix.

    Args:
        c: (K,) penalties.
        gap: The relative duality gap that is wanted.
    """
    return float(c.max(initial=0)) > _LARGE * min(1, gap / 1e-3)


def solve(
    gram: Floats,
    problems: tuple[Doubles, Doubles, Loss],
    effort: Effort,
    start: Dual | None = None,
    check: Callable[[int], None] = lambda count: None,
    weights: Doubles | None = None,
) -> Dual:
    """Solve K problems.

    Args:
        gram: (n, n), as from `gram_matrix`.
        problems: (n, K) labels in {+1, −1, 0}, where an image of 0 takes no part in that column;
            (K,) penalties C; the loss.
        effort: How far.
        start: A solution of the same problems for other C, to go on from.
        check: Called now and then with the number of problems solved since; may raise.
        weights: (n, K) positive factors of C, for each image its own; None for 1 throughout.
    """
    whole = _Problems.of(*problems, weights)
    if start is not None:
        whole.go_on(start)
    count = len(whole.y)
    # chunks do not depend on the number of threads, and neither does the result
    size = min(max(_FEWEST, -(-count // 4)), _MOST)
    chunks = [np.arange(first, min(first + size, count)) for first in range(0, count, size)]
    stop = Event()

    def work(columns: npt.NDArray[np.int64]) -> None:
        part = whole.take(columns)
        _descend(gram, part, effort, stop)
        whole.put(columns, part)

    # each thread multiplies by itself: BLAS with threads of its own would fight for the cores
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(effort.threads) as pool:
        waiting = {pool.submit(work, columns): len(columns) for columns in chunks}
        try:
            while waiting:
                solved = 0
                for future in wait(waiting, timeout=_LISTEN, return_when=FIRST_EXCEPTION).done:
                    future.result()
                    solved += waiting.pop(future)
                check(solved)
        finally:
            stop.set()
    primal, gaps = whole.objectives()
    return Dual(alpha=whole.alpha.T, outputs=whole.outputs.T, primal=primal, gap=gaps)


def objectives(
    problems: tuple[Doubles, Doubles, Loss],
    alpha: Doubles,
    outputs: Doubles,
    weights: Doubles | None = None,
) -> tuple[Doubles, Doubles]:
    """Return (K,) primal objectives and (K,) relative duality gaps.

    Args:
        problems: As for `solve`.
        alpha: (n, K), feasible.
        outputs: (n, K), of exactly these alpha.
        weights: As for `solve`.
    """
    made = _Problems.of(*problems, weights)
    return replace(made, alpha=alpha.T, outputs=outputs.T).objectives()


def _descend(gram: Floats, whole: _Problems, effort: Effort, stop: Event) -> None:
    """Solve some columns, together until each has reached its gap."""
    columns, part = np.arange(len(whole.y)), whole
    random = np.random.default_rng(effort.seed)
    for epoch in range(1, _MOST_EPOCHS + 1):
        left = part.objectives()[1] > effort.gap
        if not left.all():
            whole.put(columns, part)
            columns, part = columns[left], part.take(np.flatnonzero(left))
        if not len(columns) or stop.is_set():
            break
        if epoch % _PERIOD == 0:
            for k in range(len(columns)):
                part.polish(gram, k)
        violation = part.violations().max(axis=0)
        order = random.permutation(np.flatnonzero(violation >= _IDLE * violation.max()))
        for first in range(0, len(order), _BLOCK):
            part.descend(gram, order[first : first + _BLOCK])
    whole.put(columns, part)


@dataclass(frozen=True)
class _Problems:
    """K problems on their way; alpha and outputs change in place."""

    alpha: Doubles  # (K, n)
    outputs: Doubles  # (K, n)
    y: Doubles  # (K, n)
    c: Doubles  # (K,)
    weight: Doubles  # (K, n) factor of C
    most: Doubles  # (K,) upper bound of alpha, for a weight of 1
    ridge: Doubles  # (K,) added to the diagonal, for a weight of 1

    @classmethod
    def of(cls, y: Doubles, c: Doubles, loss: Loss, weights: Doubles | None) -> _Problems:
        hinge = loss == "hinge"
        signs = np.ascontiguousarray(y.T, dtype=np.float64)
        return cls(
            alpha=np.zeros(signs.shape),
            outputs=np.zeros(signs.shape),
            y=signs,
            c=c,
            weight=np.ones(signs.shape) if weights is None else np.ascontiguousarray(weights.T),
            most=c if hinge else np.full(c.shape, np.inf),
            ridge=np.zeros(c.shape) if hinge else 1 / (2 * c),
        )

    def go_on(self, start: Dual) -> None:
        """Take over a solution for other C, scaled column by column to the best multiple."""
        self.alpha[:], self.outputs[:] = start.alpha.T, start.outputs.T
        linear, quadratic = self.alpha.sum(axis=1), (self.alpha * self.y * self.outputs).sum(axis=1)
        quadratic += self.ridge * (self.alpha**2 / self.weight).sum(axis=1)
        factor = np.divide(linear, quadratic, out=np.ones_like(linear), where=quadratic > 0)
        largest = (self.alpha / self.weight).max(axis=1, initial=0)
        factor = np.minimum(factor, self.most / np.where(largest > 0, largest, 1))
        self.alpha[:] = np.minimum(self.alpha * factor[:, None], self.bound)
        self.outputs[:] *= factor[:, None]

    @property
    def bound(self) -> Doubles:
        """(K, n) upper bounds of alpha."""
        return self.most[:, None] * self.weight

    def take(self, columns: npt.NDArray[np.int64]) -> _Problems:
        return _Problems(
            **{field.name: getattr(self, field.name)[columns] for field in fields(self)}
        )

    def put(self, columns: npt.NDArray[np.int64], part: _Problems) -> None:
        self.alpha[columns] = part.alpha
        self.outputs[columns] = part.outputs

    def objectives(self) -> tuple[Doubles, Doubles]:
        """Return (K,) primal objectives and (K,) relative duality gaps."""
        margin = self.y * self.outputs
        slack = np.maximum(np.abs(self.y) - margin, 0)
        loss = (self.weight * (slack if np.isfinite(self.most).all() else slack**2)).sum(axis=1)
        norm = (self.alpha * margin).sum(axis=1)  # ‖w‖² + b²
        primal = norm / 2 + self.c * loss
        squares = (self.alpha**2 / self.weight).sum(axis=1)
        dual = self.alpha.sum(axis=1) - norm / 2 - self.ridge / 2 * squares
        return primal, (primal - dual) / primal

    def violations(self) -> Doubles:
        """Return (K, n) how far the projected gradient of each coordinate is from 0."""
        gradient = self.y * self.outputs - np.abs(self.y)
        gradient += self.ridge[:, None] * self.alpha / self.weight
        free = np.abs(gradient)
        free = np.where(self.alpha <= 0, np.maximum(-gradient, 0), free)
        free = np.where(self.alpha >= self.bound, np.maximum(gradient, 0), free)
        result: Doubles = np.where(self.y == 0, 0, free)
        return result

    def descend(self, gram: Floats, rows: npt.NDArray[np.int64]) -> None:
        """Move the coordinates of one block, and bring all outputs up to date."""
        inside = _square(gram, rows)
        sign, before = np.take(self.y, rows, axis=1), np.take(self.alpha, rows, axis=1)
        own, after = np.take(self.outputs, rows, axis=1).astype(gram.dtype), before.copy()
        weight = np.take(self.weight, rows, axis=1)
        limits = self.most[:, None] * weight, self.ridge[:, None] / weight
        _sweep(inside, own, after, sign, *limits)
        self.alpha[:, rows] = after
        _spread(gram, rows, sign * (after - before), self.outputs)

    def polish(self, gram: Floats, k: int) -> None:
        """Make Newton steps on the free coordinates of column k, if they are few enough.

        Where free coordinates are nearly dependent (a large C, few dimensions), coordinate descent
        creeps; but there it soon knows which of them are free.
        """
        alpha, bound, y = self.alpha[k], self.most[k] * self.weight[k], self.y[k]
        work = 0
        while True:
            free = np.flatnonzero((alpha > 0) & (alpha < bound))
            work += max(len(free), _LEAST) ** 3
            if not len(free) or work > _WORK:
                return
            curvature = _square(gram, free).astype(np.float64)
            shift = _SHIFT * np.trace(curvature) / len(free)
            most, ridge = bound[free], self.ridge[k] / self.weight[k, free]
            curvature[np.diag_indices(len(free))] += ridge + shift
            old, sign = alpha[free], y[free]
            gradient = self.outputs[k, free] - sign + ridge * old * sign
            newton = sign * np.linalg.solve(curvature, -gradient)
            room = np.where(newton < 0, old, most - old) / np.maximum(np.abs(newton), _TINY)
            # all that would leave the box stop at its sides at once, if that is a descent ...
            move = np.clip(old + newton, 0, most) - old
            slope = float(gradient @ (sign * move))
            bend = float((sign * move) @ curvature @ (sign * move))
            if room.min() < 1 and -slope < bend:  # ... else the first one does
                move = newton * room.min()
            new = np.clip(old + move, 0, most)
            if room.min() < 1:
                first = room.argmin()
                new[first] = 0 if newton[first] < 0 else most[first]
            alpha[free] = new
            _spread(gram, free, (sign * (new - old))[None], self.outputs[k : k + 1])
            if room.min() >= 1:
                return


@njit(cache=True, nogil=True)
def _sweep(
    gram: Floats, outputs: Floats, alpha: Doubles, y: Doubles, most: Doubles, ridge: Doubles
) -> None:  # pragma: no cover  (compiled)
    """Make coordinate descent inside a block, in place: gram (b, b), everything else (K, b)."""
    count = len(gram)
    for k in range(len(alpha)):
        own, new = outputs[k], alpha[k]
        for _ in range(_SWEEPS):
            moved = False
            for i in range(count):
                old, sign = new[i], y[k, i]
                if sign == 0:
                    continue
                gradient = sign * own[i] - 1.0 + ridge[k, i] * old
                new[i] = min(max(old - gradient / (gram[i, i] + ridge[k, i]), 0.0), most[k, i])
                if new[i] != old:
                    moved = True
                    change = gram.dtype.type(sign * (new[i] - old))
                    for j in range(count):
                        own[j] += change * gram[i, j]
            if not moved:
                break


@njit(cache=True, nogil=True)
def _square(gram: Floats, rows: npt.NDArray[np.int64]) -> Floats:  # pragma: no cover  (compiled)
    """Return gram[rows][:, rows], without a copy of whole rows."""
    result = np.empty((len(rows), len(rows)), gram.dtype)
    ascending = np.argsort(rows)  # memory is read forwards; the order of the result stays random
    for i in range(len(rows)):
        own = gram[rows[i]]
        for j in ascending:
            result[i, j] = own[rows[j]]
    return result


@njit(cache=True, nogil=True)
def _spread(
    gram: Floats, rows: npt.NDArray[np.int64], weights: Doubles, outputs: Doubles
) -> None:  # pragma: no cover  (compiled)
    """Add weights (K, b) times gram[rows] to outputs (K, n), in float64, skipping zeros."""
    count = len(gram)
    some = np.empty(len(rows) + 3, np.int64)
    share = np.zeros(len(rows) + 3)
    for first in range(0, count, _TILE):
        last = min(first + _TILE, count)
        for k in range(len(outputs)):
            own, used = outputs[k, first:last], 0
            for i in range(len(rows)):
                if weights[k, i] != 0:
                    some[used], share[used] = rows[i], weights[k, i]
                    used += 1
            some[used : used + 3], share[used : used + 3] = 0, 0
            for i in range(0, used, 4):  # four at a time: a fourth of the stores
                a, b, c, d = share[i], share[i + 1], share[i + 2], share[i + 3]
                ga, gb = gram[some[i], first:last], gram[some[i + 1], first:last]
                gc, gd = gram[some[i + 2], first:last], gram[some[i + 3], first:last]
                for j in range(last - first):
                    own[j] += a * ga[j] + b * gb[j] + c * gc[j] + d * gd[j]
