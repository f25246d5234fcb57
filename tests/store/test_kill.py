from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import SIZES, photo
from tests.support.mortal import SHARD_ROWS
from vggfeat.store.reader import DescriptorStore

ROOT = Path(__file__).resolve().parents[2]
NEVER = -1


class HalfWrittenError(AssertionError):
    """Something incomplete stood under a final name."""


class Runs:
    """Runs a writer again and again, kills it at chosen steps, and looks at what is left."""

    def __init__(self, place: Path, command: Sequence[str], *, direct: bool = False) -> None:
        self.log = place / "log"
        self.cache = place / "cache"
        self.cache.mkdir(parents=True)
        self.log.touch()
        self._command = list(command)
        self._direct = ["--direct"] if direct else []
        self._quiet = ""

    def start(self, kill_at: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.support.mortal", str(self.log), str(kill_at)]
        return subprocess.Popen(
            [*command, *self._direct, *self._command],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )

    def together(self, *kill_at: int) -> list[int]:
        """Run one writer for each number at the same time; return their exit codes."""
        writers = [self.start(number) for number in kill_at]
        codes = []
        for writer in writers:
            errors = writer.communicate()[1].decode()
            assert writer.returncode in {0, -signal.SIGKILL}, errors
            codes.append(writer.returncode)
        self.check_final_names()
        return codes

    def check_final_names(self) -> None:
        """Whatever has a final name must be whole, at every moment."""
        for path in self.cache.rglob("descriptors.h5"):
            if self._quiet and hashlib.sha256(path.read_bytes()).hexdigest() != self._quiet:
                raise HalfWrittenError(path)

    def expect(self, digest: str) -> None:
        self._quiet = digest

    def final(self) -> str:
        [path] = self.cache.rglob("descriptors.h5")
        with DescriptorStore.open(path) as store:
            assert store.verified
            assert store.verify().faults == ()
        assert not (path.parent / "shards").exists()
        return hashlib.sha256(path.read_bytes()).hexdigest()

    def killed(self, phase: str) -> int:
        """Return how many were killed in a phase, after the first commit and before the end."""
        lines = self.log.read_text().splitlines()
        # the first link is the plan's, the second the first record's
        links = [i for i, line in enumerate(lines) if "shard link" in line]
        first = links[1] if len(links) > 1 else len(lines)
        return sum(f" {phase} " in line for line in lines[first:] if "killed at" in line)

    def steps(self, phase: str) -> int:
        return sum(f" {phase} " in line for line in self.log.read_text().splitlines())


def until_published(
    runs: Runs, writers: int, shard_kills: int, assembly_steps: Sequence[int]
) -> None:
    """Kill in the shards, then in the assembly, then let it finish.

    A process takes some 8 steps to find the plan, and some 16 for a shard.
    """
    step = 30
    for _ in range(100):
        if runs.killed("shard") >= shard_kills:
            break
        step = 19 + (step * 7 + 5) % 23  # one or two shards, then death at varying steps
        runs.together(*(step + 3 * extra for extra in range(writers)))
    while runs.killed("assembly") == 0:  # finish the shards, die at the beginning of the assembly
        total = runs.steps("shard")
        runs.together(*(60 + extra for extra in range(writers)))
        assert runs.steps("shard") > total
    for step in assembly_steps:
        runs.together(*(step + extra for extra in range(writers)))
    runs.together(*[NEVER] * writers)


def store_command(runs_place: Path) -> list[str]:
    return ["store", str(runs_place / "cache" / "s"), "96", "8"]


@pytest.mark.slow
@pytest.mark.parametrize("writers", [1, 2])
def test_killed_runs_end_in_the_bytes_of_a_quiet_one(tmp_path: Path, writers: int) -> None:
    quiet = Runs(tmp_path / "quiet", store_command(tmp_path / "quiet"))
    assert quiet.together(NEVER) == [0]
    runs = Runs(tmp_path / "killed", store_command(tmp_path / "killed"))
    runs.expect(quiet.final())
    until_published(runs, writers, 6, [9, 12, 20, 33, 47])
    assert runs.killed("shard") >= 6
    assert runs.killed("assembly") >= 3
    assert runs.killed("shard") + runs.killed("assembly") >= 10
    assert runs.final() == quiet.final()


@pytest.mark.slow
def test_the_control_that_writes_to_the_final_name_fails_this_test(tmp_path: Path) -> None:
    quiet = Runs(tmp_path / "quiet", store_command(tmp_path / "quiet"))
    quiet.together(NEVER)
    runs = Runs(tmp_path / "direct", store_command(tmp_path / "direct"), direct=True)
    runs.expect(quiet.final())
    with pytest.raises(HalfWrittenError):
        until_published(runs, 1, 6, [9, 12, 20, 33, 47])
    assert runs.killed("assembly") >= 1


@pytest.mark.slow
def test_a_kill_at_every_single_step_loses_nothing(tmp_path: Path) -> None:
    place = tmp_path / "quiet"
    quiet = Runs(place, ["store", str(place / "cache" / "s"), "16", "8"])
    quiet.together(NEVER)
    expected = quiet.final()
    total = quiet.steps("shard") + quiet.steps("assembly")
    for step in range(1, total + 1):
        place = tmp_path / f"{step}"
        runs = Runs(place, ["store", str(place / "cache" / "s"), "16", "8"])
        runs.expect(expected)
        assert runs.together(step) == [-signal.SIGKILL]
        assert runs.together(NEVER) == [0]
        assert runs.final() == expected


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """88 photos, 11 shards."""
    root = tmp_path / "photos"
    for name in ("a", "b"):
        (root / name).mkdir(parents=True)
    for n in range(11 * SHARD_ROWS):
        size = SIZES[n % len(SIZES)]
        path = root / "ab"[n % 2] / f"{n:03d}.jpg"
        Image.fromarray(photo(*size, seed=n)).save(path, quality=85)
    return root


def extract_command(folder: Path, cache: Path) -> list[str]:
    command = ["cli", "extract", "--model", "vgg16-thin", "--weights", "random:0"]
    options = ["--dataset", f"folder:{folder}", "--scales", "224", "--cache", str(cache)]
    return [*command, *options]


@pytest.mark.slow
@pytest.mark.parametrize("writers", [1, 2])
def test_killed_extractions_end_in_the_bytes_of_a_quiet_one(
    tmp_path: Path, folder: Path, writers: int
) -> None:
    quiet = Runs(tmp_path / "quiet", extract_command(folder, tmp_path / "quiet" / "cache"))
    assert quiet.together(NEVER) == [0]
    runs = Runs(tmp_path / "killed", extract_command(folder, tmp_path / "killed" / "cache"))
    runs.expect(quiet.final())
    until_published(runs, writers, 6, [9, 12, 20, 33, 47])
    assert runs.killed("shard") >= 6
    assert runs.killed("assembly") >= 3
    assert runs.killed("shard") + runs.killed("assembly") >= 10
    assert runs.final() == quiet.final()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_after_the_shard_and_a_rerun_resumes(
    tmp_path: Path, folder: Path, number: signal.Signals
) -> None:
    quiet = Runs(tmp_path / "quiet", extract_command(folder, tmp_path / "quiet" / "cache"))
    quiet.together(NEVER)
    runs = Runs(tmp_path / "stopped", extract_command(folder, tmp_path / "stopped" / "cache"))
    writer = runs.start(NEVER)
    deadline = time.monotonic() + 60
    while not list(runs.cache.rglob("part-*.json")):
        assert time.monotonic() < deadline, "no shard was ever committed"
        time.sleep(0.005)
    writer.send_signal(number)
    errors = writer.communicate()[1].decode()
    assert writer.returncode == 128 + number, errors
    assert f"Stopped by {number.name}. Run the same command again to resume" in errors
    assert "Traceback" not in errors
    kept = len(list(runs.cache.rglob("part-*.json")))
    assert 1 <= kept < 11
    assert runs.together(NEVER) == [0]
    assert runs.final() == quiet.final()


@pytest.mark.slow
def test_a_second_signal_stops_at_once(tmp_path: Path, folder: Path) -> None:
    command = [*extract_command(folder, tmp_path / "cache"), "--scales", "768"]
    runs = Runs(tmp_path / "runs", command)
    writer = runs.start(NEVER)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "cache").rglob("plan.json")):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    time.sleep(1)
    writer.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    writer.send_signal(signal.SIGTERM)
    begin = time.monotonic()
    writer.communicate()
    assert writer.returncode == 143
    assert time.monotonic() - begin < 10
    assert not list((tmp_path / "cache").rglob("descriptors.h5"))


def test_the_photos_of_this_test_differ() -> None:
    assert not np.array_equal(photo(90, 120, seed=0), photo(90, 120, seed=1))
    assert os.name == "posix"
