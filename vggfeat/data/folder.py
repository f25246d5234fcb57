"""A folder of photos: one sub-folder per class, or flat and without labels."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vggfeat.data.layout import Layout, arrange
from vggfeat.data.names import Wanted
from vggfeat.data.notes import Notes
from vggfeat.data.records import (
    Dataset,
    Item,
    Split,
    one_class_part,
    same_files,
    sorted_items,
    unlabelled_split,
)
from vggfeat.errors import DatasetError, DatasetNotFoundError, ImageNotFoundError
from vggfeat.files.sources import FileSource
from vggfeat.files.suffixes import SUFFIXES, suffix_counts

_log = logging.getLogger(__name__)

# What systems and network drives put beside the user's files, casefolded. A leading dot hides as
# well: .DS_Store, ._tom.jpg of macOS, .ipynb_checkpoints, .git, .Trash-1000, ...
_SYSTEM = frozenset(
    {
        *("__macosx", "icon\r", "network trash folder", "temporary items"),
        *("thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini"),
        *("$recycle.bin", "recycler", "recycled", "system volume information", "found.000"),
        *("lost+found", "lost.dir", "__pycache__"),
        *("@eadir", "@tmp", "@recycle", "@recently-snapshot", "#recycle", "#snapshot"),
    }
)
_EXPECTED = "Expected files with the suffix of an image, as .jpg, .png, .webp or .tif."


def open_folder(wanted: Wanted) -> Dataset:
    """Open a folder of images.

    Dataset format: `<class>/<image>`; or `train|val|test/<class>/<image>` where the parts are
    given (without val, 20 % of train become it); or images alone, which have no labels. Without
    given parts each class is ordered by a hash of seed and id: the first 20 % are test, 20 % of
    the rest val, at least one image each. docs/data.md says what each thing in a folder becomes.

    Args:
        wanted: Its root is the folder, its seed enters the hash.

    Raises:
        DatasetNotFoundError: If there is no such folder.
        DatasetError: If it holds no image, may be read in two ways, a class holds fewer than 3, or
            one file is in two parts.
    """
    root = wanted.root
    if wanted.stored_ids is not None:
        found = _stored(root, wanted.stored_ids)
    elif root.is_dir():
        found = _scan(root)
    else:
        raise DatasetNotFoundError(wanted.name, [root], "Check the path.")
    if not found.images:
        raise DatasetError(
            f"'{root}' holds no image{found.instead}.",
            _EXPECTED,
            "Check the path.",
        )
    items = sorted_items(Item(i, FileSource(path)) for i, path in found.images)
    notes = found.notes
    layout = arrange([item.id for item in items], found.folders, str(root), wanted.seed, notes)
    split = _split(layout, same_files(items))
    kept = set(split.ids)
    beside = [item.id for item in items if item.id not in kept]
    notes.tell(_log)
    return Dataset(
        name=wanted.name,
        kind=layout.kind,
        classes=layout.classes,
        items=tuple(item for item in items if item.id in kept),
        splits=(split,),
        ignored=tuple(sorted([*found.others, *found.hidden, *beside])),
        given=layout.given,
    )


def named_images(paths: Iterable[Path]) -> tuple[Item, ...]:
    """Return the images that paths name: files themselves, and all that folders hold.

    Args:
        paths: Of files and folders; those of a folder come recursively, sorted.

    Returns:
        Items whose ids are the paths as given, in the order of `paths`, each once.

    Raises:
        ImageNotFoundError: If there is no such file, or no image in a folder.
    """
    found: dict[str, Item] = {}
    for path in paths:
        if not path.exists():
            raise ImageNotFoundError(f"There is no '{path}'.")
        for file in _images_below(path) if path.is_dir() else [path]:
            found.setdefault(item_id(file), Item(item_id(file), FileSource(file)))
    return tuple(found.values())


def item_id(relative: Path) -> str:
    """Return the id of a file: its POSIX relative path, bytes that are not UTF-8 as %XX.

    >>> item_id(Path("cat/tom.jpg"))
    'cat/tom.jpg'
    """
    raw = os.fsencode(relative.as_posix())
    return raw.decode("utf-8", "surrogateescape").translate(
        {0xDC00 + byte: f"%{byte:02X}" for byte in range(128, 256)}
    )


@dataclass(frozen=True, kw_only=True)
class _Found:
    """What a folder holds, by id.

    Attributes:
        images: Files with the suffix of an image, and where they are.
        folders: Those that were looked into.
        others: Files with another suffix.
        hidden: Files and folders that are hidden, or of the system.
        above: Links to a folder above themselves, which would repeat everything, again and again.
        closed: Folders that cannot be listed.
    """

    images: list[tuple[str, Path]] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)
    above: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)

    @property
    def notes(self) -> Notes:
        """What is left out, and why."""
        notes = Notes()
        counts = suffix_counts(self.others)
        for what, found in (
            (f"files have no suffix of an image that is read ({counts})", self.others),
            ("files and folders are hidden or of the system", self.hidden),
            ("links lead to a folder above themselves", self.above),
            ("folders cannot be listed", self.closed),
        ):
            for one in sorted(found):
                notes.warn(f"{what}, and are left out", repr(one))
        return notes

    @property
    def instead(self) -> str:
        """What it holds that is no image, to stand behind a message; "" if there is nothing."""
        lines = self.notes.lines()
        return f" ({'; '.join(lines)})" if lines else ""


def _images_below(folder: Path) -> list[Path]:
    found = _scan(folder)
    if not found.images:
        raise ImageNotFoundError(f"'{folder}' holds no image{found.instead}.", _EXPECTED)
    found.notes.tell(_log)
    return [path for _, path in sorted(found.images)]


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.casefold() in _SYSTEM


def _scan(root: Path) -> _Found:
    """Look through a folder, links to other folders included."""
    found = _Found()

    def closed(error: OSError) -> None:
        found.closed.append(item_id(Path(error.filename).relative_to(root)))

    for folder, folders, files in os.walk(root, followlinks=True, onerror=closed):
        here, real = Path(folder), Path(folder).resolve()
        relative = here.relative_to(root)
        entered = []
        for name in sorted(folders):
            own = item_id(relative / name)
            if _is_hidden(name):
                found.hidden.append(own)
            elif real.is_relative_to((real / name).resolve()):
                found.above.append(own)
            else:
                found.folders.append(own)
                entered.append(name)
        folders[:] = entered
        for name in sorted(files):
            own = item_id(relative / name)
            if _is_hidden(name):
                found.hidden.append(own)
            elif (here / name).suffix.lower() in SUFFIXES:
                found.images.append((own, here / name))
            else:
                found.others.append(own)
    return found


def _stored(root: Path, ids: Sequence[str]) -> _Found:
    """Return what the ids of a store say of the folder that it was made of."""
    found = _Found()
    for i in ids:
        if any(map(_is_hidden, i.split("/"))):  # stores of older versions have such images
            found.hidden.append(i)
        else:
            found.images.append((i, root / i))
    return found


def _split(layout: Layout, same: Mapping[str, str]) -> Split:
    if not layout.classes:
        return unlabelled_split([i for i, _ in layout.chosen["test"]])
    parts = {
        part: one_class_part(rows, layout.classes, same) for part, rows in layout.chosen.items()
    }
    return Split(**parts)
