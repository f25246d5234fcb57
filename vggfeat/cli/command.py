"""What every command has without asking: a quiet flag, variables, options in sections."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import click

QUIET = "vggfeat.quiet"  # where a context keeps whether it was asked for
_FEW = 8  # options that need no sections

# Title of a section → flags, in the order of `--help`; what is in none comes first.
SECTIONS: Mapping[str, Sequence[str]] = {
    "Data": ("dataset", "data-root", "limit", "on-error", "verify-images", "offline"),
    "Net": ("model", "weights", "profile", "pooling", "precision"),
    "Descriptor": (
        *("tap", "regions", "scales", "mirror", "interpolation", "resampler"),
        *("aggregate", "normalise", "store"),
    ),
    "SVM": (
        *("difficult", "loss", "class-weight", "grid", "choose-c", "measure"),
        *("folds", "pool", "shots", "draws", "seed"),
    ),
    "Machine": ("device", "workers", "memory", "cache", "results"),
    "Output": ("name", "format", "output", "dry-run", "json", "quiet", "version", "help"),
}
_OWN = "Options"


class Command(click.Command):
    """A command with `--quiet`, a variable for every option, and options in sections."""

    def __init__(self, *args: Any, **settings: Any) -> None:  # noqa: ANN401  (click's signature)
        super().__init__(*args, **settings)
        _complete(self)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options in their sections."""
        write_options(self, ctx, formatter)


class Group(click.Group):
    """A group of such commands, with `--quiet` itself."""

    command_class = Command

    def __init__(self, *args: Any, **settings: Any) -> None:  # noqa: ANN401  (click's signature)
        super().__init__(*args, **settings)
        _complete(self)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options in their sections, and the commands."""
        write_options(self, ctx, formatter)
        self.format_commands(ctx, formatter)


Group.group_class = Group


def write_options(
    command: click.Command, ctx: click.Context, formatter: click.HelpFormatter
) -> None:
    """Write a command's options into its help: under one title where there are few of them."""
    records: dict[str, tuple[str, str]] = {}
    for option in command.get_params(ctx):
        record = option.get_help_record(ctx)
        if record is not None and isinstance(option, click.Option):
            records[_flag(option)] = record
    of_section = {name: title for title, names in SECTIONS.items() for name in names}
    order = [*(n for n in records if n not in of_section), *(n for n in of_section if n in records)]
    sections: dict[str, list[tuple[str, str]]] = {}
    for name in order:
        title = _OWN if len(records) <= _FEW else of_section.get(name, _OWN)
        sections.setdefault(title, []).append(records[name])
    for title, rows in sections.items():
        with formatter.section(title):
            formatter.write_dl(rows)


def set_loudness(ctx: click.Context) -> None:
    """Let everything but warnings and errors be said, unless it was asked for quiet."""
    quiet = ctx.meta.get(QUIET, False)
    logging.getLogger("vggfeat").setLevel(logging.WARNING if quiet else logging.INFO)


def _complete(command: click.Command) -> None:
    """Give a command its quiet flag, and each option that has none its variable."""
    quiet = click.Option(
        ["-q", "--quiet"],
        is_flag=True,
        expose_value=False,
        callback=_hush,
        help="Only warnings and errors on stderr.",
    )
    command.params.append(quiet)
    for option in command.params:
        if isinstance(option, click.Option) and not option.is_eager and option.envvar is None:
            option.envvar = f"VGGFEAT_{_flag(option).replace('-', '_').upper()}"
            option.show_envvar = True


def _flag(option: click.Option) -> str:
    return max(option.opts, key=len).removeprefix("--")


def _hush(ctx: click.Context, option: click.Parameter, asked: bool) -> None:
    if asked:  # on either side of a command's name
        ctx.meta[QUIET] = True
        set_loudness(ctx)
