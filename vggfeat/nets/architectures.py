"""The configurations of Table 1 as data, and what follows by arithmetic. No torch here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from vggfeat.errors import MapTooSmallError, RecipeError, nearest

WINDOW = 7  # side of fc6, in cells of pool5
_TRAINED_SIDE = 224  # pixels, of a square that gives fc6 one cell

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

_CONVOLUTIONS = tuple(  # of the deepest nets, the last one first
    f"conv{block}_{index}"
    for block, depth in ((5, 4), (4, 4), (3, 4), (2, 2), (1, 2))
    for index in range(depth, 0, -1)
)

# Name of a tap → the layer that is averaged, and whether behind its ReLU, which fc8 has not. A net
# has those whose layer it has.
TAPS: dict[str, tuple[str, bool]] = {
    "fc7": ("fc7", True),
    "fc7-linear": ("fc7", False),
    "fc6": ("fc6", True),
    "fc6-linear": ("fc6", False),
    "fc8": ("fc8", False),
    **{f"pool{number}": (f"pool{number}", True) for number in range(5, 0, -1)},
    **{layer: (layer, True) for layer in _CONVOLUTIONS},
    **{f"{layer}-linear": (layer, False) for layer in _CONVOLUTIONS},
}


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
        connected: Whether it is fully connected: a convolution without a border.
    """

    name: str
    shape: tuple[int, int, int, int]
    norm: bool = False
    connected: bool = False

    @property
    def padding(self) -> int:
        """Zeros around the map that it reads, cells: none, or as many as keep its resolution."""
        return 0 if self.connected else self.shape[2] // 2

    @property
    def shrinks(self) -> int:
        """By how many cells each side of its map is shorter than of the one that it reads."""
        return self.shape[2] - 1 if self.connected else 0

    @property
    def has_windows(self) -> bool:
        """Whether it is fully connected to windows of more than one cell: fc6."""
        return self.connected and self.shape[2] > 1

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yield the name and the shape of each of its tensors."""
        yield f"{self.name}.weight", self.shape
        yield f"{self.name}.bias", self.shape[:1]
        if self.norm:
            for part in ("weight", "bias", "mean", "variance"):
                yield f"{self.name}.norm.{part}", self.shape[:1]


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Maxima of 2×2 cells, in steps of two.

    Attributes:
        name: pool1 ... pool5.
    """

    name: str


@dataclass(frozen=True, kw_only=True)
class Tap:
    """Where a net is tapped: the map of a layer, whose global average is the descriptor.

    Attributes:
        name: As on the command line.
        layer: Whose map it is.
        rectified: Whether behind the layer's ReLU, where it has one.
        channels: D, of the descriptor.
        pools: That lie before the layer's end.
        window: Side, in cells of the last pool's map, of what one cell of the tap's map covers; 1
            for the convolutions, which have a border.
    """

    name: str
    layer: str
    rectified: bool
    channels: int
    pools: int
    window: int

    def cells(self, size: int, ceil_mode: bool) -> int:
        """Return the side of the map, cells, of an image side of `size` pixels; 0 for none."""
        return max(0, map_size(size, self.pools, ceil_mode) - self.window + 1)

    @property
    def enough(self) -> int:
        """The shortest image side, pixels, that gives a cell however the pools round."""
        return self.window << self.pools

    def smallest_side(self, ceil_mode: bool) -> int:
        """Return the shortest image side, pixels, that gives a cell."""
        return next(size for size in range(1, self.enough + 1) if self.cells(size, ceil_mode))

    def check(self, height: int, width: int, ceil_mode: bool) -> None:
        """Refuse an image that would give no cell.

        Args:
            height: Of the image, pixels.
            width: Of the image, pixels.
            ceil_mode: The pools' rounding.

        Raises:
            MapTooSmallError: If it would.
        """
        if not (self.cells(height, ceil_mode) and self.cells(width, ceil_mode)):
            last = map_size(height, self.pools, ceil_mode), map_size(width, self.pools, ceil_mode)
            raise MapTooSmallError(height, width, last, self.layer, self.pools, self.window)


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

    def parts(self, last: str = "fc8") -> Iterator[Layer | Pool]:
        """Yield the layers and the pools in their order, from conv1_1 on.

        Args:
            last: Name of the last one; all are yielded where there is none of that name.
        """
        for part in self._parts():
            yield part
            if part.name == last:
                return

    def _parts(self) -> Iterator[Layer | Pool]:
        channels = 3
        for number, block in enumerate(self.blocks, 1):
            for index, c in enumerate(block, 1):
                shape = (c.width, channels, c.kernel, c.kernel)
                yield Layer(name=f"conv{number}_{index}", shape=shape, norm=self.batch_norm)
                channels = c.width
            yield Pool(name=f"pool{number}")
        yield Layer(name="fc6", shape=(self.fc, channels, WINDOW, WINDOW), connected=True)
        yield Layer(name="fc7", shape=(self.fc, self.fc, 1, 1), connected=True)
        yield Layer(name="fc8", shape=(_CLASSES, self.fc, 1, 1), connected=True)

    def layers(self, last: str = "fc8") -> Iterator[Layer]:
        """Yield the layers with weights, from conv1_1 to `last`, which may be a pool's name."""
        return (part for part in self.parts(last) if isinstance(part, Layer))

    @property
    def parameters(self) -> int:
        """Number of weights and biases, fc8 included (Table 2); running statistics are none."""
        return sum(cost.parameters for cost in self.costs(_TRAINED_SIDE, _TRAINED_SIDE))

    def tap(self, name: str) -> Tap:
        """Return a tap of this net.

        >>> ARCHITECTURES["vgg16"].tap("pool4").channels
        512

        Args:
            name: A name of `TAPS`.

        Raises:
            RecipeError: If there is none of that name, or the net has not the layer.
        """
        if name not in TAPS:
            raise RecipeError(f"Unknown tap {name!r}.", nearest(name, TAPS))
        layer, rectified = TAPS[name]
        parts = list(self.parts(layer))
        if parts[-1].name != layer:
            there = {part.name for part in self.parts()}
            own = (tap for tap, (layer, _) in TAPS.items() if layer in there)
            raise RecipeError(f"{self.name} has no tap {name!r}.", nearest(name, own))
        layers = [part for part in parts if isinstance(part, Layer)]
        return Tap(
            name=name,
            layer=layer,
            rectified=rectified,
            channels=layers[-1].shape[0],
            pools=len(parts) - len(layers),
            window=1 + sum(part.shrinks for part in layers),
        )

    def deepest(self, names: Iterable[str]) -> Tap:
        """Return that of some taps at which one pass for all of them ends.

        >>> ARCHITECTURES["vgg16"].deepest(["fc7", "pool5", "fc7-linear"]).name
        'fc7'

        Args:
            names: Of `TAPS`, one at least.

        Raises:
            RecipeError: As in `tap`.
        """
        order = {part.name: place for place, part in enumerate(self.parts())}
        return max(map(self.tap, names), key=lambda tap: (order[tap.layer], tap.rectified))

    def descriptor_size(self, tap: str) -> int:
        """Return D for a tap.

        >>> ARCHITECTURES["vgg16"].descriptor_size("fc7")
        4096
        """
        return self.tap(tap).channels

    def costs(self, height: int, width: int, *, ceil_mode: bool = True) -> Iterator[Cost]:
        """Yield what each layer of one dense pass costs, pools included, from conv1_1 to fc8.

        Args:
            height: Of the image, pixels.
            width: Of the image, pixels.
            ceil_mode: The pools' rounding.

        Raises:
            MapTooSmallError: Before fc6, if pool5 has fewer than 7×7 cells.
        """
        image, channels = (height, width), 3
        for part in self.parts():
            if isinstance(part, Pool):
                height, width = pooled(height, ceil_mode), pooled(width, ceil_mode)
                output = (channels, height, width)
                yield Cost(name=part.name, output=output, parameters=0, multiply_adds=0)
                continue
            if min(height, width) <= part.shrinks:
                pools = len(self.blocks)
                raise MapTooSmallError(*image, (height, width), part.name, pools, WINDOW)
            height, width, channels = height - part.shrinks, width - part.shrinks, part.shape[0]
            yield _cost(part, height, width)

    def multiply_adds(self, height: int, width: int, *, ceil_mode: bool, tap: str = "fc7") -> int:
        """Count the multiply-adds of one dense pass up to `tap`, biases and pools left out.

        Args:
            height: Of the image, pixels.
            width: Of the image, pixels.
            ceil_mode: The pools' rounding.
            tap: Where the pass ends.

        Raises:
            MapTooSmallError: If the image is too small for the tap.
        """
        last, total = self.tap(tap).layer, 0
        for cost in self.costs(height, width, ceil_mode=ceil_mode):
            total += cost.multiply_adds
            if cost.name == last:
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


def map_size(size: int, pools: int, ceil_mode: bool) -> int:
    """Return the side of the map, cells, behind some pools, of an image side of `size` pixels.

    >>> map_size(500, 5, ceil_mode=False), map_size(500, 5, ceil_mode=True)
    (15, 16)
    """
    for _ in range(pools):
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
