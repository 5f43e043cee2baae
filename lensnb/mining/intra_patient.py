"""Intra-patient mining: a lesion marked in one scan is recognised in another (LENS Sec. V-B). Boxes are grid pixels."""

import numpy as np
import pandas as pd

from lensnb.boxes import overlapping, same_slice_pairs
from lensnb.mining import counts
from lensnb.mining.judging import instances, is_annotated, lesions_reached, not_judged, share
from lensnb.mining.label_rows import label_rows, with_extent
from lensnb.mining.patients import Patients, needed
from lensnb.settings import Mining

NAME = "intra-patient"


def choose(
    patients: Patients, lesions: pd.DataFrame, rules: Mining, nearest_only: bool | None = None
) -> tuple[dict, pd.DataFrame]:
    """Choose delta and the lowest tracklet score for matching on validation patients.

    Of the settings in `rules.deltas` and `rules.scores` whose precision is at least `rules.minimum_precision`, the one
    with the highest recall; if none is that precise, the most precise one of those that find something. `lesions` are
    complete labels, one row a lesion and slice (`boxes.slices_of` makes them from 3D boxes), for every volume of
    `patients`, which are embedded. `nearest_only`: in place of the profile's.

    Matches to tracklets over an annotation are set aside, as mining does. A tracklet is right if one of its boxes
    has IoU > theta with a lesion; recall counts the lesions without an annotation that a right tracklet reaches.
    Returns the numbers {delta, score, precision, recall, matched, reached} and the table of all settings.
    """
    nearest_only = rules.nearest_only if nearest_only is None else nearest_only
    pairs = match(patients, max(rules.deltas), min(rules.scores), nearest_only=False)
    centres = needed(patients, "embedded", NAME).centres
    pairs["score"] = centres.set_index("tracklet")["score"].loc[pairs["tracklet"]].to_numpy()
    reached = lesions_reached(patients.tracklets, lesions, rules.theta)
    known = tracklets_over(patients.tracklets, patients.annotations, rules.theta)
    marked = is_annotated(lesions, patients.annotations, rules.theta)
    unmarked = set(instances(lesions)) - set(instances(lesions[marked]))
    rows = []
    for score in rules.scores:
        strong = pairs[pairs["score"] >= score]
        if nearest_only:
            strong = strong.drop_duplicates(["lesion", "volume"])
        for delta in rules.deltas:
            matched = set(strong.loc[strong["distance"] < delta, "tracklet"]) - known
            right = [reached[tracklet] for tracklet in matched if tracklet in reached]
            found = set().union(*right) & unmarked
            rows.append((delta, score, len(matched), share(len(right), len(matched)), share(len(found), len(unmarked))))
    table = pd.DataFrame(rows, columns=["delta", "score", "matched", "precision", "recall"])
    return _best_setting(table, rules.minimum_precision), table


def _best_setting(table: pd.DataFrame, minimum_precision: float) -> dict:
    """The row of `choose`'s table that its rule takes, and whether it is as precise as asked (`reached`)."""
    precise = table[(table["precision"] >= minimum_precision) & (table["matched"] > 0)]
    if len(precise):
        best = precise.sort_values(["recall", "precision"], ascending=False, kind="stable").iloc[0]
    else:
        best = table.fillna(0.0).sort_values(["precision", "recall"], ascending=False, kind="stable").iloc[0]
    return {**best.to_dict(), "matched": int(best["matched"]), "reached": bool(len(precise))}


def mine(patients: Patients, numbers: dict, rules: Mining) -> pd.DataFrame:
    """Match lesions at the chosen distance and score, and make new ones of what they match (LENS Sec. V-B).

    All boxes of a matched tracklet become a lesion, m00000, m00001, ... from the nearest match on. A tracklet that
    overlaps a known box (annotated, cross-slice) with IoU > theta on any slice is no new lesion and is left out; so is
    one that overlaps a nearer match's tracklet. Returns label rows with the tracklet and, as `matched_to`, the
    annotation.
    """
    matches = match(patients, numbers["delta"], numbers["score"], rules.nearest_only)
    tracklets = patients.tracklets[patients.tracklets["tracklet"].isin(matches["tracklet"])]
    tracklets = tracklets[~tracklets["tracklet"].isin(tracklets_over(tracklets, patients.known, rules.theta))]
    best_first = matches[matches["tracklet"].isin(tracklets["tracklet"])].drop_duplicates("tracklet")
    kept = _without_repeats(best_first["tracklet"].tolist(), tracklets, rules.theta)
    mined = with_extent(tracklets[tracklets["tracklet"].isin(kept)])
    lesion = {tracklet: f"m{number:05d}" for number, tracklet in enumerate(kept)}
    matched_to = best_first.set_index("tracklet")["lesion"]
    mined = mined.assign(
        lesion=[lesion[tracklet] for tracklet in mined["tracklet"]],
        source="intra-patient",
        matched_to=matched_to.loc[mined["tracklet"]].to_numpy(),
    )
    return label_rows(mined, "tracklet", "matched_to")


def _without_repeats(best_first: list[int], tracklets: pd.DataFrame, theta: float) -> list[int]:
    """Those of the tracklets, the best first, that overlap no better one with IoU > theta on a slice."""
    pairs = same_slice_pairs(tracklets, tracklets)
    pairs = pairs[pairs["iou"] > theta]
    number = tracklets["tracklet"].to_numpy()
    touching = pd.Series(number[pairs["b"]], dtype=object).groupby(number[pairs["a"]]).agg(set).to_dict()
    kept, repeated = [], set()
    for tracklet in best_first:
        if tracklet not in repeated:
            kept.append(tracklet)
            repeated |= touching.get(tracklet, set())
    return kept


def match(patients: Patients, delta: float, score: float, nearest_only: bool) -> pd.DataFrame:
    """Pair annotations with tracklets of the same patient in other volumes by their embeddings (LENS Sec. V-B).

    Pairs are closer than `delta` (L2 distance) and their tracklet's score is at least `score`. `nearest_only` keeps
    for each annotation the nearest tracklet in each volume: a lesion is in a volume once. The paper keeps all pairs.
    Returns lesion, tracklet, patient, volume (of the tracklet), distance; nearest first.
    """
    annotations, embedded = patients.annotations, needed(patients, "embedded", NAME)
    centres = embedded.centres
    strong = np.flatnonzero(centres["score"].to_numpy() >= score)
    of_patient = pd.Series(strong).groupby(centres["patient"].to_numpy()[strong]).groups
    annotation_volume, tracklet_volume = annotations["volume"].to_numpy(), centres["volume"].to_numpy()
    found = [pd.DataFrame({"a": [], "t": [], "distance": []}).astype({"a": int, "t": int})]
    for patient, rows in annotations.reset_index(drop=True).groupby("patient", observed=True).groups.items():
        here = np.asarray(rows)
        there = strong[np.asarray(of_patient.get(patient, []), dtype=int)]
        distance = _distances(embedded.annotations[here], embedded.tracklets[there])
        elsewhere = annotation_volume[here][:, None] != tracklet_volume[there][None, :]
        i, j = np.nonzero((distance < delta) & elsewhere)
        found.append(pd.DataFrame({"a": here[i], "t": there[j], "distance": distance[i, j]}))
    pairs = pd.concat([part for part in found if len(part)] or found[:1], ignore_index=True)
    matches = pd.DataFrame(
        {
            "lesion": annotations["lesion"].to_numpy()[pairs["a"]],
            "tracklet": centres["tracklet"].to_numpy()[pairs["t"]],
            "patient": centres["patient"].to_numpy()[pairs["t"]],
            "volume": tracklet_volume[pairs["t"]],
            "distance": pairs["distance"].astype(float),
        }
    )
    matches = matches.sort_values(["distance", "lesion", "tracklet"], kind="stable", ignore_index=True)
    return matches.drop_duplicates(["lesion", "volume"], ignore_index=True) if nearest_only else matches


def tracklets_over(tracklets: pd.DataFrame, known: pd.DataFrame, theta: float) -> set:
    """The tracklets of which a box has IoU > theta with a row of `known`."""
    return set(tracklets["tracklet"].to_numpy()[overlapping(tracklets, known, theta)])


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """L2 distance of every row of `a` (n, d) to every row of `b` (m, d): (n, m), to six places.

    The last bits of a matrix product depend on the processor and the number of threads; what is decided by distances
    must not.
    """
    a, b = a.astype(np.float64), b.astype(np.float64)
    # for unit vectors and general ones alike; clipped because rounding can make a zero distance negative
    squared = (a**2).sum(1)[:, None] + (b**2).sum(1)[None, :] - 2 * a @ b.T
    return np.sqrt(squared.clip(0)).round(6)


def audit(mined: pd.DataFrame, patients: Patients, truth: pd.DataFrame | None, theta: float) -> dict:
    """Judge matched lesions against the truth with identities (phantoms only; None if nobody knows it).

    precision: mined lesions (tracklets) one of whose boxes has IoU > theta with a true lesion. recall: share of the
    lesion instances without an annotation that they reach. Further: `same_lesion`, the share of mined lesions that
    reach the very lesion they were matched to, and `recoverable`, the share of the instances without an annotation
    that are annotated in another volume of the patient: what perfect matching would recall.
    """
    matched_to = mined.drop_duplicates("lesion").set_index("lesion")["matched_to"]
    if truth is None:
        return not_judged(NAME, len(matched_to))
    annotations = patients.annotations
    reached = lesions_reached(mined, truth, theta, of="lesion")
    identity = _identities(truth)
    marked = set(instances(truth[is_annotated(truth, annotations, theta)]))
    unmarked = set(identity) - marked
    found = set().union(*reached.values()) & unmarked
    of_annotation = _identity_of_annotations(annotations, truth, identity, theta)
    same = sum(
        of_annotation.get(matched_to[lesion]) in {identity[key] for key in keys} for lesion, keys in reached.items()
    )
    marked_identities = {identity[key] for key in marked}
    recoverable = sum(identity[key] in marked_identities for key in unmarked)
    return {
        "strategy": NAME,
        "mined": len(matched_to),
        "precision": share(len(reached), len(matched_to)),
        "recall": share(len(found), len(unmarked)),
        "same_lesion": share(same, len(matched_to)),
        "recoverable": share(recoverable, len(unmarked)),
    }


def _identities(truth: pd.DataFrame) -> dict[str, tuple[str, int]]:
    """Who each true lesion of a volume is, over all volumes of its patient: (patient, identity) by its instance."""
    lesions = truth.drop_duplicates(["volume", "lesion"])
    who = zip(lesions["patient"].astype(str), lesions["identity"], strict=True)
    return dict(zip(instances(lesions), who, strict=True))


def _identity_of_annotations(annotations: pd.DataFrame, truth: pd.DataFrame, identity: dict, theta: float) -> dict:
    """Who each annotated lesion is: the identity of the true lesion with the highest IoU > theta."""
    pairs = same_slice_pairs(annotations, truth).sort_values("iou", kind="stable")
    pairs = pairs[pairs["iou"] > theta]
    lesions = annotations["lesion"].to_numpy()[pairs["a"]]
    return {lesion: identity[key] for lesion, key in zip(lesions, instances(truth)[pairs["b"]], strict=True)}


def count(known: pd.DataFrame, mined: pd.DataFrame) -> dict:
    """Lesions, boxes and slices that are added to the `known` label rows (LENS Table IV)."""
    return counts.certain(known, mined)
