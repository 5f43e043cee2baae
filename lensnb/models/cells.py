"""Where the cells of a feature map lie in the image: cell (i, j) of a map of stride s lies at pixel x = s j, y = s i.

A layer with an odd kernel k, stride s and a padding of (k - 1) / 2 puts its cell j on cell s j of what it reads. So do
the stem of a DenseNet or a ResNet (7 x 7 and 3 x 3, stride 2), their convolutions of stride 2, and those of stride 1.
A DenseNet's transitions average 2 x 2 cells and move theirs by half a cell: those of its second block lie at 8 k + 2,
those of its third at 16 m + 6. The pyramid's nearest upsampling gives cell k to the finer cells 2 k and 2 k + 1, one as
far to its left as the other to its right, so that in the mean all parts of a cell lie at s j again.
tests/test_positions.py measures this, stage by stage.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def cell_centres(height: int, width: int, stride: int, device: torch.device | str) -> Tensor:
    """Pixel coordinates (x, y) of the cells of a feature map: (height * width, 2), row by row."""
    y, x = torch.meshgrid(torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij")
    return torch.stack([x, y], dim=-1).reshape(-1, 2).float() * stride


def pool_boxes(features: Tensor, boxes: Sequence[Tensor], stride: int, size: int, points: int) -> Tensor:
    """ROIAlign that takes the cells to lie where `cell_centres` has them.

    features: (n, c, y / stride, x / stride); boxes: (k, 4) in pixels for each of the n images. Returns (all k, c, size,
    size), the mean of points x points bilinear samples each. A sample beyond the first or last cell repeats it.

    It is torchvision's `roi_align` with `aligned=True` on boxes that are moved by half a stride, since that takes pixel
    x to lie at cell x / stride - 1/2. On CPUs it takes a third of its time: the features are read as rows of channels,
    the layout that they have, and a value is a weighted sum of 4 x points x points rows. The baseline's older ROIAlign
    had the cells at the same places, but made every box at least one cell wide.
    """
    n, _, height, width = features.shape
    box = torch.cat(list(boxes)).float()
    image = torch.arange(n, device=box.device).repeat_interleave(torch.tensor(list(map(len, boxes)), device=box.device))
    x, weight_x = _neighbours(box[:, 0], box[:, 2], stride, size * points, width)
    y, weight_y = _neighbours(box[:, 1], box[:, 3], stride, size * points, height)
    cell = (image[:, None, None] * height + y)[:, :, None, :, None] * width + x[:, None, :, None, :]
    weight = weight_y[:, :, None, :, None] * weight_x[:, None, :, None, :] / points**2
    parts = (-1, size, points, size, points, 4)
    cell, weight = (of.reshape(parts).transpose(2, 3).reshape(-1, 4 * points**2) for of in (cell, weight))
    rows = features.permute(0, 2, 3, 1).flatten(0, 2)
    rows = rows.to(torch.promote_types(rows.dtype, torch.float32))  # under autocast they are bfloat16
    pooled = F.embedding_bag(cell, rows, per_sample_weights=weight.to(rows.dtype), mode="sum")
    return pooled.unflatten(0, (len(box), size, size)).permute(0, 3, 1, 2)


def _neighbours(low: Tensor, high: Tensor, stride: int, points: int, cells: int) -> tuple[Tensor, Tensor]:
    """The two cells along one axis around each of `points` points between low and high (k,), and their weights:
    (k, points, 2) both."""
    part = (torch.arange(points, device=low.device) + 0.5) / points
    place = ((low[:, None] + (high - low)[:, None] * part) / stride).clamp(0, cells - 1)
    before = place.floor().nan_to_num()  # a box that is no number has values that are none, at some cell
    after = (before + 1).clamp(max=cells - 1)
    weight = place - before
    return torch.stack([before, after], dim=-1).long(), torch.stack([1 - weight, weight], dim=-1)
