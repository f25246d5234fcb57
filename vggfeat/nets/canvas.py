"""The dense net on any device and in any precision: images of near sizes share a padded canvas."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from vggfeat.errors import VggfeatError
from vggfeat.nets.vgg import DenseVgg

_MOST_GRAPHS = 32  # each keeps its own batch
_SEEN_BEFORE = 2  # times that a shape has come when it is captured


class CanvasVgg:
    """Describes images that are padded to one canvas, as `DenseVgg` would each alone.

    Args:
        net: On its device.
        graphs: Capture the launches of a canvas as a CUDA graph once it has come back.
    """

    allocates: ClassVar = True

    def __init__(self, net: DenseVgg, *, graphs: bool) -> None:
        self._net = net
        self._device = net.mean.device
        self._graphs: OrderedDict[tuple[object, ...], _Graph | int] | None = (
            OrderedDict() if graphs else None
        )
        # one pool for all graphs, which never run at the same time: their activations share memory
        self._memory = torch.cuda.graph_pool_handle() if graphs else None
        self.halved = 0

    @torch.inference_mode()
    def __call__(
        self,
        images: Sequence[Tensor],
        canvas: tuple[int, int],
        *,
        mirror: bool,
        taps: Sequence[str] = (),
    ) -> tuple[Tensor, ...]:
        """Describe images, on the device, without waiting for it.

        A batch for which the device has not enough memory is halved, and `halved` counts that.

        Args:
            images: b of them, each (H, W, 3) uint8, RGB, on the device or in host memory.
            canvas: Height and width, pixels, no smaller than any image.
            mirror: Average with the descriptor of the horizontal flip.
            taps: Names of some of the net's, which one pass to the deepest serves; none for all.

        Returns:
            (b, D) for each tap, not normalised, float32 at least, on the device.

        Raises:
            DeviceMemoryError: If the memory is too small for one image.
        """
        try:
            return self._described(images, canvas, mirror=mirror, taps=tuple(taps))
        except torch.OutOfMemoryError:
            pass  # its traceback holds the activations: they go with it, before the next try
        if len(images) == 1:
            raise DeviceMemoryError(self._device, canvas)
        self.halved += 1
        self._forget()
        half = len(images) // 2
        parts = [
            self(part, canvas, mirror=mirror, taps=taps) for part in (images[:half], images[half:])
        ]
        return tuple(map(torch.cat, zip(*parts, strict=True)))

    def _described(
        self,
        images: Sequence[Tensor],
        canvas: tuple[int, int],
        *,
        mirror: bool,
        taps: tuple[str, ...],
    ) -> tuple[Tensor, ...]:
        sizes = torch.tensor([image.shape[:2] for image in images])
        alike = bool((sizes == torch.tensor(canvas)).all())
        batch = self._moved(_padded(images, canvas))
        own = self._moved(sizes)
        if mirror:
            batch = torch.cat([batch, _flipped(batch, None if alike else own)])
            own = torch.cat([own, own])
        described = self._run(batch, None if alike else own, taps)
        count = len(images)
        return tuple((d[:count] + d[count:]) / 2 for d in described) if mirror else described

    def _moved(self, values: Tensor) -> Tensor:
        if self._device.type != "cuda" or values.is_cuda:
            return values.to(self._device)
        return values.pin_memory().to(self._device, non_blocking=True)

    def _run(
        self, batch: Tensor, sizes: Tensor | None, taps: tuple[str, ...]
    ) -> tuple[Tensor, ...]:
        if self._graphs is None:
            return self._net.averages(batch, sizes, taps)
        key = (*batch.shape, sizes is not None, taps)
        graph = self._graphs.pop(key, 0)
        if isinstance(graph, int):
            graph = graph + 1 if graph < _SEEN_BEFORE else self._captured(batch, sizes, taps)
        self._graphs[key] = graph
        while len(self._graphs) > _MOST_GRAPHS:
            self._graphs.popitem(last=False)
        if isinstance(graph, int):
            return self._net.averages(batch, sizes, taps)
        return graph.replayed(batch, sizes)

    def _captured(self, batch: Tensor, sizes: Tensor | None, taps: tuple[str, ...]) -> _Graph:
        own, own_sizes = batch.clone(), None if sizes is None else sizes.clone()
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch's own
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            # lets cuDNN choose before anything is captured
            self._net.averages(own, own_sizes, taps)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._memory):
            described = self._net.averages(own, own_sizes, taps)
        return _Graph(graph, own, own_sizes, described)

    def _forget(self) -> None:
        if self._graphs is not None:
            self._graphs.clear()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()


class DeviceMemoryError(VggfeatError, MemoryError):
    """A device has not enough memory for a single image."""

    def __init__(self, device: torch.device, canvas: tuple[int, int]) -> None:
        super().__init__(
            f"The memory of {device} is too small for one image of {canvas[0]}×{canvas[1]} pixels.",
            remedy="Leave out the largest scale (--scales), or use --device cpu.",
        )


@dataclass(frozen=True)
class _Graph:
    """The launches of one batch shape, to be replayed at once."""

    graph: torch.cuda.CUDAGraph
    batch: Tensor
    sizes: Tensor | None
    described: tuple[Tensor, ...]

    def replayed(self, batch: Tensor, sizes: Tensor | None) -> tuple[Tensor, ...]:
        self.batch.copy_(batch)
        if self.sizes is not None and sizes is not None:
            self.sizes.copy_(sizes)
        self.graph.replay()
        return tuple(described.clone() for described in self.described)


def _padded(images: Sequence[Tensor], canvas: tuple[int, int]) -> Tensor:
    """Return (b, H, W, 3) uint8: the images in the upper left, zeros elsewhere."""
    batch = images[0].new_zeros((len(images), *canvas, 3))
    for own, image in zip(batch, images, strict=True):
        own[: image.shape[0], : image.shape[1]] = image
    return batch


def _flipped(batch: Tensor, sizes: Tensor | None) -> Tensor:
    """Flip (b, H, W, 3) images horizontally, each within its own width."""
    if sizes is None:
        return batch.flip(2)
    columns = torch.arange(batch.shape[2], device=batch.device)
    # beyond the width any column will do: it is masked
    mirrored = (sizes[:, 1:] - 1 - columns).clamp(min=0)
    return batch.gather(2, mirrored[:, None, :, None].expand_as(batch))
