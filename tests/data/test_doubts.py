from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vggfeat.data.doubts import doubts_of_bytes, doubts_of_names
from vggfeat.data.records import Dataset, Item, Kind, Part, Split, sorted_items
from vggfeat.files.digests import UNREADABLE
from vggfeat.files.sources import FileSource

Rows = Sequence[Sequence[tuple[str, str]]]  # (id, class) of train, val and test


def dataset_of(parts: Rows, kind: Kind = Kind.ONE_CLASS, names: str = "") -> Dataset:
    """Make a data set of the (id, class) pairs of train, val and test."""
    pairs = [pair for part in parts for pair in part]
    classes = tuple(names.split(",")) if names else tuple(sorted({name for _, name in pairs}))
    split = []
    for part in parts:
        labels = np.full((len(part), len(classes)), -1, np.int8)
        labels[range(len(part)), [classes.index(name) for _, name in part]] = 1
        split.append(Part(ids=tuple(i for i, _ in part), labels=labels))
    return Dataset(
        name="folder:x",
        kind=kind,
        classes=classes,
        items=sorted_items(Item(i, FileSource(Path(i))) for i, _ in pairs),
        splits=(Split(train=split[0], val=split[1], test=split[2]),),
    )


def sha(content: object) -> str:
    return hashlib.sha256(str(content).encode()).hexdigest()


SOUND = ([("a", "cat"), ("b", "dog")], [("c", "cat"), ("d", "dog")], [("e", "cat"), ("f", "dog")])


def test_of_a_sound_data_set_nothing_is_told() -> None:
    dataset = dataset_of(SOUND)
    assert doubts_of_names(dataset) == []
    assert doubts_of_bytes(dataset, {i: sha(i) for i in "abcdef"}) == []


def test_equal_bytes_in_two_parts_are_counted_once_each() -> None:
    same = {"a": sha(1), "c": sha(1), "e": sha(1), "b": sha(2), "f": sha(2), "d": sha(3)}
    assert doubts_of_bytes(dataset_of(SOUND), same) == [
        "3 images have the same bytes as one of another part, so that the score may be too high, "
        "the first is 'c' of val, which is 'a' of train"
    ]


def test_equal_bytes_in_one_part_say_nothing_of_the_score() -> None:
    parts: Rows = ([("a", "cat"), ("b", "cat"), ("c", "dog")], [], [("d", "cat"), ("e", "dog")])
    digests = {"a": sha(1), "b": sha(1), "c": sha(1), "d": sha(4), "e": sha(5)}
    assert doubts_of_bytes(dataset_of(parts), digests) == [
        "1 images have the same bytes as one of another class, the first is 'c' of 'dog', which is "
        "'a' of 'cat'"
    ]
    assert doubts_of_bytes(dataset_of(parts, Kind.MULTI_LABEL), digests) == []


def test_images_that_cannot_be_read_are_not_the_same_and_paths_are_not_published() -> None:
    assert doubts_of_bytes(dataset_of(SOUND), dict.fromkeys("abcdef", UNREADABLE)) == []
    assert doubts_of_bytes(dataset_of(SOUND), {}) == []
    parts: Rows = ([("/home/me/a.jpg", "cat")], [], [("/home/me/b.jpg", "cat")])
    (line,) = doubts_of_bytes(dataset_of(parts), {i: sha(0) for ((i, _),) in (parts[0], parts[2])})
    assert line.endswith("'b.jpg' of test, which is 'a.jpg' of train")


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 4)), min_size=1, max_size=14))
@settings(max_examples=100, deadline=None)
def test_the_number_of_twins_is_that_of_a_slow_search(drawn: list[tuple[int, int]]) -> None:
    rows = [(f"{n:02d}", part, content) for n, (part, content) in enumerate(drawn)]
    parts = [[(i, "k") for i, own, _ in rows if own == part] for part in range(3)]
    twins = [
        i
        for i, part, content in rows
        if any(own < part and other == content for _, own, other in rows)
    ]
    lines = doubts_of_bytes(dataset_of(parts, names="k"), {i: sha(c) for i, _, c in rows})
    assert [int(line.split()[0]) for line in lines] == ([len(twins)] if twins else [])
    if twins:
        assert f"the first is {min(twins)!r} of " in lines[0]


# --- names --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "shown"),
    [
        ("Cat", "cat", "'cat' beside 'Cat'"),
        ("big cat", "big_cat", "'big_cat' beside 'big cat'"),
        ("cat", "cat ", "'cat ' beside 'cat'"),
        ("c\u200bat", "cat", r"'cat' beside 'c\u200bat'"),
        ("fish", "ﬁsh", "'ﬁsh' beside 'fish'"),
        ("mu\u0308sli", "müsli", r"'m\xfcsli' beside 'mu\u0308sli'"),
    ],
)
def test_classes_that_look_alike_are_told(first: str, second: str, shown: str) -> None:
    parts = [[(f"{part}{n}", k) for n, k in enumerate((first, second))] for part in "abc"]
    (line,) = doubts_of_names(dataset_of(parts, names=f"{first},{second}"))
    assert (
        line
        == f"1 classes have names that look like others', and are read apart, the first is {shown}"
    )


def test_other_classes_do_not_look_alike() -> None:
    names = ("c", "c++", "cat", "cats", "car", "1", "10", "faces", "faces easy")
    parts = [[(f"{part}{k}", k) for k in names] for part in "xyz"]
    assert doubts_of_names(dataset_of(parts)) == []


def test_images_whose_names_look_the_same_are_told_and_kept() -> None:
    parts: Rows = (
        [("cat/u\u0308.jpg", "cat"), ("dog/1.jpg", "dog")],
        [],
        [("cat/ü.jpg", "cat"), ("d", "dog")],
    )
    (line,) = doubts_of_names(dataset_of(parts))
    assert line == (
        "1 images have names that look like others', and are read apart, the first is "
        r"'cat/\xfc.jpg' beside 'cat/u\u0308.jpg'"
    )


def test_classes_without_an_image_in_a_part_are_told() -> None:
    parts: Rows = ([("a", "cat"), ("b", "dog")], [("c", "cat")], [("e", "cat"), ("f", "emu")])
    assert doubts_of_names(dataset_of(parts)) == [
        "1 of 3 classes have no image in train, the first is 'emu'",
        "2 of 3 classes have no image in val, the first is 'dog'",
        "1 of 3 classes have no image in test, the first is 'dog'",
    ]
    assert doubts_of_names(dataset_of(parts, Kind.MULTI_LABEL)) == []


def test_an_only_class_is_told() -> None:
    parts: Rows = ([("a", "cat")], [("c", "cat")], [("e", "cat")])
    assert doubts_of_names(dataset_of(parts)) == ["'cat' is the only class: no SVM can be fitted"]
