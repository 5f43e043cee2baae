"""The detector: published parameter counts, targets worked out by hand, shared against naive features."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torchvision.ops import clip_boxes_to_image, nms

from lensnb.detection.inference import detect_on_features, detect_volume
from lensnb.models.afp import AFP, afp_target
from lensnb.models.backbone import load_trunk
from lensnb.models.build import build_lens, densenet
from lensnb.models.cells import cell_centres
from lensnb.models.heads import DetectionHead, match_proposals
from lensnb.models.inputs import pad, slice_group, to_grey
from lensnb.models.lens import LENS, best_boxes, total_loss
from lensnb.models.rpn import RPN, anchor_boxes, match_anchors
from lensnb.models.targets import Target, decode, encode, sample
from lensnb.settings import load_profile
from lensnb.training.augment import place, resize

NONE = torch.zeros(0, 4)


def count(module):
    return sum(p.numel() for p in module.parameters())


@pytest.fixture(scope="module")
def paper():
    return load_profile("paper").network


@pytest.fixture(scope="module")
def small():
    return load_profile("smoke").network


def test_full_size_parameter_counts(paper):
    """The counts of the public baseline (trunk, laterals, the two fusion layers, RPN, box head)."""
    backbone = densenet(paper)
    trunk = (backbone.stem, backbone.denseblock1, backbone.transition1, backbone.denseblock2, backbone.transition2,
             backbone.denseblock3)  # fmt: skip
    assert sum(count(part) for part in trunk) == 4_267_392
    assert sum(count(part) for part in (backbone.lateral2, backbone.lateral3, backbone.lateral4)) == 919_040
    assert count(backbone.fuse_middle) == 196_864
    assert count(backbone.fuse_final) == 786_944
    assert count(backbone) == 6_170_240
    assert count(RPN(512, 4, paper.rpn_sizes)) == 2_398_283
    assert count(build_lens(paper, ["DeepLesion"]).head) == 55_599_114
    # AFP: two branches of 3 x 3 convolutions 512 -> 128 -> 1 and 512 -> 128 -> 4
    assert count(AFP(512, 4, paper.afp_channels)) == 2 * (512 * 128 * 9 + 128) + (128 * 9 + 1) + (128 * 4 * 9 + 4)


def test_full_size_forward_and_backward(paper):
    torch.manual_seed(0)
    model = build_lens(paper, ("DeepLesion", "LUNA16", "LiTS", "NIH-LN")).train()
    slices = torch.randn(1, 9, 512, 512) * 30
    target = Target(torch.tensor([[100.0, 120, 160, 190]]), torch.tensor([[300.0, 300, 340, 330]]))
    losses = model(slices, [target], dataset=2)
    total_loss(losses).backward()
    assert set(losses) == {"center", "size", "class", "box"}
    assert model.backbone.stem[0].weight.grad.abs().sum() > 0
    assert model.proposal_networks[2].center[0].weight.grad.abs().sum() > 0
    # another dataset's layers do not learn from this batch (orange in Fig. 2)
    assert model.proposal_networks[0].center[0].weight.grad is None
    assert model.head.classes[0].weight.grad is None


def test_small_network_is_the_same_code(small):
    model = build_lens(small, ("DeepLesion", "LUNA16")).eval()
    proposals, scores, boxes = model(torch.randn(2, 9, 64, 96) * 30)
    assert len(proposals) == 2
    assert scores.shape == (sum(map(len, proposals)), 2)
    assert boxes.shape == (*scores.shape, 4)


@pytest.mark.parametrize(("slices", "stride"), [(3, 4), (9, 4), (15, 4), (9, 2)])
@pytest.mark.parametrize("depth", [1, 4, 11])
def test_shared_features_equal_the_naive_computation(small, depth, slices, stride):
    torch.manual_seed(1)
    backbone = densenet(replace(small, slices=slices, stride=stride)).double().eval()
    volume = torch.randn(depth, 32, 48, dtype=torch.float64)
    naive = torch.cat([backbone(torch.from_numpy(slice_group(volume.numpy(), z, slices))[None]) for z in range(depth)])
    torch.testing.assert_close(backbone.volume_features(volume), naive, rtol=0, atol=1e-11)
    torch.testing.assert_close(backbone.volume_features(volume, chunk=3), naive, rtol=0, atol=1e-11)


def test_detections_with_shared_features_equal_slice_by_slice(small):
    torch.manual_seed(2)
    model = build_lens(small, ("DeepLesion", "LUNA16")).eval()
    inference = load_profile("smoke").inference
    hu = np.random.default_rng(0).integers(-1000, 400, (7, 50, 70)).astype(np.int16)
    shared = detect_volume(model, hu, inference)
    grey = pad(to_grey(hu, small), model.backbone.multiple).numpy()
    groups = [torch.from_numpy(slice_group(grey, z, small.slices))[None] for z in range(len(hu))]
    with torch.no_grad():
        features = torch.cat([model.backbone(group) for group in groups])
    naive = detect_on_features(model, features.split(inference.slices_at_once), hu.shape, inference)
    assert len(shared) > 10
    assert shared["expert"].tolist() == naive["expert"].tolist()
    numbers = ["z", "x1", "y1", "x2", "y2", "score"]
    np.testing.assert_allclose(shared[numbers], naive[numbers], atol=2e-3)
    assert shared["x2"].max() <= 69 and shared["y2"].max() <= 49


def test_frozen_batch_norm_keeps_its_statistics(small):
    backbone = densenet(replace(small, freeze_batch_norm=True)).train()
    before = backbone.stem[1].running_mean.clone()
    backbone(torch.randn(2, 9, 32, 32))
    torch.testing.assert_close(backbone.stem[1].running_mean, before)


def test_imagenet_weights_fit_the_trunk_and_only_the_trunk(paper, small):
    from torchvision.models import densenet121

    published = densenet121().state_dict()  # same names and shapes as the published weights, other numbers
    # the published file has the older names: norm.1 for norm1
    old = {k.replace("norm1", "norm.1").replace("conv2", "conv.2"): v for k, v in published.items()}
    backbone = densenet(paper)
    load_trunk(backbone, old)
    torch.testing.assert_close(
        backbone.denseblock3.denselayer24.conv2.weight, published["features.denseblock3.denselayer24.conv2.weight"]
    )
    with pytest.raises(ValueError, match="not in the ImageNet weights"):
        load_trunk(densenet(small), old)


def test_afp_target_by_hand():
    """A lesion of 40 x 40 pixels: centre region 8 x 8 (2 x 2 cells), ignored 20 x 20."""
    points = cell_centres(20, 20, 4, torch.device("cpu"))
    # centred between cells: (28 + 32) / 2 = 30
    target = Target(torch.tensor([[10.0, 10, 50, 50]]), torch.tensor([[58.5, -1.5, 78.5, 18.5]]))
    label, distance = afp_target(target, points, 4)
    label = label.reshape(20, 20)
    assert (label == 1).nonzero().tolist() == [[7, 7], [7, 8], [8, 7], [8, 8]]
    ignored = set(map(tuple, (label == -1).nonzero().tolist()))
    ring = {(i, j) for i in range(5, 11) for j in range(5, 11)} - {(7, 7), (7, 8), (8, 7), (8, 8)}
    ring = {(i, j) for i, j in ring if abs(4 * i - 30) <= 10 and abs(4 * j - 30) <= 10}
    uncertain = {(i, j) for i in range(20) for j in range(20) if 63.5 <= 4 * j <= 73.5 and 3.5 <= 4 * i <= 13.5}
    assert ignored == ring | uncertain
    # cell (7, 7) at pixel 28: 18 pixels from left and top, 22 from right and bottom
    assert distance.reshape(20, 20, 4)[7, 7].tolist() == [4.5, 4.5, 5.5, 5.5]


def test_afp_gives_every_lesion_a_cell_and_overlaps_to_the_smaller():
    points = cell_centres(10, 10, 4, torch.device("cpu"))
    tiny, large = [18.5, 18.5, 21.5, 21.5], [0.0, 0, 40, 40]
    label, distance = afp_target(Target(torch.tensor([large, tiny]), NONE), points, 4)
    assert label.reshape(10, 10)[5, 5] == 1
    assert distance.reshape(10, 10, 4)[5, 5].tolist() == pytest.approx([0.375] * 4)  # at 20, 1.5 pixels from each side


def test_afp_losses_by_hand():
    """LENS Eq. 1 on two cells that count and LENS Eq. 2 on the one that is a lesion."""
    afp = AFP(4, 4, 2)
    target = Target(torch.tensor([[-1.5, -1.5, 1.5, 1.5]]), NONE)  # centre (0, 0), cell (0, 0)
    logits = torch.tensor([[0.0, 0.0]])
    distances = torch.tensor([[[0.5, 0.5, 0.375, 0.375], [9.0, 9, 9, 9]]])
    losses = afp.losses((logits, distances), (1, 2), [target])
    # p = 0.5 in both: -0.5 * (0.25 log 0.5 + 0.25 log 0.5) / 1
    assert losses["center"].item() == pytest.approx(0.25 * np.log(2))
    assert losses["size"].item() == pytest.approx(0.25)  # two distances are off by 0.125


def test_a_slice_without_lesions_trains(small):
    model = build_lens(small, ("DeepLesion",)).train()
    losses = model(torch.randn(1, 9, 32, 32), [Target(NONE, NONE)], 0)
    assert losses["size"].item() == 0 and losses["box"].item() == 0
    assert losses["center"].item() > 0 and losses["class"].item() > 0
    total_loss(losses).backward()


def test_ignored_everywhere_gives_no_gradient_from_proposals():
    afp = AFP(4, 4, 2)
    logits = torch.zeros(1, 4, requires_grad=True)
    everything = Target(NONE, torch.tensor([[-100.0, -100, 100, 100]]))
    losses = afp.losses((logits, torch.zeros(1, 4, 4)), (2, 2), [everything])
    assert losses["center"].item() == 0


def test_proposals_on_uncertain_lesions_are_left_out_unless_they_hit_a_lesion():
    lesion, uncertain = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[20.0, 20, 30, 30]])
    candidates = torch.tensor([[0.0, 0, 10, 9], [20, 20, 30, 28], [22, 22, 25, 25], [40, 40, 50, 50], [0, 0, 10, 4]])
    label, _ = match_proposals(candidates, Target(lesion, uncertain))
    assert label.tolist() == [1, -1, -1, 0, 0]
    label, _ = match_proposals(candidates, Target(lesion, lesion))
    assert label[0] == 1  # known lesions win over uncertain ones


def test_sampling_by_hand():
    """Two of three lesions, and of five background proposals the three that make six."""
    label = torch.tensor([0, 1, 0, -1, 1, 0, 0, 1, 0])
    for seed in range(20):
        chosen = sample(label, 5, 2, torch.Generator().manual_seed(seed))
        assert len(set(chosen.tolist())) == 5 and (label[chosen] == 1).sum() == 2 and (label[chosen] == 0).sum() == 3
    assert len(sample(label, 64, 16, None)) == 8, "all there are"


def test_hard_negatives_by_hand():
    label = torch.tensor([0, 1, 0, -1, 1, 0, 0, 1, 0, 0])
    scores = torch.tensor([0.1, 0.9, 0.7, 0.99, 0.8, 0.2, 0.6, 0.5, 0.3, 0.7])  # of background: 2 and 9, 6, 8, 5, 0
    seen = set()
    for seed in range(40):
        chosen = sample(label, 6, 2, torch.Generator().manual_seed(seed), scores, 0.5)
        assert len(set(chosen.tolist())) == 6 and (label[chosen] == 1).sum() == 2
        background = set(chosen[label[chosen] == 0].tolist())
        assert {2, 9} <= background, "half of the four are those that look most like lesions"
        seen |= background
    assert seen == {0, 2, 5, 6, 8, 9}, "the other half are drawn among the rest"
    every = sample(label, 6, 2, torch.Generator().manual_seed(0), scores, 1.0)
    assert every[label[every] == 0].tolist() == [2, 9, 6, 8]
    few = sample(torch.tensor([0, 0, 1]), 64, 16, None, torch.tensor([0.1, 0.2, 0.3]), 0.5)
    assert sorted(few.tolist()) == [0, 1, 2]


def test_hard_negatives_are_of_fully_labelled_datasets_only(small):
    """In DeepLesion what looks most like a lesion, and is not marked, often is one."""
    small = replace(small, hard_negatives=0.75)
    assert build_lens(small, ("DeepLesion", "LUNA16", "LiTS", "NIH-LN")).head.hard == (0, 0.75, 0.75, 0.75)
    assert build_lens(small, ("pretext",)).head.hard == (0,)


def test_the_head_learns_from_the_proposals_that_deceive_an_expert():
    """Features of one cell each: an expert that takes a bright cell for a lesion meets it in every sample."""
    torch.manual_seed(0)
    head = DetectionHead(1, 4, 2, width=4, roi_size=1, roi_points=1, sampled=(4, 1), hard=(0.0, 0.5))
    features = torch.zeros(1, 1, 8, 8)
    features[0, 0, 4, 4] = 5.0
    corners = torch.cartesian_prod(torch.arange(8), torch.arange(8)).float() * 4
    boxes = torch.cat([corners - 1, corners + 1], dim=1)
    scores = [layer(head.pool(features, [boxes])).softmax(dim=1)[:, 1] for layer in head.classes]
    bright = boxes[int(scores[1].argmax())] if scores[1].argmax() != scores[1].argmin() else None
    assert bright is not None
    met = {0: 0, 1: 0}
    for dataset in met:
        for seed in range(30):
            pooled = []
            keep = head.pool
            head.pool = lambda features, chosen, pooled=pooled, keep=keep: (
                pooled.append(chosen) or keep(features, chosen)
            )
            head.losses(features, [boxes], [Target(NONE, NONE)], dataset, [torch.Generator().manual_seed(seed)])
            head.pool = keep
            met[dataset] += bool((pooled[-1][0] == bright).all(dim=1).any())
    assert met[1] == 30 and met[0] < 15


def test_box_coder_round_trip_and_hand_value():
    reference = torch.tensor([[0.0, 0, 10, 20]])
    box = torch.tensor([[5.0, 10, 25, 20]])
    assert encode(box, reference)[0].tolist() == pytest.approx([1.0, 0.25, np.log(2), np.log(0.5)])
    torch.testing.assert_close(decode(encode(box, reference), reference), box)


def test_anchors_are_those_of_the_baseline():
    """Facts 2.1: widths x heights after the baseline's rounding."""
    anchors = anchor_boxes([16, 24, 32, 48, 96])
    shapes = [tuple(s) for s in (anchors[:, 2:] - anchors[:, :2]).int().tolist()]
    assert shapes[:5] == [(24, 12), (36, 18), (48, 24), (72, 36), (144, 72)]
    assert shapes[5:10] == [(s, s) for s in (16, 24, 32, 48, 96)]
    assert shapes[10:] == [(12, 24), (18, 36), (24, 48), (36, 72), (72, 144)]


def test_every_lesion_has_an_anchor():
    anchors = torch.tensor([[0.0, 0, 16, 16], [8, 8, 24, 24], [100, 100, 116, 116]])
    label, _ = match_anchors(anchors, Target(torch.tensor([[0.0, 0, 24, 24]]), NONE))
    assert label.tolist() == [1, 1, 0]  # both overlap equally well, by 256 / 576


def test_grey_values_of_the_paper(paper):
    grey = to_grey(np.array([-2048, -1024, 3071, 4000]), paper)
    assert grey.tolist() == pytest.approx([-50, -50, 205, 205])
    values = np.arange(-3000, 5000, 7)
    assert torch.equal(to_grey(values.astype(np.int16), paper), to_grey(values.astype(np.float64), paper))
    assert to_grey(np.array([0]), paper).item() == pytest.approx(1024 / 4095 * 255 - 50, abs=1e-4)


def test_slice_group_repeats_the_last_slice():
    volume = np.arange(5)[:, None, None]
    assert slice_group(volume, 0, 9)[:, 0, 0].tolist() == [0, 0, 0, 0, 0, 1, 2, 3, 4]


def test_resize_and_place_move_boxes_with_the_image():
    image = torch.zeros(1, 32, 32)
    image[0, 8:16, 16:24] = 1.0
    box = np.array([[15.5, 7.5, 23.5, 15.5]], np.float32)  # the edges of the bright pixels
    bigger, scaled = resize(image, box, 2.0)
    canvas = torch.zeros(1, 64, 64)
    moved = place(bigger, scaled, canvas, (3, -5))[0]
    rows, columns = np.nonzero(canvas[0].numpy() > 0.5)
    edges = [columns.min() - 0.5, rows.min() - 0.5, columns.max() + 0.5, rows.max() + 0.5]
    assert moved.tolist() == pytest.approx(edges)


def test_place_cuts_at_the_border():
    image = torch.ones(1, 16, 16)
    canvas = torch.zeros(1, 16, 16)
    moved = place(image, np.array([[0.0, 0, 6, 6]]), canvas, (-4, 0))[0]
    assert moved.tolist() == [0, 0, 2, 6]
    assert canvas[0, :, 12:].sum() == 0 and canvas[0, :, :12].min() == 1


@pytest.mark.parametrize("spread", [400.0, 20.0])  # few overlaps; nearly all, so that the best boxes are not enough
def test_the_best_boxes_are_those_that_nms_of_all_would_keep(spread):
    generator = torch.Generator().manual_seed(3)
    corner = torch.rand(900, 2, generator=generator) * spread
    boxes = torch.cat([corner, corner + 5 + 10 * torch.rand(900, 2, generator=generator)], dim=1)
    scores = torch.rand(900, generator=generator).round(decimals=2)  # with ties
    boxes[::9, 2:] = boxes[::9, :2] + 0.5  # too small
    network = SimpleNamespace(proposals=50, proposal_nms=0.3, min_box=1.0)

    def plain(boxes, scores):
        cut = clip_boxes_to_image(boxes, (299, 299))
        large = ((cut[:, 2:] - cut[:, :2]) >= 1).all(dim=1)
        return cut[large][nms(cut[large], scores[large], 0.3)[:50]]

    images, of_images = boxes.unflatten(0, (3, 300)), scores.unflatten(0, (3, 300))
    for number in (300, 7):
        best = [one for one, _ in best_boxes(images[:, :number], of_images[:, :number], (300, 300), network)]
        for found, box, score in zip(best, images[:, :number], of_images[:, :number], strict=True):
            assert torch.equal(found, plain(box, score))
    assert best_boxes(images[:, :0], of_images[:, :0], (300, 300), network)[0][0].shape == (0, 4)


@pytest.mark.parametrize("slices", [0, 6, 7, 12])
def test_a_number_of_slices_that_has_no_central_image_is_refused(small, slices):
    with pytest.raises(ValueError, match=f"network.slices is {slices}; .* 3, 9, 15"):
        build_lens(replace(small, slices=slices), ["DeepLesion"])


@pytest.mark.parametrize("slices", [3, 15])
def test_other_numbers_of_slices_train_and_detect(small, slices):
    model = build_lens(replace(small, slices=slices), ["DeepLesion", "LiTS"]).train()
    target = Target(torch.tensor([[8.0, 8, 20, 24]]), NONE)
    total_loss(model(torch.randn(2, slices, 32, 48), [target, target], dataset=1)).backward()
    hu = np.random.default_rng(0).integers(-1000, 400, (3, 30, 40)).astype(np.int16)
    assert set(detect_volume(model.eval(), hu, load_profile("smoke").inference)["z"]) == {0, 1, 2}


def test_unknown_parts_are_refused(small):
    with pytest.raises(ValueError, match="network.backbone is 'vgg'; choose one of densenet"):
        build_lens(replace(small, backbone="vgg"), ["DeepLesion"])
    names = "afp, rpn, centernet, fcos, fcos-one-stage"
    with pytest.raises(ValueError, match=f"proposal_network is 'ssd'; choose one of {names}"):
        build_lens(small, ["DeepLesion"], "ssd")


def test_the_stride_is_the_backbones(small):
    """Features of another stride: boxes of proposals and what the head pools follow."""

    class Coarse(torch.nn.Module):
        stride, multiple, channels = 8, 8, 3

        def forward(self, slices):
            return torch.nn.functional.avg_pool2d(slices[:, :3], 8)

    backbone = Coarse()
    afp = AFP(3, 8, 4)
    head = DetectionHead(3, 8, 1, width=8, roi_size=2, roi_points=1, sampled=(8, 4))
    model = LENS(backbone, {"DeepLesion": afp}, head, small)
    target = Target(torch.tensor([[8.0, 8, 40, 40]]), NONE)
    losses = model(torch.randn(1, 9, 64, 64), [target])
    assert all(torch.isfinite(value) for value in losses.values())
    # the centre region, from 20.8 to 27.2 in both directions, has the cell at pixel 24: 16 pixels from all sides
    label, distance = afp_target(target, cell_centres(8, 8, 8, torch.device("cpu")), 8)
    inside = label.reshape(8, 8).eq(1).nonzero().tolist()
    assert inside == [[3, 3]] and distance.reshape(8, 8, 4)[3, 3].tolist() == [2.0] * 4
    proposals, _, _ = model.eval()(torch.randn(1, 9, 64, 64))
    assert proposals[0].max() <= 63


def test_mixed_precision_gives_nearly_the_same_losses(small):
    torch.manual_seed(4)
    model = build_lens(small, ["DeepLesion"]).eval()
    slices, target = torch.randn(1, 9, 64, 64) * 30, Target(torch.tensor([[20.0, 20, 40, 44]]), NONE)
    plain = model(slices, [target], generators=[torch.Generator().manual_seed(0)])
    with torch.autocast("cpu", torch.bfloat16):
        mixed = model(slices, [target], generators=[torch.Generator().manual_seed(0)])
    assert mixed["center"].item() == pytest.approx(plain["center"].item(), rel=0.05)
