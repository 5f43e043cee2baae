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

from lensnb.datasets.manual_boxes import MANUAL_FILE
from lensnb.evaluation import froc, published
from lensnb.evaluation.claims import PAPER_CLAIMS
from lensnb.evaluation.froc import Matches
from lensnb.evaluation.markdown import markdown, write_text
from lensnb.evaluation.official import read_truth
from lensnb.files import read_table, write_table
from lensnb.runfolder import Run

PAIRS = (("a", "baseline"), ("c", "b"), ("e", "a"), ("g", "f"), ("h", "g"))
PRIMARY = tuple(claim for pair in PAIRS for claim in PAPER_CLAIMS if (claim.first, claim.second) == pair)
ROWS = tuple(dict.fromkeys(row for pair in PAIRS for row in pair))
LEVEL = 0.05  # of all primary claims together
POWER = 0.8
COLUMNS = ["claim", "paper", "ours", "low", "high", "p_corrected", "seeds", "verdict", "size_agrees", "detectable"]
NOTE = (
    "Differences of average sensitivity over the seeds, with 95 % intervals for seeds and test patients together. "
    "p_corrected: after Holm, for the hypothesis of no difference; verdicts are at 0.05. size_agrees: whether the "
    "interval of the difference of log odds holds the paper's, since ours are at another level. detectable: the "
    "smallest difference that so many seeds and patients find with a power of 0.8 (of this claim alone)."
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


def primary_claims(matches: Mapping[int, Mapping[str, Matches]], resamples: int = 1000) -> pd.DataFrame:
    """The primary claims: COLUMNS, a line for each.

    matches: seed -> row of Table II -> what its detections found on the test set that all seeds share.
    Raises ValueError if a row is missing, fewer than two seeds are there, or their test sets differ.
    """
    _check(matches)
    averages, resampled = {}, {}
    for row in ROWS:
        own = [of_seed[row] for of_seed in matches.values()]
        averages[row] = np.array([froc.sensitivity_at(froc.curve(one)).mean() for one in own])
        resampled[row] = np.array([froc.bootstrap(one, resamples=resamples).mean(axis=1) for one in own])
    lines, effects = [], []
    for claim in PRIMARY:
        found = effect(averages[claim.first] - averages[claim.second],
                       resampled[claim.first] - resampled[claim.second])  # fmt: skip
        odds = effect(log_odds(averages[claim.first]) - log_odds(averages[claim.second]),
                      log_odds(resampled[claim.first]) - log_odds(resampled[claim.second]))  # fmt: skip
        paper = [published.AVERAGES[row] for row in (claim.first, claim.second)]
        low, high = odds.interval()
        agrees = low <= log_odds(paper[0]) - log_odds(paper[1]) <= high
        lines.append([claim.text, paper[0] - paper[1], found.value, *found.interval(), np.nan, len(matches), "",
                      "yes" if agrees else "no", found.detectable])  # fmt: skip
        effects.append(found)
    table = pd.DataFrame(lines, columns=COLUMNS)
    table["p_corrected"] = holm(np.array([one.p() for one in effects]))
    decided = table["p_corrected"] < LEVEL
    table["verdict"] = np.select([decided & (table["ours"] > 0), decided], ["holds", "fails"], "undecided")
    return table


def matches_of(runs: Mapping[int, Run]) -> dict[int, dict[str, Matches]]:
    """What the detections of each seed's run found, for `primary_claims`; empty where none has all ROWS.

    A run without all of them is left out, as one is whose tables alone were copied from another machine.
    """
    found = {}
    for seed, run in runs.items():
        if all(run.detections(row).exists() for row in ROWS):
            truth = read_truth(run.raw / MANUAL_FILE, "test")
            found[seed] = {row: froc.match(truth, read_table(run.detections(row))) for row in ROWS}
    return found


def log_odds(share: np.ndarray | float) -> np.ndarray | float:
    """log(p / (1 - p)), on which differences at different levels can be compared."""
    share = np.clip(share, 1e-6, 1 - 1e-6)
    return np.log(share) - np.log1p(-share)


def _check(matches: Mapping[int, Mapping[str, Matches]]) -> None:
    first = next(iter(matches.values()), {})
    for seed, rows in matches.items():
        if missing := [row for row in ROWS if row not in rows]:
            raise ValueError(f"seed {seed} has no row {', '.join(missing)} of Table II")
        for row in ROWS:
            same = rows[row].volumes == first["a"].volumes and np.array_equal(rows[row].lesions, first["a"].lesions)
            if not same:
                raise ValueError(f"seed {seed}, row {row}: its test set is another one; all seeds must share theirs")


def write_primary(table: pd.DataFrame, csv: Path, page: Path, profile: str) -> str:
    """Write the table as csv and as Markdown, and return its text."""
    write_table(table, csv)
    text = markdown(table, percent=["paper", "ours", "low", "high", "detectable"])
    return write_text(f"Primary claims of Table II, profile {profile}", text, NOTE, page)
