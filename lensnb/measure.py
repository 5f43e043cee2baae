"""Sizes of lesions in millimetres: estimated from boxes, and measured on masks where there are any.

RECIST measures a lesion on the axial slice where it is largest: the long axis is its largest diameter, the short axis
the largest one at right angles to it. A box knows neither the lesion's shape nor its direction. Its sides are the axes
of an ellipse that lies along x and y, so they are taken as the estimate. The truth is bounded: what touches all four
sides is at least as long as the longer side, and at most as long as the diagonal.
"""

import numpy as np
import pandas as pd

from lensnb.boxes import BOX

COLUMNS = ("long_mm", "short_mm", "at_most_mm")


def from_boxes(
    boxes: pd.DataFrame, spacing_mm: tuple, margin_mm: float | np.ndarray = 0.0, inclusive: bool = True
) -> pd.DataFrame:
    """Long and short axis of lesions from their axial boxes, in mm: columns long_mm, short_mm, at_most_mm.

    boxes: x1, y1, x2, y2 in pixels. inclusive: both ends are pixels inside the lesion, as whole pixel numbers are, so
    a box from 10 to 19 is 10 pixels wide; False if they are edges, as in detections.csv, so that 9.5 to 19.5 is.
    spacing_mm: of the pixels along x and y. margin_mm (one, or one a box): what boxes keep free around a lesion (those
    of DeepLesion: 5 pixels, about 4 mm) on every side, taken off again; no side becomes less than half of itself.
    """
    values = boxes[BOX].to_numpy(dtype=float)
    sides = (values[:, 2:] - values[:, :2] + (1 if inclusive else 0)) * np.asarray(spacing_mm, dtype=float)[:2]
    if (sides < 0).any() or not np.isfinite(sides).all():
        row = boxes.index[np.flatnonzero((~(sides >= 0)).any(axis=1))[0]]
        raise ValueError(f"box {row} is {boxes.loc[row, BOX].tolist()}: x1, y1 must be below x2, y2")
    margin = np.asarray(margin_mm, dtype=float).reshape(-1, 1)
    sides = np.maximum(sides - 2 * margin, sides / 2)
    diagonal = np.hypot(sides[:, 0], sides[:, 1])
    values = np.column_stack([sides.max(axis=1), sides.min(axis=1), diagonal])
    return pd.DataFrame(values, index=boxes.index, columns=COLUMNS)


def from_mask(mask: np.ndarray, spacing_mm: tuple) -> tuple[float, float]:
    """Long and short axis in mm of the lesion in a mask: (z, y, x), on its slice with the longest diameter.

    Diameters go from outer edge to outer edge of the pixels: the long axis is the largest distance of two pixel
    corners, the short axis the extent at right angles to it. ValueError for an empty mask.
    """
    best = (0.0, 0.0)
    for image in mask:
        y, x = np.nonzero(image)
        if len(y) == 0:
            continue
        corners = np.concatenate([np.column_stack([x + dx, y + dy]) for dx in (-0.5, 0.5) for dy in (-0.5, 0.5)])
        points = np.unique(corners, axis=0) * np.asarray(spacing_mm, dtype=float)[:2]
        points = _ends_of_rows(points)
        between = points[:, None] - points[None]
        distance = np.hypot(between[..., 0], between[..., 1])
        a, b = np.unravel_index(distance.argmax(), distance.shape)
        long = float(distance[a, b])
        if long > best[0]:
            across = points @ np.array([-between[a, b, 1], between[a, b, 0]]) / long
            best = (long, float(across.max() - across.min()))
    if best[0] == 0:
        raise ValueError("the mask is empty; there is nothing to measure")
    return best


def _ends_of_rows(points: np.ndarray) -> np.ndarray:
    """The first and the last point of each row: those that span the same hull, and few enough for all pairs."""
    rows = pd.DataFrame(points, columns=["x", "y"]).groupby("y")["x"]
    ends = [rows.min().reset_index(), rows.max().reset_index()]
    return pd.concat(ends)[["x", "y"]].drop_duplicates().to_numpy()
