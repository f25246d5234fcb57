"""Which store serves a recipe."""

from __future__ import annotations

import logging
from pathlib import Path

from vggfeat.errors import StoreError, StoreNotFoundError
from vggfeat.extraction.job import StoreJob
from vggfeat.recipe import Recipe
from vggfeat.store.layout import DESCRIPTORS, RECORD
from vggfeat.store.reader import DescriptorStore
from vggfeat.store.reuse import siblings

_log = logging.getLogger(__name__)

_NEAR_MATCHES = 2  # told of, those with the fewest differences


def tell_near_matches(job: StoreJob) -> None:
    """Log in what the nearest stores of the same data set and net differ."""
    name = job.folder.name.rpartition("-")[0]
    near = [
        (job.identity.differences(plan), folder)
        for folder, plan in siblings(job.folder).items()
        if folder.name.rpartition("-")[0] == name
    ]
    for differences, folder in sorted(near, key=lambda found: len(found[0]))[:_NEAR_MATCHES]:
        _log.info("'%s' is another store: %s", folder, "; ".join(differences))


def find_store(job: StoreJob, recipe: Recipe) -> Path:
    """Return a complete store that serves a recipe: its own, or one with more images or scales.

    Raises:
        StoreNotFoundError: If there is none, with the command that makes it.
    """
    if job.complete:
        return job.folder / DESCRIPTORS
    ids = {item.id: digest for item, digest in zip(job.items, job.digests, strict=True)}
    for folder, plan in siblings(job.folder).items():
        if plan.row_fingerprint != job.identity.row_fingerprint or not (folder / RECORD).exists():
            continue
        if not set(job.identity.scales) <= set(plan.scales):
            continue
        try:
            with DescriptorStore.open(folder) as store:
                digests = [digest.tobytes().hex() for digest in store.image_digests()]
                held = dict(zip(store.ids, digests, strict=True))
        except StoreError as error:
            _log.warning("not considered: %s", error)
            continue
        if all(held.get(i) == digest for i, digest in ids.items()):
            return folder / DESCRIPTORS
    partial = job.folder.is_dir()
    raise StoreNotFoundError(
        f"The store of {recipe.dataset!r} with {job.model!r} at {job.tap} is "
        f"{'not complete' if partial else 'not there'}: '{job.folder}'.",
        remedy=f"{'Resume' if partial else 'Make'} it with `vggfeat extract` and the same options.",
    )
