"""The forms of a net: which one computes in a precision on a device, and under what settings."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from vggfeat.nets.blas import blas
from vggfeat.nets.canvas import CanvasVgg
from vggfeat.nets.int8 import Calibration, Int8Vgg
from vggfeat.nets.precisions import PRECISIONS, way_of
from vggfeat.nets.vgg import DenseVgg
from vggfeat.nets.winograd import RaggedVgg

_log = logging.getLogger(__name__)

FORMS = (RaggedVgg, CanvasVgg, Int8Vgg)


class Form(Protocol):
    """A form of the net.

    Attributes:
        allocates: Whether each layer's map is a new block of memory; otherwise it keeps its own.
    """

    allocates: ClassVar[bool]

    def __call__(
        self,
        images: Sequence[Tensor],
        canvas: tuple[int, int],
        *,
        mirror: bool,
        taps: Sequence[str] = (),
    ) -> tuple[Tensor, ...]:
        """Return (b, D) descriptors for each tap, un-normalised; see `CanvasVgg`."""
        ...


def form_of(
    net: DenseVgg,
    precision: str,
    *,
    threads: int,
    batch_pixels: int,
    calibration: Calibration | None = None,
) -> Form:
    """Return the fastest form of a net for its device and a precision.

    Args:
        net: On its device; its layers are in that precision from now on.
        precision: Of the layers. What computes in it stands within `numerics`.
        threads: That compute on the CPU.
        batch_pixels: As in `ExtractionPlan`.
        calibration: As for `Extractor`.

    Raises:
        RecipeError: If the device has not the precision.
    """
    device = net.mean.device.type
    way = way_of(net.architecture, precision, device)
    net.computing_in(getattr(torch, PRECISIONS[precision].dtype))
    if way.form == "ragged":
        _tell_of_blas()
        return RaggedVgg(net, threads=threads, pixels=batch_pixels)
    if way.form == "int8":
        assert calibration is not None, "an 8-bit net needs one"
        return Int8Vgg(net, calibration, threads)
    return CanvasVgg(net, graphs=device == "cuda")


def _tell_of_blas() -> None:
    found = blas()
    if found.hold:
        because = ", ".join(f"{name}={value}" for name, value in found.variables.items())
        _log.warning(
            "float32 may be slower than this processor allows: %s computes for %s (%s): %s",
            found.name,
            found.kernel,
            because or "an old library",
            found.hold,
        )


@contextmanager
def numerics(
    precision: str, device: torch.device | None = None, *, threads: int | None = None
) -> Iterator[None]:
    """Let torch compute in a precision for a while; what was set before is set again afterwards.

    Args:
        precision: Of the layers.
        device: Where events, streams and graphs are made meanwhile, if it is a GPU.
        threads: That compute on the CPU; None for as many as before.
    """
    # By default torch lets cuDNN round the factors of every product to TF32's 10 bits.
    rounding = PRECISIONS[precision].rounding
    with ExitStack() as restored:

        def let(owner: object, name: str, value: object) -> None:
            restored.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, value)

        let(torch.backends.cudnn.conv, "fp32_precision", rounding)  # type: ignore[attr-defined]  # no stub
        let(torch.backends.cuda.matmul, "fp32_precision", rounding)
        let(torch.backends.cudnn, "deterministic", True)
        if threads is not None:
            restored.callback(torch.set_num_threads, torch.get_num_threads())
            torch.set_num_threads(threads)
        if device is not None and device.type == "cuda":
            restored.enter_context(torch.cuda.device(device))
        yield
