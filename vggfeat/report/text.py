"""A result as plain text, for a terminal or a log."""

from __future__ import annotations

from vggfeat.classify.confidence import LEVEL
from vggfeat.classify.measures import MEASURES, companion
from vggfeat.report.result import Result


def result_text(result: Result) -> str:
    """Return the table of classes, the means, how far to trust them, and what else to know."""
    width = max(len("mean over classes"), *(len(c.name) for c in result.classes))
    columns = [MEASURES[name].short if name in MEASURES else name for name in result.means]
    header = f"{'class':{width}}  {'train':>6}  {'test':>6}  {'C':>9}  "
    lines = [header + "  ".join(f"{name:>8}" for name in columns)]
    for c in result.classes:
        cells = "  ".join(f"{percent(c.values.get(name)):>8}" for name in result.means)
        lines.append(f"{c.name:{width}}  {c.train:6d}  {c.test:6d}  {c.c:9.4g}  {cells}")
    cells = "  ".join(f"{percent(value):>8}" for value in result.means.values())
    lines.append(f"{'mean over classes':{width}}  {'':6}  {'':6}  {'':9}  {cells}")
    lines.append("")
    several, repeats = len(result.splits) > 1, result.recipe.repeats
    spread = f" ± {percent(result.deviations.get(result.measure))}" if several else ""
    over = (
        f", mean ± sample standard deviation of {len(result.splits)} {repeats}" if several else ""
    )
    counted = result.splits[0].counted.get(result.measure, 0)
    lines.append(
        f"{result.measure} {percent(result.score)}{spread} over {counted} of "
        f"{len(result.classes)} classes{over}; descriptors of {result.descriptor_size} numbers"
    )
    lines += _trust(result)
    lines += _shots(result)
    for number, split in enumerate(result.splits, 1):
        prefix = (
            f"{repeats.removesuffix('s')} {number}: {percent(split.means.get(result.measure))}; "
            if several
            else ""
        )
        lines.append(
            prefix + ", ".join(f"{part} {count}" for part, count in split.sizes.items()) + " images"
        )
        search = split.search
        pairs = zip(search.grid, search.means, strict=True)
        tried = ", ".join(f"{c:.4g}: {percent(mean)}" for c, mean in pairs)
        lines.append(f"C by {search.measure} on val: {tried}")
        gap = "" if search.gap is None else f", duality gap at most {search.gap:.1g}"
        lines.append(
            f"{search.fits} fits ({search.solver}{gap}), {search.not_converged} not converged"
        )
    lines.append("; ".join(f"{name} {s:.1f} s" for name, s in result.seconds.items()))
    return "\n".join([*lines, *(f"note: {warning}" for warning in result.warnings)])


def _shots(result: Result) -> list[str]:
    """Return a line for each number of training images of each class."""
    if not result.shots:
        return []
    lines = [f"{'images of each class':>20}  {result.measure}, % (mean ± deviation; each draw)"]
    for one in result.shots:
        spread = one.deviations.get(result.measure)
        mean = percent(one.means.get(result.measure))
        mean += "" if spread is None else f" ± {percent(spread)}"
        lines.append(f"{one.images:20}  {mean:14}  {', '.join(map(percent, one.scores))}")
    return lines


def _trust(result: Result) -> list[str]:
    """Return interval and chance of the score, and what stands beside it."""
    lines = [_interval(result, result.measure)]
    beside = companion(result.measure)
    if beside in result.means:
        lines.append(f"{beside} {percent(result.means[beside])}, {_interval(result, beside)}")
    if result.resamples is not None:
        lines[0] += f" ({result.resamples:,} resamples of the test images)"
    return lines


def _interval(result: Result, measure: str) -> str:
    chance = percent(result.chance.get(measure))
    return f"{100 * LEVEL:g} % interval {span(result.intervals.get(measure))}, chance {chance}"


def span(interval: tuple[float, float] | None) -> str:
    """Return an interval of fractions as percentages with two decimals, "–" for none.

    >>> span((0.8731, 0.9)), span(None)
    ('87.31 to 90.00', '–')
    """
    return "–" if interval is None else f"{percent(interval[0])} to {percent(interval[1])}"


def percent(value: float | None) -> str:
    """Return a fraction as a percentage with two decimals, "–" for none.

    >>> percent(0.893), percent(None)
    ('89.30', '–')
    """
    return "–" if value is None else f"{100 * value:.2f}"
