"""Training samples: which slices an epoch visits, and what is known about each.

An epoch has one random slice of every 3D lesion (Sec. VI-D) and, for every two of them, one slice without a lesion
(Sec. VI-B). Sample i of a dataset follows from the seed and i alone: a resumed training goes on as if undisturbed.
"""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F

from lensnb.boxes import BOX
from lensnb.datasets import DATASETS
from lensnb.models.inputs import round_up, slice_group, to_grey
from lensnb.models.targets import Target


class SliceSampler:
    """The training slices of one dataset.

    labels: 2D boxes (volume, lesion, z, x1, y1, x2, y2, source); source "uncertain" is ignored in the losses.
    searched: volume -> the slices that negatives may come from (see `searched_slices`).
    negatives: whether slices without a lesion are used (an unmarked slice of a partly labelled dataset may have one).
    pixels: volume -> size of its slices; slices of like size then follow each other (see `like_sizes_together`).
    """

    def __init__(
        self, labels: pd.DataFrame, searched: dict[str, range], negatives: bool, key: tuple[int, ...],
        pixels: dict[str, int] | None = None,
    ):  # fmt: skip
        known = labels[labels["source"] != "uncertain"]
        if known.empty:
            raise ValueError("no lesion to train on: the label table has no box that is not uncertain")
        self.key, self.pixels = key, pixels
        self.lesions = [
            (str(volume), np.sort(group["z"].to_numpy(np.int64)))
            for (volume, _), group in known.groupby(["volume", "lesion"], observed=True)
        ]
        self.boxes = {
            (str(volume), int(z)): (
                group[group["source"] != "uncertain"][BOX].to_numpy(np.float32),
                group[group["source"] == "uncertain"][BOX].to_numpy(np.float32),
            )
            for (volume, z), group in labels.groupby(["volume", "z"], observed=True)
        }
        positive = {(volume, z) for (volume, z), (lesions, _) in self.boxes.items() if len(lesions)}
        self.negatives = []
        if negatives:
            self.negatives = [(v, z) for v in sorted(searched) for z in searched[v] if (v, z) not in positive]
        self._epoch = (-1, [])

    def __len__(self) -> int:
        """Samples of an epoch: positives, and half as many negatives."""
        return len(self.lesions) + (len(self.lesions) // 2 if self.negatives else 0)

    def slice(self, i: int) -> tuple[str, int]:
        """Volume and slice of the i-th sample since the training began."""
        epoch, position = divmod(i, len(self))
        if self._epoch[0] != epoch:
            self._epoch = (epoch, self._make_epoch(epoch))
        return self._epoch[1][position]

    def _make_epoch(self, epoch: int) -> list[tuple[str, int]]:
        rng = np.random.default_rng((*self.key, epoch))
        chosen = [(volume, int(rng.choice(slices))) for volume, slices in self.lesions]
        if self.negatives:
            picked = rng.integers(len(self.negatives), size=len(self.lesions) // 2)
            chosen += [self.negatives[k] for k in picked]
        shuffled = [chosen[k] for k in rng.permutation(len(chosen))]
        return like_sizes_together(shuffled, self.pixels) if self.pixels else shuffled

    def target(self, volume: str, z: int) -> tuple[np.ndarray, np.ndarray]:
        """The lesions (n, 4) and uncertain lesions (m, 4) of a slice."""
        empty = np.zeros((0, 4), np.float32)
        return self.boxes.get((volume, z), (empty, empty))


def like_sizes_together(samples: list[tuple[str, int]], pixels: dict[str, int], part: int = 128) -> list:
    """Sort each `part` of random samples (volume, slice) by the size of their slices.

    Slices of one batch are padded to a common size; if they are alike, a tenth of the work is saved. The baseline's
    framework groups images by their aspect ratio for the same reason.
    """
    parts = [samples[start : start + part] for start in range(0, len(samples), part)]
    return [sample for piece in parts for sample in sorted(piece, key=lambda sample: pixels[sample[0]])]


def searched_slices(dataset: str, depths: pd.Series, labels: pd.DataFrame) -> dict[str, range]:
    """The slices of each volume that somebody has searched for lesions, or that count as such: volume -> range.

    All slices, or those from the first to the last labelled one where a dataset labels a part of each scan. depths:
    slices of each volume, by volume name.
    """
    if DATASETS[dataset].searched == "all slices":
        return {str(volume): range(depth) for volume, depth in depths.items()}
    z = labels.groupby(labels["volume"].astype(str))["z"]
    return {volume: range(int(low), int(high) + 1) for volume, low, high in z.agg(["min", "max"]).itertuples()}


def make_batch(
    sampler: SliceSampler, indices: list[int], read_hu, network: SimpleNamespace, training: SimpleNamespace, key: tuple
) -> tuple[torch.Tensor, list[Target]]:
    """Read the samples `indices` of one dataset and make a batch of them.

    read_hu(volume) gives HU (z, y, x); `key` seeds the augmentation. Returns what `place_batch` returns.
    """
    images, boxes, uncertain = [], [], []
    for volume, z in (sampler.slice(i) for i in indices):
        images.append(to_grey(slice_group(read_hu(volume), z, network.slices), network))
        known = sampler.target(volume, z)
        boxes.append(np.concatenate(known))
        uncertain.append(len(known[1]))
    return place_batch(images, boxes, uncertain, np.random.default_rng(key), training)


def place_batch(
    images: list[torch.Tensor], boxes: list[np.ndarray], uncertain: list[int], rng: np.random.Generator,
    training: SimpleNamespace,
) -> tuple[torch.Tensor, list[Target]]:  # fmt: skip
    """Resize, shift and pad grey images (9, y, x) into one batch (Sec. VI-A).

    boxes: (n, 4) for each image, of which the last `uncertain[i]` are uncertain lesions.
    The images of a batch share one ratio of 0.8 to 1.2 (the paper draws one for each; sharing it saves a fifth of
    the padding); each is shifted by -8 to 8 pixels. Returns slices (n, 9, y, x), padded with zeros at the right and
    bottom to a multiple of 16, and one Target per image.
    """
    ratio = rng.uniform(*training.scale)
    resized = [resize(image, box, ratio) for image, box in zip(images, boxes, strict=True)]
    height, width = (round_up(max(image.shape[axis] for image, _ in resized)) for axis in (1, 2))
    batch = torch.zeros(len(images), len(images[0]), height, width)
    targets = []
    for n, (image, box) in enumerate(resized):
        shift = rng.integers(-training.shift, training.shift + 1, size=2)
        placed = place(image, box, batch[n], (int(shift[0]), int(shift[1])))
        count = len(placed) - uncertain[n]
        targets.append(Target(_valid(placed[:count]), _valid(placed[count:])))
    return batch, targets


def _valid(boxes: np.ndarray) -> torch.Tensor:
    """Boxes that still have a pixel inside the image."""
    kept = (boxes[:, 2:] - boxes[:, :2] >= 1).all(axis=1)
    return torch.from_numpy(np.ascontiguousarray(boxes[kept], dtype=np.float32))


def resize(images: torch.Tensor, boxes: np.ndarray, ratio: float) -> tuple[torch.Tensor, np.ndarray]:
    """Resize images (c, y, x) and their boxes (n, 4) in plane by `ratio`, the augmentation of Sec. VI-A."""
    height, width = (max(16, round(side * ratio)) for side in images.shape[1:])
    resized = F.interpolate(images[None], size=(height, width), mode="bilinear", align_corners=False)[0]
    factor = np.array([width / images.shape[2], height / images.shape[1]] * 2)
    return resized, (boxes + 0.5) * factor - 0.5


def place(images: torch.Tensor, boxes: np.ndarray, canvas: torch.Tensor, shift: tuple[int, int]) -> np.ndarray:
    """Copy images (c, y, x) into `canvas` (c, Y, X), moved by `shift` = (x, y) pixels; return the boxes (n, 4) there.

    What leaves the canvas is lost, boxes are cut at its border; a box that keeps no pixel becomes empty (x2 <= x1).
    """
    x, y = shift
    height, width = images.shape[1:]
    top, left = max(0, y), max(0, x)
    bottom, right = min(canvas.shape[1], y + height), min(canvas.shape[2], x + width)
    canvas[:, top:bottom, left:right] = images[:, top - y : bottom - y, left - x : right - x]
    moved = boxes + np.array([x, y, x, y])
    limit = np.array([right - 1, bottom - 1] * 2)
    return np.clip(moved, 0, limit)
