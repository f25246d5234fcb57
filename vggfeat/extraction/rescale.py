"""Rescaling on the net's own device."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from vggfeat.extraction.images import Interpolation, rescaled_size


def rescale_on_device(image: Tensor, q: int, interpolation: Interpolation) -> Tensor:
    """Rescale an image as `images.rescale` does, where it lies.

    Deviates: torch computes in float32 and rounds once, Pillow in integers and rounds after each
    direction; most values agree, the others differ by 1 (bilinear; tested) or little more.

    Args:
        image: (H, W, 3) uint8, RGB.
        q: Target shorter side, pixels.
        interpolation: The filter; both are antialiased.

    Returns:
        (H', W', 3) uint8 on the same device, min(H', W') == q.
    """
    size = rescaled_size(image.shape[0], image.shape[1], q)
    if size == tuple(image.shape[:2]):
        return image
    planes = image.permute(2, 0, 1)[None].float()
    rescaled = functional.interpolate(
        planes, size, mode=interpolation, antialias=True, align_corners=False
    )
    return rescaled.round_().clamp_(0, 255).to(torch.uint8)[0].permute(1, 2, 0)
