"""Probabilities of decision scores: Platt's sigmoid, 1 / (1 + exp(A f + B)).

Platt 1999, "Probabilistic Outputs for Support Vector Machines", by the Newton method of Lin, Lin &
Weng 2007, "A Note on Platt's Probabilistic Outputs for Support Vector Machines", Algorithm 1.
"""

from __future__ import annotations

import numpy as np

from vggfeat.classify.measures import Doubles, Labels, Scores

_MOST_STEPS = 100
_SMALLEST_STEP = 1e-10  # share of Newton's
_SUFFICIENT = 1e-4  # share of the decrease that the slope promises
_FLAT = 1e-9  # gradient of one image on average
_RIDGE = 1e-12  # on the Hessian's diagonal


def fit_sigmoids(scores: Scores, labels: Labels) -> Doubles:
    """Fit a sigmoid to the scores of each class.

    Args:
        scores: (n, K) of images that the classifiers have not seen; NaN is left out.
        labels: (n, K) in {+1, −1, 0}; 0 is left out.

    Returns:
        (K, 2), A and B; NaN for a class without a positive or without a negative.
    """
    found = np.full((labels.shape[1], 2), np.nan)
    for k, (own, sides) in enumerate(zip(scores.T, labels.T, strict=True)):
        used = (sides != 0) & ~np.isnan(own)
        if {-1, 1} <= {*np.sign(sides[used]).tolist()}:
            found[k] = _fit(own[used].astype(np.float64), sides[used] > 0)
    return found


def probabilities(scores: Scores, sigmoids: Doubles, *, one_class: bool) -> Doubles:
    """Return the probability of each class for each image.

    Args:
        scores: (n, K).
        sigmoids: (K, 2), from `fit_sigmoids`.
        one_class: Whether each image has exactly one class: then they are divided by their sum over
            the classes that have one, as scikit-learn does; else each stands for itself.

    Returns:
        (n, K) in [0, 1]; NaN where a score or a sigmoid is.
    """
    found = _sigmoid(scores * sigmoids[:, 0] + sigmoids[:, 1])
    if not one_class:
        return found
    known = ~np.isnan(found)
    total = np.where(known, found, 0).sum(axis=1, keepdims=True)
    count = known.sum(axis=1, keepdims=True)
    even = np.where(known, 1 / np.maximum(count, 1), np.nan)  # where all are 0
    result: Doubles = np.where(total > 0, found / np.where(total > 0, total, 1), even)
    return result


def _sigmoid(z: Doubles) -> Doubles:
    """Return 1 / (1 + exp(z)) without overflow."""
    small = np.exp(-np.abs(z))
    result: Doubles = np.where(z >= 0, small, 1) / (1 + small)
    return result


def _fit(f: Doubles, positive: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Doubles:
    """Minimise the cross entropy with targets that a Bayesian prior draws in from 0 and 1."""
    ahead, behind = int(positive.sum()), int((~positive).sum())
    target = np.where(positive, (ahead + 1) / (ahead + 2), 1 / (behind + 2))
    at = np.array([0.0, np.log((behind + 1) / (ahead + 1))])
    design = np.stack([f, np.ones_like(f)])

    def cost(parameters: Doubles) -> float:
        z = parameters @ design
        return float((target * z + np.logaddexp(0, -z)).sum())

    value = cost(at)
    for _ in range(_MOST_STEPS):
        p = _sigmoid(at @ design)
        gradient = design @ (target - p)
        if np.abs(gradient).max() <= _FLAT * len(f):
            break
        hessian = (design * (p * (1 - p))) @ design.T + _RIDGE * np.eye(2)
        newton = -np.linalg.solve(hessian, gradient)
        step, slope = 1.0, float(gradient @ newton)
        while (new := cost(at + step * newton)) > value + _SUFFICIENT * step * slope:
            step /= 2
            if step < _SMALLEST_STEP:
                return at
        at, value = at + step * newton, new
    return at
