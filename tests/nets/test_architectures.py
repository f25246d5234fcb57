"""The arithmetic of the configurations, against the paper and against torchvision."""

from __future__ import annotations

import pytest
import torch
import torchvision

from vggfeat.errors import MapTooSmallError, RecipeError
from vggfeat.nets.architectures import ARCHITECTURES, Architecture, architecture, map_size

# name: weight layers, parameters, of the convolutions alone, GMAC at 224² (Table 2, and counted)
PAPER = {
    "vgg11": (11, 132_863_336, 9_220_480, 7.609),
    "vgg11-lrn": (11, 132_863_336, 9_220_480, 7.609),
    "vgg13": (13, 133_047_848, 9_404_992, 11.308),
    "vgg16c": (16, 133_638_952, 9_996_096, 11.771),
    "vgg16": (16, 138_357_544, 14_714_688, 15.470),
    "vgg19": (19, 143_667_240, 20_024_384, 19.632),
}
FIELDS = {"vgg16": (212, 404), "vgg19": (268, 460)}
ALL = [f"{name}{bn}{thin}" for name in PAPER for thin in ("", "-thin") for bn in ("", "-bn")]


def test_every_configuration_is_there() -> None:
    assert list(ARCHITECTURES) == ALL


@pytest.mark.parametrize("name", PAPER)
def test_the_arithmetic_of_table_2(name: str) -> None:
    net = ARCHITECTURES[name]
    layers, parameters, convolutions, gmac = PAPER[name]
    costs = list(net.costs(224, 224))
    assert sum(1 for _ in net.layers()) == layers
    assert net.parameters == parameters == sum(c.parameters for c in costs)
    assert sum(c.parameters for c in costs if c.name.startswith("conv")) == convolutions
    assert sum(c.parameters for c in costs if c.name.startswith("fc")) == 123_642_856
    assert sum(c.multiply_adds for c in costs) / 1e9 == pytest.approx(gmac, abs=5e-4)


@pytest.mark.parametrize("name", ["vgg11", "vgg13", "vgg16", "vgg19"])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_the_parameters_are_as_many_as_torchvisions(name: str, batch_norm: bool) -> None:
    with torch.device("meta"):
        theirs = getattr(torchvision.models, f"{name}_bn" if batch_norm else name)()
    net = ARCHITECTURES[f"{name}-bn" if batch_norm else name]
    assert net.parameters == sum(p.numel() for p in theirs.parameters())
    shapes = [shape for layer in net.layers() for _, shape in layer.tensors()]
    sizes = sum(torch.Size(shape).numel() for shape in shapes)
    buffers = (b for b in theirs.buffers() if b.ndim)  # all but the counters
    assert sizes == net.parameters + sum(b.numel() for b in buffers)


def field_of(net: Architecture, layer: str) -> int:
    """Return the receptive field, by walking back from one cell: r ← (r − 1)·stride + kernel."""
    steps = [(kernel, 1) for kernel in ([7] if layer == "fc6" else [])]
    for block in reversed(net.blocks):
        steps += [(2, 2), *((c.kernel, 1) for c in reversed(block))]
    field = 1
    for kernel, stride in steps:
        field = (field - 1) * stride + kernel
    return field


@pytest.mark.parametrize("name", ALL)
def test_receptive_fields(name: str) -> None:
    net = ARCHITECTURES[name]
    fields = net.receptive_field("pool5"), net.receptive_field("fc6")
    assert fields == (field_of(net, "pool5"), field_of(net, "fc6"))
    assert fields == FIELDS.get(name.removesuffix("-thin").removesuffix("-bn"), fields)


@pytest.mark.parametrize("name", ALL)
def test_thin_nets_have_an_eighth_of_the_channels(name: str) -> None:
    net = ARCHITECTURES[name]
    wide = ARCHITECTURES[name.removesuffix("-thin")]
    share = 8 if name.endswith("-thin") else 1
    assert [c.width * share for b in net.blocks for c in b] == [
        c.width for b in wide.blocks for c in b
    ]
    assert net.fc * share == 4096
    assert net.descriptor_size("fc7") * share == 4096
    assert net.descriptor_size("pool5") * share == 512


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("ceil_mode", [False, True])
def test_map_sizes_follow_from_the_pools(name: str, ceil_mode: bool) -> None:
    costs = {c.name: c for c in ARCHITECTURES[name].costs(341, 500, ceil_mode=ceil_mode)}
    halves = [(341, 500)]
    for _ in range(5):
        h, w = halves[-1]
        halves.append(((h + ceil_mode) // 2, (w + ceil_mode) // 2))
    assert [costs[f"pool{n}"].output[1:] for n in range(1, 6)] == halves[1:]
    assert [costs[f"conv{n}_1"].output[1:] for n in range(1, 6)] == halves[:-1]
    assert costs["fc6"].output[1:] == (halves[-1][0] - 6, halves[-1][1] - 6)
    assert costs["fc8"].output == (1000, *costs["fc6"].output[1:])


def test_map_sizes_of_the_spec() -> None:
    sides = {224: 1, 256: 2, 288: 3, 352: 5, 384: 6, 416: 7, 512: 10, 640: 14, 768: 18}
    assert {q: map_size(q, 5, ceil_mode=False) - 6 for q in sides} == sides
    longer = [q * 4 // 3 for q in (256, 384, 512, 640, 768)]
    floor = [map_size(side, 5, ceil_mode=False) - 6 for side in longer]
    ceil = [map_size(side, 5, ceil_mode=True) - 6 for side in (341, 512, 683, 853, 1024)]
    assert floor == [4, 10, 15, 20, 26]
    assert ceil == [5, 10, 16, 21, 26]


def test_multiply_adds_end_at_the_tap() -> None:
    net = ARCHITECTURES["vgg16"]
    whole = net.multiply_adds(224, 224, ceil_mode=False)
    assert whole == net.multiply_adds(224, 224, ceil_mode=False, tap="fc7-linear")
    assert whole - net.multiply_adds(224, 224, ceil_mode=False, tap="fc6") == 4096**2
    assert net.multiply_adds(32, 32, ceil_mode=False, tap="pool5") > 0
    with pytest.raises(MapTooSmallError, match=r"32×32 pixels gives a pool5 map of 1×1"):
        net.multiply_adds(32, 32, ceil_mode=False)


def test_an_unknown_model_names_the_nearest() -> None:
    with pytest.raises(RecipeError, match="Did you mean 'vgg16c'"):
        architecture("vgg16-c")


def test_an_unknown_tap_names_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"Unknown tap 'fc7_linear'\. Did you mean 'fc7-linear'"):
        architecture("vgg16").tap("fc7_linear")
