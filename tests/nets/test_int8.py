from __future__ import annotations

import itertools
import platform
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save
from torch import Tensor

from tests.conftest import photo
from vggfeat.errors import MapTooSmallError
from vggfeat.nets import int8
from vggfeat.nets.architectures import ARCHITECTURES
from vggfeat.nets.int8 import Calibration, CalibrationError, Int8Unavailable, Int8Vgg, calibrate
from vggfeat.nets.profile import PROFILES
from vggfeat.nets.vgg import DenseVgg
from vggfeat.weights.find import random_tensors

BOUND = 3e-4  # 1 - cos to float32; the thin nets have few channels to average rounding over
SIZES = ((256, 341), (300, 256), (256, 256), (263, 355))


@pytest.fixture(autouse=True)
def _installed(request: pytest.FixtureRequest) -> None:
    if request.function in REFUSALS:
        return
    pytest.importorskip("openvino", reason='pip install "vggfeat[int8]"')
    try:
        int8.runtime()
    except Int8Unavailable as error:
        pytest.skip(str(error))


def thin(name: str = "vgg16-thin", profile: str = "oxford", tap: str = "fc7") -> DenseVgg:
    architecture = ARCHITECTURES[name]
    tensors = random_tensors(architecture, seed=0)
    generator = torch.Generator().manual_seed(0)
    for key, tensor in tensors.items():
        if key.endswith(".bias"):  # not zero, so that a forgotten one is noticed
            tensors[key] = torch.randn(tensor.shape, generator=generator) * 20
    return DenseVgg(architecture, tensors, PROFILES[profile], tap)


def generated(seed: int, height: int, width: int) -> Tensor:
    return torch.from_numpy(photo(height, width, seed))[None]


def part(net: DenseVgg, layer: str, name: str) -> Tensor:
    return net.get_parameter(f"convolutions.{layer}.{name}")


CALIBRATION = [generated(seed, *size) for seed, size in enumerate(SIZES)]
IMAGES = torch.cat([generated(seed, 271, 333) for seed in (10, 11, 12)])


def drift(a: Tensor, b: Tensor) -> float:
    return float((1 - torch.cosine_similarity(a.double(), b.double())).max())


@pytest.mark.slow
@pytest.mark.parametrize("tap", ["fc7", "fc7-linear", "fc6", "pool5"])
@pytest.mark.parametrize("profile", ["oxford", "torchvision"])
def test_it_is_near_the_float_net(profile: str, tap: str) -> None:
    net = thin(profile=profile, tap=tap)
    expected = net(IMAGES)
    described = Int8Vgg(net, calibrate(net, CALIBRATION), 2).averages(IMAGES)
    assert described.dtype == torch.float32
    assert described.shape == expected.shape
    assert drift(described, expected) < BOUND
    assert float((described - expected).norm() / expected.norm()) < 0.03


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vgg11-lrn-thin", "vgg16c-thin", "vgg13-bn-thin", "vgg19-thin"])
def test_every_kind_of_layer_is_near_the_float_net(name: str) -> None:
    net = thin(name)
    assert drift(Int8Vgg(net, calibrate(net, CALIBRATION), 2).averages(IMAGES), net(IMAGES)) < BOUND


@pytest.mark.slow
def test_real_images_differ_far_more_than_the_two_nets_do(shared: Path) -> None:
    folder = shared / "voc2007-mini" / "VOCdevkit" / "VOC2007" / "JPEGImages"
    images = []
    for path in sorted(folder.glob("*.jpg"))[:24]:
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB").resize((320, 256)))
        images.append(torch.from_numpy(pixels.copy())[None])
    net = thin()
    expected = torch.cat([net(image) for image in images[12:]])
    engine = Int8Vgg(net, calibrate(net, images[:12]), 2)
    described = torch.cat([engine.averages(image) for image in images[12:]])
    apart = min(drift(a[None], b[None]) for a, b in itertools.pairwise(expected))
    assert drift(described, expected) < BOUND
    assert 10 * drift(described, expected) < apart


@pytest.mark.slow
def test_the_mean_input_corrects_the_biases() -> None:
    net = thin()
    calibration = calibrate(net, CALIBRATION)
    mean = dict.fromkeys(("conv1_1",), torch.tensor(net.profile.mean))
    none = {name: torch.zeros_like(value) for name, value in calibration.means.items()} | mean
    without = Int8Vgg(net, replace(calibration, means=none), 2).averages(IMAGES)
    expected = net(IMAGES)
    assert drift(Int8Vgg(net, calibration, 2).averages(IMAGES), expected) < drift(without, expected)


@pytest.mark.slow
def test_neither_batch_nor_threads_nor_earlier_sizes_change_a_bit() -> None:
    net = thin()
    calibration = calibrate(net, CALIBRATION)
    engine = Int8Vgg(net, calibration, 2)
    together = engine.averages(IMAGES)
    kept = together.clone()
    engine.averages(CALIBRATION[0])
    alone = torch.cat([engine.averages(image[None]) for image in IMAGES])
    assert torch.equal(together, kept)  # a result is not overwritten by the next one
    assert torch.equal(together, alone)
    assert torch.equal(together, Int8Vgg(net, calibration, 1).averages(IMAGES))


@pytest.mark.slow
def test_images_may_be_flipped_views() -> None:
    net = thin()
    engine = Int8Vgg(net, calibrate(net, CALIBRATION), 2)
    assert torch.equal(
        engine.averages(IMAGES.flip(2)), engine.averages(IMAGES.flip(2).contiguous())
    )
    with torch.inference_mode():
        assert torch.equal(
            engine.averages(IMAGES[:, :, :300]), engine.averages(IMAGES[:, :, :300].contiguous())
        )


@pytest.mark.slow
def test_a_loaded_calibration_gives_the_same_bits(tmp_path: Path) -> None:
    net, path = thin(), tmp_path / "calibration.safetensors"
    calibration = calibrate(net, CALIBRATION)
    assert calibration.save(path)
    assert not calibrate(net, CALIBRATION[:1]).save(path)  # the first one stays
    loaded = Calibration.load(path)
    assert loaded.peaks == calibration.peaks
    assert loaded.pixels == calibration.pixels
    a, b = Int8Vgg(net, calibration, 2), Int8Vgg(net, loaded, 2)
    assert torch.equal(a.averages(IMAGES), b.averages(IMAGES))


def test_another_nets_or_librarys_calibration_is_refused() -> None:
    calibration = calibrate(thin(), CALIBRATION[:1])
    with pytest.raises(CalibrationError, match="another net"):
        Int8Vgg(thin(profile="torchvision"), calibration, 2)
    with pytest.raises(CalibrationError, match="another net"):
        Int8Vgg(thin(), replace(calibration, peaks={}), 2)
    with pytest.raises(CalibrationError, match=r"openvino 1\.0"):
        Int8Vgg(thin(), replace(calibration, runtime="openvino 1.0"), 2)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x04\x95pickle",
        save({"conv1_1.mean": torch.zeros(3)}),
        save(
            {"conv1_1.mean": torch.full((3,), np.nan)},
            {"scheme": str(int8.SCHEME), "runtime": "x", "net": "x", "pixels": "x"},
        ),
        save(
            {"conv1_1.peak": torch.zeros(3)},
            {"scheme": str(int8.SCHEME), "runtime": "x", "net": "x", "pixels": "x"},
        ),
    ],
    ids=["empty", "pickle", "bare", "nan", "shape"],
)
def test_a_damaged_file_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "calibration.safetensors"
    path.write_bytes(content)
    with pytest.raises(CalibrationError, match=r"calibration\.safetensors' is no calibration"):
        Calibration.load(path)


@pytest.mark.slow
def test_a_dead_layer_gives_what_its_biases_give() -> None:
    net = thin()
    part(net, "conv3_2", "weight").zero_()
    part(net, "conv3_2", "bias").zero_()
    engine = Int8Vgg(net, calibrate(net, CALIBRATION[:1]), 2)
    assert drift(engine.averages(IMAGES), net(IMAGES)) < BOUND


def test_a_value_that_is_not_finite_is_named() -> None:
    net = thin()
    part(net, "conv2_1", "weight")[0, 0, 0, 0] = np.inf
    with pytest.raises(CalibrationError, match="'conv2_1'"):
        calibrate(net, CALIBRATION[:1])


def test_without_images_there_is_no_calibration() -> None:
    with pytest.raises(CalibrationError, match="No image"):
        calibrate(thin(), [])


@pytest.mark.parametrize(("profile", "side"), [("oxford", 192), ("torchvision", 223)])
def test_too_small_images_are_refused(profile: str, side: int) -> None:
    net = thin(profile=profile)
    engine = Int8Vgg(net, calibrate(net, CALIBRATION[:1]), 2)
    with pytest.raises(MapTooSmallError):
        engine.averages(torch.zeros(1, side, 300, 3, dtype=torch.uint8))
    smallest = net.smallest_side()
    image = generated(0, smallest, smallest)
    assert drift(engine.averages(image), net(image)) < BOUND


@pytest.mark.slow
def test_images_of_one_size_and_their_mirrors_are_averaged() -> None:
    net = thin()
    engine = Int8Vgg(net, calibrate(net, CALIBRATION), 2)
    left, right = (engine.averages(side) for side in (IMAGES, IMAGES.flip(2)))
    assert torch.equal(engine(list(IMAGES), (271, 333), mirror=False)[0], left)
    assert torch.allclose(engine(list(IMAGES), (271, 333), mirror=True)[0], (left + right) / 2)
    with pytest.raises(ValueError, match="expected images of"):
        engine(list(IMAGES), (288, 352), mirror=True)


@pytest.mark.slow
def test_other_arrays_are_refused() -> None:
    net = thin()
    engine = Int8Vgg(net, calibrate(net, CALIBRATION[:1]), 2)
    for wrong in (IMAGES.float(), IMAGES[0], IMAGES.permute(0, 3, 1, 2)):
        with pytest.raises(ValueError, match="expected"):
            engine.averages(wrong)
        with pytest.raises(ValueError, match="expected"):
            calibrate(net, [wrong])


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", absent)
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    with pytest.raises(Int8Unavailable, match=r'pip install "vggfeat\[int8\]"'):
        calibrate(thin(), CALIBRATION[:1])


def test_a_processor_without_the_instructions_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(Path, "is_file", lambda path: True)
    monkeypatch.setattr(Path, "read_text", lambda path: "flags : fpu sse2 avx2")
    with pytest.raises(Int8Unavailable, match="no 8-bit dot product"):
        calibrate(thin(), CALIBRATION[:1])


REFUSALS = (  # what can be tested without the extra
    test_without_the_library_the_extra_is_named,
    test_a_processor_without_the_instructions_is_refused,
)
