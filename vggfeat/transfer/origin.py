"""The paths that a result does not say: where its data set, weights and stores were.

A result is published, so it names no folder of its machine. Its classifiers, which are not, keep
the recipe as it was run, the paths of the stores, the way to the folder of the run and its data
root; `report`, `predict` and `submission` read them there. Without the classifiers a name is a path
from the folder of the run where the result lies below it, and from the working directory elsewhere.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vggfeat.classify.linear import kept_metadata
from vggfeat.errors import VggfeatError
from vggfeat.recipe import Machine, Recipe
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


def place_of_run(machine: Machine) -> dict[str, Any]:
    """Return what classifiers keep of where they were made: the way from the result, fit for JSON.

    Args:
        machine: That of the run, in the working directory.
    """
    way = os.path.relpath(Path().resolve(), machine.results.resolve())
    return {"folder": way, "data_root": str(machine.data_root)}


def way_upwards(machine: Machine) -> str | None:
    """Return what a result says of where it was made: the way up to there, and no other way."""
    way: str = place_of_run(machine)["folder"]
    return way if {*way.split("/")} <= {".", ".."} else None


def as_run(path: Path) -> Result:
    """Read a result, with the paths that it had when it was made if its classifiers tell them.

    Args:
        path: Of the result; its classifiers stand beside it.

    Raises:
        ResultError: If it is absent, damaged or of another format.
    """
    return _as_run(path)[0]


def places(path: Path, machine: Machine) -> Iterator[tuple[Recipe, Machine]]:
    """Yield where a result's images may be, the likeliest first.

    They are below the data root that was asked for; where they were when the result was made; or
    where its paths lead from here.

    Args:
        path: Of the result; its classifiers stand beside it.
        machine: Says where data sets are; its data root counts first if it was asked for.

    Yields:
        A recipe and a machine that lead to the images from the working directory.

    Raises:
        ResultError: As in `as_run`.
    """
    result, kept = _as_run(path)
    recipe, asked = result.recipe, "data_root" in machine.model_fields_set
    if asked and ":" not in recipe.dataset:
        yield recipe, machine
        return
    if asked:
        yield _below(recipe.published(), machine.data_root), machine
        yield _below(recipe, machine.data_root, name_only=True), machine
    folder = kept.get("folder", result.ran_in)
    if isinstance(folder, str):
        there = path.resolve().parent / folder
        root = machine.data_root if asked else there / str(kept.get("data_root", machine.data_root))
        yield _below(recipe, there), machine.model_copy(update={"data_root": root})
    yield recipe, machine


def _below(recipe: Recipe, folder: Path, *, name_only: bool = False) -> Recipe:
    """Return a recipe whose data set, if it is named by a path, is below a folder."""
    kind, colon, path = recipe.dataset.partition(":")
    if not colon or path.startswith("~"):
        return recipe
    below = folder / (Path(path).name if name_only else path)
    return recipe.model_copy(update={"dataset": f"{kind}:{below}"})


def _as_run(path: Path) -> tuple[Result, dict[str, Any]]:
    """Read a result as it was run, and what its classifiers keep besides."""
    result = Result.read(path)
    for name, digest in result.classifiers.items():
        try:
            kept = kept_metadata(path.parent / Path(name).name, digest)
            private = _with_paths(result, kept)
        except (VggfeatError, KeyError, TypeError, ValueError):
            continue  # whoever needs the classifier says what is wrong with it
        if private.published() == result.published():
            return private, kept
    return result, {}


def _with_paths(result: Result, kept: Any) -> Result:  # noqa: ANN401  (JSON)
    """Return a result with what its classifiers have kept; they are older than "paths" perhaps."""
    paths = kept.get("paths", [store.path for store in result.stores])
    stores = tuple(
        store.model_copy(update={"path": str(place)})
        for store, place in zip(result.stores, paths, strict=True)
    )
    recipe = Recipe.build(kept["recipe"], "its classifiers")
    return result.model_copy(update={"recipe": recipe, "stores": stores})
