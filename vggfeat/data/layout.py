"""What the folders of a data set are, by the paths of its images alone: parts, classes, neither."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from vggfeat.data.notes import Notes
from vggfeat.data.records import PARTS, Kind
from vggfeat.data.split import divided, part_of, without_val
from vggfeat.errors import DatasetError

_EXPECTED = "Expected train and test, and if wanted val, or one sub-folder per class."

Chosen = dict[str, list[tuple[str, str]]]  # part → (id, class) of its images
_Path = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What becomes of the images of a folder.

    Attributes:
        kind: What the labels are.
        classes: Their names, sorted.
        chosen: The images of each part, with their classes; all are test where there are none.
        given: Whether the folders say the parts.
    """

    kind: Kind
    classes: tuple[str, ...]
    chosen: Chosen
    given: bool = False


class _Tree:
    """The paths of a folder.

    Args:
        place: The folder, for messages.
        ids: Of its images.
        folders: All its folders, as far as they are known.
        notes: Hear what is renamed, merged or left out for where it stands.

    Attributes:
        place: As given.
        paths: The images' names, id → from the outermost folder to the file.
        holding: The folders that hold an image, at whatever depth.
        empty: The other folders.
        notes: As given.
    """

    def __init__(
        self, place: str, ids: Iterable[str], folders: Iterable[str], notes: Notes
    ) -> None:
        self.place = place
        self.notes = notes
        self.paths = {i: tuple(i.split("/")) for i in ids}
        parents = {path[:-1] for path in self.paths.values()}
        self.holding = {path[:k] for path in parents for k in range(1, len(path) + 1)}
        self.empty = {tuple(one.split("/")) for one in folders} - self.holding
        self._below: dict[_Path, set[str]] = {}
        for path in self.holding:
            self._below.setdefault(path[:-1], set()).add(path[-1])

    def names(self, base: _Path) -> set[str]:
        """Return the names of the folders with images that stand directly in `base`."""
        return self._below.get(base, set())

    def warn(self, what: str, found: Iterable[str]) -> None:
        """Warn of some things: what became of them."""
        for one in sorted(found):
            self.notes.warn(what, repr(one))


def arrange(
    ids: Sequence[str], folders: Iterable[str], place: str, seed: int, notes: Notes
) -> Layout:
    """Decide what the images of a folder are.

    They have given parts where folders of two parts or more stand side by side, in the folder
    itself or below a chain of single folders; else each folder is a class.

    Args:
        ids: Of the images, POSIX paths.
        folders: All folders, as far as they are known.
        place: The folder, for messages.
        seed: Decides the parts that are not given.
        notes: Hear what is renamed, merged or left out for where it stands.

    Raises:
        DatasetError: If it may be read in two ways, if an image of a part has no class, or if a
            class without given parts holds fewer than 3.
    """
    tree = _Tree(place, ids, folders, notes)
    base = _base_of_parts(tree)
    if base is not None:
        return _given(tree, base, seed)
    _check_no_parts(tree)
    if not tree.names(()):
        _note_empty(tree, ())
        chosen: Chosen = {"test": [(i, "") for i in ids]}
        return Layout(kind=Kind.UNLABELLED, classes=(), chosen=chosen)
    return _by_classes(tree, seed)


def _parts_in(names: Iterable[str]) -> dict[str, str]:
    return {name: part for name in sorted(names) if (part := part_of(name))}


def _base_of_parts(tree: _Tree) -> _Path | None:
    """Return the folder in which the parts stand; None if they are not given."""
    base: _Path = ()
    while True:
        names = tree.names(base)
        parts = _parts_in(names)
        if len({*parts.values()}) > 1:
            return base
        if len(names) != 1 or parts:
            return None
        base = (*base, *names)


def _check_no_parts(tree: _Tree) -> None:
    """Refuse folders of which nobody can say whether they are classes or parts."""
    names = tree.names(())
    parts = _parts_in(names)
    if parts and names == {*parts}:
        raise _lone(tree.place, parts)
    for name in sorted(names):
        below = _parts_in(tree.names((name,)))
        if len({*below.values()}) > 1:
            raise DatasetError(
                f"Folder {name!r} of '{tree.place}' holds {_listed(below)}, and others stand "
                f"beside it.",
                "Expected PART/CLASS/IMAGE, or one sub-folder per class.",
                "Put the parts above the classes, or list the images in a CSV file (csv:PATH).",
            )
        if name in parts and tree.names((name,)):
            beside = min(names - {*parts})
            raise DatasetError(
                f"Folder {name!r} of '{tree.place}' holds sub-folders as a part does, but "
                f"{beside!r} beside it is none.",
                _EXPECTED,
                f"Rename {beside!r} if it is a part, or {name!r} if it is none.",
            )
    tree.warn("folders are named as parts, but hold images alone, and are classes", parts)


def _lone(place: str, parts: Mapping[str, str]) -> DatasetError:
    return DatasetError(
        f"'{place}' has images in {' and '.join(parts)} only.",
        _EXPECTED,
        "Add what is missing, rename val to test to score on it, or take the level of the parts "
        "away.",
    )


def _given(tree: _Tree, base: _Path, seed: int) -> Layout:
    parts = _parts_in(tree.names(base))
    _check_parts(tree.place, parts)
    if base:
        tree.notes.say(f"the parts {_listed(parts)} are those of the folder '{'/'.join(base)}'")
    for name, part in parts.items():
        if name != part:
            tree.notes.say(f"the folder {name!r} is read as the part {part}")
    n = len(base)
    inside = {
        i: path[n]
        for i, path in tree.paths.items()
        if len(path) > n + 1 and path[:n] == base and path[n] in parts
    }
    beside = tree.paths.keys() - inside.keys()
    tree.warn(f"images stand beside the parts {_listed(parts)}, and are left out", beside)
    levels = {name: n + 1 + _doubled(tree, (*base, name)) for name in parts}
    rows = _classed(tree, {i: levels[name] for i, name in inside.items()})
    chosen: Chosen = {part: [] for part in PARTS}
    for i, name in rows.items():
        chosen[parts[inside[i]]].append((i, name))
    classes = tuple(sorted({*rows.values()}))
    _note_empty(tree, classes, base, levels)
    if not chosen["val"]:
        train, chosen["train"] = dict(chosen["train"]), []
        for name, members in _members(train).items():
            for part, some in without_val(members, seed).items():
                chosen[part] += [(i, name) for i in some]
    return Layout(kind=Kind.ONE_CLASS, classes=classes, chosen=chosen, given=True)


def _check_parts(place: str, parts: Mapping[str, str]) -> None:
    for part in PARTS:
        names = [name for name, own in parts.items() if own == part]
        if len(names) > 1:
            raise DatasetError(
                f"'{place}' has {_listed(names)}, and each may be {part}.",
                "Expected one folder for each part.",
                "Rename or merge them.",
            )
    if not {"train", "test"} <= {*parts.values()}:
        raise _lone(place, parts)


def _doubled(tree: _Tree, folder: _Path) -> int:
    """Return 1 where all that a part's folder holds is that folder once more, else 0."""
    names = tree.names(folder)
    n = len(folder)
    direct = any(len(p) == n + 1 and p[:n] == folder for p in tree.paths.values())
    if direct or len(names) != 1 or part_of(*names) != part_of(folder[-1]):
        return 0
    again = "/".join((*folder, *names))
    tree.notes.say(f"the folder '{again}' stands alone in its part, and is read as the part")
    return 1


def _classed(tree: _Tree, levels: Mapping[str, int]) -> dict[str, str]:
    """Return the class of each image, which is the name of its folder at the given level."""
    paths = {i: tree.paths[i] for i in levels}
    unclassed = [i for i, path in paths.items() if len(path) < levels[i] + 2]
    if unclassed:
        raise DatasetError(
            f"Image {min(unclassed)!r} has no class.",
            "Expected PART/CLASS/IMAGE.",
            "Put it into the folder of its class, or list the images in a CSV file (csv:PATH).",
        )
    deeper = [i for i, path in paths.items() if len(path) > levels[i] + 2]
    tree.warn("images are in sub-folders of their class, which are no classes", deeper)
    found = {i: path[levels[i]] for i, path in paths.items()}
    other = {name for name in found.values() if _nfc(name) != name}
    tree.warn("class names are normalised to Unicode NFC, and merged where they look alike", other)
    return {i: _nfc(name) for i, name in found.items()}


def _nfc(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _by_classes(tree: _Tree, seed: int) -> Layout:
    rows = _classed(tree, {i: 0 for i, path in tree.paths.items() if len(path) > 1})
    beside = tree.paths.keys() - rows.keys()
    tree.warn("images stand beside the folders of the classes, and are left out", beside)
    classes = _members(rows)
    chosen: Chosen = {part: [] for part in PARTS}
    for name, members in classes.items():
        for part, some in divided(members, seed, name).items():
            chosen[part] += [(i, name) for i in some]
    below = {name for top in tree.names(()) for name in tree.names((top,))}
    if len(classes) == 1 and below:
        only = min(tree.names(()))
        tree.notes.say(
            f"the only class, {only!r}, has sub-folders, the first is {min(below)!r}: if these "
            f"are the classes, pass 'folder:{tree.place}/{only}'",
            warn=True,
        )
    _note_empty(tree, classes.keys())
    return Layout(kind=Kind.ONE_CLASS, classes=tuple(classes), chosen=chosen)


def _members(rows: Mapping[str, str]) -> dict[str, list[str]]:
    classes: dict[str, list[str]] = {}
    for i, name in rows.items():
        classes.setdefault(name, []).append(i)
    return dict(sorted(classes.items()))


def _note_empty(
    tree: _Tree,
    classes: Collection[str],
    base: _Path = (),
    levels: Mapping[str, int] | None = None,
) -> None:
    """Note the folders that would be a class or a part if an image were in them.

    Args:
        tree: All paths.
        classes: That have images.
        base: The folder of the classes, or of the parts.
        levels: At which level the classes of each part's folder stand; None without parts.
    """
    n = len(base)
    found = []
    for folder in tree.empty:
        inside = len(folder) > n and folder[:n] == base
        level = (levels or {}).get(folder[n], n) if inside else -1
        if len(folder) == level + 1 and _nfc(folder[-1]) not in classes:
            found.append("/".join(folder))
    tree.warn("folders hold no image, and are neither class nor part", found)
    hollow = {part_of(one.rpartition("/")[2]) for one in found} - {*map(part_of, levels or ())}
    if levels and "val" in hollow:
        tree.notes.say("a fifth of train becomes val, whose folder holds no image", warn=True)


def _listed(names: Iterable[str]) -> str:
    *others, last = [repr(name) for name in names]
    return f"{', '.join(others)} and {last}" if others else last
