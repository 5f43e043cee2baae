"""Lesions on the grid beyond their boxes: masks, and the ends of RECIST diameters."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from lensnb.ct.grid import Geometry, original_to_grid

DIAMETERS = ["x1", "y1", "x2", "y2", "x3", "y3", "x4", "y4"]  # the two ends of the long diameter, then of the short one
MASK_ENDING = ".mask.npz"  # of a mask's file, beside the array of its volume
MOST_LESIONS = np.iinfo(np.uint16).max  # that a mask can number


@dataclass(frozen=True)
class Segment:
    """One lesion of a label mask, in original voxels.

    lesion: its name in the box tables. corner: index (z, y, x) of the first voxel of its bounding box. voxels: which
    voxels of that box are the lesion's, bool (z, y, x).
    """

    lesion: str
    corner: tuple[int, int, int]
    voxels: np.ndarray


def diameters_to_grid(original_ends: pd.DataFrame, geometry: Geometry, grid_depth: int) -> pd.DataFrame:
    """RECIST diameters that were drawn on one slice, on the grid slice that `key_boxes_to_grid` gives their box.

    `original_ends`: lesion, z and DIAMETERS in original index coordinates. Returns the same columns in the grid. Ends
    are not cut at the image, as boxes are: a diameter keeps its length.
    """
    ends = original_ends[DIAMETERS].to_numpy(float).reshape(-1, 2)
    places = original_to_grid(np.column_stack([ends, np.repeat(original_ends["z"].to_numpy(float), 4)]), geometry)
    z = np.clip(np.rint(places[::4, 2]), 0, grid_depth - 1).astype(int)
    table = pd.DataFrame({"lesion": original_ends["lesion"].to_numpy(), "z": z})
    table[DIAMETERS] = places[:, :2].reshape(-1, 8)
    return table


def mask_to_grid(
    segments: Sequence[Segment], grid_boxes: pd.DataFrame, geometry: Geometry, shape: tuple[int, int, int]
) -> np.ndarray:
    """A mask of a grid of `shape` (z, y, x): uint16, lesion `segments[i]` is i + 1, and 0 is no lesion.

    Each grid voxel has the number of the original voxel in which its centre lies: the nearest neighbour. That is the
    rule by which `slice_boxes_to_grid` gives a lesion its grid slices, so these are the same in both. Numbers do
    not mix where lesions touch, and volumes are right on the average. The share of a voxel, with a threshold of one
    half, would lose what is smaller than a voxel, and corners.

    In plane a lesion's mask ends at most half a grid pixel off the outer edges of the nearest original slice. Where
    original pixels are smaller than the grid's, a tip of one pixel may lie between its rows: half a pixel and a tip.
    Boxes are interpolated between slices that are further apart than the grid's, and the mask is not; they differ by
    up to half of what the two slices differ, too.

    No lesion vanishes: on a slice where it has a row in `grid_boxes` (lesion, z) but no centre lies in it, it gets the
    free voxels that lie in its nearest slice, or the free voxel nearest to the middle of that. ValueError for more
    lesions than a mask can number.
    """
    if len(segments) > MOST_LESIONS:
        raise ValueError(f"{len(segments)} lesions in a mask; {MOST_LESIONS} can be numbered")
    mask = np.zeros(shape, np.uint16)
    matrix = geometry.grid_to_original
    axes = [int(np.abs(matrix[:3, axis]).argmax()) for axis in (2, 1, 0)]  # the original axis along the grid's z, y, x
    positions = [
        matrix[axis, grid_axis] * np.arange(size) + matrix[axis, 3]
        for axis, grid_axis, size in zip(axes, (2, 1, 0), shape, strict=True)
    ]
    order = [2 - axis for axis in axes]  # of an original array's axes
    slices = {lesion: rows.to_numpy(int) for lesion, rows in grid_boxes.groupby("lesion")["z"]}
    turned = [(s.voxels.transpose(order), [s.corner[axis] for axis in order]) for s in segments]
    for number, (voxels, corner) in enumerate(turned, start=1):
        where, block = _sampled(voxels, corner, positions)
        mask[where] = np.where(block, number, mask[where])
    for number, (segment, (voxels, corner)) in enumerate(zip(segments, turned, strict=True), start=1):
        for z in slices.get(segment.lesion, ()):
            if not (mask[z] == number).any():
                _keep(mask[z], number, voxels, corner, positions[0][z], positions[1:])
    return mask


def _keep(
    plane: np.ndarray, number: int, voxels: np.ndarray, corner: list[int], z: float, positions: list[np.ndarray]
) -> None:
    """Write a lesion into a grid slice (y, x) in which no voxel's centre hits it; `z` is where it lies, original."""
    seen = np.flatnonzero(voxels.any(axis=(1, 2)))
    nearest = voxels[seen[np.abs(seen + corner[0] - z).argmin()]]
    where, block = _sampled(nearest, corner[1:], positions)
    own = block & (plane[where] == 0)
    if own.any():
        plane[where] = np.where(own, number, plane[where])
        return
    middle = np.argwhere(nearest).mean(axis=0) + corner[1:]
    y, x = ((at - centre) ** 2 for at, centre in zip(positions, middle, strict=True))
    distance = np.where(plane == 0, y[:, None] + x, np.inf)
    plane[np.unravel_index(distance.argmin(), plane.shape)] = number


def _sampled(voxels: np.ndarray, corner: list[int], positions: list[np.ndarray]) -> tuple[tuple, np.ndarray]:
    """Where in the grid the original voxels of a bounding box are the nearest, as an index, and their values there.

    A centre that lies half way belongs to the next original voxel, as in `slice_boxes_to_grid`.
    """
    inside, nearest = [], []
    for at, start, size in zip(positions, corner, voxels.shape, strict=True):
        low = np.floor(at)
        index = (low + (at - low >= 0.5)).astype(int) - start
        inside.append(np.flatnonzero((index >= 0) & (index < size)))
        nearest.append(index[inside[-1]])
    return np.ix_(*inside), voxels[np.ix_(*nearest)]
