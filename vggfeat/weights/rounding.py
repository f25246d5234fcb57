"""Whether numbers were rounded to a byte each, as files for browsers and phones are."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

_BITS = 8
_LEVELS = 1 << _BITS
_SAMPLE = 1 << 16  # numbers, spread evenly over a tensor
_SHARE = 0.75  # of them: twice what bfloat16 has, and a part may be known in full


def rounded_to_bits(tensors: Iterable[Tensor]) -> int | None:
    """Return 8 if most of a large tensor's numbers take no more than 256 values.

    Of 65,536 numbers of the authors' conv5_3 the 256 most frequent values are 0.4 %, in float16
    7 %, in bfloat16 36 %. A file that has rounded some of its tensors, or most of one, is a rounded
    one, whatever its format.

    Args:
        tensors: Float, of any shape; those of fewer than 65,536 numbers tell nothing.

    Returns:
        None if there is none.
    """
    return _BITS if any(map(_is_rounded, tensors)) else None


def _is_rounded(tensor: Tensor) -> bool:
    step = tensor.numel() // _SAMPLE
    if not step:
        return False
    values, counts = torch.unique(tensor.detach().flatten()[::step][:_SAMPLE], return_counts=True)
    covered = counts.sort(descending=True).values[:_LEVELS].sum()
    return len(values) > 1 and bool(covered >= _SHARE * _SAMPLE)
