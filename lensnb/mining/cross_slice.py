"""Cross-slice mining (LENS, Sec. V-A)."""

from collections.abc import Sequence

import pandas as pd

from lensnb.boxes import overlapping, same_slice_pairs, trim_tracklets
from lensnb.mining.judging import instances, judge_boxes
from lensnb.mining.label_rows import ORIGIN, label_rows, with_extent, without_overlap


def choose_trim(
    tracklets: pd.DataFrame,
    annotations: pd.DataFrame,
    lesions: pd.DataFrame,
    trims: Sequence[float],
    minimum_precision: float,
    theta: float = 0.5,
) -> tuple[float, pd.DataFrame]:
    """Choose on validation volumes how far tracklets are believed beyond their best slice.

    A tracklet runs on into slices where its lesion has ended, with falling scores; slices under `trim` times its
    best score are cut off (`boxes.trim_tracklets`). The lowest trim at which at least `minimum_precision` of the
    cross-slice boxes are right; the highest if none is that precise. `tracklets` are the untrimmed ones, with their
    origin; `lesions` are complete labels, one row a lesion and slice. Returns trim and a table trim, mined,
    precision, recall (see `audit_cross_slice`).
    """
    rows = []
    for trim in sorted(trims):
        mined = cross_slice(trim_tracklets(tracklets, trim), annotations, theta)
        rows.append({"trim": trim, **audit_cross_slice(mined, annotations, lesions, theta)})
    table = pd.DataFrame(rows).drop(columns="strategy")
    precise = table[table["precision"] >= minimum_precision]
    return float((precise if len(precise) else table.tail(1))["trim"].iloc[0]), table


def audit_cross_slice(mined: pd.DataFrame, annotations: pd.DataFrame, truth: pd.DataFrame, theta: float = 0.5) -> dict:
    """Judge cross-slice boxes against the truth (one row a lesion and slice).

    precision: mined boxes with IoU > theta with a true box of the slice. recall: of the true boxes of annotated
    lesions on slices other than those of their annotation, the share that a mined box reaches.
    """
    pairs = same_slice_pairs(truth, annotations)
    keys = instances(truth)
    marked = set(keys[pairs.loc[pairs["iou"] > theta, "a"]])
    of_marked = truth[[key in marked for key in keys]]
    others = of_marked[~overlapping(of_marked, annotations, theta)]
    return {"strategy": "cross-slice", **judge_boxes(mined, truth, others, theta)}


def cross_slice(tracklets: pd.DataFrame, annotations: pd.DataFrame, theta: float) -> pd.DataFrame:
    """Carry each annotated box to the other slices of its lesion (Sec. V-A).

    A tracklet belongs to an annotation if their boxes on the key slice overlap with IoU > theta; its boxes on the
    other slices are mined. Where several tracklets reach one annotation, or one tracklet several annotations, the
    best overlap decides, so that a lesion gets one box a slice. Boxes over an annotation of another slice (a lesion
    that was measured twice) are left out. Returns label rows with the annotation's lesion id and the tracklet.
    """
    pairs = same_slice_pairs(tracklets, annotations)
    pairs = pairs[pairs["iou"] > theta]
    pairs["tracklet"] = tracklets["tracklet"].to_numpy()[pairs["a"]]
    pairs["lesion"] = annotations["lesion"].to_numpy()[pairs["b"]]
    best_first = pairs.sort_values("iou", ascending=False, kind="stable")
    owner = best_first.drop_duplicates("tracklet").drop_duplicates("lesion").set_index("tracklet")
    mined = with_extent(tracklets[tracklets["tracklet"].isin(owner.index)])
    annotation = annotations.iloc[owner.loc[mined["tracklet"], "b"]]
    mined = mined.assign(lesion=annotation["lesion"].to_numpy(), source="cross-slice")
    mined = mined.assign(**{name: annotation[name].to_numpy() for name in ORIGIN})
    on_key_slice = mined["z"].to_numpy() == annotation["z"].to_numpy()
    return label_rows(without_overlap(mined[~on_key_slice], annotations, theta), "tracklet")
