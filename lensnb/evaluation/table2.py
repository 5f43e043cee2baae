"""Table II of LENS: its rows, and ours beside the paper's."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lensnb.datasets import UNIVERSAL
from lensnb.evaluation import froc, published
from lensnb.evaluation.froc import Evaluation
from lensnb.evaluation.markdown import markdown, write_text

COMPONENTS = ("afp", "multi_dataset", "proposal_fusion", "mam", "fpr")


FP_COLUMNS = [f"fp_{rate:g}" for rate in froc.RATES]


@dataclass(frozen=True)
class Row:
    """One line of LENS Table II: which experiment's proposals it scores, and which experts it listens to."""

    name: str
    method: str
    experiment: str
    components: tuple[str, ...]
    experts: tuple[str, ...] | None = (UNIVERSAL,)  # None: all, fused


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
    Row("complete-keys", "(a) with complete labels on the same slices", "single-complete-keys", ("afp",)),
    Row("complete", "(a) with complete labels on all slices: upper bound", "single-complete", ("afp",)),
    Row("oracle-mined", "oracle: all lesions marked in some scan, all slices", "oracle-mined", ("afp", "mam")),
    Row("oracle-ignored", "oracle: the same, other lesions ignored", "oracle-ignored", ("afp", "mam")),
)


LABELS = {row.name: f"({row.name}) {row.method}" if len(row.name) == 1 else row.method for row in ROWS} | {
    "fpr-alone": "FPR score alone"
}


def table2(evaluations: dict[str, Evaluation]) -> pd.DataFrame:
    """LENS Table II, a line for each of ROWS that is in `evaluations` (by row name), sensitivities as fractions."""
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


def table2_markdown(table: pd.DataFrame) -> str:
    """LENS Table II for readers: percent, each sensitivity of ours over the paper's in brackets."""
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


def write_table2(table: pd.DataFrame, path: Path, profile: str) -> str:
    """Write LENS Table II as Markdown, with the paper's numbers in brackets, and return its text."""
    note = (
        "Sensitivity in % on the test patients at that many false positives per sub-volume (3D IoBB >= 0.3), in "
        "brackets the paper's values on real data. Intervals: 95 %, bootstrap over patients."
    )
    return write_text(f"Table II, profile {profile}", table2_markdown(table), note, path)
