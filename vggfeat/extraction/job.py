"""A store that is to be there, as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vggfeat.data.records import Item
from vggfeat.extraction.row_recipe import RowRecipe
from vggfeat.nets.precisions import PRECISIONS
from vggfeat.recipe import Region, fingerprint
from vggfeat.store.layout import RECORD, StoreIdentity
from vggfeat.weights.find import Weights


@dataclass(frozen=True, kw_only=True)
class StoreJob:
    """One store that is to be there: what identifies it, and what it is made from.

    In which portions it is made is decided when it has to be; see `plan_of`.

    Attributes:
        model: The net.
        region: What of each image is described.
        identity: Of the store.
        folder: Of the store.
        items: Its n images, sorted by id.
        digests: SHA-256 of each one's file.
        weights: Of the net, found and not yet read.
        calibration: File of an 8-bit net's calibration; made where it is not there.
        donors: Complete stores that have such rows: path from the folder's parent, and SHA-256.
        row_flop: A rough estimate for one image.
    """

    model: str
    region: Region
    identity: StoreIdentity
    folder: Path
    items: Sequence[Item]
    digests: Sequence[str]
    weights: Weights
    calibration: Path
    donors: tuple[tuple[str, str], ...]
    row_flop: float

    @property
    def tap(self) -> str:
        """The layer that is averaged."""
        return str(self.identity.recipe["tap"])

    @property
    def complete(self) -> bool:
        """Whether it is there."""
        return (self.folder / RECORD).exists()


def in_one_pass(jobs: Sequence[StoreJob]) -> list[list[StoreJob]]:
    """Group jobs that one pass of one net serves: they differ in their tap alone.

    An 8-bit net computes its last layer in floating point, so that it is another for each tap.
    """
    groups: dict[str, list[StoreJob]] = {}
    for place, job in enumerate(jobs):
        own = job.identity
        alone = PRECISIONS[own.recipe["precision"]].calibrated
        row = {**own.recipe, "tap": place if alone else None}
        key = {"row": row, "scales": own.scales, "manifest_sha256": own.manifest_sha256}
        groups.setdefault(fingerprint(key), []).append(job)
    return [*groups.values()]


def identity_of(
    row: RowRecipe, scales: tuple[int, ...], manifest_sha256: str, rows: int
) -> StoreIdentity:
    """Return what tells a store from every other.

    Args:
        row: Of each row.
        scales: S shorter sides, pixels.
        manifest_sha256: Over (id, bytes, box) of every item.
        rows: n.
    """
    recipe = row.as_json()
    own = fingerprint(recipe)
    rest = {"scales": scales, "manifest_sha256": manifest_sha256}
    return StoreIdentity(
        fingerprint=fingerprint({"row_fingerprint": own, **rest}),
        row_fingerprint=own,
        recipe=recipe,
        scales=scales,
        manifest_sha256=manifest_sha256,
        rows=rows,
    )


@dataclass(frozen=True, kw_only=True)
class Budget:
    """In which portions a store is made.

    Attributes:
        execution: As from `execution_of`.
        row_seconds: A rough estimate for one image.
        shard_rows: Images in a shard.
    """

    execution: dict[str, Any]
    row_seconds: float
    shard_rows: int
