"""How to compute a matrix product so that a row's bits do not depend on the other rows.

A BLAS may add in another order where the whole product is small, in the last rows where they do not
fill what its inner loop takes, or, as OpenBLAS for processors with AVX2, in every second half dozen
of rows; a descriptor would then hang on the images beside it. Which rows differ depends on
processor and version and is written nowhere. So a number of rows is used only once it has been
seen to give what the largest one gives, and an image's rows begin only where all places are alike.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cached_property

import numpy as np
import numpy.typing as npt

_log = logging.getLogger(__name__)

Floats = npt.NDArray[np.float32]

UNIT = 48  # rows; a multiple of all periods
_PERIODS = (1, 2, 4, 8, 12, 16, 24)
_GRAIN = 8  # rows; between two multiples nothing would be gained
_DIFFERENT = 7  # rows of a trial: prime to every period, so that each comes to lie everywhere


class RowCounts:
    """Says with how many rows to compute a product, and where in it an image's rows may begin.

    Args:
        multiply: From (n, C) to (n, K), always with the same other factor.
        most: The largest number of rows, a multiple of `UNIT`, large enough that a trial shows
            every period twice; more rows are several products.
        length: C.
        room: Returns a flat array of `most` · C values at least, which trials overwrite.
    """

    def __init__(
        self,
        multiply: Callable[[Floats], Floats],
        most: int,
        length: int,
        room: Callable[[], Floats],
    ) -> None:
        assert most % UNIT == 0
        assert most >= 2 * _PERIODS[-1] * _DIFFERENT
        self.most = most
        self._multiply = multiply
        self._length = length
        self._room = room
        self._sound: dict[int, bool] = {}

    @property
    def period(self) -> int:
        """Equal rows whose places differ by a multiple of this have the same bits."""
        return len(self._expected) // _DIFFERENT

    def holding(self, count: int) -> int:
        """Return how many rows to compute, so that `count` of them are sound.

        It is a number of products of `most` rows and a last one that has been tried.
        """
        whole, rest = divmod(count, self.most)
        step = max(_GRAIN, self.period)
        last = -(-rest // step) * step
        while 0 < last < self.most and not self._is_sound(last):
            last += step
        return whole * self.most + last

    def _is_sound(self, count: int) -> bool:
        if count not in self._sound:
            self._sound[count] = _repeats(self._tried(count), self._expected)
        return self._sound[count]

    @cached_property
    def _expected(self) -> Floats:
        """The first rows of the largest product, which come again and again."""
        largest = self._tried(self.most)
        for period in _PERIODS:
            first = largest[: period * _DIFFERENT]
            if _repeats(largest, first):
                return first.copy()
        _log.warning(
            "the last bits of a descriptor depend on the images beside it, since this machine's "
            "BLAS gives equal rows of one product different bits"
        )
        return largest[:_DIFFERENT].copy()

    def _tried(self, count: int) -> Floats:
        """Multiply rows of which only the first few differ."""
        rows = self._room()[: count * self._length].reshape(count, self._length)
        some = np.random.default_rng(0).standard_normal((_DIFFERENT, self._length), np.float32)
        for first in range(0, count, _DIFFERENT):
            rows[first : first + _DIFFERENT] = some[: count - first]
        return self._multiply(rows)


def _repeats(product: Floats, expected: Floats) -> bool:
    """Tell whether the rows of a product are those expected, over and over, to the last bit."""
    return product.tobytes() == np.resize(expected, product.shape).tobytes()
