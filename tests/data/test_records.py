from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vggfeat.data.records import Dataset, Item, Kind, Part, Split, manifest_digest, sorted_items
from vggfeat.errors import DatasetError
from vggfeat.files.sources import FileSource


def part_of(ids: Sequence[str], classes: Sequence[int] = (), count: int = 1) -> Part:
    """Make a part; the class of each image is given by its number."""
    labels = np.full((len(ids), count), -1, dtype=np.int8)
    for row, k in enumerate(classes):
        labels[row, k] = 1
    return Part(ids=tuple(ids), labels=labels)


NOTHING = part_of(())


# --- parts and splits ---------------------------------------------------------------------------


def test_an_image_twice_in_a_part_is_named() -> None:
    with pytest.raises(DatasetError, match="Image 'b' is listed twice"):
        part_of(["a", "b", "c", "b", "a"])


@pytest.mark.parametrize(
    ("first", "second"), [("train", "val"), ("train", "test"), ("val", "test")]
)
def test_parts_that_share_images_are_an_error_that_names_them(first: str, second: str) -> None:
    parts = {"train": NOTHING, "val": NOTHING, "test": NOTHING}
    parts[first] = part_of(["e", "c", "b", "a"])
    parts[second] = part_of(["d", "c", "b"])
    with pytest.raises(DatasetError) as caught:
        Split(**parts)
    expected = f"2 images are in {first} and in {second}, the first is 'b'."
    assert str(caught.value).startswith(expected)


def test_persons_of_one_image_may_not_be_in_two_parts() -> None:
    one = Part(ids=("a/1",), labels=part_of(["a/1"]).labels, images=("a",))
    other = Part(ids=("a/2", "b/1"), labels=part_of(["a/2", "b/1"]).labels, images=("a", "b"))
    with pytest.raises(DatasetError, match="1 images are in train and in test, the first is 'a'"):
        Split(train=one, val=NOTHING, test=other)


def test_a_whole_image_and_a_person_on_it_may_not_be_in_two_parts() -> None:
    one = Part(ids=("a/1",), labels=part_of(["a/1"]).labels, images=("a",))
    with pytest.raises(DatasetError, match="1 images are in val and in test, the first is 'a'"):
        Split(train=NOTHING, val=one, test=part_of(["a", "b"]))


def test_a_part_keeps_the_images_of_what_is_taken() -> None:
    ids, images = ("a/1", "a/2", "b/1"), ("a", "a", "b")
    part = Part(ids=ids, labels=part_of(ids).labels, images=images)
    assert part.take(np.array([False, True, True])).images == ("a", "b")
    assert part.head(2, by_class=False).images == ("a", "a")
    assert part_of(ids).images == ids


def test_parts_that_do_not_say_on_which_images_their_boxes_are_cannot_be_a_data_set() -> None:
    """Else the split could not tell that two persons are on one image."""
    items = [Item(i, FileSource(Path("a.jpg")), (1, 1, 2, 2), image="a") for i in ("a/1", "a/2")]
    split = Split(train=part_of(["a/1"]), val=NOTHING, test=part_of(["a/2"]))
    with pytest.raises(ValueError, match="on which images"):
        Dataset(name="x", kind=Kind.ONE_CLASS, classes=("k",), items=tuple(items), splits=(split,))


def test_a_split_s_ids_are_those_of_all_parts_sorted() -> None:
    split = Split(train=part_of(["d", "a"]), val=part_of(["c"]), test=part_of(["b"]))
    assert split.ids == ("a", "b", "c", "d")
    assert split.train.ids == ("d", "a")


# --- a few images of a part ---------------------------------------------------------------------

# classes of 4, 2 and 1 images; in turns the order is a0 b0 c0 a1 b1 a2 a3
UNEQUAL = part_of(["a0", "a1", "a2", "a3", "b0", "b1", "c0"], [0, 0, 0, 0, 1, 1, 2], 3)


@pytest.mark.parametrize(
    ("count", "ids"),
    [
        (1, "a0"),
        (2, "a0 b0"),
        (3, "a0 b0 c0"),
        (4, "a0 a1 b0 c0"),
        (5, "a0 a1 b0 b1 c0"),
        (6, "a0 a1 a2 b0 b1 c0"),
        (7, "a0 a1 a2 a3 b0 b1 c0"),
        (99, "a0 a1 a2 a3 b0 b1 c0"),
    ],
)
def test_the_head_takes_the_classes_in_turns(count: int, ids: str) -> None:
    head = UNEQUAL.head(count, by_class=True)
    assert head.ids == tuple(ids.split())
    rows = [UNEQUAL.ids.index(i) for i in head.ids]
    assert np.array_equal(head.labels, UNEQUAL.labels[rows])
    assert head.labels.dtype == np.int8


def test_the_head_keeps_the_order_of_the_list() -> None:
    mixed = part_of(["z", "y", "x", "w", "v"], [1, 0, 1, 0, 0], 2)
    assert mixed.head(3, by_class=True).ids == ("z", "y", "w")
    assert mixed.head(3, by_class=False).ids == ("z", "y", "x")


def test_without_classes_the_head_is_the_beginning() -> None:
    head = UNEQUAL.head(5, by_class=False)
    assert head.ids == UNEQUAL.ids[:5]
    assert np.array_equal(head.labels, UNEQUAL.labels[:5])


@pytest.mark.parametrize("by_class", [True, False])
def test_the_head_of_nothing_is_nothing(by_class: bool) -> None:
    head = part_of((), count=3).head(4, by_class=by_class)
    assert head.ids == ()
    assert head.labels.shape == (0, 3)


@given(st.lists(st.integers(0, 4), max_size=40), st.integers(1, 45))
@settings(max_examples=100, deadline=None)
def test_no_class_is_more_than_one_ahead_while_another_has_images(
    classes: list[int], count: int
) -> None:
    whole = part_of([f"{n:02d}" for n in range(len(classes))], classes, 5)
    head = whole.head(count, by_class=True)
    assert len(head.ids) == min(count, len(classes))
    taken, there = ((part.labels == 1).sum(axis=0) for part in (head, whole))
    left = taken[taken < there]
    assert not len(left) or taken.max() <= left.min() + 1
    for k in range(5):  # of each class, the first ones
        of_class = [i for i, c in zip(whole.ids, classes, strict=True) if c == k]
        kept = [i for i in head.ids if i in set(of_class)]
        assert kept == of_class[: len(kept)]


def dataset_of(kind: Kind) -> Dataset:
    test = part_of(["t0", "t1", "t2"], [0, 0, 1], 3)
    split = Split(train=UNEQUAL, val=part_of(["v0"], [2], 3), test=test)
    items = sorted_items(Item(i, FileSource(Path(i))) for i in split.ids)
    return Dataset(
        name="folder:x",
        kind=kind,
        classes=("a", "b", "c"),
        items=items,
        splits=(split,),
        ignored=("notes.txt",),
    )


def test_a_limited_data_set_keeps_the_items_of_its_parts() -> None:
    dataset = dataset_of(Kind.ONE_CLASS).limited(2)
    (split,) = dataset.splits
    assert split.train.ids == ("a0", "b0")
    assert split.val.ids == ("v0",)
    assert split.test.ids == ("t0", "t2")
    assert [item.id for item in dataset.items] == list(split.ids) == ["a0", "b0", "t0", "t2", "v0"]
    assert (dataset.name, dataset.classes) == ("folder:x", ("a", "b", "c"))
    assert dataset.ignored == ("notes.txt",)


def test_a_limited_data_set_of_several_labels_takes_the_first_images() -> None:
    (split,) = dataset_of(Kind.MULTI_LABEL).limited(2).splits
    assert split.train.ids == ("a0", "a1")
    assert split.test.ids == ("t0", "t1")


def test_without_a_limit_a_data_set_stays_whole() -> None:
    dataset = dataset_of(Kind.ONE_CLASS)
    assert dataset.limited(None) is dataset
    assert dataset.limited(100).items == dataset.items


def test_an_item_stays_while_one_of_several_splits_has_it() -> None:
    first = Split(train=part_of(["a"]), val=NOTHING, test=part_of(["b", "c"]))
    second = Split(train=part_of(["b"]), val=NOTHING, test=part_of(["d", "a"]))
    items = sorted_items(Item(i, FileSource(Path(i))) for i in "abcd")
    dataset = Dataset(
        name="x", kind=Kind.MULTI_LABEL, classes=("k",), items=items, splits=(first, second)
    )
    assert [item.id for item in dataset.limited(1).items] == ["a", "b", "d"]


# --- items --------------------------------------------------------------------------------------


def test_items_are_sorted_by_id() -> None:
    items = [Item(i, FileSource(Path(i))) for i in ("b/1", "a", "b", "é", "Z")]
    assert [item.id for item in sorted_items(items)] == ["Z", "a", "b", "b/1", "é"]


def test_two_items_of_one_id_are_an_error_that_names_both_files() -> None:
    items = [
        Item("x", FileSource(Path("one"))),
        Item("y", FileSource(Path("two"))),
        Item("x", FileSource(Path("three"))),
    ]
    with pytest.raises(DatasetError, match="'one' and 'three' have the same id 'x'"):
        sorted_items(items)


ITEMS = (Item("a", FileSource(Path("a.jpg"))), Item("b", FileSource(Path("b.jpg")), (1, 2, 3, 4)))
DIGESTS = ("0" * 64, "1" * 64)


@pytest.mark.parametrize(
    ("items", "digests"),
    [
        ((Item("c", FileSource(Path("a.jpg"))), ITEMS[1]), DIGESTS),
        (ITEMS, ("2" * 64, DIGESTS[1])),
        (ITEMS, DIGESTS[::-1]),
        ((ITEMS[0], Item("b", FileSource(Path("b.jpg")), (1, 2, 3, 5))), DIGESTS),
        ((ITEMS[0], Item("b", FileSource(Path("b.jpg")))), DIGESTS),
        (ITEMS[::-1], DIGESTS[::-1]),
        (ITEMS[:1], DIGESTS[:1]),
        ((), ()),
    ],
    ids=["id", "bytes", "bytes swapped", "box", "no box", "order", "fewer", "none"],
)
def test_the_manifest_s_digest_knows_every_difference(
    items: tuple[Item, ...], digests: tuple[str, ...]
) -> None:
    assert manifest_digest(items, digests) != manifest_digest(ITEMS, DIGESTS)


def test_the_manifest_s_digest_does_not_depend_on_where_the_files_lie() -> None:
    moved = [Item(item.id, FileSource(Path("/elsewhere")), item.box) for item in ITEMS]
    assert manifest_digest(moved, iter(DIGESTS)) == manifest_digest(ITEMS, DIGESTS)


def test_the_manifest_needs_as_many_digests_as_items() -> None:
    with pytest.raises(ValueError, match="shorter"):
        manifest_digest(ITEMS, DIGESTS[:1])
