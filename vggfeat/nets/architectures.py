"""The configurations of Table 1 as data, and what follows by arithmetic. No torch here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from vggfeat.errors import RecipeError, nearest

Tap = Literal["fc7", "fc7-linear", "fc6", "pool5"]

STRIDE = 32  # of pool5, in pixels of the image
WINDOW = 7  # side of fc6, in cells of pool5
SMALLEST_SIDE = STRIDE * WINDOW  # 224 pixels

_D = "64 64 M 128 128 M 256 256 256 M 512 512 512 M 512 512 512 M"
_E = "64 64 M 128 128 M 256 256 256 256 M 512 512 512 512 M 512 512 512 512 M"


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer with weights.

    Attributes:
        name: As in the authors' Caffe models: conv1_1 ... conv5_3, fc6, fc7, fc8.
        shape: (out, in, kernel, kernel) of its weight, fully connected layers as convolutions.
    """

    name: str
    shape: tuple[int, int, int, int]


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """One column of Table 1 (Simonyan & Zisserman 2015, Sect. 2.1).

    Attributes:
        name: As on the command line.
        column: The paper's letter.
        blocks: Output channels of the 3×3 convolutions, one tuple for each of the five blocks.
        fc: Channels of fc6 and fc7.
    """

    name: str
    column: str
    blocks: tuple[tuple[int, ...], ...]
    fc: int

    def layers(self) -> Iterator[Layer]:
        """Yield the layers with weights, from conv1_1 to fc8."""
        channels = 3
        for number, block in enumerate(self.blocks, 1):
            for index, width in enumerate(block, 1):
                yield Layer(name=f"conv{number}_{index}", shape=(width, channels, 3, 3))
                channels = width
        yield Layer(name="fc6", shape=(self.fc, channels, WINDOW, WINDOW))
        yield Layer(name="fc7", shape=(self.fc, self.fc, 1, 1))
        yield Layer(name="fc8", shape=(1000, self.fc, 1, 1))

    @property
    def parameters(self) -> int:
        """Number of weights and biases, fc8 included (spec: Table 2)."""
        return sum(o * i * k * j + o for o, i, k, j in (layer.shape for layer in self.layers()))

    def descriptor_size(self, tap: Tap) -> int:
        """Return D for a tap.

        >>> ARCHITECTURES["vgg16"].descriptor_size("fc7")
        4096
        """
        return self.blocks[-1][-1] if tap == "pool5" else self.fc

    def multiply_adds(self, height: int, width: int, *, ceil_mode: bool, tap: Tap = "fc7") -> int:
        """Count the multiply-adds of one dense pass up to `tap`, biases and pools left out.

        Args:
            height: Of the image, pixels.
            width: Of the image, pixels.
            ceil_mode: The pools' rounding.
            tap: Where the pass ends.
        """
        total, channels = 0, 3
        for block in self.blocks:
            for out in block:
                total += 9 * channels * out * height * width
                channels = out
            height, width = pooled(height, ceil_mode), pooled(width, ceil_mode)
        if tap == "pool5":
            return total
        cells = (height - WINDOW + 1) * (width - WINDOW + 1)
        total += WINDOW * WINDOW * channels * self.fc * cells
        return total if tap == "fc6" else total + self.fc * self.fc * cells

    def receptive_field(self, layer: Literal["pool5", "fc6"]) -> int:
        """Return the side of the image area that one cell of `layer` sees, pixels."""
        field, stride = 1, 1
        for block in self.blocks:
            field += 2 * stride * len(block) + stride  # each 3×3 adds 2 strides, the 2×2 pool one
            stride *= 2
        return field if layer == "pool5" else field + (WINDOW - 1) * stride


def pooled(size: int, ceil_mode: bool) -> int:
    """Return the size after one 2×2 pool of stride 2.

    >>> pooled(15, ceil_mode=False), pooled(15, ceil_mode=True)
    (7, 8)
    """
    return (size + 1) // 2 if ceil_mode else size // 2


def pool5_size(size: int, ceil_mode: bool) -> int:
    """Return the side of the pool5 map, cells, of an image side of `size` pixels.

    >>> pool5_size(500, ceil_mode=False), pool5_size(500, ceil_mode=True)
    (15, 16)
    """
    for _ in range(5):
        size = pooled(size, ceil_mode)
    return size


def _architecture(name: str, column: str, rows: str, thin: int = 1) -> Architecture:
    blocks = tuple(
        tuple(int(width) // thin for width in block.split()) for block in rows.split("M")[:-1]
    )
    return Architecture(name=name, column=column, blocks=blocks, fc=4096 // thin)


ARCHITECTURES = {
    net.name: net
    for net in (
        _architecture("vgg16", "D", _D),
        _architecture("vgg19", "E", _E),
        _architecture("vgg16-thin", "D", _D, thin=8),
        _architecture("vgg19-thin", "E", _E, thin=8),
    )
}


def architecture(name: str) -> Architecture:
    """Return the architecture of that name.

    Raises:
        RecipeError: If there is none.
    """
    if name not in ARCHITECTURES:
        raise RecipeError(f"Unknown model {name!r}.", nearest(name, ARCHITECTURES))
    return ARCHITECTURES[name]
