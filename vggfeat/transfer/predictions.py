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
    """

    classes: tuple[str, ...]
    ids: tuple[str, ...]
    scores: npt.NDArray[np.float64]
    predicted: tuple[tuple[str, ...], ...]
    errors: Mapping[str, str]

    def table(self) -> list[dict[str, Any]]:
        """Return a row for each image: its classes and its best scores, as text."""
        return [
            {"image": image, "predicted": ", ".join(names) or "–", "best scores": self._best(row)}
            for row, (image, names) in enumerate(zip(self.ids, self.predicted, strict=True))
        ]

    def records(self) -> list[dict[str, Any]]:
        """Return a record for each image, fit for JSON: all scores, None for absent ones."""
        return [
            {
                "image": image,
                "predicted": list(names),
                "scores": {
                    name: None if math.isnan(score) else score
                    for name, score in zip(self.classes, scores, strict=True)
                },
                "error": self.errors.get(image),
            }
            for image, names, scores in self._rows()
        ]

    def csv(self) -> str:
        """Return a header and a line for each image: path, classes joined by "|", all scores."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["image", "predicted", *self.classes])
        for image, names, scores in self._rows():
            cells = ["" if math.isnan(score) else repr(score) for score in scores]
            writer.writerow([image, "|".join(names), *cells])
        return text.getvalue()

    def _rows(self) -> Iterator[tuple[str, tuple[str, ...], list[float]]]:
        return zip(self.ids, self.predicted, self.scores.tolist(), strict=True)

    def _best(self, row: int) -> str:
        if reason := self.errors.get(self.ids[row]):
            return f"unreadable: {reason}"
        scores = self.scores[row]
        order = [k for k in np.argsort(-scores, kind="stable") if not math.isnan(scores[k])]
        return ", ".join(f"{self.classes[k]} {scores[k]:#.4g}" for k in order[:_SHOWN])
