"""Real weights of the authors' VGG-16 on a real photo: the numbers are pinned."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from vggfeat.nets.architectures import ARCHITECTURES
from vggfeat.nets.profile import PROFILES
from vggfeat.nets.vgg import DenseVgg
from vggfeat.weights.find import random_tensors

PHOTO = "VOCdevkit/VOC2007/JPEGImages/000063.jpg"
NAMES = {f"conv{b}_{k}": f"block{b}_conv{k}" for b in (1, 2) for k in (1, 2)}

PIXELS = "49055afb3193922c"
RIGHT = {
    "means": [28.8367, 19.83311, 11.47259, 23.43805, 17.14325, 27.96875],
    "at": [76.23055, 12.58774, 52.7102, 0.0, 0.0, 9.401669],
}
WRONG = {
    "means": [28.84253, 8.825943, 11.32982, 23.1393, 18.2347, 11.01991],
    "at": [76.02977, 0.0, 52.06603, 0.0, 0.0, 0.0],
}
MEANS = {
    "conv1_1": 21.33524,
    "conv1_2": 104.7517,
    "pool1": 159.1545,
    "conv2_1": 184.116,
    "conv2_2": 197.6561,
}


@pytest.fixture(scope="module")
def authors(shared: Path) -> dict[str, Tensor]:
    """conv1_1 to conv2_2, conv1_1 reading BGR."""
    path = shared / "vgg16-partial" / "vgg16_conv1-2_fp32_plus_biases.npz"
    with np.load(path, allow_pickle=False) as file:
        return {
            f"{ours}.{kind}": torch.from_numpy(file[f"{theirs}_{letter}"].astype(np.float32))
            for ours, theirs in NAMES.items()
            for kind, letter in (("weight", "W"), ("bias", "b"))
        }


def net(authors: dict[str, Tensor], *, turned: bool) -> DenseVgg:
    """The first four layers are the authors', the rest is random; conv1_1 turned to RGB or not."""
    architecture = ARCHITECTURES["vgg16"]
    tensors = {**random_tensors(ARCHITECTURES["vgg16-thin"], 0)}
    for layer in architecture.layers():
        for name, shape in layer.tensors():
            tensors[name] = authors.get(name, torch.zeros(()).expand(shape))
    if turned:
        tensors["conv1_1.weight"] = authors["conv1_1.weight"].flip(1)
    return DenseVgg(architecture, tensors, PROFILES["oxford"], "pool5")


def responses(dense: DenseVgg, photo: Tensor) -> dict[str, Tensor]:
    wanted = {}
    for name, activation in dense.activations(dense.normalised(photo)):
        wanted[name] = activation.clone()  # the next layer works in place
        if name == "conv2_2":
            break
    return wanted


@torch.inference_mode()
def test_conv1_1_on_a_real_photo_in_both_channel_orders(
    shared: Path, authors: dict[str, Tensor]
) -> None:
    pixels = np.asarray(Image.open(shared / "voc2007-mini" / PHOTO).convert("RGB"))
    assert hashlib.sha256(pixels.tobytes()).hexdigest()[:16] == PIXELS
    photo = torch.from_numpy(pixels.copy())[None]
    for turned, pinned in ((True, RIGHT), (False, WRONG)):
        found = responses(net(authors, turned=turned), photo)["conv1_1"][0].double()
        assert found.mean(dim=(1, 2))[:6].tolist() == pytest.approx(pinned["means"], rel=1e-5)
        assert found[:6, 100, 200].tolist() == pytest.approx(pinned["at"], rel=1e-4, abs=1e-3)
    right = responses(net(authors, turned=True), photo)["conv1_1"]
    wrong = responses(net(authors, turned=False), photo)["conv1_1"]
    assert float((right - wrong).norm() / right.norm()) > 0.1


@torch.inference_mode()
def test_conv1_1_is_the_sum_that_the_authors_wrote(
    shared: Path, authors: dict[str, Tensor]
) -> None:
    pixels = np.asarray(Image.open(shared / "voc2007-mini" / PHOTO).convert("RGB"))
    found = responses(net(authors, turned=True), torch.from_numpy(pixels.copy())[None])["conv1_1"]
    bgr = pixels[..., ::-1].astype(np.float64) - (103.939, 116.779, 123.68)
    weight, bias = authors["conv1_1.weight"].double().numpy(), authors["conv1_1.bias"].numpy()
    for row, column in ((1, 1), (100, 200), (373, 498)):
        window = bgr[row - 1 : row + 2, column - 1 : column + 2]  # (3, 3, BGR)
        expected = np.einsum("oikl,kli->o", weight, window) + bias
        ours = found[0, :, row, column].double().numpy()
        assert np.allclose(ours, expected.clip(0), rtol=1e-4, atol=1e-3)


@torch.inference_mode()
def test_the_first_four_layers_are_the_authors(shared: Path, authors: dict[str, Tensor]) -> None:
    pixels = np.asarray(Image.open(shared / "voc2007-mini" / PHOTO).convert("RGB"))
    found = responses(net(authors, turned=True), torch.from_numpy(pixels.copy())[None])
    shapes = {name: tuple(activation.shape[1:]) for name, activation in found.items()}
    assert shapes == {
        "conv1_1": (64, 375, 500),
        "conv1_2": (64, 375, 500),
        "pool1": (64, 188, 250),
        "conv2_1": (128, 188, 250),
        "conv2_2": (128, 188, 250),
    }
    means = {name: float(activation.double().mean()) for name, activation in found.items()}
    assert means == pytest.approx(MEANS, rel=1e-5)
