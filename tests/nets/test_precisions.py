"""The table of precisions, and torch's settings while one of them computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

from tests.nets.test_forms import net
from vggfeat.errors import RecipeError
from vggfeat.nets.architectures import ARCHITECTURES
from vggfeat.nets.canvas import CanvasVgg
from vggfeat.nets.forms import form_of, numerics
from vggfeat.nets.precisions import PRECISIONS, way_of
from vggfeat.nets.winograd import RaggedVgg

# form and canvas on the CPU, on a GPU, and on the CPU for a net with LRN, which one form lacks
WAYS = {
    "float32": (("ragged", None), ("canvas", 64), ("canvas", 32)),
    "tf32": (None, ("canvas", 64), None),
    "bfloat16": (("canvas", 32), ("canvas", 64), ("canvas", 32)),
    "float16": (None, ("canvas", 64), None),
    "int8": (("int8", 1), None, ("int8", 1)),
}
Settings = tuple[object, ...]


def settings() -> Settings:
    backends = torch.backends
    conv = backends.cudnn.conv  # type: ignore[attr-defined]  # no stub
    rounding = conv.fp32_precision, backends.cuda.matmul.fp32_precision
    return *rounding, backends.cudnn.deterministic, torch.get_num_threads()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_computes_where(precision: str) -> None:
    cases = [("vgg16", "cpu"), ("vgg16", "cuda"), ("vgg11-lrn", "cpu")]
    for (name, device), expected in zip(cases, WAYS[precision], strict=True):
        if expected is None:
            where = "on the CPU" if device == "cpu" else "on a GPU"
            with pytest.raises(RecipeError, match=f"precision = '{precision}' {where}"):
                way_of(ARCHITECTURES[name], precision, device)
        else:
            way = way_of(ARCHITECTURES[name], precision, device)
            assert (way.form, way.canvas) == expected


def test_a_refusal_names_what_the_device_has() -> None:
    with pytest.raises(RecipeError) as caught:
        way_of(ARCHITECTURES["vgg16"], "tf32", "cpu")
    assert str(caught.value) == (
        "precision = 'tf32' on the CPU. It is for GPUs. "
        "Pass --precision with one of float32, bfloat16, int8, or another --device."
    )
    with pytest.raises(RecipeError, match="Did you mean 'float16'"):
        way_of(ARCHITECTURES["vgg16"], "float61", "cpu")


@pytest.fixture
def _unusual(threads: Callable[[int], None]) -> Iterator[None]:
    """Other settings than torch's own, and torch's own again."""
    before = settings()
    threads(3)
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    yield
    torch.backends.cuda.matmul.fp32_precision = str(before[1])


@pytest.mark.usefixtures("_unusual")
@pytest.mark.parametrize(("precision", "rounding"), [("float32", "ieee"), ("tf32", "tf32")])
def test_settings_are_those_of_the_precision_and_then_what_they_were(
    precision: str, rounding: str
) -> None:
    before = settings()
    with numerics(precision, torch.device("cpu"), threads=2):
        inside = settings()
        with numerics("bfloat16"):
            assert settings()[:2] == ("ieee", "ieee")
            assert torch.get_num_threads() == 2
        assert settings() == inside
    assert inside[:2] == (rounding, rounding)
    assert inside[-2:] == (True, 2)
    assert settings() == before
    with pytest.raises(ZeroDivisionError), numerics(precision, threads=1):
        raise ZeroDivisionError
    assert settings() == before


@pytest.mark.usefixtures("_unusual")
def test_a_form_is_made_without_changing_torch_s_settings() -> None:
    before = settings()
    for name, precision, form in (
        ("vgg11-thin", "float32", RaggedVgg),
        ("vgg11-lrn-thin", "float32", CanvasVgg),
        ("vgg11-thin", "bfloat16", CanvasVgg),
    ):
        plain = net(name)
        made = form_of(plain, precision, threads=1, batch_pixels=1 << 20)
        assert isinstance(made, form)
        assert plain.dtype == getattr(torch, PRECISIONS[precision].dtype)
        assert plain.mean.dtype == torch.float32
    assert settings() == before


def test_torch_s_older_switches_can_be_read_again_afterwards() -> None:
    """Torch raises where they contradict the newer ones."""

    def older() -> Settings:
        backends = torch.backends
        both = backends.cudnn.allow_tf32, backends.cuda.matmul.allow_tf32
        return *both, torch.get_float32_matmul_precision()

    before = older()
    with numerics("float32"), pytest.raises(RuntimeError):
        older()
    assert older() == before
