"""What mining found: counts as in Table IV, thresholds chosen on validation patients, errors against the truth.

The hidden truth of phantoms serves the audit only. Thresholds are chosen on validation patients whose manual 3D
boxes are complete, which the real data has too.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lensnb.boxes import trim_tracklets
from lensnb.mining import cross_slice, match_intra_patient, on_slices_of, same_slice_pairs, uncertain_boxes


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


def choose_threshold(
    annotations: pd.DataFrame,
    annotation_embedding: np.ndarray,
    centres: pd.DataFrame,
    centre_embedding: np.ndarray,
    tracklets: pd.DataFrame,
    lesions: pd.DataFrame,
    deltas: Sequence[float],
    scores: Sequence[float],
    minimum_precision: float,
    theta: float = 0.5,
    nearest_only: bool = True,
) -> tuple[dict, pd.DataFrame]:
    """Choose delta and the lowest tracklet score for intra-patient matching on validation patients.

    The rule: of the settings whose precision is at least `minimum_precision`, the one with the highest recall; if
    none is that precise, the most precise one of those that find something. `centres` (one row a tracklet) and
    `annotations` go with their embeddings; `tracklets` are all 2D boxes; `lesions` are complete labels, one row a
    lesion and slice (`slices_of` makes them from 3D boxes), for every volume of `centres`.

    Matches to tracklets over an annotation are set aside, as mining does. A tracklet is right if one of its boxes
    has IoU > theta with a lesion; recall counts the lesions without an annotation that a right tracklet reaches.
    Returns the choice {delta, score, precision, recall, matched, reached} and the table of all settings.
    """
    pairs = match_intra_patient(
        annotations, annotation_embedding, centres, centre_embedding, max(deltas), min(scores), nearest_only=False
    )
    pairs["score"] = centres.set_index("tracklet")["score"].loc[pairs["tracklet"]].to_numpy()
    reached = lesions_reached(tracklets, lesions, theta)
    known = set(tracklets["tracklet"].to_numpy()[overlapping(tracklets, annotations, theta)])
    unmarked = set(instances(lesions)) - set(instances(lesions[is_annotated(lesions, annotations, theta)]))
    rows = []
    for score in scores:
        strong = pairs[pairs["score"] >= score]
        if nearest_only:
            strong = strong.drop_duplicates(["lesion", "volume"])
        for delta in deltas:
            matched = set(strong.loc[strong["distance"] < delta, "tracklet"]) - known
            right = [reached[t] for t in matched if t in reached]
            found = set().union(*right) & unmarked
            rows.append(
                (delta, score, len(matched), _share(len(right), len(matched)), _share(len(found), len(unmarked)))
            )
    table = pd.DataFrame(rows, columns=["delta", "score", "matched", "precision", "recall"])
    precise = table[(table["precision"] >= minimum_precision) & (table["matched"] > 0)]
    if len(precise):
        best = precise.sort_values(["recall", "precision"], ascending=False, kind="stable").iloc[0]
    else:
        best = table.fillna(0.0).sort_values(["precision", "recall"], ascending=False, kind="stable").iloc[0]
    return {**best.to_dict(), "matched": int(best["matched"]), "reached": bool(len(precise))}, table


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
            {"sigma": sigma, **_audit_boxes(mined, lesions, lesions[~overlapping(lesions, known, theta)], theta)}
        )
    table = pd.DataFrame(rows)
    precise = table[table["precision"] >= minimum_precision]
    return float((precise if len(precise) else table.tail(1))["sigma"].iloc[0]), table


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
    return {"strategy": "cross-slice", **_audit_boxes(mined, truth, others, theta)}


def audit_intra_patient(
    mined: pd.DataFrame, annotations: pd.DataFrame, truth: pd.DataFrame, theta: float = 0.5
) -> dict:
    """Judge matched lesions against the truth with identities (phantoms only).

    precision: mined lesions (tracklets) one of whose boxes has IoU > theta with a true lesion. recall: share of the
    lesion instances without an annotation that they reach. Further: `same_lesion`, the share of mined lesions that
    reach the very lesion they were matched to, and `recoverable`, the share of the instances without an annotation
    that are annotated in another volume of the patient: what perfect matching would recall.
    """
    reached = lesions_reached(mined, truth, theta, of="lesion")
    lesions = truth.drop_duplicates(["volume", "lesion"])
    identity = dict(
        zip(
            instances(lesions),
            zip(lesions["patient"].astype(str), lesions["identity"], strict=True),
            strict=False,
        )
    )
    marked = set(instances(truth[is_annotated(truth, annotations, theta)]))
    unmarked = set(identity) - marked
    marked_identities = {identity[key] for key in marked}
    annotation_identity = _annotation_identity(annotations, truth, identity, theta)
    matched_to = mined.drop_duplicates("lesion").set_index("lesion")["matched_to"]
    same = sum(
        annotation_identity.get(matched_to[lesion]) in {identity[key] for key in keys}
        for lesion, keys in reached.items()
    )
    found = set().union(*reached.values()) & unmarked
    return {
        "strategy": "intra-patient",
        "mined": len(matched_to),
        "precision": _share(len(reached), len(matched_to)),
        "recall": _share(len(found), len(unmarked)),
        "same_lesion": _share(same, len(matched_to)),
        "recoverable": _share(sum(identity[key] in marked_identities for key in unmarked), len(unmarked)),
    }


def audit_uncertain(mined: pd.DataFrame, known: pd.DataFrame, truth: pd.DataFrame, theta: float = 0.5) -> dict:
    """Judge uncertain 2D boxes against the truth.

    precision: boxes with IoU > theta with a true box. recall: of the true boxes that no known box (annotated,
    cross-slice, intra-patient) reaches, the share that an uncertain box reaches.
    """
    return {"strategy": "cross-dataset", **_audit_boxes(mined, truth, truth[~overlapping(truth, known, theta)], theta)}


def counts(
    annotations: pd.DataFrame,
    cross_slice: pd.DataFrame,
    intra_patient: pd.DataFrame,
    uncertain: pd.DataFrame,
    volumes: pd.DataFrame,
) -> pd.DataFrame:
    """The counts of Table IV: 3D and 2D ground truths, uncertain 2D boxes and training slices as strategies are added.

    `volumes` is the store's table of the training volumes: with unlabelled slices, all their slices are trained on.
    """
    steps = [("No mining", [annotations]), ("+ Cross-slice", [annotations, cross_slice])]
    steps.append(("+ Intra-patient", [annotations, cross_slice, intra_patient]))
    rows = []
    for method, parts in steps:
        labels = pd.concat(parts, ignore_index=True)
        rows.append((method, _count_3d(labels), len(labels), 0, _count_slices(labels)))
    on_labelled = len(on_slices_of(uncertain, labels))
    rows.append(("+ Cross-dataset", *rows[-1][1:3], on_labelled, rows[-1][4]))
    rows.append(("+ Unlabeled", *rows[-1][1:3], len(uncertain), int(volumes["depth"].sum())))
    return pd.DataFrame(rows, columns=["method", "gt_3d", "gt_2d", "uncertain_2d", "training_slices"])


def slices_of(boxes3d: pd.DataFrame) -> pd.DataFrame:
    """One row per slice of each 3D box (z1, z2 may be fractional and are rounded), with `z`."""
    first = np.rint(boxes3d["z1"].to_numpy(float)).astype(int)
    count = np.maximum(np.rint(boxes3d["z2"].to_numpy(float)).astype(int) - first + 1, 1)
    rows = np.repeat(np.arange(len(boxes3d)), count)
    step = np.arange(len(rows)) - np.repeat(np.cumsum(count) - count, count)
    return boxes3d.iloc[rows].assign(z=first[rows] + step).reset_index(drop=True)


def overlapping(boxes: pd.DataFrame, others: pd.DataFrame, theta: float) -> np.ndarray:
    """For each row of `boxes` whether a row of `others` on its slice has IoU > theta with it: (n,) bool."""
    pairs = same_slice_pairs(boxes, others)
    hit = np.zeros(len(boxes), dtype=bool)
    hit[pairs.loc[pairs["iou"] > theta, "a"]] = True
    return hit


def _audit_boxes(mined: pd.DataFrame, truth: pd.DataFrame, wanted: pd.DataFrame, theta: float) -> dict:
    right, found = overlapping(mined, truth, theta), overlapping(wanted, mined, theta)
    return {
        "mined": len(mined),
        "precision": _share(int(right.sum()), len(mined)),
        "recall": _share(int(found.sum()), len(wanted)),
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


def _annotation_identity(annotations: pd.DataFrame, truth: pd.DataFrame, identity: dict, theta: float) -> dict:
    pairs = same_slice_pairs(annotations, truth).sort_values("iou", kind="stable")
    pairs = pairs[pairs["iou"] > theta]
    lesions = annotations["lesion"].to_numpy()[pairs["a"]]
    return {lesion: identity[key] for lesion, key in zip(lesions, instances(truth)[pairs["b"]], strict=True)}


def _count_3d(labels: pd.DataFrame) -> int:
    return len(labels.drop_duplicates(["volume", "lesion"]))


def _count_slices(labels: pd.DataFrame) -> int:
    return len(labels.drop_duplicates(["volume", "z"]))


def _share(part: int, whole: int) -> float:
    return part / whole if whole else float("nan")
