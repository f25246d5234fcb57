"""A VGG net in its dense form: every layer a convolution, any image size (Sect. 3.2)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from vggfeat.errors import WeightsError
from vggfeat.nets.architectures import TAPS, Architecture, Layer, Pool, Tap
from vggfeat.nets.packed import PackedLayer, filters_of, packs, windows
from vggfeat.nets.profile import WeightProfile

_BATCH_NORM_EPSILON = 1e-5  # torchvision's


class DenseVgg(nn.Module):
    """Uint8 RGB images in, the feature maps of some layers, or their global averages, out.

    For inference only: batch normalisation is folded into the weights as they are taken, ReLUs work
    in place, and no parameter has a gradient.

    fc6 is a valid 7×7 convolution and fc7 a 1×1 convolution (Simonyan & Zisserman 2015,
    Sect. 3.2); the preprocessing of the weight file is part of the net, so that the two cannot be
    mixed up.

    Args:
        architecture: Which net.
        tensors: As `Layer.tensors` names and shapes them, up to the deepest tap at least, with
            conv1_1 reading RGB.
        profile: What the weights were trained with.
        *taps: Names of what is returned, taps of the net; none for the paper's, fc7.

    Attributes:
        taps: By name, in that order.
        tap: The deepest of them, where a pass ends.

    Raises:
        RecipeError: If the net has no such tap.
        WeightsError: If the weights are of another number of classes than fc8, which is tapped.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        architecture: Architecture,
        tensors: Mapping[str, Tensor],
        profile: WeightProfile,
        *taps: str,
    ) -> None:
        super().__init__()
        self.architecture = architecture
        self.profile = profile
        self.taps = {name: architecture.tap(name) for name in taps or ("fc7",)}
        self.tap = architecture.deepest(self.taps)
        self._linear = {tap.layer for tap in self.taps.values() if not tap.rectified}
        self.convolutions = nn.ModuleDict()
        for layer in architecture.layers(self.tap.layer):
            out, channels, kernel, _ = layer.shape
            with torch.device("meta"):
                convolution = nn.Conv2d(channels, out, kernel, padding=layer.padding)
            weight, bias = _folded(layer, tensors)
            _check_classes(architecture, layer, weight)
            convolution.weight = nn.Parameter(weight, requires_grad=False)
            convolution.bias = nn.Parameter(bias, requires_grad=False)
            self.convolutions[layer.name] = convolution
        self.register_buffer("mean", torch.tensor(profile.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(profile.std).view(1, 3, 1, 1))
        self.to(memory_format=torch.channels_last)
        self.eval()

    def normalised(self, images: Tensor) -> Tensor:
        """Turn pixels into what conv1_1 reads.

        Args:
            images: (b, H, W, 3) uint8, RGB.

        Returns:
            (b, 3, H, W) of the net's own float type, channels last in memory like the pixels:
            twice as fast on a CPU as channels first.
        """
        pixels = images.to(self.mean.device).permute(0, 3, 1, 2).to(self.mean.dtype)
        if self.profile.unit_range:
            pixels = pixels / 255
        return ((pixels - self.mean) / self.std).to(self.dtype)

    def activations(self, x: Tensor, sizes: Tensor | None = None) -> Iterator[tuple[str, Tensor]]:
        """Yield (layer name, map) for every layer up to the deepest tap, whose map is the last.

        All others are behind the layer's ReLU, where it has one.

        Args:
            x: (b, 3, H, W), as from `normalised`.
            sizes: (b, 2) height and width of the images, pixels, where they fill only the upper
                left part of a canvas of H×W. What lies outside is set to zero behind every layer
                up to pool5, so that each image sees the border of zeros that it would see alone.

        Raises:
            MapTooSmallError: If the tap's map would have no cell.
        """
        for layer, rectified, activation in self._maps(x, sizes, self.tap):
            if rectified or (layer, rectified) == (self.tap.layer, self.tap.rectified):
                yield layer, activation

    def _maps(
        self, x: Tensor, sizes: Tensor | None, last: Tap
    ) -> Iterator[tuple[str, bool, Tensor]]:
        """Yield each layer's name and map, behind its ReLU (True), and before (False) if tapped.

        A map is there until the next one is asked for: ReLUs work in place.
        """
        last.check(x.shape[-2], x.shape[-1], self.profile.ceil_mode)
        x = _masked(x, sizes)
        for part in self.architecture.parts(last.layer):
            if isinstance(part, Pool):
                x = functional.max_pool2d(x, 2, ceil_mode=self.profile.ceil_mode)
                sizes = None if sizes is None else (sizes + self.profile.ceil_mode) // 2
            else:
                whole = part.name not in self._linear
                x = self._convolved(part, x, rectified=whole)
                sizes = None if part.connected else sizes
                if not whole:
                    yield part.name, False, x
                    if part.name == last.layer and not last.rectified:
                        return
                    x = functional.relu_(x)
            if self.architecture.lrn and part.name == "conv1_1":
                x = _normalised_across_channels(x)
            x = _masked(x, sizes)
            yield part.name, True, x

    def feature_map(self, x: Tensor, sizes: Tensor | None = None) -> Tensor:
        """Return the map of the deepest tap.

        Args:
            x: (b, 3, H, W), as from `normalised`.
            sizes: As in `activations`; behind fc6 nothing is set to zero.

        Returns:
            (b, D, h, w); h and w are `Tap.cells` of H and W.

        Raises:
            MapTooSmallError: If it would have no cell.
        """
        for _, activation in self.activations(x, sizes):  # noqa: B007  (only the last one is wanted)
            pass
        return activation

    def averages(
        self, images: Tensor, sizes: Tensor | None = None, taps: Sequence[str] = ()
    ) -> tuple[Tensor, ...]:
        """Describe images by the global averages of taps' maps (App. B), in one pass.

        Args:
            images: (b, H, W, 3) uint8, RGB, all of one size.
            sizes: As in `activations`; the average is over each image's own map.
            taps: Names of some of the net's; none for all of them.

        Returns:
            (b, D) for each tap, not normalised, of the net's own float type, float32 at least.

        Raises:
            MapTooSmallError: If the images are too small.
        """
        wanted = [self.taps[name] for name in taps or self.taps]
        last = self.architecture.deepest(tap.name for tap in wanted)
        found: dict[str, Tensor] = {}
        for layer, rectified, x in self._maps(self.normalised(images), sizes, last):
            for tap in wanted:
                if (tap.layer, tap.rectified) == (layer, rectified):
                    found[tap.name] = self._average(x, tap, sizes)
        return tuple(found[tap.name] for tap in wanted)

    def forward(self, images: Tensor) -> Tensor:
        """Describe images, as `averages` does, by the deepest tap alone."""
        [described] = self.averages(images, taps=[self.tap.name])
        return described

    def _average(self, x: Tensor, tap: Tap, sizes: Tensor | None) -> Tensor:
        accurate = torch.promote_types(x.dtype, torch.float32)
        if sizes is None:
            return x.mean(dim=(2, 3), dtype=accurate)
        own = self.map_sizes(sizes, tap)
        return _masked(x, own).sum(dim=(2, 3), dtype=accurate) / own.prod(dim=1, keepdim=True)

    def _convolved(self, layer: Layer, x: Tensor, *, rectified: bool) -> Tensor:
        """Return the map of a layer, before its ReLU or behind it.

        In 16 bits fc6 is one product of all windows: it takes half the time so where maps are small
        (Q = 256), and as long as by the convolution where they are large.
        """
        convolution = self.convolutions[layer.name]
        if isinstance(convolution, PackedLayer):
            packed: Tensor = convolution(x, rectified=rectified)
            return packed
        if layer.has_windows and x.dtype in {torch.bfloat16, torch.float16}:
            filters = filters_of(convolution.get_parameter("weight"))
            table = functional.linear(windows(x), filters, convolution.get_parameter("bias"))
            x = table.permute(0, 3, 1, 2)
        else:
            x = convolution(x)
        return functional.relu_(x) if rectified else x

    def map_sizes(self, sizes: Tensor, tap: Tap) -> Tensor:
        """Return the (b, 2) sizes of a tap's maps for (b, 2) sizes of images."""
        for _ in range(tap.pools):
            sizes = (sizes + self.profile.ceil_mode) // 2
        return sizes - tap.window + 1

    @property
    def dtype(self) -> torch.dtype:
        """The float type that the layers compute in; pixels are normalised in that of `mean`."""
        return next(self.convolutions.parameters()).dtype

    def computing_in(self, dtype: torch.dtype) -> DenseVgg:
        """Let the layers compute in another float type, the fastest way here; return self."""
        self.convolutions.to(dtype)
        if packs(dtype, self.mean.device):
            for layer in self.architecture.layers(self.tap.layer):
                self.convolutions[layer.name] = PackedLayer(layer, self.convolutions[layer.name])
        return self

    def smallest_side(self) -> int:
        """Return the shortest image side, pixels, that this net and its pools can describe."""
        return self.tap.smallest_side(self.profile.ceil_mode)


def _folded(layer: Layer, tensors: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return weight and bias, a batch normalisation behind them folded in (in float64)."""
    weight, bias = tensors[f"{layer.name}.weight"], tensors[f"{layer.name}.bias"]
    if not layer.norm:
        return weight, bias
    gain, shift, mean, variance = (
        tensors[f"{layer.name}.norm.{part}"].double()
        for part in ("weight", "bias", "mean", "variance")
    )
    scale = gain / torch.sqrt(variance + _BATCH_NORM_EPSILON)
    folded = weight.double() * scale.view(-1, 1, 1, 1), (bias.double() - mean) * scale + shift
    return folded[0].to(weight.dtype), folded[1].to(bias.dtype)


def _check_classes(net: Architecture, layer: Layer, weight: Tensor) -> None:
    """Refuse weights of another number of classes; only a net that is tapped at fc8 reads them."""
    if len(weight) != layer.shape[0]:
        others = ", ".join(name for name in TAPS if name.startswith("fc") and name != layer.name)
        raise WeightsError(
            f"The {layer.name} of these weights of {net.name} has {len(weight)} classes.",
            f"Expected {layer.shape[0]}: the size of a descriptor follows from net and tap alone.",
            f"Choose a layer before it: --tap {others}, ...",
        )


def _masked(x: Tensor, sizes: Tensor | None) -> Tensor:
    """Set (b, C, H, W) maps to zero outside their own (b, 2) sizes, in place."""
    if sizes is None:
        return x
    if x.device.type == "cpu":  # there only what is outside is touched; a GPU would have to wait
        for own, (height, width) in zip(x, sizes.tolist(), strict=True):
            own[:, height:] = 0
            own[:, :, width:] = 0
        return x
    rows, columns = (torch.arange(n, device=x.device) for n in x.shape[-2:])
    inside = (rows < sizes[:, :1])[:, :, None] & (columns < sizes[:, 1:])[:, None]
    return x.mul_(inside[:, None])


def _normalised_across_channels(x: Tensor) -> Tensor:
    """Return x / (k + α Σ x²)^β over n neighbouring channels (Krizhevsky et al. 2012, Sect. 3.3).

    torch divides α by n, which the paper does not.
    """
    n, k, alpha, beta = 5, 2.0, 1e-4, 0.75
    return functional.local_response_norm(x, n, alpha=alpha * n, beta=beta, k=k)
