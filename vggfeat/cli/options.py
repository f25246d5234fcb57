"""Options that stand for fields of a recipe or a machine, each by its name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from vggfeat.errors import RecipeError

if TYPE_CHECKING:
    from vggfeat.recipe import Machine, Recipe

_Command = TypeVar("_Command", bound=Callable[..., Any])
RECIPE_OPTIONS: tuple[tuple[str, dict[str, Any]], ...] = (
    (
        "--dataset",
        {"help": "voc2007, caltech101, … (`vggfeat datasets list`), or folder:, csv:, voc:PATH."},
    ),
    (
        "--model",
        {"multiple": True, "metavar": "NAME", "help": "vgg16, vgg19, …; twice is late fusion."},
    ),
    (
        "--weights",
        {
            "multiple": True,
            "metavar": "NAME|PATH",
            "help": "oxford, torchvision, random:SEED, PATH.",
        },
    ),
    (
        "--profile",
        {"help": "Of a file of your own: oxford, torchvision; oxford-bgr or -rgb if asked for."},
    ),
    ("--scales", {"metavar": "Q,Q,…", "help": "Shorter sides, pixels, for example 256,384,512."}),
    ("--mirror/--no-mirror", {"default": None, "help": "Average with the horizontal flip."}),
    ("--interpolation", {"help": "bilinear or bicubic."}),
    ("--resampler", {"help": "pillow, or torch on the net's device."}),
    ("--pooling", {"help": "Odd sizes in the pools: ceil or floor; by default as trained."}),
    ("--regions", {"metavar": "R,R", "help": "Of boxes: image, box, or image,box for both."}),
    ("--tap", {"help": "fc7, fc7-linear, fc6 or pool5."}),
    ("--precision", {"help": "float32, bfloat16; CPU: int8; GPU: tf32, float16."}),
    ("--aggregate", {"help": "Scales to one descriptor: average, stack or max."}),
    ("--normalise", {"help": "L2 after the scales are joined, or before as well."}),
    ("--loss", {"help": "hinge or squared_hinge."}),
    ("--grid", {"metavar": "C,C,…", "help": "Values of C; by default 2^-4 … 2^7, growing."}),
    ("--choose-c", {"help": "shared by all classes, or per-class."}),
    ("--difficult", {"help": "Difficult images in training: ignore, or negative."}),
    ("--measure", {"help": "What C is chosen by: voc2007, voc2010, mean_class_recall, …"}),
    ("--seed", {"type": int, "help": "Of the SVM and of a folder's parts."}),
    ("--limit", {"type": int, "metavar": "N", "help": "N images each of train, val and test."}),
    ("--name", {"help": "Of the result."}),
)


MACHINE_OPTIONS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("--data-root", {"type": Path, "help": "Where named data sets are."}),
    ("--cache", {"type": Path, "help": "Where stores are kept."}),
    ("--results", {"type": Path, "help": "Where results are written."}),
    ("--device", {"help": "auto, cpu, cuda or cuda:N; several: cuda:0,1."}),
    ("--workers", {"type": int, "help": "Threads that decode, processes that fit."}),
    ("--memory", {"metavar": "N[MB|GB]", "help": "That extract may use; half of what is free."}),
    ("--on-error", {"help": "An unreadable image: record it, or raise."}),
    (
        "--offline",
        {"is_flag": True, "default": None, "help": "Fetch nothing that is not on disk."},
    ),
    ("--verify-images", {"is_flag": True, "default": None, "help": "Hash every image again."}),
)


RESULTS_OPTION = tuple(option for option in MACHINE_OPTIONS if option[0] == "--results")
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def options_of(*groups: tuple[tuple[str, dict[str, Any]], ...]) -> Callable[[_Command], _Command]:
    """Add options that all stand for fields; their defaults are the records' own."""

    def decorate(command: _Command) -> _Command:
        for flag, settings in reversed([option for group in groups for option in group]):
            name = flag.split("/")[0].removeprefix("--").replace("-", "_")
            envvar = f"VGGFEAT_{name.upper()}"
            option = click.option(
                flag, name, cls=_FieldOption, envvar=envvar, show_envvar=True, **settings
            )
            command = option(command)
        return command

    return decorate


class _FieldOption(click.Option):
    """An option for a field of a record, whose default stands there and is shown by `--help`."""

    def get_help_extra(self, ctx: click.Context) -> Any:  # noqa: ANN401  (click's own record)
        from vggfeat.recipe import Machine, Recipe

        extra = super().get_help_extra(ctx)
        fields = {**Machine.model_fields, **Recipe.model_fields}
        field = fields["models" if self.name == "model" else str(self.name)]
        if not field.is_required() and field.default is not None and field.default is not False:
            several = isinstance(field.default, tuple)
            extra["default"] = ",".join(field.default) if several else str(field.default)
        return extra


def given(options: dict[str, Any], group: tuple[tuple[str, dict[str, Any]], ...]) -> dict[str, Any]:
    """Return the fields of a record that were given as options, as the record wants them."""
    names = {flag.split("/")[0].removeprefix("--").replace("-", "_") for flag, _ in group}
    values = {k: v for k, v in options.items() if k in names and v is not None and v != ()}
    for name, kind in (("scales", int), ("grid", float)):
        if name in values:
            values[name] = _numbers(values[name], kind, name)
    if "regions" in values:
        values["regions"] = tuple(values["regions"].split(","))
    if "model" in values:
        values["models"] = values.pop("model")
    return values


def _numbers(text: str, kind: type[int] | type[float], name: str) -> tuple[float, ...]:
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError:
        what = "whole numbers" if kind is int else "numbers"
        raise RecipeError(f"--{name} {text!r}.", f"Expected {what}, separated by commas.") from None


def recipe_of(options: dict[str, Any]) -> Recipe:
    """Return the recipe that options say; raises as `Recipe.build`."""
    return built(given(options, RECIPE_OPTIONS))


def built(values: dict[str, Any]) -> Recipe:
    """Return the recipe of some values; raises as `Recipe.build`."""
    from vggfeat.recipe import Recipe

    return Recipe.build(values, "the command line")


def machine_of(options: dict[str, Any]) -> Machine:
    """Return the machine that options say; raises as `Machine.build`."""
    from vggfeat.recipe import Machine

    return Machine.build(given(options, MACHINE_OPTIONS))


def result_path(name: str, machine: Machine) -> Path:
    """Return the path of a result that is named, or given by its path."""
    return Path(name) if name.endswith(".json") else machine.results / f"{name}.json"
