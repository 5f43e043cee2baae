"""Proposal networks behind one small interface: the paper's anchor-free AFP, and the baseline's RPN.

Each network is a module with

    forward(features)                          -> raw outputs for every cell of the feature map
    losses(raw, map_size, targets, generators) -> {"center": ..., "size": ...}, means over the images
    propose(raw, map_size, top)                -> boxes (n, k, 4) and scores (n, k), the best k cells of each image

`targets` has one `Target` per image and `generators` one random generator per image, so that a sample is the same
whichever images it shares a batch or a process with. The feature map has stride 4; the centre of cell (i, j) lies at
pixel (4 j + 1.5, 4 i + 1.5).
"""

import math
from dataclasses import dataclass
from types import SimpleNamespace

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import box_iou

STRIDE = 4
CENTER_RATIO, IGNORE_RATIO = 0.2, 0.5  # r_c and r_i of Sec. IV-B


@dataclass(frozen=True)
class Target:
    """What is known about one image: boxes of lesions (n, 4) and of uncertain lesions (m, 4), in pixels.

    Both may be empty: a slice without lesions is a training sample like any other.
    """

    lesions: Tensor
    uncertain: Tensor


def cell_centres(height: int, width: int, device: torch.device) -> Tensor:
    """Pixel coordinates (x, y) of the cells of a feature map: (height * width, 2), row by row."""
    y, x = torch.meshgrid(torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij")
    return torch.stack([x, y], dim=-1).reshape(-1, 2) * STRIDE + (STRIDE - 1) / 2


def shrink(boxes: Tensor, ratio: float) -> Tensor:
    """Boxes (n, 4) with the same centres and `ratio` times the width and height."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]) / 2 * ratio
    return torch.cat([centre - half, centre + half], dim=1)


def inside(points: Tensor, boxes: Tensor) -> Tensor:
    """Which points (p, 2) lie in which boxes (n, 4): (n, p) bool."""
    p, b = points[None], boxes[:, None]
    return ((p >= b[..., :2]) & (p <= b[..., 2:])).all(dim=2)


def afp_target(target: Target, points: Tensor) -> tuple[Tensor, Tensor]:
    """What the AFP shall say at every cell (Sec. IV-B).

    Returns label (p,): 1 in a lesion's centre region, -1 where ignored, 0 elsewhere; and the distances (p, 4) to the
    left, top, right and bottom border of the lesion, in strides, valid where the label is 1. A lesion too small for
    any cell to fall into its centre region takes the cell nearest to its centre. Where centre regions overlap, the
    smaller lesion has the cell.
    """
    label = torch.zeros(len(points), dtype=torch.long, device=points.device)
    distance = torch.zeros(len(points), 4, device=points.device)
    label[inside(points, shrink(target.uncertain, IGNORE_RATIO)).any(dim=0)] = -1
    lesions = target.lesions
    if len(lesions) == 0:
        return label, distance
    label[inside(points, shrink(lesions, IGNORE_RATIO)).any(dim=0)] = -1
    centre = inside(points, shrink(lesions, CENTER_RATIO))
    middle = (lesions[:, :2] + lesions[:, 2:]) / 2
    nearest = torch.cdist(middle, points).argmin(dim=1)
    centre[torch.arange(len(lesions)), nearest] = True
    size = (lesions[:, 2:] - lesions[:, :2]).prod(dim=1)
    owner = torch.where(centre, size[:, None], torch.inf).argmin(dim=0)
    positive = centre.any(dim=0)
    label[positive] = 1
    box = lesions[owner[positive]]
    at = points[positive]
    distance[positive] = torch.cat([at - box[:, :2], box[:, 2:] - at], dim=1) / STRIDE
    return label, distance


class AFP(nn.Module):
    """The anchor-free proposal network: a centerness and a box branch of two convolutions each (Fig. 2)."""

    def __init__(self, channels: int, network: SimpleNamespace):
        super().__init__()
        hidden = network.afp_channels
        self.center = nn.Sequential(
            nn.Conv2d(channels, hidden, 3, padding=1), nn.ReLU(), nn.Conv2d(hidden, 1, 3, padding=1)
        )
        self.size = nn.Sequential(
            nn.Conv2d(channels, hidden, 3, padding=1), nn.ReLU(), nn.Conv2d(hidden, 4, 3, padding=1)
        )
        for layer in (self.center[0], self.center[2], self.size[0], self.size[2]):
            nn.init.kaiming_uniform_(layer.weight, a=1)
            nn.init.zeros_(layer.bias)
        nn.init.normal_(self.center[2].weight, std=0.01)
        nn.init.constant_(self.center[2].bias, -math.log(99))  # a prior of 1 %: lesions are sparse
        nn.init.normal_(self.size[2].weight, std=0.01)
        nn.init.constant_(self.size[2].bias, 2.0)  # starts with boxes of 16 pixels instead of dead ReLUs

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features (n, c, h, w) to centerness logits (n, h * w) and distances (n, h * w, 4) in strides."""
        logits = self.center(features).flatten(1)
        distances = F.relu(self.size(features)).flatten(2).transpose(1, 2)
        return logits, distances

    def losses(
        self, raw: tuple[Tensor, Tensor], map_size: tuple[int, int], targets: list[Target], generators=None
    ) -> dict:
        """Eq. 1, divided by the number of centre cells of the image, and Eq. 2; both averaged over the images."""
        logits, distances = raw
        points = cell_centres(*map_size, logits.device)
        assigned = [afp_target(target, points) for target in targets]
        label = torch.stack([a[0] for a in assigned])
        wanted = torch.stack([a[1] for a in assigned])
        positive, negative = label == 1, label == 0
        count = positive.sum(dim=1).clamp(min=1)
        log_p, log_not_p = F.logsigmoid(logits), F.logsigmoid(-logits)
        p = logits.sigmoid()
        focal = -0.5 * ((1 - p) ** 2 * log_p * positive + p**2 * log_not_p * negative).sum(dim=1) / count
        size = ((distances - wanted).abs().sum(dim=2) * positive).sum(dim=1) / count
        return {"center": focal.mean(), "size": size.mean()}

    def propose(self, raw: tuple[Tensor, Tensor], map_size: tuple[int, int], top: int) -> tuple[Tensor, Tensor]:
        """The boxes of the `top` cells with the highest centerness of each image: (n, k, 4) and scores (n, k)."""
        logits, distances = raw
        scores, cells = logits.sigmoid().topk(min(top, logits.shape[1]), dim=1)
        points = cell_centres(*map_size, logits.device)[cells]
        d = distances.gather(1, cells[..., None].expand(-1, -1, 4)) * STRIDE
        return torch.cat([points - d[..., :2], points + d[..., 2:]], dim=2), scores


class RPN(nn.Module):
    """The baseline's region proposal network: 15 anchors a cell, few sampled cells an image ([25], [28])."""

    SAMPLED, POSITIVE = 32, 16  # anchors in the loss of one image, and how many of them may be lesions

    def __init__(self, channels: int, network: SimpleNamespace):
        super().__init__()
        anchors = anchor_boxes(network.rpn_sizes)
        self.register_buffer("anchors", anchors, persistent=False)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.objectness = nn.Conv2d(channels, len(anchors), 1)
        self.offsets = nn.Conv2d(channels, 4 * len(anchors), 1)
        for layer in (self.conv, self.objectness, self.offsets):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features (n, c, h, w) to objectness logits (n, h * w * a) and box offsets (n, h * w * a, 4)."""
        hidden = F.relu(self.conv(features))
        logits = self.objectness(hidden).permute(0, 2, 3, 1).flatten(1)
        offsets = self.offsets(hidden).permute(0, 2, 3, 1).flatten(1).unflatten(1, (-1, 4))
        return logits, offsets

    def all_anchors(self, map_size: tuple[int, int]) -> Tensor:
        """The anchors of every cell: (h * w * a, 4)."""
        points = cell_centres(*map_size, self.anchors.device)
        return (points.repeat(1, 2)[:, None] + self.anchors[None]).reshape(-1, 4)

    def losses(
        self, raw: tuple[Tensor, Tensor], map_size: tuple[int, int], targets: list[Target], generators=None
    ) -> dict:
        """Cross-entropy and smooth L1 (beta 1/9) over 32 sampled anchors an image; averaged over the images.

        Lesion: IoU >= 0.7, or the best anchor of a lesion. Background: IoU < 0.3. Anchors that cross the border of
        the image, or that overlap an uncertain lesion by IoU >= 0.3, are not sampled.
        """
        anchors = self.all_anchors(map_size)
        border = torch.tensor([map_size[1], map_size[0]], device=anchors.device).repeat(2) * STRIDE - 1
        within = ((anchors >= 0) & (anchors <= border)).all(dim=1)
        center, size = [], []
        for logits, offsets, target, generator in zip(*raw, targets, generators or [None] * len(targets), strict=True):
            label, owner = match_anchors(anchors, target)
            label = torch.where(within, label, -1)
            chosen = sample(label, self.SAMPLED, self.POSITIVE, generator)
            positive = chosen[label[chosen] == 1]
            center.append(F.binary_cross_entropy_with_logits(logits[chosen], (label[chosen] == 1).float()))
            wanted = encode(target.lesions[owner[positive]], anchors[positive])
            error = F.smooth_l1_loss(offsets[positive], wanted, beta=1 / 9, reduction="sum")
            size.append(error / max(1, len(chosen)))
        return {"center": torch.stack(center).mean(), "size": torch.stack(size).mean()}

    def propose(self, raw: tuple[Tensor, Tensor], map_size: tuple[int, int], top: int) -> tuple[Tensor, Tensor]:
        """The `top` anchors with the highest objectness of each image, moved by their offsets: (n, k, 4), (n, k)."""
        logits, offsets = raw
        scores, cells = logits.sigmoid().topk(min(top, logits.shape[1]), dim=1)
        chosen = offsets.gather(1, cells[..., None].expand(-1, -1, 4))
        boxes = decode(chosen.flatten(0, 1), self.all_anchors(map_size)[cells.flatten()])
        return boxes.unflatten(0, scores.shape), scores


def anchor_boxes(sizes: list[int]) -> Tensor:
    """Anchors around (0, 0) for each side length and the height to width ratios 0.5, 1 and 2: (3 * sizes, 4)."""
    shapes = []
    for ratio in (0.5, 1.0, 2.0):
        for side in sizes:
            # the baseline rounds on a base of one stride, so that a "16" at ratio 0.5 is 24 x 12 (facts, 2.1)
            width = round(math.sqrt(STRIDE * STRIDE / ratio)) * side / STRIDE
            height = round(round(math.sqrt(STRIDE * STRIDE / ratio)) * ratio) * side / STRIDE
            shapes.append([-width / 2, -height / 2, width / 2, height / 2])
    return torch.tensor(shapes)


def match_anchors(anchors: Tensor, target: Target) -> tuple[Tensor, Tensor]:
    """Label of every anchor (1 lesion, 0 background, -1 neither) and the lesion that it overlaps most."""
    label = torch.zeros(len(anchors), dtype=torch.long, device=anchors.device)
    owner = torch.zeros_like(label)
    if len(target.uncertain):
        label[box_iou(anchors, target.uncertain).amax(dim=1) >= 0.3] = -1
    if len(target.lesions):
        overlap = box_iou(anchors, target.lesions)
        best, owner = overlap.max(dim=1)
        label[best >= 0.3] = -1
        label[best >= 0.7] = 1
        best_anchor = overlap.amax(dim=0)
        label[((overlap == best_anchor) & (best_anchor > 0)).any(dim=1)] = 1
    return label, owner


def sample(label: Tensor, number: int, positive: int, generator: torch.Generator | None) -> Tensor:
    """Indices of at most `number` random entries with label 1 or 0, at most `positive` of them with label 1."""
    ones, zeros = (label == 1).nonzero()[:, 0], (label == 0).nonzero()[:, 0]
    ones = ones[torch.randperm(len(ones), generator=generator)[:positive].to(ones.device)]
    zeros = zeros[torch.randperm(len(zeros), generator=generator)[: number - len(ones)].to(zeros.device)]
    return torch.cat([ones, zeros])


def encode(boxes: Tensor, reference: Tensor) -> Tensor:
    """Offsets (n, 4) of boxes from reference boxes: shift over size, logarithm of the ratio of sizes [28]."""
    size = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1e-3)
    reference_size = (reference[:, 2:] - reference[:, :2]).clamp(min=1e-3)
    shift = (boxes[:, :2] + boxes[:, 2:] - reference[:, :2] - reference[:, 2:]) / 2
    return torch.cat([shift / reference_size, (size / reference_size).log()], dim=1)


def decode(offsets: Tensor, reference: Tensor) -> Tensor:
    """The inverse of `encode`; sizes grow at most 62.5 times, as in the baseline."""
    reference_size = (reference[:, 2:] - reference[:, :2]).clamp(min=1e-3)
    centre = (reference[:, :2] + reference[:, 2:]) / 2 + offsets[:, :2] * reference_size
    half = reference_size * offsets[:, 2:].clamp(max=math.log(1000 / 16)).exp() / 2
    return torch.cat([centre - half, centre + half], dim=1)
