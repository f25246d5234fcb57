"""The dense net in float32 on the CPU, for images of any sizes at once."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import scipy.linalg.cython_blas  # noqa: F401  # numba loads it late, and its threads are limited here
import torch
from threadpoolctl import ThreadpoolController
from torch import Tensor

from vggfeat.nets import winograd_kernels as kernels
from vggfeat.nets.architectures import WINDOW, Layer, Pool
from vggfeat.nets.products import RowCounts
from vggfeat.nets.vgg import DenseVgg

_log = logging.getLogger(__name__)

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

# A job has so many tiles at least, since a product of fewer rows mostly copies its other factor; of
# few channels so many more that the transformed values are 8 MB.
_JOB_TILES, _JOB_VALUES = 512, 2_000_000
_MOST_TILES = 1024  # rows of one product; a job with a wide strip may have more
_DIRECT_WINDOWS = {1: 64, 3: 128}  # rows of each product without Winograd, by the filter's side
_FC_WINDOWS = 512  # rows of one product with fc6: 51 MB
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
        pool = layer.pool, ceil
        waiting = iter([(strips, self._rows(layer, sizes[strips[:, 0], 1])) for strips in jobs])

        def work(scratch: _Scratch) -> None:
            for strips, rows in waiting:  # whoever is free takes the next
                weights = layer.filters, layer.bias
                if layer.side:
                    each = _DIRECT_WINDOWS[layer.side]
                    room = scratch.direct(rows, len(layer.filters), outputs)
                    kernels.direct(
                        maps, begins, sizes, strips, weights, layer.side, pool, each, room
                    )
                else:
                    planes = scratch.winograd(rows, layer.channels, outputs)
                    products = rows, _MOST_TILES
                    kernels.winograd(maps, begins, sizes, strips, weights, pool, products, planes)

        for future in [self._pool.submit(work, scratch) for scratch in self._scratch]:
            future.result()
        return after

    def _rows(self, layer: _Layer, widths: Ints) -> int:
        """Return how many rows the products of a job have, given the width of each strip."""
        if layer.side:
            most, each = kernels.ROWS * int(widths.max()), _DIRECT_WINDOWS[layer.side]
            return -(-most // each) * each
        filters = layer.filters[0]

        def multiply(rows: Floats) -> Floats:
            out = np.empty((len(rows), filters.shape[1]), dtype=np.float32)
            kernels.multiply(rows, filters, out, len(rows))
            return out

        counts = self._counts.setdefault(filters.shape, RowCounts(multiply, _MOST_TILES))
        room = np.empty((_MOST_TILES, layer.channels), dtype=np.float32)
        return counts.holding(int(_tiles_across(widths).sum()), room)

    def _fully_connected(self, maps: Sequence[Floats], spare: _Arena) -> Tensor:
        """Return (b, D) averages of the last layer over all 7×7 windows of (h, w, C) maps."""
        size = maps[0].shape[2] * WINDOW**2
        table = spare.room(_FC_WINDOWS * size)[: _FC_WINDOWS * size].reshape(_FC_WINDOWS, size)
        sums = np.zeros((len(maps), len(self._connected[-1].bias)))
        for some in _together(maps, _FC_WINDOWS):
            owners = np.repeat([n for n, *_ in some], [len(columns) for *_, columns in some])
            rows = [self._windows(layer, len(owners), table) for layer in self._connected]
            filled = 0
            for number, top, columns in some:
                own = maps[number][top : top + WINDOW, columns.start : columns.stop + WINDOW - 1]
                windows = np.lib.stride_tricks.sliding_window_view(own, WINDOW, axis=1)
                part = table[filled : filled + len(columns)]
                part.reshape(len(columns), WINDOW, WINDOW, -1)[:] = windows.transpose(1, 0, 3, 2)
                filled += len(columns)
            table[filled : rows[0]] = 0
            x = table
            for layer, count in zip(self._connected, rows, strict=True):
                x = self._product(x[:count], layer)
            kernels.add_rows(x, owners, sums)
        counts = [(len(m) - WINDOW + 1) * (m.shape[1] - WINDOW + 1) for m in maps]
        return torch.from_numpy(sums / np.array(counts)[:, None])

    def _windows(self, layer: _Connected, count: int, table: Floats) -> int:
        """Return how many rows the products of a layer have; what is in the table may be lost."""
        first, length = layer.parts()[0], layer.weight.shape[1]

        def multiply(rows: Floats) -> Floats:
            product: Floats = np.matmul(rows, layer.weight[first].T)
            return product

        counts = self._counts.setdefault(layer.weight.shape, RowCounts(multiply, _FC_WINDOWS))
        room = table.reshape(-1)[: _FC_WINDOWS * length].reshape(_FC_WINDOWS, length)
        return counts.holding(count, room)

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


def _together(maps: Sequence[Floats], most: int) -> Iterator[list[tuple[int, int, range]]]:
    """Group the windows of all maps, `most` at a time: map, row, columns."""
    some: list[tuple[int, int, range]] = []
    left = most
    for number, m in enumerate(maps):
        columns = m.shape[1] - WINDOW + 1
        for top in range(len(m) - WINDOW + 1):
            first = 0
            while first < columns:
                part = range(first, min(columns, first + left))
                some.append((number, top, part))
                first, left = part.stop, left - len(part)
                if not left:
                    yield some
                    some, left = [], most
    if some:
        yield some
