"""An image is whatever can be opened: here members of a tar archive beside files on disk."""

from __future__ import annotations

import io
import os
import sys
import tarfile
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO, cast

import pytest
from PIL import Image

from tests.conftest import photo
from vggfeat.data.folder import open_folder
from vggfeat.data.names import PATTERNS, NamedDataset, Wanted
from vggfeat.data.records import Dataset, Item, manifest_digest
from vggfeat.errors import ImageReadError
from vggfeat.extraction.images import picture, read_bytes, read_size
from vggfeat.extraction.workers import extract
from vggfeat.files import digests
from vggfeat.files.digests import UNREADABLE, sha256_of_each
from vggfeat.files.sources import FileSource, Source, State
from vggfeat.recipe import Machine, Recipe
from vggfeat.watch import Watch


@dataclass(frozen=True, slots=True)
class Member:
    """One file of a tar archive that is not packed."""

    archive: Path
    start: int
    count: int

    @property
    def name(self) -> str:
        return f"{self.archive}@{self.start}"

    def open(self) -> BinaryIO:
        with self.archive.open("rb") as stream:
            stream.seek(self.start)
            return io.BytesIO(stream.read(self.count))

    def size(self) -> int:
        return self.count

    def state(self) -> State:
        status = self.archive.stat()
        return self.name, self.count, status.st_mtime_ns, status.st_ctime_ns, status.st_ino

    def place(self) -> Hashable:
        return self.archive, self.start


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of two classes, and an archive of the same files beside it."""
    root = tmp_path / "photos"
    for k, name in enumerate(("cat", "dog")):
        (root / name).mkdir(parents=True)
        for n in range(4):
            Image.fromarray(photo(90, 100 + n, seed=10 * k + n)).save(root / name / f"{n}.png")
    with tarfile.open(tmp_path / "photos.tar", "w") as archive:
        archive.add(root, "")
    return root


def members(archive: Path) -> dict[str, Member]:
    with tarfile.open(archive) as opened:
        return {
            one.name: Member(archive, one.offset_data, one.size) for one in opened if one.isreg()
        }


def items_of(root: Path) -> tuple[list[Item], list[Item]]:
    """Return the same images as files and as members."""
    dataset = open_folder(Wanted(name="folder:x", root=root))
    inside = members(root.with_name("photos.tar"))
    return list(dataset.items), [Item(item.id, inside[item.id]) for item in dataset.items]


def test_a_member_is_read_as_a_file_is(photos: Path) -> None:
    for file, member in zip(*items_of(photos), strict=True):
        assert read_bytes(file) == read_bytes(member)
        assert read_size(file) == read_size(member)
        assert picture(file, whole=True) == picture(member, whole=True)
        boxed = [Item(i.id, i.source, (2, 3, 40, 50), "x") for i in (file, member)]
        assert picture(boxed[0], whole=False) == picture(boxed[1], whole=False)


def test_a_member_is_hashed_as_a_file_is_and_remembered(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, inside = items_of(photos)
    expected = list(sha256_of_each(item.source for item in files))
    assert list(sha256_of_each(item.source for item in inside)) == expected
    assert manifest_digest(files, expected) == manifest_digest(inside, expected)
    monkeypatch.setattr(digests, "_hash", lambda _: UNREADABLE)
    assert list(sha256_of_each(item.source for item in inside)) == expected
    os.utime(photos.with_name("photos.tar"))
    assert set(sha256_of_each(item.source for item in inside)) == {UNREADABLE}


def test_the_store_of_members_is_that_of_files(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def open_archive(wanted: Wanted) -> Dataset:
        files = open_folder(Wanted(name=wanted.name, root=wanted.root.with_suffix("")))
        inside = members(wanted.root)
        return Dataset(
            name=files.name,
            kind=files.kind,
            classes=files.classes,
            items=tuple(Item(item.id, inside[item.id]) for item in files.items),
            splits=files.splits,
        )

    module = ModuleType("vggfeat.data.archive")
    vars(module)["open_archive"] = open_archive
    monkeypatch.setitem(sys.modules, module.__name__, module)
    record = NamedDataset(
        opener="archive:open_archive",
        scales=(224,),
        aggregate="stack",
        measure="mean_class_recall",
        one_class=True,
    )
    monkeypatch.setitem(cast("dict[str, NamedDataset]", PATTERNS), "tar", record)
    held = []
    for name in (f"folder:{photos}", f"tar:{photos}.tar"):
        values = {"dataset": name, "models": "vgg16-thin", "weights": "random:0", "scales": [224]}
        cache = tmp_path / name.partition(":")[0]
        [path] = extract(Recipe.build(values, "a test"), Machine(cache=cache), Watch())
        held.append(path)
    first, second = (path.read_bytes() for path in held)
    assert held[0].parent.name[-8:] == held[1].parent.name[-8:]  # the fingerprint
    assert first == second


# --- files --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_item_can_be_sent_to_another_process(
    tmp_path: Path, elsewhere: Callable[[Any], Any]
) -> None:
    for source in (FileSource(tmp_path / "a.jpg"), Member(tmp_path / "a.tar", 512, 3)):
        item = Item("a/1", source, (1, 2, 3, 4), "a")
        back = elsewhere(item)
        assert back == item
        assert back is not item
        assert hash(back.source) == hash(source)


def test_a_file_tells_its_size_its_state_and_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    (tmp_path / "link").symlink_to("a")
    source: Source = FileSource(tmp_path / "link")
    status = path.stat()
    assert source.size() == 3
    with source.open() as stream:
        assert (stream.read(2), stream.seek(0), stream.read()) == (b"ab", 0, b"abc")
    times = status.st_mtime_ns, status.st_ctime_ns
    assert source.state() == (str(path.resolve()), 3, *times, status.st_ino)
    assert source.name == str(tmp_path / "link")


def test_links_and_detours_are_one_place_and_copies_are_not(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"abc")
    (tmp_path / "sub").mkdir()
    (tmp_path / "link").symlink_to("a")
    (tmp_path / "hard").hardlink_to(path)
    (tmp_path / "copy").write_bytes(b"abc")
    for same in ("link", "hard", "sub/../a"):
        assert FileSource(tmp_path / same).place() == FileSource(path).place()
    assert FileSource(tmp_path / "copy").place() != FileSource(path).place()
    absent = [FileSource(tmp_path / name).place() for name in ("x", "sub/../x", "y")]
    assert absent[0] == absent[1] != absent[2]


def test_a_source_that_cannot_be_opened_is_an_unreadable_image(tmp_path: Path) -> None:
    item = Item("x", Member(tmp_path / "absent.tar", 0, 3))
    for read in (read_bytes, read_size):
        with pytest.raises(ImageReadError, match="No such file"):
            read(item)
    assert list(sha256_of_each([item.source])) == [UNREADABLE]
    empty = tmp_path / "empty.tar"
    empty.touch()
    with pytest.raises(ImageReadError, match="it is empty"):
        read_size(Item("x", Member(empty, 0, 0)))
