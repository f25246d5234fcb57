"""A folder of photos: one sub-folder per class, or flat and without labels."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from vggfeat.data.names import Wanted
from vggfeat.data.records import (
    PARTS,
    Dataset,
    Item,
    Kind,
    Split,
    one_class_part,
    same_files,
    sorted_items,
    unlabelled_split,
)
from vggfeat.data.split import divided, without_val
from vggfeat.errors import DatasetError, DatasetNotFoundError, ImageNotFoundError
from vggfeat.files.sources import FileSource

_log = logging.getLogger(__name__)

SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
)
_Chosen = dict[str, list[tuple[str, str]]]  # part → (id, class) of its images
_EXPECTED = f"Expected files ending in {', '.join(sorted(SUFFIXES))}."


def open_folder(wanted: Wanted) -> Dataset:
    """Open a folder of images.

    Dataset format: `<class>/<image>`; or `train|val|test/<class>/<image>` where the parts are
    given (without val, 20 % of train become it); or images alone, which have no labels. Without
    given parts each class is ordered by a hash of seed and id: the first 20 % are test, 20 % of
    the rest val, at least one image each.

    Args:
        wanted: Its root is the folder, its seed enters the hash.

    Raises:
        DatasetNotFoundError: If there is no such folder.
        DatasetError: If it holds no image, a class holds fewer than 3, or one file is in two parts.
    """
    root = wanted.root
    ignored: list[str] = []
    if wanted.stored_ids is not None:
        items = sorted_items(Item(i, FileSource(root / i)) for i in wanted.stored_ids)
    elif root.is_dir():
        items = sorted_items(Item(i, FileSource(path)) for i, path in _scan(root, ignored))
    else:
        raise DatasetNotFoundError(wanted.name, [root], "Check the path.")
    if not items:
        raise DatasetError(
            f"'{root}' holds no image.",
            _EXPECTED,
            "Check the path.",
        )
    kind, classes, chosen = _arrange([item.id for item in items], wanted.seed)
    split = _split(chosen, classes, same_files(items))
    kept = set(split.ids)
    return Dataset(
        name=wanted.name,
        kind=kind,
        classes=classes,
        items=tuple(item for item in items if item.id in kept),
        splits=(split,),
        ignored=(*sorted(ignored), *(item.id for item in items if item.id not in kept)),
        given=any(not i.startswith(f"{name}/") for own in chosen.values() for i, name in own),
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


def _images_below(folder: Path) -> list[Path]:
    ignored: list[str] = []
    found = sorted(_scan(folder, ignored))
    if not found:
        raise ImageNotFoundError(f"'{folder}' holds no image.", _EXPECTED)
    if ignored:
        count, first = len(ignored), min(ignored)
        _log.info("%d files in '%s' are no images, the first is '%s'", count, folder, first)
    return [path for _, path in found]


def _scan(root: Path, ignored: list[str]) -> Iterable[tuple[str, Path]]:
    """Yield id and path of the images below a folder; `ignored` gets the ids of other files."""
    for folder, folders, files in os.walk(root, followlinks=True):
        here = Path(folder).resolve()
        # a link to a folder above would repeat everything, again and again
        folders[:] = sorted(f for f in folders if not here.is_relative_to((here / f).resolve()))
        for file in sorted(files):
            path = Path(folder) / file
            relative = item_id(path.relative_to(root))
            if path.suffix.lower() in SUFFIXES and not file.startswith("."):
                yield relative, path
            else:
                ignored.append(relative)


def _arrange(ids: Sequence[str], seed: int) -> tuple[Kind, tuple[str, ...], _Chosen]:
    """Return the kind, the classes, and of each part the ids with their classes."""
    parts = {PurePosixPath(i).parts[0] for i in ids if "/" in i}
    if {"train", "test"} <= parts <= set(PARTS):
        return _arrange_given(ids, seed)
    if parts and parts <= set(PARTS):
        raise DatasetError(
            f"The folder has only {' and '.join(sorted(parts))} in it.",
            "Expected train and test, and if wanted val, or one sub-folder per class.",
            "Add what is missing, or take the level of train, val and test away.",
        )
    labelled = [i for i in ids if "/" in i]
    if not labelled:
        return Kind.UNLABELLED, (), {"test": [(i, "") for i in ids]}
    chosen: _Chosen = {part: [] for part in PARTS}
    classes = _by_class(labelled, depth=0)
    for name, members in classes.items():
        for part, some in divided(members, seed, name).items():
            chosen[part] += [(i, name) for i in some]
    return Kind.ONE_CLASS, tuple(classes), chosen


def _arrange_given(ids: Sequence[str], seed: int) -> tuple[Kind, tuple[str, ...], _Chosen]:
    unclassed = [i for i in ids if i.count("/") < 2]
    if unclassed:
        raise DatasetError(f"Image {unclassed[0]!r} has no class.", "Expected PART/CLASS/IMAGE.")
    classes = tuple(_by_class(ids, depth=1))
    chosen: _Chosen = {part: [] for part in PARTS}
    for i in ids:
        part, name = PurePosixPath(i).parts[:2]
        chosen[part].append((i, name))
    if not chosen["val"]:
        train, chosen["train"] = chosen["train"], []
        for name, members in _by_class([i for i, _ in train], depth=1).items():
            for part, some in without_val(members, seed).items():
                chosen[part] += [(i, name) for i in some]
    return Kind.ONE_CLASS, classes, chosen


def _by_class(ids: Iterable[str], depth: int) -> dict[str, list[str]]:
    classes: dict[str, list[str]] = {}
    for i in ids:
        classes.setdefault(PurePosixPath(i).parts[depth], []).append(i)
    return dict(sorted(classes.items()))


def _split(chosen: _Chosen, classes: tuple[str, ...], same: Mapping[str, str]) -> Split:
    if not classes:
        return unlabelled_split([i for i, _ in chosen["test"]])
    return Split(**{part: one_class_part(rows, classes, same) for part, rows in chosen.items()})
