"""What this machine can do at all: large convolutions and products, and copies of memory.

    python -m benchmarks.ceiling

Every other figure can be read as a share of these. The fastest of several shapes counts. A net may
exceed the ceiling of direct convolutions where it needs fewer operations (Winograd).
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.common import cores, seconds, skip, tell, threads, unheld, write

CPU = ("float32", "bfloat16", "int8")
CUDA = ("float32", "tf32", "bfloat16", "float16", "int8")

# channels, height, width of a 3×3 convolution of an image and its mirror: conv3, conv4 and conv5
# of VGG at Q = 768
_MAPS = ((256, 192, 256), (512, 96, 128), (512, 48, 64))
_SIDE = {"cpu": 4096, "cuda": 8192}  # of a square product
_COPIED = {"cpu": 1 << 29, "cuda": 1 << 32}  # bytes, far beyond any cache
_REPEAT = 5

_Call = Callable[[], object]


def precisions(device: str) -> tuple[str, ...]:
    """Return what can be measured on a kind of device."""
    return CUDA if device == "cuda" else CPU


@torch.inference_mode()
def rates(device: str, precision: str, repeat: int = _REPEAT) -> dict[str, float]:
    """Measure large operations in one precision.

    Args:
        device: "cpu" or "cuda".
        precision: One of `precisions`.
        repeat: Calls, of which the fastest counts: a ceiling is no average.

    Returns:
        GFLOP/s (2 for a multiply-add, of integers too), by operation; without those that torch
        refuses here.
    """
    # both ways to say it may not be mixed in one process; the engine uses this one
    rounding = "tf32" if precision == "tf32" else "ieee"
    torch.backends.cuda.matmul.fp32_precision = rounding
    torch.backends.cudnn.conv.fp32_precision = rounding  # type: ignore[attr-defined]  # no stub
    found = {}
    for name, flop, make in _operations(device, precision):
        try:
            call = make()
            seconds(call)
            found[name] = flop / min(seconds(call) for _ in range(repeat)) / 1e9
        except RuntimeError as error:
            skip(f"{precision} {name} on {device}", str(error).splitlines()[0])
    return found


def ceiling(device: str, precision: str, repeat: int = _REPEAT) -> float | None:
    """Return the best of `rates`, GFLOP/s, or None where nothing runs."""
    return max(rates(device, precision, repeat).values(), default=None)


def bandwidth(device: str, repeat: int = _REPEAT) -> float:
    """Measure a large copy, GB/s, read and written bytes together."""
    source = torch.ones(_COPIED[device] // 4, device=device)
    target = torch.empty_like(source)
    seconds(lambda: target.copy_(source))
    return (
        2
        * _COPIED[device]
        / min(seconds(lambda: target.copy_(source)) for _ in range(repeat))
        / 1e9
    )


def measure(device: str, counts: tuple[int, ...], repeat: int) -> dict[str, Any]:
    """Measure a device at several numbers of threads.

    Returns:
        "rows", one for each number of threads and precision, and "best", GFLOP/s by precision.
    """
    rows: list[dict[str, Any]] = []
    for count in counts:
        with threads(count):
            copied = bandwidth(device, repeat)
            for precision in precisions(device):
                found = rates(device, precision, repeat)
                if found:
                    rows.append(
                        {
                            "device": device,
                            "threads": count,
                            "precision": precision,
                            "gflops": max(found.values()),
                            "operations": found,
                            "bandwidth_gb_s": copied,
                        }
                    )
                    tell(
                        f"{device} {precision}, {count} threads: {max(found.values()):.0f} GFLOP/s"
                    )
    best: dict[str, float] = {}
    for row in rows:
        best[row["precision"]] = max(best.get(row["precision"], 0.0), row["gflops"])
    return {"device": device, "rows": rows, "best": best}


def _operations(device: str, precision: str) -> Iterator[tuple[str, float, Callable[[], _Call]]]:
    """Yield name, operations and what makes the call of each."""
    integer = precision == "int8"
    for channels, height, width in _MAPS:
        flop = 2.0 * 2 * channels * channels * 9 * height * width
        shape = (2, channels, height, width)
        if integer and device == "cuda":
            continue  # torch has no such convolution
        make = _integer_convolution if integer else _convolution
        name = f"convolution {channels} at {height}×{width}"
        yield name, flop, lambda make=make, shape=shape: make(shape, device, precision)  # type: ignore[misc]
    side = _SIDE[device]
    make_product = _integer_product if integer else _product
    yield f"product {side}", 2.0 * side**3, lambda: make_product(side, device, precision)


def _dtype(precision: str) -> torch.dtype:
    found = getattr(torch, "float32" if precision == "tf32" else precision)
    assert isinstance(found, torch.dtype)
    return found


def _convolution(shape: tuple[int, ...], device: str, precision: str) -> _Call:
    x, weight = _tensors(shape, device, precision)
    return lambda: functional.conv2d(x, weight, padding=1)


def _integer_convolution(shape: tuple[int, ...], device: str, precision: str) -> _Call:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls its own quantised tensors deprecated
        x, weight = _tensors(shape, device, "float32")
        wide = torch.quantize_per_tensor(x, 0.05, 128, torch.quint8)
        narrow = torch.quantize_per_tensor(weight, 0.05, 0, torch.qint8)
        packed = torch.ops.quantized.conv2d_prepack(narrow, None, [1, 1], [1, 1], [1, 1], 1)
    return lambda: torch.ops.quantized.conv2d(wide, packed, 0.05, 128)


def _tensors(shape: tuple[int, ...], device: str, precision: str) -> tuple[Tensor, Tensor]:
    x = torch.randn(shape, device=device).to(_dtype(precision))
    weight = torch.randn((shape[1], shape[1], 3, 3), device=device).to(_dtype(precision))
    last = torch.channels_last
    return x.contiguous(memory_format=last), weight.contiguous(memory_format=last)


def _product(side: int, device: str, precision: str) -> _Call:
    a = torch.randn((side, side), device=device).to(_dtype(precision))
    # as a layer: on some processors this is twice as fast as a plain product
    return lambda: functional.linear(a, a)


def _integer_product(side: int, device: str, precision: str) -> _Call:
    a = torch.randint(-128, 128, (side, side), device=device, dtype=torch.int8)
    return lambda: torch._int_mm(a, a.t())


def main() -> None:
    """Measure, and write results/benchmarks/ceiling.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=_REPEAT)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    options = parser.parse_args()
    counts = tuple(sorted({1, cores()})) if options.device == "cpu" else (cores(),)
    write("ceiling", measure(options.device, counts, options.repeat))


if __name__ == "__main__":
    unheld()
    main()
