"""Which images share a batch: decided from their sizes alone, before any is decoded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vggfeat.extract.images import cropped, rescaled_size


@dataclass(frozen=True, slots=True)
class Batch:
    """Images of one size at one scale.

    Attributes:
        scale: Index into the scales.
        height: Of every image, pixels.
        width: Of every image, pixels.
        rows: Indices into the shard.
    """

    scale: int
    height: int
    width: int
    rows: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Window:
    """Images that are decoded together, once, and described at all their scales.

    Attributes:
        rows: Indices into the shard.
        batches: Every (row, scale) that is wanted, exactly once.
    """

    rows: tuple[int, ...]
    batches: tuple[Batch, ...]


def plan_windows(
    sizes: Mapping[int, tuple[int, int]],
    wanted: Mapping[int, Sequence[int]],
    scales: Sequence[int],
    *,
    window_pixels: int,
    batch_pixels: int,
) -> list[Window]:
    """Group a shard's images into windows and batches.

    The result is a function of the arguments only, never of what happens to be pending: the bits
    of a descriptor may depend on the batch that it was computed in.

    Args:
        sizes: Row to (H, W) as decoded.
        wanted: Row to the indices of the scales to compute.
        scales: S shorter sides, pixels.
        window_pixels: Bound on the rescaled pixels of one window; one image may exceed it.
        batch_pixels: Bound on the pixels of one batch; one image may exceed it.
    """
    shapes = {
        row: [(i, *rescaled_size(*cropped(*sizes[row]), scales[i])) for i in wanted[row]]
        for row in sizes
    }
    # Equal shapes become neighbours, so that a window holds few different ones.
    order = sorted(shapes, key=lambda row: (shapes[row], row))
    windows: list[Window] = []
    rows: list[int] = []
    pixels = 0
    for row in order:
        cost = sum(height * width for _, height, width in shapes[row])
        if rows and pixels + cost > window_pixels:
            windows.append(_window(rows, shapes, batch_pixels))
            rows, pixels = [], 0
        rows.append(row)
        pixels += cost
    return [*windows, _window(rows, shapes, batch_pixels)] if rows else windows


_Shapes = Mapping[int, list[tuple[int, int, int]]]


def _window(rows: Sequence[int], shapes: _Shapes, batch_pixels: int) -> Window:
    groups: dict[tuple[int, int, int], list[int]] = {}
    for row in rows:
        for shape in shapes[row]:
            groups.setdefault(shape, []).append(row)
    batches = []
    for (scale, height, width), members in sorted(groups.items()):
        size = max(1, batch_pixels // (height * width))
        batches += [
            Batch(scale, height, width, tuple(members[start : start + size]))
            for start in range(0, len(members), size)
        ]
    return Window(tuple(rows), tuple(batches))
