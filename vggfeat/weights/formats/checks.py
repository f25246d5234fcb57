"""The one check that the tensors of every file have to pass."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NoReturn

import torch
from torch import Tensor

from vggfeat.errors import WeightsError
from vggfeat.nets.architectures import ARCHITECTURES, TAPS, Architecture
from vggfeat.weights.formats.layouts import Layout, wanted
from vggfeat.weights.formats.sniff import Channels

# Σw² over each input channel of conv1_1 of the authors' nets, in their order BGR.
_AUTHORS = {"vgg16": (19.342127, 29.856981, 24.639378)}
_SAME = 1e-3  # relative; a copy in half precision is as near, another net is not


def arranged(
    path: Path,
    layout: Layout,
    found: Mapping[str, Tensor],
    net: Architecture,
    last: str | None = "fc8",
) -> dict[str, Tensor]:
    """Give the tensors our names and axes, and check that they are the net's up to a layer.

    Args:
        path: For messages.
        layout: Of the file.
        found: By the file's names, with the file's axes.
        net: The net that is expected.
        last: The last layer or pool that is needed; None for as much as there is.

    Returns:
        As `Layer.tensors` names and shapes them, float32, contiguous; conv1_1 as in the file.

    Raises:
        WeightsError: If a tensor that is needed is missing, of another shape or not finite; if
            the convolutions are another net's.
    """
    until = last or _served(layout, found, net) or "fc8"
    if not fits(layout, found, net, until):
        _explain(path, layout, found, net, until)
    names = layout.names(net)
    tensors, damaged = {}, []
    for name, shape in _expected(layout, found, net, until):
        tensor = turned(found[names[name]], shape, inputs_first=layout.inputs_first)
        if not torch.isfinite(tensor).all():
            damaged.append(name)
        tensors[name] = tensor
    if damaged:
        wrong = (
            f"'{path}': {names[damaged[0]]} holds values that are not finite "
            f"({len(damaged)} of {len(tensors)} tensors do)."
        )
        if not damaged[0].startswith("fc"):
            raise WeightsError(wrong, remedy="Fetch it again.")
        before = _before(net, damaged[0].partition(".")[0])
        if last is None:
            return arranged(path, layout, found, net, before)
        left_out = "Its fully connected layers were left out."
        raise _serving(f"{wrong} {left_out}", net, before)
    return tensors


def fits(layout: Layout, found: Mapping[str, Tensor], net: Architecture, last: str = "fc8") -> bool:
    """Tell whether a file has what a net needs up to a layer, and no other convolutions.

    What lies behind `last` may be missing, or of any shape, but for convolutions: those that are
    there have to be the net's, from conv1_1 on, since they tell one net from another.

    Args:
        layout: Of the file.
        found: By the file's names, with the file's axes.
        net: The net that is expected.
        last: The last layer or pool that is needed.
    """
    names, until = layout.names(net), _until(layout, found, net, last)
    return not _foreign(layout, found, net, last) and all(
        names[name] in found and _fits(layout, name, shape, found[names[name]])
        for name, shape in _expected(layout, found, net, until)
    )


def _until(layout: Layout, found: Mapping[str, Tensor], net: Architecture, last: str) -> str:
    """Return the last part that has to be the net's: `last`, or a convolution behind it."""
    names = layout.names(net)
    there = [
        layer.name
        for layer in net.layers()
        if not layer.connected and any(names[name] in found for name, _ in layer.tensors())
    ]
    return max([last, *there], key=[part.name for part in net.parts()].index)


def _expected(
    layout: Layout, found: Mapping[str, Tensor], net: Architecture, last: str
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield as `wanted`, fc8 with as many classes as the file has."""
    bias = found.get(layout.names(net)["fc8.bias"])
    classes = len(bias) if bias is not None and bias.ndim == 1 else 0
    for name, shape in wanted(net, last):
        yield name, (classes, *shape[1:]) if classes and name.startswith("fc8.") else shape


def _served(layout: Layout, found: Mapping[str, Tensor], net: Architecture) -> str | None:
    """Return the last layer or pool up to which a file is the net's."""
    parts = [part.name for part in net.parts()]
    return next((name for name in reversed(parts) if fits(layout, found, net, name)), None)


def _before(net: Architecture, layer: str) -> str:
    """Return the layer or pool in front of a layer."""
    names = [part.name for part in net.parts()]
    return names[names.index(layer) - 1]


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


def _explain(
    path: Path, layout: Layout, found: Mapping[str, Tensor], net: Architecture, last: str
) -> NoReturn:
    """Raise the error that says best why a file is not the net's."""
    until = _until(layout, found, net, last)
    wrong, expected, remedy = _first_fault(path, layout, found, net, until)
    served = _served(layout, found, net)
    if served is not None:
        raise _serving(wrong, net, served)
    for other in ARCHITECTURES.values():
        if fits(layout, found, other, f"pool{len(other.blocks)}"):
            raise WeightsError(
                f"'{path}' does not hold {net.name}: these are the shapes of {other.name}.",
                remedy=f"Pass --model {other.name}, or another file.",
            )
    raise WeightsError(wrong, expected, remedy)


def _serving(wrong: str, net: Architecture, served: str) -> WeightsError:
    """Return the error of a file that has not all that is needed, but serves some taps."""
    layers = [part.name for part in net.parts(served)][::-1]
    best = next(tap for tap, (layer, _) in TAPS.items() if layer == served)
    return WeightsError(
        wrong,
        f"It serves the taps of {', '.join(layers)}.",
        f"Pass --tap {best}, or a file that has more layers.",
        options={"--tap": best},
    )


def _first_fault(
    path: Path, layout: Layout, found: Mapping[str, Tensor], net: Architecture, last: str
) -> tuple[str, str, str]:
    """Say what is wrong with a file, what was expected and what to do."""
    names, expected = layout.names(net), dict(_expected(layout, found, net, last))
    missing = [name for name in expected if names[name] not in found]
    other = "Is it the file of another net?"
    if missing and missing[0] == "fc6.weight":
        wrong = f"'{path}' has only the convolutions: no {names[missing[0]]!r} and what follows."
        return wrong, "", ""
    if missing:
        wrong = (
            f"'{path}' has no {names[missing[0]]!r} "
            f"({len(missing)} of {len(expected)} names missing)."
        )
        return wrong, f"Expected {layout.name}'s layout of {net.name}.", other
    for name, shape in expected.items():
        tensor = found[names[name]]
        if not _fits(layout, name, shape, tensor):
            theano = layout.name == "keras" and tuple(tensor.shape) == shape
            return (
                f"'{path}': {names[name]} has shape {tuple(tensor.shape)}, {tensor.dtype}.",
                f"{net.name} needs {shape} for {name.partition('.')[0]}, stored as "
                f"{' or '.join(map(str, _shapes(name, shape, layout)))} of floating point numbers.",
                "Its kernels are in Theano's order; use the file with tf_kernels in its name."
                if theano
                else other,
            )
    foreign = _foreign(layout, found, net, last)[0]
    wrong = f"'{path}' also has {foreign!r}, which {net.name} does not."
    return wrong, f"Expected {len(expected)} tensors.", other


def _foreign(
    layout: Layout, found: Mapping[str, Tensor], net: Architecture, last: str
) -> list[str]:
    """Return the file's names that a net does not know, and that may stand before `last`.

    Another convolution tells that it is another net. Behind the convolutions a product of one's
    own may stand (a head); but what has no matrix, a normalisation, may stand between the fully
    connected layers, if it is of the same module.
    """
    names = layout.names(net)
    known = set(names.values())
    unknown = [n for n in found if n not in known and not n.endswith(".num_batches_tracked")]
    products = {_owner(name) for name, tensor in found.items() if tensor.ndim == 2}
    beside = {_module(names[n]) for n, _ in wanted(net, last) if n.startswith("fc")}
    return [
        name
        for name in unknown
        if name.startswith(layout.trunk)
        or (_module(name) in beside and _owner(name) not in products)
    ]


def _module(name: str) -> str:
    """Return what stands before the layer in a file's name: "classifier" of classifier.0.weight."""
    return name.split(".", maxsplit=1)[0] if name.count(".") > 1 else ""


def _owner(name: str) -> str:
    """Return the layer of a tensor, by its file's name."""
    return re.split(r"[./](?=[^./]*$)", name)[0]


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
