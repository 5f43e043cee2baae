"""Where fat lies between the organs: nodes live there, lesions and normal ones alike."""

import numpy as np

from lensnb.phantom.anatomy import (
    WALL,
    Anatomy,
    gallbladder,
    kidney,
    liver_distance,
    lung_distance,
    outline_distance,
    spine_centre,
    spleen_distance,
)
from lensnb.phantom.shapes import ellipsoid_distance
from lensnb.phantom.vessels import airways, belly_vessels, chest_vessels, great_vessels, gullet, mesenteric_vessels

MESENTERY = np.array([[-4.0, -16, -100], [6, -24, -135], [2, -24, -230]])  # axis of its root, which loops leave free
MESENTERY_MM = 11.0  # radius of the fat around it
AIRWAY_WALL = 2.0


def clearance(anatomy: Anatomy, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances in body mm from points (n, 3) to the lungs, and to the nearest other thing that is no fat: two (n,).

    They are negative inside. Small bowel is left out, as it lies elsewhere in every study; it keeps away from the root
    of the mesentery.
    """
    x, y, z = np.asarray(points, dtype=float).T
    outline = outline_distance(anatomy, x, y, z)
    wall = WALL - 8 * np.clip((-z - 30) / 60, 0, 1)
    sx, sy = spine_centre(anatomy)
    gaps = [
        -(outline + wall),
        liver_distance(anatomy, x, y, z, outline),
        spleen_distance(anatomy, x, y, z, outline),
        np.sqrt((x - sx) ** 2 + ((y - sy) * 1.2) ** 2) - 20,  # vertebral body
        (sy + 10) - y,  # the muscles and bones of the back
    ]
    heart = np.array([20.0, -30, 40]) + anatomy.offsets["heart"]
    size = anatomy.heart_size
    for centre, radii, turn in (
        (heart, (59 * size, 41 * size, 48), 0.55),
        (heart + (-34, -4, -2), (16 * size, 21 * size, 28), 0.3),
        (heart + (-6, 27, 10), (27 * size, 13 * size, 20), 0.1),
        *(kidney(anatomy, side) for side in ("right", "left")),
        (stomach(anatomy), (40, 44, 46), 0.4),
        gallbladder(anatomy),
    ):
        gaps.append(ellipsoid_distance((x, y, z), centre, radii, turn))
    tubes = [(t.points, t.radii) for t in (*chest_vessels(anatomy), *great_vessels(anatomy), gullet())]
    tubes += [(t.points, t.radii + AIRWAY_WALL) for t in airways(anatomy)]
    tubes += [(t.points, t.radii) for t in (*belly_vessels(anatomy), *mesenteric_vessels(anatomy))]
    tubes += [pancreas(anatomy), stomach_outlet(anatomy), *(psoas(anatomy, side) for side in (-1, 1))]
    gaps.append(_tubes_distance(np.asarray(points, dtype=float), tubes))
    return lung_distance(anatomy, x, y, z, outline), np.min(gaps, axis=0)


def _tubes_distance(points: np.ndarray, tubes: list) -> np.ndarray:
    """Signed distance (n,) from points (n, 3) to the nearest of the tubes, each (polyline (m, 3), radii (m,))."""
    start, stop = (np.concatenate([line[part] for line, _ in tubes]) for part in (slice(None, -1), slice(1, None)))
    r0, r1 = (np.concatenate([radii[part] for _, radii in tubes]) for part in (slice(None, -1), slice(1, None)))
    along, off = stop - start, points[:, None] - start
    t = np.clip((off * along).sum(axis=2) / ((along * along).sum(axis=1) + 1e-6), 0, 1)
    apart = np.linalg.norm(off - t[:, :, None] * along, axis=2)
    return (apart - r0 - t * (r1 - r0)).min(axis=1)


def mesentery_distance(points: np.ndarray) -> np.ndarray:
    """Distance (n,) from points (n, 3) to the axis of the mesentery's root."""
    return _tubes_distance(points, [(MESENTERY, np.zeros(len(MESENTERY)))])


def pancreas(anatomy: Anatomy) -> tuple[np.ndarray, np.ndarray]:
    """Polyline and radii of the pancreas from head to tail."""
    line = np.array([[-30, -4, -118], [-22, -10, -104], [8, -14, -94], [38, 2, -84], [68, 22, -74]], float)
    return line + anatomy.offsets["pancreas"], np.array([12, 11, 9, 9, 8])


def stomach(anatomy: Anatomy) -> np.ndarray:
    """Middle of the stomach's body."""
    return np.array([52.0, -22, -64]) + anatomy.offsets["stomach"]


def stomach_outlet(anatomy: Anatomy) -> tuple[np.ndarray, np.ndarray]:
    """Polyline and radii of the stomach's antrum."""
    return np.array([stomach(anatomy) + (-8, -14, -28), (8, -52, -92), (-26, -40, -96)]), np.array([20.0, 17, 12])


def psoas(anatomy: Anatomy, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Polyline and radii of the psoas muscle; `side` -1 right, 1 left."""
    sx, sy = spine_centre(anatomy)
    line = [[sx + side * 20, sy - 2, -75], [sx + side * 30, sy - 2, -120], [sx + side * 38, sy - 8, -260]]
    return np.array(line), np.array([5, 14, 20])
