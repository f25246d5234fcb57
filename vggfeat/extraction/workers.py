"""The stores of a recipe, made by one process for each device."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from vggfeat import child
from vggfeat.data.doubts import doubts_of_bytes
from vggfeat.extraction.fill import fill
from vggfeat.extraction.plan import job_of
from vggfeat.extraction.provide import provide
from vggfeat.recipe import Machine, Recipe, device_names
from vggfeat.watch import Watch

_log = logging.getLogger(__name__)


def extract(recipe: Recipe, machine: Machine, watch: Watch) -> list[Path]:
    """Make, resume or find the stores of a recipe, one for each net, region and tap.

    Published weights and data that are not on disk are fetched first; see `provide`.

    Returns:
        The path of each complete file.

    Raises:
        Interrupted: If the watch says so; all finished shards are kept.
        VggfeatError: As the rooms say.
    """
    first, *others = device_names(machine.device)
    machine = machine.model_copy(update={"device": first})
    dataset = provide(recipe, machine, watch)
    jobs = [job_of(recipe, machine, dataset, which, watch) for which in recipe.described]
    images = [item.image or item.id for item in jobs[0].items]
    for doubt in doubts_of_bytes(dataset, dict(zip(images, jobs[0].digests, strict=True))):
        _log.warning("%s", doubt)
    with _working_on(others if not all(job.complete for job in jobs) else [], recipe, machine):
        return fill(jobs, machine, watch)


@contextmanager
def _working_on(devices: Sequence[str], recipe: Recipe, machine: Machine) -> Iterator[None]:
    """Let a process of its own help on each device; they share the stores, shard by shard.

    One that fails says so on stderr, and the others do its work.
    """
    helpers = []
    for device in devices:
        own = machine.model_copy(update={"device": device, "offline": True})
        work = [recipe.model_dump_json(), own.model_dump_json()]
        helpers.append(child.start("vggfeat.extraction.helper", work))
    try:
        yield
    finally:
        for process in helpers:
            process.terminate()  # all is done, or nobody wants more: at most its shard is lost
            process.wait()
