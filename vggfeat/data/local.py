"""The data sets of the paper: where they are published, fetched, and whether they are intact."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from vggfeat.data.catalogue import Archive, PublishedDataset, published, published_dataset
from vggfeat.data.records import PARTS, Dataset
from vggfeat.errors import DatasetError, DownloadError
from vggfeat.files.examine import Examined, State, examine
from vggfeat.files.unpack import extract, placing
from vggfeat.watch import Watch

_DEFAULT_ROOT = Path("datasets")
_JPEG = b"\xff\xd8\xff"


def lacking(dataset: Dataset) -> str:
    """Say in words what of a published data set is not there; "" if nothing is known to lack.

    Args:
        dataset: Opened, with all its images.
    """
    whole = {one.name: one for one in published()}.get(dataset.name)
    if whole is None:
        return ""
    parts = {part: getattr(dataset.splits[0], part).ids for part in PARTS}
    images = dataset.of_region("image")
    found = {part: len(set(images.rows(ids))) for part, ids in parts.items()}
    short = [
        f"{part} has {found[part]:,} of {count:,} images"
        for path, count in whole.lists.items()
        if (part := Path(path).stem) in found and found[part] < count
    ]
    if not whole.lists and len(images.items) < whole.image_count:
        short = [f"{len(images.items):,} of {whole.image_count:,} images are here"]
    return ", ".join(short)


def fetch_dataset(name: str, data_root: Path, watch: Watch) -> Path:
    """Download, unpack and check a data set, unless it is there, and return its folder.

    The archives stay in `<data_root>/archives`, where they are found again; they may be deleted.
    The folder appears when everything in it has been counted.

    Args:
        name: Of a published data set.
        data_root: Holds the data sets.
        watch: Shows the progress, and may stop it; what has been downloaded is kept.

    Raises:
        RecipeError: If there is none of that name.
        DownloadError: If an archive cannot be had.
        UnsafeArchiveError: If an archive is damaged or hostile.
        DatasetError: If what is there, or was unpacked, is not the whole data set.
        PublishError: If it cannot be written.
        Interrupted: If `watch` says so.
    """
    dataset = published_dataset(name)
    place = _place(dataset, data_root)
    if place is not None:
        found = _examine(dataset, place, watch)
        if found.state is State.GOOD:
            return place
        raise DatasetError(
            f"'{place}' is not the whole of {dataset.title}: {found.detail}.",
            "What is there is never overwritten.",
            f"Type `mv '{place}' '{place}.old'` and run the same command again.",
        )
    place = data_root / dataset.place
    archives = [_fetch_part(part, _archives(data_root), watch) for part in dataset.parts]
    with placing(place, inside=dataset.inside) as folder:
        for archive, path in archives:
            extract(path, folder, watch, nested=archive.nested, select=dataset.select)
        found = _examine(dataset, folder / dataset.inside, watch)
        if found.state is not State.GOOD:
            raise DatasetError(
                f"The archives of {dataset.title} do not hold the whole of it: {found.detail}.",
                f"Expected {dataset.holds}.",
                f"Remove '{_archives(data_root)}' and run the same command again.",
            )
    return place


def verify_dataset(name: str, data_root: Path, watch: Watch | None = None) -> Examined:
    """Say whether a data set is intact: its lists, its images, their first bytes.

    Args:
        name: Of a published data set.
        data_root: Holds the data sets.
        watch: Shows the progress, and may stop it.

    Returns:
        The state, why, and, unless it is good, what to type.

    Raises:
        RecipeError: If there is none of that name.
        Interrupted: If `watch` says so.
    """
    dataset = published_dataset(name)
    place = _place(dataset, data_root)
    command = f"vggfeat datasets fetch {name}"
    if data_root != _DEFAULT_ROOT:
        command += f" --data-root '{data_root}'"
    if place is None:
        found = _examine_archives(dataset, data_root)
        return replace(found, remedy=f"type `{command}`")
    found = _examine(dataset, place, watch or Watch())
    anew = f"type `mv '{place}' '{place}.old'` and `{command}`"
    remedy = "" if found.state is State.GOOD else anew
    return Examined(state=found.state, detail=f"'{place}': {found.detail}", remedy=remedy)


def _archives(data_root: Path) -> Path:
    return data_root / "archives"


def _place(dataset: PublishedDataset, data_root: Path) -> Path | None:
    """Return the folder that is, or stands where there should be, the data set."""
    for name in (dataset.place, *dataset.also_at):
        place = data_root / name
        known = [place / path for path in dataset.lists] or [place]
        stands = name == dataset.place and os.path.lexists(place)
        if stands or any(path.exists() for path in known):
            return place
    return None


def _fetch_part(part: tuple[Archive, ...], folder: Path, watch: Watch) -> tuple[Archive, Path]:
    from vggfeat.files.fetch import fetch

    there = [archive for archive in part if examine(archive.file, folder).state is State.GOOD]
    failures = []
    for archive in there or part:
        try:
            return archive, fetch(archive.file, folder, watch)
        except DownloadError as error:
            failures.append(error)
    raise DownloadError("\n".join(map(str, failures))) from failures[-1]


def _examine_archives(dataset: PublishedDataset, data_root: Path) -> Examined:
    files = [archive.file for archive in dataset.archives]
    found = {file.name: examine(file, _archives(data_root)) for file in files}
    there = {name: f for name, f in found.items() if f.state is not State.ABSENT}
    if not there:
        return Examined(state=State.ABSENT, detail=f"not below '{data_root}'")
    lines = [f"{name} {f.state} ({f.detail})" for name, f in there.items()]
    return Examined(state=State.PARTIAL, detail=f"not unpacked; archives: {', '.join(lines)}")


def _examine(dataset: PublishedDataset, place: Path, watch: Watch) -> Examined:
    listed: set[str] = set()
    for path, expected in dataset.lists.items():
        if not (place / path).is_file():
            return Examined(state=State.PARTIAL, detail=f"{path} is missing")
        ids = _ids(place / path)
        if len(ids) != expected:
            state = State.PARTIAL if len(ids) < expected else State.DAMAGED
            detail = f"{path} names {len(ids):,} images, {expected:,} expected"
            return Examined(state=state, detail=detail)
        listed |= ids
    files = sorted(p for p in place.glob(dataset.images) if not p.name.startswith("."))
    absent = sorted(listed - {path.stem for path in files})
    if absent or len(files) < dataset.image_count:
        example = f", {absent[0]} of the lists is missing" if absent else ""
        detail = f"{len(files):,} of {dataset.image_count:,} images{example}"
        return Examined(state=State.PARTIAL, detail=detail)
    classes = len({path.parent for path in files})
    if dataset.class_count and (classes, len(files)) != (dataset.class_count, dataset.image_count):
        detail = (
            f"{len(files):,} images in {classes} folders, "
            f"{dataset.image_count:,} in {dataset.class_count} expected"
        )
        return Examined(state=State.DAMAGED, detail=detail)
    return _examine_images(files, dataset.title, watch)


def _examine_images(files: list[Path], title: str, watch: Watch) -> Examined:
    bad = []
    with watch.step(f"check {title}", len(files), "images") as advance:
        for path in files:
            if not _is_jpeg(path):
                bad.append(path)
            advance(1)
            watch.check("Run the same command again.")
    if bad:
        detail = f"{len(bad):,} of {len(files):,} images are no JPEG files, first '{bad[0]}'"
        return Examined(state=State.DAMAGED, detail=detail)
    return Examined(state=State.GOOD, detail=f"{len(files):,} images")


def _is_jpeg(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return stream.read(len(_JPEG)) == _JPEG
    except OSError:
        return False


def _ids(path: Path) -> set[str]:
    try:
        lines = path.read_bytes().decode("utf-8", "replace").splitlines()
    except OSError:
        return set()
    return {line.split()[0] for line in lines if line.strip()}
