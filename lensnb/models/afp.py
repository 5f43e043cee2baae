"""The anchor-free proposal network (LENS Sec. IV-B)."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lensnb.models.cells import cell_centres
from lensnb.models.targets import Target

CENTER_RATIO, IGNORE_RATIO = 0.2, 0.5  # r_c and r_i of LENS Sec. IV-B
FOCAL_WEIGHT, GAMMA = 0.5, 2  # of LENS Eq. 1


def shrink(boxes: Tensor, ratio: float) -> Tensor:
    """Boxes (n, 4) with the same centres and `ratio` times the width and height."""
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]) / 2 * ratio
    return torch.cat([centre - half, centre + half], dim=1)


def inside(points: Tensor, boxes: Tensor) -> Tensor:
    """Which points (p, 2) lie in which boxes (n, 4): (n, p) bool."""
    p, b = points[None], boxes[:, None]
    return ((p >= b[..., :2]) & (p <= b[..., 2:])).all(dim=2)


def afp_target(target: Target, points: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """What the AFP shall say at every cell (LENS Sec. IV-B).

    points (p, 2): centres of the cells, x and y in pixels. Returns label (p,): 1 in a lesion's centre region, -1 where
    ignored, 0 elsewhere; and the distances (p, 4) to the left, top, right and bottom border of the lesion, in strides,
    valid where the label is 1. A lesion too small for any cell to fall into its centre region takes the cell nearest to
    its centre. Where centre regions overlap, the smaller lesion has the cell.
    """
    label = torch.zeros(len(points), dtype=torch.long, device=points.device)
    distance = torch.zeros(len(points), 4, dtype=target.lesions.dtype, device=points.device)
    label[uncertain_cells(target, points)] = -1
    lesions = target.lesions
    if len(lesions) == 0:
        return label, distance
    label[inside(points, shrink(lesions, IGNORE_RATIO)).any(dim=0)] = -1
    positive, found = owned_cells(inside(points, shrink(lesions, CENTER_RATIO)), lesions, points, stride)
    label[positive] = 1
    distance[positive] = found
    return label, distance


def uncertain_cells(target: Target, points: Tensor) -> Tensor:
    """Which cells (p, 2) lie so far inside an uncertain lesion that they teach nothing: (p,) bool."""
    return inside(points, shrink(target.uncertain, IGNORE_RATIO)).any(dim=0)


def nearest_cells(lesions: Tensor, points: Tensor) -> Tensor:
    """The cell (of p, 2) nearest to the centre of each lesion (n, 4): (n,)."""
    middle = (lesions[:, :2] + lesions[:, 2:]) / 2
    return torch.cdist(middle, points.to(middle.dtype)).argmin(dim=1)


def owned_cells(within: Tensor, lesions: Tensor, points: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """Which cells (p, 2) are positive, and what their lesion's borders are away.

    within (n, p): the cells that a lesion (n, 4) may have; the one nearest to its centre is its own besides. Of several
    lesions the smallest has the cell. Returns (p,) bool, and for each positive cell the distances to the left, top,
    right and bottom border, in strides.
    """
    own = within.clone()
    own[torch.arange(len(lesions)), nearest_cells(lesions, points)] = True
    size = (lesions[:, 2:] - lesions[:, :2]).prod(dim=1)
    owner = torch.where(own, size[:, None], torch.inf).argmin(dim=0)
    positive = own.any(dim=0)
    box, at = lesions[owner[positive]], points[positive]
    return positive, torch.cat([at - box[:, :2], box[:, 2:] - at], dim=1) / stride


class AFP(nn.Module):
    """The anchor-free proposal network: a centerness and a box branch of two convolutions each (LENS Fig. 2).

    channels, stride: of the features; hidden: channels between the two convolutions (128 in full size).
    """

    def __init__(self, channels: int, stride: int, hidden: int):
        super().__init__()
        self.stride = stride
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
        nn.init.constant_(self.size[2].bias, 8 / stride)  # starts with boxes of 16 pixels instead of dead ReLUs

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features (n, c, h, w) to centerness logits (n, h * w) and distances (n, h * w, 4) in strides."""
        logits = self.center(features).flatten(1)
        distances = F.relu(self.size(features)).flatten(2).transpose(1, 2)
        return logits, distances

    def losses(
        self, raw: tuple[Tensor, Tensor], map_size: tuple[int, int], targets: list[Target], generators=None
    ) -> dict:
        """LENS Eq. 1, divided by the number of centre cells of the image, and LENS Eq. 2; means over the images."""
        logits, distances = raw
        points = cell_centres(*map_size, self.stride, logits.device)
        assigned = [afp_target(target, points, self.stride) for target in targets]
        label = torch.stack([a[0] for a in assigned])
        wanted = torch.stack([a[1] for a in assigned])
        positive, negative = label == 1, label == 0
        count = positive.sum(dim=1).clamp(min=1)
        log_p, log_not_p = F.logsigmoid(logits), F.logsigmoid(-logits)
        p = logits.sigmoid()
        focal = (
            -FOCAL_WEIGHT * ((1 - p) ** GAMMA * log_p * positive + p**GAMMA * log_not_p * negative).sum(dim=1) / count
        )
        size = ((distances - wanted).abs().sum(dim=2) * positive).sum(dim=1) / count
        return {"center": focal.mean(), "size": size.mean()}

    def propose(self, raw: tuple[Tensor, Tensor], map_size: tuple[int, int], top: int) -> tuple[Tensor, Tensor]:
        """The boxes of the `top` cells with the highest centerness of each image: (n, k, 4) and scores (n, k)."""
        logits, distances = raw
        scores, cells = logits.sigmoid().topk(min(top, logits.shape[1]), dim=1)
        points = cell_centres(*map_size, self.stride, logits.device)[cells]
        d = distances.gather(1, cells[..., None].expand(-1, -1, 4)) * self.stride
        return torch.cat([points - d[..., :2], points + d[..., 2:]], dim=2), scores
