"""Raw arrays out of a file of any format: names and axes as its makers chose them."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from vggfeat.errors import WeightsError
from vggfeat.weights.formats import caffe as caffe_model
from vggfeat.weights.formats import checkpoint, plain, sandbox
from vggfeat.weights.formats import tfjs as tfjs_model
from vggfeat.weights.formats.plain import Refused
from vggfeat.weights.formats.sniff import Format


def load(path: Path, form: Format) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read all tensors of a file.

    Args:
        path: The file.
        form: As `recognise` says.

    Returns:
        Tensors by the file's own names, with the file's own axes; and the metadata of a
        safetensors file.

    Raises:
        WeightsError: If the file is damaged, hostile, or beyond all bounds.
    """
    try:
        if not form.sandboxed:
            found: tuple[dict[str, Tensor], dict[str, str]] = form.load_reader()(path)
            return found
        with TemporaryDirectory(prefix="vggfeat-") as folder:
            target = Path(folder) / "arrays.safetensors"
            sandbox.extract(path, form, target)
            return _safetensors(target)[0], {}
    except (Refused, OSError) as error:
        raise WeightsError(
            f"'{path}' cannot be used: {error}.",
            f"Expected {form.holds}.",
            "Fetch it again, or use another port of the net.",
        ) from error


def torch_file(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors of a dictionary that torch.save has written; it has no metadata.

    Raises:
        WeightsError: If it holds anything but plain data, or several models.
        Refused: If it holds no dictionary.
    """
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the restricted unpickler meets rubbish with nearly any of them
        raise checkpoint.not_plain(path, str(error) or type(error).__name__) from error
    return checkpoint.state_of(path, found), {}


def tfjs(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the weights of a TensorFlow.js model, in float32; it has no metadata.

    Raises:
        Refused: If it is damaged.
    """
    found = tfjs_model.arrays(path)
    return {name: torch.from_numpy(values) for name, values in found.items()}, {}


def caffe(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the blobs of a Caffe model, in float32; it has no metadata.

    Raises:
        Refused: If it is damaged.
    """
    blobs = caffe_model.read(path)
    return {name: torch.from_numpy(plain.as_float32(blob)) for name, blob in blobs.items()}, {}


def safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors of a safetensors file, and its metadata.

    Raises:
        WeightsError: If it holds several models.
        Refused: If it is damaged.
    """
    found, metadata = _safetensors(path)
    return checkpoint.unwrapped(path, found), metadata


def _safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    metadata = plain.read_header(path).get("__metadata__", {})
    try:
        with safe_open(path, framework="pt") as file:
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (no mapping)
    except SafetensorError as error:
        raise Refused(f"it is damaged: {error}") from error
    return found, metadata if isinstance(metadata, dict) else {}
