from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import photo
from vggfeat.extraction.images import Interpolation, rescale
from vggfeat.extraction.rescale import rescale_on_device


@pytest.mark.parametrize(("filter_", "most"), [("bilinear", 1), ("bicubic", 4)])
@pytest.mark.parametrize("size", [(90, 120), (500, 375), (300, 300)])
@pytest.mark.parametrize("q", [224, 256, 384])
def test_torch_differs_from_pillow_by_rounding_only(
    filter_: Interpolation, most: int, size: tuple[int, int], q: int
) -> None:
    image = photo(*size, seed=1)
    found = rescale_on_device(torch.from_numpy(image), q, filter_).numpy().astype(int)
    expected = rescale(Image.fromarray(image), q, filter_).astype(int)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= most
    assert np.abs(found - expected).mean() < 0.25


def test_real_photos_differ_by_rounding_only(shared: Path) -> None:
    folder = shared / "voc2007-mini" / "VOCdevkit" / "VOC2007" / "JPEGImages"
    for path in sorted(folder.glob("*.jpg"))[:3]:
        image = Image.open(path).convert("RGB")
        found = rescale_on_device(torch.from_numpy(np.asarray(image).copy()), 384, "bilinear")
        difference = np.abs(found.numpy().astype(int) - rescale(image, 384).astype(int))
        assert difference.max() <= 1
        assert difference.mean() < 0.25


def test_an_image_of_the_right_size_is_left_alone() -> None:
    image = torch.from_numpy(photo(224, 300, seed=0))
    assert rescale_on_device(image, 224, "bicubic") is image
