"""LesaNet's Tables 1 to 3 and the claims drawn from them: ours beside the paper's, all numbers as fractions.

Columns named text_ are of the text-mined test set, complete_ of the completely labelled one.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from lensnb.evaluation import published
from lensnb.evaluation.claims import claim_line
from lensnb.evaluation.froc import interval
from lensnb.evaluation.markdown import markdown
from lensnb.lesanet.methods import METHODS
from lensnb.lesanet.metrics import METRICS, TEXT_MINED, Result

SETS = {"text": TEXT_MINED, "complete": "complete"}  # by the prefix of their columns
CLAIMS = (  # what is better, in which measure, than which other method
    ("LesaNet is better than the plain multilabel CNN", "auc", "cnn"),
    ("LesaNet is better than WARP", "auc", "warp"),
    ("LesaNet is better than the lesion embedding", "auc", "older"),
    ("score propagation helps", "auc", "without-propagation"),
    ("hard example mining helps", "auc", "without-hard-examples"),
    ("label expansion helps", "auc", "without-expansion"),
    ("text mining helps", "auc", "without-text-mining"),
    ("the triplet loss helps", "auc", "without-triplet"),
    ("LesaNet is better than the plain multilabel CNN", "f1", "cnn"),
    ("score propagation raises recall", "recall", "without-propagation"),
    ("hard example mining raises precision", "precision", "without-hard-examples"),
)


def table1(results: dict[str, dict[str, Result]]) -> pd.DataFrame:
    """LesaNet Table 1: a line for each method of `results` (by method and test set), AUCs with intervals over patients.

    Columns: method, title, and for both test sets auc, auc_low, auc_high, precision, recall, f1, and paper_ of the
    four measures. What there is no test set for is missing.
    """
    lines = []
    for name, of_sets in results.items():
        line = {"method": name, "title": METHODS[name].title}
        for prefix, test in SETS.items():
            result = of_sets.get(test)
            values = {m: result.means[m] if result else np.nan for m in METRICS}
            low, high = interval(result.samples["auc"].to_numpy()) if result else (np.nan, np.nan)
            line |= {f"{prefix}_auc": values.pop("auc"), f"{prefix}_auc_low": low, f"{prefix}_auc_high": high}
            line |= {f"{prefix}_{m}": value for m, value in values.items()}
        for (prefix, _), paper in zip(SETS.items(), published.LESANET_TABLE1[name], strict=True):
            line |= {f"paper_{prefix}_{m}": value for m, value in zip(METRICS, paper, strict=True)}
        lines.append(line)
    return pd.DataFrame(lines)


def table1_markdown(table: pd.DataFrame) -> str:
    """LesaNet Table 1 as Markdown in percent, the paper's in brackets."""
    return _markdown(table, _with_interval)


NAMES = {"auc": "AUC", "precision": "precision", "recall": "recall", "f1": "F1"}


def _markdown(table: pd.DataFrame, cell: Callable[[dict, str], str]) -> str:
    """A line for each method, a column for each measure on each test set; `cell` writes row and <set>_<measure>."""
    lines = []
    for row in table.to_dict("records"):
        cells = {f"{test} {NAMES[m]}": cell(row, f"{prefix}_{m}") for prefix, test in SETS.items() for m in METRICS}
        lines.append({"method": row["title"]} | cells)
    return markdown(pd.DataFrame(lines))


def _with_interval(row: dict, key: str) -> str:
    paper = f"({100 * row[f'paper_{key}']:.1f})"
    if np.isnan(row[key]):
        return paper
    low, high = row.get(f"{key}_low"), row.get(f"{key}_high")  # the AUC has an interval
    bounds = "" if low is None else f" [{100 * low:.1f}, {100 * high:.1f}]"
    return f"{100 * row[key]:.1f}{bounds} {paper}"


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
    return _markdown(table, lambda row, key: f"{_spread(row, key)} ({_spread(row, f'paper_{key}')})")


def _spread(row: dict, key: str) -> str:
    mean, sd = row[f"{key}_mean"], row[f"{key}_sd"]
    return "" if np.isnan(mean) else f"{100 * mean:.1f}" + ("" if np.isnan(sd) else f" ± {100 * sd:.1f}")


def claims(results: dict[str, dict[str, Result]]) -> pd.DataFrame:
    """LesaNet minus another method, on each test set, with the paired 95 % interval over patients and a verdict.

    The columns are those of LENS's claims: table, claim, paper, ours, low, high, verdict.
    """
    lines = []
    for place, test in enumerate(SETS.values()):
        for text, measure, other in CLAIMS:
            if test not in results["lesanet"] or other not in results:
                continue
            ours = _with_samples(results["lesanet"][test], measure) - _with_samples(results[other][test], measure)
            paper = [published.LESANET_TABLE1[name][place][METRICS.index(measure)] for name in ("lesanet", other)]
            claim = f"{text}: {NAMES[measure]}, {test} test set"
            lines.append(claim_line("lesanet_table1", claim, paper[0] - paper[1], ours))
    return pd.DataFrame(lines, columns=["table", "claim", "paper", "ours", "low", "high", "verdict"])


def gain_claim(gains: np.ndarray, older: np.ndarray, copies: np.ndarray) -> dict:
    """The claim that LesaNet retrieves lesions with more common labels than the older embedding (LesaNet Sec. 7.3).

    gains, older: (n,) of each query; copies: (draws, n), see `metrics.copies_of_patients`.
    """
    difference = gains - older
    # no matrix product: its last digit depends on the processor and the number of threads
    ours = np.r_[difference.mean(), (copies * difference).sum(1) / copies.sum(1)]
    paper = published.LESANET_GAIN["lesanet"] - published.LESANET_GAIN["older"]
    text = "LesaNet retrieves lesions with more common labels than the lesion embedding: ACG@5"
    return claim_line("lesanet_retrieval", text, paper, ours)


def _with_samples(result: Result, measure: str) -> np.ndarray:
    return np.r_[result.means[measure], result.samples[measure].to_numpy()]


def table2_markdown(table: pd.DataFrame) -> str:
    """LesaNet Table 2 as Markdown in percent."""
    percent = [name for name in table if name.endswith(("_auc", "_f1"))]
    shown = table.rename(columns=lambda name: name.replace("text_", "text-mined ").replace("_", " "))
    return markdown(shown, percent=[name.replace("text_", "text-mined ").replace("_", " ") for name in percent])


def claims_markdown(table: pd.DataFrame) -> str:
    """The claims as Markdown: differences in percent, that of ACG@5 in labels."""
    shown = table.drop(columns="table").astype({"paper": object, "ours": object, "low": object, "high": object})
    for name in ("paper", "ours", "low", "high"):
        of_labels = table["claim"].str.contains("ACG")
        shown[name] = [
            "" if np.isnan(v) else f"{v:.2f}" if plain else f"{100 * v:.1f} %"
            for v, plain in zip(table[name], of_labels, strict=True)
        ]
    return markdown(shown)


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
