"""Commands that have nothing to compute, each in a process of its own, against Python alone.

    python -m benchmarks.startup

On three drawn images, whose store and result are made first. The commands take turns. CPU seconds,
user and system together, hold on a busy machine too; wall seconds only on a quiet one.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import ROOT, cores, median, tell, unheld, write
from vggfeat.demo.images import make_voc

_JOB = ("--model", "vgg16-thin", "--weights", "random:0", "--scales", "224", "--name", "drawn")
_PYTHON = "python -c pass"


def commands(voc: Path) -> dict[str, list[str]]:
    """Return what is measured: arguments behind `python`, by name.

    Args:
        voc: A tree of VOC's.
    """
    job = [*_JOB, "--dataset", f"voc:{voc}", "--limit", "1"]
    calls = {
        "extract --dry-run": ["extract", *job, "--dry-run"],
        "extract, finished": ["extract", *job],
        "report": ["report", "drawn"],
        "tables": ["tables"],
        "svm, finished store": ["svm", *job],
        "predict": ["predict", "--svm", "drawn", str(next((voc / "JPEGImages").iterdir()))],
    }
    own = {name: ["-m", "vggfeat", "--quiet", *call] for name, call in calls.items()}
    return {_PYTHON: ["-c", "pass"], **own}


def timed(arguments: Sequence[str], folder: Path) -> tuple[float, float]:
    """Run Python in a folder, and return wall seconds and CPU seconds.

    Raises:
        CalledProcessError: If it fails.
    """
    known = {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(folder / "cache")}
    before, begin = os.times(), time.perf_counter()
    subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, **known, "VGGFEAT_OFFLINE": "1"},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    wall, after = time.perf_counter() - begin, os.times()
    user = after.children_user - before.children_user
    return wall, user + after.children_system - before.children_system


def measure(repeat: int) -> list[dict[str, Any]]:
    """Measure each command in turn, after a round that does not count.

    Args:
        repeat: Number of rounds.

    Returns:
        By command: the medians of "wall_seconds" and "cpu_seconds", and "rounds_cpu_seconds".
    """
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        make_voc(folder / "voc")
        calls = commands(folder / "voc")
        for name in ("extract, finished", "svm, finished store"):  # what the others find there
            timed(calls[name], folder)
        rounds = [
            {name: timed(call, folder) for name, call in calls.items()} for _ in range(1 + repeat)
        ]
    return [_row(name, [one[name] for one in rounds[1:]]) for name in calls]


def _row(name: str, times: Sequence[tuple[float, float]]) -> dict[str, Any]:
    walls, cpus = zip(*times, strict=True)
    return {
        "command": name,
        "wall_seconds": median(walls),
        "cpu_seconds": median(cpus),
        "rounds_cpu_seconds": list(cpus),
    }


def _line(row: Mapping[str, Any]) -> str:
    return f"{row['command']:22} {row['wall_seconds']:6.2f} s wall {row['cpu_seconds']:6.2f} s CPU"


def main() -> None:
    """Measure, print the medians, and write results/benchmarks/startup.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeat", type=int, default=7, help="rounds")
    options = parser.parse_args()
    begin = os.getloadavg()[0]
    rows = measure(options.repeat)
    for row in rows:
        tell(_line(row))
    if begin > cores() / 2:
        tell("other processes were at work: believe the CPU seconds alone")
    write("startup", {"rows": rows, "load_before": begin})


if __name__ == "__main__":
    unheld()
    main()
