"""Average precision as PASCAL VOC defines it, and mean class recall. Only numpy."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from vggfeat.errors import RecipeError, nearest

Scores = npt.NDArray[np.floating]
Labels = npt.NDArray[np.integer]
Floats = npt.NDArray[np.float64]

# MATLAB's 0:0.1:1. numpy's arange has 0.6000000000000001 and 0.7000000000000001 instead, which a
# recall of exactly 3/5 misses.
RECALL_LEVELS = (0.0, 0.1, 0.2, 0.30000000000000004, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
AP_MEASURES = ("voc2007", "voc2010", "sklearn")


def average_precision(
    scores: Scores,
    labels: Labels,
    *,
    measure: Literal["voc2007", "voc2010", "sklearn"] = "voc2007",
) -> float:
    """Return the average precision of one class.

    "voc2007" is the mean over 11 recall levels of the best precision at that recall or above;
    "voc2010" the area under the precision made monotone (VOCevalcls.m of the two devkits).
    "sklearn" is Σ (R_i − R_{i−1}) P_i over distinct scores, neither interpolated nor VOC's.
    Images of equal score keep the order of the ground truth, as MATLAB's stable sort does;
    except for "sklearn", which takes them at once.

    Args:
        scores: (n,), higher is more confident; NaN or −inf for an absent one, which ranks last.
        labels: (n,) in {+1, −1, 0 = difficult, ignored}, in the order of the ground truth.
        measure: Which definition.

    Returns:
        In [0, 1]; NaN if no label is +1.

    >>> average_precision(np.array([0.9, 0.8, 0.7]), np.array([1, -1, 1]), measure="voc2010")
    0.8333333333333333
    """
    if measure not in AP_MEASURES:
        raise RecipeError(f"Unknown measure {measure!r}.", nearest(measure, AP_MEASURES))
    recall, precision = precision_recall(scores, labels)
    if not (labels > 0).any():
        return float("nan")
    if measure == "voc2007":
        return float(np.mean(eleven_points(recall, precision)))
    if measure == "voc2010":
        recall, precision = envelope(recall, precision)
        return float(np.sum(np.diff(recall) * precision[1:]))
    ranked = np.sort(_absent_last(scores[labels != 0]))[::-1]
    last_of_tie = np.append(ranked[1:] != ranked[:-1], True)
    recall, precision = recall[last_of_tie], precision[last_of_tie]
    return float(np.sum(np.diff(recall, prepend=0) * precision))


def precision_recall(scores: Scores, labels: Labels) -> tuple[Floats, Floats]:
    """Return recall and precision after each image of the ranking.

    Difficult images are dropped first; the devkit keeps them as neither true nor false positives,
    which gives the same averages without its 0/0 at the first ranks.

    Args:
        scores: As in `average_precision`.
        labels: As in `average_precision`.

    Returns:
        (m,) recall and (m,) precision, m the number of images that are not difficult; recall is
        NaN where there is no positive.
    """
    if scores.shape != labels.shape or scores.ndim != 1:
        message = f"scores {scores.shape} and labels {labels.shape} must be of one shape (n,)"
        raise ValueError(message)
    counted = labels != 0
    order = np.argsort(-_absent_last(scores[counted]), kind="stable")
    hits = np.cumsum(labels[counted][order] > 0)
    positives = int((labels > 0).sum())
    recall = hits / positives if positives else np.full(len(hits), np.nan)
    return recall, hits / np.arange(1, len(hits) + 1)


def eleven_points(recall: Floats, precision: Floats) -> Floats:
    """Return the precisions whose mean is the AP of VOC 2007.

    Args:
        recall: (m,) of a ranking, [0, 1], ascending.
        precision: (m,), [0, 1].

    Returns:
        (11,), for each of `RECALL_LEVELS` the best precision at that recall or above; 0 where the
        ranking does not reach it.

    >>> eleven_points(np.array([0.25, 0.5]), np.array([1.0, 0.5]))
    array([1. , 1. , 1. , 0.5, 0.5, 0.5, 0. , 0. , 0. , 0. , 0. ])
    """
    return np.array([precision[recall >= level].max(initial=0) for level in RECALL_LEVELS])


def envelope(recall: Floats, precision: Floats) -> tuple[Floats, Floats]:
    """Return the monotone curve below which the area is the AP of VOC 2010.

    Args:
        recall: (m,) of a ranking, [0, 1], ascending.
        precision: (m,), [0, 1].

    Returns:
        (m + 2,) recall from 0 to 1, and (m + 2,) precision that never rises: from recall[i] to
        recall[i + 1] the curve is level, at precision[i + 1].

    >>> envelope(np.array([0.5, 1.0]), np.array([0.25, 0.5]))
    (array([0. , 0.5, 1. , 1. ]), array([0.5, 0.5, 0.5, 0. ]))
    """
    padded = np.concatenate([[0], precision, [0]])
    return np.concatenate([[0], recall, [1]]), np.maximum.accumulate(padded[::-1])[::-1]


def mean_average_precision(
    scores: Scores, labels: Labels, *, measure: Literal["voc2007", "voc2010", "sklearn"]
) -> tuple[float, Floats]:
    """Return the mean over the classes that have a positive, and the (K,) values, NaN for others.

    Args:
        scores: (n, K); a column of NaN is a class that was not scored, and has no AP either.
        labels: (n, K).
        measure: Which definition.
    """
    each = np.full(labels.shape[1], np.nan)
    for k in range(labels.shape[1]):
        if not np.isnan(scores[:, k]).all():
            each[k] = average_precision(scores[:, k], labels[:, k], measure=measure)
    known = each[~np.isnan(each)]
    return (float(known.mean()) if len(known) else float("nan")), each


def mean_class_recall(predicted: Labels, true: Labels) -> float:
    """Return the mean over classes of the share of their images that are predicted right.

    Args:
        predicted: (n,) class numbers; −1 for an image that could not be classified.
        true: (n,) class numbers.

    Returns:
        In [0, 1], over the classes that occur in `true`; NaN if there are none.

    >>> mean_class_recall(np.array([0, 0, 1]), np.array([0, 0, 0]))
    0.6666666666666666
    """
    recalls = [float(np.mean(predicted[true == k] == k)) for k in np.unique(true)]
    return float(np.mean(recalls)) if recalls else float("nan")


def _absent_last(scores: Scores) -> Floats:
    return np.where(np.isnan(scores), -np.inf, scores.astype(np.float64))
