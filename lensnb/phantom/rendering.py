"""From a patient's study to HU and to the boxes of what can be seen on each slice."""

from dataclasses import dataclass

import numpy as np

from lensnb.phantom.organs import draw_contrast, paint_body
from lensnb.phantom.painting import paint_lesion
from lensnb.phantom.patients import Patient, Study
from lensnb.phantom.recist import visible_boxes
from lensnb.phantom.shapes import blank_canvas
from lensnb.streams import PhantomStream

FINE_MM = 2.5  # anatomy and lesions are painted on planes so far apart, and averaged over the slices' thickness
NOISE_AT_MM = 2.5  # Study.noise_hu is that of slices of this thickness


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
    fine = fine_planes(z, study.slice_mm)
    slices = slice_profile(fine, z, study.slice_mm)
    canvas = blank_canvas(x, y, fine, 1.25 * max(study.pixel_mm, 1.2) / patient.anatomy.scale)
    paint_body(canvas, patient.anatomy, contrast, study.fat, rng)
    shares, boxes = {}, {}
    for i in study.present:
        painted = paint_lesion(canvas, patient.anatomy, patient.lesions[i], study.growth[i], contrast)
        found = _on_slices(*painted, slices) if painted is not None else None
        rows = visible_boxes(*found) if found is not None else np.zeros((0, 5))
        if len(rows):
            shares[i], boxes[i] = found, rows
    noise_hu = study.noise_hu * np.sqrt(NOISE_AT_MM / study.slice_mm)
    measured = _average(canvas.hu, slices) + _noise(rng, (len(z), pixels, pixels), noise_hu, study.smooth)
    hu = np.clip(np.rint(measured), -1024, 3071).astype(np.int16)
    if study.padded:
        middle = np.arange(pixels) - (pixels - 1) / 2
        hu[:, np.hypot(middle[:, None], middle[None, :]) > pixels / 2] = -2048
    return Rendering(hu, shares, boxes, contrast.phase)


def fine_planes(z: np.ndarray, slice_mm: float) -> np.ndarray:
    """Heights (mm) of the planes to paint, FINE_MM apart, for slices of a thickness at `z`."""
    return np.arange(z[0] - slice_mm / 2, z[-1] + slice_mm / 2 + FINE_MM, FINE_MM)


def slice_profile(fine: np.ndarray, z: np.ndarray, slice_mm: float) -> np.ndarray:
    """What each plane counts in each slice, (slices, planes): the mean over the thickness, linear between planes."""
    samples = max(2, 2 * int(np.ceil(slice_mm)))
    inside = ((np.arange(samples) + 0.5) / samples - 0.5) * slice_mm
    at = (z[:, None] + inside - fine[0]) / (fine[1] - fine[0])
    apart = np.abs(at[:, :, None] - np.arange(len(fine)))
    return np.clip(1 - apart, 0, 1).mean(axis=1).astype(np.float32)


def _average(planes: np.ndarray, slices: np.ndarray) -> np.ndarray:
    """The slices (n, y, x) of painted planes (m, y, x)."""
    found = np.zeros((len(slices), *planes.shape[1:]), dtype=np.float32)
    for i, k in zip(*np.nonzero(slices), strict=True):
        found[i] += slices[i, k] * planes[k]
    return found


def _on_slices(where: tuple, share: np.ndarray, slices: np.ndarray) -> tuple[tuple, np.ndarray] | None:
    """A lesion's block of painted planes as a block of slices: (index, share (z, y, x)), None if no slice meets it."""
    planes = where[0]
    met = np.flatnonzero(slices[:, planes].sum(axis=1))
    if not len(met):
        return None
    rows = slice(int(met[0]), int(met[-1]) + 1)
    return (rows, *where[1:]), _average(share, slices[rows, planes])


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
