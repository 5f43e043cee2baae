"""Where feature cells lie is measured: the centroid of |d feature / d input| over the image, against what is said."""

from dataclasses import replace

import pytest
import torch

from lensnb.models import dense
from lensnb.models.afp import afp_target
from lensnb.models.build import build_lens, densenet
from lensnb.models.cells import cell_centres, pool_boxes
from lensnb.models.lens import total_loss
from lensnb.models.targets import Target
from lensnb.settings import load_profile

SIDE = 128  # pixels of the images: the cells that are looked at do not see the border


@pytest.fixture(scope="module")
def phantom():
    return load_profile("phantom").network


def trunks(network):
    """Random backbones in eval mode, each also with mirrored kernels: what random ones lean to one side cancels out."""
    for seed in range(2):
        torch.manual_seed(seed)
        backbone = densenet(network).eval()
        yield backbone
        for module in backbone.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.weight.data = module.weight.data.flip(2, 3)
        yield backbone


def centroids(forward, channels: int, cells: list[tuple[int, int]], images: int) -> torch.Tensor:
    """The centroid (x, y) of |d feature / d image|, in pixels, of each of `cells` (i, j): (cells, 2).

    forward: images (n, channels, y, x) to a map (n, c, y', x'). Each is the mean over random images, since the ReLUs
    and the pooling let other pixels through in each, and over a random sum of the features.
    """
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(len(cells) * images, channels, SIDE, SIDE, generator=generator) * 40
    noise.requires_grad_()
    i, j = torch.tensor(cells).repeat_interleave(images, dim=0).T
    features = forward(noise)[torch.arange(len(noise)), :, i, j]
    (slope,) = torch.autograd.grad((features * torch.randn(features.shape, generator=generator)).sum(), noise)
    weight = slope.abs().sum(dim=1).unflatten(0, (len(cells), images)).sum(dim=1)
    at = torch.arange(SIDE, dtype=torch.float32)
    x, y = (weight.sum(dim=1) * at).sum(dim=1), (weight.sum(dim=2) * at).sum(dim=1)
    return torch.stack([x, y], dim=1) / weight.sum(dim=(1, 2))[:, None]


def stages(backbone, images):
    """Maps of a backbone for three-channel images, by name."""
    c1, pooled = dense.stem(backbone.stem, images)
    c2 = dense.dense_block(backbone.denseblock1, pooled)
    c3 = dense.dense_block(backbone.denseblock2, dense.transition(backbone.transition1, c2))
    c4 = dense.dense_block(backbone.denseblock3, dense.transition(backbone.transition2, c3))
    return {"stem": c1, "pooled": pooled, "block 1": c2, "block 2": c3, "block 3": c4}


# strides and offsets as worked out by hand in models/cells.py
@pytest.mark.parametrize(
    ("stage", "stride", "offset"),
    [("stem", 2, 0), ("pooled", 4, 0), ("block 1", 4, 0), ("block 2", 8, 2), ("block 3", 16, 6)],
)
def test_each_stage_of_the_trunk_lies_where_its_padding_puts_it(phantom, stage, stride, offset):
    middle = SIDE // 2 // stride
    found = [
        centroids(lambda images, b=backbone: stages(b, images)[stage], 3, [(middle, middle)], images=8)
        for backbone in trunks(phantom)
    ]
    error = (torch.cat(found).mean(dim=0) - (middle * stride + offset)).abs()
    assert error.max() <= 0.25 * max(1, stride / 4)


@pytest.mark.parametrize("stride", [2, 4])
def test_cells_of_the_features_lie_where_cell_centres_says(phantom, stride):
    """In the mean over the cells of two of stride 16, which lie left of some of theirs and right of others."""
    side, first, count = SIDE // stride, (SIDE // 2 - 16) // stride, 32 // stride  # around the middle of the image
    cells = [(first + place, first + place) for place in range(count)]
    said = torch.stack([cell_centres(side, side, stride, "cpu")[i * side + j] for i, j in cells])
    found = [centroids(b, 9, cells, images=16 // count) for b in trunks(replace(phantom, stride=stride))]
    error = (torch.stack(found) - said).mean(dim=(0, 1))
    assert error.abs().max() <= 0.25
    assert (error - (stride - 1) / 2).abs().min() > 0.25  # it can tell: not the middle of its pixels


def test_the_features_have_the_stride_of_the_settings(phantom):
    for stride in (2, 4):
        model = build_lens(replace(phantom, stride=stride), ["DeepLesion"])
        assert model.backbone.stride == model.head.stride == model.proposal_networks[0].stride == stride
        with torch.no_grad():
            assert model.backbone(torch.zeros(1, 9, 48, 64)).shape[2:] == (48 // stride, 64 // stride)
    with pytest.raises(ValueError, match="network.stride is 8; .* 4 or 2"):
        build_lens(replace(phantom, stride=8), ["DeepLesion"])


@pytest.mark.parametrize("stride", [2, 4])
def test_a_box_around_a_cell_is_pooled_from_it(stride):
    """Features that are their own pixel coordinates: what is pooled from a box are the places of its points."""
    height, width = 12, 20
    features = cell_centres(height, width, stride, "cpu").T.reshape(1, 2, height, width)
    box = torch.tensor([[8.0, 6.0, 20.0, 12.0]])
    x, y = pool_boxes(features, [box], stride, size=3, points=2)[0]
    assert x.tolist() == [[10.0, 14.0, 18.0]] * 3
    assert y.T.tolist() == [[7.0, 9.0, 11.0]] * 3


@pytest.mark.parametrize("stride", [2, 4])
def test_boxes_come_back_where_they_should(phantom, stride):
    """Stride by stride: the AFP's own targets, given as its answer, are proposals on the lesions."""
    model = build_lens(replace(phantom, stride=stride, proposals=20), ["DeepLesion"])
    side = 96 // stride
    lesions = torch.tensor([[10.0, 20, 24, 30], [40.3, 50.1, 49.9, 70.7], [70, 8, 90, 28]])
    label, distances = afp_target(Target(lesions, torch.zeros(0, 4)), cell_centres(side, side, stride, "cpu"), stride)
    logits = torch.where(label == 1, 4.0, -4.0)
    features = torch.zeros(1, phantom.fpn_channels, side, side)
    proposals = model.propose([(logits[None], distances[None])], features)[0]
    nearest = (proposals[:, None] - lesions).abs().amax(dim=2).amin(dim=0)
    assert nearest.max() < 1e-3


def test_stride_2_learns():
    """A bright square in noise: all parts get gradients, those of the level more as well, and the loss falls."""
    torch.manual_seed(0)
    model = build_lens(replace(load_profile("smoke").network, stride=2), ("DeepLesion", "LUNA16")).train()
    slices = torch.randn(2, 9, 48, 48) * 20
    slices[:, :, 16:30, 20:34] += 100
    target = Target(torch.tensor([[20.0, 16, 33, 29]]), torch.zeros(0, 4))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    totals = []
    for _ in range(10):
        optimizer.zero_grad()
        total = total_loss(model(slices, [target, target], dataset=1))
        total.backward()
        optimizer.step()
        totals.append(total.item())
    assert totals[-1] < 0.7 * totals[0]
    for layer in (
        model.backbone.lateral1,
        model.backbone.stem[0],
        model.proposal_networks[1].center[0],
        model.head.fc1,
    ):
        assert layer.weight.grad.abs().sum() > 0
