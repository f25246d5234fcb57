"""Weights and the preprocessing that belongs to them: found, identified, read, or drawn."""

from __future__ import annotations

import hashlib
import os
import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vggfeat.digests import sha256_of, user_cache
from vggfeat.errors import WeightsError, nearest
from vggfeat.nets import ports
from vggfeat.nets.architectures import Architecture, Layer

RANDOM_SCHEME = 1  # raised whenever `random_tensors` draws other numbers
_DRAWN_AT_ONCE = 1 << 22


@dataclass(frozen=True, kw_only=True)
class WeightProfile:
    """The preprocessing that a set of weights was trained with.

    Attributes:
        name: As on the command line.
        channels: The order that the file's conv1_1 reads; readers turn BGR weights to RGB.
        unit_range: Pixels are divided by 255 first.
        mean: Subtracted, RGB order, in the range that `unit_range` says.
        std: Divided by, RGB order.
        ceil_mode: The pools round odd sizes up (Caffe) or down.
    """

    name: str
    channels: str
    unit_range: bool
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    ceil_mode: bool


PROFILES = {
    profile.name: profile
    for profile in (
        WeightProfile(  # the authors' gists: BGR 0-255 minus (103.939, 116.779, 123.68), Caffe
            name="oxford",
            channels="BGR",
            unit_range=False,
            mean=(123.68, 116.779, 103.939),
            std=(1.0, 1.0, 1.0),
            ceil_mode=True,
        ),
        WeightProfile(  # torchvision's model page
            name="torchvision",
            channels="RGB",
            unit_range=True,
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
            ceil_mode=False,
        ),
    )
}


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Weights that were found and identified, but not yet read.

    Attributes:
        origin: What the user may be shown: "random:0", or a file's name.
        sha256: Of the file; of the seed and the scheme where they are drawn.
        profile: Their preprocessing.
        load: Reads or draws them: "conv1_1.weight" and so on, float32, conv1_1 reading RGB.
    """

    origin: str
    sha256: str
    profile: WeightProfile
    load: Callable[[], dict[str, Tensor]]


def find_weights(net: Architecture, weights: str, profile: str | None = None) -> Weights:
    """Find weights for a net and identify them, without reading them.

    Args:
        net: Which net.
        weights: "oxford", "torchvision", "random:SEED" or a path.
        profile: The preprocessing of a file that the catalogue does not know.

    Raises:
        WeightsError: If they are absent, or their preprocessing is not known.
    """
    if seed := re.fullmatch(r"random:(\d+)", weights):
        return _random(net, int(seed[1]), profile)
    if weights in {entry["family"] for entry in catalogue()}:
        return _from_catalogue(net, weights)
    if "/" not in weights and not Path(weights).exists() and not Path(weights).suffix:
        families = [*sorted({entry["family"] for entry in catalogue()}), "random:SEED", "a path"]
        raise WeightsError(f"Unknown weights {weights!r}.", nearest(weights, families))
    return _from_file(net, Path(weights), profile)


def random_tensors(net: Architecture, seed: int) -> dict[str, Tensor]:
    """Draw He-initialised weights (He et al. 2015: variance 2 / fan-in) and biases of zero.

    Each layer has a generator of its own, numpy's RandomState, whose stream is frozen for ever
    (NEP 19), keyed by seed and layer name; so the numbers are the same on every machine.

    Args:
        net: Which net.
        seed: Any non-negative integer.

    Returns:
        "conv1_1.weight" and so on, float32.
    """
    tensors = {}
    for layer in net.layers():
        tensors[f"{layer.name}.weight"] = torch.from_numpy(_he_normal(layer, seed))
        tensors[f"{layer.name}.bias"] = torch.zeros(layer.shape[0])
        if layer.norm:  # as before any training
            for part, value in (("weight", 1.0), ("bias", 0.0), ("mean", 0.0), ("variance", 1.0)):
                tensors[f"{layer.name}.norm.{part}"] = torch.full(layer.shape[:1], value)
    return tensors


@cache
def catalogue() -> tuple[dict[str, Any], ...]:
    """Return the published weight files, as `catalogue.toml` lists them."""
    text = resources.files("vggfeat.nets").joinpath("catalogue.toml").read_text("utf-8")
    return tuple(tomllib.loads(text)["file"])


def weight_folders() -> list[Path]:
    """Return where weight files are looked for, in order."""
    torch_home = os.environ.get("TORCH_HOME") or user_cache().parent / "torch"
    return [user_cache() / "weights", Path(torch_home) / "hub" / "checkpoints"]


def _he_normal(layer: Layer, seed: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    out, channels, kernel, _ = layer.shape
    key = hashlib.sha256(f"{RANDOM_SCHEME}/{seed}/{layer.name}".encode()).digest()
    generator = np.random.RandomState(np.frombuffer(key, dtype=">u4").astype(np.uint32))
    scale = np.sqrt(2 / (channels * kernel * kernel))
    weight = np.empty(out * channels * kernel * kernel, dtype=np.float32)
    for start in range(0, weight.size, _DRAWN_AT_ONCE):  # the same stream, in bounded memory
        part = weight[start : start + _DRAWN_AT_ONCE]
        part[:] = scale * generator.standard_normal(part.size)
    return weight.reshape(layer.shape)


def _random(net: Architecture, seed: int, profile: str | None) -> Weights:
    return Weights(
        origin=f"random:{seed}",
        sha256=hashlib.sha256(
            f"vggfeat random weights {RANDOM_SCHEME}/{seed}".encode()
        ).hexdigest(),
        profile=PROFILES[profile or "oxford"],
        load=lambda: random_tensors(net, seed),
    )


def _from_catalogue(net: Architecture, family: str) -> Weights:
    entries = [e for e in catalogue() if e["family"] == family and e["net"] == net.name]
    if not entries:
        raise WeightsError(
            f"There are no published weights {family!r} for {net.name!r}.",
            remedy="Pass --weights random:0, or a file of your own.",
        )
    for entry in entries:
        for folder in weight_folders():
            if (folder / entry["name"]).is_file():
                return _from_file(net, folder / entry["name"], None)
    places = ", ".join(f"'{folder}'" for folder in weight_folders())
    sources = "; ".join(f"{e['name']} from {e['url']}" for e in entries)
    raise WeightsError(
        f"No weights {family!r} for {net.name!r} on this machine.",
        f"Looked in {places}.",
        f"Put one of these there: {sources}; or pass --weights PATH, or --weights random:0.",
    )


def _from_file(net: Architecture, path: Path, profile: str | None) -> Weights:
    if not path.is_file():
        raise WeightsError(
            f"No weight file '{path}'.", "Expected a .pth or .safetensors file.", "Check the path."
        )
    digest = sha256_of(path)
    known = [e for e in catalogue() if digest.startswith(e["sha256"])]
    name = known[0]["profile"] if known else profile
    if name is None:
        raise WeightsError(
            f"'{path}' (sha256 {digest[:16]}…) is not in the catalogue of published weights, "
            "so its preprocessing is not known.",
            remedy=f"Say it: --profile {' or --profile '.join(PROFILES)}.",
        )
    if profile not in {None, name}:
        raise WeightsError(
            f"'{path}' is {known[0]['name']}, whose profile is {name!r}, not {profile!r}.",
            remedy="Leave --profile out.",
        )
    chosen = PROFILES[name]
    return Weights(
        origin=path.name,
        sha256=digest,
        profile=chosen,
        load=lambda: _as_rgb(ports.read(path, net), chosen),
    )


def _as_rgb(tensors: dict[str, Tensor], profile: WeightProfile) -> dict[str, Tensor]:
    if profile.channels == "BGR":
        tensors["conv1_1.weight"] = tensors["conv1_1.weight"].flip(1)
    return tensors
