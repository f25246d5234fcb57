"""What an 8-bit net is calibrated on."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vggfeat.errors import ImageReadError
from vggfeat.extraction.job import StoreJob
from vggfeat.extraction.row_recipe import RowRecipe
from vggfeat.nets.precisions import PRECISIONS
from vggfeat.recipe import Recipe, fingerprint
from vggfeat.store.layout import StorePlan

if TYPE_CHECKING:
    import torch

    from vggfeat.nets.int8 import Calibration
    from vggfeat.nets.vgg import DenseVgg

CALIBRATION = "calibration.safetensors"
_CALIBRATION_IMAGES = 32


def calibration_images(count: int, scales: Sequence[int]) -> list[tuple[int, int]]:
    """Choose what an 8-bit net is calibrated on: rows spread over all, scales in turn.

    Args:
        count: Of all images.
        scales: S shorter sides, pixels.

    Returns:
        (row, Q) of each.
    """
    rows = range(0, count, -(-count // min(count, _CALIBRATION_IMAGES)))
    return [(row, scales[number % len(scales)]) for number, row in enumerate(rows)]


def calibration_identity(
    recipe: Recipe, digests: Sequence[str], calibrated: Path | None
) -> str | None:
    """Return the identity of an 8-bit net, beside that of its float weights; None of any other."""
    if not PRECISIONS[recipe.precision].calibrated:
        return None
    if calibrated is not None:
        return RowRecipe.read(StorePlan.read(calibrated).recipe, calibrated).calibration
    from vggfeat.nets import int8

    chosen = calibration_images(len(digests), recipe.scales)
    images = [[digests[row], q] for row, q in chosen]
    return fingerprint({"runtime": int8.runtime(), "scheme": int8.SCHEME, "images": images})


_log = logging.getLogger(__name__)


def calibrated(job: StoreJob, net: DenseVgg) -> Calibration:
    """Read the calibration of a job's 8-bit net; the first process makes it."""
    import torch

    from vggfeat.extraction import images
    from vggfeat.nets.int8 import Calibration, calibrate

    interpolation = job.identity.recipe["interpolation"]

    def chosen() -> Iterator[torch.Tensor]:
        for row, q in calibration_images(len(job.items), job.identity.scales):
            try:
                image = images.decode(job.items[row], images.read_bytes(job.items[row]))
            except ImageReadError:
                continue  # it will be told of when its row is computed
            pixels = images.rescale(images.crop_extreme(image), q, interpolation)
            yield torch.from_numpy(pixels.copy())[None]

    if not job.calibration.exists():
        _log.info("calibrating the 8-bit net on the images")
        calibrate(net, chosen()).save(job.calibration)
    return Calibration.load(job.calibration)
