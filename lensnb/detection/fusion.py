"""What the experts found, put together (LENS Sec. IV-C, IV-D): fused, stacked to 3D, in the coordinates of the files.

Tables to tables: nothing here needs a network.
"""

import numpy as np
import pandas as pd

from lensnb.boxes import BOX3D, MARK, nms_table, stack_to_tracklets, tracklets_to_3d, trim_tracklets
from lensnb.ct.grid import boxes3d_to_original, grid_to_mm
from lensnb.datasets.store import Store
from lensnb.settings import Inference


def fuse(proposals: pd.DataFrame, experts: list[str] | None = None, *, nms: float) -> pd.DataFrame:
    """Fuse the experts' 2D boxes: take all of them together and suppress overlaps slice by slice (LENS Sec. IV-C).

    `experts` restricts the fusion: ["DeepLesion"] gives the rows of LENS Table II without proposal fusion.
    """
    chosen = proposals if experts is None else proposals[proposals["expert"].isin(experts)]
    return nms_table(chosen, nms)


def detections_3d(fused: pd.DataFrame, inference: Inference) -> pd.DataFrame:
    """Stack fused 2D boxes to 3D detections: tracklets with IoU > theta, trimmed, averaged (LENS Sec. IV-C)."""
    tracklets = stack_to_tracklets(fused, inference.theta)
    return tracklets_to_3d(trim_tracklets(tracklets, inference.trim))


def combine(detector_scores: np.ndarray, fpr_scores: np.ndarray, weight: float = 0.5) -> np.ndarray:
    """LENS Eq. 4: the mean of the two scores of each detection, both (n,); `weight` is the second one's.

    NaN is the score of a detection that FPR was not given. The paper, where all are given, has no rule for them; here
    they count as if FPR had been sure that they are false, so that none rises by not having been looked at.
    """
    detector_scores, fpr_scores = np.asarray(detector_scores), np.asarray(fpr_scores)
    return (1 - weight) * detector_scores + weight * np.where(np.isnan(fpr_scores), 0, fpr_scores)


def to_original(grid_detections: pd.DataFrame, store: Store) -> pd.DataFrame:
    """3D detections of the grid in original pixels and slice numbers: volume, x1, y1, z1, x2, y2, z2, score."""
    parts = []
    for volume, group in grid_detections.groupby("volume", sort=True):
        boxes = boxes3d_to_original(group[BOX3D].to_numpy(np.float64), store.geometry(volume))
        parts.append(pd.DataFrame(boxes, columns=BOX3D).assign(volume=volume, score=group["score"].to_numpy()))
    columns = ["volume", *BOX3D, "score"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def to_marks(grid_detections: pd.DataFrame, store: Store) -> pd.DataFrame:
    """3D detections of LUNA16 volumes in grid coordinates as marks: the box's centre in patient mm (LPS).

    Returns the columns of a submission, seriesuid, coordX, coordY, coordZ, probability, in the detections' order
    and with their index. Box ends are pixel centres and slice numbers, so the centre is their mean.
    """
    boxes = grid_detections[BOX3D].to_numpy(dtype=float)
    centres = (boxes[:, :3] + boxes[:, 3:]) / 2
    volumes = grid_detections["volume"].astype(str).to_numpy()
    marks = pd.DataFrame({"seriesuid": volumes}, index=grid_detections.index)
    millimetres = np.empty_like(centres)
    for volume in pd.unique(volumes):
        here = volumes == volume
        millimetres[here] = grid_to_mm(centres[here], store.geometry(volume))
    marks[MARK] = millimetres
    return marks.assign(probability=grid_detections["score"].to_numpy(dtype=float))
