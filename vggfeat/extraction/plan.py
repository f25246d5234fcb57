"""From a recipe and what is on disk to a decision: which store, and what it lacks."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vggfeat.data.names import slug
from vggfeat.data.records import Dataset, Item, manifest_digest
from vggfeat.extraction.budget import budget_of, deciding
from vggfeat.extraction.calibration import CALIBRATION, calibration_identity
from vggfeat.extraction.job import Budget, Identity, StoreJob
from vggfeat.extraction.row_recipe import RowRecipe
from vggfeat.files.digests import sha256_of_each
from vggfeat.nets.architectures import architecture
from vggfeat.recipe import Machine, Recipe, Region
from vggfeat.store.layout import StorePlan
from vggfeat.store.reuse import possible_donors
from vggfeat.version import versions
from vggfeat.watch import Watch
from vggfeat.weights.find import Weights, find_weights, pooled

if TYPE_CHECKING:
    pass

_log = logging.getLogger(__name__)


def plan_store(
    recipe: Recipe,
    machine: Machine,
    dataset: Dataset,
    described: tuple[str, Region],
    watch: Watch,
    calibrated: Path | None = None,
) -> StoreJob:
    """Decide which store serves a recipe, and how it would be made.

    Args:
        recipe: What is wanted.
        machine: Where.
        dataset: Opened, and limited as the recipe says.
        described: Which of the recipe's nets, and what of each image it describes.
        watch: Told of the hashing.
        calibrated: Folder of the store whose calibration an 8-bit net takes; None for one on the
            images themselves.

    Raises:
        WeightsError: If the weights are absent or unknown.
    """
    model, region = described
    net, source = architecture(model), recipe.weights_of(model)
    weights = pooled(find_weights(net, source, recipe.profile), recipe.pooling)
    items = dataset.of_region(region).items
    digests = _hashed(items, machine, watch)
    identity = Identity(
        row=RowRecipe.of(
            recipe, described, weights, calibration_identity(recipe, digests, calibrated)
        ),
        scales=recipe.q,
        manifest_sha256=manifest_digest(items, digests),
    )
    folder = machine.cache / f"{slug(recipe.dataset)}-{model}-{identity.fingerprint[:8]}"
    budget = budget_of(recipe, machine, model, weights)
    return StoreJob(
        model=model,
        region=region,
        folder=folder,
        plan=_plan(identity, budget, items, weights, folder),
        items=items,
        digests=digests,
        weights=weights,
        calibration=(calibrated or folder) / CALIBRATION,
        row_seconds=budget.row_seconds,
    )


def _plan(
    identity: Identity, budget: Budget, items: Sequence[Item], weights: Weights, folder: Path
) -> StorePlan:
    row = identity.row
    donors = possible_donors(folder, identity.row_fingerprint) if row.region == "image" else ()
    return StorePlan(
        fingerprint=identity.fingerprint,
        row_fingerprint=identity.row_fingerprint,
        recipe=row.as_json(),
        scales=identity.scales,
        manifest_sha256=identity.manifest_sha256,
        rows=len(items),
        descriptor_size=architecture(row.net).descriptor_size(row.tap),
        id_bytes=max(len(item.id.encode()) for item in items),
        shard_rows=budget.shard_rows,
        execution=deciding(budget.execution),
        donors=donors,
        created_by={**versions(), "weights": weights.origin, "weights_family": weights.family},
    )


def _hashed(items: Sequence[Item], machine: Machine, watch: Watch) -> list[str]:
    digests = []
    with watch.step("hash images", len(items), "images") as advance:
        sources = (item.source for item in items)
        for digest in sha256_of_each(sources, fresh=machine.verify_images):
            digests.append(digest)
            advance(1)
    return digests
