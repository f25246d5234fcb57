"""The precisions as data: what computes in each, on which device, and how. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from vggfeat.errors import RecipeError, nearest
from vggfeat.nets.architectures import Architecture


@dataclass(frozen=True, kw_only=True)
class Way:
    """One form of a net, and the canvases on which it wants images.

    Attributes:
        form: Which, of `vggfeat.nets.forms`.
        canvas: Step of the canvases that images of near sizes share, pixels; 1 where only images of
            one size go together, None where those of any sizes do.
        lrn: Whether it knows local response normalisation.
    """

    form: Literal["ragged", "canvas", "int8"]
    canvas: int | None
    lrn: bool = True


@dataclass(frozen=True, kw_only=True)
class Precision:
    """In what numbers the layers of a net compute.

    Attributes:
        ways: Type of device to what computes there, the fastest first; no other device has it.
        dtype: torch's name of the layers' float type.
        rounding: Of the factors of float32 products on a GPU: "ieee" for none, "tf32" to 10 bits.
        calibrated: Whether images decide which numbers the weights become.
    """

    ways: Mapping[str, tuple[Way, ...]]
    dtype: str = "float32"
    rounding: Literal["ieee", "tf32"] = "ieee"
    calibrated: bool = False


_ON_CPU = Way(form="canvas", canvas=32)  # pool5's stride
_ON_GPU = Way(form="canvas", canvas=64)  # fewer shapes, so that their graphs come back

PRECISIONS: dict[str, Precision] = {
    "float32": Precision(
        ways={"cpu": (Way(form="ragged", canvas=None, lrn=False), _ON_CPU), "cuda": (_ON_GPU,)}
    ),
    "tf32": Precision(ways={"cuda": (_ON_GPU,)}, rounding="tf32"),
    "bfloat16": Precision(ways={"cpu": (_ON_CPU,), "cuda": (_ON_GPU,)}, dtype="bfloat16"),
    "float16": Precision(ways={"cuda": (_ON_GPU,)}, dtype="float16"),
    "int8": Precision(ways={"cpu": (Way(form="int8", canvas=1),)}, calibrated=True),
}


def way_of(net: Architecture, precision: str, device: str) -> Way:
    """Return the fastest way to compute a net.

    Args:
        net: Which.
        precision: A name of `PRECISIONS`.
        device: Type of the device: cpu or cuda.

    Raises:
        RecipeError: If there is no such precision, or the device has not it.
    """
    if precision not in PRECISIONS:
        raise RecipeError(f"Unknown precision {precision!r}.", nearest(precision, PRECISIONS))
    ways = PRECISIONS[precision].ways
    if device not in ways:
        others = ", ".join(name for name, own in PRECISIONS.items() if device in own.ways)
        here, there = ("the CPU", "GPUs") if device == "cpu" else ("a GPU", "CPUs")
        raise RecipeError(
            f"precision = {precision!r} on {here}.",
            f"It is for {there}.",
            f"Pass --precision with one of {others}, or another --device.",
        )
    return next(way for way in ways[device] if way.lrn or not net.lrn)
