"""The one check that the tensors of every file have to pass."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from vggfeat.errors import WeightsError
from vggfeat.nets.architectures import ARCHITECTURES, Architecture
from vggfeat.weights.formats.layouts import Layout, wanted
from vggfeat.weights.formats.sniff import Channels

# Σw² over each input channel of conv1_1 of the authors' nets, in their order BGR.
_AUTHORS = {"vgg16": (19.342127, 29.856981, 24.639378)}
_SAME = 1e-3  # relative; a copy in half precision is as near, another net is not


def arranged(
    path: Path, layout: Layout, found: Mapping[str, Tensor], net: Architecture
) -> dict[str, Tensor]:
    """Give the tensors our names and axes, and check that they are exactly the net's.

    Args:
        path: For messages.
        layout: Of the file.
        found: By the file's names, with the file's axes.
        net: The net that is expected.

    Returns:
        As `Layer.tensors` names and shapes them, float32, contiguous; conv1_1 as in the file.

    Raises:
        WeightsError: If a tensor is missing, of another shape, not finite, or too many.
    """
    if not fits(layout, found, net):
        _explain(path, layout, found, net)
    names = layout.names(net)
    tensors, damaged = {}, []
    for name, shape in wanted(net):
        tensor = turned(found[names[name]], shape, inputs_first=layout.inputs_first)
        if not torch.isfinite(tensor).all():
            damaged.append(name)
        tensors[name] = tensor
    if damaged:
        bare = all(name.startswith("fc") for name in damaged)
        raise WeightsError(
            f"'{path}': {names[damaged[0]]} holds values that are not finite "
            f"({len(damaged)} of {len(tensors)} tensors do).",
            "Its fully connected layers were left out." if bare else "",
            "Use a file that has its fully connected layers." if bare else "Fetch it again.",
        )
    return tensors


def fits(layout: Layout, found: Mapping[str, Tensor], net: Architecture) -> bool:
    """Tell whether a file has exactly the tensors of a net."""
    names = layout.names(net)
    return not _too_many(names, found) and all(
        names[name] in found and _fits(layout, name, shape, found[names[name]])
        for name, shape in wanted(net)
    )


def turned(tensor: Tensor, shape: tuple[int, ...], *, inputs_first: bool) -> Tensor:
    """Turn a tensor of a file to our axes.

    Args:
        tensor: With the file's axes.
        shape: The one it gets: (out, in, kernel, kernel) or (out,).
        inputs_first: As in `Layout`.

    Returns:
        float32, contiguous.
    """
    tensor = tensor.detach().float()
    if inputs_first and len(shape) == 4:
        out, channels, kernel, _ = shape
        return tensor.reshape(kernel, kernel, channels, out).permute(3, 2, 0, 1).contiguous()
    return tensor.reshape(shape).contiguous()


def authors_order(net: Architecture, conv1_1: Tensor) -> Channels | None:
    """Return the channel order that conv1_1 reads if it is the authors', whoever ported it.

    Args:
        net: Which net.
        conv1_1: (64, 3, 3, 3) of a file.

    Returns:
        None for any other net.
    """
    if net.name not in _AUTHORS:
        return None
    known = torch.tensor(_AUTHORS[net.name], dtype=torch.float64)
    energy = conv1_1.double().square().sum(dim=(0, 2, 3))
    if torch.allclose(energy, known, rtol=_SAME):
        return "BGR"
    return "RGB" if torch.allclose(energy.flip(0), known, rtol=_SAME) else None


def _explain(path: Path, layout: Layout, found: Mapping[str, Tensor], net: Architecture) -> None:
    """Raise the error that says best why a file is not the net's."""
    for other in ARCHITECTURES.values():
        if fits(layout, found, other):
            raise WeightsError(
                f"'{path}' does not hold {net.name}: these are the shapes of {other.name}.",
                remedy=f"Pass --model {other.name}, or another file.",
            )
    names = layout.names(net)
    missing = [name for name in names if names[name] not in found]
    if missing and all(name.startswith("fc") for name in missing) and len(missing) == 6:
        raise WeightsError(
            f"'{path}' has only the convolutions: no {names['fc6.weight']!r} and what follows.",
            "Descriptors need the fully connected layers fc6 and fc7.",
            "Use the file that has its top.",
        )
    if missing:
        raise WeightsError(
            f"'{path}' has no {names[missing[0]]!r} "
            f"({len(missing)} of {len(names)} names missing).",
            f"Expected {layout.name}'s layout of {net.name}.",
            "Is it the file of another net?",
        )
    for name, shape in wanted(net):
        tensor = found[names[name]]
        if not _fits(layout, name, shape, tensor):
            theano = layout.name == "keras" and tuple(tensor.shape) == shape
            raise WeightsError(
                f"'{path}': {names[name]} has shape {tuple(tensor.shape)}, {tensor.dtype}.",
                f"{net.name} needs {shape} for {name.partition('.')[0]}, stored as "
                f"{' or '.join(map(str, _shapes(name, shape, layout)))} of floating point numbers.",
                "Its kernels are in Theano's order; use the file with tf_kernels in its name."
                if theano
                else "Is it the file of another net?",
            )
    raise WeightsError(
        f"'{path}' also has {_too_many(names, found)[0]!r}, which {net.name} does not.",
        f"Expected {len(names)} tensors.",
        "Is it the file of another net?",
    )


def _too_many(names: Mapping[str, str], found: Mapping[str, Tensor]) -> list[str]:
    known = set(names.values())
    return [n for n in found if n not in known and not n.endswith(".num_batches_tracked")]


def _fits(layout: Layout, name: str, shape: tuple[int, ...], tensor: Tensor) -> bool:
    plain = (  # a file may describe a tensor of any kind, and of any size
        tensor.is_floating_point()
        and tensor.layout == torch.strided
        and not tensor.is_nested
        and tensor.device.type == "cpu"
    )
    return plain and tuple(tensor.shape) in _shapes(name, shape, layout)


def _shapes(name: str, shape: tuple[int, ...], layout: Layout) -> list[tuple[int, ...]]:
    """Return the shapes in which a layout may store a tensor of ours."""
    if len(shape) == 1:
        return [shape]
    out, channels, kernel, _ = shape
    turned_shape = (kernel, kernel, channels, out) if layout.inputs_first else shape
    inputs = math.prod(shape[1:])
    matrix = (inputs, out) if layout.inputs_first else (out, inputs)
    return [turned_shape, matrix] if name.startswith("fc") else [turned_shape]
