"""From a recipe and what is on disk to a store: which one it is, and then how it is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vggfeat.data.names import slug
from vggfeat.data.records import Dataset, Item, manifest_digest
from vggfeat.extraction.budget import budget_of, deciding, row_flop
from vggfeat.extraction.calibration import CALIBRATION, calibration_identity
from vggfeat.extraction.job import StoreJob, identity_of
from vggfeat.extraction.row_recipe import RowRecipe
from vggfeat.files.digests import sha256_of_each
from vggfeat.nets.architectures import architecture
from vggfeat.recipe import Described, Machine, Recipe
from vggfeat.store.layout import PLAN, StorePlan
from vggfeat.store.reuse import possible_donors
from vggfeat.version import versions
from vggfeat.watch import Watch
from vggfeat.weights.find import find_weights, pooled


def job_of(
    recipe: Recipe,
    machine: Machine,
    dataset: Dataset,
    described: Described,
    watch: Watch,
    calibrated: Path | None = None,
) -> StoreJob:
    """Decide which store serves a recipe.

    Args:
        recipe: What is wanted.
        machine: Where.
        dataset: Opened, and limited as the recipe says.
        described: Which of the recipe's nets, what of each image, and which tap.
        watch: Told of the hashing.
        calibrated: Folder of the store whose calibration an 8-bit net takes; None for one on the
            images themselves.

    Raises:
        WeightsError: If the weights are absent or unknown.
    """
    model, region = described.model, described.region
    net, source = architecture(model), recipe.weights_of(model)
    found = find_weights(net, source, recipe.profile, recipe.last_layer(model))
    weights = pooled(found, recipe.pooling)
    items = dataset.of_region(region).items
    digests = _hashed(items, machine, watch)
    calibration = calibration_identity(recipe, digests, calibrated)
    row = RowRecipe.of(recipe, described, weights, calibration)
    identity = identity_of(row, recipe.scales, manifest_digest(items, digests), len(items))
    folder = machine.cache / f"{slug(recipe.dataset)}-{model}-{identity.fingerprint[:8]}"
    whole = region == "image"
    own = identity.row_fingerprint
    donors = possible_donors(folder, own, recipe.scales) if whole else ()
    return StoreJob(
        model=model,
        region=region,
        identity=identity,
        folder=folder,
        items=items,
        digests=digests,
        weights=weights,
        calibration=(calibrated or folder) / CALIBRATION,
        donors=donors,
        row_flop=row_flop(recipe, described, ceil=weights.profile.ceil_mode),
    )


def plan_of(job: StoreJob, machine: Machine) -> StorePlan:
    """Decide how a store is made here, which a store that is there need not know.

    Raises:
        RecipeError: If the device is not there, or has not the precision.
    """
    budget, weights = budget_of(job, machine), job.weights
    return StorePlan(
        **vars(job.identity),
        descriptor_size=architecture(job.model).descriptor_size(job.tap),
        id_bytes=max(len(item.id.encode()) for item in job.items),
        shard_rows=budget.shard_rows,
        execution=deciding(budget.execution),
        donors=job.donors,
        created_by={**versions(), "weights": weights.origin, "weights_family": weights.family},
    )


def plans_of(jobs: Sequence[StoreJob], machine: Machine) -> list[StorePlan]:
    """Decide how the stores of some jobs are made here, in portions that one pass can fill.

    The first that has been begun decides for those that have not.

    Raises:
        RecipeError: As `plan_of`.
        DamagedStoreError: If the plan of one that has been begun makes no sense.
    """
    plans = [plan_of(job, machine) for job in jobs]
    begun = [StorePlan.read(job.folder).shard_rows for job in jobs if (job.folder / PLAN).exists()]
    rows = begun[0] if begun else min(plan.shard_rows for plan in plans)
    return [replace(plan, shard_rows=rows) for plan in plans]


def _hashed(items: Sequence[Item], machine: Machine, watch: Watch) -> list[str]:
    digests = []
    with watch.step("hash images", len(items), "images") as advance:
        sources = (item.source for item in items)
        for digest in sha256_of_each(sources, fresh=machine.verify_images):
            digests.append(digest)
            advance(1)
    return digests
