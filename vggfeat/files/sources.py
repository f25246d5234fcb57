"""Where the bytes of an image come from: a file on disk, or whatever else can be read again."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

IMAGE_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM")  # Pillow opens no other one

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
