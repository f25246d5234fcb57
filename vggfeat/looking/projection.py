"""A store in two dimensions: principal components, exactly, or UMAP."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vggfeat.errors import InputError
from vggfeat.looking.view import View
from vggfeat.watch import Watch

_WIDTH = 16  # vectors of a block, more than the components that are wanted
_MOST_PASSES = 40
_SETTLED = 1e-10  # residual of an eigenvector, in largest eigenvalues
_NOTHING = 1e-13  # of a block: what is smaller is rounding

_log = logging.getLogger(__name__)

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Projection:
    """The images of a store as points of a plane.

    Attributes:
        method: One of `METHODS`.
        ids: m images, in the order of the store; unreadable ones are left out.
        points: (m, 2).
        classes: Those of each image; empty where they are not known.
        explained: Share of the variance in each direction, [0, 1]; None where the plane is not
            one of the descriptors' space.
        left_out: Images that are unreadable.
    """

    method: str
    ids: tuple[str, ...]
    points: Matrix
    classes: tuple[tuple[str, ...], ...]
    explained: tuple[float, float] | None
    left_out: tuple[str, ...]

    def record(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {
            "method": self.method,
            "explained_variance": None if self.explained is None else list(self.explained),
            "images": [
                {"image": i, "x": x, "y": y, "classes": list(names)}
                for i, (x, y), names in zip(
                    self.ids, self.points.tolist(), self.classes, strict=True
                )
            ],
            "left_out": list(self.left_out),
        }


def project(view: View, method: str, watch: Watch) -> Projection:
    """Place the readable images of a store in a plane.

    Args:
        view: The store.
        method: One of `METHODS`.
        watch: Told of the progress; may stop it.

    Raises:
        InputError: If there are fewer than three readable images, all are equal, or the package
            that the method takes is not installed.
    """
    rows = np.flatnonzero(view.readable())
    if len(rows) < 3:
        wrong = f"'{view.store.path}' has {len(rows)} readable images."
        raise InputError(wrong, "A map takes three or more.")

    def blocks(title: str) -> Iterable[Matrix]:
        for _, x in view.joined(watch, title):
            yield x[np.isfinite(x).all(axis=1)].astype(np.float64)

    points, explained = METHODS[method](blocks)
    ids = tuple(view.store.ids[row] for row in rows)
    there = {*ids}
    return Projection(
        method=method,
        ids=ids,
        points=points,
        classes=tuple(view.classes.get(i, ()) for i in ids),
        explained=explained,
        left_out=tuple(i for i in view.store.ids if i not in there),
    )


def principal_components(
    blocks: Callable[[str], Iterable[Matrix]], count: int = 2
) -> tuple[Matrix, Matrix, Matrix]:
    """Find the principal components of rows that are read again and again, never held.

    Each pass multiplies the covariance with a block of vectors; the eigenvectors are those of the
    covariance on the space of all blocks so far (block Lanczos with full orthogonalisation, Golub
    & Underwood 1977), until their residuals vanish. Signs are those of scikit-learn: of each
    component the value that is largest in size is positive.

    Args:
        blocks: Gives the rows, (m, D) at a time, in the same order whenever it is called with the
            title of a pass.
        count: Components.

    Returns:
        (n, count) coordinates, (count, D) components of norm 1, and (count,) shares of the
        variance.

    Raises:
        InputError: If all rows are equal.
    """
    mean, total, n = _moments(blocks)
    if total <= np.finfo(np.float32).eps ** 2:  # rows have norm 1, rounded to float32
        raise InputError(
            "The descriptors of all images are equal: they have no components.",
            "Expected images that differ.",
        )
    space, images = np.empty((len(mean), 0)), np.empty((len(mean), 0))
    block = np.random.default_rng(0).standard_normal((len(mean), min(_WIDTH, len(mean))))
    for number in range(1, _MOST_PASSES + 1):
        block = _beyond(space, block)
        if not block.shape[1]:
            break  # the space holds all eigenvectors that are not of the value 0
        product = np.zeros_like(block)
        for x in blocks(f"components, pass {number}"):
            centred = x - mean
            product += centred.T @ (centred @ block)
        space, images = np.hstack([space, block]), np.hstack([images, product / n])
        reduced = space.T @ images
        values, vectors = np.linalg.eigh((reduced + reduced.T) / 2)
        values, vectors = values[: -count - 1 : -1], vectors[:, : -count - 1 : -1]
        components = space @ vectors
        residual = np.linalg.norm(images @ vectors - components * values, axis=0).max()
        if residual <= _SETTLED * values[0]:
            break
        block = product
    else:
        _log.warning("the components have not settled: they may be off by %.1g", residual)
    signs = np.sign(components[np.abs(components).argmax(axis=0), np.arange(count)])
    components = (components * signs).T
    points = np.concatenate([(x - mean) @ components.T for x in blocks("place")])
    return points, components, np.maximum(values, 0) / total


def _moments(blocks: Callable[[str], Iterable[Matrix]]) -> tuple[Matrix, float, int]:
    """Return the mean row, the whole variance and the number of rows."""
    first: Matrix | None = None  # taken off, so that the difference of two sums keeps its digits
    total, n = 0.0, 0
    for x in blocks("mean"):
        if first is None:
            first, summed = x[0], np.zeros(x.shape[1])
        summed += (x - first).sum(axis=0)
        total += float(np.square(x - first).sum())
        n += len(x)
    assert first is not None
    offset = summed / n
    return first + offset, total / n - float(offset @ offset), n


def _beyond(space: Matrix, block: Matrix) -> Matrix:
    """Return an orthonormal basis of what of a block lies outside of an orthonormal space."""
    size = np.linalg.norm(block)
    for _ in range(2):  # once leaves what rounding has left
        block = block - space @ (space.T @ block)
    basis, sizes, _ = np.linalg.svd(block, full_matrices=False)
    basis = basis[:, sizes > _NOTHING * size]
    again: Matrix = np.linalg.qr(basis - space @ (space.T @ basis))[0]
    return again


def _pca(blocks: Callable[[str], Iterable[Matrix]]) -> tuple[Matrix, tuple[float, float] | None]:
    points, _, shares = principal_components(blocks)
    return points, (float(shares[0]), float(shares[1]))


def _umap(blocks: Callable[[str], Iterable[Matrix]]) -> tuple[Matrix, tuple[float, float] | None]:
    """Place rows by UMAP, which holds them all; with its seed set it gives the same plane again."""
    try:
        from umap import UMAP
    except ImportError:
        raise InputError(
            "--method umap takes the package umap-learn, which is not installed.",
            remedy="pip install 'vggfeat[map]', or take --method pca.",
        ) from None
    x = np.concatenate([block.astype(np.float32) for block in blocks("read")])
    neighbours = min(15, len(x) - 1)  # 15 is its own default
    found = UMAP(n_neighbors=neighbours, metric="cosine", random_state=0, n_jobs=1).fit_transform(x)
    return np.asarray(found, dtype=np.float64), None


METHODS: Mapping[str, Callable[..., tuple[Matrix, tuple[float, float] | None]]] = {
    "pca": _pca,
    "umap": _umap,
}
