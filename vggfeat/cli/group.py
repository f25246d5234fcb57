"""The group of all commands: our errors become one message and an exit code."""

from __future__ import annotations

import logging
import shlex
import signal
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import click

from vggfeat.cli.command import Group, set_loudness
from vggfeat.cli.progress import console
from vggfeat.errors import Interrupted, VggfeatError
from vggfeat.version import __version__

_TYPED = "vggfeat.typed"  # where a context keeps the words of its command


class _Main(Group):
    """Turns our errors into one message and their exit code; a bug keeps its traceback."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[_TYPED] = tuple(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401  (click's signature)
        try:
            return super().invoke(ctx)
        except VggfeatError as error:
            _fail(ctx, error)
        except KeyboardInterrupt:  # a fitting process got the terminal's Ctrl-C before we did
            _fail(ctx, Interrupted(signal.SIGINT, "Run the same command again."))


def _fail(ctx: click.Context, error: VggfeatError) -> NoReturn:
    click.echo(f"vggfeat: {error}", err=True)
    command = main.commands.get(ctx.invoked_subcommand or "")
    flags = {flag for option in command.params for flag in option.opts} if command else set()
    if error.options and flags.issuperset(error.options):
        typed = with_options(ctx.meta[_TYPED], error.options)
        click.echo(f"Type: {shlex.join(['vggfeat', *typed])}", err=True)
    ctx.exit(error.exit_code)


def with_options(typed: Sequence[str], options: Mapping[str, str]) -> list[str]:
    """Return a command with other values of some of its options.

    >>> with_options(["extract", "--tap=fc7", "--model", "vgg16"], {"--tap": "pool5"})
    ['extract', '--model', 'vgg16', '--tap', 'pool5']

    Args:
        typed: Its words.
        options: Flags that take a value, and the value; they stand in the place of all such flags.
    """
    kept: list[str] = []
    words = iter(typed)
    for word in words:
        if word in options:
            next(words, None)
        elif word.partition("=")[0] not in options:
            kept.append(word)
    return kept + [word for option in options.items() for word in option]


@click.group(cls=_Main, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="vggfeat")
@click.pass_context
def main(context: click.Context) -> None:
    """Dense multi-scale VGG descriptors, and linear SVMs on top of them.

    \b
    Example:
      vggfeat extract --model vgg16 --dataset voc2007
      vggfeat svm --model vgg16 --dataset voc2007
    """
    set_loudness(context)
    root = logging.getLogger("vggfeat")
    if not root.handlers:
        root.addHandler(_StderrHandler())


class _StderrHandler(logging.Handler):
    """Writes lines to the current stderr, above a progress bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        console().print(
            self.format(record), markup=False, highlight=False, soft_wrap=True, style=None
        )
