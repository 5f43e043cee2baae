"""LENS, the lesion ensemble (LENS Sec. IV, Fig. 2)."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torchvision.ops import batched_nms, clip_boxes_to_image, nms

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
        """Pool the proposals of all proposal networks: NMS within each, NMS of all, the best of each image.

        cells: the raw outputs of each network. Returns a list of boxes (k, 4), k <= network.proposals, in pixels and
        inside the image.
        """
        height, width = features.shape[2:]
        size = (height * self.backbone.stride, width * self.backbone.stride)
        pooled = []
        for network, raw in zip(self.proposal_networks, cells, strict=True):
            boxes, scores = network.propose(raw, (height, width), self.network.proposals_before_nms)
            pooled.append(suppress(boxes, scores, size, self.network))
        images = torch.cat([p[0] for p in pooled])
        boxes, scores = torch.cat([p[1] for p in pooled]), torch.cat([p[2] for p in pooled])
        best = [images == i for i in range(len(features))]
        if len(pooled) == 1:
            return [boxes[own][: self.network.proposals] for own in best]
        return [best_boxes(boxes[own], scores[own], self.network) for own in best]


def best_boxes(boxes: Tensor, scores: Tensor, network: Network) -> Tensor:
    """The `network.proposals` best boxes of one image after NMS: boxes (k, 4), scores (k,) -> (m, 4), best first.

    A box is suppressed by better ones only, so most often it is enough to look at three times as many as are wanted;
    with four proposal networks NMS of all would take a tenth of the training.
    """
    order = scores.argsort(descending=True, stable=True)
    wanted = network.proposals
    for first in (order[: 3 * wanted], order):
        kept = nms(boxes[first], scores[first], network.proposal_nms)
        if len(kept) >= wanted or len(first) == len(order):
            break
    return boxes[first][kept[:wanted]]


def suppress(
    boxes: Tensor, scores: Tensor, image_size: tuple[int, int], network: Network
) -> tuple[Tensor, Tensor, Tensor]:
    """NMS within each image: boxes (n, k, 4), scores (n, k) -> image (m,), boxes (m, 4), scores (m,), best first.

    Boxes are cut at the border of `image_size` (height, width); those under `network.min_box` pixels on a side go.
    """
    n, k = scores.shape
    # the last pixel centre is at width - 1
    boxes = clip_boxes_to_image(boxes.flatten(0, 1), (image_size[0] - 1, image_size[1] - 1))
    images = torch.arange(n, device=boxes.device).repeat_interleave(k)
    large = ((boxes[:, 2:] - boxes[:, :2]) >= network.min_box).all(dim=1)
    boxes, scores, images = boxes[large], scores.flatten()[large], images[large]
    kept = batched_nms(boxes, scores, images, network.proposal_nms)
    return images[kept], boxes[kept], scores[kept]


def total_loss(losses: Mapping[str, Tensor]) -> Tensor:
    """LENS Eq. 3: center + lambda_1 size + class + lambda_2 box."""
    return losses["center"] + LAMBDA_SIZE * losses["size"] + losses["class"] + LAMBDA_BOX * losses["box"]
