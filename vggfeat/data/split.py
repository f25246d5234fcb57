"""Parts by hash: the same on every platform, for ever."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from vggfeat.errors import DatasetError

_SHARE = 0.2  # of the images that become test, and of the rest that become val


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
        name: Of the class, for the message.

    Raises:
        DatasetError: If there are fewer than 3.
    """
    if len(ids) < 3:
        raise DatasetError(
            f"Class {name!r} has {len(ids)} images.",
            "Expected at least 3: one each for train, val and test.",
            "Add images, or take the class away.",
        )
    order = hash_order(ids, seed)
    test = max(1, round(_SHARE * len(order)))
    return {"test": order[:test], **without_val(order[test:], seed)}


def without_val(ids: Sequence[str], seed: int | str) -> dict[str, list[str]]:
    """Take val away from train by hash: a fifth, at least one if there are two."""
    order = hash_order(ids, seed)
    val = max(1, round(_SHARE * len(order))) if len(order) > 1 else 0
    return {"train": order[val:], "val": order[:val]}
