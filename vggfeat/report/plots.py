"""From numbers to the outlines that the page's template draws.

Outlines are SVG path data in percent of the plot: x to the right and y downwards, from 0 to 100.
Sizes, colours and texts are the template's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from vggfeat.classify.measures import RECALL_LEVELS, eleven_points, envelope
from vggfeat.report.result import Result, SplitOutcome

_INTERVALS = 5  # at most, between the ticks of an axis
_TICKS_OF_C = 8  # at most
_MARGIN = 0.03  # around a cloud of points, of the longer axis
_LEAST = 1e-6  # length of an axis
_CELLS = 80  # of a picture of a cloud of points, across
_CONFUSIONS = 50  # pairs of classes in the list

Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Curve:
    """Precision over recall of one class, and what the two measures of VOC make of it.

    Attributes:
        ranking: The curve itself.
        envelope: The monotone curve, below which the area is the AP of VOC 2010.
        levels: Eleven dots, whose mean precision is the AP of VOC 2007.
    """

    ranking: str
    envelope: str
    levels: str


@dataclass(frozen=True, kw_only=True)
class SearchLine:
    """The mean validation measure of one split over log C.

    Attributes:
        line: From value to value.
        dots: One for each value.
        chosen: One for each C that a class has in the end.
    """

    line: str
    dots: str
    chosen: str


@dataclass(frozen=True, kw_only=True)
class SearchPlot:
    """The choice of C.

    Attributes:
        lines: One for each split.
        c: Ticks of the horizontal axis: (percent of the plot, C).
        percent: Ticks of the vertical axis, ascending from 0 to 100 percent of the plot: (percent
            of the plot, value of the measure in percent).
    """

    lines: tuple[SearchLine, ...]
    c: tuple[Point, ...]
    percent: tuple[Point, ...]


@dataclass(frozen=True, kw_only=True)
class ShotsPlot:
    """The experiment's own measure over the logarithm of the training images of each class.

    Attributes:
        line: The means over the draws.
        spread: From one standard deviation below each mean to one above.
        dots: One for each draw.
        images: Ticks of the horizontal axis: (percent of the plot, images of each class).
        percent: Ticks of the vertical axis, as in `SearchPlot`.
    """

    line: str
    spread: str
    dots: str
    images: tuple[Point, ...]
    percent: tuple[Point, ...]


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """One class that was taken for another.

    Attributes:
        true: The class.
        predicted: What its images were taken for; None where they have no score.
        images: How many.
        share: Of the class's images, [0, 1].
    """

    true: str
    predicted: str | None
    images: int
    share: float


def curve(points: Sequence[Point]) -> Curve:
    """Return the outlines of one class's curve.

    Args:
        points: m ≥ 1 of (recall, precision), [0, 1], ascending in recall.
    """
    recall, precision = np.array(points, dtype=np.float64).T
    best = eleven_points(recall, precision)
    return Curve(
        ranking=_line(zip(100 * recall, 100 - 100 * precision, strict=True)),
        envelope=_stairs(*envelope(recall, precision)),
        levels=_dots(zip(100 * np.array(RECALL_LEVELS), 100 - 100 * best, strict=True)),
    )


def search(splits: Sequence[SplitOutcome]) -> SearchPlot | None:
    """Return the outlines of the search for C; None if no split has a number."""
    measured = [_measured(split) for split in splits]
    known = [point for points in measured for point in points]
    if not known:
        return None
    values = sorted({c for c, _ in known})
    ticks = nice_ticks(min(v for _, v in known), max(v for _, v in known))
    first, last = math.log(values[0]), math.log(values[-1])

    def across(c: float) -> float:
        return 100 * (math.log(c) - first) / (last - first) if last > first else 50.0

    def upwards(value: float) -> float:
        return 100 * (value - ticks[0]) / (ticks[-1] - ticks[0])

    lines = []
    for split, points in zip(splits, measured, strict=True):
        placed = {c: (across(c), 100 - upwards(value)) for c, value in points}
        chosen = [placed[c] for c in split.c if c in placed]
        lines.append(
            SearchLine(
                line=_line(placed.values()), dots=_dots(placed.values()), chosen=_dots(chosen)
            )
        )
    return SearchPlot(
        lines=tuple(lines),
        c=tuple((across(c), c) for c in values[:: math.ceil(len(values) / _TICKS_OF_C)]),
        percent=tuple((upwards(tick), tick) for tick in ticks),
    )


def shots(result: Result) -> ShotsPlot | None:
    """Return the outlines of what few training images give; None if no number of them has any."""
    known = [one for one in result.shots if one.means.get(result.measure) is not None]
    if not known:
        return None
    means = [100 * (one.means[result.measure] or 0) for one in known]
    spreads = [100 * one.deviations.get(result.measure, 0) for one in known]
    each = [[100 * score for score in one.scores if score is not None] for one in known]
    low, high = zip(*((m - s, m + s) for m, s in zip(means, spreads, strict=True)), strict=True)
    ticks = nice_ticks(min(*low, *map(min, each)), max(*high, *map(max, each)))
    logs = [math.log(one.images) for one in known]

    def across(value: float) -> float:
        return 100 * (value - logs[0]) / (logs[-1] - logs[0]) if len(logs) > 1 else 50.0

    def upwards(value: float) -> float:
        return 100 * (value - ticks[0]) / (ticks[-1] - ticks[0])

    places = [across(value) for value in logs]
    whiskers = zip(places, low, high, strict=True)
    return ShotsPlot(
        line=_line((x, 100 - upwards(mean)) for x, mean in zip(places, means, strict=True)),
        spread="".join(
            f"M{x:.4g},{100 - upwards(bottom):.4g}V{100 - upwards(top):.4g}"
            for x, bottom, top in whiskers
        ),
        dots=_dots(
            (x, 100 - upwards(score))
            for x, scores in zip(places, each, strict=True)
            for score in scores
        ),
        images=tuple((x, one.images) for x, one in zip(places, known, strict=True)),
        percent=tuple((upwards(tick), tick) for tick in ticks),
    )


def nice_ticks(low: float, high: float) -> list[float]:
    """Return multiples of 1, 2 or 5 times a power of ten that enclose [low, high].

    >>> nice_ticks(31.4, 58.9), nice_ticks(80.0, 80.0)
    ([30.0, 40.0, 50.0, 60.0], [79.0, 81.0])
    """
    if high - low < 1e-6:
        low, high = low - 1, high + 1
        return [low, high]
    least = (high - low) / _INTERVALS
    power = 10.0 ** math.floor(math.log10(least))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least)
    start, stop = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(k * step, 9) for k in range(start, stop + 1)]


@dataclass(frozen=True, kw_only=True)
class Scatter:
    """Points of a plane whose two axes have the same unit.

    Attributes:
        height: Of the plot, in widths.
        x: Ticks of the horizontal axis: (percent of the plot, coordinate).
        y: Ticks of the vertical axis: (percent of the plot, upwards, coordinate).
        dots: One outline for each group; points that fall on one spot of it are drawn once.
        density: (rows, columns) shares of the fullest cell, [0, 1], the first row on top.
    """

    height: float
    x: tuple[Point, ...]
    y: tuple[Point, ...]
    dots: tuple[str, ...]
    density: npt.NDArray[np.float64]


def scatter(points: npt.NDArray[np.float64], groups: Sequence[npt.NDArray[np.intp]]) -> Scatter:
    """Return the outlines of a cloud of points.

    Args:
        points: (n, 2), n ≥ 1.
        groups: Of each group which points are its own.
    """
    low, high = points.min(axis=0), points.max(axis=0)
    margin = _MARGIN * max(float((high - low).max()), _LEAST)
    low, span = low - margin, high - low + 2 * margin
    placed = 100 * (points - low) / span
    placed[:, 1] = 100 - placed[:, 1]
    spots = np.round(placed, 1)
    height = float(span[1] / span[0])
    cells = (max(1, round(_CELLS * height)), _CELLS)
    counts = np.histogram2d(placed[:, 1], placed[:, 0], cells, [(0, 100), (0, 100)])[0]
    return Scatter(
        height=height,
        x=_ticks_inside(float(low[0]), float(span[0])),
        y=_ticks_inside(float(low[1]), float(span[1])),
        dots=tuple(_dots(np.unique(spots[own], axis=0).tolist()) for own in groups),
        density=counts / counts.max(),
    )


def confusion_shares(result: Result) -> npt.NDArray[np.float64]:
    """Return the (K, K) shares of each true class's images that were taken for each class.

    A row's sum is below 1 where images have no score, and 0 where a class has no image.
    """
    counts = np.zeros((len(result.classes), len(result.classes) + 1))
    for true, predicted, images in result.confusion:
        counts[true, predicted] += images  # −1, no score, is the last column
    totals = counts.sum(axis=1, keepdims=True)
    shares: npt.NDArray[np.float64] = (counts / np.maximum(totals, 1))[:, :-1]
    return shares


def confusions(result: Result) -> list[Confusion]:
    """Return the most frequent mistakes, the most frequent first."""
    names = [record.name for record in result.classes]
    totals = [0] * len(names)
    for true, _, images in result.confusion:
        totals[true] += images
    found = [
        Confusion(
            true=names[true],
            predicted=names[predicted] if predicted >= 0 else None,
            images=images,
            share=images / totals[true],
        )
        for true, predicted, images in result.confusion
        if true != predicted
    ]
    return sorted(found, key=lambda pair: (-pair.images, -pair.share))[:_CONFUSIONS]


def _measured(split: SplitOutcome) -> list[Point]:
    """Return the (C, percent) of a split that have a number, ascending in C."""
    pairs = zip(split.search.grid, split.search.means, strict=False)
    return [
        (c, 100 * mean) for c, mean in pairs if c > 0 and mean is not None and math.isfinite(mean)
    ]


def _ticks_inside(low: float, span: float) -> tuple[Point, ...]:
    """Return (percent of the axis, value) of the nice values on an axis."""
    placed = ((100 * (tick - low) / span, tick) for tick in nice_ticks(low, low + span))
    return tuple((at, tick) for at, tick in placed if 0 <= at <= 100)


def _line(points: Iterable[Point]) -> str:
    return "M" + " ".join(f"{x:.4g},{y:.4g}" for x, y in points)


def _dots(points: Iterable[Point]) -> str:
    """Return strokes of no length, which round caps make dots."""
    return "".join(f"M{x:.4g},{y:.4g}h0" for x, y in points)


def _stairs(recall: npt.NDArray[np.float64], precision: npt.NDArray[np.float64]) -> str:
    """Return an envelope's outline; from recall[i] to recall[i + 1] it is at precision[i + 1]."""
    falls = np.flatnonzero(np.diff(precision[1:])) + 1  # the stair i ends at recall[i]
    steps = [f"H{100 * recall[i]:.4g}V{100 - 100 * precision[i + 1]:.4g}" for i in falls]
    return f"M0,{100 - 100 * precision[1]:.4g}" + "".join([*steps, "H100"])
