"""The baseline's region proposal network with anchors (Faster R-CNN)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import box_iou

from lensnb.models.cells import cell_centres
from lensnb.models.targets import Target, decode, encode, sample


class RPN(nn.Module):
    """The baseline's region proposal network: 15 anchors a cell, few sampled cells an image (LENS [25], [28]).

    channels, stride: of the features; sizes: sides of the anchors in pixels.
    """

    SAMPLED, POSITIVE = 32, 16  # anchors in the loss of one image, and how many of them may be lesions

    def __init__(self, channels: int, stride: int, sizes: Sequence[int]):
        super().__init__()
        self.stride = stride
        anchors = anchor_boxes(sizes)
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
        """The anchors of every cell: (h * w * a, 4). The baseline has them 1.5 pixels right of and below the cells."""
        points = cell_centres(*map_size, self.stride, self.anchors.device)
        return (points.repeat(1, 2)[:, None] + self.anchors[None]).reshape(-1, 4)

    def losses(
        self, raw: tuple[Tensor, Tensor], map_size: tuple[int, int], targets: list[Target], generators=None
    ) -> dict:
        """Cross-entropy and smooth L1 (beta 1/9) over 32 sampled anchors an image; averaged over the images.

        Lesion: IoU >= 0.7, or the best anchor of a lesion. Background: IoU < 0.3. Anchors that cross the border of
        the image, or that overlap an uncertain lesion by IoU >= 0.3, are not sampled.
        """
        anchors = self.all_anchors(map_size)
        border = torch.tensor([map_size[1], map_size[0]], device=anchors.device).repeat(2) * self.stride - 1
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


def anchor_boxes(sizes: Sequence[int]) -> Tensor:
    """Anchors around (0, 0) for each side length and the height to width ratios 0.5, 1 and 2: (3 * sizes, 4)."""
    base = 4  # pixels; the baseline rounds the shapes of a square of one stride, also where ours is another
    shapes = []
    for ratio in (0.5, 1.0, 2.0):
        for side in sizes:
            # so a "16" at ratio 0.5 is 24 x 12
            width = round(math.sqrt(base * base / ratio)) * side / base
            height = round(round(math.sqrt(base * base / ratio)) * ratio) * side / base
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
