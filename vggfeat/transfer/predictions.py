"""The scores of new images, as a table, CSV or JSON."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

_SHOWN = 3  # best scores in a row of the table


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """What a classifier says of n images.

    Attributes:
        classes: K names.
        ids: n paths, as given.
        scores: (n, K) decision scores; NaN for an unreadable image, or a class that has no
            classifier.
        predicted: The classes of each image, the best first: the best one alone where the
            classifier has learnt images of one class each, else those with a positive score.
        errors: Why an image could not be read.
        probabilities: (n, K), NaN where there is no score, or a class has none; None where the
            classifier has none at all.
    """

    classes: tuple[str, ...]
    ids: tuple[str, ...]
    scores: npt.NDArray[np.float64]
    predicted: tuple[tuple[str, ...], ...]
    errors: Mapping[str, str]
    probabilities: npt.NDArray[np.float64] | None = None

    def table(self) -> list[dict[str, Any]]:
        """Return a row for each image: its classes and its best scores, as text."""
        title = "best scores" if self.probabilities is None else "best scores, probability"
        return [
            {"image": image, "predicted": ", ".join(names) or "–", title: self._best(row)}
            for row, (image, names) in enumerate(zip(self.ids, self.predicted, strict=True))
        ]

    def records(self) -> list[dict[str, Any]]:
        """Return a record for each image, fit for JSON: all numbers, None for absent ones."""
        return [
            {
                "image": image,
                "predicted": list(names),
                "scores": self._named(scores),
                "probabilities": None if shares is None else self._named(shares),
                "error": self.errors.get(image),
            }
            for image, names, scores, shares in self._rows()
        ]

    def csv(self) -> str:
        """Return a header and a line for each image: path, classes joined by "|", all numbers."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        known = [] if self.probabilities is None else self.classes
        writer.writerow(
            ["image", "predicted", *self.classes, *(f"probability of {name}" for name in known)]
        )
        for image, names, scores, shares in self._rows():
            numbers = [*scores, *(shares or ())]
            cells = ["" if math.isnan(number) else repr(number) for number in numbers]
            writer.writerow([image, "|".join(names), *cells])
        return text.getvalue()

    def _rows(
        self,
    ) -> Iterator[tuple[str, tuple[str, ...], list[float], list[float] | None]]:
        """Yield path, classes, scores and probabilities of each image."""
        none: list[None] = [None] * len(self.ids)
        shares = none if self.probabilities is None else self.probabilities.tolist()
        return zip(self.ids, self.predicted, self.scores.tolist(), shares, strict=True)

    def _named(self, numbers: list[float]) -> dict[str, float | None]:
        return {
            name: None if math.isnan(number) else number
            for name, number in zip(self.classes, numbers, strict=True)
        }

    def _best(self, row: int) -> str:
        if reason := self.errors.get(self.ids[row]):
            return f"unreadable: {reason}"
        scores = self.scores[row]
        order = [k for k in np.argsort(-scores, kind="stable") if not math.isnan(scores[k])]
        return ", ".join(
            f"{self.classes[k]} {scores[k]:#.4g}{self._share(row, k)}" for k in order[:_SHOWN]
        )

    def _share(self, row: int, k: int) -> str:
        if self.probabilities is None or math.isnan(self.probabilities[row, k]):
            return ""
        return f" ({100 * self.probabilities[row, k]:.1f} %)"
