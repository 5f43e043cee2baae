"""Table II of LENS and the claims drawn from it: ours beside the paper's."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lensnb.evaluation import froc, published
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
    Claim("more iterations alone do not help: (a) - longer (a)", "a", "a-long"),
    Claim("LENS against (a) with at least as many iterations: (g) - longer (a)", "g", "a-long"),
    Claim("missing labels cost 8 points or more: complete - (a)", "complete", "a", bound=0.08),
)
GAP_TEXT = "(g) recovers a third of the gap between (a) and complete labels"


def table2_claims(evaluations: dict[str, Evaluation], resamples: int = 1000) -> pd.DataFrame:
    """Each claim with the paper's value, ours, its paired 95 % bootstrap interval over patients, and a verdict.

    A claim holds if the whole interval is above its bound, fails if the whole interval is below it, and is
    undecided otherwise. Claims about rows that are not in `evaluations` are left out (real data have no truth
    for the upper bound). The interval measures the choice of test patients, not that of the training's seed.
    """
    averages = {
        name: np.r_[result.average, froc.bootstrap(result.matches, resamples=resamples).mean(axis=1)]
        for name, result in evaluations.items()
    }
    lines = []
    for claim in PAPER_CLAIMS + PHANTOM_CLAIMS:
        if claim.first in averages and claim.second in averages:
            ours = _compare(claim, averages)
            paper = _compare(claim, published.AVERAGES) if claim in PAPER_CLAIMS else np.nan
            lines.append(claim_line("table2", claim.text, paper, ours, claim.bound))
    if {"g", "a", "complete"} <= averages.keys():
        share = _ratio(averages["g"] - averages["a"], averages["complete"] - averages["a"])
        lines.append(claim_line("table2", GAP_TEXT, np.nan, share, 1 / 3))
    return pd.DataFrame(lines, columns=["table", "claim", "paper", "ours", "low", "high", "verdict"])


def _compare(claim: Claim, values: dict):
    first, second = values[claim.first], values[claim.second]
    return _ratio(first, second) - 1 if claim.relative else first - second


def _ratio(above: np.ndarray | float, below: np.ndarray | float) -> np.ndarray:
    """Quotient of values and samples; NaN, which intervals leave out, where there is nothing to divide by."""
    above, below = np.asarray(above, dtype=float), np.asarray(below, dtype=float)
    return np.divide(above, below, out=np.full_like(below, np.nan), where=below != 0)


def claim_line(table: str, text: str, paper: float, ours: np.ndarray, bound: float = 0.0) -> dict:
    """A line of a table of claims; `ours` is the value followed by its bootstrap samples."""
    low, high = froc.interval(ours[1:]) if np.isfinite(ours[1:]).any() else (np.nan, np.nan)
    verdict = "holds" if low > bound else "fails" if high < bound else "undecided"
    return {
        "table": table,
        "claim": text,
        "paper": paper,
        "ours": ours[0],
        "low": low,
        "high": high,
        "verdict": verdict,
    }


def write_claims(table: pd.DataFrame, path: Path, profile: str) -> str:
    """Write the claims as Markdown and return their text."""
    text = markdown(table.drop(columns="table"), percent=["paper", "ours", "low", "high"])
    note = "Differences of average sensitivity with paired 95 % intervals, bootstrap over patients."
    return write_text(f"Claims of Table II, profile {profile}", text, note, path)
