"""3D false positive reduction (LENS, Sec. IV-D): a 3D ResNet-18 looks again at every detection.

Which proposals are true, false or neither is decided with the mined labels: without them many of the "false" ones
are lesions that nobody marked. The final score is the mean of the detector's and this network's (Eq. 4).
"""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lensnb.boxes import BOX3D, same_slice_pairs
from lensnb.datasets.store import Store
from lensnb.files import read_json, write_json
from lensnb.models.fpr import FPR, focal_loss, load_imagenet
from lensnb.models.weights import best_device, load_weights
from lensnb.settings import to_dict
from lensnb.system import progress
from lensnb.training.loop import fit, stepped
from lensnb.training.patches import box_centres, cut_patches, nearest_slice, to_patch

TRUE, FALSE, EXCLUDED = 1, 0, -1


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


def sample_epoch(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Row numbers of an epoch: every true proposal and twice as many false ones (all, if there are fewer), shuffled."""
    true, false = np.flatnonzero(labels == TRUE), np.flatnonzero(labels == FALSE)
    chosen = rng.choice(false, min(len(false), 2 * len(true)), replace=False)
    return rng.permutation(np.concatenate([true, chosen]))


def train_fpr(
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
    write_json({"proposals": counts, "seed": seed, **to_dict(config)}, out_dir / "config.json")
    return out_dir


def load_fpr(run_dir: Path) -> FPR:
    """The trained FPR network of a folder, in eval mode; FileNotFoundError if it is not there."""
    if not (run_dir / "config.json").exists():
        raise FileNotFoundError(
            f"{run_dir} has no trained FPR network; the notebook on false positive reduction makes it"
        )
    model = FPR(SimpleNamespace(**read_json(run_dir / "config.json")))
    load_weights(model, run_dir / "weights.safetensors")
    return model.to(best_device(), memory_format=torch.channels_last_3d).eval()  # as in training


@torch.no_grad()
def score_fpr(
    model: FPR, store: Store, detections: pd.DataFrame, profile: SimpleNamespace, batch: int = 64
) -> np.ndarray:
    """Lesion probability of 3D detections (volume, x1, y1, z1, x2, y2, z2 on the grid): float32 (n,)."""
    result = np.zeros(len(detections), dtype=np.float32)
    order = np.argsort(detections["volume"].astype(str).to_numpy(), kind="stable")
    for start in progress(range(0, len(detections), batch), "fpr"):
        rows = order[start : start + batch]
        inputs = (part.to(best_device()) for part in _inputs(store, detections.iloc[rows], profile, None))
        result[rows] = model(*inputs).sigmoid().cpu().numpy()
    return result


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
