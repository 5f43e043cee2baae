"""3D false positive reduction (LENS, Sec. IV-D): a 3D ResNet-18 looks again at every detection.

Which proposals are true, false or neither is decided with the mined labels: without them many of the "false" ones
are lesions that nobody marked. The final score is the mean of the detector's and this network's (Eq. 4).
"""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import roi_align

from lensnb import profiles
from lensnb.backbone import imagenet_weights
from lensnb.boxes import BOX3D
from lensnb.files import load_weights, read_json, write_json
from lensnb.fitting import best_device, fit, stepped
from lensnb.mining import same_slice_pairs
from lensnb.patches import box_centres, cut_patches, nearest_slice, to_patch
from lensnb.progress import progress
from lensnb.volumes import Store

TRUE, FALSE, EXCLUDED = 1, 0, -1


class BasicBlock3D(nn.Module):
    """ResNet's basic block with 3D kernels of `depth` x 3 x 3; `stride` is that of y and x, and of z if depth > 1."""

    def __init__(self, channels: int, width: int, stride: int, depth: int):
        super().__init__()
        steps = (stride if depth > 1 else 1, stride, stride)
        self.conv1 = nn.Conv3d(channels, width, (depth, 3, 3), steps, (depth // 2, 1, 1), bias=False)
        self.bn1 = nn.BatchNorm3d(width)
        self.conv2 = nn.Conv3d(width, width, (depth, 3, 3), 1, (depth // 2, 1, 1), bias=False)
        self.bn2 = nn.BatchNorm3d(width)
        self.downsample = None
        if steps != (1, 1, 1) or channels != width:
            self.downsample = nn.Sequential(nn.Conv3d(channels, width, 1, steps, bias=False), nn.BatchNorm3d(width))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(x)) + shortcut)


class FPR(nn.Module):
    """Patches and 3D boxes in, lesion logits out.

    `config`: widths (four blocks), blocks (residual blocks in each), stem_stride and stem_pool (2 and true in the
    paper's ResNet-18), pooled, features. Kernels are 1 x 3 x 3 up to block 3 and 3 x 3 x 3 in block 4. Blocks 1 to 3
    are pooled over the lesion's 3D box, block 4 over the whole patch; the paper gives neither the pooled size nor
    the layers after it, which follow LesaNet: a layer per block, concatenated, one layer to the score.
    """

    def __init__(self, config: SimpleNamespace):
        super().__init__()
        widths = [config.widths[0], *config.widths]
        self.conv1 = nn.Conv3d(
            1, widths[0], (1, 7, 7), (1, config.stem_stride, config.stem_stride), (0, 3, 3), bias=False
        )
        self.bn1 = nn.BatchNorm3d(widths[0])
        self.stem_pool = config.stem_pool
        self.layers = nn.ModuleList()
        for i, count in enumerate(config.blocks):
            depth, stride = (3 if i == 3 else 1), (1 if i == 0 else 2)
            first = BasicBlock3D(widths[i], widths[i + 1], stride, depth)
            rest = [BasicBlock3D(widths[i + 1], widths[i + 1], 1, depth) for _ in range(count - 1)]
            self.layers.append(nn.Sequential(first, *rest))
        self.stride = config.stem_stride * (2 if config.stem_pool else 1)
        self.project = nn.ModuleList(nn.Linear(width * config.pooled**2, config.features) for width in config.widths)
        self.score = nn.Linear(config.features * len(config.widths), 1)
        self.pooled = config.pooled
        nn.init.constant_(self.score.bias, -2.0)

    def forward(self, patches: Tensor, boxes: Tensor, inside: Tensor) -> Tensor:
        """patches: (n, z, y, x); boxes: (n, 4) in patch pixels; inside: (n, z) bool, the slices of the 3D box.

        Returns logits (n,).
        """
        x = F.relu(self.bn1(self.conv1(patches[:, None])))
        if self.stem_pool:
            x = F.max_pool3d(x, (1, 3, 3), (1, 2, 2), (0, 1, 1))
        features = []
        for i, (layer, project) in enumerate(zip(self.layers, self.project, strict=True)):
            x = layer(x)
            if i < 3:
                pooled = pool_box(x, boxes, inside, 1 / (self.stride * 2**i), self.pooled)
            else:
                pooled = F.adaptive_max_pool3d(x, (1, self.pooled, self.pooled))
            features.append(project(pooled.flatten(1)))
        return self.score(F.relu(torch.cat(features, dim=1)))[:, 0]


def pool_box(x: Tensor, boxes: Tensor, inside: Tensor, scale: float, size: int) -> Tensor:
    """ROI pooling over 3D boxes: ROIAlign in plane, then the maximum over the slices of the box.

    x: (n, c, z, y, x), one box each; boxes (n, 4); inside (n, z) bool. Returns (n, c, size, size).
    """
    n, channels, depth = x.shape[:3]
    rois = torch.cat([torch.arange(n, dtype=x.dtype, device=x.device)[:, None], boxes], dim=1)
    pooled = roi_align(x.flatten(1, 2), rois, size, scale, sampling_ratio=2, aligned=True)
    pooled = pooled.unflatten(1, (channels, depth))
    return pooled.masked_fill(~inside[:, None, :, None, None], float("-inf")).amax(2)


def load_imagenet(model: FPR) -> None:
    """Inflate torchvision's ImageNet weights of ResNet-18: 2D kernels repeated over z and divided by its length.

    The stem's three colour channels are summed for the one grey channel. Raises ValueError if the model is not
    ResNet-18's size, RuntimeError if the weights cannot be had.
    """
    from torchvision.models import ResNet18_Weights

    inflate(model, imagenet_weights(ResNet18_Weights.IMAGENET1K_V1, "ResNet-18", "fpr.imagenet"))


def inflate(model: FPR, weights: dict[str, Tensor]) -> None:
    """Copy a torchvision ResNet-18 state dict into `model`; ValueError if a layer is missing or does not fit."""
    own = model.state_dict()
    for name in own:
        if name.startswith(("project", "score")):
            continue
        source = name.replace("layers.", "layer")  # layers.0.1.conv1 here is layer1.1.conv1 there
        if source.startswith("layer"):
            source = f"layer{int(source[5]) + 1}{source[6:]}"
        if source not in weights:
            raise ValueError(f"the ImageNet weights have no {source}; the network must be a ResNet-18")
        value = weights[source]
        if own[name].ndim == 5:
            value = value.sum(1, keepdim=True) if name == "conv1.weight" else value
            depth = own[name].shape[2]
            value = value[:, :, None].repeat(1, 1, depth, 1, 1) / depth
        if value.shape != own[name].shape:
            raise ValueError(
                f"{source} of the ImageNet weights has shape {tuple(value.shape)}, not {tuple(own[name].shape)}"
            )
        own[name] = value
    model.load_state_dict(own)


# --- what is true, what is false --------------------------------------------------------------------------------


def label_proposals(
    tracklets: pd.DataFrame, known: pd.DataFrame, uncertain: pd.DataFrame, theta: float, theta_fp: float
) -> pd.Series:
    """True (1), false (0) or excluded (-1), for each tracklet number (Sec. VI-B).

    `tracklets`: the proposals' 2D boxes; `known`: annotations and mined boxes. True: a box has IoU > theta with a
    known one on its slice. False: no box has IoU >= theta_fp with a known or uncertain one. Else excluded.
    """
    numbers = tracklets["tracklet"].to_numpy()
    labels = pd.Series(FALSE, index=np.unique(numbers))
    for boxes in (known, uncertain):
        pairs = same_slice_pairs(tracklets, boxes)
        labels[np.unique(numbers[pairs.loc[pairs["iou"] >= theta_fp, "a"]])] = EXCLUDED
    pairs = same_slice_pairs(tracklets, known)
    labels[np.unique(numbers[pairs.loc[pairs["iou"] > theta, "a"]])] = TRUE
    return labels


def focal_loss(logits: Tensor, labels: Tensor, gamma: float = 2.0) -> Tensor:
    """Mean focal loss of logits (n,) against 0/1 labels (n,): -(1 - p)^gamma log p of the right class."""
    cross_entropy = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    return ((1 - torch.exp(-cross_entropy)) ** gamma * cross_entropy).mean()


def sample_epoch(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Row numbers of an epoch: every true proposal and twice as many false ones (all, if there are fewer), shuffled."""
    true, false = np.flatnonzero(labels == TRUE), np.flatnonzero(labels == FALSE)
    chosen = rng.choice(false, min(len(false), 2 * len(true)), replace=False)
    return rng.permutation(np.concatenate([true, chosen]))


# --- training and scoring ---------------------------------------------------------------------------------------


def train(
    profile: SimpleNamespace, seed: int, out_dir: Path, store: Store, detections: pd.DataFrame, labels: np.ndarray
) -> Path:
    """Train on 3D detections of the training volumes; write weights, config.json and log.csv into `out_dir`.

    detections: volume, x1, y1, z1, x2, y2, z2 in grid coordinates; labels (n,): 1, 0 or -1, see `label_proposals`.
    Raises ValueError if there is no true or no false proposal.
    """
    if (out_dir / "weights.safetensors").exists():
        print("fpr: already trained")
        return out_dir
    config = profile.fpr
    if not (labels == TRUE).any() or not (labels == FALSE).any():
        raise ValueError(
            f"{(labels == TRUE).sum()} true and {(labels == FALSE).sum()} false proposals: both are needed"
        )
    torch.set_num_threads(profile.training.threads or torch.get_num_threads())
    torch.manual_seed(seed)
    model = FPR(config)
    if config.imagenet:
        load_imagenet(model)
    model.to(best_device(), memory_format=torch.channels_last_3d)  # the faster layout for convolutions, on CPUs too
    epoch_length = len(sample_epoch(labels, np.random.default_rng(0)))
    iterations = config.iterations or config.epochs * -(-epoch_length // config.batch_size)
    optimizer = torch.optim.RAdam(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    epochs: dict[int, np.ndarray] = {}

    def row(i: int) -> int:
        epoch, position = divmod(i, epoch_length)
        if epoch not in epochs:
            epochs.clear()
            epochs[epoch] = sample_epoch(labels, np.random.default_rng((seed, 4, epoch)))
        return epochs[epoch][position]

    def loss_of(t: int) -> dict[str, Tensor]:
        rng = np.random.default_rng((seed, 5, t))
        rows = [row(i) for i in range(t * config.batch_size, (t + 1) * config.batch_size)]
        logits = model(*(part.to(best_device()) for part in _inputs(store, detections.iloc[rows], profile, rng)))
        return {"focal": focal_loss(logits, torch.from_numpy(labels[rows]).float().to(logits.device))}

    fit(
        model, optimizer, loss_of, stepped(config.learning_rate, iterations, config.drops), iterations, out_dir, "fpr",
        config.gradient_clip, config.checkpoint_every,
    )  # fmt: skip
    counts = {
        name: int((labels == value).sum()) for name, value in (("true", TRUE), ("false", FALSE), ("excluded", EXCLUDED))
    }
    write_json({"proposals": counts, "seed": seed, **profiles.to_dict(config)}, out_dir / "config.json")
    return out_dir


def load(run_dir: Path) -> FPR:
    """The trained FPR network of a folder, in eval mode; FileNotFoundError if it is not there."""
    if not (run_dir / "config.json").exists():
        raise FileNotFoundError(
            f"{run_dir} has no trained FPR network; the notebook on false positive reduction makes it"
        )
    model = FPR(SimpleNamespace(**read_json(run_dir / "config.json")))
    load_weights(model, run_dir / "weights.safetensors")
    return model.to(best_device(), memory_format=torch.channels_last_3d).eval()  # as in training


@torch.no_grad()
def score(model: FPR, store: Store, detections: pd.DataFrame, profile: SimpleNamespace, batch: int = 64) -> np.ndarray:
    """Lesion probability of 3D detections (volume, x1, y1, z1, x2, y2, z2 on the grid): float32 (n,)."""
    result = np.zeros(len(detections), dtype=np.float32)
    order = np.argsort(detections["volume"].astype(str).to_numpy(), kind="stable")
    for start in progress(range(0, len(detections), batch), "fpr"):
        rows = order[start : start + batch]
        inputs = (part.to(best_device()) for part in _inputs(store, detections.iloc[rows], profile, None))
        result[rows] = model(*inputs).sigmoid().cpu().numpy()
    return result


def combine(detector_scores: np.ndarray, fpr_scores: np.ndarray) -> np.ndarray:
    """Eq. 4: the mean of the two scores."""
    return (np.asarray(detector_scores) + np.asarray(fpr_scores)) / 2


def _inputs(
    store: Store, detections: pd.DataFrame, profile: SimpleNamespace, rng: np.random.Generator | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Patches, boxes in them and the slices inside the 3D boxes; moved and scaled at random if `rng` is given."""
    config, n = profile.fpr, len(detections)
    depth, side = config.patch[0], config.patch[1]
    boxes = detections[BOX3D].astype(np.float64).reset_index(drop=True)
    boxes.insert(0, "volume", detections["volume"].astype(str).to_numpy())
    centres, step = box_centres(boxes), np.ones((n, 3))
    if rng is not None:
        size = boxes[["x2", "y2"]].to_numpy() - boxes[["x1", "y1"]].to_numpy()
        centres[:, :2] += rng.uniform(-config.shift, config.shift, (n, 2)) * size
        step[:, :2] *= rng.uniform(*config.scale, (n, 1))
    patches = cut_patches(store, boxes, centres, (depth, side, side), step, profile.network)
    in_patch = torch.from_numpy(to_patch(boxes, centres, step, side)).float()
    z = nearest_slice(centres[:, 2, None] + np.arange(depth) - (depth - 1) / 2)
    inside = (z >= boxes[["z1"]].to_numpy()) & (z <= boxes[["z2"]].to_numpy())
    inside = torch.from_numpy(inside | (z == nearest_slice(centres[:, 2, None])))  # a thin box has its own slice
    return patches, in_patch, inside
