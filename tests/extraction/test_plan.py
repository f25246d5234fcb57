"""What identifies a store, apart from how it is made."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from vggfeat.data import open_dataset
from vggfeat.errors import RecipeError
from vggfeat.extraction.plan import job_of, plan_of
from vggfeat.extraction.workers import extract
from vggfeat.recipe import Described, Machine, Recipe
from vggfeat.store.layout import StorePlan
from vggfeat.watch import Watch


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine.build({"cache": tmp_path / "features", "device": "cpu"})


def recipe(tiny_voc: Path, scales: tuple[int, ...] = (224,)) -> Recipe:
    values = {"dataset": f"voc:{tiny_voc}", "models": ("vgg16-thin",), "weights": ("random:0",)}
    return Recipe.build({**values, "scales": scales, "limit": 1}, "a test")


def test_a_finished_store_is_found_on_any_machine(tiny_voc: Path, machine: Machine) -> None:
    """A device that is not there refuses what is to be made, before it leaves anything behind."""
    made = extract(recipe(tiny_voc), machine, Watch())
    elsewhere = machine.model_copy(update={"device": "cuda:99"})
    assert extract(recipe(tiny_voc), elsewhere, Watch()) == made
    with pytest.raises(RecipeError, match="No device 'cuda:99'"):
        extract(recipe(tiny_voc, (256,)), elsewhere, Watch())
    assert list(machine.cache.iterdir()) == [made[0].parent]


def test_the_machine_has_a_say_in_the_plan_alone(tiny_voc: Path, machine: Machine) -> None:
    wanted = recipe(tiny_voc)
    dataset = open_dataset(wanted.dataset, machine.data_root, seed=0).limited(1)
    small = machine.model_copy(update={"device": "cuda:99", "memory": "100MB"})
    job, other = (
        job_of(wanted, one, dataset, Described("vgg16-thin", "image", "fc7"), Watch())
        for one in (machine, small)
    )
    assert job == other
    plan = plan_of(job, machine)
    assert vars(job.identity).items() <= vars(plan).items()
    assert plan.execution == {"device": "cpu", "processor": platform.machine()}
    [path] = extract(wanted, machine, Watch())
    assert StorePlan.read(path.parent) == plan
