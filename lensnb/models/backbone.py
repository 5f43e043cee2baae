"""The backbone: a 2.5D truncated DenseNet with 3D feature fusion and a feature pyramid (Sec. IV-A, [25]).

Nine slices are three images of three channels: below (A), central (B), above (C). All three go through the same
2D network; their features meet twice: after the second transition, and after the pyramid.
"""

from types import SimpleNamespace

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import DenseNet


class Backbone(nn.Module):
    """Nine-slice groups in, one feature map of stride 4 for the central slice out.

    `network`: growth_rate, block_config (three numbers), stem_channels, fpn_channels, slices, freeze_batch_norm.
    The paper's numbers are 32, (6, 12, 24), 64, 512, 9: DenseNet-121 without its last block.
    """

    def __init__(self, network: SimpleNamespace):
        super().__init__()
        trunk = DenseNet(network.growth_rate, tuple(network.block_config), network.stem_channels).features
        self.stem = nn.Sequential(trunk.conv0, trunk.norm0, trunk.relu0, trunk.pool0)
        self.denseblock1, self.transition1 = trunk.denseblock1, trunk.transition1
        self.denseblock2, self.transition2 = trunk.denseblock2, trunk.transition2
        self.denseblock3 = trunk.denseblock3
        # the dense blocks' outputs are read before the transitions, as the baseline does
        c2 = trunk.transition1.norm.num_features
        c3 = trunk.transition2.norm.num_features
        c4 = trunk.norm5.num_features
        middle = trunk.transition2.conv.out_channels
        channels = network.fpn_channels
        self.fuse_middle = nn.Conv2d(3 * middle, middle, 1)
        self.lateral4, self.lateral3, self.lateral2 = (nn.Conv2d(c, channels, 1) for c in (c4, c3, c2))
        self.fuse_final = nn.Conv2d(3 * channels, channels, 1)
        for layer in (self.lateral4, self.lateral3, self.lateral2, self.fuse_final):
            nn.init.kaiming_uniform_(layer.weight, a=1)
            nn.init.zeros_(layer.bias)
        self.freeze_batch_norm = network.freeze_batch_norm
        self.channels = channels

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

        slices: (n, 9, y, x), y and x multiples of 16. Returns (n, channels, y / 4, x / 4).
        """
        n, _, height, width = slices.shape
        images = slices.reshape(3 * n, 3, height, width)  # A, B, C of the first sample, of the second, ...
        c2, c3, middle = self._lower(images)
        # the central image sees its neighbours; they go on alone
        below, _, above = middle.unflatten(0, (n, 3)).unbind(1)
        fused = self.fuse_middle(middle.reshape(n, -1, *middle.shape[2:]))
        c4 = self.denseblock3(torch.stack([below, fused, above], dim=1).flatten(0, 1))
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
    def volume_features(self, volume: Tensor, chunk: int = 48) -> Tensor:
        """Features of every slice of a volume, each computed once: equal to `forward` on every nine-slice group.

        Only for eval mode, where an image's features depend on nothing but the image. The windows of neighbouring
        slices overlap: the three-slice image around slice s serves as B for s, as C for s - 3, as A for s + 3.
        The final fusion and the laterals are 1 x 1 convolutions and commute with the nearest upsampling and the sums,
        so they fold into one convolution per level (about half of the work of the naive computation at full size).

        volume: (z, y, x), y and x multiples of 16. Returns (z, channels, y / 4, x / 4).
        """
        depth = len(volume)
        folded = [self._fold(lateral) for lateral in (self.lateral2, self.lateral3, self.lateral4)]
        bias = self._folded_bias()
        maps = []
        for start in range(0, depth, chunk):
            centres = torch.arange(start, min(start + chunk, depth))
            first = start - 3
            # images around the slices first .. last + 3; one beyond an end repeats the last slice
            around = torch.arange(first, int(centres[-1]) + 4)[:, None] + torch.tensor([-1, 0, 1])
            c2, c3, middle = self._lower(volume[around.clamp(0, depth - 1)])
            b = centres - first
            a, c = b - 3, b + 3
            fused = self.fuse_middle(torch.cat([middle[a], middle[b], middle[c]], dim=1))
            alone, seeing = self.denseblock3(middle), self.denseblock3(fused)
            e4 = F.conv2d(torch.cat([alone[a], seeing, alone[c]], dim=1), folded[2])
            e3 = F.conv2d(torch.cat([c3[a], c3[b], c3[c]], dim=1), folded[1]) + F.interpolate(e4, scale_factor=2)
            e2 = F.conv2d(torch.cat([c2[a], c2[b], c2[c]], dim=1), folded[0], bias) + F.interpolate(e3, scale_factor=2)
            maps.append(e2)
        return torch.cat(maps)

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
        from torchvision.models import DenseNet121_Weights

        weights = imagenet_weights(DenseNet121_Weights.IMAGENET1K_V1, "DenseNet-121", "network.imagenet")
        load_trunk(self, weights)


def imagenet_weights(published, network: str, switch: str) -> dict[str, Tensor]:
    """The state dict of one of torchvision's weights; `switch` is the profile's entry that asks for them.

    Raises RuntimeError, which says what to do, if they cannot be had.
    """
    try:
        return published.get_state_dict(progress=True)
    except Exception as error:
        raise RuntimeError(
            f"the ImageNet weights of {network} cannot be had ({error}); download {published.url.rsplit('/', 1)[-1]} "
            "from the PyTorch model zoo into the folder `checkpoints` below torch.hub.get_dir(), or set "
            f"{switch}: false in the profile"
        ) from error


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
