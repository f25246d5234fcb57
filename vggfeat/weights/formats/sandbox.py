"""HDF5, MATLAB and NumPy files, read in a process of their own, so that a crash harms nobody.

Their parsers are C code that crashes, hangs or allocates without end on a damaged file: of 3,000
with flipped bytes one crashed libhdf5 and two hung it, of 400 two crashed scipy's loadmat. So a
process with bounded memory and time reads the file and writes plain arrays; whatever happens to
it is one error here.

    python -P -m vggfeat.weights.formats.sandbox FORMAT SOURCE TARGET MEMORY SECONDS

`vggfeat.child` starts it, so that a `numpy.py` beside the weights is not imported.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from contextlib import suppress
from pathlib import Path

from vggfeat import child
from vggfeat.weights.formats import plain
from vggfeat.weights.formats.plain import Refused
from vggfeat.weights.formats.sniff import Format, format_named

MEMORY = 6 << 30  # bytes of address space: MATLAB v5 is not read piece by piece
CPU_SECONDS = 300
WALL_SECONDS = 900  # a slow network disk
_MOST_BYTES = 4 * plain.MOST_VALUES + plain.LONGEST_HEADER + 8
_REFUSED = 3  # exit status
_LONGEST_REASON = 2000


def extract(path: Path, form: Format, target: Path) -> None:
    """Have the arrays of a file written to `target`, as safetensors in float32.

    Args:
        path: The file.
        form: A sandboxed one.
        target: In a folder of its own, which is removed by whoever made it.

    Raises:
        Refused: If the file is refused, or its reader crashes, or takes too much memory or time.
    """
    said = target.with_name("reason")
    arguments = [form.name, str(path.absolute()), str(target), str(MEMORY), str(CPU_SECONDS)]
    with said.open("wb") as stream:
        status = child.run(
            __name__,
            arguments,
            folder=target.parent,
            said=stream,
            base=_environment(),
            seconds=WALL_SECONDS,
        )
    if status is None:
        raise Refused(f"reading it took longer than {WALL_SECONDS} seconds")
    if status == -signal.SIGXCPU:
        raise Refused(f"reading it took longer than {CPU_SECONDS} seconds of computing")
    if status < 0:
        raise Refused(f"its reader was stopped: {signal.strsignal(-status)}")
    if status:
        with said.open("rb") as reasons:
            reason = reasons.read(_LONGEST_REASON).decode("utf-8", "replace").strip()
        if status != _REFUSED:
            raise Refused(f"its reader failed: {reason.rpartition(chr(10))[2]}")
        raise Refused(reason)


def main(arguments: list[str]) -> int:
    """Read one file; this is the other process.

    Args:
        arguments: Format, source, target, bytes of memory, seconds of computing.

    Returns:
        The exit status: 0 done, 3 refused, with the reason on standard error.
    """
    form, source, target, memory, seconds = arguments
    _limit(int(memory), int(seconds))
    try:
        _write(form, Path(source), Path(target))
    except MemoryError:
        reason = f"reading it takes more than {int(memory) >> 20:,} MiB of memory"
    except Refused as error:
        reason = str(error)
    except Exception as error:  # the parsers meet rubbish with nearly any of them
        reason = str(error).partition("\n")[0] or type(error).__name__
    else:
        return 0
    sys.stderr.write(reason[:_LONGEST_REASON])
    return _REFUSED


def _write(form: str, source: Path, target: Path) -> None:
    arrays = format_named(form).load_reader()  # with its packages, after the limits are set
    with arrays(source) as found, target.open("wb") as stream:
        plain.write(stream, found, {})


def _limit(memory: int, seconds: int) -> None:
    wanted = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_CPU: seconds,
        resource.RLIMIT_FSIZE: _MOST_BYTES,
        resource.RLIMIT_AS: memory,
    }
    for what, value in wanted.items():
        hard = resource.getrlimit(what)[1]
        soft = value if hard == resource.RLIM_INFINITY else min(value, hard)
        with suppress(ValueError, OSError):  # macOS has no limit of the address space
            resource.setrlimit(what, (soft, hard))


def _environment() -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("HDF5_", "PYTHON"))}
    return kept | {
        "HDF5_USE_FILE_LOCKING": "FALSE",  # nothing is written, and some file systems have none
        "OPENBLAS_NUM_THREADS": "1",  # every thread of it would take address space
        "OMP_NUM_THREADS": "1",
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
