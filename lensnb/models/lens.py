"""LENS, the lesion ensemble (Sec. IV, Fig. 2)."""

from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor, nn
from torchvision.ops import batched_nms, clip_boxes_to_image, nms

from lensnb.files import read_json
from lensnb.models.afp import AFP
from lensnb.models.backbone import Backbone
from lensnb.models.heads import DetectionHead
from lensnb.models.rpn import RPN
from lensnb.models.targets import STRIDE, Target
from lensnb.models.weights import load_weights

PROPOSAL_NETWORKS = {"afp": AFP, "rpn": RPN}
LAMBDA_SIZE, LAMBDA_BOX = 0.1, 10.0  # lambda_1 and lambda_2 of Eq. 3


class LENS(nn.Module):
    """Shared backbone, one proposal network per dataset, and a head with one class and box layer per dataset.

    `network`: the profile's section of that name; `datasets`: their names, the order of the experts;
    `proposal_network`: "afp", or "rpn" for the baseline.
    """

    def __init__(self, network: SimpleNamespace, datasets: tuple[str, ...], proposal_network: str = "afp"):
        super().__init__()
        self.network, self.datasets, self.proposal_network = network, tuple(datasets), proposal_network
        self.backbone = Backbone(network)
        make = PROPOSAL_NETWORKS[proposal_network]
        self.proposal_networks = nn.ModuleList(make(self.backbone.channels, network) for _ in datasets)
        self.head = DetectionHead(self.backbone.channels, network, len(datasets))

    def forward(self, slices: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        """What every expert thinks of every proposal.

        slices: (n, 9, y, x) grey values. Returns the pooled proposals of each image (a list of (k, 4)), and for all
        of them the experts' scores (all k, datasets) and boxes (all k, datasets, 4).
        """
        features = self.backbone(slices)
        proposals = self.propose([afp(features) for afp in self.proposal_networks], features)
        scores, boxes = self.head.detect(features, proposals)
        return proposals, scores, boxes

    def losses(
        self, slices: Tensor, targets: list[Target], dataset: int, generators: list[torch.Generator] | None = None
    ) -> dict[str, Tensor]:
        """The terms of Eq. 3 for a batch from one dataset; its own layers and the shared ones learn."""
        features = self.backbone(slices)
        own = self.proposal_networks[dataset](features)
        with torch.no_grad():
            raw = [own if i == dataset else afp(features) for i, afp in enumerate(self.proposal_networks)]
            proposals = self.propose(raw, features)
        losses = self.proposal_networks[dataset].losses(own, features.shape[2:], targets, generators)
        return losses | self.head.losses(features, proposals, targets, dataset, generators)

    @torch.no_grad()
    def propose(self, raw: list[tuple[Tensor, Tensor]], features: Tensor) -> list[Tensor]:
        """Pool the proposals of all proposal networks: NMS within each, NMS of all, the best of each image.

        Returns a list of boxes (k, 4), k <= network.proposals, in pixels and inside the image.
        """
        height, width = features.shape[2:]
        pooled = []
        for network, output in zip(self.proposal_networks, raw, strict=True):
            boxes, scores = network.propose(output, (height, width), self.network.proposals_before_nms)
            pooled.append(suppress(boxes, scores, (height * STRIDE, width * STRIDE), self.network))
        images = torch.cat([p[0] for p in pooled])
        boxes, scores = torch.cat([p[1] for p in pooled]), torch.cat([p[2] for p in pooled])
        best = [images == i for i in range(len(features))]
        if len(pooled) == 1:
            return [boxes[own][: self.network.proposals] for own in best]
        return [best_boxes(boxes[own], scores[own], self.network) for own in best]


def best_boxes(boxes: Tensor, scores: Tensor, network: SimpleNamespace) -> Tensor:
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
    boxes: Tensor, scores: Tensor, image_size: tuple[int, int], network: SimpleNamespace
) -> tuple[Tensor, Tensor, Tensor]:
    """NMS within each image: boxes (n, k, 4), scores (n, k) -> image (m,), boxes (m, 4), scores (m,), best first.

    Boxes are cut at the border; those under `network.min_box` pixels on a side go.
    """
    n, k = scores.shape
    # the last pixel centre is at width - 1
    boxes = clip_boxes_to_image(boxes.flatten(0, 1), (image_size[0] - 1, image_size[1] - 1))
    images = torch.arange(n, device=boxes.device).repeat_interleave(k)
    large = ((boxes[:, 2:] - boxes[:, :2]) >= network.min_box).all(dim=1)
    boxes, scores, images = boxes[large], scores.flatten()[large], images[large]
    kept = batched_nms(boxes, scores, images, network.proposal_nms)
    return images[kept], boxes[kept], scores[kept]


def total_loss(losses: dict[str, Tensor]) -> Tensor:
    """Eq. 3: center + lambda_1 size + class + lambda_2 box."""
    return losses["center"] + LAMBDA_SIZE * losses["size"] + losses["class"] + LAMBDA_BOX * losses["box"]


def load(run_dir: Path | str, device: str = "cpu") -> LENS:
    """The trained network of a run (config.json and weights.safetensors), in eval mode.

    Raises FileNotFoundError naming the file that is missing.
    """
    return load_file_weights(Path(run_dir) / "weights.safetensors", device)


def load_file_weights(path: Path | str, device: str = "cpu") -> LENS:
    """The network of a weights file. Its configuration is read from config.json beside it.

    Raises FileNotFoundError naming the file that is missing, ValueError if the two do not fit together.
    """
    path = Path(path)
    config_path = path.with_name("config.json")
    for needed in (path, config_path):
        if not needed.exists():
            raise FileNotFoundError(f"{needed} is missing; a finished training run has it")
    config = read_json(config_path)
    try:
        model = LENS(SimpleNamespace(**config["network"]), tuple(config["datasets"]), config["proposal_network"])
    except (KeyError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{config_path} does not describe a network: {type(error).__name__}, {error}") from error
    load_weights(model, path, f"the network that {config_path} describes", advice="")
    return model.to(device, memory_format=torch.channels_last).eval()  # the faster layout, as in training
