from __future__ import annotations

import json
import platform

import pytest
import torch

from tests.nets.test_same_bytes import printed
from vggfeat.nets.blas import Blas

CODE = """
import json, logging
from dataclasses import asdict
from vggfeat.nets.blas import blas
found = blas()
print(json.dumps([asdict(found), found.hold]))
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the variable names an x86 kernel")
def test_a_variable_that_holds_blas_back_is_told() -> None:
    found, hold = json.loads(printed(CODE, OPENBLAS_CORETYPE="Haswell"))
    assert found["kernel"] == "Haswell"
    assert found["variables"] == {"OPENBLAS_CORETYPE": "Haswell"}
    assert found["slower"] == ("AVX512" in torch.backends.cpu.get_cpu_capability())
    assert hold == "unset OPENBLAS_CORETYPE"


@pytest.mark.parametrize(
    ("variables", "slower", "hold"),
    [
        ({}, False, ""),
        ({"OPENBLAS_L2_SIZE": "512"}, False, "unset OPENBLAS_L2_SIZE"),
        (
            {"OPENBLAS_CORETYPE": "Zen", "OPENBLAS_L2_SIZE": "512"},
            True,
            "unset OPENBLAS_CORETYPE and OPENBLAS_L2_SIZE",
        ),
        ({}, True, "pip install --upgrade scipy"),
    ],
)
def test_what_to_do(variables: dict[str, str], slower: bool, hold: str) -> None:
    found = Blas(name="openblas 0.3", kernel="Zen", variables=variables, slower=slower)
    assert found.hold == hold
