"""Average precision as PASCAL VOC defines it, mean class recall and accuracy. Only numpy.

`MEASURES` is the one place that names them: recipes, the search for C, results, tables and pages
loop over it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Literal

import numpy as np
import numpy.typing as npt

from vggfeat.errors import RecipeError, nearest

Floats = npt.NDArray[np.floating]  # of any precision
Doubles = npt.NDArray[np.float64]
Scores = Floats
Labels = npt.NDArray[np.integer]
Counts = npt.NDArray[np.integer]  # how often each image occurs in each of R resamples
Average = Literal["voc2007", "voc2010", "sklearn"]

# MATLAB's 0:0.1:1. numpy's arange has 0.6000000000000001 and 0.7000000000000001 instead, which a
# recall of exactly 3/5 misses.
RECALL_LEVELS = (0.0, 0.1, 0.2, 0.30000000000000004, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
AP_MEASURES: tuple[Average, ...] = ("voc2007", "voc2010", "sklearn")
DEALS = 500  # random rankings, whose mean is chance


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A number for each class, whose mean scores an experiment.

    Attributes:
        name: In recipes and results.
        label: Of the mean, for people.
        column: Of the number of one class.
        short: The same, where a column is 8 letters wide.
        of_classes: (n, K) scores and (n, K) labels, as in `mean_average_precision`, → (K,) numbers
            in [0, 1], NaN for a class that has none.
        one_class: Whether each image must have one class. The number of a class then hangs on the
            scores of all, so that no class can choose its C alone.
        on_request: Whether it is measured only where it is the experiment's own.
        over_images_of: The measure whose numbers of classes its own are, if its mean counts every
            image alike instead of every class.
        resampled: The same numbers of R resamples at once: (n, K) scores and labels, and (n, R)
            counts, → (K, R), each as `of_classes` has it of the images repeated by their counts, in
            their order, so that copies stand together. NaN where a resample has no positive. None
            for a measure whose resamples are really drawn.
        by_chance: (n, K) scores and labels, and a seed, → (K,) expectations of `of_classes` where
            the rows of scores are dealt to the images at random. None for a measure whose rows are
            really dealt.
    """

    name: str
    label: str
    column: str
    short: str
    of_classes: Callable[[Scores, Labels], Doubles]
    one_class: bool = False
    on_request: bool = False
    over_images_of: str | None = None
    resampled: Callable[[Scores, Labels, Counts], Doubles] | None = None
    by_chance: Callable[[Scores, Labels, int], Doubles] | None = None

    def of_all(self, scores: Scores, labels: Labels) -> tuple[float, Doubles]:
        """Return the mean over the classes that have a number, and the (K,) numbers.

        Args:
            scores: (n, K).
            labels: (n, K).
        """
        each = self.of_classes(scores, labels)
        return self.mean(each, labels), each

    def mean(self, each: Doubles, labels: Labels) -> float:
        """Return the mean over the classes that have a number; NaN if none has.

        Args:
            each: (K,) numbers.
            labels: (n, K), whose positives weigh the classes where every image counts alike.
        """
        known = ~np.isnan(each)
        if self.over_images_of is None or not known.any():
            return mean_of(each)
        return float(np.average(each[known], weights=(labels > 0).sum(axis=0)[known]))


def average_precision(
    scores: Scores,
    labels: Labels,
    *,
    measure: Average = "voc2007",
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


def precision_recall(scores: Scores, labels: Labels) -> tuple[Doubles, Doubles]:
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


def eleven_points(recall: Doubles, precision: Doubles) -> Doubles:
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


def envelope(recall: Doubles, precision: Doubles) -> tuple[Doubles, Doubles]:
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
    scores: Scores, labels: Labels, *, measure: Average
) -> tuple[float, Doubles]:
    """Return the mean over the classes that have a positive, and the (K,) values, NaN for others.

    Args:
        scores: (n, K); a column of NaN is a class that was not scored, and has no AP either.
        labels: (n, K).
        measure: Which definition.
    """
    return MEASURES[measure].of_all(scores, labels)


def mean_of(each: Doubles) -> float:
    """Return the mean of the (K,) numbers that are not NaN; NaN if there is none."""
    known = each[~np.isnan(each)]
    return float(known.mean()) if len(known) else float("nan")


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
    recalls = list(_recalls(predicted, true).values())
    return float(np.mean(recalls)) if recalls else float("nan")


def predicted_class(scores: Scores) -> npt.NDArray[np.int64]:
    """Return the class of the highest score, (n,); −1 where an image has no score at all."""
    absent = np.isnan(scores).all(axis=1)
    return np.where(absent, -1, np.where(np.isnan(scores), -np.inf, scores).argmax(axis=1))


def measure_of(name: str) -> Measure:
    """Return a measure by its name.

    Raises:
        RecipeError: If there is none; the nearest is named.
    """
    if name not in MEASURES:
        raise RecipeError(f"Unknown measure {name!r}.", nearest(name, MEASURES))
    return MEASURES[name]


def measures_for(*, one_class: bool, own: str) -> tuple[Measure, ...]:
    """Return what an experiment measures.

    Args:
        one_class: Whether each of its images has one class.
        own: The name of its own measure.
    """
    return tuple(
        measure
        for measure in MEASURES.values()
        if (one_class or not measure.one_class) and (measure.name == own or not measure.on_request)
    )


def companion(name: str) -> str | None:
    """Return the measure that belongs beside another: the one that weighs the same numbers else.

    >>> companion("mean_class_recall"), companion("accuracy"), companion("voc2007")
    ('accuracy', 'mean_class_recall', None)
    """
    pairs = ((m.name, m.over_images_of) for m in MEASURES.values() if m.over_images_of)
    beside = {one: other for pair in pairs for one, other in (pair, pair[::-1])}
    return beside.get(name)


def resampled_average_precision(
    scores: Scores, labels: Labels, counts: Counts, *, measure: Average
) -> Doubles:
    """Return the average precision of one class in each of R resamples, sorting once.

    It is that of `average_precision` over the images repeated by their counts, in the order of the
    ground truth: the copies of an image stand together, and before those of a later image of equal
    score. Only the ranks of positives matter. Among the copies of one, precision rises, and recall
    does not reach a level with an early copy that it misses with the last: so what is best at a
    recall or above is found at last copies alone.

    Args:
        scores: (n,), as in `average_precision`.
        labels: (n,).
        counts: (n, R), how often each image occurs.
        measure: Which definition.

    Returns:
        (R,), in [0, 1]; NaN for a resample without a positive.
    """
    counted = np.flatnonzero(labels != 0)
    values = -_absent_last(scores[counted])
    order = np.argsort(values, kind="stable")
    ranked = counts[counted[order]]
    at = np.flatnonzero(labels[counted[order]] > 0)
    if not len(at):
        return np.full(counts.shape[1], np.nan)
    drawn = ranked[at]
    hits, images = np.cumsum(drawn, axis=0), np.cumsum(ranked, axis=0, dtype=np.int32)
    if measure == "sklearn":  # images of equal score are taken at once
        last = np.searchsorted(values[order], values[order][at], side="right") - 1
        hits, images = hits[np.searchsorted(at, last, side="right") - 1], images[last]
    else:
        images = images[at]
    return _average_precision_of(drawn, hits, images, measure)


def _average_precision_of(drawn: Counts, hits: Counts, images: Counts, measure: Average) -> Doubles:
    """Return the AP of R rankings from what stands at their positives.

    Args:
        drawn: (P, R), copies of each positive, in the order of the ranking.
        hits: (P, R), positives up to its last copy.
        images: (P, R), images up to its last copy.
        measure: Which definition.
    """
    positives = drawn.sum(axis=0)
    precision = hits / np.maximum(images, 1)
    best = np.maximum.accumulate(precision[::-1], axis=0)[::-1]  # at that recall or above
    with np.errstate(invalid="ignore"):
        recall = hits / positives
        areas: Doubles = drawn * (precision if measure == "sklearn" else best) / positives
    if measure != "voc2007":
        area: Doubles = areas.sum(axis=0)
        return area
    columns = np.arange(drawn.shape[1])
    reached = [np.argmax(recall >= level, axis=0) for level in RECALL_LEVELS]
    points = np.mean([best[first, columns] for first in reached], axis=0)
    return np.where(positives > 0, points, np.nan)


@lru_cache(maxsize=4096)
def _chance_of(positives: int, images: int, seed: int) -> dict[Average, float]:
    """Return the mean AP of `DEALS` rankings of images in random order, by each definition."""
    random = np.random.RandomState([seed, positives, images])
    ranks = np.empty((positives, DEALS), dtype=np.int64)
    for column in ranks.T:
        column[:] = np.sort(random.permutation(images)[:positives]) + 1
    drawn = np.ones_like(ranks)
    hits = np.cumsum(drawn, axis=0)
    return {
        measure: float(_average_precision_of(drawn, hits, ranks, measure).mean())
        for measure in AP_MEASURES
    }


def _average_precisions(scores: Scores, labels: Labels, *, measure: Average) -> Doubles:
    each = np.full(labels.shape[1], np.nan)
    for k in _scored(scores):
        each[k] = average_precision(scores[:, k], labels[:, k], measure=measure)
    return each


def _resampled_average_precisions(
    scores: Scores, labels: Labels, counts: Counts, *, measure: Average
) -> Doubles:
    each = np.full((labels.shape[1], counts.shape[1]), np.nan)
    for k in _scored(scores):
        own = scores[:, k], labels[:, k]
        each[k] = resampled_average_precision(*own, counts, measure=measure)
    return each


def _average_precisions_by_chance(
    scores: Scores, labels: Labels, seed: int, *, measure: Average
) -> Doubles:
    """Return for each class the mean of seeded random rankings: about its share of positives."""
    each = np.full(labels.shape[1], np.nan)
    for k in _scored(scores):
        positives, images = int((labels[:, k] > 0).sum()), int((labels[:, k] != 0).sum())
        each[k] = _chance_of(positives, images, seed)[measure] if positives else np.nan
    return each


def _scored(scores: Scores) -> npt.NDArray[np.int64]:
    """Return the classes that have a score at all."""
    return np.flatnonzero(~np.isnan(scores).all(axis=0))


def _class_recalls(scores: Scores, labels: Labels) -> Doubles:
    each = np.full(labels.shape[1], np.nan)
    for k, recall in _recalls(predicted_class(scores), labels.argmax(axis=1)).items():
        each[k] = recall
    return each


def _resampled_recalls(scores: Scores, labels: Labels, counts: Counts) -> Doubles:
    predicted, true = predicted_class(scores), labels.argmax(axis=1)
    of_class = (true == np.arange(labels.shape[1])[:, None]).astype(np.float64)
    images = of_class @ counts
    right: Doubles = (of_class * (predicted == true)) @ counts
    return np.where(images > 0, right / np.maximum(images, 1), np.nan)


def _recalls_by_chance(scores: Scores, labels: Labels, _seed: int) -> Doubles:
    """Return for each class that occurs the share of images that are predicted to be of it.

    It is what of its images a random deal gets right on average; the mean is 1/K where all K occur.
    """
    predicted, true = predicted_class(scores), labels.argmax(axis=1)
    each = np.full(labels.shape[1], np.nan)
    for k in np.unique(true):
        each[k] = np.mean(predicted == k)
    return each


def _recalls(predicted: Labels, true: Labels) -> dict[int, float]:
    """Return the recall of each class that occurs."""
    return {int(k): float(np.mean(predicted[true == k] == k)) for k in np.unique(true)}


def _absent_last(scores: Scores) -> Doubles:
    return np.where(np.isnan(scores), -np.inf, scores.astype(np.float64))


MEASURES: dict[str, Measure] = {
    measure.name: measure
    for measure in (
        Measure(
            name="voc2007",
            label="mean average precision, VOC 2007 (11 points)",
            column="AP VOC 2007",
            short="11-point",
            of_classes=partial(_average_precisions, measure="voc2007"),
            resampled=partial(_resampled_average_precisions, measure="voc2007"),
            by_chance=partial(_average_precisions_by_chance, measure="voc2007"),
        ),
        Measure(
            name="voc2010",
            label="mean average precision, VOC 2010 (area under the curve)",
            column="AP VOC 2010",
            short="area",
            of_classes=partial(_average_precisions, measure="voc2010"),
            resampled=partial(_resampled_average_precisions, measure="voc2010"),
            by_chance=partial(_average_precisions_by_chance, measure="voc2010"),
        ),
        Measure(
            name="sklearn",
            label="mean average precision as scikit-learn defines it",
            column="AP scikit-learn",
            short="sklearn",
            of_classes=partial(_average_precisions, measure="sklearn"),
            resampled=partial(_resampled_average_precisions, measure="sklearn"),
            by_chance=partial(_average_precisions_by_chance, measure="sklearn"),
            on_request=True,
        ),
        Measure(
            name="mean_class_recall",
            label="mean class recall",
            column="recall",
            short="recall",
            of_classes=_class_recalls,
            one_class=True,
            resampled=_resampled_recalls,
            by_chance=_recalls_by_chance,
        ),
        Measure(
            name="accuracy",
            label="accuracy",
            column="recall",
            short="accuracy",
            of_classes=_class_recalls,
            one_class=True,
            over_images_of="mean_class_recall",
            resampled=_resampled_recalls,
            by_chance=_recalls_by_chance,
        ),
    )
}
