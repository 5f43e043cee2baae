"""From HU to what the network sees: grey values, groups of nine slices, scaling and shifting.

LENS reads 2.5D: nine consecutive slices of the grid are three images of three channels (Sec. IV-A and [25]).
"""

from functools import lru_cache
from types import SimpleNamespace

import numpy as np
import torch


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


def round_up(side: int, divisor: int = 16) -> int:
    """The next multiple of the network's stride."""
    return -(-side // divisor) * divisor


def pad(grey: torch.Tensor) -> torch.Tensor:
    """Pad slices (z, y, x) with zeros at the right and bottom to a multiple of 16, as in training."""
    height, width = grey.shape[1:]
    return torch.nn.functional.pad(grey, (0, round_up(width) - width, 0, round_up(height) - height))
