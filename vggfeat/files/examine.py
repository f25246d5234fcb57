"""Whether a published file is here and intact."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from vggfeat.files.digests import sha256_of
from vggfeat.files.publish import publish_bytes
from vggfeat.watch import Watch

_BLOCK = 1 << 20
_NO_FORGERY = "which rules out accidents, not forgery"


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """A published file.

    Attributes:
        name: The name that it gets.
        urls: Where it is, http or https, in the order in which they are tried.
        size: Bytes, where published.
        digests: The published ones, hexadecimal, by "sha256", "sha384", "sha1", "md5" or
            "sha256_prefix" (the first digits only; PyTorch puts 8 into its names).
    """

    name: str
    urls: tuple[str, ...]
    size: int | None
    digests: Mapping[str, str]


class State(StrEnum):
    """What stands in a place."""

    GOOD = "good"
    DAMAGED = "damaged"
    PARTIAL = "partial"
    ABSENT = "absent"


@dataclass(frozen=True, kw_only=True)
class Examined:
    """What was found in a place.

    Attributes:
        state: What it is worth.
        detail: Why, in part of a line.
        remedy: What to type, or to do; empty if nothing, or where that is not known here.
    """

    state: State
    detail: str
    remedy: str = ""

    @property
    def line(self) -> str:
        """Why, and what to type, in one line."""
        return f"{self.detail}; {self.remedy}" if self.remedy else self.detail


def examine(file: RemoteFile, folder: Path) -> Examined:
    """Say whether a file is in `folder`, and what its size and digests prove.

    Args:
        file: The published file.
        folder: Where it would be.
    """
    final = folder / file.name
    if os.path.lexists(final):
        try:
            return _examine_final(file, final)
        except OSError as error:
            reason = error.strerror or str(error)
            return Examined(state=State.DAMAGED, detail=f"cannot be read: {reason}")
    with suppress(OSError):
        there = amount(part_path(final).stat().st_size, file.size)
        return Examined(state=State.PARTIAL, detail=f"{there} are there")
    return Examined(state=State.ABSENT, detail=f"there is no '{final}'")


def _examine_final(file: RemoteFile, final: Path) -> Examined:
    status = final.stat()
    if not stat.S_ISREG(status.st_mode):
        return Examined(state=State.DAMAGED, detail="is no regular file")
    if wrong := wrong_size(file, status.st_size):
        return Examined(state=State.DAMAGED, detail=wrong)
    record = record_of(final)
    seen = {"sha256": sha256_of(final)}
    unchanged = record.get("sha256") == seen["sha256"]
    compared = unchanged and record.get("published") == dict(file.digests)
    if compared or "sha256" in file.digests:
        seen = {**file.digests, **seen}
    else:
        seen |= hashes(final, kinds(file) - {"sha256"}, Watch())
    wrong = wrong_digest(file, seen)
    if not wrong and record and not unchanged and "sha256" not in file.digests:
        recorded = str(record.get("sha256"))
        wrong = f"sha256 {seen['sha256'][:12]}…, {recorded[:12]}… when it was downloaded"
    if wrong:
        return Examined(state=State.DAMAGED, detail=wrong)
    since = ", and it is unchanged since its download" if unchanged else ""
    return Examined(state=State.GOOD, detail=f"{status.st_size:,} bytes, {_proof(file)}{since}")


def kinds(file: RemoteFile) -> set[str]:
    """Return the algorithms whose digests of a file are needed."""
    return {"sha256", *file.digests} - {"sha256_prefix"}


def _label(kind: str, digest: str) -> str:
    return f"{len(digest)} digits of sha256" if kind == "sha256_prefix" else kind


def compared(file: RemoteFile) -> str:
    """Name what was compared; beside a strong digest the others say nothing more."""
    strong = [kind for kind in ("sha256", "sha384") if kind in file.digests]
    names = strong[:1] or [_label(*item) for item in file.digests.items()]
    return " and ".join(names) or "none published"


def _proof(file: RemoteFile) -> str:
    if not file.digests:
        return "no digest is published to compare it with"
    if file.digests.keys() & {"sha256", "sha384"}:
        return f"{compared(file)} matches"
    return f"only {compared(file)} published and equal, {_NO_FORGERY}"


def wrong_size(file: RemoteFile, size: int) -> str:
    """Say what is wrong with a size, bytes; nothing if it fits."""
    return "" if file.size in {None, size} else f"{size:,} bytes, {file.size:,} expected"


def wrong_digest(file: RemoteFile, seen: Mapping[str, str]) -> str:
    """Say which digest is not the published one; nothing if all are."""
    for kind, published in file.digests.items():
        prefix = kind == "sha256_prefix"
        digest = seen["sha256"][: len(published)] if prefix else seen[kind]
        if digest != published.lower():
            return f"{_label(kind, published)} {digest[:12]}…, {published[:12]}… expected"
    return ""


def hashes(path: Path, kinds: set[str], watch: Watch) -> dict[str, str]:
    """Hash a file by each algorithm; hexadecimal digests by name."""
    if not kinds:
        return {}
    hashers = {kind: hashlib.new(kind, usedforsecurity=False) for kind in kinds}
    with path.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        with watch.step(f"check {path.name.removeprefix('.')}", size, "bytes") as advance:
            while block := stream.read(_BLOCK):
                for hasher in hashers.values():
                    hasher.update(block)
                advance(len(block))
                watch.check("Run the same command again: what has arrived is kept.")
    return {kind: hasher.hexdigest() for kind, hasher in hashers.items()}


def _record_path(final: Path) -> Path:
    return final.with_name(f"{final.name}.json")


def record_of(final: Path) -> dict[str, Any]:
    """Return what was noted when a file was downloaded; nothing if that is not there."""
    return read_json(_record_path(final))


def publish_record(file: RemoteFile, final: Path, url: str | None, sha256: str) -> None:
    """Note where a file came from, and what was compared."""
    record = {
        "url": url,
        "bytes": final.stat().st_size,
        "sha256": sha256,
        "checked": compared(file),
        "published": dict(file.digests),
    }
    publish_bytes(_record_path(final), (json.dumps(record, indent=2) + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """Read an object; what is absent or damaged is empty: the record only helps."""
    with suppress(OSError, ValueError, RecursionError):
        content = json.loads(path.read_bytes())
        if isinstance(content, dict):
            return content
    return {}


def part_path(final: Path) -> Path:
    """Return where a download is kept until it is whole."""
    return final.with_name(f".{final.name}.part")


def amount(have: int, size: int | None) -> str:
    """Say how much of a size, bytes, is there."""
    scale, unit = (1e6, "MB") if max(have, size or 0) >= 1e7 else (1, "bytes")
    return f"{have / scale:,.0f} {'' if size is None else f'of {size / scale:,.0f} '}{unit}"
