from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from vggfeat.nets import winograd_kernels as kernels


def dirty(*shape: int) -> np.ndarray:
    """Values that must all be overwritten before they are read."""
    return np.full(shape, 3e7, dtype=np.float32)


def convolved(
    maps: list[Tensor], weight: Tensor, bias: Tensor, pool: str, floor: float = 0
) -> list[Tensor]:
    """Run our kernels on (h, w, C) maps of any sizes, four strips in each job."""
    outputs, channels, side, _ = weight.shape
    sizes = np.array([m.shape[:2] for m in maps], dtype=np.int64)
    after = (sizes + (pool == "ceil")) // 2 if pool != "none" else sizes
    begins = [
        np.concatenate([[0], np.cumsum(s.prod(axis=1) * c)])
        for s, c in ((sizes, channels), (after, outputs))
    ]
    source = torch.cat([m.flatten() for m in maps]).numpy()
    target = dirty(int(begins[1][-1]))
    strips = np.array([(n, s) for n, (h, _) in enumerate(sizes) for s in range(-(-h // 4))])
    for job in np.array_split(strips, -(-len(strips) // 4)):
        common = ((source, target), (begins[0], begins[1]), sizes, job)
        flags = (pool != "none", pool == "ceil")
        tiles = int(sum(-(-sizes[n, 1] // 4) for n, _ in job)) + 5
        if side == 3 and channels > 3:
            small = 16 * max(kernels.BLOCK_VALUES, channels, outputs)
            planes = (
                dirty(36, tiles * channels),
                dirty(36, tiles * outputs),
                dirty(7 * small),
                dirty(small),
            )
            layer = kernels.transformed_filter(weight.numpy()), bias.numpy(), np.float32(floor)
            places = np.cumsum([2, *(-(-sizes[n, 1] // 4) for n, _ in job)])[:-1]  # of 5 spare rows
            kernels.winograd(*common[:3], (job, places), layer, flags, (tiles, 7), planes)
        else:
            windows = 4 * int(sizes[:, 1].max()) + 16
            room = dirty(windows * channels * side**2), dirty(windows * outputs)
            layer = kernels.unrolled_filter(weight.numpy()), bias.numpy(), np.float32(floor)
            kernels.direct(*common, layer, side, flags, 16, room)
    return [
        torch.from_numpy(target[b : b + h * w * outputs].reshape(h, w, outputs))
        for b, (h, w) in zip(begins[1], after, strict=False)
    ]


def expected(x: Tensor, weight: Tensor, bias: Tensor, pool: str, floor: float) -> Tensor:
    """The same by torch, in float64, one map at a time."""
    wide = x.double().permute(2, 0, 1)[None]
    y = functional.conv2d(wide, weight.double(), bias.double(), padding=weight.shape[2] // 2)
    y = y.clamp(min=floor)
    if pool != "none":
        y = functional.max_pool2d(y, 2, ceil_mode=pool == "ceil")
    return y[0].permute(1, 2, 0)


@pytest.mark.slow
@given(
    st.lists(st.tuples(st.integers(2, 23), st.integers(2, 23)), min_size=1, max_size=4),
    st.sampled_from([(8, 8, 3), (16, 5, 3), (24, 40, 3), (3, 8, 3), (6, 9, 1)]),
    st.sampled_from(["none", "floor", "ceil"]),
    st.sampled_from([0.0, -np.inf]),
    st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_convolutions_of_maps_of_any_sizes_are_torchs_of_each_alone(
    sizes: list[tuple[int, int]], shape: tuple[int, int, int], pool: str, floor: float, seed: int
) -> None:
    channels, outputs, side = shape
    dice = torch.Generator().manual_seed(seed)
    maps = [torch.rand((h, w, channels), generator=dice) for h, w in sizes]
    weight = torch.randn((outputs, channels, side, side), generator=dice)
    bias = torch.randn(outputs, generator=dice)
    for x, y in zip(maps, convolved(maps, weight, bias, pool, floor), strict=True):
        reference = expected(x, weight, bias, pool, floor)
        assert (y - reference).norm() <= 5e-6 * reference.norm() + 1e-6


@pytest.mark.parametrize("channels", [3, 8])
@pytest.mark.parametrize("pool", ["none", "ceil"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_so(channels: int, pool: str, bad: float) -> None:
    x = torch.rand((9, 9, channels))
    x[4, 4, 1] = bad
    weight, bias = torch.ones((4, channels, 3, 3)), torch.zeros(4)
    (y,) = convolved([x], weight, bias, pool)
    assert not torch.isfinite(y).all()
    assert torch.isfinite(y[0, -1]).all()  # far from it
    bias[2] = bad
    (y,) = convolved([torch.rand((9, 9, channels))], weight, bias, pool)
    assert not torch.isfinite(y[:, :, 2]).any()


def test_the_transformed_filter_of_a_constant_is_known() -> None:
    # Σ of the rows of G over a filter of ones: 1/4, -1/2, -1/6, 7/24, 1/8, 1 (Lavin & Gray, Eq. 15)
    rows = np.array([1 / 4, -1 / 2, -1 / 6, 7 / 24, 1 / 8, 1])
    found = kernels.transformed_filter(np.ones((1, 1, 3, 3), dtype=np.float32))
    assert np.allclose(found[:, 0, 0], np.outer(rows, rows).ravel(), rtol=1e-7)


def test_code_that_an_earlier_process_compiled_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Path(str(kernels.winograd.stats.cache_path))
    assert place.parent == Path(kernels.__file__).parent or place.name.startswith("nets_")
    stats = SimpleNamespace(cache_path=str(tmp_path))
    monkeypatch.setattr(kernels, "winograd", SimpleNamespace(stats=stats))
    assert not kernels.compiled()
    (tmp_path / "kernels.direct-119.py311.nbi").touch()
    assert kernels.compiled()
