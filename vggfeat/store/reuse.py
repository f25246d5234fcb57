"""Rows that another store has already: same images, same recipe of a row."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
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


def possible_donors(
    folder: Path, row_fingerprint: str, scales: Sequence[int]
) -> tuple[tuple[str, str], ...]:
    """List the complete stores beside `folder` that have rows of a fingerprint and some of scales.

    Returns:
        (path relative to the folder's parent, SHA-256) of each, those with the most scales first.
    """
    found = []
    ordered = sorted(siblings(folder).items(), key=lambda one: -_shared(one[1].scales, scales))
    for place, plan in ordered:
        useful = plan.row_fingerprint == row_fingerprint and _shared(plan.scales, scales)
        if useful and (place / RECORD).exists():
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
        self._where: dict[bytes, list[tuple[DescriptorStore, str]]] = {}
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
                    self._where.setdefault(sha256.tobytes(), []).append((store, image))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for store in self._opened:
            store.close()

    def lacking(self, sha256: str, scales: Sequence[int]) -> tuple[int, ...]:
        """Return at which scales an image of that digest has to be computed."""
        there = {q for _, _, shared in self._places(sha256, scales) for q in shared}
        return tuple(q for q in scales if q not in there)

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
        found: dict[tuple[DescriptorStore, tuple[int, ...]], list[tuple[int, str]]] = {}
        for row, digest in sha256.items():
            for store, image, shared in self._places(digest, scales):
                found.setdefault((store, shared), []).append((row, image))
        for (store, shared), wanted in found.items():
            rows = store.read([image for _, image in wanted], shared)
            for n, (row, _) in enumerate(wanted):
                known.setdefault(row, {}).update(
                    (scales.index(q), (rows.descriptors[n, i], float(rows.norms[n, i])))
                    for i, q in enumerate(shared)
                )
                sizes[row] = (int(rows.image_size[n, 0]), int(rows.image_size[n, 1]))
        return known, sizes

    def seconds(self, sha256: Iterable[str], scales: Sequence[int]) -> float | None:
        """Return how long it once took to describe what need not be computed now.

        A store's time is divided among its images alike, and among its scales by their area.

        Args:
            sha256: Digests of images.
            scales: S scales, pixels.

        Returns:
            None where a store does not know its own.
        """
        total = 0.0
        for digest in sha256:
            for store, _, shared in self._places(digest, scales):
                if store.seconds is None:
                    return None
                part = sum(q * q for q in shared) / sum(q * q for q in store.scales)
                total += store.seconds * part / len(store)
        return total

    def _places(
        self, sha256: str, scales: Sequence[int]
    ) -> Iterator[tuple[DescriptorStore, str, tuple[int, ...]]]:
        """Yield each store that gives an image some of the scales, its id there, and which."""
        missing = list(scales)
        for store, image in self._where.get(bytes.fromhex(sha256), ()):
            shared = tuple(q for q in missing if q in store.scales)
            if shared:
                missing = [q for q in missing if q not in shared]
                yield store, image, shared


def _shared(ours: Sequence[int], theirs: Sequence[int]) -> int:
    return len({*ours} & {*theirs})
