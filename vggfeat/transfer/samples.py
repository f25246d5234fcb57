"""What the SVM sees: rows of stores, scales joined, nets, regions and taps fused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from vggfeat.classify.aggregate import Descriptors, aggregate, fuse
from vggfeat.data.records import Dataset, Labels, Part, Regions, manifest_digest
from vggfeat.extraction.images import MAX_ASPECT
from vggfeat.recipe import Recipe, Region
from vggfeat.report.fields import number
from vggfeat.report.result import StoreUsed
from vggfeat.store.reader import DescriptorStore
from vggfeat.store.rows import Rows, Status

_READ_AT_ONCE = 512  # rows of a store


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What the SVM sees of one part.

    Attributes:
        ids: n images.
        x: (n, D) float32, rows of norm 1; NaN for an unreadable image.
        labels: (n, K).
    """

    ids: tuple[str, ...]
    x: Descriptors
    labels: Labels

    @property
    def without_descriptors(self) -> Sample:
        """The same images, without their descriptors."""
        return replace(self, x=self.x[:, :0])

    @property
    def readable(self) -> Sample:
        """The images that could be read."""
        rows = ~np.isnan(self.x[:, 0]) if self.x.shape[1] else np.ones(len(self.ids), bool)
        ids = tuple(i for i, kept in zip(self.ids, rows, strict=True) if kept)
        return Sample(ids=ids, x=self.x[rows], labels=self.labels[rows])


@dataclass(frozen=True, kw_only=True)
class Block:
    """One store, open: a net and a tap, and what of each image they describe.

    Attributes:
        store: Its rows.
        region: Of each image.
        rows: Which row describes which item.
    """

    store: DescriptorStore
    region: Region
    rows: Regions


def blocks_of(stores: Sequence[DescriptorStore], dataset: Dataset, recipe: Recipe) -> list[Block]:
    """Return the blocks of a recipe's fused descriptor.

    Args:
        stores: One for each net, region and tap, in the recipe's order.
        dataset: The recipe's.
        recipe: Says which nets, regions and taps.
    """
    return [
        Block(store=store, region=one.region, rows=dataset.of_region(one.region))
        for store, one in zip(stores, recipe.described, strict=True)
    ]


def read_sample(held: Sequence[Block], part: Part, recipe: Recipe) -> Sample:
    """Read and aggregate the descriptors of one part.

    Args:
        held: From `blocks_of`.
        part: Of the recipe's data set.
        recipe: Says how.

    Raises:
        IncompleteStoreError: If a store lacks an item or a scale.
    """
    return Sample(ids=part.ids, x=read_fused(held, part.ids, recipe), labels=part.labels)


def read_fused(held: Sequence[Block], ids: Sequence[str], recipe: Recipe) -> Descriptors:
    """Read and aggregate the descriptors of n items, some rows at a time; see `fused`."""
    x = np.empty((len(ids), recipe.descriptor_size), dtype=np.float32)
    for start in range(0, len(ids), _READ_AT_ONCE):
        some = ids[start : start + _READ_AT_ONCE]
        x[start : start + _READ_AT_ONCE] = fused(
            [block.store.read(block.rows.rows(some), recipe.scales) for block in held], recipe
        )
    return x


def fused(held: Sequence[Rows], recipe: Recipe) -> Descriptors:
    """Return what the SVM sees of n items: scales joined, then nets, regions and taps fused.

    Args:
        held: The rows of each net, region and tap, in the recipe's order.
        recipe: Says how.

    Returns:
        (n, D) float32, rows of norm 1; NaN where one of the images is unreadable.
    """
    return fuse(
        [aggregate(r.descriptors, r.norms, recipe.aggregate, recipe.normalise) for r in held]
    )


def image_digests(block: Block) -> dict[str, str]:
    """Return the SHA-256 of each image's file, 64 hexadecimal digits, by the image's id."""
    held = dict(zip(block.store.ids, block.store.image_digests(), strict=True))
    return {
        item.image or item.id: held[item.id].tobytes().hex()
        for item in block.rows.items
        if item.id in held
    }


def used_store(block: Block, ids: Sequence[str], recipe: Recipe) -> StoreUsed:
    """Return what a result says of a store, over the rows of some items."""
    store = block.store
    wanted = sorted(set(block.rows.rows(ids)))
    held = {i: row for row, i in enumerate(store.ids)}
    rows = [held[i] for i in wanted]
    statuses, sizes = store.statuses()[rows], store.image_sizes()[rows]
    norms = store.norms(recipe.scales)[rows][statuses == Status.OK]
    digests = store.image_digests()
    used = set(wanted)
    items = [item for item in block.rows.items if item.id in used]
    origin = json.loads(store.attribute("created_by"))
    return StoreUsed(
        model=store.recipe["net"],
        region=block.region,
        weights=origin["weights"],
        weights_family=origin.get("weights_family", "own"),
        weights_sha256=store.recipe["weights_sha256"],
        weights_rounded_to_bits=origin.get("weights_rounded_to_bits"),
        path=str(store.path),
        fingerprint=store.fingerprint,
        row_fingerprint=store.row_fingerprint,
        recipe=store.recipe,
        images=len(rows),
        manifest_sha256=manifest_digest(
            items, (digests[held[item.id]].tobytes().hex() for item in items)
        ),
        bytes=store.path.stat().st_size,
        mean_norms=tuple(number(mean) for mean in norms.mean(axis=0)) if len(norms) else (),
        unreadable=int((statuses == Status.UNREADABLE).sum()),
        zero=int((statuses == Status.ZERO).sum()),
        cropped=int(
            (sizes.max(axis=1, initial=0) > MAX_ASPECT * sizes.min(axis=1, initial=2**31 - 1)).sum()
        ),
    )
