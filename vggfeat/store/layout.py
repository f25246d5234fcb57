"""The columns of a store, the same in a shard and in the complete file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vggfeat.errors import DamagedStoreError, StaleStoreError
from vggfeat.store.rows import Rows

FORMAT_VERSION = 1
DESCRIPTORS = "descriptors.h5"
RECORD = "descriptors.json"
PLAN = "plan.json"


@dataclass(frozen=True, kw_only=True)
class StoreIdentity:
    """What tells a store from every other; no machine has a say in it.

    Attributes:
        fingerprint: Of `row_fingerprint`, `scales` and `manifest_sha256`.
        row_fingerprint: Of `recipe`.
        recipe: Everything that changes one (image, scale) row.
        scales: S shorter sides, pixels.
        manifest_sha256: Over (id, bytes, box) of every item.
        rows: n.
    """

    fingerprint: str
    row_fingerprint: str
    recipe: Mapping[str, Any]
    scales: tuple[int, ...]
    manifest_sha256: str
    rows: int

    def differences(self, other: StoreIdentity) -> list[str]:
        """Say in which fields of the identity `other` differs, theirs first."""
        found = [
            f"{name} {other.recipe.get(name)!r} there, {self.recipe.get(name)!r} here"
            for name in sorted({*self.recipe, *other.recipe})
            if other.recipe.get(name) != self.recipe.get(name)
        ]
        if other.scales != self.scales:
            found.append(f"scales {other.scales} there, {self.scales} here")
        if other.manifest_sha256 != self.manifest_sha256:
            found.append(f"other images ({other.rows} there, {self.rows} here)")
        return found


@dataclass(frozen=True, kw_only=True)
class StorePlan(StoreIdentity):
    """What a store is, and how it is being made, frozen by its first writer.

    Attributes:
        descriptor_size: D.
        id_bytes: Length of the longest id.
        shard_rows: Rows of every shard but the last.
        execution: What else the last bits of a row depend on: device and processor, and threads and
            batches, except in float32 on the CPU.
        donors: Files (relative to the store's parent, with sha256) that rows may be copied from.
        created_by: Versions of the first writer's packages, and what its weights were, which the
            recipe's digest stands for: their name, family, and to how many bits they are rounded,
            if they are.
    """

    descriptor_size: int
    id_bytes: int
    shard_rows: int
    execution: Mapping[str, Any]
    donors: tuple[tuple[str, str], ...]
    created_by: Mapping[str, str | int]
    format_version: int = FORMAT_VERSION

    @property
    def shards(self) -> int:
        """Number of shards."""
        return -(-self.rows // self.shard_rows)

    def shard_range(self, number: int) -> range:
        """Return the rows of shard `number`."""
        start = number * self.shard_rows
        return range(start, min(start + self.shard_rows, self.rows))

    def to_json(self) -> bytes:
        """Return the content of `plan.json`."""
        return json.dumps(asdict(self), indent=1, sort_keys=True).encode() + b"\n"

    @classmethod
    def read(cls, folder: Path) -> StorePlan:
        """Read a store's plan.

        Raises:
            FileNotFoundError: If it has none.
            DamagedStoreError: If it makes no sense.
        """
        path = folder / PLAN
        try:
            values = json.loads(path.read_bytes())
            values["scales"] = tuple(values["scales"])
            values["donors"] = tuple((name, digest) for name, digest in values["donors"])
            return cls(**values)
        except (ValueError, TypeError, KeyError) as error:
            raise DamagedStoreError(
                f"'{path}' is damaged: {error}.",
                remedy=f"Remove the folder '{folder}' and run `vggfeat extract` again.",
            ) from error

    def check_same_store(self, other: StorePlan, folder: Path) -> None:
        """Check that `other`, found in `folder`, describes the same store.

        Raises:
            StaleStoreError: If it does not, with the fields that differ.
        """
        if other.fingerprint != self.fingerprint:
            raise StaleStoreError(folder, self.differences(other) or ["fingerprint"])


def columns(plan: StorePlan) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
    """Return name → (type, shape of one row) of every per-image dataset."""
    count, size = len(plan.scales), plan.descriptor_size
    return {
        "image_id": (np.dtype(f"S{plan.id_bytes}"), ()),
        "descriptors": (np.dtype(np.float32), (count, size)),
        "norms": (np.dtype(np.float32), (count,)),
        "image_size": (np.dtype(np.int32), (2,)),
        "image_sha256": (np.dtype(np.uint8), (32,)),
        "status": (np.dtype(np.uint8), ()),
    }


def column(rows: Rows, name: str) -> npt.NDArray[Any]:
    """Return one column of `rows`, ids as UTF-8 bytes."""
    if name == "image_id":
        return np.array([i.encode() for i in rows.image_id])
    values: npt.NDArray[Any] = getattr(rows, name)
    return values


def attributes(plan: StorePlan) -> dict[str, Any]:
    """Return the attributes of the complete file, all of fixed length."""
    return {
        "format_version": np.int64(plan.format_version),
        "fingerprint": np.bytes_(plan.fingerprint),
        "row_fingerprint": np.bytes_(plan.row_fingerprint),
        "recipe": np.bytes_(json.dumps(plan.recipe, sort_keys=True)),
        "created_by": np.bytes_(json.dumps(plan.created_by, sort_keys=True)),
        "weights_sha256": np.bytes_(str(plan.recipe.get("weights_sha256", ""))),
    }
