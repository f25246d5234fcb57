"""SHA-256 of files, remembered by path, size, times and inode, so that nothing is hashed twice.

What `Source.state` returns of other sources is remembered in the same way.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import sqlite3
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import islice
from pathlib import Path

from vggfeat.files.sources import FileSource, JoinedSource, Source, State

_log = logging.getLogger(__name__)

_TABLE = """CREATE TABLE IF NOT EXISTS digest
    (path TEXT PRIMARY KEY, size INTEGER, mtime INTEGER, ctime INTEGER, inode INTEGER, sha256 TEXT)
"""
_BATCH = 500  # files per transaction
_BLOCK = 1 << 18  # bytes read at once
UNREADABLE = "0" * 64  # stands for the digest of a file that cannot be read


def user_cache() -> Path:
    """Return the folder for what may be deleted at any time (XDG_CACHE_HOME)."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vggfeat"


def sha256_of(path: Path, *others: Path, fresh: bool = False) -> str:
    """Return the SHA-256 of one file, 64 hexadecimal digits, or of several one behind the other.

    Args:
        path: The file.
        others: That follow it, as if they were one file.
        fresh: Hash them even if they look unchanged.

    Raises:
        OSError: If one cannot be read.
    """
    source = JoinedSource((path, *others)) if others else FileSource(path)
    digest = next(sha256_of_each([source], fresh=fresh))
    if digest == UNREADABLE:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise OSError(errno.EINVAL, "no regular file", str(path))
        for one in (path, *others):
            one.open("rb").close()  # says why it cannot be read
    return digest


def sha256_of_each(sources: Iterable[Source], *, fresh: bool = False) -> Iterator[str]:
    """Yield the SHA-256 of each source, in order; memory does not grow with their number.

    Args:
        sources: What is hashed.
        fresh: Hash them even if they look unchanged.

    Yields:
        64 hexadecimal digits each; `UNREADABLE` for what cannot be read.
    """
    rest = iter(sources)
    with closing(_connect()) as known, ThreadPoolExecutor() as pool:
        while batch := list(islice(rest, _BATCH)):
            keys = [_key(source) for source in batch]
            found = [None if fresh or key is None else _look_up(known, key) for key in keys]
            absent = [i for i, digest in enumerate(found) if digest is None]
            hashed = dict(zip(absent, pool.map(_hash, [batch[i] for i in absent]), strict=True))
            sound = [i for i, digest in hashed.items() if digest != UNREADABLE]
            _remember(known, [(*key, hashed[i]) for i in sound if (key := keys[i]) is not None])
            yield from (digest or hashed[i] for i, digest in enumerate(found))


def _key(source: Source) -> State | None:
    try:
        return source.state()
    except OSError:
        return None


def _hash(source: Source) -> str:
    try:
        with source.open() as stream:
            digest = hashlib.sha256()
            while block := stream.read(_BLOCK):
                digest.update(block)
            return digest.hexdigest()
    except OSError:
        return UNREADABLE


def _connect() -> sqlite3.Connection:
    """Open the memory, or a forgetful one where none can be kept: it only saves time."""
    place = user_cache() / "digests.sqlite"
    for name in (str(place), ":memory:"):
        connection = None
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(name, timeout=10)
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute(_TABLE)
        except (OSError, sqlite3.Error) as error:
            _log.debug("digests are not remembered: %s", error)
            if connection is not None:
                connection.close()
        else:
            return connection
    return sqlite3.connect(":memory:")


def _look_up(known: sqlite3.Connection, key: State) -> str | None:
    try:
        row = known.execute(
            "SELECT sha256 FROM digest WHERE path=? AND size=? AND mtime=? AND ctime=? AND inode=?",
            key,
        ).fetchone()
    except sqlite3.Error as error:
        _log.debug("a digest could not be looked up: %s", error)
        return None
    return str(row[0]) if row else None


def _remember(known: sqlite3.Connection, rows: list[tuple[object, ...]]) -> None:
    try:
        with known:
            known.executemany("INSERT OR REPLACE INTO digest VALUES (?, ?, ?, ?, ?, ?)", rows)
    except sqlite3.Error as error:
        _log.debug("digests are not remembered: %s", error)
