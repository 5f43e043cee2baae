"""LesaNet's losses and targets: worked out by hand, and equal to plain loops, scikit-learn and torch's own losses."""

import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import jaccard_score, log_loss

from lensnb.lesanet import rivals
from lensnb.lesanet.losses import (
    hard_example_loss,
    hard_examples,
    label_similarity,
    label_weights,
    sample_triplets,
    triplet_loss,
    weighted_cross_entropy,
)
from lensnb.lesanet.ontology import close_exclusive, closure
from lensnb.lesanet.targets import most_specific, scoring_targets, training_targets

# lung < chest, right lung < lung, left lung < lung, liver < abdomen; chest x abdomen, right lung x left lung
NAMES = ["chest", "lung", "right lung", "left lung", "abdomen", "liver", "nodule"]


def relation(*pairs):
    matrix = np.zeros((len(NAMES), len(NAMES)), dtype=bool)
    for a, b in pairs:
        matrix[NAMES.index(a), NAMES.index(b)] = True
    return matrix


LISTED = relation(("lung", "chest"), ("right lung", "lung"), ("left lung", "lung"), ("liver", "abdomen"))
PARENTS = closure(LISTED)
EXCLUSIVE = close_exclusive(relation(("chest", "abdomen"), ("right lung", "left lung")), PARENTS)


def rows(*sets):
    return np.array([[name in own for name in NAMES] for own in sets])


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def random_batch(n=40, c=7, seed=0):
    rng = np.random.default_rng(seed)
    scores = torch.tensor(rng.normal(0, 2, (n, c)), dtype=torch.float32)
    labels = torch.tensor(rng.random((n, c)) < 0.3, dtype=torch.float32)
    return scores, labels, rng


# --- targets ----------------------------------------------------------------------------------------------------


def test_targets_by_hand():
    relevant = rows({"right lung", "nodule"}, set(), {"nodule"})
    uncertain = rows(set(), {"liver"}, {"lung", "nodule"})
    targets = training_targets(relevant, uncertain, PARENTS, EXCLUSIVE)
    assert (targets.labels == rows({"right lung", "lung", "chest", "nodule"}, {"liver"}, {"lung", "nodule"})).all()
    assert (targets.unknown == rows(set(), {"abdomen"}, {"chest"})).all(), "what follows from a maybe is open"
    sure_false = rows(
        {"left lung", "abdomen", "liver"}, {"chest", "lung", "right lung", "left lung"}, {"abdomen", "liver"}
    )
    assert (targets.reliable == (targets.labels | sure_false)).all()


def test_a_relevant_label_settles_what_an_uncertain_one_leaves_open():
    relevant, uncertain = rows({"lung"}, {"lung"}), rows({"liver"}, {"right lung"})
    true, unknown = scoring_targets(relevant, uncertain, PARENTS, EXCLUSIVE)
    assert (true == rows({"lung", "chest"}, {"lung", "chest"})).all()
    assert (unknown == rows(set(), {"right lung"})).all(), "lung excludes liver; whether right or left is not said"


def test_most_specific_labels():
    labels = rows({"chest", "lung", "left lung", "nodule"}, {"chest", "abdomen"}, {"right lung", "liver"})
    assert (most_specific(labels, PARENTS)[:2] == rows({"left lung", "nodule"}, {"chest", "abdomen"})).all()


# --- cross-entropy ----------------------------------------------------------------------------------------------


def test_weights_are_clamped_on_both_sides():
    labels = torch.zeros(1000, 3)
    labels[:250, 0], labels[:1, 1], labels[:999, 2] = 1, 1, 1
    positive, negative = label_weights(labels)
    assert positive.tolist() == pytest.approx([2, 300, 1000 / 1998])  # 1000 / 2 would be 500
    assert negative.tolist() == pytest.approx([1000 / 1500, 1000 / 1998, 300])
    assert torch.equal(label_weights(torch.zeros(100, 1))[0], torch.tensor([50.0])), "no positive counts as one"


def test_weighted_cross_entropy_by_hand():
    scores = torch.tensor([[0.0, 2.0]])  # sigmoid 1/2 and 1/(1 + e^-2)
    weights = (torch.tensor([4.0, 9.0]), torch.tensor([9.0, 0.5]))
    expected = 4 * math.log(2) + 0.5 * (2 + math.log(1 + math.exp(-2)))  # -log(1 - sigmoid 2) = 2 + log(1 + e^-2)
    labels = torch.tensor([[1.0, 0.0]])
    assert weighted_cross_entropy(scores, labels, weights).item() == pytest.approx(expected / 2)
    unknown = torch.tensor([[False, True]])
    assert weighted_cross_entropy(scores, labels, weights, unknown).item() == pytest.approx(4 * math.log(2) / 2)


def test_weighted_cross_entropy_equals_scikit_learn():
    scores, labels, rng = random_batch()
    unknown = torch.tensor(rng.random(labels.shape) < 0.2)
    weights = label_weights(labels)
    weight = torch.where(labels > 0, weights[0], weights[1]) * ~unknown
    reference = log_loss(
        labels.flatten().numpy(),
        torch.sigmoid(scores.double()).flatten().numpy(),
        sample_weight=weight.flatten().numpy(),
        normalize=False,
    )
    assert weighted_cross_entropy(scores, labels, weights, unknown).item() == pytest.approx(
        reference / labels.numel(), rel=1e-5
    )


# --- relational hard examples -----------------------------------------------------------------------------------


def test_hard_examples_are_drawn_by_difficulty_and_only_reliable_ones():
    p = torch.tensor([[0.9, 0.6, 0.2, 0.3]])
    labels = torch.tensor([[1.0, 0.0, 0.0, 1.0]])
    reliable = torch.tensor([[True, True, False, True]])
    drawn = hard_examples(torch.logit(p), labels, reliable, 60000, 2.0, generator())
    share = np.bincount(drawn, minlength=4) / len(drawn)
    # |p - y|^2: 0.01, 0.36, not reliable, 0.49
    assert share == pytest.approx(np.array([0.01, 0.36, 0, 0.49]) / 0.86, abs=0.01) and share[2] == 0
    again = hard_examples(torch.logit(p), labels, reliable, 60000, 2.0, generator())
    assert torch.equal(drawn, again)


def test_hard_example_loss_is_the_mean_over_the_drawn_entries():
    scores, labels, rng = random_batch(seed=1)
    reliable = torch.tensor(rng.random(labels.shape) < 0.5)
    loss = hard_example_loss(scores, labels, reliable, 500, 2.0, generator(3)).item()
    total, p, y = 0.0, torch.sigmoid(scores.double()).flatten().tolist(), labels.flatten().tolist()
    for k in hard_examples(scores, labels, reliable, 500, 2.0, generator(3)).tolist():
        total -= math.log(p[k]) if y[k] else math.log(1 - p[k])
    assert loss == pytest.approx(total / 500, rel=1e-5)
    expected = sum(  # over many draws the mean tends to sum d^2 CE / sum d^2
        abs(p[k] - y[k]) ** 2 * -(math.log(p[k]) if y[k] else math.log(1 - p[k]))
        for k in np.flatnonzero(reliable.flatten())
    ) / sum(abs(p[k] - y[k]) ** 2 for k in np.flatnonzero(reliable.flatten()))
    many = hard_example_loss(scores, labels, reliable, 200000, 2.0, generator(4)).item()
    assert many == pytest.approx(expected, rel=0.02)


def test_missing_labels_are_no_hard_negatives():
    """A label that the report does not mention gets no gradient; one that a true label excludes does."""
    targets = training_targets(rows({"right lung"}), rows(set()), PARENTS, EXCLUSIVE)
    scores = torch.full((1, len(NAMES)), 3.0, requires_grad=True)
    labels = torch.tensor(targets.labels, dtype=torch.float32)
    hard_example_loss(scores, labels, torch.tensor(targets.reliable), 5000, 2.0, generator()).backward()
    pushed = dict(zip(NAMES, scores.grad[0].sign().tolist(), strict=True))
    assert pushed == {
        "chest": -1, "lung": -1, "right lung": -1, "left lung": 1, "abdomen": 1, "liver": 1, "nodule": 0
    }  # fmt: skip


def test_without_reliable_entries_there_is_nothing_to_learn():
    scores = torch.zeros(2, 3, requires_grad=True)
    loss = hard_example_loss(scores, torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.bool), 10, 2.0, generator())
    loss.backward()
    assert loss.item() == 0 and not scores.grad.any()


# --- triplets ---------------------------------------------------------------------------------------------------


def test_similarity_equals_scikit_learns_jaccard_times_the_shared_labels():
    _, labels, _ = random_batch(n=6, seed=2)
    sim, truth = label_similarity(labels), labels.numpy().astype(int)
    for a in range(6):
        for b in range(6):
            reference = (truth[a] & truth[b]).sum() * jaccard_score(truth[a], truth[b], zero_division=0)
            assert sim[a, b].item() == pytest.approx(reference)


def test_triplets_are_those_that_loops_find():
    _, labels, rng = random_batch(n=8, c=5, seed=3)
    comparable = torch.tensor(rng.random((8, 8)) < 0.8)
    comparable &= comparable.T & ~torch.eye(8, dtype=torch.bool)
    sim = label_similarity(labels)
    allowed = set()
    for a in range(8):
        others = [b for b in range(8) if comparable[a, b]]
        best = max((sim[a, b].item() for b in others), default=0)
        for b in others:
            if best > 0 and (sim[a, b] >= 1 or sim[a, b] == best):
                allowed |= {(a, b, c) for c in others if sim[a, c] < sim[a, b]}
    drawn = torch.stack(sample_triplets(sim, comparable, 20000, 1.0, generator()), dim=1).tolist()
    assert set(map(tuple, drawn)) == allowed and len(allowed) > 20


def test_triplet_loss_equals_torchs():
    rng = np.random.default_rng(0)
    embedding = torch.nn.functional.normalize(torch.tensor(rng.normal(size=(12, 6)), dtype=torch.float32), dim=1)
    a, b, c = (torch.tensor(rng.permutation(12)) for _ in range(3))
    keep = (a != b) & (a != c)
    triplets = (a[keep], b[keep], c[keep])
    reference = torch.nn.TripletMarginLoss(margin=0.1, eps=0)(*(embedding[rows] for rows in triplets))
    assert triplet_loss(embedding, triplets, 0.1).item() == pytest.approx(reference.item(), abs=1e-5)


# --- rivals -----------------------------------------------------------------------------------------------------


def test_warp_by_hand():
    # label 1 is true and a parent of label 0, which is true as well; 2 and 3 are false, 4 is unknown
    scores = torch.tensor([[1.0, 0.5, 0.7, -3.0, 9.0]])
    labels, unknown = torch.tensor([[1.0, 1, 0, 0, 0]]), torch.tensor([[False, False, False, False, True]])
    parents = torch.zeros(5, 5, dtype=torch.bool)
    parents[0, 1] = True
    # below 0: the parent (excess 1 - 1 + 0.5) and 2 (1 - 1 + 0.7); rank 2. Below 1: 2 (1 - 0.5 + 0.7); rank 1
    expected = (1 + 1 / 2) * (0.5 + 0.7) / 2 + 1 * 1.2
    assert rivals.warp_loss(scores, labels, parents, unknown).item() == pytest.approx(expected / 2)
    right = torch.tensor([[3.0, 1.5, 0.4, -3.0, 9.0]])
    assert rivals.warp_loss(right, labels, parents, unknown).item() == 0


def test_warp_equals_loops():
    scores, labels, rng = random_batch(n=6, c=len(NAMES), seed=5)
    unknown = torch.tensor(rng.random(labels.shape) < 0.1)
    total, count = 0.0, 0
    for s, y, u in zip(scores.tolist(), labels.tolist(), unknown.tolist(), strict=True):
        for p in range(len(s)):
            if not y[p] or u[p]:
                continue
            below = [c for c in range(len(s)) if not u[c] and (not y[c] or PARENTS[p, c])]
            excess = [e for e in (1 - s[p] + s[c] for c in below) if e > 0]
            total += sum(1 / (j + 1) for j in range(len(excess))) * (np.mean(excess) if excess else 0)
            count += 1
    assert rivals.warp_loss(scores, labels, torch.tensor(PARENTS), unknown).item() == pytest.approx(total / count)


def test_coarse_parts_prefer_the_specific():
    labels = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 1]], dtype=bool)
    parts = rivals.coarse_parts(labels, ["abdomen", "liver", "nodule"])
    assert [rivals.COARSE_PARTS[k] if k >= 0 else None for k in parts] == ["liver", "abdomen", None]


def test_likeness_by_hand():
    part = torch.tensor([0, 0, 0, 0, 1, -1])
    place = torch.tensor([[0.5, 0.5, 0.5]] * 3 + [[0.9, 0.5, 0.5]] + [[0.5, 0.5, 0.5]] * 2)
    size = torch.tensor([[10.0, 8], [12, 8], [30, 20], [10, 8], [10, 8], [10, 8]])
    level = rivals.likeness(part, place, size, SimpleNamespace(near=0.1, alike_mm=5.0))
    assert level[0].tolist() == [3, 3, 2, 1, 0, -1]


def test_sequence_loss_tends_to_the_mean_of_all_its_triplets():
    rng = np.random.default_rng(0)
    embedding = torch.nn.functional.normalize(torch.tensor(rng.normal(size=(9, 3)), dtype=torch.float32), dim=1)
    level = torch.tensor(rng.integers(-1, 4, (9, 9)))
    level = torch.triu(level, 1) + torch.triu(level, 1).T
    distance = torch.cdist(embedding, embedding).tolist()
    expected = 0.0
    for higher, margin in ((3, 0.1), (2, 0.2), (1, 0.4)):
        of_anchor = []
        for a in range(9):
            near, far = ([b for b in range(9) if b != a and level[a, b] == k] for k in (higher, higher - 1))
            costs = [max(0, distance[a][b] - distance[a][c] + margin) for b in near for c in far]
            of_anchor += [np.mean(costs)] if costs else []
        expected += np.mean(of_anchor)
    assert rivals.sequence_loss(embedding, level, 30000, generator()).item() == pytest.approx(expected, rel=0.02)


def test_without_cues_the_older_embedding_says_what_it_lacks():
    with pytest.raises(ValueError, match="place_x.*which the table of lesions lacks"):
        rivals.cues(pd.DataFrame({"long_mm": [1.0]}))
