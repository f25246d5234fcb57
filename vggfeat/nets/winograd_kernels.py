"""Convolutions over feature maps of any sizes at once: float32, on the CPU, compiled by numba.

A batch of maps lies in one flat array, map after map, each (h, w, C) with the channels last. Work
is cut into strips, four rows of one map; a job is a run of strips, which may belong to several
maps, so that small maps share one matrix product. Nothing is padded: a strip knows its map's size.

3×3 convolutions between many channels use Winograd's minimal filtering F(4×4, 3×3) (Lavin & Gray
2016, "Fast Algorithms for Convolutional Neural Networks", Sect. 4.3): 36 products of matrices in
place of 144. All others copy their windows (im2col) into products. Bias, ReLU and the block's
pool are applied while a strip is still in the cache.

No value depends, to the last bit, on what else is in a job: the numbers of rows of all products are
given, and where in them the tiles of a map lie; rows that nobody needs are zeros; and everything
else is done value by value.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from numba import njit

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

ROWS = 4  # of a strip, and the side of a Winograd tile's output
TILE = 6  # side of its input
PRODUCTS = TILE * TILE
BLOCK_VALUES = 4096  # tiles × channels that are transformed together: 16 kB, of which six fit in L1
# Planes of the transformed values lie this much more than a power of two apart: at such a distance
# all 36 would fall on the same few lines of the cache.
STAGGER = 16

# The filter's transform, Lavin & Gray 2016, Eq. 15.
_FILTER = np.array(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ]
)


def compiled() -> bool:
    """Tell whether an earlier process has left compiled code; else the first call takes 15 s."""
    return any(Path(str(winograd.stats.cache_path)).glob("kernels.*.nbi"))


def transformed_filter(weight: Floats) -> Floats:
    """Return (36, C, K) of a 3×3 filter (K, C, 3, 3); computed in float64."""
    wide = weight.astype(np.float64)
    both = np.einsum("ia,kcab,jb->ijck", _FILTER, wide, _FILTER, optimize=True)
    return np.ascontiguousarray(both.reshape(PRODUCTS, *both.shape[2:]), dtype=np.float32)


def unrolled_filter(weight: Floats) -> Floats:
    """Return (a·a·C, K) of a filter (K, C, a, a), in the order of `direct`'s windows."""
    return np.ascontiguousarray(weight.transpose(2, 3, 1, 0).reshape(-1, len(weight)))


@njit(cache=True, nogil=True, error_model="numpy")
def multiply(
    rows: Floats, other: Floats, out: Floats, each: int
) -> None:  # pragma: no cover  (compiled)
    """Write the product of (n, C) and (C, K) to `out`, `each` rows at a time."""
    for first in range(0, len(rows), each):
        np.dot(rows[first : first + each], other, out[first : first + each])


@njit(cache=True, nogil=True, error_model="numpy")
def add_rows(rows: Floats, total: npt.NDArray[np.float64]) -> None:  # pragma: no cover  (compiled)
    """Add (n, K) rows to a sum (K,), one after the other."""
    for n in range(len(rows)):
        for p in range(len(total)):
            total[p] += rows[n, p]


@njit(cache=True, nogil=True, error_model="numpy")
def winograd(
    maps: tuple[Floats, Floats],
    starts: tuple[Ints, Ints],
    sizes: Ints,
    strips: tuple[Ints, Ints],
    layer: tuple[Floats, Floats, np.float32],
    pool: tuple[bool, bool],
    rows_of_products: tuple[int, int],
    scratch: tuple[Floats, Floats, Floats, Floats],
) -> None:  # pragma: no cover  (compiled)
    """Convolve the strips of one job, 3×3 with a border of zeros, then bias, ReLU and pool.

    Args:
        maps: Flat input and output.
        starts: (n,) where each map begins, in both.
        sizes: (n, 2) height and width of the input maps.
        strips: (s, 2) map and number of each strip, and (s,) the row of the products that its first
            tile has.
        layer: Transformed filter (36, C, K), bias (K,), and the floor of what is written.
        pool: Whether 2×2 maxima are taken, and whether their number is rounded up.
        rows_of_products: Of all together, what no strip takes included, and of each but the last.
        scratch: Two times 36 planes for the tiles' values before and after the products, and two
            small ones.
    """
    source, target = maps
    filters, bias, floor = layer
    before, after, small, rows = scratch
    channels, outputs = filters.shape[1], filters.shape[2]
    runs, places = strips
    tiles = 0
    for s in range(len(runs)):
        height, width = sizes[runs[s, 0], 0], sizes[runs[s, 0], 1]
        start = starts[0][runs[s, 0]]
        x = source[start : start + height * width * channels].reshape(height, width * channels)
        across = (width + ROWS - 1) // ROWS
        step = max(1, BLOCK_VALUES // channels)
        for i in range(PRODUCTS):
            before[i, tiles * channels : places[s] * channels] = 0
        for first in range(0, across, step):
            count = min(step, across - first)
            _tiles_in(x, runs[s, 1], first, count, channels, before, places[s] + first, small)
        tiles = places[s] + across
    whole, each = rows_of_products
    for i in range(PRODUCTS):
        before[i, tiles * channels : whole * channels] = 0
        multiply(
            before[i, : whole * channels].reshape(whole, channels),
            filters[i],
            after[i, : whole * outputs].reshape(whole, outputs),
            each,
        )
    for s in range(len(runs)):
        height, width = sizes[runs[s, 0], 0], sizes[runs[s, 0], 1]
        across = (width + ROWS - 1) // ROWS
        step = max(1, BLOCK_VALUES // outputs)
        for first in range(0, across, step):
            count = min(step, across - first)
            part = rows[: ROWS * ROWS * count * outputs].reshape(ROWS, ROWS * count, outputs)
            _tiles_out(after, places[s] + first, count, outputs, small, part)
            _finish(
                part,
                bias,
                floor,
                target,
                starts[1][runs[s, 0]],
                (height, width),
                (ROWS * runs[s, 1], ROWS * first),
                pool,
            )


@njit(cache=True, nogil=True, error_model="numpy")
def direct(
    maps: tuple[Floats, Floats],
    starts: tuple[Ints, Ints],
    sizes: Ints,
    strips: Ints,
    layer: tuple[Floats, Floats, np.float32],
    side: int,
    pool: tuple[bool, bool],
    each: int,
    scratch: tuple[Floats, Floats],
) -> None:  # pragma: no cover  (compiled)
    """Convolve the strips of one job, each by products of its windows.

    Args:
        maps: As in `winograd`.
        starts: As in `winograd`.
        sizes: As in `winograd`.
        strips: (s, 2) map and number of each strip.
        layer: Unrolled filter (side·side·C, K), bias (K,), and the floor of what is written.
        side: Of the filter, 1 or 3.
        pool: As in `winograd`.
        each: Rows of every product.
        scratch: For the windows, and for their products with the filter.
    """
    source, target = maps
    filters, bias, floor = layer
    windows, rows = scratch
    seen, outputs = filters.shape
    channels = seen // (side * side)
    for s in range(len(strips)):
        height, width = sizes[strips[s, 0], 0], sizes[strips[s, 0], 1]
        start = starts[0][strips[s, 0]]
        x = source[start : start + height * width * channels].reshape(height, width * channels)
        top = ROWS * strips[s, 1]
        count = min(ROWS, height - top)
        whole = (count * width + each - 1) // each * each
        table = windows[: whole * seen].reshape(whole, seen)
        table[count * width :] = 0
        for row in range(count):
            for tap in range(side):
                y = top + row + tap - side // 2
                own = table[row * width : (row + 1) * width, tap * side * channels :]
                _windows(x[y] if 0 <= y < height else x[0], 0 <= y < height, side, channels, own)
        multiply(table, filters, rows[: whole * outputs].reshape(whole, outputs), each)
        part = rows[: count * width * outputs].reshape(count, width, outputs)
        _finish(part, bias, floor, target, starts[1][strips[s, 0]], (height, width), (top, 0), pool)


@njit(cache=True, nogil=True, error_model="numpy")
def _windows(
    row: Floats, there: bool, side: int, channels: int, table: Floats
) -> None:  # pragma: no cover  (compiled)
    """Copy one row's windows of one row of the filter; what lies outside is zero."""
    length, count = side * channels, len(table)
    if not there:
        table[:, :length] = 0
        return
    border = side // 2
    for w in range(border, count - border):
        for p in range(length):
            table[w, p] = row[(w - border) * channels + p]
    if border:
        inside = min(length - channels, len(row))  # a map one cell wide has both borders at once
        table[0, :length] = 0
        table[count - 1, :length] = 0
        table[0, channels : channels + inside] = row[:inside]
        if count > 1:
            table[count - 1, :inside] = row[len(row) - inside :]


@njit(cache=True, nogil=True, error_model="numpy")
def _tiles_in(
    x: Floats,
    strip: int,
    first: int,
    count: int,
    channels: int,
    before: Floats,
    tile: int,
    small: Floats,
) -> None:  # pragma: no cover  (compiled)
    """Transform `count` neighbouring tiles of a strip: Bᵀ d B, first down, then across."""
    height, width = x.shape[0], x.shape[1] // channels
    columns = ROWS * count + 2
    left = ROWS * first - 1
    low, high = max(0, left), min(width, left + columns)
    length = (high - low) * channels
    down = small[: TILE * columns * channels].reshape(TILE, columns, channels)
    zeros = small[TILE * columns * channels :][:length]
    zeros[:] = 0
    top = ROWS * strip - 1
    begin, end = low * channels, high * channels
    a = x[top, begin:end] if top >= 0 else zeros
    b = x[top + 1, begin:end]
    c = x[top + 2, begin:end] if top + 2 < height else zeros
    d = x[top + 3, begin:end] if top + 3 < height else zeros
    e = x[top + 4, begin:end] if top + 4 < height else zeros
    f = x[top + 5, begin:end] if top + 5 < height else zeros
    for i in range(TILE):
        row = down[i].reshape(-1)
        row[: (low - left) * channels] = 0
        row[(high - left) * channels :] = 0
        _combine_in(i, a, b, c, d, e, f, row[(low - left) * channels : (high - left) * channels])
    length = count * channels
    for i in range(TILE):
        row = down[i]
        for j in range(TILE):
            out = before[TILE * i + j, tile * channels : tile * channels + length]
            _combine_across(j, row, out.reshape(count, channels))


@njit(cache=True, nogil=True, error_model="numpy")
def _combine_across(j: int, row: Floats, plane: Floats) -> None:  # pragma: no cover  (compiled)
    """Compute column `j` of (Bᵀ d) B: (count, C) of (4·count + 2, C)."""
    # One loop for each: with a single result a loop needs so few checks for overlap that the
    # compiler makes vectors of it.
    if j == 0:
        for q in range(len(plane)):
            for p in range(plane.shape[1]):
                plane[q, p] = (
                    np.float32(4) * row[4 * q, p]
                    - np.float32(5) * row[4 * q + 2, p]
                    + row[4 * q + 4, p]
                )
    elif j == 1:
        for q in range(len(plane)):
            for p in range(plane.shape[1]):
                plane[q, p] = (row[4 * q + 3, p] + row[4 * q + 4, p]) - np.float32(4) * (
                    row[4 * q + 1, p] + row[4 * q + 2, p]
                )
    elif j == 2:
        for q in range(len(plane)):
            for p in range(plane.shape[1]):
                plane[q, p] = (row[4 * q + 4, p] - row[4 * q + 3, p]) + np.float32(4) * (
                    row[4 * q + 1, p] - row[4 * q + 2, p]
                )
    elif j == 3:
        for q in range(len(plane)):
            for p in range(plane.shape[1]):
                plane[q, p] = (row[4 * q + 4, p] - row[4 * q + 2, p]) + np.float32(2) * (
                    row[4 * q + 3, p] - row[4 * q + 1, p]
                )
    elif j == 4:
        for q in range(len(plane)):
            for p in range(plane.shape[1]):
                plane[q, p] = (row[4 * q + 4, p] - row[4 * q + 2, p]) - np.float32(2) * (
                    row[4 * q + 3, p] - row[4 * q + 1, p]
                )
    else:
        for q in range(len(plane)):
            for p in range(plane.shape[1]):
                plane[q, p] = (
                    np.float32(4) * row[4 * q + 1, p]
                    - np.float32(5) * row[4 * q + 3, p]
                    + row[4 * q + 5, p]
                )


@njit(cache=True, nogil=True, error_model="numpy")
def _combine_in(
    i: int, a: Floats, b: Floats, c: Floats, d: Floats, e: Floats, f: Floats, out: Floats
) -> None:  # pragma: no cover  (compiled)
    """Compute row `i` of Bᵀ d, Lavin & Gray 2016, Eq. 15."""
    if i == 0:
        for p in range(len(out)):
            out[p] = np.float32(4) * a[p] - np.float32(5) * c[p] + e[p]
    elif i == 1:
        for p in range(len(out)):
            out[p] = (d[p] + e[p]) - np.float32(4) * (b[p] + c[p])
    elif i == 2:
        for p in range(len(out)):
            out[p] = (e[p] - d[p]) + np.float32(4) * (b[p] - c[p])
    elif i == 3:
        for p in range(len(out)):
            out[p] = (e[p] - c[p]) + np.float32(2) * (d[p] - b[p])
    elif i == 4:
        for p in range(len(out)):
            out[p] = (e[p] - c[p]) - np.float32(2) * (d[p] - b[p])
    else:
        for p in range(len(out)):
            out[p] = np.float32(4) * b[p] - np.float32(5) * d[p] + f[p]


@njit(cache=True, nogil=True, error_model="numpy")
def _tiles_out(
    after: Floats, tile: int, count: int, outputs: int, small: Floats, part: Floats
) -> None:  # pragma: no cover  (compiled)
    """Transform `count` tiles back: Aᵀ m A, (4, 4·count, K)."""
    length = count * outputs
    begin, end = tile * outputs, (tile + count) * outputs
    half = small[: TILE * length].reshape(TILE, length)
    for i in range(ROWS):
        for b in range(TILE):
            _combine_out(
                i,
                after[b, begin:end],
                after[TILE + b, begin:end],
                after[2 * TILE + b, begin:end],
                after[3 * TILE + b, begin:end],
                after[4 * TILE + b, begin:end],
                after[5 * TILE + b, begin:end],
                half[b],
            )
        m = half.reshape(TILE, count, outputs)
        row = part[i]
        for q in range(count):
            for p in range(outputs):
                row[4 * q, p] = m[0, q, p] + m[1, q, p] + m[2, q, p] + m[3, q, p] + m[4, q, p]
            for p in range(outputs):
                row[4 * q + 1, p] = (m[1, q, p] - m[2, q, p]) + np.float32(2) * (
                    m[3, q, p] - m[4, q, p]
                )
            for p in range(outputs):
                row[4 * q + 2, p] = (m[1, q, p] + m[2, q, p]) + np.float32(4) * (
                    m[3, q, p] + m[4, q, p]
                )
            for p in range(outputs):
                row[4 * q + 3, p] = (
                    (m[1, q, p] - m[2, q, p])
                    + np.float32(8) * (m[3, q, p] - m[4, q, p])
                    + m[5, q, p]
                )


@njit(cache=True, nogil=True, error_model="numpy")
def _combine_out(
    i: int, a: Floats, b: Floats, c: Floats, d: Floats, e: Floats, f: Floats, out: Floats
) -> None:  # pragma: no cover  (compiled)
    """Compute row `i` of Aᵀ m, Lavin & Gray 2016, Eq. 15."""
    if i == 0:
        for p in range(len(out)):
            out[p] = a[p] + b[p] + c[p] + d[p] + e[p]
    elif i == 1:
        for p in range(len(out)):
            out[p] = (b[p] - c[p]) + np.float32(2) * (d[p] - e[p])
    elif i == 2:
        for p in range(len(out)):
            out[p] = (b[p] + c[p]) + np.float32(4) * (d[p] + e[p])
    else:
        for p in range(len(out)):
            out[p] = (b[p] - c[p]) + np.float32(8) * (d[p] - e[p]) + f[p]


@njit(cache=True, nogil=True, error_model="numpy")
def _finish(
    part: Floats,
    bias: Floats,
    floor: np.float32,
    target: Floats,
    start: int,
    size: tuple[int, int],
    corner: tuple[int, int],
    pool: tuple[bool, bool],
) -> None:  # pragma: no cover  (compiled)
    """Add the bias, rectify, pool, and write the part (4, w, K) of a map that begins at `corner`.

    The maximum comes first: it commutes with the other two, and leaves a quarter of their work.
    """
    outputs = len(bias)
    height, width = min(len(part), size[0] - corner[0]), min(part.shape[1], size[1] - corner[1])
    if not pool[0]:
        whole = size[1] * outputs
        y = target[start : start + size[0] * whole].reshape(size[0], size[1], outputs)
        for i in range(height):
            row, own = y[corner[0] + i, corner[1] : corner[1] + width], part[i]
            for w in range(width):
                for p in range(outputs):
                    row[w, p] = max(own[w, p] + bias[p], floor)
        return
    up = 1 if pool[1] else 0
    rows, columns = (size[0] + up) // 2, (size[1] + up) // 2
    y = target[start : start + rows * columns * outputs].reshape(rows, columns, outputs)
    top, left = corner[0] // 2, corner[1] // 2
    for i in range(min((height + 1) // 2, rows - top)):
        one, two = part[2 * i], part[min(2 * i + 1, height - 1)]
        row = y[top + i, left:]
        for w in range(min((width + 1) // 2, columns - left)):
            near, far = 2 * w, min(2 * w + 1, width - 1)
            for p in range(outputs):
                most = max(one[near, p], one[far, p], two[near, p], two[far, p])
                row[w, p] = max(most + bias[p], floor)
