"""The lists of a PASCAL VOC tree, and the images that they name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from vggfeat.data.notes import Notes
from vggfeat.data.places import Place, Places
from vggfeat.data.text import read_text
from vggfeat.errors import DatasetError, DatasetNotFoundError, ListNotFoundError
from vggfeat.files.suffixes import SUFFIXES

LABELS: Mapping[str, int] = {"1": 1, "+1": 1, "-1": -1, "0": 0}
IMAGE_FOLDERS = ("JPEGImages", "images")


def read_list(path: Path, columns: int) -> list[tuple[int, list[str]]]:
    """Read a list as (line number, words); two blanks may stand before a positive label.

    Args:
        path: Of the list.
        columns: Words that every line must have at least.

    Raises:
        ListNotFoundError: If it is not there.
        DatasetError: If it cannot be read, or a line is too short.
    """
    rows = [(number, line.split()) for number, line in _lines(path)]
    for number, row in rows:
        if len(row) < columns:
            raise DatasetError(
                f"'{path}', line {number}: {' '.join(row)!r}.", f"Expected {columns} columns."
            )
    return rows


def read_ids(path: Path, notes: Notes) -> dict[str, str]:
    """Read the list of a part.

    Args:
        path: Of the list: an id each line, which may have blanks in it.
        notes: Hear what is taken otherwise than it stands there.

    Returns:
        Image id → the ending that the list writes behind it, or "", in the order of the list.

    Raises:
        ListNotFoundError: If it is not there.
        DatasetError: If it cannot be read, or names two images of one id.
    """
    lines = _lines(path)
    pairs = [line.split() for _, line in lines]
    firsts = {pair[0] for pair in pairs if len(pair) == 2 and pair[1] in LABELS}
    if lines and len(firsts) == len(lines):  # as in the list of a class
        lines = [(number, line.split()[0]) for number, line in lines]
        notes.say(f"'{path}' has a label in every line, which is ignored: the classes' lists count")
    found: dict[str, str] = {}
    for number, line in lines:
        image, ending = _image(line)
        if image not in found:
            found[image] = ending
            if image != line:
                notes.add(
                    "ids stand in the lists with a folder or an ending, and count without",
                    f"{line!r}, which is {image!r}",
                )
        elif ending and found[image] and ending != found[image]:
            raise DatasetError(
                f"'{path}', line {number}: {image + ending!r} and {image + found[image]!r} are two "
                "images of one id.",
                "An id is the name without its ending.",
                "Rename one of them, in the lists too.",
            )
        else:
            notes.warn(
                "lines of the lists name an image again, and count once",
                f"line {number} of '{path}': {line!r}",
            )
    return found


def read_labels(
    path: Path, ids: Mapping[str, str], notes: Notes, *, more: bool = False
) -> npt.NDArray[np.int8]:
    """Read the list of a class.

    Args:
        path: Of the list: an id and a label each line.
        ids: n ids of the part that it is of.
        notes: Hear what is taken otherwise than it stands there.
        more: Whether it may name other images too.

    Returns:
        (n,) in {+1, -1, 0 = difficult}, in the order of `ids`.

    Raises:
        ListNotFoundError: If it is not there.
        DatasetError: If it cannot be read, contradicts itself or the part's list, or has a label
            that is none.
    """
    found: dict[str, tuple[int, int]] = {}
    lines = _lines(path)
    for number, line in lines:
        image, label = _labelled(path, number, line)
        before, value = found.setdefault(image, (number, label))
        if value != label:
            raise DatasetError(
                f"'{path}', line {number}: {image!r} has the label {label}, and {value} in line "
                f"{before}.",
                "Expected one label for each image.",
                "Take one of the lines away.",
            )
        if before != number:
            notes.warn(
                "lines of the lists name an image again, and count once",
                f"line {number} of '{path}': {line!r}",
            )
    lacking = [i for i in ids if i not in found]
    strange = [] if more else [i for i in found if i not in ids]
    if lacking or strange:
        which = f"{lacking[0]!r} is missing" if lacking else f"{strange[0]!r} is not of the part"
        raise DatasetError(
            f"'{path}' lists {len(lines)} images.",
            f"Expected the {len(ids)} of the part's own list: {which}.",
            "Write each of them with 1, -1 or 0, or unpack the data set again.",
        )
    return np.array([found[i][1] for i in ids], dtype=np.int8)


def image_paths(
    folder: Path, endings: Mapping[str, str], notes: Notes, *, images: bool, named_by: str
) -> dict[str, Path]:
    """Return the file of each image id.

    Args:
        folder: Where the images are, in any of the formats that folders are read in.
        endings: Image id → its ending, or "" where any will do.
        notes: Hear what is taken otherwise than it stands there.
        images: Whether the files must be there.
        named_by: What names the ids, for messages: "The lists in '…'".

    Raises:
        DatasetNotFoundError: If there is no such folder.
        DatasetError: If a listed image is not there, or is one of two files.
    """
    if not images:
        return {image: folder / f"{image}{end or '.jpg'}" for image, end in endings.items()}
    if not folder.is_dir():
        raise DatasetNotFoundError("VOC images", [folder], "Unpack the images there.")
    places = Places(folder, None)
    found = {i: (end and places.find(i + end)) or places.find(i) for i, end in endings.items()}
    absent = [image for image, files in found.items() if not files]
    if absent:
        raise DatasetError(
            f"{named_by} name {absent[0]!r}, but there is no '{folder / absent[0]}.jpg', nor one "
            f"of another ending; {len(absent)} of {len(endings)} images are absent.",
            "Every listed image must be there.",
            f"There is {hint!r}; write that, or take the lines away."
            if (hint := places.like(absent[0]))
            else "Unpack the data set again, or take the lines away.",
        )
    paths = {image: _only(folder, image, files) for image, files in found.items()}
    for image, path in paths.items():
        if endings[image] not in {"", path.suffix}:
            notes.add(
                "images have another ending than a list writes",
                f"'{path}', where it is {endings[image]!r}",
            )
    return paths


def _only(folder: Path, image: str, files: list[Place]) -> Path:
    if len(files) > 1:
        names = " and ".join(f"'{folder / place.id}'" for place in files)
        raise DatasetError(
            f"{names} are {len(files)} files of the image {image!r}.",
            "Expected one.",
            "Take the others away, or write the ending of the right one in the lists.",
        )
    return files[0].path


def _lines(path: Path) -> list[tuple[int, str]]:
    try:
        text = read_text(path)
    except FileNotFoundError:
        raise ListNotFoundError(path) from None
    return [(k, line.strip()) for k, line in enumerate(text.splitlines(), 1) if line.strip()]


def _image(written: str) -> tuple[str, str]:
    """Return id and ending of what a list writes.

    >>> _image("000001"), _image("JPEGImages/a.b.PNG")
    (('000001', ''), ('a.b', '.PNG'))
    """
    if not {"/", "\\", "."} & {*written}:  # nearly always, and some 200,000 times in VOC 2012
        return written, ""
    path = PurePosixPath(written.replace("\\", "/"))
    if path.parent.name.casefold() in map(str.casefold, IMAGE_FOLDERS):
        path = PurePosixPath(path.name)
    if path.suffix.lower() in SUFFIXES:
        return str(path.with_suffix("")), path.suffix
    return str(path), ""


def _labelled(path: Path, number: int, line: str) -> tuple[str, int]:
    words = line.rsplit(None, 1)
    if len(words) < 2:
        raise DatasetError(f"'{path}', line {number}: {line!r}.", "Expected 2 columns.")
    if words[1] not in LABELS:
        raise DatasetError(
            f"'{path}', line {number}: label {words[1]!r}.",
            "Expected 1, -1, or 0 for difficult.",
        )
    return _image(words[0])[0], LABELS[words[1]]
