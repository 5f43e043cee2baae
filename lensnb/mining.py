"""Mining of missing annotations (LENS, Sec. V): three functions from box tables to box tables.

A proposal table has one row per 2D box (volume, z, x1, y1, x2, y2, score and more); a tracklet table is the
same with a column `tracklet`, the number of the group that stacking put the box into. Everything here works on
whole tables: 600,000 proposals take seconds.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lensnb.boxes import BOX, COLUMNS, nms_table

ORIGIN = ["dataset", "patient", "study", "series"]


def add_origin(table: pd.DataFrame, volumes: pd.DataFrame) -> pd.DataFrame:
    """Add dataset, patient, study and series of each row's volume.

    `volumes` is the prepared store's table, indexed by volume. Raises ValueError for a volume that it lacks.
    """
    names = table["volume"].astype(str)
    unknown = sorted(set(names) - set(volumes.index))
    if unknown:
        raise ValueError(f"{len(unknown)} volumes of the table are not in the prepared store, for example {unknown[0]}")
    origin = volumes.loc[names, ORIGIN].set_axis(table.index)
    return table.drop(columns=ORIGIN, errors="ignore").assign(volume=names, **origin)


# --- the three strategies ---------------------------------------------------------------------------------------


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
    mined = _with_extent(tracklets[tracklets["tracklet"].isin(owner.index)])
    annotation = annotations.iloc[owner.loc[mined["tracklet"], "b"]]
    mined = mined.assign(lesion=annotation["lesion"].to_numpy(), source="cross-slice")
    mined = mined.assign(**{name: annotation[name].to_numpy() for name in ORIGIN})
    on_key_slice = mined["z"].to_numpy() == annotation["z"].to_numpy()
    return _label_rows(_without_overlap(mined[~on_key_slice], annotations, theta), "tracklet")


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
    return _label_rows(
        _with_extent(wanted).assign(lesion=lesion, source="intra-patient", matched_to=matched_to),
        "tracklet",
        "matched_to",
    )


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
    return _label_rows(uncertain.assign(lesion=lesion, source="uncertain", z1=uncertain["z"], z2=uncertain["z"]))


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
    return nms_table(_without_overlap(strong, known, overlap), nms)


# --- small steps the strategies share ---------------------------------------------------------------------------


def centre_boxes(tracklets: pd.DataFrame) -> pd.DataFrame:
    """One row per tracklet: its box on the centre slice, with the tracklet's extent z1..z2 and highest score."""
    ordered = tracklets.sort_values(["tracklet", "z"], kind="stable")
    groups = ordered.groupby("tracklet", sort=True)
    middle = groups.cumcount().to_numpy() == (groups["z"].transform("size").to_numpy() - 1) // 2
    centre = ordered[middle].reset_index(drop=True)
    extent = groups.agg(z1=("z", "min"), z2=("z", "max"), score=("score", "max")).reset_index()
    return centre.assign(z1=extent["z1"], z2=extent["z2"], score=extent["score"])


def on_slices_of(boxes: pd.DataFrame, labels: pd.DataFrame) -> pd.DataFrame:
    """The rows of `boxes` that lie on a slice which has a row in `labels`."""
    a, b = _slice_keys(boxes, labels)
    return boxes[np.isin(a, b)]


def same_slice_pairs(a: pd.DataFrame, b: pd.DataFrame) -> pd.DataFrame:
    """All pairs of rows of `a` and `b` on the same slice of the same volume: row positions a, b and their IoU."""
    key_a, key_b = _slice_keys(a, b)
    order = np.argsort(key_b, kind="stable")
    first = np.searchsorted(key_b[order], key_a, side="left")
    count = np.searchsorted(key_b[order], key_a, side="right") - first
    i = np.repeat(np.arange(len(a)), count)
    within = np.arange(len(i)) - np.repeat(np.cumsum(count) - count, count)
    j = order[np.repeat(first, count) + within]
    iou = _paired_iou(a[BOX].to_numpy(float)[i], b[BOX].to_numpy(float)[j])
    return pd.DataFrame({"a": i, "b": j, "iou": iou})


def _slice_keys(a: pd.DataFrame, b: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    names = np.concatenate([a["volume"].astype(str).to_numpy(object), b["volume"].astype(str).to_numpy(object)])
    volume = pd.factorize(names)[0].astype(np.int64)
    z = np.concatenate([a["z"].to_numpy(float), b["z"].to_numpy(float)])
    key = volume * 1_000_000 + np.rint(z).astype(np.int64)
    return key[: len(a)], key[len(a) :]


def _paired_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    width = np.minimum(a[:, 2], b[:, 2]) - np.maximum(a[:, 0], b[:, 0])
    height = np.minimum(a[:, 3], b[:, 3]) - np.maximum(a[:, 1], b[:, 1])
    shared = width.clip(0) * height.clip(0)
    area_a, area_b = (a[:, 2] - a[:, 0]) * (a[:, 3] - a[:, 1]), (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1])
    return shared / np.maximum(area_a + area_b - shared, 1e-9)


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    # for unit vectors and general ones alike; clipped because rounding can make a zero distance negative
    squared = (a**2).sum(1)[:, None] + (b**2).sum(1)[None, :] - 2 * a @ b.T
    return np.sqrt(squared.clip(0))


def _without_overlap(boxes: pd.DataFrame, known: pd.DataFrame, threshold: float) -> pd.DataFrame:
    pairs = same_slice_pairs(boxes, known)
    keep = np.ones(len(boxes), dtype=bool)
    keep[pairs.loc[pairs["iou"] > threshold, "a"]] = False
    return boxes[keep]


def _tracklets_over(tracklets: pd.DataFrame, known: pd.DataFrame, theta: float) -> np.ndarray:
    pairs = same_slice_pairs(tracklets, known)
    return tracklets["tracklet"].to_numpy()[pairs.loc[pairs["iou"] > theta, "a"]]


def _with_extent(tracklets: pd.DataFrame) -> pd.DataFrame:
    z = tracklets.groupby("tracklet")["z"]
    return tracklets.assign(z1=z.transform("min"), z2=z.transform("max"))


def _label_rows(boxes: pd.DataFrame, *extra: str) -> pd.DataFrame:
    """Label rows with the schema's columns and `extra` ones, in a fixed order."""
    return boxes[[*COLUMNS, *extra]].sort_values(["volume", "lesion", "z"], kind="stable", ignore_index=True)
