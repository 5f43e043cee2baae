"""Patches of lesions as LesaNet sees them: three slices of `patch_mm` on a side, and where the lesion's box is.

`config` gives patch_mm, patch_px and slice_gap_mm (the paper's: 120, 120, 2), and for random views shift_mm, scale,
slice_shift, box_jitter, gain and noise. `network` is the profile's section, whose window of HU holds here too.
"""

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lensnb.boxes import BOX
from lensnb.datasets.store import Store
from lensnb.settings import Lesanet, Network
from lensnb.training.patches import box_centres, cut_patches, to_patch


def plain_views(store: Store, lesions: pd.DataFrame, config: Lesanet, network: Network) -> tuple[Tensor, Tensor]:
    """Patches (n, 3, side, side) centred on the 2D boxes of `lesions` (volume, z, x1, y1, x2, y2), and boxes (n, 4)."""
    centres, step = box_centres(lesions), _steps(store, lesions, config)
    images = cut_patches(store, lesions, centres, (3, config.patch_px, config.patch_px), step, network)
    return images, torch.from_numpy(to_patch(lesions, centres, step, config.patch_px)).float()


def random_views(
    store: Store, lesions: pd.DataFrame, config: Lesanet, network: Network, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Random views of lesions: moved, scaled, from a neighbouring slice, with another box, brightness and noise."""
    n = len(lesions)
    centres, step = box_centres(lesions), _steps(store, lesions, config)
    spacing = _spacing(store, lesions)
    width_px = (lesions["x2"] - lesions["x1"]).to_numpy()
    height_px = (lesions["y2"] - lesions["y1"]).to_numpy()
    # another place of the patch, in plane and along z
    centres[:, :2] += rng.uniform(-config.shift_mm, config.shift_mm, (n, 2)) / spacing[:, :2]
    short_side_mm = np.minimum(width_px, height_px) * spacing[:, 0]
    most_slices = config.slice_shift * short_side_mm / spacing[:, 2]
    centres[:, 2] = np.rint(centres[:, 2] + rng.uniform(-1, 1, n) * most_slices)
    # another size of what the patch shows
    step[:, :2] *= rng.uniform(*config.scale, (n, 1))
    # another box: each side moves by a part of the lesion's width or height
    sides_px = np.stack([width_px, height_px, width_px, height_px], axis=1)
    boxes = lesions[BOX].to_numpy() + rng.normal(0, config.box_jitter, (n, 4)) * sides_px
    moved = lesions.assign(**dict(zip(BOX, boxes.T, strict=True)))
    images = cut_patches(store, lesions, centres, (3, config.patch_px, config.patch_px), step, network)
    # other grey values: contrast, and noise of another level in each patch
    gain = rng.normal(1, config.gain, (n, 1, 1, 1))
    noise = rng.normal(0, 1, images.shape)
    level = rng.uniform(0, config.noise, (n, 1, 1, 1))
    images = images * torch.from_numpy(gain).float() + torch.from_numpy(noise * level).float()
    return images, torch.from_numpy(to_patch(moved, centres, step, config.patch_px)).float()


def _spacing(store: Store, table: pd.DataFrame) -> np.ndarray:
    """Of each lesion's volume, in mm: (n, 3: x, y, z)."""
    names = ["spacing_x_mm", "spacing_y_mm", "spacing_z_mm"]
    return store.volumes.loc[table["volume"].astype(str), names].to_numpy(np.float64)


def _steps(store: Store, table: pd.DataFrame, config: Lesanet) -> np.ndarray:
    """Grid pixels between neighbouring patch pixels: (n, 3: x, y, z)."""
    patch_mm = np.array([config.patch_mm / config.patch_px] * 2 + [config.slice_gap_mm])
    return patch_mm / _spacing(store, table)
