"""With which numbers of rows is computed, by BLAS libraries made up for the purpose."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from vggfeat.nets import winograd_kernels as kernels
from vggfeat.nets.products import UNIT, RowCounts

MOST = 7 * UNIT  # 336
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


def by_halves(rows: np.ndarray) -> np.ndarray:
    """Add as OpenBLAS 0.3.31 does on Haswell: of every 12 rows six in each way, the rest anyhow."""
    second = np.arange(len(rows)) % 12 >= 6
    second |= np.arange(len(rows)) >= len(rows) // 12 * 12
    return np.where(second[:, None], backwards(rows), forwards(rows))


def counts(multiply: Callable[[np.ndarray], np.ndarray]) -> RowCounts:
    dirty = np.full(MOST * 48, np.nan, np.float32)
    return RowCounts(multiply, MOST, 48, lambda: dirty)


@pytest.mark.parametrize(
    ("count", "needed"),
    [(1, 8), (16, 16), (17, 24), (100, 104), (336, 336), (337, 344), (672, 672)],
)
def test_where_all_numbers_of_rows_agree_few_are_added(count: int, needed: int) -> None:
    assert counts(forwards).period == 1
    assert counts(forwards).holding(count) == needed


@pytest.mark.parametrize(
    ("count", "needed"), [(1, 64), (63, 64), (65, 72), (336, 336), (338, 400), (640, 640)]
)
def test_a_kernel_for_small_products_is_avoided(count: int, needed: int) -> None:
    def multiply(rows: np.ndarray) -> np.ndarray:
        return (backwards if len(rows) < 64 else forwards)(rows)

    assert counts(multiply).holding(count) == needed


@pytest.mark.parametrize("last", [1, 8])
def test_numbers_whose_last_rows_differ_are_avoided(last: int) -> None:
    """As if an inner loop took 48 rows, and another one what is left."""

    def multiply(rows: np.ndarray) -> np.ndarray:
        product = forwards(rows)
        if len(rows) % 48:
            product[-last:] = backwards(rows)[-last:]
        return product

    own = counts(multiply)
    assert own.period == 1
    assert [own.holding(n) for n in (5, 48, 49, 70, 289)] == [48, 48, 96, 96, 336]


def test_places_that_differ_have_a_period() -> None:
    own = counts(by_halves)
    assert own.period == 12
    assert [own.holding(n) for n in (1, 12, 13, 70, 335, 340)] == [12, 12, 24, 72, 336, 348]


def test_if_nothing_agrees_with_the_largest_product_it_is_the_only_one() -> None:
    def multiply(rows: np.ndarray) -> np.ndarray:
        return (forwards if len(rows) == MOST else backwards)(rows)

    assert [counts(multiply).holding(n) for n in (1, 335, 337)] == [336, 336, 672]


def test_a_blas_whose_places_have_no_period_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    def multiply(rows: np.ndarray) -> np.ndarray:
        product = forwards(rows)
        product[-1] = backwards(rows)[-1]
        return product

    own = counts(multiply)
    assert [own.holding(20), own.holding(40), own.period] == [336, 336, 1]
    assert len(caplog.messages) == 1
    assert "gives equal rows of one product different bits" in caplog.messages[0]


def test_nothing_is_tried_twice() -> None:
    tried: list[int] = []

    def multiply(rows: np.ndarray) -> np.ndarray:
        tried.append(len(rows))
        return forwards(rows)

    own = counts(multiply)
    for _ in range(3):
        assert own.holding(672) == 672
        assert own.holding(20) == 24
    assert tried == [336, 24]


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

    own = RowCounts(multiply, MOST, shape[0], lambda: np.empty(MOST * shape[0], np.float32))
    rows = dice.standard_normal((MOST, shape[0]), np.float32)
    whole = multiply(rows)
    for count in (1, 40, 100):
        begin = own.period * dice.integers((MOST - count) // own.period + 1)
        padded = np.zeros((own.holding(count), shape[0]), np.float32)
        padded[:count] = rows[begin : begin + count]
        assert multiply(padded)[:count].tobytes() == whole[begin : begin + count].tobytes()
