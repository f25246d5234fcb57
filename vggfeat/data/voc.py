"""PASCAL VOC classification: ImageSets/Main, label 0 = difficult (devkit documentation)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from vggfeat.data.names import Wanted
from vggfeat.data.notes import Notes
from vggfeat.data.records import PARTS, Dataset, Item, Kind, Part, Split, sorted_items
from vggfeat.data.split import without_val
from vggfeat.data.voc_lists import image_paths, read_ids, read_labels
from vggfeat.errors import DatasetError, DatasetNotFoundError
from vggfeat.files.sources import FileSource

_log = logging.getLogger(__name__)

CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)
MAIN = Path("ImageSets", "Main")


def open_voc2007(wanted: Wanted) -> Dataset:
    """Open VOC 2007: 5,011 images of train and val, 4,952 of test, 20 classes.

    Dataset format: JPEG images and one list per class and part with labels +1, -1, 0.
    If you use it, cite Everingham et al., The PASCAL Visual Object Classes Challenge 2007.

    Args:
        wanted: Its root holds `VOCdevkit/VOC2007` or `VOC2007`, or is that folder itself.

    Raises:
        DatasetNotFoundError: If it is not there.
        DatasetError: If its lists contradict each other.
    """
    root = find_devkit(wanted.root, "voc2007", MAIN)
    return _opened(root, wanted, PARTS)


def open_voc2012(wanted: Wanted) -> Dataset:
    """Open VOC 2012: 11,540 images of train and val, 10,991 of test, 20 classes.

    The labels of test are not public: they are 0 here, so that nothing is measured on it, and the
    scores go to the evaluation server. Test's own archive must have been unpacked too.

    Args:
        wanted: Its root holds `VOCdevkit/VOC2012` or `VOC2012`, or is that folder itself.

    Raises:
        DatasetNotFoundError: If it is not there.
        DatasetError: If its lists contradict each other.
    """
    root = find_devkit(wanted.root, "voc2012", MAIN)
    check_test(root / MAIN, "voc2012")
    return _opened(root, wanted, PARTS)


def open_voc2012_val(wanted: Wanted) -> Dataset:
    """Open VOC 2012 with val in the place of test, the proxy that can be scored offline.

    A fifth of train, the first by a hash of the id, becomes the validation part.

    Args:
        wanted: As for `open_voc2012`; the test images are not needed.

    Raises:
        DatasetNotFoundError: If it is not there.
        DatasetError: If its lists contradict each other.
    """
    root = find_devkit(wanted.root, "voc2012", MAIN)
    official = _opened(root, wanted, ("train", "val"))
    return replace(official, splits=(val_as_test(official.splits[0]),))


def find_devkit(data_root: Path, name: str, lists: Path) -> Path:
    """Return the folder of one year's tree.

    Args:
        data_root: Holds `VOCdevkit/VOC<year>` or `VOC<year>`, or is that folder itself.
        name: "voc2007" or "voc2012".
        lists: What it must hold.

    Raises:
        DatasetNotFoundError: If it is not there.
    """
    year = name.upper()
    places = [data_root / "VOCdevkit" / year, data_root / year, data_root]
    for place in places:
        if (place / lists).is_dir():
            return place
    raise DatasetNotFoundError(
        name,
        [place / lists for place in places],
        f"`vggfeat datasets fetch {name}` gets it (datasets/{name}/README.md says what), or pass "
        "--data-root.",
    )


def check_test(lists: Path, name: str) -> None:
    """Check that the list of the test images is there; the evaluation server alone gives it.

    Args:
        lists: The folder of the lists.
        name: Of the data set; NAME-val is its proxy.

    Raises:
        DatasetNotFoundError: If it is not.
    """
    if not (lists / "test.txt").exists():
        raise DatasetNotFoundError(
            name,
            [lists / "test.txt"],
            "The test images come from the evaluation server, after registration "
            f"(datasets/{name}/README.md); '{name}-val' needs only train and val.",
        )


def val_as_test(official: Split) -> Split:
    """Return a split whose test is the official val, and whose val is a fifth of train's images.

    What lies on one image stays together, so that nothing is validated on an image that trains.
    """
    train = official.train
    chosen = set(without_val(tuple(dict.fromkeys(train.images)), seed=0)["val"])
    rows = np.array([image in chosen for image in train.images], dtype=bool)
    return Split(train=train.take(~rows), val=train.take(rows), test=official.val)


def _opened(root: Path, wanted: Wanted, parts: Sequence[str]) -> Dataset:
    """Open some parts of an official tree; the others are empty."""
    notes, lists = Notes(), root / MAIN
    read = {part: read_ids(lists / f"{part}.txt", notes) for part in parts}
    split = Split(**{part: _part(lists, part, read.get(part, {}), notes) for part in PARTS})
    if not split.ids:
        raise DatasetError(f"The lists in '{lists}' name no image at all.")
    endings = {i: ending for ids in read.values() for i, ending in ids.items()}
    named_by = f"The lists in '{lists.parent}'"
    paths = image_paths(
        root / "JPEGImages", endings, notes, images=wanted.images, named_by=named_by
    )
    notes.tell(_log)
    return Dataset(
        name=wanted.name,
        kind=Kind.MULTI_LABEL,
        classes=CLASSES,
        items=sorted_items(Item(i, FileSource(paths[i])) for i in split.ids),
        splits=(split,),
    )


def _part(lists: Path, part: str, ids: Mapping[str, str], notes: Notes) -> Part:
    labels = np.zeros((len(ids), len(CLASSES)), dtype=np.int8)
    hidden = part == "test" and not any((lists / f"{name}_test.txt").exists() for name in CLASSES)
    for k, name in enumerate(CLASSES if ids and not hidden else ()):
        labels[:, k] = read_labels(lists / f"{name}_{part}.txt", ids, notes)
    return Part(ids=tuple(ids), labels=labels)
