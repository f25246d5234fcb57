from __future__ import annotations

import gzip
import io
import os
import re
import signal
import stat
import subprocess
import sys
import tarfile
import textwrap
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from vggfeat.errors import Interrupted, PublishError, UnsafeArchiveError
from vggfeat.files import archives
from vggfeat.files.archives import Limits
from vggfeat.files.unpack import extract, placing, read_members, unpack
from vggfeat.watch import Watch

QUIET = Watch()
TREE = {
    "set/lists/train.txt": b"000005\n000007\n",
    "set/images/000005.jpg": bytes(range(256)) * 40,
    "set/images/000007.jpg": b"",
    f"set/{'long' * 40}/{'name' * 30}.txt": b"beyond what an old header holds",
    "set/caf\N{LATIN SMALL LETTER E WITH ACUTE}.txt": b"coffee",
}


@pytest.fixture(autouse=True)
def _no_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sync", lambda: None)  # other programs write a lot


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if not p.is_dir()}


def info(name: str, kind: bytes = tarfile.REGTYPE, **fields: object) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type = kind
    for key, value in fields.items():
        setattr(member, key, value)
    return member


def tar(
    *members: tuple[tarfile.TarInfo, bytes] | tarfile.TarInfo, form: int = tarfile.GNU_FORMAT
) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=form) as archive:
        for member in members:
            header, data = member if isinstance(member, tuple) else (member, b"")
            if data:
                header.size = len(data)
            archive.addfile(header, io.BytesIO(data))
    return stream.getvalue()


def tar_of(tree: dict[str, bytes], form: int = tarfile.GNU_FORMAT) -> bytes:
    return tar(*((info(name), data) for name, data in tree.items()), form=form)


def zip_of(tree: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in tree.items():
            mode = stat.S_IFDIR | 0o755 if name.endswith("/") else stat.S_IFREG | 0o644
            archive.writestr(zip_info(name, mode, method), data)
    return stream.getvalue()


def zip_info(
    name: str, mode: int = stat.S_IFREG | 0o644, method: int = zipfile.ZIP_DEFLATED
) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name)
    member.external_attr = mode << 16
    member.compress_type = method
    return member


def put(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "archive"
    path.write_bytes(data)
    return path


def everything(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def refuse(
    tmp_path: Path,
    data: bytes,
    *,
    limits: Limits | None = None,
    select: re.Pattern[str] | None = None,
    nested: str | None = None,
) -> str:
    """Check that an archive is refused and that nothing at all is left of it."""
    archive = put(tmp_path, data)
    before = everything(tmp_path)
    with pytest.raises(UnsafeArchiveError) as caught:
        unpack(archive, tmp_path / "set", QUIET, limits=limits, select=select, nested=nested)
    assert everything(tmp_path) == before
    start = f"'{archive}' is not unpacked: "
    assert str(caught.value).startswith(start)
    return str(caught.value).removeprefix(start).split(". Expected")[0]


# --- what is good -------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("packed", [False, True])
def test_tar_archives(tmp_path: Path, form: int, packed: bool) -> None:
    tree = TREE
    if form == tarfile.USTAR_FORMAT:  # has no room for long names
        tree = {name: data for name, data in TREE.items() if len(name) < 100}
    data = tar_of(tree, form)
    unpack(put(tmp_path, gzip.compress(data) if packed else data), tmp_path / "set", QUIET)
    assert contents(tmp_path / "set") == tree


def test_a_ustar_prefix(tmp_path: Path) -> None:
    name = "/".join(["folder" * 3] * 7) + "/file.txt"
    assert len(name) > 100
    unpack(put(tmp_path, tar_of({name: b"x"}, tarfile.USTAR_FORMAT)), tmp_path / "set", QUIET)
    assert contents(tmp_path / "set") == {name: b"x"}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_zip_archives(tmp_path: Path, method: int) -> None:
    unpack(put(tmp_path, zip_of({"empty/": b"", **TREE}, method)), tmp_path / "set", QUIET)
    assert contents(tmp_path / "set") == TREE
    assert (tmp_path / "set" / "empty").is_dir()


def test_an_archive_inside_a_zip(tmp_path: Path) -> None:
    inner = gzip.compress(tar_of(TREE))
    tree = {"outer/inner.tar.gz": inner, "outer/notes.m": b"%", "__MACOSX/._x": b"\0"}
    archive = put(tmp_path, zip_of(tree))
    unpack(archive, tmp_path / "set", QUIET, nested="outer/inner.tar.gz")
    assert contents(tmp_path / "set") == TREE


@pytest.mark.parametrize("pack", [tar_of, zip_of])
def test_a_selection(tmp_path: Path, pack: Callable[[dict[str, bytes]], bytes]) -> None:
    tree = {f"./{name}": data for name, data in TREE.items()}
    select = re.compile(r"set/images/\d+\.jpg")
    unpack(put(tmp_path, pack(tree)), tmp_path / "set", QUIET, select=select)
    assert sorted(contents(tmp_path / "set")) == ["set/images/000005.jpg", "set/images/000007.jpg"]


def test_what_is_not_selected_may_be_anything_without_bytes(tmp_path: Path) -> None:
    link = info("dog/greg", tarfile.SYMTYPE, linkname="/etc")
    data = tar(link, (info("../up"), b"x"), (info("dog/1.jpg"), b"dog"))
    unpack(put(tmp_path, data), tmp_path / "set", QUIET, select=re.compile(r"dog/\d\.jpg"))
    assert contents(tmp_path / "set") == {"dog/1.jpg": b"dog"}
    assert everything(tmp_path) == ["archive", "set", "set/dog", "set/dog/1.jpg"]


def test_folders_may_come_before_and_after_their_files(tmp_path: Path) -> None:
    folder = info("a/b/", tarfile.DIRTYPE)
    data = tar(info("./", tarfile.DIRTYPE), folder, (info("a/b/c"), b"c"), folder)
    unpack(put(tmp_path, data), tmp_path / "set", QUIET)
    assert contents(tmp_path / "set") == {"a/b/c": b"c"}


def test_modes_and_owners_are_ours(tmp_path: Path) -> None:
    members: list[tuple[tarfile.TarInfo, bytes] | tarfile.TarInfo] = [
        (info("run", mode=0o6777, uid=0, gid=0), b"#!"),
        info("open", tarfile.DIRTYPE, mode=0o7777),
        info("shut", tarfile.DIRTYPE, mode=0),
        (info("shut/in", mode=0), b"x"),
    ]
    unpack(put(tmp_path, tar(*members)), tmp_path / "set", QUIET)
    modes = {
        str(p.relative_to(tmp_path / "set")): stat.S_IMODE(p.stat().st_mode)
        for p in (tmp_path / "set").rglob("*")
    }
    umask = os.umask(0o077)
    os.umask(umask)
    file, folder = 0o644 & ~umask, 0o755 & ~umask
    assert modes == {"run": file, "open": folder, "shut": folder, "shut/in": file}


def test_two_archives_in_one_folder(tmp_path: Path) -> None:
    with placing(tmp_path / "place" / "set", inside="kit/set") as folder:
        for name in ("a", "b"):
            extract(put(tmp_path, tar_of({f"kit/set/{name}": name.encode()})), folder, QUIET)
        assert not (tmp_path / "place" / "set").exists()
    assert contents(tmp_path / "place" / "set") == {"a": b"a", "b": b"b"}
    assert everything(tmp_path / "place") == ["set", "set/a", "set/b"]


# --- names --------------------------------------------------------------------------------------

BAD_NAMES = [
    ("../up", "'../up' leads outside"),
    ("a/../../up", "'a/../../up' leads outside"),
    ("a/..", "'a/..' leads outside"),
    ("/etc/cron.d/x", "'/etc/cron.d/x' is an absolute name"),
    ("//etc/x", "'//etc/x' is an absolute name"),
    ("C:evil", "'C:evil' is an absolute name"),
    ("c:\\evil", "'c:\\\\evil' is an absolute name"),
    ("a\\..\\up", "'a\\\\..\\\\up' has a character that no name should have"),
    ("a\nb", "'a\\nb' has a character that no name should have"),
    ("a\x1b[2Jb", "'a\\x1b[2Jb' has a character that no name should have"),
    ("gpj.\N{RIGHT-TO-LEFT OVERRIDE}exe", "has a character that no name should have"),
    (".", "'.' is no name of a file"),
    ("n" * 256, "is too long a name"),
    ("\N{SNOWMAN}" * 90, "is too long a name"),
    ("ab/" * 400 + "c", "is too long a name"),
    ("a/" * 40 + "c", "is too long a name"),
]


@pytest.mark.parametrize(("name", "reason"), BAD_NAMES)
def test_names_that_are_refused(tmp_path: Path, name: str, reason: str) -> None:
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        assert reason in refuse(tmp_path, tar((info(name), b"x"), form=form))
        assert reason in refuse(tmp_path, gzip.compress(tar((info(name), b"x"), form=form)))
    assert reason in refuse(tmp_path, zip_of({name: b"x"}))


def test_a_folder_has_no_bytes(tmp_path: Path) -> None:
    assert refuse(tmp_path, zip_of({"a/": b"x"})) == "folder 'a/' has bytes"
    sized = resummed(tar(info("a", tarfile.DIRTYPE)), size=1)
    assert refuse(tmp_path, sized) == "folder 'a/' has bytes"


def test_names_that_are_no_utf8(tmp_path: Path) -> None:
    data = tar_of({"caf?": b"x"}, tarfile.USTAR_FORMAT)
    assert "no name should have" in refuse(tmp_path, resummed(data.replace(b"caf?", b"caf\xe9", 1)))


def test_a_name_with_a_zero_byte(tmp_path: Path) -> None:
    evil = zip_of({"good.jpg_.exe": b"x"}).replace(b"good.jpg_", b"good.jpg\0")
    assert "no name should have" in refuse(tmp_path, evil)
    pax = tar((info("x", pax_headers={"path": "good.jpg\0.exe"}), b"x"), form=tarfile.PAX_FORMAT)
    assert "no name should have" in refuse(tmp_path, pax)


@pytest.mark.parametrize(
    "tree",
    [
        (info("a"), info("a")),
        (info("a"), info("./a")),
        (info("a/b"), info("a//b")),
        (info("a"), info("a/b")),
        (info("a/b"), info("a")),
        (info("a"), info("a", tarfile.DIRTYPE)),
    ],
)
def test_a_name_may_come_once(
    tmp_path: Path, tree: tuple[tarfile.TarInfo, tarfile.TarInfo]
) -> None:
    reason = refuse(tmp_path, tar(*tree))
    assert reason.endswith(("is there twice", "is a file and a folder"))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_may_come_once_in_a_zip(tmp_path: Path) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a.txt", b"1")
        archive.writestr("a.txt", b"2")
    assert refuse(tmp_path, stream.getvalue()) == "'a.txt' is there twice"


# --- kinds --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "member",
    [
        info("x", tarfile.SYMTYPE, linkname="/etc/passwd"),
        info("x", tarfile.SYMTYPE, linkname="y"),
        info("x", tarfile.LNKTYPE, linkname="../archive"),
        info("x", tarfile.CHRTYPE, devmajor=1, devminor=3),
        info("x", tarfile.BLKTYPE, devmajor=8, devminor=0),
        info("x", tarfile.FIFOTYPE),
        info("x", tarfile.CONTTYPE),
        info("x", tarfile.GNUTYPE_SPARSE),
        info("x", b"M"),
        info("x", b"V"),
        info("x", b"\xff"),
    ],
    ids=lambda m: repr(m.type),
)
def test_only_regular_files_and_folders(tmp_path: Path, member: tarfile.TarInfo) -> None:
    reason = "'x' is neither a regular file nor a folder"
    assert refuse(tmp_path, tar((info("before"), b"x"), member)) == reason
    # What follows such a member is read differently by different programs: refused in any case.
    data = tar((info("x", member.type, linkname="y"), b"data"))
    assert refuse(tmp_path, data, select=re.compile("nothing")) == reason


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    link = info("a", tarfile.SYMTYPE, linkname=str(outside))
    assert "'a' is neither" in refuse(tmp_path, tar(link, (info("a/evil"), b"x")))
    assert list(outside.iterdir()) == []


def test_nothing_is_written_through_a_link_that_stands_there(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "a").symlink_to(outside)
    (folder / "b").symlink_to(outside / "b")
    for name in ("a/evil", "b"):
        with pytest.raises(UnsafeArchiveError):
            extract(put(tmp_path, tar_of({name: b"x"})), folder, QUIET)
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFDIR])
def test_only_regular_files_in_a_zip(tmp_path: Path, kind: int) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr(zip_info("x", kind | 0o777), b"/etc/passwd")
    reason = refuse(tmp_path, stream.getvalue())
    assert reason == "'x' is neither a regular file nor a folder"


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressions_without_a_bound(tmp_path: Path, method: int) -> None:
    reason = refuse(tmp_path, zip_of({"x": b"x" * 100}, method))
    assert reason == "'x' is compressed in a way that cannot be bounded"


def test_an_encrypted_member(tmp_path: Path) -> None:
    data = bytearray(zip_of({"x": b"x"}))
    for signature, offset in ((b"PK\1\2", 8), (b"PK\3\4", 6)):
        data[data.index(signature) + offset] |= 1
    assert refuse(tmp_path, bytes(data)) == "'x' is encrypted"


def test_sparse_files_of_the_newer_kind(tmp_path: Path) -> None:
    headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "x"}
    data = tar((info("x", pax_headers=headers), b"0\n"), form=tarfile.PAX_FORMAT)
    assert refuse(tmp_path, data) == "it holds a sparse file"


# --- limits -------------------------------------------------------------------------------------


def test_the_limits(tmp_path: Path) -> None:
    data = tar_of({f"{n}": b"x" * 1000 for n in range(10)})
    bounds = {
        "it holds more than 9 members": Limits(members=9),
        "a member has more than 999 bytes": Limits(member_bytes=999),
        "it unpacks to more than 9,000 bytes": Limits(total_bytes=9000),
    }
    for reason, limits in bounds.items():
        assert refuse(tmp_path, data, limits=limits) == reason
        assert refuse(tmp_path, gzip.compress(data), limits=limits) == reason
    unpack(
        put(tmp_path, data),
        tmp_path / "set",
        QUIET,
        limits=Limits(members=10, member_bytes=1000, total_bytes=len(data)),
    )
    assert len(contents(tmp_path / "set")) == 10


def test_bombs(tmp_path: Path) -> None:
    zeros = bytes(40_000_000)  # 40 kB packed: a ratio of 1,000
    small = Limits(ratio=50)
    for bomb in (gzip.compress(tar_of({"x": zeros})), zip_of({"x": zeros})):
        assert len(bomb) < 60_000
        reason = refuse(tmp_path, bomb, limits=small)
        assert re.fullmatch(r"it unpacks to more than 1[6-9],\d{3},\d{3} bytes", reason)
    twice = zip_of({"in.tar.gz": gzip.compress(gzip.compress(tar_of({"x": zeros})))})
    assert "it is no tar archive" in refuse(tmp_path, twice, nested="in.tar.gz")
    inside = zip_of({"in.tar.gz": gzip.compress(tar_of({"x": zeros}))})
    assert "unpacks to more than" in refuse(tmp_path, inside, limits=small, nested="in.tar.gz")


def test_a_bomb_in_what_is_not_selected_counts(tmp_path: Path) -> None:
    bomb = gzip.compress(tar_of({"x": bytes(40_000_000)}))
    reason = refuse(tmp_path, bomb, limits=Limits(ratio=50), select=re.compile("y"))
    assert "unpacks to more than" in reason


def test_what_a_zip_says_of_a_size_is_not_believed(tmp_path: Path) -> None:
    data = bytearray(zip_of({"x": bytes(1_000_000)}))
    for signature, offset in ((b"PK\1\2", 24), (b"PK\3\4", 22)):
        at = data.index(signature) + offset
        data[at : at + 4] = (1000).to_bytes(4, "little")
    assert refuse(tmp_path, bytes(data)).startswith("it is damaged (Bad CRC-32")


def test_a_header_may_not_be_long(tmp_path: Path) -> None:
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        data = tar((info("x" * 70_000), b"x"), form=form)
        assert refuse(tmp_path, data) == "it has a header that is too long"
    lies = resummed(tar(info("@LongLink", tarfile.GNUTYPE_LONGNAME, size=0)), size=1 << 60)
    assert refuse(tmp_path, lies) == "it has a header that is too long"


def test_headers_without_end_are_counted(tmp_path: Path) -> None:
    block = tar(info("@LongLink", tarfile.GNUTYPE_LONGNAME))[:512]
    reason = refuse(tmp_path, block * 1000, limits=Limits(members=500))
    assert reason == "it holds more than 500 members"


def test_a_long_table_of_contents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "_DIRECTORY", 100_000)
    data = zip_of({f"{n:0200}": b"" for n in range(600)})
    assert refuse(tmp_path, data) == "its table of contents is too long"


# --- damage -------------------------------------------------------------------------------------


def resummed(data: bytes, **fields: int) -> bytes:
    """Return an archive whose first header is sound again."""
    header = bytearray(data[:512])
    if "size" in fields:
        header[124:136] = b"\x80" + fields["size"].to_bytes(11, "big")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + data[512:]


@pytest.mark.parametrize("pack", [tar_of, lambda t: gzip.compress(tar_of(t)), zip_of])
def test_every_truncation_is_refused(
    tmp_path: Path, pack: Callable[[dict[str, bytes]], bytes]
) -> None:
    data = pack({"a": b"x" * 700, "b": bytes(range(256)) * 3})
    end = len(data) if data[:1] != b"a" else 3 * 1024 + 512  # what follows is padding
    archive = tmp_path / "archive"
    for cut in [*range(0, end, 97), end - 513, end - 1]:
        archive.write_bytes(data[:cut])
        with pytest.raises(UnsafeArchiveError):
            unpack(archive, tmp_path / "set", QUIET)
        assert everything(tmp_path) == ["archive"]


@pytest.mark.parametrize(
    "data",
    [b"", b"x" * 5000, b"\x1f\x8b", b"PK", b"PK\3\4" + b"x" * 100, gzip.compress(b"x" * 5000)],
    ids=["empty", "text", "gzip-magic", "zip-magic", "zip-head", "gzip-of-text"],
)
def test_what_is_no_archive(tmp_path: Path, data: bytes) -> None:
    assert refuse(tmp_path, data)


def test_a_changed_byte_is_noticed_where_there_are_checksums(tmp_path: Path) -> None:
    tree = {"a": os.urandom(5000)}
    for data in (gzip.compress(tar_of(tree)), zip_of(tree)):
        damaged = bytearray(data)
        damaged[len(damaged) // 2] ^= 1
        assert "damaged" in refuse(tmp_path, bytes(damaged))


def test_no_archive_at_all(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("nothing", "pipe", "."):
        with pytest.raises(UnsafeArchiveError, match="it is no regular file"):
            unpack(tmp_path / name, tmp_path / "set", QUIET)


def test_a_nested_archive_that_is_not_there(tmp_path: Path) -> None:
    assert refuse(tmp_path, zip_of({"a": b"x"}), nested="b") == "it holds no 'b'"
    assert refuse(tmp_path, tar_of({"a": b"x"}), nested="b") == "it is no zip"


@pytest.mark.parametrize(
    "records", [b"9 path=x", b"99 path=x\n", b"0 path=x\n", b"x", b"11 size=-5\n", b"9 size=\n"]
)
def test_damaged_headers(tmp_path: Path, records: bytes) -> None:
    data = tar((info("pax", tarfile.XHDTYPE), records), (info("x"), b"x"))
    assert refuse(tmp_path, data) in {
        "it has a damaged header",
        "a header has a number that is none",
    }


def test_one_name_for_all(tmp_path: Path) -> None:
    data = tar((info("pax", tarfile.XGLTYPE), b"10 path=x\n"), (info("y"), b"x"))
    assert refuse(tmp_path, data) == "it gives all its members one name or size"
    data = tar((info("pax", tarfile.XGLTYPE), b"13 comment=x\n"), (info("y"), b"x"))
    unpack(put(tmp_path, data), tmp_path / "set", QUIET)
    assert contents(tmp_path / "set") == {"y": b"x"}


SEEDS = [
    tar_of(TREE),
    tar_of(TREE, tarfile.PAX_FORMAT),
    gzip.compress(tar_of(TREE), mtime=0),
    zip_of(TREE),
    tar((info("a", tarfile.SYMTYPE, linkname="/tmp"), b""), (info("a/b"), b"x")),
]
NESTED = zip_of({"in.tar.gz": SEEDS[2]}, zipfile.ZIP_STORED)


@pytest.mark.slow
@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    seed=st.sampled_from([*SEEDS, NESTED]),
    changes=st.lists(
        st.tuples(st.integers(0, 1 << 16), st.binary(min_size=0, max_size=6)), max_size=6
    ),
    sound=st.booleans(),
    cut=st.none() | st.integers(0, 1 << 16),
)
@example(seed=SEEDS[0], changes=[(124, b"\x80\xff\xff\xff")], sound=True, cut=None)
@example(seed=SEEDS[0], changes=[(124, b"\xff" * 12)], sound=True, cut=None)
def test_mutated_archives_raise_only_typed_errors_and_stay_inside(
    tmp_path_factory: pytest.TempPathFactory,
    seed: bytes,
    changes: list[tuple[int, bytes]],
    sound: bool,
    cut: int | None,
) -> None:
    data = bytearray(seed)
    for place, new in changes:
        at = place % len(data)
        data[at : at + len(new)] = new
    data = data[: None if cut is None else cut % len(data)]
    mutated = resummed(bytes(data)) if sound and len(data) > 512 else bytes(data)
    folder = tmp_path_factory.mktemp("fuzz")
    archive = put(folder, mutated)
    nested = "in.tar.gz" if seed is NESTED else None
    try:
        unpack(archive, folder / "set", QUIET, nested=nested, limits=Limits(total_bytes=1 << 20))
    except (UnsafeArchiveError, PublishError):
        assert everything(folder) == ["archive"]
    else:
        assert {path.name for path in folder.iterdir()} == {"archive", "set"}
        for path in (folder / "set").rglob("*"):
            assert stat.S_IFMT(path.lstat().st_mode) in {stat.S_IFREG, stat.S_IFDIR}
        if nested is None:
            held = read_members("archive", mutated, Limits(total_bytes=1 << 20))
            assert held == contents(folder / "set")


# --- into memory --------------------------------------------------------------------------------


@pytest.mark.parametrize("archive", SEEDS[:4], ids=["tar", "pax", "gzip", "zip"])
def test_an_archive_is_read_into_memory(archive: bytes) -> None:
    assert read_members("x", archive, Limits()) == TREE


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (SEEDS[4], "'a' is neither a regular file nor a folder"),
        (tar((info("../a"), b"x")), "'../a' leads outside"),
        (tar((info("a"), b"x"), (info("./a"), b"y")), "'./a' is there twice"),
        (tar((info("a"), bytes(1025))), "a member has more than 1,024 bytes"),
        (zip_of({"a": bytes(1025)}), "a member has more than 1,024 bytes"),
        (tar(*((info(f"a{n}"), b"") for n in range(9))), "it holds more than 8 members"),
        (gzip.compress(tar_of({"a": bytes(1024)}) * 99), "it unpacks to more than 8,192 bytes"),
        (b"x", "it ends in the middle"),
    ],
)
def test_reading_into_memory_has_the_same_rules(data: bytes, reason: str) -> None:
    limits = Limits(members=8, member_bytes=1024, total_bytes=8192)
    with pytest.raises(UnsafeArchiveError) as caught:
        read_members("x", data, limits)
    assert caught.value.reason == reason


# --- places, stops and kills --------------------------------------------------------------------


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    archive = put(tmp_path, tar_of(TREE))
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "mine").write_text("mine")
    with pytest.raises(PublishError, match="something stands there"):
        unpack(archive, tmp_path / "set", QUIET)
    assert everything(tmp_path) == ["archive", "set", "set/mine"]


def test_what_appears_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    with pytest.raises(PublishError), placing(tmp_path / "set") as folder:
        (folder / "new").write_text("new")
        (tmp_path / "set").mkdir()
        (tmp_path / "set" / "mine").write_text("mine")
    assert everything(tmp_path) == ["set", "set/mine"]


def test_one_process_at_a_time(tmp_path: Path) -> None:
    archive = put(tmp_path, tar_of(TREE))
    with (
        placing(tmp_path / "set"),
        pytest.raises(PublishError, match="another process is unpacking"),
    ):
        unpack(archive, tmp_path / "set", QUIET)


class Stopping(Watch):
    def stop_signal(self) -> int | None:
        return signal.SIGTERM


def test_a_stop_leaves_nothing(tmp_path: Path) -> None:
    archive = put(tmp_path, tar_of(TREE))
    with pytest.raises(Interrupted, match="it unpacks from the start"):
        unpack(archive, tmp_path / "set", Stopping())
    assert everything(tmp_path) == ["archive"]


def test_progress_is_in_bytes_of_the_archive(tmp_path: Path) -> None:
    archive = put(tmp_path, tar_of(TREE))
    size = archive.stat().st_size
    steps: list[tuple[str, int, str]] = []
    counted: list[int] = []

    class Recording(Watch):
        @contextmanager
        def step(self, title: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
            steps.append((title, total, unit))
            yield counted.append

    unpack(archive, tmp_path / "set", Recording())
    assert steps == [("unpack archive", size, "bytes")]
    assert sum(counted) == size + 4  # the first four are read twice


def test_a_full_disk_is_a_typed_error_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = put(tmp_path, tar_of(TREE))

    def full(descriptor: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(PublishError, match="No room for"):
        unpack(archive, tmp_path / "set", QUIET)
    assert everything(tmp_path) == ["archive"]


def test_killed_while_unpacking_nothing_has_the_name_and_the_next_run_sweeps(
    tmp_path: Path,
) -> None:
    tree = {f"{n % 7}/{n}.jpg": bytes([n % 256]) * 1000 for n in range(400)}
    archive = put(tmp_path, tar_of(tree))
    code = f"""
        import os, time
        from pathlib import Path
        from vggfeat.watch import Watch
        from vggfeat.files.unpack import unpack
        write = os.write
        os.write = lambda *a: (time.sleep(0.001), write(*a))[1]
        unpack(Path({str(archive)!r}), Path({str(tmp_path / "set")!r}), Watch())
    """
    staging = tmp_path / ".set.unpacking"
    for least in (1, 50, 150):
        process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)])
        end = time.monotonic() + 10
        unpacked = 0
        while unpacked < least and time.monotonic() < end:
            with suppress(FileNotFoundError):  # it is sweeping what the one before has left
                unpacked = len(list(staging.glob("*/*")))
        process.kill()
        assert process.wait() == -signal.SIGKILL
        assert not (tmp_path / "set").exists()
        assert 0 < len(contents(staging)) <= 400
    unpack(archive, tmp_path / "set", QUIET)
    assert contents(tmp_path / "set") == tree
    assert {path.name for path in tmp_path.iterdir()} == {"archive", "set"}


def test_threads_of_one_process_exclude_each_other_too(tmp_path: Path) -> None:
    archive = put(tmp_path, tar_of(TREE))
    outcomes: list[str] = []

    def work() -> None:
        try:
            unpack(archive, tmp_path / "set", QUIET)
        except PublishError:
            outcomes.append("refused")
        else:
            outcomes.append("done")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["done", "refused", "refused", "refused"]
    assert contents(tmp_path / "set") == TREE


def test_a_deflate_stream_of_nothing_costs_no_memory(tmp_path: Path) -> None:
    empty = zlib.compressobj(wbits=31)
    stream = b"".join(empty.flush(zlib.Z_FULL_FLUSH) for _ in range(20_000))
    assert refuse(tmp_path, stream + empty.flush()) == "it ends in the middle"
