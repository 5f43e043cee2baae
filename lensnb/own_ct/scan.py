"""A CT with what was found in it, and the table that tells it: one row for each detection.

Positions are given twice: in voxels of the input file, as continuous indices (the centre of the first voxel is 0,
its edges -0.5 and 0.5; z counts the slices of the stack as read, for a DICOM folder along the slice normal), and
in patient millimetres, LPS: x grows to the patient's left, y to the back, z to the head.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from lensnb.boxes import BOX, BOX3D, iou
from lensnb.ct import measure
from lensnb.ct.grid import Geometry, grid_to_original, transform

SAME_BOX_IOU = 0.5  # an expert's 2D box that overlaps a detection this much is its opinion on it
AT_ONCE = 64  # detections compared with boxes at once: all would be a table of gigabytes for a network that sees much
COLUMNS = {
    "lesion": "number in the picture and the markups, by falling score",
    "x1, y1, z1, x2, y2, z2": "edges of the box in voxels of the input, continuous indices (first voxel's centre is 0)",
    "first_slice, last_slice": "slices of the input (0-based along z) whose centres lie in the box",
    "x_mm, y_mm, z_mm": "centre of the box in patient millimetres, LPS",
    "x1_mm, y1_mm, z1_mm": "the corner (x1, y1, z1) in patient millimetres, LPS",
    "x2_mm, y2_mm, z2_mm": "the corner (x2, y2, z2) in patient millimetres, LPS",
    "long_mm, short_mm": "longer and shorter side of the box in the axial plane, an estimate of the lesion's axes; "
    "boxes learned from DeepLesion keep a margin of about 4 mm around a lesion on every side",
    "height_mm": "extent of the box along the body",
    "score": "best score of the fused experts",
}
LABELS = "what a trained LesaNet calls the lesion: labels over their thresholds with scores, the most specific ones"


@dataclass(frozen=True)
class Scan:
    """A CT on the network's grid and what was found in it.

    hu: (z, y, x) on the grid; geometry: its way back; lesions: one row per detection in grid coordinates, best
    first: x1, y1, z1, x2, y2, z2, z (slice of the best score), score, expert, each expert's own score, and labels if
    a LesaNet was there.
    """

    hu: np.ndarray
    geometry: Geometry
    lesions: pd.DataFrame


def expert_scores(lesions: pd.DataFrame, proposals: pd.DataFrame, experts: tuple[str, ...]) -> pd.DataFrame:
    """What each expert alone says of each 3D detection: columns score_<expert>.

    It is the best score of its 2D boxes on the detection's slices that overlap it with IoU >= 0.5, before fusion;
    0 if it has none, that is, nothing above the score limit of the inference.
    """
    expert = proposals["expert"].astype(str).to_numpy()
    z, score, boxes = (proposals[c].to_numpy(dtype=float) for c in ("z", "score", BOX))
    own = lesions[BOX].to_numpy(dtype=float)
    first, last = (lesions[c].to_numpy(dtype=float)[:, None] for c in ("z1", "z2"))
    result = np.zeros((len(lesions), len(experts)))
    order = np.argsort(first[:, 0], kind="stable")  # those compared at once lie on few slices
    for part in np.split(order, range(AT_ONCE, len(order), AT_ONCE)):
        near = (z >= first[part].min(initial=np.inf)) & (z <= last[part].max(initial=-np.inf))
        same = (iou(own[part], boxes[near]) >= SAME_BOX_IOU) & (z[near] >= first[part]) & (z[near] <= last[part])
        for column, name in enumerate(experts):
            of_expert = same & (expert[near] == name)
            result[part, column] = np.where(of_expert, score[near], 0.0).max(axis=1, initial=0.0)
    return pd.DataFrame(result, index=lesions.index, columns=[f"score_{name}" for name in experts])


def describe(scan: Scan) -> pd.DataFrame:
    """Detections in voxels of the input and in patient millimetres, one row each; see COLUMNS."""
    lesions, geometry = scan.lesions, scan.geometry
    box = lesions[BOX3D].to_numpy(dtype=float).reshape(-1, 2, 3)
    edges = box + [[0, 0, -0.5], [0, 0, 0.5]]  # z1 and z2 are slices inside, the box ends half a slice beyond
    corners = grid_to_original(edges, geometry).reshape(-1, 2, 3)
    size = np.array(geometry.original_shape[::-1], dtype=float)
    low = np.clip(corners.min(axis=1), -0.5, size - 0.5)
    high = np.clip(corners.max(axis=1), -0.5, size - 0.5)
    middle = np.rint((low[:, 2] + high[:, 2]) / 2)
    first, last = np.ceil(low[:, 2] - 1e-6), np.floor(high[:, 2] + 1e-6)
    first, last = (np.where(first <= last, slices, middle) for slices in (first, last))
    low, high = low.round(4), high.round(4)
    positions = {
        prefix: transform(geometry.original_to_mm, points).round(4)
        for prefix, points in (("", (low + high) / 2), ("1", low), ("2", high))
    }
    table = pd.DataFrame({"lesion": np.arange(1, len(lesions) + 1)})
    table[BOX3D] = np.hstack([low, high])
    table["first_slice"], table["last_slice"] = first.astype(int), last.astype(int)
    for prefix, points in positions.items():
        table[[f"{axis}{prefix}_mm" for axis in "xyz"]] = points
    axes = measure.from_boxes(lesions, geometry.spacing_mm, inclusive=False)
    table[["long_mm", "short_mm"]] = axes[["long_mm", "short_mm"]].round(2)
    table["height_mm"] = sides_mm(scan)[:, 2].round(2)
    scores = [column for column in lesions.columns if column.startswith("score")]
    labels = lesions[["labels"]] if "labels" in lesions else lesions[[]]
    return pd.concat([table, lesions[scores].astype(float).round(6), labels], axis=1)


def sides_mm(scan: Scan) -> np.ndarray:
    """Sides of the detected boxes in mm (n, 3) along the axes of the grid: to the left, to the back, to the head."""
    box = scan.lesions[BOX3D].to_numpy(dtype=float).reshape(-1, 2, 3)
    return (box[:, 1] - box[:, 0] + [0, 0, 1]) * scan.geometry.spacing_mm
