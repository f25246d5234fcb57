"""16-bit layers: fc6 as a product of windows, weights in the order that a CPU reads them in."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vggfeat.nets.architectures import WINDOW, Layer

_MAP = 64, 96  # cells, for which the order of the weights is chosen; any other map is as right


class PackedLayer(nn.Module):
    """A layer whose weight is reordered once for oneDNN, and whose ReLU is part of the product.

    torch's own convolution reorders the weight at every call, which takes longer than the product
    where that is fast (AMX) and maps are small. The values are the same, bit for bit.

    Args:
        layer: Which.
        convolution: Its weight and bias, of a type that `packs`.
    """

    def __init__(self, layer: Layer, convolution: nn.Module) -> None:
        super().__init__()
        weight = convolution.get_parameter("weight").data
        self.bias = convolution.get_parameter("bias")
        self._layer = layer
        self._padding = [layer.padding] * 2
        self._weight: Tensor = (
            torch.ops.mkldnn._reorder_linear_weight(filters_of(weight).contiguous(), None)
            if layer.has_windows
            else torch.ops.aten.mkldnn_reorder_conv2d_weight(
                weight.to_mkldnn(), self._padding, [1, 1], [1, 1], 1, [2, layer.shape[1], *_MAP]
            )
        )

    def forward(self, x: Tensor, *, rectified: bool) -> Tensor:
        """Return the map of the layer, (b, D, h, w), of a map (b, C, H, W), channels last.

        Args:
            x: The map that it reads.
            rectified: Whether behind its ReLU.
        """
        after = "relu" if rectified else "none"
        result: Tensor
        if self._layer.has_windows:
            result = torch.ops.mkldnn._linear_pointwise(
                windows(x), self._weight, self.bias, after, [], ""
            )
            return result.permute(0, 3, 1, 2)
        result = torch.ops.mkldnn._convolution_pointwise(
            x, self._weight, self.bias, self._padding, [1, 1], [1, 1], 1, after, [], ""
        )
        return result


def packs(dtype: torch.dtype, device: torch.device) -> bool:
    """Tell whether layers of a float type can be packed for a device."""
    return (
        dtype == torch.bfloat16
        and device.type == "cpu"
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]  # torch's own
        and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    )


def windows(x: Tensor) -> Tensor:
    """Return the windows of fc6 as a table, (b, h, w, 49 C), of a map (b, C, H, W)."""
    table = x.permute(0, 2, 3, 1).unfold(1, WINDOW, 1).unfold(2, WINDOW, 1)
    return table.permute(0, 1, 2, 4, 5, 3).flatten(3)


def filters_of(weight: Tensor) -> Tensor:
    """Return the weight of fc6, (D, C, 7, 7), as the matrix (D, 49 C) that windows are fed to."""
    return weight.permute(0, 2, 3, 1).flatten(1)
