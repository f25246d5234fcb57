from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _no_level_of_a_command() -> Iterator[None]:
    """A command that ran before in this process has set how much is told."""
    logger = logging.getLogger("vggfeat")
    before = logger.level
    logger.setLevel(logging.NOTSET)
    yield
    logger.setLevel(before)
