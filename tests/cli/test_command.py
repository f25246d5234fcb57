"""What every command has: quiet, JSON, variables, and options in sections."""

from __future__ import annotations

import csv
import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from rich.console import Console

from tests.cli.test_commands import commands
from vggfeat.cli import main, progress
from vggfeat.cli.command import SECTIONS, Group
from vggfeat.cli.options import MACHINE, RECIPE
from vggfeat.cli.progress import TerminalWatch


def command_at(path: tuple[str, ...]) -> click.Command:
    found: click.Command = main
    for name in path:
        assert isinstance(found, click.Group)
        found = found.commands[name]
    return found


def options_of(command: click.Command) -> Iterator[click.Option]:
    yield from (o for o in command.params if isinstance(o, click.Option) and not o.is_eager)


@pytest.mark.parametrize("path", commands(main), ids=" ".join)
def test_every_command_can_be_quiet_and_read_by_a_script(path: tuple[str, ...]) -> None:
    command = command_at(path)
    flags = {flag for option in options_of(command) for flag in option.opts}
    assert {"-q", "--quiet"} <= flags
    assert "--json" in flags or "json" in str([o.type for o in options_of(command)])


@pytest.mark.parametrize("path", [*commands(main), (), ("store",)], ids=" ".join)
def test_every_option_has_the_variable_of_its_name(path: tuple[str, ...]) -> None:
    for option in options_of(command_at(path)):
        flag = next(flag for flag in option.opts if flag.startswith("--"))
        assert option.envvar == f"VGGFEAT_{flag[2:].upper().replace('-', '_')}"
        assert option.show_envvar


def test_every_field_of_a_recipe_and_of_a_machine_has_one_section() -> None:
    placed = [flag for flags in SECTIONS.values() for flag in flags]
    assert len(placed) == len(set(placed))
    for name, form in {**RECIPE, **MACHINE}.items():
        flag = form.get("flag", f"--{name.replace('_', '-')}").partition("/")[0]
        assert flag.removeprefix("--") in placed, name


def titles(*words: str) -> list[str]:
    """The titles in a command's help, in their order."""
    lines = CliRunner().invoke(main, [*words, "--help"]).stdout.splitlines()
    return [line[:-1] for line in lines if line.endswith(":") and not line.startswith(" ")]


def test_many_options_stand_in_sections_and_few_do_not() -> None:
    assert titles("run") == [*SECTIONS]
    assert titles("svm") == [*SECTIONS]
    assert titles("predict") == ["Options", "Data", "Net", "Machine", "Output"]
    assert titles("datasets", "list") == ["Options"]
    assert titles("weights") == ["Options", "Commands"]
    text = CliRunner().invoke(main, ["svm", "--help"]).stdout
    assert text.index("\nNet:") < text.index("\n  --model") < text.index("\nDescriptor:")
    assert text.index("\n  --model") < text.index("\n  --weights") < text.index("\n  --precision")
    assert text.count("\n  --grid") == text.count("\n  --store") == 1


@pytest.mark.parametrize(
    ("words", "variable", "quiet"),
    [
        (["doctor"], None, False),
        (["-q", "doctor"], None, True),
        (["doctor", "-q"], None, True),
        (["doctor", "--quiet", "--json"], None, True),
        (["-q", "doctor", "-q"], None, True),
        (["doctor"], "1", True),
        (["doctor"], "0", False),
    ],
)
def test_quiet_stands_on_either_side_of_a_command(
    monkeypatch: pytest.MonkeyPatch, words: list[str], variable: str | None, quiet: bool
) -> None:
    def examine(_: object) -> list[object]:
        logging.getLogger("vggfeat.test").info("in passing")
        logging.getLogger("vggfeat.test").warning("beware")
        return []

    monkeypatch.setattr("vggfeat.cli.doctor.examine", examine)
    if variable is not None:
        monkeypatch.setenv("VGGFEAT_QUIET", variable)
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    assert done.stderr.split("\n")[:-1] == (["beware"] if quiet else ["in passing", "beware"])


def test_quiet_shows_no_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(progress, "_log", logging.Logger("quiet", logging.WARNING))
    with TerminalWatch(Console(file=screen, force_terminal=True)).step("x", 9, "fits") as advance:
        advance(9)
    assert screen.getvalue() == ""


def test_a_group_of_ones_own_has_it_all() -> None:
    """What a new command gets without a word."""

    @click.group(cls=Group)
    def tool() -> None:
        """Do things."""

    @tool.group()
    def inner() -> None:
        """Do more things."""

    @inner.command()
    @click.option("--how-many", type=int, default=1)
    def count(how_many: int) -> None:
        """Count."""
        click.echo(how_many)

    done = CliRunner().invoke(tool, ["inner", "count", "-q"], env={"VGGFEAT_HOW_MANY": "7"})
    assert (done.exit_code, done.stdout) == (0, "7\n")
    assert "VGGFEAT_HOW_MANY" in CliRunner().invoke(tool, ["inner", "count", "--help"]).stdout


def test_tables_as_json_are_the_records_of_their_csv(tmp_path: Path) -> None:
    call = ["tables", "11", "--results", str(tmp_path)]
    records = json.loads(CliRunner().invoke(main, [*call, "--json"]).stdout)
    text = CliRunner().invoke(main, [*call, "--format", "csv"]).stdout
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(records) == len(rows) > 20
    for record, row in zip(records, rows, strict=True):
        assert {k: "" if v is None else str(v) for k, v in record.items()} == row
    there = tmp_path / "t.md"
    done = CliRunner().invoke(main, [*call, "--json", "--output", str(there)])
    assert json.loads(done.stdout) == {"path": str(there)}
    assert there.read_text().startswith("# Our numbers")


def test_a_mistyped_result_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "voc2007-vgg16.json").write_text("{}")
    for words in (["report", "voc207-vgg16"], ["submission", "write", "voc2007-vg16"]):
        done = CliRunner().invoke(main, [*words, "--results", str(tmp_path)])
        assert (done.exit_code, done.stdout) == (1, "")
        assert "Did you mean 'voc2007-vgg16'?" in done.stderr
