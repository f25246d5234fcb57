"""What works on this machine, what is missing, and what to type."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vggfeat.data.catalogue import PublishedDataset, published
from vggfeat.data.local import verify_dataset
from vggfeat.files.examine import Examined, State
from vggfeat.nets.blas import blas
from vggfeat.recipe import Machine
from vggfeat.version import versions
from vggfeat.weights.catalogue import catalogue
from vggfeat.weights.local import candidates, examine_file, place_of


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the report.

    Attributes:
        what: What was looked at.
        state: "ok", "missing", "damaged", "partial", or "held" where it is slower than it could be.
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
    yield _blas()
    yield _gpu()
    yield _disk(machine.cache)
    for dataset in published():
        yield _dataset(dataset, machine)
    yield from _weights()


def _processor() -> Finding:
    import torch

    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    cores = len(os.sched_getaffinity(0))
    capability = torch.backends.cpu.get_cpu_capability()
    about = Path("/proc/cpuinfo")
    flags = about.read_text() if about.is_file() else ""
    detail = f"{cores} cores, {capability}, {memory:.0f} GiB of memory"
    for precision, flag in (("bfloat16", "bf16"), ("int8", "vnni")):
        if flag in flags:
            detail += f"; has --precision {precision}"
    return Finding(what="processor", state="ok", detail=detail)


def _blas() -> Finding:
    found = blas()
    detail = f"{found.name or 'none known'}, {found.kernel or 'kernel not told'}"
    for name, value in found.variables.items():
        detail += f"; {name}={value} chooses in the place of the processor"
    if found.slower:
        detail += "; it uses no AVX-512, which this processor has: float32 is slower so"
    return Finding(
        what="blas", state="held" if found.hold else "ok", detail=detail, remedy=found.hold
    )


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


def _dataset(dataset: PublishedDataset, machine: Machine) -> Finding:
    found = verify_dataset(dataset.name, machine.data_root)
    return Finding(what=dataset.name, state=_state(found), detail=found.detail, remedy=found.remedy)


def _weights() -> Iterator[Finding]:
    """Yield one finding for each family and net, of the file that would be used."""
    seen = set()
    for file in catalogue():
        if not file.usable or (file.family, file.net) in seen:
            continue
        seen.add((file.family, file.net))
        there = [f for f in candidates(file.family, file.net) if place_of(f).exists()]
        used = there[0] if there else file
        found = examine_file(used)
        yield Finding(
            what=f"{file.family} {file.net}",
            state=_state(found),
            detail=f"{used.name}: {found.detail}",
            remedy=found.remedy,
        )


def _state(found: Examined) -> str:
    return {State.GOOD: "ok", State.ABSENT: "missing"}.get(found.state, found.state.value)
