"""The HTML pages of a look at a store: self-contained, without a script."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vggfeat.data.records import published_ids
from vggfeat.files.publish import make_folder, publish_bytes
from vggfeat.looking.projection import Projection
from vggfeat.looking.similar import Neighbour, Query, agreement
from vggfeat.looking.view import View
from vggfeat.recipe import Machine
from vggfeat.report.pictures import GREY, Pictures, heat_map
from vggfeat.report.plots import scatter
from vggfeat.report.templates import environment

_MOST_QUERIES = 24  # with their pictures on one page
_INKS, _MARKS = 5, 4  # of the stylesheet: as many classes can be told apart in one plot


def write_similar(view: View, queries: Sequence[Query], path: Path, machine: Machine) -> None:
    """Write the page of some images and their neighbours, with pictures where they are on disk.

    Args:
        view: The store.
        queries: Those found; the first ones are shown.
        path: Of the page.
        machine: Says where data sets are.

    Raises:
        PublishError: If it cannot be written.
    """
    stored = view.pictures(machine)
    new = {query.id for query in queries if not query.stored}

    def image(name: str) -> bytes:
        if name in new:
            return Path(name).read_bytes()
        if stored is None:
            raise KeyError(name)
        return stored(name)

    pictures = Pictures(image)
    shown = queries[:_MOST_QUERIES]
    near = [one for query in shown for one in query.neighbours]
    right, told = agreement(queries)
    _publish(
        path,
        "similar.html.j2",
        facts=_facts(view),
        pictures=pictures,
        shown=[(pictures.of([one])[0], pictures.of(one.neighbours)) for one in shown],
        names=published_ids([*(one.id for one in shown), *(one.id for one in near)]),
        shares=_shares_class,
        left_out=len(queries) - len(shown),
        right=right,
        told=told,
    )


def write_map(view: View, found: Projection, path: Path) -> None:
    """Write the page of a map.

    Classes have colours and marks in one plot where they are few and each image has one at most;
    each has a plot of its own besides, where it stands before the cloud of all images.

    Args:
        view: The store.
        found: The map.
        path: Of the page.

    Raises:
        PublishError: If it cannot be written.
    """
    names = sorted({name for own in found.classes for name in own})
    members = [
        np.array([row for row, own in enumerate(found.classes) if name in own], dtype=np.intp)
        for name in names
    ]
    everything = np.arange(len(found.ids))
    without = np.array([row for row, own in enumerate(found.classes) if not own], dtype=np.intp)
    plot = scatter(found.points, [everything, without, *members])
    single = all(len(own) <= 1 for own in found.classes)
    _publish(
        path,
        "map.html.j2",
        facts=_facts(view),
        found=found,
        plot=plot,
        coloured=single and 1 < len(names) <= _INKS * _MARKS,
        single=single,
        inks=_INKS,
        groups=list(zip(names, plot.dots[2:], map(len, members), strict=True)),
        without=len(without) if names else 0,
        density=heat_map(plot.density, GREY),
    )


def _shares_class(query: Query, neighbour: Neighbour) -> tuple[str, str]:
    """Return the word and the sign for a neighbour beside a query; colour alone would not do."""
    if not query.classes or not neighbour.classes:
        return "", ""
    if {*query.classes} & {*neighbour.classes}:
        return "right", "✓"
    return "wrong", "✗"


def _facts(view: View) -> dict[str, Any]:
    """Return what was looked at, for others to read: no folder of this machine."""
    named = None if view.dataset is None else view.recipe.published().dataset
    return view.facts | {"dataset": named}


def _publish(path: Path, template: str, **context: Any) -> None:  # noqa: ANN401  (what a template shows)
    make_folder(path.parent)
    page = environment().get_template(template).render(context)
    publish_bytes(path, page.encode("utf-8", "replace"))
