"""Which lesions intra-patient matching finds with an embedding, over delta: for comparing two embeddings.

`intra_patient.choose` takes one delta; this says what follows from every delta at once, and how sure a difference is.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from lensnb.mining.intra_patient import match, tracklets_over
from lensnb.mining.judging import instances, is_annotated, lesions_reached
from lensnb.mining.patients import Patients
from lensnb.streams import Stream, generator

FARTHEST = 2.0  # unit vectors are no farther apart


@dataclass(frozen=True)
class Reach:
    """tracklets: every matched one with patient, distance (of its nearest annotation), right. lesions: every lesion
    without an annotation with patient and the distance at which a right tracklet reaches it, inf if none does."""

    tracklets: pd.DataFrame
    lesions: pd.DataFrame


def reach(patients: Patients, lesions: pd.DataFrame, score: float, theta: float, nearest_only: bool) -> Reach:
    """Match at every distance, and judge by complete labels `lesions` (one row a lesion and slice, with patient).

    `score`, `nearest_only` and what is right are as in `intra_patient.match` and `choose`; tracklets over an annotation
    are set aside.
    """
    tracklets, annotations = patients.tracklets, patients.annotations
    pairs = match(patients, FARTHEST + 1e-6, score, nearest_only)
    nearest = pairs.drop_duplicates("tracklet")  # the pairs come nearest first
    nearest = nearest[~nearest["tracklet"].isin(tracklets_over(tracklets, annotations, theta))]
    reached = lesions_reached(tracklets[tracklets["tracklet"].isin(nearest["tracklet"])], lesions, theta)
    matched = nearest[["patient", "distance"]].assign(right=nearest["tracklet"].isin(reached.keys()))
    names = instances(lesions)
    marked = set(names[is_annotated(lesions, annotations, theta)])
    wanted = pd.DataFrame({"name": names, "patient": lesions["patient"].astype(str)}).drop_duplicates("name")
    wanted = wanted[~wanted["name"].isin(marked)]
    distance: dict[str, float] = {}
    for tracklet, far in zip(nearest["tracklet"], nearest["distance"], strict=True):
        for name in reached.get(tracklet, ()):
            distance.setdefault(name, far)
    wanted = wanted.assign(distance=wanted["name"].map(distance).fillna(np.inf)).reset_index(drop=True)
    return Reach(matched.astype({"patient": str}).reset_index(drop=True), wanted)


def curve(found: Reach, deltas: Sequence[float]) -> pd.DataFrame:
    """Matched tracklets, precision (nan for none) and recall under each distance: delta, matched, precision, recall."""
    rows = []
    for delta in deltas:
        near = found.tracklets[found.tracklets["distance"] < delta]
        precision = near["right"].mean() if len(near) else np.nan
        rows.append((delta, len(near), precision, float((found.lesions["distance"] < delta).mean())))
    return pd.DataFrame(rows, columns=["delta", "matched", "precision", "recall"])


def steps(found: Reach, number: int = 200) -> np.ndarray:
    """Distances for a curve, as many matches between each two of them; one alone if nothing was matched."""
    distances = found.tracklets["distance"].to_numpy()
    return np.unique(np.quantile(distances, np.linspace(0.002, 1, number))) if len(distances) else np.array([FARTHEST])


def precision_at_recall(found: Reach, recall: float, copies: dict[str, int] | None = None) -> float:
    """Precision at the smallest distance at which `recall` of the lesions is reached; nan if it never is.

    `copies` says how often each patient counts (a set drawn with replacement); without it, once each.
    """
    weight = [1.0 if copies is None else float(copies.get(p, 0)) for p in found.lesions["patient"]]
    order = np.argsort(found.lesions["distance"].to_numpy(), kind="stable")
    total, weight = sum(weight), np.asarray(weight)[order]
    distance = found.lesions["distance"].to_numpy()[order]
    enough = np.flatnonzero(weight.cumsum() >= recall * total - 1e-9)
    if total == 0 or not len(enough) or np.isinf(distance[enough[0]]):
        return float("nan")
    near = found.tracklets[found.tracklets["distance"] <= distance[enough[0]]]
    own = np.array([1.0 if copies is None else float(copies.get(p, 0)) for p in near["patient"]])
    return float((own * near["right"]).sum() / own.sum()) if own.sum() else float("nan")


def compare(first: Reach, second: Reach, recall: float, draws: int, seed: int) -> np.ndarray:
    """Precision of `first` minus that of `second` at equal recall, then the same on drawn sets of patients: (1 + n,).

    Both are judged on the same sets. `recall` is the same number in every set.
    """
    patients = sorted(
        set(first.lesions["patient"]) | set(first.tracklets["patient"]) | set(second.tracklets["patient"])
    )
    rng = generator(seed, Stream.MATCHING_BOOTSTRAP)
    result = [precision_at_recall(first, recall) - precision_at_recall(second, recall)]
    for _ in range(draws):
        counts = np.bincount(rng.integers(len(patients), size=len(patients)), minlength=len(patients))
        copies = dict(zip(patients, counts.tolist(), strict=True))
        result.append(precision_at_recall(first, recall, copies) - precision_at_recall(second, recall, copies))
    return np.array(result)
