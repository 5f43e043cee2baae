"""The backbone: a 2.5D truncated DenseNet with 3D feature fusion and a feature pyramid (LENS Sec. IV-A, [25]).

Nine slices are three images of three channels: below (A), central (B), above (C). All three go through the same
2D network; their features meet twice: after the second transition, and after the pyramid.
"""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import DenseNet, DenseNet121_Weights

from lensnb.models.weights import imagenet_weights


class Backbone(nn.Module):
    """Groups of slices in, one feature map of stride 4 for the central slice out.

    slices: in a group, three to an image; an odd number of images, so that one is the central one (9 in the paper).
    growth_rate, block_config (three dense blocks) and stem_channels are DenseNet's, fpn_channels the pyramid's: 32,
    (6, 12, 24), 64 and 512 make DenseNet-121 without its last block. `freeze_batch_norm`: see `train`.

    Like every backbone it says its `stride` (pixels from one feature cell to the next), its `channels`, and the
    `multiple` that the sides of its slices must be of; and it has `stream_features` and `volume_features`.
    """

    stride, multiple = 4, 16
    imagenet_parts = ("stem", "denseblock", "transition")  # what `load_imagenet` fills, by the beginnings of its names

    def __init__(
        self, slices: int, growth_rate: int, block_config: Sequence[int], stem_channels: int, fpn_channels: int,
        freeze_batch_norm: bool = False,
    ):  # fmt: skip
        super().__init__()
        self.images = images_of(slices)
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
        for layer in (self.lateral4, self.lateral3, self.lateral2, self.fuse_final):
            nn.init.kaiming_uniform_(layer.weight, a=1)
            nn.init.zeros_(layer.bias)
        self.freeze_batch_norm = freeze_batch_norm
        self.channels = fpn_channels

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

        slices: (n, slices, y, x), y and x multiples of 16. Returns (n, channels, y / 4, x / 4).
        """
        n, _, height, width = slices.shape
        images = slices.reshape(self.images * n, 3, height, width)  # A, B, C of the first sample, of the second, ...
        c2, c3, middle = self._lower(images)
        # the central image sees its neighbours; they go on alone
        fused = self.fuse_middle(middle.reshape(n, -1, *middle.shape[2:]))
        alone = list(middle.unflatten(0, (n, self.images)).unbind(1))
        alone[self.images // 2] = fused
        c4 = self.denseblock3(torch.stack(alone, dim=1).flatten(0, 1))
        pyramid = self._pyramid(c2, c3, c4)
        return self.fuse_final(pyramid.reshape(n, -1, *pyramid.shape[2:]))

    def _lower(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Three-channel images (m, 3, y, x) to dense block 1 (stride 4), dense block 2 (8) and transition 2 (16)."""
        c2 = self.denseblock1(self.stem(images))
        c3 = self.denseblock2(self.transition1(c2))
        return c2, c3, self.transition2(c3)

    def _pyramid(self, c2: Tensor, c3: Tensor, c4: Tensor) -> Tensor:
        """Top-down sums of the laterals, up to stride 4."""
        p3 = self.lateral3(c3) + F.interpolate(self.lateral4(c4), scale_factor=2, mode="nearest")
        return self.lateral2(c2) + F.interpolate(p3, scale_factor=2, mode="nearest")

    @torch.no_grad()
    def stream_features(self, read: Callable[[int, int], Tensor], depth: int, at_once: int) -> Iterator[Tensor]:
        """Features of every slice of a volume of `depth` slices, in order, `at_once` slices at a time.

        read(first, end): the slices first .. end - 1, (n, y, x), y and x multiples of 16. Yields (at most at_once,
        channels, y / 4, x / 4), equal to `forward` on every group of slices.

        Only for eval mode, where an image's features depend on nothing but the image. The windows of neighbouring
        slices overlap: the three-slice image around slice s serves as B for s, as C for s - 3, as A for s + 3. Each is
        computed once and kept until the last slice that needs it.
        The final fusion and the laterals are 1 x 1 convolutions and commute with the nearest upsampling and the sums,
        so they fold into one convolution per level (about half of the work of the naive computation at full size).

        Memory does not depend on `depth`: at most at_once + 6 images are held with nine slices to a group (at_once with
        three), each with its features at strides 4, 8 and 16; at full size 30 MB for 512 x 512 pixels.
        """
        reach = 3 * (self.images // 2)
        folded = [self._fold(lateral) for lateral in (self.lateral2, self.lateral3, self.lateral4)]
        bias = self._folded_bias()
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
            c2, c3, middle = self._lower(read(first, int(around.max()) + 1)[around - first])
            new = [part[: end - done] for part in (c2, c3, middle, self.denseblock3(middle))]
            done = end
            held = [torch.cat(pair) for pair in zip(held, new, strict=True)] if held else new
            c2, c3, middle, alone = held  # from image start - reach on
            places = [slice(offset, offset + count) for offset in range(0, 2 * reach + 1, 3)]  # of A, B, C of each
            fused = self.fuse_middle(torch.cat([middle[place] for place in places], dim=1))
            seen = [alone[place] for place in places]
            seen[self.images // 2] = self.denseblock3(fused)
            e4 = F.conv2d(torch.cat(seen, dim=1), folded[2])
            e3 = F.conv2d(torch.cat([c3[place] for place in places], dim=1), folded[1])
            e3 = e3 + F.interpolate(e4, scale_factor=2)
            e2 = F.conv2d(torch.cat([c2[place] for place in places], dim=1), folded[0], bias)
            held = [part[count:] for part in held] if reach else []
            yield e2 + F.interpolate(e3, scale_factor=2)

    def volume_features(self, volume: Tensor, chunk: int = 48) -> Tensor:
        """`stream_features` of a whole volume (z, y, x) at once: (z, channels, y / 4, x / 4), 33.5 MB a slice at full
        size for 512 x 512 pixels. For a few slices; `detection.inference` holds no volume's features."""
        return torch.cat([*self.stream_features(lambda first, end: volume[first:end], len(volume), chunk)])

    def _fold(self, lateral: nn.Conv2d) -> Tensor:
        """The weights of `fuse_final` after `lateral` on A, B, C, as one 1 x 1 convolution of all three."""
        parts = self.fuse_final.weight[:, :, 0, 0].split(self.channels, dim=1)
        return torch.cat([part @ lateral.weight[:, :, 0, 0] for part in parts], dim=1)[:, :, None, None]

    def _folded_bias(self) -> Tensor:
        total = self.lateral2.bias + self.lateral3.bias + self.lateral4.bias
        return self.fuse_final.bias + sum(
            p @ total for p in self.fuse_final.weight[:, :, 0, 0].split(self.channels, dim=1)
        )

    def load_imagenet(self) -> None:
        """Load torchvision's ImageNet weights of DenseNet-121 into the trunk.

        Raises ValueError if the trunk is not DenseNet-121's, RuntimeError if the weights cannot be had.
        """
        weights = imagenet_weights(DenseNet121_Weights.IMAGENET1K_V1, "DenseNet-121", "network.imagenet")
        load_trunk(self, weights)


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
