"""The 3D false positive reduction network (LENS Sec. IV-D)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lensnb.models.cells import pool_boxes
from lensnb.models.weights import imagenet_weights
from lensnb.settings import Fpr


class BasicBlock3D(nn.Module):
    """ResNet's basic block with 3D kernels of `depth` x 3 x 3; `stride` is that of y and x, and of z if depth > 1."""

    def __init__(self, channels: int, width: int, stride: int, depth: int):
        super().__init__()
        steps = (stride if depth > 1 else 1, stride, stride)
        self.conv1 = nn.Conv3d(channels, width, (depth, 3, 3), steps, (depth // 2, 1, 1), bias=False)
        self.bn1 = nn.BatchNorm3d(width)
        self.conv2 = nn.Conv3d(width, width, (depth, 3, 3), 1, (depth // 2, 1, 1), bias=False)
        self.bn2 = nn.BatchNorm3d(width)
        self.downsample = None
        if steps != (1, 1, 1) or channels != width:
            self.downsample = nn.Sequential(nn.Conv3d(channels, width, 1, steps, bias=False), nn.BatchNorm3d(width))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(x)) + shortcut)


class FPR(nn.Module):
    """Patches and 3D boxes in, lesion logits out.

    `config`: widths (four blocks), blocks (residual blocks in each), stem_stride and stem_pool (2 and true in the
    paper's ResNet-18), pooled, features. Kernels are 1 x 3 x 3 up to block 3 and 3 x 3 x 3 in block 4. Blocks 1 to 3
    are pooled over the lesion's 3D box, block 4 over the whole patch; the paper gives neither the pooled size nor
    the layers after it, which follow LesaNet: a layer per block, concatenated, one layer to the score. Cell j of a
    block of stride s lies on pixel s j of the patch (see cells.py).
    """

    def __init__(self, config: Fpr):
        super().__init__()
        widths = [config.widths[0], *config.widths]
        self.conv1 = nn.Conv3d(
            1, widths[0], (1, 7, 7), (1, config.stem_stride, config.stem_stride), (0, 3, 3), bias=False
        )
        self.bn1 = nn.BatchNorm3d(widths[0])
        self.stem_pool = config.stem_pool
        self.layers = nn.ModuleList()
        for i, count in enumerate(config.blocks):
            depth, stride = (3 if i == 3 else 1), (1 if i == 0 else 2)
            first = BasicBlock3D(widths[i], widths[i + 1], stride, depth)
            rest = [BasicBlock3D(widths[i + 1], widths[i + 1], 1, depth) for _ in range(count - 1)]
            self.layers.append(nn.Sequential(first, *rest))
        self.stride = config.stem_stride * (2 if config.stem_pool else 1)
        self.project = nn.ModuleList(nn.Linear(width * config.pooled**2, config.features) for width in config.widths)
        self.score = nn.Linear(config.features * len(config.widths), 1)
        self.pooled = config.pooled
        nn.init.constant_(self.score.bias, -2.0)

    def forward(self, patches: Tensor, boxes: Tensor, inside: Tensor) -> Tensor:
        """patches: (n, z, y, x); boxes: (n, 4) in patch pixels; inside: (n, z) bool, the slices of the 3D box.

        Returns logits (n,).
        """
        pooled = self.pooled_features(patches, boxes, inside)
        features = [project(x.flatten(1)) for project, x in zip(self.project, pooled, strict=True)]
        return self.score(F.relu(torch.cat(features, dim=1)))[:, 0]

    def pooled_features(self, patches: Tensor, boxes: Tensor, inside: Tensor) -> list[Tensor]:
        """What `forward` looks at, of the same arguments: four of (n, channels, pooled, pooled), one for each block."""
        x = F.relu(self.bn1(self.conv1(patches[:, None])))
        if self.stem_pool:
            x = F.max_pool3d(x, (1, 3, 3), (1, 2, 2), (0, 1, 1))
        pooled = []
        for i, layer in enumerate(self.layers):
            x = layer(x)
            if i == 3:  # the whole patch, as a box: even shares of its few cells would not lie around its middle
                height, width = patches.shape[2:]
                boxes = boxes.new_tensor([[0, 0, width - 1, height - 1]]).expand(len(x), 4)
                inside = inside.new_ones(len(x), x.shape[2])
            pooled.append(pool_box(x, boxes, inside, self.stride * 2**i, self.pooled))
        return pooled


def pool_box(x: Tensor, boxes: Tensor, inside: Tensor, stride: int, size: int) -> Tensor:
    """ROI pooling over 3D boxes: ROIAlign in plane, then the maximum over the slices of the box.

    x: (n, c, z, y, x) of `stride` in plane, one box each; boxes (n, 4) in patch pixels; inside (n, z) bool. Returns
    (n, c, size, size).
    """
    channels, depth = x.shape[1:3]
    pooled = pool_boxes(x.flatten(1, 2), list(boxes.split(1)), stride, size, 2)
    pooled = pooled.unflatten(1, (channels, depth))
    return pooled.masked_fill(~inside[:, None, :, None, None], float("-inf")).amax(2)


def load_imagenet(model: FPR) -> None:
    """Inflate torchvision's ImageNet weights of ResNet-18: 2D kernels repeated over z and divided by its length.

    The stem's three colour channels are summed for the one grey channel. Raises ValueError if the model is not
    ResNet-18's size, RuntimeError if the weights cannot be had.
    """
    from torchvision.models import ResNet18_Weights

    inflate(model, imagenet_weights(ResNet18_Weights.IMAGENET1K_V1, "ResNet-18", "fpr.imagenet"))


def inflate(model: FPR, weights: dict[str, Tensor]) -> None:
    """Copy a torchvision ResNet-18 state dict into `model`; ValueError if a layer is missing or does not fit."""
    own = model.state_dict()
    for name in own:
        if name.startswith(("project", "score")):
            continue
        source = name.replace("layers.", "layer")  # layers.0.1.conv1 here is layer1.1.conv1 there
        if source.startswith("layer"):
            source = f"layer{int(source[5]) + 1}{source[6:]}"
        if source not in weights:
            raise ValueError(f"the ImageNet weights have no {source}; the network must be a ResNet-18")
        value = weights[source]
        if own[name].ndim == 5:
            value = value.sum(1, keepdim=True) if name == "conv1.weight" else value
            depth = own[name].shape[2]
            value = value[:, :, None].repeat(1, 1, depth, 1, 1) / depth
        if value.shape != own[name].shape:
            raise ValueError(
                f"{source} of the ImageNet weights has shape {tuple(value.shape)}, not {tuple(own[name].shape)}"
            )
        own[name] = value
    model.load_state_dict(own)


def focal_loss(logits: Tensor, labels: Tensor, gamma: float = 2.0) -> Tensor:
    """Mean focal loss of logits (n,) against 0/1 labels (n,): -(1 - p)^gamma log p of the right class."""
    cross_entropy = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    return ((1 - torch.exp(-cross_entropy)) ** gamma * cross_entropy).mean()
