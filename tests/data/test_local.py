from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

import pytest

from tests.files.test_unpack import contents, tar_of, zip_of
from vggfeat.data import catalogue as module
from vggfeat.data import open_dataset
from vggfeat.data.catalogue import PublishedDataset, published
from vggfeat.data.local import fetch_dataset, lacking, verify_dataset
from vggfeat.errors import (
    DatasetError,
    DownloadError,
    Interrupted,
    RecipeError,
    UnsafeArchiveError,
)
from vggfeat.files.examine import State
from vggfeat.watch import Watch

QUIET = Watch()
JPEG = b"\xff\xd8\xff\xe0 not quite a picture"
PARTS = {"train": ["000005", "000007"], "val": ["000009"], "test": ["000001", "000002"]}


def voc(year: int, *parts: str) -> dict[str, bytes]:
    """Return what an archive of VOC holds, with few images."""
    root = f"VOCdevkit/VOC{year}"
    tree = {}
    for part in parts:
        text = "".join(f"{image}\n" for image in PARTS[part])
        tree[f"{root}/ImageSets/Main/{part}.txt"] = text.encode()
        tree |= {f"{root}/JPEGImages/{image}.jpg": JPEG for image in PARTS[part]}
    both = "".join(f"{image}\n" for part in parts for image in PARTS[part])
    name = "trainval" if "train" in parts else "tests"
    tree[f"{root}/ImageSets/Main/{name}.txt"] = both.encode()
    actions = "".join(f"{image}  {n}\n" for image in PARTS["train"] for n in (1, 2))
    tree[f"{root}/ImageSets/Action/{name}.txt"] = actions.encode()
    return tree


def caltech(number: int) -> dict[str, bytes]:
    root = f"{number}_ObjectCategories"
    folders = {"accordion": 3, "BACKGROUND_Google": 2}
    tree = {
        f"{root}/{folder}/image_{n:04d}.jpg": JPEG + folder.encode()
        for folder, count in folders.items()
        for n in range(1, count + 1)
    }
    return tree | {f"{root}/BACKGROUND_Google/tmp": b"", f"{root}/accordion/._image_0001.jpg": b"x"}


def archives() -> dict[str, bytes]:
    packed = gzip.compress(tar_of(caltech(101)), mtime=0)
    return {
        "trainval.tar": tar_of(voc(2007, "train", "val")),
        "test.tar": tar_of(voc(2007, "test")),
        "trainval2012.tar": tar_of(voc(2012, "train", "val")),
        "caltech-101.zip": zip_of(
            {"caltech-101/101_ObjectCategories.tar.gz": packed, "__MACOSX/._x": b"x"}
        ),
        "101_ObjectCategories.tar.gz": packed,
        "256_ObjectCategories.tar": tar_of(caltech(256)),
    }


class Handler(SimpleHTTPRequestHandler):
    asked: ClassVar[list[str]]

    def do_GET(self) -> None:
        self.asked.append(self.path.removeprefix("/"))
        super().do_GET()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """The folder that the server serves."""
    path = tmp_path / "shelf"
    path.mkdir()
    for name, data in archives().items():
        (path / name).write_bytes(data)
    return path


@pytest.fixture
def asked(shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A catalogue like the real one, of few images; yields the names that were asked for."""
    monkeypatch.setattr(os, "sync", lambda: None)  # other programs write a lot

    class Recording(Handler):
        asked: ClassVar[list[str]] = []

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Recording, directory=str(shelf))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        text = catalogue(f"http://127.0.0.1:{server.server_port}", shelf)
        (tmp_path / "catalogue.toml").write_text(text)
        monkeypatch.setattr(module, "_CATALOGUE", tmp_path / "catalogue.toml")
        yield Recording.asked
        server.shutdown()
        thread.join()


def catalogue(host: str, shelf: Path) -> str:
    """Return the real catalogue with other places, digests and counts."""
    of = {
        "VOCtrainval_06-Nov-2007.tar": "trainval.tar",
        "VOCtest_06-Nov-2007.tar": "test.tar",
        "VOCtrainval_11-May-2012.tar": "trainval2012.tar",
    }
    counts = {9963: 5, 17125: 3, 9144: 5, 30607: 5, 102: 2, 257: 2}
    counts |= {2501: 2, 2510: 1, 5011: 3, 4952: 2, 5717: 2, 5823: 1, 11540: 3, 4588: 2}
    lines = []
    for line in module._CATALOGUE.read_text("utf-8").splitlines():
        key, _, value = line.partition(" = ")
        if key == "name":
            name = value.strip('"')
            if (shelf / of.get(name, name)).is_file():
                data = (shelf / of.get(name, name)).read_bytes()
                url = f"{host}/{of.get(name, name)}"
                digest = hashlib.sha256(data).hexdigest()
                lines += [line, f'urls = ["{url}"]', f"bytes = {len(data)}", f'sha256 = "{digest}"']
                continue
        if key in {"bytes", "sha256", "md5", "urls"} or line in {"]"} or '    "http' in line:
            continue
        if key in {'"ImageSets/Action/train.txt"', '"ImageSets/Action/val.txt"'}:
            continue  # the small set has but one list of actions
        for real, few in counts.items():
            if key == "images" or key.startswith('"ImageSets'):
                line = line.replace(f"= {real}", f"= {few}")  # noqa: PLW2901  (a line of text)
        lines.append(line)
    return "\n".join(lines)


def found(name: str, root: Path) -> tuple[State, str]:
    examined = verify_dataset(name, root)
    assert "\n" not in examined.line
    return examined.state, examined.line


# --- the catalogue itself -----------------------------------------------------------------------


def by_name() -> dict[str, PublishedDataset]:
    return {dataset.name: dataset for dataset in published()}


def test_the_data_sets_and_their_sizes() -> None:
    counts = {n: (d.image_count, d.class_count, d.download_bytes) for n, d in by_name().items()}
    assert counts == {
        "voc2007": (9963, 0, 460_032_000 + 451_020_800),
        "voc2012": (17125, 0, 1_999_639_040),
        "voc2012-action": (17125, 0, 1_999_639_040),
        "caltech101": (9144, 102, 137_414_764),
        "caltech256": (30607, 257, 1_183_006_720),
    }
    lists = by_name()["voc2007"].lists
    assert list(lists.values()) == [2501, 2510, 5011, 4952]
    assert lists["ImageSets/Main/trainval.txt"] == 5011
    assert list(by_name()["voc2012"].lists.values()) == [5717, 5823, 11540]
    assert list(by_name()["voc2012-action"].lists.values()) == [2296, 2292, 4588]


@pytest.mark.parametrize("dataset", published(), ids=lambda d: d.name)
def test_every_entry_is_complete(dataset: PublishedDataset) -> None:
    assert dataset.licence
    assert dataset.citation
    assert dataset.homepage.startswith("http")
    assert dataset.archives
    for archive in dataset.archives:
        assert archive.file.size
        assert len(archive.file.digests["sha256"]) == 64
        assert len(archive.file.digests["md5"]) == 32
        assert {urlsplit(url).scheme for url in archive.file.urls} <= {"http", "https"}
        assert archive.file.name == Path(archive.file.name).name
    readme = Path(__file__).resolve().parents[2] / "datasets" / dataset.name / "README.md"
    text = readme.read_text("utf-8")
    assert f"vggfeat datasets fetch {dataset.name}" in text
    assert f"datasets/{dataset.place}/" in text
    for archive in dataset.archives:
        assert archive.file.name in text


def test_the_test_images_of_2012_need_an_account() -> None:
    assert "account" in by_name()["voc2012"].note
    assert by_name()["voc2012-action"].note == by_name()["voc2012"].note
    assert by_name()["voc2007"].note == ""


def test_another_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"Did you mean 'voc2007'\?"):
        fetch_dataset("voc2006", tmp_path, QUIET)
    with pytest.raises(RecipeError, match="No published data set 'x'"):
        verify_dataset("x", tmp_path)


def test_the_real_images_of_caltech101_are_all_there(shared: Path) -> None:
    state, detail = found("caltech101", shared)
    place = shared / "caltech101" / "101_ObjectCategories"
    assert (state, detail) == (State.GOOD, f"'{place}': 9,144 images")


def test_the_real_lists_of_voc2007_have_the_published_lengths(shared: Path, tmp_path: Path) -> None:
    lists = shared / "voc2007-imagesets" / "VOC2007"
    (tmp_path / "VOC2007").mkdir()
    (tmp_path / "VOC2007" / "ImageSets").symlink_to(lists / "ImageSets")
    state, detail = found("voc2007", tmp_path)
    assert state is State.PARTIAL
    assert "0 of 9,963 images, 000001 of the lists is missing; type `mv " in detail


# --- fetch --------------------------------------------------------------------------------------


def test_two_archives_become_one_tree(asked: list[str], tmp_path: Path) -> None:
    root = tmp_path / "data"
    place = fetch_dataset("voc2007", root, QUIET)
    assert place == root / "VOCdevkit" / "VOC2007"
    assert contents(root / "VOCdevkit") == {
        name.removeprefix("VOCdevkit/"): data
        for name, data in (voc(2007, "train", "val") | voc(2007, "test")).items()
    }
    assert asked == ["trainval.tar", "test.tar"]
    assert {path.name for path in root.iterdir()} == {"VOCdevkit", "archives"}
    assert found("voc2007", root) == (State.GOOD, f"'{place}': 5 images")
    assert fetch_dataset("voc2007", root, QUIET) == place
    assert len(asked) == 2


def test_both_tasks_of_2012_are_one_tree(asked: list[str], tmp_path: Path) -> None:
    place = fetch_dataset("voc2012-action", tmp_path, QUIET)
    assert fetch_dataset("voc2012", tmp_path, QUIET) == place == tmp_path / "VOCdevkit/VOC2012"
    assert asked == ["trainval2012.tar"]
    for name in ("voc2012", "voc2012-action"):
        assert found(name, tmp_path) == (State.GOOD, f"'{place}': 3 images")
    (place / "JPEGImages" / "2012_000001.jpg").write_bytes(JPEG)  # of the test set
    assert found("voc2012", tmp_path) == (State.GOOD, f"'{place}': 4 images")


@pytest.mark.parametrize("number", [101, 256])
def test_caltech_keeps_only_its_images(asked: list[str], tmp_path: Path, number: int) -> None:
    place = fetch_dataset(f"caltech{number}", tmp_path, QUIET)
    assert place == tmp_path / f"caltech{number}" / f"{number}_ObjectCategories"
    images = {
        name.partition("/")[2]: data
        for name, data in caltech(number).items()
        if name.endswith(".jpg") and "._" not in name
    }
    assert len(images) == 5
    assert contents(place) == images
    assert len(asked) == 1


def test_another_archive_of_the_same_images_will_do(
    asked: list[str], shelf: Path, tmp_path: Path
) -> None:
    (shelf / "caltech-101.zip").unlink()
    assert fetch_dataset("caltech101", tmp_path, QUIET).is_dir()
    assert asked == ["caltech-101.zip", "101_ObjectCategories.tar.gz"]


def test_an_archive_that_is_there_is_not_asked_for(
    asked: list[str], shelf: Path, tmp_path: Path
) -> None:
    (tmp_path / "archives").mkdir()
    (shelf / "101_ObjectCategories.tar.gz").rename(
        tmp_path / "archives" / "101_ObjectCategories.tar.gz"
    )
    assert fetch_dataset("caltech101", tmp_path, QUIET).is_dir()
    assert asked == []


def test_no_archive_at_all_names_every_place(asked: list[str], shelf: Path, tmp_path: Path) -> None:
    (shelf / "caltech-101.zip").unlink()
    (shelf / "101_ObjectCategories.tar.gz").unlink()
    with pytest.raises(DownloadError) as caught:
        fetch_dataset("caltech101", tmp_path, QUIET)
    for name in ("caltech-101.zip", "101_ObjectCategories.tar.gz"):
        assert f"/{name} (answers 404 File not found)" in str(caught.value)


@pytest.mark.parametrize("layout", ["VOCdevkit/VOC2007", "VOC2007", "."])
def test_data_that_are_there_are_recognised(asked: list[str], tmp_path: Path, layout: str) -> None:
    place = fetch_dataset("voc2007", tmp_path / "fetched", QUIET)
    root = tmp_path / "mine"
    root.mkdir()
    (root / layout).parent.mkdir(parents=True, exist_ok=True)
    if layout == ".":
        root.rmdir()
    place.rename(root / layout)
    asked.clear()
    assert fetch_dataset("voc2007", root, QUIET) == root / layout
    assert found("voc2007", root) == (State.GOOD, f"'{root / layout}': 5 images")
    assert asked == []


def test_data_that_are_not_whole_are_never_overwritten(asked: list[str], tmp_path: Path) -> None:
    place = fetch_dataset("voc2007", tmp_path, QUIET)
    (place / "ImageSets" / "Main" / "test.txt").unlink()
    asked.clear()
    with pytest.raises(DatasetError) as caught:
        fetch_dataset("voc2007", tmp_path, QUIET)
    assert str(caught.value) == (
        f"'{place}' is not the whole of PASCAL VOC 2007: ImageSets/Main/test.txt is missing. "
        "What is there is never overwritten. "
        f"Type `mv '{place}' '{place}.old'` and run the same command again."
    )
    place.rename(f"{place}.old")
    assert fetch_dataset("voc2007", tmp_path, QUIET) == place
    assert asked == []  # the archives are still there


def test_an_archive_that_lacks_images_leaves_no_folder(
    asked: list[str], shelf: Path, tmp_path: Path
) -> None:
    tree = caltech(256)
    del tree["256_ObjectCategories/accordion/image_0002.jpg"]
    (shelf / "256_ObjectCategories.tar").write_bytes(tar_of(tree))
    text = module._CATALOGUE.read_text()
    old = hashlib.sha256(archives()["256_ObjectCategories.tar"]).hexdigest()
    new = hashlib.sha256((shelf / "256_ObjectCategories.tar").read_bytes()).hexdigest()
    module._CATALOGUE.write_text(text.replace(old, new))
    with pytest.raises(DatasetError, match="do not hold the whole of it: 4 of 5 images"):
        fetch_dataset("caltech256", tmp_path / "data", QUIET)
    assert list((tmp_path / "data" / "caltech256").iterdir()) == []


def test_a_hostile_archive_leaves_no_folder(asked: list[str], shelf: Path, tmp_path: Path) -> None:
    evil = tar_of({"256_ObjectCategories/accordion/image\\1.jpg": JPEG})
    evil += b"\0" * (len((shelf / "256_ObjectCategories.tar").read_bytes()) - len(evil))
    (shelf / "256_ObjectCategories.tar").write_bytes(evil)
    text = module._CATALOGUE.read_text()
    old = hashlib.sha256(archives()["256_ObjectCategories.tar"]).hexdigest()
    module._CATALOGUE.write_text(text.replace(old, hashlib.sha256(evil).hexdigest()))
    with pytest.raises(UnsafeArchiveError, match="a character that no name should have"):
        fetch_dataset("caltech256", tmp_path / "data", QUIET)
    assert list((tmp_path / "data" / "caltech256").iterdir()) == []


def test_a_stop_keeps_the_archives(asked: list[str], tmp_path: Path) -> None:
    class Stopping(Watch):
        def stop_signal(self) -> int | None:
            archived = (tmp_path / "archives" / "test.tar").exists() or len(asked) == 2
            return signal.SIGTERM if archived else None

    with pytest.raises(Interrupted):
        fetch_dataset("voc2007", tmp_path, Stopping())
    assert not (tmp_path / "VOCdevkit" / "VOC2007").exists()
    assert fetch_dataset("voc2007", tmp_path, QUIET).is_dir()
    assert asked.count("trainval.tar") == 1


@pytest.mark.slow
def test_killed_again_and_again_the_folder_is_whole_or_not_there(
    asked: list[str], tmp_path: Path
) -> None:
    root = tmp_path / "data"
    code = f"""
        import os, time
        from pathlib import Path
        from vggfeat.data import catalogue, local
        from vggfeat.watch import Watch
        write = os.write
        os.write = lambda *a: (time.sleep(0.01), write(*a))[1]
        os.sync = lambda: time.sleep(0.02)
        catalogue._CATALOGUE = Path({str(module._CATALOGUE)!r})
        local.fetch_dataset("voc2007", Path({str(root)!r}), Watch())
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    place = root / "VOCdevkit" / "VOC2007"
    staging = place.with_name(".VOC2007.unpacking")
    seen = set()
    for folder, least in ((root, 1), (root / "archives", 4), (staging, 1), (staging, 9)):
        process = subprocess.Popen(command)
        end = time.monotonic() + 10
        count = 0
        while count < least and time.monotonic() < end:
            with suppress(FileNotFoundError):  # what the one before has left is being swept
                count = len([path for path in folder.rglob("*") if path.is_file()])
        process.kill()
        assert process.wait() == -signal.SIGKILL
        assert not place.exists()
        seen.add(len(list(staging.rglob("*.jpg"))) if staging.exists() else -1)
    assert len(seen) >= 3  # before, during and towards the end of the unpacking
    assert fetch_dataset("voc2007", root, QUIET) == place
    assert found("voc2007", root)[0] is State.GOOD
    assert {path.name for path in (root / "VOCdevkit").iterdir()} == {"VOC2007"}
    records = sorted(path.name for path in (root / "archives").iterdir())
    names = ["VOCtest_06-Nov-2007.tar", "VOCtrainval_06-Nov-2007.tar"]
    assert records == sorted([*names, *(f"{name}.json" for name in names)])


# --- verify -------------------------------------------------------------------------------------


def test_absent(asked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    detail = (
        f"not below '{tmp_path}'; type `vggfeat datasets fetch voc2007 --data-root '{tmp_path}'`"
    )
    assert found("voc2007", tmp_path) == (State.ABSENT, detail)
    monkeypatch.chdir(tmp_path)
    detail = "not below 'datasets'; type `vggfeat datasets fetch voc2007`"
    assert found("voc2007", Path("datasets")) == (State.ABSENT, detail)


def test_archives_that_are_not_unpacked(asked: list[str], shelf: Path, tmp_path: Path) -> None:
    folder = tmp_path / "archives"
    folder.mkdir()
    (shelf / "trainval.tar").rename(folder / "VOCtrainval_06-Nov-2007.tar")
    (folder / ".VOCtest_06-Nov-2007.tar.part").write_bytes(b"x" * 100)
    size = len(archives()["test.tar"])
    state, detail = found("voc2007", tmp_path)
    assert state is State.PARTIAL
    assert detail.startswith("not unpacked; archives: VOCtrainval_06-Nov-2007.tar good (")
    assert f"VOCtest_06-Nov-2007.tar partial (100 of {size:,} bytes are there)" in detail
    assert "; type `vggfeat datasets fetch voc2007" in detail


def test_images_that_are_missing_or_none(asked: list[str], tmp_path: Path) -> None:
    place = fetch_dataset("voc2007", tmp_path, QUIET)
    remedy = (
        f"; type `mv '{place}' '{place}.old'` and "
        f"`vggfeat datasets fetch voc2007 --data-root '{tmp_path}'`"
    )
    image = place / "JPEGImages" / "000007.jpg"
    for bad in (b"", b"\xff\xd8", b"\x89PNG\r\n"):
        image.write_bytes(bad)
        detail = f"'{place}': 1 of 5 images are no JPEG files, first '{image}'{remedy}"
        assert found("voc2007", tmp_path) == (State.DAMAGED, detail)
    image.unlink()
    detail = f"'{place}': 4 of 5 images, 000007 of the lists is missing{remedy}"
    assert found("voc2007", tmp_path) == (State.PARTIAL, detail)
    (place / "JPEGImages" / "000008.jpg").write_bytes(JPEG)
    assert "5 of 5 images, 000007 of the lists is missing" in found("voc2007", tmp_path)[1]


def test_lists_that_are_not_the_published_ones(asked: list[str], tmp_path: Path) -> None:
    place = fetch_dataset("voc2007", tmp_path, QUIET)
    train = place / "ImageSets" / "Main" / "train.txt"
    train.write_text("000005\n")
    state, detail = found("voc2007", tmp_path)
    assert state is State.PARTIAL
    assert "ImageSets/Main/train.txt names 1 images, 2 expected" in detail
    train.write_text("000005\n000007\n000009\n")
    assert found("voc2007", tmp_path)[0] is State.DAMAGED
    train.unlink()
    assert "ImageSets/Main/train.txt is missing" in found("voc2007", tmp_path)[1]


def test_foreign_images_among_classes(asked: list[str], tmp_path: Path) -> None:
    place = fetch_dataset("caltech101", tmp_path, QUIET)
    (place / "accordion" / "mine.jpg").write_bytes(JPEG)
    state, detail = found("caltech101", tmp_path)
    assert state is State.DAMAGED
    assert "6 images in 2 folders, 5 in 2 expected" in detail
    (place / "accordion" / "mine.jpg").unlink()
    (place / "BACKGROUND_Google" / "notes.txt").write_text("mine")
    assert found("caltech101", tmp_path)[0] is State.GOOD


def test_a_file_in_place_of_the_folder(asked: list[str], tmp_path: Path) -> None:
    (tmp_path / "caltech256").mkdir()
    (tmp_path / "caltech256" / "256_ObjectCategories").write_text("mine")
    state, detail = found("caltech256", tmp_path)
    assert state is State.PARTIAL
    assert "0 of 5 images" in detail
    with pytest.raises(DatasetError):
        fetch_dataset("caltech256", tmp_path, QUIET)
    assert asked == []


def test_the_record_of_an_archive(asked: list[str], tmp_path: Path) -> None:
    fetch_dataset("caltech256", tmp_path, QUIET)
    record = json.loads((tmp_path / "archives" / "256_ObjectCategories.tar.json").read_text())
    data = archives()["256_ObjectCategories.tar"]
    assert record["url"].endswith("/256_ObjectCategories.tar")
    assert (record["bytes"], record["checked"]) == (len(data), "sha256")
    assert record["sha256"] == hashlib.sha256(data).hexdigest()


def test_what_lacks_of_a_published_data_set_is_told(shared: Path) -> None:
    small = open_dataset("voc2007", shared / "voc2007-mini")
    assert re.fullmatch(
        r"train has \d+ of 2,501 images, val has \d+ of 2,510 images, "
        r"test has 56 of 4,952 images",
        lacking(small),
    )
    whole = open_dataset("caltech101", shared)
    assert lacking(whole) == ""
    assert lacking(replace(whole, items=whole.items[1:])) == "9,143 of 9,144 images are here"
    assert lacking(replace(small, name="folder:x")) == ""
