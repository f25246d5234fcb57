"""The published data sets, as data: where they are, how large, under which licence."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vggfeat.data.names import NAMED
from vggfeat.errors import RecipeError, nearest
from vggfeat.files.examine import RemoteFile

_CATALOGUE = Path(__file__).with_name("catalogue.toml")


@dataclass(frozen=True, kw_only=True)
class Archive:
    """An archive of a data set.

    Attributes:
        part: Which part it holds; archives of one part hold the same, any one is enough.
        file: Where it is published.
        nested: The member of a zip that is the archive proper.
    """

    part: str
    file: RemoteFile
    nested: str | None


@dataclass(frozen=True, kw_only=True)
class PublishedDataset:
    """A published data set.

    Attributes:
        name: As on the command line.
        title: Its own name.
        homepage: Its publisher's page.
        licence: Licence or terms.
        citation: What to cite.
        holds: What is inside, one line.
        note: What is not fetched and how to get it, or "".
        place: The folder, below the data root, that `fetch_dataset` makes.
        also_at: Further folders in which it is recognised.
        inside: The folder of the archives that becomes `place`.
        select: Matches the archives' members that are unpacked.
        images: Glob of the images below `place`.
        image_count: Their number.
        class_count: The number of their folders, 0 where folders are no classes.
        lists: Lists below `place`, with the number of different images that each names.
        archives: What is downloaded.
    """

    name: str
    title: str
    homepage: str
    licence: str
    citation: str
    holds: str
    note: str
    place: str
    also_at: tuple[str, ...]
    inside: str
    select: re.Pattern[str]
    images: str
    image_count: int
    class_count: int
    lists: Mapping[str, int]
    archives: tuple[Archive, ...]

    @property
    def parts(self) -> tuple[tuple[Archive, ...], ...]:
        """The archives by part; one of each is needed."""
        names = dict.fromkeys(archive.part for archive in self.archives)
        return tuple(tuple(a for a in self.archives if a.part == name) for name in names)

    @property
    def download_bytes(self) -> int:
        """Bytes to download, from the first place of each part."""
        return sum(part[0].file.size or 0 for part in self.parts)

    @property
    def summary(self) -> str:
        """What it is, how large its download, under which terms, in one line."""
        size = f"{self.download_bytes / 1e6:,.0f} MB to download"
        parts = (f"{self.title}, {size}", self.licence, self.note, f"cite {self.citation}")
        return "; ".join(filter(None, parts))


def published() -> tuple[PublishedDataset, ...]:
    """Return the data sets that can be fetched."""
    entries = tomllib.loads(_CATALOGUE.read_text("utf-8"))["dataset"]
    known = {entry["name"]: entry for entry in entries}
    return tuple(_dataset(known.get(entry.get("like"), {}) | entry) for entry in entries)


def _dataset(entry: dict[str, Any]) -> PublishedDataset:
    images = entry["images"]
    texts = ("name", "title", "homepage", "licence", "citation", "holds", "note", "place", "inside")
    return PublishedDataset(
        **{key: entry[key] for key in texts},
        also_at=tuple(entry["also_at"]),
        select=re.compile(entry["select"]),
        images=images["glob"],
        image_count=images["count"],
        class_count=images["classes"],
        lists=entry["lists"],
        archives=tuple(_archive(archive) for archive in entry["archive"]),
    )


def _archive(entry: dict[str, Any]) -> Archive:
    file = RemoteFile(
        name=entry["name"],
        urls=tuple(entry["urls"]),
        size=entry["bytes"],
        digests={kind: entry[kind] for kind in ("sha256", "md5") if kind in entry},
    )
    return Archive(part=entry["part"], file=file, nested=entry.get("nested"))


def published_dataset(name: str) -> PublishedDataset:
    """Return the published data set of that name.

    Raises:
        RecipeError: If there is none.
    """
    found = published_for(name)
    if found is None:
        valid = [known for known, record in NAMED.items() if record.published]
        raise RecipeError(f"No published data set {name!r}.", nearest(name, valid))
    return found


def published_for(name: str) -> PublishedDataset | None:
    """Return what is fetched for a data set; None if it is not published, or there is none."""
    entry = NAMED[name].published if name in NAMED else None
    return next((dataset for dataset in published() if dataset.name == entry), None)
