"""Weights of any layout as one plain file, with what belongs to them in its metadata."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from vggfeat.files.publish import make_folder, publishing
from vggfeat.nets.architectures import Architecture
from vggfeat.weights.formats import Port
from vggfeat.weights.formats.layouts import CONVERTED
from vggfeat.weights.formats.plain import FloatArray, Plain, Refused, read_header, write

if TYPE_CHECKING:
    from torch import Tensor


def convert(
    port: Port, net: Architecture, *, origin: str, origin_sha256: str, profile: str, target: Path
) -> Path:
    """Write weights as safetensors, which load without a copy and without a parser of others.

    The file holds `Layer.tensors` in their order, float32, conv1_1 as in the original. It is
    written tensor by tensor and appears at once; the same weights give the same bytes.

    Args:
        port: As `formats.read` returns it, its channel order settled.
        net: The net that it holds.
        origin: Name of the original file.
        origin_sha256: Of the original file.
        profile: The preprocessing.
        target: The new file; one that is there already and says the same is left alone.

    Returns:
        `target`.

    Raises:
        ValueError: If `port.channels` is None.
        PublishError: If it cannot be written.
    """
    if port.channels is None:
        raise ValueError("the profile has to settle the channel order before a conversion")
    metadata = {
        "format": CONVERTED,
        "net": net.name,
        "profile": profile,
        "channels": port.channels,
        "origin": origin,
        "origin_sha256": origin_sha256,
        "layout": port.layout,
    }
    if converted_metadata(target) != metadata:
        make_folder(target.parent)
        arrays = [_plain(name, tensor) for name, tensor in port.tensors.items()]
        with publishing(target) as descriptor, os.fdopen(os.dup(descriptor), "wb") as stream:
            write(stream, arrays, metadata)
    return target


def converted_metadata(path: Path) -> dict[str, str] | None:
    """Return what a converted file says of itself: net, profile, channels, origin, layout.

    Args:
        path: Any file; only its header is read.

    Returns:
        None if it is no converted file, or not whole.
    """
    try:
        metadata = read_header(path).get("__metadata__")
    except (OSError, Refused):
        return None
    if not isinstance(metadata, dict) or metadata.get("format") != CONVERTED:
        return None
    return metadata


def _plain(name: str, tensor: Tensor) -> Plain:
    def load() -> FloatArray:
        values: FloatArray = tensor.numpy()
        return values

    return Plain(name=name, shape=tuple(tensor.shape), load=load)
