"""The commands that look at a store: what is near, a map, an export."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from vggfeat.cli.group import main
from vggfeat.cli.options import (
    AS_JSON,
    MACHINE,
    machine_of,
    machine_options,
    recipe_values,
    some_recipe_options,
)
from vggfeat.cli.progress import terminal_watch
from vggfeat.cli.shelves import store
from vggfeat.cli.show import print_path, print_rows

_log = logging.getLogger(__name__)

_Command = TypeVar("_Command", bound=Callable[..., Any])


def _view_options(command: _Command) -> _Command:
    """Add the options that say how a store is looked at, as `svm` has them."""
    return some_recipe_options("dataset", "scales", "aggregate", "normalise")(command)


@main.command()
@click.argument("path", type=Path, metavar="STORE")
@click.argument("images", nargs=-1, metavar="[IMAGE|FOLDER...]")
@click.option("--top", type=int, default=10, show_default=True, metavar="N", help="So many each.")
@click.option("--weights", metavar="PATH", help="Where the weight file is now, for new images.")
@click.option(
    "--output", type=Path, help="Write a page with pictures to this file, and print its path."
)
@_view_options
@machine_options(*(name for name in MACHINE if name != "results"))
@AS_JSON
def similar(
    path: Path,
    images: tuple[str, ...],
    top: int,
    weights: str | None,
    output: Path | None,
    as_json: bool,
    **options: Any,  # noqa: ANN401  (checked by Recipe and Machine)
) -> None:
    """Find the nearest images of a store (its folder or its file), by the cosine.

    An IMAGE is an id of the store, or else a new file, which is described as the store's images
    were. Without any, every image of the store is asked for. It is never its own neighbour.

    \b
    Example:
      vggfeat similar features/voc2007-vgg16-1a2b3c4d 000005 --top 5
      vggfeat similar features/voc2007-vgg16-1a2b3c4d new.jpg --output near.html
    """
    from vggfeat.looking import page
    from vggfeat.looking.similar import agreement
    from vggfeat.looking.similar import similar as neighbours
    from vggfeat.looking.view import open_view

    machine = machine_of(options)
    with open_view(path, recipe_values(options), machine) as view:
        found = neighbours(view, images, top, machine, terminal_watch(), weights)
        if output is not None:
            page.write_similar(view, found, output, machine)
    if as_json:
        click.echo(json.dumps([query.record() for query in found]))
    elif output is None:
        print_rows([row for query in found for row in query.rows()], as_json)
    if output is not None:
        _written(output, as_json)
    right, told = agreement(found)
    if told:
        share = 100 * right / told
        _log.info(
            "the nearest shares a class with its image: %d of %d (%.1f %%)", right, told, share
        )


@main.command("map")
@click.argument("path", type=Path, metavar="STORE")
@click.option(
    "--method",
    type=click.Choice(["pca", "umap"]),
    default="pca",
    show_default=True,
    help="Principal components, or UMAP (pip install 'vggfeat[map]').",
)
@click.option("--output", type=Path, help="The page; by default <results>/<store>-map.html.")
@_view_options
@machine_options("data_root", "results")
@AS_JSON
def map_store(
    path: Path,
    method: str,
    output: Path | None,
    as_json: bool,
    **options: Any,  # noqa: ANN401  (checked by Recipe and Machine)
) -> None:
    """Draw the images of a store as points of a plane, coloured by class; print the page's path.

    With --json the coordinates are printed, and a page is written only where --output says.

    \b
    Example:
      vggfeat map features/voc2007-vgg16-1a2b3c4d
      vggfeat map features/voc2007-vgg16-1a2b3c4d --json > points.json
    """
    from vggfeat.looking import page
    from vggfeat.looking.projection import project
    from vggfeat.looking.view import open_view

    machine = machine_of(options)
    with open_view(path, recipe_values(options), machine) as view:
        found = project(view, method, terminal_watch())
        target = output or machine.results / f"{view.name}-map.html"
        if output is not None or not as_json:
            page.write_map(view, found, target)
    if as_json:
        click.echo(json.dumps(view.facts | found.record()))
    if output is not None or not as_json:
        _written(target, as_json)
    if found.explained is not None:
        first, second = (100 * share for share in found.explained)
        both = first + second
        _log.info(
            "variance that the two components explain: %.1f %% and %.1f %%, together %.1f %%",
            *(first, second, both),
        )


@store.command("export")
@click.argument("path", type=Path, metavar="STORE")
@click.option(
    "--format",
    "form",
    type=click.Choice(["npz", "csv", "parquet"]),
    default="npz",
    show_default=True,
    help="parquet takes pip install 'vggfeat[parquet]'.",
)
@click.option("--output", type=Path, help="The file; by default <store>.<format>, here.")
@_view_options
@machine_options("data_root")
@AS_JSON
def store_export(
    path: Path,
    form: str,
    output: Path | None,
    as_json: bool,
    **options: Any,  # noqa: ANN401  (checked by Recipe and Machine)
) -> None:
    """Write ids, descriptors, norms, sizes, digests and labels as another file; print its path.

    An image has the descriptors that the store holds, one for each scale. With --aggregate or
    --normalise it has one, of the scales joined as for `vggfeat svm`. Labels are there where the
    data set is known: --dataset says which it is.

    \b
    Example:
      vggfeat store export features/voc2007-vgg16-1a2b3c4d --format csv --output voc2007.csv
    """
    from vggfeat.looking.export import export
    from vggfeat.looking.view import open_view

    values, machine = recipe_values(options), machine_of(options)
    with open_view(path, values, machine) as view:
        target = output or Path(f"{view.name}.{form}")
        joined = bool({"aggregate", "normalise"} & values.keys())
        export(view, target, form, joined=joined, watch=terminal_watch())
    print_path(target, as_json)


def _written(page: Path, as_json: bool) -> None:
    """Tell where a page is, beside the JSON that is the result."""
    if as_json:
        _log.info("written: %s", page)
    else:
        click.echo(page)
