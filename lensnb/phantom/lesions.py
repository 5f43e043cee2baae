"""Lesions of a patient: how many, where, how large, and what each of them looks like."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lensnb.phantom import anatomy as body
from lensnb.phantom.looks import Look, conspicuity, draw_look
from lensnb.phantom.places import candidates
from lensnb.phantom.sizes import draw_size

# mean number of lesions of each type in one sub-volume of 96 mm: 5.4 in all, parted by the shares of DeepLesion's
# marks (published.csv: lung .24, mediastinum .17, abdomen .22, liver .13, soft tissue .07, kidney .05, bone .03 of the
# marks with a type; the pelvis, .09, is not here)
RATES = {
    "chest": {"lung": 2.8, "node": 2.1, "bone": 0.17, "soft tissue": 0.45},
    "abdomen": {
        "liver": 1.5,
        "node": 2.3,
        "kidney": 0.68,
        "bone": 0.17,
        "soft tissue": 0.45,
        "adrenal": 0.35,
        "spleen": 0.25,
    },
    "base": {"lung": 1.9, "liver": 1.0, "node": 0.8, "bone": 0.17, "soft tissue": 0.3, "spleen": 0.2},
}
MOST = 12  # of one type in one sub-volume
APART_MM = 4.0  # between two lesions
SHRINKING = 0.85  # tried where a lesion finds no place
LOBULAR = (0.36, 0.46)  # from notch to lobe of a lobular surface, share of the radius; ...
LOBULAR_RADIUS_MM = 5.0  # ... of lesions from this radius on: that is more than a pixel of 1.6 mm
LOBULAR_SHARE = 0.3  # a guess
EXOPHYTIC = 0.85  # of the kidney's radius: centres of lesions that are called so


@dataclass(frozen=True)
class Lesion:
    """A lesion of a patient, the same in all studies but for its size; lengths in mm, centre in body mm."""

    identity: int
    type: str
    organ: str
    side: str
    centre: tuple[float, float, float]
    radius: float  # in-plane: the square root of the product of the two half diameters
    aspect: float  # short over long in-plane radius
    turn: float  # of the long axis, radians
    depth: float  # z radius over in-plane radius
    waves: tuple  # surface irregularity: (kx, ky, kz, phase, amplitude)
    contrast: tuple[float, float, float]  # HU without contrast agent, arterial, portal; see Look.hu and Look.beside
    attributes: tuple[str, ...]
    look: str = ""  # a name in looks.py; none: plain
    lobes: tuple[int, float] = (0, 0.0)  # their number around the lesion, and notch to lobe as a share of the radius
    spicules: int = 0  # number around the lesion
    conspicuity: float = 1.0  # 0 indistinct ... 1 clear, see looks.conspicuity


def draw_lesions(
    rng: np.random.Generator,
    anatomy: body.Anatomy,
    region: str,
    z_range: tuple[float, float],
    first_identity: int = 0,
    smallest_mm: float = 9.0,
    sizes: str = "",
    rates: Mapping[str, float] | None = None,
) -> list[Lesion]:
    """Draw the lesions of one sub-volume whose studies all cover `z_range` (mm), without overlaps.

    `smallest_mm`: no long diameter is below. `sizes`: the dataset whose table of sizes serves, as in `sizes.draw_size`.
    `rates`: mean number of lesions by type, in place of RATES of the region.
    """
    lesions: list[Lesion] = []
    for kind, rate in (RATES[region] if rates is None else rates).items():
        number = rng.poisson(rate)
        for _ in range(min(MOST, number) if rates is None else number):
            long_, aspect = draw_size(rng, kind, region, smallest_mm, sizes)
            radius = 0.5 * long_ * np.sqrt(aspect)
            look = draw_look(rng, kind, radius)
            for _ in range(6):
                place = _place(rng, anatomy, look, radius, z_range, lesions)
                smaller = radius * SHRINKING
                if place is not None or 2 * smaller / np.sqrt(aspect) < smallest_mm:
                    break
                radius = smaller
            if place is not None:
                lesions.append(_draw_lesion(rng, anatomy, look, (radius, aspect), place, first_identity + len(lesions)))
    return lesions


def _place(
    rng: np.random.Generator,
    anatomy: body.Anatomy,
    look: Look,
    radius: float,
    z_range: tuple[float, float],
    others: list[Lesion],
) -> tuple[np.ndarray, str, str] | None:
    """Find a free centre for a lesion; returns (centre, organ, side) or None."""
    points, organs = candidates(rng, anatomy, look.type, look.name, radius / anatomy.scale, z_range)
    for point, organ in zip(points, organs, strict=True):
        if not z_range[0] <= point[2] <= z_range[1]:
            continue
        scale = np.array([anatomy.scale, anatomy.scale, 1])
        gaps = [np.linalg.norm((point - o.centre) * scale) - radius - o.radius for o in others]
        if not gaps or min(gaps) > APART_MM:
            return point, organ, "right" if point[0] < 0 else "left"
    return None


def _draw_lesion(
    rng: np.random.Generator,
    anatomy: body.Anatomy,
    look: Look,
    size: tuple[float, float],
    place: tuple[np.ndarray, str, str],
    identity: int,
) -> Lesion:
    """Draw shape, density and attributes; every attribute can be seen in the picture.

    `size`: radius and aspect. `place`: as from `_place`.
    """
    (radius, aspect), (centre, organ, side) = size, place
    share = rng.random()
    contrast = tuple(float(low + share * (high - low)) for low, high in look.hu)
    spiculated = rng.random() < look.spiculated
    lobular = rng.random() < LOBULAR_SHARE and not spiculated and _may_be_lobular(look, radius)
    attributes = [*look.attributes]
    if spiculated:
        attributes.append("spiculated")
    elif look.margin_mm >= 4:
        attributes.append("indistinct")
    elif look.type in ("lung", "liver") and not lobular:
        attributes.append("circumscribed")
    if look.core and radius >= look.core_from:
        attributes += ["necrosis"] * (look.core == "water" and "necrosis" not in attributes) + ["heterogeneous"]
    if look.type == "kidney" and _sticks_out(anatomy, centre):
        attributes.append("exophytic")
    waves = []
    for _ in range(4):
        direction = rng.normal(0, 1, 3)
        direction *= rng.uniform(1.6, 3.2) / np.linalg.norm(direction)
        waves.append((*map(float, direction), float(rng.uniform(0, 2 * np.pi)), float(rng.normal(0, 0.02))))
    return Lesion(
        identity=identity,
        type=look.type,
        organ=organ,
        side=side,
        centre=tuple(float(v) for v in centre),
        radius=float(radius),
        aspect=float(aspect),
        turn=float(rng.uniform(0, np.pi)),
        depth=float(rng.uniform(0.8, 1.3)),  # the middle half of the 3D boxes of the completely marked sub-volumes
        waves=tuple(waves),
        contrast=contrast,
        attributes=tuple(dict.fromkeys(attributes)),
        look=look.name,
        lobes=(int(rng.integers(4, 6)), float(rng.uniform(*LOBULAR))) if lobular else (0, 0.0),
        spicules=int(rng.integers(7, 11)) if spiculated else 0,
        conspicuity=conspicuity(look, contrast[2]),
    )


def _may_be_lobular(look: Look, radius: float) -> bool:
    """Large enough to be seen as lobular; cysts and what follows a bone are not."""
    return radius >= LOBULAR_RADIUS_MM and "cyst" not in look.attributes and look.type != "bone"


def _sticks_out(anatomy: body.Anatomy, centre: np.ndarray) -> bool:
    """Whether a lesion of a kidney has its centre near the kidney's surface, so that about half of it lies outside."""
    middle, radii, _ = body.kidney(anatomy, "right" if centre[0] < 0 else "left")
    return bool(np.linalg.norm((centre - middle) / radii) > EXOPHYTIC)
