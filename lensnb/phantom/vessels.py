"""Where the large vessels, the airways and the oesophagus run, as tubes in body mm.

Painting them and keeping nodes out of them read the same lists. The coordinates are those of `lensnb.phantom.anatomy`.
"""

from dataclasses import dataclass

import numpy as np

from lensnb.phantom.anatomy import Anatomy, aorta, kidney
from lensnb.streams import PhantomStream

MESENTERIC = 6  # part of the stream; lookalikes.py has the ones before


@dataclass(frozen=True)
class Tube:
    """A polyline (n, 3) with a radius (n,) at each point; `blood` is artery, vein, mixed, cava, or wall of an organ."""

    points: np.ndarray
    radii: np.ndarray
    blood: str


def chest_vessels(anatomy: Anatomy) -> list[Tube]:
    """The pulmonary arteries, the superior vena cava and the branches of the arch, in the order of painting."""
    trunk = np.array([[14, -34, 72], [17, -24, 92], [16, -10, 103]]) + anatomy.offsets["heart"] * 0.5
    right, left = (anatomy.vessels[side][0][0][0] for side in ("right", "left"))
    return [
        Tube(trunk, np.array([14, 13, 11]), "mixed"),
        Tube(np.array([trunk[2], [-10, -1, 101], right]), np.array([11, 9.5, 7]), "mixed"),
        Tube(np.array([trunk[2], [30, 4, 106], left]), np.array([11, 10, 7]), "mixed"),
        _tube([[-25, -12, 60], [-27, -14, 110], [-24, -16, 150], [-30, -18, 210]], [8.5] * 4, "vein"),
        _tube([[-10, -16, 132], [-20, -10, 210]], [6, 6], "artery"),
        _tube([[0, -6, 136], [8, -4, 210]], [4.5, 4.5], "artery"),
        _tube([[12, 6, 137], [26, 4, 210]], [5, 5], "artery"),
        _tube([[-24, -18, 148], [10, -26, 150], [38, -10, 175]], [6] * 3, "vein"),
    ]


def airways(anatomy: Anatomy) -> list[Tube]:
    """Trachea and main bronchi; the radii are those of the air, the wall is 2 mm thick."""
    shift = anatomy.offsets["trachea"] * (1, 1, 0.5)
    lines = (
        ([[0, 2, 230], [1, 6, 150], [0, 10, 108]], [9, 9, 9]),
        ([[0, 10, 108], [-20, 15, 95], [-42, 16, 84]], [8, 7, 6]),
        ([[0, 10, 108], [20, 17, 92], [44, 18, 80]], [8, 6.5, 5.5]),
    )
    return [Tube(np.array(points, float) + shift, np.array(radii), "air") for points, radii in lines]


def gullet() -> Tube:
    """The oesophagus."""
    return _tube([[2, 22, 230], [3, 26, 120], [6, 24, 50], [12, 16, 0], [22, 2, -25]], [7] * 5, "wall")


def great_vessels(anatomy: Anatomy) -> list[Tube]:
    """Aorta and inferior vena cava; they run through the whole trunk."""
    cava = np.array([[-22, -6, 22], [-23, 14, -8], [-21, 22, -60], [-17, 24, -120], [-15, 24, -260]], float)
    return [
        Tube(*aorta(anatomy), "artery"),
        Tube(cava + anatomy.offsets["ivc"] * (1, 1, 0), np.array([11, 11.5, 12, 11.5, 10]), "cava"),
    ]


def belly_vessels(anatomy: Anatomy) -> list[Tube]:
    """Renal veins, superior mesenteric artery and vein, and the portal and splenic vein."""
    (aortic, _), cava = aorta(anatomy), great_vessels(anatomy)[1].points
    renal = []
    for side, level, source in (("right", -118, cava[3]), ("left", -108, aortic[10])):
        hilum = kidney(anatomy, side)[0] * (0.72, 0.75, 1)
        renal.append(Tube(np.array([[source[0], source[1], level], hilum]), np.array([5, 4]), "vein"))
    return [
        *renal,
        _tube([[6, 16, -82], [4, 2, -105], [3, -4, -230]], [4.5, 4.5, 4], "artery"),
        _tube([[-8, 4, -98], [-9, -4, -130], [-7, -8, -230]], [6.5, 6, 5], "vein"),
        _tube([[-38, 4, -80], [-10, 4, -98], [30, 2, -86], [72, 26, -72]], [7, 7, 5, 4], "vein"),
    ]


def mesenteric_vessels(anatomy: Anatomy) -> list[Tube]:
    """Small vessels that fan out from the root of the mesentery: slices cut them across, as round as nodes."""
    rng = np.random.default_rng((anatomy.seed, PhantomStream.LOOKALIKES, MESENTERIC))
    tubes = []
    for _ in range(14):
        start = np.array([rng.uniform(-6, 6), -6, rng.uniform(-220, -100)])
        stop = start + rng.uniform((-45, -30, -25), (45, -8, 5))
        bend = (start + stop) / 2 + rng.normal(0, 4, 3)
        tubes.append(Tube(np.stack([start, bend, stop]), np.array([2.6, 2.2, 1.5]), "vein"))
    return tubes


def _tube(points: list, radii: list, blood: str) -> Tube:
    return Tube(np.array(points, float), np.array(radii, float), blood)
