"""From HU to what the network sees: grey values, groups of nine slices, scaling and shifting.

LENS reads 2.5D: nine consecutive slices of the grid are three images of three channels (Sec. IV-A and [25]).
"""

from functools import lru_cache
from types import SimpleNamespace

import numpy as np
import torch
from torch.nn import functional as F


def to_grey(hu: np.ndarray, network: SimpleNamespace) -> torch.Tensor:
    """Map HU (any shape) to the float32 values that the network reads: a piecewise linear window minus a constant.

    The paper maps -1024..3071 HU linearly to 0..255 (Sec. VI-A); the baseline subtracts 50. A profile may give the
    soft tissues a larger share of the grey values by further points in `network.hu` and `network.grey`.
    """
    window = (tuple(network.hu), tuple(network.grey), float(network.subtract))
    hu = np.asarray(hu)
    if hu.dtype == np.int16:  # stored volumes: looking the value up is ten times faster than computing it
        return torch.from_numpy(_grey_table(*window)[hu.astype(np.int32) + 32768])
    return torch.from_numpy(_to_grey(hu, *window))


@lru_cache(maxsize=4)
def _grey_table(hu: tuple, grey: tuple, subtract: float) -> np.ndarray:
    return _to_grey(np.arange(-32768, 32768), hu, grey, subtract)


def _to_grey(values: np.ndarray, hu: tuple, grey: tuple, subtract: float) -> np.ndarray:
    return (np.interp(values, hu, grey) - subtract).astype(np.float32)


def slice_group(volume: np.ndarray, z: int, slices: int) -> np.ndarray:
    """The `slices` slices around slice z of volume (z, y, x); beyond an end the last slice is repeated."""
    around = np.arange(z - slices // 2, z + slices // 2 + 1)
    return volume[np.clip(around, 0, len(volume) - 1)]


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


def round_up(side: int, divisor: int = 16) -> int:
    """The next multiple of the network's stride."""
    return -(-side // divisor) * divisor
