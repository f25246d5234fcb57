"""Dense, multi-scale VGG descriptors, cached in HDF5, and the linear SVMs on top of them.

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

if TYPE_CHECKING:
    from vggfeat.classify.measures import average_precision, mean_class_recall
    from vggfeat.errors import VggfeatError
    from vggfeat.recipe import Machine, Recipe
    from vggfeat.store.store import DescriptorStore
    from vggfeat.transformer import VggDescriptor

__version__ = "0.2.0"

__all__ = [
    "DescriptorStore",
    "Machine",
    "Recipe",
    "VggDescriptor",
    "VggfeatError",
    "average_precision",
    "mean_class_recall",
]

_HOMES = {
    "DescriptorStore": "vggfeat.store.store",
    "Machine": "vggfeat.recipe",
    "Recipe": "vggfeat.recipe",
    "VggDescriptor": "vggfeat.transformer",
    "VggfeatError": "vggfeat.errors",
    "average_precision": "vggfeat.classify.measures",
    "mean_class_recall": "vggfeat.classify.measures",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401  (PEP 562: any public name)
    """Load a public name from its home on first use."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    message = f"module 'vggfeat' has no attribute {name!r}"
    raise AttributeError(message)
