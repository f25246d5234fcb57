"""What works on this machine, what is missing, and what to type."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vggfeat import data
from vggfeat.errors import DatasetNotFoundError, VggfeatError
from vggfeat.nets.architectures import ARCHITECTURES
from vggfeat.nets.weights import catalogue, find_weights, weight_folders
from vggfeat.planning import versions
from vggfeat.recipe import Machine


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the report.

    Attributes:
        what: What was looked at.
        state: "ok" or "missing".
        detail: What was found.
        remedy: What to type, empty if nothing.
    """

    what: str
    state: str
    detail: str
    remedy: str = ""


def examine(machine: Machine) -> Iterator[Finding]:
    """Yield a finding for every thing that a run may need.

    Args:
        machine: Says where data and stores are.
    """
    found = versions()
    yield Finding(what="python", state="ok", detail=f"{found.pop('python')}, {platform.platform()}")
    for name, number in found.items():
        yield Finding(what=name, state="ok", detail=number)
    yield _processor()
    yield _gpu()
    yield _disk(machine.cache)
    for name in data.NAMED:
        yield _dataset(name, machine)
    yield from _weights()


def _processor() -> Finding:
    import torch

    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    cores = len(os.sched_getaffinity(0))
    capability = torch.backends.cpu.get_cpu_capability()
    detail = f"{cores} cores, {capability}, {memory:.0f} GiB of memory"
    return Finding(what="processor", state="ok", detail=detail)


def _gpu() -> Finding:
    import torch

    count = torch.cuda.device_count()
    names = ", ".join(torch.cuda.get_device_name(i) for i in range(count))
    if count:
        return Finding(what="gpu", state="ok", detail=names)
    remedy = "none needed; everything runs on the CPU"
    return Finding(what="gpu", state="missing", detail="torch sees none", remedy=remedy)


def _disk(cache: Path) -> Finding:
    place = next(p for p in (cache.resolve(), *cache.resolve().parents) if p.exists())
    free = shutil.disk_usage(place).free / 2**30
    detail = f"{free:.1f} GiB free for '{cache}' (VOC 2007, one net: 0.8)"
    if free < 2:
        return Finding(what="disk", state="missing", detail=detail, remedy="--cache PATH")
    if not os.access(place, os.W_OK):
        detail = f"'{cache}' cannot be written"
        return Finding(what="disk", state="missing", detail=detail, remedy="--cache PATH")
    return Finding(what="disk", state="ok", detail=detail)


def _dataset(name: str, machine: Machine) -> Finding:
    try:
        dataset = data.open_dataset(name, machine.data_root)
    except DatasetNotFoundError:
        detail = f"not under '{machine.data_root}'"
        remedy = f"unpack it there (datasets/{name}/README.md says how), or pass --data-root"
        return Finding(what=name, state="missing", detail=detail, remedy=remedy)
    except VggfeatError as error:
        remedy = f"unpack it under '{machine.data_root}' again"
        return Finding(what=name, state="missing", detail=str(error), remedy=remedy)
    return Finding(what=name, state="ok", detail=f"{len(dataset.items)} images")


def _weights() -> Iterator[Finding]:
    for entry in catalogue():
        what = f"{entry['family']} {entry['net']}"
        try:
            weights = find_weights(ARCHITECTURES[entry["net"]], entry["family"])
            yield Finding(what=what, state="ok", detail=weights.origin)
        except VggfeatError:
            yield Finding(
                what=what,
                state="missing",
                detail=f"no '{weight_folders()[0] / entry['name']}'",
                remedy=f"put {entry['url']} there, or pass --weights PATH or random:0",
            )
