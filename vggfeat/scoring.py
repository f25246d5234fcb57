"""From test scores and labels to the numbers of a result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from vggfeat.classify.measures import measures_for, precision_recall, predicted_class
from vggfeat.data.split import Kind, Labels
from vggfeat.report.result import ClassResult, Example

Scores = npt.NDArray[np.float64]

_EXAMPLES = 6  # best and worst images kept for each class
_CURVE_POINTS = 200


def class_results(
    names: Sequence[str],
    c: Sequence[float],
    train: Labels,
    test: tuple[Sequence[str], Labels, Scores],
    kind: Kind,
    measure: str,
) -> tuple[ClassResult, ...]:
    """Return what came out for each class.

    Args:
        names: K classes.
        c: The chosen C of each.
        train: (n, K) labels of train and val, without unreadable images.
        test: m ids, (m, K) labels and (m, K) scores; NaN scores are absent and rank last.
        kind: Whether each image has one class.
        measure: The experiment's own.
    """
    ids, labels, scores = test
    asked = measures_for(one_class=kind is Kind.ONE_CLASS, own=measure)
    each = {one.name: one.of_classes(scores, labels) for one in asked}
    results = []
    for k, name in enumerate(names):
        positives = int((train[:, k] > 0).sum()), int((labels[:, k] > 0).sum())
        best, worst, false = _examples(ids, labels[:, k], scores[:, k])
        results.append(
            ClassResult(
                name=name,
                c=c[k],
                train=positives[0],
                test=positives[1],
                values={name: number(of_class[k]) for name, of_class in each.items()},
                note=_note(positives, scores[:, k]),
                curve=_curve(scores[:, k], labels[:, k]),
                best=best,
                worst=worst,
                false_positives=false,
            )
        )
    return tuple(results)


def means(
    labels: Labels, scores: Scores, kind: Kind, measure: str
) -> tuple[dict[str, float | None], dict[str, int]]:
    """Return the mean of each measure, and over how many classes it runs.

    Args:
        labels: (m, K) of the test images.
        scores: (m, K).
        kind: Whether each image has one class.
        measure: The experiment's own, in case it is none of the usual ones.
    """
    values: dict[str, float | None] = {}
    counted: dict[str, int] = {}
    for one in measures_for(one_class=kind is Kind.ONE_CLASS, own=measure):
        mean, each = one.of_all(scores, labels)
        values[one.name], counted[one.name] = number(mean), int((~np.isnan(each)).sum())
    return values, counted


def class_means(splits: Sequence[tuple[ClassResult, ...]]) -> tuple[ClassResult, ...]:
    """Return each class's first result, its values replaced by the means over splits."""
    merged = []
    for of_class in zip(*splits, strict=True):
        values = {
            name: _mean([result.values[name] for result in of_class]) for name in of_class[0].values
        }
        merged.append(of_class[0].model_copy(update={"values": values}))
    return tuple(merged)


def split_means(
    splits: Sequence[dict[str, float | None]],
) -> tuple[dict[str, float | None], dict[str, float]]:
    """Return mean and sample standard deviation (n − 1) over splits, the latter if there are two.

    A measure that a split does not have has neither.
    """
    means: dict[str, float | None] = {}
    deviations: dict[str, float] = {}
    for name in splits[0]:
        values = [value for split in splits if (value := split[name]) is not None]
        means[name] = _mean([split[name] for split in splits])
        if len(values) == len(splits) > 1:
            deviations[name] = float(np.std(values, ddof=1))
    return means, deviations


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None


def confusion(labels: Labels, scores: Scores) -> Counter[tuple[int, int]]:
    """Count how often each class was taken for which, where each image has one.

    Args:
        labels: (m, K) of the test images.
        scores: (m, K).

    Returns:
        (true class, predicted class) → images; −1 is predicted for an image without a score.
    """
    pairs = zip(labels.argmax(axis=1).tolist(), predicted_class(scores).tolist(), strict=True)
    return Counter(pairs)


def number(value: float) -> float | None:
    """Return a number that JSON has: None for NaN."""
    return None if np.isnan(value) else float(value)


def _note(positives: tuple[int, int], scores: Scores) -> str | None:
    if positives[0] == 0:
        return "no positive in train and val: no classifier, no AP"
    if positives[1] == 0:
        return "no positive in test: no AP"
    if np.isnan(scores).all():
        return "no negative in train and val: no classifier, no AP"
    return None


def _curve(scores: Scores, labels: Labels) -> tuple[tuple[float, float], ...]:
    """Return at most some 200 points (recall, precision), those where recall rises."""
    if np.isnan(scores).all() or not (labels > 0).any():
        return ()
    recall, precision = precision_recall(scores, labels)
    rises = np.flatnonzero(np.diff(recall, prepend=0) > 0)
    chosen = rises[np.unique(np.linspace(0, len(rises) - 1, _CURVE_POINTS).round().astype(int))]
    return tuple((float(recall[i]), float(precision[i])) for i in chosen)


def _examples(
    ids: Sequence[str], labels: Labels, scores: Scores
) -> tuple[tuple[Example, ...], ...]:
    """Return the best-scored images, the worst-scored positives, and the best-scored negatives."""
    order = np.argsort(-scores, kind="stable")
    order = order[~np.isnan(scores[order])]
    worst = order[labels[order] > 0][::-1]

    def examples(rows: npt.NDArray[np.int64]) -> tuple[Example, ...]:
        return tuple(
            Example(id=ids[i], score=float(scores[i]), label=int(labels[i]))
            for i in rows[:_EXAMPLES]
        )

    return examples(order), examples(worst), examples(order[labels[order] < 0])
