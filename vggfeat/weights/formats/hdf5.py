"""HDF5 files of strangers: Keras weights and MATLAB v7.3. Only `sandbox`'s process imports this.

libhdf5 follows links to other files, reads storage from anywhere on the disk, loads filters as
plugins and runs through cycles, if a file says so. So every link and every data set is looked at
before it is followed or read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import h5py

from vggfeat.weights.formats.matlab import check_mean
from vggfeat.weights.formats.plain import MOST_VALUES, FloatArray, Plain, Refused, as_float32

_MOST_OBJECTS = 20_000  # MatConvNet keeps 2,000 names of classes as objects of their own
_MOST_LAYERS = 1000
_DEEPEST = 12
_FILTERS = {1, 2, 3}  # deflate, shuffle, fletcher32: those that Keras and MATLAB write


@contextmanager
def keras(path: Path) -> Iterator[list[Plain]]:
    """Open a Keras file and give its weights, by their path in it.

    Args:
        path: Of `save_weights`, of any version, or a whole model of Keras 1 or 2, whose weights are
            in "model_weights".

    Raises:
        Refused: If it holds anything but plain arrays.
    """
    with opened(path) as file:
        yield weights(file)


def weights(file: Any) -> list[Plain]:  # noqa: ANN401  (h5py has no annotations)
    """Return the weights of an open Keras file, by their path in it; an optimiser's are left out.

    Raises:
        Refused: If it holds anything but plain arrays.
    """
    found = dict(_walk(file))
    top = "model_weights/" if any(n.startswith("model_weights/") for n in found) else ""
    return [
        Plain(name=name.removeprefix(top), shape=dataset.shape, load=partial(_values, dataset))
        for name, dataset in found.items()
        if name.startswith(top) and not name.startswith("optimizer/")
        if dataset.dtype.kind == "f" and dataset.shape is not None
    ]


@contextmanager
def matconvnet(path: Path) -> Iterator[list[Plain]]:
    """Open a MatConvNet net in MATLAB v7.3 and give its weights, axes as MATLAB shows them.

    Args:
        path: MATLAB writes the axes of every array in reverse, and the cells of a cell array as
            references to objects elsewhere in the file.

    Yields:
        "conv1_1.weight" (H, W, in, out), "conv1_1.bias" (out,), ...

    Raises:
        Refused: If it holds another kind of net, or another mean than the authors'.
    """
    with opened(path) as file:
        for _ in _walk(file):
            pass
        cells = _references(file, _member(file, "layers"), _MOST_LAYERS)
        if cells is None:
            raise Refused("it has no cell array 'layers', as MatConvNet's simple nets do")
        meta = _member(file, "meta")
        normalization = _member(file if meta is None else meta, "normalization")
        image = _member(normalization, "averageImage")
        check_mean(_values(image).T if _is_float(image) else None)
        yield [array for layer in cells for array in _layer(file, layer)]


@contextmanager
def opened(path: Path | BinaryIO) -> Iterator[Any]:
    """Open an HDF5 file, of which no plugin is loaded.

    Args:
        path: Of the file, or its bytes.
    """
    while h5py.h5pl.size():  # no plugin is ever loaded
        h5py.h5pl.remove(0)
    with h5py.File(path, "r") as file:
        yield file


def _walk(file: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401  (h5py has no annotations)
    """Yield (path, data set) of everything in a file, each looked at first."""
    groups = [("", file)]
    seen = 0
    while groups:
        prefix, group = groups.pop()
        if prefix.count("/") > _DEEPEST:
            raise Refused(f"its groups are more than {_DEEPEST} deep")
        for name in group:
            seen += 1
            if seen > _MOST_OBJECTS:
                raise Refused(f"it holds more than {_MOST_OBJECTS:,} objects")
            item = _member(group, name)
            if isinstance(item, h5py.Group):
                groups.append((f"{prefix}{name}/", item))
            elif isinstance(item, h5py.Dataset):
                yield f"{prefix}{name}", item
            else:
                raise Refused(f"{prefix + name!r} is neither a group nor an array")


def _member(group: Any, name: str) -> Any:  # noqa: ANN401
    """Return a member of a group, or None if there is none, and only if it is harmless."""
    link = group.get(name, getlink=True) if isinstance(group, h5py.Group) else None
    if link is None:
        return None
    if type(link) is not h5py.HardLink:
        raise Refused(f"{name!r} is a link that may lead out of the file")
    item = group[name]
    if isinstance(item, h5py.Dataset):
        _look_at(item)
    return item


def _look_at(dataset: Any) -> None:  # noqa: ANN401
    """Refuse an array whose bytes, type or size are not those of a plain array.

    Raises:
        Refused: With the reason.
    """
    name = repr(dataset.name)
    if dataset.external:
        raise Refused(f"{name} has its numbers in another file")
    if dataset.is_virtual:
        raise Refused(f"{name} is put together from other files")
    properties = dataset.id.get_create_plist()
    filters = {properties.get_filter(i)[0] for i in range(properties.get_nfilters())}
    if filters - _FILTERS:
        raise Refused(f"{name} needs the filter {min(filters - _FILTERS)}")
    kind = dataset.dtype
    if kind.kind not in "fiub" and h5py.check_ref_dtype(kind) is not h5py.Reference:
        raise Refused(f"{name} is of the type {kind}, not of plain numbers")
    if dataset.shape is not None and math.prod(dataset.shape) > MOST_VALUES:
        raise Refused(f"{name} has {math.prod(dataset.shape):,} values, more than any VGG net")


def _values(dataset: Any) -> FloatArray:  # noqa: ANN401
    return as_float32(dataset[...])


def _is_float(item: Any) -> bool:  # noqa: ANN401
    """Tell an array of numbers from an empty one, which MATLAB writes as integers: its size."""
    return isinstance(item, h5py.Dataset) and item.dtype.kind == "f" and item.shape is not None


def _references(file: Any, item: Any, most: int) -> list[Any] | None:  # noqa: ANN401
    """Return what the cells of a cell array refer to, or None if `item` is none."""
    if not isinstance(item, h5py.Dataset) or item.shape is None:
        return None
    if h5py.check_ref_dtype(item.dtype) is not h5py.Reference:
        return None
    if item.size > most:
        raise Refused(f"a cell array has {item.size:,} cells")
    found = [file[reference] for reference in item[...].ravel()]
    for cell in found:
        if isinstance(cell, h5py.Dataset):
            _look_at(cell)
    return found


def _layer(file: Any, layer: Any) -> Iterator[Plain]:  # noqa: ANN401
    pair = _references(file, _member(layer, "weights"), 2)
    weight, bias = (
        pair if pair and len(pair) == 2 else (_member(layer, "filters"), _member(layer, "biases"))
    )
    if not _is_float(weight) or not _is_float(bias):
        return
    name = _member(layer, "name")
    if not isinstance(name, h5py.Dataset) or name.dtype.kind != "u" or name.size > 100:
        raise Refused("a layer has no name")
    text = "".join(map(chr, name[...].ravel()))
    yield Plain(
        name=f"{text}.weight", shape=weight.shape[::-1], load=lambda: _values(weight).transpose()
    )
    yield Plain(name=f"{text}.bias", shape=(bias.size,), load=lambda: _values(bias).ravel())
