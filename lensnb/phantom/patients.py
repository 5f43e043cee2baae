"""Who is scanned: patients, their studies, and what each scan covers. Nothing is rendered here."""

from dataclasses import dataclass, replace

import numpy as np

from lensnb.datasets import UNIVERSAL
from lensnb.phantom import follow_up
from lensnb.phantom.anatomy import Anatomy, draw_anatomy
from lensnb.phantom.lesions import Lesion, draw_lesions
from lensnb.phantom.scanning import COLLECTIONS, NOISE_HU, PADDED, REGIONS, SCANNING, SHARES, in_turn
from lensnb.settings import Phantom

HELD_OUT = "held-out"  # group of the single-type volumes that no training sees
FIRST_HELD_OUT = 800  # their first number: no volume of the datasets themselves has it
PRETEXT_STREAM = 20  # second number of the random seeds of the pretext task's patients, as COLLECTIONS has them
MARGIN = 9.0  # mm between a lesion's centre and the end of every study


@dataclass(frozen=True)
class Study:
    """One CT sub-volume of a patient: what changes from study to study. Lengths in mm."""

    dataset: str
    group: str  # train, val or test; in the single-type datasets all or HELD_OUT
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
    first_slice: int
    seed: tuple[int, ...]
    months: float = 0.0  # since the first study
    growth: tuple[float, ...] = ()  # one factor per lesion of the patient
    present: tuple[int, ...] = ()  # indices of the patient's lesions that this study shows


@dataclass(frozen=True)
class Patient:
    """A patient with everything in it and the studies made."""

    number: int
    anatomy: Anatomy
    lesions: tuple[Lesion, ...]
    studies: tuple[Study, ...]


def deeplesion_patients(spec: Phantom, seed: int, group: str) -> list[Patient]:
    """Draw the patients of the universal dataset: train and val follow the run's seed, test spec.test_seed.

    spec.studies has the shares of training and validation patients with one study, two, and so on. Test patients have
    one or two studies; the last spec.test_empty of the test sub-volumes have no lesion.
    """
    if group == "train":
        return training_patients(spec, seed, spec.deeplesion_patients)
    if group == "val":
        plan = enumerate(in_turn(spec.studies, spec.val_patients), start=2001)
        return [_universal(spec, _Enrolled(UNIVERSAL, group, n, (seed, 2, n)), 1 + more) for n, more in plan]
    patients, volumes, number = [], 0, 3001
    empty = max(1, round(spec.test_empty * spec.test_volumes))
    while volumes < spec.test_volumes:
        left = spec.test_volumes - volumes
        is_empty = left <= empty
        studies = 1 if is_empty or left == empty + 1 else 1 + number % 2
        who = _Enrolled(UNIVERSAL, group, number, (spec.test_seed, 3, number))
        patients.append(_universal(spec, who, studies, empty=is_empty))
        volumes, number = volumes + studies, number + 1
    return patients


def training_patients(spec: Phantom, seed: int, count: int) -> list[Patient]:
    """Draw the first `count` training patients of the universal dataset."""
    plan = enumerate(in_turn(spec.studies, count), start=1)
    return [_universal(spec, _Enrolled(UNIVERSAL, "train", n, (seed, 1, n)), 1 + more) for n, more in plan]


def unlabelled_patients(spec: Phantom, seed: int) -> list[Patient]:
    """Draw the patients of the pretext task, who are nobody else's: scanned once, as DeepLesion's, without a lesion.

    The last spec.pretext_val_patients of them are held out.
    """
    count = spec.pretext_patients + spec.pretext_val_patients
    enrolled = [_Enrolled(UNIVERSAL, "pretext", n, (seed, PRETEXT_STREAM, n)) for n in range(1, count + 1)]
    return [_universal(spec, who, 1, empty=True) for who in enrolled]


def single_type_patients(spec: Phantom, seed: int, dataset: str) -> list[Patient]:
    """Draw the patients of LUNA16, LiTS or NIH-LN, one study each; a dataset's files name lesions of its type only."""
    made = COLLECTIONS[dataset]
    regions = in_turn(made.regions, getattr(spec, made.volumes))
    return [
        _single_type(spec, _Enrolled(dataset, "all", n, (seed, made.stream, n)), list(made.regions)[region])
        for n, region in enumerate(regions)
    ]


def held_out_patients(spec: Phantom, dataset: str) -> list[Patient]:
    """Draw spec.held_out further patients of a single-type dataset, which follow spec.test_seed, not the run's."""
    made = COLLECTIONS[dataset]
    plan = enumerate(in_turn(made.regions, spec.held_out), start=FIRST_HELD_OUT)
    return [
        _single_type(
            spec, _Enrolled(dataset, HELD_OUT, n, (spec.test_seed, made.held_out_stream, n)), list(made.regions)[region]
        )
        for n, region in plan
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
    """What some studies of a patient show: a sub-volume of `region` from `z_low` (mm) on, and the lesions in it."""

    region: str
    z_low: float
    lesions: tuple[Lesion, ...]


def _universal(spec: Phantom, who: _Enrolled, studies: int, *, empty: bool = False) -> Patient:
    """Draw a patient of the universal dataset with so many studies, some of them of another region.

    `empty`: without lesions; else every region has one, as nobody would have marked anything there.
    """
    rng = np.random.default_rng(who.seed)
    anatomy = draw_anatomy(rng)
    region = str(rng.choice(list(SHARES), p=list(SHARES.values())))
    away = rng.random(studies) < follow_up.ELSEWHERE
    bodies = [_body(spec, rng, anatomy, region, empty=empty)]
    if away[1:].any() and region in follow_up.OTHER_REGION:
        other = follow_up.OTHER_REGION[region]
        bodies.append(_body(spec, rng, anatomy, other, empty=empty, first_identity=len(bodies[0].lesions)))
    shown = [int(k > 0 and elsewhere and len(bodies) > 1) for k, elsewhere in enumerate(away)]
    return _followed(spec, rng, who, anatomy, bodies, shown)


def _body(
    spec: Phantom,
    rng: np.random.Generator,
    anatomy: Anatomy,
    region: str,
    *,
    empty: bool = False,
    first_identity: int = 0,
) -> _Body:
    """Draw where a region's sub-volumes lie and the universal dataset's lesions in it, at least one unless `empty`."""
    z_low, reach = _reach(spec, rng, region)
    lesions: list[Lesion] = []
    while not lesions and not empty:
        lesions = draw_lesions(rng, anatomy, region, reach, first_identity, smallest_mm=spec.smallest_mm)
    return _Body(region, z_low, tuple(lesions))


def _single_type(spec: Phantom, who: _Enrolled, region: str) -> Patient:
    """Draw a patient of a single-type dataset with one study of `region`."""
    rng = np.random.default_rng(who.seed)
    anatomy, made = draw_anatomy(rng), COLLECTIONS[who.dataset]
    z_low, reach = _reach(spec, rng, region)
    while True:
        rates = made.rates(region, rng.gamma(made.shape) / made.shape)
        lesions = draw_lesions(
            rng, anatomy, region, reach, smallest_mm=spec.smallest_mm, sizes=who.dataset, rates=rates
        )
        if not made.never_empty or region in made.none_in or any(lesion.type == made.type for lesion in lesions):
            break
    return _followed(spec, rng, who, anatomy, [_Body(region, z_low, tuple(lesions))], [0])


def _reach(spec: Phantom, rng: np.random.Generator, region: str) -> tuple[float, tuple[float, float]]:
    """The lowest z (mm) of a region's sub-volumes, and between which z all of them show a lesion's centre."""
    z_low = rng.uniform(*REGIONS[region])
    return z_low, (z_low + 5 + MARGIN, z_low + spec.depth_mm - 5 - MARGIN)  # the studies' z shifts stay within 5 mm


def _followed(
    spec: Phantom, rng: np.random.Generator, who: _Enrolled, anatomy: Anatomy, bodies: list[_Body], shown: list[int]
) -> Patient:
    """Draw a patient's studies, each of the body that `shown` names, and what becomes of the lesions."""
    lesions = tuple(lesion for body in bodies for lesion in body.lesions)
    body_of = np.array([number for number, body in enumerate(bodies) for _ in body.lesions], dtype=int)
    when = follow_up.months(rng, len(shown))
    there = follow_up.seen(rng, len(shown), len(lesions))
    growth = follow_up.growth(rng, when, there, spec.growth_sd)
    radius = np.array([lesion.radius for lesion in lesions])
    growth = np.minimum(growth, np.maximum(1, follow_up.LARGEST_RADIUS_MM / radius))
    studies = []
    for k, number in enumerate(shown):
        own = np.flatnonzero(body_of == number)
        present = own[there[k, own]]
        if len(own) and not len(present):  # a study without any would not be in the dataset: the largest is there
            present = own[[np.argmax(radius[own])]]
        drawn = _study(spec, rng, who, anatomy, bodies[number], k + 1)
        studies.append(
            replace(drawn, months=float(when[k]), growth=tuple(growth[k].tolist()), present=tuple(present.tolist()))
        )
    return Patient(who.number, anatomy, lesions, tuple(studies))


def _study(
    spec: Phantom, rng: np.random.Generator, who: _Enrolled, anatomy: Anatomy, body: _Body, number: int
) -> Study:
    """Draw the patient's study of this number (from 1) of a body: its scanner and position."""
    scanning = SCANNING[who.dataset]
    thicknesses, probabilities = scanning.slice_mm
    fat = max(5.0, anatomy.fat * float(np.exp(rng.normal(0, 0.08))))
    low, high = spec.spacing_mm
    needed = 2 * ((149 + 1.6 * fat) * anatomy.scale + 5) / spec.pixels  # the whole trunk fits the field of view
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
        noise_hu=rng.uniform(*NOISE_HU),
        smooth=rng.uniform(*scanning.smooth),
        padded=bool(rng.random() < PADDED),
        first_slice=int(rng.integers(1, 160)),
        seed=(*who.seed, number),
    )
