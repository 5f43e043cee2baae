"""LENS, the lesion ensemble (LENS Sec. IV, Fig. 2)."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torchvision.ops import clip_boxes_to_image, nms

from lensnb.models.targets import Target
from lensnb.models.weights import require_finite
from lensnb.settings import Network

LAMBDA_SIZE, LAMBDA_BOX = 0.1, 10.0  # lambda_1 and lambda_2 of LENS Eq. 3


class LENS(nn.Module):
    """Shared backbone, one proposal network per dataset, and a head with one class and box layer per dataset.

    The parts are passed in; `build.build_lens` makes them by name. proposal_networks: by the name of their dataset, in
    the order of the head's layers. A dataset's proposal network with its layers in the head is called its expert.
    network: how many proposals are pooled, and how (proposals, proposals_before_nms, proposal_nms, min_box).
    """

    def __init__(
        self, backbone: nn.Module, proposal_networks: Mapping[str, nn.Module], head: nn.Module, network: Network
    ):
        super().__init__()
        self.backbone, self.head, self.network = backbone, head, network
        self.experts = tuple(proposal_networks)
        self.proposal_networks = nn.ModuleList(proposal_networks.values())

    def forward(
        self,
        slices: Tensor,
        targets: list[Target] | None = None,
        dataset: int = 0,
        generators: list[torch.Generator] | None = None,
    ) -> tuple[list[Tensor], Tensor, Tensor] | dict[str, Tensor]:
        """What every expert thinks of every proposal; with `targets`, the losses of a batch instead.

        slices: (n, slices, y, x) grey values. targets: one for each image, all of dataset number `dataset`, whose
        layers and the shared ones learn; generators: one for each image. Returns what `from_features` returns.
        """
        return self.from_features(self.backbone(slices), targets, dataset, generators)

    def from_features(
        self,
        features: Tensor,
        targets: list[Target] | None = None,
        dataset: int = 0,
        generators: list[torch.Generator] | None = None,
    ) -> tuple[list[Tensor], Tensor, Tensor] | dict[str, Tensor]:
        """All that follows the backbone, in training and inference alike.

        features: (n, channels, y / stride, x / stride). Returns the pooled proposals of each image (a list of (k, 4)
        in pixels), and for all of them the experts' scores (all k, experts) and boxes (all k, experts, 4). With
        `targets` the terms of LENS Eq. 3: {"center", "size", "class", "box"}, see `total_loss`. Without them raises
        FloatingPointError for numbers that are not finite: they would drop out of all comparisons, and the image look
        as if there was nothing in it.
        """
        if targets is None:
            cells = [network(features) for network in self.proposal_networks]
            require_finite("features or proposals", features, *(part for raw in cells for part in raw))
            proposals = self.propose(cells, features)
            scores, boxes = self.head.detect(features, proposals)
            require_finite("scores or boxes", scores, boxes)
            return proposals, scores, boxes
        own = self.proposal_networks[dataset](features)
        with torch.no_grad():  # the others propose, but do not learn from another dataset's labels
            cells = [own if i == dataset else other(features) for i, other in enumerate(self.proposal_networks)]
            proposals = self.propose(cells, features)
        losses = self.proposal_networks[dataset].losses(own, features.shape[2:], targets, generators)
        return losses | self.head.losses(features, proposals, targets, dataset, generators)

    @torch.no_grad()
    def propose(self, cells: list, features: Tensor) -> list[Tensor]:
        """Pool the proposals of all proposal networks, NMS, and the best of each image (LENS Sec. IV-C).

        cells: the raw outputs of each network. Returns a list of boxes (k, 4), k <= network.proposals, in pixels and
        inside the image.
        """
        map_size = features.shape[2:]
        found = [
            network.propose(raw, map_size, self.network.proposals_before_nms)
            for network, raw in zip(self.proposal_networks, cells, strict=True)
        ]
        boxes, scores = (torch.cat(parts, dim=1) for parts in zip(*found, strict=True))
        height, width = (side * self.backbone.stride for side in map_size)
        return [best for best, _ in best_boxes(boxes, scores, (height, width), self.network)]


def best_boxes(
    boxes: Tensor, scores: Tensor, image_size: tuple[int, int], network: Network
) -> list[tuple[Tensor, Tensor]]:
    """The `network.proposals` best boxes of each image after NMS, and their scores: boxes (n, k, 4), scores (n, k) -> n
    times (m, 4) and (m,).

    The best come first. Boxes are cut at the border of `image_size` (height, width); those under `network.min_box`
    pixels on a side go.
    """
    n, k = scores.shape
    # the last pixel centre is at width - 1
    boxes = clip_boxes_to_image(boxes.flatten(0, 1), (image_size[0] - 1, image_size[1] - 1)).unflatten(0, (n, k))
    small = ((boxes[..., 2:] - boxes[..., :2]) < network.min_box).any(dim=2)
    scores, order = scores.masked_fill(small, -1.0).sort(dim=1, descending=True, stable=True)
    boxes = boxes.gather(1, order[..., None].expand(-1, -1, 4))
    wanted, best = network.proposals, []
    for box, score, large in zip(boxes, scores, (k - small.sum(dim=1)).tolist(), strict=True):
        # a box is suppressed by better ones only, so often it is enough to look at some more than are wanted
        for first in (min(large, 3 * wanted), large):
            kept = nms(box[:first], score[:first], network.proposal_nms)
            if len(kept) >= wanted or first == large:
                break
        best.append((box[kept[:wanted]], score[kept[:wanted]]))
    return best


def total_loss(losses: Mapping[str, Tensor]) -> Tensor:
    """LENS Eq. 3: center + lambda_1 size + class + lambda_2 box."""
    return losses["center"] + LAMBDA_SIZE * losses["size"] + losses["class"] + LAMBDA_BOX * losses["box"]
