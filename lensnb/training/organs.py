"""The pretext task "organs": which organ each cell of the features shows, and how high in the body the slice lies.

Its scans are of people without a lesion who belong to no dataset, so nothing that it learns was learned from a lesion,
or from where lesions are. Its length is decided by its own loss on people held out, and by nothing that a row of a
table shows (`has_settled`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from lensnb.datasets.organ_maps import IGNORED, OrganScan
from lensnb.models.inputs import slice_group, to_grey
from lensnb.models.organs import OrganNetwork
from lensnb.models.weights import device_of_choice
from lensnb.provenance.recipe import Recipe
from lensnb.settings import Network, Pretext, Training
from lensnb.streams import Stream, generator
from lensnb.training.augment import Drawn, canvas_size, crop_offset, draw, place, resize
from lensnb.training.loop import Course, Validation, fit
from lensnb.training.norms import learn_statistics

HEIGHT_UNIT_MM = 100.0
NO_BOXES = np.zeros((0, 4), np.float32)
VALIDATION_STEP = 6  # every so many slices of a scan held out are looked at: neighbours share most of theirs
LEAST_GAIN = 0.01  # of the loss: less is no progress
STATISTICS_BATCHES = 30  # training batches that batch norm's statistics are made of before each look


@dataclass(frozen=True)
class OrganBatch:
    """Slices and what they show.

    slices (n, slices, y, x) of grey values; organ (n, y / stride, x / stride), the number of each cell's organ or
    IGNORED; height (n,) of the central slices in 100 mm; upward (n,), 1 where the slices run to the head, 0 where they
    were turned over.
    """

    slices: Tensor
    organ: Tensor
    height: Tensor
    upward: Tensor


class OrganSlices(torch.utils.data.Dataset):
    """Batches of random slices, turned over, scaled, shifted and cropped at random; batch t follows from seed and t.

    spacing_mm: of the grid, x first; stride: of the features; multiple: of the sides of a batch's slices.
    """

    def __init__(
        self, scans: Sequence[OrganScan], network: Network, training: Training, spacing_mm: Sequence[float], seed: int,
        stride: int, multiple: int,
    ):  # fmt: skip
        self.scans, self.network, self.training, self.spacing_mm = scans, network, training, spacing_mm
        self.seed, self.stride, self.multiple = seed, stride, multiple

    def __len__(self) -> int:
        return self.training.iterations

    def __getitem__(self, t: int) -> OrganBatch:
        rng = generator(self.seed, Stream.ORGAN_SLICES, t)
        count = self.training.batch_size
        scans = [self.scans[i] for i in rng.integers(len(self.scans), size=count)]
        chosen = [(scan, int(rng.integers(len(scan.hu)))) for scan in scans]
        upward = rng.random(count) < 0.5
        drawn = [draw(self.training, self.spacing_mm, rng) for _ in chosen]
        size = canvas_size([scan.hu.shape[1:] for scan in scans], drawn, self.training.crop, self.multiple)
        return organ_batch(chosen, upward, drawn, size, self.network, self.stride)


def held_out(scans: Sequence[OrganScan], network: Network, images: int, stride: int, multiple: int) -> list[OrganBatch]:
    """Every sixth slice of every scan in batches of `images`, every second one turned over."""
    found = [(scan, z) for scan in scans for z in range(VALIDATION_STEP // 2, len(scan.hu), VALIDATION_STEP)]
    batches = [found[first : first + images] for first in range(0, len(found), images)]
    return [whole_slices(part, np.arange(len(part)) % 2 == 0, network, stride, multiple) for part in batches]


def whole_slices(
    chosen: Sequence[tuple[OrganScan, int]], upward: np.ndarray, network: Network, stride: int, multiple: int
) -> OrganBatch:
    """The batch of some slices (scan, z) as they are, padded to a common size; upward as in `organ_batch`."""
    drawn = [Drawn(1.0, (0, 0), 0.0, (0.0, 0.0))] * len(chosen)
    size = canvas_size([scan.hu.shape[1:] for scan, _ in chosen], drawn, (), multiple)
    return organ_batch(chosen, upward, drawn, size, network, stride)


def organ_batch(
    chosen: Sequence[tuple[OrganScan, int]], upward: np.ndarray, drawn: Sequence[Drawn], size: tuple[int, int],
    network: Network, stride: int,
) -> OrganBatch:  # fmt: skip
    """The batch of some slices (scan, z), each with what was drawn for it; size: its height and width in pixels.

    upward: whether a group of slices keeps its order, the feet first.
    """
    slices = torch.zeros(len(chosen), network.slices, *size)
    organs = torch.full((len(chosen), 1, *size), float(IGNORED))
    for n, (scan, z) in enumerate(chosen):
        group = slice_group(scan.hu, z, network.slices)
        image, _ = resize(to_grey(group if upward[n] else group[::-1], network), NO_BOXES, drawn[n].ratio)
        organ = torch.from_numpy(scan.organ[z].astype(np.float32))[None, None]
        organ = F.interpolate(organ, size=image.shape[1:], mode="nearest-exact")[0]
        offset = crop_offset(image.shape[1:], NO_BOXES, drawn[n], size)
        place(image, NO_BOXES, slices[n], offset)
        place(organ, NO_BOXES, organs[n], offset)
    heights = [scan.z_mm[z] / HEIGHT_UNIT_MM for scan, z in chosen]
    return OrganBatch(
        slices, cell_organs(organs[:, 0].long(), stride), torch.tensor(heights, dtype=torch.float32),
        torch.from_numpy(np.asarray(upward, np.float32)),
    )  # fmt: skip


def cell_organs(organ: Tensor, stride: int) -> Tensor:
    """The organ at the place of each cell: (n, y, x) of pixels -> (n, y / stride, x / stride).

    Cell j of the features lies on pixel stride * j, as convolutions with symmetric kernels and padding put it.
    """
    return organ[:, ::stride, ::stride]


def organ_weights(scans: Sequence[OrganScan], organs: int) -> Tensor:
    """What a voxel of each organ weighs, so that all organs together count the same: (organs,), 0 for an absent one."""
    counts = sum(np.bincount(scan.organ.ravel(), minlength=IGNORED + 1)[:organs] for scan in scans)
    weights = np.divide(1.0, counts, out=np.zeros(organs), where=counts > 0)
    return torch.tensor(weights / weights.sum(), dtype=torch.float32)


def organ_losses(network: torch.nn.Module, batch: OrganBatch, weights: Tensor) -> dict[str, Tensor]:
    """Cross-entropies of organs (weighted) and of the direction, smooth L1 of the height in 100 mm."""
    device = weights.device
    logits, height, upward = network(batch.slices.to(device))
    return {
        "organ": F.cross_entropy(logits, batch.organ.to(device), weights, ignore_index=IGNORED),
        "height": F.smooth_l1_loss(height, batch.height.to(device)),
        "direction": F.binary_cross_entropy_with_logits(upward, batch.upward.to(device)),
    }


@torch.no_grad()
def validation_loss(network: OrganNetwork, batches: Sequence[OrganBatch], weights: Tensor) -> float:
    """The sum of the three losses on slices held out, their mean over the batches; `network` in eval mode."""
    return float(np.mean([float(sum(organ_losses(network, batch, weights).values())) for batch in batches]))


def has_settled(losses: Sequence[float], patience: int) -> bool:
    """Whether the best of the validation losses has fallen by no more than 1 % in the last `patience` of them."""
    if len(losses) <= patience:
        return False
    return min(losses[-patience:]) >= (1 - LEAST_GAIN) * min(losses[:-patience])


def fit_organs(
    model: OrganNetwork, batches: OrganSlices, unseen: Sequence[OrganScan], pretext: Pretext, run_dir: Path,
    config: dict, recipe: Recipe,
) -> None:  # fmt: skip
    """Train with RAdam until the loss on the scans `unseen` has settled; the weights with the lowest one are kept.

    pretext: how often that is looked at, and for how long it may stand still; config and recipe as in `loop.fit`.
    """
    training, device = batches.training, device_of_choice()
    model.to(device, memory_format=torch.channels_last)  # the faster layout for convolutions, on CPUs too
    weights = organ_weights(batches.scans, model.organ.out_channels).to(device)
    looked_at = held_out(unseen, batches.network, training.batch_size, batches.stride, batches.multiple)

    def score(network: OrganNetwork) -> float:
        # with the running means, which lag behind the weights, the loss jumps up and down from look to look
        count = min(STATISTICS_BATCHES, len(batches))
        learn_statistics(network, (batches[t].slices.to(device) for t in range(count)))
        return -validation_loss(network.eval(), looked_at, weights)

    validation = Validation(
        score=score, number=0, recipe={}, every=pretext.evaluate_every,
        settled=lambda scores: has_settled([-score for score in scores], pretext.patience),
    )  # fmt: skip
    course = Course(
        # a rate that falls towards the end would have to know the end, which is only found out
        lambda t: training.learning_rate * min(1.0, (t + 1) / max(1, training.warmup)), training.gradient_clip,
        training.checkpoint_every, training.loader_workers, training.autocast,
    )  # fmt: skip
    optimizer = torch.optim.RAdam(model.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay)
    fit(
        model, batches, lambda network, batch: organ_losses(network, batch, weights), optimizer, course, run_dir,
        config, recipe, validation=validation,
    )  # fmt: skip


@torch.no_grad()
def answer(network: OrganNetwork, batch: OrganBatch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What a network in eval mode says of a batch: each cell's organ (n, y, x), each slice's height in mm (n,), and
    whether its group runs to the head (n,)."""
    logits, height, upward = network(batch.slices.to(next(network.parameters()).device))
    return logits.argmax(dim=1).cpu().numpy(), height.cpu().numpy() * HEIGHT_UNIT_MM, upward.cpu().numpy() > 0


def organ_report(network: OrganNetwork, batches: Sequence[OrganBatch], organs: Sequence[str]) -> pd.DataFrame:
    """How many cells of each organ there are, and the share that is taken for it: organ, cells, right."""
    counts = np.zeros((2, len(organs)), dtype=np.int64)
    for batch in batches:
        true, said = batch.organ.numpy(), answer(network, batch)[0]
        known = true != IGNORED
        counts += [np.bincount(true[mask], minlength=len(organs)) for mask in (known, known & (true == said))]
    with np.errstate(invalid="ignore"):
        return pd.DataFrame({"organ": organs, "cells": counts[0], "right": counts[1] / counts[0]})


def place_report(network: OrganNetwork, batches: Sequence[OrganBatch]) -> tuple[float, float]:
    """How far off the height of a slice is in the median, in mm, and the share of slices whose direction is right."""
    said = [answer(network, batch) for batch in batches]
    off = [height - batch.height.numpy() * HEIGHT_UNIT_MM for (_, height, _), batch in zip(said, batches, strict=True)]
    right = [upward == (batch.upward.numpy() > 0) for (*_, upward), batch in zip(said, batches, strict=True)]
    return float(np.median(np.abs(np.concatenate(off)))), float(np.concatenate(right).mean())
