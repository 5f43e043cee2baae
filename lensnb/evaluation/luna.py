"""LUNA16's official nodule evaluation: sensitivity at 1/8 to 8 false positives per scan, and their mean (CPM).

The rules are those of the challenge's own script (Setio et al. 2017), to the last digit:
* at most 100 marks of a scan count: those of probability strictly above the 101st;
* a mark hits a finding if it is strictly nearer to its centre than its radius; a diameter of -1 means 10 mm;
* a nodule has the probability of its best mark, its other marks are ignored;
* marks on excluded findings (`annotations_excluded.csv`) are ignored;
* every other mark is a false positive; a nodule without a mark counts as missed;
* the sensitivity between two points of the curve is interpolated linearly;
* the interval is that of 1000 sets of scans drawn with replacement. The script draws them from an unseeded
  generator, so its interval changes from run to run; here a seed fixes it.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd

from lensnb.boxes import MARK as POSITION
from lensnb.evaluation.froc import RATES
from lensnb.evaluation.luna_files import check_scans, read_findings, read_seriesuids, require_rows_on
from lensnb.evaluation.luna_files import read_challenge as read_challenge
from lensnb.files import check_output, write_json
from lensnb.streams import Stream, generator

MAX_MARKS = 100
DIAMETER_IF_UNKNOWN_MM = 10.0
# what can become of a mark
HIT, DOUBLE, ON_EXCLUDED, FALSE, BEYOND = "hit", "double", "on excluded", "false", "beyond 100"


@dataclass(frozen=True)
class LunaMatches:
    """What became of the nodules and of the marks of the evaluated scans.

    nodules: their rows of the annotations, with `scan` (index into `seriesuids`) and `probability`, that of the
    best mark, NaN if the nodule is missed. marks: the rows of the submission that lie on these scans, with `scan`
    and `outcome`: "hit" (the best mark of a nodule), "double", "on excluded", "false" or "beyond 100". doubles:
    marks on a nodule besides its best one, counted for each nodule. other_scans: marks on scans not evaluated.
    """

    seriesuids: tuple[str, ...]
    nodules: pd.DataFrame
    marks: pd.DataFrame
    doubles: int
    other_scans: int

    @property
    def true_probability(self) -> np.ndarray:
        """The probability of each nodule found."""
        return self.nodules["probability"].dropna().to_numpy()

    @property
    def false_probability(self) -> np.ndarray:
        """The probability of each false positive."""
        return self.marks.loc[self.marks["outcome"] == FALSE, "probability"].to_numpy()


def match(
    annotations: pd.DataFrame, excluded: pd.DataFrame, seriesuids: Sequence[str], submission: pd.DataFrame
) -> LunaMatches:
    """Match the marks of each evaluated scan to its nodules and excluded findings, tables of `read_findings`."""
    scan_of = {uid: scan for scan, uid in enumerate(seriesuids)}
    nodules, irrelevant, marks = (
        table.assign(scan=table["seriesuid"].map(scan_of)).dropna(subset="scan").astype({"scan": int})
        for table in (annotations, excluded, submission)
    )
    probability, outcome = np.full(len(nodules), np.nan), np.full(len(marks), FALSE, dtype=object)
    all_probabilities = marks["probability"].to_numpy(dtype=float)
    nodules_of, irrelevant_of = _rows_by_scan(nodules), _rows_by_scan(irrelevant)
    doubles = 0
    for scan, rows in _rows_by_scan(marks).items():
        best = _among_best(all_probabilities[rows])
        outcome[rows[~best]] = BEYOND
        rows = rows[best]
        on_excluded = _hits(irrelevant.iloc[irrelevant_of.get(scan, [])], marks.iloc[rows]).any(axis=0)
        outcome[rows[on_excluded]] = ON_EXCLUDED
        here = nodules_of.get(scan, np.zeros(0, dtype=int))
        on_nodule = _hits(nodules.iloc[here], marks.iloc[rows])
        outcome[rows[on_nodule.any(axis=0)]] = DOUBLE
        for nodule, hits in zip(here, on_nodule, strict=True):
            if hits.any():
                first = rows[hits][np.argmax(all_probabilities[rows[hits]])]
                probability[nodule] = all_probabilities[first]
                outcome[first] = HIT
                doubles += int(hits.sum()) - 1
    return LunaMatches(
        seriesuids=tuple(seriesuids),
        nodules=nodules.assign(probability=probability),
        marks=marks.assign(outcome=outcome),
        doubles=doubles,
        other_scans=len(submission) - len(marks),
    )


def _rows_by_scan(table: pd.DataFrame) -> dict[int, np.ndarray]:
    return table.groupby("scan", sort=False).indices


def _among_best(probability: np.ndarray) -> np.ndarray:
    """Which marks of a scan are kept: all of up to 100, else those strictly above the 101st."""
    if len(probability) <= MAX_MARKS:
        return np.ones(len(probability), dtype=bool)
    return probability > np.sort(probability)[::-1][MAX_MARKS]


def _hits(findings: pd.DataFrame, marks: pd.DataFrame) -> np.ndarray:
    """Which of m marks lie strictly inside each of n findings: (n, m)."""
    diameter = findings["diameter_mm"].to_numpy(dtype=float)
    radius = np.where(diameter < 0, DIAMETER_IF_UNKNOWN_MM, diameter) / 2
    apart = findings[POSITION].to_numpy(dtype=float)[:, None] - marks[POSITION].to_numpy(dtype=float)[None]
    return (apart**2).sum(axis=2) < (radius**2)[:, None]


def curve(matches: LunaMatches) -> tuple[np.ndarray, np.ndarray]:
    """False positives per scan and sensitivity at each distinct probability, falling, from (0, 0).

    The official script scales a ROC curve; the divisions follow its order, since points that meet a rate
    exactly are common (888 scans, 1/8 FP) and rounding decides on which side of the rate they fall.
    NaN sensitivities if no nodule is annotated in the evaluated scans.
    """
    return _curve(_by_probability(matches), _nodules_of_scans(matches), np.ones(len(matches.seriesuids), dtype=int))


def _by_probability(matches: LunaMatches) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scan, whether it is a nodule found, and whether a lower probability follows: (n,) by falling probability."""
    found = matches.nodules.dropna(subset="probability")
    wrong = matches.marks[matches.marks["outcome"] == FALSE]
    scan = np.concatenate([found["scan"], wrong["scan"]]).astype(int)
    probability = np.concatenate([found["probability"], wrong["probability"]]).astype(float)
    is_true = np.arange(len(scan)) < len(found)
    order = np.argsort(-probability, kind="stable")
    last_of_tie = np.append(probability[order][1:] != probability[order][:-1], len(order) > 0)[: len(order)]
    return scan[order], is_true[order], last_of_tie


def _nodules_of_scans(matches: LunaMatches) -> np.ndarray:
    return np.bincount(matches.nodules["scan"], minlength=len(matches.seriesuids))


def _curve(
    points: tuple[np.ndarray, np.ndarray, np.ndarray], nodules: np.ndarray, times: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The curve of a set of scans in which each occurs `times` (scans,) times."""
    scan, is_true, last_of_tie = points
    weight = times[scan]
    true = np.concatenate([[0.0], np.cumsum(weight * is_true)[last_of_tie]])
    false = np.concatenate([[0.0], np.cumsum(weight * ~is_true)[last_of_tie]])
    found, wrong = true[-1], false[-1]
    false_positives = false / max(wrong, 1) * wrong / times.sum()
    there = int(times @ nodules)
    sensitivity = true / max(found, 1) * found / there if there else np.full(len(true), np.nan)
    return false_positives, sensitivity


def sensitivity_at(points: tuple[np.ndarray, np.ndarray], rates: Sequence[float] = RATES) -> np.ndarray:
    """Sensitivity at each false positive rate by linear interpolation, its last value beyond the end."""
    return np.interp(rates, *points)


def bootstrap(matches: LunaMatches, resamples: int = 1000, seed: int = 0) -> np.ndarray:
    """Sensitivities at 1/8 to 8 of sets of scans drawn with replacement: (resamples, 7); a row's mean is its CPM.

    The draw depends on the number of scans and the seed alone, so the samples of two methods on the same scans can
    be subtracted. A set without nodules gives NaN.
    """
    scans = len(matches.seriesuids)
    points, nodules = _by_probability(matches), _nodules_of_scans(matches)
    draws = generator(seed, Stream.LUNA_BOOTSTRAP, scans).multinomial(scans, np.full(scans, 1 / scans), size=resamples)
    samples = np.full((resamples, len(RATES)), np.nan)
    for sample, times in zip(samples, draws, strict=True):
        sample[:] = sensitivity_at(_curve(points, nodules, times))
    return samples


def interval(samples: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """The official interval of (n,) samples, NaN left out: of the sorted ones, those at 2.5 % and 97.5 % of n."""
    ordered = np.sort(samples[np.isfinite(samples)])
    if not len(ordered):
        return float("nan"), float("nan")
    tail = (1.0 - level) / 2.0
    low, high = (ordered[min(int(part * len(ordered)), len(ordered) - 1)] for part in (tail, 1.0 - tail))
    return float(low), float(high)


def found_at(matches: LunaMatches, rate: float = 1.0) -> np.ndarray:
    """Which nodules are found at the lowest threshold with at most `rate` false positives per scan: (nodules,) bool."""
    false = np.sort(matches.false_probability)[::-1]
    allowed = int(rate * len(matches.seriesuids))
    lowest = false[allowed] if len(false) > allowed else -np.inf
    return (matches.nodules["probability"] > lowest).to_numpy()


def by_size(matches: dict[str, LunaMatches], edges_mm: Sequence[float], rate: float = 1.0) -> pd.DataFrame:
    """Share of the nodules of each size that several detectors find at `rate` false positives per scan.

    matches: by the detector's name, of the same scans. One row for each range of diameters between `edges_mm` that
    has nodules: diameter, nodules, and a column for each detector.
    """
    nodules = next(iter(matches.values())).nodules
    size = np.digitize(nodules["diameter_mm"], edges_mm)
    names = [f"under {edges_mm[0]:g} mm", *(f"{low:g} to {high:g} mm" for low, high in pairwise(edges_mm))]
    names = np.array([*names, f"{edges_mm[-1]:g} mm and more"], dtype=object)
    table = pd.DataFrame({name: found_at(one, rate) for name, one in matches.items()}).groupby(size).mean()
    counts = np.bincount(size, minlength=len(names))[table.index]
    return pd.DataFrame({"diameter": names[table.index], "nodules": counts}).join(table.reset_index(drop=True))


def evaluate(
    annotations: pd.DataFrame,
    excluded: pd.DataFrame,
    seriesuids: Sequence[str],
    submission: pd.DataFrame,
    resamples: int = 1000,
    seed: int = 0,
) -> dict:
    """The official result: fp, sensitivity, cpm (their mean), its interval, and the counts of the official report.

    ValueError if no nodule is annotated in the evaluated scans.
    """
    matches = match(annotations, excluded, seriesuids, submission)
    if matches.nodules.empty:
        raise ValueError("no nodule is annotated in the evaluated scans, so there is no sensitivity")
    return report(matches, resamples, seed)


def report(matches: LunaMatches, resamples: int = 1000, seed: int = 0) -> dict:
    """What `evaluate` returns, of scans that are matched already; NaN where there is no nodule to find."""
    sensitivity = sensitivity_at(curve(matches))
    low, high = interval(bootstrap(matches, resamples, seed).mean(axis=1))
    outcomes = matches.marks["outcome"].value_counts()
    return {
        "fp": list(RATES),
        "sensitivity": sensitivity.tolist(),
        "cpm": float(sensitivity.mean()),
        "cpm_low": low,
        "cpm_high": high,
        "scans": len(matches.seriesuids),
        "nodules": len(matches.nodules),
        "true_positives": len(matches.true_probability),
        "false_positives": len(matches.false_probability),
        "candidates": len(matches.marks) - int(outcomes.get(BEYOND, 0)),
        "candidates_on_excluded_findings": int(outcomes.get(ON_EXCLUDED, 0)),
        "double_candidates": matches.doubles,
        "candidates_beyond_100_a_scan": int(outcomes.get(BEYOND, 0)),
        "candidates_on_other_scans": matches.other_scans,
    }


def evaluate_files(annotations: Path, excluded: Path, seriesuids: Path, submission: Path) -> dict:
    """`evaluate` on the files of the challenge's layout, and how many nodules and marks are there more than once.

    FileNotFoundError or ValueError names the file: also if no nodule or no mark lies on a listed scan, or the files
    spell the scans differently. A submission without marks is one that finds nothing.
    """
    nodules, findings = (read_findings(path, "diameter_mm") for path in (annotations, excluded))
    scans, marks = read_seriesuids(seriesuids), read_findings(submission, "probability")
    check_scans(scans, seriesuids, {annotations: nodules, excluded: findings, submission: marks})
    if nodules.empty:
        raise ValueError(f"{annotations} has no rows: without a nodule there is no sensitivity")
    require_rows_on(scans, seriesuids, annotations, nodules, "nodules")
    require_rows_on(scans, seriesuids, submission, marks, "marks")
    return evaluate(nodules, findings, scans, marks) | {
        "repeated_nodules": int(nodules.duplicated(["seriesuid", *POSITION]).sum()),
        "repeated_candidates": int(marks.duplicated(["seriesuid", *POSITION, "probability"]).sum()),
    }


def command(annotations: Path, excluded: Path, seriesuids: Path, submission: Path, json: Path | None) -> str:
    """The command `evaluate-luna`: the sensitivities and the CPM; the whole result is written to `json`."""
    if json:
        check_output(json, "--json", inputs=(annotations, excluded, seriesuids, submission))
    result = evaluate_files(annotations, excluded, seriesuids, submission)
    notes = {
        f"{result['candidates_on_other_scans']} marks lie on scans that --seriesuids does not list; they are not "
        "scored": result["candidates_on_other_scans"],
        f"{result['repeated_nodules']} nodules of --annotations are there more than once; each counts, as in the "
        "official script": result["repeated_nodules"],
        f"{result['repeated_candidates']} marks are there more than once; they count as the official script counts "
        "them": result["repeated_candidates"],
        "--submission has no marks: nothing was found": not result["candidates"]
        and not result["candidates_on_other_scans"]
        and not result["candidates_beyond_100_a_scan"],
    }
    sys.stderr.writelines(f"lensnb: note: {text}\n" for text, happens in notes.items() if happens)
    if json:
        write_json(result, json)
    rates = "".join(f"{rate:>8g}" for rate in result["fp"]) + "     CPM"
    return rates + "\n" + "".join(f"{value:8.4f}" for value in [*result["sensitivity"], result["cpm"]])
