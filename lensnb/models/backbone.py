"""The backbone: a 2.5D truncated DenseNet with 3D feature fusion and a feature pyramid (LENS Sec. IV-A, [25]).

Nine slices are three images of three channels: below (A), central (B), above (C). All three go through the same
2D network; their features meet twice: after the second transition, and after the pyramid.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import DenseNet, DenseNet121_Weights

from lensnb.models.dense import dense_block, stem, transition
from lensnb.models.weights import imagenet_weights


class Backbone(nn.Module):
    """Groups of slices in, one feature map of stride 4 or 2 for the central slice out.

    slices: in a group, three to an image; an odd number of images, so that one is the central one (9 in the paper).
    growth_rate, block_config (three dense blocks) and stem_channels are DenseNet's, fpn_channels the pyramid's: 32,
    (6, 12, 24), 64 and 512 make DenseNet-121 without its last block. `freeze_batch_norm`: see `train`. stride: 4 as in
    the paper; with 2 the pyramid has one level more, made from the stem before its pooling, which the baseline's code
    also offers. Raises ValueError for another one.

    Like every backbone it says its `stride` (pixels from one feature cell to the next; `cells.cell_centres` says where
    they lie), its `channels`, and the `multiple` that the sides of its slices must be of; and it has `stream_features`
    and `volume_features`.
    """

    multiple = 16
    imagenet_parts = ("stem", "denseblock", "transition")  # what `load_imagenet` fills, by the beginnings of its names

    def __init__(
        self, slices: int, growth_rate: int, block_config: Sequence[int], stem_channels: int, fpn_channels: int,
        freeze_batch_norm: bool = False, stride: int = 4,
    ):  # fmt: skip
        super().__init__()
        if stride not in (2, 4):
            raise ValueError(f"network.stride is {stride}; the pyramid of the DenseNet ends at stride 4 or 2")
        self.images, self.stride = images_of(slices), stride
        trunk = DenseNet(growth_rate, tuple(block_config), stem_channels).features
        self.stem = nn.Sequential(trunk.conv0, trunk.norm0, trunk.relu0, trunk.pool0)
        self.denseblock1, self.transition1 = trunk.denseblock1, trunk.transition1
        self.denseblock2, self.transition2 = trunk.denseblock2, trunk.transition2
        self.denseblock3 = trunk.denseblock3
        # the dense blocks' outputs are read before the transitions, as the baseline does
        c2 = trunk.transition1.norm.num_features
        c3 = trunk.transition2.norm.num_features
        c4 = trunk.norm5.num_features
        middle = trunk.transition2.conv.out_channels
        self.fuse_middle = nn.Conv2d(self.images * middle, middle, 1)
        self.lateral4, self.lateral3, self.lateral2 = (nn.Conv2d(c, fpn_channels, 1) for c in (c4, c3, c2))
        self.fuse_final = nn.Conv2d(self.images * fpn_channels, fpn_channels, 1)
        self.lateral1 = nn.Conv2d(stem_channels, fpn_channels, 1) if stride == 2 else None
        for layer in (*self._laterals(), self.fuse_final):
            nn.init.kaiming_uniform_(layer.weight, a=1)
            nn.init.zeros_(layer.bias)
        self.freeze_batch_norm = freeze_batch_norm
        self.channels = fpn_channels

    def _laterals(self) -> list[nn.Conv2d]:
        """The laterals, from the coarsest level to the finest."""
        return [self.lateral4, self.lateral3, self.lateral2, *([self.lateral1] if self.lateral1 else [])]

    def train(self, mode: bool = True) -> "Backbone":
        """Switch to training; frozen batch norm keeps its running statistics (its scale and shift still learn)."""
        super().train(mode)
        if self.freeze_batch_norm:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def forward(self, slices: Tensor) -> Tensor:
        """Features of the central slices.

        slices: (n, slices, y, x), y and x multiples of 16. Returns (n, channels, y / stride, x / stride).
        """
        n, _, height, width = slices.shape
        # all images A, then all B, all C: each third of a level is a view
        images = slices.reshape(n, self.images, 3, height, width).transpose(0, 1).flatten(0, 1)
        *levels, middle = self._lower(images)
        levels = [level.split(n) for level in levels]
        alone = list(middle.split(n))
        # the central image sees its neighbours; they go on alone
        alone[self.images // 2] = self.fuse_middle(torch.cat(alone, dim=1))
        levels.append(dense_block(self.denseblock3, torch.cat(alone)).split(n))
        return self._pyramid(levels)

    def _lower(self, images: Tensor) -> list[Tensor]:
        """Three-channel images (m, 3, y, x) to the maps that the pyramid reads, the finest first, and transition 2.

        They are the stem before its pooling (stride 2, if it is read), dense block 1 (4) and dense block 2 (8).
        """
        c1, pooled = stem(self.stem, images, whole=self.stride == 2)
        c2 = dense_block(self.denseblock1, pooled)
        c3 = dense_block(self.denseblock2, transition(self.transition1, c2))
        return [*([] if c1 is None else [c1]), c2, c3, transition(self.transition2, c3)]

    def _pyramid(self, levels: Sequence[Sequence[Tensor]]) -> Tensor:
        """Top-down sums of the laterals of all images, and their fusion to one map.

        levels: for each level, the finest first, the maps (n, c, y, x) of A, B and C. The final fusion and the laterals
        are 1 x 1 convolutions and commute with the nearest upsampling and the sums, so that a level is its images'
        cells times a matrix each: half of the work of a pyramid of every image and a fusion at the end.
        """
        total = None
        for lateral, images in zip(self._laterals(), reversed(levels), strict=True):
            n, _, height, width = images[0].shape
            rows = self._folded_bias() if total is None else _rows(double(total, linear=lateral is self.lateral1))
            for image, weight in zip(images, self._folded(lateral), strict=True):
                rows = torch.addmm(rows, _rows(image), weight)
            total = rows.unflatten(0, (n, height, width)).permute(0, 3, 1, 2)
        return total

    @torch.no_grad()
    def stream_features(self, read: Callable[[int, int], Tensor], depth: int, at_once: int) -> Iterator[Tensor]:
        """Features of every slice of a volume of `depth` slices, in order, `at_once` slices at a time.

        read(first, end): the slices first .. end - 1, (n, y, x), y and x multiples of 16. Yields (at most at_once,
        channels, y / stride, x / stride), equal to `forward` on every group of slices.

        Only for eval mode, where an image's features depend on nothing but the image. The windows of neighbouring
        slices overlap: the three-slice image around slice s serves as B for s, as C for s - 3, as A for s + 3. Each is
        computed once and kept until the last slice that needs it.

        Memory does not depend on `depth`: at most at_once + 6 images are held with nine slices to a group (at_once with
        three), each with its features at strides 4, 8 and 16; at full size 30 MB for 512 x 512 pixels.
        """
        reach = 3 * (self.images // 2)
        held: list[Tensor] = []
        done = -reach  # the images before this one have been computed
        for start in range(0, depth, at_once):
            count = min(at_once, depth - start)
            # images around all slices that serve these; one beyond an end repeats the last slice
            end = start + count + reach
            around = (torch.arange(done, end)[:, None] + torch.tensor([-1, 0, 1])).clamp(0, depth - 1)
            if len(around) == 1 < at_once and reach:
                # a batch of one image takes another road through the libraries and ends a few bits beside the others
                around = around.repeat(2, 1)
            first = int(around.min())
            *levels, middle = self._lower(read(first, int(around.max()) + 1)[around - first])
            new = [part[: end - done] for part in (*levels, middle, dense_block(self.denseblock3, middle))]
            done = end
            held = [torch.cat(pair) for pair in zip(held, new, strict=True)] if held else new
            *levels, middle, alone = held  # from image start - reach on
            places = [slice(offset, offset + count) for offset in range(0, 2 * reach + 1, 3)]  # of A, B, C of each
            seen = [alone[place] for place in places]
            fused = self.fuse_middle(torch.cat([middle[place] for place in places], dim=1))
            seen[self.images // 2] = dense_block(self.denseblock3, fused)
            yield self._pyramid([*([level[place] for place in places] for level in levels), seen])
            held = [part[count:] for part in held] if reach else []

    def volume_features(self, volume: Tensor, chunk: int = 48) -> Tensor:
        """`stream_features` of a whole volume (z, y, x) at once: (z, channels, y / stride, x / stride), 33.5 MB a slice
        at full size for 512 x 512 pixels. For a few slices; `detection.inference` holds no volume's features."""
        return torch.cat([*self.stream_features(lambda first, end: volume[first:end], len(volume), chunk)])

    def _folded(self, lateral: nn.Conv2d) -> list[Tensor]:
        """What `fuse_final` makes of `lateral` on A, B and C: a matrix (c, channels) for each."""
        parts = self.fuse_final.weight[:, :, 0, 0].split(self.channels, dim=1)
        return [(part @ lateral.weight[:, :, 0, 0]).t() for part in parts]

    def _folded_bias(self) -> Tensor:
        """What the biases of the laterals and of `fuse_final` come to."""
        total = sum(lateral.bias for lateral in self._laterals())
        parts = self.fuse_final.weight[:, :, 0, 0].split(self.channels, dim=1)
        return self.fuse_final.bias + sum(part @ total for part in parts)

    def load_imagenet(self) -> None:
        """Load torchvision's ImageNet weights of DenseNet-121 into the trunk.

        Raises ValueError if the trunk is not DenseNet-121's, RuntimeError if the weights cannot be had.
        """
        weights = imagenet_weights(DenseNet121_Weights.IMAGENET1K_V1, "DenseNet-121", "network.imagenet")
        load_trunk(self, weights)


def double(maps: Tensor, linear: bool) -> Tensor:
    """Maps (n, c, y, x) at half the stride, (n, c, 2 y, 2 x).

    By nearest neighbours, as the paper's pyramid does, cell k becomes the cells 2 k and 2 k + 1. That is right around a
    cell that lies between them, as those of strides 16 and 8 do, but one of stride 4 lies on cell 2 k of the stem's map
    (see cells.py): there cell 2 k + 1 is the mean of k and k + 1.
    """
    if not linear:
        return F.interpolate(maps, scale_factor=2)
    height, width = (2 * side for side in maps.shape[2:])
    between = F.interpolate(maps, size=(height - 1, width - 1), mode="bilinear", align_corners=True)
    return F.pad(between, (0, 1, 0, 1), mode="replicate")


def _rows(maps: Tensor) -> Tensor:
    """The cells of maps (n, c, y, x) as rows of channels (n * y * x, c), which is how they lie in memory."""
    return maps.permute(0, 2, 3, 1).flatten(0, 2)


def images_of(slices: int) -> int:
    """How many three-channel images a group of slices makes; ValueError unless it is three times an odd number."""
    if slices % 3 or slices // 3 % 2 == 0:
        raise ValueError(
            f"network.slices is {slices}; slices are read three to an image and one image is the central one, so it "
            "must be 3, 9, 15, ..."
        )
    return slices // 3


def load_trunk(backbone: Backbone, weights: dict[str, Tensor]) -> None:
    """Copy the weights of a torchvision DenseNet-121 state dict into the truncated trunk.

    The published file writes `norm.1` where today's torchvision has `norm1`. Raises ValueError if a layer of the
    trunk is missing in the weights or has another shape.
    """
    stem = {"conv0": "stem.0", "norm0": "stem.1"}
    renamed = {}
    for name, value in weights.items():
        parts = name.removeprefix("features.").split(".")
        parts[0] = stem.get(parts[0], parts[0])
        text = ".".join(parts)
        for layer in ("norm", "conv"):
            text = text.replace(f"{layer}.1.", f"{layer}1.").replace(f"{layer}.2.", f"{layer}2.")
        renamed[text] = value
    own = backbone.state_dict()
    trunk = [n for n in own if n.startswith(("stem", "denseblock", "transition")) and "num_batches" not in n]
    wrong = [n for n in trunk if n not in renamed or renamed[n].shape != own[n].shape]
    if wrong:
        raise ValueError(
            f"these layers of the trunk are not in the ImageNet weights: {wrong[:3]} ({len(wrong)} in all)"
        )
    backbone.load_state_dict({n: renamed[n] for n in trunk}, strict=False)
