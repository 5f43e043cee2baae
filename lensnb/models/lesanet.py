"""The network of LesaNet Sec. 4.1, 4.3 and Fig. 3: a patch and a lesion's box in, an embedding and label scores out."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import roi_pool

from lensnb.models.weights import imagenet_weights
from lensnb.settings import Lesanet


class LesaNet(nn.Module):
    """Patches and lesion boxes in, unit embeddings and label scores out.

    `config`: widths (five stages), convolutions (per stage), pooled (side of the pooled maps), features (per
    stage), embedding; the paper's numbers are 64, 128, 256, 512, 512; 2, 2, 3, 3, 3; 5; 256; 256. `labels` is the
    number of labels; with none, the network has no label scores.
    """

    def __init__(self, config: Lesanet, labels: int):
        super().__init__()
        widths = [3, *config.widths]
        self.stages = nn.ModuleList(
            _stage(widths[i], widths[i + 1], config.convolutions[i]) for i in range(len(config.widths))
        )
        self.project = nn.ModuleList(nn.Linear(width * config.pooled**2, config.features) for width in config.widths)
        combined = config.features * len(config.widths)
        self.embedding = nn.Linear(combined, config.embedding)
        self.scores = nn.Linear(combined, labels) if labels else None
        self.propagate = _identity(labels) if labels else None
        self.pooled = config.pooled

    def forward(self, patches: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """patches: (n, 3, side, side); boxes: (n, 4) in patch pixels.

        Returns unit embeddings (n, embedding) and the label logits before and after score propagation (n, labels).
        """
        combined = self.combine(patches, boxes)
        embedding = self.embed(combined)
        if self.scores is None:
            return embedding, None, None
        scores = self.scores(combined)
        return embedding, scores, self.propagate(scores)

    def combine(self, patches: Tensor, boxes: Tensor) -> Tensor:
        """The features of all five scales, one after another: (n, 5 * features)."""
        rois = torch.cat([torch.arange(len(boxes), dtype=boxes.dtype, device=boxes.device)[:, None], boxes], dim=1)
        features, x = [], patches
        for level, (stage, project) in enumerate(zip(self.stages, self.project, strict=True)):
            x = stage(x if level == 0 else F.max_pool2d(x, 2))
            if level < 3:  # the lesion's own details
                pooled = roi_pool(x, rois, self.pooled, spatial_scale=0.5**level)
            else:  # its surroundings
                pooled = F.adaptive_max_pool2d(x, self.pooled)
            features.append(project(pooled.flatten(1)))
        return torch.cat(features, dim=1)

    def embed(self, combined: Tensor) -> Tensor:
        """Unit embeddings (n, embedding) out of the combined features."""
        return F.normalize(self.embedding(combined), dim=1)


def _stage(channels: int, width: int, convolutions: int) -> nn.Sequential:
    layers = []
    for i in range(convolutions):
        layers += [nn.Conv2d(channels if i == 0 else width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(True)]
    return nn.Sequential(*layers)


def _identity(size: int) -> nn.Linear:
    """The score propagation layer before training: every label keeps its own score (LesaNet Sec. 4.3)."""
    layer = nn.Linear(size, size)
    nn.init.eye_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def load_imagenet(model: LesaNet) -> None:
    """Start the five stages from torchvision's ImageNet weights of VGG-16 with batch normalisation.

    Raises RuntimeError, which says what to do, if the weights cannot be had, and ValueError if the network's widths
    and convolutions are not VGG-16's.
    """
    from torchvision.models import VGG16_BN_Weights

    published = imagenet_weights(VGG16_BN_Weights.IMAGENET1K_V1, "VGG-16", "lesanet.imagenet")
    # both sides list convolution and norm in turn; the published layers after the convolutions are not used
    theirs = [(name, value) for name, value in published.items() if name.startswith("features.")]
    ours = list(model.stages.state_dict().items())
    differing = [name for (name, value), (_, other) in zip(ours, theirs, strict=False) if value.shape != other.shape]
    if len(ours) != len(theirs) or differing:
        raise ValueError(
            f"the ImageNet weights are those of VGG-16 with batch normalisation ({len(theirs)} tensors); the network "
            f"has {len(ours)}, the first of another shape is {differing[0] if differing else 'none'}: give it VGG-16's "
            "widths and convolutions, or set lesanet.imagenet: false in the profile"
        )
    model.stages.load_state_dict({name: value for (name, _), (_, value) in zip(ours, theirs, strict=True)})
