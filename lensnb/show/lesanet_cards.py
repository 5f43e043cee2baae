"""What is shown of single lesions: their patch, their predicted labels and how right these are, their neighbours."""

import textwrap
from collections.abc import Sequence

import numpy as np
import pandas as pd

from lensnb.datasets.store import Store
from lensnb.lesanet.targets import most_specific
from lensnb.show import examples
from lensnb.show.lesanet_charts import NOT_SAID


def patch(store: Store, lesion: dict, title: str, size: int = 40) -> dict:
    """What `plots.draw_slice` needs to draw one marked lesion (volume, z, box) in a square of `size` grid pixels."""
    return examples.patch(store, lesion, size, title, "annotated", "source")


def outcomes(
    scores: np.ndarray,
    predicted: np.ndarray,
    *,
    true: np.ndarray,
    unknown: np.ndarray,
    complete: np.ndarray,
    parents: np.ndarray,
    names: tuple[str, ...],
) -> list[tuple[str, str]]:
    """The labels of one lesion as (TP, FP or FN, text), the surest first and what is missed last; all (C,).

    Only the most fine-grained labels of either kind are listed. `true` is what the sentence says; `unknown` is what it
    leaves open and is not listed; `complete` is everything that holds, nan if nobody knows. NOT_SAID marks what holds
    but is not said.
    """
    shown = most_specific(predicted[None], parents)[0] & ~unknown
    missed = most_specific(true[None], parents)[0] & ~predicted & ~unknown
    lines = []
    for c in np.argsort(-scores, kind="stable"):
        if shown[c]:
            unsaid = NOT_SAID if not np.isnan(complete).any() and complete[c] and not true[c] else ""
            lines.append(("TP" if true[c] else "FP", f"{names[c]} {scores[c]:.2f}{unsaid}"))
    return lines + [("FN", names[c]) for c in np.flatnonzero(missed)]


def judged(
    store: Store,
    lesions: pd.DataFrame,
    rows: np.ndarray,
    *,
    scores: np.ndarray,
    predicted: np.ndarray,
    true: np.ndarray,
    unknown: np.ndarray,
    complete: np.ndarray,
    parents: np.ndarray,
    names: tuple[str, ...],
    lines: int = 11,
) -> list[tuple[dict, list[tuple[str, str]]]]:
    """Some `rows` of `lesions` with their labels judged by `outcomes`, at most so many lines each, for `label_cards`.

    All matrices (n, C) have a row for each of `lesions`.
    """
    cards = []
    for i in rows:
        own = {"true": true[i], "unknown": unknown[i], "complete": complete[i], "parents": parents, "names": names}
        panel = patch(store, lesions.iloc[i].to_dict(), lesions["lesion"].iloc[i])
        cards.append((panel, outcomes(scores[i], predicted[i], **own)[:lines]))
    return cards


def varied(lesions: pd.DataFrame, labels: np.ndarray, number: int) -> np.ndarray:
    """Rows of `number` lesions of different patients that differ in their labels: each adds most new ones (greedy)."""
    chosen, seen, patients = [], np.zeros(labels.shape[1], dtype=bool), set()
    patient = lesions["patient"].astype(str).to_numpy()
    for _ in range(min(number, lesions["patient"].nunique())):
        gain = (labels & ~seen).sum(1) + 0.01 * labels.sum(1)
        gain[[p in patients for p in patient]] = -1
        best = int(gain.argmax())
        chosen.append(best)
        patients.add(patient[best])
        seen |= labels[best]
    return np.array(chosen, dtype=int)


def neighbour_rows(
    store: Store,
    queries: pd.DataFrame,
    database: pd.DataFrame,
    rows: np.ndarray,
    *,
    common: np.ndarray,
    query_texts: Sequence[str],
    database_texts: Sequence[str],
) -> list[list[tuple[dict, str]]]:
    """Each query with its retrieved lesions, and what is written below each of them, for `neighbour_sheet`.

    queries: n lesions; rows (n, k): theirs in `database`; common (n, k): how many labels the two share. A text for each
    query, and one for each lesion of the database (see `said`, `predicted`, `sentences`).
    """
    found = []
    for q, own in enumerate(rows):
        line = [(patch(store, queries.iloc[q].to_dict(), "query"), query_texts[q])]
        for rank, (row, shared) in enumerate(zip(own, common[q], strict=True), start=1):
            title = f"{rank}: {shared} labels in common"
            line.append((patch(store, database.iloc[row].to_dict(), title), database_texts[row]))
        found.append(line)
    return found


def said(labels: np.ndarray, parents: np.ndarray, names: tuple[str, ...]) -> list[str]:
    """The most fine-grained labels of each lesion, at most five, a line for each; labels (n, C) bool."""
    return [
        "\n".join(names[c] for c in np.flatnonzero(own)[:5]) if own.any() else "(the sentence names no label)"
        for own in most_specific(labels, parents)
    ]


def predicted(scores: np.ndarray, decided: np.ndarray, parents: np.ndarray, names: tuple[str, ...]) -> list[str]:
    """The most fine-grained predicted labels of each lesion with their scores, the five surest (LesaNet Fig. 7).

    scores (n, C), decided (n, C) bool.
    """
    texts = []
    for score, own in zip(scores, most_specific(decided, parents), strict=True):
        order = [c for c in np.argsort(-score, kind="stable") if own[c]][:5]
        lines = [f"{names[c]} {score[c]:.2f}" for c in order] or ["nothing"]
        texts.append("\n".join(["predicted:", *lines]))
    return texts


def sentences(lesions: pd.DataFrame, table: pd.DataFrame, width: int = 36, lines: int = 8) -> list[str]:
    """The report sentence of each lesion in lines of `width` characters, cut after `lines` (LesaNet Fig. 10).

    lesions: lesion, dl00012 being row 12 of DL_info.csv. table: row, sentence (see `text_mining.read_sentences`); a
    lesion without a sentence has "".
    """
    of_row = dict(zip(table["row"].astype(int), table["sentence"], strict=True))
    texts = [of_row.get(int(name.removeprefix("dl")), "") for name in lesions["lesion"]]
    return ["\n".join(textwrap.wrap(text, width, max_lines=lines, placeholder=" ...")) for text in texts]
