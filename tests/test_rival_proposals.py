"""The proposal networks that LENS Table III compares the AFP with: CenterNet and FCOS, by hand and at full size."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from lensnb.detection.inference import detect_volume
from lensnb.models.build import build_lens
from lensnb.models.cells import cell_centres
from lensnb.models.centernet import CenterNet, centernet_target, gaussian_radius
from lensnb.models.fcos import FCOS, centerness, fcos_target, iou_of_distances
from lensnb.models.lens import LAMBDA_SIZE, total_loss
from lensnb.models.targets import Target
from lensnb.settings import load_profile

NONE = torch.zeros(0, 4)
RIVALS = ("centernet", "fcos")


@pytest.mark.parametrize("width, height", [(10.0, 10.0), (4.0, 30.0), (100.0, 3.0)])
def test_corners_moved_by_the_radius_keep_the_overlap(width, height):
    """By measuring boxes: with the radius the worst of the moves has an IoU of 0.7, and none less."""
    radius = gaussian_radius(torch.tensor(width), torch.tensor(height)).item()
    box = torch.tensor([[0.0, 0, width, height]])
    moves = ([-1, -1, 1, 1], [1, 1, -1, -1], [1, 1, 1, 1])
    overlaps = [box_iou(box, box + radius * torch.tensor([move])).item() for move in moves]
    assert min(overlaps) == pytest.approx(0.7, abs=1e-5)


def test_centernet_target_by_hand():
    """A lesion of 40 x 24 pixels around (21, 20), stride 4: its cell is (5, 5), a pixel beside its centre."""
    points = cell_centres(12, 12, 4, "cpu")
    lesion, uncertain = torch.tensor([[1.0, 8, 41, 32]]), torch.tensor([[28.0, 28, 44, 44]])
    heat, size, offset = centernet_target(Target(lesion, uncertain), points, 4)
    heat, size, offset = heat.reshape(12, 12), size.reshape(12, 12, 2), offset.reshape(12, 12, 2)
    assert (heat == 1).nonzero().tolist() == [[5, 5]]
    assert size[5, 5].tolist() == [10, 6] and offset[5, 5].tolist() == [0.25, 0]
    # the cells at 32, 36 and 40 lie within 4 pixels of 36
    assert {tuple(cell) for cell in (heat == -1).nonzero().tolist()} == {(y, x) for y in (8, 9, 10) for x in (8, 9, 10)}
    deviation = gaussian_radius(torch.tensor(10.0), torch.tensor(6.0)).item() / 3
    assert heat[5, 6].item() == pytest.approx(math.exp(-1 / (2 * deviation**2)))
    assert heat[6, 6].item() == pytest.approx(math.exp(-2 / (2 * deviation**2)))


def test_centernet_losses_by_hand():
    """One lesion at the first of two cells; the second one's heat is given by the distance of a cell."""
    target = Target(torch.tensor([[-6.0, -8, 10, 8]]), NONE)  # 16 x 16 around (2, 0): half a cell beside cell 0
    _, _, offset = centernet_target(target, cell_centres(1, 2, 4, "cpu"), 4)
    assert offset[0].tolist() == [0.5, 0]
    beside = centernet_target(target, cell_centres(1, 2, 4, "cpu"), 4)[0][1].item()
    raw = (torch.zeros(1, 2), torch.ones(1, 2).bool(), torch.full((1, 2, 2), 3.0), torch.zeros(1, 2, 2))
    losses = CenterNet(2, 4, 2).losses(raw, (1, 2), [target])
    half = 0.25 * math.log(2)  # (1 - p)^2 log p at p = 1/2
    assert losses["center"].item() == pytest.approx(half + (1 - beside) ** 4 * half + 0.5)
    assert losses["size"].item() == pytest.approx(2)  # 4 strides each way, 3 were said


def test_centernet_proposes_peaks_alone():
    network = CenterNet(2, 4, 2)
    logits = torch.tensor([[[0.0, 2, 1], [0, 0, 0], [3, 0, -1]]])
    peaks = torch.nn.functional.max_pool2d(logits[None], 3, 1, 1)[0] == logits
    size = torch.full((1, 9, 2), 2.0)
    raw = (logits.flatten(1), peaks.flatten(1), size, torch.full((1, 9, 2), 0.25))
    boxes, scores = network.propose(raw, (3, 3), 3)
    sigmoid = [1 / (1 + math.exp(-x)) for x in (3, 2)]
    assert scores[0].tolist() == pytest.approx([*sigmoid, 0.0])
    assert boxes[0, :2].tolist() == [[-3, 5, 5, 13], [1, -3, 9, 5]]  # around (1, 9) and (5, 1), 8 pixels wide


def test_fcos_target_by_hand():
    """All cells inside are the lesion's, those of two are the smaller one's, and a lesion between cells has one."""
    points = cell_centres(10, 10, 4, "cpu")
    large, small, between = [2.0, 2, 30, 18], [14.0, 2, 22, 10], [33.0, 33, 35, 34]
    label, distance = fcos_target(Target(torch.tensor([large, small, between]), NONE), points, 4)
    label, distance = label.reshape(10, 10), distance.reshape(10, 10, 4)
    inside = {(y, x) for y in range(1, 5) for x in range(1, 8)} | {(8, 8)}
    assert {tuple(cell) for cell in (label == 1).nonzero().tolist()} == inside
    assert distance[4, 1].tolist() == [0.5, 3.5, 6.5, 0.5]
    assert distance[1, 4].tolist() == [0.5, 0.5, 1.5, 1.5], "the smaller one's"
    assert distance[8, 8].tolist() == pytest.approx([0.01, 0.01, 0.75, 0.5]), "cell (32, 32) lies outside of it"
    label, _ = fcos_target(Target(NONE, torch.tensor([[8.0, 8, 24, 24]])), points, 4)
    assert {tuple(cell) for cell in (label.reshape(10, 10) == -1).nonzero().tolist()} == {
        (y, x) for y in (3, 4, 5) for x in (3, 4, 5)
    }


def test_centerness_and_overlap_by_hand():
    distances = torch.tensor([[2.0, 2, 2, 2], [1, 2, 4, 2], [1, 1, 4, 9]])
    assert centerness(distances).tolist() == pytest.approx([1, 0.5, 1 / 6])
    cell = torch.tensor([5.0, 7, 5, 7])
    signs = torch.tensor([-1.0, -1, 1, 1])
    first, second = (cell + signs * d for d in (distances, distances.flip(0)))
    assert iou_of_distances(distances, distances.flip(0)).tolist() == pytest.approx(
        box_iou(first, second).diag().tolist()
    )


def test_fcos_losses_by_hand():
    """A lesion around cell 0, which says p = 1/2, a box twice as wide, and a centerness of 1/2; cell 1 is outside."""
    target = Target(torch.tensor([[-2.0, -2, 2, 2]]), NONE)
    distance = torch.tensor([[[1.0, 0.5, 1.0, 0.5], [9, 9, 9, 9]]])
    losses = FCOS(2, 4, 2).losses((torch.zeros(1, 2), distance, torch.zeros(1, 2)), (1, 2), [target])
    log2 = math.log(2)
    assert losses["center"].item() == pytest.approx(0.25 * 0.25 * log2 + 0.75 * 0.25 * log2 + log2)
    assert losses["size"].item() * LAMBDA_SIZE == pytest.approx(log2), "IoU is a half"


def test_fcos_proposes_by_class_and_centerness():
    logits, central = torch.tensor([[2.0, 1.0]]), torch.tensor([[-3.0, 0.0]])
    distance = torch.tensor([[[1.0, 1, 1, 1], [1, 0.5, 2, 0.5]]])
    boxes, scores = FCOS(2, 4, 2).propose((logits, distance, central), (1, 2), 1)
    assert boxes[0].tolist() == [[0, -2, 12, 2]] and scores[0].item() == pytest.approx(0.5 / (1 + math.exp(-1)))


@pytest.mark.parametrize("name", RIVALS)
def test_ignored_everywhere_they_learn_nothing(name):
    network = build_lens(load_profile("smoke").network, ["DeepLesion"], name).proposal_networks[0]
    features = torch.randn(1, network.classes[0].in_channels if name == "fcos" else network.center[0].in_channels, 4, 4)
    everything = Target(NONE, torch.tensor([[-100.0, -100, 100, 100]]))
    losses = network.losses(network(features), (4, 4), [everything])
    assert losses["center"].item() == 0 and losses["size"].item() == 0


@pytest.mark.parametrize("name", RIVALS)
def test_they_learn_one_slice_by_heart(name):
    """In the place of the AFP: a bright square is found after some steps, and an image without lesions trains."""
    torch.manual_seed(0)
    network = replace(load_profile("smoke").network, freeze_batch_norm=False, proposals=50)
    model = build_lens(network, ["DeepLesion"], name).train()
    slices = torch.zeros(2, network.slices, 48, 48)
    slices[0, :, 12:28, 20:36] = 1.0
    targets = [Target(torch.tensor([[20.0, 12, 35, 27]]), NONE), Target(NONE, NONE)]
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    first = None
    for _ in range(15):
        losses = model(slices, targets, 0, [torch.Generator().manual_seed(n) for n in range(2)])
        assert all(torch.isfinite(value) for value in losses.values())
        first = first or total_loss(losses).item()
        optimizer.zero_grad()
        total_loss(losses).backward()
        optimizer.step()
    assert total_loss(losses).item() < first / 2
    with torch.no_grad():
        features = model.backbone(slices)
        best, _ = model.propose([model.proposal_networks[0](features)], features)
    assert box_iou(best[:1], targets[0].lesions).item() > 0.5


@pytest.mark.parametrize("name", [*RIVALS, "fcos-one-stage"])
def test_they_train_and_detect_with_several_experts(name):
    model = build_lens(load_profile("smoke").network, ["DeepLesion", "LiTS"], name).train()
    target = Target(torch.tensor([[8.0, 8, 20, 24]]), torch.tensor([[30.0, 8, 40, 20]]))
    total_loss(model(torch.randn(2, model.network.slices, 32, 48), [target, target], dataset=1)).backward()
    hu = np.random.default_rng(0).integers(-1000, 400, (3, 30, 40)).astype(np.int16)
    assert set(detect_volume(model.eval(), hu, load_profile("smoke").inference)["z"]) == {0, 1, 2}


@pytest.mark.parametrize("name, outputs", [("centernet", (1, 2, 2)), ("fcos", (1, 5))])
def test_full_size(name, outputs):
    """As wide as the AFP of the paper: branches of 512 to 128 channels and to their outputs."""
    paper = load_profile("paper").network
    with torch.device("meta"):
        network = build_lens(paper, ["DeepLesion"], name).proposal_networks[0]
    expected = sum((512 * 9 + 1) * 128 + (128 * 9 + 1) * number for number in outputs)
    assert sum(parameter.numel() for parameter in network.parameters()) == expected


def test_without_the_head_an_expert_scores_its_own_boxes_alone():
    """Two experts, two images: each box has one score, that of the expert whose proposal it is; no head learns."""
    torch.manual_seed(0)
    network = replace(load_profile("smoke").network, proposals=7)
    model = build_lens(network, ["DeepLesion", "LiTS"], "fcos-one-stage").eval()
    features = torch.randn(2, model.backbone.channels, 12, 12)
    with torch.no_grad():
        proposals, scores, boxes = model.from_features(features)
        own = model.proposal_networks[1]
        best, first = own.propose(own(features), (12, 12), 1)
    assert [len(found) for found in proposals] == [14, 14] and scores.shape == (28, 2) and boxes.shape == (28, 2, 4)
    of_first = torch.tensor(([True] * 7 + [False] * 7) * 2)
    assert (scores[of_first, 1] == 0).all() and (scores[~of_first, 0] == 0).all()
    assert (scores[of_first, 0] > 0).all() and torch.equal(scores[[7, 21], 1], first[:, 0])
    assert torch.equal(boxes[:, 0], torch.cat(proposals)) and torch.equal(boxes[:, 0], boxes[:, 1])
    inside = best[0, 0].clamp(0, 12 * model.backbone.stride - 1)
    torch.testing.assert_close(boxes[7, 0], inside)
    target = Target(torch.tensor([[8.0, 8, 20, 24]]), NONE)
    losses = model.train()(torch.randn(1, network.slices, 48, 48), [target], dataset=1)
    assert losses["class"] == 0 and losses["box"] == 0 and losses["center"] > 0
    total_loss(losses).backward()
    assert own.classes[0].weight.grad.abs().sum() > 0 and model.proposal_networks[0].classes[0].weight.grad is None
