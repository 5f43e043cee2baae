"""Intra-patient mining (LENS, Sec. V-B)."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lensnb.boxes import overlapping, same_slice_pairs
from lensnb.mining.judging import instances, is_annotated, lesions_reached, share
from lensnb.mining.label_rows import label_rows, with_extent


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
            rows.append((delta, score, len(matched), share(len(right), len(matched)), share(len(found), len(unmarked))))
    table = pd.DataFrame(rows, columns=["delta", "score", "matched", "precision", "recall"])
    precise = table[(table["precision"] >= minimum_precision) & (table["matched"] > 0)]
    if len(precise):
        best = precise.sort_values(["recall", "precision"], ascending=False, kind="stable").iloc[0]
    else:
        best = table.fillna(0.0).sort_values(["precision", "recall"], ascending=False, kind="stable").iloc[0]
    return {**best.to_dict(), "matched": int(best["matched"]), "reached": bool(len(precise))}, table


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
        "precision": share(len(reached), len(matched_to)),
        "recall": share(len(found), len(unmarked)),
        "same_lesion": share(same, len(matched_to)),
        "recoverable": share(sum(identity[key] in marked_identities for key in unmarked), len(unmarked)),
    }


def _annotation_identity(annotations: pd.DataFrame, truth: pd.DataFrame, identity: dict, theta: float) -> dict:
    pairs = same_slice_pairs(annotations, truth).sort_values("iou", kind="stable")
    pairs = pairs[pairs["iou"] > theta]
    lesions = annotations["lesion"].to_numpy()[pairs["a"]]
    return {lesion: identity[key] for lesion, key in zip(lesions, instances(truth)[pairs["b"]], strict=True)}


def match_intra_patient(
    annotations: pd.DataFrame,
    annotation_embedding: np.ndarray,
    tracklets: pd.DataFrame,
    tracklet_embedding: np.ndarray,
    delta: float,
    score: float,
    nearest_only: bool = True,
) -> pd.DataFrame:
    """Pair annotations with tracklets of the same patient in other volumes by their embeddings (Sec. V-B).

    `annotations` and `tracklets` (one row each; see `centre_boxes`) go with embeddings (n, d) and (m, d). Pairs are
    closer than `delta` (L2 distance) and their tracklet's score is at least `score`. `nearest_only` keeps for each
    annotation the nearest tracklet in each volume: a lesion is in a volume once. The paper keeps all pairs.
    Returns lesion, tracklet, patient, volume (of the tracklet), distance; nearest first.
    """
    strong = np.flatnonzero(tracklets["score"].to_numpy() >= score)
    of_patient = pd.Series(strong).groupby(tracklets["patient"].to_numpy()[strong]).groups
    annotation_volume, tracklet_volume = annotations["volume"].to_numpy(), tracklets["volume"].to_numpy()
    found = []
    for patient, rows in annotations.reset_index(drop=True).groupby("patient", observed=True).groups.items():
        here = np.asarray(rows)
        there = strong[np.asarray(of_patient.get(patient, []), dtype=int)]
        distance = _distances(annotation_embedding[here], tracklet_embedding[there])
        i, j = np.nonzero((distance < delta) & (annotation_volume[here][:, None] != tracklet_volume[there][None, :]))
        found.append(pd.DataFrame({"a": here[i], "t": there[j], "distance": distance[i, j]}))
    pairs = (
        pd.concat(found, ignore_index=True) if found else pd.DataFrame({"a": [], "t": [], "distance": []}, dtype=int)
    )
    matches = pd.DataFrame(
        {
            "lesion": annotations["lesion"].to_numpy()[pairs["a"]],
            "tracklet": tracklets["tracklet"].to_numpy()[pairs["t"]],
            "patient": tracklets["patient"].to_numpy()[pairs["t"]],
            "volume": tracklet_volume[pairs["t"]],
            "distance": pairs["distance"].astype(float),
        }
    )
    matches = matches.sort_values(["distance", "lesion", "tracklet"], kind="stable", ignore_index=True)
    return matches.drop_duplicates(["lesion", "volume"], ignore_index=True) if nearest_only else matches


def intra_patient(matches: pd.DataFrame, tracklets: pd.DataFrame, known: pd.DataFrame, theta: float) -> pd.DataFrame:
    """Turn matched tracklets into new lesions: all their boxes, with lesion ids m00000, m00001, ... (Sec. V-B).

    A tracklet that overlaps a known box (annotated, cross-slice) with IoU > theta on any slice is no new lesion and
    is left out; so is one that overlaps a nearer match's tracklet. `tracklets` are 2D boxes with their origin.
    """
    wanted = tracklets[tracklets["tracklet"].isin(matches["tracklet"])]
    wanted = wanted[~wanted["tracklet"].isin(_tracklets_over(wanted, known, theta))]
    best_first = matches[matches["tracklet"].isin(wanted["tracklet"])].drop_duplicates("tracklet")
    rank = pd.Series(np.arange(len(best_first)), index=best_first["tracklet"].to_numpy())
    order = rank.loc[wanted["tracklet"]].to_numpy()
    pairs = same_slice_pairs(wanted, wanted)
    pairs = pairs[(pairs["iou"] > theta) & (order[pairs["a"]] < order[pairs["b"]])]
    kept, repeated = set(), set()
    later = pd.Series(order[pairs["b"]]).groupby(order[pairs["a"]]).agg(set)
    for number in range(len(best_first)):
        if number not in repeated:
            kept.add(number)
            repeated |= later.get(number, set())
    new_number = {number: i for i, number in enumerate(sorted(kept))}
    wanted, order = wanted[np.isin(order, list(kept))], order[np.isin(order, list(kept))]
    lesion = [f"m{new_number[number]:05d}" for number in order]
    matched_to = best_first.set_index("tracklet").loc[wanted["tracklet"], "lesion"].to_numpy()
    return label_rows(
        with_extent(wanted).assign(lesion=lesion, source="intra-patient", matched_to=matched_to),
        "tracklet",
        "matched_to",
    )


def centre_boxes(tracklets: pd.DataFrame) -> pd.DataFrame:
    """One row per tracklet: its box on the centre slice, with the tracklet's extent z1..z2 and highest score."""
    ordered = tracklets.sort_values(["tracklet", "z"], kind="stable")
    groups = ordered.groupby("tracklet", sort=True)
    middle = groups.cumcount().to_numpy() == (groups["z"].transform("size").to_numpy() - 1) // 2
    centre = ordered[middle].reset_index(drop=True)
    extent = groups.agg(z1=("z", "min"), z2=("z", "max"), score=("score", "max")).reset_index()
    return centre.assign(z1=extent["z1"], z2=extent["z2"], score=extent["score"])


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    # for unit vectors and general ones alike; clipped because rounding can make a zero distance negative
    squared = (a**2).sum(1)[:, None] + (b**2).sum(1)[None, :] - 2 * a @ b.T
    return np.sqrt(squared.clip(0))


def _tracklets_over(tracklets: pd.DataFrame, known: pd.DataFrame, theta: float) -> np.ndarray:
    pairs = same_slice_pairs(tracklets, known)
    return tracklets["tracklet"].to_numpy()[pairs.loc[pairs["iou"] > theta, "a"]]
