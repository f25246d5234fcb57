from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import photo
from vggfeat.data.records import Item
from vggfeat.errors import ImageChangedError, ImageReadError, NonFiniteError, RecipeError
from vggfeat.extraction.engine import ExtractionPlan, Extractor, ShardTask
from vggfeat.extraction.images import rescale
from vggfeat.files.sources import FileSource
from vggfeat.nets.architectures import ARCHITECTURES
from vggfeat.nets.profile import PROFILES
from vggfeat.nets.vgg import DenseVgg
from vggfeat.nets.winograd import RaggedVgg
from vggfeat.store.rows import Rows, Status
from vggfeat.weights.find import random_tensors

NET = ARCHITECTURES["vgg16-thin"]
SCALES = (224, 256)
BOUND = 1e-5


def net() -> DenseVgg:
    return DenseVgg(NET, random_tensors(NET, 0), PROFILES["oxford"])


def plan(**changed: object) -> ExtractionPlan:
    fields: dict[str, object] = {
        "scales": SCALES,
        "mirror": True,
        "interpolation": "bilinear",
        "resampler": "pillow",
        "precision": "float32",
        "canvas": None,
        "window_pixels": 1 << 22,
        "batch_pixels": 1 << 19,
        "threads": 2,
    }
    return ExtractionPlan(**{**fields, **changed})  # type: ignore[arg-type]  # by name


def task(paths: Sequence[Path], **known: object) -> ShardTask:
    items = [Item(path.name, FileSource(path)) for path in paths]
    digests = [
        hashlib.sha256(p.read_bytes()).hexdigest() if p.is_file() else "0" * 64 for p in paths
    ]
    return ShardTask(number=0, items=items, sha256=digests, **known)  # type: ignore[arg-type]  # by name


def describe(
    paths: Sequence[Path], *, workers: int = 2, on_error: str = "record", **changed: object
) -> Rows:
    extractor = Extractor(net(), plan(**changed), workers=workers, on_error=on_error)  # type: ignore[arg-type]  # one test passes each
    [(_, (rows,))] = extractor.run([task(paths)])
    return rows


def raw(rows: Rows) -> np.ndarray:
    return rows.descriptors.astype(np.float64) * rows.norms[:, :, None].astype(np.float64)


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return float((np.linalg.norm(a - b, axis=-1) / np.linalg.norm(b, axis=-1)).max())


@torch.inference_mode()
def reference(paths: Sequence[Path], *, mirror: bool = True) -> np.ndarray:
    """One image, one scale, one side at a time, channels first, on one thread."""
    dense = net().to(memory_format=torch.contiguous_format)
    described = np.empty((len(paths), len(SCALES), 512))
    for row, path in enumerate(paths):
        photo = Image.open(path).convert("RGB")
        for s, q in enumerate(SCALES):
            image = torch.from_numpy(rescale(photo, q).copy())[None]
            sides = [image, image.flip(2)] if mirror else [image]
            maps = [dense.feature_map(dense.normalised(side).contiguous()) for side in sides]
            described[row, s] = np.mean([m.double().mean(dim=(2, 3))[0].numpy() for m in maps], 0)
    return described


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    sizes = [(90, 120), (120, 90), (90, 120), (90, 120), (100, 133), (70, 100), (90, 120)]
    paths = []
    for seed, size in enumerate(sizes):
        paths.append(tmp_path / f"{seed}.png")
        Image.fromarray(photo(*size, seed=seed)).save(paths[-1])
    return paths


@pytest.mark.slow
@pytest.mark.parametrize("mirror", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_rows_are_those_of_one_image_at_a_time(photos: list[Path], mirror: bool) -> None:
    rows = describe(photos, mirror=mirror)
    assert distance(raw(rows), reference(photos, mirror=mirror)) <= BOUND
    assert np.allclose(np.linalg.norm(rows.descriptors, axis=2), 1, atol=1e-6)
    assert rows.status.tolist() == [Status.OK] * len(photos)
    assert rows.image_size.tolist()[:2] == [[90, 120], [120, 90]]


@pytest.mark.slow
@pytest.mark.parametrize(
    "changed",
    [
        {"batch_pixels": 1},
        {"threads": 3},
        *(
            pytest.param(changed, marks=pytest.mark.slow)
            for changed in (
                {"batch_pixels": 1 << 24},
                {"window_pixels": 1},
                {"threads": 1},
                {"workers": 1},
                {"workers": 8},
            )
        ),
    ],
)
def test_batches_windows_threads_and_workers_change_no_bit(
    photos: list[Path], changed: dict[str, int], threads: Callable[[int], None]
) -> None:
    threads(2)
    found, expected = describe(photos, **changed), describe(photos)  # type: ignore[arg-type]  # ints
    assert found.descriptors.tobytes() == expected.descriptors.tobytes()
    assert found.norms.tobytes() == expected.norms.tobytes()


@pytest.mark.slow
@pytest.mark.parametrize(
    "canvas", [32, *(pytest.param(step, marks=pytest.mark.slow) for step in (1, 64))]
)
def test_reduced_precision_on_canvases_stays_near(photos: list[Path], canvas: int) -> None:
    reduced = describe(photos, precision="bfloat16", canvas=canvas)
    exact = reference(photos)
    assert BOUND < distance(raw(reduced), exact) < 2e-2
    cosine = (raw(reduced) * exact).sum(axis=2)
    cosine /= np.linalg.norm(raw(reduced), axis=2) * np.linalg.norm(exact, axis=2)
    assert (1 - cosine).max() < 1e-4


@pytest.mark.slow
def test_the_net_s_device_can_rescale(photos: list[Path]) -> None:
    ours, pillows = raw(describe(photos, resampler="torch")), raw(describe(photos))
    assert BOUND < distance(ours, pillows) < 2e-2


def test_a_precision_for_gpus_is_refused_on_the_cpu() -> None:
    for precision in ("tf32", "float16"):
        with pytest.raises(RecipeError, match=f"precision = '{precision}' on the CPU"):
            Extractor(net(), plan(precision=precision), workers=1)


def test_whoever_takes_the_rows_keeps_his_own_settings_of_torch(
    photos: list[Path], monkeypatch: pytest.MonkeyPatch, threads: Callable[[int], None]
) -> None:
    def settings() -> tuple[object, ...]:
        return torch.backends.cudnn.deterministic, torch.get_num_threads()

    meanwhile = []
    convolved = RaggedVgg.__call__

    def noting(*args: Any, **named: Any) -> tuple[torch.Tensor, ...]:  # noqa: ANN401  (passed on)
        meanwhile.append(settings())
        return convolved(*args, **named)

    monkeypatch.setattr(RaggedVgg, "__call__", noting)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    threads(3)
    for _ in Extractor(net(), plan(threads=2), workers=1).run([task(photos[:1]), task(photos[1:])]):
        assert settings() == (False, 3)
    assert settings() == (False, 3)
    assert set(meanwhile) == {(True, 2)}


@pytest.mark.slow
def test_the_same_plan_gives_the_same_bytes(photos: list[Path]) -> None:
    first, second = describe(photos), describe(photos, workers=5)
    assert first.descriptors.tobytes() == second.descriptors.tobytes()
    assert first.norms.tobytes() == second.norms.tobytes()


@pytest.mark.slow
def test_real_photos_stay_within_the_bound(shared: Path) -> None:
    folder = shared / "voc2007-mini" / "VOCdevkit" / "VOC2007" / "JPEGImages"
    paths = sorted(folder.glob("*.jpg"))[:6]
    assert distance(raw(describe(paths)), reference(paths)) <= BOUND


def test_a_mirrored_image_has_the_same_descriptor(photos: list[Path], tmp_path: Path) -> None:
    flipped = tmp_path / "flipped.png"
    Image.open(photos[0]).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(flipped)
    pair = [photos[0], flipped]
    both = raw(describe(pair))
    assert distance(both[:1], both[1:]) <= 1e-3  # Pillow's rescaling of a mirror image may round
    same_size = raw(describe(pair, scales=(90 * 3,), mirror=True))
    assert distance(same_size[:1], same_size[1:]) <= 1e-3
    single = raw(describe(pair, mirror=False))
    assert distance(single[:1], single[1:]) > 1e-2


def test_mirrored_pixels_at_the_net_give_the_same_descriptor(tmp_path: Path) -> None:
    pixels = photo(224, 300, seed=3)  # already at Q: nothing is rescaled
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    Image.fromarray(pixels).save(paths[0])
    Image.fromarray(pixels[:, ::-1]).save(paths[1])
    both = raw(describe(paths, scales=(224,)))
    assert distance(both[:1], both[1:]) <= BOUND
    single = raw(describe(paths, scales=(224,), mirror=False))
    assert distance(single[:1], single[1:]) > 1e-2


@pytest.mark.slow
def test_unreadable_images_are_rows_of_nan_with_their_reason(photos: list[Path]) -> None:
    good = describe(photos)
    photos[1].write_bytes(b"")
    photos[3].write_bytes(photos[3].read_bytes()[:1000])
    photos[5].unlink()
    rows = describe(photos)
    assert rows.status.tolist() == [0, 1, 0, 1, 0, 1, 0]
    assert set(rows.errors) == {"1.png", "3.png", "5.png"}
    assert rows.errors["1.png"] == "it is empty"
    assert np.isnan(rows.descriptors[[1, 3, 5]]).all()
    assert np.isnan(rows.norms[[1, 3, 5]]).all()
    assert np.array_equal(rows.descriptors[[0, 2, 4, 6]], good.descriptors[[0, 2, 4, 6]])


@pytest.mark.parametrize("content", [b"", b"text", None])
def test_on_error_raise_stops_at_the_first(photos: list[Path], content: bytes | None) -> None:
    photos[2].write_bytes(photos[2].read_bytes()[:2000] if content is None else content)
    with pytest.raises(ImageReadError, match=r"'2.png' cannot be read"):
        describe(photos, on_error="raise")


def test_a_file_that_changes_under_way_stops_the_run(photos: list[Path]) -> None:
    planned = task(photos)
    Image.fromarray(photo(90, 120, seed=99)).save(photos[4])
    extractor = Extractor(net(), plan(), workers=2)
    with pytest.raises(ImageChangedError, match=r"'4.png' changed"):
        list(extractor.run([planned]))


def test_a_value_that_is_not_finite_names_image_and_layer(photos: list[Path]) -> None:
    broken = net()
    broken.get_parameter("convolutions.conv3_2.bias").data[0] = float("inf")
    with pytest.raises(NonFiniteError, match=r"'\d.png' .* first in layer 'conv3_2'"):
        list(Extractor(broken, plan(), workers=2).run([task(photos)]))


def test_a_descriptor_of_zero_is_stored_as_zeros(photos: list[Path]) -> None:
    dead = net()
    dead.get_parameter("convolutions.fc7.bias").data.fill_(-1e9)
    [(_, (rows,))] = Extractor(dead, plan(), workers=2).run([task(photos)])
    assert not rows.descriptors.any()
    assert not rows.norms.any()
    assert rows.status.tolist() == [Status.ZERO] * len(photos)


def test_known_rows_are_not_computed_again(photos: list[Path], forwards: list[int]) -> None:
    known = {"fc7": {0: {0: (np.full(512, 0.5, np.float32), 7.0)}}}
    partly = task(photos[:2], known=known, known_sizes={0: (90, 120)})
    [(_, (rows,))] = Extractor(net(), plan(), workers=2).run([partly])
    assert sum(forwards) == 2 * 3  # both sides of (row 0, scale 1), (row 1, scales 0 and 1)
    assert (rows.descriptors[0, 0] == 0.5).all()
    assert rows.norms[0, 0] == 7
    assert np.array_equal(rows.descriptors[1:], describe(photos[:2]).descriptors[1:])


def test_every_image_is_told_of_once(photos: list[Path]) -> None:
    photos[1].write_bytes(b"")
    told: list[int] = []
    extractor = Extractor(net(), plan(window_pixels=1), workers=2, advance=told.append)
    list(extractor.run([task(photos), task(photos[:3])]))
    assert sum(told) == len(photos) + 3
