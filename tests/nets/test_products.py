"""Which numbers of rows are computed with, by BLAS libraries made up for the purpose."""

from __future__ import annotations

import numpy as np
import pytest

from vggfeat.nets import winograd_kernels as kernels
from vggfeat.nets.products import GRAIN, RowCounts

OTHER = np.random.default_rng(5).standard_normal((48, 10), np.float32)


def forwards(rows: np.ndarray) -> np.ndarray:
    """Add in the order of the columns."""
    total = np.zeros((len(rows), 10), np.float32)
    for k in range(48):
        total += rows[:, k, None] * OTHER[k]
    return total


def backwards(rows: np.ndarray) -> np.ndarray:
    """Add in the opposite order: other last bits."""
    total = np.zeros((len(rows), 10), np.float32)
    for k in reversed(range(48)):
        total += rows[:, k, None] * OTHER[k]
    return total


def room(most: int = 128) -> np.ndarray:
    return np.full((most, 48), np.nan, np.float32)


@pytest.mark.parametrize(
    ("count", "needed"),
    [(1, 8), (16, 16), (17, 24), (100, 104), (128, 128), (129, 136), (256, 256)],
)
def test_where_all_numbers_of_rows_agree_few_are_added(count: int, needed: int) -> None:
    assert RowCounts(forwards, 128).holding(count, room()) == needed


@pytest.mark.parametrize(
    ("count", "needed"), [(1, 64), (63, 64), (65, 72), (128, 128), (130, 192), (250, 256)]
)
def test_a_kernel_for_small_products_is_avoided(count: int, needed: int) -> None:
    def multiply(rows: np.ndarray) -> np.ndarray:
        return (backwards if len(rows) < 64 else forwards)(rows)

    assert RowCounts(multiply, 128).holding(count, room()) == needed


@pytest.mark.parametrize("last", [1, 8])
def test_numbers_whose_last_rows_differ_are_avoided(last: int) -> None:
    """As if an inner loop took 32 rows, and another one what is left."""

    def multiply(rows: np.ndarray) -> np.ndarray:
        product = forwards(rows)
        if len(rows) % 32:
            product[-last:] = backwards(rows)[-last:]
        return product

    counts = RowCounts(multiply, 128)
    assert [counts.holding(n, room()) for n in (5, 32, 33, 70, 97)] == [32, 32, 64, 96, 128]


def test_if_nothing_agrees_with_the_largest_product_it_is_the_only_one() -> None:
    def multiply(rows: np.ndarray) -> np.ndarray:
        return (forwards if len(rows) == 128 else backwards)(rows)

    assert [RowCounts(multiply, 128).holding(n, room()) for n in (1, 127, 129)] == [128, 128, 256]


def test_a_blas_that_treats_equal_rows_differently_is_told_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def multiply(rows: np.ndarray) -> np.ndarray:
        product = forwards(rows)
        product[-1] = backwards(rows)[-1]
        return product

    counts = RowCounts(multiply, 128)
    assert counts.holding(20, room()) == 128
    assert counts.holding(40, room()) == 128
    assert len(caplog.messages) == 1
    assert "gives equal rows of one product different bits" in caplog.messages[0]


def test_nothing_is_tried_twice_nor_where_nothing_is_left() -> None:
    tried: list[int] = []

    def multiply(rows: np.ndarray) -> np.ndarray:
        tried.append(len(rows))
        return forwards(rows)

    counts = RowCounts(multiply, 128)
    assert counts.holding(256, room()) == 256
    assert tried == []
    for _ in range(3):
        counts.holding(20, room())
    assert tried == [128, 24]


@pytest.mark.parametrize("shape", [(8, 16), (64, 64), (512, 512)])
def test_rows_of_real_products_are_those_of_a_product_of_any_sound_size(
    shape: tuple[int, int],
) -> None:
    dice = np.random.default_rng(0)
    other = dice.standard_normal(shape, np.float32)

    def multiply(rows: np.ndarray) -> np.ndarray:
        product = np.empty((len(rows), shape[1]), np.float32)
        kernels.multiply(rows, other, product, len(rows))
        return product

    counts = RowCounts(multiply, 256)
    rows = dice.standard_normal((256, shape[0]), np.float32)
    whole = multiply(rows)
    for count in (1, GRAIN, 40, 100, 200):
        padded = np.zeros((counts.holding(count, np.empty_like(rows)), shape[0]), np.float32)
        own = dice.permutation(256)[:count]
        padded[:count] = rows[own]
        assert multiply(padded)[:count].tobytes() == whole[own].tobytes()
