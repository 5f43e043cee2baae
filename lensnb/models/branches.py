"""The layers that the anchor-free rivals of the AFP have in common with it, so that they differ in what they learn."""

from torch import Tensor, nn


def branch(channels: int, hidden: int, outputs: int) -> nn.Sequential:
    """Two convolutions of 3 x 3, as each branch of the AFP has (LENS Fig. 2); the last one begins near 0."""
    layers = nn.Sequential(
        nn.Conv2d(channels, hidden, 3, padding=1), nn.ReLU(), nn.Conv2d(hidden, outputs, 3, padding=1)
    )
    nn.init.kaiming_uniform_(layers[0].weight, a=1)
    nn.init.normal_(layers[2].weight, std=0.01)
    for layer in (layers[0], layers[2]):
        nn.init.zeros_(layer.bias)
    return layers


def rows(raw: Tensor) -> Tensor:
    """Outputs (n, c, h, w) as (n, h * w, c)."""
    return raw.flatten(2).transpose(1, 2)


def best_cells(scores: Tensor, boxes: Tensor, top: int) -> tuple[Tensor, Tensor]:
    """The boxes of the `top` cells with the highest scores: scores (n, p), boxes (n, p, 4) -> (n, k, 4), (n, k)."""
    scores, cells = scores.topk(min(top, scores.shape[1]), dim=1)
    return boxes.gather(1, cells[..., None].expand(-1, -1, 4)), scores
