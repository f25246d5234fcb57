"""The weights of a .caffemodel, read from the wire format of protocol buffers without Caffe.

The messages are NetParameter (layers = 2 of the older kind, layer = 100) → V1LayerParameter
(name = 4, blobs = 6) or LayerParameter (name = 1, blobs = 7) → BlobProto (num, channels, height,
width = 1 … 4, data = 5, shape = 7, double_data = 8) → BlobShape (dim = 1); BVLC's caffe.proto.
These four are all that is ever descended into, so the depth is bounded.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from vggfeat.weights.formats.plain import MOST_VALUES, Refused

_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5  # wire types
_LAYERS = {2: (4, 6), 100: (1, 7)}  # field of NetParameter → fields of its name and its blobs
_BEFORE_LAYERS = {1, 3, 4, 5, 6, 7, 8}  # the other fields of NetParameter
_MOST_FIELDS = 200_000  # vgg19 has about 1,000
_MOST_BYTES = 4 * 8 * MOST_VALUES  # weights and their gradients, in double precision
_MOST_AXES = 8

Array = np.ndarray[Any, np.dtype[Any]]


def begins_a_net(head: bytes) -> bool:
    """Tell whether a file that begins like this may be a .caffemodel.

    Args:
        head: Its first bytes; a few hundred are enough.
    """
    content, at = memoryview(head), 0
    with suppress(Refused):
        while at < len(content):
            tag, after = _varint(content, at)
            number, kind = tag >> 3, tag & 7
            if number in _LAYERS and kind == _BYTES:  # it may be longer than `head`
                _, after = _varint(content, after)
                tag, _ = _varint(content, after)
                return tag & 7 in {_VARINT, _EIGHT, _BYTES, _FOUR} and 0 < tag >> 3 < 2000
            if number not in _BEFORE_LAYERS or (number == 1 and kind != _BYTES):
                return False
            *_, at = _field(content, at)
    return False


def read(path: Path) -> dict[str, Array]:
    """Return the blobs of every layer.

    Args:
        path: A binary NetParameter, older or newer.

    Returns:
        "conv1_1.weight", "conv1_1.bias", ... (further blobs of a layer by number) → float32 or
        float64 as in the file, which they map (read-only, not aligned); axes of one number in
        front are left out, since the older kind says (1, 1, out, in) and (1, 1, 1, out).

    Raises:
        Refused: If the file is damaged, or beyond all bounds.
        OSError: If it cannot be read.
    """
    with path.open("rb") as stream:
        content = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    if len(content) > _MOST_BYTES:
        raise Refused(f"{len(content):,} bytes are more than any VGG net has")
    budget = iter(range(_MOST_FIELDS))
    blobs: dict[str, Array] = {}
    for number, kind, value in _fields(memoryview(content), budget):
        if number not in _LAYERS:
            continue
        layer = _message(value, kind, "a layer")
        for name, blob in _layer(layer, *_LAYERS[number], budget):
            if name in blobs:
                raise Refused(f"the blob {name!r} occurs twice")
            blobs[name] = blob
    return blobs


def _layer(
    layer: memoryview, name_field: int, blobs_field: int, budget: Iterator[int]
) -> Iterator[tuple[str, Array]]:
    name, found = "", []
    for number, kind, value in _fields(layer, budget):
        if number == name_field:
            name = bytes(_message(value, kind, "a layer's name")[:100]).decode("utf-8", "replace")
        elif number == blobs_field:
            found.append(_blob(_message(value, kind, "a blob"), budget))
    for index, blob in enumerate(found):
        yield f"{name}.{ {0: 'weight', 1: 'bias'}.get(index, index) }", blob


def _blob(blob: memoryview, budget: Iterator[int]) -> Array:
    old = [0, 0, 0, 0]
    new: list[int] | None = None
    values: Array | None = None
    for number, kind, value in _fields(blob, budget):
        if 1 <= number <= 4 and isinstance(value, int):
            old[number - 1] = value
        elif number == 7:
            new = _shape(_message(value, kind, "a shape"), budget)
        elif number in {5, 8}:
            if values is not None:
                raise Refused("the numbers of a blob come in several pieces")
            values = _numbers(value, kind, 4 if number == 5 else 8)
    if values is None or not values.size:
        raise Refused("a blob has no numbers")
    shape = old if new is None else new
    if math.prod(shape) != values.size:
        raise Refused(f"a blob of shape {tuple(shape)} has {values.size:,} numbers")
    while len(shape) > 1 and shape[0] == 1:
        shape = shape[1:]
    return values.reshape(shape)


def _numbers(value: int | memoryview, kind: int, width: int) -> Array:
    if kind != _BYTES:
        raise Refused("the numbers of a blob are not packed, as Caffe has always done")
    message = _message(value, kind, "numbers")
    if len(message) % width:
        raise Refused("the numbers of a blob end within one of them")
    return np.frombuffer(message, dtype=f"<f{width}")


def _shape(message: memoryview, budget: Iterator[int]) -> list[int]:
    dims: list[int] = []
    for number, _, value in _fields(message, budget):
        if number != 1:
            continue
        if isinstance(value, int):
            dims.append(value)
            continue
        at = 0
        while at < len(value) and len(dims) <= _MOST_AXES:
            dim, at = _varint(value, at)
            dims.append(dim)
    if len(dims) > _MOST_AXES:
        raise Refused(f"a blob has more than {_MOST_AXES} axes")
    return dims


def _message(value: int | memoryview, kind: int, what: str) -> memoryview:
    if kind != _BYTES or isinstance(value, int):
        raise Refused(f"{what} is written as a number")
    return value


def _fields(
    message: memoryview, budget: Iterator[int]
) -> Iterator[tuple[int, int, int | memoryview]]:
    """Yield number, wire type and value of every field."""
    at = 0
    while at < len(message):
        if next(budget, None) is None:
            raise Refused("it has more fields than any VGG net")
        number, kind, value, at = _field(message, at)
        yield number, kind, value


def _field(message: memoryview, at: int) -> tuple[int, int, int | memoryview, int]:
    """Return number, wire type and value of one field, and where the next one begins."""
    tag, at = _varint(message, at)
    number, kind = tag >> 3, tag & 7
    if not 0 < number < 1 << 29:
        raise Refused(f"there is no field number {number}")
    if kind == _VARINT:
        integer, at = _varint(message, at)
        return number, kind, integer, at
    if kind == _BYTES:
        size, at = _varint(message, at)
    elif kind in {_EIGHT, _FOUR}:
        size = 8 if kind == _EIGHT else 4
    else:
        raise Refused(f"field {number} is of the wire type {kind}, which Caffe does not use")
    if size > len(message) - at:
        raise Refused(f"field {number} has {size:,} bytes, and {len(message) - at:,} are left")
    return number, kind, message[at : at + size], at + size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise Refused("it ends within a number")
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >= 1 << 64:
                break
            return value, at
    raise Refused("a number has more than 64 bits")
