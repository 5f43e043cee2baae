"""The data of the pretext task: scans of people without a lesion, and which organ each voxel belongs to.

The body of a scan is painted a second time, with a code for each organ in place of its HU and without soft edges, so
that the codes tell the organs. What `organs.py` paints with a number of its own (fat, water, gas) keeps it. A code
between two classes, where one organ fades into another, is of neither: IGNORED.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from lensnb.files import atomic_write, write_json
from lensnb.phantom.anatomy import Anatomy
from lensnb.phantom.organs import Contrast, draw_contrast, paint_body
from lensnb.phantom.patients import Patient
from lensnb.phantom.rendering import grid, render
from lensnb.phantom.shapes import blank_canvas
from lensnb.settings import Phantom
from lensnb.streams import PhantomStream

FOLDER, NAMES_FILE, IGNORED = "pretext", "organs.json", 255  # as datasets/organ_maps.py reads them
EDGE_MM = 1e-3  # of the solids that are painted as codes

# so far from each other, and from the HU of what has no code, that no mixture in organs.py (a wall of .25 vein, the
# heart's blood of half artery and half vein) falls into another class
CODES = Contrast(
    phase="codes", artery=8e3, vein=4e3, liver=2e4, liver_vessel=2.4e4, spleen=3e4, cortex=4e4, medulla=4.4e4,
    muscle=60.0, bowel=6e4,
)  # fmt: skip
LUNG_CODE = -3e3
# class -> the codes that mean it, both ends included; vessels inside the lungs and the liver belong to these
CLASSES = {
    "air": ((-1100, -700),),  # around the body, in the airways and the bowel
    "lung": ((-3500, -2500), (2000, 2900)),
    "fat": ((-140, -60),),
    "soft tissue": ((25, 115),),  # muscles, nodes, discs, the walls of hollow organs
    "bone": ((125, 900),),
    "fluid": ((0, 22),),  # gall, urine
    "heart": ((1300, 1700), (5500, 6500)),
    "artery": ((7500, 8500),),
    "vein": ((3000, 4500),),
    "liver": ((19_000, 25_000),),
    "spleen": ((29_000, 31_000),),
    "kidney": ((39_000, 45_000),),
    "pancreas": ((9500, 12_000),),
    "bowel": ((950, 1250), (59_000, 61_000)),
}
ORGANS = tuple(CLASSES)


def organ_map(patient: Patient, pixels: int, depth_mm: float) -> np.ndarray:
    """Which organ each voxel of a patient's first study belongs to: uint8 (z, y, x), a number in ORGANS or IGNORED.

    The voxels are those of `rendering.render`.
    """
    study = patient.studies[0]
    x, y, z = grid(patient, study, pixels, depth_mm)
    rng = np.random.default_rng((*study.seed, PhantomStream.CONTRAST_AND_NOISE))
    draw_contrast(rng)  # as in `render`: what moves lies where it lies there
    canvas = blank_canvas(x, y, z, EDGE_MM)
    paint_body(canvas, _coded(patient.anatomy), CODES, study.fat, rng)
    return classes_of(canvas.hu)


def _coded(anatomy: Anatomy) -> Anatomy:
    return replace(anatomy, lung_hu=LUNG_CODE)


def classes_of(codes: np.ndarray) -> np.ndarray:
    """The class of each code, uint8 of the same shape."""
    found = np.full(codes.shape, IGNORED, dtype=np.uint8)
    for number, ranges in enumerate(CLASSES.values()):
        for low, high in ranges:
            found[(codes >= low) & (codes <= high)] = number
    return found


def write_organ_map(root: Path, spec: Phantom, patient: Patient) -> int:
    """Write a patient's scan and its organs unless they are there; returns how many were written.

    The file, which `datasets.organ_maps` reads: hu int16 and organ uint8 (z, y, x), spacing_mm (x, y, z), z_mm (z,),
    the height of each slice in the body (see anatomy.py). x grows to the left, y to the back, z to the head.
    """
    split = "train" if patient.number <= spec.pretext_patients else "val"
    path = root / FOLDER / f"{split}-{patient.number:04d}.npz"
    if path.exists():
        return 0
    study = patient.studies[0]
    scan = render(patient, study, spec.pixels, spec.depth_mm)
    content = {
        "hu": scan.hu,
        "organ": organ_map(patient, spec.pixels, spec.depth_mm),
        "spacing_mm": np.array([study.pixel_mm, study.pixel_mm, study.slice_mm]),
        "z_mm": grid(patient, study, spec.pixels, spec.depth_mm)[2],
    }
    with atomic_write(path) as temporary:
        np.savez_compressed(temporary, **content)
    return 1


def write_organ_names(root: Path) -> None:
    """Write the names of the classes beside the scans."""
    write_json(list(ORGANS), root / FOLDER / NAMES_FILE)
