from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from tests.conftest import photo
from tests.support.reference import sliding_descriptor
from vggfeat.errors import MapTooSmallError
from vggfeat.nets.architectures import ARCHITECTURES, Architecture
from vggfeat.nets.profile import PROFILES
from vggfeat.nets.vgg import DenseVgg
from vggfeat.weights.find import random_tensors
from vggfeat.weights.formats import read

BOUND = 1e-5  # design.md, section 2: ‖a − b‖ / ‖b‖ in float32
BOUND_DOUBLE = 1e-12


def with_biases(net: Architecture, seed: int = 0) -> dict[str, Tensor]:
    """Random weights whose biases are not zero, so that a forgotten one is noticed."""
    tensors = random_tensors(net, seed)
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in tensors.items():
        if name.endswith("bias"):
            tensors[name] = torch.randn(tensor.shape, generator=generator) * 0.1
    return tensors


def batch(height: int, width: int, count: int = 2) -> Tensor:
    return torch.stack([torch.from_numpy(photo(height, width, seed)) for seed in range(count)])


def widths(net: Architecture) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(c.width for c in block) for block in net.blocks)


def distance(a: Tensor, b: Tensor) -> float:
    a, b = a.double(), b.double()
    return float(((a - b).norm(dim=1) / b.norm(dim=1)).max())


def thin_torchvision(net: Architecture, tensors: dict[str, Tensor]) -> torchvision.models.VGG:
    """torchvision's own class and forward path, with thin layers and our weights."""
    rows: list[str | int] = []
    for block in net.blocks:
        rows += [*(c.width for c in block), "M"]
    model = torchvision.models.VGG(
        torchvision.models.vgg.make_layers(rows),
        num_classes=1000,
        init_weights=False,
    )
    channels = net.blocks[-1][-1].width * 49
    for index, (out, width) in {
        0: (net.fc, channels),
        3: (net.fc, net.fc),
        6: (1000, net.fc),
    }.items():
        model.classifier[index] = nn.Linear(width, out)
    convolutions = [m for m in model.features if isinstance(m, nn.Conv2d)]
    linears = [m for m in model.classifier if isinstance(m, nn.Linear)]
    for layer, module in zip(net.layers(), [*convolutions, *linears], strict=True):
        weight = module.get_parameter("weight")
        weight.data = tensors[f"{layer.name}.weight"].reshape(weight.shape)
        module.get_parameter("bias").data = tensors[f"{layer.name}.bias"]
    return model.eval()


def torchvision_fc7(model: torchvision.models.VGG, x: Tensor) -> Tensor:
    hidden = torch.flatten(model.avgpool(model.features(x)), 1)
    descriptor: Tensor = model.classifier[:5](hidden)  # up to fc7's ReLU
    return descriptor


@pytest.mark.parametrize("name", ["vgg16-thin", "vgg19-thin"])
@pytest.mark.parametrize("profile", ["oxford", "torchvision"])
@torch.inference_mode()
def test_at_224_it_is_torchvisions_classifier_path(name: str, profile: str) -> None:
    net = ARCHITECTURES[name]
    tensors = with_biases(net)
    dense = DenseVgg(net, tensors, PROFILES[profile])
    images = batch(224, 224)
    theirs = torchvision_fc7(thin_torchvision(net, tensors), dense.normalised(images))
    assert distance(dense(images), theirs) <= BOUND


@pytest.mark.parametrize("name", ["vgg16-thin", "vgg19-thin"])
@pytest.mark.parametrize("profile", ["oxford", "torchvision"])
@pytest.mark.parametrize("size", [(224, 224), (256, 341), (225, 287), (300, 233)])
@torch.inference_mode()
def test_at_any_size_it_is_the_fc_layers_slid_over_pool5(
    name: str, profile: str, size: tuple[int, int]
) -> None:
    net = ARCHITECTURES[name]
    tensors = with_biases(net)
    dense = DenseVgg(net, tensors, PROFILES[profile])
    images = batch(*size)
    ceil_mode = PROFILES[profile].ceil_mode
    slid = sliding_descriptor(tensors, widths(net), dense.normalised(images), ceil_mode=ceil_mode)
    assert distance(dense(images), slid) <= BOUND


def trained(net: Architecture, seed: int = 0) -> dict[str, Tensor]:
    """Random weights, biases and running statistics, none of which are trivial."""
    tensors = with_biases(net, seed)
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in tensors.items():
        if name.endswith(("norm.weight", "norm.variance")):
            tensors[name] = 0.5 + torch.rand(tensor.shape, generator=generator)
        elif ".norm." in name:
            tensors[name] = 0.1 * torch.randn(tensor.shape, generator=generator)
    return tensors


@pytest.mark.parametrize("name", ["vgg11-bn-thin", "vgg16-bn-thin"])
@torch.inference_mode()
def test_batch_normalisation_is_folded_as_torchvision_computes_it(name: str) -> None:
    net = ARCHITECTURES[name]
    tensors = trained(net)
    rows = [width for block in widths(net) for width in (*block, "M")]
    theirs = torchvision.models.vgg.make_layers(rows, batch_norm=True).eval()
    convolutions = (m for m in theirs if isinstance(m, nn.Conv2d))
    norms = (m for m in theirs if isinstance(m, nn.BatchNorm2d))
    for layer, convolution, norm in zip(net.layers(), convolutions, norms, strict=False):
        convolution.weight.data = tensors[f"{layer.name}.weight"]
        assert convolution.bias is not None
        convolution.bias.data = tensors[f"{layer.name}.bias"]
        norm.weight.data = tensors[f"{layer.name}.norm.weight"]
        norm.bias.data = tensors[f"{layer.name}.norm.bias"]
        norm.running_mean = tensors[f"{layer.name}.norm.mean"]
        norm.running_var = tensors[f"{layer.name}.norm.variance"]
    dense = DenseVgg(net, tensors, PROFILES["torchvision"], "pool5")
    images = batch(224, 256)
    expected = theirs(dense.normalised(images)).mean(dim=(2, 3))
    assert distance(dense(images), expected) <= BOUND
    plain = {name: t for name, t in tensors.items() if ".norm." not in name}
    unfolded = replace(net, batch_norm=False)
    without = DenseVgg(unfolded, plain, PROFILES["torchvision"], "pool5")
    assert distance(without(images), expected) > 0.1


@torch.inference_mode()
def test_local_response_normalisation_is_krizhevskys() -> None:
    net = ARCHITECTURES["vgg11-lrn-thin"]
    tensors = {name: tensor.double() for name, tensor in with_biases(net).items()}
    dense = DenseVgg(net, tensors, PROFILES["oxford"]).double()
    x = dense.normalised(batch(224, 224, 1))
    response = dict(dense.activations(x))["conv1_1"]
    before = torch.relu(
        nn.functional.conv2d(x, tensors["conv1_1.weight"], tensors["conv1_1.bias"], padding=1)
    )
    expected = torch.empty_like(before)
    for i in range(8):  # b_i = a_i / (k + α Σ a_j²)^β over the 5 channels around i
        around = before[:, max(0, i - 2) : i + 3]
        expected[:, i] = before[:, i] / (2 + 1e-4 * (around**2).sum(dim=1)) ** 0.75
    assert torch.allclose(response, expected, rtol=1e-12)
    assert not torch.allclose(response, before / 2**0.75, rtol=1e-3)


@pytest.mark.parametrize("name", ["vgg11-thin", "vgg13-thin", "vgg16c-thin"])
@torch.inference_mode()
def test_the_other_columns_are_the_layers_of_table_1(name: str) -> None:
    net = ARCHITECTURES[name]
    tensors = with_biases(net)
    dense = DenseVgg(net, tensors, PROFILES["oxford"])
    images = batch(224, 300, 1)
    x = dense.normalised(images)
    layers = {layer.name: layer for layer in net.layers()}
    for number in range(1, 6):
        for layer in (one for n, one in layers.items() if n.startswith(f"conv{number}_")):
            weight, bias = tensors[f"{layer.name}.weight"], tensors[f"{layer.name}.bias"]
            border = {3: 1, 1: 0}[layer.shape[2]]
            x = torch.relu(nn.functional.conv2d(nn.functional.pad(x, (border,) * 4), weight, bias))
        x = nn.functional.max_pool2d(x, 2, 2, ceil_mode=True)
    for last in ("fc6", "fc7"):
        x = torch.relu(nn.functional.conv2d(x, tensors[f"{last}.weight"], tensors[f"{last}.bias"]))
    assert distance(dense(images), x.mean(dim=(2, 3))) <= BOUND


@pytest.mark.slow
@torch.inference_mode()
def test_in_double_precision_it_is_the_same_to_1e_12() -> None:
    net = ARCHITECTURES["vgg16-thin"]
    tensors = {name: tensor.double() for name, tensor in with_biases(net).items()}
    dense = DenseVgg(net, tensors, PROFILES["oxford"]).double()
    images = batch(256, 300)
    slid = sliding_descriptor(tensors, widths(net), dense.normalised(images), ceil_mode=True)
    assert dense(images).dtype == torch.float64
    assert distance(dense(images), slid) <= BOUND_DOUBLE


@torch.inference_mode()
def test_the_rounding_of_the_pools_matters() -> None:
    net = ARCHITECTURES["vgg16-thin"]
    tensors = with_biases(net)
    images = batch(225, 287)
    dense = DenseVgg(net, tensors, PROFILES["oxford"])
    floor = sliding_descriptor(tensors, widths(net), dense.normalised(images), ceil_mode=False)
    assert distance(dense(images), floor) > 100 * BOUND


@torch.inference_mode()
def test_preprocessing_is_that_of_the_profile() -> None:
    pixels = torch.tensor([[[[255, 0, 51]]]], dtype=torch.uint8)
    net = ARCHITECTURES["vgg16-thin"]
    tensors = random_tensors(net, 0)
    oxford = DenseVgg(net, tensors, PROFILES["oxford"]).normalised(pixels)
    expected = torch.tensor([255 - 123.68, 0 - 116.779, 51 - 103.939])
    assert torch.allclose(oxford.flatten(), expected, atol=1e-4)
    theirs = torchvision.transforms.functional.normalize(
        torch.tensor([1.0, 0.0, 0.2]).view(3, 1, 1), [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    )
    ours = DenseVgg(net, tensors, PROFILES["torchvision"]).normalised(pixels)
    assert torch.allclose(ours.flatten(), theirs.flatten(), atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(256, 341), (341, 300)])
@torch.inference_mode()
def test_the_full_net_is_timms_dense_vgg(tmp_path: Path, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    theirs: Any = timm.create_model("vgg16", pretrained=False).eval()
    for parameter in theirs.parameters():
        if parameter.ndim == 4:  # timm's own initialisation fades to nothing over 16 layers
            nn.init.kaiming_normal_(parameter, nonlinearity="relu")
    weights = {}
    names = {"pre_logits.fc1": "classifier.0", "pre_logits.fc2": "classifier.3"}
    for name, tensor in theirs.state_dict().items():
        layer, _, kind = name.rpartition(".")
        new = {**names, "head.fc": "classifier.6"}.get(layer, layer)
        flat = new.startswith("classifier") and kind == "weight"
        weights[f"{new}.{kind}"] = tensor.flatten(1) if flat else tensor
    path = tmp_path / "vgg16.pth"
    torch.save(weights, path)
    net = ARCHITECTURES["vgg16"]
    dense = DenseVgg(net, read(path, net).tensors, PROFILES["torchvision"])
    images = batch(*size, count=1)
    features = theirs.forward_features(dense.normalised(images).contiguous())
    expected = theirs.pre_logits(features).mean(dim=(2, 3))
    assert distance(dense(images), expected) <= BOUND


@pytest.mark.parametrize(
    ("tap", "size", "negative"),
    [("fc7", 512, False), ("fc7-linear", 512, True), ("fc6", 512, False), ("pool5", 64, False)],
)
@torch.inference_mode()
def test_every_tap(tap: str, size: int, negative: bool) -> None:
    net = ARCHITECTURES["vgg16-thin"]
    dense = DenseVgg(net, with_biases(net), PROFILES["oxford"], tap)
    described = dense(batch(224, 256))
    assert described.shape == (2, size) == (2, net.descriptor_size(tap))
    assert bool((described < 0).any()) is negative


@torch.inference_mode()
def test_fc7_is_the_rectified_fc7_linear() -> None:
    net = ARCHITECTURES["vgg16-thin"]
    tensors = with_biases(net)
    images = batch(224, 256)
    linear = DenseVgg(net, tensors, PROFILES["oxford"], "fc7-linear")
    rectified = DenseVgg(net, tensors, PROFILES["oxford"])
    x = linear.normalised(images)
    assert torch.equal(linear.feature_map(x).clamp(min=0), rectified.feature_map(x))


@torch.inference_mode()
def test_too_small_an_image_is_refused_never_resampled() -> None:
    net = ARCHITECTURES["vgg16-thin"]
    dense = DenseVgg(net, random_tensors(net, 0), PROFILES["torchvision"])
    with pytest.raises(MapTooSmallError, match=r"223×300 pixels gives a pool5 map of 6×9"):
        dense(batch(223, 300))
    assert dense.smallest_side() == 224
    assert DenseVgg(net, random_tensors(net, 0), PROFILES["oxford"]).smallest_side() == 193
