"""Images in memory: what each value becomes, and what is refused because it leaves that open."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import photo
from vggfeat.errors import InputError
from vggfeat.extraction.arrays import from_array, from_tensor, is_tensor
from vggfeat.extraction.images import as_file

RGB = photo(6, 7, seed=0)
GREY = RGB[:, :, 0]
ALPHA = np.dstack([RGB, GREY])
ON_BLACK = np.asarray(
    Image.alpha_composite(Image.new("RGBA", (7, 6), (0, 0, 0, 255)), Image.fromarray(ALPHA))
)[:, :, :3]
GREYS = np.repeat(GREY[:, :, None], 3, axis=2)


def pixels(image: Image.Image) -> np.ndarray[Any, Any]:
    """The (H, W, 3) that is described."""
    with Image.open(io.BytesIO(as_file(image, "image"))) as opened:
        return np.asarray(opened)


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (RGB, RGB),
        (RGB[:, ::-1], RGB[:, ::-1]),
        (np.asfortranarray(RGB), RGB),
        (GREY, GREYS),
        (GREY[:, :, None], GREYS),
        (ALPHA, ON_BLACK),
        (RGB / 255, RGB),
        ((RGB / 255).astype(np.float32), RGB),
        (GREY / 255, GREYS),
        (ALPHA / 255, ON_BLACK),
        (np.zeros((2, 3)), np.zeros((2, 3, 3))),
        (GREY.astype(np.uint16) * 257, GREYS),
        (RGB.astype(np.uint16) * 257, RGB),
        (ALPHA.astype(np.uint16) * 257, ON_BLACK),
    ],
)
def test_an_array_has_the_pixels_that_it_means(
    array: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]
) -> None:
    assert np.array_equal(pixels(from_array(array, "image")), expected)


def test_grey_of_16_bits_is_scaled_as_in_a_file() -> None:
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    assert np.array_equal(pixels(from_array(values, "x")), pixels(Image.fromarray(values)))


@pytest.mark.parametrize(
    ("tensor", "expected"),
    [
        (torch.tensor(RGB).permute(2, 0, 1), RGB),
        (torch.tensor(RGB).permute(2, 0, 1).contiguous() / 255, RGB),
        (torch.tensor(RGB).permute(2, 0, 1).double().requires_grad_() / 255, RGB),
        (torch.tensor(GREY)[None], GREYS),
        (torch.tensor(GREY) / 255, GREYS),
        (torch.tensor(ALPHA).permute(2, 0, 1) / 255, ON_BLACK),
        (torch.tensor([[0, 0.5], [0.25, 1]], dtype=torch.bfloat16), None),
    ],
)
def test_a_tensor_has_the_pixels_that_it_means(
    tensor: torch.Tensor, expected: np.ndarray[Any, Any] | None
) -> None:
    found = pixels(from_tensor(tensor, "image"))
    if expected is None:
        assert found[:, :, 1].tolist() == [[0, 128], [64, 255]]
    else:
        assert np.array_equal(found, expected)


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (RGB.transpose(2, 0, 1), r"shape \(3, 6, 7\), as if its channels came first\..*transpose"),
        (GREY[None], r"shape \(1, 6, 7\), as if .* first"),
        (np.zeros((5, 6, 7), np.uint8), r"shape \(5, 6, 7\)\. Expected \(H, W\).*as a list"),
        (np.zeros((6, 7, 2), np.uint8), r"shape \(6, 7, 2\)\."),
        (np.zeros(7, np.uint8), r"shape \(7,\)"),
        (RGB[None], r"shape \(1, 6, 7, 3\)"),
        (RGB[:0], "no pixels"),
        (RGB.astype(np.float32), r"float32 from \d+ to \d+\. .* Divide them by 255"),
        (RGB / 255 - 0.5, r"float64 from -0\.\d+ to 0\.\d+\. .* Undo what normalises"),
        (RGB * 1000.0, r"Undo what normalises"),
        (np.full((2, 2), np.nan), r"from nan to nan"),
        (RGB.astype(np.int64), r"int64 from .*astype\(np\.uint8\)"),
        (RGB.astype(np.int32) * 300, r"int32 from .*Scale them"),
        (RGB.astype(np.uint16), r"uint16 from \d+ to 2\d\d\. .*astype\(np\.uint8\)"),
        (RGB.astype(np.uint16) * 16, r"uint16 from \d+ to \d{4}\. .* Scale them so that white"),
        (RGB > 9, r"the type bool\. Expected uint8"),
        (RGB.astype(complex), r"complex128"),
    ],
)
def test_an_array_that_leaves_it_open_is_refused(array: np.ndarray[Any, Any], said: str) -> None:
    with pytest.raises(InputError, match=f"^image .*{said}"):
        from_array(array, "image")


@pytest.mark.parametrize(
    ("tensor", "said"),
    [
        (torch.tensor(RGB), r"shape \(6, 7, 3\), as if its channels came last\..*permute"),
        (torch.zeros(5, 6, 7), r"shape \(5, 6, 7\)\. Expected \(C, H, W\).*\(N, C, H, W\)"),
        (torch.zeros(1, 3, 6, 7), r"shape \(1, 3, 6, 7\)"),
        (torch.zeros(3, 0, 7), "no pixels"),
        (torch.tensor(RGB).permute(2, 0, 1).float(), "float64 from .* Divide them by 255"),
        (torch.randn(3, 6, 7), "Undo what normalises"),
        (torch.zeros(3, 6, 7, dtype=torch.int64), r"int64 .*astype\(np\.uint8\)"),
    ],
)
def test_a_tensor_that_leaves_it_open_is_refused(tensor: torch.Tensor, said: str) -> None:
    with pytest.raises(InputError, match=said):
        from_tensor(tensor, "image")


def test_a_tensor_is_told_from_an_array() -> None:
    assert is_tensor(torch.zeros(1))
    assert not is_tensor(np.zeros(1))
