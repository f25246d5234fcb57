"""The paths that a result does not say: where its data set, weights and stores were.

A result is published, so it names no folder of its machine. Its classifiers, which are not, keep
the recipe as it was run and the paths of the stores; `report`, `predict` and `submission` read
them there. Without the classifiers a name is a path from the working directory.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vggfeat.classify.linear import kept_metadata
from vggfeat.errors import VggfeatError
from vggfeat.recipe import Recipe
from vggfeat.report.result import Result, StoreUsed


def origin(recipe: Recipe, stores: Sequence[StoreUsed]) -> dict[str, Any]:
    """Return what classifiers keep of the run that made them, fit for JSON.

    Args:
        recipe: As it was run.
        stores: With the paths that they had.
    """
    return {
        "recipe": recipe.model_dump(mode="json"),
        "stores": [store.recipe for store in stores],
        "paths": [store.path for store in stores],
    }


def as_run(path: Path) -> Result:
    """Read a result, with the paths that it had when it was made if its classifiers tell them.

    Args:
        path: Of the result; its classifiers stand beside it.

    Raises:
        ResultError: If it is absent, damaged or of another format.
    """
    result = Result.read(path)
    for name, digest in result.classifiers.items():
        try:
            private = _with_paths(result, kept_metadata(path.parent / Path(name).name, digest))
        except (VggfeatError, KeyError, TypeError, ValueError):
            continue  # whoever needs the classifier says what is wrong with it
        if private.published() == result.published():
            return private
    return result


def _with_paths(result: Result, kept: Any) -> Result:  # noqa: ANN401  (JSON)
    """Return a result with what its classifiers have kept; they are older than "paths" perhaps."""
    paths = kept.get("paths", [store.path for store in result.stores])
    stores = tuple(
        store.model_copy(update={"path": str(place)})
        for store, place in zip(result.stores, paths, strict=True)
    )
    recipe = Recipe.build(kept["recipe"], "its classifiers")
    return result.model_copy(update={"recipe": recipe, "stores": stores})
