from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from vggfeat.data import open_dataset
from vggfeat.data.records import Dataset, Kind
from vggfeat.data.voc import CLASSES
from vggfeat.data.voc_tree import own_measure
from vggfeat.errors import DatasetError, DatasetNotFoundError, RecipeError
from vggfeat.files.sources import FileSource
from vggfeat.recipe import Recipe

PARTS: dict[str, tuple[str, ...]] = {
    "train": ("000007", "000002"),  # not sorted: the order of the list is the order of the part
    "val": ("000005",),
    "test": ("000001", "000010", "000003"),
}
LABELS: dict[str, dict[str, tuple[int, ...]]] = {
    "cat": {"train": (1, -1), "val": (0,), "test": (-1, 0, 1)},
    "bat": {"train": (0, 1), "val": (1,), "test": (1, -1, -1)},
    "train": {"train": (-1, -1), "val": (1,), "test": (0, 0, 1)},  # VOC has this class
}

# Simonyan & Zisserman's data set, images with label 1: trainval, test (spec 3.4)
POSITIVES = {
    "aeroplane": (238, 204),
    "bicycle": (243, 239),
    "bird": (330, 282),
    "boat": (181, 172),
    "bottle": (244, 212),
    "bus": (186, 174),
    "car": (713, 721),
    "cat": (337, 322),
    "chair": (445, 417),
    "cow": (141, 127),
    "diningtable": (200, 190),
    "dog": (421, 418),
    "horse": (287, 274),
    "motorbike": (245, 222),
    "person": (2008, 2007),
    "pottedplant": (245, 224),
    "sheep": (96, 97),
    "sofa": (229, 223),
    "train": (261, 259),
    "tvmonitor": (256, 229),
}


def write_tree(
    root: Path,
    parts: Mapping[str, Sequence[str]] = PARTS,
    labels: Mapping[str, Mapping[str, Sequence[int]]] = LABELS,
    *,
    newline: str = "\n",
    suffix: str = ".jpg",
) -> Path:
    """Write a tree in the true layout; two blanks stand before a label without a sign."""
    lists = root / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (root / "JPEGImages").mkdir()
    for part, ids in parts.items():
        (lists / f"{part}.txt").write_text("".join(f"{i}{newline}" for i in ids), newline="")
        for i in ids:
            (root / "JPEGImages" / f"{i}{suffix}").write_bytes(b"")
    for name, of_part in labels.items():
        for part, values in of_part.items():
            rows = [f"{i} {v:2d}{newline}" for i, v in zip(parts[part], values, strict=True)]
            (lists / f"{name}_{part}.txt").write_text("".join(rows), newline="")
    return root


def opened(root: Path, stored_ids: Sequence[str] | None = None) -> Dataset:
    return open_dataset(f"voc:{root}", Path("unused"), stored_ids=stored_ids)


def lists_of(root: Path) -> Path:
    return root / "ImageSets" / "Main"


@pytest.mark.parametrize("newline", ["\n", "\r\n"], ids=["unix", "dos"])
def test_a_tree_is_read_with_ids_order_and_labels(tmp_path: Path, newline: str) -> None:
    root = write_tree(tmp_path / "voc", newline=newline)
    assert "000002  1" in (lists_of(root) / "bat_train.txt").read_text()
    dataset = opened(root)
    (split,) = dataset.splits
    assert dataset.name == f"voc:{root}"
    assert dataset.kind is Kind.MULTI_LABEL
    assert dataset.classes == ("bat", "cat", "train")
    for name, part in (("train", split.train), ("val", split.val), ("test", split.test)):
        assert part.ids == PARTS[name]
        expected = np.array([LABELS[c][name] for c in dataset.classes]).T
        assert part.labels.dtype == np.int8
        assert part.labels.tolist() == expected.tolist()


def test_the_items_are_sorted_and_are_the_files(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "voc")
    dataset = opened(root)
    ids = sorted(i for part in PARTS.values() for i in part)
    assert [item.id for item in dataset.items] == ids
    assert [item.source for item in dataset.items] == [
        FileSource(root / "JPEGImages" / f"{i}.jpg") for i in ids
    ]
    assert all(item.box is None for item in dataset.items)


@pytest.mark.parametrize("suffix", [".JPG", ".jpeg", ".png"])
def test_images_may_have_other_endings(tmp_path: Path, suffix: str) -> None:
    dataset = opened(write_tree(tmp_path / "voc", suffix=suffix))
    assert {Path(item.source.name).name for item in dataset.items} >= {f"000001{suffix}"}
    assert all(Path(item.source.name).is_file() for item in dataset.items)


def test_images_that_no_list_names_are_left_out(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "voc")
    (root / "JPEGImages" / "000099.jpg").write_bytes(b"")
    assert len(opened(root).items) == 6


def test_blank_lines_do_not_count(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "voc")
    for path in lists_of(root).iterdir():
        path.write_text(path.read_text() + "\n  \n")
    assert opened(root).splits[0].train.ids == PARTS["train"]


def test_a_store_stands_in_for_the_images(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "voc")
    whole = opened(root)
    for path in (root / "JPEGImages").iterdir():
        path.unlink()
    (root / "JPEGImages").rmdir()
    dataset = opened(root, stored_ids=())
    assert [item.id for item in dataset.items] == [item.id for item in whole.items]
    assert dataset.splits[0].ids == whole.splits[0].ids
    with pytest.raises(DatasetNotFoundError, match="JPEGImages"):
        opened(root)


def test_a_missing_image_is_named_with_its_list(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "voc")
    (root / "JPEGImages" / "000005.jpg").unlink()
    with pytest.raises(DatasetError) as caught:
        opened(root)
    assert f"The lists in '{root / 'ImageSets'}' name '000005'" in str(caught.value)
    assert f"'{root / 'JPEGImages' / '000005.jpg'}'" in str(caught.value)


@pytest.mark.parametrize("name", ["val.txt", "cat_val.txt", "train_test.txt", "test.txt"])
def test_a_missing_list_is_named(tmp_path: Path, name: str) -> None:
    root = write_tree(tmp_path / "voc")
    (lists_of(root) / name).unlink()
    with pytest.raises(DatasetNotFoundError) as caught:
        opened(root)
    assert str(lists_of(root) / name) in str(caught.value)


@pytest.mark.parametrize("label", ["2", "+", "cat", "-2", "1.0"])
def test_a_label_that_is_none_is_named_with_its_line(tmp_path: Path, label: str) -> None:
    root = write_tree(tmp_path / "voc")
    path = lists_of(root) / "cat_test.txt"
    path.write_text(f"000001 -1\n000010  {label}\n000003  1\n")
    with pytest.raises(DatasetError) as caught:
        opened(root)
    assert f"'{path}', line 2: label {label!r}." in str(caught.value)
    assert "Expected 1, -1, or 0" in str(caught.value)


def test_the_line_of_a_bad_label_is_the_line_of_the_file(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "voc")
    (lists_of(root) / "cat_test.txt").write_text("\n\n000001 -1\n000010  7\n000003  1\n")
    with pytest.raises(DatasetError, match="line 4: label '7'"):
        opened(root)


def test_a_line_without_a_label_is_named(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "voc")
    (lists_of(root) / "cat_train.txt").write_text("000007  1\n000002\n")
    with pytest.raises(DatasetError, match=r"line 2: '000002'\. Expected 2 columns"):
        opened(root)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("000007  1\n", 1),
        ("000007  1\n000002 -1\n000009 -1\n", 3),
        ("", 0),
    ],
    ids=["short", "long", "empty"],
)
def test_a_class_list_that_differs_from_its_part_is_an_error(
    tmp_path: Path, text: str, count: int
) -> None:
    root = write_tree(tmp_path / "voc")
    path = lists_of(root) / "cat_train.txt"
    path.write_text(text)
    with pytest.raises(DatasetError) as caught:
        opened(root)
    assert f"'{path}' lists {count} images. Expected the 2 " in str(caught.value)


def test_lists_without_any_image_are_an_error(tmp_path: Path) -> None:
    nothing: dict[str, tuple[str, ...]] = {"train": (), "val": (), "test": ()}
    root = write_tree(tmp_path / "voc", nothing, {"cat": dict.fromkeys(nothing, ())})
    with pytest.raises(DatasetError, match="name no image at all"):
        opened(root)


def test_one_part_may_be_empty(tmp_path: Path) -> None:
    parts = {**PARTS, "test": ()}
    labels = {"cat": {**LABELS["cat"], "test": ()}}
    dataset = opened(write_tree(tmp_path / "voc", parts, labels))
    assert dataset.splits[0].test.ids == ()
    assert dataset.splits[0].test.labels.shape == (0, 1)


def test_an_image_in_two_parts_is_an_error(tmp_path: Path) -> None:
    parts = {**PARTS, "val": ("000003",)}
    with pytest.raises(DatasetError, match=r"1 images are in val and in test.*'000003'"):
        opened(write_tree(tmp_path / "voc", parts))


def test_a_list_that_is_no_text_is_an_error(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "voc")
    (lists_of(root) / "train.txt").write_bytes(b"\xff000007")
    with pytest.raises(DatasetError, match=r"train\.txt' cannot be read"):
        opened(root)


def test_a_folder_that_is_no_tree_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError, match="ImageSets/Main"):
        opened(tmp_path)
    lists_of(tmp_path).mkdir(parents=True)
    with pytest.raises(DatasetError, match=r"has no list <class>_train\.txt"):
        opened(tmp_path)


@pytest.mark.parametrize("place", ["VOCdevkit/VOC2007", "VOC2007", "."])
def test_voc2007_is_found_in_every_layout_that_users_have(tmp_path: Path, place: str) -> None:
    values = {part: [-1] * len(ids) for part, ids in PARTS.items()}
    write_tree(tmp_path / "data" / place, labels=dict.fromkeys(CLASSES, values))
    dataset = open_dataset("voc2007", tmp_path / "data")
    assert dataset.name == "voc2007"
    assert dataset.classes == CLASSES
    assert len(dataset.items) == 6


def test_voc2007_that_is_nowhere_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DatasetNotFoundError) as caught:
        open_dataset("voc2007", tmp_path)
    for place in ("VOCdevkit/VOC2007", "VOC2007", "."):
        assert f"'{tmp_path / place / 'ImageSets' / 'Main'}'" in str(caught.value)
    assert "--data-root" in str(caught.value)


@pytest.mark.parametrize("name", ["voc2008", "voc:", "VOC2007", "folder", ""])
def test_a_data_set_that_does_not_exist_is_an_error_of_the_recipe(name: str) -> None:
    with pytest.raises(RecipeError, match=r"Unknown data set .*Valid: .*voc2007"):
        open_dataset(name, Path())


@cache
def official(shared: Path) -> Dataset:
    return open_dataset("voc2007", shared / "voc2007-imagesets", stored_ids=())


def test_the_classes_are_voc_s_in_its_order() -> None:
    assert tuple(POSITIVES) == CLASSES


def test_the_official_lists_have_the_official_sizes(shared: Path) -> None:
    dataset = official(shared)
    (split,) = dataset.splits
    assert (len(split.train.ids), len(split.val.ids), len(split.test.ids)) == (2501, 2510, 4952)
    assert len(dataset.items) == 9963
    assert dataset.classes == CLASSES


@pytest.mark.parametrize("name", POSITIVES)
def test_the_official_lists_have_the_official_positives(shared: Path, name: str) -> None:
    (split,) = official(shared).splits
    k = CLASSES.index(name)
    trainval = sum(int((part.labels[:, k] == 1).sum()) for part in (split.train, split.val))
    assert (trainval, int((split.test.labels[:, k] == 1).sum())) == POSITIVES[name]


def test_the_official_train_and_val_partition_trainval(shared: Path) -> None:
    (split,) = official(shared).splits
    lists = shared / "voc2007-imagesets" / "VOC2007" / "ImageSets" / "Main"
    assert not set(split.train.ids) & set(split.val.ids)
    assert (
        sorted((*split.train.ids, *split.val.ids)) == (lists / "trainval.txt").read_text().split()
    )
    ours = dict(zip(split.train.ids, split.train.labels.tolist(), strict=True))
    ours |= dict(zip(split.val.ids, split.val.labels.tolist(), strict=True))
    for k, name in enumerate(CLASSES):
        words = (lists / f"{name}_trainval.txt").read_text().split()
        theirs = dict(zip(words[::2], map(int, words[1::2]), strict=True))
        assert {i: labels[k] for i, labels in ours.items()} == theirs


def test_a_tree_s_classes_are_those_of_its_lists(shared: Path) -> None:
    root = shared / "voc2007-imagesets" / "VOC2007"
    assert opened(root, stored_ids=()).classes == tuple(sorted(CLASSES))


def test_the_small_voc_has_182_images(shared: Path) -> None:
    dataset = open_dataset("voc2007", shared / "voc2007-mini")
    (split,) = dataset.splits
    assert len(dataset.items) == 182
    assert len(split.train.ids) + len(split.val.ids) == 126
    assert len(split.test.ids) == 56
    assert all(Path(item.source.name).is_file() for item in dataset.items)
    whole = official(shared).splits[0].test
    rows = [whole.ids.index(i) for i in split.test.ids]
    assert np.array_equal(split.test.labels, whole.labels[rows])


def write_2012(root: Path, *, test: bool) -> Path:
    """Write the tree of the trainval archive, and the label-less lists of the test archive."""
    ids = {"train": [f"2008_{n:06d}" for n in range(10)], "val": ["2009_000001", "2009_000002"]}
    labels = {name: {"train": [1, 0] + [-1] * 8, "val": [-1, 1]} for name in CLASSES}
    home = root / "VOCdevkit" / "VOC2012"
    write_tree(home, ids, labels)
    if test:
        (home / "ImageSets" / "Main" / "test.txt").write_text("2010_000001\n2010_000002\n")
        for image in ("2010_000001", "2010_000002"):
            (home / "JPEGImages" / f"{image}.jpg").touch()
    return root


def test_the_test_labels_of_2012_are_unknown(tmp_path: Path) -> None:
    dataset = open_dataset("voc2012", write_2012(tmp_path, test=True))
    [split] = dataset.splits
    assert dataset.classes == CLASSES
    assert [len(part.ids) for part in (split.train, split.val, split.test)] == [10, 2, 2]
    assert not split.test.labels.any()
    assert split.train.labels[:3].T.tolist() == [[1, 0, -1]] * 20


def test_val_stands_in_for_the_hidden_test_of_2012(tmp_path: Path) -> None:
    root = write_2012(tmp_path, test=False)
    with pytest.raises(DatasetNotFoundError, match="'voc2012-val' needs only train and val"):
        open_dataset("voc2012", root)
    dataset = open_dataset("voc2012-val", root)
    [split] = dataset.splits
    assert split.test.ids == ("2009_000001", "2009_000002")
    train = [f"2008_{n:06d}" for n in range(10)]
    order = sorted(train, key=lambda i: hashlib.sha256(f"0:{i}".encode()).digest())
    assert set(split.val.ids) == set(order[:2])
    assert split.train.ids == tuple(i for i in train if i in order[2:])
    assert len(dataset.items) == 12


def test_a_labelled_list_of_test_must_be_complete(tmp_path: Path) -> None:
    root = write_2012(tmp_path, test=True)
    lists = root / "VOCdevkit" / "VOC2012" / "ImageSets" / "Main"
    (lists / "cat_test.txt").write_text("2010_000001 1\n2010_000002 -1\n")
    with pytest.raises(DatasetNotFoundError, match=r"aeroplane_test.txt"):
        open_dataset("voc2012", root)


# --- the year of a tree -------------------------------------------------------------------------


def measure_of(root: Path, **values: object) -> str:
    return Recipe.build({"dataset": f"voc:{root}", "models": ["vgg16"], **values}, "a test").measure


def dated(root: Path, *ids: str) -> Path:
    """Write a tree with the given ids, all in train."""
    parts = {"train": ids, "val": (), "test": ()}
    labels = {"cat": {"train": [1] * len(ids), "val": (), "test": ()}}
    return write_tree(root, parts, labels)


@pytest.mark.parametrize(
    ("year", "measure"),
    [(year, "voc2007" if year < 2010 else "voc2010") for year in range(2007, 2013)],
)
def test_a_tree_is_scored_as_voc_was_in_its_year(tmp_path: Path, year: int, measure: str) -> None:
    assert measure_of(dated(tmp_path / f"VOC{year}", "a")) == measure
    assert measure_of(tmp_path / f"absent-voc{year}_part") == measure  # the name says enough
    ids = dated(tmp_path / "ids", "2007_000001", f"{year}_000002")
    assert measure_of(ids) == measure
    annotated = dated(tmp_path / "annotated", "2007_000001")
    (annotated / "Annotations").mkdir()
    path = annotated / "Annotations" / "2007_000001.xml"
    path.write_text(f"<annotation>\n\t<folder>VOC{year}</folder>\n</annotation>")
    assert measure_of(annotated) == measure
    link = tmp_path / "link"
    link.symlink_to(tmp_path / f"VOC{year}")
    assert measure_of(link) == measure


def test_the_name_says_more_than_annotations_and_these_more_than_ids(tmp_path: Path) -> None:
    root = dated(tmp_path / "x", "2008_000001")
    assert own_measure(root) == (
        "voc2007",
        "it is of 2008, the newest that an id in its lists names",
    )
    (root / "Annotations").mkdir()
    path = root / "Annotations" / "2008_000001.xml"
    path.write_text("<annotation><folder>VOC2012</folder></annotation>")
    assert own_measure(root) == ("voc2010", f"it is of 2012, as '{path}' says")
    root = root.rename(tmp_path / "VOC2007")
    assert own_measure(root) == ("voc2007", f"it is of 2007, as the name of '{root}' says")


def test_six_digits_are_of_2007_and_other_ids_tell_nothing(tmp_path: Path) -> None:
    found = own_measure(dated(tmp_path / "six", "000005", "000007"))
    assert found == ("voc2007", "it is of 2007, whose ids have six digits")
    for number, ids in enumerate([("000005", "cat"), ("20120_000001",), ("2012_1",), ()]):
        root = dated(tmp_path / f"other{number}", *ids)
        assert own_measure(root) is None
        assert measure_of(root) == "voc2007"
    assert own_measure(tmp_path / "absent") is None
    assert measure_of(tmp_path / "absent") == "voc2007"


def test_what_cannot_be_read_tells_no_year(tmp_path: Path) -> None:
    root = dated(tmp_path / "x", "2012_000001")
    (lists_of(root) / "train.txt").write_bytes(b"\xff")
    assert own_measure(root) is None


def test_the_measure_and_its_reason_are_told_unless_it_was_given(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = dated(tmp_path / "x", "2011_000001")
    caplog.set_level("INFO", "vggfeat")
    assert measure_of(root, measure="voc2007") == "voc2007"
    assert not caplog.messages
    assert measure_of(root) == "voc2010"
    reason = "it is of 2011, the newest that an id in its lists names"
    assert caplog.messages == [f"voc:{root} is scored by voc2010: {reason}"]


def test_the_small_voc_is_of_2007(shared: Path) -> None:
    root = shared / "voc2007-mini" / "VOCdevkit" / "VOC2007"
    assert own_measure(root) == ("voc2007", f"it is of 2007, as the name of '{root}' says")
