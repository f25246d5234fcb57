"""Which published weight files are on this machine, and how the others get here. No torch."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from vggfeat.errors import WeightsError, nearest
from vggfeat.files.digests import user_cache
from vggfeat.files.examine import Examined, State, examine
from vggfeat.watch import Watch
from vggfeat.weights import formats
from vggfeat.weights.catalogue import PublishedWeights, catalogue


def families() -> list[str]:
    """Return the names that stand for any file of one training, in alphabetical order."""
    return sorted({file.family for file in catalogue() if file.usable})


def weight_folders() -> list[Path]:
    """Return where weight files are looked for, in order; downloads go to the first."""
    torch_home = os.environ.get("TORCH_HOME") or user_cache().parent / "torch"
    return [user_cache() / "weights", Path(torch_home) / "hub" / "checkpoints"]


def place_of(file: PublishedWeights) -> Path:
    """Return the path of a file that is on this machine, or the one that it would get."""
    places = [folder / file.name for folder in weight_folders()]
    return next((place for place in places if place.is_file()), places[0])


def candidates(family: str, net: str) -> list[PublishedWeights]:
    """Return the usable files of a family for a net, the preferred one first.

    Raises:
        WeightsError: If there is none.
    """
    found = [f for f in catalogue() if f.usable and (f.family, f.net) == (family, net)]
    if found:
        return found
    nets = sorted({f.net for f in catalogue() if f.usable and f.family == family})
    raise WeightsError(
        f"There are no published weights {family!r} for {net!r}.",
        f"There are for {', '.join(nets)}.",
        "Pass --weights random:0, or a file of your own.",
    )


def published_file(name: str, net: str | None = None) -> PublishedWeights:
    """Return the file that a user means.

    Args:
        name: Of the file, or a family, whose preferred file is meant.
        net: Which net, for a family.

    Raises:
        WeightsError: If there is none, or it cannot be used.
    """
    if name in families():
        if net is None:
            raise WeightsError(f"{name!r} has files for several nets.", remedy="Add --model NAME.")
        return candidates(name, net)[0]
    known = {file.name: file for file in catalogue()}
    if name not in known:
        raise WeightsError(f"No published weights {name!r}.", nearest(name, [*families(), *known]))
    return known[name]


def examine_file(file: PublishedWeights) -> Examined:
    """Say whether a published file is here and intact, and else what to type."""
    if not file.usable:
        return Examined(state=State.ABSENT, detail=f"not usable: {file.reason}")
    place = place_of(file)
    found = examine(file.remote, place.parent)
    fetching = f"type `vggfeat weights fetch {file.name}`"
    if not file.urls:
        fetching = f"it is no longer offered; a copy belongs at '{place}'"
    remedy = {
        State.GOOD: "",
        State.ABSENT: fetching,
        State.PARTIAL: f"{fetching}, which goes on from there",
        State.DAMAGED: f"type `mv '{place}' '{place}.bad'`; {fetching}",
    }[found.state]
    return replace(found, remedy=remedy)


def fetch_file(file: PublishedWeights, watch: Watch) -> Path:
    """Download a published file, unless it is here, and return its path.

    Args:
        file: Which.
        watch: Shows the progress, and may stop it; what has arrived is kept.

    Raises:
        WeightsError: If it cannot be used, or, where no digest was published, what came is no
            weight file.
        DownloadError: If it cannot be had.
        PublishError: If it cannot be written.
    """
    if not file.usable:
        raise WeightsError(f"{file.name} cannot be used.", file.reason)

    from vggfeat.files.fetch import fetch

    def check(path: Path) -> None:
        formats.recognise(path)

    return fetch(file.remote, place_of(file).parent, watch, check=None if file.digests else check)
