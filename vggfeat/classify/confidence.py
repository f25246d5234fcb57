"""How far a score can be trusted: its bootstrap interval over the test images, and chance.

Images are drawn with replacement, as many as there are; all classes and measures see the same
draws. The interval is the percentile method's (Efron & Tibshirani 1993, ch. 13). It is that of the
test images alone: training is not repeated, so what another choice of training images would change
is not in it; the deviation over several splits shows some of that. An average precision of a
resample is a little above that of its images, since copies of one stand together; where positives
are few the interval lies high by that.

`scipy.stats.bootstrap` would rank all images of each class again for each resample, some minutes
for a result; here they are ranked once and counted `RESAMPLES` times.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from vggfeat.classify.measures import DEALS, Counts, Doubles, Labels, Measure, Scores

LEVEL = 0.95
RESAMPLES = 1_000
_AT_ONCE = 100  # resamples: their counts stay in the processor's cache


def resamples(images: int, seed: int, split: int) -> npt.NDArray[np.int32]:
    """Draw test images with replacement, `RESAMPLES` times.

    numpy's RandomState, whose stream is frozen for ever (NEP 19): the same on every machine.

    Args:
        images: n.
        seed: Of the recipe.
        split: Number of the split, since every one is drawn from by itself: an image that several
            splits test counts as several.

    Returns:
        (n, RESAMPLES), how often each image was drawn; each column sums to n.
    """
    random = np.random.RandomState([seed, split])
    counts = np.empty((images, RESAMPLES), dtype=np.int32)
    for column in counts.T:
        column[:] = np.bincount(random.randint(0, images or 1, images), minlength=images)
    return counts


def resampled(
    measure: Measure, scores: Scores, labels: Labels, counts: Counts
) -> tuple[Doubles, Doubles]:
    """Return what a measure is over each resample.

    A class that has no positive in a resample leaves its mean, as it leaves that of the images
    themselves.

    Args:
        measure: Which.
        scores: (n, K) of the test images.
        labels: (n, K).
        counts: (n, R), from `resamples`.

    Returns:
        (R,), the means over classes or images, and (K, R), the numbers of the classes; NaN where a
        resample has none.
    """
    parts = [
        _numbers(measure, scores, labels, np.ascontiguousarray(counts[:, start : start + _AT_ONCE]))
        for start in range(0, counts.shape[1], _AT_ONCE)
    ]
    each = np.concatenate(parts, axis=1)
    weights = (~np.isnan(each)).astype(np.float64)
    if measure.over_images_of is not None:
        weights *= (labels > 0).T.astype(np.float64) @ counts
    total = weights.sum(axis=0)
    sums = (np.where(weights > 0, each, 0) * weights).sum(axis=0)
    return np.divide(sums, total, out=np.full(len(total), np.nan), where=total > 0), each


def interval(values: Sequence[Doubles]) -> tuple[float, float] | None:
    """Return the interval that holds `LEVEL` of the resampled scores, as much beyond each end.

    Args:
        values: For each split its (R,) resampled scores; of several splits the interval is that of
            their mean.

    Returns:
        Low and high; None if no resample has a number.
    """
    joined = np.mean(values, axis=0)
    known = joined[~np.isnan(joined)]
    if not len(known):
        return None
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def chance(measure: Measure, scores: Scores, labels: Labels, seed: int) -> float:
    """Return what a measure is on average where the scores are dealt to the images at random.

    An image's scores of all classes stay together. For recall and accuracy that is an exact
    expectation, 1/K where K classes are alike; for an average precision the mean of `DEALS` seeded
    random rankings of each class, which is its share of positives, and a little more where there
    are few, since definitions that take the best precision at a recall or above reward luck.

    Args:
        measure: Which.
        scores: (n, K) of the test images.
        labels: (n, K).
        seed: Of the recipe.

    Returns:
        In [0, 1]; NaN if no class has a number.
    """
    if measure.by_chance is not None:
        return measure.mean(measure.by_chance(scores, labels, seed), labels)
    random = np.random.RandomState(seed)
    dealt = (scores[random.permutation(len(scores))] for _ in range(DEALS))
    return float(np.mean([measure.of_all(some, labels)[0] for some in dealt]))


def _numbers(measure: Measure, scores: Scores, labels: Labels, counts: Counts) -> Doubles:
    """Return the (K, R) numbers of some resamples; without a fast form they are really drawn."""
    if measure.resampled is not None:
        return measure.resampled(scores, labels, counts)
    drawn = (np.repeat(np.arange(len(labels)), column) for column in counts.T)
    return np.array([measure.of_classes(scores[rows], labels[rows]) for rows in drawn]).T
