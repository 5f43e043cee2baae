"""LesaNet's embedding of lesions (Yan et al., CVPR 2019), as far as matching needs it (LENS, Sec. V-B).

A patch of 120 mm around the lesion goes through VGG-16; features are pooled at five scales, the lesion's details
from its box, the context from the whole patch, and become a unit vector of 256 numbers. Lesions with similar
label sets, and views of one lesion, are drawn together.
"""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import roi_pool

from lensnb import paths, profiles
from lensnb.boxes import BOX
from lensnb.files import read_json, write_json
from lensnb.fitting import best_device, fit, stepped, without_decay
from lensnb.patches import box_centres, cut_patches, to_patch
from lensnb.progress import progress
from lensnb.volumes import Store


class LesaNet(nn.Module):
    """Patches and lesion boxes in, unit embeddings and label scores out.

    `config`: widths (five stages), convolutions (per stage), pooled (side of the pooled maps), features (per
    stage), embedding; the paper's numbers are 64, 128, 256, 512, 512; 2, 2, 3, 3, 3; 5; 256; 256. `labels` is the
    number of labels; with none, the network has no label scores.
    """

    def __init__(self, config: SimpleNamespace, labels: int):
        super().__init__()
        widths = [3, *config.widths]
        self.stages = nn.ModuleList(
            _stage(widths[i], widths[i + 1], config.convolutions[i]) for i in range(len(config.widths))
        )
        self.project = nn.ModuleList(nn.Linear(width * config.pooled**2, config.features) for width in config.widths)
        combined = config.features * len(config.widths)
        self.embedding = nn.Linear(combined, config.embedding)
        self.scores = nn.Linear(combined, labels) if labels else None
        self.propagate = _identity(labels) if labels else None
        self.pooled = config.pooled

    def forward(self, patches: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """patches: (n, 3, side, side); boxes: (n, 4) in patch pixels.

        Returns unit embeddings (n, embedding) and the label logits before and after score propagation (n, labels).
        """
        rois = torch.cat([torch.arange(len(boxes), dtype=boxes.dtype, device=boxes.device)[:, None], boxes], dim=1)
        features, x = [], patches
        for level, (stage, project) in enumerate(zip(self.stages, self.project, strict=True)):
            x = stage(x if level == 0 else F.max_pool2d(x, 2))
            if level < 3:  # the lesion's own details
                pooled = roi_pool(x, rois, self.pooled, spatial_scale=0.5**level)
            else:  # its surroundings
                pooled = F.adaptive_max_pool2d(x, self.pooled)
            features.append(project(pooled.flatten(1)))
        combined = torch.cat(features, dim=1)
        embedding = F.normalize(self.embedding(combined), dim=1)
        if self.scores is None:
            return embedding, None, None
        scores = self.scores(combined)
        return embedding, scores, self.propagate(scores)


def _stage(channels: int, width: int, convolutions: int) -> nn.Sequential:
    layers = []
    for i in range(convolutions):
        layers += [nn.Conv2d(channels if i == 0 else width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(True)]
    return nn.Sequential(*layers)


def _identity(size: int) -> nn.Linear:
    layer = nn.Linear(size, size)
    nn.init.eye_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


# --- losses -----------------------------------------------------------------------------------------------------


def label_similarity(labels: Tensor) -> Tensor:
    """sim = |X and Y|^2 / |X or Y| of every two rows of a 0/1 matrix (n, labels) (LesaNet, Eq. 3): (n, n)."""
    shared = labels @ labels.T
    size = labels.sum(1)
    union = size[:, None] + size[None, :] - shared
    return torch.where(union > 0, shared**2 / union.clamp(min=1), torch.zeros_like(shared))


def sample_triplets(
    similarity: Tensor, comparable: Tensor, count: int, theta: float, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw `count` triplets (anchor, similar, less similar) of row numbers (LesaNet, Sec. 4.4).

    similarity: (n, n). comparable: (n, n) bool, False where nothing is known about a pair (on the diagonal too); such
    a pair is in no triplet. The similar row has sim >= theta, or is the most similar one if none has; the third row
    is less similar to the anchor than the second. Anchors without such rows are drawn in vain, so fewer may return.
    """
    n = len(similarity)
    anchor = torch.randint(n, (count,), generator=generator)
    sim = similarity[anchor].masked_fill(~comparable[anchor], float("-inf"))
    best = sim.max(1, keepdim=True).values
    positive = _draw((sim >= theta) | (sim == best), generator)
    lower = comparable[anchor] & (sim < sim.gather(1, positive[:, None]))
    valid = lower.any(1) & best[:, 0].isfinite() & (best[:, 0] > 0)
    negative = _draw(lower, generator)
    return anchor[valid], positive[valid], negative[valid]


def _draw(allowed: Tensor, generator: torch.Generator) -> Tensor:
    """One allowed column of each row, uniformly: (n,)."""
    return torch.rand(allowed.shape, generator=generator).masked_fill(~allowed, -1.0).argmax(1)


def triplet_loss(embedding: Tensor, triplets: tuple[Tensor, Tensor, Tensor], margin: float) -> Tensor:
    """Mean of max(0, d(a, b) - d(a, c) + margin) over the triplets, d the L2 distance (LesaNet, Eq. 4)."""
    anchor, positive, negative = triplets
    if len(anchor) == 0:
        return embedding.sum() * 0
    squared = (2 - 2 * embedding @ embedding.T).clamp(min=1e-8)  # unit vectors; the clamp keeps the root's slope finite
    distance = squared.sqrt()
    return F.relu(distance[anchor, positive] - distance[anchor, negative] + margin).mean()


def label_weights(labels: Tensor, largest: float = 300.0) -> tuple[Tensor, Tensor]:
    """Weights of positive and negative entries per label: n / 2P, at most `largest`, and n / 2N (LesaNet, Eq. 1)."""
    n, positive = len(labels), labels.sum(0)
    return (n / (2 * positive.clamp(min=1))).clamp(max=largest), n / (2 * (n - positive).clamp(min=1))


def weighted_cross_entropy(scores: Tensor, labels: Tensor, weights: tuple[Tensor, Tensor]) -> Tensor:
    """Weighted binary cross-entropy of logits (n, labels), the mean over all entries (LesaNet, Eq. 1)."""
    weight = torch.where(labels > 0, weights[0], weights[1])
    return F.binary_cross_entropy_with_logits(scores, labels, weight=weight)


# --- training ---------------------------------------------------------------------------------------------------


def train_for_profile(profile_name: str, seed: int = 0) -> Path:
    """Train the embedding of a profile into runs/embedding and return that folder; a finished one is left alone."""
    profile = profiles.load(profile_name)
    store = Store(paths.prepared(profile_name, seed))
    out_dir = paths.runs(profile_name, seed) / "embedding"
    return train_embedding(profile, seed, out_dir, store, paths.raw(profile_name, seed) / "DeepLesion")


def train_embedding(profile: SimpleNamespace, seed: int, out_dir: Path, store: Store, label_folder: Path) -> Path:
    """Train on the marked lesions of DeepLesion's training volumes; write weights, config.json and log.csv.

    A batch holds each of its lesions twice, in two random views; LesaNet has no augmentation, but it has nineteen
    thousand lesions with labels, and a phantom benchmark some hundred.
    """
    if (out_dir / "weights.safetensors").exists():
        print("embedding: already trained")
        return out_dir
    config = profile.embedding
    torch.set_num_threads(profile.training.threads or torch.get_num_threads())
    lesions = store.boxes[store.boxes["volume"].isin(store.volumes.index[store.volumes["split"] == "train"])]
    lesions = lesions[lesions["dataset"] == "DeepLesion"].reset_index(drop=True)
    names, labels = read_labels(label_folder, lesions["lesion"])
    if names and config.labels_required:
        lesions, labels = lesions[labels.any(1)].reset_index(drop=True), labels[labels.any(1)]
    labels = torch.from_numpy(labels.astype("float32"))
    torch.manual_seed(seed)
    model = LesaNet(config, len(names)).to(best_device())
    optimizer = torch.optim.SGD(without_decay(model, config.weight_decay, bias_factor=2.0), lr=0, momentum=0.9)

    def loss_of(t: int) -> dict[str, Tensor]:
        rng = np.random.default_rng((seed, 3, t))
        half = rng.choice(len(lesions), min(config.batch_size // 2, len(lesions)), replace=False)
        rows = np.concatenate([half, half])
        patches, boxes = augmented_patches(store, lesions.iloc[rows], profile, rng)
        generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
        return losses(model, patches, boxes, lesions.iloc[rows], labels[rows], label_weights(labels), config, generator)

    fit(
        model, optimizer, loss_of, stepped(config.learning_rate, config.iterations, config.drops), config.iterations,
        out_dir, "embedding", config.gradient_clip, config.checkpoint_every,
    )  # fmt: skip
    write_json(
        {"labels": names, "seed": seed, "lesions": len(lesions), **profiles.to_dict(config)}, out_dir / "config.json"
    )
    return out_dir


def losses(
    model: LesaNet, patches: Tensor, boxes: Tensor, lesions: pd.DataFrame, labels: Tensor,
    weights: tuple[Tensor, Tensor], config: SimpleNamespace, generator: torch.Generator,
) -> dict[str, Tensor]:  # fmt: skip
    """The losses of a batch: the triplet loss, and the cross-entropy before and after score propagation."""
    device = next(model.parameters()).device
    embedding, scores, propagated = model(patches.to(device), boxes.to(device))
    patient, volume, lesion = (
        torch.from_numpy(pd.factorize(lesions[name].astype(str))[0]) for name in ("patient", "volume", "lesion")
    )
    views = (lesion[:, None] == lesion[None, :]).float()
    similarity = label_similarity(labels) if labels.shape[1] else views
    # two lesions of one volume are different; those of two volumes of a patient may be one lesion at two times
    unknown = (patient[:, None] == patient[None, :]) & (volume[:, None] != volume[None, :])
    comparable = ~unknown & ~torch.eye(len(lesions), dtype=torch.bool)
    triplets = sample_triplets(similarity, comparable, config.triplets, config.theta, generator)
    result = {"triplet": config.triplet_weight * triplet_loss(embedding, triplets, config.margin)}
    if scores is not None:
        labels, weights = labels.to(device), tuple(weight.to(device) for weight in weights)
        result["scores"] = weighted_cross_entropy(scores, labels, weights)
        result["propagated"] = weighted_cross_entropy(propagated, labels, weights)
    return result


def read_labels(folder: Path, lesions: pd.Series) -> tuple[list[str], np.ndarray]:
    """Text-mined labels (LesaNet, Sec. 3) of lesions "dl00042" (row 42 of DL_info.csv): names, 0/1 matrix.

    Reads text_mined_labels_171_and_split.json or text_mined_labels.json from `folder`: the relevant and uncertain
    labels of the training split. A lesion that the file does not list has no labels. Without a file there are none
    at all, and two views of one lesion are the only pairs that are drawn together; a line says so.
    """
    files = [folder / name for name in ("text_mined_labels_171_and_split.json", "text_mined_labels.json")]
    found = [path for path in files if path.exists()]
    if not found:
        print(f"{folder} has no text-mined labels ({files[0].name}): the embedding learns from views of lesions alone")
        return [], np.zeros((len(lesions), 0), dtype=bool)
    content = read_json(found[0])
    names = content["term_list"]
    row_of = {lesion: i for i, lesion in enumerate(lesions)}
    labels = np.zeros((len(lesions), len(names)), dtype=bool)
    parts = (content["train_lesion_idxs"], content["train_relevant_labels"], content["train_uncertain_labels"])
    for index, relevant, uncertain in zip(*parts, strict=True):
        row = row_of.get(f"dl{index:05d}")
        if row is not None:
            labels[row, [*relevant, *uncertain]] = True
    used = labels.any(0)
    return [name for name, keep in zip(names, used, strict=True) if keep], labels[:, used]


def augmented_patches(
    store: Store, lesions: pd.DataFrame, profile: SimpleNamespace, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Random views of lesions: moved, scaled, from a neighbouring slice, with another box, brightness and noise."""
    config, n = profile.embedding, len(lesions)
    centres, step = box_centres(lesions), _steps(store, lesions, config)
    spacing = _spacing(store, lesions)
    centres[:, :2] += rng.uniform(-config.shift_mm, config.shift_mm, (n, 2)) / spacing[:, :2]
    short_side = np.minimum(lesions["x2"] - lesions["x1"], lesions["y2"] - lesions["y1"]).to_numpy() * spacing[:, 0]
    reach = config.slice_shift * short_side / spacing[:, 2]
    centres[:, 2] = np.rint(centres[:, 2] + rng.uniform(-1, 1, n) * reach)
    step[:, :2] *= rng.uniform(*config.scale, (n, 1))
    side = lesions[["x2", "y2", "x2", "y2"]].to_numpy() - lesions[["x1", "y1", "x1", "y1"]].to_numpy()
    moved = lesions.assign(
        **dict(zip(BOX, (lesions[BOX] + rng.normal(0, config.box_jitter, (n, 4)) * side).to_numpy().T, strict=True))
    )
    images = cut_patches(store, lesions, centres, (3, config.patch_px, config.patch_px), step, profile.network)
    gain, noise = rng.normal(1, config.gain, (n, 1, 1, 1)), rng.normal(0, 1, images.shape)
    level = rng.uniform(0, config.noise, (n, 1, 1, 1))
    images = images * torch.from_numpy(gain).float() + torch.from_numpy(noise * level).float()
    return images, torch.from_numpy(to_patch(moved, centres, step, config.patch_px)).float()


def load(run_dir: Path) -> LesaNet:
    """The trained embedding network of a folder, in eval mode; FileNotFoundError if it is not there."""
    if not (run_dir / "config.json").exists():
        raise FileNotFoundError(f"{run_dir} has no trained embedding; `python -m lensnb embedding` makes it")
    config = SimpleNamespace(**read_json(run_dir / "config.json"))
    model = LesaNet(config, len(config.labels))
    model.load_state_dict(load_file(run_dir / "weights.safetensors"))
    return model.to(best_device()).eval()


@torch.no_grad()
def embed(model: LesaNet, store: Store, table: pd.DataFrame, profile: SimpleNamespace, batch: int = 128) -> np.ndarray:
    """Unit embeddings of the 2D boxes of `table` (volume, z, x1, y1, x2, y2): float32 (n, embedding)."""
    config, device = profile.embedding, next(model.parameters()).device
    result = np.zeros((len(table), config.embedding), dtype=np.float32)
    order = np.argsort(table["volume"].astype(str).to_numpy(), kind="stable")  # a batch then opens few volumes
    for start in progress(range(0, len(table), batch), "embedding"):
        rows = order[start : start + batch]
        part = table.iloc[rows]
        centres, step = box_centres(part), _steps(store, part, config)
        images = cut_patches(store, part, centres, (3, config.patch_px, config.patch_px), step, profile.network)
        boxes = torch.from_numpy(to_patch(part, centres, step, config.patch_px)).float()
        result[rows] = model(images.to(device), boxes.to(device))[0].cpu().numpy()
    return result


def _spacing(store: Store, table: pd.DataFrame) -> np.ndarray:
    names = ["spacing_x_mm", "spacing_y_mm", "spacing_z_mm"]
    return store.volumes.loc[table["volume"].astype(str), names].to_numpy(np.float64)


def _steps(store: Store, table: pd.DataFrame, config: SimpleNamespace) -> np.ndarray:
    """Grid pixels between neighbouring patch pixels: (n, 3: x, y, z)."""
    patch_mm = np.array([config.patch_mm / config.patch_px] * 2 + [config.slice_gap_mm])
    return patch_mm / _spacing(store, table)
