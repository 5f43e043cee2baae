"""Mined boxes judged by complete labels, and the rule by which most numbers are chosen."""

from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd

from lensnb.boxes import BOX, area, intersection, overlapping, same_slice_pairs


def judge_boxes(mined: pd.DataFrame, truth: pd.DataFrame, wanted: pd.DataFrame, theta: float) -> dict:
    """How many boxes were `mined`, their precision, and their recall of the `wanted` rows of `truth`.

    A mined box is right, and a wanted one found, if it has IoU > theta with one of the other kind on its slice.
    """
    right, found = overlapping(mined, truth, theta), overlapping(wanted, mined, theta)
    return {
        "mined": len(mined),
        "precision": share(int(right.sum()), len(mined)),
        "recall": share(int(found.sum()), len(wanted)),
    }


def inside(boxes: pd.DataFrame, others: pd.DataFrame, least: float) -> np.ndarray:
    """For each row of `boxes` whether a row of `others` on its slice covers `least` of its area or more: (n,) bool.

    With true boxes as `others` that is the evaluation's IoBB (LENS Sec. VI-C), on one slice.
    """
    pairs = same_slice_pairs(boxes, others)
    a, b = (table[BOX].to_numpy(float)[pairs[side]] for table, side in ((boxes, "a"), (others, "b")))
    covered = intersection(a, b) / np.maximum(area(a), 1e-9)
    hit = np.zeros(len(boxes), dtype=bool)
    hit[pairs.loc[covered >= least, "a"]] = True
    return hit


def not_judged(strategy: str, mined: int) -> dict:
    """The audit of a strategy where nobody knows the truth."""
    return {"strategy": strategy, "mined": mined, "precision": np.nan, "recall": np.nan}


def lowest_precise(
    number: str, candidates: Iterable[float], audited: Callable[[dict], dict], minimum_precision: float
) -> tuple[dict[str, float], pd.DataFrame]:
    """The lowest of the `candidates` for `number` at which mining is precise enough; the highest one if none is.

    audited: from {number: value} to the audit of what is mined with it. Returns {number: value} and a table with a line
    for each candidate: the number, mined, precision, recall.
    """
    lines = [{number: value, **audited({number: value})} for value in sorted(candidates)]
    table = pd.DataFrame(lines).drop(columns="strategy")
    precise = table[table["precision"] >= minimum_precision]
    row = precise.iloc[0] if len(precise) else table.iloc[-1]
    return {number: float(row[number])}, table


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
    """part / whole; nan if there is nothing to have a share of."""
    return part / whole if whole else float("nan")
