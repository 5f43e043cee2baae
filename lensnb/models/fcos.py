"""FCOS as a proposal network (Tian et al., ICCV 2019; LENS row (d), Table III).

As in its paper: every cell inside a lesion's box is positive, the smaller lesion has the cells that two share, a
centerness branch lowers the scores of boxes that are predicted far from their middle, and boxes learn by their IoU. It
has one level, as all of LENS; so no ranges of sizes. From the AFP come the branches of two convolutions (FCOS has
four, with group norm; the paper's times, the same as the AFP's, say that it was not so deep here), a cell for a lesion
that has none, and what is not learned at uncertain lesions.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lensnb.models.afp import inside, owned_cells, uncertain_cells
from lensnb.models.branches import best_cells, branch, rows
from lensnb.models.cells import cell_centres
from lensnb.models.lens import LAMBDA_SIZE
from lensnb.models.targets import Target

ALPHA, GAMMA = 0.25, 2  # of the focal loss (RetinaNet's)
LARGEST = 8.0  # of the logarithm of a distance in strides: 3,000 strides, so that exp stays finite


def fcos_target(target: Target, points: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """What FCOS shall say at every cell.

    points (p, 2): centres of the cells, x and y in pixels. Returns label (p,): 1 inside a lesion, -1 where ignored, 0
    elsewhere; and the distances (p, 4) to the left, top, right and bottom border of the lesion, in strides, valid where
    the label is 1; for a lesion without a cell inside, whose nearest one it gets, they are at least 1/100.
    """
    label = torch.zeros(len(points), dtype=torch.long, device=points.device)
    distance = torch.zeros(len(points), 4, dtype=target.lesions.dtype, device=points.device)
    label[uncertain_cells(target, points)] = -1
    lesions = target.lesions
    if len(lesions) == 0:
        return label, distance
    positive, found = owned_cells(inside(points, lesions), lesions, points, stride)
    label[positive] = 1
    distance[positive] = found.clamp(min=0.01)
    return label, distance


def centerness(distance: Tensor) -> Tensor:
    """How near to the middle of its lesion a cell is, from its distances (n, 4): (n,), 1 in the middle (eq. 3)."""
    left, top, right, bottom = distance.unbind(dim=1)
    across = torch.minimum(left, right) / torch.maximum(left, right)
    down = torch.minimum(top, bottom) / torch.maximum(top, bottom)
    return (across * down).sqrt()


def iou_of_distances(first: Tensor, second: Tensor) -> Tensor:
    """IoU of two boxes around the same cell, both by their distances (n, 4): (n,)."""
    both = torch.minimum(first, second)
    shared = (both[:, 0] + both[:, 2]) * (both[:, 1] + both[:, 3])
    areas = [(d[:, 0] + d[:, 2]) * (d[:, 1] + d[:, 3]) for d in (first, second)]
    return shared / (areas[0] + areas[1] - shared)


class FCOS(nn.Module):
    """A classification branch, and a box branch that ends in four distances and the centerness.

    channels, stride: of the features; hidden: channels between the two convolutions.
    """

    def __init__(self, channels: int, stride: int, hidden: int):
        super().__init__()
        self.stride = stride
        self.classes, self.boxes = branch(channels, hidden, 1), branch(channels, hidden, 5)
        nn.init.constant_(self.classes[2].bias, -math.log(99))  # a prior of 1 %
        with torch.no_grad():
            self.boxes[2].bias[:4] = math.log(8 / stride)  # starts with boxes of 16 pixels, as the AFP does

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features (n, c, h, w) to logits (n, h * w), distances (n, h * w, 4) in strides, centerness (n, h * w)."""
        logits, box = self.classes(features).flatten(1), rows(self.boxes(features))
        return logits, box[..., :4].clamp(max=LARGEST).exp(), box[..., 4]

    def losses(
        self, raw: tuple[Tensor, ...], map_size: tuple[int, int], targets: list[Target], generators=None
    ) -> dict[str, Tensor]:
        """Focal loss and centerness, "center", and -log(IoU) weighted by the centerness wanted, "size"; means over the
        images.

        In FCOS all three weigh the same; `total_loss` multiplies "size" with lambda_1, so it is divided by that here.
        """
        points = cell_centres(*map_size, self.stride, raw[0].device)
        centers, sizes = [], []
        for logits, distance, central, target in zip(*raw, targets, strict=True):
            label, wanted = fcos_target(target, points, self.stride)
            positive = label == 1
            count = positive.sum().clamp(min=1)
            p = logits.sigmoid()
            hit = ALPHA * (1 - p) ** GAMMA * F.logsigmoid(logits) * positive
            miss = (1 - ALPHA) * p**GAMMA * F.logsigmoid(-logits) * (label == 0)
            nearness = centerness(wanted[positive])
            own = F.binary_cross_entropy_with_logits(central[positive], nearness, reduction="sum") / count
            overlap = iou_of_distances(distance[positive], wanted[positive]).clamp(min=1e-6)
            weighted = (-overlap.log() * nearness).sum() / nearness.sum().clamp(min=1e-6)
            centers.append(-(hit + miss).sum() / count + own)
            sizes.append(weighted / LAMBDA_SIZE)
        return {"center": torch.stack(centers).mean(), "size": torch.stack(sizes).mean()}

    def propose(self, raw: tuple[Tensor, ...], map_size: tuple[int, int], top: int) -> tuple[Tensor, Tensor]:
        """The boxes of the `top` cells with the highest class score times centerness: (n, k, 4) and scores (n, k)."""
        logits, distance, central = raw
        points = cell_centres(*map_size, self.stride, logits.device)
        d = distance * self.stride
        boxes = torch.cat([points - d[..., :2], points + d[..., 2:]], dim=2)
        return best_cells(logits.sigmoid() * central.sigmoid(), boxes, top)
