"""The members of an archive, one after the other, within bounds."""

from __future__ import annotations

import gzip
import io
import re
import stat
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

_CHUNK = 256 * 1024
_TAR_BLOCK = 512
_EXTENSION = 64 * 1024  # bytes of a PAX or GNU header; a path needs 4 KB at most
_DIRECTORY = 32 << 20  # bytes of a zip's central directory, about 300,000 members
LONGEST_NAME = 255  # bytes
_SMALL = 16 << 20  # bytes that any archive may unpack to


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What an archive may hold.

    Attributes:
        members: Number of files and folders.
        member_bytes: Bytes of one file.
        total_bytes: Bytes of all of it, unpacked.
        ratio: Bytes unpacked for each byte of the archive, beyond the first 16 MB.
    """

    members: int = 200_000
    member_bytes: int = 1 << 30
    total_bytes: int = 16 << 30
    ratio: float = 50.0


def walk(source: Source, sink: Sink, nested: str | None) -> None:
    """Hand every member to `sink`; of a zip only `nested`, an archive itself, if one is named.

    Raises:
        RefusedError: If the archive is hostile or too large.
    """
    magic = source.read(4)
    source.seek(0)
    if not magic.startswith(b"PK"):
        if nested is not None:
            raise RefusedError("it is no zip")
        _read_tar(_plain(source, magic, sink.budget), sink)
        return
    with zipfile.ZipFile(source) as package:
        if nested is None:
            _read_zip(package, sink)
            return
        if nested not in package.namelist():
            raise RefusedError(f"it holds no {nested!r}")
        with _opened(package, package.getinfo(nested)) as member:
            magic = member.peek(4)[:4]
            _read_tar(_plain(_Counted(member, sink.budget), magic, sink.budget), sink)


class RefusedError(Exception):
    """Why an archive is refused: the rest of "it is not unpacked: ..."."""


class _Reader(Protocol):
    def read(self, size: int = ..., /) -> bytes: ...


class Budget:
    """What an archive has used of its limits."""

    def __init__(self, limits: Limits, archive_bytes: int) -> None:
        self._limits = limits
        self._members = self._bytes = 0
        self._most = min(limits.total_bytes, _SMALL + limits.ratio * archive_bytes)

    def member(self, size: int) -> None:
        """Count one more member, of so many bytes by its header."""
        self._members += 1
        if self._members > self._limits.members:
            raise RefusedError(f"it holds more than {self._limits.members:,} members")
        self.check_member(size)

    def check_member(self, size: int) -> None:
        """Check the size of one member, bytes."""
        if size > self._limits.member_bytes:
            raise RefusedError(f"a member has more than {self._limits.member_bytes:,} bytes")

    def spend(self, count: int) -> None:
        """Count bytes that have been unpacked."""
        self._bytes += count
        if self._bytes > self._most:
            raise RefusedError(f"it unpacks to more than {self._most:,.0f} bytes")


class Source(io.BufferedIOBase):
    """The archive's own bytes: counted for the progress, never too many at once."""

    def __init__(
        self,
        stream: io.BufferedIOBase,
        advance: Callable[[int], None],
        heed: Callable[[], None],
    ) -> None:
        self._stream, self._advance, self._heed = stream, advance, heed

    def read(self, size: int | None = -1, /) -> bytes:
        """Return at most so many bytes, and heed the watch."""
        self._heed()
        rest = size is None or size < 0  # zipfile asks so for the last 64 KB
        data = self._stream.read(_DIRECTORY + 1 if rest else min(size or 0, _DIRECTORY + 1))
        if len(data) > _DIRECTORY:
            raise RefusedError("its table of contents is too long")
        self._advance(len(data))
        return data

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go to a position."""
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        """Return the position."""
        return self._stream.tell()

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True


class _Counted(io.BufferedIOBase):
    """A stream whose bytes are taken from a budget."""

    def __init__(self, stream: _Reader, budget: Budget) -> None:
        self._stream, self._budget = stream, budget

    def read(self, size: int | None = -1, /) -> bytes:
        data = self._stream.read(_CHUNK if size is None or size < 0 else size)
        self._budget.spend(len(data))
        return data

    def readable(self) -> bool:
        return True

    def exactly(self, size: int) -> bytes:
        return b"".join(self.chunks(size))

    def chunks(self, size: int) -> Iterator[bytes]:
        while size:
            data = self.read(min(size, _CHUNK))
            if not data:
                raise RefusedError("it ends in the middle")
            size -= len(data)
            yield data

    def rest(self) -> Iterator[bytes]:
        while data := self.read(_CHUNK):
            yield data


def _plain(stream: _Reader, magic: bytes, budget: Budget) -> _Counted:
    if magic.startswith(b"\x1f\x8b"):
        stream = gzip.GzipFile(fileobj=stream, mode="rb")  # type: ignore[call-overload]
    return _Counted(stream, budget)


class Sink(Protocol):
    """What takes the members of an archive."""

    budget: Budget

    def wants(self, name: str) -> bool:
        """Say whether a member of that name is to be read."""
        ...

    def folder(self, name: str) -> None:
        """Take a folder."""
        ...

    def file(self, name: str, chunks: Iterator[bytes]) -> None:
        """Take a file, piece by piece."""
        ...


def _read_zip(package: zipfile.ZipFile, sink: Sink) -> None:
    for info in package.infolist():
        name = info.orig_filename  # as it stands there; `filename` hides what follows a NUL
        sink.budget.member(info.file_size)
        if not sink.wants(name):
            continue
        kind = stat.S_IFMT(info.external_attr >> 16)
        is_folder = name.endswith("/")
        if kind not in {0, stat.S_IFDIR if is_folder else stat.S_IFREG}:
            raise RefusedError(f"{name!r} is neither a regular file nor a folder")
        if not is_folder:
            with _opened(package, info) as member:
                sink.file(name, _Counted(member, sink.budget).rest())
        elif info.file_size:
            raise RefusedError(f"folder {name!r} has bytes")
        else:
            sink.folder(name)


def _opened(package: zipfile.ZipFile, info: zipfile.ZipInfo) -> zipfile.ZipExtFile:
    if info.flag_bits & 1:
        raise RefusedError(f"{info.filename!r} is encrypted")
    if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise RefusedError(f"{info.filename!r} is compressed in a way that cannot be bounded")
    member = package.open(info)
    assert isinstance(member, zipfile.ZipExtFile)
    return member


_FILE, _FOLDER = {b"0", b"\0"}, b"5"


_PAX, _PAX_GLOBAL, _LONG_NAME, _LONG_LINK = b"x", b"g", b"L", b"K"
_EXTENSIONS = {_PAX, _PAX_GLOBAL, _LONG_NAME, _LONG_LINK}


def _read_tar(stream: _Counted, sink: Sink) -> None:
    """Read ustar, PAX and GNU archives; of their extensions only long names and sizes."""
    extended: dict[str, str] = {}
    while any(block := stream.exactly(_TAR_BLOCK)):
        kind, name, size = _header(block)
        if kind in _EXTENSIONS:
            if size > _EXTENSION:
                raise RefusedError("it has a header that is too long")
            sink.budget.member(size)
            extended |= _extension(kind, stream.exactly(size))
        else:
            name, size = extended.get("path", name), int(extended.get("size", size))
            extended = {}
            sink.budget.member(size)
            _read_member(stream, sink, kind, name, size)
        stream.exactly(-size % _TAR_BLOCK)
    for _ in stream.rest():  # so that a checksum at the very end is compared too
        pass


def _read_member(stream: _Counted, sink: Sink, kind: bytes, name: str, size: int) -> None:
    is_folder = kind == _FOLDER or (kind in _FILE and name.endswith("/"))
    wanted = sink.wants(name)
    # What follows a link or a device is read differently by different programs.
    if not is_folder and kind not in _FILE and (wanted or size):
        raise RefusedError(f"{name[:LONGEST_NAME]!r} is neither a regular file nor a folder")
    if is_folder and size:
        raise RefusedError(f"folder {name[:LONGEST_NAME]!r} has bytes")
    if wanted and is_folder:
        sink.folder(name)
    elif wanted:
        sink.file(name, stream.chunks(size))
    else:
        for _ in stream.chunks(size):
            pass


def _header(block: bytes) -> tuple[bytes, str, int]:
    """Return type, name and size."""
    checksum = sum(block) - sum(block[148:156]) + 8 * ord(" ")
    if _number(block[148:156]) != checksum:
        raise RefusedError("it is no tar archive, or damaged")
    name = block[:100].split(b"\0", 1)[0]
    prefix = block[345:500].split(b"\0", 1)[0] if block[257:263] == b"ustar\0" else b""
    whole = prefix + b"/" + name if prefix else name
    return block[156:157], whole.decode("utf-8", "surrogateescape"), _number(block[124:136])


def _number(field: bytes) -> int:
    if field[0] == 0x80:  # GNU's and star's form for what octal digits cannot say
        return int.from_bytes(field[1:], "big")
    match = re.fullmatch(rb"[ \0]*([0-7]*)[ \0]*", field)
    if match is None:
        raise RefusedError("a header has a number that is none")
    return int(match[1] or b"0", 8)


def _extension(kind: bytes, data: bytes) -> dict[str, str]:
    if kind == _LONG_NAME:
        return {"path": data.rstrip(b"\0").decode("utf-8", "surrogateescape")}
    records = _pax_records(data) if kind in {_PAX, _PAX_GLOBAL} else {}
    if any(key.startswith("GNU.sparse") for key in records):
        raise RefusedError("it holds a sparse file")
    known = {key: value for key, value in records.items() if key in {"path", "size"}}
    if kind == _PAX_GLOBAL and known:
        raise RefusedError("it gives all its members one name or size")
    if not re.fullmatch("[0-9]{1,18}", known.get("size", "0")):
        raise RefusedError("a header has a number that is none")
    return known


def _pax_records(data: bytes) -> dict[str, str]:
    records = {}
    while data:
        match = re.match(rb"([0-9]{1,5}) ([^=]*)=", data)
        length = int(match[1]) if match else 0
        if match is None or not match.end() < length <= len(data) or data[length - 1] != 10:
            raise RefusedError("it has a damaged header")
        key, value = match[2], data[match.end() : length - 1]
        records[key.decode("utf-8", "replace")] = value.decode("utf-8", "surrogateescape")
        data = data[length:]
    return records
