"""Archives, unpacked as if their author were an enemy: regular files and folders only.

Nothing of an archive is written but new files below one new folder, which gets its name after
everything was read. Sizes are counted as they come; what headers say is not believed.
"""

from __future__ import annotations

import errno
import fcntl
import gzip
import io
import logging
import os
import re
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from vggfeat.errors import PublishError, UnsafeArchiveError, VggfeatError
from vggfeat.progress import Watch
from vggfeat.publish import make_folder

_log = logging.getLogger(__name__)

_CHUNK = 256 * 1024
_TAR_BLOCK = 512
_EXTENSION = 64 * 1024  # bytes of a PAX or GNU header; a path needs 4 KB at most
_DIRECTORY = 32 << 20  # bytes of a zip's central directory, about 300,000 members
_NAME, _PATH, _DEPTH = 255, 1024, 32  # bytes, bytes, folders
_SMALL = 16 << 20  # bytes that any archive may unpack to
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_RESUME = "Run the same command again: it unpacks from the start."
_BROKEN = (  # what the decompressors raise for damaged input
    *(zipfile.BadZipFile, zlib.error, gzip.BadGzipFile, EOFError, struct.error),
    *(ValueError, RuntimeError, OverflowError, IndexError),
)


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


def unpack(
    archive: Path,
    target: Path,
    watch: Watch,
    *,
    nested: str | None = None,
    select: re.Pattern[str] | None = None,
    limits: Limits | None = None,
) -> None:
    """Unpack an archive into a new folder, which appears when all of it is there.

    Args:
        archive: A .tar, .tar.gz or .zip, recognised by its content.
        target: The new folder.
        watch: Shows the progress, and may stop it.
        nested: The member of a zip that is the archive to unpack; it is not stored itself.
        select: Only members whose whole name it matches are looked at; the others are skipped.
        limits: What the archive may hold.

    Raises:
        UnsafeArchiveError: If it is damaged, or holds anything but regular files and folders
            below its own root, or too much; nothing is left then.
        PublishError: If it cannot be written, or something stands at `target`.
        Interrupted: If `watch` says so; nothing is left then.
    """
    with placing(target) as folder:
        extract(archive, folder, watch, nested=nested, select=select, limits=limits)


@contextmanager
def placing(target: Path, *, inside: str = "") -> Iterator[Path]:
    """Yield a fresh folder beside `target`; what is in it gets that name when the block ends.

    The folder has a fixed name, so that the next run removes what a killed one has left.

    Args:
        target: The final name, at which nothing may stand.
        inside: The sub-folder that is to be renamed, if not all of it.

    Raises:
        PublishError: If it cannot be written, another process is at it, or something stands at
            `target`.
    """
    make_folder(target.parent)
    staging = target.with_name(f".{target.name}.unpacking")
    try:
        with _locked(target.parent):
            if os.path.lexists(target):
                raise FileExistsError(errno.EEXIST, "something stands there")
            with suppress(FileNotFoundError):
                shutil.rmtree(staging)
            try:
                staging.mkdir(mode=0o755)
                yield staging
                os.sync()  # one call instead of an fsync for each of thousands of small files
                (staging / inside).rename(target)
                os.sync()
            finally:
                shutil.rmtree(staging, ignore_errors=True)
    except VggfeatError:
        raise
    except OSError as error:
        raise PublishError(target, error) from error


def extract(
    archive: Path,
    folder: Path,
    watch: Watch,
    *,
    nested: str | None = None,
    select: re.Pattern[str] | None = None,
    limits: Limits | None = None,
) -> None:
    """Unpack an archive into a folder that nobody else uses; see `unpack`.

    Several archives may go into the same folder; a file that is there is a refusal.

    Args:
        archive: A .tar, .tar.gz or .zip, recognised by its content.
        folder: An existing folder, such as that of `placing`.
        watch: Shows the progress, and may stop it.
        nested: The member of a zip that is the archive to unpack.
        select: Only members whose whole name it matches are looked at.
        limits: What the archive may hold.

    Raises:
        UnsafeArchiveError: See `unpack`; what is in `folder` is to be thrown away then.
        PublishError: If it cannot be written.
        Interrupted: If `watch` says so.
    """
    with _explained(str(archive)):
        if not archive.is_file():  # a pipe would block for ever
            raise _RefusedError("it is no regular file")
        size = archive.stat().st_size
        with (
            archive.open("rb") as stream,
            watch.step(f"unpack {archive.name}", size, "bytes") as advance,
        ):
            source = _Source(stream, advance, lambda: watch.check(_RESUME))
            budget = _Budget(limits or Limits(), size)
            _extract(source, _Folder(folder, select, budget), nested)


def read_members(archive: str, data: bytes, limits: Limits) -> dict[str, bytes]:
    """Read the files of a small archive into memory, by the rules of `unpack`.

    Args:
        archive: Its name, for messages.
        data: Its bytes.
        limits: What it may hold.

    Returns:
        Name → content, in the order of the archive; "." is left out of names.

    Raises:
        UnsafeArchiveError: As `unpack` does.
    """
    with _explained(archive):
        sink = _Memory(_Budget(limits, len(data)))
        _extract(_Source(io.BytesIO(data), lambda count: None, lambda: None), sink, None)
    return sink.files


@contextmanager
def _explained(archive: str) -> Iterator[None]:
    """Turn whatever a hostile or broken archive causes into one kind of error."""
    try:
        yield
    except VggfeatError:
        raise
    except _RefusedError as refused:
        raise UnsafeArchiveError(archive, str(refused)) from refused
    except _BROKEN as error:
        raise UnsafeArchiveError(archive, f"it is damaged ({error})") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise UnsafeArchiveError(archive, f"it cannot be read ({reason})") from error


def _extract(source: _Source, sink: _Sink, nested: str | None) -> None:
    magic = source.read(4)
    source.seek(0)
    if not magic.startswith(b"PK"):
        if nested is not None:
            raise _RefusedError("it is no zip")
        _read_tar(_plain(source, magic, sink.budget), sink)
        return
    with zipfile.ZipFile(source) as package:
        if nested is None:
            _read_zip(package, sink)
            return
        if nested not in package.namelist():
            raise _RefusedError(f"it holds no {nested!r}")
        with _opened(package, package.getinfo(nested)) as member:
            magic = member.peek(4)[:4]
            _read_tar(_plain(_Counted(member, sink.budget), magic, sink.budget), sink)


class _RefusedError(Exception):
    """Why an archive is refused: the rest of "it is not unpacked: ..."."""


# --- counting -----------------------------------------------------------------------------------


class _Reader(Protocol):
    def read(self, size: int = ..., /) -> bytes: ...


class _Budget:
    """What an archive has used of its limits."""

    def __init__(self, limits: Limits, archive_bytes: int) -> None:
        self._limits = limits
        self._members = self._bytes = 0
        self._most = min(limits.total_bytes, _SMALL + limits.ratio * archive_bytes)

    def member(self, size: int) -> None:
        self._members += 1
        if self._members > self._limits.members:
            raise _RefusedError(f"it holds more than {self._limits.members:,} members")
        self.check_member(size)

    def check_member(self, size: int) -> None:
        if size > self._limits.member_bytes:
            raise _RefusedError(f"a member has more than {self._limits.member_bytes:,} bytes")

    def spend(self, count: int) -> None:
        self._bytes += count
        if self._bytes > self._most:
            raise _RefusedError(f"it unpacks to more than {self._most:,.0f} bytes")


class _Source(io.BufferedIOBase):
    """The archive's own bytes: counted for the progress, never too many at once."""

    def __init__(
        self,
        stream: io.BufferedIOBase,
        advance: Callable[[int], None],
        heed: Callable[[], None],
    ) -> None:
        self._stream, self._advance, self._heed = stream, advance, heed

    def read(self, size: int | None = -1, /) -> bytes:
        self._heed()
        rest = size is None or size < 0  # zipfile asks so for the last 64 KB
        data = self._stream.read(_DIRECTORY + 1 if rest else min(size or 0, _DIRECTORY + 1))
        if len(data) > _DIRECTORY:
            raise _RefusedError("its table of contents is too long")
        self._advance(len(data))
        return data

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


class _Counted(io.BufferedIOBase):
    """A stream whose bytes are taken from a budget."""

    def __init__(self, stream: _Reader, budget: _Budget) -> None:
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
                raise _RefusedError("it ends in the middle")
            size -= len(data)
            yield data

    def rest(self) -> Iterator[bytes]:
        while data := self.read(_CHUNK):
            yield data


def _plain(stream: _Reader, magic: bytes, budget: _Budget) -> _Counted:
    if magic.startswith(b"\x1f\x8b"):
        stream = gzip.GzipFile(fileobj=stream, mode="rb")  # type: ignore[call-overload]
    return _Counted(stream, budget)


# --- what comes out -----------------------------------------------------------------------------


class _Sink(Protocol):
    """What takes the members of an archive."""

    budget: _Budget

    def wants(self, name: str) -> bool: ...

    def folder(self, name: str) -> None: ...

    def file(self, name: str, chunks: Iterator[bytes]) -> None: ...


class _Memory:
    """Keeps the files' content; nothing is written."""

    def __init__(self, budget: _Budget) -> None:
        self.files: dict[str, bytes] = {}
        self.budget = budget

    def wants(self, name: str) -> bool:
        return True

    def folder(self, name: str) -> None:
        _parts(name)

    def file(self, name: str, chunks: Iterator[bytes]) -> None:
        path = "/".join(_file_parts(name))
        if path in self.files:
            raise _RefusedError(f"{name!r} is there twice")
        content = bytearray()
        for chunk in chunks:
            content += chunk
            self.budget.check_member(len(content))
        self.files[path] = bytes(content)


class _Folder:
    """A folder that gets new regular files and folders, and nothing else."""

    def __init__(self, root: Path, select: re.Pattern[str] | None, budget: _Budget) -> None:
        self._root, self._select, self.budget = root, select, budget

    def wants(self, name: str) -> bool:
        return self._select is None or bool(self._select.fullmatch(name.removeprefix("./")))

    def folder(self, name: str) -> None:
        self._make(_parts(name))

    def file(self, name: str, chunks: Iterator[bytes]) -> None:
        parts = _file_parts(name)
        path = self._make(parts[:-1]) / parts[-1]
        with _writing(path):
            try:
                descriptor = os.open(path, _NEW, 0o644)
            except FileExistsError:
                raise _RefusedError(f"{name!r} is there twice") from None
        written = 0
        try:
            for chunk in chunks:
                written += len(chunk)
                self.budget.check_member(written)
                with _writing(path):
                    view = memoryview(chunk)
                    while view:
                        view = view[os.write(descriptor, view) :]
        finally:
            os.close(descriptor)

    def _make(self, parts: tuple[str, ...]) -> Path:
        path = self._root
        for part in parts:
            path = path / part
            with _writing(path):
                try:
                    path.mkdir(mode=0o755)
                except FileExistsError:
                    if not stat.S_ISDIR(path.lstat().st_mode):
                        raise _RefusedError(f"{part!r} is a file and a folder") from None
        return path


def _parts(name: str) -> tuple[str, ...]:
    parts = tuple(part for part in name.split("/") if part not in {"", "."})
    if name.startswith("/") or re.match("[A-Za-z]:", name):
        raise _RefusedError(f"{name[:_NAME]!r} is an absolute name")
    if ".." in parts:
        raise _RefusedError(f"{name[:_NAME]!r} leads outside")
    if "\\" in name or not name.isprintable():
        raise _RefusedError(f"{name[:_NAME]!r} has a character that no name should have")
    long = len(name.encode()) > _PATH or len(parts) > _DEPTH
    if long or any(len(part.encode()) > _NAME for part in parts):
        raise _RefusedError(f"{name[:60]!r}… is too long a name")
    return parts


def _file_parts(name: str) -> tuple[str, ...]:
    parts = _parts(name)
    if not parts or name.endswith("/"):
        raise _RefusedError(f"{name!r} is no name of a file")
    return parts


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise PublishError(path, error) from error


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BlockingIOError(
                errno.EWOULDBLOCK, "another process is unpacking into that folder"
            ) from None
        except OSError as error:  # a file system without locks: the rename decides
            _log.debug("no lock on '%s': %s", folder, error)
        yield
    finally:
        os.close(descriptor)


# --- zip ----------------------------------------------------------------------------------------


def _read_zip(package: zipfile.ZipFile, sink: _Sink) -> None:
    for info in package.infolist():
        name = info.orig_filename  # as it stands there; `filename` hides what follows a NUL
        sink.budget.member(info.file_size)
        if not sink.wants(name):
            continue
        kind = stat.S_IFMT(info.external_attr >> 16)
        is_folder = name.endswith("/")
        if kind not in {0, stat.S_IFDIR if is_folder else stat.S_IFREG}:
            raise _RefusedError(f"{name!r} is neither a regular file nor a folder")
        if not is_folder:
            with _opened(package, info) as member:
                sink.file(name, _Counted(member, sink.budget).rest())
        elif info.file_size:
            raise _RefusedError(f"folder {name!r} has bytes")
        else:
            sink.folder(name)


def _opened(package: zipfile.ZipFile, info: zipfile.ZipInfo) -> zipfile.ZipExtFile:
    if info.flag_bits & 1:
        raise _RefusedError(f"{info.filename!r} is encrypted")
    if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise _RefusedError(f"{info.filename!r} is compressed in a way that cannot be bounded")
    member = package.open(info)
    assert isinstance(member, zipfile.ZipExtFile)
    return member


# --- tar ----------------------------------------------------------------------------------------

_FILE, _FOLDER = {b"0", b"\0"}, b"5"
_PAX, _PAX_GLOBAL, _LONG_NAME, _LONG_LINK = b"x", b"g", b"L", b"K"
_EXTENSIONS = {_PAX, _PAX_GLOBAL, _LONG_NAME, _LONG_LINK}


def _read_tar(stream: _Counted, sink: _Sink) -> None:
    """Read ustar, PAX and GNU archives; of their extensions only long names and sizes."""
    extended: dict[str, str] = {}
    while any(block := stream.exactly(_TAR_BLOCK)):
        kind, name, size = _header(block)
        if kind in _EXTENSIONS:
            if size > _EXTENSION:
                raise _RefusedError("it has a header that is too long")
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


def _read_member(stream: _Counted, sink: _Sink, kind: bytes, name: str, size: int) -> None:
    is_folder = kind == _FOLDER or (kind in _FILE and name.endswith("/"))
    wanted = sink.wants(name)
    # What follows a link or a device is read differently by different programs.
    if not is_folder and kind not in _FILE and (wanted or size):
        raise _RefusedError(f"{name[:_NAME]!r} is neither a regular file nor a folder")
    if is_folder and size:
        raise _RefusedError(f"folder {name[:_NAME]!r} has bytes")
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
        raise _RefusedError("it is no tar archive, or damaged")
    name = block[:100].split(b"\0", 1)[0]
    prefix = block[345:500].split(b"\0", 1)[0] if block[257:263] == b"ustar\0" else b""
    whole = prefix + b"/" + name if prefix else name
    return block[156:157], whole.decode("utf-8", "surrogateescape"), _number(block[124:136])


def _number(field: bytes) -> int:
    if field[0] == 0x80:  # GNU's and star's form for what octal digits cannot say
        return int.from_bytes(field[1:], "big")
    match = re.fullmatch(rb"[ \0]*([0-7]*)[ \0]*", field)
    if match is None:
        raise _RefusedError("a header has a number that is none")
    return int(match[1] or b"0", 8)


def _extension(kind: bytes, data: bytes) -> dict[str, str]:
    if kind == _LONG_NAME:
        return {"path": data.rstrip(b"\0").decode("utf-8", "surrogateescape")}
    records = _pax_records(data) if kind in {_PAX, _PAX_GLOBAL} else {}
    if any(key.startswith("GNU.sparse") for key in records):
        raise _RefusedError("it holds a sparse file")
    known = {key: value for key, value in records.items() if key in {"path", "size"}}
    if kind == _PAX_GLOBAL and known:
        raise _RefusedError("it gives all its members one name or size")
    if not re.fullmatch("[0-9]{1,18}", known.get("size", "0")):
        raise _RefusedError("a header has a number that is none")
    return known


def _pax_records(data: bytes) -> dict[str, str]:
    records = {}
    while data:
        match = re.match(rb"([0-9]{1,5}) ([^=]*)=", data)
        length = int(match[1]) if match else 0
        if match is None or not match.end() < length <= len(data) or data[length - 1] != 10:
            raise _RefusedError("it has a damaged header")
        key, value = match[2], data[match.end() : length - 1]
        records[key.decode("utf-8", "replace")] = value.decode("utf-8", "surrogateescape")
        data = data[length:]
    return records
