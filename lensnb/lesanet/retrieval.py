"""What a trained LesaNet shows beside its labels: lesions like a lesion, and how labels speak for each other."""

import numpy as np
import pandas as pd
import torch


def nearest(
    query: np.ndarray, database: np.ndarray, query_patients: np.ndarray, database_patients: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest lesions of other patients (LesaNet Sec. 7.3): rows in the database, and distances; (n, k) each.

    query (n, d) and database (m, d) are unit embeddings; of equally near lesions the first comes first. Raises
    ValueError if some query has fewer than k lesions of other patients to choose from.
    """
    # to six places: the last bits of a matrix product depend on the processor, the order of lesions must not
    distance = np.sqrt(np.maximum(2 - 2 * query.astype(np.float64) @ database.astype(np.float64).T, 0)).round(6)
    same = np.asarray(query_patients)[:, None] == np.asarray(database_patients)[None, :]
    if len(query) and (~same).sum(1).min() < k:
        raise ValueError(f"some query has {(~same).sum(1).min()} lesions of other patients to choose from, not {k}")
    distance[same] = np.inf
    rows = np.argsort(distance, axis=1, kind="stable")[:, :k]
    return rows, np.take_along_axis(distance, rows, axis=1)


def cumulative_gain(query_labels: np.ndarray, database_labels: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Average cumulative gain of each query: how many labels it shares with a retrieved lesion, the mean: (n,).

    query_labels (n, C) and database_labels (m, C) bool; `rows` (n, k) from `nearest`. The paper's ACG@5 is the mean
    over queries with k = 5.
    """
    return (query_labels[:, None, :] & database_labels[rows]).sum(2).mean(1)


def propagation_matrix(model: torch.nn.Module, names: list[str]) -> pd.DataFrame:
    """The learned score propagation weights (LesaNet Fig. 6): row i, column j is what label i gets from label j."""
    return pd.DataFrame(model.propagate.weight.detach().cpu().numpy(), index=names, columns=names)


def strongest(matrix: pd.DataFrame, parents: np.ndarray, exclusive: np.ndarray, number: int) -> pd.DataFrame:
    """The `number` largest and smallest weights between two labels: label, from, weight, relation.

    matrix: from `propagation_matrix`. relation: "parent" if the label is below `from`, "child" if above, "exclusive",
    or "" where the ontology says nothing, so that the network found it in the images.
    """
    to, source = np.nonzero(~np.eye(len(matrix), dtype=bool))
    weight = matrix.to_numpy()[to, source]
    order = np.argsort(-weight, kind="stable")
    order = order if len(order) <= 2 * number else np.concatenate([order[:number], order[-number:]])
    relation = np.select(
        [parents[to, source], parents[source, to], exclusive[to, source]], ["parent", "child", "exclusive"], ""
    )
    names = np.array(matrix.index)
    columns = {"label": names[to], "from": names[source], "weight": weight, "relation": relation}
    return pd.DataFrame(columns).iloc[order].reset_index(drop=True)


def most_connected(matrix: pd.DataFrame, number: int) -> list[str]:
    """The `number` labels with the largest weights from or to other labels, in the matrix's order."""
    values = np.abs(matrix.to_numpy() - np.diag(np.diag(matrix.to_numpy())))
    largest = np.maximum(values.max(axis=0), values.max(axis=1))
    return [matrix.index[i] for i in np.sort(np.argsort(-largest, kind="stable")[:number])]
