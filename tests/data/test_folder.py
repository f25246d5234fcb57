from __future__ import annotations

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vggfeat.data import open_dataset
from vggfeat.data.folder import item_id
from vggfeat.data.records import Dataset, Kind, Part, Split
from vggfeat.errors import DatasetError, DatasetNotFoundError
from vggfeat.files.sources import FileSource
from vggfeat.files.suffixes import SUFFIXES

FEW = (*(f"cat/{i}.jpg" for i in range(6)), *(f"dog/{i}.jpg" for i in range(3)))


def open_folder(root: Path, seed: int = 0, stored_ids: Sequence[str] | None = None) -> Dataset:
    return open_dataset(f"folder:{root}", Path("unused"), seed=seed, stored_ids=stored_ids)


def grow(root: Path, ids: Iterable[str]) -> Path:
    for i in ids:
        path = root / i
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"not opened here")
    return root


def class_of(name: str, size: int) -> list[str]:
    return [f"{name}/{i:04d}.jpg" for i in range(size)]


def split_of(ids: Sequence[str], seed: int = 0) -> Split:
    return open_folder(Path("nowhere"), seed=seed, stored_ids=ids).splits[0]


def parts_of(split: Split) -> dict[str, tuple[str, ...]]:
    return {"train": split.train.ids, "val": split.val.ids, "test": split.test.ids}


def by_hash(ids: Iterable[str], seed: int) -> list[str]:
    return sorted(ids, key=lambda i: hashlib.sha256(f"{seed}:{i}".encode()).hexdigest())


def names_of(part: Part, classes: Sequence[str]) -> list[str]:
    """Read the labels back, and check that each row has one class."""
    assert part.labels.dtype == np.int8
    assert part.labels.shape == (len(part.ids), len(classes))
    assert ((part.labels == 1).sum(axis=1) == 1).all()
    assert ((part.labels == -1).sum(axis=1) == len(classes) - 1).all()
    return [classes[k] for k in part.labels.argmax(axis=1)]


# --- parts by hash ------------------------------------------------------------------------------


def test_the_split_is_the_same_for_ever() -> None:
    assert parts_of(split_of(FEW)) == {
        "train": ("cat/0.jpg", "cat/1.jpg", "cat/2.jpg", "cat/3.jpg", "dog/2.jpg"),
        "val": ("cat/4.jpg", "dog/1.jpg"),
        "test": ("cat/5.jpg", "dog/0.jpg"),
    }
    assert parts_of(split_of(FEW, seed=1)) == {
        "train": ("cat/0.jpg", "cat/2.jpg", "cat/4.jpg", "cat/5.jpg", "dog/2.jpg"),
        "val": ("cat/3.jpg", "dog/1.jpg"),
        "test": ("cat/1.jpg", "dog/0.jpg"),
    }


@given(st.lists(st.integers(3, 60), min_size=1, max_size=3), st.integers(0, 2**31 - 1))
@example([3, 4, 5], 0)
@example([12, 13, 1000], 0)
@settings(max_examples=60, deadline=None)
def test_a_fifth_is_test_and_a_fifth_of_the_rest_is_val(sizes: list[int], seed: int) -> None:
    classes = {f"c{k}": class_of(f"c{k}", size) for k, size in enumerate(sizes)}
    split = split_of([i for ids in classes.values() for i in ids], seed)
    for name, ids in classes.items():
        order = by_hash(ids, seed)
        test = max(1, (2 * len(ids) + 5) // 10)  # a fifth, to the nearest
        val = max(1, (2 * (len(ids) - test) + 5) // 10)
        expected = {
            "test": order[:test],
            "val": order[test : test + val],
            "train": order[test + val :],
        }
        for part, members in parts_of(split).items():
            assert [i for i in members if i.startswith(f"{name}/")] == sorted(expected[part])
            assert expected[part]


def test_another_class_does_not_move_an_image_to_another_part() -> None:
    alone, together = split_of(class_of("cat", 20)), split_of([*class_of("bat", 9), *FEW[6:]])
    both = split_of([*class_of("cat", 20), *class_of("bat", 9), *FEW[6:]])
    for part in ("train", "val", "test"):
        ids = {*parts_of(alone)[part], *parts_of(together)[part]}
        assert set(parts_of(both)[part]) == ids


def test_the_order_in_which_files_are_made_changes_nothing(tmp_path: Path) -> None:
    first = open_folder(grow(tmp_path / "first", FEW))
    second = open_folder(grow(tmp_path / "second", reversed(FEW)))
    assert parts_of(first.splits[0]) == parts_of(second.splits[0])
    assert [item.id for item in first.items] == [item.id for item in second.items] == sorted(FEW)
    assert parts_of(split_of(FEW)) == parts_of(split_of(FEW[::-1]))


def test_the_seed_decides_the_split(tmp_path: Path) -> None:
    root = grow(tmp_path / "pets", class_of("cat", 40))
    splits = [
        open_dataset(f"folder:{root}", Path("unused"), seed=seed).splits[0] for seed in (0, 1)
    ]
    assert splits[0].test.ids != splits[1].test.ids
    assert splits[1].test.ids == split_of(class_of("cat", 40), seed=1).test.ids


def test_a_folder_is_one_class_each(tmp_path: Path) -> None:
    root = grow(tmp_path / "pets", FEW)
    dataset = open_folder(root)
    assert dataset.name == f"folder:{root}"
    assert dataset.kind is Kind.ONE_CLASS
    assert dataset.classes == ("cat", "dog")
    assert [(item.id, item.source) for item in dataset.items] == [
        (i, FileSource(root / i)) for i in FEW
    ]
    (split,) = dataset.splits
    for part in (split.train, split.val, split.test):
        assert names_of(part, dataset.classes) == [i.split("/")[0] for i in part.ids]
    assert split.ids == tuple(sorted(FEW))


def test_the_class_is_the_first_folder_of_several() -> None:
    ids = [f"cat/{kind}/{i}.jpg" for kind in ("tom", "pussy") for i in range(3)]
    dataset = open_folder(Path("nowhere"), stored_ids=ids)
    assert dataset.classes == ("cat",)
    assert dataset.splits[0].ids == tuple(sorted(ids))


@pytest.mark.parametrize("size", [1, 2])
def test_a_class_of_fewer_than_3_images_is_an_error(tmp_path: Path, size: int) -> None:
    root = grow(tmp_path, [*FEW, *class_of("emu", size)])
    with pytest.raises(DatasetError, match=f"Class 'emu' has {size} images. Expected at least 3"):
        open_folder(root)


def test_a_class_of_3_images_has_one_in_each_part() -> None:
    assert [len(ids) for ids in parts_of(split_of(class_of("cat", 3))).values()] == [1, 1, 1]


@pytest.mark.parametrize("ids", [(), ("cat/readme.txt", "notes.md")], ids=["nothing", "no image"])
def test_a_folder_without_images_is_an_error(tmp_path: Path, ids: tuple[str, ...]) -> None:
    with pytest.raises(DatasetError, match=r"holds no image.*jpg.*Check the path"):
        open_folder(grow(tmp_path, ids))


def test_a_folder_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError, match="absent"):
        open_folder(tmp_path / "absent")
    file = tmp_path / "file.jpg"
    file.write_bytes(b"")
    with pytest.raises(DatasetNotFoundError):
        open_folder(file)


# --- without labels -----------------------------------------------------------------------------


def test_a_flat_folder_has_no_labels(tmp_path: Path) -> None:
    dataset = open_folder(grow(tmp_path, ["b.jpg", "a.png", "c.txt"]))
    assert dataset.kind is Kind.UNLABELLED
    assert dataset.classes == ()
    assert [item.id for item in dataset.items] == ["a.png", "b.jpg"]
    assert dataset.splits[0].ids == ("a.png", "b.jpg")
    assert dataset.ignored == ("c.txt",)
    assert dataset.splits[0].test.labels.shape == (2, 0)
    assert len(dataset.limited(1).items) == 1


# --- given parts --------------------------------------------------------------------------------


def given_parts(sizes: Mapping[str, int]) -> list[str]:
    """Name images by "part/class" and their number."""
    return [f"{folder}/{i:03d}.jpg" for folder, size in sizes.items() for i in range(size)]


def test_given_parts_are_kept(tmp_path: Path) -> None:
    ids = given_parts(
        {"train/cat": 2, "train/dog": 4, "val/cat": 1, "val/dog": 1, "test/cat": 5, "test/dog": 1}
    )
    dataset = open_folder(grow(tmp_path, ids))
    assert dataset.kind is Kind.ONE_CLASS
    assert dataset.classes == ("cat", "dog")
    (split,) = dataset.splits
    for name, part in (("train", split.train), ("val", split.val), ("test", split.test)):
        assert part.ids == tuple(i for i in sorted(ids) if i.startswith(f"{name}/"))
        assert names_of(part, dataset.classes) == [i.split("/")[1] for i in part.ids]


def test_without_val_a_fifth_of_train_becomes_it() -> None:
    ids = given_parts({"train/cat": 10, "train/dog": 2, "train/emu": 1, "test/cat": 3})
    dataset = open_folder(Path("nowhere"), seed=5, stored_ids=ids)
    (split,) = dataset.splits
    cats, dogs = (by_hash([i for i in ids if f"train/{c}" in i], 5) for c in ("cat", "dog"))
    assert dataset.classes == ("cat", "dog", "emu")
    assert split.val.ids == tuple(sorted([*cats[:2], dogs[0]]))
    assert split.train.ids == tuple(sorted([*cats[2:], dogs[1], "train/emu/000.jpg"]))
    assert split.test.ids == tuple(i for i in ids if i.startswith("test/"))


def test_a_class_of_one_part_only_is_a_class_of_all() -> None:
    ids = given_parts({"train/cat": 2, "val/cat": 1, "test/dog": 1})
    dataset = open_folder(Path("nowhere"), stored_ids=ids)
    assert dataset.classes == ("cat", "dog")
    assert names_of(dataset.splits[0].test, dataset.classes) == ["dog"]


def test_an_image_of_a_given_part_needs_a_class(tmp_path: Path) -> None:
    ids = [*given_parts({"train/cat": 3, "test/cat": 3}), "train/stray.jpg"]
    with pytest.raises(DatasetError, match=r"'train/stray\.jpg' has no class"):
        open_folder(grow(tmp_path, ids))


def test_a_stray_image_does_not_turn_the_given_parts_into_classes(tmp_path: Path) -> None:
    ids = [*given_parts({"train/cat": 3, "test/cat": 3}), "thumbnail.png"]
    root = grow(tmp_path, ids)
    try:
        dataset = open_folder(root)
    except DatasetError as error:
        assert "'thumbnail.png'" in str(error)
    else:
        assert dataset.classes == ("cat",)
        assert dataset.ignored == ("thumbnail.png",)


# --- files that are no images -------------------------------------------------------------------


def test_what_is_no_image_is_ignored_and_named(tmp_path: Path) -> None:
    others = ["cat/Thumbs.db", "readme.txt", "cat/.hidden.jpg", "dog/deep/x.npy", "cat/jpg"]
    dataset = open_folder(grow(tmp_path, [*FEW, *others]))
    assert dataset.ignored == tuple(sorted(others))
    assert [item.id for item in dataset.items] == list(FEW)


def told(caplog: pytest.LogCaptureFixture, root: Path) -> list[str]:
    """Open a folder, and return the lines that are told of it."""
    caplog.clear()
    with caplog.at_level(logging.INFO, "vggfeat"):
        open_folder(root)
    return [record.getMessage() for record in caplog.records]


def test_what_has_another_suffix_is_counted_by_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = grow(tmp_path, FEW)
    assert told(caplog, root) == []
    grow(root, ["cat/a.heic", "cat/b.HEIC", "emu/0.heic", "cat/labels/1.txt", "dog/jpg"])
    assert told(caplog, root) == [
        "5 files have no suffix of an image that is read (3 .heic, 1 .txt, 1 without a suffix), "
        "and are left out, the first is 'cat/a.heic'",
        "1 folders hold no image, and are neither class nor part, the first is 'emu'",
    ]
    with pytest.raises(DatasetError, match=r"holds no image \(1 files have no suffix .*1 \.heic\)"):
        open_folder(root / "emu")


HIDDEN = (
    *(
        ".ipynb_checkpoints/0.jpg",
        "cat/.thumbnails/0.jpg",
        ".git/objects/0.jpg",
        "__MACOSX/cat/0.jpg",
    ),
    *("__MACOSX/cat/._0.jpg", "cat/._0.jpg", ".DS_Store", "dog/Thumbs.db", "desktop.ini"),
    *("cat/@eaDir/0.jpg/SYNOPHOTO_THUMB_M.jpg", "$RECYCLE.BIN/0.jpg", "lost+found/0.jpg"),
    *("#recycle/0.jpg", "System Volume Information/0.jpg", "dog/.hidden.PNG", ".Trash-1000/0.jpg"),
    *("__pycache__/x.pyc", "cat/THUMBS.DB", "@Recycle/cat/0.jpg", "LOST.DIR/0.jpg"),
)


@pytest.mark.parametrize("hidden", HIDDEN)
@pytest.mark.parametrize("below", ["", "train/"], ids=["classes", "parts"])
def test_what_is_hidden_or_of_the_system_is_left_out_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, hidden: str, below: str
) -> None:
    ids = [f"{below}{i}" for i in FEW]
    ids += [f"test/{i}" for i in FEW] if below else []
    root = grow(tmp_path / ".cache" / "photos", [*ids, f"{below}{hidden}"])
    assert [item.id for item in open_folder(root).items] == sorted(ids)
    (line,) = told(caplog, root)
    start, _, example_ = line.partition(", the first is ")
    assert start == "1 files and folders are hidden or of the system, and are left out"
    assert f"{below}{hidden}/".startswith(example_.strip("'") + "/")


@given(st.sets(st.sampled_from(HIDDEN), min_size=1))
@settings(max_examples=30, deadline=None)
def test_a_store_of_an_older_version_has_its_hidden_images_left_out(strays: set[str]) -> None:
    """Such a store holds rows of `.ipynb_checkpoints`, which were a class then."""
    dataset = open_folder(Path("nowhere"), stored_ids=[*FEW, *strays])
    assert dataset.splits[0].ids == FEW
    assert dataset.classes == ("cat", "dog")
    assert dataset.ignored == tuple(sorted(strays))


def test_what_cannot_be_followed_or_listed_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = grow(tmp_path, [*FEW, "emu/0.jpg"])
    (root / "cat" / "up").symlink_to("..")
    scandir = os.scandir

    def refusing(path: str) -> object:
        if str(path).endswith("emu"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    assert told(caplog, root) == [
        "1 links lead to a folder above themselves, and are left out, the first is 'cat/up'",
        "1 folders cannot be listed, and are left out, the first is 'emu'",
        "1 folders hold no image, and are neither class nor part, the first is 'emu'",
    ]


@pytest.mark.parametrize("link", ["symbolic", "hard", "folder"])
def test_one_file_in_two_parts_is_refused_however_it_is_linked(tmp_path: Path, link: str) -> None:
    ids = given_parts({"train/cat": 3, "train/dog": 3, "test/cat": 3, "test/dog": 3})
    root = grow(tmp_path, ids)
    original = root / "train" / "cat" / "000.jpg"
    if link == "symbolic":
        (root / "test" / "cat" / "again.jpg").symlink_to(
            Path("..", "..", "test", "..", "train/cat/000.jpg")
        )
    elif link == "hard":
        (root / "test" / "cat" / "again.jpg").hardlink_to(original)
    else:
        (root / "test" / "emu").symlink_to(original.parent)
    with pytest.raises(DatasetError, match=r"\d images are in (train|val) and in test, the first"):
        open_folder(root)


def test_images_beside_the_classes_are_ignored_and_named(tmp_path: Path) -> None:
    dataset = open_folder(grow(tmp_path, [*FEW, "cover.jpg"]))
    assert "cover.jpg" in dataset.ignored
    assert [item.id for item in dataset.items] == list(FEW)


@pytest.mark.parametrize("suffix", [*sorted(SUFFIXES), ".JPG", ".Png", ".Jp2"])
def test_every_usual_ending_is_an_image(tmp_path: Path, suffix: str) -> None:
    dataset = open_folder(grow(tmp_path, [f"photo{suffix}"]))
    assert [item.id for item in dataset.items] == [f"photo{suffix}"]


def test_a_linked_folder_is_followed(tmp_path: Path) -> None:
    grow(tmp_path / "elsewhere", ["1.jpg", "2.jpg", "3.jpg"])
    root = grow(tmp_path / "root", FEW)
    (root / "emu").symlink_to(tmp_path / "elsewhere")
    assert open_folder(root).classes == ("cat", "dog", "emu")


def test_a_link_to_a_folder_above_does_not_repeat_the_images(tmp_path: Path) -> None:
    root = grow(tmp_path, FEW)
    (root / "cat" / "up").symlink_to("..")
    assert [item.id for item in open_folder(root).items] == list(FEW)


def test_a_name_that_is_not_utf8_is_percent_escaped(tmp_path: Path) -> None:
    folder = tmp_path / "cat"
    folder.mkdir()
    raw = [b"caf\xe9.jpg", b"\xff\x80.jpg", "café.jpg".encode(), b"100%.jpg"]
    for name in raw:
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(name)
    dataset = open_folder(tmp_path)
    assert {item.id: Path(item.source.name).read_bytes() for item in dataset.items} == {
        "cat/caf%E9.jpg": raw[0],
        "cat/%FF%80.jpg": raw[1],
        "cat/café.jpg": raw[2],
        "cat/100%.jpg": raw[3],
    }
    for item in dataset.items:
        item.id.encode("utf-8")
    again = open_folder(tmp_path, stored_ids=[item.id for item in dataset.items])
    assert parts_of(again.splits[0]) == parts_of(dataset.splits[0])


@given(st.binary(min_size=1, max_size=12).filter(lambda b: not {0, 47} & {*b} and b.strip(b".")))
@settings(max_examples=100, deadline=None)
def test_any_name_has_an_id_that_is_text(name: bytes) -> None:
    relative = Path(os.fsdecode(b"d/" + name))
    found = item_id(relative)
    try:
        expected = "d/" + name.decode("utf-8")
    except UnicodeDecodeError:
        assert "%" in found
        assert found.encode("utf-8").isascii() or any(byte > 127 for byte in name)
    else:
        assert found == expected


# --- a store instead of the files ---------------------------------------------------------------


@pytest.mark.parametrize(
    "ids",
    [
        FEW,
        tuple(given_parts({"train/cat": 9, "test/cat": 3})),
        tuple(given_parts({"train/cat": 2, "val/cat": 2, "test/cat": 3})),
        ("a.jpg", "b.jpg"),
    ],
    ids=["by hash", "without val", "given", "flat"],
)
def test_a_store_gives_the_split_of_the_files(tmp_path: Path, ids: tuple[str, ...]) -> None:
    def record(dataset: Dataset) -> object:
        (split,) = dataset.splits
        parts = (split.train, split.val, split.test)
        labels = [part.labels.tolist() for part in parts]
        return parts_of(split), labels, dataset.classes, dataset.kind, dataset.items

    whole = open_folder(grow(tmp_path, [*ids, "stray.txt"]), seed=3)
    stored = open_dataset(
        f"folder:{tmp_path}", Path("unused"), seed=3, stored_ids=[item.id for item in whole.items]
    )
    assert record(stored) == record(whole)


def test_a_store_needs_no_folder() -> None:
    assert split_of(FEW).ids == FEW


# --- real data ----------------------------------------------------------------------------------


def test_caltech_101_is_read_whole(shared: Path) -> None:
    dataset = open_folder(shared / "caltech101" / "101_ObjectCategories")
    (split,) = dataset.splits
    assert len(dataset.items) == 9144
    assert len(dataset.classes) == 102
    assert dataset.ignored == ("BACKGROUND_Google/tmp",)
    assert len(split.ids) == len(set(split.ids)) == 9144
    assert [item.id for item in dataset.items] == list(split.ids)
    sizes = Counter(i.split("/")[0] for i in split.ids)
    assert (sizes["BACKGROUND_Google"], min(sizes.values())) == (467, 31)
    for name, ids in parts_of(split).items():
        counts = Counter(i.split("/")[0] for i in ids)
        for label, size in sizes.items():
            test = round(size / 5)
            val = round((size - test) / 5)
            expected = {"test": test, "val": val, "train": size - test - val}
            assert counts[label] == expected[name]


@pytest.mark.parametrize("parts", [("train",), ("train", "val"), ("test",)])
def test_parts_without_train_or_test_are_no_classes(tmp_path: Path, parts: tuple[str, ...]) -> None:
    grow(tmp_path, [f"{part}/cat/{n}.jpg" for part in parts for n in range(4)])
    with pytest.raises(
        DatasetError, match=rf"has images in {' and '.join(parts)} only.*train and test"
    ):
        open_folder(tmp_path)


def test_one_photo_may_not_be_linked_into_two_parts(tmp_path: Path) -> None:
    ids = [f"{part}/{k}/{n}.jpg" for part in ("train", "val", "test") for k in "ab" for n in "01"]
    root = grow(tmp_path, ids)
    (root / "test" / "a" / "again.jpg").symlink_to(root / "train" / "a" / "0.jpg")
    with pytest.raises(DatasetError, match="1 images are in train and in test"):
        open_folder(root)
    (root / "train" / "a" / "again.jpg").symlink_to(root / "train" / "a" / "0.jpg")
    (root / "test" / "a" / "again.jpg").unlink()
    assert len(open_folder(root).splits[0].train.ids) == 5
