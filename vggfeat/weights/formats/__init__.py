"""Readers of the published weight files. None of them runs code that a file brings along.

A file's format is recognised by its content (`sniff`), never by its name. What C code of others
has to parse (HDF5, MATLAB, NumPy, ONNX) is read by a process of its own with bounded memory and
time (`sandbox`). Which names and axes a layout has is data (`layouts`); one check serves all
(`checks`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vggfeat.errors import WeightsError
from vggfeat.nets.architectures import Architecture
from vggfeat.weights.formats.sniff import Channels, LayoutName, recognise

if TYPE_CHECKING:  # the process of `sandbox` imports this package, and needs no torch
    from torch import Tensor

__all__ = ["Port", "files_of", "read", "recognise"]


@dataclass(frozen=True, kw_only=True)
class Port:
    """The weights of one file, with what the file says about their preprocessing.

    Attributes:
        layout: Whose names and axes the file has.
        channels: The order that conv1_1 reads; None where neither the layout nor the values of
            conv1_1 tell (torchvision's names are also used for ports of the authors' BGR nets).
        profile: The preprocessing, None where nothing tells.
        tensors: As `Layer.tensors` names and shapes them, float32, conv1_1 as in the file; those
            that were asked for.
    """

    layout: LayoutName
    channels: Channels | None
    profile: str | None
    tensors: dict[str, Tensor]


def files_of(path: Path) -> list[Path]:
    """Return a weight file, and those that belong to it, in their order.

    TensorFlow.js keeps its numbers in files beside its model.json; any other is one file.

    Args:
        path: Of the file, or of the model.json.

    Raises:
        WeightsError: If one that belongs to it is not there.
    """
    try:
        form = recognise(path)
    except WeightsError:  # what it is instead is told when it is read
        return [path]
    if form.name != "tfjs":
        return [path]
    from vggfeat.weights.formats import tfjs
    from vggfeat.weights.formats.plain import Refused

    try:
        return tfjs.files(path)
    except (Refused, OSError) as error:
        raise WeightsError(
            f"'{path}' cannot be used: {error}.",
            f"Expected {form.holds}.",
            "Put the model.json and all that it names into one folder.",
        ) from error


def read(path: Path, net: Architecture, last: str | None = "fc8") -> Port:
    """Read a weight file of any format and layout that is known.

    Args:
        path: A torch file, safetensors, Caffe model, MATLAB file (v5 or v7.3), Keras file (HDF5 or
            .keras), NumPy archive, ONNX graph or TensorFlow.js' model.json.
        net: The net that it is expected to hold.
        last: The last layer or pool that is needed; None for as much as there is. What lies behind
            it may be of any kind, or not be there.

    Returns:
        Every tensor of `net` up to `last`, finite and float32, axes (out, in, kernel, kernel), the
        inputs of fc6 in the order channel, row, column; only conv1_1's channels are as in the file.
        fc8 has as many classes as the file.

    Raises:
        WeightsError: If the file is damaged, of an unknown format or layout, of another net,
            without a layer that is needed, or holds values that are not finite; if it is
            hostile: code, links that leave it, sizes beyond any published net.
    """
    from vggfeat.weights.formats.checks import arranged, authors_order
    from vggfeat.weights.formats.layouts import layout_of
    from vggfeat.weights.formats.sources import load

    form = recognise(path)
    found, metadata = load(path, form)
    layout = layout_of(path, form, found, metadata, net)
    tensors = arranged(path, layout, found, net, last)
    proven = authors_order(net, tensors["conv1_1.weight"])
    return Port(
        layout=layout.name,
        channels=proven or layout.channels,
        profile=layout.profile or ("oxford" if proven else None),
        tensors=tensors,
    )
