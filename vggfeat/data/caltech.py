"""Caltech-101 and Caltech-256: one folder per class, three random splits (App. B)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from vggfeat.data.names import Wanted
from vggfeat.data.notes import Notes
from vggfeat.data.records import (
    PARTS,
    Dataset,
    Item,
    Kind,
    Split,
    one_class_part,
    same_files,
    sorted_items,
)
from vggfeat.data.split import hash_order
from vggfeat.errors import DatasetError, DatasetNotFoundError
from vggfeat.files.sources import FileSource

_log = logging.getLogger(__name__)

SPLITS = 3
_VAL_SHARE = 0.2  # of the training images


@dataclass(frozen=True, kw_only=True)
class _Protocol:
    """What Simonyan & Zisserman 2015, App. B, say of one of the two."""

    folder: str
    classes: int
    train: int  # images of a class, validation included
    test: int | None  # at most; None for all the rest


_PROTOCOLS = {
    "caltech101": _Protocol(folder="101_ObjectCategories", classes=102, train=30, test=50),
    "caltech256": _Protocol(folder="256_ObjectCategories", classes=257, train=60, test=None),
}


def open_caltech(wanted: Wanted) -> Dataset:
    """Open Caltech-101 (9,144 images of 102 classes) or Caltech-256 (30,607 of 257).

    Background and clutter count as classes, as in the paper. Each of the three splits orders the
    images of a class by a hash of the split's number (1, 2, 3) and the id: the first 30 (60) train,
    the next 50 (all the rest) test; the first fifth of the training images is for validation.
    If you use them, cite Fei-Fei et al. 2004, Griffin et al. 2007.

    Args:
        wanted: "caltech101" or "caltech256". Its root holds `<name>/<folder>` or `<folder>`, or is
            that folder itself, where the folder is `101_ObjectCategories` or
            `256_ObjectCategories`.

    Raises:
        DatasetNotFoundError: If it is not there.
        DatasetError: If classes are missing, or one has too few images for the protocol.
    """
    name = wanted.name
    protocol = _PROTOCOLS[name]
    ignored: list[str] = []
    if wanted.stored_ids is not None:
        items = sorted_items(Item(i, FileSource(wanted.root / i)) for i in wanted.stored_ids)
    else:
        items = sorted_items(_scan(_find(name, wanted.root), ignored))
    classes: dict[str, list[str]] = {}
    for item in items:
        classes.setdefault(PurePosixPath(item.id).parts[0], []).append(item.id)
    if len(classes) != protocol.classes:
        raise DatasetError(
            f"{name} has {len(classes)} classes with images.",
            f"Expected {protocol.classes}, background or clutter included.",
            f"`vggfeat datasets verify {name}` says what is there.",
        )
    for label, members in classes.items():
        if len(members) <= protocol.train:
            raise DatasetError(
                f"Class {label!r} of {name} has {len(members)} images.",
                f"The protocol takes {protocol.train} to train and needs one to test.",
                f"`vggfeat datasets verify {name}` says what is there.",
            )
    notes = Notes()
    for stray in sorted(ignored):
        notes.add("files are not named *.jpg, and are left out", repr(stray))
    notes.tell(_log)
    same = same_files(items)
    return Dataset(
        name=name,
        kind=Kind.ONE_CLASS,
        classes=tuple(classes),
        items=items,
        splits=tuple(_split(classes, protocol, seed, same) for seed in range(1, SPLITS + 1)),
        ignored=tuple(sorted(ignored)),
    )


def _find(name: str, data_root: Path) -> Path:
    folder = _PROTOCOLS[name].folder
    places = [data_root / name / folder, data_root / folder]
    if data_root.name == folder:
        places.append(data_root)
    for place in places:
        if place.is_dir():
            return place
    raise DatasetNotFoundError(
        name,
        places,
        f"`vggfeat datasets fetch {name}` gets it (datasets/{name}/README.md says what), or pass "
        "--data-root.",
    )


def _scan(root: Path, ignored: list[str]) -> list[Item]:
    """Return the JPEG files of every class; both sets hold a few strays as well."""
    items = []
    for folder in (one for one in root.iterdir() if one.is_dir()):
        for path in folder.iterdir():
            if path.suffix.lower() == ".jpg" and not path.name.startswith("."):
                items.append(Item(f"{folder.name}/{path.name}", FileSource(path)))
            else:
                ignored.append(f"{folder.name}/{path.name}")
    return items


def _split(
    classes: dict[str, list[str]], protocol: _Protocol, seed: int, same: Mapping[str, str]
) -> Split:
    chosen: dict[str, list[tuple[str, str]]] = {part: [] for part in PARTS}
    val = round(_VAL_SHARE * protocol.train)
    last = None if protocol.test is None else protocol.train + protocol.test
    for label, members in classes.items():
        order = hash_order(members, seed)
        chosen["val"] += [(i, label) for i in order[:val]]
        chosen["train"] += [(i, label) for i in order[val : protocol.train]]
        chosen["test"] += [(i, label) for i in order[protocol.train : last]]
    parts = {part: one_class_part(rows, tuple(classes), same) for part, rows in chosen.items()}
    return Split(**parts)
