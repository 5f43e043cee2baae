"""One person's body: where things lie, as signed distances in body millimetres.

The origin is the middle of the body at the height of the right diaphragm's top; x grows to the left, y to the back,
z to the head. The chest reaches to z = 200, the kidneys' lower poles lie near z = -170. Numbers are those of an
average adult; each person's differ by a few millimetres and a common in-plane scale.
"""

from dataclasses import dataclass, field

import numpy as np

from lensnb.phantom.shapes import ellipsoid_distance

WALL = 21.0  # chest wall between its outer muscle and the pleura, mm
JITTERED = (
    "heart",
    "aorta",
    "trachea",
    "spine",
    "liver",
    "liver_left",
    "gallbladder",
    "spleen",
    "stomach",
    "kidney_right",
    "kidney_left",
    "pancreas",
    "colon_right",
    "colon_left",
    "ivc",
    "hilum_right",
    "hilum_left",
)


@dataclass(frozen=True)
class Anatomy:
    """What stays the same in all studies of a patient; lengths in body mm."""

    scale: float  # in-plane millimetres of a body millimetre
    fat: float  # thickness of the subcutaneous fat in front
    age: int
    gender: str
    rib_phase: float
    disc_phase: float
    lung_hu: float
    bone_hu: float
    liver_size: float
    heart_size: float
    breadth: float  # of the trunk, against an average one of the same depth
    offsets: dict[str, np.ndarray] = field(repr=False)
    vessels: dict[str, list] = field(repr=False)
    seed: int  # of what lookalikes.py draws


def draw_anatomy(rng: np.random.Generator) -> Anatomy:
    """Draw one person."""
    offsets = {name: rng.normal(0, (3.0, 3.0, 4.0)) for name in JITTERED}
    offsets["spine"][:] *= (0.3, 0.7, 0.0)
    anatomy = Anatomy(
        scale=rng.uniform(0.90, 1.06),
        fat=rng.uniform(7, 22),
        age=int(rng.integers(28, 86)),
        gender="MF"[rng.integers(2)],
        rib_phase=rng.uniform(0, 2 * np.pi),
        disc_phase=rng.uniform(0, 2 * np.pi),
        lung_hu=rng.uniform(-885, -820),
        bone_hu=rng.uniform(140, 260),
        liver_size=rng.uniform(0.94, 1.1),
        heart_size=rng.uniform(0.9, 1.12),
        breadth=rng.uniform(0.95, 1.03),
        offsets=offsets,
        vessels={},
        seed=int(rng.integers(2**31)),
    )
    anatomy.vessels.update(
        right=_lung_vessels(rng, np.array([-40.0, 8, 92]) + offsets["hilum_right"], -1),
        left=_lung_vessels(rng, np.array([44.0, 10, 94]) + offsets["hilum_left"], 1),
        portal=_tree(rng, np.array([-38.0, 4, -82]) + offsets["liver"], (-1, -0.2, 0.2), 5, 46, 6.0, 3),
        veins=_tree(rng, np.array([-24.0, 22, -16]) + offsets["liver"], (-0.7, -0.5, -0.7), 4, 52, 6.0, 3),
    )
    return anatomy


def outline_distance(anatomy: Anatomy, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Signed distance to the trunk's muscles; the skin lies `fat` further out, the pleura WALL further in."""
    half_width = 149 * anatomy.breadth - 9 * np.clip((-z - 40) / 100, 0, 1) - 26 * np.clip((z - 100) / 90, 0, None) ** 2
    half_depth = 97 - 4 * np.clip((-z - 40) / 100, 0, 1) - 12 * np.clip((z - 90) / 90, 0, None) ** 2
    u, v = (x / half_width) ** 2, (y / half_depth) ** 2
    round_, square = np.sqrt(u + v), np.sqrt(np.sqrt(u * u + v * v))
    return ((0.62 * round_ + 0.38 * square) - 0.985) * half_depth


def diaphragm_height(anatomy: Anatomy, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Height z (mm) of the diaphragm above each point of the axial plane."""
    right = -72 * (((x + 66) / 78) ** 2 + ((y - 2) / 92) ** 2)
    left = -12 - 72 * (((x - 68) / 74) ** 2 + ((y - 2) / 92) ** 2)
    middle = -10 - 55 * ((x / 62) ** 2 + ((y + 14) / 62) ** 2)
    return np.maximum(np.maximum(right, left), middle)


def lung_distance(
    anatomy: Anatomy, x: np.ndarray, y: np.ndarray, z: np.ndarray, outline: np.ndarray | None = None
) -> np.ndarray:
    """Signed distance to the lungs (both; the sign of x tells the side)."""
    outline = outline_distance(anatomy, x, y, z) if outline is None else outline
    apex = np.clip((z - 90) / 90, 0, 1)
    middle = 17 + 22 * np.exp(-(((y + 4) / 42) ** 2)) + 16 * np.exp(-(((y - 62) / 20) ** 2)) - 6 * apex
    beside = middle - np.abs(x - 3)
    above = (diaphragm_height(anatomy, x, y) - z) * 0.6
    return np.maximum(np.maximum(outline + WALL, beside), above)


def liver_distance(
    anatomy: Anatomy, x: np.ndarray, y: np.ndarray, z: np.ndarray, outline: np.ndarray | None = None
) -> np.ndarray:
    """Signed distance to the liver: a right and a left lobe under the diaphragm, inside the ribs."""
    outline = outline_distance(anatomy, x, y, z) if outline is None else outline
    size = anatomy.liver_size
    right = ellipsoid_distance(
        (x, y, z), np.array([-66, 2, -72]) + anatomy.offsets["liver"], (60 * size, 78 * size, 92 * size), 0.15
    )
    left = ellipsoid_distance(
        (x, y, z),
        np.array([-2, -40, -52]) + anatomy.offsets["liver_left"],
        (64 * size, 32 * size, 46 * size),
        -0.12,
    )
    both = np.minimum(right, left)
    under = (z - diaphragm_height(anatomy, x, y)) * 0.6 + 3
    # the porta: a groove that opens downwards and towards the middle
    groove = np.clip((-z - 66) * 0.45, -20, 19) - np.sqrt(((x + 18) * 0.8) ** 2 + (y + 2) ** 2)
    return np.maximum(np.maximum(np.maximum(both, under), outline + WALL - 5), groove)


def spleen_distance(
    anatomy: Anatomy, x: np.ndarray, y: np.ndarray, z: np.ndarray, outline: np.ndarray | None = None
) -> np.ndarray:
    """Signed distance to the spleen."""
    outline = outline_distance(anatomy, x, y, z) if outline is None else outline
    whole = ellipsoid_distance((x, y, z), np.array([92, 38, -62]) + anatomy.offsets["spleen"], (29, 44, 50), -0.55)
    hollow = -ellipsoid_distance((x, y, z), np.array([62, 20, -66]) + anatomy.offsets["spleen"], (24, 34, 60), -0.5)
    under = (z - diaphragm_height(anatomy, x, y)) * 0.6 + 3
    return np.maximum(np.maximum(np.maximum(whole, hollow * 0.8), under), outline + WALL - 4)


def kidney(anatomy: Anatomy, side: str) -> tuple[np.ndarray, tuple, float]:
    """Centre, radii and turn of a kidney."""
    centre = np.array([-60.0, 44, -122]) if side == "right" else np.array([60.0, 42, -108])
    return centre + anatomy.offsets[f"kidney_{side}"], (24.0, 29.0, 52.0), 0.5 if side == "right" else -0.5


def heart(anatomy: Anatomy) -> tuple[np.ndarray, tuple, float]:
    """Centre, radii and turn of the heart with the fat around it."""
    size = anatomy.heart_size
    return np.array([22.0, -30, 40]) + anatomy.offsets["heart"], (65 * size, 47 * size, 53), 0.55


def gallbladder(anatomy: Anatomy) -> tuple[np.ndarray, tuple, float]:
    """Centre, radii and turn of the gallbladder with its wall."""
    return np.array([-46.0, -44, -98]) + anatomy.offsets["gallbladder"], (15.5, 18.5, 29.0), 0.4


def adrenal(side: str) -> np.ndarray:
    """Middle of an adrenal gland: in front of the kidney's upper pole and beside it."""
    return np.array([-34.0 if side == "right" else 33.0, 36, -68])


def aorta(anatomy: Anatomy) -> tuple[np.ndarray, np.ndarray]:
    """Polyline and radii of the aorta from the valve to below the kidneys."""
    points = np.array(
        [
            [2, -14, 72],
            [-12, -26, 92],
            [-15, -26, 112],
            [-9, -18, 130],
            [5, 2, 137],
            [17, 20, 131],
            [22, 30, 112],
            [21, 33, 60],
            [17, 33, 0],
            [9, 28, -60],
            [6, 25, -120],
            [4, 24, -260],
        ],
        dtype=float,
    )
    return points + anatomy.offsets["aorta"] * (1, 1, 0.5), np.array(
        [15, 15, 15, 14, 13.5, 13, 12.5, 12, 11.5, 11, 10, 9]
    )


def spine_centre(anatomy: Anatomy) -> np.ndarray:
    """Middle of the vertebral bodies in the axial plane, (x, y)."""
    return np.array([0.0, 52.0]) + anatomy.offsets["spine"][:2]


def _lung_vessels(rng: np.random.Generator, hilum: np.ndarray, side: int) -> list:
    """Draw vessels from a hilum to all parts of its lung, each with branches: a list of (points (n, 3), radii (n,))."""
    tubes = []
    for number in range(26):
        target = np.array([side * rng.uniform(40, 122), rng.uniform(-72, 72), rng.uniform(-35, 175)])
        if number < 6:  # lobar arteries and veins run up and down: slices cut them across, round as nodules
            target = np.array([side * rng.uniform(52, 90), rng.uniform(-35, 50), rng.choice([-25.0, 165.0])])
        bend = np.array([side * rng.uniform(4, 18), 0, 0]) + rng.normal(0, 6, 3)
        share = np.linspace(0, 1, 5)[:, None]
        trunk = hilum + (target - hilum) * share + bend * np.sin(np.pi * share)
        tubes.append((trunk, np.linspace(4.6, 1.2, 5)))
        for joint in (1, 2, 2, 3):
            reach = (target - hilum) * 0.3 + rng.normal(0, 18, 3)
            radius = (3.2, 2.6, 2.0)[joint - 1]
            tubes.append(
                (
                    np.stack([trunk[joint], trunk[joint] + reach / 2 + rng.normal(0, 3, 3), trunk[joint] + reach]),
                    np.array([radius, radius * 0.7, 1.0]),
                )
            )
    return tubes


def _tree(
    rng: np.random.Generator,
    root: np.ndarray,
    direction: tuple,
    trunks: int,
    length: float,
    radius: float,
    levels: int,
) -> list:
    """Draw a branching tree of vessels: a list of (points (n, 3), radii (n,))."""
    tubes = []
    main = np.array(direction, dtype=float)
    main /= np.linalg.norm(main)
    for _ in range(trunks):
        heading = main * rng.uniform(0.3, 1.0) + rng.normal(0, 0.75, 3)
        _grow(
            rng,
            tubes,
            root + rng.normal(0, 3, 3),
            heading,
            length * rng.uniform(0.7, 1.1),
            radius * rng.uniform(0.7, 1),
            levels,
        )
    return tubes


def _grow(
    rng: np.random.Generator,
    tubes: list,
    start: np.ndarray,
    heading: np.ndarray,
    length: float,
    radius: float,
    levels: int,
) -> None:
    """Add one vessel and, to level 1, its branches to `tubes`; lengths and radii in mm, `heading` a direction."""
    heading = heading / (np.linalg.norm(heading) + 1e-9)
    bend = start + heading * length / 2 + rng.normal(0, length * 0.06, 3)
    stop = start + heading * length + rng.normal(0, length * 0.08, 3)
    tubes.append((np.stack([start, bend, stop]), np.array([radius, radius * 0.85, radius * 0.7])))
    if levels > 1:
        for _ in range(2):
            _grow(
                rng,
                tubes,
                stop,
                heading + rng.normal(0, 0.55, 3),
                length * rng.uniform(0.55, 0.8),
                radius * 0.72,
                levels - 1,
            )
