"""Dense multi-scale VGG descriptors, cached in HDF5, and the linear SVMs on top of them.

Axis symbols, used in every docstring. A repeated symbol means an equal size.

========  ======================================================================
n         images (rows)
S         scales
D         size of one descriptor (4096 for fc7 of the published nets)
K         classes
H W       image height and width, pixels
h w       height and width of a feature map, cells
Q         shorter side of a rescaled image, pixels
========  ======================================================================

Importing this package loads no torch; the names below are loaded when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from vggfeat.version import __version__ as __version__

if TYPE_CHECKING:
    from vggfeat.classify.measures import average_precision, mean_class_recall
    from vggfeat.cli.progress import TerminalWatch
    from vggfeat.data.folder import named_images
    from vggfeat.errors import VggfeatError
    from vggfeat.extraction.workers import extract
    from vggfeat.recipe import Machine, Recipe
    from vggfeat.report.result import Result
    from vggfeat.store.reader import DescriptorStore
    from vggfeat.transfer.predict import open_trained, predict
    from vggfeat.transfer.run import evaluate, run, write, write_report
    from vggfeat.transformer import VggDescriptor, describe
    from vggfeat.watch import Watch

__all__ = [
    "DescriptorStore",
    "Machine",
    "Recipe",
    "Result",
    "TerminalWatch",
    "VggDescriptor",
    "VggfeatError",
    "Watch",
    "average_precision",
    "describe",
    "evaluate",
    "extract",
    "mean_class_recall",
    "named_images",
    "open_trained",
    "predict",
    "run",
    "write",
    "write_report",
]

_HOMES = {
    "DescriptorStore": "store.reader",
    "Machine": "recipe",
    "Recipe": "recipe",
    "Result": "report.result",
    "TerminalWatch": "cli.progress",
    "VggDescriptor": "transformer",
    "VggfeatError": "errors",
    "Watch": "watch",
    "average_precision": "classify.measures",
    "describe": "transformer",
    "evaluate": "transfer.run",
    "extract": "extraction.workers",
    "mean_class_recall": "classify.measures",
    "named_images": "data.folder",
    "open_trained": "transfer.predict",
    "predict": "transfer.predict",
    "run": "transfer.run",
    "write": "transfer.run",
    "write_report": "transfer.run",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401  (PEP 562: any public name)
    """Load a public name from its home on first use."""
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    message = f"module 'vggfeat' has no attribute {name!r}"
    raise AttributeError(message)
