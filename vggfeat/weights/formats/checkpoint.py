"""What torch.save has written beside, around or instead of a state dictionary."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from vggfeat.errors import WeightsError
from vggfeat.weights.formats.plain import Refused

_DEEPEST = 4
_HEAD = 1 << 20  # bytes; where the older format names what it holds
_WRAPPERS = {"module", "_orig_mod"}  # of DataParallel and of torch.compile, at any depth
_FIRST = ("features.0.weight", "conv1_1.weight", "0.weight")  # conv1_1 in the layouts with dots
_GLOBAL = re.compile(r"GLOBAL (\S+?)[\s,]")
_SAVING = "torch.save(model.state_dict(), 'weights.pth')"
_ELSEWHERE = f"Have it saved again where it was made: {_SAVING}."


def not_plain(path: Path, reason: str) -> WeightsError:
    """Return the error of a file that torch refuses to load as plain tensors.

    Args:
        path: For the message.
        reason: What torch says.
    """
    expected = "Expected a state dictionary saved by torch.save; a file with code is never loaded."
    if "TorchScript" in reason:
        return WeightsError(
            f"'{path}' is a TorchScript archive, which is a program.",
            expected,
            _ELSEWHERE,
        )
    named = _GLOBAL.search(reason)
    if named is None:
        reason = reason.partition("\n")[0]
        return WeightsError(
            f"'{path}' is no file of plain tensors: {reason}", expected, "Is it damaged?"
        )
    if _holds_modules(path):
        return WeightsError(
            f"'{path}' is a whole model, pickled with its class {named[1]}.",
            expected,
            _ELSEWHERE,
        )
    return WeightsError(
        f"'{path}' is no file of plain tensors: it holds a {named[1]} as well.",
        expected,
        _ELSEWHERE,
    )


def _holds_modules(path: Path) -> bool:
    """Tell whether a file names torch's modules, as a pickled model does; nothing is loaded."""
    try:
        named = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except Exception:  # of the older format, which alone it does not read, or damaged
        with path.open("rb") as stream:
            return b"torch.nn.modules." in stream.read(_HEAD)
    return any(name.startswith("torch.nn.modules.") for name in named)


def state_of(path: Path, found: object) -> dict[str, Tensor]:
    """Return the tensors of the one model that a checkpoint holds; an optimiser's are left out.

    Args:
        path: For messages.
        found: What torch.load has returned: a state dictionary, or dictionaries around one.

    Returns:
        By their names, without what wrappers and outer modules have put before them.

    Raises:
        WeightsError: If there are several models.
        Refused: If there is no dictionary.
    """
    if not isinstance(found, Mapping):
        raise Refused(f"it holds a {type(found).__name__}")
    states = _states(found)
    if len(states) > 1:
        raise WeightsError(
            f"'{path}' holds several models: {', '.join(map(repr, states))}.",
            "Expected one.",
            "Save the one that you mean: "
            f"torch.save(torch.load('{path.name}')['{next(iter(states))}'], 'weights.pth').",
        )
    state = next(iter(states.values()), {})
    return unwrapped(path, {str(n): t for n, t in state.items() if isinstance(t, Tensor)})


def _states(found: Mapping[object, object], depth: int = 0) -> dict[str, Mapping[object, object]]:
    """Return every dictionary that holds more than single numbers, by its key."""
    if any(isinstance(value, Tensor) and value.ndim for value in found.values()):
        return {"": found}
    states = {}
    for key, value in found.items():
        if isinstance(value, Mapping) and depth < _DEEPEST and not f"{key}".startswith("optim"):
            for inner, state in _states(value, depth + 1).items():
                states[f"{key}.{inner}".rstrip(".")] = state
    return states


def unwrapped(path: Path, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state with the names that the bare net would have.

    >>> import torch
    >>> [*unwrapped(Path("w"), {"net.features.module.0.weight": torch.zeros(4, 3, 3, 3)})]
    ['features.0.weight']

    Args:
        path: For messages.
        state: Whatever wrappers and outer modules have put before the names: module., model., net.,
            _orig_mod., features.module., backbone., ...; or torchvision's features alone.

    Raises:
        WeightsError: If it holds several nets.
    """
    bare: dict[str, Tensor] = {}
    for name, tensor in state.items():
        short = ".".join(part for part in name.split(".") if part not in _WRAPPERS)
        if short in bare:
            raise WeightsError(f"'{path}' has {short!r} twice.", "Expected one net.")
        bare[short] = tensor
    found = {
        name.removesuffix(first): first for name in bare if (first := _first_of(name, bare[name]))
    }
    if len(found) > 1:
        raise WeightsError(
            f"'{path}' holds several nets: {', '.join(repr(name) for name in found)}.",
            "Expected one.",
            f"Save the one that you mean: {_SAVING}.",
        )
    for prefix, first in found.items():
        added = "features." if first == "0.weight" else ""
        inner = [name for name in bare if name.startswith(prefix)]  # the rest is another module's
        bare = {_renamed(name, prefix, added): bare[name] for name in inner}
    return bare


def _first_of(name: str, tensor: Tensor) -> str:
    """Return as which conv1_1 a tensor ends in `_FIRST`; nothing if it is none."""
    if tensor.ndim != 4 or tensor.shape[1] != 3:
        return ""
    fits = (first for first in _FIRST if name == first or name.endswith(f".{first}"))
    return next(fits, "")


def _renamed(name: str, prefix: str, added: str) -> str:
    rest = name.removeprefix(prefix)
    return f"{added}{rest}" if rest[:1].isdigit() else rest
