"""What is shown of single lesions: their patch, their predicted labels and how right these are, their neighbours."""

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
    query_labels: np.ndarray,
    database_labels: np.ndarray,
    parents: np.ndarray,
    names: tuple[str, ...],
) -> list[list[tuple[dict, str]]]:
    """Each query with its retrieved lesions (rows of `database`) and their most fine-grained labels, for a sheet."""
    found = []
    for q, own in enumerate(rows):
        line = [(patch(store, queries.iloc[q].to_dict(), "query"), _said(query_labels[q], parents, names))]
        for rank, row in enumerate(own, start=1):
            shared = int((query_labels[q] & database_labels[row]).sum())
            title = f"{rank}: {shared} labels in common"
            text = _said(database_labels[row], parents, names)
            line.append((patch(store, database.iloc[row].to_dict(), title), text))
        found.append(line)
    return found


def _said(labels: np.ndarray, parents: np.ndarray, names: tuple[str, ...]) -> str:
    own = [names[c] for c in np.flatnonzero(most_specific(labels[None], parents)[0])]
    return "\n".join(own[:5]) if own else "(the sentence names no label)"
