"""PASCAL VOC classification: ImageSets/Main, label 0 = difficult (devkit documentation)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vggfeat.data.names import Wanted
from vggfeat.data.records import PARTS, Dataset, Item, Kind, Labels, Part, Split, sorted_items
from vggfeat.data.split import without_val
from vggfeat.errors import DatasetError, DatasetNotFoundError, ListNotFoundError
from vggfeat.files.sources import FileSource

CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)
MAIN = Path("ImageSets", "Main")
_SUFFIXES = (".jpg", ".jpeg", ".png")

_AREA_SINCE = 2010
_YEAR = re.compile(r"voc[-_ ]?(20\d\d)(?!\d)", re.IGNORECASE)
_FOLDER = re.compile(r"<folder>\s*VOC(20\d\d)\s*</folder>")
_HEAD = 4096  # bytes of an annotation; its folder stands in the second line
_DATED, _UNDATED = re.compile(r"(20\d\d)_\d{6}"), re.compile(r"\d{6}")


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
    return _dataset(root, wanted, CLASSES, _split(root, CLASSES, PARTS))


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
    return _dataset(root, wanted, CLASSES, _split(root, CLASSES, PARTS))


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
    official = _split(root, CLASSES, ("train", "val"))
    return _dataset(root, wanted, CLASSES, val_as_test(official))


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


def open_tree(wanted: Wanted) -> Dataset:
    """Open any tree in VOC layout; its classes are those that have a `<class>_train.txt`.

    Args:
        wanted: Its root holds `ImageSets/Main` and `JPEGImages`.

    Raises:
        DatasetNotFoundError: If it is not there.
        DatasetError: If its lists contradict each other.
    """
    root, lists = wanted.root, wanted.root / MAIN
    if not lists.is_dir():
        raise DatasetNotFoundError(wanted.name, [lists], "Expected ImageSets/Main and JPEGImages.")
    classes = tuple(sorted(p.name.removesuffix("_train.txt") for p in lists.glob("*_train.txt")))
    if not classes:
        raise DatasetError(f"'{lists}' has no list <class>_train.txt.", remedy="Is it a VOC tree?")
    return _dataset(root, wanted, classes, _split(root, classes, PARTS))


def own_measure(root: Path) -> tuple[str, str] | None:
    """Return what a tree is scored by, as VOC was in its year, and the reason in words.

    VOC took the mean of 11 points from 2007 to 2009 and the area from 2010 on (devkits). The first
    of these that says a year counts: the folder's name ("VOC2012", as given or behind links); the
    annotation of the first listed image (`<folder>VOC2012</folder>`); the ids of the lists, of
    which `2008_000001` is of its year or a later one and six digits alone are of 2007.

    Returns:
        None if nothing says a year.
    """
    found = _year_of_name(root) or _year_of_lists(root)
    if found is None:
        return None
    year, where = found
    return ("voc2010" if year >= _AREA_SINCE else "voc2007"), f"it is of {year}, {where}"


def _year_of_name(root: Path) -> tuple[int, str] | None:
    for path in (root.absolute(), root.resolve()):
        if match := _YEAR.search(path.name):
            return int(match[1]), f"as the name of '{path}' says"
    return None


def _year_of_lists(root: Path) -> tuple[int, str] | None:
    ids = []
    for part in PARTS:
        try:
            ids += [row[0] for _, row in read_list(root / MAIN / f"{part}.txt", columns=1)]
        except (DatasetError, DatasetNotFoundError):
            continue
    annotation = root / "Annotations" / f"{ids[0] if ids else ''}.xml"
    if annotation.is_file():
        with annotation.open("rb") as stream:
            head = stream.read(_HEAD).decode("utf-8", "replace")
        if match := _FOLDER.search(head):
            return int(match[1]), f"as '{annotation}' says"
    years = [int(match[1]) for i in ids if (match := _DATED.fullmatch(i))]
    if years:
        return max(years), "the newest that an id in its lists names"
    if ids and all(_UNDATED.fullmatch(i) for i in ids):
        return 2007, "whose ids have six digits"
    return None


def _split(root: Path, classes: Sequence[str], parts: Sequence[str]) -> Split:
    nothing = Part(ids=(), labels=np.empty((0, len(classes)), np.int8))
    read = {part: _read_part(root / MAIN, part, classes) for part in parts}
    split = Split(**{part: read.get(part, nothing) for part in PARTS})
    if not split.ids:
        raise DatasetError(f"The lists in '{root / MAIN}' name no image at all.")
    return split


def _dataset(root: Path, wanted: Wanted, classes: Sequence[str], split: Split) -> Dataset:
    paths = image_paths(root, split.ids, images=wanted.images)
    return Dataset(
        name=wanted.name,
        kind=Kind.MULTI_LABEL,
        classes=tuple(classes),
        items=sorted_items(Item(i, FileSource(paths[i])) for i in split.ids),
        splits=(split,),
    )


def image_paths(root: Path, ids: Sequence[str], *, images: bool) -> dict[str, Path]:
    """Return the file of each image id.

    Args:
        root: Holds `JPEGImages`.
        ids: From the lists.
        images: Whether the files must be there.

    Raises:
        DatasetNotFoundError: If there is no such folder.
        DatasetError: If a listed image is not there.
    """
    folder = root / "JPEGImages"
    files = _image_files(folder) if images else {}
    for image in ids:
        if images and image not in files:
            raise DatasetError(
                f"The lists in '{root / 'ImageSets'}' name {image!r}, but there is no "
                f"'{folder / image}.jpg'.",
                "Every listed image must be there.",
                "Unpack the data set again.",
            )
    return {image: files.get(image, folder / f"{image}.jpg") for image in ids}


def _image_files(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise DatasetNotFoundError("VOC images", [folder], "Unpack the images there.")
    return {p.stem: p for p in sorted(folder.iterdir()) if p.suffix.lower() in _SUFFIXES}


def _read_part(lists: Path, part: str, classes: Sequence[str]) -> Part:
    ids = tuple(row[0] for _, row in read_list(lists / f"{part}.txt", columns=1))
    labels = np.zeros((len(ids), len(classes)), dtype=np.int8)
    hidden = part == "test" and not any((lists / f"{name}_test.txt").exists() for name in classes)
    for k, name in enumerate(() if hidden else classes):
        labels[:, k] = _read_labels(lists / f"{name}_{part}.txt", ids)
    return Part(ids=ids, labels=labels)


def _read_labels(path: Path, ids: tuple[str, ...]) -> Labels:
    rows = read_list(path, columns=2)
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


def read_list(path: Path, columns: int) -> list[tuple[int, list[str]]]:
    """Read a list as (line number, words); two blanks may stand before a positive label.

    Args:
        path: Of the list.
        columns: Words that every line must have at least.

    Raises:
        ListNotFoundError: If it is not there.
        DatasetError: If it cannot be read, or a line is too short.
    """
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        raise ListNotFoundError(path) from None
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
