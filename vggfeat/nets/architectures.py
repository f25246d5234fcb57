"""The configurations of Table 1 as data, and what follows by arithmetic. No torch here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Literal

from vggfeat.errors import MapTooSmallError, RecipeError, nearest

Tap = Literal["fc7", "fc7-linear", "fc6", "pool5"]

STRIDE = 32  # of pool5, in pixels of the image
WINDOW = 7  # side of fc6, in cells of pool5
SMALLEST_SIDE = STRIDE * WINDOW  # 224 pixels

# Table 1: output channels of each convolution, 3×3 unless it says 1×1, and M for a pool.
_TABLE = {
    "vgg11": ("A", "64 M 128 M 256 256 M 512 512 M 512 512 M"),
    "vgg11-lrn": ("A-LRN", "64 M 128 M 256 256 M 512 512 M 512 512 M"),
    "vgg13": ("B", "64 64 M 128 128 M 256 256 M 512 512 M 512 512 M"),
    "vgg16c": ("C", "64 64 M 128 128 M 256 256 256/1 M 512 512 512/1 M 512 512 512/1 M"),
    "vgg16": ("D", "64 64 M 128 128 M 256 256 256 M 512 512 512 M 512 512 512 M"),
    "vgg19": ("E", "64 64 M 128 128 M 256 256 256 256 M 512 512 512 512 M 512 512 512 512 M"),
}
_THIN = 8  # the thin nets have an eighth of the channels
_CLASSES = 1000


@dataclass(frozen=True, kw_only=True)
class Convolution:
    """One convolution of a block.

    Attributes:
        width: Output channels.
        kernel: Side of its window; it is padded so that resolution is kept.
    """

    width: int
    kernel: int


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One layer with weights.

    Attributes:
        name: As in the authors' Caffe models: conv1_1 ... conv5_3, fc6, fc7, fc8.
        shape: (out, in, kernel, kernel) of its weight, fully connected layers as convolutions.
        norm: Whether batch normalisation follows it.
    """

    name: str
    shape: tuple[int, int, int, int]
    norm: bool = False

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yield the name and the shape of each of its tensors."""
        yield f"{self.name}.weight", self.shape
        yield f"{self.name}.bias", self.shape[:1]
        if self.norm:
            for part in ("weight", "bias", "mean", "variance"):
                yield f"{self.name}.norm.{part}", self.shape[:1]


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one layer costs for one image.

    Attributes:
        name: Of the layer: conv1_1, pool1, fc6, ...
        output: (C, H, W).
        parameters: Weights and biases.
        multiply_adds: Biases, pools and normalisations left out.
    """

    name: str
    output: tuple[int, int, int]
    parameters: int
    multiply_adds: int


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """One column of Table 1 (Simonyan & Zisserman 2015, Sect. 2.1).

    Attributes:
        name: As on the command line.
        column: The paper's letter.
        blocks: The convolutions of the five blocks, a 2×2 pool behind each.
        fc: Channels of fc6 and fc7.
        batch_norm: Batch normalisation behind every convolution; torchvision's, not the paper's.
        lrn: Local response normalisation behind conv1_1's ReLU (A-LRN).
    """

    name: str
    column: str
    blocks: tuple[tuple[Convolution, ...], ...]
    fc: int
    batch_norm: bool = False
    lrn: bool = False

    def layers(self) -> Iterator[Layer]:
        """Yield the layers with weights, from conv1_1 to fc8."""
        channels = 3
        for number, block in enumerate(self.blocks, 1):
            for index, c in enumerate(block, 1):
                shape = (c.width, channels, c.kernel, c.kernel)
                yield Layer(name=f"conv{number}_{index}", shape=shape, norm=self.batch_norm)
                channels = c.width
        yield Layer(name="fc6", shape=(self.fc, channels, WINDOW, WINDOW))
        yield Layer(name="fc7", shape=(self.fc, self.fc, 1, 1))
        yield Layer(name="fc8", shape=(_CLASSES, self.fc, 1, 1))

    @property
    def parameters(self) -> int:
        """Number of weights and biases, fc8 included (Table 2); running statistics are none."""
        return sum(cost.parameters for cost in self.costs(SMALLEST_SIDE, SMALLEST_SIDE))

    def descriptor_size(self, tap: Tap) -> int:
        """Return D for a tap.

        >>> ARCHITECTURES["vgg16"].descriptor_size("fc7")
        4096
        """
        return self.blocks[-1][-1].width if tap == "pool5" else self.fc

    def costs(self, height: int, width: int, *, ceil_mode: bool = True) -> Iterator[Cost]:
        """Yield what each layer of one dense pass costs, pools included, from conv1_1 to fc8.

        Args:
            height: Of the image, pixels.
            width: Of the image, pixels.
            ceil_mode: The pools' rounding.

        Raises:
            MapTooSmallError: Before fc6, if pool5 has fewer than 7×7 cells.
        """
        image, layers = (height, width), self.layers()
        for number, block in enumerate(self.blocks, 1):
            for layer in islice(layers, len(block)):
                yield _cost(layer, height, width)
            height, width = pooled(height, ceil_mode), pooled(width, ceil_mode)
            output = (block[-1].width, height, width)
            yield Cost(name=f"pool{number}", output=output, parameters=0, multiply_adds=0)
        if min(height, width) < WINDOW:
            raise MapTooSmallError(*image, (height, width))
        for layer in layers:
            yield _cost(layer, height - WINDOW + 1, width - WINDOW + 1)

    def multiply_adds(self, height: int, width: int, *, ceil_mode: bool, tap: Tap = "fc7") -> int:
        """Count the multiply-adds of one dense pass up to `tap`, biases and pools left out.

        Args:
            height: Of the image, pixels.
            width: Of the image, pixels.
            ceil_mode: The pools' rounding.
            tap: Where the pass ends.
        """
        total = 0
        for cost in self.costs(height, width, ceil_mode=ceil_mode):
            total += cost.multiply_adds
            if cost.name == tap.removesuffix("-linear"):
                break
        return total

    def receptive_field(self, layer: Literal["pool5", "fc6"]) -> int:
        """Return the side of the image area that one cell of `layer` sees, pixels."""
        field, stride = 1, 1
        for block in self.blocks:
            field += stride * sum(c.kernel - 1 for c in block) + stride  # the 2×2 pool adds one
            stride *= 2
        return field if layer == "pool5" else field + (WINDOW - 1) * stride


def _cost(layer: Layer, height: int, width: int) -> Cost:
    out, channels, kernel, _ = layer.shape
    weights = out * channels * kernel**2
    return Cost(
        name=layer.name,
        output=(out, height, width),
        parameters=weights + (3 if layer.norm else 1) * out,
        multiply_adds=weights * height * width,
    )


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


def _architecture(name: str, *, batch_norm: bool, thin: bool) -> Architecture:
    column, rows = _TABLE[name]
    share = _THIN if thin else 1

    def convolution(text: str) -> Convolution:
        width, _, kernel = text.partition("/")
        return Convolution(width=int(width) // share, kernel=int(kernel or 3))

    blocks = tuple(tuple(map(convolution, block.split())) for block in rows.split("M")[:-1])
    return Architecture(
        name=f"{name}{'-bn' if batch_norm else ''}{'-thin' if thin else ''}",
        column=column,
        blocks=blocks,
        fc=4096 // share,
        batch_norm=batch_norm,
        lrn=name.endswith("-lrn"),
    )


ARCHITECTURES = {
    net.name: net
    for name in _TABLE
    for thin in (False, True)
    for batch_norm in (False, True)
    for net in (_architecture(name, batch_norm=batch_norm, thin=thin),)
}


def architecture(name: str) -> Architecture:
    """Return the architecture of that name.

    Raises:
        RecipeError: If there is none.
    """
    if name not in ARCHITECTURES:
        raise RecipeError(f"Unknown model {name!r}.", nearest(name, ARCHITECTURES))
    return ARCHITECTURES[name]
