"""The tables as text: Markdown, LaTeX, CSV and HTML, all from the same records."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from vggfeat.report.paper import Cell, Figure, cells, published
from vggfeat.report.tables import ABLATIONS, AblationTable, Comparison, Run, Tables
from vggfeat.report.templates import environment

_TITLE = "Our numbers beside the paper's"
_NONE = "–"
_SERVER = "scored by the server"
_NOT_RUN = "not run"

_CSV_COLUMNS = (
    *("table", "row", "column", "question", "answer", "result", "score", "deviation", "difference"),
    *("published", "published_deviation", "published_starred", "weights", "substitutes", "fields"),
)
_MARKDOWN_SPECIAL = re.compile(r"([\\`*_\[\]<>|~$]|&(?=#?\w+;))")
_LATEX_SPECIAL = {
    **{character: f"\\{character}" for character in "{}&%$#"},
    "_": r"\_\allowbreak{}",  # names of files are long
    **{character: f"{{{character}}}" for character in "*[]`"},  # \\* and `` mean something else
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "−": "$-$",
    "±": r"$\pm$",
    "–": "--",
    "…": r"\dots{}",
}
_CODE = "`"  # around what is typed, in the notes


@dataclass(frozen=True, kw_only=True)
class _Line:
    """A line of a sheet; `own` marks ours among those of the paper."""

    cells: tuple[str, ...]
    own: bool = False


@dataclass(frozen=True, kw_only=True)
class _Sheet:
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
    lines: tuple[_Line, ...] = ()
    notes: tuple[str, ...] = ()
    part: bool = False
    marked: bool = False


def markdown(tables: Tables) -> str:
    """Return the tables as Markdown."""
    lines = [f"# {_TITLE}", ""]
    for note in _lead(tables):
        lines += [_inline(note, _markdown_text, _markdown_code), ""]
    for sheet in _sheets(tables):
        lines += [f"##{'#' * sheet.part} {_markdown_text(sheet.title)}", ""]
        if sheet.lines:
            names = [_markdown_text(name) for name, _ in sheet.columns]
            lines += [f"| {' | '.join(names)} |", "|" + "---|" * len(names)]
            lines += [_markdown_line(line) for line in sheet.lines] + [""]
        for note in sheet.notes:
            lines += [_inline(note, _markdown_text, _markdown_code), ""]
    return "\n".join(lines[:-1]) + "\n"


def latex(tables: Tables) -> str:
    """Return the tables as LaTeX, for a document that uses the packages booktabs and array."""
    lines = [r"% \usepackage{booktabs,array}", "% " + _TITLE]
    for note in _lead(tables):
        lines += ["", _inline(note, _latex_text, _latex_code)]
    for sheet in _sheets(tables):
        notes = [_inline(note, _latex_text, _latex_code) for note in sheet.notes]
        if sheet.lines:
            lines += ["", *_latex_table(sheet, notes)]
        else:
            lines += ["", rf"\paragraph{{{_latex_text(sheet.title)}}}", *notes]
    return "\n".join(lines) + "\n"


def html(tables: Tables) -> str:
    """Return the tables as a page that loads nothing."""
    page = environment().get_template("tables.html.j2")
    return page.render(title=_TITLE, lead=_lead(tables), sheets=_sheets(tables), code=_CODE)


def as_csv(tables: Tables) -> str:
    """Return one line for each cell, or for each of its runs; empty where there is nothing."""
    text = io.StringIO()
    writer = csv.DictWriter(text, _CSV_COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for line in (*_csv_of_paper(tables), *_csv_of_ablations(tables)):
        writer.writerow({k: _flat(v) if isinstance(v, str) else v for k, v in line.items()})
    return text.getvalue()


FORMATS: dict[str, Callable[[Tables], str]] = {
    "markdown": markdown,
    "latex": latex,
    "csv": as_csv,
    "html": html,
}


# What stands in the sheets


def _lead(tables: Tables) -> tuple[str, ...]:
    """Return what has to be known of all tables."""
    lead = [
        "All scores are percentages. A difference is ours minus the paper's, in points. Our ± is "
        "the sample standard deviation (n − 1) over the splits; the paper does not say which one "
        "its ± is.",
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


def _sheets(tables: Tables) -> list[_Sheet]:
    sheets: list[_Sheet] = []
    for comparison in tables.comparisons:
        sheets += _paper_sheets(comparison)
    if tables.ablations is not None:
        none = "None has been run: `vggfeat run RECIPE` with a recipe that has an `[ablation]`."
        some = (
            "One thing each is changed in a base, and a difference is that to the base, in points. "
            "Differs in: the fields in which the two recipes do differ."
        )
        sheets.append(_Sheet(title="Ablations", notes=(some if tables.ablations else none,)))
        sheets += [_ablation_sheet(table) for table in tables.ablations]
    return [_flattened(sheet) for sheet in sheets]


def _flattened(sheet: _Sheet) -> _Sheet:
    """Return a sheet whose title and cells are one line each."""
    lines = (replace(line, cells=tuple(map(_flat, line.cells))) for line in sheet.lines)
    return replace(sheet, title=_flat(sheet.title), lines=tuple(lines))


def _paper_sheets(comparison: Comparison) -> Iterator[_Sheet]:
    """Yield the paper's table with our rows, then our runs, then those on substitutes."""
    table = comparison.table
    share = 0.7 / len(table.columns)
    lines = []
    for row in table.rows:
        own = list(comparison.of_row(row))
        lines.append(_Line(cells=(row.name, *(_printed(cell.figure) for cell, _ in own))))
        if row.models:
            ours = (_ours(cell, runs) for cell, runs in own)
            lines.append(_Line(cells=(f"{row.name}, ours", *ours), own=True))
    notes = [f"*: {table.star}."]
    if any(column.server for column in table.columns):
        notes.append(
            f"{_SERVER.capitalize()}: the labels of the test set of VOC 2012 are not public, so "
            "only its evaluation server can score it."
        )
    yield _Sheet(
        title=f"The paper's Table {table.number}: {table.title}",
        columns=(("method", 0.3), *((column.name, share) for column in table.columns)),
        lines=tuple(lines),
        notes=tuple(notes),
    )
    figures = (("ours", 0.12), ("paper", 0.1), ("difference", 0.14))
    place = (("row", 0.15), ("column", 0.15))
    if comparison.real:
        yield _Sheet(
            title=f"Our runs for Table {table.number}",
            columns=(*place, *figures, ("weights", 0.19), ("result", 0.15)),
            lines=tuple(
                _Line(cells=(*_beside(cell, run), _joined(run.weights), run.result))
                for cell, run in comparison.real
            ),
            part=True,
        )
    if comparison.substituted:
        yield _Sheet(
            title=f"Table {table.number} on substitutes, which is not the paper's experiment",
            columns=(*place, *figures, ("substitutes", 0.19), ("result", 0.15)),
            lines=tuple(
                _Line(cells=(*_beside(cell, run), _joined(run.substitutes), run.result))
                for cell, run in comparison.substituted
            ),
            notes=(
                "None of these reproduces a figure of the paper: each differs in what is named.",
            ),
            part=True,
            marked=True,
        )


def _ablation_sheet(table: AblationTable) -> _Sheet:
    lines = [_Line(cells=("the base", _NONE, *_changed(table.run, ())), own=True)]
    lines += [
        _Line(cells=(one.question, one.answer, *_changed(one.run, one.fields)))
        for one in table.answers
    ]
    runs = [*([table.run] if table.run else []), *(one.run for one in table.answers)]
    marked = any(run.substitutes for run in runs)
    return _Sheet(
        title=f"Ablations of {table.base}{', on substitutes' if marked else ''}",
        columns=(
            *(("question", 0.13), ("answer", 0.13), ("score", 0.1), ("difference", 0.14)),
            *(("differs in", 0.15), ("substitutes", 0.19), ("result", 0.16)),
        ),
        lines=tuple(lines),
        notes=() if table.run else ("The base has not been run, so there is no difference.",),
        part=True,
        marked=marked,
    )


def _changed(run: Run | None, fields: Sequence[str]) -> tuple[str, ...]:
    if run is None:
        return (_NOT_RUN, *[_NONE] * 4)
    return (
        *(_spread(run.score, run.deviation), _signed(run.difference), _joined(fields)),
        *(_joined(run.substitutes), run.result),
    )


def _beside(cell: Cell, run: Run) -> tuple[str, ...]:
    return (
        *(cell.row.name, cell.column.name, _score(cell, run)),
        *(_printed(cell.figure), _signed(run.difference)),
    )


def _ours(cell: Cell, runs: Sequence[Run]) -> str:
    if not runs:
        return _SERVER if cell.column.server else _NOT_RUN
    texts = [
        _score(cell, run) + ("" if run.difference is None else f" ({_signed(run.difference)})")
        for run in runs
    ]
    return "; ".join(texts)


def _score(cell: Cell, run: Run) -> str:
    if run.score is None and cell.column.server:
        return _SERVER
    return _spread(run.score, run.deviation)


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


def _spread(score: float | None, deviation: float | None) -> str:
    if score is None:
        return _NONE
    return f"{score:.2f}" + ("" if deviation is None else f" ± {deviation:.2f}")


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


# The formats


def _flat(text: str) -> str:
    """Return text in one line, of what can be printed: the name of a file may hold anything."""
    return "".join(c if c.isprintable() else "\ufffd" for c in " ".join(text.split()))


def _inline(note: str, text: Callable[[str], str], code: Callable[[str], str]) -> str:
    """Return a note, its text and what is typed each in its form."""
    parts = enumerate(note.split(_CODE))
    return "".join(code(part) if k % 2 else text(part) for k, part in parts)


def _markdown_text(text: str) -> str:
    return _MARKDOWN_SPECIAL.sub(r"\\\1", text)


def _markdown_code(typed: str) -> str:
    return f"`{typed}`"


def _markdown_line(line: _Line) -> str:
    cells = [_markdown_text(cell) for cell in line.cells]
    return f"| {' | '.join(f'**{cell}**' if line.own and cell else cell for cell in cells)} |"


def _latex_text(text: str) -> str:
    r"""Return text for LaTeX; what plain pdfLaTeX has no letter for becomes a question mark.

    >>> print(_latex_text("50 % ± 猫"))
    50 \% $\pm$ ?
    """
    plain = (_LATEX_SPECIAL.get(c) or (c if " " <= c <= "~" else "?") for c in text)
    return "".join(plain)


def _latex_code(typed: str) -> str:
    return rf"\texttt{{{_latex_text(typed)}}}"


def _latex_table(sheet: _Sheet, notes: Sequence[str]) -> list[str]:
    """Return a table as wide as the text."""
    columns = (
        rf">{{\raggedright\arraybackslash}}p{{\dimexpr {share:.3f}\linewidth-2\tabcolsep\relax}}"
        for _, share in sheet.columns
    )
    head = " & ".join(_latex_text(name) for name, _ in sheet.columns)
    return [
        r"\begin{table}[htbp]",
        r"\footnotesize\setlength{\tabcolsep}{3pt}",
        rf"\caption{{{_latex_text(sheet.title)}}}",
        rf"\begin{{tabular}}{{@{{}}{'%'}",
        *(f"  {column}%" for column in columns),
        "  @{}}",
        r"\toprule",
        rf"{head} \\",
        r"\midrule",
        *(_latex_line(line) for line in sheet.lines),
        r"\bottomrule",
        r"\end{tabular}",
        *(rf"\par\smallskip {note}" for note in notes),
        r"\end{table}",
    ]


def _latex_line(line: _Line) -> str:
    cells = [_latex_text(cell) for cell in line.cells]
    return " & ".join(rf"\textbf{{{cell}}}" if line.own else cell for cell in cells) + r" \\"


def _csv_of_paper(tables: Tables) -> Iterator[dict[str, object]]:
    for comparison in tables.comparisons:
        for cell in (cell for cell in cells() if cell.table == comparison.table):
            place = {
                "table": cell.table.number,
                "row": cell.row.name,
                "column": cell.column.name,
                "published": cell.figure.value,
                "published_deviation": cell.figure.deviation,
                "published_starred": cell.figure.starred,
            }
            runs: list[Run | None] = [run for own, run in comparison.runs if own == cell]
            for run in runs or [None]:
                yield {**place, **_csv_of_run(run)}


def _csv_of_ablations(tables: Tables) -> Iterator[dict[str, object]]:
    for table in tables.ablations or ():
        place = {"table": ABLATIONS, "row": table.base}
        yield {**place, **_csv_of_run(table.run)}
        for one in table.answers:
            asked = {"question": one.question, "answer": one.answer}
            yield {**place, **asked, **_csv_of_run(one.run), "fields": "; ".join(one.fields)}


def _csv_of_run(run: Run | None) -> dict[str, object]:
    if run is None:
        return {}
    return {
        "result": run.result,
        "score": _rounded(run.score),
        "deviation": _rounded(run.deviation),
        "difference": _rounded(run.difference),
        "weights": "; ".join(run.weights),
        "substitutes": "; ".join(run.substitutes),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4) + 0.0  # + 0.0: no −0.0
