"""Readers of weight files. None of them runs code that a file brings along."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from vggfeat.errors import WeightsError
from vggfeat.nets.architectures import Architecture


def read(path: Path, net: Architecture) -> dict[str, Tensor]:
    """Read a weight file of torchvision's layout.

    jcjohnson's ports, whose classifier is numbered 1, 4, 6 instead of 0, 3, 6, are read too.

    Args:
        path: A `.pth` (state dictionary) or `.safetensors` file.
        net: The net it is expected to hold.

    Returns:
        "conv1_1.weight" (out, in, kernel, kernel), "conv1_1.bias" (out,), ... "fc8.bias", float32,
        channels as in the file.

    Raises:
        WeightsError: If the file is damaged, of an unknown layout, of another net, without its
            fully connected layers, or holds values that are not finite.
    """
    found = _safetensors(path) if path.suffix == ".safetensors" else _pth(path)
    names = _layer_names(net, found, path)
    tensors: dict[str, Tensor] = {}
    for layer in net.layers():
        prefix = names[layer.name]
        weight, bias = found[f"{prefix}.weight"], found[f"{prefix}.bias"]
        if weight.numel() != torch.Size(layer.shape).numel() or len(bias) != layer.shape[0]:
            raise WeightsError(
                f"'{path}': {prefix}.weight has shape {tuple(weight.shape)}.",
                f"{net.name} needs {layer.shape} for {layer.name}.",
                "Is it the file of another net?",
            )
        for name, tensor in ((f"{prefix}.weight", weight), (f"{prefix}.bias", bias)):
            if not torch.isfinite(tensor).all():
                raise WeightsError(
                    f"'{path}': {name} holds values that are not finite.",
                    remedy="Use a file that has its fully connected layers.",
                )
        tensors[f"{layer.name}.weight"] = weight.float().reshape(layer.shape)
        tensors[f"{layer.name}.bias"] = bias.float()
    return tensors


def _layer_names(net: Architecture, found: Mapping[str, Tensor], path: Path) -> dict[str, str]:
    """Map our layer names to the file's, whose `features` count ReLUs and pools as well."""
    names: dict[str, str] = {}
    index = 0
    for number, block in enumerate(net.blocks, 1):
        for position in range(1, len(block) + 1):
            names[f"conv{number}_{position}"] = f"features.{index}"
            index += 2
        index += 1
    first = "1" if "classifier.1.weight" in found else "0"
    second = "4" if "classifier.4.weight" in found else "3"
    names |= {"fc6": f"classifier.{first}", "fc7": f"classifier.{second}", "fc8": "classifier.6"}
    missing = [
        f"{name}.{kind}"
        for name in names.values()
        for kind in ("weight", "bias")
        if f"{name}.{kind}" not in found
    ]
    if missing:
        raise WeightsError(
            f"'{path}' has no {missing[0]!r} ({len(missing)} of {2 * len(names)} names missing).",
            f"Expected torchvision's layout of {net.name}: features.0.weight … classifier.6.bias.",
            "Is it the file of another net, or one without its fully connected layers?",
        )
    return names


def _pth(path: Path) -> dict[str, Tensor]:
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the restricted unpickler meets rubbish with nearly any of them
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise WeightsError(
            f"'{path}' is no file of plain tensors: {reason}",
            "Expected a state dictionary saved by torch.save.",
            "A file that holds code is never loaded.",
        ) from error
    if not isinstance(found, Mapping):
        raise WeightsError(
            f"'{path}' holds a {type(found).__name__}.", "Expected a state dictionary."
        )
    return {name: value for name, value in found.items() if isinstance(value, Tensor)}


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"'{path}' is no sound safetensors file: {error}.") from error
