"""Only what a tap needs is asked of a file, and a command that goes through is told."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import click.testing
import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import photo
from tests.support import layouts
from tests.support.layouts import Tensors, Writer
from vggfeat.cli import main
from vggfeat.errors import WeightsError
from vggfeat.nets.architectures import ARCHITECTURES
from vggfeat.store.reader import DescriptorStore
from vggfeat.weights.find import convert_weights, find_weights, random_tensors
from vggfeat.weights.formats import read

THIN = ARCHITECTURES["vgg16-thin"]
CONVOLUTIONS = [layer.name for layer in THIN.layers("pool5")]


@pytest.fixture
def truth() -> Tensors:
    return layouts.thin_truth()


@pytest.fixture(autouse=True)
def _one_thread(threads: Callable[[int], None]) -> None:
    """Small tensors are done sooner by one thread, above all on a busy machine."""
    threads(1)


def only(tensors: Tensors, *layers: str) -> Tensors:
    return {name: tensor for name, tensor in tensors.items() if name.partition(".")[0] in layers}


def plain_npz(path: Path, _: object, tensors: Tensors) -> None:
    with path.open("wb") as stream:
        arrays = {name: tensor.numpy() for name, tensor in layouts.bgr(tensors).items()}
        np.savez(stream, allow_pickle=False, **arrays)


def features(path: Path, _: object, tensors: Tensors) -> None:
    rest = {name: t for name, t in layouts.thin_truth().items() if name not in tensors}
    state = layouts.state(THIN, tensors | rest)
    torch.save({name: t for name, t in state.items() if name.startswith("features")}, path)


NOTOP: tuple[Writer, ...] = (
    layouts.keras_old,
    layouts.keras_new,
    layouts.caffe_v1,
    layouts.matconvnet,
    layouts.frossard,
    plain_npz,
    features,
)


@pytest.mark.slow
@pytest.mark.parametrize("writer", NOTOP, ids=lambda w: w.__name__)
def test_convolutions_alone_serve_the_taps_up_to_pool5(
    tmp_path: Path, writer: Writer, truth: Tensors
) -> None:
    writer(tmp_path / "w", THIN, only(truth, *CONVOLUTIONS))
    for last, layers in (("pool5", 13), ("conv5_3", 13), ("conv4_1", 8), ("pool1", 2)):
        port = read(tmp_path / "w", THIN, last)
        assert len(port.tensors) == 2 * layers
        found = layouts.bgr(port.tensors) if writer in BGR else port.tensors
        assert all(torch.equal(tensor, truth[name]) for name, tensor in found.items())
    with pytest.raises(
        WeightsError,
        match=r"only the convolutions: no .* It serves the taps of pool5, conv5_3, .*, conv1_1\. "
        r"Pass --tap pool5",
    ):
        read(tmp_path / "w", THIN, "fc7")


BGR = {layouts.keras_old, layouts.keras_new, layouts.caffe_v1, plain_npz}


@pytest.mark.parametrize("classes", [1, 10, 1000, 1001])
def test_fc8_has_as_many_classes_as_the_file(tmp_path: Path, truth: Tensors, classes: int) -> None:
    head = {"fc8.weight": torch.ones(classes, 512, 1, 1), "fc8.bias": torch.arange(classes) / 7}
    layouts.torchvision(tmp_path / "w", THIN, truth | head)
    assert "fc8.weight" not in read(tmp_path / "w", THIN, "fc7").tensors
    found = read(tmp_path / "w", THIN, "fc8").tensors
    assert found["fc8.weight"].shape == (classes, 512, 1, 1)
    assert torch.equal(found["fc8.bias"], torch.arange(classes) / 7)
    assert torch.equal(found["fc7.weight"], truth["fc7.weight"])


@pytest.mark.parametrize(
    ("break_it", "served", "lacking"),
    [
        (lambda s: s.pop("classifier.3.weight"), "fc6", "fc7"),
        (lambda s: s.update({"classifier.0.weight": torch.zeros(9, 9)}), "pool5", "fc6"),
        (lambda s: s["classifier.6.bias"].fill_(torch.nan), "fc7", "fc8"),
        (lambda s: s.pop("features.28.weight") is s.pop("features.28.bias"), "conv5_2", "pool5"),
    ],
)
def test_what_is_wrong_behind_the_last_needed_layer_does_no_harm(
    tmp_path: Path, truth: Tensors, break_it: Callable[[Tensors], object], served: str, lacking: str
) -> None:
    state = layouts.state(THIN, truth)
    break_it(state)
    torch.save(state, tmp_path / "w")
    found = read(tmp_path / "w", THIN, served).tensors
    assert all(torch.equal(tensor, truth[name]) for name, tensor in found.items())
    with pytest.raises(WeightsError, match=f"It serves the taps .*Pass --tap {served}"):
        read(tmp_path / "w", THIN, lacking)


@pytest.mark.parametrize(
    ("layer", "last", "accepted"),
    [
        ("fc", "fc7", True),  # a head on top
        ("fc", "pool5", True),
        ("classifier.1", "fc7", False),  # a normalisation
        ("classifier.1", "pool5", True),
        ("features.31", "pool1", False),  # another net
    ],
)
def test_layers_of_ones_own_are_let_be_where_they_stand_behind(
    tmp_path: Path, truth: Tensors, layer: str, last: str, accepted: bool
) -> None:
    state = layouts.state(THIN, truth)
    shape = (10, 512) if layer == "fc" else (512,)
    torch.save(state | {f"{layer}.weight": torch.ones(shape)}, tmp_path / "w")
    if accepted:
        assert torch.equal(
            read(tmp_path / "w", THIN, last).tensors["conv1_2.weight"], truth["conv1_2.weight"]
        )
        return
    with pytest.raises(WeightsError, match=f"also has '{layer}.weight', which vgg16-thin does not"):
        read(tmp_path / "w", THIN, last)


@pytest.mark.parametrize("writer", [layouts.caffe_v1, layouts.keras_old, layouts.torchvision])
@pytest.mark.parametrize("last", ["pool1", "conv3_1", "pool5", "fc7"])
@pytest.mark.parametrize(
    ("theirs", "said"), [("vgg16", "vgg19"), ("vgg19", "vgg16"), ("vgg11", "vgg13")]
)
def test_another_nets_convolutions_are_refused_for_every_tap(
    tmp_path: Path, writer: Writer, last: str, theirs: str, said: str
) -> None:
    """The first layers of both are alike: what is behind tells."""
    holds = ARCHITECTURES[f"{theirs}-thin"]
    writer(tmp_path / "w", holds, random_tensors(holds, 0))
    with pytest.raises(WeightsError, match=f"not hold {said}-thin: these .* of {theirs}-thin"):
        read(tmp_path / "w", ARCHITECTURES[f"{said}-thin"], last)


def test_a_plain_file_needs_its_channels_said_unless_it_is_the_authors(
    tmp_path: Path, shared: Path, truth: Tensors
) -> None:
    plain_npz(tmp_path / "w.npz", THIN, truth)
    with pytest.raises(WeightsError, match=r"preprocessing is not known.*--profile oxford-bgr"):
        find_weights(THIN, str(tmp_path / "w.npz"))
    found = find_weights(THIN, str(tmp_path / "w.npz"), "oxford-bgr", "pool5").load()
    assert [*found] == [name for name in truth if name.startswith("conv")]
    assert torch.equal(found["conv1_1.weight"], truth["conv1_1.weight"])


@pytest.mark.slow
def test_the_authors_trunk_is_known_by_its_values(shared: Path) -> None:
    trunk, net = shared / "vgg16-trunk" / "vgg16_trunk.npz", ARCHITECTURES["vgg16"]
    weights = [find_weights(net, str(trunk), p, "pool5") for p in (None, "oxford-bgr")]
    assert weights[0].profile == weights[1].profile
    assert [one.channels for one in weights] == [None, None]
    loaded = weights[0].load()
    with np.load(trunk, allow_pickle=False) as arrays:
        assert np.array_equal(loaded["conv1_1.weight"].numpy()[:, ::-1], arrays["conv1_1.weight"])
        assert np.array_equal(loaded["conv5_3.bias"].numpy(), arrays["conv5_3.bias"])
    with pytest.raises(WeightsError, match="reads BGR by its layout or its values"):
        find_weights(net, str(trunk), "oxford-rgb", "pool5").load()


def test_a_file_without_its_top_is_converted_as_far_as_it_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, truth: Tensors
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    layouts.keras_new(tmp_path / "notop.h5", THIN, only(truth, *CONVOLUTIONS))
    made = convert_weights(str(tmp_path / "notop.h5"), THIN.name)
    found = find_weights(THIN, str(made), None, "pool5").load()
    assert all(torch.equal(tensor, truth[name]) for name, tensor in found.items())
    with pytest.raises(WeightsError, match="Pass --tap pool5"):
        find_weights(THIN, str(made)).load()


def test_layers_without_numbers_are_not_converted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, truth: Tensors
) -> None:
    """Some files of torchvision's features have a classifier of nothing but NaN."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    hollow = {n: t if n.startswith("conv") else t * torch.nan for n, t in truth.items()}
    layouts.torchvision(tmp_path / "w.pth", THIN, hollow)
    made = convert_weights(str(tmp_path / "w.pth"), THIN.name, "torchvision")
    found = find_weights(THIN, str(made), None, "pool5").load()
    assert [*found] == [name for name in truth if name.startswith("conv")]
    with pytest.raises(WeightsError, match=r"is not known.*not finite.*--tap pool5") as raised:
        find_weights(THIN, str(tmp_path / "w.pth"))
    assert raised.value.options == {"--profile": "torchvision", "--tap": "pool5"}


# --- the command that the error prints ------------------------------------------------------------


def fine_tuned(path: Path, _: object, tensors: Tensors) -> None:
    head = {"fc8.weight": torch.ones(10, 512, 1, 1), "fc8.bias": torch.zeros(10)}
    layouts.torchvision(path, THIN, tensors | head)


def notop(path: Path, _: object, tensors: Tensors) -> None:
    layouts.keras_new(path, THIN, only(tensors, *CONVOLUTIONS))


@pytest.mark.parametrize(
    ("writer", "name", "options", "size"),
    [
        (notop, "notop.h5", "--tap pool5", 64),
        (fine_tuned, "ten.pth", "--profile torchvision", 512),
        (features, "features.pth", "--profile torchvision --tap pool5", 64),
        (plain_npz, "plain.npz", "--profile oxford-bgr", 512),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_the_command_that_the_first_error_prints_gives_descriptors(
    tmp_path: Path, truth: Tensors, writer: Writer, name: str, options: str, size: int
) -> None:
    (tmp_path / "my photos").mkdir()
    Image.fromarray(photo(90, 100, seed=1)).save(tmp_path / "my photos" / "a.png")
    writer(tmp_path / name, THIN, truth)
    typed = ["extract", "--model", THIN.name, "--weights", str(tmp_path / name), "--scales=224"]
    typed += ["--tap=fc7", "--dataset", f"folder:{tmp_path / 'my photos'}"]
    runner = click.testing.CliRunner()
    refused = runner.invoke(main, [*typed, "--cache", str(tmp_path / "cache")])
    assert refused.exit_code == 1
    assert not (tmp_path / "cache").exists()
    printed = re.search(r"^Type: vggfeat (.*)$", refused.stderr, re.MULTILINE)
    assert printed is not None, refused.stderr
    assert printed[1].endswith(options)
    done = runner.invoke(main, shlex.split(printed[1]))
    assert done.exit_code == 0, done.stderr
    with DescriptorStore.open(Path(done.stdout.strip())) as store:
        rows = store.read().descriptors
        assert rows.shape == (1, 1, size)
        assert rows.max() > 0
