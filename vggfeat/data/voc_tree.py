"""Any tree in PASCAL VOC layout: where it is, which lists it has, what it is scored by."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from vggfeat.data.annotation import is_difficult, object_name, read_objects
from vggfeat.data.names import Wanted
from vggfeat.data.notes import Notes
from vggfeat.data.records import PARTS, Dataset, Item, Kind, Labels, Part, Split, sorted_items
from vggfeat.data.split import divided, part_of, without_val
from vggfeat.data.voc import MAIN, val_as_test
from vggfeat.data.voc_lists import IMAGE_FOLDERS, image_paths, read_ids, read_labels
from vggfeat.errors import DatasetError, DatasetNotFoundError, ListNotFoundError
from vggfeat.files.sources import FileSource
from vggfeat.files.suffixes import SUFFIXES

_log = logging.getLogger(__name__)

_BOTH = "trainval"
_INSIDE = {"imagesets", "main", "annotations", *map(str.casefold, IMAGE_FOLDERS)}

_AREA_SINCE = 2010
_YEAR = re.compile(r"voc[-_ ]?(20\d\d)(?!\d)", re.IGNORECASE)
_FOLDER = re.compile(r"<folder>\s*VOC(20\d\d)\s*</folder>")
_HEAD = 4096  # bytes of an annotation; its folder stands in the second line
_DATED, _UNDATED = re.compile(r"(20\d\d)_\d{6}"), re.compile(r"\d{6}")


@dataclass(frozen=True, kw_only=True)
class Tree:
    """The folders of a tree, whatever the case of their names.

    Attributes:
        root: Holds the others.
        lists: Of train.txt and its like.
        images: Of the images.
        annotations: Of the XML files.
    """

    root: Path
    lists: Path
    images: Path
    annotations: Path

    @property
    def exists(self) -> bool:
        """Whether there is anything that labels images."""
        return self.lists.is_dir() or self.annotations.is_dir()


@dataclass(frozen=True)
class _Lists:
    """Part → its list; class → part → its list."""

    parts: dict[str, Path] = field(default_factory=dict)
    classes: dict[str, dict[str, Path]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class _Labelled:
    """What lists or annotations say: part → its images; image → its ending, or ""."""

    classes: tuple[str, ...]
    parts: dict[str, Part]
    endings: dict[str, str]


def open_tree(wanted: Wanted) -> Dataset:
    """Open any tree in VOC layout.

    Its classes are those that have a list, `<class>_train.txt`; where there is none, the names of
    the objects in its annotations, of which an image has those with an object on it, and 0 of those
    all of whose objects are difficult. Without a list of test val stands in its place; without one
    of val it is a fifth of train, and without both they are fifths of what there is, as of a
    folder. docs/data.md says what else is read, and what is refused.

    Args:
        wanted: Its root holds `ImageSets/Main` or `Annotations`, and `JPEGImages`; or is one of
            them, or a folder above with one such tree in it.

    Raises:
        DatasetNotFoundError: If it is not there.
        DatasetError: If its lists contradict each other.
    """
    notes = Notes()
    tree = _found(wanted, notes)
    lists = _lists(tree.lists, notes)
    if lists.classes:
        read, named_by = _by_lists(tree, lists, notes), f"The lists in '{tree.lists.parent}'"
    elif tree.annotations.is_dir():
        read, named_by = _by_annotations(tree, lists, notes), f"The files in '{tree.annotations}'"
    else:
        raise DatasetError(
            f"'{tree.lists}' has no list <class>_train.txt, and there is no '{tree.annotations}'.",
            "Expected the labels in the one or in the other.",
            "Is it a VOC tree?",
        )
    if not read.endings:
        raise DatasetError(f"{named_by} name no image at all.")
    split = _split(tree, read.parts, wanted.seed, notes)
    endings = {i: read.endings[i] for i in split.ids}
    paths = image_paths(tree.images, endings, notes, images=wanted.images, named_by=named_by)
    if wanted.images:
        _note_unlisted(tree.images, paths.values(), notes)
    notes.tell(_log)
    return Dataset(
        name=wanted.name,
        kind=Kind.MULTI_LABEL,
        classes=read.classes,
        items=sorted_items(Item(i, FileSource(paths[i])) for i in split.ids),
        splits=(split,),
    )


def own_measure(root: Path) -> tuple[str, str] | None:
    """Return what a tree is scored by, as VOC was in its year, and the reason in words.

    VOC took the mean of 11 points from 2007 to 2009 and the area from 2010 on (devkits). The first
    of these that says a year counts: the folder's name ("VOC2012", as given or behind links); the
    annotation of the first listed image (`<folder>VOC2012</folder>`); the ids of the lists, of
    which `2008_000001` is of its year or a later one and six digits alone are of 2007.

    Returns:
        None if nothing says a year.
    """
    trees = _trees(root)
    tree = trees[0] if len(trees) == 1 else _tree(root)
    found = _year_of_name(tree.root) or _year_of_lists(tree)
    if found is None:
        return None
    year, where = found
    return ("voc2010" if year >= _AREA_SINCE else "voc2007"), f"it is of {year}, {where}"


def _year_of_name(root: Path) -> tuple[int, str] | None:
    for path in (root.absolute(), root.resolve()):
        if match := _YEAR.search(path.name):
            return int(match[1]), f"as the name of '{path}' says"
    return None


def _year_of_lists(tree: Tree) -> tuple[int, str] | None:
    ids = _all_ids(tree)
    annotation = tree.annotations / f"{ids[0] if ids else ''}.xml"
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


def _all_ids(tree: Tree) -> list[str]:
    try:
        parts = _lists(tree.lists, Notes()).parts
    except DatasetError:
        return []  # whoever opens it says so
    ids: list[str] = []
    for part in (*PARTS, _BOTH):
        try:
            ids += read_ids(parts[part], Notes()) if part in parts else ()
        except (DatasetError, DatasetNotFoundError):
            continue
    return ids or [path.stem for path in _annotations(tree, Notes())]


# --- where it is --------------------------------------------------------------------------------


def _found(wanted: Wanted, notes: Notes) -> Tree:
    given = wanted.root
    trees = _trees(given)
    if len(trees) > 1:
        several = " or ".join(f"voc:{tree.root}" for tree in trees)
        raise DatasetError(
            f"'{given}' has {len(trees)} VOC trees in it.",
            "Expected the folder of one.",
            f"Write {several}.",
        )
    if not trees:
        places = [given / MAIN, given / "Annotations"]
        raise DatasetNotFoundError(wanted.name, places, _found_instead(given))
    if trees[0].root != given:
        notes.say(f"the VOC tree of '{given}' is '{trees[0].root}'")
    return trees[0]


def _found_instead(given: Path) -> str:
    expected = "Expected ImageSets/Main or Annotations, and JPEGImages"
    if not given.is_dir():
        return f"{expected}; there is no '{given}'."
    names = sorted(path.name for path in given.iterdir())
    if any(name.lower().endswith(".xml") for name in names):
        return f"Put its .xml files into '{given / 'Annotations'}', the images into JPEGImages."
    shown = ", ".join(names[:6]) + (", …" if len(names) > 6 else "")
    return f"{expected}; '{given}' holds {shown or 'nothing'}."


def _trees(given: Path) -> list[Tree]:
    """Return the tree that a folder is; else the one that it is part of; else those below it."""
    if (tree := _tree(given)).exists:
        return [tree]
    absolute = given.absolute()
    above = absolute
    while above.name.casefold() in _INSIDE and above != above.parent:
        above = above.parent
    if above != absolute and (tree := _tree(above)).exists:
        return [tree]
    below = list(_folders(given))
    found = [tree for folder in below if (tree := _tree(folder)).exists]
    return found or [
        tree for one in below for folder in _folders(one) if (tree := _tree(folder)).exists
    ]


def _tree(root: Path) -> Tree:
    sets = _child(root, "ImageSets")
    main = _child(sets, "Main")
    direct = not main.is_dir() and sets.is_dir() and any(sets.glob("*.txt"))
    return Tree(
        root=root,
        lists=sets if direct else main,
        images=_child(root, *IMAGE_FOLDERS),
        annotations=_child(root, "Annotations"),
    )


def _child(folder: Path, *names: str) -> Path:
    """Return the first of some folders that is there, in any case; the first name if none is."""
    exact = [folder / name for name in names if (folder / name).is_dir()]
    there = [] if exact else list(_folders(folder))
    alike = [path for name in names for path in there if path.name.casefold() == name.casefold()]
    return (*exact, *alike, folder / names[0])[0]


def _folders(folder: Path) -> Iterator[Path]:
    try:
        paths = sorted(folder.iterdir())
    except OSError:
        return
    yield from (path for path in paths if not path.name.startswith(".") and path.is_dir())


# --- what it says -------------------------------------------------------------------------------


def _lists(folder: Path, notes: Notes) -> _Lists:
    found = _Lists()
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        name, _, last = path.stem.rpartition("_")
        part, own = (None, _part(last)) if name else (_part(last), None)
        if path.name.startswith("."):
            notes.add(f"hidden files in '{folder}' are left out", repr(path.name))
        elif path.suffix.lower() != ".txt" or not (part or own):
            notes.add(
                f"files in '{folder}' are no lists of {', '.join((*PARTS, _BOTH))}, and are left "
                "out",
                repr(path.name),
            )
        else:
            home = found.parts if part else found.classes.setdefault(name, {})
            other = home.setdefault(part or own or "", path)
            if other != path:
                raise DatasetError(
                    f"'{other}' and '{path.name}' are two lists of one part.",
                    "Expected one.",
                    "Take one of them away.",
                )
    return found


def _part(name: str) -> str | None:
    return _BOTH if name.casefold() == _BOTH else part_of(name)


def _read_parts(lists: _Lists, notes: Notes) -> dict[str, dict[str, str]]:
    """Return part → image id → ending, of the parts that the split is made of."""
    there = [part for part in (*PARTS, _BOTH) if part in lists.parts]
    read = {part: read_ids(lists.parts[part], notes) for part in there}
    for part, ids in read.items():
        if not ids:
            notes.warn("lists name no image", f"'{lists.parts[part]}'")
    # test may be empty on purpose; without train and val there would be nothing to learn from
    read = {part: ids for part, ids in read.items() if ids or part == "test"}
    if {"train", "val"} <= read.keys():
        known = {i for part in PARTS for i in read.get(part, ())}
        for i in read.pop(_BOTH, {}):
            if i not in known:
                notes.warn("images of trainval are in no list of a part, and are left out", repr(i))
    return read


def _endings(read: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Return image id → the ending that any list writes, or ""."""
    found: dict[str, str] = {}
    for ids in read.values():
        for i, ending in ids.items():
            found[i] = found.get(i) or ending
    return found


def _by_lists(tree: Tree, lists: _Lists, notes: Notes) -> _Labelled:
    for part in PARTS:
        if part not in lists.parts and any(part in own for own in lists.classes.values()):
            raise ListNotFoundError(tree.lists / f"{part}.txt")
    read = _read_parts(lists, notes)
    parts = {
        part: Part(ids=tuple(ids), labels=_class_labels(tree, lists, part, ids, notes))
        for part, ids in read.items()
    }
    return _Labelled(classes=tuple(sorted(lists.classes)), parts=parts, endings=_endings(read))


def _class_labels(
    tree: Tree, lists: _Lists, part: str, ids: Mapping[str, str], notes: Notes
) -> Labels:
    labels = np.zeros((len(ids), len(lists.classes)), dtype=np.int8)
    if part == "test" and not any("test" in own for own in lists.classes.values()):
        notes.say(f"no class has a list of test in '{tree.lists}', so that its labels are unknown")
        return labels
    for k, name in enumerate(sorted(lists.classes)):
        own = lists.classes[name]
        path = own.get(part) or (own.get(_BOTH) if part != "test" else None)
        if path is None:
            raise ListNotFoundError(tree.lists / f"{name}_{part}.txt")
        labels[:, k] = read_labels(path, ids, notes, more=part not in own)
    return labels


def _annotations(tree: Tree, notes: Notes) -> list[Path]:
    found = []
    for path in sorted(tree.annotations.iterdir()) if tree.annotations.is_dir() else ():
        if path.suffix.lower() == ".xml" and not path.name.startswith("."):
            found.append(path)
        else:
            notes.add(
                f"files in '{tree.annotations}' are no annotations, and are left out",
                repr(path.name),
            )
    return found


def _by_annotations(tree: Tree, lists: _Lists, notes: Notes) -> _Labelled:
    files = {path.stem: path for path in _annotations(tree, notes)}
    read = _read_parts(lists, notes)
    if not any(read.values()):
        read = {_BOTH: dict.fromkeys(files, "")}
        notes.say(f"'{tree.lists}' names no image: all that have an annotation are taken")
    endings = _endings(read)
    _check_annotated(tree, endings, files)
    for image in (image for image in files if image not in endings):
        notes.add("annotations are of images in no list, and are left out", f"'{files[image]}'")
    seen = {image: _classes_of(files[image]) for image in endings}
    for image in (image for image, own in seen.items() if not own):
        notes.add("annotations name no object: their images have no class", f"'{files[image]}'")
    classes = tuple(sorted({name for own in seen.values() for name in own}))
    if not classes:
        raise DatasetError(
            f"The {len(seen)} annotations in '{tree.annotations}' name no object.",
            "Expected <object> with a <name> in <annotation>.",
            "Are they of PASCAL VOC's form?",
        )
    notes.say(f"no class has a list: the labels are those of the objects in '{tree.annotations}'")
    parts = {
        part: Part(ids=tuple(ids), labels=_object_labels([seen[i] for i in ids], classes))
        for part, ids in read.items()
    }
    return _Labelled(classes=classes, parts=parts, endings=endings)


def _check_annotated(tree: Tree, images: Iterable[str], files: Mapping[str, Path]) -> None:
    if not files:
        raise DatasetError(
            f"'{tree.annotations}' holds no annotation, and no class has a list <class>_train.txt.",
            "Expected the labels in lists, or in one XML file for each image.",
            "Is it a VOC tree?",
        )
    lacking = [image for image in images if image not in files]
    if lacking:
        raise DatasetError(
            f"The lists in '{tree.lists}' name {lacking[0]!r}, but there is no "
            f"'{tree.annotations / lacking[0]}.xml'; {len(lacking)} annotations are absent.",
            "An image of no class has one without objects.",
            "Add them, or take their images out of the lists.",
        )


def _classes_of(path: Path) -> dict[str, bool]:
    found: dict[str, bool] = {}
    for one in read_objects(path):
        name = object_name(one, path)
        found[name] = found.get(name, True) and is_difficult(one, path)
    return found


def _object_labels(seen: Sequence[Mapping[str, bool]], classes: Sequence[str]) -> Labels:
    rows = [[0 if own.get(c) else 1 if c in own else -1 for c in classes] for own in seen]
    return np.array(rows, dtype=np.int8).reshape(len(seen), len(classes))


def _note_unlisted(folder: Path, paths: Iterable[Path], notes: Notes) -> None:
    taken = {path.name for path in paths}
    for path in sorted(folder.iterdir()):
        if path.name in taken:
            continue
        if path.name.startswith("."):
            what = f"hidden files in '{folder}' are left out"
        elif path.suffix.lower() in SUFFIXES:
            what = f"images in '{folder}' are named nowhere, and are left out"
        else:
            what = f"files in '{folder}' are no images, and are left out"
        notes.add(what, repr(path.name))


# --- its parts ----------------------------------------------------------------------------------


def _split(tree: Tree, parts: dict[str, Part], seed: int, notes: Notes) -> Split:
    """Return train, val and test of what there is of them and of both together."""
    train, val, test = (parts.get(part) for part in PARTS)
    if (both := parts.get(_BOTH)) is not None:
        train, val = _parted(both, train, val)
    if train is None:
        raise DatasetError(
            f"'{tree.lists}' has lists of {', '.join(sorted(parts)) or 'no part'} alone.",
            "Expected train.txt or trainval.txt.",
            "Add it.",
        )
    nothing = train.take(np.zeros(len(train.ids), dtype=bool))
    if test is None and val is not None:
        notes.say(
            "there is no list of test: val stands in its place, and a fifth of train for val",
            warn=True,
        )
        return val_as_test(Split(train=train, val=val, test=nothing))
    if test is None:
        notes.say(
            "there is no list of test: a hash takes a fifth of the images for it, and a fifth of "
            "the rest for val",
            warn=True,
        )
        return Split(**_taken(train, divided(train.ids, seed, "")))
    if val is None:
        notes.say("there is no list of val: a hash takes a fifth of train for it")
        return Split(**_taken(train, without_val(train.ids, seed)), test=test)
    return Split(train=train, val=val, test=test)


def _parted(both: Part, train: Part | None, val: Part | None) -> tuple[Part, Part | None]:
    """Return train and val, of which at most one is known, from both together."""
    known = train or val
    if known is None:
        return both, None
    inside = set(known.ids)
    rest = both.take(np.array([i not in inside for i in both.ids], dtype=bool))
    return (known, rest if rest.ids else None) if train is not None else (rest, known)


def _taken(part: Part, chosen: Mapping[str, Sequence[str]]) -> dict[str, Part]:
    """Return the named images of a part as parts of their own, in its order."""
    sets = {name: set(ids) for name, ids in chosen.items()}
    return {
        name: part.take(np.array([i in ids for i in part.ids], dtype=bool))
        for name, ids in sets.items()
    }
