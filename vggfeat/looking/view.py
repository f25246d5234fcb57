"""A store as it is looked at: its rows with the scales joined, and the classes of its images."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from vggfeat.classify.aggregate import Descriptors
from vggfeat.data.names import NAMED, PATTERNS
from vggfeat.data.records import Dataset, Kind
from vggfeat.errors import VggfeatError
from vggfeat.extraction.images import picture
from vggfeat.extraction.provide import open_for
from vggfeat.recipe import Machine, Recipe
from vggfeat.store.reader import DescriptorStore
from vggfeat.store.rows import Status
from vggfeat.transfer.given import values_from_stores
from vggfeat.transfer.samples import fused
from vggfeat.watch import Watch

_log = logging.getLogger(__name__)

READ_AT_ONCE = 512  # rows of a store: what a look needs of memory, however many it has
STOPPED = "Nothing was written; run the same command again."

Classes = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class View:
    """A store, open, and how it is looked at.

    Attributes:
        store: Its rows.
        recipe: Makes such rows, and says how the scales of a row are joined.
        dataset: Of the labels; None where the data set is not known.
    """

    store: DescriptorStore
    recipe: Recipe
    dataset: Dataset | None

    @cached_property
    def classes(self) -> Classes:
        """The classes of each image that has any, by id; empty where no data set is known."""
        return {} if self.dataset is None else classes_of(self.dataset, self._region)

    @cached_property
    def row_of(self) -> Mapping[str, int]:
        """The row of each id."""
        return {i: row for row, i in enumerate(self.store.ids)}

    @cached_property
    def difficult(self) -> Classes:
        """The classes that each image shows with difficulty, as the data set says."""
        return {} if self.dataset is None else _labelled(self.dataset, self._region, 0)

    @property
    def name(self) -> str:
        """Of the store's folder."""
        return self.store.path.resolve().parent.name

    @property
    def facts(self) -> dict[str, Any]:
        """What was looked at, fit for JSON."""
        return {
            "store": str(self.store.path),
            "name": self.name,
            "fingerprint": self.store.fingerprint,
            "dataset": None if self.dataset is None else self.dataset.name,
            "net": self.store.recipe["net"],
            "tap": self.store.recipe["tap"],
            "scales": list(self.recipe.scales),
            "aggregate": self.recipe.aggregate,
            "normalise": self.recipe.normalise,
        }

    def joined(self, watch: Watch, title: str) -> Iterator[tuple[slice, Descriptors]]:
        """Yield all rows, in their order and some at a time.

        Args:
            watch: Told of the progress; may stop it.
            title: Of the step.

        Yields:
            Which rows, and their descriptors, (m, D) float32, of norm 1; NaN where unreadable.
        """
        with watch.step(title, len(self.store), "images") as advance:
            for start in range(0, len(self.store), READ_AT_ONCE):
                ids = self.store.ids[start : start + READ_AT_ONCE]
                yield slice(start, start + len(ids)), self.rows(ids)
                advance(len(ids))
                watch.check(STOPPED)

    def rows(self, ids: Sequence[str]) -> Descriptors:
        """Return the descriptors of some images, (m, D) float32, of norm 1."""
        return fused([self.store.read(ids, self.recipe.scales)], self.recipe)

    def readable(self, others: str = "left out") -> npt.NDArray[np.bool_]:
        """Return which of the n rows are readable; of the others the log tells what they become."""
        lost: npt.NDArray[np.bool_] = self.store.statuses() == Status.UNREADABLE
        if lost.any():
            first = self.store.ids[int(lost.argmax())]
            said = self.store.unreadable.get(first, "the store does not say why")
            _log.warning(
                "%d of %d images are unreadable and %s, the first is %r: %s",
                *(lost.sum(), len(lost), others, first, said),
            )
        return np.logical_not(lost)

    def pictures(self, machine: Machine) -> Callable[[str], bytes] | None:
        """Return what gives an image's bytes by id, for a page; None where they are not there."""
        if self.dataset is None:
            _log.info("no pictures: the data set is not known; --dataset says which it is")
            return None
        try:
            found = open_for(self.recipe, machine)
        except VggfeatError as error:
            _log.warning("no pictures of the store's images: %s", error)
            return None
        items = {item.id: item for item in found.of_region(self._region).items}
        return lambda image: picture(items[image], whole=True)

    @property
    def _region(self) -> str:
        return str(self.store.recipe.get("region", "image"))


@contextmanager
def open_view(path: Path, values: Mapping[str, Any], machine: Machine) -> Iterator[View]:
    """Open a store to look at it, for as long as it is read.

    Args:
        path: Its folder or its file.
        values: Of a recipe, as far as they were given: "dataset", "scales", "aggregate",
            "normalise". Without a data set it is that in the name of the store's folder, if this
            is a known one's.
        machine: Says where data sets are.

    Raises:
        StoreError: If there is no such store, or it is damaged or not what was asked for.
        DatasetError: If the data set that was given does not fit the store.
        DatasetNotFoundError: If lists of it are needed that are not there.
        RecipeError: If a value is one that it cannot be.
    """
    with DescriptorStore.open(path) as store:
        named = values.get("dataset") or named_in(store)
        asked = {"dataset": named or _like(store), **values}
        recipe = Recipe.build(values_from_stores([store.path], asked), "the command line")
        if len(recipe.scales) > 1:
            scales = ", ".join(map(str, recipe.scales))
            _log.info("the scales %s are joined by %r (--aggregate)", scales, recipe.aggregate)
        yield View(store=store, recipe=recipe, dataset=_labels(store, recipe, machine, values))


def named_in(store: DescriptorStore) -> str | None:
    """Return the data set that a store's folder is named after, where its name tells it.

    A folder is named <data set>-<net>-<first digits of the fingerprint>; of a path only a part
    stands there, which does not lead back to it.
    """
    stem = _stem(store)
    return stem if stem in NAMED else None


def classes_of(dataset: Dataset, region: str) -> Classes:
    """Return the classes of each image, by the id of its row.

    Where an image has one class, that of an image which no split draws is its folder's: Caltech's
    protocol takes some images of a large class and leaves the others.

    Args:
        dataset: With its splits.
        region: Of each image, whose rows are meant.
    """
    found = _labelled(dataset, region, 1)
    if dataset.kind is Kind.ONE_CLASS:
        names = {*dataset.classes}
        folders = {item.id: PurePosixPath(item.id).parts[0] for item in dataset.items}
        found = {i: (name,) for i, name in folders.items() if name in names} | found
    return found


def _labelled(dataset: Dataset, region: str, label: int) -> dict[str, tuple[str, ...]]:
    """Return the classes that have a label, of each image that has one such; by row."""
    row_of = dataset.of_region(region).row_of
    found: dict[str, dict[str, None]] = {}
    for part in (part for split in dataset.splits for part in split.parts):
        for row, k in np.argwhere(part.labels == label).tolist():
            image = part.ids[row]
            own = found.setdefault(row_of.get(image, image), {})
            own[dataset.classes[k]] = None
    return {i: tuple(names) for i, names in found.items()}


def _labels(
    store: DescriptorStore, recipe: Recipe, machine: Machine, values: Mapping[str, Any]
) -> Dataset | None:
    """Open the data set of a store for its labels; the images need not be there."""
    given = "dataset" in values
    if not given and named_in(store) is None:
        _log.info(
            "no classes: the store's folder is not named after a data set; --dataset says which"
        )
        return None
    try:
        dataset = open_for(recipe, machine, store.ids)
    except VggfeatError as error:
        if given:
            raise
        _log.info("no classes of %s: %s", recipe.dataset, error)
        return None
    known = classes_of(dataset, str(store.recipe.get("region", "image")))
    without = [i for i in store.ids if i not in known]
    if without and dataset.kind is not Kind.UNLABELLED:
        _log.warning(
            "%d of %d images have no class in %s, the first is %r",
            *(len(without), len(store), dataset.name, without[0]),
        )
    return dataset


def _like(store: DescriptorStore) -> str:
    """Return a data set of the same kind, for the defaults of a recipe."""
    if store.recipe.get("region") == "box":
        return next(name for name in NAMED if NAMED[name].boxes)
    kind = _stem(store).partition("-")[0]
    return f"{kind if kind in PATTERNS else 'folder'}:{store.path.parent.name}"


def _stem(store: DescriptorStore) -> str:
    end = f"-{store.recipe['net']}-{store.fingerprint[:8]}"
    name = store.path.resolve().parent.name
    return name.removesuffix(end) if name.endswith(end) else ""
