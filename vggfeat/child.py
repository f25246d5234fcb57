"""The processes that this package starts: all of them here, all by one rule.

`python -c` and `python -m` look for modules first in the folder that the user stands in: with a
`queue.py` of theirs there it is imported in the place of Python's own. So a child is a module of
this package and runs with -P; it finds the package where this process has found it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

_SAFE = "PYTHONSAFEPATH"  # -P for whatever a child starts in its turn
_PACKAGE = Path(__file__).resolve().parents[1]


def command(module: str, *arguments: str) -> list[str]:
    """Return the command line of a child.

    Args:
        module: Of this package; what it does stands under `if __name__ == "__main__"`.
        arguments: Its own.
    """
    return [sys.executable, "-P", "-m", module, *arguments]


def environment(base: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment of a child.

    Args:
        base: What it has besides; of its PYTHONPATH the absolute folders are kept, since the
            others mean the folder that the user stands in, or lead there.
    """
    kept = (
        part for part in base.get("PYTHONPATH", "").split(os.pathsep) if Path(part).is_absolute()
    )
    paths = dict.fromkeys([str(_PACKAGE), *kept])
    return {**base, "PYTHONPATH": os.pathsep.join(paths), _SAFE: "1"}


def start(module: str, work: object) -> subprocess.Popen[bytes]:
    """Start a child that goes on beside this process.

    Args:
        module: As for `command`.
        work: What it reads from its standard input, as JSON.
    """
    with tempfile.TemporaryFile() as told:  # no pipe: nobody waits if the child dies at once
        told.write(json.dumps(work).encode())
        told.seek(0)
        return subprocess.Popen(command(module), stdin=told, env=environment())


def run(
    module: str,
    arguments: Sequence[str],
    *,
    folder: Path,
    said: BinaryIO,
    base: Mapping[str, str],
    seconds: float,
) -> int | None:
    """Run a child to its end, without an input, and whose standard output nobody wants.

    Args:
        module: As for `command`.
        arguments: As for `command`.
        folder: That it stands in.
        said: Gets its standard error.
        base: As for `environment`.
        seconds: After which it is killed.

    Returns:
        Its exit status, minus the signal's number if one stopped it; None if time ran out.
    """
    try:
        done = subprocess.run(
            command(module, *arguments),
            check=False,
            cwd=folder,
            env=environment(base),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        return None
    return done.returncode


@contextmanager
def others_kept_safe() -> Iterator[None]:
    """Put the processes that a library starts meanwhile under the same rule, as joblib's workers.

    They inherit the environment, and their command lines are the library's.
    """
    before = os.environ.get(_SAFE)
    os.environ[_SAFE] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_SAFE]
        else:
            os.environ[_SAFE] = before
