"""The losses of LesaNet Sec. 4.1, 4.2 and 4.4, each of them a function of scores or embeddings and labels.

Scores are logits (n, labels), labels 0/1 floats of the same shape, masks bool. What is drawn at random follows from
the `generator`, which lives on the CPU, so that a GPU draws the same.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def label_weights(labels: Tensor, largest: float = 300.0) -> tuple[Tensor, Tensor]:
    """Weights of positive and negative entries per label: n / 2P and n / 2N, at most `largest`.

    LesaNet Eq. 1, Sec. 5.2. labels (n, C) 0/1; two weights (C,).
    """
    n, positive = len(labels), labels.sum(0)
    weight_of = [n / (2 * number.clamp(min=1)) for number in (positive, n - positive)]
    return weight_of[0].clamp(max=largest), weight_of[1].clamp(max=largest)


def weighted_cross_entropy(
    scores: Tensor, labels: Tensor, weights: tuple[Tensor, Tensor], unknown: Tensor | None = None
) -> Tensor:
    """Weighted binary cross-entropy, the mean over all entries (LesaNet Eq. 1, which is a sum; its code has a mean).

    `weights` come from `label_weights`; the entries of `unknown` (uncertain labels) count as zeros in the mean.
    """
    weight = torch.where(labels > 0, weights[0], weights[1])
    if unknown is not None:
        weight = weight.masked_fill(unknown, 0.0)
    return F.binary_cross_entropy_with_logits(scores, labels, weight=weight)


def hard_examples(
    scores: Tensor, labels: Tensor, reliable: Tensor, count: int, gamma: float, generator: torch.Generator
) -> Tensor:
    """Draw `count` entries with replacement, each as often as it is hard (LesaNet Eq. 2).

    How hard: |sigmoid(score) - label|^gamma. Only `reliable` entries are drawn. Returns their numbers in the flattened
    matrix; none if no entry is reliable.
    """
    difficulty = (torch.sigmoid(scores.detach()) - labels).abs() ** gamma * reliable
    difficulty = difficulty.flatten().double().cpu()
    if difficulty.sum() == 0:
        return torch.zeros(0, dtype=torch.int64)
    return torch.multinomial(difficulty, count, replacement=True, generator=generator)


def hard_example_loss(
    scores: Tensor, labels: Tensor, reliable: Tensor, count: int, gamma: float, generator: torch.Generator
) -> Tensor:
    """Relational hard example mining: plain cross-entropy, the mean over the drawn entries (LesaNet Sec. 4.2).

    `reliable` entries are known for sure: labels that a lesion has, and those that these exclude; a label that a
    report does not mention may be missing there, and must not become a hard negative. See `hard_examples`.
    """
    drawn = hard_examples(scores, labels, reliable, count, gamma, generator).to(scores.device)
    if len(drawn) == 0:
        return scores.sum() * 0
    return F.binary_cross_entropy_with_logits(scores.flatten()[drawn], labels.flatten()[drawn])


def label_similarity(labels: Tensor) -> Tensor:
    """sim = |X and Y|^2 / |X or Y| of every two rows of a 0/1 matrix (n, labels) (LesaNet Eq. 3): (n, n)."""
    shared = labels @ labels.T
    size = labels.sum(1)
    union = size[:, None] + size[None, :] - shared
    return torch.where(union > 0, shared**2 / union.clamp(min=1), torch.zeros_like(shared))


def sample_triplets(
    similarity: Tensor, comparable: Tensor, count: int, theta: float, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw `count` triplets (anchor, similar, less similar) of row numbers (LesaNet Sec. 4.4).

    similarity: (n, n). comparable: (n, n) bool, False where nothing is known about a pair (on the diagonal too); such
    a pair is in no triplet. The similar row has sim >= theta, or is the most similar one if none has; the third row
    is less similar to the anchor than the second. Anchors without such rows are drawn in vain, so fewer may return.
    """
    n = len(similarity)
    anchor = torch.randint(n, (count,), generator=generator)
    sim = similarity[anchor].masked_fill(~comparable[anchor], float("-inf"))
    best = sim.max(1, keepdim=True).values
    positive = draw((sim >= theta) | (sim == best), generator)
    lower = comparable[anchor] & (sim < sim.gather(1, positive[:, None]))
    valid = lower.any(1) & best[:, 0].isfinite() & (best[:, 0] > 0)
    negative = draw(lower, generator)
    return anchor[valid], positive[valid], negative[valid]


def draw(allowed: Tensor, generator: torch.Generator) -> Tensor:
    """One allowed column of each row, uniformly: (n,)."""
    return torch.rand(allowed.shape, generator=generator).masked_fill(~allowed, -1.0).argmax(1)


def triplet_loss(embedding: Tensor, triplets: tuple[Tensor, Tensor, Tensor], margin: float) -> Tensor:
    """Mean of max(0, d(a, b) - d(a, c) + margin) over the triplets (LesaNet Eq. 4), d the L2 distance.

    embedding: (n, d) unit vectors. triplets: rows of a, b and c, as from `sample_triplets`.
    """
    anchor, positive, negative = triplets
    if len(anchor) == 0:
        return embedding.sum() * 0
    squared = (2 - 2 * embedding @ embedding.T).clamp(min=1e-8)  # unit vectors; the clamp keeps the root's slope finite
    distance = squared.sqrt()
    return F.relu(distance[anchor, positive] - distance[anchor, negative] + margin).mean()
