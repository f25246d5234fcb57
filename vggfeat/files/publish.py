"""The one way a file appears: a temporary beside it, fsync, rename (or link), fsync of the folder.

Leaving out any of the four steps loses data at a power cut or shows half a file after a kill.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vggfeat.errors import PublishError

_TEMPORARY = re.compile(r"\.(?P<name>.+)\.(?P<host>[^.~]+)~(?P<pid>\d+)~[0-9a-f]+\.tmp")


def publish_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path`, replacing what is there, so that no reader ever sees a part of it.

    Raises:
        PublishError: If it cannot be written; what stood at `path` is then untouched.
    """
    with publishing(path) as descriptor:
        _write_all(descriptor, data)


def publish_new(path: Path, data: bytes) -> bool:
    """Create `path` with `data` if it does not exist: of several writers exactly one succeeds.

    Returns:
        True if this call created the file, False if somebody had already done so.

    Raises:
        PublishError: If it cannot be written.
    """
    temporary = _temporary(path)
    try:
        try:
            with _created(temporary) as descriptor:
                _write_all(descriptor, data)
                os.fsync(descriptor)
            created = _link(temporary, path)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(temporary)  # noqa: PTH108  (one module, os, so that tests can fail any step)
        _sync_folder(path.parent)
    except OSError as error:
        raise PublishError(path, error) from error
    return created


@contextmanager
def publishing(path: Path) -> Iterator[int]:
    """Open a temporary file for reading and writing, and give it the name `path` at the end.

    Yields:
        A file descriptor; when the block raises, nothing is left and `path` is untouched.

    Raises:
        PublishError: For any OSError inside the block or while publishing.
    """
    temporary = _temporary(path)
    try:
        try:
            with _created(temporary) as descriptor:
                yield descriptor
                os.fsync(descriptor)
            os.rename(temporary, path)  # noqa: PTH104  (see above)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)  # noqa: PTH108  (see above)
            raise
        _sync_folder(path.parent)
    except PublishError:
        raise
    except OSError as error:
        raise PublishError(path, error) from error


def make_folder(path: Path) -> None:
    """Create a folder and its parents.

    Raises:
        PublishError: If it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PublishError(path, error) from error


def sweep(folder: Path) -> None:
    """Remove the temporary files that dead processes of this machine have left in `folder`."""
    for entry in list(folder.iterdir()) if folder.is_dir() else []:
        match = _TEMPORARY.fullmatch(entry.name)
        if match and match["host"] == _host() and not _alive(int(match["pid"])):
            with suppress(OSError):
                entry.unlink()


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{_host()}~{os.getpid()}~{secrets.token_hex(4)}.tmp")


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname()) or "host"


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@contextmanager
def _created(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _link(temporary: Path, path: Path) -> bool:
    try:
        os.link(temporary, path)
    except FileExistsError:
        # Over NFS a repeated request answers EEXIST although the first one succeeded.
        return os.stat(temporary).st_nlink == 2  # noqa: PTH116  (see above)
    return True


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
