"""What parts are called, and parts by hash: the same on every platform, for ever."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence

from vggfeat.errors import DatasetError

_STEMS: Mapping[str, str] = {  # what folders and lists call a part → the part
    "train": "train",
    "training": "train",
    "trainval": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "testing": "test",
}
# train2017, seg_train, training_set, Test Images, images-val, ... in any case
_PART = re.compile(
    rf"(?:images?|imgs?|data|seg)?({'|'.join(_STEMS)})(?:set|data|dataset|images?|imgs?|split)?\d{{0,4}}"
)
_SHARE = 0.2  # of the images that become test, and of the rest that become val


def part_of(name: str) -> str | None:
    """Return which part a folder or list means by that name; None for any other.

    >>> part_of("valid"), part_of("Training_Set"), part_of("images-test"), part_of("cat")
    ('val', 'train', 'test', None)
    """
    plain = re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", name).casefold())
    found = _PART.fullmatch(plain)
    return _STEMS[found[1]] if found else None


def hash_order(ids: Iterable[str], seed: int | str) -> list[str]:
    """Return ids in the order of a hash of seed and id: the same on every platform, for ever.

    >>> hash_order(["a", "b", "c"], seed=0)
    ['a', 'c', 'b']
    """
    return sorted(ids, key=lambda i: hashlib.sha256(f"{seed}:{i}".encode()).digest())


def divided(ids: Sequence[str], seed: int, name: str) -> dict[str, list[str]]:
    """Divide images by hash: a fifth is test, a fifth of the rest val, at least one of each.

    Args:
        ids: Of one class, or of all images where they are not of one class each.
        seed: Enters the hash.
        name: Of the class, for the message; "" where the images are of no one class.

    Raises:
        DatasetError: If there are fewer than 3.
    """
    if len(ids) < 3:
        raise DatasetError(
            f"Class {name!r} has {len(ids)} images." if name else f"There are {len(ids)} images.",
            "Expected at least 3: one each for train, val and test.",
            "Add images, or take the class away." if name else "Add images.",
        )
    order = hash_order(ids, seed)
    test = max(1, round(_SHARE * len(order)))
    return {"test": order[:test], **without_val(order[test:], seed)}


def without_val(ids: Sequence[str], seed: int | str) -> dict[str, list[str]]:
    """Take val away from train by hash: a fifth, at least one if there are two."""
    order = hash_order(ids, seed)
    val = max(1, round(_SHARE * len(order))) if len(order) > 1 else 0
    return {"train": order[val:], "val": order[:val]}
