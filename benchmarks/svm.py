"""The search for C against one fit after the other: ratios, measured in one run.

    python -m benchmarks.svm

The problem has the size of VOC 2007 with one full net: rectified unit descriptors, half of their
values zero, about 7 % positives, 20 classes, the default grid. Ours fits all classes and all C on
one Gram matrix; LinearSVC (the same loss, in the dual, its own default tolerance) and, for the
hinge, SVC on the same Gram matrix fit some classes over the whole grid. They are compared by
seconds per fit, and by the objectives that they reach. Then a problem of the size of Caltech-256,
and how the cost grows.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from sklearn.svm import SVC, LinearSVC

from benchmarks import common
from vggfeat.classify import dual
from vggfeat.classify.measures import Doubles, Floats
from vggfeat.classify.svm import DEFAULT_GRID

LOSSES: tuple[dual.Loss, ...] = ("squared_hinge", "hinge")
GAP = 1e-4  # as of `vggfeat svm` with so many images; with fewer than 3,000 it is 1e-6
RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, in bytes


def problem(n: int, size: int, classes: int, *, share: float = 0.07) -> tuple[Any, Doubles]:
    """Return (n, size) float32 unit rows, and (n, classes) labels that they tell in part.

    Args:
        n: Images.
        size: Dimensions.
        classes: Columns.
        share: Of positives in each class.
    """
    random = np.random.default_rng(0)
    hidden = random.standard_normal((n, 64), dtype=np.float32)
    x = hidden @ random.standard_normal((64, size), dtype=np.float32)
    for row in range(n):  # in place: a second matrix would be the peak of memory
        x[row] = np.maximum(x[row] + 4 * random.standard_normal(size, dtype=np.float32), 0)
        x[row] /= np.linalg.norm(x[row])
    wanted = hidden @ random.standard_normal((64, classes))
    wanted += 4 * random.standard_normal((n, classes))
    return x, np.where(wanted > np.quantile(wanted, 1 - share, axis=0), 1.0, -1.0)


def objective(x: Any, y: Doubles, c: float, loss: dual.Loss, w: Any, b: float) -> float:  # noqa: ANN401  (arrays)
    """Return ½‖w‖² + ½b² + C Σ loss, in float64."""
    slack = np.maximum(0, 1 - y * (x @ w + b))
    return float((w @ w + b * b) / 2 + c * (slack if loss == "hinge" else slack**2).sum())


def search(
    x: Floats,
    y: Doubles,
    loss: dual.Loss,
    grid: tuple[float, ...] = DEFAULT_GRID,
    threads: int = 2,
) -> dict[float, dual.Dual]:
    """Solve all classes for each C, each from the one before; in float64 from the C that needs it.

    As `vggfeat svm` does: the Gram matrix is made here, and once more where it gets too coarse.
    """
    found: dict[float, dual.Dual] = {}
    gram: Floats | None = None
    last: dual.Dual | None = None
    effort = dual.Effort(gap=GAP, seed=0, threads=threads)
    for c in grid:
        each = np.full(y.shape[1], c)
        exact = dual.needs_exact(each, GAP)
        if gram is None or (exact and gram.dtype != np.float64):
            gram = dual.gram_matrix(x, exact=exact)
            last = last and replace(last, outputs=gram @ (last.alpha * y))
        last = found[c] = dual.solve(gram, (y, each, loss), effort, start=last)
    return found


def seconds_of_search(*given: Any) -> float:  # noqa: ANN401  (those of `search`)
    """Return the time of one search."""
    begin = time.perf_counter()
    search(*given)
    return round(time.perf_counter() - begin, 3)


def against_others(x: Floats, y: Doubles, loss: dual.Loss, classes: int) -> dict[str, Any]:
    """Return seconds per fit of ours and of scikit-learn's, and the objectives that ours reaches.

    Args:
        x: (n, D) descriptors.
        y: (n, K) labels.
        loss: Of all of them.
        classes: The first few, which scikit-learn fits.
    """
    wide = x.astype(np.float64)
    theirs: dict[tuple[int, float], tuple[Any, float]] = {}
    ours: dict[float, dual.Dual] = {}
    shared = dual.gram_matrix(x, exact=False)

    def fit_ours() -> None:
        ours.update(search(x, y, loss))

    def fit_linear() -> None:
        for k in range(classes):
            for c in DEFAULT_GRID:
                svm = LinearSVC(C=c, loss=loss, dual=True, random_state=0).fit(wide, y[:, k])
                theirs[k, c] = svm.coef_[0], float(svm.intercept_[0])

    def fit_kernel() -> None:
        for k in range(classes):
            for c in DEFAULT_GRID:
                SVC(C=c, kernel="precomputed").fit(shared, y[:, k])

    calls: dict[str, Callable[[], object]] = {"ours": fit_ours, "LinearSVC": fit_linear}
    if loss == "hinge":
        calls["SVC(precomputed)"] = fit_kernel
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that LinearSVC has not converged is what ratios tell
        seconds = {name: times[0] for name, times in common.alternate(calls, 1).items()}
    ratios = []
    for (k, c), (w, b) in theirs.items():
        beta = ours[c].alpha[:, k] * y[:, k]
        own = objective(wide, y[:, k], c, loss, beta @ wide, float(beta.sum()))
        ratios.append(own / objective(wide, y[:, k], c, loss, w, b))
    fits = {name: (y.shape[1] if name == "ours" else classes) * len(DEFAULT_GRID) for name in calls}
    each = {name: seconds[name] / fits[name] for name in calls}
    return {
        "seconds, ours with its Gram matrix": {name: round(t, 2) for name, t in seconds.items()},
        "fits": fits,
        "speed-up per fit": {
            name: round(each[name] / each["ours"], 1) for name in calls if name != "ours"
        },
        "largest gap": max(float(one.gap.max()) for one in ours.values()),
        "objective, ours / LinearSVC's, largest": round(max(ratios), 6),
    }


def caltech256(n: int, size: int, classes: int) -> dict[str, Any]:
    """Return seconds and peak RSS of one C on a large problem."""
    x, y = problem(n, size, classes, share=1 / classes)
    begin = time.perf_counter()
    gram = dual.gram_matrix(x, exact=False)
    figures: dict[str, Any] = {"Gram matrix s": round(time.perf_counter() - begin, 1)}
    effort = dual.Effort(gap=GAP, seed=0, threads=2)
    for loss in LOSSES:
        begin = time.perf_counter()
        gap = float(dual.solve(gram, (y, np.ones(classes), loss), effort).gap.max())
        figures[loss] = {"s": round(time.perf_counter() - begin, 1), "largest gap": gap}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT
    return {"problem": f"{n} × {size} × {classes}, C = 1", **figures, "peak RSS GB": peak / 1e9}


def growth(x: Floats, y: Doubles) -> list[dict[str, Any]]:
    """Return series of seconds of the search, hinge, with its Gram matrix."""
    n, grid = len(x), DEFAULT_GRID
    few = (n // 4, n // 2, n)
    measured = {
        "images": {m: seconds_of_search(x[:m], y[:m], "hinge") for m in few},
        "classes": {k: seconds_of_search(x, y[:, :k], "hinge") for k in (5, 10, 20)},
        "values of C": {
            len(grid[::step]): seconds_of_search(x, y, "hinge", grid[::step]) for step in (4, 2, 1)
        },
        "threads": {t: seconds_of_search(x, y, "hinge", grid, t) for t in (1, 2)},
    }
    return [
        {
            "title": f"Search for C: time by number of {what}",
            "x_label": what,
            "y_label": "seconds",
            "x": list(times),
            "y": {"hinge": list(times.values())},
            **({"slope": -1} if what == "threads" else {}),
        }
        for what, times in measured.items()
    ]


def measure(*, images: int, size: int, baseline_classes: int, large: bool) -> dict[str, Any]:
    """Return all figures.

    Args:
        images: Of the problem like VOC 2007, which has 20 classes.
        size: Its dimensions.
        baseline_classes: How many of them scikit-learn fits.
        large: Whether the problem like Caltech-256 is solved too.
    """
    x, y = problem(images, size, 20)
    for loss in LOSSES:
        search(x[:300], y[:300], loss)  # compiles
    figures: dict[str, Any] = {"problem": f"{images} × {size}, 20 classes, {len(DEFAULT_GRID)} C"}
    figures |= {loss: against_others(x, y, loss, baseline_classes) for loss in LOSSES}
    figures["series"] = growth(x, y)
    if large:
        figures["like Caltech-256"] = caltech256(15_360, 12_288, 257)
    return figures


def main() -> None:
    """Measure, and write results/benchmarks/svm.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=5011)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--baseline-classes", type=int, default=1)
    parser.add_argument("--no-large", action="store_true", help="leave out what needs 3 GB")
    options = parser.parse_args()
    figures = measure(
        images=options.images,
        size=options.size,
        baseline_classes=options.baseline_classes,
        large=not options.no_large,
    )
    common.write("svm", figures)


if __name__ == "__main__":
    common.unheld()
    main()
