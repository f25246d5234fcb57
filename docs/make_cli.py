"""Makes docs/cli.md from the `--help` of every command.

    python -m docs.make_cli

Lines are 100 characters wide at most, whatever the terminal; environment variables are named, not
read; no command runs, and torch is not loaded. Running it twice changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from vggfeat.cli import main as vggfeat

PAGE = Path(__file__).resolve().parent / "cli.md"
WIDTH = 100

_INTRODUCTION = """\
# The command line

What every command prints with `--help`. This page is generated: `make docs` makes it anew.

`vggfeat` has {count} commands. Options may stand in any order behind a command, `--quiet` before it
as well, and each may be set in its "env var" instead; what is typed wins over the environment.
Results go to stdout, for a script with `--json`, everything else to stderr. Exit codes: 0 done, 1
an error that you can mend, 2 a command line that makes no sense, 130 and 143 stopped by a signal.
"""


def page(command: click.Command = vggfeat, name: str = "vggfeat") -> str:
    """Return the page of a command and everything below it.

    Args:
        command: The outermost one.
        name: As it is typed.
    """
    found = list(helps(command, name))
    count = sum(not isinstance(command, click.Group) for _, command, _ in found)
    sections = [f"## {name}\n\n```text\n{text}\n```\n" for name, _, text in found]
    return "\n".join([_INTRODUCTION.format(count=count), _contents(found), *sections])


def helps(
    command: click.Command, name: str, parent: click.Context | None = None
) -> Iterator[tuple[str, click.Command, str]]:
    """Yield each command's whole name, itself and its help, groups before what they hold."""
    settings = {**command.context_settings, "terminal_width": WIDTH}
    context = click.Context(command, parent, name, **settings)
    yield context.command_path, command, command.get_help(context)
    if isinstance(command, click.Group):
        for below in sorted(command.commands):
            yield from helps(command.commands[below], below, context)


def _contents(found: list[tuple[str, click.Command, str]]) -> str:
    """Return a list of links, with what each command does in a few words."""
    return "".join(
        f"- [`{name}`](#{name.replace(' ', '-')}): {command.get_short_help_str(WIDTH)}\n"
        for name, command, _ in found
    )


def main() -> None:
    """Bring docs/cli.md up to date."""
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)


if __name__ == "__main__":
    main()
