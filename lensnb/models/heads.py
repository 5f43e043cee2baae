"""The multi-task detection head: two shared FC layers, then a class and a box layer for each dataset
(LENS Sec. IV-C)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import box_iou

from lensnb.models.cells import pool_boxes
from lensnb.models.targets import Target, decode, encode, sample


class DetectionHead(nn.Module):
    """ROIAlign, FC, FC, and for each of `experts` a class layer (2 logits) and a box layer (4 offsets per class).

    channels, stride: of the features; width: of the FC layers; roi_size: cells on a side that a proposal is pooled to,
    each from roi_points x roi_points points; sampled: proposals in the loss of an image, and how many may be lesions;
    hard: for each expert, which share of its background proposals are the hardest ones (see `losses`), 0 by default.
    """

    def __init__(
        self, channels: int, stride: int, experts: int, width: int, roi_size: int, roi_points: int,
        sampled: Sequence[int], hard: Sequence[float] = (),
    ):  # fmt: skip
        super().__init__()
        self.hard = tuple(hard) or (0.0,) * experts
        self.stride, self.roi_size, self.roi_points, self.sampled = stride, roi_size, roi_points, tuple(sampled)
        self.fc1 = nn.Linear(channels * self.roi_size**2, width)
        self.fc2 = nn.Linear(width, width)
        self.classes = nn.ModuleList(nn.Linear(width, 2) for _ in range(experts))
        self.boxes = nn.ModuleList(nn.Linear(width, 8) for _ in range(experts))
        for layer in (self.fc1, self.fc2):
            nn.init.kaiming_uniform_(layer.weight, a=1)
            nn.init.zeros_(layer.bias)
        for layers, std in ((self.classes, 0.01), (self.boxes, 0.001)):
            for layer in layers:
                nn.init.normal_(layer.weight, std=std)
                nn.init.zeros_(layer.bias)

    def pool(self, features: Tensor, proposals: list[Tensor]) -> Tensor:
        """The shared feature vector of every proposal: (all proposals, width)."""
        pooled = pool_boxes(features, proposals, self.stride, self.roi_size, self.roi_points)
        return F.relu(self.fc2(F.relu(self.fc1(pooled.flatten(1)))))

    def losses(
        self, features: Tensor, proposals: list[Tensor], targets: list[Target], dataset: int, generators=None
    ) -> dict[str, Tensor]:
        """Cross-entropy and smooth L1 on `sampled` proposals an image, averaged over the images.

        The lesions themselves join the proposals. A proposal with IoU >= 0.5 with a lesion is one; one that
        overlaps an uncertain lesion is left out (see `match_proposals`). The hardest background proposals of an expert
        are those that it gives the highest scores, so those with the highest loss (online hard example mining).
        """
        every = [torch.cat([boxes, target.lesions]) for boxes, target in zip(proposals, targets, strict=True)]
        hard, scores = self.hard[dataset], [None] * len(every)
        if hard:
            with torch.no_grad():
                scores = self.classes[dataset](self.pool(features, every)).float().softmax(dim=1)[:, 1]
            scores = scores.split([len(candidates) for candidates in every])
        chosen, labels, wanted = [], [], []
        generators = generators or [None] * len(targets)
        for candidates, score, target, generator in zip(every, scores, targets, generators, strict=True):
            label, owner = match_proposals(candidates, target)
            index = sample(label, *self.sampled, generator, score, hard)
            chosen.append(candidates[index])
            labels.append(label[index])
            offsets = torch.zeros(len(index), 4, dtype=candidates.dtype, device=features.device)
            hit = label[index] == 1
            if hit.any():
                offsets[hit] = encode(target.lesions[owner[index][hit]], candidates[index][hit])
            wanted.append(offsets)
        pooled = self.pool(features, chosen)
        logits = self.classes[dataset](pooled)
        offsets = self.boxes[dataset](pooled)[:, 4:]
        label = torch.cat(labels)
        # each image counts the same, however few proposals it had
        counts = torch.tensor([len(c) for c in chosen], dtype=offsets.dtype, device=features.device)
        weight = (1 / counts.clamp(min=1) / len(chosen)).repeat_interleave(counts.long())
        entropy = F.cross_entropy(logits, label, reduction="none")
        error = F.smooth_l1_loss(offsets, torch.cat(wanted), reduction="none").sum(dim=1) * (label == 1)
        return {"class": (entropy * weight).sum(), "box": (error * weight).sum()}

    def detect(self, features: Tensor, proposals: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Every expert's score and box for every proposal: (all proposals, datasets) and (..., datasets, 4)."""
        pooled = self.pool(features, proposals)
        reference = torch.cat(proposals)
        scores = torch.stack([layer(pooled).softmax(dim=1)[:, 1] for layer in self.classes], dim=1)
        boxes = torch.stack([decode(layer(pooled)[:, 4:], reference) for layer in self.boxes], dim=1)
        return scores, boxes


def match_proposals(candidates: Tensor, target: Target) -> tuple[Tensor, Tensor]:
    """Label of every proposal (1 lesion, 0 background, -1 left out) and the lesion that it overlaps most.

    The paper says that an uncertain box is excluded from the loss (LENS Sec. V-C) but not by which overlap: here a
    background proposal is left out if its IoU with an uncertain box is >= 0.3, or if half of it lies inside one.
    """
    label = torch.zeros(len(candidates), dtype=torch.long, device=candidates.device)
    owner = torch.zeros_like(label)
    if len(target.uncertain):
        overlap = box_iou(candidates, target.uncertain)
        low = torch.maximum(candidates[:, None, :2], target.uncertain[None, :, :2])
        high = torch.minimum(candidates[:, None, 2:], target.uncertain[None, :, 2:])
        own = (candidates[:, 2:] - candidates[:, :2]).prod(dim=1).clamp(min=1e-6)
        inside = (high - low).clamp(min=0).prod(dim=2) / own[:, None]
        label[(overlap >= 0.3).any(dim=1) | (inside >= 0.5).any(dim=1)] = -1
    if len(target.lesions):
        best, owner = box_iou(candidates, target.lesions).max(dim=1)
        label[best >= 0.5] = 1
    return label, owner
