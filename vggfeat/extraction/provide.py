"""What a recipe needs on this machine: what is there, and what has to be fetched first."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vggfeat.data import open_dataset
from vggfeat.data.catalogue import PublishedDataset, published_for
from vggfeat.data.doubts import doubts_of_names
from vggfeat.data.local import fetch_dataset, lacking
from vggfeat.data.protocols import drawn, folded
from vggfeat.data.records import Dataset, Kind
from vggfeat.errors import DatasetNotFoundError, WeightsNotFoundError
from vggfeat.nets.architectures import architecture
from vggfeat.recipe import Machine, Recipe, check_measure
from vggfeat.watch import Watch
from vggfeat.weights.catalogue import PublishedWeights
from vggfeat.weights.find import find_weights
from vggfeat.weights.local import fetch_file, place_of, published_file

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class AbsentDataset:
    """A public data set that is not on this machine.

    Attributes:
        what: Which.
        error: What there is to say where nothing may be fetched.
    """

    what: PublishedDataset
    error: DatasetNotFoundError

    def fetch(self, machine: Machine, watch: Watch) -> None:
        """Download it to where it belongs; raises as `fetch_dataset`."""
        _log.info("fetching %s, to '%s'", self.what.summary, machine.data_root)
        fetch_dataset(self.what.name, machine.data_root, watch)


@dataclass(frozen=True, kw_only=True)
class AbsentWeights:
    """A published weight file that is not on this machine.

    Attributes:
        what: Which.
        error: What there is to say where nothing may be fetched.
    """

    what: PublishedWeights
    error: WeightsNotFoundError

    def fetch(self, machine: Machine, watch: Watch) -> None:
        """Download it to where it belongs; raises as `fetch_file`."""
        at_hand(self.what, machine, watch)


@dataclass(frozen=True, kw_only=True)
class Supplies:
    """What of a recipe's needs is there.

    Attributes:
        dataset: Opened, and limited as the recipe says; what it would be, where it is absent.
        weights: The published files that are absent, by net.
    """

    dataset: Dataset | AbsentDataset
    weights: Mapping[str, AbsentWeights]

    def absent(self, models: Iterable[str]) -> list[AbsentDataset | AbsentWeights]:
        """Return all that is absent, and without which these nets cannot describe the images."""
        weights = [self.weights[model] for model in models if model in self.weights]
        return [*([self.dataset] if isinstance(self.dataset, AbsentDataset) else []), *weights]


def open_for(recipe: Recipe, machine: Machine, stored_ids: Sequence[str] | None = None) -> Dataset:
    """Open a recipe's data set, limited and divided as it says.

    Args:
        recipe: Names the data set.
        machine: Says where data sets are.
        stored_ids: The ids of a store that stands in for the images.

    Raises:
        RecipeError: If the recipe's measure does not fit the labels.
        DatasetNotFoundError: If it is not on disk.
        DatasetError: If it contradicts itself, or cannot be divided so.
    """
    name = recipe.dataset
    dataset = open_dataset(name, machine.data_root, seed=recipe.seed, stored_ids=stored_ids)
    check_measure(recipe, one_class=dataset.kind is not Kind.MULTI_LABEL)
    for doubt in doubts_of_names(dataset):
        _log.warning("%s", doubt)
    if short := lacking(dataset):
        _log.warning("%s is not whole: %s; its score is not the published task's", name, short)
    dataset = dataset.limited(recipe.limit)
    if dataset.kind is Kind.UNLABELLED:
        return dataset
    if recipe.folds:
        return folded(dataset, recipe.folds, recipe.seed, pool=recipe.pool)
    if recipe.shots:
        return drawn(dataset, recipe.shots, recipe.draws, recipe.seed)
    return dataset


def survey(recipe: Recipe, machine: Machine) -> Supplies:
    """Find out what of a recipe's needs is there; nothing is fetched.

    Args:
        recipe: Says what is needed.
        machine: Says where it belongs.

    Raises:
        DatasetNotFoundError: If the data set is absent and not public.
        WeightsError: If weights are unknown, or others than they are said to be.
    """
    dataset: Dataset | AbsentDataset
    try:
        dataset = open_for(recipe, machine)
    except DatasetNotFoundError as error:
        public = published_for(recipe.dataset)
        if public is None:
            raise
        dataset = AbsentDataset(what=public, error=error)
    return Supplies(dataset=dataset, weights=_absent_weights(recipe))


def provide(recipe: Recipe, machine: Machine, watch: Watch) -> Dataset:
    """Open a recipe's data set; what it and the weights lack on disk is fetched if it is public.

    Args:
        recipe: Says what is needed.
        machine: Says where it belongs, and whether anything may be fetched at all.
        watch: Shows the progress, and may stop it.

    Raises:
        WeightsNotFoundError: If weights are absent, and `machine.offline`.
        DatasetNotFoundError: If a data set is absent, and `machine.offline` or it is not public.
        DownloadError: If no place has them.
    """
    found = survey(recipe, machine)
    _fetch(found.absent(recipe.models), machine, watch)
    return found.dataset if isinstance(found.dataset, Dataset) else open_for(recipe, machine)


def provide_weights(recipe: Recipe, machine: Machine, watch: Watch) -> None:
    """Fetch the published weights of a recipe that are not on disk.

    Args:
        recipe: Says which.
        machine: Says whether anything may be fetched at all.
        watch: Shows the progress, and may stop it.

    Raises:
        WeightsNotFoundError: If weights are absent, and `machine.offline`.
        DownloadError: If no place has them.
    """
    _fetch(list(_absent_weights(recipe).values()), machine, watch)


def at_hand(file: PublishedWeights, machine: Machine, watch: Watch) -> Path:
    """Return where a published weight file is; it is fetched first if need be and allowed.

    Returns:
        Where it is; where it belongs if it is absent and `machine.offline`.

    Raises:
        DownloadError: If no place has it.
    """
    if not place_of(file).is_file() and not machine.offline:
        _log.info("fetching %s", file.summary)
        fetch_file(file, watch)
    return place_of(file)


def _absent_weights(recipe: Recipe) -> dict[str, AbsentWeights]:
    found = {}
    for model in recipe.models:
        try:
            net, last = architecture(model), recipe.last_layer(model)
            find_weights(net, recipe.weights_of(model), recipe.profile, last)
        except WeightsNotFoundError as error:
            found[model] = AbsentWeights(what=published_file(error.file), error=error)
    return found


def _fetch(absent: Sequence[AbsentDataset | AbsentWeights], machine: Machine, watch: Watch) -> None:
    if absent and machine.offline:
        raise absent[0].error
    for one in reversed(absent):  # the weights first: they are fewer bytes than most data sets
        one.fetch(machine, watch)
