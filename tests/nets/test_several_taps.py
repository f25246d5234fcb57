"""One pass for several taps: each gets the bits that it gets alone."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from tests.nets.test_taps import pictures
from tests.nets.test_vgg import with_biases
from vggfeat.errors import WeightsError
from vggfeat.nets.architectures import ARCHITECTURES, TAPS
from vggfeat.nets.canvas import CanvasVgg
from vggfeat.nets.profile import PROFILES
from vggfeat.nets.vgg import DenseVgg
from vggfeat.nets.winograd import RaggedVgg

NET = ARCHITECTURES["vgg13-thin"]
OWN = [name for name, (layer, _) in TAPS.items() if layer in {part.name for part in NET.parts()}]
CONVOLUTIONAL = [name for name in OWN if not name.startswith("fc")]
FEW = ["conv1_2", "conv1_2-linear", "conv5_2-linear", "pool5", "fc6", "fc7-linear", "fc7"]
SIZES = [(224, 229), (241, 230), (224, 263)]


def net(*taps: str, name: str = NET.name, profile: str = "oxford") -> DenseVgg:
    own = ARCHITECTURES[name]
    return DenseVgg(own, with_biases(own), PROFILES[profile], *taps)


def ragged(plain: DenseVgg) -> RaggedVgg:
    return RaggedVgg(plain, threads=2, pixels=120_000)


def test_the_deepest_tap_is_where_a_pass_ends() -> None:
    def deepest(*names: str) -> str:
        return NET.deepest(names).name

    assert deepest("pool5", "fc7", "conv1_1") == "fc7"
    assert deepest("fc7", "fc7-linear") == deepest("fc7-linear", "fc7") == "fc7"
    assert deepest("conv5_2", "pool5", "conv5_2-linear") == "pool5"
    assert deepest("fc8", "fc7") == "fc8"
    assert deepest("conv4_1-linear") == "conv4_1-linear"
    assert net("pool5", "fc6", "conv2_1").tap.name == "fc6"
    assert [*net("pool5", "fc6", "conv2_1").taps] == ["pool5", "fc6", "conv2_1"]


@pytest.mark.parametrize("taps", [FEW, pytest.param(OWN, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("profile", "mirror"), [("oxford", True), ("torchvision", False)])
def test_taps_in_one_ragged_pass(taps: Sequence[str], profile: str, mirror: bool) -> None:
    """With ceil and with floor pools."""
    images = pictures(SIZES)
    together = ragged(net(*taps, profile=profile))(images, (0, 0), mirror=mirror)
    same = {}
    for tap, found in zip(taps, together, strict=True):
        [alone] = ragged(net(tap, profile=profile))(images, (0, 0), mirror=mirror)
        same[tap] = torch.equal(found, alone)
    assert all(same.values()), same


@pytest.mark.slow
def test_some_of_a_net_s_taps_and_then_others() -> None:
    """As for shards that some stores have and others lack: arenas are left as they happen to be."""
    images = pictures(SIZES)
    form = ragged(net(*FEW))
    whole = dict(zip(FEW, form(images, (0, 0), mirror=True), strict=True))
    for some in (["pool5"], ["fc7", "pool5"], ["conv1_2"], ["fc6"], ["conv1_2", "fc7"], ["fc7"]):
        found = form(images, (0, 0), mirror=True, taps=some)
        assert all(torch.equal(a, whole[tap]) for a, tap in zip(found, some, strict=True)), some


@pytest.mark.slow
@given(
    st.lists(st.tuples(st.integers(32, 150), st.integers(32, 150)), min_size=1, max_size=5),
    st.sampled_from(["oxford", "torchvision"]),
    st.sampled_from(["vgg13-thin", "vgg16c-thin", "vgg13-bn-thin"]),
    st.randoms(use_true_random=False),
)
@settings(max_examples=10, deadline=None)
def test_maps_of_awkward_sizes(
    sizes: list[tuple[int, int]], profile: str, name: str, dice: random.Random
) -> None:
    images, taps = pictures(sizes), dice.sample(CONVOLUTIONAL, 4)
    together = ragged(net(*taps, name=name, profile=profile))(images, (0, 0), mirror=False)
    for tap, found in zip(taps, together, strict=True):
        [alone] = ragged(net(tap, name=name, profile=profile))(images, (0, 0), mirror=False)
        assert torch.equal(found, alone), tap


@pytest.mark.parametrize(
    ("taps", "dtype"),
    [
        (["conv1_2", "pool5", "fc6"], torch.float32),
        pytest.param(OWN, torch.float32, marks=pytest.mark.slow),
        pytest.param(OWN, torch.bfloat16, marks=pytest.mark.slow),
    ],
)
def test_taps_in_one_pass_of_a_canvas(taps: Sequence[str], dtype: torch.dtype) -> None:
    images, canvas = pictures(SIZES[:2]), (256, 256)
    form = CanvasVgg(net(*taps).computing_in(dtype), graphs=False)
    together = form(images, canvas, mirror=True)
    for tap, found in zip(taps, together, strict=True):
        alone = CanvasVgg(net(tap).computing_in(dtype), graphs=False)
        assert torch.equal(found, alone(images, canvas, mirror=True)[0]), tap
    some = form(images, canvas, mirror=True, taps=["fc6", "conv1_2"])
    assert torch.equal(some[0], together[taps.index("fc6")])
    assert torch.equal(some[1], together[taps.index("conv1_2")])


def test_each_half_of_a_batch_has_every_tap(monkeypatch: pytest.MonkeyPatch) -> None:
    images = pictures([(224, 224)] * 3)
    form = CanvasVgg(net("pool5", "fc7"), graphs=False)
    whole = form(images, (224, 224), mirror=True)
    averages = DenseVgg.averages

    def short(self: DenseVgg, batch: Tensor, *rest: object) -> tuple[Tensor, ...]:
        if len(batch) > 4:
            raise torch.OutOfMemoryError
        return averages(self, batch, *rest)  # type: ignore[arg-type]  # passed on

    monkeypatch.setattr(DenseVgg, "averages", short)
    halves = form(images, (224, 224), mirror=True)
    assert form.halved == 1
    assert [one.shape for one in halves] == [(3, 64), (3, 512)]
    for half, one in zip(halves, whole, strict=True):
        assert float((half - one).norm() / one.norm()) <= 1e-5


@torch.inference_mode()
def test_before_its_relu_conv1_1_of_a_lrn_is_before_the_normalisation_too() -> None:
    own = ARCHITECTURES["vgg11-lrn-thin"]
    plain = net("conv1_1-linear", "conv1_1", "conv2_1", name=own.name).double()
    [image] = pictures([(40, 52)])
    tensors = {name: tensor.double() for name, tensor in with_biases(own).items()}
    x = plain.normalised(image[None])
    linear = functional.conv2d(x, tensors["conv1_1.weight"], tensors["conv1_1.bias"], padding=1)
    squares = functional.pad(linear.clamp(min=0) ** 2, (0, 0, 0, 0, 2, 2))
    sums = sum(squares[:, k : k + linear.shape[1]] for k in range(5))
    normalised = linear.clamp(min=0) / (2 + 1e-4 * sums) ** 0.75
    found = plain.averages(image[None])
    assert torch.allclose(found[0], linear.mean(dim=(2, 3)), rtol=1e-12)
    assert torch.allclose(found[1], normalised.mean(dim=(2, 3)), rtol=1e-12)
    padded = CanvasVgg(plain, graphs=False)([image], (64, 64), mirror=False)
    for one, other in zip(padded, found, strict=True):
        assert torch.allclose(one, other, rtol=1e-12)


@pytest.mark.parametrize("taps", [("fc8",), ("fc7", "fc8")])
def test_another_number_of_classes_is_refused(taps: Sequence[str]) -> None:
    tensors = with_biases(NET)
    for part in ("weight", "bias"):
        tensors[f"fc8.{part}"] = tensors[f"fc8.{part}"][:10].clone()
    with pytest.raises(WeightsError, match=r"fc8 of .* vgg13-thin has 10 classes\. Expected 1000"):
        DenseVgg(NET, tensors, PROFILES["oxford"], *taps)
    assert DenseVgg(NET, tensors, PROFILES["oxford"], "fc7").tap.channels == 512
