"""NumPy archives without pickles and bombs. Only `sandbox`'s process imports this."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np

from vggfeat.weights.formats.plain import MOST_VALUES, FloatArray, Plain, Refused, as_float32

_MOST_ENTRIES = 500
_LONGEST_HEADER = 10_000  # bytes; NumPy's own bound, because it evaluates the text


@contextmanager
def arrays(path: Path) -> Iterator[list[Plain]]:
    """Open an archive and give its arrays.

    Args:
        path: A .npz file, compressed or not.

    Raises:
        Refused: If an entry is no array of numbers, or larger than any net's.
    """
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if len(entries) > _MOST_ENTRIES:
            raise Refused(f"it holds {len(entries):,} entries")
        yield [_array(archive, entry) for entry in entries]


def _array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Plain:
    name = repr(entry.filename)
    if not entry.filename.endswith(".npy"):
        raise Refused(f"its entry {name} is no array")
    with archive.open(entry) as stream:
        shape, _, kind = _header(stream)
    if kind.hasobject:
        raise Refused(f"its entry {name} is a pickle, which could run code")
    if kind.kind != "f":
        raise Refused(f"its entry {name} is of the type {kind}")
    if min(shape, default=0) < 0 or math.prod(shape) > MOST_VALUES:
        raise Refused(f"its entry {name} has the shape {shape}, which no VGG net has")
    load = partial(_values, archive, entry)
    return Plain(name=entry.filename.removesuffix(".npy"), shape=shape, load=load)


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(stream, _LONGEST_HEADER)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(stream, _LONGEST_HEADER)
    raise Refused(f"an array is of NumPy's format {version}")


def _values(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> FloatArray:
    with archive.open(entry) as stream:
        shape, columns_first, kind = _header(stream)
        size = math.prod(shape) * kind.itemsize
        content = stream.read(size)
        if len(content) != size or stream.read(1):
            raise Refused(f"its entry {entry.filename!r} has not the size that it says")
    values = np.frombuffer(content, dtype=kind).reshape(shape, order="F" if columns_first else "C")
    return as_float32(values)
