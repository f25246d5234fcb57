from __future__ import annotations

import math
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vggfeat.extraction.batches import Batch, Window, plan_windows
from vggfeat.extraction.images import cropped, rescaled_size

Sizes = dict[int, tuple[int, int]]
Wanted = dict[int, list[int]]
Shard = tuple[Sizes, Wanted, tuple[int, ...], int, int, int | None]


@st.composite
def shards(draw: st.DrawFn) -> Shard:
    few = draw(
        st.lists(st.tuples(st.integers(1, 700), st.integers(1, 700)), min_size=1, max_size=4)
    )
    rows = draw(st.lists(st.integers(0, 99), unique=True, max_size=25))
    scales = tuple(draw(st.lists(st.integers(16, 400), min_size=1, max_size=4, unique=True)))
    some = st.lists(st.integers(0, len(scales) - 1), unique=True, max_size=len(scales)).map(sorted)
    sizes = {row: draw(st.sampled_from(few)) for row in rows}
    wanted = {row: draw(some) for row in rows}
    pixels = st.integers(1, 2_000_000)
    canvas = draw(st.one_of(st.none(), st.integers(1, 300)))
    return sizes, wanted, scales, draw(pixels), draw(pixels), canvas


def planned(shard: Shard) -> list[Window]:
    sizes, wanted, scales, window, batch, canvas = shard
    return plan_windows(
        sizes, wanted, scales, window_pixels=window, batch_pixels=batch, canvas=canvas
    )


@given(shards())
@settings(max_examples=100, deadline=None)
def test_every_wanted_row_and_scale_is_there_exactly_once(shard: Shard) -> None:
    _, wanted, *_ = shard
    done = Counter(
        (row, batch.scale)
        for window in planned(shard)
        for batch in window.batches
        for row in batch.rows
    )
    assert done == Counter((row, scale) for row, scales in wanted.items() for scale in scales)


@given(shards())
@settings(max_examples=100, deadline=None)
def test_windows_partition_the_rows_and_their_batches_stay_inside(shard: Shard) -> None:
    windows = planned(shard)
    assert sorted(row for window in windows for row in window.rows) == sorted(shard[0])
    for window in windows:
        assert window.rows
        assert {row for batch in window.batches for row in batch.rows} <= set(window.rows)


@given(shards())
@settings(max_examples=100, deadline=None)
def test_images_share_a_batch_only_if_they_round_up_to_its_canvas(shard: Shard) -> None:
    sizes, _, scales, *_, canvas = shard
    for batch in (batch for window in planned(shard) for batch in window.batches):
        own = [rescaled_size(*cropped(*sizes[row]), scales[batch.scale]) for row in batch.rows]
        if canvas is None:
            rounded = {(max(h for h, _ in own), max(w for _, w in own))}
        else:
            rounded = {(-(-h // canvas) * canvas, -(-w // canvas) * canvas) for h, w in own}
        assert rounded == {(batch.height, batch.width)}


@given(shards())
@settings(max_examples=100, deadline=None)
def test_only_one_image_alone_may_exceed_a_budget(shard: Shard) -> None:
    sizes, wanted, scales, window_pixels, batch_pixels, canvas = shard

    def shape(row: int, scale: int) -> tuple[int, int]:
        return rescaled_size(*cropped(*sizes[row]), scales[scale])

    for window in planned(shard):
        own = [math.prod(shape(row, scale)) for row in window.rows for scale in wanted[row]]
        assert len(window.rows) == 1 or sum(own) <= window_pixels
        for batch in window.batches:
            padded = batch.height * batch.width * len(batch.rows)
            unpadded = sum(math.prod(shape(row, batch.scale)) for row in batch.rows)
            assert len(batch.rows) == 1 or batch_pixels >= (padded if canvas else unpadded)


@given(shards(), st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_the_order_in_which_rows_are_named_changes_nothing(
    shard: Shard, dice: random.Random
) -> None:
    sizes, wanted, scales, window, batch, canvas = shard
    order = list(sizes)
    dice.shuffle(order)
    shuffled = {row: sizes[row] for row in order}
    backwards = {row: wanted[row] for row in reversed(order)}
    assert planned((shuffled, backwards, scales, window, batch, canvas)) == planned(shard)


def test_equal_sizes_share_a_batch_whatever_lies_between_them() -> None:
    sizes = {0: (300, 400), 1: (400, 300), 2: (600, 800), 3: (400, 300), 4: (300, 400)}
    windows = plan_windows(
        sizes, dict.fromkeys(sizes, (0,)), (60,), window_pixels=10**9, batch_pixels=10**9, canvas=1
    )
    assert windows == [
        Window(
            rows=(0, 2, 4, 1, 3),
            batches=(Batch(0, 60, 80, (0, 2, 4)), Batch(0, 80, 60, (1, 3))),
        )
    ]


@pytest.mark.parametrize(
    ("budget", "counts"), [(1, [1] * 7), (4799, [1] * 7), (9600, [2, 2, 2, 1]), (33600, [7])]
)
def test_a_batch_takes_as_many_images_as_its_budget_holds(budget: int, counts: list[int]) -> None:
    sizes = dict.fromkeys(range(7), (60, 80))  # 4,800 pixels each
    (window,) = plan_windows(
        sizes, dict.fromkeys(sizes, (0,)), (60,), window_pixels=10**9, batch_pixels=budget, canvas=1
    )
    assert [len(batch.rows) for batch in window.batches] == counts


@pytest.mark.parametrize(("budget", "counts"), [(1, [1] * 5), (48000, [2, 2, 1]), (10**9, [5])])
def test_a_window_counts_the_pixels_of_all_scales(budget: int, counts: list[int]) -> None:
    sizes = dict.fromkeys(range(5), (60, 80))  # 60×80 + 120×160 = 24,000 pixels each
    windows = plan_windows(
        sizes,
        dict.fromkeys(sizes, (0, 1)),
        (60, 120),
        window_pixels=budget,
        batch_pixels=10**9,
        canvas=1,
    )
    assert [len(window.rows) for window in windows] == counts


def test_an_extreme_image_is_planned_as_it_is_cropped() -> None:
    (window,) = plan_windows(
        {3: (3000, 1)}, {3: (0,)}, (256,), window_pixels=10, batch_pixels=10, canvas=1
    )
    assert window.batches == (Batch(0, 1024, 256, (3,)),)


def test_nothing_needs_no_window() -> None:
    assert plan_windows({}, {}, (256,), window_pixels=1, batch_pixels=1, canvas=1) == []


def test_near_sizes_share_a_canvas_and_any_sizes_share_a_batch_without_one() -> None:
    sizes = {0: (60, 81), 1: (60, 96), 2: (60, 97), 3: (97, 60)}

    def batches(canvas: int | None) -> tuple[Batch, ...]:
        (window,) = plan_windows(
            sizes,
            dict.fromkeys(sizes, (0,)),
            (60,),
            window_pixels=10**9,
            batch_pixels=10**9,
            canvas=canvas,
        )
        return window.batches

    assert batches(32) == (
        Batch(0, 64, 96, (0, 1)),
        Batch(0, 64, 128, (2,)),
        Batch(0, 128, 64, (3,)),
    )
    assert batches(None) == (Batch(0, 97, 97, (0, 1, 2, 3)),)
