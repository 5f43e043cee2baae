"""Cross-slice mining: a marked lesion is on the neighbouring slices too (LENS Sec. V-A). Boxes are grid pixels."""

import pandas as pd

from lensnb.boxes import overlapping, same_slice_pairs, trim_tracklets
from lensnb.mining import counts
from lensnb.mining.judging import instances, judge_boxes, lowest_precise, not_judged
from lensnb.mining.label_rows import ORIGIN, label_rows, with_extent, without_overlap
from lensnb.mining.patients import Patients, needed
from lensnb.settings import Mining

NAME = "cross-slice"


def choose(patients: Patients, lesions: pd.DataFrame, rules: Mining) -> tuple[dict, pd.DataFrame]:
    """Choose on validation patients how far tracklets are believed beyond their best slice: the number `trim`.

    A tracklet runs on into slices where its lesion has ended, with falling scores; slices under `trim` times its
    best score are cut off (`boxes.trim_tracklets`). Of `rules.trims` the lowest at which at least
    `rules.cross_slice_precision` of the mined boxes are right; the highest if none is that precise. `patients` have
    untrimmed tracklets; `lesions` are complete labels, one row a lesion and slice. Returns {trim} and a table trim,
    mined, precision, recall (see `audit`).
    """

    def audited(numbers: dict) -> dict:
        return audit(mine(patients, numbers, rules), patients, lesions, rules.theta)

    return lowest_precise("trim", rules.trims, audited, rules.cross_slice_precision)


def mine(patients: Patients, numbers: dict, rules: Mining) -> pd.DataFrame:
    """Carry each annotated box to the other slices of its lesion (LENS Sec. V-A).

    A tracklet belongs to an annotation if their boxes on the key slice overlap with IoU > theta; its boxes on the
    other slices are mined. Boxes over an annotation of another slice (a lesion that was measured twice) are left out.
    Returns label rows with the annotation's lesion id and the tracklet.
    """
    annotations = patients.annotations
    tracklets = trim_tracklets(needed(patients, "tracklets", NAME), numbers["trim"])
    owner = _owners(tracklets, annotations, rules.theta)
    mined = with_extent(tracklets[tracklets["tracklet"].isin(owner.index)])
    annotation = annotations.iloc[owner.loc[mined["tracklet"]]]
    mined = mined.assign(lesion=annotation["lesion"].to_numpy(), source="cross-slice")
    mined = mined.assign(**{name: annotation[name].to_numpy() for name in ORIGIN})
    on_key_slice = mined["z"].to_numpy() == annotation["z"].to_numpy()
    return label_rows(without_overlap(mined[~on_key_slice], annotations, rules.theta), "tracklet")


def _owners(tracklets: pd.DataFrame, annotations: pd.DataFrame, theta: float) -> pd.Series:
    """The annotation (its row) of each tracklet that has one, indexed by tracklet.

    Where several tracklets reach one annotation, or one tracklet several annotations, the best overlap decides, so
    that a lesion gets one box a slice.
    """
    pairs = same_slice_pairs(tracklets, annotations)
    pairs = pairs[pairs["iou"] > theta]
    pairs["tracklet"] = tracklets["tracklet"].to_numpy()[pairs["a"]]
    pairs["lesion"] = annotations["lesion"].to_numpy()[pairs["b"]]
    best_first = pairs.sort_values("iou", ascending=False, kind="stable")
    return best_first.drop_duplicates("tracklet").drop_duplicates("lesion").set_index("tracklet")["b"]


def audit(mined: pd.DataFrame, patients: Patients, truth: pd.DataFrame | None, theta: float) -> dict:
    """Judge the mined boxes against the truth (one row a lesion and slice; None if nobody knows it).

    precision: mined boxes with IoU > theta with a true box of the slice. recall: of the true boxes of annotated
    lesions on slices other than those of their annotation, the share that a mined box reaches.
    """
    if truth is None:
        return not_judged(NAME, len(mined))
    pairs = same_slice_pairs(truth, patients.annotations)
    keys = instances(truth)
    marked = set(keys[pairs.loc[pairs["iou"] > theta, "a"]])
    of_marked = truth[[key in marked for key in keys]]
    others = of_marked[~overlapping(of_marked, patients.annotations, theta)]
    return {"strategy": NAME, **judge_boxes(mined, truth, others, theta)}


def count(known: pd.DataFrame, mined: pd.DataFrame) -> dict:
    """Boxes and slices that are added to the `known` label rows; no lesion is (LENS Table IV)."""
    return counts.certain(known, mined)
