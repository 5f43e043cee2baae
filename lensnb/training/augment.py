"""Augmentation of LENS's training images: scale and shift (LENS Sec. VI-A), and crops of one size for a batch.

What is drawn for an image is a few numbers, drawn before it is read, so that each of several processes can prepare its
own images alone. Without a crop, the images of a batch are padded to a common size.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from lensnb.boxes import area
from lensnb.models.inputs import round_up
from lensnb.models.targets import Target
from lensnb.settings import Training

LEAST = 16  # pixels that an image keeps on a side
LEAST_INSIDE = 0.5  # share of a lesion's box that the image must hold for the lesion to be learned


@dataclass(frozen=True)
class Drawn:
    """What is drawn for an image.

    ratio: of its sides after resizing to those before. shift: (x, y) in pixels. chosen, corner: in [0, 1), which lesion
    a crop must hold, and which of the possible places (x, y) of the crop is taken.
    """

    ratio: float
    shift: tuple[int, int]
    chosen: float
    corner: tuple[float, float]


def draw(training: Training, spacing_mm: Sequence[float], rng: np.random.Generator) -> Drawn:
    """Draw for an image: a ratio of 0.8 to 1.2, and shifts of at most 6.4 mm in whole pixels (the profile's numbers).

    spacing_mm: of the grid, x first; at the paper's 0.8 mm the shifts are -8 to 8 pixels.
    """
    ratio = float(rng.uniform(*training.scale))
    most = [round(training.shift_mm / side_mm) for side_mm in spacing_mm[:2]]
    shift = tuple(int(rng.integers(-pixels, pixels + 1)) for pixels in most)
    chosen, *corner = map(float, rng.uniform(size=3))
    return Drawn(ratio, shift, chosen, tuple(corner))


def canvas_size(
    sizes: Sequence[tuple[int, int]], drawn: Sequence[Drawn], crop: tuple[int, ...], multiple: int
) -> tuple[int, int]:
    """Height and width of a batch: the crop's, or what holds images of all `sizes` (height, width) after resizing.

    Both are multiples of `multiple`; ValueError if the crop's are not.
    """
    if crop:
        if len(crop) != 2 or any(side <= 0 or side % multiple for side in crop):
            raise ValueError(f"training.crop is {list(crop)}; it must be height and width, multiples of {multiple}")
        return crop
    resized = [[_resized(side, one.ratio) for side in size] for size, one in zip(sizes, drawn, strict=True)]
    height, width = (round_up(max(sides), multiple) for sides in zip(*resized, strict=True))
    return height, width


def place_batch(
    images: Sequence[torch.Tensor], boxes: Sequence[np.ndarray], uncertain: Sequence[int], drawn: Sequence[Drawn],
    size: tuple[int, int],
) -> tuple[torch.Tensor, list[Target]]:  # fmt: skip
    """Resize, shift, and crop or pad grey images (slices, y, x) into one batch.

    boxes: (n, 4) for each image, of which the last `uncertain[i]` are uncertain lesions; size: (height, width) of the
    batch (see `canvas_size`). Returns slices (n, slices, y, x), padded with zeros where an image ends, and one Target
    per image (see `visible`).
    """
    batch = torch.zeros(len(images), len(images[0]), *size)
    targets = []
    for n, (image, box) in enumerate(zip(images, boxes, strict=True)):
        image, box = resize(image, box, drawn[n].ratio)
        count = len(box) - uncertain[n]
        offset = crop_offset(image.shape[1:], box[:count], drawn[n], size)
        targets.append(visible(box + np.tile(offset, 2), place(image, box, batch[n], offset), count))
    return batch, targets


def resize(images: torch.Tensor, boxes: np.ndarray, ratio: float) -> tuple[torch.Tensor, np.ndarray]:
    """Resize images (c, y, x) and their boxes (n, 4) in plane by `ratio`."""
    height, width = (_resized(side, ratio) for side in images.shape[1:])
    resized = F.interpolate(images[None], size=(height, width), mode="bilinear", align_corners=False)[0]
    factor = np.array([width / images.shape[2], height / images.shape[1]] * 2)
    return resized, (boxes + 0.5) * factor - 0.5


def crop_offset(image_size: Sequence[int], lesions: np.ndarray, drawn: Drawn, size: tuple[int, int]) -> tuple[int, int]:
    """How far (x, y) an image of `image_size` (height, width) moves to be shifted and then cropped to `size`.

    The crop lies anywhere in the image, but if there are lesions (n, 4), it holds one of them, chosen at random, as a
    whole; of a lesion larger than the crop its centre. In a direction in which the image is not larger, nothing is cut.
    """
    offset = []
    for axis in (0, 1):  # x, y
        side, cropped, shift = image_size[1 - axis], size[1 - axis], drawn.shift[axis]
        free = max(0, side - cropped)
        low, high = 0, free
        if len(lesions):
            box = lesions[int(drawn.chosen * len(lesions))]
            first, last = np.clip(box[[axis, axis + 2]] + shift, 0, side - 1)
            low, high = math.ceil(last - (cropped - 1)), math.floor(first)
            if low > high:
                low = high = round((first + last - (cropped - 1)) / 2)
            low, high = (min(max(corner, 0), free) for corner in (low, high))
        corner = low + int(drawn.corner[axis] * (high - low + 1))
        offset.append(shift - corner)
    return offset[0], offset[1]


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


def visible(whole: np.ndarray, cut: np.ndarray, lesions: int) -> Target:
    """The target of an image from its boxes (n, 4) before and after they were cut at the border, lesions first.

    A lesion of which less than half is left is uncertain: nobody can tell from the rest whether it is one. What keeps
    no pixel is dropped.
    """
    left = (cut[:, 2:] - cut[:, :2] >= 1).all(axis=1)
    known = (np.arange(len(cut)) < lesions) & (area(cut) >= LEAST_INSIDE * area(whole))
    return Target(_tensor(cut[left & known]), _tensor(cut[left & ~known]))


def _resized(side: int, ratio: float) -> int:
    return max(LEAST, round(side * ratio))


def _tensor(boxes: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(boxes, dtype=np.float32))
