"""Recognising the lesions of one patient: which embedding mining uses, and matching with it (LENS, Sec. V-B)."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd

from lensnb.files import read_table
from lensnb.mining import intra_patient, reach


@dataclass(frozen=True)
class Side:
    """What matching needs of the patients of one split.

    annotations and centres (one row a tracklet, see `mining.centre_boxes`) with their vectors (n, d) and (m, d);
    tracklets: the 2D boxes; known: annotations and cross-slice boxes.
    """

    annotations: pd.DataFrame
    annotation_vectors: np.ndarray
    centres: pd.DataFrame
    centre_vectors: np.ndarray
    tracklets: pd.DataFrame
    known: pd.DataFrame


def open_side(runs: Path, split: str, annotations: pd.DataFrame, embed: Callable, score: float) -> Side:
    """Embed the annotations of a split ("train" or "val") and its tracklets that score at least `score`.

    Reads what cross-slice mining wrote into <runs>/mined.
    """
    end = "" if split == "train" else f"-{split}"
    tracklets = read_table(runs / "mined" / f"tracklets{end}.npz")
    across = read_table(runs / "mined" / f"cross-slice{end}.csv")
    centres = intra_patient.centre_boxes(tracklets)
    centres = centres[centres["score"] >= score].reset_index(drop=True)
    known = pd.concat([annotations, across], ignore_index=True)
    return Side(annotations, embed(annotations), centres, embed(centres), tracklets, known)


def choose(
    val: Side, lesions: pd.DataFrame, rules: SimpleNamespace, nearest_only: bool | None = None
) -> tuple[dict, pd.DataFrame]:
    """Distance and score by the profile's rule (its section mining) on validation patients: `audit.choose_threshold`.

    `lesions`: complete labels, one row a lesion and slice. `nearest_only`: in place of the profile's.
    """
    return intra_patient.choose_threshold(
        val.annotations, val.annotation_vectors, val.centres, val.centre_vectors, val.tracklets, lesions,
        rules.deltas, rules.scores, rules.minimum_precision, rules.theta,
        rules.nearest_only if nearest_only is None else nearest_only,
    )  # fmt: skip


def match(side: Side, choice: dict, rules: SimpleNamespace) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Matches at the chosen distance and score, and the new lesions that they make: see the two functions called."""
    matches = intra_patient.match_intra_patient(
        side.annotations, side.annotation_vectors, side.centres, side.centre_vectors,
        choice["delta"], choice["score"], rules.nearest_only,
    )  # fmt: skip
    return matches, intra_patient.intra_patient(matches, side.tracklets, side.known, rules.theta)


def reach(side: Side, lesions: pd.DataFrame, score: float, theta: float, nearest_only: bool) -> reach.Reach:
    """What matching reaches at every distance, judged by complete labels: see `matching.reach`."""
    return reach.reach(
        side.annotations, side.annotation_vectors, side.centres, side.centre_vectors, side.tracklets, lesions,
        score, theta, nearest_only,
    )  # fmt: skip
