"""LUNA16's official nodule evaluation: sensitivity at 1/8 to 8 false positives per scan, and their mean (CPM).

The rules are those of the challenge's own script (Setio et al. 2017), to the last digit:
* at most 100 marks of a scan count: those of probability strictly above the 101st;
* a mark hits a finding if it is strictly nearer to its centre than its radius; a diameter of -1 means 10 mm;
* a nodule has the probability of its best mark, its other marks are ignored;
* marks on excluded findings (`annotations_excluded.csv`) are ignored;
* every other mark is a false positive; a nodule without a mark counts as missed;
* the sensitivity between two points of the curve is interpolated linearly.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lensnb.froc import RATES, require_columns

POSITION = ["coordX", "coordY", "coordZ"]
MAX_MARKS = 100
DIAMETER_IF_UNKNOWN_MM = 10.0


@dataclass(frozen=True)
class LunaMatches:
    """The marks that count and what was counted on the way, under the names of the official report."""

    scans: int
    nodules: int
    true_probability: np.ndarray  # one for each nodule found: its best mark's
    false_probability: np.ndarray  # one for each false positive
    candidates: int  # marks that were kept
    on_excluded: int  # marks ignored because they lie on an excluded finding
    doubles: int  # further marks on a nodule already found
    beyond_100: int  # marks dropped by the limit of 100 a scan
    other_scans: int  # marks on scans that are not evaluated


def read_seriesuids(path: Path | str) -> list[str]:
    """Read one series uid a line. ValueError for a header or a repeated scan: each would count as a scan."""
    uids = [line.strip() for line in Path(path).read_text().splitlines() if line.strip()]
    if not uids:
        raise ValueError(f"{path}: no series uid in it")
    if "seriesuid" in uids:
        raise ValueError(f"{path}: a header line; the official file has none, and it would count as a scan: remove it")
    repeated = pd.Series(uids)[pd.Series(uids).duplicated()]
    if len(repeated):
        raise ValueError(f"{path}: {len(repeated)} scan(s) repeated, the first is {repeated.iloc[0]}")
    return uids


def read_findings(path: Path | str, value: str) -> pd.DataFrame:
    """Read a csv with seriesuid, coordX, coordY, coordZ (LPS mm) and the column `value`.

    ValueError naming file and row if a column or a number is missing.
    """
    table = pd.read_csv(path, dtype={"seriesuid": str}, skipinitialspace=True)
    require_columns(table, ["seriesuid", *POSITION, value], str(path))
    for column in [*POSITION, value]:
        numbers = pd.to_numeric(table[column], errors="coerce")
        bad = np.flatnonzero(~np.isfinite(numbers.to_numpy(dtype=float)))
        if len(bad):
            raise ValueError(f"{path}, row {bad[0] + 1}: {column} is {table[column].iloc[bad[0]]}, not a finite number")
        table[column] = numbers
    return table


def match(
    annotations: pd.DataFrame, excluded: pd.DataFrame, seriesuids: Sequence[str], submission: pd.DataFrame
) -> LunaMatches:
    """Match the marks of each evaluated scan to its nodules and excluded findings, tables of `read_findings`."""
    nodules_of, excluded_of, marks_of = (
        {uid: rows for uid, rows in table.groupby("seriesuid", sort=False)}
        for table in (annotations, excluded, submission)
    )
    true, false = [], []
    nodules = candidates = on_excluded = doubles = beyond = 0
    for uid in seriesuids:
        scan_nodules = nodules_of.get(uid, annotations[:0])
        nodules += len(scan_nodules)
        if uid not in marks_of:
            continue
        marks = marks_of[uid]
        kept = marks[_among_best(marks["probability"].to_numpy())]
        candidates += len(kept)
        beyond += len(marks) - len(kept)
        probability = kept["probability"].to_numpy()
        on_nodule = _hits(scan_nodules, kept)
        for hits in on_nodule:
            if hits.any():
                true.append(probability[hits].max())
                doubles += int(hits.sum()) - 1
        free = ~on_nodule.any(axis=0)
        irrelevant = free & _hits(excluded_of.get(uid, excluded[:0]), kept).any(axis=0)
        on_excluded += int(irrelevant.sum())
        false.extend(probability[free & ~irrelevant])
    if nodules == 0:
        raise ValueError("no nodule is annotated in the evaluated scans, so there is no sensitivity")
    return LunaMatches(
        scans=len(seriesuids),
        nodules=nodules,
        true_probability=np.array(true, dtype=float),
        false_probability=np.array(false, dtype=float),
        candidates=candidates,
        on_excluded=on_excluded,
        doubles=doubles,
        beyond_100=beyond,
        other_scans=len(submission) - candidates - beyond,
    )


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
    """
    probability = np.concatenate([matches.true_probability, matches.false_probability])
    is_true = np.arange(len(probability)) < len(matches.true_probability)
    order = np.argsort(-probability, kind="stable")
    last_of_tie = np.append(np.diff(probability[order]) != 0, True) if len(order) else np.zeros(0, dtype=bool)
    true = np.concatenate([[0.0], np.cumsum(is_true[order])[last_of_tie]])
    false = np.concatenate([[0.0], np.cumsum(~is_true[order])[last_of_tie]])
    found, wrong = true[-1], false[-1]
    false_positives = false / max(wrong, 1) * wrong / matches.scans
    sensitivity = true / max(found, 1) * found / matches.nodules
    return false_positives, sensitivity


def sensitivity_at(points: tuple[np.ndarray, np.ndarray], rates: Sequence[float] = RATES) -> np.ndarray:
    """Sensitivity at each false positive rate by linear interpolation, its last value beyond the end."""
    return np.interp(rates, *points)


def evaluate(
    annotations: pd.DataFrame, excluded: pd.DataFrame, seriesuids: Sequence[str], submission: pd.DataFrame
) -> dict:
    """The official result: fp, sensitivity, cpm (their mean), and the counts of the official report."""
    matches = match(annotations, excluded, seriesuids, submission)
    sensitivity = sensitivity_at(curve(matches))
    return {
        "fp": list(RATES),
        "sensitivity": sensitivity.tolist(),
        "cpm": float(sensitivity.mean()),
        "scans": matches.scans,
        "nodules": matches.nodules,
        "true_positives": len(matches.true_probability),
        "false_positives": len(matches.false_probability),
        "candidates": matches.candidates,
        "candidates_on_excluded_findings": matches.on_excluded,
        "double_candidates": matches.doubles,
        "candidates_beyond_100_a_scan": matches.beyond_100,
        "candidates_on_other_scans": matches.other_scans,
    }


def evaluate_files(annotations: Path, excluded: Path, seriesuids: Path, submission: Path) -> dict:
    """`evaluate` on the files of the challenge's layout. FileNotFoundError or ValueError names the file."""
    return evaluate(
        read_findings(annotations, "diameter_mm"),
        read_findings(excluded, "diameter_mm"),
        read_seriesuids(seriesuids),
        read_findings(submission, "probability"),
    )
