"""TensorFlow.js: a `model.json`, and its numbers in files beside it, of full or of fewer bits."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from vggfeat.weights.formats.plain import MOST_VALUES, FloatArray, Refused

_LONGEST_JSON = 64 << 20  # bytes; that of vgg19 has 30,000
_MOST_FILES = 10_000  # vgg19 in the smallest usual pieces: 138
_WIDTHS = {"float32": "<f4", "float16": "<f2", "uint8": "|u1", "uint16": "<u2"}
_OTHERS = {"int32": "<i4", "bool": "|u1", "complex64": "<c8"}  # which no VGG net has

_GRAPH = re.compile(
    r"(?:.*/)?(?P<layer>[^/]+)/(?P<kind>Conv2D|MatMul|BiasAdd)/ReadVariableOp(_\d+)?"
)

Array = np.ndarray[Any, Any]


def begins_a_model(head: bytes) -> bool:
    """Tell whether a file that begins like this may be a model.json.

    Args:
        head: Its first bytes; a few hundred are enough.
    """
    signs = (b'"weightsManifest"', b'"modelTopology"', b'"layers-model"', b'"graph-model"')
    return head.lstrip().startswith(b"{") and any(sign in head for sign in signs)


def files(path: Path) -> list[Path]:
    """Return a model.json and the files of its numbers, in the order of its manifest.

    Raises:
        Refused: If it is damaged, or names a file outside of its folder, or one that is not there.
        OSError: If it cannot be read.
    """
    found = [path.parent / name for group in _manifest(path) for name in _names(group)]
    for file in found:
        if not file.is_file():
            raise Refused(f"its file {file.name!r} is not beside it")
    return [path, *found]


def arrays(path: Path) -> dict[str, FloatArray]:
    """Read the weights of a model.

    Numbers of 8 or 16 bits become q · scale + min, computed in float32 as the converter does.

    Args:
        path: Of the model.json, of a layers model or a graph model.

    Returns:
        "block1_conv1/kernel" (H, W, in, out), ... → float32; other types than floats are left out.

    Raises:
        Refused: If it is damaged, or beyond all bounds.
        OSError: If it cannot be read.
    """
    files(path)  # all there, before any is read
    found: dict[str, FloatArray] = {}
    total = 0
    for group in _manifest(path):
        weights = [_described(weight) for weight in group["weights"]]
        total += sum(size for _, _, _, size, _ in weights)
        if total > MOST_VALUES:
            raise Refused(f"it holds more than {MOST_VALUES:,} numbers, more than any VGG net")
        content = _content([path.parent / name for name in _names(group)], weights)
        at = 0
        for their_name, shape, kind, size, steps in weights:
            values = np.frombuffer(content, dtype=kind, count=size, offset=at)
            at += values.nbytes
            if values.dtype.kind != "f" and steps is None:
                continue
            name = _of_a_layer(their_name)
            if name in found:
                raise Refused(f"the name {name!r} occurs twice")
            found[name] = _decoded(values, steps).reshape(shape)
    return found


def _manifest(path: Path) -> list[Mapping[str, Any]]:
    with path.open("rb") as stream:
        text = stream.read(_LONGEST_JSON + 1)
    if len(text) > _LONGEST_JSON:
        raise Refused(f"it has more than {_LONGEST_JSON:,} bytes")
    try:
        manifest = json.loads(text)["weightsManifest"]
        sound = all(
            isinstance(g["paths"], list) and isinstance(g["weights"], list) for g in manifest
        )
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise Refused("it has no manifest of weights that can be read") from error
    if not sound or sum(len(g["paths"]) + len(g["weights"]) for g in manifest) > _MOST_FILES:
        raise Refused("its manifest of weights is damaged")
    return list(manifest)


def _names(group: Mapping[str, Any]) -> list[str]:
    for name in group["paths"]:
        place = PurePosixPath(str(name))
        if not isinstance(name, str) or place.is_absolute() or {"..", ""} & {*place.parts, name}:
            raise Refused(f"it names the file {name!r}, which is not beside it")
        if "\\" in name or "\0" in name or ":" in name:
            raise Refused(f"it names the file {name!r}, which is no plain name")
    return list(group["paths"])


def _described(weight: object) -> tuple[str, tuple[int, ...], str, int, tuple[float, float] | None]:
    """Return name, shape, type on disk, number of values, and scale and min of a quantised one."""
    try:
        if not isinstance(weight, dict):
            raise TypeError
        name, shape, stored = weight["name"], weight["shape"], weight.get("quantization") or {}
        dims = tuple(int(n) for n in shape)
        kind = {**_WIDTHS, **_OTHERS}[str(stored.get("dtype", weight["dtype"]))]
        steps = (float(stored["scale"]), float(stored["min"])) if "scale" in stored else None
    except (ArithmeticError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise Refused("its manifest describes a weight that is of no known kind") from error
    if not isinstance(name, str) or min(dims, default=1) < 0 or math.prod(dims) > MOST_VALUES:
        raise Refused(f"its manifest gives {name!r} the shape {dims}, which no VGG net has")
    return name, dims, kind, math.prod(dims), steps


def _of_a_layer(name: str) -> str:
    """Return a constant's name in a graph as that of a weight of a layer.

    >>> _of_a_layer("StatefulPartitionedCall/vgg16/block1_conv1/Conv2D/ReadVariableOp")
    'block1_conv1/kernel'
    """
    match = _GRAPH.fullmatch(name)
    if match is None:
        return name
    return f"{match['layer']}/{'bias' if match['kind'] == 'BiasAdd' else 'kernel'}"


def _content(places: list[Path], weights: list[tuple[Any, ...]]) -> bytearray:
    expected = sum(size * np.dtype(kind).itemsize for _, _, kind, size, _ in weights)
    content = bytearray()
    for place in places:
        with place.open("rb") as stream:
            content += stream.read(expected - len(content) + 1)
        if len(content) > expected:
            break
    if len(content) != expected:
        more = "more" if len(content) > expected else f"{len(content):,}"
        raise Refused(f"its files hold {more} bytes, and its manifest says {expected:,}")
    return content


def _decoded(values: Array, steps: tuple[float, float] | None) -> FloatArray:
    found: FloatArray = values.astype(np.float32)
    if steps is not None:
        scale, least = steps
        with np.errstate(all="ignore"):  # what is not finite is refused later
            found *= np.float32(scale)
            found += np.float32(least)
    return found
