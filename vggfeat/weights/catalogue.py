"""The published weight files, usable or not, as `catalogue.toml` lists them. No torch here."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, get_args

from vggfeat.nets.architectures import ARCHITECTURES
from vggfeat.weights.formats.sniff import Channels, LayoutName

if TYPE_CHECKING:
    from vggfeat.files.examine import RemoteFile

_DIGITS = {"sha256": 64, "sha384": 96, "sha1": 40, "md5": 32, "sha256_prefix": 8}
_PROFILES = {"oxford", "torchvision", None}


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """An error rate that was published for a file.

    Attributes:
        protocol: How the images were cropped and scaled.
        top1_error: Percent of the ILSVRC-2012 validation images.
        top5_error: Percent of the ILSVRC-2012 validation images.
    """

    protocol: str
    top1_error: float
    top5_error: float


@dataclass(frozen=True, kw_only=True)
class PublishedWeights:
    """One published file.

    Attributes:
        family: Who trained it: "oxford" (the authors, whoever ported it) or "torchvision".
        net: Our name of the net.
        name: The file's name on disk; no two files share one.
        urls: Where it is, in the order in which to try; empty if it is no longer offered.
        size: Bytes, None where nobody says.
        digests: The published ones, hexadecimal: "sha256", "sha384", "sha1", "md5", and
            "sha256_prefix", the first 8 digits, which rule out accidents, not forgery.
        profile: Its preprocessing, None where it has none that is known.
        layout: Whose names and axes it has, None where it cannot be read.
        channels: The order that conv1_1 reads, None where nobody says.
        licence: Of the weights.
        citation: Whose work it is.
        accuracy: Published error rates.
        usable: Whether descriptors can be computed from it.
        reason: Why not.
    """

    family: str
    net: str
    name: str
    urls: tuple[str, ...]
    size: int | None = None
    digests: Mapping[str, str]
    profile: str | None = None
    layout: LayoutName | None = None
    channels: Channels | None = None
    licence: str
    citation: str
    accuracy: tuple[Accuracy, ...] = ()
    usable: bool = True
    reason: str = ""

    @property
    def remote(self) -> RemoteFile:
        """What has to be known to fetch and verify it."""
        from vggfeat.files.examine import RemoteFile

        return RemoteFile(name=self.name, urls=self.urls, size=self.size, digests=self.digests)

    @property
    def summary(self) -> str:
        """What it is, how large, under which licence, in one line."""
        size = f"{self.size / 1e6:,.0f} MB" if self.size else "of unknown size"
        return f"{self.name}, {size}; licence: {self.licence}; {self.citation}"

    def is_file(self, sha256: str) -> bool:
        """Tell whether a file of this digest is this one, as far as its SHA-256 was published.

        Args:
            sha256: 64 hexadecimal digits.
        """
        known = self.digests.get("sha256") or self.digests.get("sha256_prefix")
        return known is not None and sha256.startswith(known)

    def could_be(self, sha256: str) -> bool:
        """Tell whether nothing published contradicts that a file of this digest is this one.

        Args:
            sha256: 64 hexadecimal digits.
        """
        known = self.digests.get("sha256") or self.digests.get("sha256_prefix") or ""
        return sha256.startswith(known)


@cache
def catalogue() -> tuple[PublishedWeights, ...]:
    """Return every published file; within a family and net the preferred one first."""
    text = resources.files("vggfeat.weights").joinpath("catalogue.toml").read_text("utf-8")
    files = tuple(_published(entry) for entry in tomllib.loads(text)["file"])
    _check(files)
    return files


def by_digest(sha256: str) -> PublishedWeights | None:
    """Return the published file of this digest.

    Args:
        sha256: 64 hexadecimal digits.

    Returns:
        None if none is known by its SHA-256; Keras and MatConvNet have only published an MD5.
    """
    return next((file for file in catalogue() if file.is_file(sha256)), None)


def published_as(name: str, sha256: str) -> PublishedWeights | None:
    """Return the published file that a file is; those without a SHA-256 go by their name.

    Args:
        name: Of the file.
        sha256: 64 hexadecimal digits.

    Returns:
        None if it is none.
    """
    named = (file for file in catalogue() if file.name == name)
    return by_digest(sha256) or next((file for file in named if file.could_be(sha256)), None)


def _published(entry: dict[str, Any]) -> PublishedWeights:
    accuracy = tuple(Accuracy(**rates) for rates in entry.pop("accuracy", ()))
    digests = MappingProxyType(entry.pop("digests"))
    return PublishedWeights(
        urls=tuple(entry.pop("urls")), digests=digests, accuracy=accuracy, **entry
    )


def _check(files: Iterable[PublishedWeights]) -> None:
    """Raise for a slip of the pen in the catalogue, which is ours."""
    seen = set()
    for file in files:
        sound = {
            "name": file.name not in seen and re.fullmatch(r"[\w.-]+", file.name),
            "net": file.net in ARCHITECTURES,
            "urls": all(url.startswith(("https://", "http://")) for url in file.urls),
            "size": file.size is None or file.size > 0,
            "digests": all(
                re.fullmatch(rf"[0-9a-f]{{{_DIGITS.get(kind, 0)}}}", digest)
                for kind, digest in file.digests.items()
            ),
            "profile": file.profile in _PROFILES,
            "layout": file.layout in {*get_args(LayoutName), None},
            "channels": file.channels in {*get_args(Channels), None},
            "reason": file.usable != bool(file.reason),
            "what a usable file needs": not file.usable
            or None not in {file.profile, file.layout, file.channels},
        }
        wrong = [field for field, right in sound.items() if not right]
        if wrong:
            raise ValueError(f"catalogue.toml: {file.name}: {', '.join(wrong)}")
        seen.add(file.name)
