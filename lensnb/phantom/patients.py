"""Who is scanned: patients, their studies, and what each scan covers. Nothing is rendered here."""

from dataclasses import dataclass

import numpy as np

from lensnb.phantom.anatomy import Anatomy, draw_anatomy
from lensnb.phantom.lesions import Lesion, draw_lesions

REGIONS = {
    "chest": (12.0, 62.0),
    "abdomen": (-165.0, -112.0),
    "base": (-62.0, -30.0),
}  # lowest z of the sub-volume, mm
SHARES = {"chest": 0.44, "abdomen": 0.44, "base": 0.12}
MARGIN = 9.0  # mm between a lesion's centre and the end of every study

# LiTS and NIH-LN collect patients with that disease (7 tumours, 6 nodes a scan); LUNA's are screening scans
SELECTED_FOR = {"LiTS": "liver", "NIH-LN": "node"}


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


def deeplesion_patients(spec: object, seed: int, group: str) -> list[Patient]:
    """Draw the patients of the universal dataset: train and val follow the run's seed, test spec.test_seed.

    Test patients have one or two studies; the last spec.test_empty of the test sub-volumes have no lesion.
    """
    if group == "train":
        return training_patients(spec, seed, spec.deeplesion_patients, spec.studies)
    if group == "val":
        first = 2001
        return [
            _patient(spec, _Enrolled("DeepLesion", group, n, (seed, 2, n)), spec.studies)
            for n in range(first, first + spec.val_patients)
        ]
    patients, volumes, number = [], 0, 3001
    empty = max(1, round(spec.test_empty * spec.test_volumes))
    while volumes < spec.test_volumes:
        left = spec.test_volumes - volumes
        is_empty = left <= empty
        studies = 1 if is_empty or left == empty + 1 else 1 + number % 2
        patients.append(
            _patient(spec, _Enrolled("DeepLesion", group, number, (spec.test_seed, 3, number)), studies, empty=is_empty)
        )
        volumes, number = volumes + studies, number + 1
    return patients


def training_patients(spec: object, seed: int, count: int, studies: int) -> list[Patient]:
    """Draw the first `count` training patients of the universal dataset, each with `studies` studies."""
    return [_patient(spec, _Enrolled("DeepLesion", "train", n, (seed, 1, n)), studies) for n in range(1, count + 1)]


def single_type_patients(spec: object, seed: int, dataset: str) -> list[Patient]:
    """Draw the patients of LUNA16, LiTS or NIH-LN, one study each.

    A share spec.out_of_region of LUNA16 shows the abdomen, of LiTS the chest: an expert that never saw the other
    region would take anything there for its own type. All lesion types occur at the universal dataset's rates; a
    dataset's files name those of its own type only.
    """
    count = {"LUNA16": spec.luna_volumes, "LiTS": spec.lits_volumes, "NIH-LN": spec.nihln_volumes}[dataset]
    code = {"LUNA16": 4, "LiTS": 5, "NIH-LN": 6}[dataset]
    home, away = {
        "LUNA16": ("chest", "abdomen"),
        "LiTS": ("abdomen", "chest"),
        "NIH-LN": ("chest", "abdomen"),
    }[dataset]
    share = 0.5 if dataset == "NIH-LN" else spec.out_of_region
    regions = [away if int((n + 1) * share) > int(n * share) else home for n in range(count)]
    return [
        _patient(spec, _Enrolled(dataset, "all", n, (seed, code, n)), 1, region=region)
        for n, region in enumerate(regions)
    ]


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


def _patient(spec: object, who: _Enrolled, studies: int, *, empty: bool = False, region: str = "") -> Patient:
    """Draw a patient with so many studies. `empty`: without lesions. `region`: one of REGIONS, else it is drawn."""
    rng = np.random.default_rng(who.seed)
    anatomy = draw_anatomy(rng)
    region = region or str(rng.choice(list(SHARES), p=list(SHARES.values())))
    z_low = rng.uniform(*REGIONS[region])
    reach = (z_low + 5 + MARGIN, z_low + spec.depth_mm - 5 - MARGIN)  # the studies' z shifts stay within 5 mm
    lesions: list[Lesion] = []
    while not lesions and not empty:
        lesions = draw_lesions(rng, anatomy, region, reach, selected_for=SELECTED_FOR.get(who.dataset, ""))
        if who.dataset != "DeepLesion":
            break
    body = _Body(anatomy, region, z_low, tuple(lesions))
    made = tuple(_study(spec, rng, who, body, number) for number in range(1, studies + 1))
    return Patient(who.number, anatomy, body.lesions, made)


def _study(spec: object, rng: np.random.Generator, who: _Enrolled, body: _Body, number: int) -> Study:
    """Draw the patient's study of this number (from 1): its scanner, and how the lesions have grown since the first."""
    slice_mm = {
        "DeepLesion": ((1.0, 2.0, 2.5, 3.0, 5.0), (0.10, 0.15, 0.15, 0.20, 0.40)),
        "LUNA16": ((1.25, 2.0, 2.5), (0.2, 0.3, 0.5)),
        "LiTS": ((1.0, 1.5, 2.5, 4.0, 5.0), (0.1, 0.1, 0.3, 0.2, 0.3)),
        "NIH-LN": ((1.0, 1.5, 2.0), (0.1, 0.2, 0.7)),
    }[who.dataset]
    noise = {"LUNA16": (9, 15), "LiTS": (6, 11), "NIH-LN": (7, 12)}.get(who.dataset, (6, 12))
    smooth = {"LUNA16": (0.0, 0.3), "LiTS": (0.5, 1.0), "NIH-LN": (0.4, 0.8)}.get(who.dataset, (0.2, 0.9))
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
        slice_mm=float(rng.choice(slice_mm[0], p=slice_mm[1])),
        fat=fat,
        noise_hu=rng.uniform(*noise),
        smooth=rng.uniform(*smooth),
        padded=bool(rng.random() < (0.3 if who.dataset == "LUNA16" else 0.05)),
        growth=_growth(rng, spec.growth_sd, len(body.lesions), first=number == 1),
        present=tuple(range(len(body.lesions))),
        first_slice=int(rng.integers(1, 160)),
        seed=(*who.seed, number),
    )


def _growth(rng: np.random.Generator, sd: float, lesions: int, first: bool) -> tuple[float, ...]:
    """Size of each lesion over that in the first study: lognormal with `sd`."""
    return (1.0,) * lesions if first else tuple(np.exp(rng.normal(0, sd, lesions)))
