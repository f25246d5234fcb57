"""The record that travels from the extractor to the store and on to the classifier."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
import numpy.typing as npt


class Status(IntEnum):
    """What became of an image."""

    OK = 0
    UNREADABLE = 1  # the row is NaN
    ZERO = 2  # a descriptor of norm 0


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Descriptors of n images at S scales.

    Attributes:
        image_id: n ids.
        descriptors: (n, S, D) float32, flip-averaged, each of L2 norm 1.
        norms: (n, S) float32, the L2 norm before that.
        image_size: (n, 2) int32, H and W as decoded; 0 where unreadable.
        image_sha256: (n, 32) uint8, of the file's bytes.
        status: (n,) uint8, see `Status`.
        errors: Reason for each unreadable id.
    """

    image_id: tuple[str, ...]
    descriptors: npt.NDArray[np.float32]
    norms: npt.NDArray[np.float32]
    image_size: npt.NDArray[np.int32]
    image_sha256: npt.NDArray[np.uint8]
    status: npt.NDArray[np.uint8]
    errors: dict[str, str] = field(default_factory=dict)
