"""What is odd about a data set of any kind, though it can be read: lines for its user."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping

from vggfeat.data.records import PARTS, Dataset, Kind, Split, published_ids
from vggfeat.files.digests import UNREADABLE

_Pair = tuple[str, str]


def doubts_of_names(dataset: Dataset) -> list[str]:
    """Say which classes look alike or have no image in a part, and which images look the same.

    Args:
        dataset: Opened, and not limited.

    Returns:
        A line for each kind of doubt, with their number and an example.
    """
    classes = _alike(dataset.classes, _loosely)
    images = _alike((item.id for item in dataset.items), _nfc)
    found = [
        f"{len(pairs)} {what} have names that look like others', and are read apart, the first is "
        f"{_shown(pairs[0])}"
        for what, pairs in (("classes", classes), ("images", images))
        if pairs
    ]
    if dataset.kind is not Kind.ONE_CLASS:
        return found
    if len(dataset.classes) == 1:
        found.append(f"{dataset.classes[0]!r} is the only class: no SVM can be fitted")
    absent = [line for split in dataset.splits for line in _absent(dataset.classes, split)]
    return [*found, *dict.fromkeys(absent)]


def doubts_of_bytes(dataset: Dataset, digests: Mapping[str, str]) -> list[str]:
    """Say which images are in two parts, or of two classes, under two names.

    Args:
        dataset: Of any kind.
        digests: SHA-256 of each image's file, by the image's id; others may be among them.

    Returns:
        A line for each kind of doubt, with their number and an example.
    """
    named = published_ids(digests)
    twins: dict[str, str] = {}
    for split in dataset.splits:
        for part, image, earlier, other in _in_two_parts(split, digests):
            pair = f"{named[image]!r} of {part}, which is {named[other]!r} of {earlier}"
            twins.setdefault(image, pair)
    found = []
    if twins:
        found.append(
            f"{len(twins)} images have the same bytes as one of another part, so that the score "
            f"may be too high, the first is {twins[min(twins)]}"
        )
    if dataset.kind is Kind.ONE_CLASS and (pairs := _of_two_classes(dataset, digests)):
        (image, name), (other, other_name) = pairs[0]
        found.append(
            f"{len(pairs)} images have the same bytes as one of another class, the first is "
            f"{named[image]!r} of {name!r}, which is {named[other]!r} of {other_name!r}"
        )
    return found


def _in_two_parts(split: Split, digests: Mapping[str, str]) -> Iterator[tuple[str, str, str, str]]:
    """Yield (part, image, earlier part, its image) of each image that an earlier part has too."""
    first: dict[str, _Pair] = {}
    for part in PARTS:
        for image in dict.fromkeys(getattr(split, part).images):
            digest = digests.get(image, UNREADABLE)
            if digest == UNREADABLE:
                continue
            earlier, other = first.setdefault(digest, (part, image))
            if earlier != part:
                yield part, image, earlier, other


def _of_two_classes(dataset: Dataset, digests: Mapping[str, str]) -> list[tuple[_Pair, _Pair]]:
    """Return ((image, class), (image, class)) of each image that another class has had before."""
    first: dict[str, _Pair] = {}
    found: dict[str, tuple[_Pair, _Pair]] = {}
    for part in (part for split in dataset.splits for part in split.parts):
        of_class = part.labels.argmax(axis=1) if len(part.ids) else ()
        for i, k in zip(part.ids, of_class, strict=True):
            digest = digests.get(i, UNREADABLE)
            own = i, dataset.classes[k]
            other = first.setdefault(digest, own)
            if digest != UNREADABLE and other[1] != own[1]:
                found.setdefault(i, (own, other))
    return [found[i] for i in sorted(found)]


def _absent(classes: tuple[str, ...], split: Split) -> Iterator[str]:
    for name, part in zip(PARTS, split.parts, strict=True):
        counts = (part.labels > 0).sum(axis=0).tolist()
        absent = [label for label, count in zip(classes, counts, strict=True) if not count]
        if absent and part.ids:
            yield (
                f"{len(absent)} of {len(classes)} classes have no image in {name}, the first is "
                f"{absent[0]!r}"
            )


def _alike(names: Iterable[str], key: Callable[[str], str]) -> list[_Pair]:
    """Return each name that is another one's like, behind the first of its kind."""
    first: dict[str, str] = {}
    pairs = [(first.setdefault(key(name), name), name) for name in names]
    return [(one, other) for one, other in pairs if one != other]


def _nfc(name: str) -> str:
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def _loosely(name: str) -> str:
    """Return a name without what the eye passes over: case, width, blanks, hyphens, no-breaks."""
    plain = unicodedata.normalize("NFKC", name).casefold()
    seen = (c for c in plain if unicodedata.category(c) != "Cf")
    return re.sub(r"[\s_-]+", "", "".join(seen))


def _shown(pair: _Pair) -> str:
    """Return two names, in ASCII where nothing else would tell them apart."""
    show = ascii if _nfc(pair[0]) == _nfc(pair[1]) else repr
    return f"{show(pair[1])} beside {show(pair[0])}"
