from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from vggfeat.data import open_dataset
from vggfeat.data.action import ACTIONS, read_boxes
from vggfeat.data.records import Dataset
from vggfeat.errors import DatasetError, DatasetNotFoundError

Person = tuple[str, int, str | None]  # image, object, action; None for one of 'other'
Objects = Sequence[tuple[str, Sequence[str]]]  # each one's name and box, as the file writes them
PARTS: dict[str, Sequence[Person]] = {
    "train": [
        ("2010_000002", 1, "jumping"),
        ("2010_000002", 3, None),
        ("2010_000001", 1, "walking"),
        ("2010_000007", 1, "reading"),
        ("2010_000008", 1, "running"),
    ],
    "val": [("2010_000003", 2, "jumping")],
    "test": [("2010_000005", 1, "phoning"), ("2010_000004", 1, None)],
}
OBJECTS: dict[str, Objects] = {  # of each image
    "2010_000001": [("person", ("1", "2", "30.6", "40"))],
    "2010_000002": [
        ("person", ("10", "1", "50", "80")),
        ("horse", ("1", "1", "90", "60")),
        ("person", ("45.5", "20", "101", "90.49")),
    ],
    "2010_000003": [("dog", ("1", "1", "2", "2")), ("person", ("5", "5", "25", "25"))],
    "2010_000004": [("person", ("1", "1", "9", "9")), ("person", ("2", "2", "9", "9"))],
    "2010_000005": [("person", ("3", "3", "9", "9"))],
    "2010_000007": [("person", ("3", "3", "9", "9"))],
    "2010_000008": [("person", ("3", "3", "9", "9"))],
}


def annotation(objects: Objects) -> str:
    rows = []
    for name, corners in objects:
        pairs = zip(("xmin", "ymin", "xmax", "ymax"), corners, strict=True)
        box = "".join(f"<{corner}>{value}</{corner}>" for corner, value in pairs)
        point = "<point><x>7</x><y>7</y></point>"
        rows.append(f"<object><name>{name}</name><bndbox>{box}</bndbox>{point}</object>")
    return f"<annotation><folder>VOC2012</folder>{''.join(rows)}</annotation>"


def write_tree(
    root: Path,
    parts: Mapping[str, Sequence[Person]] = PARTS,
    objects_of: Mapping[str, Objects] = OBJECTS,
    *,
    test_labels: bool = False,
    second_column: bool = False,
) -> Path:
    """Write ImageSets/Action, Annotations and empty images in the true layout."""
    lists = root / "VOCdevkit" / "VOC2012" / "ImageSets" / "Action"
    lists.mkdir(parents=True)
    home = lists.parents[1]
    (home / "JPEGImages").mkdir()
    (home / "Annotations").mkdir()
    for image, objects in objects_of.items():
        (home / "JPEGImages" / f"{image}.jpg").touch()
        (home / "Annotations" / f"{image}.xml").write_text(annotation(objects))
    for part, persons in parts.items():
        images = dict.fromkeys(image for image, _, _ in persons)
        lines = [f"{i}\n" for i in images]
        if second_column:
            lines = [f"{i} {k}\n" for i, k, _ in persons]
        (lists / f"{part}.txt").write_text("".join(lines))
        for action in ("other", *ACTIONS) if part != "test" or test_labels else ():
            rows = []
            for image, number, own in persons:
                rows.append(f"{image}  {number} {1 if (own or 'other') == action else -1:2d}\n")
            (lists / f"{action}_{part}.txt").write_text("".join(rows))
    return root


def opened(root: Path, name: str = "voc2012-action") -> Dataset:
    return open_dataset(name, root)


def test_each_person_is_an_item_with_a_box(tmp_path: Path) -> None:
    dataset = opened(write_tree(tmp_path))
    assert dataset.classes == ACTIONS
    assert len(ACTIONS) == 10
    boxes = {item.id: item.box for item in dataset.items}
    assert boxes["2010_000001/1"] == (1, 2, 31, 40)
    assert boxes["2010_000002/1"] == (10, 1, 50, 80)
    assert boxes["2010_000002/3"] == (46, 20, 101, 90)
    assert boxes["2010_000003/2"] == (5, 5, 25, 25)
    [path] = {
        Path(item.source.name).name for item in dataset.items if item.id.startswith("2010_000002/")
    }
    assert path == "2010_000002.jpg"
    assert [item.id for item in dataset.items] == sorted(boxes)


def test_other_is_a_negative_of_all_ten(tmp_path: Path) -> None:
    [split] = opened(write_tree(tmp_path)).splits
    assert split.train.ids[:3] == ("2010_000002/1", "2010_000002/3", "2010_000001/1")
    assert split.train.labels[0].tolist() == [1] + [-1] * 9
    assert split.train.labels[1].tolist() == [-1] * 10
    assert split.train.labels[2].tolist() == [-1] * 9 + [1]


@pytest.mark.parametrize("second_column", [False, True])
def test_the_hidden_labels_of_test_are_unknown(tmp_path: Path, second_column: bool) -> None:
    [split] = opened(write_tree(tmp_path, second_column=second_column)).splits
    persons = ("2010_000005/1", "2010_000004/1")
    everybody = (*persons, "2010_000004/2")  # without numbers: every person of the annotation
    assert split.test.ids == (persons if second_column else everybody)
    assert not split.test.labels.any()


def test_lists_may_be_of_windows_and_write_a_sign(tmp_path: Path) -> None:
    [plain] = opened(write_tree(tmp_path / "plain")).splits
    root = write_tree(tmp_path / "windows")
    for path in (root / "VOCdevkit/VOC2012/ImageSets/Action").iterdir():
        text = path.read_text().replace("  1\n", " +1\n").replace(" ", "\t")
        path.write_bytes(text.replace("\n", "\r\n").encode("utf-8-sig"))
    [split] = opened(root).splits
    assert split.train.ids == plain.train.ids
    assert split.train.labels.tolist() == plain.train.labels.tolist()
    assert split.test.ids == plain.test.ids


def test_labels_of_test_are_read_where_they_are(tmp_path: Path) -> None:
    [split] = opened(write_tree(tmp_path, test_labels=True)).splits
    assert split.test.labels[0, ACTIONS.index("phoning")] == 1
    assert split.test.labels.sum() == 1 - 19


def test_val_stands_in_for_test(tmp_path: Path) -> None:
    root = write_tree(tmp_path)
    (root / "VOCdevkit/VOC2012/ImageSets/Action/test.txt").unlink()
    with pytest.raises(DatasetNotFoundError, match="'voc2012-action-val' needs only train and val"):
        opened(root)
    [split] = opened(root, "voc2012-action-val").splits
    assert split.test.ids == ("2010_000003/2",)
    assert (len(split.train.ids), len(split.val.ids)) == (4, 1)
    official = {f"{image}/{number}" for image, number, _ in PARTS["train"]}
    assert {*split.train.ids, *split.val.ids} == official


def crowd(images: int, persons: int, part: str) -> list[Person]:
    """Name some images with so many persons on each."""
    return [
        (f"{part}_{n:06d}", k, ACTIONS[n % 10])
        for n in range(images)
        for k in range(1, persons + 1)
    ]


def test_all_persons_of_an_image_train_or_validate_together(tmp_path: Path) -> None:
    """By the hash of persons all 25 of val stood on images that train."""
    parts = {"train": crowd(25, 5, "2010"), "val": crowd(2, 5, "2011")}
    objects: dict[str, Objects] = {
        image: [("person", ("1", "1", "9", "9"))] * 5
        for persons in parts.values()
        for image, _, _ in persons
    }
    [split] = opened(write_tree(tmp_path, parts, objects), "voc2012-action-val").splits
    images = sorted({image for image, _, _ in parts["train"]})
    order = sorted(images, key=lambda i: hashlib.sha256(f"0:{i}".encode()).digest())
    assert split.val.ids == tuple(f"{i}/{k}" for i in images if i in order[:5] for k in range(1, 6))
    assert {i.partition("/")[0] for i in split.train.ids} == set(order[5:])
    assert (len(split.train.ids), len(split.val.ids), len(split.test.ids)) == (100, 25, 10)
    assert split.val.images == tuple(i.partition("/")[0] for i in split.val.ids)
    column = {name: k for k, name in enumerate(ACTIONS)}
    action_of = {f"{image}/{k}": action for image, k, action in parts["train"]}
    for i, labels in zip(split.val.ids, split.val.labels, strict=True):
        assert np.flatnonzero(labels == 1).tolist() == [column[str(action_of[i])]]


def test_official_lists_that_share_an_image_are_refused(tmp_path: Path) -> None:
    parts = {**PARTS, "val": [("2010_000002", 1, "jumping")], "train": [("2010_000002", 3, None)]}
    with pytest.raises(DatasetError, match=r"1 images are in train and in val, .* \('2010_0"):
        opened(write_tree(tmp_path, parts))


def test_lists_and_annotations_must_agree(tmp_path: Path) -> None:
    home = write_tree(tmp_path) / "VOCdevkit" / "VOC2012"
    path = home / "Annotations" / "2010_000003.xml"
    path.write_text(annotation([("dog", ("1", "1", "2", "2"))]))
    with pytest.raises(
        DatasetError, match=r"name person '2010_000003/2', but object 2 .* not there"
    ):
        opened(tmp_path)
    path.write_text(annotation([("dog", ("1", "1", "2", "2"))] * 2))
    with pytest.raises(DatasetError, match=r"object 2 of '.*2010_000003.xml' is 'dog'"):
        opened(tmp_path)
    path.unlink()
    with pytest.raises(DatasetError, match=r"2010_000003.xml' cannot be read: No such file"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("2010_000003 2\n", "Expected 3 columns"),
        ("2010_000003 0 1\n", r"line 1: object '0'. Expected its number"),
        ("2010_000003 ² 1\n", r"line 1: object '²'"),
        ("2010_000003 2 0\n", r"line 1: label '0'. Expected 1 or -1"),
        ("2010_000003 1 1\n", r"does not list the persons of .*jumping_val.txt' in their order"),
    ],
)
def test_a_wrong_list_is_named(tmp_path: Path, lines: str, message: str) -> None:
    home = write_tree(tmp_path) / "VOCdevkit" / "VOC2012"
    (home / "ImageSets" / "Action" / "reading_val.txt").write_text(lines)
    with pytest.raises(DatasetError, match=message):
        opened(tmp_path)


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "a.xml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


LAUGHS = "<!DOCTYPE a [<!ENTITY a 'ha'><!ENTITY b '&a;&a;'>]><annotation>&b;</annotation>"
OUTSIDE = "<!DOCTYPE a [<!ENTITY a SYSTEM 'file:///etc/passwd'>]><annotation>&a;</annotation>"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LAUGHS, "no sound annotation"),
        (OUTSIDE, "no sound annotation"),
        ("<!DOCTYPE a><annotation/>", "no sound annotation"),
        ("<annotation>", "no sound annotation"),
        ("", "no sound annotation"),
        (" " * (1 << 20) + "<annotation/>", "larger than 1 MB"),
        ("<a><object><bndbox/></object></a>", "an object has no name"),
        (annotation([("person", ("1", "2", "x", "4"))]), "is no box"),
        (annotation([("person", ("1", "2", "nan", "4"))]), "is no box"),
        (annotation([("person", ("1", "2", "1e300", "4"))]), "is no box"),
        (annotation([("person", ("9", "2", "8", "4"))]), r"box \(9, 2, 8, 4\) is empty"),
        ("<a><object><name>person</name></object></a>", "is no box"),
    ],
)
def test_a_hostile_or_broken_annotation_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        read_boxes(written(tmp_path, text))


SOUND = annotation(OBJECTS["2010_000002"]).encode()


@given(
    st.lists(st.tuples(st.integers(0, len(SOUND) - 1), st.integers(0, 255)), max_size=8),
    st.integers(0, len(SOUND)),
    st.binary(max_size=20),
)
@example([(0, 0xFF), (1, 0xFE)], 0, b"")
@settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_a_mutated_annotation_is_read_or_refused(
    tmp_path: Path, flips: list[tuple[int, int]], place: int, inserted: bytes
) -> None:
    data = bytearray(SOUND)
    for position, value in flips:
        data[position] = value
    path = written(tmp_path, bytes(data[:place] + inserted + data[place:]))
    try:
        found = read_boxes(path)
    except DatasetError:
        return
    for _, box in found:
        assert np.all(np.isfinite(box))
        assert box[0] <= box[2]
        assert box[1] <= box[3]
