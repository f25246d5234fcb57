"""The tables as text: Markdown, LaTeX, CSV and HTML, all from the same records."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence

from vggfeat.report.paper import cells
from vggfeat.report.sheets import Line, Sheet, flat, lead_of, sheets_of
from vggfeat.report.tables import ABLATIONS, Run, Tables
from vggfeat.report.templates import environment

_TITLE = "Our numbers beside the paper's"
_CSV_COLUMNS = (
    *("table", "row", "column", "question", "answer", "result", "measure", "score", "deviation"),
    *("interval_low", "interval_high", "chance", "beside", "beside_score", "difference"),
    *("published", "published_deviation", "published_starred", "weights", "substitutes", "fields"),
    *("dataset", "nets", "tap", "scales", "images", "classes", "seconds"),
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


def markdown(tables: Tables) -> str:
    """Return the tables as Markdown."""
    lines = [f"# {_TITLE}", ""]
    for note in lead_of(tables):
        lines += [_inline(note, _markdown_text, _markdown_code), ""]
    for sheet in sheets_of(tables):
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
    for note in lead_of(tables):
        lines += ["", _inline(note, _latex_text, _latex_code)]
    for sheet in sheets_of(tables):
        notes = [_inline(note, _latex_text, _latex_code) for note in sheet.notes]
        if sheet.lines:
            lines += ["", *_latex_table(sheet, notes)]
        else:
            lines += ["", rf"\paragraph{{{_latex_text(sheet.title)}}}", *notes]
    return "\n".join(lines) + "\n"


def html(tables: Tables) -> str:
    """Return the tables as a page that loads nothing."""
    page = environment().get_template("tables.html.j2")
    return page.render(title=_TITLE, lead=lead_of(tables), sheets=sheets_of(tables), code=_CODE)


def records(tables: Tables) -> list[dict[str, object]]:
    """Return one record for each cell, or for each of its runs; None where there is nothing."""
    rows = (*_csv_of_paper(tables), *_csv_of_ablations(tables), *_csv_of_others(tables))
    return [{name: row.get(name) for name in _CSV_COLUMNS} for row in rows]


def as_csv(tables: Tables) -> str:
    """Return one line for each record; empty where there is nothing."""
    text = io.StringIO()
    writer = csv.DictWriter(text, _CSV_COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for line in records(tables):
        writer.writerow({k: flat(v) if isinstance(v, str) else v for k, v in line.items()})
    return text.getvalue()


FORMATS: dict[str, Callable[[Tables], str]] = {
    "markdown": markdown,
    "latex": latex,
    "csv": as_csv,
    "html": html,
}


# The formats


def _inline(note: str, text: Callable[[str], str], code: Callable[[str], str]) -> str:
    """Return a note, its text and what is typed each in its form."""
    parts = enumerate(note.split(_CODE))
    return "".join(code(part) if k % 2 else text(part) for k, part in parts)


def _markdown_text(text: str) -> str:
    return _MARKDOWN_SPECIAL.sub(r"\\\1", text)


def _markdown_code(typed: str) -> str:
    return f"`{typed}`"


def _markdown_line(line: Line) -> str:
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


def _latex_table(sheet: Sheet, notes: Sequence[str]) -> list[str]:
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


def _latex_line(line: Line) -> str:
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


def _csv_of_others(tables: Tables) -> Iterator[dict[str, object]]:
    for table, runs in (("others", tables.others), ("imitations", tables.imitations)):
        for run in runs:
            yield {"table": table, **_csv_of_run(run)}


def _csv_of_run(run: Run | None) -> dict[str, object]:
    if run is None:
        return {}
    return {
        "result": run.result,
        "measure": run.score.measure,
        "score": _rounded(run.score.value),
        "deviation": _rounded(run.score.deviation),
        "interval_low": _rounded(run.score.interval[0] if run.score.interval else None),
        "interval_high": _rounded(run.score.interval[1] if run.score.interval else None),
        "chance": _rounded(run.score.chance),
        "beside": run.beside.measure if run.beside else None,
        "beside_score": _rounded(run.beside.value if run.beside else None),
        "difference": _rounded(run.difference),
        "weights": "; ".join(run.weights),
        "substitutes": "; ".join(run.substitutes),
        "dataset": run.dataset,
        "nets": "; ".join(run.nets),
        "tap": run.tap,
        "scales": "; ".join(map(str, run.scales)),
        "images": run.images,
        "classes": run.classes,
        "seconds": _rounded(run.seconds),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4) + 0.0  # + 0.0: no −0.0
