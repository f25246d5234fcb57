from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.small_store import photos, small_store


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """The store of `photos()`."""
    return small_store(tmp_path / "features", *photos())
