"""A recipe for stores that are given by their paths: what they are, and what was asked for."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vggfeat.errors import StaleStoreError, WeightsError
from vggfeat.extraction.row_recipe import RowRecipe
from vggfeat.nets.architectures import architecture
from vggfeat.nets.profile import PROFILES
from vggfeat.recipe import Recipe
from vggfeat.store.reader import DescriptorStore
from vggfeat.weights.find import STATEMENTS, WeightsIdentity, find_weights
from vggfeat.weights.local import families

_OPTION = {"net": "models", "weights_sha256": "weights", "channels": "profile", "region": "regions"}
_DIGITS = 16  # of a digest, to be shown


@dataclass(frozen=True, kw_only=True)
class _Given:
    """One store: its rows, and the weights that made them."""

    path: Path
    row: RowRecipe
    scales: tuple[int, ...]
    weights: WeightsIdentity


def values_from_stores(paths: Sequence[Path], values: Mapping[str, Any]) -> dict[str, Any]:
    """Complete the values of a recipe from stores that are given by their paths.

    Args:
        paths: One store for each net and tap, and for each region of images with boxes.
        values: What was asked for; what was not is taken from the stores.

    Returns:
        Values that make the rows of every store, so that a recipe of them says what the rows are.

    Raises:
        StaleStoreError: If a store is not what was asked for, or not as the others are, with the
            differences.
        WeightsError: If weights were asked for that are not at hand, so that nothing tells whether
            they are those of the rows.
        RecipeError: If a value is one that it cannot be.
    """
    given = [_read(path) for path in paths]
    completed = {**_options(given, values.get("models")), "scales": given[0].scales, **values}
    recipe = Recipe.build(completed, "the command line")
    said = STATEMENTS[recipe.profile][0] if recipe.profile else None
    # A profile is said of the files that do not tell theirs; but it has to be that of one of them.
    fits = any(one.row.profile == said for one in given)
    first: dict[str, WeightsIdentity] = {}
    for one in given:
        held = first.setdefault(one.row.net, one.weights)  # of images and boxes: the same
        if "weights" in values and one.row.net in recipe.models:
            wanted = _looked_up(one, recipe, fits=fits)
        else:
            wanted = _as_said(held, recipe.profile, fits=fits)
        _check(one, one.row.asked(recipe, wanted), wanted, values)
    return completed


def _read(path: Path) -> _Given:
    with DescriptorStore.open(path) as store:
        row = RowRecipe.read(store.recipe, store.path)
        made = json.loads(store.attribute("created_by"))
        origin, family = made["weights"], made.get("weights_family", "own")
        drawn = re.fullmatch(r"random:\d+", origin)
        weights = WeightsIdentity(
            origin=origin,
            sha256=row.weights_sha256,
            family="random" if drawn else family,
            profile=PROFILES[row.profile],
            channels=row.channels,
        )
        return _Given(path=store.path, row=row, scales=store.scales, weights=weights)


def _options(given: Sequence[_Given], models: Sequence[str] | None) -> dict[str, Any]:
    """Return what the stores say together: the first word on each option; all nets, regions, taps.

    Args:
        given: The stores.
        models: The nets that are asked for, whose order is that of the weights; None for all.
    """
    options: dict[str, Any] = {}
    weights: dict[str, str] = {}
    regions: dict[str, None] = {}
    taps: dict[str, dict[str, None]] = {}
    for one in given:
        own = one.row.as_options(one.weights)
        weights.setdefault(one.row.net, own["weights"][0])
        regions |= dict.fromkeys(own["regions"])
        taps.setdefault(one.row.net, {})[one.row.tap] = None
        options |= {k: v for k, v in own.items() if options.get(k) is None}
    alike = len({tuple(own) for own in taps.values()}) == 1
    return options | {
        "models": tuple(weights),
        "weights": tuple(weights.get(name, options["weights"][0]) for name in models or weights),
        "regions": tuple(regions),
        "tap": tuple(
            dict.fromkeys(
                tap if alike else f"{net}:{tap}" for net, own in taps.items() for tap in own
            )
        ),
    }


def _as_said(weights: WeightsIdentity, profile: str | None, *, fits: bool) -> WeightsIdentity:
    """Return weights that are not looked up, with the profile that a recipe says."""
    if profile is None or (weights.tells_profile and fits):
        return weights
    name, channels = STATEMENTS[profile]
    if weights.family == "random":
        channels = None
    elif name == weights.profile.name == "torchvision":  # there is one order, told or stated
        channels = weights.channels
    return replace(weights, profile=PROFILES[name], channels=channels)


def _looked_up(one: _Given, recipe: Recipe, *, fits: bool) -> WeightsIdentity:
    """Return the weights that a recipe asks for in the place of a store's."""
    held, source = one.weights, recipe.weights_of(one.row.net)
    known = held.published
    names = {known.family, known.name} if known else set()
    if source in names and not Path(source).is_file():
        return _as_said(held, recipe.profile, fits=fits)
    if source in families() and source != held.family:
        return replace(held, origin=source, sha256="")  # another, whichever file it is
    try:
        net = one.row.net
        found = find_weights(architecture(net), source, recipe.profile, recipe.last_layer(net))
    except WeightsError as error:
        raise WeightsError(
            f"Whether '{one.path}' is of the weights {source!r} cannot be told: {error}",
            f"Its own are {held.origin}, sha256 {held.sha256}.",
            "Leave --weights out to take them as they are.",
        ) from error
    said = STATEMENTS[recipe.profile][1] if recipe.profile else None
    # Versions before kept a statement even where the file tells.
    kept = one.row.channels if said == one.row.channels else found.channels
    return replace(found, channels=kept)


def _check(
    one: _Given, asked: RowRecipe, weights: WeightsIdentity, values: Mapping[str, Any]
) -> None:
    """Refuse a store whose rows are not those that are asked for."""
    found = dict(one.row.differences(asked))
    if "weights_sha256" in found:
        found["weights_sha256"] = _names(one.weights, weights)
    differences = []
    for name, (there, wanted) in found.items():
        option = _OPTION.get(name, name)
        whose = "asked for" if option in values else "in another of the stores"
        shown = name.removesuffix("_sha256")
        differences.append(f"{shown} {_said(there)} there, {_said(wanted)} {whose}")
    if differences:
        raise StaleStoreError(one.path, differences)


def _said(value: object) -> str:
    return "as the weights have it" if value is None else repr(value)


def _names(first: WeightsIdentity, second: WeightsIdentity) -> tuple[str, str]:
    """Return what tells some weights from others: their names, or else their digests."""
    if first.origin != second.origin:
        return first.origin, second.origin
    return f"{first.sha256[:_DIGITS]}…", f"{second.sha256[:_DIGITS]}…"
