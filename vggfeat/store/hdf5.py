"""The bytes of a store: HDF5 through a file object whose callbacks never raise."""

from __future__ import annotations

import errno
import hashlib
import io
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from vggfeat.errors import DamagedStoreError
from vggfeat.store.layout import StorePlan, attributes, column, columns
from vggfeat.store.rows import Rows

_CHUNK_ROWS = 64
_CHUNK_BYTES = 1 << 20  # at least; smaller chunks made writing three times slower


def shard_content(plan: StorePlan, rows: Rows) -> bytes:
    """Return the bytes of a shard's HDF5 file."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name, (dtype, _) in columns(plan).items():
            file.create_dataset(name, data=column(rows, name).astype(dtype), fletcher32=True)
    return buffer.getvalue()


def write_complete(descriptor: int, plan: StorePlan, shards: Iterator[h5py.File]) -> None:
    """Write the complete file through `descriptor`, with the memory of a few chunks."""
    row_bytes = sum(
        dtype.itemsize * int(np.prod(s, dtype=int)) for dtype, s in columns(plan).values()
    )
    reserve(descriptor, plan.rows * row_bytes + (1 << 16))
    latch = LatchedFile(descriptor)
    try:
        with h5py.File(latch, "w") as file:
            for name, value in attributes(plan).items():
                file.attrs[name] = value
            scales = np.array(plan.scales, dtype=np.int32)
            file.create_dataset("scales", data=scales, fletcher32=True)
            writers = [
                ColumnWriter(file, name, dtype, (plan.rows, *shape))
                for name, (dtype, shape) in columns(plan).items()
            ]
            for shard in shards:
                for writer in writers:
                    writer.append(shard[writer.name][:])
                latch.check()
            for writer in writers:
                writer.finish()
    finally:
        latch.check()


class ColumnWriter:
    """Writes one dataset from front to back, whole chunks at a time."""

    def __init__(
        self, file: h5py.File, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]
    ) -> None:
        self.name = name
        row = dtype.itemsize * int(np.prod(shape[1:], dtype=int))
        self._step = max(1, min(shape[0], max(_CHUNK_ROWS, -(-_CHUNK_BYTES // row))))
        self._dataset = file.create_dataset(
            name, shape, dtype, chunks=(self._step, *shape[1:]), fletcher32=True
        )
        self._waiting = np.empty((0, *shape[1:]), dtype)
        self._written = 0

    def append(self, values: npt.NDArray[Any]) -> None:
        """Take rows."""
        self._waiting = np.concatenate([self._waiting, values])
        self._write(len(self._waiting) // self._step * self._step)

    def finish(self) -> None:
        """Write what is left, and check that all rows have come."""
        self._write(len(self._waiting))
        if self._written != len(self._dataset):
            raise DamagedStoreError(f"{self._written} rows of {self.name}, not the plan's.")

    def _write(self, count: int) -> None:
        if count:
            self._dataset[self._written : self._written + count] = self._waiting[:count]
            self._waiting = self._waiting[count:]
            self._written += count


class LatchedFile:
    """A file object for h5py that never raises: libhdf5 crashes the process when it does.

    After the first error it only pretends; `check` raises that error.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._position = 0
        self._size = 0  # what has been written, not what has been reserved
        self._error: OSError | None = None

    def check(self) -> None:
        """Raise the first error, if there was one."""
        if self._error is not None:
            raise self._error

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a position."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def read(self, size: int) -> bytes:
        """Only its presence matters: h5py tells a file object by it, and calls `readinto`."""
        buffer = bytearray(size)
        self.readinto(buffer)
        return bytes(buffer)

    def readinto(self, buffer: bytearray | memoryview) -> int:
        """Fill a buffer; with zeros beyond what was written."""
        view = memoryview(buffer).cast("B")
        view[:] = bytes(len(view))
        self._try(lambda: self._read(view))
        self._position += len(view)
        return len(view)

    def write(self, data: bytes | memoryview) -> int:
        """Write at the position."""
        view = memoryview(data).cast("B")
        self._try(lambda: self._write(view))
        self._position += len(view)
        self._size = max(self._size, self._position)
        return len(view)

    def truncate(self, size: int) -> int:
        """Cut the file, or lengthen it."""
        self._try(lambda: os.ftruncate(self._descriptor, size))
        self._size = size
        return size

    def flush(self) -> None:
        """Do nothing: `write` keeps nothing back."""

    def _try(self, step: Callable[[], object]) -> None:
        if self._error is None:
            try:
                step()
            except OSError as error:
                self._error = error

    def _read(self, view: memoryview) -> None:
        data = os.pread(self._descriptor, len(view), self._position)
        view[: len(data)] = data

    def _write(self, view: memoryview) -> None:
        position = self._position
        while view:
            count = os.pwrite(self._descriptor, view, position)
            position, view = position + count, view[count:]


def reserve(descriptor: int, size: int) -> None:
    """Reserve space, so that a full disk is found out before anything is written."""
    with suppress(AttributeError):  # macOS has no such call
        try:
            os.posix_fallocate(descriptor, 0, size)
        except OSError as error:
            if error.errno not in _CANNOT_RESERVE:
                raise


_CANNOT_RESERVE = frozenset({errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP})


def digest_of(descriptor: int) -> tuple[str, int]:
    """Return the SHA-256 of a file that is open, and its size."""
    with os.fdopen(os.dup(descriptor), "rb") as stream:
        stream.seek(0)
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return digest, stream.tell()
