from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.support import layouts
from vggfeat.weights.rounding import rounded_to_bits


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 0.01


def rounded(tensor: Tensor, levels: int = 256) -> Tensor:
    """As TensorFlow.js rounds: evenly from the least value to the greatest."""
    scale = (tensor.max() - tensor.min()) / (levels - 1)
    return ((tensor - tensor.min()) / scale).round() * scale + tensor.min()


def test_rounded_numbers_are_told_by_their_values() -> None:
    whole = drawn(512, 130)
    assert len(torch.unique(rounded(whole))) == 222  # of 256 levels, some at the ends are not taken
    assert rounded_to_bits([whole]) is None
    assert rounded_to_bits([whole, rounded(whole)]) == 8
    assert rounded_to_bits([rounded(whole, 1024)]) is None
    assert rounded_to_bits([whole.half().float()]) is None
    assert rounded_to_bits([whole.bfloat16().float()]) is None
    assert rounded_to_bits([torch.zeros(512, 130)]) is None
    assert rounded_to_bits([rounded(whole)[:256]]) is None  # too few numbers to tell


@pytest.mark.parametrize(("kept", "bits"), [(0.1, 8), (0.5, None)])
def test_a_part_in_full_does_not_hide_the_rest(kept: float, bits: int | None) -> None:
    whole = drawn(64, 64, 3, 3, 4)
    mixed = rounded(whole)
    mixed[: int(64 * kept)] = whole[: int(64 * kept)]
    assert rounded_to_bits([mixed]) == bits


@pytest.mark.slow
def test_the_authors_numbers_are_not_rounded(shared: Path) -> None:
    import numpy as np

    with np.load(shared / "vgg16-trunk" / "vgg16_trunk.npz", allow_pickle=False) as arrays:
        tensors = [torch.from_numpy(arrays[f"conv{n}.weight"]) for n in ("2_1", "3_3", "5_3")]
    assert [rounded_to_bits([tensor]) for tensor in tensors] == [None] * 3
    assert [rounded_to_bits([rounded(tensor)]) for tensor in tensors] == [8] * 3


def test_the_tests_net_is_not_rounded() -> None:
    assert rounded_to_bits(layouts.thin_truth().values()) is None
