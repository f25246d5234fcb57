"""The cells of a CSV file: what separates them, and which line they stand in."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vggfeat.data.text import read_text
from vggfeat.errors import DatasetError

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
_SEPARATOR_LINE = re.compile(r'"?sep=([,;\t])"?\r?\n?')  # Excel's own first line


@dataclass(frozen=True, kw_only=True)
class Table:
    """A CSV file.

    Attributes:
        separator: One of `SEPARATORS`.
        names: The cells of the header, without blanks around them.
        rows: Line number and cells, as many as names, of all lines that are not blank.
    """

    separator: str
    names: tuple[str, ...]
    rows: tuple[tuple[int, tuple[str, ...]], ...]


def read_table(path: Path, known: Callable[[str], bool]) -> Table:
    """Read a CSV file; the header tells the separator.

    Args:
        path: Of the file.
        known: Whether a name of a column is one that is looked for.

    Raises:
        FileNotFoundError: If it is not there.
        DatasetError: If it is no text, no CSV, or a line has another number of cells than the
            first.
    """
    lines = io.StringIO(read_text(path), newline="").readlines()
    separators, skipped = tuple(SEPARATORS), 0
    if lines and (match := _SEPARATOR_LINE.fullmatch(lines[0])):
        separators, skipped = (match[1],), 1
    try:
        separator = _separator(lines[skipped:], separators, known)
        found = list(_rows(lines[skipped:], separator, skipped))
    except csv.Error as error:
        raise DatasetError(
            f"'{path}' is no CSV file: {error}.",
            'Expected one image a line; a cell with quotes in it is written "a ""b"" c".',
            "Mend the quotes.",
        ) from error
    names = tuple(name.strip() for name in found[0][1]) if found else ()
    rows = tuple((line, _cells(path, line, row, len(names))) for line, row in found[1:])
    return Table(separator=separator, names=names, rows=rows)


def _separator(
    lines: Sequence[str], separators: Sequence[str], known: Callable[[str], bool]
) -> str:
    head = next((line for line in lines if line.strip()), "")

    def fitness(separator: str) -> tuple[int, int]:
        names = next(csv.reader([head], delimiter=separator), [])
        return sum(map(known, names)), len(names)

    return max(separators, key=fitness)


def _rows(lines: Sequence[str], separator: str, skipped: int) -> Iterator[tuple[int, list[str]]]:
    # `a, "b, c"`: the quotes count as such only if the blank before them is skipped
    padded = any(f"{separator} " in line for line in lines[:1])
    reader = csv.reader(lines, delimiter=separator, strict=True, skipinitialspace=padded)
    for row in reader:
        if any(map(str.strip, row)):
            yield reader.line_num + skipped, row


def _cells(path: Path, line: int, row: list[str], count: int) -> tuple[str, ...]:
    if len(row) < count or any(row[count:]):  # some programs end every line with a separator
        raise DatasetError(
            f"'{path}', line {line}: another number of columns than the header, {len(row)}.",
            f"Expected {count}.",
            "Put a cell that holds the separator into quotes.",
        )
    return tuple(row[:count])
