"""The preprocessing that a set of weights was trained with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class WeightProfile:
    """The preprocessing that a set of weights was trained with.

    Attributes:
        name: As on the command line.
        unit_range: Pixels are divided by 255 first.
        mean: Subtracted, RGB order, in the range that `unit_range` says.
        std: Divided by, RGB order.
        ceil_mode: The pools round odd sizes up (Caffe) or down.
    """

    name: str
    unit_range: bool
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    ceil_mode: bool


PROFILES = {
    profile.name: profile
    for profile in (
        WeightProfile(  # the authors' gists: 0-255 minus (103.939, 116.779, 123.68) BGR, Caffe
            name="oxford",
            unit_range=False,
            mean=(123.68, 116.779, 103.939),
            std=(1.0, 1.0, 1.0),
            ceil_mode=True,
        ),
        WeightProfile(  # torchvision's model page
            name="torchvision",
            unit_range=True,
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
            ceil_mode=False,
        ),
    )
}
