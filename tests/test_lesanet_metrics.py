"""LesaNet's metrics and retrieval: worked out by hand, and equal to scikit-learn and to plain loops."""

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score, precision_recall_fscore_support, roc_auc_score
from sklearn.neighbors import NearestNeighbors

from lensnb.lesanet import metrics, retrieval
from lensnb.streams import Stream, generator

NO_PARENTS = np.zeros((4, 4), dtype=bool)


def random_case(n=120, seed=0):
    """Scores with many ties, labels of which two have no two kinds, and some unknown entries."""
    rng = np.random.default_rng(seed)
    labels = rng.random((n, 4)) < [0.3, 0.05, 0.0, 1.0]
    scores = np.round(0.3 * labels + rng.random((n, 4)), 1)
    return scores, labels, rng.random((n, 4)) < 0.1, rng


def test_area_under_curve_by_hand():
    # pairs true, false: .9 over .5 and .1, .5 ties .5 and is over .1, .1 ties .1 and is below .5: 2 + 1.5 + .5 of 6
    truth = np.array([True, True, True, False, False])
    assert metrics.area_under_curve(np.array([0.9, 0.5, 0.1, 0.5, 0.1]), truth) == pytest.approx(4 / 6)
    assert np.isnan(metrics.area_under_curve(np.array([0.9, 0.5]), np.array([True, True])))


def test_label_table_equals_scikit_learn():
    scores, labels, unknown, _ = random_case()
    thresholds = np.array([0.6, 0.9, 0.5, 0.2])
    table = metrics.label_table(list("abcd"), scores, labels, unknown, thresholds, NO_PARENTS)
    for c in (0, 1):
        known = ~unknown[:, c]
        truth, score, row = labels[known, c], scores[known, c], table.iloc[c]
        reference = precision_recall_fscore_support(truth, score >= thresholds[c], average="binary", zero_division=1)
        assert row["auc"] == pytest.approx(roc_auc_score(truth, score))
        assert [row["precision"], row["recall"], row["f1"]] == pytest.approx(reference[:3])
        assert (row["positive"], row["negative"]) == (truth.sum(), (~truth).sum())
    assert table[list(metrics.METRICS)].iloc[2:].isna().all(axis=None), "labels of one kind are not scored"
    means = metrics.averages(table)
    assert means["labels"] == 2 and means["f1"] == pytest.approx(table["f1"].iloc[:2].mean())


def test_nothing_predicted_has_precision_1_and_recall_0():
    truth = np.array([True, False, True])
    assert metrics.precision_recall_f1(np.zeros(3, dtype=bool), truth) == (1, 0, 0)
    assert metrics.precision_recall_f1(np.array([True, True, False]), truth) == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("candidates", [(), metrics.PUBLISHED_THRESHOLDS, (0.9, 0.2)])
def test_thresholds_have_the_best_f1_of_all(candidates):
    scores, labels, unknown, _ = random_case(seed=1)
    found = metrics.calibrate(scores, labels, unknown, candidates)
    for c in (0, 1, 3):
        known = ~unknown[:, c]
        truth, score = labels[known, c], scores[known, c]
        tried = sorted(candidates or set(score))
        f1 = [f1_score(truth, score >= t) for t in tried]
        assert found[c] == tried[int(np.argmax(f1))], "the lowest of the best"
    assert found[2] == np.inf, "a label that no validation lesion has is never predicted"
    assert metrics.PUBLISHED_THRESHOLDS == (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def test_predictions_bring_their_parents():
    parents = NO_PARENTS.copy()
    parents[0, 1] = parents[0, 2] = parents[1, 2] = True
    decided = metrics.decide(np.array([[0.6, 0.1, 0.1, 0.1], [0.1, 0.9, 0.1, 0.5]]), np.full(4, 0.5), parents)
    assert decided.tolist() == [[True, True, True, False], [False, True, True, True]]


def test_resampled_auc_equals_scikit_learn_on_the_same_patients():
    scores, labels, unknown, rng = random_case(n=60, seed=2)
    patients = np.array([f"p{k}" for k in rng.integers(12, size=60)])
    found = metrics.resampled_auc(scores, labels, unknown, patients, draws=20, seed=5)
    names, drawn = np.unique(patients), generator(5, Stream.LESANET_BOOTSTRAP).integers(12, size=(20, 12))
    for value, one in zip(found, drawn, strict=True):
        rows = np.concatenate([np.flatnonzero(patients == names[k]) for k in one])
        of_labels = []
        for c in range(4):
            own = rows[~unknown[rows, c]]
            if 0 < labels[own, c].sum() < len(own):
                of_labels.append(roc_auc_score(labels[own, c], scores[own, c]))
        assert value == pytest.approx(np.mean(of_labels))
    assert np.array_equal(found, metrics.resampled_auc(scores, labels, unknown, patients, draws=20, seed=5))


def test_resampled_decisions_by_hand():
    predicted = np.array([[True], [True], [False], [False]])
    labels = np.array([[True], [False], [True], [False]])
    nobody = np.zeros_like(labels)
    alone = metrics.resampled_decisions(predicted, labels, nobody, np.array(["p"] * 4), 3, 0)
    assert (alone == 0.5).all(axis=None) and len(alone) == 3
    patients = np.array(["p", "p", "q", "q"])
    copies = metrics.copies_of_patients(patients, 50, 1)
    found = metrics.resampled_decisions(predicted, labels, nobody, patients, 50, 1)
    p, q = copies[:, 0], copies[:, 2]
    np.testing.assert_allclose(found["recall"], p / (p + q))
    np.testing.assert_allclose(found["precision"], np.where(p > 0, 0.5, 1.0))


# --- retrieval --------------------------------------------------------------------------------------------------


def unit(rng, n, d=5):
    vectors = rng.normal(size=(n, d)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_nearest_equals_scikit_learn_without_the_own_patient():
    rng = np.random.default_rng(0)
    query, database = unit(rng, 6), unit(rng, 40)
    query_patients, patients = np.arange(6) % 3, np.arange(40) % 4
    rows, distances = retrieval.nearest(query, database, query_patients, patients, 3)
    for q in range(6):
        others = np.flatnonzero(patients != query_patients[q])
        reference = NearestNeighbors(n_neighbors=3, algorithm="brute").fit(database[others]).kneighbors(query[[q]])
        assert rows[q].tolist() == others[reference[1][0]].tolist()
        assert distances[q] == pytest.approx(reference[0][0], abs=1e-5)
    with pytest.raises(ValueError, match="20 lesions of other patients to choose from, not 21"):
        retrieval.nearest(query[:1], database, np.array([0]), np.arange(40) % 2, 21)


def test_cumulative_gain_by_hand_and_by_loops():
    query = np.array([[1, 1, 0, 1]], dtype=bool)
    database = np.array([[1, 1, 1, 1], [0, 0, 1, 0], [1, 0, 0, 0]], dtype=bool)
    assert retrieval.cumulative_gain(query, database, np.array([[0, 2]])).tolist() == [(3 + 1) / 2]
    rng = np.random.default_rng(1)
    query, database, rows = rng.random((7, 9)) < 0.4, rng.random((11, 9)) < 0.4, rng.integers(11, size=(7, 5))
    loops = [
        np.mean([sum(a and b for a, b in zip(query[q], database[r], strict=True)) for r in rows[q]]) for q in range(7)
    ]
    assert retrieval.cumulative_gain(query, database, rows) == pytest.approx(loops)


def test_strongest_propagations():
    model = torch.nn.Module()
    model.propagate = torch.nn.Linear(3, 3)
    with torch.no_grad():
        model.propagate.weight.copy_(torch.tensor([[1.0, 0.2, -0.5], [0.4, 1.0, 0.1], [0.0, -0.3, 1.0]]))
    matrix = retrieval.propagation_matrix(model, ["a", "b", "c"])
    assert matrix.loc["b", "a"] == pytest.approx(0.4) and matrix.loc["a", "b"] == pytest.approx(0.2)
    parents, exclusive = np.zeros((3, 3), dtype=bool), np.zeros((3, 3), dtype=bool)
    parents[1, 0] = exclusive[0, 2] = exclusive[2, 0] = True
    table = retrieval.strongest(matrix, parents, exclusive, 2)
    assert table[["label", "from", "relation"]].to_numpy().tolist() == [
        ["b", "a", "parent"], ["a", "b", "child"], ["c", "b", ""], ["a", "c", "exclusive"]
    ]  # fmt: skip
    assert table["weight"].tolist() == pytest.approx([0.4, 0.2, -0.3, -0.5])
    assert len(retrieval.strongest(matrix, parents, exclusive, 50)) == 6
