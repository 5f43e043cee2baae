"""Table II of LENS and the claims drawn from it: ours beside the paper's."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lensnb import froc, published
from lensnb.files import atomic_write
from lensnb.froc import Evaluation

COMPONENTS = ("afp", "multi_dataset", "proposal_fusion", "mam", "fpr")
FP_COLUMNS = [f"fp_{rate:g}" for rate in froc.RATES]


@dataclass(frozen=True)
class Row:
    """One line of Table II: which experiment's proposals it scores, and which experts it listens to."""

    name: str
    method: str
    experiment: str
    components: tuple[str, ...]
    experts: tuple[str, ...] | None = ("DeepLesion",)  # None: all, fused


ROWS = (
    Row("baseline", "Baseline: RPN, DeepLesion alone", "baseline", ()),
    Row("a", "AFP instead of RPN", "single", ("afp",)),
    Row("a-long", "(a) with half as many iterations more: control", "single-long", ("afp",)),
    Row("b", "joint training, DeepLesion expert", "multi", ("afp", "multi_dataset")),
    Row("c", "joint training, experts fused", "multi", ("afp", "multi_dataset", "proposal_fusion"), None),
    Row("e", "DeepLesion alone, mined labels", "single-mined", ("afp", "mam")),
    Row("f", "joint training, mined labels, DeepLesion expert", "multi-mined", ("afp", "multi_dataset", "mam")),
    Row("g", "all of LENS", "multi-mined", ("afp", "multi_dataset", "proposal_fusion", "mam"), None),
    Row("h", "LENS and 3D false positive reduction", "multi-mined", COMPONENTS, None),
    Row("complete", "(a) trained on complete labels: upper bound", "single-complete", ("afp",)),
    Row("oracle-mined", "oracle: (a) and all lesions marked in some scan", "oracle-mined", ("afp", "mam")),
    Row("oracle-ignored", "oracle: the same, other lesions ignored", "oracle-ignored", ("afp", "mam")),
)

LABELS = {row.name: f"({row.name}) {row.method}" if len(row.name) == 1 else row.method for row in ROWS} | {
    "fpr-alone": "FPR score alone"
}


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


def table2(evaluations: dict[str, Evaluation]) -> pd.DataFrame:
    """Table II, one line for each of ROWS that is in `evaluations` (by row name), all sensitivities as fractions."""
    lines = []
    for row in ROWS:
        if row.name not in evaluations:
            continue
        result = evaluations[row.name]
        line = {"row": row.name, "method": row.method}
        line |= {component: "yes" if component in row.components else "no" for component in COMPONENTS}
        line |= dict(zip(FP_COLUMNS, result.sensitivity, strict=True))
        line |= {"average": result.average, "average_low": result.average_low, "average_high": result.average_high}
        line["paper_average"] = published.TABLE2.get(row.name, (None, np.nan))[1]
        lines.append(line)
    return pd.DataFrame(lines)


def claims(evaluations: dict[str, Evaluation], resamples: int = 1000) -> pd.DataFrame:
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


def table2_markdown(table: pd.DataFrame) -> str:
    """Table II for readers: percent, each sensitivity of ours over the paper's in brackets."""
    lines = []
    for row in table.to_dict("records"):
        paper, paper_average = published.TABLE2.get(row["row"], ((None,) * 7, None))
        line = {"row": row["row"], "method": row["method"]}
        line |= {c.replace("_", " "): "x" if row[c] == "yes" else "" for c in COMPONENTS}
        for rate, column, value in zip(froc.RATES, FP_COLUMNS, paper, strict=True):
            line[f"FP@{rate:g}"] = _with_paper(f"{100 * row[column]:.1f}", value)
        interval = f"{100 * row['average']:.1f} [{100 * row['average_low']:.1f}, {100 * row['average_high']:.1f}]"
        line["average [95 %]"] = _with_paper(interval, paper_average)
        lines.append(line)
    return markdown(pd.DataFrame(lines))


def _with_paper(ours: str, paper: float | None) -> str:
    return ours if paper is None else f"{ours} ({100 * paper:.1f})"


def markdown(table: pd.DataFrame, percent: Sequence[str] = (), digits: int = 3) -> str:
    """A table as Markdown: floats with `digits` digits, the columns in `percent` as percent, missing values empty."""
    header = [str(column) for column in table.columns]
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for values in table.itertuples(index=False, name=None):
        cells = [_cell(value, name in percent, digits) for name, value in zip(header, values, strict=True)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(value: object, as_percent: bool, digits: int) -> str:
    if value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value)):
        return ""
    if as_percent:
        return f"{100 * value:.1f} %"
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)


def write_table2(table: pd.DataFrame, path: Path, profile: str) -> str:
    """Write Table II as Markdown, with the paper's numbers in brackets, and return its text."""
    note = (
        "Sensitivity in % on the test patients at that many false positives per sub-volume (3D IoBB >= 0.3), in "
        "brackets the paper's values on real data. Intervals: 95 %, bootstrap over patients."
    )
    return write_text(f"Table II, profile {profile}", table2_markdown(table), note, path)


def write_claims(table: pd.DataFrame, path: Path, profile: str) -> str:
    """Write the claims as Markdown and return their text."""
    text = markdown(table.drop(columns="table"), percent=["paper", "ours", "low", "high"])
    note = "Differences of average sensitivity with paired 95 % intervals, bootstrap over patients."
    return write_text(f"Claims of Table II, profile {profile}", text, note, path)


def write_text(title: str, text: str, note: str, path: Path) -> str:
    """Write a table's text with a title and a note, and return it without the title."""
    body = f"{text}\n{note}\n"
    with atomic_write(path) as temporary:
        temporary.write_text(f"# {title}\n\n{body}")
    return body
