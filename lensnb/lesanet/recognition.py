"""Recognising the lesions of one patient: which embedding mining uses, and matching with it (LENS, Sec. V-B)."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd

from lensnb import audit, mining, paths, profiles
from lensnb.files import read_table
from lensnb.lesanet import embedding, matching, prediction, study
from lensnb.lesanet.label_files import has_labels
from lensnb.volumes import Store


@dataclass(frozen=True)
class Recogniser:
    """A trained embedding: what it is called, its folder, and `embed`, from 2D boxes to unit vectors (n, d)."""

    name: str
    folder: Path
    embed: Callable[[pd.DataFrame], np.ndarray]


def for_mining(profile_name: str, seed: int = 0) -> Recogniser:
    """The embedding that mining uses: LesaNet, or the simpler one where the data lack what LesaNet learns from.

    It is trained if it is not there yet.
    """
    if has_labels(paths.raw(profile_name, seed) / "DeepLesion"):
        return lesanet(profile_name, seed)
    print("the DeepLesion folder lacks LesaNet's ontology or labels: a simpler embedding takes its place")
    return simpler(profile_name, seed)


def lesanet(profile_name: str, seed: int = 0) -> Recogniser:
    """LesaNet's embedding, trained if it is not there yet."""
    return _load("LesaNet", "lesanet", study.train_for_profile(profile_name, seed), profile_name, seed)


def simpler(profile_name: str, seed: int = 0) -> Recogniser:
    """The simpler embedding, trained if it is not there yet; see `embedding`."""
    return _load("simpler", "embedding", embedding.train_for_profile(profile_name, seed), profile_name, seed)


def _load(name: str, command: str, folder: Path, profile_name: str, seed: int) -> Recogniser:
    model, config = prediction.load(folder, f"`python -m lensnb {command}`")
    store, network = Store(paths.prepared(profile_name, seed)), profiles.load(profile_name).network

    def embed(table: pd.DataFrame) -> np.ndarray:
        return prediction.predict(model, store, table, config, network, label=name)[0]

    return Recogniser(name, folder, embed)


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
    centres = mining.centre_boxes(tracklets)
    centres = centres[centres["score"] >= score].reset_index(drop=True)
    known = pd.concat([annotations, across], ignore_index=True)
    return Side(annotations, embed(annotations), centres, embed(centres), tracklets, known)


def choose(
    val: Side, lesions: pd.DataFrame, rules: SimpleNamespace, nearest_only: bool | None = None
) -> tuple[dict, pd.DataFrame]:
    """Distance and score by the profile's rule (its section mining) on validation patients: `audit.choose_threshold`.

    `lesions`: complete labels, one row a lesion and slice. `nearest_only`: in place of the profile's.
    """
    return audit.choose_threshold(
        val.annotations, val.annotation_vectors, val.centres, val.centre_vectors, val.tracklets, lesions,
        rules.deltas, rules.scores, rules.minimum_precision, rules.theta,
        rules.nearest_only if nearest_only is None else nearest_only,
    )  # fmt: skip


def match(side: Side, choice: dict, rules: SimpleNamespace) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Matches at the chosen distance and score, and the new lesions that they make: see the two functions called."""
    matches = mining.match_intra_patient(
        side.annotations, side.annotation_vectors, side.centres, side.centre_vectors,
        choice["delta"], choice["score"], rules.nearest_only,
    )  # fmt: skip
    return matches, mining.intra_patient(matches, side.tracklets, side.known, rules.theta)


def reach(side: Side, lesions: pd.DataFrame, score: float, theta: float, nearest_only: bool) -> matching.Reach:
    """What matching reaches at every distance, judged by complete labels: see `matching.reach`."""
    return matching.reach(
        side.annotations, side.annotation_vectors, side.centres, side.centre_vectors, side.tracklets, lesions,
        score, theta, nearest_only,
    )  # fmt: skip
