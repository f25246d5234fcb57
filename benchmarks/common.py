"""What every benchmark shares: where it ran, how things are compared, and how figures are kept.

Machines drift, so that two times compare only if they were taken in turn: everything here measures
in rounds, and a speed-up is the median of the ratios within each round.
"""

from __future__ import annotations

import datetime
import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import sklearn
import torch
from torch import Tensor

from vggfeat.nets.blas import VARIABLES, blas

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results" / "benchmarks"
DATA = ROOT.parent / "shared" / "data"  # real images, where there are any

_WARM_UP = 2  # rounds of processes that do not count
_DIGITS = 5  # significant ones that are kept; no time is measured better than that


class EngineError(Exception):
    """A process that measures has failed; why it says itself, on stderr."""


def machine() -> dict[str, Any]:
    """Describe what the figures were taken on."""
    found = blas()
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "processor": _processor(),
        "blas": f"{found.name}, {found.kernel}",
        "cores": cores(),
        "memory_gib": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "gpu": ", ".join(gpus) or None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "scikit-learn": sklearn.__version__,
    }


def free_environment() -> dict[str, str]:
    """Return the environment without what holds BLAS below the processor."""
    return {name: value for name, value in os.environ.items() if name not in VARIABLES}


def unheld() -> None:
    """Start this process anew without what holds BLAS back, where there is any of it."""
    if any(name in os.environ for name in VARIABLES):
        os.execve(sys.executable, sys.orig_argv, free_environment())


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    # the name alone may say nothing ("AMD EPYC"): family and model tell the generation
    found = dict([part.strip() for part in line.split(":", 1)] for line in lines if ":" in line)
    if "model name" not in found:
        return platform.processor() or platform.machine()
    kind = f"family {found.get('cpu family', '?')}, model {found.get('model', '?')}"
    instructions = torch.backends.cpu.get_cpu_capability()
    return f"{found['model name']} ({kind}, {instructions})"


def seconds(call: Callable[[], object]) -> float:
    """Return the time of one call; what it has started on a GPU is waited for."""
    begin = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begin


def alternate(calls: Mapping[str, Callable[[], object]], repeat: int) -> dict[str, list[float]]:
    """Time calls in turn, after a round that does not count.

    Args:
        calls: By name.
        repeat: Number of rounds.

    Returns:
        Seconds of each round, by name.
    """
    for call in calls.values():
        seconds(call)
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeat):
        for name, call in calls.items():
            times[name].append(seconds(call))
    return times


def ratios(times: Mapping[str, Sequence[float]], baseline: str) -> dict[str, dict[str, float]]:
    """Return how many times faster than the baseline each one is.

    Args:
        times: Seconds of each round, by name; the rounds of all belong together.
        baseline: One of the names.

    Returns:
        By name: "median", "low" and "high" of the ratios within each round.
    """
    found = {}
    for name, own in times.items():
        each = [slow / fast for slow, fast in zip(times[baseline], own, strict=True)]
        found[name] = {"median": median(each), "low": min(each), "high": max(each)}
    return found


def median(values: Sequence[float]) -> float:
    """Return the median."""
    return float(np.median(values))


def distance(described: Tensor, reference: Tensor) -> dict[str, float]:
    """Return how far descriptors are from the true ones, the largest of all rows.

    Args:
        described: (b, D).
        reference: (b, D).

    Returns:
        "error", ‖a − b‖ / ‖b‖, and "one_minus_cos".
    """
    a, b = described.double(), reference.double()
    unit = a / a.norm(dim=1, keepdim=True) - b / b.norm(dim=1, keepdim=True)
    return {
        "error": float(((a - b).norm(dim=1) / b.norm(dim=1)).max()),
        # as half the squared chord: 1 − a·b itself has no digits left below 1e-16
        "one_minus_cos": float((unit**2).sum(dim=1).max() / 2),
    }


class Worker:
    """A process of its own that answers one line of JSON with another; see `serve`.

    Settings of the allocator, of threads and of the shared libraries hold for a whole process, so
    that two engines in one process would not be measured as they are used.

    Args:
        command: Arguments behind `python`.
        environment: Variables to set beside the inherited ones.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> None:
        self._process = subprocess.Popen(
            [sys.executable, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**free_environment(), **(environment or {})},
        )

    def ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer, and beside it "rss_mb", the peak of the process's memory meanwhile.

        Raises:
            EngineError: If the process has ended or says so.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            message = f"its process ended with {self._process.wait()}"
            raise EngineError(message)
        found: dict[str, Any] = json.loads(answer)
        if "failed" in found:
            raise EngineError(found["failed"])
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the process: at once if something went wrong, else when it has done its work."""
        if error is not None:
            self._process.kill()
        with suppress(BrokenPipeError):  # closing tells it to end, unless it has
            assert self._process.stdin is not None
            self._process.stdin.close()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


def serve(answer: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Answer every line of stdin; what a `Worker` runs.

    Args:
        answer: From a question to its answer. An exception is told to the asker, who may ask on.
    """
    for line in sys.stdin:
        _reset_peak()
        try:
            found = answer(json.loads(line)) | {"rss_mb": round(peak_mb())}
        except Exception as error:
            found = {"failed": f"{type(error).__name__}: {str(error).splitlines()[0]}"}
        print(json.dumps(found), flush=True)


def in_turn(
    workers: Mapping[str, Worker], question: Mapping[str, Any], repeat: int
) -> dict[str, list[dict[str, Any]]]:
    """Ask several processes the same in turn, after two rounds that do not count.

    Not only the very first call of a process may be slow: in one run on a shared machine (VGG-16,
    Q = 256, three engines) each one's second took two to three times as long as its fourth.

    Args:
        workers: By name.
        question: The same for all.
        repeat: Number of rounds.

    Returns:
        The answers of each round, by name, of those that could answer; the others are told of.
    """
    answers: dict[str, list[dict[str, Any]]] = {name: [] for name in workers}
    for turn in range(-_WARM_UP, repeat):
        for name in list(answers):
            try:
                found = workers[name].ask(question)
            except EngineError as error:
                skip(f"{name}, {question}", error)
                del answers[name]
            else:
                if turn >= 0:
                    answers[name].append(found)
    return answers


def peak_mb() -> float:
    """Return the peak of this process's resident memory, MB."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (1e6 if sys.platform == "darwin" else 1e3)
    # ru_maxrss of a child starts at what its parent had when it was made
    [line] = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1e3


def _reset_peak() -> None:
    """Start the peak anew, where the system can; elsewhere it is the whole process's."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Let torch use so many threads for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def skip(what: str, why: object) -> None:
    """Say on stderr what is left out of the figures."""
    print(f"skipped: {what}: {why}", file=sys.stderr, flush=True)


def tell(what: str) -> None:
    """Say on stderr what has been measured."""
    print(what, file=sys.stderr, flush=True)


def write(name: str, figures: Mapping[str, Any], folder: Path = RESULTS) -> Path:
    """Write `<folder>/<name>.json`: the figures, and beside them machine, date and command.

    Args:
        name: Of the benchmark.
        figures: Plain values; floats are kept to a few digits, and must be finite.
        folder: Made if need be.

    Returns:
        The path, which is also printed.
    """
    record = {
        **figures,
        "machine": machine(),
        "date": datetime.date.today().isoformat(),
        "command": " ".join(["python -m", f"benchmarks.{name}", *sys.argv[1:]]),
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    text = json.dumps(
        _rounded(record), indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False
    )
    path.write_text(text + "\n", encoding="utf-8")
    print(path)
    return path


def _rounded(value: Any) -> Any:  # noqa: ANN401  (any JSON)
    if isinstance(value, Mapping):
        return {str(key): _rounded(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(v) for v in value]
    if isinstance(value, float) and math.isfinite(value):
        return float(f"{value:.{_DIGITS}g}")
    return value
