"""Options that stand for fields of a recipe or of a machine; help and default are the field's.

What an option is for stands in the record's docstring, what it may be in the field's type, and its
default in the record. Only the form of a flag is said here; its variable and its section in the
help are every command's own, see `vggfeat.cli.command`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from vggfeat.errors import RecipeError

if TYPE_CHECKING:
    from vggfeat.recipe import Machine, Recipe

_Command = TypeVar("_Command", bound=Callable[..., Any])

# Field → what click has to know of its flag; lists are written with commas.
RECIPE: Mapping[str, Mapping[str, Any]] = {
    "dataset": {"metavar": "NAME|KIND:PATH"},
    "models": {"flag": "--model", "multiple": True, "metavar": "NAME"},
    "weights": {"multiple": True, "metavar": "NAME|PATH"},
    "profile": {},
    "scales": {"metavar": "Q,Q,…"},
    "mirror": {"flag": "--mirror/--no-mirror", "default": None},
    "interpolation": {},
    "resampler": {},
    "pooling": {},
    "regions": {"metavar": "R,R"},
    "tap": {"multiple": True, "metavar": "LAYER"},
    "precision": {},
    "aggregate": {},
    "normalise": {},
    "loss": {},
    "grid": {"metavar": "C,C,…"},
    "choose_c": {},
    "difficult": {},
    "class_weight": {},
    "folds": {"type": int, "metavar": "K"},
    "pool": {"is_flag": True, "default": None},
    "shots": {"metavar": "N,N,…"},
    "draws": {"type": int, "metavar": "N"},
    "measure": {},
    "seed": {"type": int},
    "limit": {"type": int, "metavar": "N"},
    "name": {"metavar": "NAME"},
}
MACHINE: Mapping[str, Mapping[str, Any]] = {
    "data_root": {"type": Path},
    "cache": {"type": Path},
    "results": {"type": Path},
    "device": {"metavar": "NAME"},
    "workers": {"type": int, "metavar": "N"},
    "memory": {"metavar": "N[MB|GB]"},
    "on_error": {},
    "offline": {"is_flag": True, "default": None},
    "verify_images": {"is_flag": True, "default": None},
}
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def recipe_options(command: _Command) -> _Command:
    """Add an option for every field of a recipe."""
    return _added(command, RECIPE)


def some_recipe_options(*names: str) -> Callable[[_Command], _Command]:
    """Add options for some fields of a recipe."""
    wanted = {name: RECIPE[name] for name in names}
    return lambda command: _added(command, wanted)


def machine_options(*names: str) -> Callable[[_Command], _Command]:
    """Add options for fields of a machine.

    Args:
        names: Which; none for all.
    """
    wanted = {name: MACHINE[name] for name in names or MACHINE}
    return lambda command: _added(command, wanted)


def recipe_values(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a recipe that were given, as `Recipe.build` wants them."""
    values = _given(options, RECIPE)
    for name, kind in (("scales", int), ("grid", float), ("regions", str), ("shots", int)):
        if name in values:
            values[name] = _parts(values[name], kind, name)
    return values


def recipe_of(values: dict[str, Any]) -> Recipe:
    """Return the recipe of some values; raises as `Recipe.build`."""
    from vggfeat.recipe import Recipe

    return Recipe.build(values, "the command line")


def machine_of(options: Mapping[str, Any]) -> Machine:
    """Return the machine that options say; raises as `Machine.build`."""
    from vggfeat.recipe import Machine

    return Machine.build(_given(options, MACHINE))


def result_named(name: str, machine: Machine) -> Path:
    """Return the path of a result that is named, or given by its path."""
    return Path(name) if name.endswith(".json") else machine.results / f"{name}.json"


class _FieldOption(click.Option):
    """An option for a field of a record; what is said of the field is read when it is asked for."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Return flag and help, the latter out of the record's docstring."""
        self.help = _described().get(str(self.name))  # none under `python -OO`
        return super().get_help_record(ctx)

    def make_metavar(self, ctx: click.Context) -> str:
        """Return what the field may be, where that is a short list."""
        choices = [] if self.metavar else _choices_of(str(self.name))
        return f"[{'|'.join(choices)}]" if choices else super().make_metavar(ctx)

    def get_help_extra(self, ctx: click.Context) -> Any:  # noqa: ANN401  (click's own record)
        """Return click's notes, with the field's default."""
        extra = super().get_help_extra(ctx)
        field = _field(str(self.name))
        default = None if field.is_required() else field.default
        if default is not None and default is not False:
            several = isinstance(default, tuple)
            extra["default"] = ",".join(default) if several else str(default)
        return extra


def _added(command: _Command, fields: Mapping[str, Mapping[str, Any]]) -> _Command:
    for name, form in reversed(list(fields.items())):
        settings = dict(form)
        flag = settings.pop("flag", f"--{name.replace('_', '-')}")
        option = click.option(flag, name, cls=_FieldOption, **settings)
        command = option(command)
    return command


def _given(options: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in options.items() if k in fields and v is not None and v != ()}


def _parts(text: str, kind: Callable[[str], Any], name: str) -> tuple[Any, ...]:
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError:
        what = "whole numbers" if kind is int else "numbers"
        raise RecipeError(f"--{name} {text!r}.", f"Expected {what}, separated by commas.") from None


def _field(name: str) -> Any:  # noqa: ANN401  (pydantic's FieldInfo, which is loaded when asked for)
    from vggfeat.recipe import Draft, Machine

    return {**Machine.model_fields, **Draft.model_fields}[name]


def _choices_of(name: str) -> list[str]:
    from vggfeat.classify.measures import MEASURES
    from vggfeat.recipe import Draft, Machine, allowed

    if name == "measure":
        return list(MEASURES)
    return allowed(Machine if name in MACHINE else Draft, name)


@cache
def _described() -> dict[str, str]:
    """Return what the records' docstrings say of each field, in the words of a command line."""
    from vggfeat.recipe import Draft, Machine

    found: dict[str, str] = {}
    for record in (Draft, Machine):
        text = inspect.cleandoc(record.__doc__ or "").partition("Attributes:\n")[2]
        for name, said in re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", text, re.MULTILINE):
            found[name] = re.sub(r"\s+", " ", said).replace("; None for ", "; by default ")
    return found
