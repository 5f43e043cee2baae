"""The primary claims of LENS Table II, decided by several seeds and all test patients together.

They were named before the runs that judge them, but not before the test set was looked at: earlier runs were judged on
the same test patients, so that it is no fresh one. Each is a difference of average sensitivity between two rows. What
moves it is the seed (other training phantoms and other trainings) and the choice of the test patients, which all seeds
share; its variance is the sum of both. Five claims are tested at once, so p is corrected as Holm does (Scand. J. Stat.
1979): whatever the truth is, a wrong "holds" or "fails" comes up among all five in one of twenty benchmarks.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from lensnb.evaluation import published, verdicts
from lensnb.evaluation.claims import PAPER_CLAIMS, paper_odds
from lensnb.evaluation.effects import effect, holm
from lensnb.evaluation.markdown import markdown, write_text
from lensnb.evaluation.verdicts import log_odds
from lensnb.files import write_table

PAIRS = (("a", "baseline"), ("c", "b"), ("e", "a"), ("g", "f"), ("h", "g"))
PRIMARY = tuple(claim for pair in PAIRS for claim in PAPER_CLAIMS if (claim.first, claim.second) == pair)
ROWS = tuple(dict.fromkeys(row for pair in PAIRS for row in pair))
COLUMNS = ["claim", "paper", "ours", "low", "high", "p_corrected", "seeds", "verdict", "size", "detectable"]
NOTE = (
    "Differences of average sensitivity over the seeds, with 95 % intervals for seeds and test patients together. "
    "p_corrected: after Holm, for the hypothesis of no difference; verdicts are at 0.05. size: whether the interval "
    "of the difference of log odds holds the paper's (agrees), since ours are at another level, or lies below "
    "(smaller) or above it (larger). detectable: the smallest difference that so many seeds and patients find with a "
    "power of 0.8 (of this claim alone)."
)


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
