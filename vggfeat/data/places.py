"""Where the files of a list are: beside it or in the working folder, on the disk or in a store."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from vggfeat.data.folder import item_id
from vggfeat.data.notes import Notes
from vggfeat.files.suffixes import SUFFIXES

_ELSEWHERE = re.compile(r"[A-Za-z]:[\\/]|\\\\|[a-z]+://")  # a drive, a share, an address
_MOST_FOLDERS = 100  # that are looked into for a hint


@dataclass(frozen=True, kw_only=True)
class Place:
    """A file that a list names.

    Attributes:
        id: Of its item.
        path: Where it is.
    """

    id: str
    path: Path


class Places:
    """Finds the files of a list.

    Args:
        folder: Of the list; paths are relative to it.
        stored_ids: The ids of a store that stands in for the files, which then need not be there.
    """

    def __init__(self, folder: Path, stored_ids: Sequence[str] | None) -> None:
        self._base = folder
        self._stored = None if stored_ids is None else frozenset(stored_ids)
        self._listings: dict[PurePosixPath, dict[str, list[str]]] = {}
        of_folder: dict[PurePosixPath, list[str]] = {}
        for path in map(PurePosixPath, stored_ids or ()):
            of_folder.setdefault(path.parent, []).append(path.name)
        self._listings |= {parent: _by_stem(names) for parent, names in of_folder.items()}

    def choose_base(self, written: Sequence[str], notes: Notes) -> None:
        """Take the working folder for the list's own, where more of the paths are in it.

        Args:
            written: The paths, as the list writes them.
            notes: Hear of it.
        """
        if self._stored is not None or all(self.find(one) for one in written):
            return
        found = {}
        for base in (Path(), folder := self._base):
            self._base, self._listings = base, {}
            found[base] = sum(bool(self.find(one)) for one in written)
        if found[Path()] > found[folder]:
            self._base, self._listings = Path(), {}
            notes.say(f"the paths are relative to the working folder, not to '{folder}'")

    def find(self, written: str) -> list[Place]:
        """Return the files that a path may mean: itself, or those that it lacks the ending of.

        Backslashes are read as slashes, and blanks around the path left out, where there is no
        file of the name as it is written.
        """
        for spelling in _spellings(written):
            if self._is_there(spelling):
                return [self._place(spelling)]
        found = []
        for spelling in _spellings(written):
            found += [self._place(one) for one in self._with_ending(spelling)]
            if found:
                break
        return found

    def missing(self, written: str) -> tuple[Path, str]:
        """Return where the file of a path would be, and what to do about it."""
        place = self._base / written
        if _ELSEWHERE.match(written):
            return place, "Write paths relative to the list, of files on this machine."
        if hint := self.like(written):
            return place, f"There is {hint!r}; write that, or take the line away."
        return place, "Mend the path, or take the line away."

    def like(self, written: str) -> str:
        """Return a file that a path could mean, relative as the path is; "" if there is none."""
        if self._stored is not None:
            return ""
        path = PurePosixPath(next(reversed([*_spellings(written)])))
        alike = {path.name.casefold(), path.stem.casefold()}
        for stem, names in self._listing(path.parent).items():
            if stem.casefold() in alike:
                return str(path.parent / names[0])
        around = ["..", *(one.name for one in sorted(self._base.glob("*/"))[:_MOST_FOLDERS])]
        for folder in around:
            below = str(PurePosixPath(folder) / path)
            for name in [below] if self._is_there(below) else self._with_ending(below):
                return name
        return ""

    def _place(self, spelling: str) -> Place:
        return Place(id=item_id(Path(spelling)), path=self._base / spelling)

    def _is_there(self, spelling: str) -> bool:
        if self._stored is not None:
            return item_id(Path(spelling)) in self._stored
        return os.path.isfile(self._base / spelling)  # noqa: PTH113  (Path.is_file may raise)

    def _with_ending(self, spelling: str) -> list[str]:
        path = PurePosixPath(spelling)
        names = self._listing(path.parent).get(path.name, [])
        return [str(path.parent / name) for name in names]

    def _listing(self, folder: PurePosixPath) -> dict[str, list[str]]:
        """Return the images of a folder, name without ending → names."""
        if folder not in self._listings:
            try:
                files = [] if self._stored is not None else [*(self._base / folder).iterdir()]
            except (OSError, ValueError):
                files = []
            self._listings[folder] = _by_stem(file.name for file in files)
        return self._listings[folder]


def _spellings(written: str) -> Iterator[str]:
    yield from dict.fromkeys((written, written.strip(), written.strip().replace("\\", "/")))


def _by_stem(names: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for path in map(PurePosixPath, sorted(names)):
        if path.suffix.lower() in SUFFIXES and not path.name.startswith("."):
            found.setdefault(path.stem, []).append(path.name)
    return found
