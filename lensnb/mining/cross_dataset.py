"""Cross-dataset mining: where another dataset's expert sees a lesion, be silent (LENS Sec. V-C). Boxes are grid pixels.

Its label rows have the source `uncertain`, since that is what they are; training computes no loss there.
"""

import numpy as np
import pandas as pd

from lensnb.boxes import nms_table, overlapping, same_slice_pairs
from lensnb.datasets import SINGLE_TYPE
from lensnb.mining import counts
from lensnb.mining.judging import inside, judge_boxes, lowest_precise, not_judged, share
from lensnb.mining.label_rows import label_rows, without_overlap
from lensnb.mining.patients import Patients, needed
from lensnb.settings import Mining

NAME = "cross-dataset"
ON_LESION = 0.3  # of an uncertain box lies in a lesion's box: IoBB, the evaluation's rule (LENS Sec. VI-C)
LEFT_OUT = (0.3, 0.5)  # IoU, and the share inside, at which the head's loss leaves a box out (`match_proposals`)


def choose(patients: Patients, lesions: pd.DataFrame, rules: Mining) -> tuple[dict, pd.DataFrame]:
    """Choose sigma for each specialist on validation patients: the lowest whose boxes are lesions often enough.

    How high an expert scores depends on how many lesions its dataset has and how hard they are, so that one sigma for
    all (LENS Sec. VI-B) asks another precision of each. What is ignored in training and is no lesion is a hard negative
    lost: of `rules.sigmas` it is the lowest at which at least `rules.uncertain_precision` of the expert's own uncertain
    2D boxes are lesions, judged as in `audit`; the highest if none is that precise. `lesions`: complete labels, one row
    a lesion and slice. Returns {sigma: {expert: value}} and a table expert, sigma, mined, precision, recall, ...
    """
    chosen, tables = {}, []
    for expert in specialists(needed(patients, "proposals", NAME)):
        numbers, table = _choose_one(expert, patients, lesions, rules)
        chosen[expert] = numbers["sigma"]
        tables.append(table.assign(expert=expert))
    table = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=["sigma", "mined", "expert"])
    return {"sigma": chosen}, table[["expert", *table.columns.drop("expert")]]


def _choose_one(expert: str, patients: Patients, lesions: pd.DataFrame, rules: Mining) -> tuple[dict, pd.DataFrame]:
    # suppression goes by score: what is mined with a higher sigma is what it leaves of this
    found = mine(patients, {"sigma": {expert: min(rules.sigmas)}}, rules)

    def audited(numbers: dict) -> dict:
        return audit(found[found["score"] > numbers["sigma"]], patients, lesions, rules.theta)

    return lowest_precise("sigma", rules.sigmas, audited, rules.uncertain_precision)


def mine(patients: Patients, numbers: dict, rules: Mining) -> pd.DataFrame:
    """Uncertain boxes: what the single-type experts find and nobody has marked (LENS Sec. V-C).

    numbers: {sigma: {expert: value}}; an expert without a value mines nothing. Taken are the experts' 2D proposals with
    a score over their sigma that overlap no known box (annotated or mined) with an IoU over `rules.overlap`; of those
    that overlap each other (`rules.nms`) the one with the best score stays. All slices are mined, with and without
    labels; `boxes.on_slices_of` picks those of the labelled slices. Returns label rows, each a lesion of its own
    (u000000, u000001, ...).
    """
    proposals = needed(patients, "proposals", NAME)
    least = proposals["expert"].astype(str).map(numbers["sigma"])  # NaN, which nothing exceeds, where there is none
    strong = proposals[proposals["score"] > least]
    found = nms_table(without_overlap(strong, patients.known, rules.overlap), rules.nms)
    found = found.sort_values(["volume", "z", "score", "x1"], ascending=[True, True, False, True], kind="stable")
    lesion = [f"u{number:06d}" for number in range(len(found))]
    return label_rows(found.assign(lesion=lesion, source="uncertain", z1=found["z"], z2=found["z"]))


def audit(mined: pd.DataFrame, patients: Patients, truth: pd.DataFrame | None, theta: float) -> dict:
    """Judge the uncertain 2D boxes against the truth (one row a lesion and slice; None if nobody knows it).

    precision: boxes of which at least ON_LESION lies in a true box. Being silent there costs no hard negative, however
    well the box fits.
    recall: of the true boxes that no known box (annotated, cross-slice, intra-patient) reaches with IoU > theta, the
    share that the loss leaves out, see `left_out`.
    strict_precision, strict_recall: the same two with IoU > theta, by which the other strategies are judged.
    """
    if truth is None:
        return not_judged(NAME, len(mined))
    unknown = truth[~overlapping(truth, patients.known, theta)]
    strict = judge_boxes(mined, truth, unknown, theta)
    return {
        "strategy": NAME,
        "mined": len(mined),
        "precision": share(int(inside(mined, truth, ON_LESION).sum()), len(mined)),
        "recall": share(int(left_out(unknown, mined).sum()), len(unknown)),
        "strict_precision": strict["precision"],
        "strict_recall": strict["recall"],
    }


def audit_by_expert(mined: pd.DataFrame, patients: Patients, truth: pd.DataFrame | None, theta: float) -> pd.DataFrame:
    """The audit of each specialist's uncertain boxes, a line each, with its share of all: expert, mined, share, ..."""
    expert, lines = mined["expert"].astype(str), []
    for name in specialists(needed(patients, "proposals", NAME)):
        line = audit(mined[expert == name], patients, truth, theta)
        lines.append({"expert": name, "share": share(line["mined"], len(mined)), **line})
    columns = ["expert", "mined", "share", "precision", "recall", "strict_precision", "strict_recall"]
    return pd.DataFrame(lines, columns=columns)


def left_out(boxes: pd.DataFrame, uncertain: pd.DataFrame) -> np.ndarray:
    """For each row of `boxes` whether the head's loss leaves it out because of an uncertain box: (n,) bool.

    The rule of `models/heads.py:match_proposals`: IoU with one of at least 0.3, or at least half of it inside one.
    """
    pairs = same_slice_pairs(boxes, uncertain)
    near = np.zeros(len(boxes), dtype=bool)
    near[pairs.loc[pairs["iou"] >= LEFT_OUT[0], "a"]] = True
    return near | inside(boxes, uncertain, LEFT_OUT[1])


def specialists(proposals: pd.DataFrame) -> list[str]:
    """The single-type experts that have a box in a table of proposals, in the order of the datasets."""
    there = set(proposals["expert"].astype(str).unique())
    return [name for name in SINGLE_TYPE if name in there]


def count(known: pd.DataFrame, mined: pd.DataFrame) -> dict:
    """Uncertain 2D boxes on the slices that have a label (LENS Table IV)."""
    return counts.ignored(known, mined)
