"""Making a store: shards with exclusive records, several writers, one assembly.

The rules, and the measurement behind each, are in docs/design-notes.md. libhdf5 never writes to
the destination by itself: shards are built in memory, the complete file through callbacks of ours.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import logging
import os
import random
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import h5py

from vggfeat.errors import DamagedStoreError, IncompleteStoreError, PublishError, StoreError
from vggfeat.files.publish import make_folder, publish_bytes, publish_new, publishing, sweep
from vggfeat.store.hdf5 import digest_of, shard_content, write_complete
from vggfeat.store.layout import DESCRIPTORS, PLAN, RECORD, StorePlan
from vggfeat.store.rows import Rows

_log = logging.getLogger(__name__)

_SHARDS_PER_FOLDER = 1000
_SHARD_SECONDS = 30  # of work, at most so much is lost by a kill and waited for by a Ctrl-C


def tidy(folder: Path) -> None:
    """Remove what a complete store no longer needs, also after a kill in the middle of that."""
    shutil.rmtree(folder / "shards", ignore_errors=True)
    sweep(folder)


def shard_rows(row_seconds: float, row_bytes: int) -> int:
    """Return how many rows make a shard: about 30 s of work and 64 MB, 8 to 1,024.

    Args:
        row_seconds: Estimated time for one row.
        row_bytes: Size of one row.
    """
    return int(min(max(8, min(_SHARD_SECONDS / row_seconds, 64e6 / row_bytes)), 1024))


def finished_shards(folder: Path) -> list[range]:
    """Return the rows of each shard that has its record; none where no store is in the making."""
    try:
        plan = StorePlan.read(folder)
    except (OSError, StoreError):
        return []
    finished = (k for k in range(plan.shards) if _record_path(folder, k).exists())
    return [plan.shard_range(k) for k in finished]


class ShardFolder:
    """A store in the making, possibly by several processes at once; use it in a `with` statement.

    Args:
        folder: `<cache>/<data set>-<model>-<fingerprint[:8]>`.
        plan: The store's plan; the first process creates it, the others obey what they find.

    Raises:
        StaleStoreError: If the folder belongs to another store.
        PublishError: If it cannot be written.
    """

    def __init__(self, folder: Path, plan: StorePlan) -> None:
        self.folder = folder
        self._leases: dict[int, int] = {}
        make_folder(folder)
        sweep(folder)
        publish_new(folder / PLAN, plan.to_json())
        self.plan = StorePlan.read(folder)
        plan.check_same_store(self.plan, folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for number in list(self._leases):
            self._release(number)

    @property
    def complete(self) -> bool:
        """Whether the store has its final record."""
        return (self.folder / RECORD).exists()

    def pending(self) -> list[int]:
        """Return the shards without a record; none once the store is complete."""
        missing = [k for k in range(self.plan.shards) if not self._record_path(k).exists()]
        return [] if self.complete else missing

    def commit(self, number: int, rows: Rows, notes: Mapping[str, Any]) -> bool:
        """Write one shard, and its record if nobody has done so before.

        Args:
            number: Of the shard.
            rows: Its rows, in the plan's order.
            notes: For the record: device, versions, seconds.

        Returns:
            Whether this record counts; otherwise another writer was first.

        Raises:
            PublishError: If it cannot be written; the store is as it was.
        """
        content = shard_content(self.plan, rows)
        digest = hashlib.sha256(content).hexdigest()
        path = self._record_path(number).with_name(f"part-{number:06d}-{digest[:16]}.h5")
        record = {
            "file": path.name,
            "bytes": len(content),
            "sha256": digest,
            "rows": [self.plan.shard_range(number).start, self.plan.shard_range(number).stop],
            "errors": rows.errors,
            **notes,
        }
        try:
            make_folder(path.parent)
            publish_bytes(path, content)
            first = publish_new(self._record_path(number), _json(record))
        except PublishError:
            if self.complete:  # another writer has assembled the store and removed the shards
                return False
            raise
        finally:
            self._release(number)
        _log.info("shard %d of %d committed", number + 1, self.plan.shards)
        return first

    def assemble(self) -> Path:
        """Join all shards into the complete file, and remove them; harmless if already done.

        Returns:
            The path of the complete file.

        Raises:
            IncompleteStoreError: If a shard has no record.
            DamagedStoreError: If a shard is not what its record says.
            PublishError: If the file cannot be written; every shard is kept.
        """
        target = self.folder / DESCRIPTORS
        if not self.complete:
            _log.info("assembling '%s' from %d shards", target, self.plan.shards)
            try:
                self._assemble(target)
            except DamagedStoreError:
                if not self.complete:  # else another assembler was first, and removed the shards
                    raise
        tidy(self.folder)
        return target

    def _assemble(self, target: Path) -> None:
        records = self._records()
        with publishing(target) as descriptor:
            write_complete(descriptor, self.plan, self._verified(records))
            digest, size = digest_of(descriptor)
        unreadable = {i: reason for record in records for i, reason in record["errors"].items()}
        timed = [record.get("seconds") for record in records]
        known = [seconds for seconds in timed if isinstance(seconds, int | float)]
        record = {
            "file": target.name,
            "bytes": size,
            "sha256": digest,
            "rows": self.plan.rows,
            "unreadable": unreadable,
            "seconds": sum(known) if len(known) == len(timed) else None,
        }
        publish_new(self.folder / RECORD, _json(record))

    def _records(self) -> list[dict[str, Any]]:
        """Read the records of all shards, in order."""
        if pending := self.pending():
            raise IncompleteStoreError(
                f"'{self.folder}' lacks {len(pending)} of {self.plan.shards} shards.",
                remedy="Run `vggfeat extract` again to resume.",
            )
        records = []
        for number in range(self.plan.shards):
            path = self._record_path(number)
            try:
                record = json.loads(path.read_bytes())
                record["path"] = path.with_name(record["file"])
                record["sha256"], record["bytes"], record["errors"].items()
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                raise _damaged(path, path) from error
            records.append(record)
        return records

    def _verified(self, records: Sequence[Mapping[str, Any]]) -> Iterator[h5py.File]:
        """Yield each shard, opened in memory after its bytes have been checked."""
        for number, record in enumerate(records):
            try:
                content = record["path"].read_bytes()
            except OSError as error:
                raise _damaged(record["path"], self._record_path(number)) from error
            if hashlib.sha256(content).hexdigest() != record["sha256"]:
                raise _damaged(record["path"], self._record_path(number))
            with h5py.File(io.BytesIO(content), "r") as shard:
                yield shard

    def _record_path(self, number: int) -> Path:
        return _record_path(self.folder, number)

    def claim(self, number: int) -> bool:
        """Claim a pending shard; return whether nobody else has."""
        if number in self._leases:
            return False
        path = self._record_path(number).with_suffix(".lock")
        make_folder(path.parent)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise PublishError(path, error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        except OSError as error:  # a file system without locks: go on, the record decides
            _log.debug("no lock on '%s': %s", path, error)
        self._leases[number] = descriptor
        if self._record_path(number).exists():  # committed between our look and our lock
            self._release(number)
            return False
        return True

    def _release(self, number: int) -> None:
        descriptor = self._leases.pop(number, None)
        if descriptor is not None:
            os.close(descriptor)


def claims(
    stores: Sequence[ShardFolder], stop: Callable[[], bool] = lambda: False
) -> Iterator[tuple[int, list[ShardFolder]]]:
    """Yield pending shards that no living process of this machine has claimed.

    A claim only saves work: it is an advisory lock, which dies with its process. Where two
    processes compute one shard all the same, the first record wins.

    Args:
        stores: Those that are made together, with the same rows in the same shards.
        stop: Whether to claim no more.

    Yields:
        The number of a shard, and for which of the stores it has been claimed.
    """
    start = random.random()
    while not stop():
        pending = [(store, {*store.pending()}) for store in stores]
        free = sorted({number for _, own in pending for number in own})
        begin = int(start * len(free))
        for number in free[begin:] + free[:begin]:
            lacking = (store for store, own in pending if number in own)
            if claimed := [store for store in lacking if store.claim(number)]:
                yield number, claimed
                break
        else:
            return


def _record_path(folder: Path, number: int) -> Path:
    group = f"{number // _SHARDS_PER_FOLDER:03d}"
    return folder / "shards" / group / f"part-{number:06d}.json"


def _damaged(path: Path, record: Path) -> DamagedStoreError:
    return DamagedStoreError(
        f"Shard '{path}' is damaged: its bytes are not those of its record.",
        remedy=f"Remove '{record}' and run `vggfeat extract` again: only it is computed anew.",
    )


def _json(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, indent=1, sort_keys=True).encode() + b"\n"
