"""safetensors as the one plain format: written array by array, its header read. No torch here."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

FloatArray = np.ndarray[Any, np.dtype[np.float32]]

MOST_VALUES = 150_000_000  # of one file; the largest net, vgg19, has 143,667,240
LONGEST_HEADER = 1 << 20  # bytes; that of vgg19 has 4,000


class Refused(Exception):
    """A file is not what it should be; the message is a reason, without the file's name."""


@dataclass(frozen=True, kw_only=True)
class Plain:
    """An array that is not read before it is needed.

    Attributes:
        name: Of any kind.
        shape: Of what `load` returns.
        load: Reads it.
    """

    name: str
    shape: tuple[int, ...]
    load: Callable[[], FloatArray]


def as_float32(values: np.ndarray[Any, Any]) -> FloatArray:
    """Return a contiguous, aligned copy as float32; what does not fit becomes infinite.

    Raises:
        Refused: If the values are no floating point numbers.
    """
    if values.dtype.kind != "f":
        raise Refused(f"an array of {values.dtype} was found where numbers with a point belong")
    with np.errstate(all="ignore"):
        return np.array(values, dtype=np.float32, order="C")


def write(stream: BinaryIO, arrays: Sequence[Plain], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file, with no more than one array in memory at a time.

    Args:
        stream: Open for writing.
        arrays: Their names must differ.
        metadata: Free text by name.

    Raises:
        Refused: If the arrays are more than any net has, or a name occurs twice.
    """
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    end = 0
    for array in arrays:
        if array.name in header:
            raise Refused(f"the name {array.name!r} occurs twice")
        start, end = end, end + 4 * math.prod(array.shape)
        if end > 4 * MOST_VALUES:
            raise Refused(f"it holds more than {MOST_VALUES:,} numbers, more than any VGG net")
        header[array.name] = {
            "dtype": "F32",
            "shape": list(array.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the specification aligns what follows
    stream.write(len(text).to_bytes(8, "little"))
    stream.write(text)
    for array in arrays:
        values = np.ascontiguousarray(array.load(), dtype="<f4")
        if values.shape != array.shape:
            raise Refused(f"{array.name!r} has shape {values.shape}, not {array.shape} as it said")
        stream.write(values.data)


def read_header(path: Path) -> dict[str, Any]:
    """Return the header of a safetensors file: arrays by name, and `__metadata__`.

    Raises:
        Refused: If it is damaged or too long, or the file is cut short.
        OSError: If the file cannot be read.
    """
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > LONGEST_HEADER:
            raise Refused(f"its header of {length:,} bytes is longer than that of any VGG net")
        text = stream.read(length)
        size = stream.seek(0, os.SEEK_END)
    try:
        header: dict[str, Any] = json.loads(text)
        arrays = [array for name, array in header.items() if name != "__metadata__"]
        end = 8 + length + max((array["data_offsets"][1] for array in arrays), default=0)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise Refused("its header is damaged") from error
    if end != size:
        raise Refused(f"it has {size:,} bytes, and {end:,} by its header")
    return header
