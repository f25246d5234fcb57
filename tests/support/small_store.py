"""A small store of made-up descriptors, without any image or net."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vggfeat.store.layout import StorePlan
from vggfeat.store.rows import Rows, Status
from vggfeat.store.writer import ShardFolder, claims

SCALES = (256, 384)
FINGERPRINT = "f00dfeed" * 8
ROW_RECIPE = {
    "net": "vgg16-thin",
    "tap": "fc7",
    "weights_sha256": "5" * 64,
    "profile": "oxford",
    "channels": None,
    "mirror": True,
    "interpolation": "bilinear",
    "decoder": "pillow-12",
    "resampler": "pillow-12",
    "max_aspect": 4,
    "max_pixels": 178956970,
    "precision": "float32",
    "format_version": 1,
}


def small_store(
    cache: Path,
    raw: npt.NDArray[np.float64],
    ids: Sequence[str],
    slug: str = "folder-photos-abc123",
) -> Path:
    """Write a store of un-normalised descriptors, (n, S, D); a row of NaN is unreadable.

    Images of equal descriptors have equal bytes.
    """
    folder = cache / f"{slug}-vgg16-thin-{FINGERPRINT[:8]}"
    plan = StorePlan(
        fingerprint=FINGERPRINT,
        row_fingerprint="r" * 64,
        recipe=ROW_RECIPE,
        scales=SCALES[: raw.shape[1]],
        manifest_sha256="m" * 64,
        rows=len(raw),
        descriptor_size=raw.shape[2],
        id_bytes=max(len(i.encode()) for i in ids),
        shard_rows=8,
        execution={"threads": 1},
        donors=(),
        created_by={"vggfeat": "test", "weights": "random:0", "weights_family": "random"},
    )
    norms = np.linalg.norm(raw, axis=2)
    lost = np.isnan(norms).any(axis=1)
    status = np.where(lost, Status.UNREADABLE, np.where((norms == 0).any(axis=1), Status.ZERO, 0))
    unit = (raw / np.where(norms == 0, 1, norms)[:, :, None]).astype(np.float32)
    shards = ShardFolder(folder, plan)
    for number, _ in claims([shards]):
        own = [*plan.shard_range(number)]
        rows = Rows(
            image_id=tuple(ids[row] for row in own),
            descriptors=unit[own],
            norms=norms[own].astype(np.float32),
            image_size=np.array([(100 + row, 200) for row in own], dtype=np.int32),
            image_sha256=np.array(
                [[*hashlib.sha256(raw[row].tobytes()).digest()] for row in own], dtype=np.uint8
            ),
            status=status[own].astype(np.uint8),
            errors={ids[row]: "it is empty" for row in own if lost[row]},
        )
        shards.commit(number, rows, {})
    return shards.assemble()


def photos(count: int = 40) -> tuple[npt.NDArray[np.float64], list[str]]:
    """Return descriptors at two scales, and ids "cat/00.jpg", …, the first half, "dog/01.jpg", ….

    Row 6 equals rows 2 and 30; row 9 is unreadable, row 12 zero.
    """
    random = np.random.default_rng(4)
    raw = np.maximum(random.normal(size=(count, 2, 10)), 0) * random.uniform(1, 9, (count, 2, 1))
    raw += np.where(np.arange(count) < count // 2, 2.0, 0.0)[:, None, None] * (np.arange(10) < 5)
    raw[6] = raw[30] = raw[2]
    raw[9], raw[12] = np.nan, 0
    return raw, sorted(f"{('cat', 'dog')[n % 2]}/{n:02d}.jpg" for n in range(count))
