"""Rows that another store has already: same images, same recipe of a row."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from vggfeat.errors import StoreError
from vggfeat.store.layout import DESCRIPTORS, RECORD, StorePlan
from vggfeat.store.reader import DescriptorStore, recorded_digest
from vggfeat.store.rows import Status

_log = logging.getLogger(__name__)

Known = dict[int, dict[int, tuple[npt.NDArray[np.float32], float]]]


def siblings(folder: Path) -> dict[Path, StorePlan]:
    """Return the plans of all other stores beside `folder`, complete or not."""
    found = {}
    for path in sorted(folder.parent.glob("*/plan.json")):
        if path.parent != folder:
            try:
                found[path.parent] = StorePlan.read(path.parent)
            except (OSError, StoreError) as error:
                _log.debug("not considered: %s", error)
    return found


def possible_donors(folder: Path, row_fingerprint: str) -> tuple[tuple[str, str], ...]:
    """List the complete stores beside `folder` whose rows have the same fingerprint.

    Returns:
        (path relative to the folder's parent, SHA-256) of each.
    """
    found = []
    for place, plan in siblings(folder).items():
        if plan.row_fingerprint == row_fingerprint and (place / RECORD).exists():
            try:
                digest = recorded_digest(place / DESCRIPTORS)
            except StoreError as error:
                _log.warning("rows cannot be copied: %s", error)
            else:
                found.append((f"{place.name}/{DESCRIPTORS}", digest))
    return tuple(found)


class Donors:
    """The donors of a store's plan, open for reading; use it in a `with` statement.

    Args:
        folder: The store in the making.
        donors: Those of its plan, which fixes them so that every writer copies the same rows.
    """

    def __init__(self, folder: Path, donors: Sequence[tuple[str, str]]) -> None:
        self.missing: list[str] = []
        self._opened: list[DescriptorStore] = []
        self._where: dict[bytes, tuple[DescriptorStore, str]] = {}
        for name, digest in donors:
            try:
                path = folder.parent / name
                store = DescriptorStore.open(path)
                self._opened.append(store)
                if recorded_digest(path) != digest:
                    raise StoreError(f"'{path}' is another file by now.")
            except (OSError, StoreError) as error:
                _log.warning("rows cannot be copied: %s", error)
                self.missing.append(name)
                continue
            usable = store.statuses() != Status.UNREADABLE
            for image, sha256, sound in zip(store.ids, store.image_digests(), usable, strict=True):
                if sound:
                    self._where.setdefault(sha256.tobytes(), (store, image))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for store in self._opened:
            store.close()

    def covers(self, sha256: str, scales: Sequence[int]) -> bool:
        """Return whether nothing need be computed for an image of that digest."""
        place = self._where.get(bytes.fromhex(sha256))
        return place is not None and set(scales) <= set(place[0].scales)

    def known(
        self, sha256: Mapping[int, str], scales: Sequence[int]
    ) -> tuple[Known, dict[int, tuple[int, int]]]:
        """Return what need not be computed.

        Args:
            sha256: Row to the digest of its image's file.
            scales: S scales, pixels.

        Returns:
            Row to {scale index: (descriptor (D,), norm)}, and row to (H, W).
        """
        known: Known = {}
        sizes: dict[int, tuple[int, int]] = {}
        found: dict[DescriptorStore, list[tuple[int, str]]] = {}
        for row, digest in sha256.items():
            if place := self._where.get(bytes.fromhex(digest)):
                found.setdefault(place[0], []).append((row, place[1]))
        for store, wanted in found.items():
            shared = [q for q in scales if q in store.scales]
            rows = store.read([image for _, image in wanted], shared)
            for n, (row, _) in enumerate(wanted if shared else ()):
                known[row] = {
                    scales.index(q): (rows.descriptors[n, i], float(rows.norms[n, i]))
                    for i, q in enumerate(shared)
                }
                sizes[row] = (int(rows.image_size[n, 0]), int(rows.image_size[n, 1]))
        return known, sizes
