"""Cross-dataset mining: where another dataset's expert sees a lesion, be silent (LENS Sec. V-C). Boxes are grid pixels.

Its label rows have the source `uncertain`, since that is what they are; training computes no loss there.
"""

import pandas as pd

from lensnb.boxes import nms_table, overlapping
from lensnb.datasets import SINGLE_TYPE
from lensnb.mining import counts
from lensnb.mining.judging import judge_boxes, lowest_precise, not_judged
from lensnb.mining.label_rows import label_rows, without_overlap
from lensnb.mining.patients import Patients, needed
from lensnb.settings import Mining

NAME = "cross-dataset"
NMS = 0.5  # IoU over which two experts' boxes are one, as when their boxes are fused


def choose(patients: Patients, lesions: pd.DataFrame, rules: Mining) -> tuple[dict, pd.DataFrame]:
    """Choose sigma on validation patients: the lowest whose uncertain boxes are lesions often enough.

    What is ignored in training and is no lesion is a hard negative lost, so of `rules.sigmas` it is the lowest at
    which at least `rules.uncertain_precision` of the uncertain 2D boxes are lesions (IoU > theta on the slice); the
    highest if none is that precise. `lesions`: complete labels, one row a lesion and slice. Returns {sigma} and a
    table sigma, mined, precision, recall (see `audit`).
    """

    def audited(numbers: dict) -> dict:
        return audit(mine(patients, numbers, rules), patients, lesions, rules.theta)

    return lowest_precise("sigma", rules.sigmas, audited, rules.uncertain_precision)


def mine(patients: Patients, numbers: dict, rules: Mining) -> pd.DataFrame:
    """Uncertain boxes: what the single-type experts find and nobody has marked (LENS Sec. V-C).

    The experts' 2D proposals with a score over sigma that overlap no known box (annotated or mined) with an IoU over
    `rules.overlap`; of those that overlap each other the best stays. All slices are mined, with and without labels;
    `boxes.on_slices_of` picks those of the labelled slices. Returns label rows, a lesion (u000000, u000001, ...) each.
    """
    proposals = needed(patients, "proposals", NAME)
    strong = proposals[proposals["expert"].isin(SINGLE_TYPE) & (proposals["score"] > numbers["sigma"])]
    found = nms_table(without_overlap(strong, patients.known, rules.overlap), NMS)
    found = found.sort_values(["volume", "z", "score", "x1"], ascending=[True, True, False, True], kind="stable")
    lesion = [f"u{number:06d}" for number in range(len(found))]
    return label_rows(found.assign(lesion=lesion, source="uncertain", z1=found["z"], z2=found["z"]))


def audit(mined: pd.DataFrame, patients: Patients, truth: pd.DataFrame | None, theta: float) -> dict:
    """Judge the uncertain 2D boxes against the truth (one row a lesion and slice; None if nobody knows it).

    precision: boxes with IoU > theta with a true box. recall: of the true boxes that no known box (annotated,
    cross-slice, intra-patient) reaches, the share that an uncertain box reaches.
    """
    if truth is None:
        return not_judged(NAME, len(mined))
    unknown = truth[~overlapping(truth, patients.known, theta)]
    return {"strategy": NAME, **judge_boxes(mined, truth, unknown, theta)}


def count(known: pd.DataFrame, mined: pd.DataFrame) -> dict:
    """Uncertain 2D boxes on the slices that have a label (LENS Table IV)."""
    return counts.ignored(known, mined)
