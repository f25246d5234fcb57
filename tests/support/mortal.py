"""A writer that kills itself with SIGKILL at any step that changes the disk. Run as a script:

    python -m tests.support.mortal LOG KILL_AT [--direct] store FOLDER ROWS SHARD_ROWS
    python -m tests.support.mortal LOG KILL_AT [--direct] cli extract ...

Each such call is logged as "<pid> step <number> <phase> <call>", the last one as "<pid> killed at
...". With --direct the complete file is written straight under its final name: the control, which
must fail the same test.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.store_writer import make_plan, make_rows
from vggfeat.files import publish
from vggfeat.store import hdf5, writer
from vggfeat.store.writer import ShardFolder, claims

_CALLS = ("open", "write", "pwrite", "fsync", "rename", "link", "unlink", "ftruncate")
SHARD_ROWS = 8


class MortalOs:
    """Stands for the module os: logs the calls that change the disk, and dies at one of them."""

    def __init__(self, log: Path, kill_at: int) -> None:
        self.phase = "shard"
        self._log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._count = 0
        self._kill_at = kill_at

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  (any member of os)
        real = getattr(os, name)
        if name not in _CALLS:
            return real

        def call(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401  (any call)
            self._count += 1
            dies = self._count == self._kill_at
            word = "killed at" if dies else "step"
            line = f"{os.getpid()} {word} {self._count} {self.phase} {name}\n"
            os.write(self._log, line.encode())
            if dies:
                if name in {"write", "pwrite"}:  # torn: a part of the bytes arrives
                    data = bytes(arguments[1])
                    real(arguments[0], data[: len(data) // 2], *arguments[2:])
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)

        return call


@contextmanager
def _direct(path: Path) -> Iterator[int]:
    """What the project must not do: write under the final name."""
    mortal = vars(publish)["os"]
    descriptor = mortal.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    try:
        yield descriptor
    finally:
        mortal.close(descriptor)


def _install(log: Path, kill_at: int, direct: bool) -> None:
    mortal = MortalOs(log, kill_at)
    for module in (publish, writer, hdf5):
        setattr(module, "os", mortal)  # noqa: B010  (an import, no attribute in mypy's eyes)
    assemble = ShardFolder.assemble

    def assemble_in_its_phase(shards: ShardFolder) -> Path:
        mortal.phase = "assembly"
        return assemble(shards)

    setattr(ShardFolder, "assemble", assemble_in_its_phase)  # noqa: B010  (as above)
    if direct:
        setattr(writer, "publishing", _direct)  # noqa: B010  (as above)


def _write_made_up_rows(folder: Path, rows: int, shard_rows: int) -> None:
    plan = make_plan(rows=rows, shard_rows=shard_rows)
    shards = ShardFolder(folder, plan)
    while shards.pending():
        for number, _ in claims([shards]):
            shards.commit(number, make_rows(plan, number), {})
    shards.assemble()


def main() -> None:
    direct = "--direct" in sys.argv
    arguments = [a for a in sys.argv[1:] if a != "--direct"]
    _install(Path(arguments[0]), int(arguments[1]), direct)
    if arguments[2] == "store":
        _write_made_up_rows(Path(arguments[3]), int(arguments[4]), int(arguments[5]))
        return
    from vggfeat import cli
    from vggfeat.extraction import budget

    setattr(budget, "shard_rows", lambda *_: SHARD_ROWS)  # noqa: B010  (as above)
    cli.main(arguments[3:])


if __name__ == "__main__":
    main()
