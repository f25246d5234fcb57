"""What a command loads before it answers: torch and scikit-learn take seconds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from vggfeat.cli import main

SLOW = ("torch", "sklearn", "scipy", "numba", "requests")
FAST = ["--model", "vgg16-thin", "--weights", "random:0", "--scales", "224", "--name", "tiny"]
# Standard input has the commands; what each has loaded is added to what those before it have.
RUNS = f"""
import json, sys
from vggfeat.cli import main
found = []
for command in json.load(sys.stdin):
    main(command, standalone_mode=False)
    found.append([name for name in {SLOW} if name in sys.modules])
print("\\n" + json.dumps(found))
"""


def loaded(commands: list[list[str]]) -> list[list[str]]:
    """Return which of the slow packages are loaded after each of some commands."""
    done = subprocess.run(
        [sys.executable, "-c", RUNS],
        input=json.dumps(commands),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: list[list[str]] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_a_command_loads_what_its_work_needs(
    tmp_path: Path, tiny_voc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VGGFEAT_DEVICE", "cpu")
    job = [*FAST, "--dataset", f"voc:{tiny_voc}", "--limit", "2"]
    none: list[str] = []
    expected = [
        (["extract", *job, "--dry-run"], none),
        (["extract", *FAST, "--dataset", "voc2007", "--dry-run"], none),
        (["datasets", "list"], none),
        (["weights", "list"], none),
    ]
    commands, sets = zip(*expected, strict=True)
    assert loaded(list(commands)) == list(sets)
    for command in ("extract", "svm"):
        done = CliRunner().invoke(main, [command, *job])
        assert done.exit_code == 0, done.output
    [store] = Path("features").iterdir()
    expected = [
        (["extract", *job], none),
        (["extract", *job, "--dry-run"], none),
        (["store", "info", str(store)], none),
        (["store", "verify", str(store)], none),
        (["report", "tiny"], none),
        (["tables"], none),
        (["svm", *job], ["scipy", "numba"]),  # its solver is compiled
    ]
    commands, sets = zip(*expected, strict=True)
    assert loaded(list(commands)) == list(sets)
