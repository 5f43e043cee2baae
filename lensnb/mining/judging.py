"""Mined boxes judged by complete labels."""

import numpy as np
import pandas as pd

from lensnb.boxes import overlapping, same_slice_pairs


def judge_boxes(mined: pd.DataFrame, truth: pd.DataFrame, wanted: pd.DataFrame, theta: float) -> dict:
    right, found = overlapping(mined, truth, theta), overlapping(wanted, mined, theta)
    return {
        "mined": len(mined),
        "precision": share(int(right.sum()), len(mined)),
        "recall": share(int(found.sum()), len(wanted)),
    }


def lesions_reached(boxes: pd.DataFrame, lesions: pd.DataFrame, theta: float, of: str = "tracklet") -> dict:
    """For each tracklet (or mined lesion) the set of lesion instances that one of its boxes overlaps."""
    pairs = same_slice_pairs(boxes, lesions)
    pairs = pairs[pairs["iou"] > theta]
    keys = pd.Series(instances(lesions)[pairs["b"]])
    return keys.groupby(boxes[of].to_numpy()[pairs["a"]]).agg(set).to_dict()


def is_annotated(lesions: pd.DataFrame, annotations: pd.DataFrame, theta: float) -> np.ndarray:
    """For each row of `lesions` whether its lesion has an annotation on any slice: (n,) bool."""
    keys = instances(lesions)
    hit = set(keys[overlapping(lesions, annotations, theta)])
    return np.array([key in hit for key in keys], dtype=bool)


def instances(lesions: pd.DataFrame) -> np.ndarray:
    """A name for each row's lesion that is unique over volumes."""
    return (lesions["volume"].astype(str) + "/" + lesions["lesion"].astype(str)).to_numpy(object)


def share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
