"""The dense net in float32 on the CPU, for images of any sizes at once."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
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
from vggfeat.nets.architectures import WINDOW, Layer, Pool, Tap
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
        name: Of the layer.
        filters: As `kernels.winograd` or `kernels.direct` wants them.
        bias: (K,).
        side: Of the filter; 0 stands for Winograd's form of side 3.
        channels: C.
        pool: Name of the pool that follows; "" for none.
    """

    name: str
    filters: Floats
    bias: Floats
    side: int
    channels: int
    pool: str


@dataclass(frozen=True)
class _Connected:
    """One fully connected layer.

    Attributes:
        name: Of the layer.
        weight: (K, L), in the order in which the values of a window of (h, w, C) lie.
        bias: (K,).
    """

    name: str
    weight: Floats
    bias: Floats

    def parts(self) -> list[slice]:
        """Return the columns of each of its products, as many for any number of threads."""
        size = -(-len(self.bias) // _FC_PARTS)
        return [slice(first, first + size) for first in range(0, len(self.bias), size)]


class RaggedVgg:
    """Describes images of any sizes together, as `DenseVgg` would each alone.

    No image is padded: the strips of all maps are the rows of common matrix products. Feature maps
    live in two arenas that are kept from call to call, so that memory stays where the largest
    batch has brought it.

    A descriptor is a function of its image, the net and the tap, to the last bit: neither other
    taps nor the images beside it nor their order, neither `threads` nor `pixels` change it.

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
            if part.connected:
                self._connected.append(_connected(net, part))
            else:
                pool = following.name if isinstance(following, Pool) else ""
                self._layers.append(_prepared(net, part, pool))
        if not kernels.compiled():
            _log.info("the net's inner loops are compiled, once after installation: some 15 s")
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="convolve")
        self._blas = ThreadpoolController()
        self._counts: dict[tuple[int, ...], RowCounts] = {}  # by the shape of the other factor
        self._arenas = [_Arena(), _Arena()]
        self._spare = self._arenas[0]  # that which holds no maps when layers are connected
        self._scratch = [_Scratch() for _ in range(threads)]

    @torch.inference_mode()
    def __call__(
        self,
        images: Sequence[Tensor],
        canvas: tuple[int, int],
        *,
        mirror: bool,
        taps: Sequence[str] = (),
    ) -> tuple[Tensor, ...]:
        """Describe images by the global averages of taps' maps (App. B).

        Args:
            images: b of them, each (H, W, 3) uint8, RGB.
            canvas: As in `CanvasVgg`; not needed here.
            mirror: Average with the descriptor of the horizontal flip.
            taps: As in `CanvasVgg`.

        Returns:
            (b, D) float64 for each tap, averaged in that type, not normalised.

        Raises:
            MapTooSmallError: If an image is too small.
        """
        del canvas
        wanted = [self._net.taps[name] for name in taps or self._net.taps]
        sides = [*images, *(image.flip(1) for image in images)] if mirror else images
        parts = [self._describe(some, wanted) for some in self._affordable(sides)]
        described = map(torch.cat, zip(*parts, strict=True))
        count = len(images)
        if not mirror:
            return tuple(described)
        return tuple((both[:count] + both[count:]) / 2 for both in described)

    def _affordable(self, sides: Sequence[Tensor]) -> Iterator[list[Tensor]]:
        some: list[Tensor] = []
        for side in sides:
            if some and sum(s.shape[0] * s.shape[1] for s in (*some, side)) > self._pixels:
                yield some
                some = []
            some.append(side)
        yield some

    def _describe(self, images: Sequence[Tensor], taps: Sequence[Tap]) -> list[Tensor]:
        sizes = np.array([image.shape[:2] for image in images], dtype=np.int64)
        last = self._net.architecture.deepest(tap.name for tap in taps)
        for height, width in sizes.tolist():
            last.check(height, width, self._net.profile.ceil_mode)
        begins = _begins(sizes, 3)
        values = self._arenas[0].room(int(begins[-1]))
        for image, begin in zip(images, begins, strict=False):
            pixels = self._net.normalised(image[None]).permute(0, 2, 3, 1)
            values[begin : begin + image.numel()] = pixels.flatten().numpy()
        found: dict[str, Tensor] = {}
        # each thread multiplies by itself: BLAS with threads of its own would fight for the cores
        with self._blas.limit(limits=1, user_api="blas"):
            for layer, rectified, maps in self._maps(sizes, taps, last):
                for tap in taps:
                    if (tap.layer, tap.rectified) == (layer, rectified):
                        found[tap.name] = _averaged(maps)
            if last.window > 1:
                found |= self._fully_connected(maps, taps, last)
        return [found[tap.name] for tap in taps]

    def _maps(
        self, sizes: Ints, taps: Sequence[Tap], last: Tap
    ) -> Iterator[tuple[str, bool, list[Floats]]]:
        """Yield layer, whether behind its ReLU, and maps, (h, w, C) each; of every tap at least.

        The pixels are in the first arena; maps are there until the next ones are asked for.
        """
        tapped = {(tap.layer, tap.rectified) for tap in taps}
        names = [part.name for part in self._net.architecture.parts(last.layer)]
        ceil, source, target = self._net.profile.ceil_mode, *self._arenas
        for layer in self._layers:
            if layer.name not in names:
                return
            linear, own = (layer.name, False) in tapped, (layer.name, True) in tapped
            # the kernel's own pool leaves no map of the layer itself
            pooled = layer.pool in names and not (linear or own)
            sizes = self._convolve(
                layer, (source, target), sizes, pool=pooled, floor=-np.inf if linear else 0
            )
            source, target = target, source
            maps = _views(source, sizes, len(layer.bias))
            if linear:
                yield layer.name, False, maps
                for m in maps:
                    np.maximum(m, 0, out=m)
            if not pooled:
                yield layer.name, True, maps
            if layer.pool in names:
                if not pooled:
                    sizes = _pooled(maps, target, ceil)
                    source, target = target, source
                yield layer.pool, True, _views(source, sizes, len(layer.bias))

    def _convolve(
        self,
        layer: _Layer,
        arenas: tuple[_Arena, _Arena],
        sizes: Ints,
        *,
        pool: bool,
        floor: float,
    ) -> Ints:
        """Convolve all maps from one arena into the other; return their new sizes."""
        source, target = arenas
        outputs, ceil = len(layer.bias), self._net.profile.ceil_mode
        after = (sizes + ceil) // 2 if pool else sizes
        begins = _begins(sizes, layer.channels), _begins(after, outputs)
        maps = source.flat, target.room(int(begins[1][-1]))
        values = kernels.PRODUCTS * (layer.channels + outputs)
        most = max(_JOB_TILES, _JOB_VALUES // values)
        jobs = _jobs(sizes, most, self._threads)
        waiting = iter([(strips, *self._places(layer, sizes, strips)) for strips in jobs])
        pooling = pool, ceil
        weights = layer.filters, layer.bias, np.float32(floor)

        def work(scratch: _Scratch) -> None:
            for strips, places, rows in waiting:  # whoever is free takes the next
                if layer.side:
                    each = _DIRECT_WINDOWS[layer.side]
                    room = scratch.direct(rows, len(layer.filters), outputs)
                    kernels.direct(
                        maps, begins, sizes, strips, weights, layer.side, pooling, each, room
                    )
                else:
                    products = rows, _MOST_TILES
                    planes = scratch.winograd(rows, layer.channels, outputs)
                    kernels.winograd(
                        maps, begins, sizes, (strips, places), weights, pooling, products, planes
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

    def _table(self, size: int) -> Floats:
        """Return where the windows of connected layers are laid out, (`_FC_WINDOWS`, size)."""
        return self._spare.room(_FC_WINDOWS * size)[: _FC_WINDOWS * size].reshape(-1, size)

    def _rows_of_layer(self, layer: _Connected, size: int) -> RowCounts:
        part, shape = layer.parts()[0], layer.weight.shape

        def multiply(rows: Floats) -> Floats:
            product: Floats = np.matmul(rows, layer.weight[part].T)
            return product

        if shape not in self._counts:
            self._counts[shape] = RowCounts(
                multiply, _FC_WINDOWS, shape[1], lambda: self._table(size).reshape(-1)
            )
        return self._counts[shape]

    def _fully_connected(
        self, maps: Sequence[Floats], taps: Sequence[Tap], last: Tap
    ) -> dict[str, Tensor]:
        """Return (b, D) averages, by tap, over all 7×7 windows of (h, w, C) maps."""
        size = maps[0].shape[2] * WINDOW**2
        self._spare = next(a for a in self._arenas if not np.may_share_memory(a.flat, maps[0]))
        names = [layer.name for layer in self._connected]
        layers = self._connected[: names.index(last.layer) + 1]
        counts = [self._rows_of_layer(layer, size) for layer in layers]
        period = math.lcm(*(c.period for c in counts))
        sums = {tap.name: np.zeros((len(maps), tap.channels)) for tap in taps if tap.layer in names}
        for parts in _together(maps, _FC_WINDOWS, period):
            end = parts[-1].place + len(parts[-1].columns)
            rows = [c.holding(end) for c in counts]  # overwrites the table
            x = self._table(size)
            filled = 0
            for part in parts:
                x[filled : part.place] = 0
                filled = part.place + len(part.columns)
                _copy_windows(maps[part.map], part, x[part.place : filled])
            x[filled : rows[0]] = 0
            for layer, count in zip(layers, rows, strict=True):
                x = self._product(x[:count], layer)
                for rectified in (False, True):
                    if rectified:
                        np.maximum(x[:count], 0, out=x[:count])
                    for tap in taps:
                        if (tap.layer, tap.rectified) == (layer.name, rectified):
                            _add_windows(x, parts, sums[tap.name])
        windows = [(len(m) - WINDOW + 1) * (m.shape[1] - WINDOW + 1) for m in maps]
        return {
            name: torch.from_numpy(total / np.array(windows)[:, None])
            for name, total in sums.items()
        }

    def _product(self, x: Floats, layer: _Connected) -> Floats:
        """Return (`_FC_WINDOWS`, K) of (r, L): zeros behind the first r rows."""
        result = np.zeros((_FC_WINDOWS, len(layer.bias)), dtype=np.float32)
        own = result[: len(x)]

        def work(columns: slice) -> None:
            np.matmul(x, layer.weight[columns].T, out=own[:, columns])

        for future in [self._pool.submit(work, columns) for columns in layer.parts()]:
            future.result()
        own += layer.bias
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


def _connected(net: DenseVgg, layer: Layer) -> _Connected:
    values = dict(net.convolutions[layer.name].named_parameters())
    weight = values["weight"].permute(0, 2, 3, 1).flatten(1).numpy()
    return _Connected(name=layer.name, weight=weight, bias=values["bias"].numpy())


def _prepared(net: DenseVgg, layer: Layer, pool: str) -> _Layer:
    values = dict(net.convolutions[layer.name].named_parameters())
    weight = values["weight"].contiguous().numpy()
    _, channels, side, _ = weight.shape
    tiled = side == 3 and channels >= _FEWEST_CHANNELS
    return _Layer(
        name=layer.name,
        filters=kernels.transformed_filter(weight) if tiled else kernels.unrolled_filter(weight),
        bias=values["bias"].numpy(),
        side=0 if tiled else side,
        channels=channels,
        pool=pool,
    )


def _views(arena: _Arena, sizes: Ints, channels: int) -> list[Floats]:
    """Return the (h, w, C) maps in an arena."""
    return [
        arena.flat[begin : begin + h * w * channels].reshape(h, w, channels)
        for begin, (h, w) in zip(_begins(sizes, channels), sizes, strict=False)
    ]


def _averaged(maps: Sequence[Floats]) -> Tensor:
    """Return (n, C) float64, the mean over the cells of each (h, w, C) map."""
    return torch.from_numpy(np.stack([m.mean(axis=(0, 1), dtype=np.float64) for m in maps]))


def _pooled(maps: Sequence[Floats], target: _Arena, ceil: bool) -> Ints:
    """Take the 2×2 maxima of (h, w, C) maps into an arena; return their sizes."""
    channels = maps[0].shape[2]
    sizes = (np.array([m.shape[:2] for m in maps], dtype=np.int64) + ceil) // 2
    target.room(int(_begins(sizes, channels)[-1]))
    for m, own in zip(maps, _views(target, sizes, channels), strict=True):
        ends = 2 * own.shape[0], 2 * own.shape[1]
        rows = np.maximum.reduceat(m[: ends[0], : ends[1]], range(0, ends[0], 2), axis=0)
        np.maximum.reduceat(rows, range(0, ends[1], 2), axis=1, out=own)
    return sizes


def _add_windows(rows: Floats, parts: Sequence[_Part], total: npt.NDArray[np.float64]) -> None:
    """Add the rows of each map's windows to its sum, (n, K)."""
    for part in parts:
        kernels.add_rows(rows[part.place : part.place + len(part.columns)], total[part.map])


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
