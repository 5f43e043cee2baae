"""LENS without its detection head: what the proposal networks say is the result (FCOS of one stage, LENS Table III)."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lensnb.models.lens import best_boxes
from lensnb.models.targets import Target
from lensnb.models.weights import require_finite
from lensnb.settings import Network


class OneStage(nn.Module):
    """Shared backbone and one proposal network per dataset, called as `lens.LENS` is.

    An expert scores its own boxes alone: there is no head that would ask the others about them.
    """

    def __init__(self, backbone: nn.Module, proposal_networks: Mapping[str, nn.Module], network: Network):
        super().__init__()
        self.backbone, self.network = backbone, network
        self.experts = tuple(proposal_networks)
        self.proposal_networks = nn.ModuleList(proposal_networks.values())

    def forward(
        self,
        slices: Tensor,
        targets: list[Target] | None = None,
        dataset: int = 0,
        generators: list[torch.Generator] | None = None,
    ) -> tuple[list[Tensor], Tensor, Tensor] | dict[str, Tensor]:
        """As `LENS.forward`."""
        return self.from_features(self.backbone(slices), targets, dataset, generators)

    def from_features(
        self,
        features: Tensor,
        targets: list[Target] | None = None,
        dataset: int = 0,
        generators: list[torch.Generator] | None = None,
    ) -> tuple[list[Tensor], Tensor, Tensor] | dict[str, Tensor]:
        """As `LENS.from_features`, with no loss of a head, and a score of 0 of each expert for the others' boxes.

        The best `network.proposals` boxes of each expert are kept, after its own NMS.
        """
        if targets is not None:
            raw = self.proposal_networks[dataset](features)
            none = features.new_zeros(())
            losses = self.proposal_networks[dataset].losses(raw, features.shape[2:], targets, generators)
            return losses | {"class": none, "box": none}
        height, width = (side * self.backbone.stride for side in features.shape[2:])
        found = []  # of each expert: a list of boxes and scores for each image
        for proposals in self.proposal_networks:
            raw = proposals(features)
            require_finite("features or proposals", features, *raw)
            boxes, scores = proposals.propose(raw, features.shape[2:], self.network.proposals_before_nms)
            found.append(best_boxes(boxes, scores, (height, width), self.network))
        # of each image: all experts' boxes, all experts' scores
        images = [tuple(zip(*of_image, strict=True)) for of_image in zip(*found, strict=True)]
        pooled = [torch.cat(boxes) for boxes, _ in images]
        scores = torch.cat([torch.block_diag(*(own[:, None] for own in scores)) for _, scores in images])
        return pooled, scores, torch.cat(pooled)[:, None].expand(-1, len(self.experts), -1)
