"""A store for programs that read no HDF5: npz, CSV, Parquet; written row by row, and then named."""

from __future__ import annotations

import csv
import io
import json
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from vggfeat.errors import InputError
from vggfeat.files.publish import make_folder, publishing
from vggfeat.looking.view import READ_AT_ONCE, STOPPED, Classes, View
from vggfeat.transfer.samples import fused
from vggfeat.watch import Watch

_JOINT = "|"  # between the classes of an image, as in a list of images
_EPOCH = (1980, 1, 1, 0, 0, 0)  # in an archive: the same store gives the same bytes
_ROUND_TRIP = "%.9g"  # digits that give a float32 back


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What is written of a store.

    Attributes:
        view: The store; its recipe says which scales, and how they are joined.
        joined: Whether each image has one descriptor, that of its joined scales; else it has those
            that the store holds, one for each scale, bit by bit.
        watch: Told of the progress; may stop it.
    """

    view: View
    joined: bool
    watch: Watch

    @property
    def descriptor_shape(self) -> tuple[int, ...]:
        """Of one image: (S, D), or (D,) of the joined ones."""
        recipe, size = self.view.recipe, self.view.store.descriptor_size
        if not self.joined:
            return len(recipe.scales), size
        return (size * (len(recipe.scales) if recipe.aggregate == "stack" else 1),)

    @property
    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """All but the descriptors: (n,) or (n, …) each, strings as fixed-width Unicode."""
        store = self.view.store
        digests = [row.tobytes().hex() for row in store.image_digests()]
        labels = (self._labels(self.view.classes), self._labels(self.view.difficult))
        found = {
            "image_id": np.array(store.ids, dtype=np.str_),
            "status": store.statuses(),
            "image_size": store.image_sizes(),
            "image_sha256": np.array(digests, dtype=np.str_),
            "norms": store.norms(self.view.recipe.scales),
        }
        if self.view.dataset is not None:
            found |= {"labels": labels[0]} | ({"difficult": labels[1]} if any(labels[1]) else {})
        return found

    @property
    def about(self) -> dict[str, str]:
        """What the rows are, as text."""
        recipe = self.view.store.recipe
        return {
            "fingerprint": self.view.store.fingerprint,
            "recipe": json.dumps(recipe, sort_keys=True),
            "joined": json.dumps(
                {"aggregate": self.view.recipe.aggregate, "normalise": self.view.recipe.normalise}
                if self.joined
                else None
            ),
        }

    def blocks(self) -> Iterator[tuple[slice, npt.NDArray[np.float32]]]:
        """Yield which rows, and their descriptors, (m, *descriptor_shape); NaN where unreadable."""
        store, scales = self.view.store, self.view.recipe.scales
        with self.watch.step("export", len(store), "images") as advance:
            for start in range(0, len(store), READ_AT_ONCE):
                rows = store.read(store.ids[start : start + READ_AT_ONCE], scales)
                where = slice(start, start + len(rows.image_id))
                yield where, fused([rows], self.view.recipe) if self.joined else rows.descriptors
                advance(len(rows.image_id))
                self.watch.check(STOPPED)

    def _labels(self, classes: Classes) -> npt.NDArray[np.str_]:
        odd = sorted({name for names in classes.values() for name in names if _JOINT in name})
        if odd:
            raise InputError(
                f"The class {odd[0]!r} has a {_JOINT!r} in its name.",
                "That stands between the classes of one image in an export.",
                "Rename the class, or leave --dataset out.",
            )
        return np.array(
            [_JOINT.join(classes.get(i, ())) for i in self.view.store.ids], dtype=np.str_
        )


def export(view: View, path: Path, form: str, *, joined: bool, watch: Watch) -> None:
    """Write a store as a file of another form; whatever stood there is replaced at the end.

    Args:
        view: The store.
        path: Of the file.
        form: One of `FORMS`.
        joined: Whether the scales of each image are joined, as the view's recipe says.
        watch: Told of the progress; may stop it.

    Raises:
        InputError: If the form takes a package that is not installed, or the name of a class
            cannot be written.
        PublishError: If the file cannot be written.
        VggfeatError: As the rooms say.
    """
    view.readable("rows of NaN")
    make_folder(path.parent)
    with publishing(path) as descriptor, os.fdopen(os.dup(descriptor), "wb") as stream:
        FORMS[form](Exported(view=view, joined=joined, watch=watch), stream)


def _write_npz(what: Exported, stream: BinaryIO) -> None:
    """Write the arrays of `numpy.load`, which needs no pickle for any of them."""
    scales = np.array(what.view.recipe.scales, dtype=np.int32)
    small = {**what.columns, "scales": scales} | {k: np.array(v) for k, v in what.about.items()}
    with zipfile.ZipFile(stream, "w") as archive:
        for name, values in small.items():
            with archive.open(_entry(name), "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, values, allow_pickle=False)
        with archive.open(_entry("descriptors"), "w", force_zip64=True) as entry:
            shape = (len(what.view.store), *what.descriptor_shape)
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(entry, header)
            for _, block in what.blocks():
                entry.write(np.ascontiguousarray(block, dtype="<f4").tobytes())


def _entry(name: str) -> zipfile.ZipInfo:
    return zipfile.ZipInfo(f"{name}.npy", _EPOCH)


def _write_csv(what: Exported, stream: BinaryIO) -> None:
    """Write a header, and a line for each image; every number reads back as the float32 it is."""
    columns, scales = what.columns, what.view.recipe.scales
    norms, sizes = columns.pop("norms"), columns.pop("image_size")
    text = io.TextIOWrapper(stream, "utf-8", newline="", write_through=True)
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        [*columns, "height", "width", *(f"norm_{q}" for q in scales), *_value_names(what)]
    )
    form = ",".join([_ROUND_TRIP] * (norms.shape[1] + int(np.prod(what.descriptor_shape))))
    for where, block in what.blocks():
        values = np.hstack([norms[where], block.reshape(len(block), -1)]).tolist()
        facts = zip(*(column[where].tolist() for column in columns.values()), strict=True)
        for own, size, row in zip(facts, sizes[where].tolist(), values, strict=True):
            line = io.StringIO()
            csv.writer(line, lineterminator="\n").writerow([*own, *size])
            text.write(f"{line.getvalue()[:-1]},{form % tuple(row)}\n")
    text.detach()


def _value_names(what: Exported) -> list[str]:
    """Return the names of a descriptor's values: "d0", or "d256_0" where each scale has its own."""
    size = range(what.descriptor_shape[-1])
    if what.joined:
        return [f"d{k}" for k in size]
    return [f"d{q}_{k}" for q in what.view.recipe.scales for k in size]


def _write_parquet(what: Exported, stream: BinaryIO) -> None:
    """Write a table with a row for each image; arrays are lists of one length, in C order."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise InputError(
            "--format parquet takes the package pyarrow, which is not installed.",
            remedy="pip install 'vggfeat[parquet]', or take --format npz or csv.",
        ) from None
    columns = what.columns
    size = int(np.prod(what.descriptor_shape))

    def column(values: npt.NDArray[Any]) -> Any:  # noqa: ANN401
        if values.ndim == 1:
            if values.dtype.kind == "U":
                return pyarrow.array(values.tolist(), pyarrow.string())
            return pyarrow.array(values)
        flat = pyarrow.array(np.ascontiguousarray(values).reshape(-1))
        return pyarrow.FixedSizeListArray.from_arrays(flat, int(np.prod(values.shape[1:])))

    def table(where: slice, block: npt.NDArray[np.float32]) -> Any:  # noqa: ANN401
        own = {name: column(values[where]) for name, values in columns.items()}
        own["descriptors"] = column(block.reshape(len(block), size))
        return pyarrow.table(own)

    about = what.about | {
        "scales": json.dumps(what.view.recipe.scales),
        "descriptor_shape": json.dumps(what.descriptor_shape),
    }
    nothing = np.empty((0, size), np.float32)
    schema = table(slice(0, 0), nothing).schema.with_metadata(about)
    with pyarrow.parquet.ParquetWriter(stream, schema) as writer:
        for where, block in what.blocks():
            writer.write_table(table(where, block).replace_schema_metadata(about))


FORMS: Mapping[str, Callable[[Exported, BinaryIO], None]] = {
    "npz": _write_npz,
    "csv": _write_csv,
    "parquet": _write_parquet,
}
