"""The dense forward pass against what a user would write: the ratio, measured in one run.

    python benchmarks/forward.py --model vgg16 --scale 768

The naive form is torchvision's layers, channels first, one call for the image and one for
its mirror. Both are checked against each other before they are timed, in turn, several times.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from vggfeat.extract.images import rescaled_size
from vggfeat.nets.architectures import ARCHITECTURES
from vggfeat.nets.vgg import DenseVgg
from vggfeat.nets.weights import find_weights


def naive_net(net: DenseVgg) -> nn.Sequential:
    """Return the same layers as a plain sequence, channels first."""
    layers: list[nn.Module] = []
    for number, block in enumerate(net.architecture.blocks, 1):
        for index in range(1, len(block) + 1):
            layers += [net.convolutions[f"conv{number}_{index}"], nn.ReLU(inplace=True)]
        layers.append(nn.MaxPool2d(2, ceil_mode=net.profile.ceil_mode))
    layers += [net.convolutions["fc6"], nn.ReLU(inplace=True)]
    layers += [net.convolutions["fc7"], nn.ReLU(inplace=True)]
    return nn.Sequential(*layers).to(memory_format=torch.contiguous_format)


def seconds(call: Callable[[], Tensor]) -> float:
    """Return the time of one call."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


@torch.inference_mode()
def main() -> None:
    """Measure and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="vgg16-thin", choices=sorted(ARCHITECTURES))
    parser.add_argument("--scale", type=int, default=256)
    parser.add_argument("--repeat", type=int, default=5)
    options = parser.parse_args()
    architecture = ARCHITECTURES[options.model]
    weights = find_weights(architecture, "random:0")
    tensors = weights.load()
    ours = DenseVgg(architecture, tensors, weights.profile)
    plain = naive_net(DenseVgg(architecture, dict(tensors), weights.profile))
    height, width = rescaled_size(375, 500, options.scale)
    image = torch.from_numpy(
        np.random.default_rng(0).integers(0, 256, (1, height, width, 3), dtype=np.uint8)
    )

    def naive() -> Tensor:
        x = ours.normalised(image).contiguous()
        sides: list[Tensor] = [plain(x).mean(dim=(2, 3)), plain(x.flip(3)).mean(dim=(2, 3))]
        return torch.stack(sides).mean(dim=0)

    def pair() -> Tensor:
        described: Tensor = ours(torch.cat([image, image.flip(2)]))
        return described.mean(dim=0, keepdim=True)

    error = float((naive() - pair()).norm() / naive().norm())
    if error > 1e-5:
        message = f"the two disagree by {error}"
        raise SystemExit(message)
    times = [(seconds(naive), seconds(pair)) for _ in range(options.repeat)]
    print(
        json.dumps(
            {
                "model": options.model,
                "scale": options.scale,
                "relative error": error,
                "naive s": round(float(np.median([a for a, _ in times])), 4),
                "pair, channels last s": round(float(np.median([b for _, b in times])), 4),
                "speed-up": round(float(np.median([a / b for a, b in times])), 3),
                "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, "
                f"torch {torch.__version__}",
            }
        )
    )


if __name__ == "__main__":
    main()
