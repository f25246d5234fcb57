"""Folds against scikit-learn's, and draws of some images of each class."""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedKFold

from vggfeat.data.protocols import drawn, folded
from vggfeat.data.records import (
    Dataset,
    Item,
    Kind,
    Part,
    Split,
    one_class_part,
    sorted_items,
)
from vggfeat.data.split import divided
from vggfeat.errors import DatasetError
from vggfeat.files.sources import FileSource

Array = np.ndarray[Any, Any]


def dataset(labels: Array, *, images: tuple[str, ...] = (), given: bool = False) -> Dataset:
    """Return a data set of one image in val, one in test and all others in train."""
    ids = tuple(f"{n:04d}.jpg" for n in range(len(labels)))
    images = images or ids
    boxes = images != ids
    n = images.count(images[0])

    def part(rows: slice) -> Part:
        return Part(ids=ids[rows], labels=labels[rows], images=images[rows])

    return Dataset(
        name="folder:photos",
        kind=Kind.ONE_CLASS if ((labels > 0).sum(axis=1) == 1).all() else Kind.MULTI_LABEL,
        classes=tuple("abcdefgh"[: labels.shape[1]]),
        items=sorted_items(
            Item(i, FileSource(Path(i)), image=image if boxes else None)
            for i, image in zip(ids, images, strict=True)
        ),
        splits=(
            Split(
                val=part(slice(0, n)), test=part(slice(n, 2 * n)), train=part(slice(2 * n, None))
            ),
        ),
        given=given,
    )


def one_class(classes: Array) -> Array:
    labels: Array = np.where(classes[:, None] == np.arange(classes.max() + 1), 1, -1)
    return labels.astype(np.int8)


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=6),
    st.integers(2, 8),
    st.integers(0, 1000),
)
def test_folds_hold_what_scikit_learns_hold(sizes: list[int], count: int, seed: int) -> None:
    """The same numbers of images of each class in the folds; every image is tested once."""
    classes = np.repeat(np.arange(len(sizes)), sizes)
    if max(sizes) < count or len(classes) < 3:
        return
    found = folded(dataset(one_class(classes)), count, seed).splits
    ours_held = [(split.test.labels > 0).sum(axis=0).tolist() for split in found]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of small classes
        theirs = [test for _, test in StratifiedKFold(count).split(classes, classes)]
    held = [np.bincount(classes[test], minlength=len(sizes)).tolist() for test in theirs]
    assert sorted(ours_held) == sorted(held)
    assert sorted(i for split in found for i in split.test.ids) == [
        f"{n:04d}.jpg" for n in range(len(classes))
    ]
    assert all(len(split.ids) == len(classes) for split in found)


def test_validation_is_a_fifth_of_the_other_folds_and_at_least_one() -> None:
    """Which images are tested says nothing of which of the others are val."""
    found = folded(dataset(one_class(np.repeat([0, 1, 2], [25, 50, 3]))), 5, 0).splits
    for split in found:
        held = (split.val.labels > 0).sum(axis=0)
        assert held[:2].tolist() == [4, 8]
        assert held[2] == 1
    assert len({split.val.ids for split in found}) == 5


def test_the_seed_alone_decides_the_folds() -> None:
    plain = dataset(one_class(np.arange(40) % 2))
    first, again, other = (
        [[part.ids for part in split.parts] for split in folded(plain, 4, seed).splits]
        for seed in (3, 3, 4)
    )
    assert first == again
    assert first != other


def test_an_image_of_several_classes_counts_for_the_rarest() -> None:
    random = np.random.default_rng(0)
    labels = np.where(random.random((300, 4)) < [0.5, 0.3, 0.1, 0.03], 1, -1).astype(np.int8)
    found = folded(dataset(labels), 5, 0).splits
    held = np.array([(split.test.labels > 0).sum(axis=0) for split in found])
    assert np.ptp(held[:, 3]) <= 1  # exact for the rarest
    assert np.ptp(held, axis=0).max() <= 15
    assert {len(split.test.ids) for split in found} == {60}


def test_boxes_on_one_image_are_in_one_part() -> None:
    images = tuple(f"{n // 3}.jpg" for n in range(60))
    boxed = dataset(one_class(np.arange(60) % 2), images=images)
    for split in (*folded(boxed, 4, 0).splits, *drawn(boxed, (2, 4), 3, 0).splits):
        used = [set(part.images) for part in split.parts]
        assert not (used[0] & used[1] or used[0] & used[2] or used[1] & used[2])


def test_parts_of_its_own_are_put_together_on_demand_only() -> None:
    own = dataset(one_class(np.arange(30) % 2), given=True)
    with pytest.raises(DatasetError, match=r"'folder:photos' says itself which.*--pool"):
        folded(own, 5, 0)
    assert len(folded(own, 5, 0, pool=True).splits) == 5


def test_a_test_part_without_labels_is_not_pooled() -> None:
    own = dataset(one_class(np.arange(30) % 2), given=True)
    [split] = own.splits
    hidden = replace(split, test=replace(split.test, labels=np.zeros_like(split.test.labels)))
    with pytest.raises(DatasetError, match=r"The 1 test images of 'folder:photos' have no labels"):
        folded(replace(own, splits=(hidden,)), 5, 0, pool=True)


def test_more_folds_than_images_are_refused_and_small_classes_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    small = dataset(one_class(np.repeat([0, 1, 2], [9, 2, 3])))
    with pytest.raises(DatasetError, match=r"10 folds .* largest class has 9 images.*--folds 9"):
        folded(small, 10, 0)
    assert not caplog.messages
    folded(small, 5, 0)
    assert "2 of 3 classes have fewer images than there are folds" in caplog.text
    assert "the first is 'b' with 2" in caplog.text


def test_a_draw_takes_so_many_of_each_class_and_more_of_the_same() -> None:
    plain = dataset(one_class(np.arange(122) % 4))
    [own] = plain.splits
    made = drawn(plain, (1, 5, 10), 3, 0)
    found = made.splits
    assert made.shots == (1,) * 3 + (5,) * 3 + (10,) * 3
    assert [made.shots_of(n) for n in (1, 9)] == [1, 10]
    assert plain.shots_of(1) is None
    for split, images in zip(found, made.shots, strict=True):
        of_class = [(part.labels > 0).sum(axis=0).tolist() for part in split.parts]
        val = {1: 0, 5: 1, 10: 2}[images]
        assert of_class[:2] == [[images - val] * 4, [val] * 4]
        assert split.test == own.test
    for few, more in zip(found, found[3:], strict=False):
        assert {*few.train.ids, *few.val.ids} < {*more.train.ids, *more.val.ids}
    assert len({split.train.ids for split in found[:3]}) == 3
    assert found[1].train.ids == drawn(plain, (1,), 2, 0).splits[1].train.ids
    assert found[1].train.ids != drawn(plain, (1,), 2, 1).splits[1].train.ids


def test_classes_with_fewer_images_are_told_and_use_all(caplog: pytest.LogCaptureFixture) -> None:
    small = dataset(one_class(np.repeat([0, 1], [3, 20])))  # one is val, one test
    [split] = drawn(small, (4,), 1, 0).splits
    assert Counter((split.train.joined(split.val).labels > 0).argmax(axis=1)) == {0: 2, 1: 4}
    assert "1 of 2 classes have fewer than 4 training images" in caplog.text
    assert "the first is 'a' with 2" in caplog.text


def test_draws_go_round_the_splits_of_the_data_set() -> None:
    ids = {name: [f"{name}/{n}.jpg" for n in range(20)] for name in ("cat", "dog")}

    def split(seed: int) -> Split:
        parts: dict[str, list[tuple[str, str]]] = {"train": [], "val": [], "test": []}
        for name, own in ids.items():
            for part, some in divided(own, seed, name).items():
                parts[part] += [(i, name) for i in some]
        return Split(**{p: one_class_part(rows, ("cat", "dog"), {}) for p, rows in parts.items()})

    items = sorted_items(Item(i, FileSource(Path(i))) for own in ids.values() for i in own)
    splits = (split(1), split(2))
    several = Dataset(
        name="caltech101", kind=Kind.ONE_CLASS, classes=("cat", "dog"), items=items, splits=splits
    )
    found = drawn(several, (2,), 3, 0).splits
    assert [one.test for one in found] == [splits[0].test, splits[1].test, splits[0].test]
    for one, own in zip(found, (*splits, splits[0]), strict=True):
        assert {*one.train.ids, *one.val.ids} < {*own.train.ids, *own.val.ids}


def test_an_image_is_drawn_if_it_is_among_the_first_of_any_class() -> None:
    random = np.random.default_rng(1)
    labels = np.where(random.random((200, 3)) < [0.5, 0.3, 0.02], 1, -1).astype(np.int8)
    plain = dataset(labels)
    [split] = drawn(plain, (8,), 1, 0).splits
    both = split.train.joined(split.val)
    held = (both.labels > 0).sum(axis=0)
    available = (plain.splits[0].train.joined(plain.splits[0].val).labels > 0).sum(axis=0)
    assert (held >= np.minimum(available, 8)).all()
    assert len(both.ids) <= 24
    assert (both.labels > 0).any(axis=1).all()
