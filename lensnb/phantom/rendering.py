"""From a patient's study to HU and to the boxes of what can be seen on each slice."""

from dataclasses import dataclass

import numpy as np

from lensnb.phantom.lesions import paint_lesion, visible_boxes
from lensnb.phantom.organs import draw_contrast, paint_body
from lensnb.phantom.patients import Patient, Study
from lensnb.phantom.shapes import Canvas, blank_canvas
from lensnb.streams import PhantomStream

ANATOMY_STEP_MM = 3.0  # thinner slices get their anatomy interpolated, their lesions and noise drawn


@dataclass(frozen=True)
class Rendering:
    """One CT in canonical order (z up, y back, x left): hu int16 (z, y, x) and what is seen of each lesion.

    `shares` maps a lesion's index to (block index, share of the voxel), `boxes` to rows (z, x1, y1, x2, y2), tight
    at half height.
    """

    hu: np.ndarray
    shares: dict[int, tuple]
    boxes: dict[int, np.ndarray]
    phase: str


def grid(patient: Patient, study: Study, pixels: int, depth_mm: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Body coordinates x, y, z (mm) of the written voxels."""
    middle = (np.arange(pixels) - (pixels - 1) / 2) * study.pixel_mm
    x, y = ((middle + shift) / patient.anatomy.scale for shift in study.shift)
    z = study.z_low + np.arange(round(depth_mm / study.slice_mm)) * study.slice_mm
    return x, y, z


def render(patient: Patient, study: Study, pixels: int, depth_mm: float) -> Rendering:
    """Render one study; the same study gives the same voxels."""
    rng = np.random.default_rng((*study.seed, PhantomStream.CONTRAST_AND_NOISE))
    contrast = draw_contrast(rng)
    x, y, z = grid(patient, study, pixels, depth_mm)
    edge = 1.25 * max(study.pixel_mm, 1.2) / patient.anatomy.scale
    every = int(np.ceil(ANATOMY_STEP_MM / study.slice_mm - 1e-9))
    coarse = study.z_low + np.arange(-(-(len(z) - 1) // every) + 1) * study.slice_mm * every
    painted = blank_canvas(x, y, coarse, edge)
    paint_body(painted, patient.anatomy, contrast, study.fat, rng)
    canvas = Canvas(_between_slices(painted.hu, every, len(z)), painted.x, painted.y, z.astype(np.float32), edge)
    organ_hu = {"liver": contrast.liver, "spleen": contrast.spleen}
    shares, boxes = {}, {}
    for i in study.present:
        lesion = patient.lesions[i]
        found = paint_lesion(canvas, patient.anatomy, lesion, study.growth[i], organ_hu.get(lesion.type, 0.0))
        rows = visible_boxes(*found) if found is not None else np.zeros((0, 5))
        if len(rows):
            shares[i], boxes[i] = found, rows
    canvas.hu[:] += _noise(rng, canvas.hu.shape, study.noise_hu, study.smooth)
    hu = np.clip(np.rint(canvas.hu), -1024, 3071).astype(np.int16)
    if study.padded:
        middle = np.arange(pixels) - (pixels - 1) / 2
        hu[:, np.hypot(middle[:, None], middle[None, :]) > pixels / 2] = -2048
    return Rendering(hu, shares, boxes, contrast.phase)


def _between_slices(hu: np.ndarray, every: int, depth: int) -> np.ndarray:
    """Interpolate linearly so that every-th slice is one of `hu`; keeps `depth` slices."""
    if every == 1:
        return hu[:depth]
    fine = np.empty(((len(hu) - 1) * every + 1, *hu.shape[1:]), dtype=np.float32)
    fine[::every] = hu
    for step in range(1, every):
        share = np.float32(step / every)
        fine[step::every] = hu[:-1] * (1 - share) + hu[1:] * share
    return fine[:depth]


def _noise(rng: np.random.Generator, shape: tuple[int, int, int], sd: float, smooth: float) -> np.ndarray:
    """Noise of `sd` HU whose grain follows the reconstruction kernel."""
    noise = rng.standard_normal(shape, dtype=np.float32)
    side = np.float32(0.5 * smooth)
    rough = noise.copy()
    rough[:, :, 1:] += side * noise[:, :, :-1]
    rough[:, :, :-1] += side * noise[:, :, 1:]
    grain = rough.copy()
    grain[:, 1:] += side * rough[:, :-1]
    grain[:, :-1] += side * rough[:, 1:]
    grain *= np.float32(sd / (1 + 2 * side * side))
    return grain
