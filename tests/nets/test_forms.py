"""The fast forms of the net against the plain one, one image at a time, in float64."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vggfeat.errors import MapTooSmallError
from vggfeat.nets import canvas as canvas_module
from vggfeat.nets import vgg as vgg_module
from vggfeat.nets.architectures import ARCHITECTURES
from vggfeat.nets.canvas import CanvasVgg, DeviceMemoryError
from vggfeat.nets.packed import packs
from vggfeat.nets.profile import PROFILES
from vggfeat.nets.vgg import DenseVgg
from vggfeat.nets.winograd import RaggedVgg
from vggfeat.weights.find import random_tensors

BOUND = 1e-5  # of design.md, section 2, in float32
TAPS: tuple[str, ...] = ("fc7", "fc7-linear", "fc6", "pool5")
Form = Callable[..., tuple[Tensor, ...]]


def net(name: str = "vgg11-thin", profile: str = "oxford", tap: str = "fc7") -> DenseVgg:
    architecture = ARCHITECTURES[name]
    return DenseVgg(architecture, random_tensors(architecture, 0), PROFILES[profile], tap)


def pictures(sizes: Sequence[tuple[int, int]], seed: int = 0) -> list[Tensor]:
    dice = np.random.default_rng(seed)
    return [torch.from_numpy(dice.integers(0, 256, (h, w, 3), dtype=np.uint8)) for h, w in sizes]


@torch.inference_mode()
def alone(plain: DenseVgg, images: Sequence[Tensor], *, mirror: bool) -> Tensor:
    """Each image, and each side, alone, in float64."""
    wide = plain.double()
    rows = []
    for image in images:
        sides = [image, image.flip(1)] if mirror else [image]
        rows.append(torch.stack([wide(side[None])[0] for side in sides]).mean(dim=0))
    return torch.stack(rows)


def furthest(found: Tensor, reference: Tensor) -> float:
    distance = (found.double() - reference).norm(dim=1) / reference.norm(dim=1)
    return float(distance.max())


@pytest.mark.slow
@given(
    st.lists(st.tuples(st.integers(224, 330), st.integers(224, 330)), min_size=1, max_size=4),
    st.sampled_from(["oxford", "torchvision"]),  # ceil and floor pools
    st.sampled_from(TAPS),
    st.booleans(),
    st.tuples(st.integers(1, 200_000), st.integers(1, 3)),
    st.randoms(use_true_random=False),
)
@settings(max_examples=20, deadline=None)
def test_every_row_of_a_ragged_batch_is_the_image_alone(
    sizes: list[tuple[int, int]],
    profile: str,
    tap: str,
    mirror: bool,
    effort: tuple[int, int],
    dice: random.Random,
) -> None:
    images = pictures(sizes)
    ragged = RaggedVgg(net(profile=profile, tap=tap), threads=effort[1], pixels=effort[0])
    [found] = ragged(images, (0, 0), mirror=mirror)
    assert furthest(found, alone(net(profile=profile, tap=tap), images, mirror=mirror)) <= BOUND
    order = list(range(len(images)))
    dice.shuffle(order)
    [shuffled] = ragged([images[i] for i in order], (0, 0), mirror=mirror)
    assert furthest(shuffled, found[order]) <= BOUND


@pytest.mark.slow
@given(
    st.lists(st.tuples(st.integers(224, 300), st.integers(224, 300)), min_size=1, max_size=4),
    st.tuples(st.integers(0, 70), st.integers(0, 70)),
    st.sampled_from(["oxford", "torchvision"]),
    st.sampled_from(TAPS),
    st.booleans(),
    st.booleans(),
)
@settings(max_examples=20, deadline=None)
def test_every_row_of_a_canvas_is_the_image_alone(
    sizes: list[tuple[int, int]],
    more: tuple[int, int],
    profile: str,
    tap: str,
    mirror: bool,
    double: bool,
) -> None:
    images = pictures(sizes)
    canvas = max(h for h, _ in sizes) + more[0], max(w for _, w in sizes) + more[1]
    plain = net(profile=profile, tap=tap)
    [found] = CanvasVgg(plain.double() if double else plain, graphs=False)(
        images, canvas, mirror=mirror
    )
    reference = alone(net(profile=profile, tap=tap), images, mirror=mirror)
    assert furthest(found, reference) <= (1e-12 if double else BOUND)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vgg11-lrn-thin", "vgg16c-thin", "vgg13-bn-thin", "vgg19-thin"])
def test_other_nets_on_canvases_and_in_ragged_batches(name: str) -> None:
    images = pictures([(224, 301), (260, 224), (256, 256)])
    plain = net(name)
    reference = alone(net(name), images, mirror=True)
    [found] = CanvasVgg(plain, graphs=False)(images, (288, 320), mirror=True)
    assert furthest(found, reference) <= BOUND
    if not plain.architecture.lrn:
        ragged = RaggedVgg(plain, threads=2, pixels=1 << 20)
        [found] = ragged(images, (0, 0), mirror=True)
        assert furthest(found, reference) <= BOUND


def test_without_masks_a_canvas_would_change_descriptors() -> None:
    images = pictures([(224, 230)])
    padded = torch.zeros((1, 288, 288, 3), dtype=torch.uint8)
    padded[0, :224, :230] = images[0]
    plain = net()
    with torch.inference_mode():
        unmasked = plain(padded)
    assert furthest(unmasked, alone(net(), images, mirror=False)) > 100 * BOUND


def test_the_same_images_twice_give_the_same_bits_in_any_number_of_calls() -> None:
    images = pictures([(224, 300), (300, 224), (256, 256)])
    ragged = RaggedVgg(net(), threads=2, pixels=1 << 20)
    [first] = ragged(images, (0, 0), mirror=True)
    ragged(pictures([(320, 400)]), (0, 0), mirror=False)  # leaves other values in the arenas
    assert torch.equal(ragged(images, (0, 0), mirror=True)[0], first)
    fresh = RaggedVgg(net(), threads=2, pixels=1 << 20)
    assert torch.equal(fresh(images, (0, 0), mirror=True)[0], first)


def test_images_that_are_too_small_are_refused_with_their_size() -> None:
    ragged = RaggedVgg(net(profile="torchvision"), threads=1, pixels=1 << 20)
    with pytest.raises(MapTooSmallError, match="223×300 pixels gives a pool5 map of 6×9"):
        ragged(pictures([(224, 224), (223, 300)]), (0, 0), mirror=False)


@pytest.mark.slow
@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16])
def test_reduced_precision_stays_near_and_pixels_are_normalised_before(
    precision: torch.dtype,
) -> None:
    images = pictures([(224, 260), (240, 256)])
    reduced = net().computing_in(precision)
    assert reduced.mean.dtype == torch.float32
    [found] = CanvasVgg(reduced, graphs=False)(images, (240, 288), mirror=True)
    reference = alone(net(), images, mirror=True)
    assert found.dtype == torch.float32
    assert BOUND < furthest(found, reference) < 2e-2
    cosine = torch.cosine_similarity(found.double(), reference)
    assert float((1 - cosine).max()) <= 1e-4


@pytest.mark.slow
@pytest.mark.skipif(
    not packs(torch.bfloat16, torch.device("cpu")), reason="no bfloat16 products by oneDNN here"
)
@pytest.mark.parametrize("tap", ["fc7", "fc6", "fc7-linear", "pool5", "conv3_2"])
def test_packed_layers_have_the_bits_of_those_that_torch_packs_at_every_call(
    tap: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = pictures([(224, 260), (240, 256), (300, 288)])
    packed = CanvasVgg(net(tap=tap).computing_in(torch.bfloat16), graphs=False)
    monkeypatch.setattr(vgg_module, "packs", lambda dtype, device: False)
    plain = CanvasVgg(net(tap=tap).computing_in(torch.bfloat16), graphs=False)
    for canvas in ((300, 288), (320, 320)):
        [found] = packed(images, canvas, mirror=True)
        [expected] = plain(images, canvas, mirror=True)
        assert torch.equal(found, expected)
        assert float(found.abs().max()) > 0


def test_a_batch_too_large_for_the_device_is_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    images = pictures([(224, 224 + 4 * i) for i in range(5)])
    form = CanvasVgg(net(), graphs=False)
    [whole] = form(images, (224, 256), mirror=True)
    assert form.halved == 0
    described = CanvasVgg._described
    sizes: list[int] = []

    def short(
        self: CanvasVgg, batch: Sequence[Tensor], *args: object, **named: object
    ) -> tuple[Tensor, ...]:
        sizes.append(len(batch))
        if len(batch) > 2:
            raise torch.OutOfMemoryError
        return described(self, batch, *args, **named)  # type: ignore[arg-type]  # passed on

    monkeypatch.setattr(canvas_module.CanvasVgg, "_described", short)
    [halves] = form(images, (224, 256), mirror=True)
    assert sizes == [5, 2, 3, 1, 2]
    assert form.halved == 2
    assert furthest(halves, whole.double()) <= BOUND

    def never(self: CanvasVgg, *args: object, **named: object) -> Tensor:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(canvas_module.CanvasVgg, "_described", never)
    with pytest.raises(DeviceMemoryError, match=r"cpu is too small for one image of 224×256"):
        form(images, (224, 256), mirror=True)
