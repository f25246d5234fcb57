"""One line from Python: every kind of input has the descriptor of its path."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import vggfeat
from tests.conftest import photo
from vggfeat import VggDescriptor, describe
from vggfeat.errors import ImageNotFoundError, ImageReadError, InputError, RecipeError
from vggfeat.extraction import fill

THIN: dict[str, Any] = {"weights": "random:0", "scales": (224,), "mirror": False}
PIXELS = photo(90, 120, seed=3)


def thin(image: Any, **changed: Any) -> np.ndarray[Any, Any]:  # noqa: ANN401  (any kind)
    return describe(image, model="vgg16-thin", **{**THIN, **changed})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    Image.fromarray(PIXELS).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_every_kind_of_input_has_the_bits_of_its_path(path: Path) -> None:
    own = thin(path)
    assert own.shape == (512,)
    assert own.dtype == np.float32
    assert np.linalg.norm(own) == pytest.approx(1, abs=1e-6)
    first = torch.tensor(PIXELS).permute(2, 0, 1)
    with Image.open(path) as opened:
        kinds = (str(path), opened, PIXELS, PIXELS / 255, first, first / 255)
        for kind in kinds:
            assert np.array_equal(thin(kind), own), type(kind)
        assert np.array_equal(thin([*kinds, path]), np.tile(own, (7, 1)))
    transformer = VggDescriptor("vgg16-thin", **THIN)
    assert np.array_equal(transformer.transform([path, first, PIXELS / 255]), np.tile(own, (3, 1)))
    assert np.array_equal(thin(np.array([str(path)])), own[None])
    assert np.array_equal(thin(PIXELS[None]), own[None])
    assert np.array_equal(thin(first[None]), own[None])


def test_grey_and_alpha_have_the_bits_of_their_files(tmp_path: Path) -> None:
    grey, alpha = PIXELS[:, :, 0], np.dstack([PIXELS, PIXELS[:, :, 1]])
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(alpha).save(tmp_path / "alpha.png")
    from_files = thin([tmp_path / "grey.png", tmp_path / "alpha.png"])
    assert not np.array_equal(from_files[0], from_files[1])
    for one, other in ((grey, alpha), (grey[:, :, None] / 255, alpha / 255)):
        assert np.array_equal(thin([one, other]), from_files)


@pytest.mark.slow
def test_the_net_is_read_once_for_equal_arguments(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[object] = []
    original: Callable[..., Any] = fill._net

    def reading(jobs: object) -> Any:  # noqa: ANN401  (a net)
        read.append(jobs)
        return original(jobs)

    monkeypatch.setattr(fill, "_net", reading)
    first = thin(path, weights="random:7")
    assert np.array_equal(thin(PIXELS, weights="random:7"), first)
    assert np.array_equal(thin([PIXELS, photo(80, 80, 1)], weights="random:7")[0], first)
    assert len(read) == 1
    assert thin(path, weights="random:7", tap="pool5").shape == (64,)
    assert len(read) == 2
    assert not np.array_equal(thin(path, weights="random:8"), first)
    assert len(read) == 3
    assert np.array_equal(thin(path, weights="random:7"), first)  # one net is kept, no more
    assert len(read) == 4
    VggDescriptor("vgg16-thin", **{**THIN, "weights": "random:7"}).transform([path])
    assert len(read) == 5  # a transformer keeps none


def test_an_error_leaves_no_net_in_a_state_that_nobody_knows(path: Path, tmp_path: Path) -> None:
    own = thin(path)
    (tmp_path / "bad.png").write_bytes(b"")
    with pytest.raises(ImageReadError, match="it is empty"):
        thin(tmp_path / "bad.png")
    assert np.array_equal(thin(path), own)


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (PIXELS.transpose(2, 0, 1), r"^image is an array of shape \(3, 90, 120\), as if .* first"),
        (torch.tensor(PIXELS), r"^image is a tensor of shape \(90, 120, 3\), as if .* last"),
        (PIXELS.astype(np.float32), r"^image has values of the type float32 .* Divide them by 255"),
        ([PIXELS, PIXELS * 1.0], r"^image\[1\] has values of the type float64"),
        (b"\xff\xd8\xff", r"^image is of the type bytes"),
        ([], r"^image is empty: 0 images"),
        (None, r"^image is None"),
        ([3], r"^image\[0\] is of the type int"),
    ],
)
def test_what_leaves_it_open_is_refused(image: object, said: str) -> None:
    with pytest.raises(InputError, match=said):
        thin(image)


def test_what_is_not_there_is_an_error_unless_it_is_to_be_recorded(
    path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ImageNotFoundError, match=r"^image: there is no file '.*gone\.png'"):
        thin(tmp_path / "gone.png")
    x = thin([path, tmp_path / "gone.png"], on_error="record")
    assert np.isnan(x).all(axis=1).tolist() == [False, True]
    assert "gone.png is unreadable: No such file" in caplog.text


def test_settings_are_those_of_the_transformer(path: Path) -> None:
    with pytest.raises(RecipeError, match="Did you mean 'vgg16'"):
        describe(path, model="vgg61")
    with pytest.raises(TypeError, match="scale"):
        describe(path, model="vgg16-thin", scale=224)


@pytest.mark.slow
def test_other_settings_give_the_rows_of_the_transformer(path: Path) -> None:
    several = {**THIN, "scales": (224, 256)}
    own = VggDescriptor("vgg16-thin", **several).transform([path])
    assert np.array_equal(describe(path, "vgg16-thin", **several), own[0])


def test_an_image_of_one_colour_is_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "vggfeat")
    thin(np.zeros((50, 50), np.uint8))
    thin(PIXELS)
    [message] = caplog.messages
    assert message.startswith("1 images are of one colour throughout")


def test_it_stands_at_the_top_level() -> None:
    assert vggfeat.describe is describe
    assert "describe" in vggfeat.__all__
