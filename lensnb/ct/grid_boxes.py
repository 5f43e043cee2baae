"""Boxes of original slices on the slices of the grid."""

import numpy as np
import pandas as pd

from lensnb.boxes import BOX
from lensnb.ct.grid import Geometry, grid_to_original, original_to_grid

GRID_BOXES = ["lesion", "z", *BOX, "z1", "z2"]


def key_boxes_to_grid(original_boxes: pd.DataFrame, geometry: Geometry, grid_depth: int) -> pd.DataFrame:
    """Boxes that were drawn on one slice only, on the nearest grid slice; z1 and z2 stay empty: nobody
    measured them.

    `original_boxes`: lesion, z, x1, y1, x2, y2 in original index coordinates. Returns lesion, z, x1, y1, x2, y2, z1,
    z2 in the grid.
    """
    _require_axial(geometry)
    low, high = _map_corners(original_boxes[BOX].to_numpy(float), original_boxes["z"].to_numpy(float), geometry)
    z = np.clip(np.rint(low[:, 2]), 0, grid_depth - 1).astype(int)
    table = pd.DataFrame({"lesion": original_boxes["lesion"].to_numpy(), "z": z})
    table[BOX] = np.column_stack([low[:, :2], high[:, :2]])
    return table.assign(z1=np.nan, z2=np.nan)[GRID_BOXES]


def slice_boxes_to_grid(original_boxes: pd.DataFrame, geometry: Geometry, grid_depth: int) -> pd.DataFrame:
    """Lesions that have a box on every original slice they touch, on every grid slice they touch.

    A lesion reaches half a slice beyond the centres of its first and last slice: there the interpolated image
    still shows more lesion than not. Between two original slices its box is interpolated like the image. A
    lesion that lies between two grid slices goes to the nearer one. z1 and z2 are its first and last grid
    slice.
    """
    _require_axial(geometry)
    if original_boxes.empty:
        return pd.DataFrame(columns=GRID_BOXES)
    original_positions = grid_to_original(
        np.column_stack([np.zeros((grid_depth, 2)), np.arange(grid_depth)]), geometry
    )[:, 2]
    original_boxes = original_boxes.sort_values("z", kind="stable")
    codes, lesions = pd.factorize(original_boxes["lesion"])
    original_z, coordinates = original_boxes["z"].to_numpy(float), original_boxes[BOX].to_numpy(float)
    parts = []
    for code in range(len(lesions)):
        mine = codes == code
        slices, corners = original_z[mine], coordinates[mine]
        inside = np.flatnonzero((original_positions >= slices[0] - 0.5) & (original_positions < slices[-1] + 0.5))
        if len(inside) == 0:
            inside = np.array([np.abs(original_positions - (slices[0] + slices[-1]) / 2).argmin()])
        at = np.clip(original_positions[inside], slices[0], slices[-1])
        on_slices = np.column_stack([np.interp(at, slices, corners[:, i]) for i in range(4)])
        low, high = _map_corners(on_slices, at, geometry)
        extent = np.full((len(inside), 2), [inside.min(), inside.max()])
        parts.append(np.column_stack([np.full(len(inside), code), inside, low[:, :2], high[:, :2], extent]))
    table = pd.DataFrame(np.concatenate(parts), columns=GRID_BOXES)
    table["lesion"] = lesions.take(table["lesion"].astype(int))
    return table.astype({"z": int})


def clip_to_image(boxes: pd.DataFrame, height: int, width: int) -> tuple[pd.DataFrame, pd.Series]:
    """Cut boxes at the outer edges of the image; drop those that lie outside.

    Returns the boxes and the lesions of the dropped ones. Real boxes may leave the image by their margin.
    """
    edges = boxes[BOX].to_numpy(float).clip(-0.5, np.array([width, height, width, height]) - 0.5)
    inside = (edges[:, 2:] > edges[:, :2]).all(axis=1)
    clipped = boxes[inside].reset_index(drop=True)
    clipped[BOX] = edges[inside]
    return clipped, boxes.loc[~inside, "lesion"]


def pad_boxes(boxes: pd.DataFrame, padding_mm: float, spacing_mm: np.ndarray) -> pd.DataFrame:
    """Widen boxes by a margin on every side, in plane. `spacing_mm`: x, y (, z) of the boxes' pixels."""
    x, y = padding_mm / spacing_mm[0], padding_mm / spacing_mm[1]
    padded = boxes.copy()
    padded[BOX] = boxes[BOX].to_numpy(float) + [-x, -y, x, y]
    return padded


def _map_corners(
    original_boxes: np.ndarray, original_z: np.ndarray, geometry: Geometry
) -> tuple[np.ndarray, np.ndarray]:
    """Low and high corners (n, 3: x, y, z) in the grid of boxes (n, 4) on original slices (n,)."""
    first = original_to_grid(np.column_stack([original_boxes[:, :2], original_z]), geometry)
    second = original_to_grid(np.column_stack([original_boxes[:, 2:], original_z]), geometry)
    return np.minimum(first, second), np.maximum(first, second)


def _require_axial(geometry: Geometry) -> None:
    if np.abs(geometry.grid_to_original[2, :2]).max() > 1e-9:
        raise ValueError("labels not axial: the slices that carry the boxes do not lie across the patient's long axis")
