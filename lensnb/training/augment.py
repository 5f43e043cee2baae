"""Augmentation of LENS's training images: scale and shift (LENS Sec. VI-A), and padding to one batch.

What is drawn is drawn for the whole batch first, so that each of several processes can prepare its own images alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from lensnb.models.inputs import round_up
from lensnb.models.targets import Target
from lensnb.settings import Training

LEAST = 16  # pixels that an image keeps on a side


@dataclass(frozen=True)
class Drawn:
    """What is drawn for a batch: one ratio for all its images, and a shift (x, y) in pixels for each.

    The paper draws a ratio for each image; sharing it saves a fifth of the padding.
    """

    ratio: float
    shifts: np.ndarray


def draw(images: int, training: Training, rng: np.random.Generator) -> Drawn:
    """Draw for a batch: a ratio of 0.8 to 1.2, shifts of -8 to 8 pixels (the profile's numbers)."""
    ratio = rng.uniform(*training.scale)
    return Drawn(ratio, rng.integers(-training.shift, training.shift + 1, size=(images, 2)))


def canvas_size(sizes: Sequence[tuple[int, int]], ratio: float, multiple: int) -> tuple[int, int]:
    """Height and width that hold images of all `sizes` (height, width) after resizing, multiples of `multiple`."""
    height, width = (max(_resized(size[axis], ratio) for size in sizes) for axis in (0, 1))
    return round_up(height, multiple), round_up(width, multiple)


def place_batch(
    images: Sequence[torch.Tensor], boxes: Sequence[np.ndarray], uncertain: Sequence[int], drawn: Drawn,
    size: tuple[int, int],
) -> tuple[torch.Tensor, list[Target]]:  # fmt: skip
    """Resize, shift and pad grey images (slices, y, x) into one batch.

    boxes: (n, 4) for each image, of which the last `uncertain[i]` are uncertain lesions; drawn: for these images;
    size: of the batch (see `canvas_size`). Returns slices (n, slices, y, x), padded with zeros at the right and
    bottom, and one Target per image.
    """
    batch = torch.zeros(len(images), len(images[0]), *size)
    targets = []
    for n, (image, box) in enumerate(zip(images, boxes, strict=True)):
        image, box = resize(image, box, drawn.ratio)
        x, y = map(int, drawn.shifts[n])
        placed = place(image, box, batch[n], (x, y))
        count = len(placed) - uncertain[n]
        targets.append(Target(_valid(placed[:count]), _valid(placed[count:])))
    return batch, targets


def resize(images: torch.Tensor, boxes: np.ndarray, ratio: float) -> tuple[torch.Tensor, np.ndarray]:
    """Resize images (c, y, x) and their boxes (n, 4) in plane by `ratio`."""
    height, width = (_resized(side, ratio) for side in images.shape[1:])
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


def _resized(side: int, ratio: float) -> int:
    return max(LEAST, round(side * ratio))


def _valid(boxes: np.ndarray) -> torch.Tensor:
    """Boxes that still have a pixel inside the image."""
    kept = (boxes[:, 2:] - boxes[:, :2] >= 1).all(axis=1)
    return torch.from_numpy(np.ascontiguousarray(boxes[kept], dtype=np.float32))
