from __future__ import annotations

import errno
import hashlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from vggfeat.files import digests
from vggfeat.files.digests import UNREADABLE, sha256_of, user_cache
from vggfeat.files.sources import FileSource, JoinedSource, Source


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def sha256_of_each(paths: Iterable[Path], *, fresh: bool = False) -> Iterator[str]:
    return digests.sha256_of_each(map(FileSource, paths), fresh=fresh)


def files(folder: Path, count: int) -> list[Path]:
    paths = [folder / f"{n:04d}.jpg" for n in range(count)]
    for n, path in enumerate(paths):
        path.write_bytes(b"%d" % n)
    return paths


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were really hashed, in no order."""
    counted: list[Path] = []
    original = digests._hash

    def counting(source: Source) -> str:
        counted.append(Path(source.name))
        return original(source)

    monkeypatch.setattr(digests, "_hash", counting)
    return counted


def rewrite(path: Path, data: bytes) -> None:
    """Change the bytes and put the times back, as far as a program can."""
    status = path.stat()
    time.sleep(0.02)  # so that the clock of the file system has moved
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_mtime_ns == status.st_mtime_ns
    assert path.stat().st_size == status.st_size


@pytest.mark.parametrize("size", [0, 1, 1000, 3_000_000])
def test_the_digest_is_hashlib_s(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    path = tmp_path / "file"
    path.write_bytes(data)
    assert sha256_of(path) == digest(data)
    assert list(sha256_of_each([path])) == [digest(data)]


def test_the_second_time_nothing_is_read(tmp_path: Path, hashed: list[Path]) -> None:
    paths = files(tmp_path, 20)
    first = list(sha256_of_each(paths))
    assert sorted(hashed) == paths
    hashed.clear()
    assert list(sha256_of_each(reversed(paths))) == first[::-1]
    assert sha256_of(paths[3]) == first[3]
    assert hashed == []


def test_only_new_files_are_read(tmp_path: Path, hashed: list[Path]) -> None:
    paths = files(tmp_path, 6)
    list(sha256_of_each(paths[::2]))
    hashed.clear()
    assert list(sha256_of_each(paths)) == [digest(b"%d" % n) for n in range(6)]
    assert sorted(hashed) == paths[1::2]


def test_a_link_is_the_file_that_it_points_to(tmp_path: Path, hashed: list[Path]) -> None:
    (path,) = files(tmp_path, 1)
    link = tmp_path / "link.jpg"
    link.symlink_to(path)
    assert sha256_of(path) == sha256_of(link)
    assert hashed == [path]


def test_fresh_reads_again_and_remembers(tmp_path: Path, hashed: list[Path]) -> None:
    (path,) = files(tmp_path, 1)
    sha256_of(path, fresh=True)
    sha256_of(path, fresh=True)
    assert hashed == [path, path]
    assert sha256_of(path) == digest(b"0")
    assert hashed == [path, path]


def test_fresh_does_not_believe_what_is_remembered(tmp_path: Path) -> None:
    (path,) = files(tmp_path, 1)
    sha256_of(path)
    with sqlite3.connect(user_cache() / "digests.sqlite") as memory:
        memory.execute("UPDATE digest SET sha256 = ?", ("f" * 64,))
    memory.close()
    assert sha256_of(path) == "f" * 64  # so the memory is really asked
    assert sha256_of(path, fresh=True) == digest(b"0")
    assert sha256_of(path) == digest(b"0")


def test_other_bytes_of_another_size_are_noticed(tmp_path: Path) -> None:
    (path,) = files(tmp_path, 1)
    sha256_of(path)
    path.write_bytes(b"longer")
    assert sha256_of(path) == digest(b"longer")


def test_other_bytes_of_the_same_size_and_time_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"before")
    assert sha256_of(path) == digest(b"before")
    rewrite(path, b"behind")
    assert sha256_of(path) == digest(b"behind")


def test_another_file_of_the_same_name_size_and_time_is_noticed(tmp_path: Path) -> None:
    path, other = tmp_path / "file", tmp_path / "other"
    path.write_bytes(b"before")
    other.write_bytes(b"behind")
    sha256_of(path)
    status = path.stat()
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(path)
    assert path.stat().st_mtime_ns == status.st_mtime_ns
    assert sha256_of(path) == digest(b"behind")


def test_a_file_that_is_back_again_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"first")
    sha256_of(path)
    path.unlink()
    assert list(sha256_of_each([path])) == [UNREADABLE]
    path.write_bytes(b"again")
    assert sha256_of(path) == digest(b"again")


# --- files that cannot be read ------------------------------------------------------------------


def test_what_cannot_be_read_stands_in_its_place(tmp_path: Path) -> None:
    first, last = files(tmp_path, 2)
    folder, pipe, loop = (tmp_path / name for name in ("folder", "pipe", "loop"))
    folder.mkdir()
    os.mkfifo(pipe)
    loop.symlink_to(loop)
    paths = [first, tmp_path / "absent", folder, pipe, loop, last]
    expected = [digest(b"0"), *[UNREADABLE] * 4, digest(b"1")]
    assert list(sha256_of_each(paths)) == expected
    assert list(sha256_of_each(paths)) == expected
    assert list(sha256_of_each(paths, fresh=True)) == expected


def test_that_a_file_could_not_be_read_once_is_not_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = files(tmp_path, 1)
    with monkeypatch.context() as patch:
        patch.setattr(digests, "_hash", lambda _: UNREADABLE)
        assert list(sha256_of_each([path])) == [UNREADABLE]
    assert list(sha256_of_each([path])) == [digest(b"0")]


def test_one_file_that_is_not_there_raises(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        sha256_of(tmp_path / "absent")
    assert caught.value.errno == errno.ENOENT
    assert caught.value.filename == str(tmp_path / "absent")


def test_a_folder_raises(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        sha256_of(tmp_path)


def test_a_pipe_raises_and_is_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    raised: list[OSError] = []

    def work() -> None:
        try:
            sha256_of(pipe)
        except OSError as error:
            raised.append(error)

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    worker.join(5)
    waiting = worker.is_alive()
    if waiting:  # let it go
        os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
        worker.join(3)
    assert not waiting
    assert len(raised) == 1


def test_a_name_that_is_not_utf8_is_remembered(tmp_path: Path, hashed: list[Path]) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jpg"))
    path.write_bytes(b"coffee")
    assert sha256_of(path) == sha256_of(path) == digest(b"coffee")
    assert hashed == [path]


# --- many files ---------------------------------------------------------------------------------


def test_more_files_than_one_batch_come_in_order(tmp_path: Path, hashed: list[Path]) -> None:
    paths = files(tmp_path, 1003)
    expected = [digest(b"%d" % n) for n in range(1003)]
    assert list(sha256_of_each(paths)) == expected
    assert len(hashed) == 1003
    assert list(sha256_of_each(iter(paths))) == expected
    assert len(hashed) == 1003


def test_no_more_than_one_batch_is_asked_for_ahead(tmp_path: Path) -> None:
    asked = 0

    def endless() -> Iterator[Path]:
        nonlocal asked
        while True:
            asked += 1
            yield tmp_path / f"{asked}"

    stream = sha256_of_each(endless())
    assert asked == 0
    for done in range(1, 1202):
        assert next(stream) == UNREADABLE
        assert asked <= done + 500


def test_nothing_has_no_digests() -> None:
    assert list(sha256_of_each([])) == []


# --- a memory that fails ------------------------------------------------------------------------


def no_database(memory: Path) -> None:
    memory.write_bytes(b"this is no database, " * 500)


def a_torn_database(memory: Path) -> None:
    data = memory.read_bytes()
    memory.write_bytes(data[:200] + os.urandom(len(data) - 200))


def a_cut_database(memory: Path) -> None:
    memory.write_bytes(memory.read_bytes()[:5000])


def another_table(memory: Path) -> None:
    memory.unlink()
    connection = sqlite3.connect(memory)
    connection.execute("CREATE TABLE digest (path TEXT)")
    connection.commit()
    connection.close()


def a_folder(memory: Path) -> None:
    memory.unlink()
    memory.mkdir()


@pytest.mark.parametrize(
    "damage", [no_database, a_torn_database, a_cut_database, another_table, a_folder]
)
def test_a_damaged_memory_breaks_nothing(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    paths = files(tmp_path, 3)
    expected = [digest(b"%d" % n) for n in range(3)]
    assert list(sha256_of_each(paths)) == expected
    damage(user_cache() / "digests.sqlite")
    for _ in range(2):
        assert list(sha256_of_each([*paths, tmp_path / "absent"])) == [*expected, UNREADABLE]
        assert sha256_of(paths[1]) == expected[1]


def test_a_memory_that_cannot_be_kept_breaks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = files(tmp_path, 1)
    monkeypatch.setenv("XDG_CACHE_HOME", str(path))  # a file, so that no folder can be made in it
    assert sha256_of(path) == digest(b"0")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert sha256_of(path) == digest(b"0")
    assert (tmp_path / "cache" / "vggfeat" / "digests.sqlite").is_file()


def test_a_memory_that_is_full_breaks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (path,) = files(tmp_path, 1)
    connect = digests._connect

    def full() -> sqlite3.Connection:
        connection = connect()
        connection.execute("PRAGMA query_only = ON")  # every write fails
        return connection

    monkeypatch.setattr(digests, "_connect", full)
    assert sha256_of(path) == sha256_of(path) == digest(b"0")


def test_the_memory_lies_in_the_user_s_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_cache() == tmp_path / "vggfeat"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_cache() == tmp_path / ".cache" / "vggfeat"


def test_several_files_have_the_digest_of_all_their_bytes(
    tmp_path: Path, hashed: list[Path]
) -> None:
    paths = [tmp_path / name for name in ("a", "b", "c", "d")]
    parts = [b"x" * 300_000, b"", b"yz" * 200_000, b"\0"]
    for path, part in zip(paths, parts, strict=True):
        path.write_bytes(part)
    whole = digest(b"".join(parts))
    assert sha256_of(*paths) == sha256_of(*paths) == whole
    assert len(hashed) == 1  # remembered, and apart from the first file alone
    assert sha256_of(paths[0]) == digest(parts[0])
    assert sha256_of(*paths[:3]) == digest(b"".join(parts[:3]))
    paths[3].write_bytes(b"\1")
    assert sha256_of(*paths) == digest(b"".join(parts[:3]) + b"\1")
    paths[2].unlink()
    with pytest.raises(FileNotFoundError):
        sha256_of(*paths)


def test_files_one_behind_the_other_are_one_source(tmp_path: Path) -> None:
    paths = tuple(files(tmp_path, 12))
    source = JoinedSource(paths)
    assert source.name == f"{paths[0]} and 11 more"
    assert source.size() == sum(path.stat().st_size for path in paths) == 14
    with source.open() as stream:
        assert stream.read(3) + stream.read() == b"01234567891011"
    states = {source.state()}
    for path in paths[5:7]:
        path.write_bytes(b"n")
        states.add(source.state())
    assert len(states) == 3
    assert source.place() == tuple(FileSource(path).place() for path in paths)
    with pytest.raises(OSError, match="no regular file"):
        JoinedSource((paths[0], tmp_path)).open()
