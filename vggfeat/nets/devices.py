"""Which device a name means.

torch takes longer to load than many a command takes to run, so it is asked only where a GPU may be.
"""

from __future__ import annotations

import os
from pathlib import Path

from vggfeat.errors import RecipeError

# What the drivers of NVIDIA (also those of Jetson boards and of Windows' Linux) and AMD put there.
_SIGNS_OF_A_GPU = (
    "/dev/nvidiactl",
    "/proc/driver/nvidia",
    "/dev/nvhost-ctrl",
    "/dev/nvmap",
    "/dev/dxg",
    "/dev/kfd",
)


def device_of(name: str) -> str:
    """Return the device that a name of the command line means.

    Args:
        name: "auto", "cpu", "cuda" or "cuda:N".

    Returns:
        "cpu", "cuda" or "cuda:N".

    Raises:
        RecipeError: If it is not there.
    """
    if name == "cpu" or (name == "auto" and not _may_have_a_gpu()):
        return "cpu"
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = name.partition(":")
    if kind != "cuda" or (number and not number.isdigit()):
        raise RecipeError(f"Unknown device {name!r}.", "Valid: auto, cpu, cuda, cuda:N.")
    count = torch.cuda.device_count()
    if int(number or 0) >= count:
        raise RecipeError(f"No device {name!r}: torch sees {count} GPUs.", remedy="--device cpu.")
    return name


def usual_threads() -> int:
    """Return how many threads torch takes if nobody tells it, without asking it.

    One for each physical core that this process may use, and no more than the environment says.
    Deviates: with a BLAS other than MKL torch may take one for each logical core, so this is for
    estimates; what works asks torch itself.
    """
    own = os.sched_getaffinity(0)
    cores = len({_siblings(number) for number in own})
    said = (os.environ.get(name, "") for name in ("MKL_NUM_THREADS", "OMP_NUM_THREADS"))
    wanted = next((int(number) for number in said if number.isdigit() and int(number)), cores)
    return min(wanted, cores)


def _may_have_a_gpu() -> bool:
    if os.environ.get("CUDA_VISIBLE_DEVICES") in {"", "-1"}:
        return False
    return any(Path(sign).exists() for sign in _SIGNS_OF_A_GPU)


def _siblings(number: int) -> str:
    """Return the logical cores that share a core with this one; itself where nobody says."""
    about = Path(f"/sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list")
    return about.read_text() if about.is_file() else str(number)
