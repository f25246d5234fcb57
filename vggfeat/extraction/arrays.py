"""Images that a caller has in memory, as arrays of NumPy or tensors of torch."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeAlias, TypeGuard

import numpy as np
import numpy.typing as npt
from PIL import Image

from vggfeat.errors import InputError
from vggfeat.extraction.images import DIM, from_16_bits, from_unit

if TYPE_CHECKING:
    from torch import Tensor

Array: TypeAlias = npt.NDArray[Any]
InMemory: TypeAlias = "Array | Tensor | Image.Image"

_CHANNELS = {1, 3, 4}  # grey, RGB, RGB and alpha
_ARRAYS = "Expected (H, W), (H, W, 1), (H, W, 3) for RGB or (H, W, 4) with alpha."
_TENSORS = "Expected (C, H, W) with 1, 3 or 4 channels, or (H, W)."
_TYPES = "Expected uint8, uint16 up to 65535, or floating point from 0 to 1."


def is_tensor(value: object) -> TypeGuard[Tensor]:
    """Tell whether something is a tensor of torch, which this does not load."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def from_array(array: Array, name: str) -> Image.Image:
    """Turn an array into an image of Pillow.

    Args:
        array: (H, W), (H, W, 1), (H, W, 3) in RGB or (H, W, 4) with alpha; uint8, uint16 or
            floating point in [0, 1].
        name: For messages.

    Raises:
        InputError: If its shape, type or range is another, or leaves open what is meant.
    """
    described = f"{name} is an array of shape {array.shape}"
    if array.ndim == 3 and array.shape[2] not in _CHANNELS and array.shape[0] in _CHANNELS:
        remedy = "Pass image.transpose(1, 2, 0), or a tensor of torch."
        raise InputError(f"{described}, as if its channels came first.", _ARRAYS, remedy)
    if array.ndim not in {2, 3} or (array.ndim == 3 and array.shape[2] not in _CHANNELS):
        raise InputError(f"{described}.", _ARRAYS, "Pass several images as a list.")
    if not array.size:
        raise InputError(f"{described}: it has no pixels.", _ARRAYS)
    pixels = _levels(array, name)
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2:] == (1,) else pixels)


def from_tensor(tensor: Tensor, name: str) -> Image.Image:
    """Turn a tensor into an image of Pillow.

    Args:
        tensor: (C, H, W) with 1, 3 or 4 channels, or (H, W); on any device; types as for arrays.
        name: For messages.

    Raises:
        InputError: As `from_array`.
    """
    shape = tuple(tensor.shape)
    described = f"{name} is a tensor of shape {shape}"
    if len(shape) == 3 and shape[0] not in _CHANNELS and shape[2] in _CHANNELS:
        remedy = "Pass image.permute(2, 0, 1), or an array of NumPy."
        raise InputError(f"{described}, as if its channels came last.", _TENSORS, remedy)
    if len(shape) not in {2, 3} or (len(shape) == 3 and shape[0] not in _CHANNELS):
        raise InputError(f"{described}.", _TENSORS, "Pass several images as (N, C, H, W).")
    values = tensor.detach().cpu()
    if values.is_floating_point():
        values = values.double()  # NumPy has no bfloat16
    array: Array = values.numpy()
    return from_array(array.transpose(1, 2, 0) if array.ndim == 3 else array, name)


def _levels(array: Array, name: str) -> npt.NDArray[np.uint8]:
    """Bring the values of an array to 8 bits, as those of an image file are."""
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if array.dtype.kind not in "uif":
        raise InputError(f"{name} has values of the type {array.dtype}.", _TYPES)
    lowest, highest = array.min(), array.max()
    described = f"{name} has values of the type {array.dtype} from {lowest:g} to {highest:g}."
    if np.issubdtype(array.dtype, np.floating):
        try:
            return from_unit(array)
        except ValueError:
            whole = lowest >= 0 and 1 < highest <= 255
            remedy = "Divide them by 255." if whole else _UNDO
            raise InputError(described, _TYPES, remedy) from None
    if array.dtype == np.uint16 and not 0 < highest < DIM:
        # of 16 bits in colour Pillow reads the upper half
        return from_16_bits(array) if array.shape[2:] in {(), (1,)} else (array >> 8).astype("u1")
    within = lowest >= 0 and highest <= 255
    raise InputError(described, _TYPES, "Pass image.astype(np.uint8)." if within else _SCALE)


_UNDO = "Undo what normalises them, and bring them to 0 to 1: the net normalises by itself."
_SCALE = "Scale them so that white is 255, as uint8, or 65535, as uint16."
