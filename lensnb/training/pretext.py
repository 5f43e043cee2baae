"""The initial weights that all experiments share: ImageNet's, or a stand-in for them on phantoms.

The paper starts from DenseNet-121 trained on ImageNet, and so does the `paper` profile. A network small enough for
two CPU cores has no such weights, and would spend most of a short training on learning to see at all. So a detector
is trained once on all training volumes without any of their labels: soft ellipsoids of random size and contrast are
pasted in and have to be found. Its backbone and shared FC layers start every row of every table. Blobs resemble
lesions more than ImageNet's pictures do, so this start helps detection directly; it is the same for all rows and
therefore favours none. Batch norm learns its statistics here and keeps them afterwards (`network.freeze_batch_norm`).
"""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from lensnb import runfolder
from lensnb.datasets.store import Store
from lensnb.files import write_json, write_table
from lensnb.models.inputs import slice_group, to_grey
from lensnb.models.lens import LENS
from lensnb.models.targets import Target
from lensnb.models.weights import save_weights
from lensnb.settings import load_profile, to_dict
from lensnb.training.loop import leave_checkpoint
from lensnb.training.loop_lens import fit_lens
from lensnb.training.samples import place_batch


def train_pretext(profile_name: str, seed: int = 0) -> Path:
    """Write data/runs/<profile>/pretext/weights.safetensors, resuming an interrupted training; return the folder.

    Raises RuntimeError if the profile asks for ImageNet weights and they cannot be had.
    """
    profile = load_profile(profile_name)
    folder = runfolder.runs(profile_name, seed) / "pretext"
    if (folder / "weights.safetensors").exists():
        print("pretext: already trained")
        return folder
    torch.set_num_threads(profile.training.threads or torch.get_num_threads())
    store = Store(runfolder.prepared(profile_name, seed))
    torch.manual_seed(seed)
    if profile.network.imagenet:
        model = LENS(profile.network, ("pretext",))
        model.backbone.load_imagenet()
        trunk = tuple(f"backbone.{part}" for part in ("stem", "denseblock", "transition"))
        save_weights(model, folder / "weights.safetensors", trunk)
        return folder
    network = SimpleNamespace(**{**vars(profile.network), "freeze_batch_norm": False})
    model = LENS(network, ("pretext",))
    training = SimpleNamespace(**{**vars(profile.training), **vars(profile.pretext)})
    log = fit_lens(model, PastedBlobs(profile, training, store, seed), training, folder / "checkpoint.pt", "pretext")
    write_table(log, folder / "log.csv")
    write_json({"profile": profile_name, "seed": seed, "network": to_dict(profile.network)}, folder / "config.json")
    save_weights(model, folder / "weights.safetensors", ("backbone.", "head.fc1.", "head.fc2."))
    leave_checkpoint(folder / "checkpoint.pt")
    return folder


class PastedBlobs(torch.utils.data.Dataset):
    """Batches of slices with pasted blobs; batch t follows from the seed and t."""

    def __init__(self, profile: SimpleNamespace, training: SimpleNamespace, store: Store, seed: int):
        self.profile, self.training, self.store, self.seed = profile, training, store, seed
        self.volumes = store.volumes.index[store.volumes["split"] == "train"].tolist()

    def __len__(self) -> int:
        return self.training.iterations

    def __getitem__(self, t: int) -> tuple[int, torch.Tensor, list[Target]]:
        rng = np.random.default_rng((self.seed, t, 3))
        network, spacing = self.profile.network, self.profile.grid.spacing_mm
        images, boxes = [], []
        for volume in rng.choice(self.volumes, size=self.training.batch_size):
            hu = self.store.hu(volume)
            group = slice_group(hu, int(rng.integers(len(hu))), network.slices).astype(np.float32)
            pasted = [paste_blob(group, spacing, rng) for _ in range(int(rng.integers(1, 4)))]
            images.append(to_grey(group, network))
            boxes.append(np.array([box for box in pasted if box is not None], np.float32).reshape(-1, 4))
        batch, targets = place_batch(images, boxes, [0] * len(images), rng, self.training)
        return 0, batch, targets


def paste_blob(group: np.ndarray, spacing_mm: list[float], rng: np.random.Generator) -> tuple[float, ...] | None:
    """Add a soft ellipsoid to HU `group` (z, y, x) in place; return its box in the central slice.

    Returns None if it does not reach that slice, or if there is no body. Radii of 6 to 25 mm; 30 to 90 HU darker or
    brighter than soft tissue, or a solid nodule where it falls into lung.
    """
    depth, height, width = group.shape
    inside = np.argwhere(group[depth // 2, ::4, ::4] > -950) * 4
    if len(inside) == 0:
        return None
    y, x = inside[rng.integers(len(inside))] + rng.uniform(0, 4, size=2)
    radius_mm = 6.0 * (25.0 / 6.0) ** rng.uniform(0, 1) * rng.uniform(0.8, 1.25, size=3)
    rx, ry, rz = radius_mm / np.asarray(spacing_mm)
    z = depth // 2 + rng.uniform(-0.5, 0.5) * rz
    zz, yy, xx = np.ogrid[:depth, :height, :width]
    angle = rng.uniform(0, np.pi)
    u = ((xx - x) * np.cos(angle) + (yy - y) * np.sin(angle)) / rx
    v = (-(xx - x) * np.sin(angle) + (yy - y) * np.cos(angle)) / ry
    r2 = u**2 + v**2 + ((zz - z) / rz) ** 2
    at_centre = r2[depth // 2]
    if at_centre.min() >= 1:
        return None
    weight = 1 / (1 + np.exp(np.clip((np.sqrt(r2) - 1) * rng.uniform(6, 14), -30, 30)))
    around = group[r2 < 1].mean() if (r2 < 1).any() else 0.0
    level = rng.uniform(-60, 80) if around < -300 else around + rng.choice([-1, 1]) * rng.uniform(30, 90)
    group += weight * (level - group)
    rows, columns = np.nonzero(at_centre < 1)
    return columns.min() - 1.0, rows.min() - 1.0, columns.max() + 1.0, rows.max() + 1.0
