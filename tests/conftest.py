"""What many tests share: isolation from the user's caches, real data, small data sets."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings
from PIL import Image
from torch import Tensor

from tests.support.travel import itself
from vggfeat.nets.forms import FORMS

# How long an example takes says nothing: another job may have the cores.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real images and lists; tests that need it are skipped where it is not."""
    if not SHARED.is_dir():
        pytest.skip("../shared/data is not here")
    return SHARED


_Value = TypeVar("_Value")


@pytest.fixture(scope="session")
def elsewhere() -> Iterator[Callable[[_Value], _Value]]:
    """Send a value to another process, as a pool of workers would, and get it back from there."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:

        def travelled(value: _Value) -> _Value:
            return pool.submit(itself, value).result()

        yield travelled


@pytest.fixture(autouse=True)
def _own_caches(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the user's caches and settings out of the tests, and the tests out of them."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.delenv("TORCH_HOME", raising=False)
    monkeypatch.setenv("VGGFEAT_OFFLINE", "1")


@pytest.fixture(autouse=True)
def _quiet_root() -> Iterator[None]:
    """Take the command line's log handler away again after each test."""
    yield
    logging.getLogger("vggfeat").handlers.clear()


def photo(
    height: int, width: int, seed: int
) -> np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]:
    """Return something like a photo: smooth blobs with some texture, (H, W, 3) uint8."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (5, 6, 3), dtype=np.uint8)
    smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    noise = random.normal(0, 12, (height, width, 3))
    return np.clip(np.asarray(smooth) + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def voc_photos() -> list[bytes]:
    """Files of VOC 2007's kind: real ones where they are here, generated ones elsewhere."""
    real = sorted(SHARED.glob("voc2007-mini/VOCdevkit/VOC2007/JPEGImages/*.jpg"))
    return [path.read_bytes() for path in real] or [_jpeg(375, 500, seed) for seed in range(20)]


def _jpeg(height: int, width: int, seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(photo(height, width, seed)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


SIZES = ((90, 120), (120, 90), (100, 100), (90, 120), (80, 130), (96, 128))


@pytest.fixture
def tiny_voc(tmp_path: Path) -> Path:
    """A tree in true VOC layout: 24 images, 3 classes, difficult ones among them."""
    root = tmp_path / "voc"
    (root / "JPEGImages").mkdir(parents=True)
    lists = root / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    parts = {"train": range(1, 9), "val": range(9, 15), "test": range(15, 25)}
    for part, numbers in parts.items():
        (lists / f"{part}.txt").write_text("".join(f"{n:06d}\n" for n in numbers))
        for k, name in enumerate(("cat", "dog", "emu")):
            rows = [(n, 0 if (n + k) % 7 == 0 else 1 if n % 3 == k else -1) for n in numbers]
            text = "".join(f"{n:06d} {label:2d}\n" for n, label in rows)
            (lists / f"{name}_{part}.txt").write_text(text)
    for n in range(1, 25):
        pixels = photo(*SIZES[n % len(SIZES)], seed=n)
        pixels[:, :, n % 3] //= 2  # a class is a tint, so that there is something to learn
        Image.fromarray(pixels).save(root / "JPEGImages" / f"{n:06d}.jpg", quality=90)
    return root


@pytest.fixture
def forwards(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of image sides of every forward pass, as they happen."""
    counted: list[int] = []

    def count(form: type) -> None:
        original = form.__call__

        def counting(
            self: object, images: Sequence[Tensor], *args: object, mirror: bool, **taps: object
        ) -> tuple[Tensor, ...]:
            counted.append(len(images) * (2 if mirror else 1))
            described: tuple[Tensor, ...] = original(self, images, *args, mirror=mirror, **taps)
            return described

        monkeypatch.setattr(form, "__call__", counting)

    for form in FORMS:
        count(form)
    return counted


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Set torch's threads, and put them back."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
