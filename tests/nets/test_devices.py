from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from vggfeat.errors import RecipeError
from vggfeat.nets import devices


@pytest.mark.parametrize("name", ["cuda:99", "gpu", "cuda:x"])
def test_a_device_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(RecipeError, match=name):
        devices.device_of(name)


def test_a_gpu_is_asked_for_only_where_a_driver_has_left_a_sign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sign = tmp_path / "nvidiactl"
    monkeypatch.setattr(devices, "_SIGNS_OF_A_GPU", (str(tmp_path / "kfd"), str(sign)))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert devices.device_of("auto") == "cpu"
    sign.touch()
    assert devices.device_of("auto") == "cuda"
    assert devices.device_of("cpu") == "cpu"
    for hidden in ("", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        assert devices.device_of("auto") == "cpu"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert devices.device_of("auto") == "cuda"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert devices.device_of("auto") == "cpu"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
def test_the_gpu_that_torch_sees_has_left_a_sign() -> None:
    assert devices.device_of("auto") == "cuda"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, 2),
        ({"OMP_NUM_THREADS": "1"}, 1),
        ({"OMP_NUM_THREADS": "9"}, 2),
        ({"OMP_NUM_THREADS": "0"}, 2),
        ({"OMP_NUM_THREADS": "one"}, 2),
        ({"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "1"}, 1),
    ],
)
def test_threads_are_counted_as_torch_does(
    said: dict[str, str], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four logical cores, two on each physical one; a fifth is not ours."""
    siblings = {0: "0-1\n", 1: "0-1\n", 2: "2-3\n", 3: "2-3\n", 4: "4\n"}
    monkeypatch.setattr(devices, "_siblings", siblings.__getitem__)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    for name in ("MKL_NUM_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    for name, number in said.items():
        monkeypatch.setenv(name, number)
    assert devices.usual_threads() == expected
