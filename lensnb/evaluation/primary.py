"""The primary claims of LENS Table II, decided by several seeds and all test patients together.

They were named before the runs that judge them, but not before the test set was looked at: earlier runs were judged on
the same test patients, so that it is no fresh one. Each is a difference of average sensitivity between two rows. What
moves it is the seed (other training phantoms and other trainings) and the choice of the test patients, which all seeds
share; its variance is the sum of both. Five claims are tested at once, so p is corrected as Holm does (Scand. J. Stat.
1979): whatever the truth is, a wrong "holds" or "fails" comes up among all five in one of twenty benchmarks.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from lensnb.evaluation import published, verdicts
from lensnb.evaluation.claims import PAPER_CLAIMS, paper_odds
from lensnb.evaluation.markdown import markdown, write_text
from lensnb.evaluation.verdicts import LEVEL, log_odds
from lensnb.files import write_table

PAIRS = (("a", "baseline"), ("c", "b"), ("e", "a"), ("g", "f"), ("h", "g"))
PRIMARY = tuple(claim for pair in PAIRS for claim in PAPER_CLAIMS if (claim.first, claim.second) == pair)
ROWS = tuple(dict.fromkeys(row for pair in PAIRS for row in pair))
POWER = 0.8
COLUMNS = ["claim", "paper", "ours", "low", "high", "p_corrected", "seeds", "verdict", "size", "detectable"]
NOTE = (
    "Differences of average sensitivity over the seeds, with 95 % intervals for seeds and test patients together. "
    "p_corrected: after Holm, for the hypothesis of no difference; verdicts are at 0.05. size: whether the interval "
    "of the difference of log odds holds the paper's (agrees), since ours are at another level, or lies below "
    "(smaller) or above it (larger). detectable: the smallest difference that so many seeds and patients find with a "
    "power of 0.8 (of this claim alone)."
)


@dataclass(frozen=True)
class Effect:
    """A mean over seeds, its standard error from seeds and patients, and that error's degrees of freedom."""

    value: float
    error: float
    freedom: float

    def interval(self, level: float = 1 - LEVEL) -> tuple[float, float]:
        """Where the true value lies, at this level of confidence."""
        half = stats.t.ppf((1 + level) / 2, self.freedom) * self.error
        return self.value - half, self.value + half

    def p(self) -> float:
        """Two-sided probability of a mean as far from 0, if that is the true value."""
        if self.error == 0:
            return float(self.value == 0)
        return float(2 * stats.t.sf(abs(self.value) / self.error, self.freedom))

    @property
    def detectable(self) -> float:
        """The smallest true difference that is found at LEVEL with probability POWER."""
        return float((stats.t.ppf(1 - LEVEL / 2, self.freedom) + stats.t.ppf(POWER, self.freedom)) * self.error)


def effect(values: np.ndarray, resampled: np.ndarray) -> Effect:
    """The mean of a quantity over seeds.

    values: (seeds,), one from each seed. resampled: (seeds, draws), the same quantity on redrawn test patients, the
    same draw for all seeds in a column. The seeds' share of the variance is that of their mean, the patients' share
    that of the mean over the seeds from draw to draw; the degrees of freedom follow Satterthwaite (1946), with as good
    as infinitely many for the patients. NaN draws (no lesion among the drawn patients) are left out.
    What seeds and patients do together (a seed that is good at some patients) is in both shares and so counted twice:
    the interval is rather too wide than too narrow. A bootstrap that draws seeds and patients counts it three times.
    Raises ValueError for fewer than two seeds: one says nothing about chance between them.
    """
    count = len(values)
    if count < 2:
        raise ValueError(f"{count} seed says nothing about how far seeds differ; run two or more")
    of_seeds = float(np.var(values, ddof=1)) / count
    of_patients = float(np.nanvar(resampled.mean(axis=0), ddof=1))
    both = of_seeds + of_patients
    freedom = (count - 1) * (both / of_seeds) ** 2 if of_seeds else 1e9
    return Effect(float(np.mean(values)), float(np.sqrt(both)), float(min(freedom, 1e9)))


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's corrected p of several tests, in their order: the k-th smallest of m times m + 1 - k, never falling."""
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(np.sort(p) * np.arange(len(p), 0, -1))
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(steps, 1)
    return corrected


def primary_claims(averages: Mapping[int, Mapping[str, np.ndarray]]) -> pd.DataFrame:
    """The primary claims: COLUMNS, a line for each.

    averages: seed -> row of Table II -> (1 + draws,), the average sensitivity and its samples on redrawn test patients
    (`froc.averages`), the same draws for all seeds and rows.
    Raises ValueError if a row is missing, fewer than two seeds are there, or their draws differ in number.
    """
    _check(averages)
    of_row = {row: np.array([averages[seed][row] for seed in sorted(averages)]) for row in ROWS}  # (seeds, 1 + draws)
    lines, effects = [], []
    for claim in PRIMARY:
        apart = of_row[claim.first] - of_row[claim.second]
        odds = log_odds(of_row[claim.first]) - log_odds(of_row[claim.second])
        found, size = effect(apart[:, 0], apart[:, 1:]), effect(odds[:, 0], odds[:, 1:])
        paper = published.AVERAGES[claim.first] - published.AVERAGES[claim.second]
        lines.append([claim.text, paper, found.value, *found.interval(), np.nan, len(averages), "",
                      verdicts.size(paper_odds(claim), *size.interval()), found.detectable])  # fmt: skip
        effects.append(found)
    table = pd.DataFrame(lines, columns=COLUMNS)
    table["p_corrected"] = holm(np.array([one.p() for one in effects]))
    table["verdict"] = [verdicts.by_p(v, p) for v, p in zip(table["ours"], table["p_corrected"], strict=True)]
    return table


def _check(averages: Mapping[int, Mapping[str, np.ndarray]]) -> None:
    for seed, rows in averages.items():
        if missing := [row for row in ROWS if row not in rows]:
            raise ValueError(f"seed {seed} has no row {', '.join(missing)} of Table II")
    if len({len(rows[row]) for rows in averages.values() for row in ROWS}) > 1:
        raise ValueError("the seeds differ in their number of bootstrap samples; make them with the same version")


def write_primary(table: pd.DataFrame, csv: Path, page: Path, profile: str) -> str:
    """Write the table as csv and as Markdown, and return its text."""
    write_table(table, csv)
    text = markdown(table, percent=["paper", "ours", "low", "high", "detectable"])
    return write_text(f"Primary claims of Table II, profile {profile}", text, NOTE, page)
