"""What runs in another process to which a test sends a value; it loads nothing by itself."""

from __future__ import annotations

from typing import TypeVar

_Value = TypeVar("_Value")


def itself(value: _Value) -> _Value:
    """Return what has arrived."""
    return value
