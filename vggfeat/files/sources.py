"""Where the bytes of an image come from: a file on disk, or whatever else can be read again."""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

# Pillow opens no other one; docs/data.md says why. TGA is last: many a file may pass for one.
IMAGE_FORMATS = (
    *("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "AVIF", "JPEG2000"),
    *("DIB", "QOI", "DDS", "SGI", "SUN", "PCX", "DCX", "MSP", "XBM", "XPM", "TGA"),
)

State = tuple[str, int, int, int, int]


class Source(Protocol):
    """Bytes that can be read at any time; a frozen record that can be pickled."""

    @property
    def name(self) -> str:
        """Path or address, for messages."""

    def open(self) -> BinaryIO:
        """Open the bytes for reading, from the start and in any order.

        Raises:
            OSError: If they cannot be read.
        """

    def size(self) -> int:
        """Return the number of bytes.

        Raises:
            OSError: If it cannot be told.
        """

    def state(self) -> State:
        """Return what tells whether a known SHA-256 still holds, without reading the bytes.

        Returns:
            The full address, and four numbers that do not all stay the same when the bytes change:
            of a file its size, its times of modification and of change, ns, and its inode.

        Raises:
            OSError: If it cannot be told.
        """

    def place(self) -> Hashable:
        """Return what is equal for two sources that are one place under two names."""


@dataclass(frozen=True, slots=True)
class FileSource:
    """A regular file.

    Attributes:
        path: Of the file.
    """

    path: Path

    @property
    def name(self) -> str:
        """The path, as it was given."""
        return str(self.path)

    def open(self) -> BinaryIO:
        """Open the file for reading.

        Raises:
            OSError: If it is no regular file or cannot be read.
        """
        if not stat.S_ISREG(self.path.stat().st_mode):  # a pipe would block for ever
            raise OSError(errno.EINVAL, "it is no regular file", self.name)
        return self.path.open("rb")

    def size(self) -> int:
        """Return the number of bytes.

        Raises:
            OSError: If there is no such file.
        """
        return self.path.stat().st_size

    def state(self) -> State:
        """Return resolved path, size, times of modification and of change, ns, and inode.

        Raises:
            OSError: If there is no such file.
        """
        status = self.path.stat()
        # File names need not be valid UTF-8, the text of a database must be.
        address = os.fsencode(self.path.resolve()).decode("utf-8", "backslashreplace")
        inode = status.st_ino & (2**63 - 1)
        return address, status.st_size, status.st_mtime_ns, status.st_ctime_ns, inode

    def place(self) -> Hashable:
        """Return device and inode, which all links share; of a file that is absent, its path."""
        try:
            status = self.path.stat()
        except OSError:
            return os.path.abspath(self.path)  # noqa: PTH100  (resolve() leaves detours in place)
        return status.st_dev, status.st_ino


@dataclass(frozen=True, slots=True)
class JoinedSource:
    """Regular files, one behind the other.

    Attributes:
        paths: At least one.
    """

    paths: tuple[Path, ...]

    @property
    def name(self) -> str:
        """The first path, and how many follow."""
        return f"{self.paths[0]} and {len(self.paths) - 1} more"

    def open(self) -> BinaryIO:
        """Open the files for reading, from the start to the end.

        Raises:
            OSError: If one is no regular file or cannot be read.
        """
        for path in self.paths:
            FileSource(path).open().close()
        return io.BufferedReader(_Joined(self.paths))

    def size(self) -> int:
        """Return the number of bytes of all.

        Raises:
            OSError: If one is not there.
        """
        return sum(FileSource(path).size() for path in self.paths)

    def state(self) -> State:
        """Return the first's resolved path and their number, and what changes with any of them.

        Raises:
            OSError: If one is not there.
        """
        states = [FileSource(path).state() for path in self.paths]
        _, sizes, modified, changed, inodes = zip(*states, strict=True)
        address = f"{states[0][0]} and {len(states) - 1} more"
        return address, sum(sizes), max(modified), max(changed), sum(inodes) & (2**63 - 1)

    def place(self) -> Hashable:
        """Return device and inode of each."""
        return tuple(FileSource(path).place() for path in self.paths)


class _Joined(io.RawIOBase):
    """The bytes of files, one behind the other."""

    def __init__(self, paths: tuple[Path, ...]) -> None:
        super().__init__()
        self._rest = iter(paths)
        self._now = next(self._rest).open("rb")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        while not (count := self._now.readinto(buffer)):
            following = next(self._rest, None)
            if following is None:
                return 0
            self._now.close()
            self._now = following.open("rb")
        return count

    def close(self) -> None:
        self._now.close()
        super().close()
