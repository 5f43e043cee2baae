"""From HU to what the network sees: grey values, groups of nine slices, scaling and shifting.

LENS reads 2.5D: nine consecutive slices of the grid are three images of three channels (LENS Sec. IV-A and [25]).
"""

from functools import lru_cache

import numpy as np
import torch
from torch.nn import functional as F

from lensnb.settings import Network


def to_grey(hu: np.ndarray, network: Network) -> torch.Tensor:
    """Map HU (any shape) to the float32 values that the network reads: a piecewise linear window minus a constant.

    The paper maps -1024..3071 HU linearly to 0..255 (LENS Sec. VI-A); the baseline subtracts 50. A profile may give the
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


def round_up(side: int, divisor: int) -> int:
    """The next multiple of `divisor`."""
    return -(-side // divisor) * divisor


def pad(grey: torch.Tensor, multiple: int) -> torch.Tensor:
    """Pad slices (z, y, x) with zeros at the right and bottom to sides that are multiples of `multiple`."""
    height, width = grey.shape[1:]
    return F.pad(grey, (0, round_up(width, multiple) - width, 0, round_up(height, multiple) - height))
