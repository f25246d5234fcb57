"""The group of all commands: our errors become one message and an exit code."""

from __future__ import annotations

import logging
import signal
from typing import Any, NoReturn

import click

from vggfeat.cli.progress import console
from vggfeat.errors import Interrupted, VggfeatError
from vggfeat.version import __version__


class _Group(click.Group):
    """Turns our errors into one message and their exit code; a bug keeps its traceback."""

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401  (click's signature)
        try:
            return super().invoke(ctx)
        except VggfeatError as error:
            _fail(ctx, error)
        except KeyboardInterrupt:  # a fitting process got the terminal's Ctrl-C before we did
            _fail(ctx, Interrupted(signal.SIGINT, "Run the same command again."))


def _fail(ctx: click.Context, error: VggfeatError) -> NoReturn:
    click.echo(f"vggfeat: {error}", err=True)
    ctx.exit(error.exit_code)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="vggfeat")
@click.option("-q", "--quiet", is_flag=True, help="Only warnings and errors on stderr.")
def main(quiet: bool) -> None:
    """Dense multi-scale VGG descriptors, and linear SVMs on top of them.

    \b
    Example:
      vggfeat extract --model vgg16 --dataset voc2007
      vggfeat svm --model vgg16 --dataset voc2007
    """
    root = logging.getLogger("vggfeat")
    root.setLevel(logging.WARNING if quiet else logging.INFO)
    if not root.handlers:
        root.addHandler(_StderrHandler())


class _StderrHandler(logging.Handler):
    """Writes lines to the current stderr, above a progress bar if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        console().print(
            self.format(record), markup=False, highlight=False, soft_wrap=True, style=None
        )
