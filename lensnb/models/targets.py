"""What is known about an image, and how boxes are coded and sampled.

A proposal network is a module that knows its `stride` and has

    forward(features)                          -> raw outputs for every cell of the feature map
    losses(raw, map_size, targets, generators) -> {"center": ..., "size": ...}, means over the images
    propose(raw, map_size, top)                -> boxes (n, k, 4) and scores (n, k), the best k cells of each image

`targets` has one `Target` per image and `generators` one random generator per image, so that a sample is the same
whichever images it shares a batch or a process with. `raw` is whatever the network's own losses and propose read; its
tensors have an image in each row. `map_size` is (height, width) of the feature map; `cells.cell_centres` says where
its cells lie.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Target:
    """What is known about one image: boxes of lesions (n, 4) and of uncertain lesions (m, 4), in pixels.

    Both may be empty: a slice without lesions is a training sample like any other.
    """

    lesions: Tensor
    uncertain: Tensor


def sample(
    label: Tensor, number: int, positive: int, generator: torch.Generator | None, scores: Tensor | None = None,
    hard: float = 0.0,
) -> Tensor:  # fmt: skip
    """Indices of at most `number` random entries with label 1 or 0, at most `positive` of them with label 1.

    scores (n,): how much each entry looks like a lesion. Of the entries with label 0 that are taken, the share `hard`
    are those with the highest scores; the rest is random among the others.
    """
    ones, zeros = (label == 1).nonzero()[:, 0], (label == 0).nonzero()[:, 0]
    ones = ones[torch.randperm(len(ones), generator=generator)[:positive].to(ones.device)]
    wanted, hardest = min(number - len(ones), len(zeros)), zeros[:0]
    if hard:
        order = zeros[scores[zeros].argsort(descending=True, stable=True)]
        hardest, zeros = order.tensor_split([round(hard * wanted)])
    zeros = zeros[torch.randperm(len(zeros), generator=generator)[: wanted - len(hardest)].to(zeros.device)]
    return torch.cat([ones, hardest, zeros])


def encode(boxes: Tensor, reference: Tensor) -> Tensor:
    """Offsets (n, 4) of boxes from reference boxes: shift over size, logarithm of the ratio of sizes [28]."""
    size = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1e-3)
    reference_size = (reference[:, 2:] - reference[:, :2]).clamp(min=1e-3)
    shift = (boxes[:, :2] + boxes[:, 2:] - reference[:, :2] - reference[:, 2:]) / 2
    return torch.cat([shift / reference_size, (size / reference_size).log()], dim=1)


def decode(offsets: Tensor, reference: Tensor) -> Tensor:
    """The inverse of `encode`; sizes grow at most 62.5 times, as in the baseline."""
    reference_size = (reference[:, 2:] - reference[:, :2]).clamp(min=1e-3)
    centre = (reference[:, :2] + reference[:, 2:]) / 2 + offsets[:, :2] * reference_size
    half = reference_size * offsets[:, 2:].clamp(max=math.log(1000 / 16)).exp() / 2
    return torch.cat([centre - half, centre + half], dim=1)
