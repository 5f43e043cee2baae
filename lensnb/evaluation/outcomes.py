"""Detections judged one by one: found, false, missed, and which lesion lies under a box."""

import numpy as np
import pandas as pd

from lensnb.boxes import BOX3D, same_slice_pairs
from lensnb.evaluation.froc import overlap_3d


def judge(detections: pd.DataFrame, truth: pd.DataFrame, threshold: float = 0.3) -> pd.DataFrame:
    """Detections as TP or FP, and true lesions that none of them hits as FN, in column `outcome`.

    3D boxes of any number of volumes (volume, x1, y1, z1, x2, y2, z2; detections with score) in the same
    coordinates. A detection hits if its 3D IoBB with a lesion is at least `threshold`, the rule of the evaluation.
    """
    judged = []
    lesions_of = dict(tuple(truth.groupby(truth["volume"].astype(str))))
    found_of = dict(tuple(detections.groupby(detections["volume"].astype(str))))
    for volume in sorted(lesions_of.keys() | found_of.keys()):
        found, lesions = found_of.get(volume, detections.iloc[:0]), lesions_of.get(volume, truth.iloc[:0])
        hit = overlap_3d(found[BOX3D].to_numpy(float), lesions[BOX3D].to_numpy(float), "iobb") >= threshold
        judged.append(found.assign(outcome=np.where(hit.any(axis=1), "TP", "FP")))
        judged.append(lesions[~hit.any(axis=0)].assign(outcome="FN", score=0.0))
    return pd.concat([j for j in judged if len(j)], ignore_index=True)


def kind_under(detections: pd.DataFrame, lesions: pd.DataFrame, threshold: float = 0.3) -> np.ndarray:
    """The type of the true lesion that each 3D detection lies on most, "no lesion" if none: (n,) text.

    lesions: see `truth_3d`, with `type`. A detection lies on a lesion if their 3D IoBB is at least `threshold`.
    """
    kinds = np.full(len(detections), "no lesion", dtype=object)
    volumes = detections["volume"].astype(str).to_numpy()
    for volume, here in lesions.groupby(lesions["volume"].astype(str)):
        rows = np.flatnonzero(volumes == volume)
        overlap = overlap_3d(detections[BOX3D].to_numpy(float)[rows], here[BOX3D].to_numpy(float), "iobb")
        on_one = overlap.max(axis=1) >= threshold
        kinds[rows[on_one]] = here["type"].to_numpy()[overlap.argmax(axis=1)[on_one]]
    return kinds


def truth_3d(truth: pd.DataFrame) -> pd.DataFrame:
    """One 3D box per lesion out of the phantoms' truth, which has a row for each lesion and slice."""
    corners = {"x1": "min", "y1": "min", "x2": "max", "y2": "max", "z1": "first", "z2": "first"}
    rest = {name: "first" for name in ("type", "organ", "marked", "identity", "patient") if name in truth}
    return truth.groupby(["volume", "lesion"], as_index=False, observed=True).agg(corners | rest)


def same_lesion(
    pairs: pd.DataFrame, annotations: pd.DataFrame, tracklets: pd.DataFrame, truth: pd.DataFrame, theta: float
) -> np.ndarray:
    """For each pair (lesion, tracklet) whether both are the same lesion by the phantoms' truth: (n,) bool.

    A box belongs to a true lesion if their IoU on a slice is over `theta`; `identity` names a lesion over all scans.
    """
    annotated = _identities(annotations, "lesion", truth, theta)
    tracked = _identities(tracklets, "tracklet", truth, theta)
    nothing = set()
    return np.array(
        [
            bool(annotated.get(a, nothing) & tracked.get(t, nothing))
            for a, t in zip(pairs["lesion"], pairs["tracklet"], strict=True)
        ],
        dtype=bool,
    )


def _identities(boxes: pd.DataFrame, column: str, truth: pd.DataFrame, theta: float) -> dict:
    pairs = same_slice_pairs(boxes, truth)
    pairs = pairs[pairs["iou"] > theta]
    found = pd.Series(truth["identity"].to_numpy()[pairs["b"]])
    return found.groupby(boxes[column].to_numpy()[pairs["a"]]).agg(set).to_dict()
