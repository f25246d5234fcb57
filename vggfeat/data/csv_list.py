"""A data set as one CSV file: path, label and, if wanted, split."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from vggfeat.data.folder import item_id
from vggfeat.data.names import Wanted
from vggfeat.data.records import PARTS, Dataset, Item, Kind, Part, Split, same_files, sorted_items
from vggfeat.data.split import divided, without_val
from vggfeat.errors import DatasetError, DatasetNotFoundError, nearest
from vggfeat.files.sources import FileSource

_COLUMNS = ("path", "label", "split")

Row = tuple[str, tuple[str, ...], str]  # path, labels, part


def open_csv(wanted: Wanted) -> Dataset:
    """Open a list of images.

    Dataset format: UTF-8 CSV with a header, the columns `path` (relative to the file's own folder,
    or absolute), `label` (several separated by `|`; none is allowed) and optionally `split` (train,
    val or test). Where every image has one label each image is of one class; else the labels are
    independent. Without the column `split` the images are ordered by a hash of seed and path, those
    of one class among themselves: the first fifth is test, a fifth of the rest val. A split without
    val takes a fifth of train for it.

    Args:
        wanted: Its root is the CSV file, its seed enters the hash.

    Raises:
        DatasetNotFoundError: If there is no such file.
        DatasetError: If a column, a label or an image is wrong, where the line is named; or if one
            file is in two parts under two paths.
    """
    path = wanted.root
    rows = _read(path)
    one_class, classes = _one_class(rows), _classes(rows)
    known = set(wanted.stored_ids or ())
    items, of_item = [], {}
    for number, (file, labels, part) in enumerate(rows, 2):
        place = path.parent / file
        item = Item(item_id(Path(file)), FileSource(place))
        if item.id in of_item:
            raise DatasetError(
                f"'{path}', line {number}: {file!r} is listed twice.",
                "Expected each image in one line, and so in one part.",
                "Take one of the lines away.",
            )
        if not (place.is_file() if wanted.images else item.id in known):
            raise DatasetError(
                f"'{path}', line {number}: there is no '{place}'.",
                "Paths are relative to the folder of the list.",
                "Mend the path, or take the line away.",
            )
        items.append(item)
        of_item[item.id] = (labels, part)
    parts = _parts(of_item, wanted.seed, one_class=one_class)
    same = same_files(items)
    return Dataset(
        name=wanted.name,
        kind=(Kind.ONE_CLASS if one_class else Kind.MULTI_LABEL) if classes else Kind.UNLABELLED,
        classes=classes,
        items=sorted_items(items),
        splits=(Split(**{p: _part(ids, of_item, classes, same) for p, ids in parts.items()}),),
        given=any(part for _, _, part in rows),
    )


def own_measure(path: Path) -> tuple[str, str] | None:
    """Return what a list is scored by whose images have any number of classes, and the reason.

    Returns:
        None if each has one class, if none has any, or if the list cannot be read.
    """
    try:
        rows = _read(path)
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
    csv.writer(text, lineterminator="\n").writerows([_COLUMNS, *sorted(rows)])
    return text.getvalue()


def _read(path: Path) -> list[Row]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            names = tuple(reader.fieldnames or ())
            _check_columns(path, names)
            rows = [_row(path, reader.line_num, row) for row in reader]
    except FileNotFoundError:
        raise DatasetNotFoundError(f"csv:{path}", [path], "Check the path.") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"'{path}' is no CSV file: {error}.") from error
    if not rows:
        raise DatasetError(f"'{path}' lists no image.")
    return rows


def _check_columns(path: Path, names: Sequence[str]) -> None:
    for name in names:
        if name not in _COLUMNS:
            raise DatasetError(f"'{path}' has a column {name!r}.", nearest(name or "", _COLUMNS))
    if len(set(names)) != len(names) or not {"path", "label"} <= set(names):
        raise DatasetError(
            f"'{path}' has the columns {', '.join(names) or 'none'}.",
            "Expected path, label and, if wanted, split, each once.",
        )


def _row(path: Path, line: int, row: dict[str | None, str | None]) -> Row:
    if None in row or None in row.values():
        raise DatasetError(f"'{path}', line {line}: another number of columns than the header.")
    file, label, part = (row.get(name) or "" for name in _COLUMNS)
    if not file:
        raise DatasetError(f"'{path}', line {line}: no path.")
    if "split" in row and part not in PARTS:
        raise DatasetError(f"'{path}', line {line}: split {part!r}.", nearest(part, PARTS))
    labels = tuple(dict.fromkeys(one.strip() for one in label.split("|") if one.strip()))
    return file, labels, part


def _parts(
    of_item: dict[str, tuple[tuple[str, ...], str]], seed: int, *, one_class: bool
) -> dict[str, list[str]]:
    given: dict[str, list[str]] = {part: [] for part in PARTS}
    groups: dict[str, list[str]] = {}
    for i, (labels, part) in of_item.items():
        if part:
            given[part].append(i)
        if part in {"", "train"}:
            groups.setdefault(labels[0] if one_class else "", []).append(i)
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
    return all(len(labels) == 1 for _, labels, _ in rows)


def _classes(rows: Iterable[Row]) -> tuple[str, ...]:
    return tuple(sorted({label for _, labels, _ in rows for label in labels}))


def _part(
    ids: Iterable[str],
    of_item: dict[str, tuple[tuple[str, ...], str]],
    classes: Sequence[str],
    same: Mapping[str, str],
) -> Part:
    order = sorted(ids)
    column = {name: k for k, name in enumerate(classes)}
    labels = np.full((len(order), len(classes)), -1, dtype=np.int8)
    for row, i in enumerate(order):
        labels[row, [column[label] for label in of_item[i][0]]] = 1
    return Part(ids=tuple(order), labels=labels, images=tuple(same.get(i, i) for i in order))
