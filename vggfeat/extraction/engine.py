"""The engine: one loop, decoding ahead of the net and collecting behind it."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from vggfeat.data.records import Item
from vggfeat.errors import ImageChangedError, ImageReadError, NonFiniteError
from vggfeat.extraction import images
from vggfeat.extraction.allocator import memory_kept, memory_returned
from vggfeat.extraction.batches import Window, plan_windows
from vggfeat.extraction.images import Interpolation, Pixels, Resampler
from vggfeat.extraction.remarks import Remark, Remarks
from vggfeat.extraction.rescale import rescale_on_device
from vggfeat.nets.architectures import Tap
from vggfeat.nets.forms import Form, form_of, numerics
from vggfeat.nets.int8 import Calibration
from vggfeat.nets.vgg import DenseVgg
from vggfeat.store.reuse import Known
from vggfeat.store.rows import Rows, Status

_log = logging.getLogger(__name__)

_AHEAD = 2  # windows that are decoded before the net asks for them


@dataclass(frozen=True, kw_only=True)
class ExtractionPlan:
    """What decides the bytes of a shard, together with the shard's images and the net.

    In float32 on the CPU pixels and threads decide none (see `RaggedVgg`).

    Attributes:
        scales: S shorter sides Q, pixels.
        mirror: Average with the horizontal flip.
        interpolation: Filter of the rescaling.
        resampler: "pillow" on the CPU, or "torch" on the net's device.
        precision: Of the layers.
        window_pixels: Rescaled pixels that are decoded together.
        batch_pixels: Pixels in one forward pass, mirrors and padding counted.
        canvas: Step of the canvases that images of near sizes share, pixels; None where they
            need none. See `batches.plan_windows`.
        threads: That compute on the CPU.
    """

    scales: tuple[int, ...]
    mirror: bool
    interpolation: Interpolation
    resampler: Resampler
    precision: str
    window_pixels: int
    batch_pixels: int
    canvas: int | None
    threads: int


@dataclass(frozen=True, kw_only=True)
class ShardTask:
    """The images of one shard.

    Attributes:
        number: Of the shard.
        items: Its n images.
        sha256: n digests of their files, hexadecimal, as planned.
        taps: Which of the net's are wanted; none for all.
        known: Tap to row to {scale index: (descriptor (D,), norm)} that need not be computed again.
        known_sizes: Row to (H, W) for the rows of `known`.
    """

    number: int
    items: Sequence[Item]
    sha256: Sequence[str]
    taps: Sequence[str] = ()
    known: Mapping[str, Known] = field(default_factory=dict)
    known_sizes: Mapping[int, tuple[int, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class _Decoded:
    """One row of a window: the image at each wanted scale, or why there is none.

    Attributes:
        pixels: Scale index to (H, W, 3) uint8; the whole image if it is rescaled later.
        error: Why it could not be read.
        found: What there is to remark, with details.
    """

    pixels: Mapping[int, Pixels]
    error: ImageReadError | None = None
    found: Mapping[Remark, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Launched:
    """A window that the net has been given, and what will come of it."""

    task: ShardTask
    window: Window
    decoded: Mapping[int, _Decoded]
    # where to, scale index, rows, (b, D) on the host
    described: Sequence[tuple[_Shard, int, Sequence[int], Tensor]]
    done: torch.cuda.Event | None  # of a GPU: when they are there


class Extractor:
    """Describes shards of images, one after the other.

    Args:
        net: Already on its device; it computes in the plan's precision from now on.
        plan: What decides the bytes.
        workers: Threads that decode and rescale; Pillow releases the interpreter lock for both.
        calibration: Of the net; for the precisions that want one.
        on_error: "record" an unreadable image as a NaN row, or "raise" at the first one.
        advance: Called with the number of images that have just been finished.

    Attributes:
        remarks: On the images that were read; whoever runs it tells them at the end.

    Raises:
        RecipeError: If the device does not know the precision.
    """

    def __init__(
        self,
        net: DenseVgg,
        plan: ExtractionPlan,
        *,
        workers: int,
        calibration: Calibration | None = None,
        on_error: Literal["record", "raise"] = "record",
        advance: Callable[[int], None] = lambda count: None,
    ) -> None:
        self.net = net
        self.plan = plan
        self.workers = workers
        self.on_error = on_error
        self.advance = advance
        self.remarks = Remarks()
        self._device = net.mean.device
        self._forward = form_of(
            net,
            plan.precision,
            threads=plan.threads,
            batch_pixels=plan.batch_pixels,
            calibration=calibration,
        )

    @property
    def halved(self) -> int:
        """How often a batch was halved because the device had not enough memory."""
        return getattr(self._forward, "halved", 0)

    def run(self, tasks: Iterable[ShardTask]) -> Iterator[tuple[ShardTask, tuple[Rows, ...]]]:
        """Yield the rows of each task, for each of its taps; the next one is decoded meanwhile.

        One pass of the net, to the deepest tap that an image lacks at a scale, serves all of them.

        Raises:
            ImageReadError: With on_error "raise".
            ImageChangedError: If a file is not the planned one.
            NonFiniteError: If the net's output is not finite.
            DeviceMemoryError: If the device has not enough memory for a single image.
        """
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="decode")
        launched: deque[_Launched] = deque()
        behind = 1 if self._device.type == "cuda" else 0  # windows that a GPU works on meanwhile
        try:
            with memory_for(self._forward) as give_back:
                for shards, window, futures in _ahead(self._windows(pool, tasks), _AHEAD):
                    decoded = {row: future.result() for row, future in futures.items()}
                    # ends with each window: whoever takes the rows has his own settings
                    with numerics(self.plan.precision, self._device, threads=self.plan.threads):
                        if window is not None:
                            launched.append(self._launch(shards, window, decoded))
                        while len(launched) > (0 if window is None else behind):
                            self._land(launched.popleft())
                    if window is None:
                        give_back()
                        yield shards[0].task, tuple(shard.finished() for shard in shards)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _windows(self, pool: ThreadPoolExecutor, tasks: Iterable[ShardTask]) -> Iterator[_Step]:
        """Yield the steps of every task, the decoding of each already under way."""
        for task in tasks:
            shards = tuple(
                _Shard(task, self.plan, self.net.taps[name]) for name in task.taps or self.net.taps
            )
            wanted = {
                row: [
                    scale
                    for scale in range(len(self.plan.scales))
                    if any(shard.lacks(row, scale) for shard in shards)
                ]
                for row in range(len(task.items))
            }
            rows = [row for row, scales in wanted.items() if scales]
            sizes = dict(
                zip(rows, pool.map(self._size, [task.items[r] for r in rows]), strict=True)
            )
            for row, size in sizes.items():
                if isinstance(size, ImageReadError):
                    _unreadable(shards, row, size)
            readable = {row: size for row, size in sizes.items() if isinstance(size, tuple)}
            for shard in shards:
                shard.sizes(readable)
            self.advance(len(task.items) - len(readable))
            for window in plan_windows(
                readable,
                wanted,
                self.plan.scales,
                window_pixels=self.plan.window_pixels,
                batch_pixels=self.plan.batch_pixels // (2 if self.plan.mirror else 1),
                canvas=self.plan.canvas,
            ):
                yield (
                    shards,
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
            yield shards, None, {}

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
            found: dict[Remark, str] = {}
            image = images.decode(item, data, found.__setitem__)
            if (image.height, image.width) != size:
                raise ImageReadError(item.id, f"its header says {size}, its pixels otherwise")
        except ImageReadError as error:
            return _Decoded({}, self._refused(error))
        image = images.crop_extreme(image)
        if self.plan.resampler == "torch":
            return _Decoded(dict.fromkeys(scales, np.asarray(image)), found=found)
        own = self.plan
        return _Decoded(
            {s: images.rescale(image, own.scales[s], own.interpolation) for s in scales},
            found=found,
        )

    def _refused(self, error: ImageReadError) -> ImageReadError:
        if self.on_error == "raise":
            raise error
        return error

    @torch.inference_mode()
    def _launch(
        self, shards: Sequence[_Shard], window: Window, decoded: Mapping[int, _Decoded]
    ) -> _Launched:
        """Give the net one window; a GPU is not waited for."""
        for row, result in decoded.items():
            self.remarks.add(shards[0].task.items[row].id, result.found)
            if result.error is not None:
                _unreadable(shards, row, result.error)
        there = {row: self._moved(d.pixels) for row, d in decoded.items() if d.error is None}
        described = []
        for batch in window.batches:
            canvas = batch.height, batch.width
            readable = [row for row in batch.rows if row in there]
            for lacking, rows in _by_lack(shards, batch.scale, readable):
                pixels = [self._rescaled(there[row][batch.scale], batch.scale) for row in rows]
                taps = [shard.tap for shard in lacking]
                values = self._forward(pixels, canvas, mirror=self.plan.mirror, taps=taps)
                described += [
                    (shard, batch.scale, rows, _on_its_way(own))
                    for shard, own in zip(lacking, values, strict=True)
                ]
        done = None
        if self._device.type == "cuda":
            done = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch's own
            done.record()
        return _Launched(shards[0].task, window, decoded, described, done)

    def _moved(self, pixels: Mapping[int, Pixels]) -> dict[int, Tensor]:
        """Return tensors; an image that is yet to be rescaled goes to the device, once."""
        if self.plan.resampler == "pillow":
            return {scale: _tensor(image) for scale, image in pixels.items()}
        (whole,) = {id(image): image for image in pixels.values()}.values()
        return dict.fromkeys(pixels, _tensor(whole).to(self._device))

    def _rescaled(self, image: Tensor, scale: int) -> Tensor:
        if self.plan.resampler == "pillow":
            return image
        return rescale_on_device(image, self.plan.scales[scale], self.plan.interpolation)

    def _land(self, launched: _Launched) -> None:
        """Wait for a window's descriptors, and put them into its shard."""
        if launched.done is not None:
            launched.done.synchronize()  # of this window only: the next one goes on
        for shard, scale, rows, described in launched.described:
            values: npt.NDArray[np.float64] = described.double().numpy()
            finite = np.isfinite(values).all(axis=1)
            if not finite.all():
                row = rows[int(np.flatnonzero(~finite)[0])]
                raise self._non_finite(launched, row, scale)
            shard.fill(rows, scale, values)
        self.advance(len(launched.window.rows))

    @torch.inference_mode()
    def _non_finite(self, launched: _Launched, row: int, scale: int) -> NonFiniteError:
        pixels = self._moved(launched.decoded[row].pixels)[scale]
        image = self._rescaled(pixels, scale).to(self._device)[None]
        for side in (image, image.flip(2)):
            for name, x in self.net.activations(self.net.normalised(side)):
                if not torch.isfinite(x).all():
                    return NonFiniteError(launched.task.items[row].id, name)
        return NonFiniteError(launched.task.items[row].id, self.net.tap.layer)


def memory_for(form: Form) -> AbstractContextManager[Callable[[], None]]:
    """Return the settings of the allocator with which a form of the net runs best."""
    return memory_kept() if form.allocates else memory_returned()


def _on_its_way(values: Tensor) -> Tensor:
    """Return what will hold these values on the host once the GPU has come so far."""
    if not values.is_cuda:
        return values
    return torch.empty_like(values, device="cpu", pin_memory=True).copy_(values, non_blocking=True)


def _tensor(image: Pixels) -> Tensor:
    return torch.from_numpy(image if image.flags.writeable else image.copy())


class _Shard:
    """The rows of one task and tap, filled by index."""

    def __init__(self, task: ShardTask, plan: ExtractionPlan, tap: Tap) -> None:
        n, count = len(task.items), len(plan.scales)
        self.task = task
        self.tap = tap.name
        self._known = task.known.get(tap.name, {})
        self._descriptors = np.full((n, count, tap.channels), np.nan, dtype=np.float32)
        self._norms = np.full((n, count), np.nan, dtype=np.float32)
        self._size = np.zeros((n, 2), dtype=np.int32)
        self._errors: dict[int, str] = {}
        for row, known in self._known.items():
            self._size[row] = task.known_sizes[row]
            for scale, (descriptor, norm) in known.items():
                self._descriptors[row, scale] = descriptor
                self._norms[row, scale] = norm

    def lacks(self, row: int, scale: int) -> bool:
        return scale not in self._known.get(row, {})

    def sizes(self, sizes: Mapping[int, tuple[int, int]]) -> None:
        for row, size in sizes.items():
            self._size[row] = size

    def unreadable(self, row: int, error: ImageReadError) -> None:
        if not any(self.lacks(row, scale) for scale in range(self._norms.shape[1])):
            return  # nobody has read it for this tap
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


def _unreadable(shards: Iterable[_Shard], row: int, error: ImageReadError) -> None:
    _log.warning("%s is unreadable: %s", error.image, error.reason)
    for shard in shards:
        shard.unreadable(row, error)


def _by_lack(
    shards: Iterable[_Shard], scale: int, rows: Iterable[int]
) -> Iterable[tuple[Sequence[_Shard], list[int]]]:
    """Group rows by the taps' shards that lack them at a scale."""
    groups: dict[tuple[_Shard, ...], list[int]] = {}
    for row in rows:
        lacking = tuple(shard for shard in shards if shard.lacks(row, scale))
        groups.setdefault(lacking, []).append(row)
    return groups.items()


_Step = tuple[tuple[_Shard, ...], Window | None, dict[int, "Future[_Decoded]"]]


def _ahead(steps: Iterator[_Step], count: int) -> Iterator[_Step]:
    """Yield from `steps`, which are taken `count` ahead of the one in use."""
    waiting: deque[_Step] = deque()
    for step in steps:
        waiting.append(step)
        if len(waiting) > count:
            yield waiting.popleft()
    yield from waiting
