"""A data set as one CSV file: path, label and, if wanted, split."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path, PureWindowsPath

import numpy as np

from vggfeat.data.columns import Row, is_known, read_rows
from vggfeat.data.folder import item_id
from vggfeat.data.names import Wanted
from vggfeat.data.notes import Notes
from vggfeat.data.places import Place, Places
from vggfeat.data.records import PARTS, Dataset, Item, Kind, Part, Split, same_files, sorted_items
from vggfeat.data.split import divided, without_val
from vggfeat.data.table import read_table
from vggfeat.errors import DatasetError, DatasetNotFoundError
from vggfeat.files.sources import FileSource

_log = logging.getLogger(__name__)


def open_csv(wanted: Wanted) -> Dataset:
    """Open a list of images.

    Dataset format: CSV with a header, the columns `path` (relative to the file's own folder, or
    absolute), `label` (several separated by `|`; none is allowed) and optionally `split` (train,
    val or test). Where every image has one label each image is of one class; else the labels are
    independent. Without the column `split` the images are ordered by a hash of seed and path, those
    of one class among themselves: the first fifth is test, a fifth of the rest val. A split without
    val takes a fifth of train for it. docs/data.md says what else is read, and what is refused.

    Args:
        wanted: Its root is the CSV file, its seed enters the hash.

    Raises:
        DatasetNotFoundError: If there is no such file.
        DatasetError: If a column, a label or an image is wrong, where the line is named; or if one
            file is in two parts under two paths.
    """
    notes = Notes()
    rows = _read(wanted.root, notes)
    one_class, classes = _one_class(rows), _classes(rows)
    found = _found(wanted, rows, notes)
    items = [Item(i, FileSource(path)) for i, (path, _) in found.items()]
    of_item = {i: row for i, (_, row) in found.items()}
    same = same_files(items)
    for i, first in same.items():
        if of_item[i].labels != of_item[first].labels:
            notes.warn("files are listed under two paths with other labels", f"{i!r} and {first!r}")
    _note_parts({row.part for row in rows}, notes)
    notes.tell(_log)
    parts = _parts(of_item, wanted.seed, one_class=one_class)
    return Dataset(
        name=wanted.name,
        kind=(Kind.ONE_CLASS if one_class else Kind.MULTI_LABEL) if classes else Kind.UNLABELLED,
        classes=classes,
        items=sorted_items(items),
        splits=(Split(**{p: _part(ids, of_item, classes, same) for p, ids in parts.items()}),),
        given=any(row.part for row in rows),
    )


def own_measure(path: Path) -> tuple[str, str] | None:
    """Return what a list is scored by whose images have any number of classes, and the reason.

    Returns:
        None if each has one class, if none has any, or if the list cannot be read.
    """
    try:
        rows = _read(path, Notes())
    except (DatasetError, DatasetNotFoundError):
        return None  # whoever opens it says so
    if _one_class(rows) or not _classes(rows):
        return None
    return "voc2007", "its images have any number of classes"


def as_csv(dataset: Dataset, split: Split, folder: str) -> str:
    """Return one split of a data set whose images have one class each, as `open_csv` reads it.

    Args:
        dataset: Whose images' ids are paths.
        split: One of its splits.
        folder: Put before every id.
    """
    rows = []
    for part in PARTS:
        own: Part = getattr(split, part)
        labels = [dataset.classes[k] for k in own.labels.argmax(axis=1)]
        rows += [(f"{folder}/{i}", k, part) for i, k in zip(own.ids, labels, strict=True)]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("path", "label", "split"), *sorted(rows)])
    return text.getvalue()


def _read(path: Path, notes: Notes) -> list[Row]:
    try:
        table = read_table(path, is_known)
    except FileNotFoundError:
        raise DatasetNotFoundError(f"csv:{path}", [path], "Check the path.") from None
    rows = read_rows(path, table, notes)
    if not rows:
        raise DatasetError(f"'{path}' lists no image.")
    return rows


def _found(wanted: Wanted, rows: Sequence[Row], notes: Notes) -> dict[str, tuple[Path, Row]]:
    """Return the path of each image and the first row that lists it, id → both."""
    places = Places(wanted.root.parent, wanted.stored_ids)
    places.choose_base([row.path for row in rows], notes)
    found: dict[str, tuple[Path, Row]] = {}
    for row in rows:
        place = _place(wanted.root, row, rows, places)
        _note_spelling(row, place, notes)
        if place.id not in found:
            found[place.id] = place.path, row
            continue
        first = found[place.id][1]
        if (first.labels, first.part) != (row.labels, row.part):
            raise _contradiction(wanted.root, first, row)
        notes.warn("lines repeat an earlier one, and count once", f"line {row.line}: {row.path!r}")
    return found


def _place(path: Path, row: Row, rows: Sequence[Row], places: Places) -> Place:
    found = places.find(row.path)
    if len(found) == 1:
        return found[0]
    if found:
        raise DatasetError(
            f"'{path}', line {row.line}: {row.path!r} may be "
            f"{' or '.join(repr(one.id) for one in found)}.",
            "Expected one image of that name.",
            "Write the path with its ending.",
        )
    place, remedy = places.missing(row.path)
    absent = sum(not places.find(one.path) for one in rows)
    raise DatasetError(
        f"'{path}', line {row.line}: there is no '{place}'; {absent} of {len(rows)} paths are "
        "absent.",
        "Paths are relative to the folder of the list, or all to the working folder.",
        remedy,
    )


def _note_spelling(row: Row, place: Place, notes: Notes) -> None:
    if place.id == item_id(Path(row.path)):
        return
    example = f"line {row.line}: {row.path!r}, which is {place.id!r}"
    if "\\" in row.path and "\\" not in place.id:
        notes.add("paths have backslashes, which are read as slashes", example)
    elif row.path != row.path.strip():
        notes.add("paths have blanks around them, which are left out", example)
    if Path(place.id).stem == PureWindowsPath(row.path.strip()).name:
        notes.add("paths lack the ending of their file", example)


def _note_parts(given: Collection[str], notes: Notes) -> None:
    if "" in given:
        return  # the list has no column of them
    if "train" in given and "val" not in given:
        notes.say("the list has no image of val: a hash takes a fifth of train for it")
    for part, purpose in (("train", "learnt"), ("test", "scored")):
        if part not in given:
            sentence = f"the list has no image of {part}, so that nothing can be {purpose}"
            notes.say(sentence, warn=True)


def _contradiction(path: Path, first: Row, second: Row) -> DatasetError:
    says = [
        f"{'|'.join(row.labels) or 'nothing'}{f' in {row.part}' if row.part else ''}"
        for row in (first, second)
    ]
    return DatasetError(
        f"'{path}', line {second.line}: {second.path!r} is listed twice, as {says[0]} in line "
        f"{first.line} and as {says[1]} here.",
        "Expected each image in one line, and so in one part.",
        "Take one of the lines away; an image of several classes has them in one cell, as a|b.",
    )


def _parts(of_item: Mapping[str, Row], seed: int, *, one_class: bool) -> dict[str, list[str]]:
    given: dict[str, list[str]] = {part: [] for part in PARTS}
    groups: dict[str, list[str]] = {}
    for i, row in of_item.items():
        if row.part:
            given[row.part].append(i)
        if row.part in {"", "train"}:
            groups.setdefault(row.labels[0] if one_class else "", []).append(i)
    if not any(given.values()):
        shares = [divided(members, seed, name) for name, members in groups.items()]
    elif not given["val"]:
        given["train"] = []
        shares = [without_val(members, seed) for members in groups.values()]
    else:
        shares = []
    for share in shares:
        for part, ids in share.items():
            given[part] += ids
    return given


def _one_class(rows: Iterable[Row]) -> bool:
    return all(len(row.labels) == 1 for row in rows)


def _classes(rows: Iterable[Row]) -> tuple[str, ...]:
    return tuple(sorted({label for row in rows for label in row.labels}))


def _part(
    ids: Iterable[str],
    of_item: Mapping[str, Row],
    classes: Sequence[str],
    same: Mapping[str, str],
) -> Part:
    order = sorted(ids)
    column = {name: k for k, name in enumerate(classes)}
    labels = np.full((len(order), len(classes)), -1, dtype=np.int8)
    for row, i in enumerate(order):
        labels[row, [column[label] for label in of_item[i].labels]] = 1
    return Part(ids=tuple(order), labels=labels, images=tuple(same.get(i, i) for i in order))
