"""A VGG net in its dense form: every layer a convolution, any image size (Sect. 3.2)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from vggfeat.nets.architectures import Architecture, Layer, Pool
from vggfeat.nets.packed import PackedLayer, filters_of, packs, windows
from vggfeat.nets.profile import WeightProfile

_BATCH_NORM_EPSILON = 1e-5  # torchvision's


class DenseVgg(nn.Module):
    """Uint8 RGB images in, the feature map of one layer, or its global average, out.

    For inference only: batch normalisation is folded into the weights as they are taken, ReLUs work
    in place, and no parameter has a gradient.

    fc6 is a valid 7×7 convolution and fc7 a 1×1 convolution (Simonyan & Zisserman 2015,
    Sect. 3.2); the preprocessing of the weight file is part of the net, so that the two cannot be
    mixed up.

    Args:
        architecture: Which net.
        tensors: As `Layer.tensors` names and shapes them, up to the tap at least, with conv1_1
            reading RGB.
        profile: What the weights were trained with.
        tap: Name of what is returned, a tap of the net.

    Raises:
        RecipeError: If the net has no such tap.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        architecture: Architecture,
        tensors: Mapping[str, Tensor],
        profile: WeightProfile,
        tap: str = "fc7",
    ) -> None:
        super().__init__()
        self.architecture = architecture
        self.profile = profile
        self.tap = architecture.tap(tap)
        self.convolutions = nn.ModuleDict()
        for layer in architecture.layers(self.tap.layer):
            out, channels, kernel, _ = layer.shape
            with torch.device("meta"):
                convolution = nn.Conv2d(channels, out, kernel, padding=layer.padding)
            weight, bias = _folded(layer, tensors)
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
        """Yield (layer name, map) for every layer up to the tap, rectified where the net does so.

        Args:
            x: (b, 3, H, W), as from `normalised`.
            sizes: (b, 2) height and width of the images, pixels, where they fill only the upper
                left part of a canvas of H×W. What lies outside is set to zero behind every layer
                up to pool5, so that each image sees the border of zeros that it would see alone.

        Raises:
            MapTooSmallError: If the tap's map would have no cell.
        """
        self.tap.check(x.shape[-2], x.shape[-1], self.profile.ceil_mode)
        x = _masked(x, sizes)
        for part in self.architecture.parts(self.tap.layer):
            if isinstance(part, Pool):
                x = functional.max_pool2d(x, 2, ceil_mode=self.profile.ceil_mode)
                sizes = None if sizes is None else (sizes + self.profile.ceil_mode) // 2
            else:
                x = self._convolved(part, x)
                sizes = None if part.connected else sizes
            if self.architecture.lrn and part.name == "conv1_1":
                x = _normalised_across_channels(x)
            x = _masked(x, sizes)
            yield part.name, x

    def feature_map(self, x: Tensor, sizes: Tensor | None = None) -> Tensor:
        """Return the map of the tap.

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

    def forward(self, images: Tensor, sizes: Tensor | None = None) -> Tensor:
        """Describe images by the global average of the tap's map (App. B).

        Args:
            images: (b, H, W, 3) uint8, RGB, all of one size.
            sizes: As in `activations`; the average is over each image's own map.

        Returns:
            (b, D), not normalised, of the net's own float type, float32 at least.

        Raises:
            MapTooSmallError: If the images are too small.
        """
        x = self.feature_map(self.normalised(images), sizes)
        accurate = torch.promote_types(x.dtype, torch.float32)
        if sizes is None:
            return x.mean(dim=(2, 3), dtype=accurate)
        sizes = self.map_sizes(sizes)
        return _masked(x, sizes).sum(dim=(2, 3), dtype=accurate) / sizes.prod(dim=1, keepdim=True)

    def _convolved(self, layer: Layer, x: Tensor) -> Tensor:
        """Return the map of a layer, rectified unless it is that of a tap before the ReLU.

        In 16 bits fc6 is one product of all windows: it takes half the time so where maps are small
        (Q = 256), and as long as by the convolution where they are large.
        """
        rectified = layer.name != self.tap.layer or self.tap.rectified
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

    def map_sizes(self, sizes: Tensor) -> Tensor:
        """Return the (b, 2) sizes of the tap's maps for (b, 2) sizes of images."""
        for _ in range(self.tap.pools):
            sizes = (sizes + self.profile.ceil_mode) // 2
        return sizes - self.tap.window + 1

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


def _masked(x: Tensor, sizes: Tensor | None) -> Tensor:
    """Set (b, C, H, W) maps to zero outside their own (b, 2) sizes, in place."""
    if sizes is None:
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
