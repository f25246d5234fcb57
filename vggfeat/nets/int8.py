"""A VGG net in 8-bit integers on the CPU, with OpenVINO: `pip install "vggfeat[int8]"`."""

from __future__ import annotations

import hashlib
import importlib
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, ClassVar, cast

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from vggfeat.errors import VggfeatError
from vggfeat.files.publish import publish_new
from vggfeat.nets.architectures import Layer, Pool
from vggfeat.nets.vgg import DenseVgg

if TYPE_CHECKING:
    import openvino

SCHEME = 1  # raised whenever the same net and images would be turned into other integers
_LIBRARY = "openvino"
_WEIGHT_LEVELS = 127  # symmetric, so that zero is exact
_ACTIVATION_LEVELS = 255  # all of them positive behind a ReLU
_PIXEL_LEVELS = 255
_CACHED_SHAPES = 256  # kernels that are kept, over all layers; OpenVINO's own limit is 5,000
_AT_ONCE = 256  # output channels whose weights are in float64
_METADATA = ("scheme", "runtime", "net", "pixels")


class Int8Unavailable(VggfeatError, ImportError):
    """This machine cannot run nets in 8 bits: the library or the instructions are missing."""


class CalibrationError(VggfeatError, ValueError):
    """A calibration is impossible, damaged, or another net's."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What decides the integers of a net, beside its weights. Two of the same bytes are equal.

    Attributes:
        peaks: Layer to the largest value that it gave.
        means: Layer to (channels,) float32, the mean of what it reads; of conv1_1, of the pixels
            from 0 to 255.
        net: Digest of the net's weights, preprocessing and tap.
        pixels: Digest of the images.
        runtime: "openvino" and its version.
    """

    peaks: dict[str, float]
    means: dict[str, Tensor]
    net: str
    pixels: str
    runtime: str

    def save(self, path: Path) -> bool:
        """Create a safetensors file; of several processes the first one wins, so `load` it then.

        Returns:
            Whether this call created it.

        Raises:
            PublishError: If it cannot be written.
        """
        tensors = {f"{name}.mean": mean for name, mean in self.means.items()}
        for name, peak in self.peaks.items():
            tensors[f"{name}.peak"] = torch.tensor(peak, dtype=torch.float64)
        about = {
            "scheme": str(SCHEME),
            "runtime": self.runtime,
            "net": self.net,
            "pixels": self.pixels,
        }
        return publish_new(path, safetensors.torch.save(tensors, about))

    @classmethod
    def load(cls, path: Path) -> Calibration:
        """Read what `save` has written. A safetensors file holds numbers and text, no code.

        Raises:
            CalibrationError: If it is damaged or not one of this scheme.
            FileNotFoundError: If there is none.
        """
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                about = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except safetensors.SafetensorError as error:
            raise _damaged(path, str(error)) from error
        if set(about) != set(_METADATA) or about["scheme"] != str(SCHEME):
            raise _damaged(path, f"its header has {about}")
        peaks, means = {}, {}
        for key, tensor in tensors.items():
            name, _, part = key.rpartition(".")
            whole = tensor.is_floating_point() and bool(torch.isfinite(tensor).all())
            if part not in {"mean", "peak"} or not whole or tensor.ndim != (part == "mean"):
                raise _damaged(path, f"{key!r} is not what it should be")
            if part == "mean":
                means[name] = tensor.float()
            else:
                peaks[name] = float(tensor)
        return cls(
            peaks=peaks,
            means=means,
            net=about["net"],
            pixels=about["pixels"],
            runtime=about["runtime"],
        )


@torch.inference_mode()
def calibrate(net: DenseVgg, images: Iterable[Tensor]) -> Calibration:
    """Run a net in float32 over some images and note what its layers give.

    Ranges end at the largest value seen, so that none of these images is clipped. The means
    serve to correct biases (Nagel et al. 2019, Sect. 4.2): rounded weights shift the mean of
    each channel, and the shift would stay in a descriptor, which is an average.

    Args:
        net: On the CPU.
        images: (b, H, W, 3) uint8 each, RGB, of any sizes; some 32, like those to be described.

    Returns:
        The calibration; running it twice gives the same up to the rounding of float32 sums.

    Raises:
        CalibrationError: If there is no image, or a value is not finite.
        Int8Unavailable: If the library is not installed.
        MapTooSmallError: If an image is too small.
    """
    installed = runtime()
    peaks: dict[str, float] = {}
    sums: dict[str, Tensor] = {}
    seen = _Digest()
    for image in images:
        seen.add(image)
        read = image.permute(0, 3, 1, 2).to(torch.float32)
        for name, given in net.activations(net.normalised(image)):
            if name in net.convolutions:
                peak = float(given.amax())
                if not np.isfinite(peak):
                    raise CalibrationError(
                        f"Calibration image {seen.count} gives a value that is not finite in "
                        f"layer {name!r}.",
                        "Every activation of a sound net is finite.",
                        "Check the weight file and its --profile.",
                    )
                peaks[name] = max(peak, peaks.get(name, 0.0))
                sums[name] = sums.get(name, torch.zeros(())) + read.double().mean(dim=(0, 2, 3))
            read = given
    if not seen.count:
        raise CalibrationError("No image to calibrate with.", "Some 32 are needed.")
    means = {name: (total / seen.count).float() for name, total in sums.items()}
    return Calibration(
        peaks=peaks,
        means=means,
        net=_net_digest(net),
        pixels=seen.hexdigest(),
        runtime=installed,
    )


class Int8Vgg:
    """Uint8 RGB images in, global averages of one tap out, like `DenseVgg`, but in 8 bits.

    Weights have one scale per output channel, activations one per layer; products are summed in
    32-bit integers, exactly. Pixels enter as they are, the mean is in the biases of conv1_1. The
    last layer, its ReLU and the average are in float32; therefore a net of another tap is another
    net in 8 bits, and none serves two.

    Args:
        net: The net, on the CPU, with one tap; it may be deleted afterwards.
        calibration: Of the same net.
        threads: Of OpenVINO.

    Raises:
        CalibrationError: If the calibration is another net's or another library's.
        Int8Unavailable: If the library is not installed or the processor too old.
    """

    allocates: ClassVar = False

    def __init__(self, net: DenseVgg, calibration: Calibration, threads: int) -> None:
        assert len(net.taps) == 1, "one tap for one net in 8 bits"
        installed = runtime()
        if calibration.runtime != installed:
            raise CalibrationError(
                f"The 8-bit net was calibrated for {calibration.runtime}.",
                f"This is {installed}, which may round differently.",
                "Install that version, or calibrate and extract again.",
            )
        channels = {name: (_parts(c)[0].shape[1],) for name, c in net.convolutions.items()}
        fits = channels == {name: tuple(mean.shape) for name, mean in calibration.means.items()}
        fits = fits and set(channels) == set(calibration.peaks)
        if not fits or calibration.net != _net_digest(net):
            raise CalibrationError(
                "The calibration belongs to another net.",
                "Weights, preprocessing and tap must be those it was made with.",
                "Calibrate again.",
            )
        self._profile, self._tap = net.profile, net.tap
        self._border = _pixel_statistics(net)[0].round().to(torch.uint8)
        self._request = _compiled(_Graph(net, calibration).model(), threads)

    def __call__(
        self,
        images: Sequence[Tensor],
        canvas: tuple[int, int],
        *,
        mirror: bool,
        taps: Sequence[str] = (),
    ) -> tuple[Tensor]:
        """Describe images, as the other forms of the net do.

        Args:
            images: b of them, each (H, W, 3) uint8, RGB, of one size.
            canvas: That size.
            mirror: Average with the descriptor of the horizontal flip.
            taps: None, or the net's.

        Returns:
            (b, D) float32, not normalised.

        Raises:
            MapTooSmallError: If the images are too small.
            ValueError: If an image is not of that size.
        """
        assert not set(taps) - {self._tap.name}, "it has one tap"
        sizes = {tuple(image.shape) for image in images}
        if sizes != {(*canvas, 3)}:
            message = f"expected images of {canvas}, got {sizes}"
            raise ValueError(message)
        batch = torch.stack(list(images))
        if not mirror:
            return (self.averages(batch),)
        both = self.averages(torch.cat([batch, batch.flip(2)]))
        return ((both[: len(images)] + both[len(images) :]) / 2,)

    def averages(self, images: Tensor) -> Tensor:
        """Describe images; the result of one does not depend on the others in the batch.

        Args:
            images: (b, H, W, 3) uint8, RGB, all of one size, on the CPU.

        Returns:
            (b, D) float32, not normalised.

        Raises:
            MapTooSmallError: If the images are too small.
            ValueError: If `images` has another shape or type.
        """
        if images.ndim != 4 or images.shape[3] != 3 or images.dtype != torch.uint8:
            message = f"expected (b, H, W, 3) uint8, got {tuple(images.shape)} {images.dtype}"
            raise ValueError(message)
        count, height, width, _ = images.shape
        self._tap.check(height, width, self._profile.ceil_mode)
        framed = self._border.repeat(count, height + 2, width + 2, 1)
        framed[:, 1:-1, 1:-1] = images
        described = self._request.infer([framed.numpy()], share_inputs=True)
        return torch.from_numpy(np.array(described[0]))


class _Graph:
    """The net as OpenVINO's operations, its weights as integers."""

    def __init__(self, net: DenseVgg, calibration: Calibration) -> None:
        self._net, self._calibration = net, calibration
        self._openvino = _import("openvino")
        self._op = _import("openvino.opset13")
        self._last = list(net.convolutions)[-1]

    def model(self) -> openvino.Model:
        """Return the whole: (b, H + 2, W + 2, 3) uint8 in, (b, D) float32 out."""
        op, net = self._op, self._net
        images = op.parameter([-1, -1, -1, 3], self._openvino.Type.u8)
        x = op.convert(op.transpose(images, self._constant([0, 3, 1, 2])), "f32")
        x = self._rounded(x, _PIXEL_LEVELS, _PIXEL_LEVELS)
        rounding = "ceil" if net.profile.ceil_mode else "floor"
        for part in net.architecture.parts(net.tap.layer):
            if isinstance(part, Pool):
                x = op.max_pool(x, [2, 2], [1, 1], [0, 0], [0, 0], [2, 2], rounding).output(0)
            else:
                x = self._layer(part, x)
        x = op.reduce_mean(x, self._constant([2, 3]), False)
        return self._openvino.Model([x], [images], "vgg")

    def _layer(self, layer: Layer, x: openvino.Output) -> openvino.Output:
        """Return convolution, bias, ReLU, and the rounding to 8 bits unless it is the last."""
        op, name = self._op, layer.name
        weight, scale, bias = _integers(self._net, self._calibration, name)
        padding = 0 if name == "conv1_1" else layer.padding  # its pixels come framed
        weight = op.multiply(op.convert(self._constant(weight), "f32"), self._constant(scale))
        frame = [padding, padding]
        x = op.convolution(x, weight, [1, 1], frame, frame, [1, 1])
        x = op.add(x, self._constant(bias))
        if name == self._net.tap.layer and not self._net.tap.rectified:
            return x
        x = op.relu(x)
        if self._net.architecture.lrn and name == "conv1_1":
            n, k, alpha, beta = 5, 2.0, 1e-4, 0.75  # as DenseVgg; OpenVINO divides α by n too
            x = op.lrn(x, self._constant([1]), alpha * n, beta, k, n)
        if name == self._last:
            return x
        return self._rounded(x, self._calibration.peaks[name], _ACTIVATION_LEVELS)

    def _rounded(self, x: openvino.Output, peak: float, levels: int) -> openvino.Output:
        """Return x on `levels` steps from 0 to `peak`; a layer that is always 0 needs no range."""
        low, high = (self._constant(np.float32(value)) for value in (0, peak or 1))
        return self._op.fake_quantize(x, low, high, low, high, levels + 1)

    def _constant(self, values: npt.ArrayLike) -> openvino.Node:
        return self._op.constant(np.asarray(values))


def _integers(
    net: DenseVgg, calibration: Calibration, name: str
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return a layer's weight in integers, its scales, and the bias that makes up for rounding.

    With w the weights, v the rounded ones and E[x] the mean input, both summed over the window,
    b + (w - v)·E[x] keeps the mean output. conv1_1 reads pixels p instead of (p - mean) / std:
    w is divided by std, E[x] = E[p] - mean, and v·mean is subtracted from the bias.

    Returns:
        (out, in, k, k) int8; (out, 1, 1, 1) float32; (1, out, 1, 1) float32.
    """
    weight, bias = _parts(net.convolutions[name])
    mean = calibration.means[name].double()
    shift, std = torch.zeros_like(mean), torch.ones_like(mean)
    if name == "conv1_1":
        shift, std = _pixel_statistics(net)
        mean = mean - shift
    parts = []
    for some, biases in zip(*(torch.split(part, _AT_ONCE) for part in (weight, bias)), strict=True):
        w = some.double() / std.view(1, -1, 1, 1)
        scale = w.abs().amax(dim=(1, 2, 3), keepdim=True) / _WEIGHT_LEVELS
        scale = torch.where(scale > 0, scale, 1.0).float()
        integers = (w / scale).round().clamp(-_WEIGHT_LEVELS, _WEIGHT_LEVELS)
        v = (integers * scale.double()).sum(dim=(2, 3))
        corrected = biases.double() + (w.sum(dim=(2, 3)) - v) @ mean - v @ shift
        parts.append((integers.to(torch.int8).contiguous(), scale, corrected.float()))
    whole, scales, biases = (torch.cat(part) for part in zip(*parts, strict=True))
    return whole.numpy(), scales.numpy(), biases.view(1, -1, 1, 1).numpy()


def _pixel_statistics(net: DenseVgg) -> tuple[Tensor, Tensor]:
    """Return mean and std, (3,) float64 each, for pixels from 0 to 255."""
    factor = 255 if net.profile.unit_range else 1
    return torch.tensor(net.profile.mean).double() * factor, net.std.flatten().double() * factor


def _compiled(model: openvino.Model, threads: int) -> openvino.InferRequest:
    """Return what runs a model in a bounded amount of memory, and the same way everywhere."""
    core = _import("openvino").Core()
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "INFERENCE_PRECISION_HINT": "f32",  # what is not in integers; bfloat16 by default
        "ENABLE_CPU_PINNING": False,  # several processes would all sit on the first cores
        "CPU_RUNTIME_CACHE_CAPACITY": _CACHED_SHAPES,
    }
    return core.compile_model(model, "CPU", settings).create_infer_request()


def runtime() -> str:
    """Return the library's name and version, without loading it.

    Raises:
        Int8Unavailable: If it is not installed, or the processor would compute wrong sums.
    """
    cpu = Path("/proc/cpuinfo")
    if platform.machine() == "x86_64" and cpu.is_file() and "vnni" not in cpu.read_text():
        raise Int8Unavailable(
            "This processor has no 8-bit dot product: it would add in 16 bits, and overflow.",
            "Expected AVX512-VNNI or AVX-VNNI.",
            "Choose another --precision.",
        )
    try:
        return f"{_LIBRARY} {metadata.version(_LIBRARY)}"
    except metadata.PackageNotFoundError as error:
        raise _not_installed() from error


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise _not_installed() from error


def _not_installed() -> Int8Unavailable:
    return Int8Unavailable(
        "--precision int8 needs the package openvino, which is not installed.",
        remedy='Type `pip install "vggfeat[int8]"`, or choose another --precision.',
    )


def _damaged(path: Path, reason: str) -> CalibrationError:
    return CalibrationError(
        f"'{path}' is no calibration of an 8-bit net: {reason}.",
        f"Expected one of scheme {SCHEME}.",
        "Remove it, and what was extracted with it.",
    )


def _net_digest(net: DenseVgg) -> str:
    """Return the SHA-256 of all that the integers are computed from, calibration left out."""
    about = (net.architecture.name, net.tap.name, net.profile)
    digest = hashlib.sha256(repr(about).encode())
    for convolution in net.convolutions.values():
        for part in _parts(convolution):
            digest.update(part.float().contiguous().numpy().data)
    return digest.hexdigest()


def _parts(convolution: nn.Module) -> tuple[Tensor, Tensor]:
    """Return weight and bias."""
    layer = cast(nn.Conv2d, convolution)
    assert layer.bias is not None
    return layer.weight.detach(), layer.bias.detach()


class _Digest:
    """The SHA-256 of the images seen so far: of each one's shape and pixels, in order."""

    def __init__(self) -> None:
        self.count = 0
        self._digest = hashlib.sha256()

    def add(self, image: Tensor) -> None:
        if image.ndim != 4 or image.shape[3] != 3 or image.dtype != torch.uint8:
            message = f"expected (b, H, W, 3) uint8, got {tuple(image.shape)} {image.dtype}"
            raise ValueError(message)
        self.count += 1
        self._digest.update(f"{tuple(image.shape)}".encode())
        self._digest.update(image.contiguous().numpy().data)

    def hexdigest(self) -> str:
        return self._digest.hexdigest()
