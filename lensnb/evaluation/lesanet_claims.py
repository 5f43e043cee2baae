"""The claims drawn from LesaNet's tables: differences between LesaNet and other methods, and what they rest on.

LesaNet and its five ablations are trained on every split of the training and validation patients, the rivals on the
label file's own. One training says little about a part that is worth half a point: on another split its gain can be
as large with the other sign. So a difference between methods that have several splits is the mean of the splits'
paired differences, and its error comes from splits and test patients together (see `effects.effect`); there its p is
corrected, as Holm does, for all such claims of the table. What has one split keeps the interval over test patients,
which says nothing of the training. Splits share most of their training patients, so that chance in whom one learns
from is still larger than they show.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from lensnb.evaluation import published, verdicts
from lensnb.evaluation.claims import claim_line
from lensnb.evaluation.effects import effect, holm
from lensnb.evaluation.lesanet_tables import NAMES, SETS
from lensnb.evaluation.markdown import markdown
from lensnb.lesanet.metrics import METRICS, Result

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
COLUMNS = ["table", "claim", "paper", "ours", "low", "high", "splits", "p_corrected", "verdict"]
NOTE = (
    "LesaNet minus the other method, with 95 % intervals; ACG@5 is a number of labels. splits: how many splits of the "
    "training and validation patients the line rests on. With several, ours is the mean of the paired differences, "
    "the interval is for splits and test patients together, the paper's number is of its Table 3, and the verdict "
    "follows p_corrected at 0.05: Holm, for all lines that have one. With one split the interval is over test "
    "patients alone, the paper's number is of its Table 1, and the verdict follows the interval, uncorrected: another "
    "training may say otherwise. All intervals are those of a single line."
)


def claims(splits: Sequence[dict[str, dict[str, Result]]]) -> pd.DataFrame:
    """LesaNet minus another method, on each test set: COLUMNS, a line for each of CLAIMS.

    splits: of each split the results by method and test set, all on the same draws of the same test patients; the
    first one is the label file's own. A method that a split lacks does not rest on it. Lines without their method or
    test set are left out. Raises ValueError if splits differ in their number of draws.
    """
    lines, found = [], {}
    for place, test in enumerate(SETS.values()):
        for text, measure, other in CLAIMS:
            own = [split for split in splits if {"lesanet", other} <= split.keys() and test in split["lesanet"]]
            if not own:
                continue
            apart = _differences(own, test, measure, other)
            paper = _paper(place, measure, other, of_splits=len(own) > 1)
            claim = f"{text}: {NAMES[measure]}, {test} test set"
            if len(own) > 1:
                one = found[len(lines)] = effect(apart[:, 0], apart[:, 1:])
                low, high = one.interval()
                line = {"table": "lesanet_table3", "claim": claim, "paper": paper, "ours": one.value}
                lines.append(line | {"low": low, "high": high, "splits": len(own)})
            else:
                lines.append(_of_one_split(claim_line("lesanet_table1", claim, paper, apart[0])))
    corrected = holm(np.array([one.p() for one in found.values()]))
    for (row, one), p in zip(found.items(), corrected, strict=True):
        lines[row] |= {"p_corrected": p, "verdict": verdicts.by_p(one.value, p)}
    return pd.DataFrame(lines, columns=COLUMNS)


def by_split(splits: Sequence[dict[str, dict[str, Result]]]) -> pd.DataFrame:
    """The differences of `claims` on each split: claim, split 0, split 1 and so on; what has one split is left out."""
    lines = []
    for test in (test for test in SETS.values() if test in splits[0]["lesanet"]):
        for text, measure, other in CLAIMS:
            if all(other in split for split in splits):
                apart = _differences(list(splits), test, measure, other)[:, 0]
                lines.append({"claim": f"{text}: {NAMES[measure]}, {test} test set"}
                             | {f"split {number}": value for number, value in enumerate(apart)})  # fmt: skip
    return pd.DataFrame(lines)


def _differences(splits: list[dict[str, dict[str, Result]]], test: str, measure: str, other: str) -> np.ndarray:
    """LesaNet minus another method, of each split: (splits, 1 + draws), the value and then its samples."""
    apart = [s["lesanet"][test].with_samples(measure) - s[other][test].with_samples(measure) for s in splits]
    if len({len(one) for one in apart}) > 1:
        raise ValueError("splits differ in their number of draws of test patients; score all of them alike")
    return np.array(apart)


def _paper(place: int, measure: str, other: str, of_splits: bool) -> float:
    """The paper's difference on the test set in that place: of Table 3, its means over splits, or of Table 1."""
    number = METRICS.index(measure)
    if of_splits:
        ours, theirs = (published.LESANET_TABLE3[name][place][number][0] for name in ("lesanet", other))
    else:
        ours, theirs = (published.LESANET_TABLE1[name][place][number] for name in ("lesanet", other))
    return ours - theirs


def _of_one_split(line: dict) -> dict:
    return line | {"splits": 1, "p_corrected": np.nan}


def gain_claim(gains: np.ndarray, older: np.ndarray, copies: np.ndarray) -> dict:
    """The claim that LesaNet retrieves lesions with more common labels than the older embedding (LesaNet Sec. 7.3).

    gains, older: (n,) of each query; copies: (draws, n), see `metrics.copies_of_patients`. A line of `claims`.
    """
    difference = gains - older
    # no matrix product: its last digit depends on the processor and the number of threads
    ours = np.r_[difference.mean(), (copies * difference).sum(1) / copies.sum(1)]
    paper = published.LESANET_GAIN["lesanet"] - published.LESANET_GAIN["older"]
    text = "LesaNet retrieves lesions with more common labels than the lesion embedding: ACG@5"
    return _of_one_split(claim_line("lesanet_retrieval", text, paper, ours))


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


def told(claim: pd.Series) -> str:
    """A line of the claims in words: its difference in points (ACG@5: in labels), its interval and its splits."""
    plain = "ACG" in claim["claim"]
    ours, low, high = (claim[name] * (1 if plain else 100) for name in ("ours", "low", "high"))
    digits, unit = (2, "labels") if plain else (1, "points")
    splits = f"{claim['splits']} split" + ("s" if claim["splits"] > 1 else "")
    return f"{claim['claim']}: {ours:+.{digits}f} {unit} [{low:+.{digits}f}, {high:+.{digits}f}], {splits}"
