"""The nearest neighbours of images among those of a store, by cosine, exactly."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vggfeat.classify.aggregate import Descriptors
from vggfeat.data.folder import named_images
from vggfeat.data.records import Item, Regions, unlabelled
from vggfeat.errors import ImageNotFoundError, InputError, RecipeError
from vggfeat.extraction.fill import described
from vggfeat.looking.view import View
from vggfeat.recipe import Machine, Recipe
from vggfeat.transfer.predict import job_like
from vggfeat.transfer.samples import Block, fused, used_store
from vggfeat.watch import Watch

_log = logging.getLogger(__name__)

_AT_ONCE = 512  # queries that one pass over the store serves
_ROUNDING = 1e-9  # more than a product of two rows of norm 1 is off, D · 2^-53 for D < 10^6
_NEARLY = 0.999  # above it lie copies and mirror images: see docs/looking.md
_COLUMNS = ("image", "rank", "cosine", "neighbour", "classes", "note")

_Cosines = npt.NDArray[np.float64]
_Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Neighbour:
    """An image of the store.

    Attributes:
        id: Its id.
        row: Of the store.
        cosine: Of the angle between its descriptor and the query's, [-1, 1].
        classes: Its own; empty where they are not known.
        same_bytes: Whether its file is the query's, byte for byte.
    """

    id: str
    row: int
    cosine: float
    classes: tuple[str, ...]
    same_bytes: bool

    @property
    def note(self) -> str:
        """What it is beside being near, empty if nothing more."""
        if self.same_bytes:
            return "the same file"
        return "nearly the same" if self.cosine > _NEARLY else ""

    def record(self, rank: int) -> dict[str, Any]:
        """Return it as JSON has it, the nearest of rank 1."""
        return {
            "rank": rank,
            "image": self.id,
            "row": self.row,
            "cosine": self.cosine,
            "classes": list(self.classes),
            "same_bytes": self.same_bytes,
            "nearly_the_same": self.cosine > _NEARLY,
        }


@dataclass(frozen=True, kw_only=True)
class Query:
    """An image whose neighbours are looked for.

    Attributes:
        id: Of the store's image, or the path of a new one.
        stored: Whether it is an image of the store.
        classes: Its own; empty where they are not known.
        neighbours: The nearest first; of equal cosine in the order of the store's rows.
        note: Why there are none, empty where there are.
    """

    id: str
    stored: bool
    classes: tuple[str, ...]
    neighbours: tuple[Neighbour, ...]
    note: str = ""

    def record(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "image": self.id,
            "in_store": self.stored,
            "classes": list(self.classes),
            "note": self.note,
            "neighbours": [one.record(rank) for rank, one in enumerate(self.neighbours, 1)],
        }

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each neighbour, or one that says why there is none, as text."""
        if not self.neighbours:
            return [dict.fromkeys(_COLUMNS, "") | {"image": self.id, "note": self.note}]
        return [
            {
                "image": self.id,
                "rank": rank,
                "cosine": f"{one.cosine:.6f}",
                "neighbour": one.id,
                "classes": ", ".join(one.classes),
                "note": one.note,
            }
            for rank, one in enumerate(self.neighbours, 1)
        ]

    @property
    def agrees(self) -> bool | None:
        """Whether the nearest one shares a class; None where either's classes are not known."""
        if not self.classes or not self.neighbours or not self.neighbours[0].classes:
            return None
        return bool({*self.classes} & {*self.neighbours[0].classes})


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """A query before its neighbours are known.

    Attributes:
        x: (D,) float32, of norm 1; NaN where it could not be read.
        row: Of the store, -1 for a new image.
        sha256: Of its file.
        error: Why it could not be read, empty where it could.
    """

    x: Descriptors
    row: int
    sha256: bytes
    error: str

    @property
    def note(self) -> str:
        """Why it has no neighbours, empty if it has."""
        if self.error or np.isnan(self.x).any():
            return f"unreadable: {self.error or 'the store does not say why'}"
        return "" if self.x.any() else "its descriptor is zero, which has no cosine"


def similar(
    view: View,
    images: Sequence[str],
    top: int,
    machine: Machine,
    watch: Watch,
    weights: str | None = None,
) -> list[Query]:
    """Find the nearest neighbours of some images among the readable ones of a store.

    The query itself, where it is an image of the store, is none of its neighbours; its copies are.
    An image whose descriptor is zero has no cosine, and is left out.

    Args:
        view: The store.
        images: Ids of the store, and paths of new images or of folders with them, which are
            described as the store's are; none for every image of the store.
        top: At most so many neighbours each, 1 or more.
        machine: Where new images are described.
        watch: Told of the progress; may stop it.
        weights: Where the weight file is by now; None for where it was.

    Returns:
        The queries, in the order of `images`, each once.

    Raises:
        InputError: If `top` is less than 1.
        ImageNotFoundError: If an image is neither in the store nor a file.
        WeightsError: If the weight file is absent, or another one than that of the store.
        RecipeError: If the store describes boxes, which a new image has not.
        VggfeatError: As the rooms say.
    """
    if top < 1:
        raise InputError(f"--top {top}.", "Expected a number of neighbours, 1 or more.")
    wanted = _wanted(view, images)
    new = [item for item in wanted.values() if item is not None]
    described_anew = _described(view, new, machine, watch, weights) if new else {}
    _tell_left_out(view)
    digests = view.store.image_digests()
    found: list[Query] = []
    names = [*wanted]
    for start in range(0, len(names), _AT_ONCE):
        some = names[start : start + _AT_ONCE]
        asked = described_anew | _of_store(view, [i for i in some if wanted[i] is None], digests)
        found += _answered(view, {i: asked[i] for i in some}, digests, top, watch)
    return found


def nearest(
    blocks: Iterable[tuple[slice, Descriptors]], x: _Cosines, own: _Rows, top: int
) -> tuple[_Rows, _Cosines]:
    """Find the rows with the largest cosine, with the memory of a block and of what is kept.

    A product of matrices in float64 finds what may be among the nearest; their cosines are then
    summed row by row, so that equal rows have equal ones whatever stands beside them.

    Args:
        blocks: Which rows, ascending, and their descriptors, (m, D) of norm 1; rows that are NaN
            or zero are left out.
        x: (q, D) queries of norm 1.
        own: (q,) rows that are left out, -1 for none.
        top: N.

    Returns:
        (q, N) rows, the nearest first, of equal cosine in ascending order, and (q, N) cosines; -1
        and NaN where there are fewer.
    """
    kept: list[tuple[_Rows, _Cosines]] = [(np.empty(0, np.int64), np.empty(0)) for _ in x]
    for where, values in blocks:
        rows = np.arange(where.start, where.stop)
        norms = np.linalg.norm(values, axis=1)
        usable = np.isfinite(norms) & (norms > 0)
        block = np.where(usable.reshape(-1, 1), values, 0).astype(np.float64)
        rough = x @ block.T
        for q, (query, (ids, cosines)) in enumerate(zip(x, kept, strict=True)):
            candidates = np.where(usable & (rows != own[q]), rough[q], -np.inf)
            chosen = _possible(candidates, cosines, top)
            exact = (block[chosen] * query).sum(axis=1)
            both = np.concatenate([cosines, exact])
            best = np.argsort(-both, kind="stable")[:top]
            kept[q] = np.concatenate([ids, rows[chosen]])[best], both[best]
    found, near = np.full((len(x), top), -1), np.full((len(x), top), np.nan)
    for q, (ids, cosines) in enumerate(kept):
        found[q, : len(ids)], near[q, : len(ids)] = ids, cosines
    return found, near


def _possible(candidates: _Cosines, kept: _Cosines, top: int) -> _Rows:
    """Return the ascending places of candidates that may be among the nearest."""
    floor = kept[-1] if len(kept) == top else -np.inf
    if len(candidates) > top:
        floor = max(floor, np.partition(candidates, -top)[-top])
    return np.flatnonzero((candidates >= floor - _ROUNDING) & (candidates > -np.inf))


def _wanted(view: View, images: Sequence[str]) -> dict[str, Item | None]:
    """Return what is asked for, in its order: a new image's file, None for one of the store."""
    held = dict.fromkeys(view.store.ids)
    if not images:
        return dict(held)
    wanted: dict[str, Item | None] = {}
    for name in images:
        if name in held:
            wanted[name] = None
        elif Path(name).exists():
            wanted |= {item.id: item for item in named_images([Path(name)])}
        else:
            raise ImageNotFoundError(
                f"{name!r} is no image of '{view.store.path}', nor a file.",
                f"The nearest ids of the store: {', '.join(view.store.near_ids(name))}.",
            )
    return wanted


def _described(
    view: View, items: Sequence[Item], machine: Machine, watch: Watch, weights: str | None
) -> dict[str, _Asked]:
    """Describe new images as those of the store are."""
    store, recipe = view.store, view.recipe
    if recipe.regions != ("image",):
        raise RecipeError(
            f"'{store.path}' holds descriptors of boxes, and {items[0].id!r} is a whole image.",
            "A new image has no boxes.",
            "Pass ids of the store, or a store of whole images.",
        )
    if weights is not None:
        recipe = Recipe.build({**dict(recipe), "weights": (weights,)}, "the command line")
    nothing = Block(store=store, region="image", rows=Regions(items=(), row_of={}))
    used = used_store(nothing, (), recipe)  # what made its rows; of the rows themselves nothing
    dataset = unlabelled("new images", items)
    job = job_like(used, recipe, f"'{store.path}'", dataset, machine, watch)
    found = {}
    for blocks in described([job], machine, watch):
        for i, x, digest in zip(
            blocks[0].image_id, fused(blocks, recipe), blocks[0].image_sha256, strict=True
        ):
            error = blocks[0].errors.get(i, "")
            found[i] = _Asked(x=x, row=-1, sha256=digest.tobytes(), error=error)
    return found


def _of_store(view: View, ids: Sequence[str], digests: npt.NDArray[np.uint8]) -> dict[str, _Asked]:
    rows = [view.row_of[i] for i in ids]
    return {
        i: _Asked(
            x=x,
            row=row,
            sha256=digests[row].tobytes(),
            error=view.store.unreadable.get(i, ""),
        )
        for i, row, x in zip(ids, rows, view.rows(ids), strict=True)
    }


def _answered(
    view: View,
    asked: Mapping[str, _Asked],
    digests: npt.NDArray[np.uint8],
    top: int,
    watch: Watch,
) -> list[Query]:
    """Find the neighbours of a few queries in one pass over the store."""
    sound = {i: one for i, one in asked.items() if not one.note}
    rows, cosines = np.empty((0, top), np.int64), np.empty((0, top))
    if sound:
        x = np.stack([one.x for one in sound.values()]).astype(np.float64)
        own = np.array([one.row for one in sound.values()])
        rows, cosines = nearest(view.joined(watch, "compare"), x, own, top)
    places = {i: place for place, i in enumerate(sound)}
    queries = []
    for i, one in asked.items():
        pairs = zip(rows[places[i]], cosines[places[i]], strict=True) if i in sound else ()
        neighbours = tuple(
            Neighbour(
                id=(other := view.store.ids[row]),
                row=int(row),
                cosine=float(cosine),
                classes=view.classes.get(other, ()),
                same_bytes=digests[row].tobytes() == one.sha256,
            )
            for row, cosine in pairs
            if row >= 0
        )
        classes = view.classes.get(i, ()) if one.row >= 0 else ()
        queries.append(
            Query(id=i, stored=one.row >= 0, classes=classes, neighbours=neighbours, note=one.note)
        )
    return queries


def _tell_left_out(view: View) -> None:
    """Say which images of the store can be nobody's neighbour."""
    view.readable()
    zero = np.flatnonzero((view.store.norms(view.recipe.scales) == 0).all(axis=1))
    if len(zero):
        _log.warning(
            "%d of %d descriptors are zero and left out, the first is that of %r",
            *(len(zero), len(view.store), view.store.ids[zero[0]]),
        )


def agreement(queries: Sequence[Query]) -> tuple[int, int]:
    """Return of how many queries the nearest image shares a class, and how many tell that."""
    said = [query.agrees for query in queries if query.agrees is not None]
    return sum(said), len(said)
