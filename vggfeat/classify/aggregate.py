"""From the descriptors of every scale to the one that the SVM sees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

Descriptors = npt.NDArray[np.float32]


def aggregate(
    descriptors: Descriptors,
    norms: Descriptors,
    how: Literal["average", "stack", "max"],
    normalise: Literal["after", "before"] = "after",
) -> Descriptors:
    """Form one descriptor per image from its un-normalised descriptors of all scales, then L2.

    Follows Simonyan & Zisserman 2015, App. B (averaging for VOC, stacking for Caltech).

    Args:
        descriptors: (n, S, D) float32, each of L2 norm 1.
        norms: (n, S) float32, the norms before.
        how: "average" or "max" over scales, or "stack" them.
        normalise: "before" leaves each scale's descriptor at norm 1 instead.

    Returns:
        (n, D), or (n, S·D) for "stack", float32, rows of norm 1; a row of zeros stays one.
    """
    n, count, size = descriptors.shape
    result = np.empty((n, count * size if how == "stack" else size), dtype=np.float32)
    for start in range(0, n, 256):  # float64 copies of a few rows at a time
        rows = slice(start, start + 256)
        raw = descriptors[rows].astype(np.float64)
        if normalise == "after":
            raw *= norms[rows, :, None]
        if how == "average":
            joined = raw.mean(axis=1)
        elif how == "max":
            joined = raw.max(axis=1)
        else:
            joined = raw.reshape(len(raw), -1)
        result[rows] = l2_normalised(joined)
    return result


def fuse(blocks: Sequence[Descriptors]) -> Descriptors:
    """Late fusion: concatenate descriptors of several nets, each of norm 1, then L2 over all.

    Args:
        blocks: k arrays (n, D_i) float32, rows of norm 1.

    Returns:
        (n, ΣD_i) float32, rows of norm 1.
    """
    if len(blocks) == 1:
        return blocks[0]
    return l2_normalised(np.concatenate(blocks, axis=1).astype(np.float64)).astype(np.float32)


def l2_normalised(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Divide each row by its L2 norm; a row of zeros stays one.

    Args:
        values: (n, D).
    """
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    return values / np.where(norms > 0, norms, 1)
