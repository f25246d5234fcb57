"""What the benchmarks share: figures are written as JSON, rivals take turns."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parents[1] / "results" / "benchmarks"


def write(name: str, figures: dict[str, Any]) -> Path:
    """Write results/benchmarks/<name>.json, with a line that tells the machine."""
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    path = RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"machine": machine, **figures}
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    return path


def alternate(calls: dict[str, Callable[[], object]], repeat: int) -> dict[str, list[float]]:
    """Call each in turn, `repeat` rounds of them; return the seconds of every call."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeat):
        for name, call in calls.items():
            begin = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - begin)
    return seconds
