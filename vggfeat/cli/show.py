"""What is printed: tables and facts for people, JSON for scripts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vggfeat.cli.progress import terminal_watch

if TYPE_CHECKING:
    from vggfeat.files.examine import Examined
    from vggfeat.recipe import Machine, Recipe


def print_estimates(recipe: Recipe, machine: Machine, as_json: bool) -> None:
    """Print what a recipe would cost, one line for each store."""
    from dataclasses import asdict

    from vggfeat.extraction.costs import foresee

    watch = terminal_watch()
    found = list(foresee(recipe, machine, watch))
    if as_json:
        click.echo(json.dumps([asdict(one) for one in found]))
        return
    for one in found:
        for what in one.fetches:
            click.echo(f"to fetch first: {what}")
        name = one.store or f"{one.model}, {one.region}, {one.tap}"
        click.echo(
            f"{name}: {one.rows} images, {one.done} of them done, {one.copied} in other stores, "
            f"{one.partly} there at some scales, "
            f"{one.gflop:,.0f} GFLOP, about {one.seconds:,.0f} s of which {one.start_seconds:,.0f} "
            "before the first image, "
            f"{one.disk_bytes / 1e6:,.1f} MB of {one.free_bytes / 1e6:,.0f} MB free"
            f"{', complete' if one.complete else ''}"
        )


def print_result(path: Path, as_json: bool) -> None:
    """Print a result that has been written, and where."""
    from vggfeat.report.result import Result

    result = Result.read(path)
    if as_json:
        click.echo(result.model_dump_json())
        return
    from vggfeat.report.text import result_text

    click.echo(result_text(result))
    click.echo(f"written: {path}")


def print_path(path: Path, as_json: bool) -> None:
    """Print where something has been written or is."""
    click.echo(json.dumps({"path": str(path)}) if as_json else path)


def print_states(found: dict[str, Examined], as_json: bool, *, asked: bool) -> None:
    """Print one line each; exit 1 if one is damaged or partial, or was asked for and is absent."""
    from dataclasses import asdict

    from vggfeat.files.examine import State

    if as_json:
        click.echo(json.dumps([{"name": name, **asdict(one)} for name, one in found.items()]))
    else:
        for name, one in found.items():
            click.echo(f"{one.state.value:8} {name}: {one.line}")
    bad = {State.DAMAGED, State.PARTIAL} | ({State.ABSENT} if asked else set())
    if any(one.state in bad for one in found.values()):
        click.get_current_context().exit(1)


def print_facts(facts: dict[str, Any], as_json: bool) -> None:
    """Print names and values, one line each, or one JSON object."""
    if as_json:
        click.echo(json.dumps(facts))
        return
    for name, value in facts.items():
        click.echo(f"{name:18} {value if isinstance(value, str) else json.dumps(value)}")


def print_rows(rows: list[dict[str, Any]], as_json: bool) -> None:
    """Print records as a table, or as a JSON list."""
    if as_json:
        click.echo(json.dumps(rows))
        return
    names = list(rows[0])
    numbers = {n for n in names if any(isinstance(row[n], int | float) for row in rows)}
    widths = [max(len(name), *(len(_text(row[name])) for row in rows)) for name in names]
    for line in (dict(zip(names, names, strict=True)), *rows):
        cells = (
            f"{_text(line[n]):>{w}}" if n in numbers else f"{_text(line[n]):{w}}"
            for n, w in zip(names, widths, strict=True)
        )
        click.echo("  ".join(cells).rstrip())


def _text(value: Any) -> str:  # noqa: ANN401  (whatever stands in a table)
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else str(value)
