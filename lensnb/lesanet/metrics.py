"""How well labels are predicted: per label, averaged over labels, with intervals over patients (LesaNet Sec. 5.3).

scores (n, C) float: the higher, the surer. labels and unknown (n, C) bool: what is true, and what is not scored.
A label that no scored lesion has, or that all have, has no AUC; as in the published code, it is in none of the
averages, and the table says for how many labels they hold.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from lensnb.lesanet.ontology import expand
from lensnb.streams import Stream, generator

METRICS = ("auc", "precision", "recall", "f1")
PUBLISHED_THRESHOLDS = tuple(np.arange(3, 10) / 10)  # the published code tries these and no others


def area_under_curve(scores: np.ndarray, truth: np.ndarray) -> float:
    """Probability that a true entry scores above a false one, ties half: (n,), (n,) bool; nan without both kinds."""
    positive, negative = int(truth.sum()), int((~truth).sum())
    if positive == 0 or negative == 0:
        return float("nan")
    ranks = rankdata(scores)  # how many entries score below, ties half
    return float((ranks[truth].sum() - positive * (positive + 1) / 2) / (positive * negative))


def precision_recall_f1(predicted: np.ndarray, truth: np.ndarray) -> tuple[float, float, float]:
    """Precision (1 if nothing is predicted), recall (1 if nothing is true) and their harmonic mean: (n,) bool each."""
    hits, found, true = int((predicted & truth).sum()), int(predicted.sum()), int(truth.sum())
    return hits / found if found else 1.0, hits / true if true else 1.0, 2 * hits / max(found + true, 1)


def best_threshold(scores: np.ndarray, truth: np.ndarray, candidates: tuple[float, ...] = ()) -> float:
    """The threshold with the best F1 for `score >= threshold`, the lowest of several; inf if none gets any hit.

    Without `candidates`, every score is tried, so that the best is found whatever the scores' range.
    """
    order = np.argsort(scores, kind="stable")
    sorted_scores, sorted_truth = scores[order], truth[order]
    tried = np.unique(scores) if len(candidates) == 0 else np.sort(np.asarray(candidates, dtype=np.float64))
    start = np.searchsorted(sorted_scores, tried)  # entries from here on are predicted
    hits = np.append(sorted_truth[::-1].cumsum()[::-1], 0)[start]
    f1 = 2 * hits / np.maximum(len(scores) - start + truth.sum(), 1)
    return float(tried[f1.argmax()]) if len(tried) and f1.max() > 0 else float("inf")


def calibrate(
    scores: np.ndarray,
    labels: np.ndarray,
    unknown: np.ndarray,
    candidates: tuple[float, ...] = PUBLISHED_THRESHOLDS,
) -> np.ndarray:
    """Each label's threshold with the best F1 on validation lesions (LesaNet Sec. 5.3): (C,), inf where F1 is always 0.

    The published code tries seven thresholds. With no `candidates` every score is tried; a label with a handful of
    positive validation lesions then gets a threshold that fits those.
    """
    columns = range(scores.shape[1])
    return np.array([best_threshold(scores[~unknown[:, c], c], labels[~unknown[:, c], c], candidates) for c in columns])


def decide(scores: np.ndarray, thresholds: np.ndarray, parents: np.ndarray) -> np.ndarray:
    """Predicted labels (n, C) bool: scores at or above the thresholds, and all their parents (LesaNet Sec. 4.2)."""
    return expand(scores >= thresholds, parents)


def label_table(
    names: list[str], scores: np.ndarray, labels: np.ndarray, unknown: np.ndarray,
    thresholds: np.ndarray, parents: np.ndarray,
) -> pd.DataFrame:  # fmt: skip
    """One row per label: label, positive, negative, auc, precision, recall, f1, threshold; nan without both kinds."""
    predicted = decide(scores, thresholds, parents)
    rows = []
    for c, name in enumerate(names):
        known = ~unknown[:, c]
        truth = labels[known, c]
        positive, negative = int(truth.sum()), int((~truth).sum())
        values = [float("nan")] * len(METRICS)
        if positive and negative:
            values = [area_under_curve(scores[known, c], truth), *precision_recall_f1(predicted[known, c], truth)]
        rows.append((name, positive, negative, *values, thresholds[c]))
    return pd.DataFrame(rows, columns=["label", "positive", "negative", *METRICS, "threshold"])


def averages(table: pd.DataFrame) -> pd.Series:
    """Means over the labels of a `label_table`, every label counting the same, and `labels`, their number."""
    scored = table[table["auc"].notna()]
    return pd.Series({name: scored[name].mean() for name in METRICS} | {"labels": len(scored)})


def resampled_auc(
    scores: np.ndarray, labels: np.ndarray, unknown: np.ndarray, patients: np.ndarray, draws: int, seed: int
) -> np.ndarray:
    """Macro AUC on `draws` sets of patients, drawn with replacement: (draws,).

    Two methods get the same sets under the same seed, so the difference of their results is that of pairs. A label
    that a set lacks is not in that set's mean.
    """
    copies = copies_of_patients(patients, draws, seed)
    result = np.full((draws, scores.shape[1]), np.nan)
    for c in range(scores.shape[1]):
        true, false = (np.flatnonzero(~unknown[:, c] & (labels[:, c] == kind)) for kind in (True, False))
        above = scores[true, c][:, None] - scores[false, c][None, :]
        wins = (above > 0) + 0.5 * (above == 0)
        pairs = copies[:, true].sum(1) * copies[:, false].sum(1)
        won = ((copies[:, true] @ wins) * copies[:, false]).sum(1)
        result[pairs > 0, c] = won[pairs > 0] / pairs[pairs > 0]
    return _row_means(result)


def resampled_decisions(
    predicted: np.ndarray, labels: np.ndarray, unknown: np.ndarray, patients: np.ndarray, draws: int, seed: int
) -> pd.DataFrame:
    """Macro precision, recall and F1 on the sets of patients of `resampled_auc`: one row per draw.

    predicted, labels, unknown: (n, C) bool. Labels without both kinds in all lesions are left out, as in `averages`,
    and so is a label that a set lacks from the set's recall and F1.
    """
    copies, known = copies_of_patients(patients, draws, seed), ~unknown
    scored = (labels & known).any(0) & (~labels & known).any(0)
    predicted, labels, known = predicted[:, scored], labels[:, scored], known[:, scored]
    hits, found, true = (copies @ (part & known) for part in (predicted & labels, predicted, labels))
    there = true > 0
    precision = np.divide(hits, found, out=np.ones_like(hits), where=found > 0)
    recall = np.divide(hits, true, out=np.full_like(hits, np.nan), where=there)
    f1 = np.where(there, 2 * hits / np.maximum(found + true, 1), np.nan)
    means = {"precision": np.where(there, precision, np.nan), "recall": recall, "f1": f1}
    return pd.DataFrame({name: _row_means(values) for name, values in means.items()})


def copies_of_patients(patients: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """How often each lesion is in each of `draws` sets of patients drawn with replacement: (draws, n)."""
    _, patient = np.unique(patients, return_inverse=True)
    number = patient.max() + 1
    drawn = generator(seed, Stream.LESANET_BOOTSTRAP).integers(number, size=(draws, number))
    return np.stack([np.bincount(one, minlength=number) for one in drawn])[:, patient].astype(np.float64)


def _row_means(values: np.ndarray) -> np.ndarray:
    """The mean of each row's numbers, nan for a row of nan alone: (n, m) to (n,)."""
    there = ~np.isnan(values)
    count = there.sum(1)
    return np.divide(np.where(there, values, 0).sum(1), count, out=np.full(len(values), np.nan), where=count > 0)


TEXT_MINED = "text-mined"


@dataclass(frozen=True)
class Result:
    """A run on one test set: `labels` (see `metrics.label_table`, with kind and train, the lesions it has in training),
    `means` over labels, and these means on resampled sets of patients: `samples`, a row for each of them."""

    labels: pd.DataFrame
    means: pd.Series
    samples: pd.DataFrame

    def with_samples(self, measure: str) -> np.ndarray:
        """The mean of one of METRICS, then the same on each resampled set of patients: (1 + draws,)."""
        return np.r_[self.means[measure], self.samples[measure].to_numpy()]
