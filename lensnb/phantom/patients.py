"""Who is scanned: patients, their studies, and what each scan covers. Nothing is rendered here."""

from dataclasses import dataclass

import numpy as np

from lensnb.datasets import DATASETS, UNIVERSAL
from lensnb.phantom.anatomy import Anatomy, draw_anatomy
from lensnb.phantom.lesions import Lesion, draw_lesions
from lensnb.settings import Phantom

REGIONS = {
    "chest": (12.0, 62.0),
    "abdomen": (-165.0, -112.0),
    "base": (-62.0, -30.0),
}  # lowest z of the sub-volume, mm
SHARES = {"chest": 0.44, "abdomen": 0.44, "base": 0.12}
MARGIN = 9.0  # mm between a lesion's centre and the end of every study


@dataclass(frozen=True)
class Scanning:
    """How a dataset's patients were chosen and scanned.

    slice_mm: distances of slices with their probabilities. noise_hu, smooth (0 sharp kernel, 1 soft): lowest and
    highest. padded: share of scans with -2048 outside of the reconstruction circle. selected_for: the lesion type that
    patients were collected for, if any.
    """

    slice_mm: tuple[tuple[float, ...], tuple[float, ...]]
    noise_hu: tuple[float, float]
    smooth: tuple[float, float]
    padded: float = 0.05
    selected_for: str = ""


# LiTS and NIH-LN collect patients with that disease (7 tumours, 6 nodes a scan); LUNA's are screening scans
SCANNING = {
    "DeepLesion": Scanning(((1.0, 2.0, 2.5, 3.0, 5.0), (0.10, 0.15, 0.15, 0.20, 0.40)), (6, 12), (0.2, 0.9)),
    "LUNA16": Scanning(((1.25, 2.0, 2.5), (0.2, 0.3, 0.5)), (9, 15), (0.0, 0.3), padded=0.3),
    "LiTS": Scanning(((1.0, 1.5, 2.5, 4.0, 5.0), (0.1, 0.1, 0.3, 0.2, 0.3)), (6, 11), (0.5, 1.0), selected_for="liver"),
    "NIH-LN": Scanning(((1.0, 1.5, 2.0), (0.1, 0.2, 0.7)), (7, 12), (0.4, 0.8), selected_for="node"),
}


@dataclass(frozen=True)
class Collection:
    """A single-type dataset as a whole.

    volumes, away_share: the settings that say how many scans there are and which share of them shows the region
    `away` instead of `home` (a number stands for itself). stream: second number of its random seeds.
    """

    volumes: str
    stream: int
    home: str
    away: str
    away_share: str | float = "out_of_region"


COLLECTIONS = {
    "LUNA16": Collection("luna_volumes", 4, "chest", "abdomen"),
    "LiTS": Collection("lits_volumes", 5, "abdomen", "chest"),
    "NIH-LN": Collection("nihln_volumes", 6, "chest", "abdomen", away_share=0.5),
}


@dataclass(frozen=True)
class Study:
    """One CT sub-volume of a patient: what changes from study to study. Lengths in mm."""

    dataset: str
    group: str  # train, val or test; in the single-type datasets all
    patient: int
    study: int
    series: int
    region: str
    z_low: float
    shift: tuple[float, float]
    pixel_mm: float
    slice_mm: float
    fat: float
    noise_hu: float
    smooth: float  # 0 sharp kernel, 1 soft kernel
    padded: bool  # outside of the reconstruction circle the scanner wrote -2048
    growth: tuple[float, ...]  # one factor per lesion
    present: tuple[int, ...]  # indices of the patient's lesions in this study
    first_slice: int
    seed: tuple[int, ...]


@dataclass(frozen=True)
class Patient:
    """A patient with everything in it and the studies made."""

    number: int
    anatomy: Anatomy
    lesions: tuple[Lesion, ...]
    studies: tuple[Study, ...]


def deeplesion_patients(spec: Phantom, seed: int, group: str) -> list[Patient]:
    """Draw the patients of the universal dataset: train and val follow the run's seed, test spec.test_seed.

    Test patients have one or two studies; the last spec.test_empty of the test sub-volumes have no lesion.
    """
    if group == "train":
        return training_patients(spec, seed, spec.deeplesion_patients, spec.studies)
    if group == "val":
        first = 2001
        return [
            _patient(spec, _Enrolled(UNIVERSAL, group, n, (seed, 2, n)), spec.studies)
            for n in range(first, first + spec.val_patients)
        ]
    patients, volumes, number = [], 0, 3001
    empty = max(1, round(spec.test_empty * spec.test_volumes))
    while volumes < spec.test_volumes:
        left = spec.test_volumes - volumes
        is_empty = left <= empty
        studies = 1 if is_empty or left == empty + 1 else 1 + number % 2
        patients.append(
            _patient(spec, _Enrolled(UNIVERSAL, group, number, (spec.test_seed, 3, number)), studies, empty=is_empty)
        )
        volumes, number = volumes + studies, number + 1
    return patients


def training_patients(spec: Phantom, seed: int, count: int, studies: int) -> list[Patient]:
    """Draw the first `count` training patients of the universal dataset, each with `studies` studies."""
    return [_patient(spec, _Enrolled("DeepLesion", "train", n, (seed, 1, n)), studies) for n in range(1, count + 1)]


def single_type_patients(spec: Phantom, seed: int, dataset: str) -> list[Patient]:
    """Draw the patients of LUNA16, LiTS or NIH-LN, one study each.

    A share spec.out_of_region of LUNA16 shows the abdomen, of LiTS the chest: an expert that never saw the other
    region would take anything there for its own type. All lesion types occur at the universal dataset's rates; a
    dataset's files name those of its own type only.
    """
    made = COLLECTIONS[dataset]
    share = getattr(spec, made.away_share) if isinstance(made.away_share, str) else made.away_share
    patients = []
    for n in range(getattr(spec, made.volumes)):
        region = made.away if int((n + 1) * share) > int(n * share) else made.home
        patients.append(_patient(spec, _Enrolled(dataset, "all", n, (seed, made.stream, n)), 1, region=region))
    return patients


@dataclass(frozen=True)
class _Enrolled:
    """A patient as the plan of the datasets has it, before anything is drawn."""

    dataset: str
    group: str
    number: int
    seed: tuple[int, ...]


@dataclass(frozen=True)
class _Body:
    """What all studies of a patient show: a sub-volume of `region` from `z_low` (mm) on, and the lesions in it."""

    anatomy: Anatomy
    region: str
    z_low: float
    lesions: tuple[Lesion, ...]


def _patient(spec: Phantom, who: _Enrolled, studies: int, *, empty: bool = False, region: str = "") -> Patient:
    """Draw a patient with so many studies. `empty`: without lesions. `region`: one of REGIONS, else it is drawn."""
    rng = np.random.default_rng(who.seed)
    anatomy = draw_anatomy(rng)
    region = region or str(rng.choice(list(SHARES), p=list(SHARES.values())))
    z_low = rng.uniform(*REGIONS[region])
    reach = (z_low + 5 + MARGIN, z_low + spec.depth_mm - 5 - MARGIN)  # the studies' z shifts stay within 5 mm
    lesions: list[Lesion] = []
    while not lesions and not empty:
        lesions = draw_lesions(rng, anatomy, region, reach, selected_for=SCANNING[who.dataset].selected_for)
        if not DATASETS[who.dataset].universal:
            break  # scans without a lesion belong to it
    body = _Body(anatomy, region, z_low, tuple(lesions))
    made = tuple(_study(spec, rng, who, body, number) for number in range(1, studies + 1))
    return Patient(who.number, anatomy, body.lesions, made)


def _study(spec: Phantom, rng: np.random.Generator, who: _Enrolled, body: _Body, number: int) -> Study:
    """Draw the patient's study of this number (from 1): its scanner, and how the lesions have grown since the first."""
    scanning = SCANNING[who.dataset]
    thicknesses, probabilities = scanning.slice_mm
    fat = max(5.0, body.anatomy.fat * float(np.exp(rng.normal(0, 0.08))))
    low, high = spec.spacing_mm
    needed = 2 * ((149 + 1.6 * fat) * body.anatomy.scale + 5) / spec.pixels  # the whole trunk fits the field of view
    return Study(
        dataset=who.dataset,
        group=who.group,
        patient=who.number,
        study=number,
        series=1 + int(rng.random() < 0.15),
        region=body.region,
        z_low=body.z_low + rng.uniform(-5, 5),
        shift=tuple(rng.normal(0, 3, 2)),
        pixel_mm=float(np.round(min(high, max(rng.uniform(low, high), needed)), 6)),
        slice_mm=float(rng.choice(thicknesses, p=probabilities)),
        fat=fat,
        noise_hu=rng.uniform(*scanning.noise_hu),
        smooth=rng.uniform(*scanning.smooth),
        padded=bool(rng.random() < scanning.padded),
        growth=_growth(rng, spec.growth_sd, len(body.lesions), first=number == 1),
        present=tuple(range(len(body.lesions))),
        first_slice=int(rng.integers(1, 160)),
        seed=(*who.seed, number),
    )


def _growth(rng: np.random.Generator, sd: float, lesions: int, first: bool) -> tuple[float, ...]:
    """Size of each lesion over that in the first study: lognormal with `sd`."""
    return (1.0,) * lesions if first else tuple(np.exp(rng.normal(0, sd, lesions)))
