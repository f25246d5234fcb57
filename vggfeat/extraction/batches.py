"""Which images share a batch: decided from their sizes alone, before any is decoded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vggfeat.extraction.images import cropped, rescaled_size


@dataclass(frozen=True, slots=True)
class Batch:
    """Images that go through the net together, at one scale.

    Attributes:
        scale: Index into the scales.
        height: Of the canvas, pixels; no image is higher.
        width: Of the canvas, pixels; no image is wider.
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
    canvas: int | None,
) -> list[Window]:
    """Group a shard's images into windows and batches.

    The result is a function of the arguments only, never of what happens to be pending: on a
    canvas the last bits of a descriptor may depend on the batch that it was computed in.

    Args:
        sizes: Row to (H, W) as decoded.
        wanted: Row to the indices of the scales to compute.
        scales: S shorter sides, pixels.
        window_pixels: Bound on the rescaled pixels of one window; one image may exceed it.
        batch_pixels: Bound on the pixels of one batch, padding counted; one image may exceed it.
        canvas: Images share a batch if their sides, rounded up to multiples of this, agree; 1
            is for equal sizes. None: any images do, and none is padded.
    """
    shapes = {
        row: [(i, *rescaled_size(*cropped(*sizes[row]), scales[i])) for i in wanted[row]]
        for row in sizes
    }
    # Near shapes become neighbours, so that a window holds few different canvases.
    order = sorted(shapes, key=lambda row: (_canvases(shapes[row], canvas), shapes[row], row))
    windows: list[Window] = []
    rows: list[int] = []
    pixels = 0
    for row in order:
        cost = sum(height * width for _, height, width in shapes[row])
        if rows and pixels + cost > window_pixels:
            windows.append(_window(rows, shapes, batch_pixels, canvas))
            rows, pixels = [], 0
        rows.append(row)
        pixels += cost
    return [*windows, _window(rows, shapes, batch_pixels, canvas)] if rows else windows


_Shape = tuple[int, int, int]  # index of the scale, height, width
_Shapes = Mapping[int, list[_Shape]]


def _canvases(shapes: Sequence[_Shape], step: int | None) -> list[_Shape]:
    """Return the canvas of each shape; any two have the same one if there is no step."""
    if step is None:
        return [(scale, 0, 0) for scale, _, _ in shapes]
    return [(s, -(-height // step) * step, -(-width // step) * step) for s, height, width in shapes]


def _window(rows: Sequence[int], shapes: _Shapes, batch_pixels: int, canvas: int | None) -> Window:
    groups: dict[_Shape, list[tuple[int, int, int]]] = {}
    for row in rows:
        for key, (_, height, width) in zip(
            _canvases(shapes[row], canvas), shapes[row], strict=True
        ):
            groups.setdefault(key, []).append((row, height, width))
    batches: list[Batch] = []
    for (scale, *common), members in sorted(groups.items()):
        some: list[tuple[int, int, int]] = []
        pixels = 0
        for member in members:
            area = max(common[0] * common[1], member[1] * member[2])
            if some and pixels + area > batch_pixels:
                batches.append(_batch(scale, common, some))
                some, pixels = [], 0
            some.append(member)
            pixels += area
        batches.append(_batch(scale, common, some))
    return Window(tuple(rows), tuple(batches))


def _batch(scale: int, common: Sequence[int], members: Sequence[tuple[int, int, int]]) -> Batch:
    rows, heights, widths = zip(*members, strict=True)
    return Batch(scale, max(common[0], *heights), max(common[1], *widths), rows)
