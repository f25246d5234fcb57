"""From test scores and labels to the numbers of a result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vggfeat.classify.confidence import RESAMPLES, chance, interval, resampled, resamples
from vggfeat.classify.measures import (
    Doubles,
    Scores,
    measures_for,
    precision_recall,
    predicted_class,
)
from vggfeat.classify.svm import undecided
from vggfeat.data.records import Dataset, Kind, Labels, published_ids
from vggfeat.extraction.images import MAX_ASPECT
from vggfeat.recipe import Recipe, fingerprint
from vggfeat.report.fields import number
from vggfeat.report.result import (
    ClassResult,
    Example,
    Result,
    Search,
    Shots,
    SplitOutcome,
    StoreUsed,
)
from vggfeat.transfer.fit import Fitted
from vggfeat.transfer.samples import Sample
from vggfeat.version import versions

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
    _, labels, scores = test
    asked = measures_for(one_class=kind is Kind.ONE_CLASS, own=measure)
    predicted = predicted_class(scores) if kind is Kind.ONE_CLASS else None
    each = {one.name: one.of_classes(scores, labels) for one in asked if one.over_images_of is None}
    results = []
    for k, name in enumerate(names):
        positives = int((train[:, k] > 0).sum()), int((labels[:, k] > 0).sum())
        best, worst, false = _examples(test, k, predicted)
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


@dataclass(frozen=True, kw_only=True)
class Confidence:
    """How far the scores of one split can be trusted.

    Attributes:
        means: Of each measure its (R,) means over resamples of the test images.
        own: (K, R) numbers of the classes by the experiment's own measure.
        chance: Of each measure what it is by chance; None where there is no number.
    """

    means: dict[str, Doubles]
    own: Doubles
    chance: dict[str, float | None]


_UNKNOWN = Confidence(means={}, own=np.empty((0, 0)), chance={})


def confidence(
    labels: Labels, scores: Scores, kind: Kind, measure: str, draw: tuple[int, int]
) -> Confidence:
    """Score resamples of the test images, and what is dealt at random.

    Args:
        labels: (m, K) of the test images.
        scores: (m, K).
        kind: Whether each image has one class.
        measure: The experiment's own, as in `means`.
        draw: The recipe's seed, and the number of the split.
    """
    counts = resamples(len(labels), *draw)
    asked = measures_for(one_class=kind is Kind.ONE_CLASS, own=measure)
    found = {one.name: resampled(one, scores, labels, counts) for one in asked}
    return Confidence(
        means={name: means for name, (means, _) in found.items()},
        own=found[measure][1],
        chance={one.name: number(chance(one, scores, labels, draw[0])) for one in asked},
    )


def class_means(splits: Sequence[tuple[ClassResult, ...]]) -> tuple[ClassResult, ...]:
    """Return each class's first result, its values replaced by the means over splits."""
    merged = []
    for of_class in zip(*splits, strict=True):
        values = {
            name: _mean([result.values[name] for result in of_class]) for name in of_class[0].values
        }
        notes = [f"{r.note} ({n} of {len(splits)})" for n, r in enumerate(of_class, 1) if r.note]
        note = of_class[0].note or next(iter(notes), None)
        merged.append(of_class[0].model_copy(update={"values": values, "note": note}))
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
    test: tuple[Sequence[str], Labels, Scores], k: int, predicted: npt.NDArray[np.int64] | None
) -> tuple[tuple[Example, ...], ...]:
    """Return a class's best-scored images, worst-scored positives, and best false positives.

    Args:
        test: As in `class_results`.
        k: The class.
        predicted: (m,) what each image was taken for; None where it may show any number of classes
            and the sign of a score decides.
    """
    ids, labels, scores = test
    own, marks = scores[:, k], labels[:, k]
    order = np.argsort(-own, kind="stable")
    order = order[~np.isnan(own[order])]
    worst = order[marks[order] > 0][::-1]
    decided = own > 0 if predicted is None else predicted == k
    false = order[(marks[order] < 0) & decided[order]]

    def examples(rows: npt.NDArray[np.int64]) -> tuple[Example, ...]:
        return tuple(
            Example(
                id=ids[i],
                score=float(own[i]),
                label=int(marks[i]),
                true=None if predicted is None else int(labels[i].argmax()),
                predicted=None if predicted is None else int(predicted[i]),
            )
            for i in rows[:_EXAMPLES]
        )

    return examples(order), examples(worst), examples(false)


@dataclass(frozen=True, kw_only=True)
class SplitRun:
    """What one split has given.

    Attributes:
        shots: How many training images of each class were drawn; None for all there are.
        samples: Of train, val and test; their descriptors only where there is one split, since
            those of several need not fit into memory together.
        fitted: The search, the classifiers and the test scores.
        outcome: What a result keeps of it.
        confidence: How far its scores can be trusted.
        classes: One for each class.
        confusion: Counts of (true, predicted) classes; empty where an image has any number.
    """

    shots: int | None
    samples: dict[str, Sample]
    fitted: Fitted
    outcome: SplitOutcome
    confidence: Confidence
    classes: tuple[ClassResult, ...]
    confusion: Counter[tuple[int, int]]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """A result, and the arrays behind it.

    Attributes:
        result: What is written and published, without paths of this machine.
        runs: One for each split of the result.
        origin: What the classifiers keep of this machine; see `vggfeat.transfer.origin`.
    """

    result: Result
    runs: tuple[SplitRun, ...]
    origin: dict[str, Any]


def split_run(
    samples: dict[str, Sample], fitted: Fitted, dataset: Dataset, recipe: Recipe, split: int
) -> SplitRun:
    """Measure what one split has given.

    Args:
        samples: "train", "val" and "test".
        fitted: On them.
        dataset: Their own.
        recipe: Says by which measure.
        split: Its number, from 1.
    """
    search, classifier, scores = fitted.search, fitted.classifier, fitted.scores
    train = np.concatenate([samples[part].readable.labels for part in ("train", "val")])
    test = samples["test"]
    measured = test.labels, scores, dataset.kind, recipe.measure
    values, counted = means(*measured)
    # of draws of fewer images than the most a result keeps their scores alone
    whole = dataset.shots_of(split) == dataset.shots_of(len(dataset.splits))
    trust = confidence(*measured, (recipe.seed, split)) if whole else _UNKNOWN
    published = published_ids(item.id for item in dataset.items)
    if len(dataset.splits) > 1:
        samples = {part: sample.without_descriptors for part, sample in samples.items()}
    return SplitRun(
        shots=dataset.shots_of(split),
        samples=samples,
        fitted=fitted,
        outcome=SplitOutcome(
            sizes={part: len(sample.ids) for part, sample in samples.items()},
            search=Search(
                measure=recipe.measure,
                grid=search.grid,
                means=tuple(number(mean) for mean in search.means),
                grown=search.grown,
                at_edge=search.at_edge,
                fits=search.fits + int((~np.isnan(classifier.intercept)).sum()),
                not_converged=search.not_converged + classifier.not_converged,
                solver=search.solver,
                gap=number(np.fmax(search.gap, classifier.gap)),
            ),
            c=tuple(sorted(set(search.c))),
            means=values,
            counted=counted,
            intervals={name: interval([some]) for name, some in trust.means.items()},
            chance=trust.chance,
        ),
        confidence=trust,
        classes=class_results(
            dataset.classes,
            search.c,
            train,
            ([published[i] for i in test.ids], test.labels, scores),
            dataset.kind,
            recipe.measure,
        ),
        confusion=confusion(test.labels, scores) if dataset.kind is Kind.ONE_CLASS else Counter(),
    )


def result_of(
    recipe: Recipe,
    dataset: Dataset,
    stores: tuple[StoreUsed, ...],
    runs: Sequence[SplitRun],
    seconds: dict[str, float],
) -> Result:
    """Collect what all splits have given.

    Args:
        recipe: Of the experiment.
        dataset: Its own.
        stores: One for each net and region.
        runs: One for each split; of several numbers of training images the largest one makes the
            result, and what the others gave stands in its `shots`.
        seconds: Time of each step.
    """
    shots, all_runs, runs = shots_of(runs, recipe), runs, final(runs)
    outcomes = tuple(run.outcome for run in runs)
    classes = tuple(
        one.model_copy(update={"interval": interval([run.confidence.own[k] for run in runs])})
        for k, one in enumerate(class_means([run.classes for run in runs]))
    )
    confused = sum((run.confusion for run in runs), Counter[tuple[int, int]]())
    values, deviations = split_means([outcome.means for outcome in outcomes])
    identity = [recipe.canonical(), [store.weights_sha256 for store in stores]]
    return Result(
        name=recipe.file_name(),
        recipe=recipe,
        recipe_fingerprint=fingerprint({"experiment": identity}),
        kind=dataset.kind.value,
        ignored=len(dataset.ignored),
        stores=stores,
        descriptor_size=runs[0].fitted.classifier.coef.shape[1],
        splits=outcomes,
        shots=shots,
        classes=classes,
        confusion=tuple((*pair, count) for pair, count in sorted(confused.items())),
        means=values,
        deviations=deviations,
        intervals={name: interval([run.confidence.means[name] for run in runs]) for name in values},
        chance={name: _mean([one.chance[name] for one in outcomes]) for name in values},
        resamples=RESAMPLES,
        measure=recipe.measure,
        score=values.get(recipe.measure),
        warnings=(
            *_warnings(stores, classes, all_runs, recipe),
            *(
                f"{one.short} of {len(classes)} classes have fewer than {one.images} training "
                "images, and train with all they have."
                for one in shots
                if one.short
            ),
        ),
        seconds=seconds,
        versions=versions(),
    )


def final(runs: Sequence[SplitRun]) -> tuple[SplitRun, ...]:
    """Return the runs that a result is made of: those of the most training images of each class."""
    return tuple(run for run in runs if run.shots == runs[-1].shots)


def shots_of(runs: Sequence[SplitRun], recipe: Recipe) -> tuple[Shots, ...]:
    """Return what each number of training images of each class gave, over its draws.

    Args:
        runs: One for each number and draw, the numbers ascending.
        recipe: Says by which measure.
    """
    found = []
    for images in recipe.shots or ():
        own = [run for run in runs if run.shots == images]
        values, deviations = split_means([run.outcome.means for run in own])
        short = np.any([[c.train < images for c in run.classes] for run in own], axis=0)
        found.append(
            Shots(
                images=images,
                short=int(short.sum()),
                scores=tuple(run.outcome.means[recipe.measure] for run in own),
                means=values,
                deviations=deviations,
            )
        )
    return tuple(found)


def _unchosen(runs: Sequence[SplitRun]) -> Iterator[str]:
    """Say where validation could not tell any C, by the number of training images."""
    for shots in dict.fromkeys(run.shots for run in runs):
        own = [run.outcome for run in runs if run.shots == shots]
        c = [one.c for one in own if None in one.search.means]
        if c:
            noun = "image" if shots == 1 else "images"
            where = "" if shots is None else f"{shots} training {noun} of each class: "
            yield (
                f"{where}No C could be chosen, since no class can be measured on val; "
                f"it is {', '.join(f'{value:.4g}' for value in c[0])}."
            )


def _warnings(
    stores: tuple[StoreUsed, ...],
    classes: tuple[ClassResult, ...],
    runs: Sequence[SplitRun],
    recipe: Recipe,
) -> tuple[str, ...]:
    found = []
    all_runs, runs = runs, final(runs)
    searches = [run.outcome.search for run in runs]
    for store in stores:
        if store.substitute:
            found.append(f"{store.model} has {store.substitute}: a substitute.")
        lost = {"unreadable": store.unreadable, "with a descriptor of zero": store.zero}
        found += [f"{n} images are {what} ({store.model})." for what, n in lost.items() if n]
        if store.cropped:
            found.append(f"{store.cropped} images were cropped to an aspect of {MAX_ASPECT}:1.")
    found += [f"{c.name}: {c.note}." for c in classes if c.note]
    found += _unchosen(all_runs)
    names = [c.name for c in classes]
    for index, run in enumerate(runs, 1):
        if doubt := undecided(run.fitted.search, names):
            which = recipe.repeats.removesuffix("s").capitalize()
            found.append(f"{which} {index}: {doubt}" if len(runs) > 1 else doubt)
    if any(search.at_edge for search in searches):
        found.append("A chosen C lies at the edge of the grid.")
    if failed := sum(search.not_converged for search in searches):
        found.append(f"{failed} of the SVMs fitted did not converge.")
    return tuple(dict.fromkeys(found))
