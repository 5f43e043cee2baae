"""Experts' scores made comparable: the chance that a box with this score is a lesion of the expert's own label set.

LENS fuses raw scores (Sec. IV-C), and NMS keeps the highest. But a score of 0.7 of an expert whose lesions are all
marked and one of an expert that was told to overlook most of its lesions do not mean the same. Each expert's scores are
therefore mapped by what they mean on volumes that it was not trained on and whose labels are complete: a specialist's
on its own validation volumes, the universal expert's on DeepLesion's validation patients.

The map that is used is Platt's (1999), a sigmoid of the score's log odds with two parameters, and not isotonic
regression, for two reasons. It is strictly increasing, so that each expert's own order of boxes stays as it is, while
isotonic regression gives one value to whole blocks of scores: the best boxes of all experts would be tied at 1, where
the sensitivities at few false positives are decided. And a validation set has some tens of lesions, whose boxes on
neighbouring slices are alike: enough for two numbers, few for a free curve. Isotonic regression serves as a check,
since it assumes nothing but the order.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from lensnb.datasets import SINGLE_TYPE, UNIVERSAL
from lensnb.datasets.store import Store
from lensnb.evaluation.specificity import searched_part, validation_volumes
from lensnb.mining.cross_dataset import ON_LESION
from lensnb.mining.judging import inside

SMALLEST = 1e-6  # scores keep this distance from 0 and 1, whose log odds are infinite


@dataclass(frozen=True)
class Platt:
    """chance = sigmoid(slope * log odds of the score + intercept); slope 1 and intercept 0 change nothing."""

    slope: float = 1.0
    intercept: float = 0.0

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        """Chances (n,) of scores (n,) in [0, 1]."""
        return _sigmoid(self.slope * _log_odds(scores) + self.intercept)


def fit_platt(scores: np.ndarray, right: np.ndarray) -> Platt:
    """Platt's map for scores (n,) of boxes of which `right` (n,) bool are lesions.

    Most likely parameters, with Platt's targets (k + 1) / (k + 2) for the k right boxes and 1 / (m + 2) for the m wrong
    ones, so that they are finite also where a score separates the two. A slope under 0 would turn the order around;
    then it is 0, and all boxes get the same chance, the best map that never falls. Without any box, scores stay as
    they are.
    """
    right = np.asarray(right, dtype=bool)
    if len(right) == 0:
        return Platt()
    target = np.where(right, (right.sum() + 1) / (right.sum() + 2), 1 / ((~right).sum() + 2))
    design = np.column_stack([_log_odds(scores), np.ones(len(right))])
    flat = float(_log_odds(target.mean()))
    best = _newton(design, target, np.array([0.0, flat]))
    return Platt(float(best[0]), float(best[1])) if best[0] > 0 else Platt(0.0, flat)


def _newton(design: np.ndarray, target: np.ndarray, start: np.ndarray) -> np.ndarray:
    """The parameters (2,) of least cross-entropy; a step that does not lower it is halved."""
    parameters, loss = start, _cross_entropy(design @ start, target)
    for _ in range(100):
        chance = _sigmoid(design @ parameters)
        slope = design.T @ (chance - target)
        curvature = (design * (chance * (1 - chance))[:, None]).T @ design + 1e-9 * np.eye(2)
        step = np.linalg.solve(curvature, slope)
        while (after := _cross_entropy(design @ (parameters - step), target)) > loss and np.abs(step).max() > 1e-9:
            step = step / 2
        if np.abs(step).max() < 1e-9 or after > loss:
            break
        parameters, loss = parameters - step, after
    return parameters


def isotonic(scores: np.ndarray, right: np.ndarray) -> pd.DataFrame:
    """The share of right boxes as a function of the score that never falls and fits best (least squares).

    Pool adjacent violators: blocks of equal scores in rising order, of which two neighbours become one as long as the
    later one has the lower share. Returns score (each that occurs, rising), chance.
    """
    values, place, count = np.unique(np.asarray(scores, dtype=float), return_inverse=True, return_counts=True)
    hits = np.bincount(place, weights=np.asarray(right, dtype=float), minlength=len(values))
    blocks = []  # right boxes, boxes, different scores
    for own in zip(hits, count, np.ones(len(values), dtype=int), strict=True):
        blocks.append(own)
        while len(blocks) > 1 and blocks[-2][0] * blocks[-1][1] >= blocks[-1][0] * blocks[-2][1]:
            last, before = blocks.pop(), blocks.pop()
            blocks.append(tuple(a + b for a, b in zip(before, last, strict=True)))
    chance = np.repeat([b[0] / b[1] for b in blocks], [b[2] for b in blocks])
    return pd.DataFrame({"score": values, "chance": chance})


def own_experts(proposals: pd.DataFrame) -> list[str]:
    """The single-type experts of a table of proposals, in the order of the datasets, silent ones included."""
    there = set(proposals["expert"].astype("category").cat.categories)
    return [name for name in SINGLE_TYPE if name in there]


def curves(
    own: pd.DataFrame | None, universal: pd.DataFrame, labels: pd.DataFrame, store: Store
) -> dict[str, tuple[Platt, pd.DataFrame]]:
    """For each expert Platt's map and, beside it, `isotonic`: what its scores mean where it is calibrated.

    own: proposals on the single-type datasets' validation volumes, None if there are no specialists; universal: on
    DeepLesion's validation patients, with their complete labels.
    """
    boxes = universal[universal["expert"] == UNIVERSAL]
    known = {UNIVERSAL: (boxes["score"].to_numpy(float), inside(boxes, labels, ON_LESION))}
    if own is not None:
        known |= {name: labelled_boxes(own, store, name) for name in own_experts(own)}
    return {name: (fit_platt(*boxes), isotonic(*boxes)) for name, boxes in known.items()}


def labelled_boxes(proposals: pd.DataFrame, store: Store, dataset: str) -> tuple[np.ndarray, np.ndarray]:
    """Scores (n,) of a specialist's boxes on its own validation volumes, and which are lesions (n,) bool.

    A box is one if at least ON_LESION of it lies in an annotated box on its slice, the evaluation's rule. Boxes count
    where somebody has searched for the expert's lesions (`Dataset.searched`).
    """
    names = validation_volumes(store, dataset)
    own = proposals[(proposals["expert"] == dataset) & proposals["volume"].astype(str).isin(names)]
    own = searched_part(own, store, dataset)
    return own["score"].to_numpy(float), inside(own, store.boxes[store.boxes["volume"].isin(names)], ON_LESION)


def calibrate(proposals: pd.DataFrame, maps: Mapping[str, Platt]) -> pd.DataFrame:
    """2D proposals with each expert's scores put through its map; an expert without one keeps its scores."""
    expert, score = proposals["expert"].astype(str).to_numpy(), proposals["score"].to_numpy(float).copy()
    for name, mapped in maps.items():
        score[expert == name] = mapped(score[expert == name])
    return proposals.assign(score=score)


def calibrate_crosswise(
    proposals: pd.DataFrame, maps: Mapping[str, Platt], labels: pd.DataFrame, patients: pd.Series
) -> pd.DataFrame:
    """Proposals on DeepLesion's validation patients with calibrated scores, for a fair look at the same patients.

    maps: of the specialists, whose volumes are others. The universal expert's map can only come from these very
    patients, so that each half of them (every other one by name) gets the map that the other half gives. labels:
    complete labels, a row for each lesion and slice. patients: of each volume, by its name.
    """
    halves = patients.map({name: place % 2 for place, name in enumerate(sorted(set(patients)))})
    half = proposals["volume"].astype(str).map(halves).to_numpy()
    universal = (proposals["expert"] == UNIVERSAL).to_numpy()
    parts = []
    for here in (0, 1):
        known = proposals[universal & (half != here)]
        learned = fit_platt(known["score"].to_numpy(float), inside(known, labels, ON_LESION))
        parts.append(calibrate(proposals[half == here], {**maps, UNIVERSAL: learned}))
    return pd.concat(parts).sort_index()


def _log_odds(scores: np.ndarray | float) -> np.ndarray:
    scores = np.clip(np.asarray(scores, dtype=float), SMALLEST, 1 - SMALLEST)
    return np.log(scores) - np.log1p(-scores)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(x, -700, 700)))


def _cross_entropy(log_odds: np.ndarray, target: np.ndarray) -> float:
    return float((np.logaddexp(0, log_odds) - target * log_odds).sum())
