"""The claims drawn from Table II of LENS, by one run: ours beside the paper's, verdicts, and whether sizes agree."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lensnb.evaluation import froc, published, verdicts
from lensnb.evaluation.froc import Evaluation
from lensnb.evaluation.markdown import markdown, write_text


@dataclass(frozen=True)
class Claim:
    """A statement "first minus second is over `bound`", or with `relative` "first / second - 1 is"."""

    text: str
    first: str
    second: str
    bound: float = 0.0
    relative: bool = False


PAPER_CLAIMS = (
    Claim("AFP is better than RPN: (a) - baseline", "a", "baseline"),
    Claim("joint training helps: (b) - (a)", "b", "a"),
    Claim("fusing the experts helps: (c) - (b)", "c", "b"),
    Claim("mining helps on DeepLesion alone: (e) - (a)", "e", "a"),
    Claim("mining helps joint training: (f) - (b)", "f", "b"),
    Claim("mining helps the fused experts: (g) - (c)", "g", "c"),
    Claim("fusion still helps after mining: (g) - (f)", "g", "f"),
    Claim("LENS against one dataset without mining: (g) - (a)", "g", "a"),
    Claim("false positive reduction helps: (h) - (g)", "h", "g"),
    Claim("the FPR score alone is worse than LENS: (g) - FPR alone", "g", "fpr-alone"),
    Claim("LENS against the baseline, relative: (h) / baseline - 1", "h", "baseline", relative=True),
)
PHANTOM_CLAIMS = (
    Claim("more iterations alone do not help by a point: (a) - longer (a)", "a", "a-long", bound=-verdicts.MARGIN),
    Claim("LENS against (a) with at least as many iterations: (g) - longer (a)", "g", "a-long"),
    Claim("missing labels cost on the same slices: complete-keys - (a)", "complete-keys", "a"),
    Claim("complete labels on all slices bring 8 points or more: complete - (a)", "complete", "a", bound=0.08),
)
# (e) differs from both ends of the gap by its labels and slices alone; (g) has the batches of three more datasets, too
GAPS = {
    "e": "(e) recovers a third of the gap between (a) and complete labels",
    "g": "(g), which has three more datasets, recovers a third of that gap",
}
COLUMNS = ["table", "claim", "paper", "ours", "low", "high", "verdict", "size"]
NOTE = (
    "Differences of average sensitivity with paired 95 % intervals, bootstrap over patients. size: whether the "
    "interval of the difference of log odds holds the paper's (agrees) or lies below (smaller) or above it (larger); "
    "empty where the paper has no number. That something does not help holds if it brings less than a point."
)


def table2_claims(evaluations: dict[str, Evaluation], resamples: int = 1000) -> pd.DataFrame:
    """Each claim with the paper's value, ours, its paired 95 % bootstrap interval over patients, verdict and size.

    Verdicts and sizes: see `verdicts.by_interval` and `verdicts.size`. Claims about rows that are not in `evaluations`
    are left out (real data have no truth for the upper bound). The interval measures the choice of test patients, not
    that of the training's seed.
    """
    averages = {name: froc.averages(result.matches, resamples=resamples) for name, result in evaluations.items()}
    lines = []
    for claim in PAPER_CLAIMS + PHANTOM_CLAIMS:
        if claim.first in averages and claim.second in averages:
            ours, paper, size = _compare(claim, averages), np.nan, ""
            if claim in PAPER_CLAIMS:
                paper, size = _compare(claim, published.AVERAGES), _size(claim, averages)
            lines.append(claim_line("table2", claim.text, paper, ours, claim.bound) | {"size": size})
    for name, text in GAPS.items():
        if {name, "a", "complete"} <= averages.keys():
            share = _ratio(averages[name] - averages["a"], averages["complete"] - averages["a"])
            lines.append(claim_line("table2", text, np.nan, share, 1 / 3) | {"size": ""})
    return pd.DataFrame(lines, columns=COLUMNS)


def _size(claim: Claim, averages: dict[str, np.ndarray]) -> str:
    odds = verdicts.log_odds(averages[claim.first]) - verdicts.log_odds(averages[claim.second])
    return verdicts.size(paper_odds(claim), *_interval(odds[1:]))


def paper_odds(claim: Claim) -> float:
    """The paper's difference of log odds between the two rows of a claim; NaN if it has not both."""
    first, second = (published.AVERAGES.get(name, np.nan) for name in (claim.first, claim.second))
    return float(verdicts.log_odds(first) - verdicts.log_odds(second))


def _compare(claim: Claim, values: dict):
    first, second = values[claim.first], values[claim.second]
    return _ratio(first, second) - 1 if claim.relative else first - second


def _ratio(above: np.ndarray | float, below: np.ndarray | float) -> np.ndarray:
    """Quotient of values and samples; NaN, which intervals leave out, where there is nothing to divide by."""
    above, below = np.asarray(above, dtype=float), np.asarray(below, dtype=float)
    return np.divide(above, below, out=np.full_like(below, np.nan), where=below != 0)


def claim_line(table: str, text: str, paper: float, ours: np.ndarray, bound: float = 0.0) -> dict:
    """A line of a table of claims; `ours` is the value followed by its bootstrap samples."""
    low, high = _interval(ours[1:])
    return {
        "table": table,
        "claim": text,
        "paper": paper,
        "ours": ours[0],
        "low": low,
        "high": high,
        "verdict": verdicts.by_interval(low, high, bound),
    }


def _interval(samples: np.ndarray) -> tuple[float, float]:
    return froc.interval(samples) if np.isfinite(samples).any() else (np.nan, np.nan)


def write_claims(table: pd.DataFrame, path: Path, profile: str) -> str:
    """Write the claims as Markdown and return their text."""
    return write_text(f"Claims of Table II, profile {profile}", markdown(for_readers(table)), NOTE, path)


NUMBERS = ("paper", "ours", "low", "high")
SIZES = {
    verdicts.AGREES: "the size agrees with",
    verdicts.SMALLER: "smaller than",
    verdicts.LARGER: "larger than",
}


def for_readers(table: pd.DataFrame) -> pd.DataFrame:
    """The claims with their numbers as text: differences in points, ratios in percent, "" for what is missing."""
    shown = table.drop(columns="table").astype({name: object for name in NUMBERS})
    for name in NUMBERS:
        shown[name] = [_in_words(c, v) for c, v in zip(table["claim"], table[name], strict=True)]
    return shown


def told(claim: pd.Series) -> str:
    """A line of the table of claims in words: what was found, its interval, and its size beside the paper's."""
    ours, low, high = (_in_words(claim["claim"], claim[name]) for name in ("ours", "low", "high"))
    size = f"; {SIZES[claim['size']]} the paper's" if claim["size"] else ""
    return f"{claim['claim']}: {ours} [{low.split()[0]}, {high.split()[0]}]{size}" if ours else claim["claim"]


def is_ratio(claim: str) -> bool:
    """Whether the numbers of a claim are ratios and not differences of average sensitivity."""
    return claim in GAPS.values() or claim in {c.text for c in PAPER_CLAIMS + PHANTOM_CLAIMS if c.relative}


def _in_words(claim: str, value: float) -> str:
    return "" if np.isnan(value) else f"{100 * value:.1f} %" if is_ratio(claim) else f"{100 * value:+.1f} points"


def too_small(table: pd.DataFrame) -> str:
    """Which of the paper's differences are smaller than half of our interval: one run can hardly decide these."""
    own = table[~table["claim"].map(is_ratio) & table["low"].notna()]
    half = (own["high"] - own["low"]) / 2
    names = own.loc[own["paper"].abs() < half, "claim"]
    listed = f": {'; '.join(names)}" if len(names) else ""
    return (
        f"Half of the interval of a difference is {100 * half.min():.1f} to {100 * half.max():.1f} points wide. "
        f"{len(names)} of the paper's {own['paper'].notna().sum()} differences are smaller than that of ours{listed}."
    )
