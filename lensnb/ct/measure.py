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
DEEPLESION_MARGIN_MM = 4.0  # its boxes are the hull of the two RECIST diameters and 5 pixels, of 0.8 mm mostly


def from_boxes(
    boxes: pd.DataFrame, spacing_mm: tuple, margin_mm: float | np.ndarray = 0.0, inclusive: bool = True
) -> pd.DataFrame:
    """Long and short axis of lesions from their axial boxes, in mm: columns long_mm, short_mm, at_most_mm.

    boxes: x1, y1, x2, y2 in pixels. inclusive: both ends are pixels inside the lesion, as whole pixel numbers are, so
    a box from 10 to 19 is 10 pixels wide; False if they are edges, as in detections.csv, so that 9.5 to 19.5 is.
    spacing_mm: of the pixels along x and y. margin_mm (one, or one a box): what boxes keep free around a lesion on
    every side (DEEPLESION_MARGIN_MM); it is taken off again, but no side becomes less than half of itself.
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


def lesions_in(instances: np.ndarray, spacing_mm: tuple) -> pd.DataFrame:
    """Every lesion of a mask (z, y, x) with one number each: number, x, y, z, x1, y1, x2, y2, long_mm, short_mm.

    x, y, z: centre of mass in voxels. x1 to y2: the box on the slice with the longest diameter, z_long, whole pixels
    that are inside. spacing_mm: of the voxels along x and y.
    """
    rows = []
    for number in np.unique(instances[instances > 0]).tolist():
        mask = instances == number
        centre = [float(index.mean()) for index in np.nonzero(mask)[::-1]]
        long, short, slice_index = _longest(mask, spacing_mm)
        y, x = np.nonzero(mask[slice_index])
        rows.append([number, *centre, slice_index, x.min(), y.min(), x.max(), y.max(), long, short])
    return pd.DataFrame(rows, columns=["number", "x", "y", "z", "z_long", *BOX, "long_mm", "short_mm"])


def _longest(mask: np.ndarray, spacing_mm: tuple) -> tuple[float, float, int]:
    """Long and short axis in mm of the lesion in a mask (z, y, x), and the slice where the long axis is longest.

    The long axis is the largest distance between two pixel centres, the short axis the extent at right angles to it;
    half a pixel is added at either end, where the lesion's edge is.
    """
    spacing = np.asarray(spacing_mm, dtype=float)[:2]
    best = (0.0, 0.0, -1)
    for z in np.flatnonzero(mask.any(axis=(1, 2))):
        y, x = np.nonzero(mask[z])
        points = _ends_of_rows(np.column_stack([x, y]) * spacing)
        between = points[:, None] - points[None]
        distance = np.hypot(between[..., 0], between[..., 1])
        a, b = np.unravel_index(distance.argmax(), distance.shape)
        one = spacing == spacing.max() if distance[a, b] == 0 else between[a, b] / distance[a, b]
        along = one / np.linalg.norm(one)
        across = points @ [-along[1], along[0]]
        long = float(distance[a, b] + np.hypot(*(along * spacing)))
        if long > best[0]:
            best = (long, float(np.ptp(across) + np.hypot(*(along[::-1] * spacing))), int(z))
    return best


def _ends_of_rows(points: np.ndarray) -> np.ndarray:
    """The first and the last point of each row: those that span the same hull, and few enough for all pairs."""
    rows = pd.DataFrame(points, columns=["x", "y"]).groupby("y")["x"]
    ends = [rows.min().reset_index(), rows.max().reset_index()]
    return pd.concat(ends)[["x", "y"]].drop_duplicates().to_numpy()
