"""Every tap in every form of the net, against plain convolutions in float64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from tests.nets.test_vgg import with_biases
from vggfeat.errors import MapTooSmallError, RecipeError
from vggfeat.nets import architectures, int8
from vggfeat.nets.architectures import ARCHITECTURES, TAPS, Architecture
from vggfeat.nets.canvas import CanvasVgg
from vggfeat.nets.int8 import Int8Unavailable, Int8Vgg, calibrate
from vggfeat.nets.profile import PROFILES
from vggfeat.nets.vgg import DenseVgg
from vggfeat.nets.winograd import RaggedVgg

BOUND = 1e-5  # design.md, section 2: ‖a − b‖ / ‖b‖ in float32
BOUND_DOUBLE = 1e-12
BOUND_INT8 = 3e-4  # 1 - cos, as in test_int8
NET = ARCHITECTURES["vgg16-thin"]
OWN = [name for name in TAPS if name.split("-")[0] not in {"conv3_4", "conv4_4", "conv5_4"}]
ADDED = {"fc8-rectified": ("fc8", True)}
QUICK = ("conv1_1", "conv1_2-linear", "pool4", "conv5_3", "conv5_3-linear", "fc7", "fc8", *ADDED)
SMALL = [name for name in OWN if name.startswith(("conv", "pool"))]


@pytest.fixture(autouse=True)
def _added(monkeypatch: pytest.MonkeyPatch) -> None:
    """A further tap is a line of the table."""
    for name, what in ADDED.items():
        monkeypatch.setitem(architectures.TAPS, name, what)


@cache
def tensors_of(own: Architecture) -> dict[str, Tensor]:
    return with_biases(own)


def net(tap: str, profile: str = "oxford", own: Architecture = NET) -> DenseVgg:
    tensors = {name: tensor.clone() for name, tensor in tensors_of(own).items()}
    return DenseVgg(own, tensors, PROFILES[profile], tap)


def pictures(sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
    dice = np.random.default_rng(0)
    return [torch.from_numpy(dice.integers(0, 256, (h, w, 3), dtype=np.uint8)) for h, w in sizes]


def plainly(
    tensors: Mapping[str, Tensor], own: Architecture, image: Tensor, tap: str, profile: str
) -> Tensor:
    """The average of the layer that a tap is named after, of one (H, W, 3) image, in float64."""
    given = PROFILES[profile]
    x = image.permute(2, 0, 1)[None].double() / (255 if given.unit_range else 1)
    mean, std = (torch.tensor(v).double().view(1, 3, 1, 1) for v in (given.mean, given.std))
    x = (x - mean) / std
    wanted, _, how = tap.partition("-")
    linear = how == "linear" or tap == "fc8"
    steps = [f"conv{b}_{i}" for b, block in enumerate(own.blocks, 1) for i in range(1, 4)]
    steps = [name for name in steps if f"{name}.weight" in tensors]
    for block in range(5, 0, -1):
        last = max(i for i, name in enumerate(steps) if name.startswith(f"conv{block}_"))
        steps.insert(last + 1, f"pool{block}")
    for name in [*steps, "fc6", "fc7", "fc8"]:
        if name.startswith("pool"):
            x = functional.max_pool2d(x, 2, ceil_mode=given.ceil_mode)
        else:
            weight, bias = (tensors[f"{name}.{part}"].double() for part in ("weight", "bias"))
            border = weight.shape[2] // 2 if name.startswith("conv") else 0
            x = functional.conv2d(x, weight, bias, padding=border)
            if not (name == wanted and linear):
                x = x.clamp(min=0)
        if name == wanted:
            return x.mean(dim=(2, 3))[0]
    raise AssertionError(tap)


def expected(
    images: Sequence[Tensor], tap: str, profile: str = "oxford", own: Architecture = NET
) -> Tensor:
    return torch.stack([plainly(tensors_of(own), own, image, tap, profile) for image in images])


def furthest(found: Tensor, reference: Tensor) -> float:
    return float(((found.double() - reference).norm(dim=1) / reference.norm(dim=1)).max())


def test_every_net_has_the_taps_whose_layers_it_has() -> None:
    for own in ARCHITECTURES.values():
        layers = {cost.name: cost.output[0] for cost in own.costs(224, 224)}
        for name, (layer, _) in TAPS.items():
            if layer in layers:
                assert own.tap(name).channels == own.descriptor_size(name) == layers[layer]
            else:
                with pytest.raises(RecipeError, match=f"{own.name} has no tap '{name}'"):
                    own.tap(name)


@pytest.mark.parametrize("tap", [*OWN, *ADDED])
@pytest.mark.parametrize("profile", ["oxford", "torchvision"])
def test_what_a_map_s_size_is_and_which_image_is_too_small(tap: str, profile: str) -> None:
    ceil = PROFILES[profile].ceil_mode
    own = net(tap, profile)
    for side in (own.smallest_side(), *((241,) if own.tap.window > 1 else (32, 47))):
        x = own.normalised(torch.zeros((1, side, side, 3), dtype=torch.uint8))
        if side < own.smallest_side():
            continue
        cells = own.tap.cells(side, ceil)
        assert own.feature_map(x).shape == (1, own.tap.channels, cells, cells)
    assert own.smallest_side() <= own.tap.enough
    assert not own.tap.cells(own.smallest_side() - 1, ceil)
    assert own.tap.enough == {"f": 224}.get(tap[0], 2**own.tap.pools)


def quick(*taps: str) -> list[Any]:
    """Every tap, all but these marked slow."""
    return [
        tap if tap in taps else pytest.param(tap, marks=pytest.mark.slow) for tap in (*OWN, *ADDED)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("tap", quick(*QUICK))
@torch.inference_mode()
def test_the_dense_and_the_padded_form(tap: str) -> None:
    images = pictures([(224, 229), (241, 230)])
    reference = expected(images, tap, "torchvision")
    canvas = CanvasVgg(net(tap, "torchvision"), graphs=False)
    assert furthest(canvas(images, (256, 256), mirror=False)[0], reference) <= BOUND
    wide = net(tap, "torchvision").double()
    alone = torch.cat([wide(image[None]) for image in images])
    assert furthest(alone, reference) <= 1e-6  # mean and std have been rounded to float32
    canvas = CanvasVgg(wide, graphs=False)
    assert furthest(canvas(images, (256, 256), mirror=False)[0], alone) <= BOUND_DOUBLE


@pytest.mark.parametrize("tap", quick(*QUICK))
def test_the_ragged_form(tap: str) -> None:
    images = pictures([(224, 229), (241, 230)])
    ragged = RaggedVgg(net(tap, "torchvision"), threads=2, pixels=1 << 20)
    [found] = ragged(images, (0, 0), mirror=False)
    assert furthest(found, expected(images, tap, "torchvision")) <= BOUND
    assert torch.equal(found[1:], ragged(images[1:], (0, 0), mirror=False)[0])


def check_small(
    sizes: Sequence[tuple[int, int]], profile: str, tap: str, own: Architecture
) -> None:
    smallest = net(tap, profile, own).smallest_side()
    images = pictures([(max(h, smallest), max(w, smallest)) for h, w in sizes])
    reference = expected(images, tap, profile, own)
    ragged = RaggedVgg(net(tap, profile, own), threads=2, pixels=1 << 20)
    [together] = ragged(images, (0, 0), mirror=False)
    assert furthest(together, reference) <= BOUND
    assert torch.equal(together[:1], ragged(images[:1], (0, 0), mirror=False)[0])
    canvas = CanvasVgg(net(tap, profile, own), graphs=False)
    assert furthest(canvas(images, (80, 80), mirror=False)[0], reference) <= BOUND


@pytest.mark.parametrize("tap", ["conv1_1", "pool2"])
def test_images_of_a_few_pixels(tap: str) -> None:
    check_small([(1, 1), (2, 1), (1, 7), (3, 2), (9, 5)], "oxford", tap, NET)


@pytest.mark.slow
@given(
    st.lists(st.tuples(st.integers(1, 70), st.integers(1, 70)), min_size=1, max_size=4),
    st.sampled_from(["oxford", "torchvision"]),
    st.sampled_from(SMALL),
    st.sampled_from(["vgg16-thin", "vgg16c-thin"]),
)
@settings(max_examples=25, deadline=None)
def test_images_as_small_as_can_be(
    sizes: list[tuple[int, int]], profile: str, tap: str, name: str
) -> None:
    check_small(sizes, profile, tap, ARCHITECTURES[name])


@pytest.mark.parametrize(("tap", "side"), [("pool5", 31), ("pool4", 15), ("conv2_1", 1)])
def test_one_pixel_less_is_refused(tap: str, side: int) -> None:
    own = net(tap, "torchvision")
    forms = (CanvasVgg(own, graphs=False), RaggedVgg(own, threads=1, pixels=1 << 20))
    [image] = pictures([(side, 40)])
    for form in forms:
        with pytest.raises(MapTooSmallError) as caught:
            form([image], (side, 40), mirror=False)
        pools = {"pool5": 5, "pool4": 4, "conv2_1": 1}[tap]
        assert f"{side}×40 pixels gives a pool{pools} map of 0×{40 >> pools} cells." in str(
            caught.value
        )
        assert f"{tap} needs at least 1×1, that is {side + 1}×{side + 1} pixels." in str(
            caught.value
        )


@pytest.mark.slow
@pytest.mark.parametrize("tap", quick("pool4", "conv5_3", "conv5_3-linear", "fc6-linear"))
def test_the_8_bit_form(tap: str) -> None:
    pytest.importorskip("openvino", reason='pip install "vggfeat[int8]"')
    try:
        int8.runtime()
    except Int8Unavailable as error:
        pytest.skip(str(error))
    images = [image[None] for image in pictures([(224, 229), (241, 230), (224, 256)])]
    form = Int8Vgg(net(tap), calibrate(net(tap), images), 2)
    found = torch.cat([form.averages(image) for image in images])
    reference = expected([image[0] for image in images], tap)
    assert float((1 - torch.cosine_similarity(found.double(), reference)).max()) < BOUND_INT8
    assert furthest(found, reference) < 0.03


@pytest.mark.slow
@pytest.mark.parametrize("tap", [name for name in SMALL if name.startswith("pool")] + ["conv5_3"])
@torch.inference_mode()
def test_full_nets(tap: str) -> None:
    own = ARCHITECTURES["vgg16"]
    images = pictures([(256, 341)])
    reference = expected(images, tap, own=own)
    for form in (
        RaggedVgg(net(tap, own=own), threads=2, pixels=1 << 20),
        CanvasVgg(net(tap, own=own), graphs=False),
    ):
        assert furthest(form(images, (288, 352), mirror=False)[0], reference) <= BOUND
