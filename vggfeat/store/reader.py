"""Reading a complete store."""

from __future__ import annotations

import difflib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import h5py
import numpy as np
import numpy.typing as npt

from vggfeat.errors import (
    DamagedStoreError,
    IncompleteStoreError,
    StoreError,
    StoreNotFoundError,
)
from vggfeat.files.digests import sha256_of
from vggfeat.files.publish import publish_new
from vggfeat.store.layout import DESCRIPTORS, FORMAT_VERSION, RECORD
from vggfeat.store.rows import Rows, Status

_log = logging.getLogger(__name__)

_COLUMNS = {  # name → (kinds of numpy type, number of axes)
    "image_id": ("S", 1),
    "descriptors": ("f", 3),
    "norms": ("f", 2),
    "image_size": ("i", 2),
    "image_sha256": ("u", 2),
    "status": ("u", 1),
    "scales": ("i", 1),
}


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What a complete check of a store has found.

    Attributes:
        rows: n.
        unreadable: Rows of status 1.
        zero: Rows of status 2.
        recorded: Whether the file has a record to be compared with.
        faults: What is wrong, empty for a sound store.
    """

    rows: int
    unreadable: int
    zero: int
    recorded: bool
    faults: tuple[str, ...]


class DescriptorStore:
    """A complete store, open for reading; use it in a `with` statement.

    Attributes:
        path: The HDF5 file.
        verified: Whether its bytes are those of its record; False if it has no record.
        scales: S shorter sides, pixels.
        descriptor_size: D.
        recipe: Everything that decided one (image, scale) row.
        fingerprint: Of the recipe, the scales and the images.
        row_fingerprint: Of the recipe.
    """

    def __init__(self, path: Path, file: h5py.File, *, verified: bool) -> None:
        self.path = path
        self.verified = verified
        self._file = file
        self.scales: tuple[int, ...] = tuple(int(q) for q in file["scales"][:])
        self.descriptor_size = int(file["descriptors"].shape[2])
        self.recipe: dict[str, Any] = json.loads(self.attribute("recipe"))
        self.fingerprint = self.attribute("fingerprint")
        self.row_fingerprint = self.attribute("row_fingerprint")

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """Open a store, after checking its size and, where it changed, its SHA-256.

        Args:
            path: The HDF5 file or the folder that holds it.

        Raises:
            StoreNotFoundError: If there is none.
            DamagedStoreError: If it is not what its record says, or no store at all.
        """
        path = Path(path)
        path = path / DESCRIPTORS if path.is_dir() else path
        if not path.is_file():
            raise StoreNotFoundError(
                f"No complete store at '{path}'.", remedy="`vggfeat extract` makes or resumes it."
            )
        record = _record(path)
        if record is not None:
            _check_bytes(path, record, sha256_of(path))
        try:
            file = _opened(path)
        except OSError as error:
            if record is not None:
                raise _damaged(path, str(error)) from error
            raise DamagedStoreError(
                f"'{path}' is no HDF5 file that can be read: {error}.",
                "Expected a store's folder, or its descriptors.h5.",
                "Check the path.",
            ) from error
        try:
            _check_layout(path, file)
            return cls(path, file, verified=record is not None)
        except BaseException:
            file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return int(self._file["image_id"].shape[0])

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def attribute(self, name: str) -> str:
        """Return a text attribute.

        Raises:
            DamagedStoreError: If there is none.
        """
        value = self._file.attrs.get(name)
        if not isinstance(value, bytes):
            raise _damaged(self.path, f"it has no attribute {name!r}")
        return value.decode()

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """The n ids, in the order of the rows."""
        return tuple(i.decode() for i in self._file["image_id"][:])

    @cached_property
    def unreadable(self) -> dict[str, str]:
        """The reason for each unreadable image, from the record."""
        return dict((_record(self.path) or {}).get("unreadable", {}))

    @cached_property
    def seconds(self) -> float | None:
        """How long its images took, where and whenever that was; None where nobody has noted it.

        A pass that has served several taps is divided among their stores.
        """
        seconds = (_record(self.path) or {}).get("seconds")
        return float(seconds) if isinstance(seconds, int | float) else None

    def statuses(self) -> npt.NDArray[np.uint8]:
        """Return the (n,) statuses."""
        return np.asarray(self._file["status"][:], dtype=np.uint8)

    def image_sizes(self) -> npt.NDArray[np.int32]:
        """Return the (n, 2) sizes, H and W."""
        return np.asarray(self._file["image_size"][:], dtype=np.int32)

    def norms(self, scales: Sequence[int]) -> npt.NDArray[np.float32]:
        """Return the (n, S) norms before normalisation, NaN where unreadable.

        Raises:
            IncompleteStoreError: If a scale is not in the store.
        """
        return np.asarray(self._file["norms"][:][:, self._scales(scales)], dtype=np.float32)

    def image_digests(self) -> npt.NDArray[np.uint8]:
        """Return the (n, 32) SHA-256 of the images' files."""
        return np.asarray(self._file["image_sha256"][:], dtype=np.uint8)

    def read(self, ids: Sequence[str] | None = None, scales: Sequence[int] | None = None) -> Rows:
        """Read rows.

        Args:
            ids: Which images, in which order; all by default.
            scales: Which scales, in which order; all by default.

        Returns:
            The rows, with the reasons for those that are unreadable.

        Raises:
            IncompleteStoreError: If an id or a scale is not in the store.
            ValueError: If `ids` is one string.
        """
        if isinstance(ids, str):
            message = f"ids must be a sequence of ids, not the one string {ids!r}"
            raise ValueError(message)
        where = self._where(self.ids if ids is None else ids)
        chosen = self._scales(self.scales if scales is None else scales)
        columns: dict[str, npt.NDArray[Any]] = {
            "descriptors": np.empty((len(where), len(chosen), self.descriptor_size), np.float32),
            "norms": np.empty((len(where), len(chosen)), np.float32),
            "image_size": np.empty((len(where), 2), np.int32),
            "image_sha256": np.empty((len(where), 32), np.uint8),
            "status": np.empty(len(where), np.uint8),
        }
        for name, values in columns.items():
            for rows, block in self._blocks(name, where):
                values[rows] = block[:, chosen] if name in {"descriptors", "norms"} else block
        wanted = tuple(self.ids[row] for row in where)
        errors = {i: self.unreadable[i] for i in wanted if i in self.unreadable}
        return Rows(image_id=wanted, errors=errors, **columns)

    def summary(self) -> dict[str, Any]:
        """Return the facts about the store, fit for JSON."""
        statuses = self.statuses()
        return {
            "path": str(self.path),
            "bytes": "those of the record" if self.verified else "unverified: there is no record",
            "images": len(self),
            "scales": self.scales,
            "descriptor_size": self.descriptor_size,
            "unreadable": int((statuses == Status.UNREADABLE).sum()),
            "zero": int((statuses == Status.ZERO).sum()),
            "fingerprint": self.fingerprint,
            "row_fingerprint": self.row_fingerprint,
            "recipe": self.recipe,
            "created_by": json.loads(self.attribute("created_by")),
        }

    def image_summary(self, image: str) -> dict[str, Any]:
        """Return the facts about one image, fit for JSON.

        Raises:
            IncompleteStoreError: If it is not in the store.
        """
        if image not in self._row_of:
            raise IncompleteStoreError(
                f"'{self.path}' has no image {image!r}.",
                f"The nearest ids: {', '.join(self.near_ids(image))}.",
            )
        rows = self.read([image])
        status = Status(int(rows.status[0]))
        height, width = (int(side) for side in rows.image_size[0])
        return {
            "image_id": image,
            "row": self._row_of[image],
            "status": status.name.lower(),
            "reason": rows.errors.get(image, ""),
            "height": height,
            "width": width,
            "sha256": rows.image_sha256[0].tobytes().hex(),
            "norms": {
                str(q): None if np.isnan(norm) else float(norm)
                for q, norm in zip(self.scales, rows.norms[0], strict=True)
            },
        }

    def near_ids(self, image: str) -> list[str]:
        """Return a few ids that look like one that is not in the store, for a message."""
        close = difflib.get_close_matches(image, self.ids, n=3, cutoff=0.3)
        return close or list(self.ids[:3])

    def verify(self) -> Verification:
        """Hash the file and read every row of it."""
        faults = []
        record = _record(self.path)
        try:
            if record is not None:
                _check_bytes(self.path, record, sha256_of(self.path, fresh=True))
        except DamagedStoreError as error:
            faults.append(str(error))
        try:
            faults += self._row_faults()
        except (OSError, UnicodeDecodeError) as error:
            faults.append(f"It cannot be read through: {error}.")
        statuses = self.statuses()
        return Verification(
            rows=len(self),
            unreadable=int((statuses == Status.UNREADABLE).sum()),
            zero=int((statuses == Status.ZERO).sum()),
            recorded=record is not None,
            faults=tuple(faults),
        )

    def _row_faults(self) -> list[str]:
        faults = []
        if len(set(self.ids)) != len(self.ids):
            faults.append("An image id occurs twice.")
        statuses, off, lost = self.statuses(), 0, 0
        norms = self._file["norms"][:]
        for rows, block in self._blocks("descriptors", np.arange(len(self))):
            lengths = np.linalg.norm(block.astype(np.float64), axis=2)
            good = statuses[rows] == Status.OK
            off += int((np.abs(lengths[good] - 1) > 1e-4).any(axis=1).sum())
            lost += int((~np.isnan(lengths) & (statuses[rows] == Status.UNREADABLE)[:, None]).sum())
        bad = int((~np.isfinite(norms[statuses != Status.UNREADABLE])).sum())
        if off or lost or bad:
            faults.append(f"{off + lost + bad} descriptors contradict their norm or their status.")
        return faults

    def _where(self, ids: Sequence[str]) -> npt.NDArray[np.int64]:
        rows = self._row_of
        missing = [i for i in ids if i not in rows]
        if missing:
            raise IncompleteStoreError(
                f"'{self.path}' lacks {len(missing)} of {len(ids)} images, the first is "
                f"{missing[0]!r}.",
                remedy="Run `vggfeat extract` for them, or pass the store that holds them.",
            )
        return np.array([rows[i] for i in ids], dtype=np.int64)

    @cached_property
    def _row_of(self) -> dict[str, int]:
        return {i: row for row, i in enumerate(self.ids)}

    def _scales(self, scales: Sequence[int]) -> list[int]:
        missing = [q for q in scales if q not in self.scales]
        if missing:
            raise IncompleteStoreError(
                f"'{self.path}' has the scales {self.scales}, not {missing[0]}.",
                remedy="Pass --scales that it has, or run `vggfeat extract` with yours.",
            )
        return [self.scales.index(q) for q in scales]

    def _blocks(
        self, name: str, where: npt.NDArray[np.int64]
    ) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[Any]]]:
        """Yield (positions in `where`, their values), reading every chunk once."""
        dataset = self._file[name]
        step = dataset.chunks[0] if dataset.chunks else 1024
        order = np.argsort(where, kind="stable")
        for start in np.unique(where // step) * step:
            first, last = np.searchsorted(where[order], [start, start + step])
            positions = order[first:last]
            yield positions, dataset[start : start + step][where[positions] - start]


def _opened(path: Path) -> h5py.File:
    """Open with h5py's own locking, as any other program does; without, where it cannot lock."""
    try:
        return h5py.File(path, "r")
    except OSError:
        return h5py.File(path, "r", locking=False)


def recorded_digest(path: Path) -> str:
    """Return the SHA-256 that a store's record says, empty if it has none."""
    return str((_record(path) or {}).get("sha256", ""))


def adopt(path: Path, fingerprint: str) -> bool:
    """Give a sound store that has lost its record a new one.

    Args:
        path: The HDF5 file.
        fingerprint: What it is expected to hold.

    Returns:
        Whether it was sound and the expected one; otherwise it is left as it is.
    """
    try:
        with DescriptorStore.open(path) as store:
            if store.verified or store.fingerprint != fingerprint or store.verify().faults:
                return store.verified
            count = len(store)
            lost = [i for i, s in zip(store.ids, store.statuses(), strict=True) if s == 1]
    except StoreError as error:
        _log.warning("%s", error)
        return False
    record = {
        "file": path.name,
        "bytes": path.stat().st_size,
        "sha256": sha256_of(path),
        "rows": count,
        "unreadable": dict.fromkeys(lost, "the reason was lost with the record"),
    }
    publish_new(path.with_name(RECORD), json.dumps(record, indent=1, sort_keys=True).encode())
    return True


def _record(path: Path) -> dict[str, Any] | None:
    place = path.with_name(RECORD)
    try:
        record: dict[str, Any] = json.loads(place.read_bytes())
        record["bytes"], record["sha256"]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(place, f"the record makes no sense, {error}") from error
    return record


def _check_bytes(path: Path, record: dict[str, Any], digest: str) -> None:
    size = path.stat().st_size
    if size != record["bytes"]:
        raise _damaged(path, f"it has {size} bytes, its record says {record['bytes']}")
    if digest != record["sha256"]:
        raise _damaged(path, "its SHA-256 is not that of its record")


def _check_layout(path: Path, file: h5py.File) -> None:
    """Refuse what no store of ours has: links, storage elsewhere, filters, object types."""
    for name, (kinds, axes) in _COLUMNS.items():
        if not isinstance(file.get(name, getlink=True), h5py.HardLink):
            raise _damaged(path, f"it has no dataset {name!r}")
        dataset = file[name]
        if (
            not isinstance(dataset, h5py.Dataset)
            or dataset.dtype.kind not in kinds
            or dataset.ndim != axes
            or dataset.is_virtual
            or dataset.external
            or dataset.compression
            or (name != "scales" and len(dataset) != len(file["image_id"]))
        ):
            raise _damaged(path, f"its dataset {name!r} is not that of a store")
    version = file.attrs.get("format_version")
    if version != FORMAT_VERSION:
        raise _damaged(
            path, f"its format version is {version}, this program reads {FORMAT_VERSION}"
        )


def _damaged(path: Path, reason: str) -> DamagedStoreError:
    return DamagedStoreError(
        f"'{path}' is damaged: {reason}.",
        remedy="Restore it from a copy, or remove its folder and run `vggfeat extract` again.",
    )
