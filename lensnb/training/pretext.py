"""The initial weights that all experiments share: ImageNet's, or a stand-in for them on phantoms.

The paper starts from DenseNet-121 trained on ImageNet, and so does the `paper` profile. A network small enough for
two CPU cores has no such weights, and would spend most of a short training on learning to see at all. So a detector
is trained once on all training volumes without any of their labels: soft ellipsoids of random size and contrast are
pasted in and have to be found. Its backbone and shared FC layers start every row of every table. Blobs resemble
lesions more than ImageNet's pictures do, so this start helps detection directly; it is the same for all rows and
therefore favours none. Batch norm learns its statistics here and keeps them afterwards (`network.freeze_batch_norm`).
"""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from lensnb.datasets.store import Store
from lensnb.models.build import build_lens
from lensnb.models.inputs import slice_group, to_grey
from lensnb.models.weights import save_weights
from lensnb.provenance.product import is_made, write_record
from lensnb.provenance.recipe import code, values
from lensnb.runfolder import Run
from lensnb.settings import Network, Training, load_profile, to_dict
from lensnb.streams import Stream, generator, number
from lensnb.training.augment import canvas_size, draw, place_batch
from lensnb.training.detector import Batch, fit_lens
from lensnb.training.loop import remove_checkpoint
from lensnb.training.parallel import use_threads


def train_pretext(profile_name: str, seed: int = 0) -> Path:
    """Write the weights `Run.pretext`, resuming an interrupted training; return the folder.

    Raises RuntimeError if the profile asks for ImageNet weights and they cannot be had.
    """
    profile = load_profile(profile_name)
    run = Run(profile_name, seed)
    folder = run.pretext.parent
    use_threads(profile.training.threads)
    store = Store(run.prepared)
    torch.manual_seed(seed)
    if profile.network.imagenet:
        model = build_lens(profile.network, ["pretext"])
        if not hasattr(model.backbone, "load_imagenet"):
            raise ValueError(
                f"network.imagenet is true, but the backbone {profile.network.backbone} knows no ImageNet weights; set "
                "it to false, and pretext.iterations to the length of the training that takes their place"
            )
        model.backbone.load_imagenet()
        trunk = tuple(f"backbone.{part}" for part in model.backbone.imagenet_parts)
        recipe = code([__name__]) | values(network=to_dict(profile.network))
        if not is_made([run.pretext], recipe):
            save_weights(model, run.pretext, trunk)
            write_record([run.pretext], recipe)
        return folder
    model = build_lens(replace(profile.network, freeze_batch_norm=False), ["pretext"])
    training = replace(profile.training, **asdict(profile.pretext))
    batches = PastedBlobs(profile.network, training, profile.grid.spacing_mm, store, seed, model.backbone.multiple)
    config = {"profile": profile_name, "seed": seed, "network": to_dict(profile.network)}
    recipe = code([__name__]) | values(
        network=config["network"], training=to_dict(training), spacing_mm=list(profile.grid.spacing_mm), seed=seed,
        volumes=store.contents(batches.volumes),
    )  # fmt: skip
    fit_lens(model, batches, training, folder, config, recipe, kept=("backbone.", "head.fc1.", "head.fc2."))
    return folder


def command(profile_name: str, seed: int) -> Path:
    """The command `pretext`: `train_pretext`, and nothing left to continue from."""
    folder = train_pretext(profile_name, seed)
    remove_checkpoint(folder)
    return folder


class PastedBlobs(torch.utils.data.Dataset):
    """Batches of slices with pasted blobs; batch t follows from the seed and t."""

    def __init__(
        self, network: Network, training: Training, spacing_mm: tuple[float, ...], store: Store, seed: int,
        multiple: int,
    ):  # fmt: skip
        self.network, self.training, self.spacing_mm = network, training, spacing_mm
        self.store, self.seed, self.multiple = store, seed, multiple
        self.volumes = store.volumes.index[store.volumes["split"] == "train"].tolist()

    def __len__(self) -> int:
        return self.training.iterations

    def __getitem__(self, t: int) -> Batch:
        rng = generator(self.seed, Stream.BLOBS, t)
        images, boxes = [], []
        for volume in rng.choice(self.volumes, size=self.training.batch_size):
            hu = self.store.hu(volume)
            group = slice_group(hu, int(rng.integers(len(hu))), self.network.slices).astype(np.float32)
            pasted = [paste_blob(group, self.spacing_mm, rng) for _ in range(int(rng.integers(1, 4)))]
            images.append(to_grey(group, self.network))
            boxes.append(np.array([box for box in pasted if box is not None], np.float32).reshape(-1, 4))
        drawn = draw(len(images), self.training, rng)
        size = canvas_size([image.shape[1:] for image in images], drawn.ratio, self.multiple)
        slices, targets = place_batch(images, boxes, [0] * len(images), drawn, size)
        seeds = [number(self.seed, Stream.BLOB_PROPOSALS, t, image) for image in range(len(images))]
        return Batch(0, slices, targets, seeds)


def paste_blob(group: np.ndarray, spacing_mm: Sequence[float], rng: np.random.Generator) -> tuple[float, ...] | None:
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
