"""The plain exact engine: one loop, decoding ahead of the net."""

from __future__ import annotations

import ctypes
import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from vggfeat.data.split import Item
from vggfeat.errors import ImageChangedError, ImageReadError, NonFiniteError, RecipeError
from vggfeat.extract import images
from vggfeat.extract.images import Interpolation, Pixels
from vggfeat.extract.ragged import Window, plan_windows
from vggfeat.nets.vgg import DenseVgg
from vggfeat.rows import Rows, Status

_log = logging.getLogger(__name__)

_TRIM_PIXELS = 1 << 19  # about two batches
# Larger blocks go back to the system at once. By default glibc raises this limit to 32 MB, and the
# holes that activations of ever new sizes leave in its heap grow with the number of images.
_MAPPED_BYTES = 4 << 20
_AHEAD = 2  # windows that are decoded before the net asks for them

# oneDNN keeps the code it generates for the last 1,024 shapes of a convolution; data sets have far
# more sizes than that, so that only memory would grow. It reads this at its first convolution.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
# Large pages make mapping and unmapping activations cheap; torch reads it at its first allocation.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")


@dataclass(frozen=True, kw_only=True)
class ExtractionPlan:
    """What decides the bytes of a shard, together with the shard's images and the net.

    Attributes:
        scales: S shorter sides Q, pixels.
        mirror: Average with the horizontal flip.
        interpolation: Filter of the rescaling.
        window_pixels: Rescaled pixels that are decoded together.
        batch_pixels: Image pixels in one forward pass, mirrors not counted.
        threads: Intra-op threads of torch on the CPU.
    """

    scales: tuple[int, ...]
    mirror: bool
    interpolation: Interpolation
    window_pixels: int
    batch_pixels: int
    threads: int


@dataclass(frozen=True, kw_only=True)
class ShardTask:
    """The images of one shard.

    Attributes:
        number: Of the shard.
        items: Its n images.
        sha256: n digests of their files, hexadecimal, as planned.
        known: Row to {scale index: (descriptor (D,), norm)} that need not be computed again.
        known_sizes: Row to (H, W) for the rows of `known`.
    """

    number: int
    items: Sequence[Item]
    sha256: Sequence[str]
    known: Mapping[int, Mapping[int, tuple[npt.NDArray[np.float32], float]]] = field(
        default_factory=dict
    )
    known_sizes: Mapping[int, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Decoded:
    """One row of a window: the image at each wanted scale, or why there is none."""

    pixels: Mapping[int, Pixels]
    error: ImageReadError | None = None


class Extractor:
    """Describes shards of images, one after the other.

    Args:
        net: Already on its device.
        plan: What decides the bytes.
        workers: Threads that decode and rescale; Pillow releases the interpreter lock for both.
        on_error: "record" an unreadable image as a NaN row, or "raise" at the first one.
        advance: Called with the number of images that have just been finished.
    """

    def __init__(
        self,
        net: DenseVgg,
        plan: ExtractionPlan,
        *,
        workers: int,
        on_error: Literal["record", "raise"] = "record",
        advance: Callable[[int], None] = lambda count: None,
    ) -> None:
        self.net = net
        self.plan = plan
        self.workers = workers
        self.on_error = on_error
        self.advance = advance
        self._since_trim = 0

    def run(self, tasks: Iterable[ShardTask]) -> Iterator[tuple[ShardTask, Rows]]:
        """Yield the rows of each task; the next one is decoded meanwhile.

        Raises:
            ImageReadError: With on_error "raise".
            ImageChangedError: If a file is not the planned one.
            NonFiniteError: If the net's output is not finite.
        """
        torch.set_num_threads(self.plan.threads)
        if _MALLOPT is not None:
            _MALLOPT(_M_MMAP_THRESHOLD, _MAPPED_BYTES)
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="decode")
        try:
            for shard, window, futures in _ahead(self._windows(pool, tasks), _AHEAD):
                if window is None:
                    yield shard.task, shard.finished()
                    continue
                decoded = {row: future.result() for row, future in futures.items()}
                self._describe(shard, window, decoded)
                self.advance(len(window.rows))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _windows(self, pool: ThreadPoolExecutor, tasks: Iterable[ShardTask]) -> Iterator[_Step]:
        """Yield the steps of every task, the decoding of each already under way."""
        for task in tasks:
            shard = _Shard(task, self.plan, self.net.architecture.descriptor_size(self.net.tap))
            wanted = {
                row: [s for s in range(len(self.plan.scales)) if s not in task.known.get(row, {})]
                for row in range(len(task.items))
            }
            rows = [row for row, scales in wanted.items() if scales]
            sizes = dict(
                zip(rows, pool.map(self._size, [task.items[r] for r in rows]), strict=True)
            )
            for row, size in sizes.items():
                if isinstance(size, ImageReadError):
                    shard.unreadable(row, size)
            readable = {row: size for row, size in sizes.items() if isinstance(size, tuple)}
            shard.sizes(readable)
            self.advance(len(task.items) - len(readable))
            for window in plan_windows(
                readable,
                wanted,
                self.plan.scales,
                window_pixels=self.plan.window_pixels,
                batch_pixels=self.plan.batch_pixels,
            ):
                yield (
                    shard,
                    window,
                    {
                        row: pool.submit(
                            self._decode,
                            task.items[row],
                            task.sha256[row],
                            readable[row],
                            wanted[row],
                        )
                        for row in window.rows
                    },
                )
            yield shard, None, {}

    def _size(self, item: Item) -> tuple[int, int] | ImageReadError:
        try:
            return images.read_size(item)
        except ImageReadError as error:
            return self._refused(error)

    def _decode(
        self, item: Item, sha256: str, size: tuple[int, int], scales: Sequence[int]
    ) -> _Decoded:
        try:
            data = images.read_bytes(item)
            if images.sha256(data).tobytes().hex() != sha256:
                raise ImageChangedError(item.id)
            image = images.decode(item, data)
            if (image.height, image.width) != size:
                raise ImageReadError(item.id, f"its header says {size}, its pixels otherwise")
        except ImageReadError as error:
            return _Decoded({}, self._refused(error))
        image = images.crop_extreme(image)
        return _Decoded(
            {s: images.rescale(image, self.plan.scales[s], self.plan.interpolation) for s in scales}
        )

    def _refused(self, error: ImageReadError) -> ImageReadError:
        if self.on_error == "raise":
            raise error
        return error

    def _describe(self, shard: _Shard, window: Window, decoded: Mapping[int, _Decoded]) -> None:
        for row, result in decoded.items():
            if result.error is not None:
                shard.unreadable(row, result.error)
        for batch in window.batches:
            rows = [row for row in batch.rows if decoded[row].error is None]
            if rows:
                pixels = np.stack([decoded[row].pixels[batch.scale] for row in rows])
                shard.fill(rows, batch.scale, self._descriptors(shard.task, rows, pixels))
                self._since_trim += pixels.size // 3
            if self._since_trim > _TRIM_PIXELS:
                _return_freed_memory()
                self._since_trim = 0

    @torch.inference_mode()
    def _descriptors(
        self, task: ShardTask, rows: Sequence[int], pixels: npt.NDArray[np.uint8]
    ) -> npt.NDArray[np.float64]:
        """Describe (b, H, W, 3) uint8 images of one size: (b, D), flip-averaged, un-normalised."""
        batch = torch.from_numpy(pixels).to(self.net.mean.device)
        if self.plan.mirror:
            batch = torch.cat([batch, batch.flip(2)])
        described = self.net(batch)
        if not torch.isfinite(described).all():
            broken = ~torch.isfinite(described).all(dim=1)
            raise self._non_finite(task, rows, batch, int(broken.nonzero()[0, 0]))
        values: npt.NDArray[np.float64] = described.double().cpu().numpy()
        return (values[: len(rows)] + values[len(rows) :]) / 2 if self.plan.mirror else values

    def _non_finite(
        self, task: ShardTask, rows: Sequence[int], batch: torch.Tensor, index: int
    ) -> NonFiniteError:
        layers = self.net.activations(self.net.normalised(batch[index : index + 1]))
        layer = next((name for name, x in layers if not torch.isfinite(x).all()), self.net.tap)
        return NonFiniteError(task.items[rows[index % len(rows)]].id, layer)


def torch_device(name: str) -> torch.device:
    """Return the device that a name of the command line means.

    Args:
        name: "auto", "cpu", "cuda" or "cuda:N".

    Raises:
        RecipeError: If it is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cpu":
        return torch.device("cpu")
    kind, _, number = name.partition(":")
    if kind != "cuda" or (number and not number.isdigit()):
        raise RecipeError(f"Unknown device {name!r}.", "Valid: auto, cpu, cuda, cuda:N.")
    count = torch.cuda.device_count()
    if int(number or 0) >= count:
        raise RecipeError(f"No device {name!r}: torch sees {count} GPUs.", remedy="--device cpu.")
    return torch.device(name)


class _Shard:
    """The rows of one task, filled by index."""

    def __init__(self, task: ShardTask, plan: ExtractionPlan, size: int) -> None:
        n, count = len(task.items), len(plan.scales)
        self.task = task
        self._descriptors = np.full((n, count, size), np.nan, dtype=np.float32)
        self._norms = np.full((n, count), np.nan, dtype=np.float32)
        self._size = np.zeros((n, 2), dtype=np.int32)
        self._errors: dict[int, str] = {}
        for row, known in task.known.items():
            self._size[row] = task.known_sizes[row]
            for scale, (descriptor, norm) in known.items():
                self._descriptors[row, scale] = descriptor
                self._norms[row, scale] = norm

    def sizes(self, sizes: Mapping[int, tuple[int, int]]) -> None:
        for row, size in sizes.items():
            self._size[row] = size

    def unreadable(self, row: int, error: ImageReadError) -> None:
        _log.warning("%s is unreadable: %s", error.image, error.reason)
        self._errors[row] = error.reason
        self._size[row] = 0
        self._descriptors[row] = np.nan
        self._norms[row] = np.nan

    def fill(self, rows: Sequence[int], scale: int, values: npt.NDArray[np.float64]) -> None:
        norms = np.linalg.norm(values, axis=1)
        unit = values / np.where(norms > 0, norms, 1)[:, None]
        self._descriptors[rows, scale] = unit
        self._norms[rows, scale] = norms

    def finished(self) -> Rows:
        """Return the rows, after checking that every one has been filled."""
        status = np.full(len(self.task.items), Status.OK, dtype=np.uint8)
        status[(self._norms == 0).any(axis=1)] = Status.ZERO
        status[list(self._errors)] = Status.UNREADABLE
        unfilled = np.isnan(self._norms).any(axis=1) & (status != Status.UNREADABLE)
        assert not unfilled.any(), f"rows {np.flatnonzero(unfilled)} were never computed"
        ids = tuple(item.id for item in self.task.items)
        digests = bytes.fromhex("".join(self.task.sha256))
        return Rows(
            image_id=ids,
            descriptors=self._descriptors,
            norms=self._norms,
            image_size=self._size,
            image_sha256=np.frombuffer(digests, dtype=np.uint8).reshape(-1, 32),
            status=status,
            errors={ids[row]: reason for row, reason in sorted(self._errors.items())},
        )


def _return_freed_memory() -> None:
    """Give back what the allocator keeps: activations of ever new sizes leave holes in its heap."""
    if _TRIM is not None:
        _TRIM(0)


_TRIM = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc only
_MALLOPT = getattr(ctypes.CDLL(None), "mallopt", None) if _TRIM else None
_M_MMAP_THRESHOLD = -3  # malloc.h

_Step = tuple[_Shard, Window | None, dict[int, "Future[_Decoded]"]]


def _ahead(steps: Iterator[_Step], count: int) -> Iterator[_Step]:
    """Yield from `steps`, which are taken `count` ahead of the one in use."""
    waiting: deque[_Step] = deque()
    for step in steps:
        waiting.append(step)
        if len(waiting) > count:
            yield waiting.popleft()
    yield from waiting
