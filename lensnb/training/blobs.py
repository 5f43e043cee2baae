"""The pretext task "blobs": soft ellipsoids pasted into training slices have to be found.

It was the common start until it was seen that blobs are almost lesions: a detector of blobs finds lesions that nobody
has shown it. It is kept to measure what such a start does to the rows (`--set pretext.task=blobs`).
"""

from collections.abc import Sequence

import numpy as np
import torch

from lensnb.datasets.store import Store
from lensnb.models.inputs import slice_group, to_grey
from lensnb.settings import Network, Training
from lensnb.streams import Stream, generator, number
from lensnb.training.augment import canvas_size, draw, place_batch
from lensnb.training.detector import Batch


class PastedBlobs(torch.utils.data.Dataset):
    """Batches of training slices with one to `most` pasted blobs, or none; batch t follows from the seed and t."""

    def __init__(
        self, network: Network, training: Training, spacing_mm: tuple[float, ...], store: Store, seed: int,
        multiple: int, most: int = 3,
    ):  # fmt: skip
        self.network, self.training, self.spacing_mm = network, training, spacing_mm
        self.store, self.seed, self.multiple, self.most = store, seed, multiple, most
        self.volumes = store.volumes.index[store.volumes["split"] == "train"].tolist()

    def __len__(self) -> int:
        return self.training.iterations

    def __getitem__(self, t: int) -> Batch:
        rng = generator(self.seed, Stream.BLOBS, t)
        images, boxes = [], []
        for volume in rng.choice(self.volumes, size=self.training.batch_size):
            hu = self.store.hu(volume)
            group = slice_group(hu, int(rng.integers(len(hu))), self.network.slices).astype(np.float32)
            number_of_blobs = int(rng.integers(1, self.most + 1)) if self.most else 0
            pasted = [paste_blob(group, self.spacing_mm, rng) for _ in range(number_of_blobs)]
            images.append(to_grey(group, self.network))
            boxes.append(np.array([box for box in pasted if box is not None], np.float32).reshape(-1, 4))
        drawn = [draw(self.training, self.spacing_mm, rng) for _ in images]
        size = canvas_size([image.shape[1:] for image in images], drawn, self.training.crop, self.multiple)
        slices, targets = place_batch(images, boxes, [0] * len(images), drawn, size)
        seeds = [number(self.seed, Stream.BLOB_PROPOSALS, t, image) for image in range(len(images))]
        return Batch(0, slices, targets, seeds)


def paste_blob(group: np.ndarray, spacing_mm: Sequence[float], rng: np.random.Generator) -> tuple[float, ...] | None:
    """Add a soft ellipsoid to HU `group` (z, y, x) in place; return its box in the central slice.

    Returns None if it does not reach that slice, or if there is no body. Radii of 6 to 25 mm; 30 to 90 HU darker or
    brighter than soft tissue, or a solid nodule where it falls into lung.
    """
    depth, height, width = group.shape
    inside = np.argwhere(group[depth // 2, ::4, ::4] > -950) * 4
    if len(inside) == 0:
        return None
    y, x = inside[rng.integers(len(inside))] + rng.uniform(0, 4, size=2)
    radius_mm = 6.0 * (25.0 / 6.0) ** rng.uniform(0, 1) * rng.uniform(0.8, 1.25, size=3)
    rx, ry, rz = radius_mm / np.asarray(spacing_mm)
    z = depth // 2 + rng.uniform(-0.5, 0.5) * rz
    zz, yy, xx = np.ogrid[:depth, :height, :width]
    angle = rng.uniform(0, np.pi)
    u = ((xx - x) * np.cos(angle) + (yy - y) * np.sin(angle)) / rx
    v = (-(xx - x) * np.sin(angle) + (yy - y) * np.cos(angle)) / ry
    r2 = u**2 + v**2 + ((zz - z) / rz) ** 2
    at_centre = r2[depth // 2]
    if at_centre.min() >= 1:
        return None
    weight = 1 / (1 + np.exp(np.clip((np.sqrt(r2) - 1) * rng.uniform(6, 14), -30, 30)))
    around = group[r2 < 1].mean() if (r2 < 1).any() else 0.0
    level = rng.uniform(-60, 80) if around < -300 else around + rng.choice([-1, 1]) * rng.uniform(30, 90)
    group += weight * (level - group)
    rows, columns = np.nonzero(at_centre < 1)
    return columns.min() - 1.0, rows.min() - 1.0, columns.max() + 1.0, rows.max() + 1.0
