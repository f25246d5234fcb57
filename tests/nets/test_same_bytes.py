"""float32 on the CPU: a row is a function of its image and the recipe, to the last bit."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vggfeat.nets.architectures import ARCHITECTURES
from vggfeat.nets.profile import PROFILES
from vggfeat.nets.vgg import DenseVgg
from vggfeat.nets.winograd import RaggedVgg
from vggfeat.weights.find import random_tensors

TAPS: tuple[str, ...] = ("fc7", "fc7-linear", "fc6", "pool5")
PROFILES_OF = {"ceil": "oxford", "floor": "torchvision"}  # a profile that pools so


def net(name: str = "vgg11-thin", pooling: str = "ceil", tap: str = "fc7") -> DenseVgg:
    architecture = ARCHITECTURES[name]
    tensors = random_tensors(architecture, 0)
    return DenseVgg(architecture, tensors, PROFILES[PROFILES_OF[pooling]], tap)


def pictures(sizes: Sequence[tuple[int, int]], seed: int = 0) -> list[Tensor]:
    dice = np.random.default_rng(seed)
    return [torch.from_numpy(dice.integers(0, 256, (h, w, 3), dtype=np.uint8)) for h, w in sizes]


def described(
    plain: DenseVgg, images: Sequence[Tensor], *, threads: int = 1, pixels: int = 1
) -> Tensor:
    """Describe images together, as far as `pixels` allows."""
    [rows] = RaggedVgg(plain, threads=threads, pixels=pixels)(images, (0, 0), mirror=True)
    return rows


def agreements(plain: DenseVgg, images: Sequence[Tensor], dice: random.Random) -> dict[str, bool]:
    """Say whether each image has the bits that it has alone, for threads, orders and batches."""
    alone = torch.cat([described(plain, [image]) for image in images])
    same = {}
    for threads in (1, 2, 3):
        order = dice.choices(range(len(images)), k=len(images) + 1)
        pixels = dice.choice([150_000, 1 << 20])
        found = described(plain, [images[i] for i in order], threads=threads, pixels=pixels)
        same[f"{threads} threads, {order}, {pixels} pixels"] = torch.equal(found, alone[order])
    return same


def check(plain: DenseVgg, images: Sequence[Tensor], dice: random.Random) -> None:
    found = agreements(plain, images, dice)
    assert len(found) == 3
    assert all(found.values()), found


@pytest.mark.parametrize("pooling", ["ceil", "floor"])
@pytest.mark.parametrize("tap", TAPS)
def test_a_row_does_not_depend_on_company_order_threads_or_batches(tap: str, pooling: str) -> None:
    images = pictures([(224, 229), (230, 224), (241, 263)])
    check(net(pooling=pooling, tap=tap), images, random.Random(0))


@pytest.mark.slow
@given(
    st.lists(st.tuples(st.integers(32, 150), st.integers(32, 150)), min_size=1, max_size=6),
    st.sampled_from(["ceil", "floor"]),
    st.sampled_from(["vgg11-thin", "vgg16c-thin"]),
    st.randoms(use_true_random=False),
)
@settings(max_examples=10, deadline=None)
def test_small_maps_of_awkward_sizes(
    sizes: list[tuple[int, int]], pooling: str, name: str, dice: random.Random
) -> None:
    check(net(name, pooling, "pool5"), pictures(sizes), dice)


@pytest.mark.slow
@given(
    st.lists(st.tuples(st.integers(224, 420), st.integers(224, 420)), min_size=1, max_size=6),
    st.sampled_from(["ceil", "floor"]),
    st.sampled_from(TAPS),
    st.sampled_from(["vgg11-thin", "vgg13-bn-thin", "vgg16c-thin", "vgg19-thin"]),
    st.randoms(use_true_random=False),
)
@settings(max_examples=25, deadline=None)
def test_thin_nets(
    sizes: list[tuple[int, int]], pooling: str, tap: str, name: str, dice: random.Random
) -> None:
    check(net(name, pooling, tap), pictures(sizes), dice)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "tap"), [("vgg16", "fc7"), ("vgg16c", "fc6"), ("vgg11", "pool5")])
def test_full_nets(name: str, tap: str) -> None:
    images = pictures([(256, 341), (224, 224), (384, 257), (301, 256)])
    check(net(name, tap=tap), images, random.Random(1))


@pytest.mark.slow
def test_windows_that_are_cut_by_a_table_s_end_are_added_in_the_same_order() -> None:
    images = pictures([(225, 1100), (224, 224), (224, 3200)])  # the last has 94 windows a side
    plain = net()
    rows = described(plain, images * 4, threads=2, pixels=1 << 24)
    alone = torch.cat([described(plain, [image]) for image in images])
    assert torch.equal(rows, alone.repeat(4, 1))


def test_the_mirror_image_is_just_another_image() -> None:
    [image] = pictures([(224, 247)])
    plain = net()
    form = RaggedVgg(plain, threads=2, pixels=1 << 20)
    [sides] = form([image.flip(1), image], (0, 0), mirror=False)
    [both] = form([image], (0, 0), mirror=True)
    assert torch.equal(both[0], (sides[1] + sides[0]) / 2)


@pytest.mark.slow
@pytest.mark.parametrize("processor", ["Haswell", "SkylakeX", "Sandybridge", "Nehalem", "Zen"])
def test_other_processors_kernels(processor: str) -> None:
    """Those that this one can run; OpenBLAS falls back to another where it cannot."""
    code = """
import json
import random
from tests.nets.test_same_bytes import agreements, net, pictures
thin = pictures([(224, 229), (230, 224), (241, 263)])
full = pictures([(224, 229), (250, 224)])
found = [
    agreements(net("vgg16-thin"), thin, random.Random(0)),
    agreements(net("vgg11"), full, random.Random(0)),
]
print(json.dumps(found))
"""
    for found in json.loads(printed(code, OPENBLAS_CORETYPE=processor)):
        assert len(found) == 3
        assert all(found.values()), found


@pytest.mark.slow
def test_every_blas_in_use_is_kept_to_one_thread() -> None:
    """numba's multiplies by scipy's, which it would load too late to be limited."""
    code = """
import json
from threadpoolctl import threadpool_info
from tests.nets.test_same_bytes import net, pictures
from vggfeat.nets.winograd import RaggedVgg
form = RaggedVgg(net(), threads=2, pixels=1)
form(pictures([(224, 224)]), (0, 0), mirror=False)
limited = [library.filepath for library in form._blas.lib_controllers]
used = [info["filepath"] for info in threadpool_info() if info["user_api"] == "blas"]
print(json.dumps([limited, used]))
"""
    limited, used = json.loads(printed(code))
    assert used
    assert {*used} <= {*limited}


def printed(code: str, **environment: str) -> str:
    """Run a program in a process of its own; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
