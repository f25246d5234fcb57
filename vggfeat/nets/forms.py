"""Which form of the net serves a precision on a device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

import torch
from torch import Tensor

from vggfeat.errors import RecipeError
from vggfeat.nets.architectures import Architecture
from vggfeat.nets.canvas import CanvasVgg
from vggfeat.nets.int8 import Calibration, Int8Vgg
from vggfeat.nets.vgg import DenseVgg
from vggfeat.nets.winograd import RaggedVgg

Precision = Literal["float32", "tf32", "bfloat16", "float16", "int8"]


GPU_ONLY, CPU_ONLY = ("tf32", "float16"), ("int8",)


_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}


FORMS = (RaggedVgg, CanvasVgg, Int8Vgg)


class Form(Protocol):
    """A form of the net."""

    def __call__(
        self, images: Sequence[Tensor], canvas: tuple[int, int], *, mirror: bool
    ) -> Tensor:
        """Return (b, D) descriptors, un-normalised, of (H, W, 3) uint8 images; see `CanvasVgg`."""
        ...


def check_precision(precision: Precision, device: torch.device) -> None:
    """Refuse a precision that a device has not.

    Raises:
        RecipeError: If it has not.
    """
    if precision in GPU_ONLY and device.type == "cpu":
        remedy = "Pass --precision float32 or bfloat16."
        raise RecipeError(f"precision = {precision!r} on the CPU.", "It is for GPUs.", remedy)
    if precision in CPU_ONLY and device.type != "cpu":
        remedy = "Pass --precision bfloat16, or --device cpu."
        raise RecipeError(f"precision = {precision!r} on a GPU.", "It is for CPUs.", remedy)


def form_of(
    net: DenseVgg,
    precision: Precision,
    *,
    threads: int,
    batch_pixels: int,
    calibration: Calibration | None = None,
) -> Form:
    """Return the fastest form of a net for its device and a precision.

    Args:
        net: On its device; it computes in that precision from now on.
        precision: Of the layers.
        threads: That compute on the CPU.
        batch_pixels: As in `ExtractionPlan`.
        calibration: As for `Extractor`.

    Raises:
        RecipeError: If the device does not know the precision.
    """
    device = net.mean.device
    check_precision(precision, device)
    if precision == "int8":
        assert calibration is not None, "an 8-bit net needs one"
        return Int8Vgg(net, calibration, threads)
    # By default torch lets cuDNN round the factors of every product to TF32's 10 bits.
    rounding = "tf32" if precision == "tf32" else "ieee"
    torch.backends.cudnn.conv.fp32_precision = rounding  # type: ignore[attr-defined]  # no stub
    torch.backends.cuda.matmul.fp32_precision = rounding
    torch.backends.cudnn.deterministic = True
    if precision in _DTYPES:
        net.computing_in(_DTYPES[precision])
    if pads(net.architecture, device, precision):
        return CanvasVgg(net, graphs=device.type == "cuda")
    return RaggedVgg(net, threads=threads, pixels=batch_pixels)


def pads(net: Architecture, device: torch.device, precision: Precision) -> bool:
    """Tell whether images of different sizes need a canvas to share a batch."""
    return not (device.type == "cpu" and precision == "float32" and not net.lrn)


def torch_device(name: str) -> torch.device:
    """Return the device that a name of the command line means.

    Args:
        name: "auto", "cpu", "cuda" or "cuda:N".

    Raises:
        RecipeError: If it is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cpu":
        return torch.device("cpu")
    kind, _, number = name.partition(":")
    if kind != "cuda" or (number and not number.isdigit()):
        raise RecipeError(f"Unknown device {name!r}.", "Valid: auto, cpu, cuda, cuda:N.")
    count = torch.cuda.device_count()
    if int(number or 0) >= count:
        raise RecipeError(f"No device {name!r}: torch sees {count} GPUs.", remedy="--device cpu.")
    return torch.device(name)
