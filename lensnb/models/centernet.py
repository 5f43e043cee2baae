"""CenterNet as a proposal network (Zhou et al., Objects as Points, 2019; LENS Table III).

As in the paper: one cell a lesion is positive, those around it are the less negative the nearer they are, and peaks
of the centre map are the proposals. From the AFP come its branches of two convolutions, a lesion with a cell of its own
whatever its size, and what is not learned at uncertain lesions.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lensnb.models.afp import nearest_cells, uncertain_cells
from lensnb.models.branches import best_cells, branch, rows
from lensnb.models.cells import cell_centres
from lensnb.models.targets import Target

ALPHA, BETA = 2, 4  # of the focal loss, eq. 1 of the paper
OVERLAP = 0.7  # a box of the same size whose corners are moved by the radius still has this IoU with the lesion


def gaussian_radius(width: Tensor, height: Tensor) -> Tensor:
    """How far the two corners of a box may move, in the units of its sides, with IoU >= OVERLAP (CornerNet, Sec. 3.2).

    The least of three cases: both corners move outwards, both inwards, or both the same way. Each is the smaller
    positive root of a quadratic equation for the radius r: (w + 2 r)(h + 2 r) = w h / t, (w - 2 r)(h - 2 r) = t w h,
    and (w - r)(h - r) = 2 t w h / (1 + t).
    """
    t, total, area = OVERLAP, width + height, width * height
    outwards = (-total + (total**2 - 4 * area * (1 - 1 / t)).sqrt()) / 4
    inwards = (total - (total**2 - 4 * area * (1 - t)).sqrt()) / 4
    shifted = (total - (total**2 - 4 * area * (1 - t) / (1 + t)).sqrt()) / 2
    return torch.minimum(torch.minimum(outwards, inwards), shifted)


def centernet_target(target: Target, points: Tensor, stride: int) -> tuple[Tensor, Tensor, Tensor]:
    """What CenterNet shall say at every cell.

    points (p, 2): centres of the cells, x and y in pixels. Returns heat (p,): 1 at the cell nearest to a lesion's
    centre, a Gaussian around it with a deviation of a third of `gaussian_radius`, -1 where ignored; the lesion's width
    and height (p, 2) and the way from the cell to its centre (p, 2), both in strides, valid where the heat is 1. Of two
    lesions with the same cell the smaller one has it, as in the AFP.
    """
    heat = torch.zeros(len(points), dtype=points.dtype, device=points.device)
    size, offset = (torch.zeros(len(points), 2, dtype=points.dtype, device=points.device) for _ in range(2))
    uncertain = uncertain_cells(target, points)
    lesions = target.lesions
    if len(lesions):
        middle, sides = (lesions[:, :2] + lesions[:, 2:]) / 2, (lesions[:, 2:] - lesions[:, :2]).clamp(min=1e-3)
        nearest = nearest_cells(lesions, points)
        deviation = (gaussian_radius(*(sides / stride).unbind(dim=1)) / 3).clamp(min=1e-3)
        squares = (points[nearest][:, None] - points[None]).square().sum(dim=2) / stride**2
        heat = torch.exp(-squares / (2 * deviation[:, None].square())).amax(dim=0).to(points.dtype)
        heat[nearest] = 1
        for lesion in sides.prod(dim=1).argsort(descending=True, stable=True):
            size[nearest[lesion]] = (sides[lesion] / stride).to(size.dtype)
            offset[nearest[lesion]] = ((middle[lesion] - points[nearest[lesion]]) / stride).to(offset.dtype)
        uncertain[nearest] = False
    return torch.where(uncertain, -1.0, heat), size, offset


class CenterNet(nn.Module):
    """A branch for the centre map, one for the size and one for the offset, each of two convolutions.

    channels, stride: of the features; hidden: channels between the two convolutions.
    """

    def __init__(self, channels: int, stride: int, hidden: int):
        super().__init__()
        self.stride = stride
        self.center, self.size, self.offset = (branch(channels, hidden, outputs) for outputs in (1, 2, 2))
        nn.init.constant_(self.center[2].bias, -math.log(99))  # a prior of 1 %, as the AFP has
        nn.init.constant_(self.size[2].bias, 16 / stride)  # starts with boxes of 16 pixels, as the AFP does

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Features (n, c, h, w) to logits (n, h * w), peaks (n, h * w) bool, sizes and offsets (n, h * w, 2) in
        strides. A peak is a cell with no better one among its eight neighbours."""
        logits = self.center(features)
        peaks = F.max_pool2d(logits, 3, stride=1, padding=1) == logits
        return logits.flatten(1), peaks.flatten(1), rows(self.size(features)), rows(self.offset(features))

    def losses(
        self, raw: tuple[Tensor, ...], map_size: tuple[int, int], targets: list[Target], generators=None
    ) -> dict[str, Tensor]:
        """The paper's three losses, each divided by the number of the image's lesions with a cell; means over the
        images.

        Their weights are 1 (centre), 0.1 (size) and 1 (offset): "center" has the first and the last, and lambda_1 of
        LENS Eq. 3 is the second.
        """
        points = cell_centres(*map_size, self.stride, raw[0].device)
        centers, sizes = [], []
        for logits, _, size, offset, target in zip(*raw, targets, strict=True):
            heat, wanted_size, wanted_offset = centernet_target(target, points, self.stride)
            positive = heat == 1
            count = positive.sum().clamp(min=1)
            p = logits.sigmoid()
            hit = (1 - p) ** ALPHA * F.logsigmoid(logits) * positive
            miss = (1 - heat) ** BETA * p**ALPHA * F.logsigmoid(-logits) * ((heat >= 0) & ~positive)
            errors = [(found - wanted).abs().sum(dim=1)[positive].sum() / count
                      for found, wanted in ((size, wanted_size), (offset, wanted_offset))]  # fmt: skip
            centers.append(-(hit + miss).sum() / count + errors[1])
            sizes.append(errors[0])
        return {"center": torch.stack(centers).mean(), "size": torch.stack(sizes).mean()}

    def propose(self, raw: tuple[Tensor, ...], map_size: tuple[int, int], top: int) -> tuple[Tensor, Tensor]:
        """The boxes of the `top` highest peaks of each image: (n, k, 4) and scores (n, k).

        Where there are fewer peaks, cells that are none follow with a score of 0.
        """
        logits, peaks, size, offset = raw
        middle = cell_centres(*map_size, self.stride, logits.device) + offset * self.stride
        half = size.clamp(min=0) * self.stride / 2
        return best_cells(logits.sigmoid() * peaks, torch.cat([middle - half, middle + half], dim=2), top)
