"""LesaNet's Tables 1 to 3: ours beside the paper's, all numbers as fractions.

Columns named text_ are of the text-mined test set, complete_ of the completely labelled one.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lensnb.evaluation import published
from lensnb.evaluation.froc import interval
from lensnb.evaluation.markdown import markdown
from lensnb.lesanet.methods import METHODS
from lensnb.lesanet.metrics import METRICS, TEXT_MINED, Result

SETS = {"text": TEXT_MINED, "complete": "complete"}  # by the prefix of their columns
NAMES = {"auc": "AUC", "precision": "precision", "recall": "recall", "f1": "F1"}


def table1(results: dict[str, dict[str, Result]]) -> pd.DataFrame:
    """LesaNet Table 1: a line for each method of `results` (by method and test set), with intervals over patients.

    Columns: method, title, and for both test sets each of the four measures, alone and with _low, _high after it, and
    paper_ of the measures. What there is no test set for is missing.
    """
    lines = []
    for name, of_sets in results.items():
        line = {"method": name, "title": METHODS[name].title}
        for prefix, test in SETS.items():
            result = of_sets.get(test)
            for m in METRICS:
                low, high = interval(result.samples[m].to_numpy()) if result else (np.nan, np.nan)
                line[f"{prefix}_{m}"] = result.means[m] if result else np.nan
                line |= {f"{prefix}_{m}_low": low, f"{prefix}_{m}_high": high}
        for (prefix, _), paper in zip(SETS.items(), published.LESANET_TABLE1[name], strict=True):
            line |= {f"paper_{prefix}_{m}": value for m, value in zip(METRICS, paper, strict=True)}
        lines.append(line)
    return pd.DataFrame(lines)


def table1_markdown(table: pd.DataFrame) -> str:
    """LesaNet Table 1 as Markdown in percent, one table for each test set, the paper's numbers in brackets."""
    parts = []
    for prefix, test in SETS.items():
        rows = table.to_dict("records")
        lines = [{"method": r["title"]} | {NAMES[m]: _with_interval(r, f"{prefix}_{m}") for m in METRICS} for r in rows]
        parts.append(f"**{test.capitalize()} test set**\n\n{markdown(pd.DataFrame(lines))}")
    return "\n".join(parts)


def _with_interval(row: dict, key: str) -> str:
    paper = f"({100 * row[f'paper_{key}']:.1f})"
    if np.isnan(row[key]):
        return paper
    return f"{100 * row[key]:.1f} [{100 * row[f'{key}_low']:.1f}, {100 * row[f'{key}_high']:.1f}] {paper}"


def table2(results: dict[str, Result]) -> pd.DataFrame:
    """LesaNet Table 2 for every label: label, kind, train (lesions), then positive, auc and f1 on both test sets, and
    the paper's AUC and F1 (text-mined test set) of the labels that it prints."""
    first = next(iter(results.values())).labels
    table = first[["label", "kind", "train"]].copy()
    for prefix, test in SETS.items():
        for name in ("positive", "auc", "f1"):
            table[f"{prefix}_{name}"] = results[test].labels[name] if test in results else np.nan
    for place, name in enumerate(("paper_auc", "paper_f1")):
        table[name] = [published.LESANET_TABLE2.get(label, (np.nan, np.nan))[place] for label in table["label"]]
    return table


def kinds(results: dict[str, Result]) -> pd.DataFrame:
    """Mean AUC and F1 of body parts, types and attributes: kind, then labels, auc and f1 of each set, paper_auc."""
    rows = []
    for kind, paper in published.LESANET_AUC_OF_KINDS.items():
        row = {"kind": kind}
        for prefix, test in SETS.items():
            if test in results:
                of_kind = results[test].labels
                of_kind = of_kind[(of_kind["kind"] == kind) & of_kind["auc"].notna()]
                row |= {f"{prefix}_labels": len(of_kind), f"{prefix}_auc": of_kind["auc"].mean()}
                row[f"{prefix}_f1"] = of_kind["f1"].mean()
        rows.append(row | {"paper_auc": paper})
    return pd.DataFrame(rows)


def table3(splits: Sequence[dict[str, dict[str, Result]]]) -> pd.DataFrame:
    """LesaNet Table 3: mean and standard deviation (n - 1; missing for one split) over splits of each method's results.

    Columns: method, title, splits, and for both test sets and each measure <set>_<measure>_mean, _sd and
    paper_<set>_<measure>_mean, _sd.
    """
    lines = []
    for name, paper in published.LESANET_TABLE3.items():
        line = {"method": name, "title": METHODS[name].title, "splits": len(splits)}
        for (prefix, test), of_paper in zip(SETS.items(), paper, strict=True):
            for m, (mean, sd) in zip(METRICS, of_paper, strict=True):
                values = np.array([split[name][test].means[m] for split in splits if test in split[name]])
                line[f"{prefix}_{m}_mean"] = values.mean() if len(values) else np.nan
                line[f"{prefix}_{m}_sd"] = values.std(ddof=1) if len(values) > 1 else np.nan
                line |= {f"paper_{prefix}_{m}_mean": mean, f"paper_{prefix}_{m}_sd": sd}
        lines.append(line)
    return pd.DataFrame(lines)


def table3_markdown(table: pd.DataFrame) -> str:
    """LesaNet Table 3 as Markdown in percent, the paper's in brackets."""
    keys = {f"{test} {NAMES[m]}": f"{prefix}_{m}" for prefix, test in SETS.items() for m in METRICS}
    lines = [
        {"method": row["title"]}
        | {n: f"{_spread(row, key)} ({_spread(row, f'paper_{key}')})" for n, key in keys.items()}
        for row in table.to_dict("records")
    ]
    return markdown(pd.DataFrame(lines))


def _spread(row: dict, key: str) -> str:
    mean, sd = row[f"{key}_mean"], row[f"{key}_sd"]
    return "" if np.isnan(mean) else f"{100 * mean:.1f}" + ("" if np.isnan(sd) else f" ± {100 * sd:.1f}")


def table2_markdown(table: pd.DataFrame) -> str:
    """LesaNet Table 2 as Markdown in percent."""
    percent = [name for name in table if name.endswith(("_auc", "_f1"))]
    shown = table.rename(columns=lambda name: name.replace("text_", "text-mined ").replace("_", " "))
    return markdown(shown, percent=[name.replace("text_", "text-mined ").replace("_", " ") for name in percent])


def before_and_after(table: pd.DataFrame) -> str:
    """Rows of LENS's Table II before and after LesaNet as Markdown: averages and paired differences with intervals.

    table: as for `charts.before_and_after`.
    """
    shown = table[["patients", "row"]].copy()
    for name in ("simpler", "LesaNet"):
        columns = table[[name, f"{name}_low", f"{name}_high"]].to_numpy()
        shown[name] = [f"{100 * mean:.1f} [{100 * low:.1f}, {100 * high:.1f}]" for mean, low, high in columns]
    columns = table[["difference", "low", "high"]].to_numpy()
    shown["difference"] = [f"{100 * mean:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]" for mean, low, high in columns]
    return markdown(shown)
