"""Which columns of a CSV list hold the paths, the labels, the parts, and what its rows say."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path, PurePath

from vggfeat.data.notes import Notes
from vggfeat.data.records import PARTS
from vggfeat.data.split import part_of
from vggfeat.data.table import SEPARATORS, Table
from vggfeat.errors import DatasetError, nearest
from vggfeat.files.suffixes import SUFFIXES

# What a column may be called, in any case, with any blanks or signs between its words. The first
# line that a list has a name of counts; two names of one line are refused.
NAMES: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "path": (
        ("path",),
        (
            *("file", "files", "filename", "filenames", "filepath", "filepaths", "paths"),
            *("image", "images", "imagepath", "imagename", "imagefile", "imagefilename"),
            *("img", "imgpath", "imgname", "imgfile", "fname"),
        ),
        ("imageid", "imgid", "id", "name"),
    ),
    "label": (
        ("label",),
        ("labels", "labelname"),
        ("class", "classes", "classname", "classlabel"),
        ("category", "categories", "categoryname", "target", "targets", "tag", "tags"),
        ("labelid", "classid", "categoryid"),
    ),
    "split": (("split",), ("set", "subset", "part", "partition", "phase", "dataset", "datasplit")),
}
_YES, _NO, _MINUS = {"1", "1.0", "true"}, {"0", "0.0", "false"}, {"-1", "-1.0"}
# How pandas, Excel and databases write that there is nothing
_MISSING_ANY_CASE = frozenset({"nan", "-nan", "<na>", "#n/a", "#na", "n/a", "null"})
_MISSING = frozenset({"NA", "None"})
_BETWEEN = "|"  # two labels of one cell
_SHOWN = 12  # names of columns in a message


@dataclass(frozen=True, kw_only=True)
class Row:
    """What a list says of one image.

    Attributes:
        line: Where it stands, from 1.
        path: As it is written.
        labels: Each once.
        part: One of `PARTS`, or "" where the list has no column of parts.
    """

    line: int
    path: str
    labels: tuple[str, ...]
    part: str


@dataclass(frozen=True, kw_only=True)
class _Columns:
    """Numbers of columns, from 0; `classes` has the one of each class, where there is no label."""

    path: int
    label: int | None
    split: int | None
    classes: Mapping[int, str]
    others: Sequence[int]


def is_known(name: str) -> bool:
    """Say whether a column of this name is one that is looked for."""
    return any(_plain(name) in names for ranks in NAMES.values() for names in ranks)


def read_rows(path: Path, table: Table, notes: Notes) -> list[Row]:
    """Return what the rows of a list say.

    Labels stand in one column, several of them separated by `|`; or each class has a column of 1,
    for yes, and of 0 or -1, for no. Columns that say neither path, label nor part are left out.

    Args:
        path: Of the list, for messages.
        table: What stands in it.
        notes: Hear what is taken otherwise than it stands there.

    Raises:
        DatasetError: If there is no column of paths or of labels, or two, or a cell is wrong.
    """
    columns = _columns(path, table)
    _note_columns(path, table, columns, notes)
    rows = [_row(path, line, cells, columns, notes) for line, cells in table.rows]
    _note_labels(rows, notes)
    return rows


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.casefold())


def _columns(path: Path, table: Table) -> _Columns:
    place = _place(path, table, "path")
    if place is None:
        raise _without_paths(path, table)
    label, split = _place(path, table, "label"), _place(path, table, "split")
    others = [k for k in range(len(table.names)) if k not in {place, label, split}]
    classes = {} if label is not None else _one_hot(table, others)
    if label is None and not classes:
        raise _without_labels(path, table, others)
    others = [k for k in others if k not in classes]
    if split is None:
        _check_no_parts(path, table, others)
    return _Columns(path=place, label=label, split=split, classes=classes, others=others)


def _place(path: Path, table: Table, role: str) -> int | None:
    for names in NAMES[role]:
        found = [k for k, name in enumerate(table.names) if _plain(name) in names]
        if len(found) > 1:
            both = " and ".join(repr(table.names[k]) for k in found)
            raise DatasetError(
                f"'{path}' has the columns {_listed(table.names)}; {both} may both be the {role}.",
                "Expected path, label and, if wanted, split, each once.",
                f"Call the one that is meant {role!r}, and the other 'other'.",
            )
        if found:
            return found[0]
    return None


def _without_paths(path: Path, table: Table) -> DatasetError:
    wrong = f"'{path}' has the columns {_listed(table.names)}, and none of paths."
    expected = "Expected path (or file, image, filename, …), label and, if wanted, split"
    head = _head(table, _guessed(table.names))
    if "path" in _guessed(table.names):
        remedy = f"The first line names an image: if there is no header, write `{head}` above it."
        return DatasetError(wrong, f"{expected}.", remedy)
    separators = ", ".join(SEPARATORS.values())
    remedy = nearest(table.names[0], ["path", "file", "image"]) if table.names else ""
    return DatasetError(wrong, f"{expected}, separated by one of {separators}.", remedy)


def _guessed(cells: Sequence[str]) -> list[str]:
    """Return what the columns may be, of which there is a row and no header.

    >>> _guessed(["TRAIN", "a/0.jpg", "cat", "90"])
    ['split', 'path', 'label', 'other3']
    """
    found: list[str] = []
    for k, cell in enumerate(cells):
        image = PurePath(cell).suffix.lower() in SUFFIXES
        role = "path" if image else "split" if part_of(cell) else "label"
        found.append(f"other{k}" if role in found else role)
    return found


def _without_labels(path: Path, table: Table, others: Sequence[int]) -> DatasetError:
    names = list(table.names)
    wrong = f"'{path}' has the columns {_listed(names)}, and none of labels."
    expected = "Expected label (or class, category, target, …), or a column of 0 and 1 per class."
    if not others:
        head = _head(table, [*names, "label"])
        return DatasetError(
            wrong,
            expected,
            f"Make the first line `{head}`, and end the others with the label, or with "
            f"{table.separator!r} alone where there is none.",
        )
    best = max(others, key=lambda k: SequenceMatcher(None, _plain(names[k]), "label").ratio())
    old, names[best] = names[best], "label"
    return DatasetError(
        wrong, expected, f"If {old!r} holds them, make the first line `{_head(table, names)}`."
    )


def _one_hot(table: Table, others: Iterable[int]) -> dict[int, str]:
    """Return column → class of the columns of nothing but yes and no, at least two."""
    found = {}
    for k in others:
        cells = {cells[k].strip().lower() for _, cells in table.rows}
        if cells and table.names[k] and (cells <= _YES | _NO or cells <= _YES | _MINUS):
            found[k] = table.names[k]
    return found if len({*found.values()}) == len(found) > 1 else {}


def _check_no_parts(path: Path, table: Table, others: Iterable[int]) -> None:
    for k in others:
        cells = {cells[k] for _, cells in table.rows}
        if len(cells) > 1 and all(map(part_of, cells)):
            raise DatasetError(
                f"'{path}' has a column {table.names[k]!r} of {', '.join(sorted(cells))}.",
                "Expected the parts in a column split.",
                "Call it 'split', or take it out of the list.",
            )


def _note_columns(path: Path, table: Table, columns: _Columns, notes: Notes) -> None:
    names = table.names
    if table.separator != ",":
        notes.say(f"'{path}' is separated by {SEPARATORS[table.separator]}")
    for role in NAMES:
        k = getattr(columns, role)
        if k is not None and names[k] != role:
            notes.say(f"the column {names[k]!r} of '{path}' is its {role}")
    if columns.classes:
        classes = _listed([*columns.classes.values()])
        notes.say(
            f"{len(columns.classes)} columns of '{path}' hold nothing but yes and no, and are its "
            f"classes: {classes}"
        )
    for k in columns.others:
        notes.add(f"columns of '{path}' are ignored", repr(names[k]))


def _row(path: Path, line: int, cells: Sequence[str], columns: _Columns, notes: Notes) -> Row:
    file = cells[columns.path]
    if not file.strip():
        raise DatasetError(
            f"'{path}', line {line}: no path.",
            "Expected one in every line.",
            "Write it, or take the line away.",
        )
    if columns.label is None:
        labels = tuple(
            name for k, name in columns.classes.items() if cells[k].strip().lower() in _YES
        )
    else:
        labels = _labels(path, line, cells[columns.label], notes)
    part = "" if columns.split is None else _part(path, line, cells[columns.split])
    return Row(line=line, path=file, labels=labels, part=part)


def _labels(path: Path, line: int, cell: str, notes: Notes) -> tuple[str, ...]:
    written = [one for one in cell.split(_BETWEEN) if one.strip()]
    labels = tuple(dict.fromkeys(one.strip() for one in written))
    if any(one != one.strip() for one in written):
        notes.add("labels have blanks around them, which are left out", f"line {line}: {cell!r}")
    for label in labels:
        if label in _MISSING or label.casefold() in _MISSING_ANY_CASE:
            raise DatasetError(
                f"'{path}', line {line}: label {label!r}, which is how programs write that there "
                "is no label.",
                "Expected a class, or an empty cell where there is none.",
                "Empty the cell or take the line away; if it is a class, call it otherwise.",
            )
    return labels


def _part(path: Path, line: int, cell: str) -> str:
    part = part_of(cell)
    if part is None:
        raise DatasetError(f"'{path}', line {line}: split {cell!r}.", nearest(cell, PARTS))
    return part


def _note_labels(rows: Sequence[Row], notes: Notes) -> None:
    """Note labels that look like several in one, and images without any among one-class ones."""
    numbers = {len(row.labels) for row in rows}
    for row in rows:
        if numbers == {0, 1} and not row.labels:
            notes.warn(
                "images have no label and all others have one, so that each class is a question of "
                "its own (give them a label, or take their lines away, if every image has a class)",
                f"line {row.line}: {row.path!r}",
            )
    first = {label: row.line for row in reversed(rows) for label in row.labels}
    for label in sorted(_composed(first), key=first.__getitem__):
        notes.warn(
            f"labels look like several in one, and are one class each (several are separated by "
            f"{_BETWEEN})",
            f"{label!r} in line {first[label]}",
        )


def _composed(labels: Iterable[str]) -> list[str]:
    """Return the labels that may be several: with a comma, or of words that are labels too.

    >>> _composed(["clear", "clear primary", "haze primary", "golden retriever"])
    ['clear primary']
    """
    words = {label: {*label.split()} for label in labels}
    homes = Counter(word for own in words.values() for word in own)
    return [
        label
        for label, own in words.items()
        if re.search(r"[,;\[\]]", label)
        or (len(own) > 1 and any(w in words for w in own) and all(homes[w] > 1 for w in own))
    ]


def _listed(names: Sequence[str]) -> str:
    shown = [name or "''" for name in names[:_SHOWN]]
    return ", ".join(shown or ["none"]) + (", …" if len(names) > _SHOWN else "")


def _head(table: Table, names: Sequence[str]) -> str:
    return table.separator.join(names)
