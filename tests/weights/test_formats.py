"""Every layout gives the same weights and descriptors."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from tests.conftest import photo
from tests.support import layouts
from tests.support.layouts import Tensors, Writer
from vggfeat.errors import WeightsError
from vggfeat.nets.architectures import ARCHITECTURES
from vggfeat.nets.profile import PROFILES
from vggfeat.nets.vgg import DenseVgg
from vggfeat.weights.find import find_weights, random_tensors
from vggfeat.weights.formats import Port, checks, read, recognise
from vggfeat.weights.formats.layouts import layout_of
from vggfeat.weights.formats.sources import load

THIN = ARCHITECTURES["vgg16-thin"]
FORMATS: dict[Writer, str] = {
    layouts.torchvision: "pth",
    layouts.torchvision_legacy: "pth",
    layouts.jcjohnson: "pth",
    layouts.torchvision_safetensors: "safetensors",
    layouts.timm: "safetensors",
    layouts.vggfeat: "safetensors",
    layouts.caffe_v1: "caffemodel",
    layouts.caffe_new: "caffemodel",
    layouts.caffe_double: "caffemodel",
    layouts.matconvnet: "mat5",
    layouts.matconvnet_old: "mat5",
    layouts.matconvnet_73: "mat73",
    layouts.keras_old: "hdf5",
    layouts.keras_new: "hdf5",
    layouts.frossard: "frossard",
    layouts.frossard_packed: "frossard",
}


@pytest.fixture
def truth() -> Tensors:
    return layouts.thin_truth()


@pytest.fixture(autouse=True)
def _one_thread(threads: Callable[[int], None]) -> None:
    """Small tensors are done sooner by one thread, above all on a busy machine."""
    threads(1)


@pytest.fixture(scope="session")
def images(shared: Path) -> Tensor:
    """A real photo of VOC 2007, (1, 224, 224, 3) uint8 RGB."""
    folder = shared / "voc2007-mini" / "VOCdevkit" / "VOC2007" / "JPEGImages"
    with Image.open(min(folder.glob("*.jpg"))) as image:
        pixels = np.array(image.convert("RGB").resize((224, 224)))
    return torch.from_numpy(pixels)[None]


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Writer], Path]:
    """Write the thin net in a layout, once."""
    folder = tmp_path_factory.mktemp("ports")

    @cache
    def write(writer: Writer) -> Path:
        path = folder / f"{writer.__name__}.bin"  # the suffix says nothing
        writer(path, THIN, layouts.thin_truth())
        return path

    return write


@pytest.fixture(scope="session")
def port_of(written: Callable[[Writer], Path]) -> Callable[[Writer], Port]:
    """Read it, once."""
    return cache(lambda writer: read(written(writer), THIN))


def as_rgb(port: Port) -> Tensors:
    if port.channels == "BGR":
        return port.tensors | {"conv1_1.weight": port.tensors["conv1_1.weight"].flip(1)}
    return port.tensors


@torch.inference_mode()
def described(tensors: Tensors, images: Tensor, profile: str = "oxford") -> Tensor:
    descriptor: Tensor = DenseVgg(THIN, tensors, PROFILES[profile])(images)
    return descriptor


def distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("writer", layouts.WRITERS, ids=lambda w: w.__name__)
def test_every_layout_gives_the_same_weights_and_descriptor(
    written: Callable[[Writer], Path],
    port_of: Callable[[Writer], Port],
    writer: Writer,
    truth: Tensors,
    images: Tensor,
) -> None:
    assert recognise(written(writer)).name == FORMATS[writer]
    port = port_of(writer)
    assert (port.layout, port.channels, port.profile) == layouts.WRITERS[writer]
    found = as_rgb(port)
    assert list(found) == list(truth)
    for name, tensor in truth.items():
        assert found[name].dtype == torch.float32
        assert torch.equal(found[name], tensor), name
    assert torch.equal(described(found, images), described(truth, images))


@pytest.mark.parametrize("writer", layouts.WRITERS, ids=lambda w: w.__name__)
@torch.inference_mode()
def test_conv1_1_reads_the_channels_that_its_port_says(
    port_of: Callable[[Writer], Port], writer: Writer, images: Tensor
) -> None:
    """Each port is fed by its makers' own preprocessing, written out here once more."""
    port = port_of(writer)
    pixels = images.permute(0, 3, 1, 2).float()
    if port.channels == "BGR":
        x = pixels.flip(1) - torch.tensor([103.939, 116.779, 123.68]).view(1, 3, 1, 1)
    else:
        x = pixels - torch.tensor([123.68, 116.779, 103.939]).view(1, 3, 1, 1)
    theirs = functional.conv2d(
        x, port.tensors["conv1_1.weight"], port.tensors["conv1_1.bias"], padding=1
    ).relu()
    dense = DenseVgg(THIN, as_rgb(port), PROFILES["oxford"])
    _, ours = next(dense.activations(dense.normalised(images)))
    assert torch.allclose(ours, theirs, atol=1e-2, rtol=1e-5)  # activations are about 100


def _swapped_rows(layer: str, weight: layouts.Array) -> layouts.Array:
    """A porter's mistake: fc1's rows in the order C, H, W."""
    if not layer.startswith("fc"):
        return np.ascontiguousarray(weight.transpose(2, 3, 1, 0))
    return np.ascontiguousarray(weight.reshape(len(weight), -1).T)


@pytest.mark.parametrize("writer", [layouts.keras_old, layouts.frossard], ids=lambda w: w.__name__)
def test_a_wrong_order_of_fc6_is_noticed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    writer: Writer,
    truth: Tensors,
    images: Tensor,
) -> None:
    monkeypatch.setattr(layouts, "keras_kernel", _swapped_rows)
    writer(tmp_path / "weights", THIN, truth)
    found = as_rgb(read(tmp_path / "weights", THIN))
    assert not torch.equal(found["fc6.weight"], truth["fc6.weight"])
    assert torch.equal(found["fc7.weight"], truth["fc7.weight"])
    assert distance(described(found, images), described(truth, images)) > 0.1


@pytest.mark.parametrize(
    "writer",
    [layouts.caffe_v1, layouts.matconvnet, layouts.keras_new, layouts.jcjohnson],
    ids=lambda w: w.__name__,
)
def test_a_mix_up_of_the_channels_is_noticed(
    tmp_path: Path, writer: Writer, truth: Tensors, images: Tensor
) -> None:
    writer(tmp_path / "weights", THIN, layouts.bgr(truth))
    found = as_rgb(read(tmp_path / "weights", THIN))
    assert not torch.equal(found["conv1_1.weight"], truth["conv1_1.weight"])
    assert distance(described(found, images), described(truth, images)) > 0.05


@pytest.mark.parametrize(
    ("writer", "name"),
    [
        (layouts.torchvision_safetensors, "vgg11-thin"),
        (layouts.jcjohnson, "vgg13-thin"),
        (layouts.timm, "vgg19-thin"),
        (layouts.caffe_new, "vgg13-thin"),
        (layouts.keras_old, "vgg19-thin"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_the_other_nets_are_read_too(tmp_path: Path, writer: Writer, name: str) -> None:
    net = ARCHITECTURES[name]
    tensors = layouts.with_biases(random_tensors(net, 3))
    writer(tmp_path / "weights", net, tensors)
    found = as_rgb(read(tmp_path / "weights", net))
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize("name", ["vgg11-bn-thin", "vgg16-bn-thin"])
def test_batch_normalisation_is_read_and_never_lost(tmp_path: Path, name: str) -> None:
    net = ARCHITECTURES[name]
    tensors = layouts.with_biases(random_tensors(net, 3))
    layouts.torchvision(tmp_path / "weights", net, tensors)
    found = read(tmp_path / "weights", net).tensors
    assert list(found) == list(tensors)
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
    plain = ARCHITECTURES[name.replace("-bn", "")]
    with pytest.raises(WeightsError, match=f"these are the shapes of {name}"):
        read(tmp_path / "weights", plain)


def test_torchvisions_weights_have_torchvisions_preprocessing(
    tmp_path: Path, truth: Tensors, images: Tensor
) -> None:
    layouts.torchvision(tmp_path / "own.pth", THIN, truth)
    weights = find_weights(THIN, str(tmp_path / "own.pth"), "torchvision")
    assert torch.equal(
        described(weights.load(), images, "torchvision"), described(truth, images, "torchvision")
    )


def test_a_port_that_says_rgb_is_not_flipped_by_a_bgr_profile(
    written: Callable[[Writer], Path], truth: Tensors
) -> None:
    loaded = find_weights(THIN, str(written(layouts.matconvnet)), "oxford").load()
    assert torch.equal(loaded["conv1_1.weight"], truth["conv1_1.weight"])


def test_a_photo_of_the_tests_describes_alike(tmp_path: Path, truth: Tensors) -> None:
    """The same without the shared data, so that it runs everywhere."""
    images = torch.from_numpy(photo(224, 256, 4))[None]
    layouts.keras_new(tmp_path / "w", THIN, truth)
    found = as_rgb(read(tmp_path / "w", THIN))
    assert torch.equal(described(found, images), described(truth, images))


# --- the real weights that are here --------------------------------------------------------------

FOUR = ("conv1_1", "conv1_2", "conv2_1", "conv2_2")


@pytest.fixture(scope="session")
def partial(shared: Path) -> Tensors:
    """The authors' first four layers, conv1_1 reading RGB."""
    file = shared / "vgg16-partial" / "vgg16_conv1-2_fp32_plus_biases.npz"
    found = {}
    with np.load(file, allow_pickle=False) as arrays:
        for name in FOUR:
            theirs = layouts.keras_name(name)
            found[f"{name}.weight"] = torch.from_numpy(arrays[f"{theirs}_W"])
            found[f"{name}.bias"] = torch.from_numpy(arrays[f"{theirs}_b"])
    return layouts.bgr(found)


@pytest.mark.parametrize(
    "writer",
    [layouts.caffe_v1, layouts.matconvnet, layouts.keras_old, layouts.frossard],
    ids=lambda w: w.__name__,
)
def test_the_authors_first_four_layers_go_through_every_layout(
    tmp_path: Path, writer: Writer, partial: Tensors
) -> None:
    net = ARCHITECTURES["vgg16"]
    path = tmp_path / "weights"
    writer(path, net, partial)
    form = recognise(path)
    found, metadata = load(path, form)
    layout = layout_of(path, form, found, metadata, net)
    names = layout.names(net)
    assert len(found) == len(partial)
    for name, tensor in partial.items():
        ours = checks.turned(
            found[names[name]], tuple(tensor.shape), inputs_first=layout.inputs_first
        )
        if name == "conv1_1.weight":
            assert checks.authors_order(net, ours) == layout.channels
            ours = ours.flip(1) if layout.channels == "BGR" else ours
        assert torch.equal(ours, tensor), name
    with pytest.raises(WeightsError, match=r"has no .*(conv3_1|block3_conv1).*24 of 32"):
        read(path, net)


def test_the_authors_conv1_1_is_known_in_either_order_and_no_other(partial: Tensors) -> None:
    net, rgb = ARCHITECTURES["vgg16"], partial["conv1_1.weight"]
    assert checks.authors_order(net, rgb) == "RGB"
    assert checks.authors_order(net, rgb.flip(1)) == "BGR"
    assert checks.authors_order(net, rgb.half().flip(1)) == "BGR"
    assert checks.authors_order(net, rgb[:, [1, 0, 2]]) is None
    assert checks.authors_order(net, random_tensors(THIN, 0)["conv1_1.weight"]) is None
    assert checks.authors_order(THIN, rgb) is None


def test_the_values_of_conv1_1_decide_over_the_layout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, truth: Tensors
) -> None:
    energy = truth["conv1_1.weight"].flip(1).double().square().sum(dim=(0, 2, 3))
    monkeypatch.setattr(checks, "_AUTHORS", {THIN.name: tuple(energy.tolist())})
    layouts.torchvision(tmp_path / "rgb", THIN, truth)
    layouts.torchvision(tmp_path / "bgr", THIN, layouts.bgr(truth))
    layouts.frossard(tmp_path / "npz", THIN, layouts.bgr(truth))
    found = [read(tmp_path / name, THIN) for name in ("rgb", "bgr", "npz")]
    assert [port.channels for port in found] == ["RGB", "BGR", "BGR"]
    assert [port.profile for port in found] == ["oxford"] * 3
