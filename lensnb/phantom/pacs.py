"""A simulated archive of a hospital: CT studies as DICOM, what radiologists have drawn in them, and the truth.

DeepLesion was mined from such an archive (DeepLesion Sec. 2.1). Each study is 220 mm deep, since a sub-volume with 30
mm on either side of a slice would be all of a shallower one. The series lie in the patient in all the ways that occur:
turned, mirrored, transposed, oblique by up to 20 degrees, their files in no order. A bookmark is stored in one of three
forms: a presentation state, a structured report, or a row of a csv with vertices in patient millimetres.

Most bookmarks are RECIST pairs around lesions, measured as `recist_diameters` does, which come back in later studies
with the number of their set (F03). Beside them are what other tools draw, marks on MR, PET, coronal and sagittal
pictures, marks of a second reader, and wrong ones; how often is in SHARES. DeepLesion had about 2 % wrong ones; here
are more of each kind, so that each rule that looks for them can be judged. What nobody published is a guess.
"""

import multiprocessing
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from lensnb.files import atomic_write, write_table
from lensnb.phantom import follow_up
from lensnb.phantom.anatomy import draw_anatomy
from lensnb.phantom.lesions import draw_lesions
from lensnb.phantom.marking import mark
from lensnb.phantom.pacs_bookmarks import TRUTH, draw_bookmarks
from lensnb.phantom.pacs_drawing import CSV_COLUMNS, write_drawn
from lensnb.phantom.pacs_images import write_study
from lensnb.phantom.patients import MARGIN, Patient, Study
from lensnb.phantom.rendering import render
from lensnb.phantom.scanning import NOISE_HU, PADDED
from lensnb.system import progress

GROUP = 30  # second number of the random seeds of these patients, as in scanning.COLLECTIONS; of nobody else
LOWEST_MM = (-150.0, -115.0)  # lowest z of a patient's studies
ABDOMEN_MM, CHEST_MM = -20.0, 10.0  # the abdomen's lesions lie below, the chest's above
LEAST_MM = 12.0  # of a region that lesions are drawn in
# for each bookmark of a lesion the chance that another one is drawn, too, by what it is
SHARES = {
    "arrow": 0.12, "line": 0.20, "ellipse": 0.06, "text": 0.10,  # other tools
    "MR": 0.10, "PT": 0.04, "coronal": 0.03, "sagittal": 0.02,  # RECIST pairs on other pictures
    "second reader": 0.05, "image not here": 0.02, "several images": 0.02, "wrong series": 0.02,
    "outside": 0.03, "small": 0.03, "large": 0.03, "flat": 0.03, "no lesion": 0.03,  # wrong ones
}  # fmt: skip
CSV_FILE, TRUTH_FILE, FOLDER = "vertices.csv", "truth.csv", "dicom"


@dataclass(frozen=True)
class Pacs:
    """What the archive is like. Lengths in mm.

    pixels: in-plane size of the slices. spacing_mm: of the pixels, lowest and highest; wider where the trunk needs it.
    slice_mm: distances of slices, and their shares. marking_slope, further_mark: as in a profile's section `phantom`.
    forms_of_each: in how many of the three forms each bookmark is stored. shares: as SHARES.
    """

    patients: int = 24
    studies: int = 3
    pixels: int = 128
    spacing_mm: tuple[float, float] = (2.6, 3.2)
    depth_mm: float = 220.0
    slice_mm: tuple[tuple[float, ...], tuple[float, ...]] = ((1.0, 2.0, 5.0), (0.2, 0.2, 0.6))
    smallest_mm: float = 9.0
    marking_slope: float = 1.7
    further_mark: float = 0.25
    growth_sd: float = 0.1
    forms_of_each: int = 1
    shares: Mapping[str, float] = field(default_factory=lambda: dict(SHARES))


def write_pacs(root: Path | str, spec: Pacs, seed: int, workers: int = 1) -> pd.DataFrame:
    """Write the archive below `root`, whole or not at all; returns the truth, a row for each bookmark.

    root/dicom has the DICOM files, root/vertices.csv the bookmarks in patient mm, root/truth.csv the truth: see
    pacs_bookmarks.TRUTH. The same spec and seed give the same bytes whatever `workers` is. Raises ValueError if
    something is there already, or for a number of forms that is not 1, 2 or 3.
    """
    root = Path(root)
    if root.exists() and any(root.iterdir() if root.is_dir() else [root]):
        raise ValueError(f"{root} is there already; remove it to write another archive")
    if spec.forms_of_each not in (1, 2, 3):
        raise ValueError(f"forms_of_each is {spec.forms_of_each}; a bookmark can be stored in 1, 2 or 3 forms")
    numbers = list(range(1, spec.patients + 1))
    with atomic_write(root) as folder:
        work = partial(_write_patient, folder / FOLDER, spec, seed)
        if workers > 1:
            with multiprocessing.get_context("spawn").Pool(workers) as pool:
                parts = list(progress(pool.imap(work, numbers), "patients of the archive", total=len(numbers)))
        else:
            parts = [work(number) for number in progress(numbers, "patients of the archive")]
        truth = pd.concat([truth for truth, _ in parts], ignore_index=True)[TRUTH]
        rows = pd.concat([rows for _, rows in parts], ignore_index=True)[CSV_COLUMNS]
        write_table(rows, folder / CSV_FILE)
        write_table(truth, folder / TRUTH_FILE)
    return truth


def draw_patient(spec: Pacs, seed: int, number: int) -> Patient:
    """A patient with at least one lesion, in the abdomen or the chest, and the studies of it."""
    rng = np.random.default_rng((seed, GROUP, number))
    anatomy = draw_anatomy(rng)
    z_low = rng.uniform(*LOWEST_MM)
    low, high = z_low + 5 + MARGIN, z_low + spec.depth_mm - 5 - MARGIN  # the studies' shifts stay within 5 mm
    lesions: list = []
    while not lesions:
        for region, reach in (("abdomen", (low, min(high, ABDOMEN_MM))), ("chest", (max(low, CHEST_MM), high))):
            if reach[1] - reach[0] >= LEAST_MM:
                lesions += draw_lesions(rng, anatomy, region, reach, len(lesions), smallest_mm=spec.smallest_mm)
    when = follow_up.months(rng, spec.studies)
    there = follow_up.seen(rng, spec.studies, len(lesions))
    growth = follow_up.growth(rng, when, there, spec.growth_sd)
    radius = np.array([lesion.radius for lesion in lesions])
    growth = np.minimum(growth, np.maximum(1, follow_up.LARGEST_RADIUS_MM / radius))
    studies = []
    for k in range(spec.studies):
        fat = max(5.0, anatomy.fat * float(np.exp(rng.normal(0, 0.08))))
        needed = 2 * ((149 + 1.6 * fat) * anatomy.scale + 5) / spec.pixels  # the whole trunk is in the picture
        pixel = float(np.round(min(spec.spacing_mm[1], max(rng.uniform(*spec.spacing_mm), needed)), 6))
        thickness = float(rng.choice(spec.slice_mm[0], p=spec.slice_mm[1]))
        studies.append(
            Study(
                dataset="DeepLesion",
                group="pacs",
                patient=number,
                study=k + 1,
                series=1,
                region="trunk",
                z_low=z_low + rng.uniform(-5, 5),
                shift=tuple(rng.normal(0, 3, 2)),
                pixel_mm=pixel,
                slice_mm=thickness,
                fat=fat,
                noise_hu=rng.uniform(*NOISE_HU),
                smooth=rng.uniform(0.2, 0.9),
                padded=bool(rng.random() < PADDED),
                first_slice=1,
                seed=(seed, GROUP, number, k + 1),
                months=float(when[k]),
                growth=tuple(growth[k].tolist()),
                present=tuple(np.flatnonzero(there[k]).tolist()),
            )
        )
    return Patient(number, anatomy, tuple(lesions), tuple(studies))


def _write_patient(folder: Path, spec: Pacs, seed: int, number: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Write a patient's files; returns its rows of the truth and of the csv of vertices."""
    patient = draw_patient(spec, seed, number)
    marked = mark(patient, spec.marking_slope, spec.further_mark)
    sets = {lesion: n + 1 for n, lesion in enumerate(dict.fromkeys(i for chosen in marked for i in chosen))}
    truths, rows, others = [], [], []
    for study, chosen in zip(patient.studies, marked, strict=True):
        scan = render(patient, study, spec.pixels, spec.depth_mm)
        # a spawn key, as streams.py has them: beside all numbers that the study itself is drawn with
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(GROUP, number, study.study)))
        visible = [lesion for lesion in chosen if lesion in scan.boxes]
        bookmarks = draw_bookmarks(rng, patient, study, scan, visible, sets, spec)
        place = folder / f"Phantom_Pia_{number:03d}" / f"study_{study.study}"
        pictures = write_study(place, rng, patient, study, scan, bookmarks)
        truth, row = write_drawn(place, patient, study, pictures, bookmarks, others)
        others.append(pictures)
        truths.append(truth)
        rows.append(row)
    return pd.concat(truths, ignore_index=True), pd.concat(rows, ignore_index=True)
