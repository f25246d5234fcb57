from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vggfeat.classify.aggregate import aggregate, fuse

How = Literal["average", "stack", "max"]
HOWS: tuple[How, ...] = ("average", "max", "stack")


def stored(raw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    norms = np.linalg.norm(raw, axis=2)
    unit = raw / np.where(norms > 0, norms, 1)[:, :, None]
    return unit.astype(np.float32), norms.astype(np.float32)


@given(st.integers(0, 2**32 - 1), st.integers(1, 300), st.integers(1, 4), st.integers(1, 9))
@settings(max_examples=60, deadline=None)
def test_it_is_the_aggregate_of_the_unnormalised_descriptors(
    seed: int, n: int, scales: int, size: int
) -> None:
    raw = np.random.default_rng(seed).gamma(1.0, 50.0, (n, scales, size))
    expected = {
        "average": raw.mean(axis=1),
        "max": raw.max(axis=1),
        "stack": np.array([np.concatenate(list(row)) for row in raw]),
    }
    for how in HOWS:
        ours = aggregate(*stored(raw), how)
        wanted = expected[how] / np.linalg.norm(expected[how], axis=1, keepdims=True)
        assert ours.dtype == np.float32
        assert np.abs(ours - wanted).max() < 2e-6


def test_normalised_before_every_scale_weighs_alike() -> None:
    raw = np.random.default_rng(1).gamma(1.0, 50.0, (40, 3, 7)) * np.array([1, 10, 100])[:, None]
    unit = raw / np.linalg.norm(raw, axis=2, keepdims=True)
    ours = {how: aggregate(*stored(raw), how, "before") for how in HOWS}
    mean, stack = unit.mean(axis=1), unit.reshape(40, 21) / np.sqrt(3)
    assert np.abs(ours["average"] - mean / np.linalg.norm(mean, axis=1)[:, None]).max() < 1e-6
    assert np.abs(ours["stack"] - stack).max() < 1e-6
    assert not np.allclose(ours["average"], aggregate(*stored(raw), "average"), atol=1e-2)


@pytest.mark.parametrize("how", ["average", "stack", "max"])
def test_one_scale_is_left_as_it_is(how: How) -> None:
    descriptors, norms = stored(np.random.default_rng(0).gamma(1.0, 1.0, (5, 1, 8)))
    assert np.allclose(aggregate(descriptors, norms, how), descriptors[:, 0], atol=1e-7)


@pytest.mark.parametrize("how", ["average", "stack", "max"])
def test_zeros_stay_zeros_and_nan_stays_nan(how: How) -> None:
    descriptors, norms = stored(np.zeros((2, 2, 3)))
    descriptors[1], norms[1] = np.nan, np.nan
    result = aggregate(descriptors, norms, how)
    assert not result[0].any()
    assert np.isnan(result[1]).all()


def test_fusion_weighs_every_net_alike() -> None:
    one, two = np.eye(3, 4, dtype=np.float32), np.eye(3, 2, k=-1, dtype=np.float32)
    two[0, 0] = 1
    fused = fuse([one, two])
    assert fused.shape == (3, 6)
    assert np.allclose(fused, np.concatenate([one, two], axis=1) / np.sqrt(2))
    assert fuse([one]) is one
