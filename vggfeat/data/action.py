"""PASCAL VOC 2012 action classification: ImageSets/Action, one item for each person's box."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from xml.etree.ElementTree import Element

import numpy as np

from vggfeat.data.annotation import object_name, read_objects
from vggfeat.data.names import Wanted
from vggfeat.data.notes import Notes
from vggfeat.data.records import PARTS, Dataset, Item, Kind, Labels, Part, Split, sorted_items
from vggfeat.data.voc import check_test, find_devkit, val_as_test
from vggfeat.data.voc_lists import LABELS, image_paths, read_list
from vggfeat.errors import DatasetError
from vggfeat.files.sources import FileSource

ACTIONS = (  # 'other', the devkit's first, is no class: its persons are negatives of all ten
    *("jumping", "phoning", "playinginstrument", "reading", "ridingbike", "ridinghorse"),
    *("running", "takingphoto", "usingcomputer", "walking"),
)
_LISTS = Path("ImageSets", "Action")
_CORNERS = ("xmin", "ymin", "xmax", "ymax")

Box = tuple[int, int, int, int]


def open_action(wanted: Wanted) -> Dataset:
    """Open VOC 2012 action: 6,278 persons on 4,588 images of train and val, and those of test.

    Dataset format: one list per action and part with lines `image object label`, and the boxes in
    `Annotations/<image>.xml`. An item is one person, its id `image/object`. The labels of test are
    not public: they are 0 here, so that nothing is measured on it.

    Args:
        wanted: Its root holds `VOCdevkit/VOC2012` or `VOC2012`, or is that folder itself;
            annotations must be there where images must.

    Raises:
        DatasetNotFoundError: If it is not there.
        DatasetError: If lists and annotations contradict each other.
    """
    root = find_devkit(wanted.root, "voc2012", _LISTS)
    check_test(root / _LISTS, "voc2012-action")
    return _dataset(root, wanted, Split(**{part: _read_part(root, part) for part in PARTS}))


def open_action_val(wanted: Wanted) -> Dataset:
    """Open VOC 2012 action with val in the place of test, the proxy that can be scored offline.

    A fifth of train's images, the first by a hash of the id, become the validation part, each with
    all its persons.

    Args:
        wanted: As for `open_action`; the test images are not needed.

    Raises:
        DatasetNotFoundError: If it is not there.
        DatasetError: If lists and annotations contradict each other.
    """
    root = find_devkit(wanted.root, "voc2012", _LISTS)
    nobody = Part(ids=(), labels=np.empty((0, len(ACTIONS)), np.int8))
    official = Split(train=_read_part(root, "train"), val=_read_part(root, "val"), test=nobody)
    return _dataset(root, wanted, val_as_test(official))


def read_boxes(path: Path) -> list[tuple[str, Box]]:
    """Read the objects of an annotation, without running anything that it could hold.

    Args:
        path: An XML file of the devkit's form.

    Returns:
        The name and the box of every object, in the file's order: (xmin, ymin, xmax, ymax),
        1-based inclusive pixels, rounded from the file's numbers.

    Raises:
        DatasetError: If the file is absent, too large, no XML, or a box is none.
    """
    objects = read_objects(path)
    return [(object_name(one, path), _box(one, path)) for one in objects]


def _box(element: Element, path: Path) -> Box:
    texts = [element.findtext(f"bndbox/{corner}") or "" for corner in _CORNERS]
    try:
        values = [float(text) for text in texts]
    except ValueError:
        values = []
    if not values or not all(math.isfinite(v) and abs(v) < 2**31 for v in values):
        raise DatasetError(f"'{path}': {texts} is no box.", f"Expected numbers: {_CORNERS}.")
    xmin, ymin, xmax, ymax = (math.floor(v + 0.5) for v in values)
    if xmin > xmax or ymin > ymax:
        raise DatasetError(f"'{path}': the box {(xmin, ymin, xmax, ymax)} is empty.")
    return xmin, ymin, xmax, ymax


def _dataset(root: Path, wanted: Wanted, split: Split) -> Dataset:
    if not split.ids:
        raise DatasetError(f"The lists in '{root / _LISTS}' name no person at all.")
    pictures = sorted({_image(i) for i in split.ids})
    paths = image_paths(
        root / "JPEGImages",
        dict.fromkeys(pictures, ""),
        Notes(),
        images=wanted.images,
        named_by=f"The lists in '{root / 'ImageSets'}'",
    )
    boxes = _boxes(root, split.ids) if wanted.images else {}
    return Dataset(
        name=wanted.name,
        kind=Kind.MULTI_LABEL,
        classes=ACTIONS,
        items=sorted_items(
            Item(i, FileSource(paths[_image(i)]), boxes.get(i), image=_image(i)) for i in split.ids
        ),
        splits=(split,),
    )


def _image(person: str) -> str:
    return person.partition("/")[0]


def _boxes(root: Path, persons: Sequence[str]) -> dict[str, Box]:
    found: dict[str, Box] = {}
    read: dict[str, list[tuple[str, Box]]] = {}
    for person in persons:
        image, _, number = person.partition("/")
        path = root / "Annotations" / f"{image}.xml"
        if image not in read:
            read[image] = read_boxes(path)
        objects = read[image]
        name = objects[int(number) - 1][0] if int(number) <= len(objects) else None
        if name != "person":
            raise DatasetError(
                f"The lists name person {person!r}, but object {number} of '{path}' is "
                f"{'not there' if name is None else repr(name)}.",
                "Object numbers count from 1, in the order of the file.",
                "Unpack the data set again.",
            )
        found[person] = objects[int(number) - 1][1]
    return found


def _read_part(root: Path, part: str) -> Part:
    lists = root / _LISTS
    if part == "test" and not any((lists / f"{a}_test.txt").exists() for a in ACTIONS):
        persons = _unlabelled(root, lists / "test.txt")
        return _part(persons, np.zeros((len(persons), len(ACTIONS)), np.int8))
    ids: tuple[str, ...] | None = None
    columns = []
    for action in ACTIONS:
        own, labels = _read_labels(lists / f"{action}_{part}.txt")
        if ids is not None and own != ids:
            raise DatasetError(
                f"'{lists / action}_{part}.txt' does not list the persons of "
                f"'{lists / ACTIONS[0]}_{part}.txt' in their order.",
                remedy="Unpack the data set again.",
            )
        ids = own
        columns.append(labels)
    return _part(ids or (), np.stack(columns, axis=1))


def _part(persons: tuple[str, ...], labels: Labels) -> Part:
    return Part(ids=persons, labels=labels, images=tuple(map(_image, persons)))


def _read_labels(path: Path) -> tuple[tuple[str, ...], Labels]:
    ids, labels = [], []
    for number, words in read_list(path, columns=3):
        ids.append(_person(path, number, words))
        if not LABELS.get(words[2]):  # 0 = difficult is none of an action's
            raise DatasetError(f"'{path}', line {number}: label {words[2]!r}.", "Expected 1 or -1.")
        labels.append(LABELS[words[2]])
    return tuple(ids), np.array(labels, dtype=np.int8)


def _unlabelled(root: Path, path: Path) -> tuple[str, ...]:
    """Return the persons of a list without labels: named by it, or all of the annotations."""
    persons = []
    for number, words in read_list(path, columns=1):
        if len(words) > 1:
            persons.append(_person(path, number, words))
            continue
        objects = read_boxes(root / "Annotations" / f"{words[0]}.xml")
        persons += [f"{words[0]}/{k}" for k, (name, _) in enumerate(objects, 1) if name == "person"]
    return tuple(persons)


def _person(path: Path, number: int, words: Sequence[str]) -> str:
    if not words[1].isascii() or not words[1].isdigit() or int(words[1]) < 1:
        raise DatasetError(
            f"'{path}', line {number}: object {words[1]!r}.",
            "Expected its number in the annotation, from 1.",
        )
    return f"{words[0]}/{int(words[1])}"
