"""What the values of a result may be: a file is anybody's, and nothing in it is believed."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import AfterValidator, Field, StringConstraints

from vggfeat.recipe import FILE_NAME, Recipe

_DEEPEST = 4  # levels of a recipe; [paper] and [ablation] are its second
_LARGEST = 2**53  # whole numbers that a float can hold


def _plain(recipe: dict[str, Any]) -> dict[str, Any]:
    """Check that a recipe is no more than text, numbers, and short lists and tables of them."""
    _check_plain(recipe, _DEEPEST)
    return recipe


def _check_plain(value: object, levels: int) -> None:
    if isinstance(value, dict | list | tuple):
        if not levels:
            raise ValueError(f"at most {_DEEPEST} levels of lists and tables")
        for part in value.values() if isinstance(value, dict) else value:
            _check_plain(part, levels - 1)
    elif isinstance(value, str) and "\0" in value:
        raise ValueError("text without a NUL")
    elif isinstance(value, int | float) and not abs(value) < _LARGEST:
        raise ValueError(f"finite numbers below {_LARGEST:,}")


def checked_recipe(recipe: object) -> object:
    """Make a recipe of the values in a file; what they do not say has its default.

    Raises:
        RecipeError: If they are no recipe.
        ValueError: If they are nested too deep, or hold what is no plain text or number.
    """
    return Recipe.build(_plain(recipe), "its recipe") if isinstance(recipe, dict) else recipe


Plain = Annotated[dict[str, Any], AfterValidator(_plain)]
FileName = Annotated[str, StringConstraints(pattern=FILE_NAME)]
Count = Annotated[int, Field(ge=0, lt=_LARGEST)]
Share = Annotated[float, Field(ge=0, le=1 + 1e-9)]  # sums of shares are rounded
Interval = tuple[Share, Share]
Penalty = Annotated[float, Field(gt=0, lt=1e300)]


def number(value: float) -> float | None:
    """Return a number that JSON has: None for NaN."""
    return None if math.isnan(value) else float(value)
