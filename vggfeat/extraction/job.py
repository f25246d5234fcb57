"""A store that is to be there, as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vggfeat.data.records import Item
from vggfeat.extraction.row_recipe import RowRecipe
from vggfeat.recipe import Region, fingerprint
from vggfeat.store.layout import RECORD, StorePlan
from vggfeat.weights.find import Weights


@dataclass(frozen=True, kw_only=True)
class StoreJob:
    """One store that is to be there: what identifies it, and how to make it.

    Attributes:
        model: The net.
        region: What of each image is described.
        folder: Of the store.
        plan: Of the store.
        items: Its n images, sorted by id.
        digests: SHA-256 of each one's file.
        weights: Of the net, found and not yet read.
        calibration: File of an 8-bit net's calibration; made where it is not there.
        row_seconds: A rough estimate for one image.
    """

    model: str
    region: Region
    folder: Path
    plan: StorePlan
    items: Sequence[Item]
    digests: Sequence[str]
    weights: Weights
    calibration: Path
    row_seconds: float

    @property
    def complete(self) -> bool:
        """Whether it is there."""
        return (self.folder / RECORD).exists()


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What tells a store from every other.

    Attributes:
        row: Of each row.
        scales: S shorter sides, pixels.
        manifest_sha256: Over (id, bytes, box) of every item.
    """

    row: RowRecipe
    scales: tuple[int, ...]
    manifest_sha256: str

    @property
    def row_fingerprint(self) -> str:
        """Of each row."""
        return fingerprint(self.row.as_json())

    @property
    def fingerprint(self) -> str:
        """Of the store."""
        rest = {"scales": self.scales, "manifest_sha256": self.manifest_sha256}
        return fingerprint({"row_fingerprint": self.row_fingerprint, **rest})


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
