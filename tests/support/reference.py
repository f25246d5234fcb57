"""Slow, obviously right implementations, each with its source. Only tests use them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn


def devkit_average_precision(
    ground_truth: Sequence[tuple[str, int]], results: Sequence[tuple[str, float]], year: int
) -> float:
    """AP as the VOC devkits compute it, step by step (VOCevalcls.m 2007 and 2012, VOCap.m).

    Args:
        ground_truth: (id, label in {1, -1, 0}) in file order.
        results: (id, confidence) lines; a repeated line overwrites, an absent one ranks last.
        year: 2007 for the 11 points, 2010 or later for the area.
    """
    ids = [image for image, _ in ground_truth]
    if len(set(ids)) != len(ids):
        raise KeyError("id twice in the ground truth")
    confidence = dict.fromkeys(ids, -math.inf)
    for image, value in results:
        if image not in confidence:
            raise KeyError(image)
        confidence[image] = value
    ranking = sorted(range(len(ids)), key=lambda i: -confidence[ids[i]])  # sorted() is stable
    positives = sum(label > 0 for _, label in ground_truth)
    hits = misses = 0
    recall: list[float] = []
    precision: list[float] = []
    for i in ranking:
        label = ground_truth[i][1]
        hits += label > 0
        misses += label < 0
        recall.append(hits / positives)
        precision.append(hits / (hits + misses) if hits + misses else math.nan)
    if year == 2007:
        return _eleven_points(recall, precision)
    return _area(recall, precision)


def _eleven_points(recall: Sequence[float], precision: Sequence[float]) -> float:
    total = 0.0
    for tenth in range(11):
        level = {3: 0.30000000000000004}.get(tenth, tenth / 10)  # MATLAB's 0:0.1:1
        reached = [
            p for r, p in zip(recall, precision, strict=True) if r >= level and not math.isnan(p)
        ]
        total += max(reached, default=0.0) / 11
    return total


def _area(recall: Sequence[float], precision: Sequence[float]) -> float:
    mrec = [0.0, *recall, 1.0]
    mpre = [0.0, *(0.0 if math.isnan(p) else p for p in precision), 0.0]
    for i in range(len(mpre) - 2, -1, -1):
        mpre[i] = max(mpre[i], mpre[i + 1])
    return sum(
        (mrec[i] - mrec[i - 1]) * mpre[i] for i in range(1, len(mrec)) if mrec[i] != mrec[i - 1]
    )


def sliding_descriptor(
    tensors: Mapping[str, Tensor], blocks: Sequence[Sequence[int]], x: Tensor, *, ceil_mode: bool
) -> Tensor:
    """fc7 after ReLU of every 7×7 window of pool5, by the fully connected layers, averaged.

    Simonyan & Zisserman 2015, Sect. 3.2: the dense form must equal exactly this.

    Args:
        tensors: Weights, with fc6 (fc, channels, 7, 7).
        blocks: Channels of the convolutions.
        x: (b, 3, H, W), normalised.
        ceil_mode: Of the pools.
    """
    for number, block in enumerate(blocks, 1):
        for index in range(1, len(block) + 1):
            name = f"conv{number}_{index}"
            x = torch.conv2d(x, tensors[f"{name}.weight"], tensors[f"{name}.bias"], padding=1)
            x = x.clamp(min=0)
        x = nn.functional.max_pool2d(x, 2, 2, ceil_mode=ceil_mode)
    fc6, fc7 = tensors["fc6.weight"].flatten(1), tensors["fc7.weight"].flatten(1)
    total, count = torch.zeros(len(x), len(fc7), dtype=x.dtype), 0
    for top in range(x.shape[2] - 6):
        for left in range(x.shape[3] - 6):
            window = x[:, :, top : top + 7, left : left + 7].flatten(1)  # C, H, W order
            hidden = (window @ fc6.T + tensors["fc6.bias"]).clamp(min=0)
            total += (hidden @ fc7.T + tensors["fc7.bias"]).clamp(min=0)
            count += 1
    return total / count
