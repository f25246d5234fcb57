"""Which kernel the BLAS of float32 products runs, and whether something holds it back."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

# OpenBLAS reads both as its library is loaded.
VARIABLES = "OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"
_AVX512_KERNELS = frozenset({"SkylakeX", "Cooperlake", "SapphireRapids"})


@dataclass(frozen=True, kw_only=True)
class Blas:
    """The library that numba's and SciPy's products go to.

    Attributes:
        name: Its own, and its version; empty where it could not be told.
        kernel: What it calls the processor that it computes for.
        variables: Of `VARIABLES` those that are set, with their values.
        slower: Whether the processor has wider instructions than the kernel uses.
    """

    name: str
    kernel: str
    variables: Mapping[str, str]
    slower: bool

    @property
    def hold(self) -> str:
        """What holds it back, and what to do; empty if nothing does."""
        if self.variables:
            return f"unset {' and '.join(self.variables)}"
        return "pip install --upgrade scipy" if self.slower else ""


def blas() -> Blas:
    """Look at the BLAS of this process, which it loads, and at the processor."""
    import scipy.linalg.cython_blas  # noqa: F401  (loads the library that is looked for)
    import torch
    from threadpoolctl import threadpool_info

    capability = torch.backends.cpu.get_cpu_capability()
    variables = {name: os.environ[name] for name in VARIABLES if name in os.environ}
    loaded = [one for one in threadpool_info() if one["user_api"] == "blas"]
    own = [one for one in loaded if "scipy" in Path(one["filepath"]).parent.name] or loaded
    if not own:
        return Blas(name="", kernel="", variables=variables, slower=False)
    kernel = own[0].get("architecture") or ""
    slower = "AVX512" in capability and bool(kernel) and kernel not in _AVX512_KERNELS
    return Blas(
        name=f"{own[0]['internal_api']} {own[0]['version']}",
        kernel=kernel,
        variables=variables,
        slower=slower and own[0]["internal_api"] == "openblas",
    )
