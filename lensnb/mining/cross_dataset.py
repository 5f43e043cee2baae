"""Cross-dataset mining (LENS, Sec. V-C)."""

from collections.abc import Sequence

import pandas as pd

from lensnb.boxes import nms_table, overlapping
from lensnb.mining.judging import judge_boxes
from lensnb.mining.label_rows import label_rows, without_overlap


def choose_sigma(
    proposals: pd.DataFrame,
    known: pd.DataFrame,
    lesions: pd.DataFrame,
    sigmas: Sequence[float],
    minimum_precision: float,
    experts: Sequence[str],
    theta: float = 0.5,
) -> tuple[float, pd.DataFrame]:
    """Choose sigma on validation volumes: the lowest whose uncertain boxes are lesions often enough.

    What is ignored in training and is no lesion is a hard negative lost, so at least `minimum_precision` of the
    uncertain 2D boxes must be lesions (IoU > theta on the slice); the highest sigma if none is that precise.
    `known` are the annotations and mined boxes of these volumes, `lesions` complete labels per slice.
    Returns sigma and a table sigma, mined, precision, recall (of the 2D boxes of lesions that `known` lacks).
    """
    rows = []
    for sigma in sorted(sigmas):
        mined = uncertain_boxes(proposals, known, sigma, experts)
        rows.append(
            {"sigma": sigma, **judge_boxes(mined, lesions, lesions[~overlapping(lesions, known, theta)], theta)}
        )
    table = pd.DataFrame(rows)
    precise = table[table["precision"] >= minimum_precision]
    return float((precise if len(precise) else table.tail(1))["sigma"].iloc[0]), table


def audit_uncertain(mined: pd.DataFrame, known: pd.DataFrame, truth: pd.DataFrame, theta: float = 0.5) -> dict:
    """Judge uncertain 2D boxes against the truth.

    precision: boxes with IoU > theta with a true box. recall: of the true boxes that no known box (annotated,
    cross-slice, intra-patient) reaches, the share that an uncertain box reaches.
    """
    return {"strategy": "cross-dataset", **judge_boxes(mined, truth, truth[~overlapping(truth, known, theta)], theta)}


def cross_dataset(
    proposals: pd.DataFrame,
    known: pd.DataFrame,
    sigma: float,
    experts: Sequence[str],
    overlap: float = 0.0,
    nms: float = 0.5,
) -> pd.DataFrame:
    """Uncertain boxes: what the single-type experts find and nobody has marked (Sec. V-C).

    All slices are mined, with and without labels; `on_slices_of` picks those of the labelled slices. `proposals`
    have their origin; the other arguments are those of `uncertain_boxes`. Lesion ids are u000000, u000001, ...
    """
    uncertain = uncertain_boxes(proposals, known, sigma, experts, overlap, nms)
    uncertain = uncertain.sort_values(
        ["volume", "z", "score", "x1"], ascending=[True, True, False, True], kind="stable"
    )
    lesion = [f"u{i:06d}" for i in range(len(uncertain))]
    return label_rows(uncertain.assign(lesion=lesion, source="uncertain", z1=uncertain["z"], z2=uncertain["z"]))


def uncertain_boxes(
    proposals: pd.DataFrame,
    known: pd.DataFrame,
    sigma: float,
    experts: Sequence[str],
    overlap: float = 0.0,
    nms: float = 0.5,
) -> pd.DataFrame:
    """The 2D proposals of `experts` with a score over `sigma` that overlap no known box with IoU > overlap.

    `known`: annotated, cross-slice and intra-patient boxes. Of boxes that overlap each other with IoU > nms the best
    stays.
    """
    strong = proposals[proposals["expert"].isin(list(experts)) & (proposals["score"] > sigma)]
    return nms_table(without_overlap(strong, known, overlap), nms)
