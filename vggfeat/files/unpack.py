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
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vggfeat.errors import PublishError, UnsafeArchiveError, VggfeatError
from vggfeat.files.archives import LONGEST_NAME, Budget, Limits, RefusedError, Source, walk
from vggfeat.files.publish import make_folder
from vggfeat.watch import Watch

_log = logging.getLogger(__name__)

_PATH, _DEPTH = 1024, 32  # bytes, folders
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_RESUME = "Run the same command again: it unpacks from the start."
_BROKEN = (  # what the decompressors raise for damaged input
    *(zipfile.BadZipFile, zlib.error, gzip.BadGzipFile, EOFError, struct.error),
    *(ValueError, RuntimeError, OverflowError, IndexError),
)


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
            raise RefusedError("it is no regular file")
        size = archive.stat().st_size
        with (
            archive.open("rb") as stream,
            watch.step(f"unpack {archive.name}", size, "bytes") as advance,
        ):
            source = Source(stream, advance, lambda: watch.check(_RESUME))
            budget = Budget(limits or Limits(), size)
            walk(source, _Folder(folder, select, budget), nested)


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
        sink = _Memory(Budget(limits, len(data)))
        walk(Source(io.BytesIO(data), lambda count: None, lambda: None), sink, None)
    return sink.files


@contextmanager
def _explained(archive: str) -> Iterator[None]:
    """Turn whatever a hostile or broken archive causes into one kind of error."""
    try:
        yield
    except VggfeatError:
        raise
    except RefusedError as refused:
        raise UnsafeArchiveError(archive, str(refused)) from refused
    except _BROKEN as error:
        raise UnsafeArchiveError(archive, f"it is damaged ({error})") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise UnsafeArchiveError(archive, f"it cannot be read ({reason})") from error


class _Memory:
    """Keeps the files' content; nothing is written."""

    def __init__(self, budget: Budget) -> None:
        self.files: dict[str, bytes] = {}
        self.budget = budget

    def wants(self, name: str) -> bool:
        return True

    def folder(self, name: str) -> None:
        _parts(name)

    def file(self, name: str, chunks: Iterator[bytes]) -> None:
        path = "/".join(_file_parts(name))
        if path in self.files:
            raise RefusedError(f"{name!r} is there twice")
        content = bytearray()
        for chunk in chunks:
            content += chunk
            self.budget.check_member(len(content))
        self.files[path] = bytes(content)


class _Folder:
    """A folder that gets new regular files and folders, and nothing else."""

    def __init__(self, root: Path, select: re.Pattern[str] | None, budget: Budget) -> None:
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
                raise RefusedError(f"{name!r} is there twice") from None
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
                        raise RefusedError(f"{part!r} is a file and a folder") from None
        return path


def _parts(name: str) -> tuple[str, ...]:
    parts = tuple(part for part in name.split("/") if part not in {"", "."})
    if name.startswith("/") or re.match("[A-Za-z]:", name):
        raise RefusedError(f"{name[:LONGEST_NAME]!r} is an absolute name")
    if ".." in parts:
        raise RefusedError(f"{name[:LONGEST_NAME]!r} leads outside")
    if "\\" in name or not name.isprintable():
        raise RefusedError(f"{name[:LONGEST_NAME]!r} has a character that no name should have")
    long = len(name.encode()) > _PATH or len(parts) > _DEPTH
    if long or any(len(part.encode()) > LONGEST_NAME for part in parts):
        raise RefusedError(f"{name[:60]!r}… is too long a name")
    return parts


def _file_parts(name: str) -> tuple[str, ...]:
    parts = _parts(name)
    if not parts or name.endswith("/"):
        raise RefusedError(f"{name!r} is no name of a file")
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
