"""The classifiers of one split: what scores a descriptor, and the file that it is kept in."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from vggfeat.classify.measures import Doubles, Floats
from vggfeat.errors import ClassifierError
from vggfeat.files.publish import publish_bytes

_FORMAT = 2  # of the file; 1 had no sigmoids, and did not say its number
_REMEDY = "Restore it from a copy, or run `vggfeat svm` again."


@dataclass(frozen=True, kw_only=True)
class LinearOneVsRest:
    """K linear classifiers.

    Attributes:
        classes: K names.
        coef: (K, D) float32; NaN for a class that had no positive or no negative to learn from.
        intercept: (K,) float32.
        not_converged: Number of them that did not converge.
        gap: The largest relative duality gap; NaN where none is known.
        sigmoids: (K, 2) float64, which make probabilities of scores: see `probability`. They were
            fitted to the validation images, scored by classifiers that had not seen them; NaN for
            a class that has none. None in a file of an earlier version.
    """

    classes: tuple[str, ...]
    coef: npt.NDArray[np.float32]
    intercept: npt.NDArray[np.float32]
    not_converged: int = 0
    gap: float = float("nan")
    sigmoids: Doubles | None = None

    def decision_scores(self, x: Floats) -> Doubles:
        """Return (n, K) scores of (n, D) descriptors; NaN columns for classes without a fit."""
        result: Doubles = x.astype(np.float64) @ self.coef.T + self.intercept
        return result

    def save(self, path: Path, metadata: dict[str, Any]) -> str:
        """Write a safetensors file: the arrays, and the classes with `metadata` as JSON.

        Returns:
            Its SHA-256.
        """
        header = {
            "format": str(_FORMAT),
            "classes": json.dumps(self.classes),
            "metadata": json.dumps(metadata),
        }
        tensors: dict[str, Any] = {"coef": self.coef, "intercept": self.intercept}
        if self.sigmoids is not None:
            tensors["sigmoids"] = self.sigmoids
        data = save(tensors, metadata=header)
        publish_bytes(path, data)
        return hashlib.sha256(data).hexdigest()

    @classmethod
    def load(cls, path: Path, sha256: str) -> LinearOneVsRest:
        """Read what `save` has written. A safetensors file holds numbers and text, no code.

        Args:
            path: The file.
            sha256: That `save` returned.

        Returns:
            The classifiers; how well they converged is not in the file.

        Raises:
            ClassifierError: If it is absent, has another digest, is no such file, or one of a newer
                format.
        """
        data = _bytes(path, sha256)
        try:
            tensors, header = load(data), _header(data)
            found, classes = int(header.get("format", 1)), json.loads(header["classes"])
            coef, intercept = tensors["coef"], tensors["intercept"]
        except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise ClassifierError(f"'{path}' is no classifier: {error}.", remedy=_REMEDY) from error
        if found > _FORMAT:
            raise ClassifierError(
                f"'{path}' is a classifier of format {found}.",
                f"This version of vggfeat reads formats 1 to {_FORMAT}.",
                "Read it with the version that has written it, or a newer one.",
            )
        sigmoids = tensors.get("sigmoids")
        named = isinstance(classes, list) and all(isinstance(name, str) for name in classes)
        sound = (
            named
            and intercept.shape == (len(set(classes)),) == (len(classes),)
            and (coef.ndim, coef.shape[:1]) == (2, intercept.shape)
            and coef.dtype == intercept.dtype == np.float32
            and (
                sigmoids is None or (*sigmoids.shape, sigmoids.dtype) == (len(coef), 2, np.float64)
            )
        )
        if not sound:
            wrong = f"'{path}' is no classifier: {coef.shape} and {intercept.shape} values"
            raise ClassifierError(f"{wrong} for the classes {classes!r}.", remedy=_REMEDY)
        return cls(classes=tuple(classes), coef=coef, intercept=intercept, sigmoids=sigmoids)


def kept_metadata(path: Path, sha256: str) -> Any:  # noqa: ANN401  (JSON)
    """Return the metadata that `LinearOneVsRest.save` was given.

    Args:
        path: The file.
        sha256: That `save` returned.

    Raises:
        ClassifierError: If it is absent, has another digest, or is no such file.
    """
    try:
        return json.loads(_header(_bytes(path, sha256))["metadata"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ClassifierError(f"'{path}' is no classifier: {error}.", remedy=_REMEDY) from error


def _bytes(path: Path, sha256: str) -> bytes:
    """Read a file that must have a digest."""
    try:
        data = path.read_bytes()
    except OSError as error:
        wrong = f"The classifier '{path}' cannot be read: {error.strerror}."
        raise ClassifierError(wrong, "It belongs beside its result.", _REMEDY) from error
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        wrong = f"'{path}' has the sha256 {found[:16]}…, its result says {sha256[:16]}…."
        raise ClassifierError(wrong, "Expected the file that was written with it.", _REMEDY)
    return data


def _header(data: bytes) -> dict[str, str]:
    """Return the texts of a safetensors file."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    texts: dict[str, str] = header["__metadata__"]
    return texts
