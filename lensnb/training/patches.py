"""Patches around boxes, cut from the prepared store: input of the embedding network and of FPR."""

import numpy as np
import pandas as pd
import torch

from lensnb.boxes import BOX
from lensnb.models.inputs import to_grey
from lensnb.settings import Network


def crop(hu: np.ndarray, centres: np.ndarray, shape: tuple[int, int, int], step: np.ndarray) -> np.ndarray:
    """Cut patches of `shape` (z, y, x) around `centres` (n, 3: x, y, z) out of a volume hu (z, y, x).

    `step` (n, 3: x, y, z) is how far two neighbouring patch pixels are apart, in pixels of the volume. Bilinear in
    plane, the nearest slice in z; beyond the border the last pixel is repeated. Returns float32 (n, *shape).
    """
    x, y, z = (
        np.clip(
            centres[:, axis, None] + step[:, axis, None] * (np.arange(size) - (size - 1) / 2), 0, hu.shape[2 - axis] - 1
        )
        for axis, size in ((0, shape[2]), (1, shape[1]), (2, shape[0]))
    )
    z = nearest_slice(z)
    (left, right, to_right), (top, bottom, to_bottom) = _neighbours(x), _neighbours(y)
    to_bottom = to_bottom[:, :, None]
    result = np.empty((len(centres), *shape), dtype=np.float32)
    for i in range(len(centres)):  # one after another, lines before columns: three times faster than all at once
        first = left[i, 0]
        slices = hu[z[i], :, first : right[i, -1] + 1]
        lines = slices.take(top[i], axis=1) * (1 - to_bottom[i]) + slices.take(bottom[i], axis=1) * to_bottom[i]
        from_left, from_right = lines.take(left[i] - first, axis=2), lines.take(right[i] - first, axis=2)
        result[i] = from_left * (1 - to_right[i]) + from_right * to_right[i]
    return result


def nearest_slice(z: np.ndarray) -> np.ndarray:
    """The nearest slices; halves go up. (numpy rounds halves to even, which would take some slices twice.)"""
    return np.floor(z + 0.5).astype(np.int64)


def _neighbours(position: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The pixels on both sides of each position, and how far towards the second it is."""
    first = np.floor(position).astype(np.int64)
    return first, np.ceil(position).astype(np.int64), (position - first).astype(np.float32)


def cut_patches(
    store,
    table: pd.DataFrame,
    centres: np.ndarray,
    shape: tuple[int, int, int],
    step: np.ndarray,
    network: Network,
) -> torch.Tensor:
    """Patches of many volumes as float32 grey values around zero: (n, *shape), as in `inputs.to_grey` over 255.

    `table` names the volume of each row; `centres` and `step` as in `crop`; `store` is the prepared store.
    """
    result = np.empty((len(table), *shape), dtype=np.float32)
    volume = table["volume"].astype(str).reset_index(drop=True)
    for name, rows in volume.groupby(volume, sort=False).groups.items():
        rows = np.asarray(rows)
        result[rows] = crop(store.hu(name), centres[rows], shape, step[rows])
    return to_grey(result, network) / 255


def box_centres(table: pd.DataFrame) -> np.ndarray:
    """Centres (n, 3: x, y, z) of 2D boxes on slice z, or of 3D boxes where the table has no z."""
    boxes = table[BOX].to_numpy(np.float64)
    z = table["z"] if "z" in table else (table["z1"] + table["z2"]) / 2
    return np.column_stack([(boxes[:, 0] + boxes[:, 2]) / 2, (boxes[:, 1] + boxes[:, 3]) / 2, z.to_numpy(np.float64)])


def to_patch(table: pd.DataFrame, centres: np.ndarray, step: np.ndarray, side: int) -> np.ndarray:
    """The boxes of `table` in pixels of their patches of side x side pixels, cut at the border: (n, 4)."""
    boxes = table[BOX].to_numpy(np.float64)
    centre, scale = centres[:, [0, 1, 0, 1]], step[:, [0, 1, 0, 1]]
    return np.clip((boxes - centre) / scale + (side - 1) / 2, 0, side - 1)
