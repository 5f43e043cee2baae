"""Where the cells of a feature map lie in the image: cell (i, j) of a map of stride s lies at pixel x = s j, y = s i.

A layer with an odd kernel k, stride s and a padding of (k - 1) / 2 puts its cell j on cell s j of what it reads. So do
the stem of a DenseNet or a ResNet (7 x 7 and 3 x 3, stride 2), their convolutions of stride 2, and those of stride 1.
A DenseNet's transitions average 2 x 2 cells and move theirs by half a cell: those of its second block lie at 8 k + 2,
those of its third at 16 m + 6. The pyramid's nearest upsampling gives cell k to the finer cells 2 k and 2 k + 1, one as
far to its left as the other to its right, so that in the mean all parts of a cell lie at s j again.
tests/test_positions.py measures this, stage by stage.
"""

import torch
from torch import Tensor
from torchvision.ops import roi_align


def cell_centres(height: int, width: int, stride: int, device: torch.device | str) -> Tensor:
    """Pixel coordinates (x, y) of the cells of a feature map: (height * width, 2), row by row."""
    y, x = torch.meshgrid(torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij")
    return torch.stack([x, y], dim=-1).reshape(-1, 2).float() * stride


def pool_boxes(features: Tensor, boxes: list[Tensor], stride: int, size: int, points: int) -> Tensor:
    """ROIAlign that takes the cells to lie where `cell_centres` has them.

    features: (n, c, y / stride, x / stride); boxes: (k, 4) in pixels for each of the n images. Returns (all k, c, size,
    size), the mean of points x points bilinear samples each.

    torchvision takes pixel x to lie at cell x / stride - 1/2 (`aligned=True`), so the boxes are moved by half a stride.
    The baseline's older ROIAlign had it at cell x / stride, as here, but made every box at least one cell wide.
    """
    moved = [box + stride / 2 for box in boxes]
    return roi_align(features, moved, size, 1 / stride, points, aligned=True)
