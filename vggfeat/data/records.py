"""The records that leave this room: items, the parts of a split, a data set."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import combinations, pairwise, zip_longest
from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt

from vggfeat.errors import DatasetError
from vggfeat.files.sources import Source

Labels = npt.NDArray[np.int8]
PARTS = ("train", "val", "test")  # of every split, in this order


class Kind(StrEnum):
    """What the labels of an image are."""

    MULTI_LABEL = "multi-label"  # any number of classes: +1, -1, 0 = difficult
    ONE_CLASS = "one class"  # exactly one class: +1 once, -1 elsewhere
    UNLABELLED = "unlabelled"


@dataclass(frozen=True, slots=True)
class Item:
    """One image, or one box of one.

    Attributes:
        id: POSIX relative path with extension (VOC: the image id).
        source: The bytes of the image.
        box: (xmin, ymin, xmax, ymax), 1-based inclusive pixels; None for the whole image.
        image: Id of the whole image, if the item is a box of one.
    """

    id: str
    source: Source
    box: tuple[int, int, int, int] | None = None
    image: str | None = None


@dataclass(frozen=True, kw_only=True)
class Part:
    """The images of train, val or test, in the order of their list.

    Attributes:
        ids: n item ids, each once.
        labels: (n, K) int8 in {+1, -1, 0 = difficult}.
        images: The image that each item is, or is on; where none are given, the items themselves.
    """

    ids: tuple[str, ...]
    labels: Labels
    images: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.images:
            object.__setattr__(self, "images", self.ids)
        if len(set(self.ids)) != len(self.ids):
            seen: set[str] = set()
            twice = next(i for i in self.ids if i in seen or seen.add(i))  # type: ignore[func-returns-value]  # set.add is None on purpose
            raise DatasetError(f"Image {twice!r} is listed twice in one list.")

    def take(self, rows: npt.NDArray[np.bool_]) -> Part:
        """Return the images where `rows`, (n,), is true."""
        return self._of(np.flatnonzero(rows).tolist())

    def head(self, count: int, *, by_class: bool) -> Part:
        """Return the first `count` images; with `by_class`, round-robin over the classes."""
        order: Sequence[int] = range(len(self.ids))
        if by_class:
            of_class = self.labels.argmax(axis=1) if len(self.ids) else np.zeros(0, int)
            queues = [np.flatnonzero(of_class == k).tolist() for k in range(self.labels.shape[1])]
            rounds = zip_longest(*queues)
            order = [i for round_ in rounds for i in round_ if i is not None]
        return self._of(sorted(order[:count]))

    def joined(self, other: Part) -> Part:
        """Return the images of both, sorted by id."""
        both = Part(
            ids=self.ids + other.ids,
            labels=np.concatenate([self.labels, other.labels]),
            images=self.images + other.images,
        )
        return both._of(sorted(range(len(both.ids)), key=both.ids.__getitem__))

    def _of(self, rows: Sequence[int]) -> Part:
        return Part(
            ids=tuple(self.ids[row] for row in rows),
            labels=self.labels[list(rows)],
            images=tuple(self.images[row] for row in rows),
        )


@dataclass(frozen=True, kw_only=True)
class Split:
    """Train, val and test, which share no image."""

    train: Part
    val: Part
    test: Part

    def __post_init__(self) -> None:
        for first, second in combinations(PARTS, 2):
            one, other = getattr(self, first), getattr(self, second)
            both = set(one.images) & set(other.images)
            if both:
                image = min(both)
                ids = {part.ids[part.images.index(image)] for part in (one, other)}
                named = "" if ids == {image} else f" ({' and '.join(map(repr, sorted(ids)))})"
                raise DatasetError(
                    f"{len(both)} images are in {first} and in {second}, the first is "
                    f"{image!r}{named}.",
                    "A score means something only if the parts share no image.",
                    "Mend the lists, or take one of two links to one file away.",
                )

    @property
    def parts(self) -> tuple[Part, Part, Part]:
        """Train, val and test."""
        return self.train, self.val, self.test

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of all parts, sorted."""
        return tuple(sorted(i for part in self.parts for i in part.ids))


@dataclass(frozen=True, kw_only=True)
class Regions:
    """The images, or boxes of images, whose descriptors stand in one store.

    Attributes:
        items: Sorted by id.
        row_of: Id of a data set's item → id of the row that describes it, where they differ.
    """

    items: tuple[Item, ...]
    row_of: Mapping[str, str]

    def rows(self, ids: Iterable[str]) -> list[str]:
        """Return the ids of the rows that describe some items; several may share one."""
        return [self.row_of.get(i, i) for i in ids]


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A data set: its images, its classes and its splits, which share one store.

    Attributes:
        name: As on the command line.
        kind: What the labels are.
        classes: K names, in the order of the label columns.
        items: Sorted by id.
        splits: One or more.
        ignored: What was found and left out.
        given: Whether it says its parts itself; else they were made by a hash of seed and id.
        shots: For each split, how many images of each class were drawn for train and val; empty
            where none were drawn, and all are in.
    """

    name: str
    kind: Kind
    classes: tuple[str, ...]
    items: tuple[Item, ...]
    splits: tuple[Split, ...]
    ignored: tuple[str, ...] = ()
    given: bool = True
    shots: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        whole = {item.id: item.image for item in self.items if item.image is not None}
        for part in (part for split in self.splits for part in split.parts if whole):
            if part.images != tuple(whole.get(i, i) for i in part.ids):
                message = f"the parts of {self.name} do not say on which images their boxes are"
                raise ValueError(message)

    def of_region(self, region: str) -> Regions:
        """Return what of the items is described.

        Args:
            region: "box" for the items themselves, "image" for the whole images they are on.
        """
        if region == "box" or not any(item.image for item in self.items):
            return Regions(items=self.items, row_of={})
        row_of = {item.id: item.image or item.id for item in self.items}
        whole = {row_of[item.id]: Item(row_of[item.id], item.source) for item in self.items}
        return Regions(items=sorted_items(whole.values()), row_of=row_of)

    def shots_of(self, split: int) -> int | None:
        """Return how many images of each class split 1, 2, … trains with; None for all."""
        return self.shots[split - 1] if self.shots else None

    def limited(self, count: int | None) -> Dataset:
        """Keep `count` images of each part, round-robin over classes where each image has one."""
        if count is None:
            return self
        by_class = self.kind is Kind.ONE_CLASS
        splits = tuple(
            Split(
                train=split.train.head(count, by_class=by_class),
                val=split.val.head(count, by_class=by_class),
                test=split.test.head(count, by_class=by_class),
            )
            for split in self.splits
        )
        kept = {i for split in splits for i in split.ids}
        return replace(
            self, splits=splits, items=tuple(item for item in self.items if item.id in kept)
        )


def unlabelled(name: str, items: Iterable[Item]) -> Dataset:
    """Return images without labels as a data set: all of them are test."""
    ordered = sorted_items(items)
    return Dataset(
        name=name,
        kind=Kind.UNLABELLED,
        classes=(),
        items=ordered,
        splits=(unlabelled_split([item.id for item in ordered]),),
    )


def unlabelled_split(ids: Sequence[str]) -> Split:
    """Return the split of images without labels: all of them are test."""
    nothing = Part(ids=(), labels=np.empty((0, 0), np.int8))
    everything = Part(ids=tuple(ids), labels=np.empty((len(ids), 0), np.int8))
    return Split(train=nothing, val=nothing, test=everything)


def one_class_part(
    rows: Iterable[tuple[str, str]], classes: Sequence[str], same: Mapping[str, str]
) -> Part:
    """Return the part of (id, class) pairs, sorted by id; `same` as from `same_files`."""
    pairs = sorted(rows)
    column = {name: k for k, name in enumerate(classes)}
    labels = np.full((len(pairs), len(classes)), -1, dtype=np.int8)
    for row, (_, name) in enumerate(pairs):
        labels[row, column[name]] = 1
    ids = tuple(i for i, _ in pairs)
    return Part(ids=ids, labels=labels, images=tuple(same.get(i, i) for i in ids))


def same_files(items: Iterable[Item]) -> dict[str, str]:
    """Find items that are one file under several paths, through links or detours.

    Returns:
        Id of each but the first of them → id of the first.
    """
    first: dict[Hashable, str] = {}
    found = {}
    for item in items:
        place = item.source.place()
        if first.setdefault(place, item.id) != item.id:
            found[item.id] = first[place]
    return found


def sorted_items(items: Iterable[Item]) -> tuple[Item, ...]:
    """Sort items by id, and check that no id occurs twice."""
    result = tuple(sorted(items, key=lambda item: item.id))
    for first, second in pairwise(result):
        if first.id == second.id:
            both = f"'{first.source.name}' and '{second.source.name}'"
            raise DatasetError(f"{both} have the same id {first.id!r}.")
    return result


def published_ids(ids: Iterable[str]) -> dict[str, str]:
    """Return what stands for ids where others read them, id → text.

    An id is a path below the data set's folder, but a list of images may name absolute ones: of
    these only the name is left, behind some digits of the id's SHA-256 where several share it.

    >>> published_ids(["cat/a.jpg", "/home/me/b.jpg"])
    {'cat/a.jpg': 'cat/a.jpg', '/home/me/b.jpg': 'b.jpg'}
    """
    named = {i: PurePosixPath(i).name if i.startswith("/") else i for i in ids}
    shared = Counter(named.values())
    return {
        i: name if shared[name] == 1 or name == i else f"{_digits(i)}/{name}"
        for i, name in named.items()
    }


def _digits(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def manifest_digest(items: Sequence[Item], digests: Iterable[str]) -> str:
    """Return the SHA-256 over (id, bytes, box) of every item.

    Args:
        items: n items.
        digests: The SHA-256 of each one's file.
    """
    total = hashlib.sha256()
    for item, digest in zip(items, digests, strict=True):
        total.update(json.dumps([item.id, digest, item.box]).encode() + b"\n")
    return total.hexdigest()
