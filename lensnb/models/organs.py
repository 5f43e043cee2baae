"""What learns the pretext task "organs": a backbone, an organ for each cell of its features, the place of the slice."""

from torch import Tensor, nn


class OrganNetwork(nn.Module):
    """A backbone, one 1 x 1 convolution and one linear layer, so that what is learned is learned in the backbone.

    organs: how many there are.
    """

    def __init__(self, backbone: nn.Module, organs: int):
        super().__init__()
        self.backbone = backbone
        self.organ = nn.Conv2d(backbone.channels, organs, 1)
        self.slice = nn.Linear(backbone.channels, 2)

    def forward(self, slices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """slices (n, slices, y, x) of grey values -> logits of the organs (n, organs, y / stride, x / stride), the
        height of the central slice in the body in 100 mm (n,), and a logit that the slices run to the head (n,)."""
        features = self.backbone(slices)
        height, upward = self.slice(features.mean(dim=(2, 3))).unbind(dim=1)
        return self.organ(features), height, upward
