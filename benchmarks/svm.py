"""The search for C against LinearSVC one fit after the other: the ratio, measured in one run.

    python benchmarks/svm.py --loss hinge --baseline-classes 2

The problem has the size of VOC 2007 with one full net: rectified unit descriptors, half of their
values zero, about 7 % positives. Ours fits all classes and all C on one Gram matrix; LinearSVC (the
same loss, in the dual, its own default tolerance) fits the first few classes over the whole grid.
The two are compared by seconds per fit, and by the objectives that they reach.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
import warnings
from typing import Literal

import numpy as np
import sklearn
from sklearn.svm import LinearSVC

from vggfeat.classify import dual
from vggfeat.classify.svm import DEFAULT_GRID


def problem(n: int, size: int, classes: int) -> tuple[dual.Floats, dual.Doubles]:
    """Return (n, size) float32 unit rows and (n, classes) labels that they tell in part."""
    random = np.random.default_rng(0)
    hidden = random.standard_normal((n, 64))
    x = np.maximum(
        hidden @ random.standard_normal((64, size)) + 4 * random.standard_normal((n, size)), 0
    )
    wanted = hidden @ random.standard_normal((64, classes))
    wanted += 4 * random.standard_normal((n, classes))
    labels = np.where(wanted > np.quantile(wanted, 0.93, axis=0), 1.0, -1.0)
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32), labels


def objective(
    x: dual.Floats, y: dual.Doubles, c: float, loss: dual.Loss, w: dual.Doubles, b: float
) -> float:
    """Return ½‖w‖² + ½b² + C Σ loss, in float64."""
    slack = np.maximum(0, 1 - y * (x.astype(np.float64) @ w + b))
    return float((w @ w + b * b) / 2 + c * (slack if loss == "hinge" else slack**2).sum())


def main() -> None:
    """Measure and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=5011)
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--classes", type=int, default=20)
    parser.add_argument("--baseline-classes", type=int, default=2)
    parser.add_argument("--loss", choices=["hinge", "squared_hinge"], default="squared_hinge")
    parser.add_argument("--gap", type=float, default=1e-3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    loss: Literal["hinge", "squared_hinge"] = options.loss
    x, y = problem(options.images, options.size, options.classes)
    effort = dual.Effort(gap=options.gap, seed=0, threads=options.threads)
    small = dual.gram_matrix(x[:200], exact=False)
    dual.solve(small, (y[:200], np.ones(options.classes), loss), effort)  # compiles

    begin = time.perf_counter()
    gram = dual.gram_matrix(x, exact=False)
    gram_seconds = time.perf_counter() - begin
    found, ours = None, {}
    for c in DEFAULT_GRID:
        found = dual.solve(gram, (y, np.full(options.classes, c), loss), effort, start=found)
        beta = found.alpha * y
        ours[c] = (beta.T @ x, beta.sum(axis=0), float(found.gap.max()))
    our_seconds = time.perf_counter() - begin

    ratios, begin, wide = [], time.perf_counter(), x.astype(np.float64)
    theirs = {}
    for k in range(options.baseline_classes):
        for c in DEFAULT_GRID:
            svm = LinearSVC(C=c, loss=loss, dual=True, random_state=0)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                svm.fit(wide, y[:, k] > 0)
            theirs[k, c] = svm.coef_[0], float(svm.intercept_[0])
    their_seconds = time.perf_counter() - begin
    for (k, c), (w, b) in theirs.items():
        own = objective(x, y[:, k], c, loss, ours[c][0][k], float(ours[c][1][k]))
        ratios.append(own / objective(x, y[:, k], c, loss, w, b))
    fits = options.classes * len(DEFAULT_GRID)
    print(
        json.dumps(
            {
                "problem": f"{options.images} × {options.size}, {options.classes} classes, "
                f"{len(DEFAULT_GRID)} C, {loss}",
                "Gram matrix s": round(gram_seconds, 3),
                "ours s": round(our_seconds, 3),
                "fits": fits,
                "largest gap": max(gap for *_, gap in ours.values()),
                "LinearSVC s": round(their_seconds, 3),
                "LinearSVC fits": len(theirs),
                "speed-up per fit": round((their_seconds / len(theirs)) / (our_seconds / fits), 2),
                "objective, ours / LinearSVC's, largest": round(max(ratios), 6),
                "machine": f"{platform.machine()}, {options.threads} threads, "
                f"scikit-learn {sklearn.__version__}",
            },
            ensure_ascii=False,
        )
    )


if __name__ == "__main__":
    main()
