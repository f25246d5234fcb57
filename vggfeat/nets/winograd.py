"""The dense net in float32 on the CPU, for images of any sizes at once."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import numpy as np
import numpy.typing as npt
import scipy.linalg.cython_blas  # noqa: F401  # numba loads it late, and its threads are limited here
import torch
from threadpoolctl import ThreadpoolController
from torch import Tensor

from vggfeat.nets import winograd_kernels as kernels
from vggfeat.nets.architectures import WINDOW, Layer, Pool
from vggfeat.nets.products import UNIT, RowCounts
from vggfeat.nets.vgg import DenseVgg

_log = logging.getLogger(__name__)

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

# A job has so many tiles at least, since a product of fewer rows mostly copies its other factor; of
# few channels so many more that the transformed values are 8 MB.
_JOB_TILES, _JOB_VALUES = 512, 2_000_000
_MOST_TILES = 21 * UNIT  # rows of one product; a job with a wide strip may have more
_DIRECT_WINDOWS = {1: 64, 3: 128}  # rows of each product without Winograd, by the filter's side
_FC_WINDOWS = 10 * UNIT  # rows of one product with fc6: 48 MB
_FC_PARTS = 8  # into which its columns are cut, for any number of threads
_FEWEST_CHANNELS = 8  # below, a tile's transform costs more than its products save


@dataclass(frozen=True)
class _Layer:
    """One convolution, prepared.

    Attributes:
        filters: As `kernels.winograd` or `kernels.direct` wants them.
        bias: (K,).
        side: Of the filter; 0 stands for Winograd's form of side 3.
        channels: C.
        pool: Whether a pool follows.
    """

    filters: Floats
    bias: Floats
    side: int
    channels: int
    pool: bool


@dataclass(frozen=True)
class _Connected:
    """One fully connected layer.

    Attributes:
        weight: (K, L), in the order in which the values of a window of (h, w, C) lie.
        bias: (K,).
        rectified: Whether a ReLU follows.
    """

    weight: Floats
    bias: Floats
    rectified: bool

    def parts(self) -> list[slice]:
        """Return the columns of each of its products, as many for any number of threads."""
        size = -(-len(self.bias) // _FC_PARTS)
        return [slice(first, first + size) for first in range(0, len(self.bias), size)]


class RaggedVgg:
    """Describes images of any sizes together, as `DenseVgg` would each alone.

    No image is padded: the strips of all maps are the rows of common matrix products. Feature maps
    live in two arenas that are kept from call to call, so that memory stays where the largest
    batch has brought it.

    A descriptor is a function of its image and the net, to the last bit: neither the images beside
    it nor their order, neither `threads` nor `pixels` change it.

    Args:
        net: In float32 on the CPU; it shares the weights of fc6 and fc7.
        threads: That share the work.
        pixels: Bound on what is computed together; one image may exceed it.
    """

    allocates: ClassVar = False

    def __init__(self, net: DenseVgg, *, threads: int, pixels: int) -> None:
        self._net = net
        self._threads = threads
        self._pixels = pixels
        assert not net.architecture.lrn, "its kernels know no LRN"
        self._layers: list[_Layer] = []
        self._connected: list[_Connected] = []
        parts = list(net.architecture.parts(net.tap.layer))
        for part, following in zip(parts, [*parts[1:], None], strict=True):
            if isinstance(part, Pool):
                continue
            rectified = part.name != net.tap.layer or net.tap.rectified
            if part.connected:
                self._connected.append(_connected(net, part, rectified=rectified))
            else:
                assert rectified, "a ReLU is part of these kernels"
                self._layers.append(_prepared(net, part, pool=isinstance(following, Pool)))
        if not kernels.compiled():
            _log.info("the net's inner loops are compiled, once after installation: some 15 s")
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="convolve")
        self._blas = ThreadpoolController()
        self._counts: dict[tuple[int, ...], RowCounts] = {}  # by the shape of the other factor
        self._arenas = [_Arena(), _Arena()]
        self._scratch = [_Scratch() for _ in range(threads)]

    @torch.inference_mode()
    def __call__(
        self, images: Sequence[Tensor], canvas: tuple[int, int], *, mirror: bool
    ) -> Tensor:
        """Describe images by the global average of the tap's map (App. B).

        Args:
            images: b of them, each (H, W, 3) uint8, RGB.
            canvas: As in `CanvasVgg`; not needed here.
            mirror: Average with the descriptor of the horizontal flip.

        Returns:
            (b, D) float64, averaged in that type, not normalised.

        Raises:
            MapTooSmallError: If an image is too small.
        """
        del canvas
        sides = [*images, *(image.flip(1) for image in images)] if mirror else images
        described = torch.cat([self._describe(some) for some in self._affordable(sides)])
        count = len(images)
        return (described[:count] + described[count:]) / 2 if mirror else described

    def _affordable(self, sides: Sequence[Tensor]) -> Iterator[list[Tensor]]:
        some: list[Tensor] = []
        for side in sides:
            if some and sum(s.shape[0] * s.shape[1] for s in (*some, side)) > self._pixels:
                yield some
                some = []
            some.append(side)
        yield some

    def _describe(self, images: Sequence[Tensor]) -> Tensor:
        sizes = np.array([image.shape[:2] for image in images], dtype=np.int64)
        for height, width in sizes.tolist():
            self._net.tap.check(height, width, self._net.profile.ceil_mode)
        begins = _begins(sizes, 3)
        values = self._arenas[0].room(int(begins[-1]))
        for image, begin in zip(images, begins, strict=False):
            pixels = self._net.normalised(image[None]).permute(0, 2, 3, 1)
            values[begin : begin + image.numel()] = pixels.flatten().numpy()
        # each thread multiplies by itself: BLAS with threads of its own would fight for the cores
        with self._blas.limit(limits=1, user_api="blas"):
            return self._convolved(sizes)

    def _convolved(self, sizes: Ints) -> Tensor:
        """Describe the pixels in the first arena."""
        source, target = self._arenas
        for layer in self._layers:
            sizes = self._convolve(layer, source, target, sizes)
            source, target = target, source
        channels = len(self._layers[-1].bias)
        maps = [
            source.flat[begin : begin + h * w * channels].reshape(h, w, channels)
            for begin, (h, w) in zip(_begins(sizes, channels), sizes, strict=False)
        ]
        if not self._connected:
            return torch.from_numpy(np.stack([m.mean(axis=(0, 1), dtype=np.float64) for m in maps]))
        return self._fully_connected(maps, target)

    def _convolve(self, layer: _Layer, source: _Arena, target: _Arena, sizes: Ints) -> Ints:
        """Convolve all maps from one arena into the other; return their new sizes."""
        outputs, ceil = len(layer.bias), self._net.profile.ceil_mode
        after = (sizes + ceil) // 2 if layer.pool else sizes
        begins = _begins(sizes, layer.channels), _begins(after, outputs)
        maps = source.flat, target.room(int(begins[1][-1]))
        values = kernels.PRODUCTS * (layer.channels + outputs)
        most = max(_JOB_TILES, _JOB_VALUES // values)
        jobs = _jobs(sizes, most, self._threads)
        waiting = iter([(strips, *self._places(layer, sizes, strips)) for strips in jobs])
        pool = layer.pool, ceil
        weights = layer.filters, layer.bias

        def work(scratch: _Scratch) -> None:
            for strips, places, rows in waiting:  # whoever is free takes the next
                if layer.side:
                    each = _DIRECT_WINDOWS[layer.side]
                    room = scratch.direct(rows, len(layer.filters), outputs)
                    kernels.direct(
                        maps, begins, sizes, strips, weights, layer.side, pool, each, room
                    )
                else:
                    products = rows, _MOST_TILES
                    planes = scratch.winograd(rows, layer.channels, outputs)
                    kernels.winograd(
                        maps, begins, sizes, (strips, places), weights, pool, products, planes
                    )

        for future in [self._pool.submit(work, scratch) for scratch in self._scratch]:
            future.result()
        return after

    def _places(self, layer: _Layer, sizes: Ints, strips: Ints) -> tuple[Ints, int]:
        """Return where each strip of a job begins in its products, and how many rows these have."""
        if layer.side:  # each strip has products of its own
            each = _DIRECT_WINDOWS[layer.side]
            widest = kernels.ROWS * int(sizes[strips[:, 0], 1].max())
            return np.zeros(len(strips), dtype=np.int64), _rounded(widest, each)
        counts = self._rows_of_filter(layer.filters[0])
        across = _tiles_across(sizes[:, 1])
        tiles = across * -(-sizes[:, 0] // kernels.ROWS)
        begins = np.cumsum(_rounded(tiles, counts.period)) - _rounded(tiles, counts.period)
        places = begins[strips[:, 0]] + strips[:, 1] * across[strips[:, 0]]
        places -= places[0] // counts.period * counts.period
        return places, counts.holding(int(places[-1] + across[strips[-1, 0]]))

    def _rows_of_filter(self, other: Floats) -> RowCounts:
        def multiply(rows: Floats) -> Floats:
            out = np.empty((len(rows), other.shape[1]), dtype=np.float32)
            kernels.multiply(rows, other, out, len(rows))
            return out

        size = len(other)
        if other.shape not in self._counts:  # layers of one shape have them in common
            self._counts[other.shape] = RowCounts(
                multiply, _MOST_TILES, size, lambda: np.empty(_MOST_TILES * size, dtype=np.float32)
            )
        return self._counts[other.shape]

    def _rows_of_layer(self, layer: _Connected, room: Callable[[], Floats]) -> RowCounts:
        part, shape = layer.parts()[0], layer.weight.shape

        def multiply(rows: Floats) -> Floats:
            product: Floats = np.matmul(rows, layer.weight[part].T)
            return product

        if shape not in self._counts:
            self._counts[shape] = RowCounts(multiply, _FC_WINDOWS, shape[1], room)
        return self._counts[shape]

    def _fully_connected(self, maps: Sequence[Floats], spare: _Arena) -> Tensor:
        """Return (b, D) averages of the last layer over all 7×7 windows of (h, w, C) maps."""
        size = maps[0].shape[2] * WINDOW**2

        def room() -> Floats:
            return spare.room(_FC_WINDOWS * size)

        counts = [self._rows_of_layer(layer, room) for layer in self._connected]
        period = math.lcm(*(c.period for c in counts))
        sums = np.zeros((len(maps), len(self._connected[-1].bias)))
        for parts in _together(maps, _FC_WINDOWS, period):
            last = parts[-1]
            rows = [
                c.holding(last.place + len(last.columns)) for c in counts
            ]  # overwrites the table
            x = room()[: _FC_WINDOWS * size].reshape(_FC_WINDOWS, size)
            filled = 0
            for part in parts:
                x[filled : part.place] = 0
                filled = part.place + len(part.columns)
                _copy_windows(maps[part.map], part, x[part.place : filled])
            x[filled : rows[0]] = 0
            for layer, count in zip(self._connected, rows, strict=True):
                x = self._product(x[:count], layer)
            for part in parts:
                own = x[part.place : part.place + len(part.columns)]
                kernels.add_rows(own, sums[part.map])
        windows = [(len(m) - WINDOW + 1) * (m.shape[1] - WINDOW + 1) for m in maps]
        return torch.from_numpy(sums / np.array(windows)[:, None])

    def _product(self, x: Floats, layer: _Connected) -> Floats:
        """Return (`_FC_WINDOWS`, K) of (r, L): zeros behind the first r rows."""
        result = np.zeros((_FC_WINDOWS, len(layer.bias)), dtype=np.float32)
        own = result[: len(x)]

        def work(columns: slice) -> None:
            np.matmul(x, layer.weight[columns].T, out=own[:, columns])

        for future in [self._pool.submit(work, columns) for columns in layer.parts()]:
            future.result()
        own += layer.bias
        if layer.rectified:
            np.maximum(own, 0, out=own)
        return result


class _Arena:
    """One flat array of float32 that grows and is never given back."""

    def __init__(self) -> None:
        self.flat = np.empty(0, dtype=np.float32)

    def room(self, count: int) -> Floats:
        """Return the array, of at least `count` values; what was in it may be lost."""
        if len(self.flat) < count:
            self.flat = np.empty(0, dtype=np.float32)  # frees the old one first
            self.flat = np.empty(count, dtype=np.float32)
        return self.flat


_Planes = tuple[Floats, Floats, Floats, Floats]


class _Scratch:
    """What one thread computes in."""

    def __init__(self) -> None:
        self._arenas = [_Arena() for _ in range(4)]

    def winograd(self, tiles: int, channels: int, outputs: int) -> _Planes:
        """Make room for `kernels.winograd`."""
        before, after, small, rows = self._arenas
        widest = max(kernels.BLOCK_VALUES, channels, outputs)
        return (
            _planes(before, tiles * channels),
            _planes(after, tiles * outputs),
            small.room((kernels.TILE + 1) * (kernels.ROWS * widest + 2 * channels)),
            rows.room(kernels.ROWS**2 * widest),
        )

    def direct(self, windows: int, length: int, outputs: int) -> tuple[Floats, Floats]:
        """Make room for `kernels.direct`."""
        return self._arenas[0].room(windows * length), self._arenas[1].room(windows * outputs)


def _planes(arena: _Arena, length: int) -> Floats:
    stride = -(-length // 1024) * 1024 + kernels.STAGGER
    return arena.room(kernels.PRODUCTS * stride)[: kernels.PRODUCTS * stride].reshape(-1, stride)


def _connected(net: DenseVgg, layer: Layer, *, rectified: bool) -> _Connected:
    values = dict(net.convolutions[layer.name].named_parameters())
    weight = values["weight"].permute(0, 2, 3, 1).flatten(1).numpy()
    return _Connected(weight=weight, bias=values["bias"].numpy(), rectified=rectified)


def _prepared(net: DenseVgg, layer: Layer, *, pool: bool) -> _Layer:
    values = dict(net.convolutions[layer.name].named_parameters())
    weight = values["weight"].contiguous().numpy()
    _, channels, side, _ = weight.shape
    tiled = side == 3 and channels >= _FEWEST_CHANNELS
    return _Layer(
        filters=kernels.transformed_filter(weight) if tiled else kernels.unrolled_filter(weight),
        bias=values["bias"].numpy(),
        side=0 if tiled else side,
        channels=channels,
        pool=pool,
    )


def _begins(sizes: Ints, channels: int) -> Ints:
    """Return (n + 1,) where each (n, 2) map begins in a flat array, and where the last ends."""
    return np.concatenate([[0], np.cumsum(sizes.prod(axis=1) * channels)])


_Number = TypeVar("_Number", int, Ints)


def _rounded(count: _Number, step: int) -> _Number:
    """Round up to a multiple of a step."""
    return -(-count // step) * step


def _tiles_across(widths: Ints) -> Ints:
    return -(-widths // kernels.ROWS)


def _jobs(sizes: Ints, most_tiles: int, threads: int) -> list[Ints]:
    """Cut the strips of all maps into runs, (s, 2) each, of about equal numbers of tiles."""
    strips = np.array(
        [(n, s) for n, (h, _) in enumerate(sizes) for s in range(-(-h // kernels.ROWS))]
    )
    tiles = np.cumsum(_tiles_across(sizes[strips[:, 0], 1]))
    count = threads * -(-int(tiles[-1]) // (threads * most_tiles))
    cuts = np.searchsorted(tiles, tiles[-1] * np.arange(1, count) / count)
    return [run for run in np.split(strips, np.unique(cuts)) if len(run)]


@dataclass(frozen=True, slots=True)
class _Part:
    """Windows that lie side by side in one map.

    Attributes:
        map: Number of the map.
        top: Their first row.
        columns: The first column of each.
        place: Row of the table where the first lies.
    """

    map: int
    top: int
    columns: range
    place: int


def _together(maps: Sequence[Floats], most: int, period: int) -> Iterator[list[_Part]]:
    """Group the windows of all maps, `most` rows at a time; each map begins at a period's begin."""
    some: list[_Part] = []
    place = 0
    for number, m in enumerate(maps):
        columns = m.shape[1] - WINDOW + 1
        place = _rounded(place, period)
        for top in range(len(m) - WINDOW + 1):
            first = 0
            while first < columns:
                if place == most:
                    yield some
                    some, place = [], 0
                part = range(first, min(columns, first + most - place))
                some.append(_Part(number, top, part, place))
                first, place = part.stop, place + len(part)
    yield some


def _copy_windows(m: Floats, part: _Part, table: Floats) -> None:
    """Write windows of a (h, w, C) map as rows, (r, 49·C)."""
    rows = m[part.top : part.top + WINDOW, part.columns.start : part.columns.stop + WINDOW - 1]
    windows = np.lib.stride_tricks.sliding_window_view(rows, WINDOW, axis=1)
    table.reshape(len(table), WINDOW, WINDOW, -1)[:] = windows.transpose(1, 0, 3, 2)
