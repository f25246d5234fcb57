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
    """

    classes: tuple[str, ...]
    coef: npt.NDArray[np.float32]
    intercept: npt.NDArray[np.float32]
    not_converged: int = 0
    gap: float = float("nan")

    def decision_scores(self, x: Floats) -> Doubles:
        """Return (n, K) scores of (n, D) descriptors; NaN columns for classes without a fit."""
        result: Doubles = x.astype(np.float64) @ self.coef.T + self.intercept
        return result

    def save(self, path: Path, metadata: dict[str, Any]) -> str:
        """Write a safetensors file: coef, intercept, and the classes with `metadata` as JSON.

        Returns:
            Its SHA-256.
        """
        header = {"classes": json.dumps(self.classes), "metadata": json.dumps(metadata)}
        tensors = {"coef": self.coef, "intercept": self.intercept}
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
            ClassifierError: If it is absent, has another digest, or is no such file.
        """
        data = _bytes(path, sha256)
        try:
            tensors = load(data)
            classes = json.loads(_header(data)["classes"])
            coef, intercept = tensors["coef"], tensors["intercept"]
        except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise ClassifierError(f"'{path}' is no classifier: {error}.", remedy=_REMEDY) from error
        named = isinstance(classes, list) and all(isinstance(name, str) for name in classes)
        sound = (
            named
            and intercept.shape == (len(set(classes)),) == (len(classes),)
            and (coef.ndim, coef.shape[:1]) == (2, intercept.shape)
            and coef.dtype == intercept.dtype == np.float32
        )
        if not sound:
            wrong = f"'{path}' is no classifier: {coef.shape} and {intercept.shape} values"
            raise ClassifierError(f"{wrong} for the classes {classes!r}.", remedy=_REMEDY)
        return cls(classes=tuple(classes), coef=coef, intercept=intercept)


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
