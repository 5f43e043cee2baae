"""3D false positive reduction (LENS Sec. IV-D): a 3D ResNet-18 looks again at every detection.

Which proposals are true, false or neither is decided with the mined labels: without them many of the "false" ones
are lesions that nobody marked. The final score is the mean of the detector's and this network's (LENS Eq. 4).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lensnb.boxes import BOX, BOX3D, area, intersection, same_slice_pairs, slices_of, tracklets_to_3d
from lensnb.datasets.store import Store
from lensnb.files import read_json
from lensnb.models.fpr import FPR, focal_loss, load_imagenet
from lensnb.models.weights import build_trained, device_of_choice, require_finite, weights_fingerprint
from lensnb.provenance.recipe import code, values
from lensnb.runfolder import CONFIG, WEIGHTS
from lensnb.settings import Fpr, Network, Profile, from_dict, to_dict
from lensnb.streams import Stream, generator
from lensnb.system import progress
from lensnb.training.loop import Course, fit, stepped
from lensnb.training.parallel import use_threads
from lensnb.training.patches import box_centres, cut_patches, nearest_slice, to_patch

TRUE, FALSE, EXCLUDED = 1, 0, -1


def label_proposals(
    tracklets: pd.DataFrame, known: pd.DataFrame, uncertain: pd.DataFrame, theta: float, theta_fp: float, iobb_fp: float
) -> pd.Series:
    """True (1), false (0) or excluded (-1), for each tracklet number (LENS Sec. VI-B).

    `tracklets`: the proposals' 2D boxes, with score; `known`: annotations and mined boxes. True: a box has IoU > theta
    with a known one on its slice. False: no box has IoU >= theta_fp with a known or uncertain one, and the evaluation
    would call the proposal no hit (not in the paper, see `hits`, `iobb_fp`): what raises the sensitivity must not be
    learned as false. Else excluded.
    """
    numbers = tracklets["tracklet"].to_numpy()
    labels = pd.Series(FALSE, index=np.unique(numbers))
    for boxes in (known, uncertain):
        pairs = same_slice_pairs(tracklets, boxes)
        labels[np.unique(numbers[pairs.loc[pairs["iou"] >= theta_fp, "a"]])] = EXCLUDED
        labels[hits(tracklets, boxes, iobb_fp)] = EXCLUDED
    pairs = same_slice_pairs(tracklets, known)
    labels[np.unique(numbers[pairs.loc[pairs["iou"] > theta, "a"]])] = TRUE
    return labels


def hits(tracklets: pd.DataFrame, boxes: pd.DataFrame, threshold: float) -> np.ndarray:
    """Numbers of the tracklets that hit a lesion of `boxes` as the evaluation judges it (LENS Sec. VI-C).

    That is by the share of the proposal's 3D box that lies in the lesion's, with both end pixels in the boxes (see
    evaluation/froc.py:overlap_3d). The labels say on which slices a lesion was seen, not where it ends: only the
    slices that both boxes have are compared. `boxes`: 2D boxes, those of a volume and lesion make one 3D box.
    """
    found = slices_of(tracklets_to_3d(tracklets))
    corners = {"x1": ("x1", "min"), "y1": ("y1", "min"), "x2": ("x2", "max"), "y2": ("y2", "max")}
    extent = {"z1": ("z", "min"), "z2": ("z", "max")}
    lesions = slices_of(boxes.groupby(["volume", "lesion"], as_index=False, observed=True).agg(**corners, **extent))
    pairs = same_slice_pairs(found, lesions)
    last_pixel = np.array([0, 0, 1, 1])
    first, second = (
        table[BOX].to_numpy(float)[pairs[column]] + last_pixel for table, column in ((found, "a"), (lesions, "b"))
    )
    hit = intersection(first, second) / area(first) >= threshold
    return np.unique(found["tracklet"].to_numpy()[pairs.loc[hit, "a"]])


def sample_epoch(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Row numbers of an epoch: every true proposal and twice as many false ones (all, if there are fewer), shuffled."""
    true, false = np.flatnonzero(labels == TRUE), np.flatnonzero(labels == FALSE)
    chosen = rng.choice(false, min(len(false), 2 * len(true)), replace=False)
    return rng.permutation(np.concatenate([true, chosen]))


def train_fpr(
    profile: Profile, seed: int, out_dir: Path, store: Store, detections: pd.DataFrame, labels: np.ndarray
) -> Path:
    """Train on 3D detections of the training volumes; write weights, config.json and log.csv into `out_dir`.

    detections: volume, x1, y1, z1, x2, y2, z2 in grid coordinates; labels (n,): 1, 0 or -1, see `label_proposals`.
    Raises ValueError if there is no true or no false proposal.
    """
    config = profile.fpr
    names = (("true", TRUE), ("false", FALSE), ("excluded", EXCLUDED))
    counts = {name: int((labels == value).sum()) for name, value in names}
    if not counts["true"] or not counts["false"]:
        raise ValueError(f"{counts['true']} true and {counts['false']} false proposals: both are needed")
    use_threads(profile.training.threads)
    torch.manual_seed(seed)
    model = FPR(config)
    if config.imagenet:
        load_imagenet(model)
    device = device_of_choice()
    model.to(device, memory_format=torch.channels_last_3d)  # the faster layout for convolutions, on CPUs too
    batches = Patches(config, profile.network, seed, store, detections, labels)
    optimizer = torch.optim.RAdam(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    rate_of = stepped(config.learning_rate, len(batches), config.drops)
    course = Course(rate_of, config.gradient_clip, config.checkpoint_every, profile.training.loader_workers)
    about = {"proposals": counts, "seed": seed, **to_dict(config)}

    def losses_of(network: torch.nn.Module, batch: tuple[Tensor, ...]) -> dict[str, Tensor]:
        *inputs, label = (part.to(device) for part in batch)
        return {"focal": focal_loss(network(*inputs), label)}

    recipe = code([__name__]) | values(
        network=to_dict(profile.network), fpr=about, initial_weights=weights_fingerprint(model),
        detections=detections.to_csv(index=False), labels=labels.tolist(), volumes=store.contents(_volumes(detections)),
    )  # fmt: skip
    fit(model, batches, losses_of, optimizer, course, out_dir, about, recipe)
    return out_dir


def _volumes(table: pd.DataFrame) -> list[str]:
    return sorted(set(table["volume"].astype(str)))


class Patches(torch.utils.data.Dataset):
    """The batches of the whole training by iteration number: what `FPR.forward` takes, and labels (n,) 0 or 1."""

    def __init__(
        self, config: Fpr, network: Network, seed: int, store: Store, detections: pd.DataFrame, labels: np.ndarray
    ):
        self.config, self.network, self.seed = config, network, seed
        self.store, self.detections, self.labels = store, detections, labels
        self.epoch_length = len(sample_epoch(labels, generator(seed, Stream.FPR_EPOCH, 0)))
        self.epoch: tuple[int, np.ndarray] = (-1, np.zeros(0, dtype=int))

    def __len__(self) -> int:
        config = self.config
        return config.iterations or config.epochs * -(-self.epoch_length // config.batch_size)

    def row(self, i: int) -> int:
        """The row of the i-th example since the training began."""
        epoch, position = divmod(i, self.epoch_length)
        if self.epoch[0] != epoch:
            self.epoch = (epoch, sample_epoch(self.labels, generator(self.seed, Stream.FPR_EPOCH, epoch)))
        return int(self.epoch[1][position])

    def __getitem__(self, t: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        size = self.config.batch_size
        rows = [self.row(i) for i in range(t * size, (t + 1) * size)]
        rng = generator(self.seed, Stream.FPR_VIEWS, t)
        inputs = _inputs(self.store, self.detections.iloc[rows], self.config, self.network, rng)
        return *inputs, torch.from_numpy(self.labels[rows]).float()


def load_fpr(run_dir: Path) -> FPR:
    """The trained FPR network of a folder, in eval mode.

    FileNotFoundError if it is not there, ValueError if its files are broken or do not fit together.
    """
    path = run_dir / CONFIG
    if not path.exists():
        raise FileNotFoundError(
            f"{run_dir} has no trained FPR network; the notebook on false positive reduction makes it"
        )
    config = {name: value for name, value in read_json(path).items() if name not in ("proposals", "seed")}
    config = from_dict(Fpr, config, str(path))
    model = build_trained(lambda: FPR(config), run_dir / WEIGHTS, f"the network of {path}", sum(config.blocks))
    return model.to(device_of_choice(), memory_format=torch.channels_last_3d).eval()  # as in training


@torch.no_grad()
def score_fpr(model: FPR, store: Store, detections: pd.DataFrame, profile: Profile, batch: int = 64) -> np.ndarray:
    """Lesion probability of 3D detections (volume, x1, y1, z1, x2, y2, z2 on the grid): float32 (n,).

    `batch` detections are looked at at once, whatever n is. FloatingPointError if a score is not finite.
    """
    result, device = np.zeros(len(detections), dtype=np.float32), next(model.parameters()).device
    order = np.argsort(detections["volume"].astype(str).to_numpy(), kind="stable")
    rows = [order[start : start + batch] for start in range(0, len(order), batch)]
    looks = Looks(profile.fpr, profile.network, store, detections, rows)
    loader = torch.utils.data.DataLoader(looks, batch_size=None, num_workers=profile.training.loader_workers)
    for some, inputs in zip(rows, progress(loader, "fpr"), strict=True):
        scores = model(*(part.to(device) for part in inputs)).sigmoid().cpu()
        require_finite("scores", scores)
        result[some] = scores.numpy()
    return result


class Looks(torch.utils.data.Dataset):
    """The batches that are scored, by number; `rows` are the row numbers of each batch. What `FPR.forward` takes."""

    def __init__(
        self, config: Fpr, network: Network, store: Store, detections: pd.DataFrame, rows: Sequence[np.ndarray]
    ):
        self.config, self.network, self.store, self.detections, self.rows = config, network, store, detections, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor, Tensor]:
        return _inputs(self.store, self.detections.iloc[self.rows[i]], self.config, self.network, None)


def _inputs(
    store: Store, detections: pd.DataFrame, config: Fpr, network: Network, rng: np.random.Generator | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Patches, boxes in them and the slices inside the 3D boxes; moved and scaled at random if `rng` is given."""
    n = len(detections)
    depth, side = config.patch[0], config.patch[1]
    boxes = detections[BOX3D].astype(np.float64).reset_index(drop=True)
    boxes.insert(0, "volume", detections["volume"].astype(str).to_numpy())
    centres, step = box_centres(boxes), np.ones((n, 3))
    if rng is not None:
        size = boxes[["x2", "y2"]].to_numpy() - boxes[["x1", "y1"]].to_numpy()
        centres[:, :2] += rng.uniform(-config.shift, config.shift, (n, 2)) * size
        step[:, :2] *= rng.uniform(*config.scale, (n, 1))
    patches = cut_patches(store, boxes, centres, (depth, side, side), step, network)
    in_patch = torch.from_numpy(to_patch(boxes, centres, step, side)).float()
    z = nearest_slice(centres[:, 2, None] + np.arange(depth) - (depth - 1) / 2)
    inside = (z >= boxes[["z1"]].to_numpy()) & (z <= boxes[["z2"]].to_numpy())
    inside = torch.from_numpy(inside | (z == nearest_slice(centres[:, 2, None])))  # a thin box has its own slice
    return patches, in_patch, inside
