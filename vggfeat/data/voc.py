"""PASCAL VOC classification: ImageSets/Main, label 0 = difficult (devkit documentation, 2007)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vggfeat.data.split import Dataset, Item, Kind, Labels, Part, Split, sorted_items
from vggfeat.errors import DatasetError, DatasetNotFoundError

CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)
_PARTS = ("train", "val", "test")
_SUFFIXES = (".jpg", ".jpeg", ".png")


def open_voc2007(data_root: Path, *, images: bool = True) -> Dataset:
    """Open VOC 2007: 5,011 images of train and val, 4,952 of test, 20 classes.

    Dataset format: JPEG images and one list per class and part with labels +1, -1, 0.
    If you use it, cite Everingham et al., The PASCAL Visual Object Classes Challenge 2007.

    Args:
        data_root: Holds `VOCdevkit/VOC2007` or `VOC2007`, or is that folder itself.
        images: Whether the images must be there too.

    Raises:
        DatasetNotFoundError: If it is not there.
        DatasetError: If its lists contradict each other.
    """
    places = [data_root / "VOCdevkit" / "VOC2007", data_root / "VOC2007", data_root]
    for place in places:
        if (place / "ImageSets" / "Main").is_dir():
            return _open(place, "voc2007", CLASSES, images)
    raise DatasetNotFoundError(
        "voc2007",
        [place / "ImageSets" / "Main" for place in places],
        "Unpack the devkit there (datasets/voc2007/README.md says how), or pass --data-root.",
    )


def open_tree(root: Path, name: str, *, images: bool = True) -> Dataset:
    """Open any tree in VOC layout; its classes are those that have a `<class>_train.txt`.

    Args:
        root: Holds `ImageSets/Main` and `JPEGImages`.
        name: The data set's name, for messages.
        images: Whether the images must be there too.

    Raises:
        DatasetNotFoundError: If it is not there.
        DatasetError: If its lists contradict each other.
    """
    lists = root / "ImageSets" / "Main"
    if not lists.is_dir():
        raise DatasetNotFoundError(name, [lists], "Expected ImageSets/Main and JPEGImages.")
    classes = tuple(sorted(p.name.removesuffix("_train.txt") for p in lists.glob("*_train.txt")))
    if not classes:
        raise DatasetError(f"'{lists}' has no list <class>_train.txt.", remedy="Is it a VOC tree?")
    return _open(root, name, classes, images)


def _open(root: Path, name: str, classes: Sequence[str], images: bool) -> Dataset:
    lists = root / "ImageSets" / "Main"
    parts = {part: _read_part(lists, part, classes) for part in _PARTS}
    split = Split(**parts)
    if not split.ids:
        raise DatasetError(f"The lists in '{lists}' name no image at all.")
    files = _image_files(root / "JPEGImages") if images else {}
    items = []
    for part in _PARTS:
        for image in parts[part].ids:
            if images and image not in files:
                raise DatasetError(
                    f"'{lists / part}.txt' names {image!r}, but there is no "
                    f"'{root / 'JPEGImages' / image}.jpg'.",
                    "Every listed image must be there.",
                    "Unpack the data set again.",
                )
            items.append(Item(image, files.get(image, root / "JPEGImages" / f"{image}.jpg")))
    return Dataset(
        name=name,
        kind=Kind.MULTI_LABEL,
        classes=tuple(classes),
        items=sorted_items(items),
        splits=(split,),
    )


def _image_files(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise DatasetNotFoundError("VOC images", [folder], "Unpack the images there.")
    return {p.stem: p for p in sorted(folder.iterdir()) if p.suffix.lower() in _SUFFIXES}


def _read_part(lists: Path, part: str, classes: Sequence[str]) -> Part:
    ids = tuple(row[0] for _, row in _rows(lists / f"{part}.txt", columns=1))
    labels = np.empty((len(ids), len(classes)), dtype=np.int8)
    for k, name in enumerate(classes):
        labels[:, k] = _read_labels(lists / f"{name}_{part}.txt", ids)
    return Part(ids=ids, labels=labels)


def _read_labels(path: Path, ids: tuple[str, ...]) -> Labels:
    rows = _rows(path, columns=2)
    if tuple(row[0] for _, row in rows) != ids:
        raise DatasetError(
            f"'{path}' lists {len(rows)} images.",
            f"Expected the {len(ids)} of the part's own list, in its order.",
            "Unpack the data set again.",
        )
    for number, row in rows:
        if row[1] not in {"1", "-1", "0"}:
            raise DatasetError(
                f"'{path}', line {number}: label {row[1]!r}.",
                "Expected 1, -1, or 0 for difficult.",
            )
    return np.array([int(row[1]) for _, row in rows], dtype=np.int8)


def _rows(path: Path, columns: int) -> list[tuple[int, list[str]]]:
    """Read a list as (line number, words); two blanks may stand before a positive label."""
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise DatasetNotFoundError(path.stem, [path], "Unpack the data set again.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"'{path}' cannot be read: {error}.") from error
    lines = enumerate(text.splitlines(), 1)
    rows = [(number, line.split()) for number, line in lines if line.strip()]
    for number, row in rows:
        if len(row) < columns:
            raise DatasetError(
                f"'{path}', line {number}: {' '.join(row)!r}.", f"Expected {columns} columns."
            )
    return rows
