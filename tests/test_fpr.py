"""False positive reduction: ResNet-18's parameters counted by hand, inflation, labels of proposals, training."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torchvision.models import resnet18

from lensnb.detection.fusion import combine
from lensnb.evaluation.froc import overlap_3d
from lensnb.models.fpr import FPR, focal_loss, inflate, pool_box
from lensnb.settings import load_profile
from lensnb.training import false_positives as fpr
from lensnb.training.false_positives import hits, label_proposals, load_fpr, sample_epoch, score_fpr, train_fpr

FULL = SimpleNamespace(
    widths=[64, 128, 256, 512],
    blocks=[2, 2, 2, 2],
    stem_stride=2,
    stem_pool=True,
    pooled=5,
    features=256,
    patch=[17, 96],
)
SMALL = replace(
    load_profile("smoke").fpr, patch=(5, 24), widths=(4, 6, 6, 8), blocks=(1, 1, 1, 1), pooled=2, features=8,
    iterations=40, batch_size=16, learning_rate=0.02, drops=(0.5,), checkpoint_every=15,
)  # fmt: skip
TRAINING = replace(load_profile("paper").training, threads=1, loader_workers=0)
PROFILE = replace(load_profile("paper"), fpr=SMALL, training=TRAINING)


def test_full_size_parameters_counted_by_hand():
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in FPR(FULL).named_children()}
    block1 = 4 * (64 * 64 * 9) + 4 * 2 * 64
    block2 = 64 * 128 * 9 + 3 * 128 * 128 * 9 + 64 * 128 + 5 * 2 * 128
    block3 = 128 * 256 * 9 + 3 * 256 * 256 * 9 + 128 * 256 + 5 * 2 * 256
    block4 = 256 * 512 * 27 + 3 * 512 * 512 * 27 + 256 * 512 + 5 * 2 * 512  # only here the kernels are 3 x 3 x 3
    projections = (64 + 128 + 256 + 512) * 25 * 256 + 4 * 256
    assert count == {
        "conv1": 49 * 64,
        "bn1": 128,
        "layers": block1 + block2 + block3 + block4,
        "project": projections,
        "score": 1025,
    }


def test_full_size_forward_and_backward():
    torch.manual_seed(0)
    model = FPR(FULL)
    inside = torch.zeros(2, 17, dtype=torch.bool)
    inside[:, 6:11] = True
    logits = model(torch.randn(2, 17, 96, 96), torch.tensor([[40.0, 40, 55, 60], [45, 42, 50, 50]]), inside)
    assert logits.shape == (2,)
    focal_loss(logits, torch.tensor([1.0, 0.0])).backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


def test_inflated_weights_see_a_constant_volume_as_the_flat_network_sees_its_image():
    """Away from the ends in z, a volume of equal slices gives ResNet-18's own features of that slice."""
    torch.manual_seed(0)
    flat = resnet18().eval()
    model = FPR(FULL).eval()
    inflate(model, flat.state_dict())
    image = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        x = flat.maxpool(flat.relu(flat.bn1(flat.conv1(image.repeat(1, 3, 1, 1)))))
        expected = flat.layer4(flat.layer3(flat.layer2(flat.layer1(x))))
        y = model.bn1(model.conv1(image[:, :, None].repeat(1, 1, 33, 1, 1))).relu()
        y = torch.nn.functional.max_pool3d(y, (1, 3, 3), (1, 2, 2), (0, 1, 1))
        for layer in model.layers:
            y = layer(y)
    assert torch.allclose(y[:, :, y.shape[2] // 2], expected, atol=1e-4)
    with pytest.raises(ValueError, match="conv1.weight"):
        inflate(FPR(SMALL), flat.state_dict())


def test_pooling_takes_the_maximum_over_the_slices_of_the_box():
    x = torch.zeros(1, 1, 5, 16, 16)
    x[0, 0, 1], x[0, 0, 2], x[0, 0, 4] = 1.0, 2.0, 9.0
    inside = torch.tensor([[False, True, True, True, False]])
    pooled = pool_box(x, torch.tensor([[4.0, 4.0, 11.0, 11.0]]), inside, 1, 2)
    assert pooled.flatten().tolist() == [2.0] * 4


def blurring(stem_stride, stem_pool, pooled=3):
    """A network that only blurs: all kernels are flat, so what it sees lies around the middle of what it looks at."""
    sizes = {"widths": [1] * 4, "blocks": [1] * 4, "pooled": pooled, "features": 1}
    model = FPR(SimpleNamespace(**sizes, stem_stride=stem_stride, stem_pool=stem_pool)).eval()
    for name, value in model.named_parameters():
        if "conv" in name or name.endswith("downsample.0.weight"):
            torch.nn.init.constant_(value, 1 / value.numel())
    return model


@pytest.mark.parametrize("side", [191, 192])
@pytest.mark.parametrize(("stem_stride", "stem_pool"), [(1, False), (2, False), (2, True), (3, False)])
def test_every_block_is_pooled_where_the_box_is(stem_stride, stem_pool, side):
    """The centroid of the pixels on which the pooled features depend: the box's centre, and the patch's in block 4."""
    model = blurring(stem_stride, stem_pool)
    torch.manual_seed(0)
    patches = torch.rand(4, 1, side, side) + 1  # not flat: in a tie the stem's maximum would always be the same pixel
    boxes = torch.tensor([[80.0, 70, 110, 120], [81, 60, 109, 95], [90, 96, 99, 105], [70.5, 80.25, 120, 123]])
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    for i in range(4):
        patches.requires_grad_(True)
        pooled = model.pooled_features(patches, boxes, torch.ones(4, 1, dtype=torch.bool))[i]
        seen = torch.autograd.grad(pooled[:, :, 1, 1].sum(), patches)[0][:, 0]  # the middle one of 3 x 3
        pixel = torch.arange(side).float()
        found = torch.stack([(seen.sum(dim) * pixel).sum(1) for dim in (1, 2)], dim=1) / seen.sum((1, 2))[:, None]
        wanted = centres if i < 3 else torch.full((4, 2), (side - 1) / 2)
        stride = model.stride * 2**i
        assert ((found - wanted).abs() <= 0.25 * stride).all(), (i, stride, found - wanted)


class SpotStore:
    """A volume of air with one bright spot."""

    def __init__(self, x, y, z):
        zz, yy, xx = np.ogrid[0:12, 0:160, 0:150]
        spot = np.exp(-((xx - x) ** 2 + (yy - y) ** 2) / (2 * 6.0**2)) * (zz == z)
        self._hu = np.rint(-1000 + 1800 * spot).astype(np.int16)

    def hu(self, volume):
        return self._hu


@pytest.mark.parametrize("patch", [(5, 95), (6, 96)])
@pytest.mark.parametrize("moved", [False, True])
def test_a_spot_in_the_volume_is_pooled_to_the_middle(patch, moved):
    """From the store to the pooled features, with and without the training's shifts and scales."""
    pooled, model = 15, blurring(2, False, 15)
    config = replace(SMALL, patch=patch, shift=0.1, scale=(0.8, 1.2))
    centre = np.array([70.3, 81.6])
    box = [*(centre - 20), 5, *(centre + 20), 7]
    table = pd.DataFrame([("v", *box)] * 4, columns=["volume", "x1", "y1", "z1", "x2", "y2", "z2"])
    rng = np.random.default_rng(0) if moved else None
    inputs = fpr._inputs(SpotStore(*centre, 6), table, config, PROFILE.network, rng)
    bins = torch.arange(pooled) - (pooled - 1) / 2
    for i, features in enumerate(model.pooled_features(*inputs)[:3]):
        features = features[:, 0] - features[:, 0].amin(dim=(1, 2), keepdim=True)
        centroid = torch.stack([(features.sum(1) * bins).sum(1), (features.sum(2) * bins).sum(1)], dim=1)
        centroid = centroid / features.sum(dim=(1, 2))[:, None]
        side = (inputs[1][:, 2:] - inputs[1][:, :2]) / pooled  # of a bin, in patch pixels
        assert ((centroid * side).abs() <= 0.25 * model.stride * 2**i).all(), (i, centroid * side)


@pytest.mark.parametrize("depth", [9, 10])
@pytest.mark.parametrize("last", [6, 7])
def test_the_slices_of_the_box_are_pooled_and_no_others(depth, last):
    model, config = blurring(1, False), replace(SMALL, patch=(depth, 48))
    table = pd.DataFrame([("v", 60, 60, 5, 80, 80, last)], columns=["volume", "x1", "y1", "z1", "x2", "y2", "z2"])
    seen = []
    for z in range(12):
        inputs = fpr._inputs(SpotStore(70, 70, z), table, config, PROFILE.network, None)
        dark = fpr._inputs(SpotStore(70, 70, -1), table, config, PROFILE.network, None)
        pooled, without = (model.pooled_features(*some)[:3] for some in (inputs, dark))
        lit = {bool((a - b).abs().max() > 1e-3) for a, b in zip(pooled, without, strict=True)}
        assert len(lit) == 1, "blocks 1 to 3 have no stride in z"
        seen += [z] * lit.pop()
    assert seen == list(range(5, last + 1))


def boxes(*rows):
    table = pd.DataFrame(rows, columns=["volume", "z", "x1", "tracklet"])
    return table.assign(y1=0.0, x2=table["x1"] + 10.0, y2=10.0, score=1.0, lesion=table["tracklet"])


def test_labels_of_proposals():
    known = boxes(("v", 5, 0.0, 0))
    uncertain = boxes(("v", 5, 50.0, 0))
    tracklets = boxes(
        ("v", 4, 0.0, 0), ("v", 5, 2.0, 0),  # IoU 80/120: true
        ("v", 5, 4.0, 1),  # IoU 60/140 = .43: neither
        ("v", 5, 6.0, 2),  # IoU 40/160 = .25: false by the paper's rule, but IoBB 5 x 11/11 x 11
        ("v", 5, 8.0, 6),  # IoBB 3 x 11/11 x 11 = .27: false
        ("v", 5, 52.0, 3),  # over an uncertain box: neither, however well
        ("v", 5, 57.0, 7),  # IoBB 4 x 11/11 x 11 = .36 with the uncertain one: neither
        ("v", 6, 0.0, 4), ("w", 5, 0.0, 5),  # another slice, another volume: false
    )  # fmt: skip
    labels = label_proposals(tracklets, known, uncertain, theta=0.5, theta_fp=0.3, iobb_fp=0.3)
    assert labels.to_dict() == {0: 1, 1: -1, 2: -1, 3: -1, 4: 0, 5: 0, 6: 0, 7: -1}
    paper = label_proposals(tracklets, known, uncertain, theta=0.5, theta_fp=0.3, iobb_fp=1.1)
    assert paper.to_dict() == {0: 1, 1: -1, 2: 0, 3: -1, 4: 0, 5: 0, 6: 0, 7: 0}
    nothing = label_proposals(tracklets, known.iloc[:0], uncertain.iloc[:0], theta=0.5, theta_fp=0.3, iobb_fp=0.3)
    assert set(nothing) == {0}


def test_a_small_proposal_in_a_large_lesion_is_no_false_one():
    """IoU .09, but all of it lies in the lesion: a hit. A large one around a small lesion is none (IoBB .12)."""
    small, large = boxes(("v", 5, 3.0, 0)).assign(y1=3.0, x2=6.0, y2=6.0), boxes(("v", 5, 0.0, 0))
    rules = {"theta": 0.5, "theta_fp": 0.3, "iobb_fp": 0.3}
    assert label_proposals(small, large, large.iloc[:0], **rules).to_dict() == {0: -1}
    assert label_proposals(small, large.iloc[:0], large, **rules).to_dict() == {0: -1}
    assert label_proposals(large, small, small.iloc[:0], **rules).to_dict() == {0: 0}


def test_hits_are_those_of_the_evaluation_where_the_labels_are_complete():
    """Random proposals that lie on slices of one lesion: judged as `froc.overlap_3d` judges them."""
    rng = np.random.default_rng(0)
    lesion = pd.DataFrame({"volume": "v", "lesion": "a", "z": [3, 4, 5, 6], "y1": [12.0, 10, 11, 12]})
    lesion = lesion.assign(x1=10.0, x2=25.0, y2=24.0)
    truth = np.array([[10.0, 10, 3, 25, 24, 6]])
    proposals, wanted = [], set()
    for number in range(200):
        x, y, width, height = *rng.uniform(0, 30, 2), *rng.uniform(2, 25, 2)
        first = int(rng.integers(3, 7))
        last = int(rng.integers(first, 7))
        box = [x, y, x + width, y + height]
        proposals += [("v", z, *box, number, 0.5) for z in range(first, last + 1)]
        overlap = overlap_3d(np.array([[*box[:2], first, *box[2:], last]]), truth, "iobb")
        wanted |= {number} if overlap[0, 0] >= 0.3 else set()
    tracklets = pd.DataFrame(proposals, columns=["volume", "z", "x1", "y1", "x2", "y2", "tracklet", "score"])
    assert set(hits(tracklets, lesion, 0.3)) == wanted and 50 < len(wanted) < 150
    # nobody knows what is on a slice without a label: a proposal that reaches there is compared on the others alone
    beyond = tracklets.drop_duplicates("tracklet").assign(z=7)
    beyond = pd.concat([tracklets, beyond], ignore_index=True).sort_values(["tracklet", "z"], ignore_index=True)
    assert set(hits(beyond, lesion, 0.3)) == wanted


def test_focal_loss_by_hand():
    logits = torch.tensor([0.0, np.log(3.0)])
    # p = .5 for the first (true): .25 ln 2; p = .75, so .25 for the right class of the second (false): .5625 ln 4
    expected = (0.25 * np.log(2) + 0.5625 * np.log(4)) / 2
    assert focal_loss(logits, torch.tensor([1.0, 0.0])).item() == pytest.approx(expected, abs=1e-6)


def test_an_epoch_has_two_false_for_every_true_proposal():
    labels = np.array([1] * 5 + [0] * 40 + [-1] * 30)
    epoch = sample_epoch(labels, np.random.default_rng(0))
    assert len(set(epoch)) == 15 and (labels[epoch] == 1).sum() == 5 and (labels[epoch] == 0).sum() == 10
    assert len(sample_epoch(np.array([1, 1, 0, -1]), np.random.default_rng(0))) == 3


def test_scores_are_averaged():
    assert combine(np.array([0.2, 1.0]), np.array([0.6, 0.5])).tolist() == pytest.approx([0.4, 0.75])
    assert combine(np.array([0.2, 1.0]), np.array([0.6, 0.5]), 0.25).tolist() == pytest.approx([0.3, 0.875])


def test_a_detection_without_a_second_score_counts_as_rejected():
    detector, second = pd.Series([0.6, 0.5, 0.1]), pd.Series([np.nan, 0.2, 0.0])
    assert combine(detector, second).tolist() == pytest.approx([0.3, 0.35, 0.05])
    assert combine(detector, second, 0.0).tolist() == pytest.approx(detector.tolist())


class TinyStore:
    """One volume of noise with bright blobs on the left and nothing on the right."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self._hu = rng.normal(0, 30, (9, 64, 64))
        self.detections = []
        for k in range(24):
            x, y = (4 + 10 * (k % 3), 6 + 7 * (k // 3)) if k < 12 else (44 + 6 * (k % 3), 6 + 7 * (k // 3 - 4))
            if k < 12:
                self._hu[3:6, y - 2 : y + 3, x - 2 : x + 3] += 700
            self.detections.append(("v", x - 2.5, y - 2.5, 3, x + 2.5, y + 2.5, 5))
        self._hu = self._hu.astype(np.int16)
        self.detections = pd.DataFrame(self.detections, columns=["volume", "x1", "y1", "z1", "x2", "y2", "z2"])

    def contents(self, volumes):
        return list(volumes)

    def hu(self, volume):
        return self._hu


def test_training_learns_resumes_and_scores(tmp_path, monkeypatch):
    store = TinyStore()
    labels = np.array([1] * 12 + [0] * 12)
    whole = train_fpr(PROFILE, 0, tmp_path / "whole", store, store.detections, labels)
    scores = score_fpr(load_fpr(whole), store, store.detections, PROFILE, batch=5)
    assert scores[:12].min() > scores[12:].max()
    helped = replace(PROFILE, training=replace(TRAINING, loader_workers=2))  # others make the batches
    assert np.array_equal(scores, score_fpr(load_fpr(whole), store, store.detections, helped, batch=5))

    calls = []
    loss = focal_loss

    def stop_in_iteration_20(*arguments):
        calls.append(None)
        if len(calls) == 20:
            raise KeyboardInterrupt
        return loss(*arguments)

    monkeypatch.setattr(fpr, "focal_loss", stop_in_iteration_20)
    with pytest.raises(KeyboardInterrupt):
        train_fpr(helped, 0, tmp_path / "parts", store, store.detections, labels)
    parts = train_fpr(helped, 0, tmp_path / "parts", store, store.detections, labels)
    assert len(calls) == 20 + 25, "goes on from the checkpoint after iteration 15"
    for name in ("weights.safetensors", "log.csv", "config.json"):
        assert (whole / name).read_bytes() == (parts / name).read_bytes()

    # a step of run_all.sh that is interrupted later loses the weights and gets them back from the checkpoint
    again = train_fpr(PROFILE, 0, tmp_path / "again", store, store.detections, labels)
    for name in ("weights.safetensors", "log.csv"):
        (again / name).unlink()
    count = len(calls)
    train_fpr(PROFILE, 0, tmp_path / "again", store, store.detections, labels)
    assert len(calls) == count
    for name in ("weights.safetensors", "log.csv"):
        assert (whole / name).read_bytes() == (again / name).read_bytes()

    weights = whole / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ValueError, match="weights.safetensors does not hold the network of .*config.json .* delete it"):
        load_fpr(whole)


def test_training_needs_true_and_false_proposals(tmp_path):
    store = TinyStore()
    with pytest.raises(ValueError, match="0 true and 24 false"):
        train_fpr(PROFILE, 0, tmp_path / "run", store, store.detections, np.zeros(24, int))
