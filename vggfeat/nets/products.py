"""Numbers of rows with which a matrix product gives each row the same bits, whatever the others.

A BLAS may add in another order where the whole product is small, or in the last rows where they do
not fill what its inner loop takes; a descriptor would then hang on the images beside it. Which
numbers of rows do that differs between processors and versions, and is written nowhere. So none is
used before it has been seen to give what the largest one gives.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

_log = logging.getLogger(__name__)

Floats = npt.NDArray[np.float32]

GRAIN = 8  # rows; between two multiples nothing would be gained
_DIFFERENT = 7  # rows of a trial: prime to any height of an inner loop, so each lies everywhere


class RowCounts:
    """Says with how many rows a product is computed, given how many are needed.

    Args:
        multiply: From (n, C) to (n, K), always with the same other factor.
        most: The largest number of rows, a multiple of `GRAIN`; more are several products.
    """

    def __init__(self, multiply: Callable[[Floats], Floats], most: int) -> None:
        self.most = most
        self._multiply = multiply
        self._expected: Floats | None = None
        self._sound: dict[int, bool] = {}

    def holding(self, count: int, room: Floats) -> int:
        """Return how many rows to compute, so that `count` of them are sound.

        Args:
            count: What is needed.
            room: (`most`, C), which trials overwrite.

        Returns:
            A number of products of `most` rows, and a last one that has been tried.
        """
        whole, rest = divmod(count, self.most)
        last = -(-rest // GRAIN) * GRAIN
        while 0 < last < self.most and not self._is_sound(last, room):
            last += GRAIN
        return whole * self.most + last

    def _is_sound(self, count: int, room: Floats) -> bool:
        if self._expected is None:
            product = self._tried(room)
            self._expected = product[:_DIFFERENT].copy()
            if not self._agrees(product):
                _log.warning(
                    "the last bits of a descriptor depend on the images beside it, since this "
                    "machine's BLAS gives equal rows of one product different bits"
                )
        if count not in self._sound:
            self._sound[count] = self._agrees(self._tried(room[:count]))
        return self._sound[count]

    def _tried(self, rows: Floats) -> Floats:
        """Multiply rows of which only the first few differ."""
        some = np.random.default_rng(0).standard_normal((_DIFFERENT, rows.shape[1]), np.float32)
        for first in range(0, len(rows), _DIFFERENT):
            rows[first : first + _DIFFERENT] = some[: len(rows) - first]
        return self._multiply(rows)

    def _agrees(self, product: Floats) -> bool:
        assert self._expected is not None
        return product.tobytes() == np.resize(self._expected, product.shape).tobytes()
