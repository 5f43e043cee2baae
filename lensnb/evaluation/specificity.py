"""What makes LENS's experts experts: each knows its own type of lesion from others, and better than the universal one.

LENS Sec. IV-C and VI-D, Fig. 3: the experts' predictions are complementary, since "single-type experts often perform
better in their specialties" and "cannot detect other lesion types". Fusing them, and mining with them, can help only if
that is so. It is measured on volumes that no expert was trained on, in the voxels of the grid:

* the score of an expert for a lesion is the highest of its 3D detections that hit it by the evaluation's rule (at least
  30 % of the detection's box lies in the lesion's, both ends counted; LENS Sec. VI-C), and 0 if none does: the detector
  keeps no box under `inference.score`;
* own type against other types: the chance that a lesion of the own type scores higher than one of another type (area
  under the ROC curve). Only phantoms know the other types; with real data these columns are empty;
* own type against background: the same against the expert's detections that hit no lesion;
* the edge over the universal expert: the difference of the two experts' sensitivities for lesions of the own type. A
  detection that hits no lesion of any known type is a false positive; one on another type is neither. Real single-type
  datasets know no other type, so that there a detection on one counts as false, and DeepLesion's lesions have no type.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from lensnb.boxes import BOX3D
from lensnb.datasets import DATASETS, NAMES, UNIVERSAL
from lensnb.datasets.store import Store
from lensnb.evaluation import froc
from lensnb.evaluation.froc import Matches
from lensnb.evaluation.outcomes import truth_3d
from lensnb.streams import Stream, generator
from lensnb.training.samples import searched_slices

HIT = 0.3  # IoBB at which a detection hits a lesion
RATE = 1.0  # false positives per volume


@dataclass(frozen=True)
class Scans:
    """Volumes of one dataset, what lies in them, and what each expert finds.

    dataset: its name. patients: of each volume, by the volume's name. lesions: 3D boxes on the grid (volume, x1, ...)
    with `type`, "" where nobody knows it. complete: whether these are all lesions of all types. found: 3D detections
    on the grid by expert.
    """

    dataset: str
    patients: pd.Series
    lesions: pd.DataFrame
    complete: bool
    found: Mapping[str, pd.DataFrame]


def open_scans(store: Store, dataset: str, found: Mapping[str, pd.DataFrame]) -> Scans:
    """The validation volumes of a dataset with all that is known about them.

    Of phantoms all lesions are known, of real DeepLesion all without their type, of a real single-type dataset those of
    its own type, and what is detected where nobody has searched for them is left out (`Dataset.searched`). found: 3D
    detections on the grid by expert; those in other volumes are dropped.
    """
    names, complete = validation_volumes(store, dataset), store.truth is not None
    if complete:
        lesions = truth_3d(store.truth[store.truth["volume"].isin(names)])
    elif dataset == UNIVERSAL:
        lesions = store.manual[store.manual["volume"].isin(names)].assign(type="")
    else:
        lesions = truth_3d(store.boxes[store.boxes["volume"].isin(names)]).assign(type=DATASETS[dataset].type)
    found = {name: boxes[boxes["volume"].astype(str).isin(names)] for name, boxes in found.items()}
    if not complete:
        found = {name: searched_part(boxes, store, dataset) for name, boxes in found.items()}
    patients = store.volumes.loc[names, "patient"].astype(str)
    return Scans(dataset, patients, lesions.astype({"volume": str}).reset_index(drop=True), complete, found)


def validation_volumes(store: Store, dataset: str) -> list[str]:
    """The names of a dataset's validation volumes."""
    table = store.volumes
    return table.index[(table["dataset"] == dataset) & (table["split"] == "val")].tolist()


def searched_part(boxes: pd.DataFrame, store: Store, dataset: str) -> pd.DataFrame:
    """The boxes (volume, z) in a dataset's validation volumes that lie on slices which somebody has searched."""
    names = validation_volumes(store, dataset)
    labels = store.boxes[store.boxes["volume"].isin(names)]
    searched = searched_slices(dataset, store.volumes.loc[names, "depth"], labels)
    volume = boxes["volume"].astype(str)
    first, end = (
        volume.map({name: getattr(one, side) for name, one in searched.items()}) for side in ("start", "stop")
    )
    return boxes[(boxes["z"] >= first) & (boxes["z"] < end)]


def specificity(scans: Iterable[Scans], resamples: int = 1000) -> pd.DataFrame:
    """A line for each expert and the volumes it is looked at on.

    On a single-type dataset these are its own expert and, beside it, the universal one, which shows how far the two
    kinds of lesions differ for somebody who was not taught to tell them apart; on DeepLesion's all experts.

    Columns: expert, volumes (of which dataset), type (the one in question), patients; own, others, background (how
    many lesions of the type and of other types, detections that hit none); auc_types with its 95 % interval (bootstrap
    over patients) and auc_background; mean_<type>, the mean score of the lesions of each type; with_<expert>, the
    correlation of the scores of all these lesions with another expert's; found and average, the sensitivity for the
    own type at one false positive per volume and on average over the seven rates, both also of the universal expert
    (found_universal, average_universal); edge_found and edge_average, the differences with their 95 % intervals
    (paired bootstrap over patients). NaN where nothing is known; one patient alone has no interval.
    """
    table = pd.DataFrame([line for one in scans for line in _lines(one, resamples)])
    means = sorted(name for name in table if name.startswith("mean_"))
    return table[[*(name for name in table if name not in means), *means]]


def _lines(scans: Scans, resamples: int) -> list[dict]:
    resamples = resamples if scans.patients.nunique() > 1 else 0
    scores = best_scores(scans.found, scans.lesions)
    kinds, patient = (
        scans.lesions["type"].to_numpy(object),
        scans.lesions["volume"].map(scans.patients).to_numpy(object),
    )
    with np.errstate(invalid="ignore", divide="ignore"):  # an expert that gives all lesions the same score
        correlation = scores.corr()
    lines = []
    for expert in (name for name in NAMES if name in scans.found):
        if UNIVERSAL not in (scans.dataset, expert) and expert != scans.dataset:
            continue  # a specialist is asked about its own volumes and about DeepLesion's
        kind = DATASETS[expert if expert != UNIVERSAL else scans.dataset].type
        own, others = _own_and_others(scans, kind)
        score, background = scores[expert].to_numpy(), _background(scans.found[expert], scans.lesions)
        low, high = auc_interval(score[own], score[others], patient[own], patient[others], resamples)
        line = {
            "expert": expert, "volumes": scans.dataset, "type": kind or "all", "patients": scans.patients.nunique(),
            "own": int(own.sum()), "others": int(others.sum()), "background": len(background),
            "auc_types": auc(score[own], score[others]), "auc_types_low": low, "auc_types_high": high,
            "auc_background": auc(score[own], background),
        }  # fmt: skip
        line |= {f"mean_{name}": float(score[kinds == name].mean()) for name in sorted(set(kinds) - {""})}
        line |= {f"with_{name}": float(correlation.loc[expert, name]) for name in scores}
        lines.append(line | edge(scans, expert, own, resamples))
    return lines


def _own_and_others(scans: Scans, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Which lesions are of the type in question, and which of another one: two (m,) bool. No type: all are own.

    In its own dataset a type's lesions are those that the dataset marks; one that it does not (a nodule under its
    threshold) is neither.
    """
    kinds = scans.lesions["type"].to_numpy(object)
    if not kind:
        return np.ones(len(kinds), dtype=bool), np.zeros(len(kinds), dtype=bool)
    own, others = kinds == kind, (kinds != kind) & scans.complete
    if scans.dataset != UNIVERSAL and "marked" in scans.lesions:
        own = own & scans.lesions["marked"].astype(bool).to_numpy()
    return own, others


def best_scores(found: Mapping[str, pd.DataFrame], lesions: pd.DataFrame) -> pd.DataFrame:
    """The highest score of each expert's detections that hit a lesion, 0 if none does: (lesions, experts).

    found: 3D detections by expert; lesions: 3D boxes, in the same coordinates.
    """
    best = {}
    for expert, boxes in found.items():
        best[expert] = np.zeros(len(lesions))
        for rows, here, hit in _hits(boxes, lesions):
            score = np.where(hit, boxes["score"].to_numpy(float)[here][:, None], 0.0)
            best[expert][rows] = score.max(axis=0, initial=0.0)
    return pd.DataFrame(best, index=lesions.index)


def _background(boxes: pd.DataFrame, lesions: pd.DataFrame) -> np.ndarray:
    """Scores of the detections that hit no lesion."""
    false = np.ones(len(boxes), dtype=bool)
    for _, here, hit in _hits(boxes, lesions):
        false[here] = ~hit.any(axis=1)
    return boxes["score"].to_numpy(float)[false]


def _hits(boxes: pd.DataFrame, lesions: pd.DataFrame) -> Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """For each volume with lesions: positions of its lesions (m,) and detections (n,), and who hits whom (n, m)."""
    volume = boxes["volume"].astype(str).to_numpy(object)
    for name, rows in lesions.groupby(lesions["volume"].astype(str)).indices.items():
        here = np.flatnonzero(volume == name)
        corners = [table[BOX3D].to_numpy(float) for table in (boxes.iloc[here], lesions.iloc[rows])]
        yield rows, here, froc.overlap_3d(*corners, "iobb") >= HIT


def auc(positive: np.ndarray, negative: np.ndarray) -> float:
    """The chance that one of `positive` scores higher than one of `negative`, ties half; NaN if one is empty."""
    if not len(positive) or not len(negative):
        return float("nan")
    rank = pd.Series(np.concatenate([positive, negative])).rank().to_numpy()[: len(positive)]
    return float((rank.sum() - len(positive) * (len(positive) + 1) / 2) / (len(positive) * len(negative)))


def auc_interval(
    positive: np.ndarray, negative: np.ndarray, patients: np.ndarray, others: np.ndarray, resamples: int = 1000
) -> tuple[float, float]:
    """The 95 % interval of `auc` over patients, who are drawn with replacement together with all their lesions.

    patients, others: of each positive and each negative. Draws that lack one kind are left out; NaN if all do.
    """
    if not len(positive) or not len(negative) or not resamples:
        return float("nan"), float("nan")
    place, names = pd.factorize(np.concatenate([patients, others]))
    rng = generator(0, Stream.AUC_BOOTSTRAP, len(names))
    draws = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
    first, second = draws[:, place[: len(positive)]], draws[:, place[len(positive) :]]
    above = (positive[:, None] > negative[None, :]) + 0.5 * (positive[:, None] == negative[None, :])
    pairs = first.sum(axis=1) * second.sum(axis=1)
    drawn = pairs > 0
    if not drawn.any():
        return float("nan"), float("nan")
    return froc.interval((((first @ above) * second).sum(axis=1)[drawn]) / pairs[drawn])


def edge(scans: Scans, expert: str, own: np.ndarray, resamples: int = 1000) -> dict[str, float]:
    """How much better an expert finds some lesions, own (m,) bool, than the universal expert, see `specificity`.

    NaN if there is none of them; the universal expert has no edge over itself.
    """
    names = [f"{measure}{end}" for measure in ("edge_found", "edge_average") for end in ("", "_low", "_high")]
    line = dict.fromkeys(("found", "average", "found_universal", "average_universal", *names), float("nan"))
    if not own.any():
        return line
    matches = [match_some(scans, name, own) for name in (expert, UNIVERSAL)]
    mine, universal = (froc.sensitivity_at(froc.curve(one)) for one in matches)
    at = froc.RATES.index(RATE)
    line |= {"found": float(mine[at]), "average": float(mine.mean())}
    line |= {"found_universal": float(universal[at]), "average_universal": float(universal.mean())}
    if expert == UNIVERSAL:
        return line
    line |= {"edge_found": float(mine[at] - universal[at]), "edge_average": float(mine.mean() - universal.mean())}
    if resamples:
        first, second = (froc.bootstrap(one, scans.patients.tolist(), resamples) for one in matches)
        for name, samples in (("edge_found", (first - second)[:, at]), ("edge_average", (first - second).mean(axis=1))):
            line[f"{name}_low"], line[f"{name}_high"] = froc.interval(samples)
    return line


def match_some(scans: Scans, expert: str, own: np.ndarray) -> Matches:
    """An expert's detections matched to some lesions, own (m,) bool; false are those that hit no lesion at all."""
    corners, volume = scans.lesions[BOX3D].to_numpy(float), scans.lesions["volume"].to_numpy(object)
    boxes = scans.found[expert].astype({"volume": str})
    every = {name: corners[volume == name] for name in scans.patients.index}
    some = {name: corners[(volume == name) & own] for name in scans.patients.index}
    return replace(froc.match(some, boxes), is_false=froc.match(every, boxes).is_false)
