"""What stands in the sheets that Markdown, LaTeX and HTML show: every cell as plain text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from vggfeat.classify.confidence import LEVEL, RESAMPLES
from vggfeat.report.paper import Cell, Figure, published
from vggfeat.report.tables import AblationTable, Comparison, Run, Score, Tables

_NONE = "–"
_SERVER = "scored by the server"
_NOT_RUN = "not run"
_SECONDS = "Seconds: of all steps; describing images counts all those of the stores that were used."
_INTERVAL = f"{100 * LEVEL:g} % interval"

_BESIDE = (  # columns of `_beside`
    *(("row", 0.1), ("column", 0.12), ("ours", 0.09), (_INTERVAL, 0.1), ("chance", 0.07)),
    *(("beside it", 0.1), ("paper", 0.08), ("difference", 0.09)),
)


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line of a sheet; `own` marks ours among those of the paper."""

    cells: tuple[str, ...]
    own: bool = False


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """What Markdown, LaTeX and HTML show in their own ways: a table, or a heading of several.

    Attributes:
        title: Above it.
        columns: Names, and shares of the width.
        lines: From top to bottom.
        notes: Below it.
        part: Whether it belongs to the sheet above.
        marked: Whether it holds what is not the paper's experiment.
    """

    title: str
    columns: tuple[tuple[str, float], ...] = ()
    lines: tuple[Line, ...] = ()
    notes: tuple[str, ...] = ()
    part: bool = False
    marked: bool = False


def lead_of(tables: Tables) -> tuple[str, ...]:
    """Return what has to be known of all tables."""
    lead = [
        "All scores are percentages. A difference is ours minus the paper's, in points. Our ± is "
        "the sample standard deviation (n − 1) over the splits; the paper does not say which one "
        "its ± is.",
        f"The {_INTERVAL} of a score is that of {RESAMPLES:,} resamples of its test images "
        "(percentile bootstrap; training is not repeated). Chance is the mean where the scores are "
        "dealt to the images at random. An older result has neither.",
        f"The paper: {published().source}.",
        "Written by `vggfeat tables` from the files `results/*.json`.",
    ]
    if tables.comparisons and not any(comparison.real for comparison in tables.comparisons):
        lead.append(
            "Nothing has been run yet as in the paper, with the authors' weights and the whole "
            "data set. `vggfeat run RECIPE` with a recipe of `pipelines/` does so for one cell; "
            "afterwards `vggfeat tables --output results/TABLES.md` writes this page anew."
        )
    return tuple(lead)


def sheets_of(tables: Tables) -> list[Sheet]:
    """Return all sheets, from top to bottom; every cell is one line."""
    sheets: list[Sheet] = []
    for comparison in tables.comparisons:
        sheets += _paper_sheets(comparison)
    if tables.ablations is not None:
        none = "None has been run: `vggfeat run RECIPE` with a recipe that has an `[ablation]`."
        some = (
            "One thing each is changed in a base, and a difference is that to the base, in points. "
            "Differs in: the fields in which the two recipes do differ."
        )
        sheets.append(Sheet(title="Ablations", notes=(some if tables.ablations else none,)))
        sheets += [_ablation_sheet(table) for table in tables.ablations]
    if tables.others:
        note = f"They stand beside no figure of the paper. {_SECONDS}"
        sheets.append(_run_sheet("Other experiments", tables.others, note, marked=False))
    if tables.imitations:
        title = "Random weights and thin nets, which reproduce nothing"
        note = (
            "They show what a result looks like, and what is learnt without any training of the "
            f"net; no figure of the paper is theirs. {_SECONDS}"
        )
        sheets.append(_run_sheet(title, tables.imitations, note, marked=True))
    return [_flattened(sheet) for sheet in sheets]


def _flattened(sheet: Sheet) -> Sheet:
    """Return a sheet whose title and cells are one line each."""
    lines = (replace(line, cells=tuple(map(flat, line.cells))) for line in sheet.lines)
    return replace(sheet, title=flat(sheet.title), lines=tuple(lines))


def _paper_sheets(comparison: Comparison) -> Iterator[Sheet]:
    """Yield the paper's table with our rows, then our runs, then those on substitutes."""
    table = comparison.table
    share = 0.7 / len(table.columns)
    lines = []
    for row in table.rows:
        own = list(comparison.of_row(row))
        lines.append(Line(cells=(row.name, *(_printed(cell.figure) for cell, _ in own))))
        if row.models:
            ours = (_ours(cell, runs) for cell, runs in own)
            lines.append(Line(cells=(f"{row.name}, ours", *ours), own=True))
    notes = [f"*: {table.star}."]
    if any(column.server for column in table.columns):
        notes.append(
            f"{_SERVER.capitalize()}: the labels of the test set of VOC 2012 are not public, so "
            "only its evaluation server can score it."
        )
    yield Sheet(
        title=f"The paper's Table {table.number}: {table.title}",
        columns=(("method", 0.3), *((column.name, share) for column in table.columns)),
        lines=tuple(lines),
        notes=tuple(notes),
    )
    if comparison.real:
        yield Sheet(
            title=f"Our runs for Table {table.number}",
            columns=(*_BESIDE, ("weights", 0.14), ("result", 0.11)),
            lines=tuple(
                Line(cells=(*_beside(cell, run), _joined(run.weights), run.result))
                for cell, run in comparison.real
            ),
            part=True,
        )
    if comparison.substituted:
        yield Sheet(
            title=f"Table {table.number} on substitutes, which is not the paper's experiment",
            columns=(*_BESIDE, ("substitutes", 0.14), ("result", 0.11)),
            lines=tuple(
                Line(cells=(*_beside(cell, run), _joined(run.substitutes), run.result))
                for cell, run in comparison.substituted
            ),
            notes=(
                "None of these reproduces a figure of the paper: each differs in what is named.",
            ),
            part=True,
            marked=True,
        )


def _run_sheet(title: str, runs: Sequence[Run], note: str, *, marked: bool) -> Sheet:
    """Return runs that stand beside no figure."""
    return Sheet(
        title=title,
        columns=(
            *(("data set", 0.13), ("nets", 0.14), ("layer and scales", 0.1), ("test", 0.09)),
            *(("score", 0.12), (_INTERVAL, 0.1), ("chance", 0.06), ("beside it", 0.09)),
            *(("seconds", 0.06), ("result", 0.11)),
        ),
        lines=tuple(Line(cells=_by_itself(run)) for run in runs),
        notes=(note,),
        marked=marked,
    )


def _by_itself(run: Run) -> tuple[str, ...]:
    return (
        *(run.dataset, _joined(run.nets), f"{run.tap} at {', '.join(map(str, run.scales))}"),
        f"{run.images:,} images, {run.classes:,} classes",
        f"{run.score.measure} {_spread(run.score)}",
        *_trust(run),
        *(f"{run.seconds:,.0f}", run.result),
    )


def _trust(run: Run) -> tuple[str, ...]:
    """Return interval, chance, and the measure that belongs beside the score."""
    other = run.beside
    beside = _NONE if other is None else f"{other.measure} {_spread(other)}{_within(other)}"
    return _span(run.score), _decimals(run.score.chance), beside


def _ablation_sheet(table: AblationTable) -> Sheet:
    lines = [Line(cells=("the base", _NONE, *_changed(table.run, ())), own=True)]
    lines += [
        Line(cells=(one.question, one.answer, *_changed(one.run, one.fields)))
        for one in table.answers
    ]
    runs = [*([table.run] if table.run else []), *(one.run for one in table.answers)]
    marked = any(run.substitutes for run in runs)
    kind = ", with random weights or thin nets" if any(run.imitated for run in runs) else ""
    return Sheet(
        title=f"Ablations of {table.base}{kind or (', on substitutes' if marked else '')}",
        columns=(
            *(("question", 0.12), ("answer", 0.12), ("score", 0.09), (_INTERVAL, 0.12)),
            *(("difference", 0.1), ("differs in", 0.13), ("substitutes", 0.17), ("result", 0.15)),
        ),
        lines=tuple(lines),
        notes=() if table.run else ("The base has not been run, so there is no difference.",),
        part=True,
        marked=marked,
    )


def _changed(run: Run | None, fields: Sequence[str]) -> tuple[str, ...]:
    if run is None:
        return (_NOT_RUN, *[_NONE] * 5)
    return (
        *(_spread(run.score), _span(run.score), _signed(run.difference), _joined(fields)),
        *(_joined(run.substitutes), run.result),
    )


def _beside(cell: Cell, run: Run) -> tuple[str, ...]:
    return (
        *(cell.row.name, cell.column.name, _score(cell, run), *_trust(run)),
        *(_printed(cell.figure), _signed(run.difference)),
    )


def _ours(cell: Cell, runs: Sequence[Run]) -> str:
    if not runs:
        return _SERVER if cell.column.server else _NOT_RUN
    texts = [
        _score(cell, run)
        + _within(run.score)
        + ("" if run.difference is None else f" ({_signed(run.difference)})")
        for run in runs
    ]
    return "; ".join(texts)


def _score(cell: Cell, run: Run) -> str:
    if run.score.value is None and cell.column.server:
        return _SERVER
    return _spread(run.score)


def _printed(figure: Figure) -> str:
    """Return a figure as the paper prints it.

    >>> _printed(Figure(value=81.5, starred=85.2)), _printed(Figure(value=91.8, deviation=1.0))
    ('81.5 (85.2*)', '91.8 ± 1.0')
    >>> _printed(Figure(starred=70.2)), _printed(Figure())
    ('70.2*', '–')
    """
    value = "" if figure.value is None else f"{figure.value:.1f}"
    if figure.deviation is not None:
        value += f" ± {figure.deviation:.1f}"
    if figure.starred is None:
        return value or _NONE
    return f"{value} ({figure.starred:.1f}*)" if value else f"{figure.starred:.1f}*"


def _spread(score: Score) -> str:
    spread = "" if score.deviation is None else f" ± {_decimals(score.deviation)}"
    return _decimals(score.value) + ("" if score.value is None else spread)


def _span(score: Score) -> str:
    if score.interval is None:
        return _NONE
    return f"{_decimals(score.interval[0])} to {_decimals(score.interval[1])}"


def _within(score: Score) -> str:
    """Return the interval behind its score, where there is one."""
    return "" if score.interval is None else f", {_span(score)}"


def _decimals(value: float | None) -> str:
    return _NONE if value is None else f"{value:.2f}"


def _signed(difference: float | None) -> str:
    """Return a difference with its sign.

    >>> _signed(-0.04), _signed(1.5), _signed(-0.001), _signed(None)
    ('−0.04', '+1.50', '0.00', '–')
    """
    if difference is None:
        return _NONE
    text = f"{difference:+.2f}"
    return text.replace("-", "−") if float(text) else "0.00"


def _joined(texts: Sequence[str]) -> str:
    return "; ".join(texts) or _NONE


def flat(text: str) -> str:
    """Return text in one line, of what can be printed: the name of a file may hold anything."""
    return "".join(c if c.isprintable() else "\ufffd" for c in " ".join(text.split()))
