"""Made-up rows for the tests of the store."""

from __future__ import annotations

import hashlib

import numpy as np

from vggfeat.store.layout import StorePlan
from vggfeat.store.rows import Rows, Status


def make_plan(*, rows: int, shard_rows: int) -> StorePlan:
    return StorePlan(
        fingerprint="f" * 64,
        row_fingerprint="r" * 64,
        recipe={"net": "vgg16-thin", "tap": "fc7", "weights_sha256": "w"},
        scales=(256, 384),
        manifest_sha256="m" * 64,
        rows=rows,
        descriptor_size=16,
        id_bytes=len("img/00000ü.jpg".encode()),
        shard_rows=shard_rows,
        execution={"threads": 2},
        donors=(),
        created_by={"vggfeat": "test", "weights": "random:0"},
    )


def make_rows(plan: StorePlan, number: int) -> Rows:
    """Every 27th image is unreadable."""
    where = plan.shard_range(number)
    random = np.random.default_rng(number)
    values = random.normal(size=(len(where), len(plan.scales), plan.descriptor_size))
    norms = np.linalg.norm(values, axis=2)
    lost = np.array([n % 27 == 0 and n > 0 for n in where])
    values[lost], norms[lost] = np.nan, np.nan
    ids = tuple(f"img/{n:05d}ü.jpg" for n in where)
    digests = [list(hashlib.sha256(i.encode()).digest()) for i in ids]
    return Rows(
        image_id=ids,
        descriptors=(values / norms[:, :, None]).astype(np.float32),
        norms=norms.astype(np.float32),
        image_size=random.integers(80, 500, (len(where), 2)).astype(np.int32),
        image_sha256=np.array(digests, dtype=np.uint8),
        status=np.where(lost, Status.UNREADABLE, Status.OK).astype(np.uint8),
        errors={i: "it is empty" for i, gone in zip(ids, lost, strict=True) if gone},
    )
