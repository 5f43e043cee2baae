"""The rivals of LesaNet's Table 1 that are losses of their own: WARP, and the older lesion embedding.

WARP: Gong et al., Deep Convolutional Ranking for Multilabel Image Annotation, 2014. Older lesion embedding: Yan et
al., Deep Lesion Graphs in the Wild, CVPR 2018, which learns from coarse body part, place in the body, and size.
"""

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from lensnb.lesanet.losses import draw, triplet_loss
from lensnb.settings import Lesanet

# DeepLesion's coarse types, the more specific ones first: a lesion counts for the first that it has
COARSE_PARTS = ("bone", "lung", "mediastinum", "liver", "kidney", "soft tissue", "pelvis", "abdomen")
MARGINS = (0.1, 0.2, 0.4)


def warp_loss(scores: Tensor, labels: Tensor, parents: Tensor, unknown: Tensor) -> Tensor:
    """Weighted approximate ranking: every true label should score 1 more than what belongs below it.

    Below a true label are the false ones and its own parents (LesaNet Sec. 5.4). A true label with r labels too close
    or above costs 1 + 1/2 + ... + 1/r times their mean excess; the loss is the mean over true labels. The original
    estimates r by drawing labels until one is found; with some hundred labels it is counted instead.

    scores: (n, C) logits; labels (n, C) 0/1; parents (C, C) bool, closed; unknown (n, C) bool belongs nowhere.
    """
    true = (labels > 0) & ~unknown
    below = ((labels == 0) & ~unknown)[:, None, :] | (true[:, None, :] & parents[None])  # (n, label, label below it)
    excess = F.relu(1 - scores[:, :, None] + scores[:, None, :]) * below
    rank = (excess > 0).sum(2)
    harmonic = torch.cat(
        [scores.new_zeros(1), (1 / torch.arange(1, scores.shape[1] + 1, device=scores.device)).cumsum(0)]
    )
    cost = harmonic[rank] * excess.sum(2) / rank.clamp(min=1)
    return (cost * true).sum() / true.sum().clamp(min=1)


def coarse_parts(labels: np.ndarray, names: list[str]) -> np.ndarray:
    """Number of each lesion's coarse body part in COARSE_PARTS, -1 where none of its labels is one: (n,) int."""
    result = np.full(len(labels), -1)
    for number, part in reversed(list(enumerate(COARSE_PARTS))):
        if part in names:
            result[labels[:, names.index(part)]] = number
    return result


def likeness(part: Tensor, place: Tensor, size: Tensor, config: Lesanet) -> Tensor:
    """How alike two lesions are to the older embedding: (n, n) int, 3 to 0, and -1 where a part is unknown.

    3: the same part, place and size; 2: the same part and place; 1: the same part; 0: different parts.
    part: (n,) numbers, -1 unknown. place: (n, 3) relative position in the body, 0 to 1. size: (n, 2) long and short
    side in mm. Places less than `config.near` apart are the same, and so are sizes whose sides differ by less than
    `config.alike_mm`.
    """
    same = part[:, None] == part[None, :]
    near = torch.cdist(place, place) < config.near
    alike = (size[:, None] - size[None, :]).abs().amax(2) < config.alike_mm
    level = same.int() * (1 + near.int() * (1 + alike.int()))
    known = part >= 0
    return level.masked_fill(~(known[:, None] & known[None, :]), -1)


def sequence_loss(
    embedding: Tensor, level: Tensor, count: int, generator: torch.Generator, margins: tuple[float, ...] = MARGINS
) -> Tensor:
    """Sum of three triplet losses: a lesion of each level of likeness is nearer than one of the level below.

    embedding: (n, d) unit vectors; level: (n, n) as from `likeness`. `count` anchors are drawn for each of the three.
    """
    loss = embedding.sum() * 0
    others = ~torch.eye(len(level), dtype=torch.bool)
    for higher, margin in zip((3, 2, 1), margins, strict=True):
        anchor = torch.randint(len(level), (count,), generator=generator)
        near, far = (((level == k) & others)[anchor] for k in (higher, higher - 1))
        valid = near.any(1) & far.any(1)
        positive, negative = draw(near, generator), draw(far, generator)
        loss = loss + triplet_loss(embedding, (anchor[valid], positive[valid], negative[valid]), margin)
    return loss


def cues(lesions: pd.DataFrame) -> tuple[Tensor, Tensor]:
    """Place (n, 3) and size (n, 2) of the lesions of a table with place_x, place_y, place_z, long_mm and short_mm.

    Raises ValueError if the table has no such columns.
    """
    columns = ["place_x", "place_y", "place_z", "long_mm", "short_mm"]
    missing = [name for name in columns if name not in lesions]
    if missing:
        raise ValueError(f"the older embedding learns from {', '.join(missing)}, which the table of lesions lacks")
    values = torch.tensor(lesions[columns].to_numpy(np.float32))
    return values[:, :3], values[:, 3:]
