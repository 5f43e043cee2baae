"""Normal things that look like lesions, where a body has them: nobody marks them, and they are no lesions.

Nodes of normal size at the stations of nodes, calcified granulomas in the lungs, plaques of the pleura, atelectasis,
osteophytes, fat beside the liver's falciform ligament, an accessory spleen. Vessels that a slice cuts across and bowel
loops of a lesion's size are painted with the organs. They belong to the person, so all its studies show them. How often
they occur is a guess where no source is named.
"""

import numpy as np

from lensnb.phantom import anatomy as body
from lensnb.phantom.places import VERTEBRA_MM, VERTEBRA_PERIOD_MM, node_places
from lensnb.phantom.shapes import Canvas, blend, paint_ellipsoid
from lensnb.streams import PhantomStream

FAT = -103.0
NODES = (14, 24)  # nodes of normal size in the chest and belly
NODE_SHORT_MM = (4.0, 9.0)  # RECIST 1.1: under 10 mm is normal
NODE_ASPECT = (0.6, 0.85)
NODE_LONG_MM = 12.0  # at most
NODES_APART_MM = 10.0
HILUM_FROM_MM = 4.0  # radius of normal nodes that show their fatty hilum
STEATOSIS = 0.3  # share of fat in focal fat
Z_RANGE = (-230.0, 190.0)


def normal_nodes(anatomy: body.Anatomy) -> np.ndarray:
    """Nodes of normal size: (n, 6) x, y, z, half of the long diameter (body mm), short over long, turn."""
    rng = _generator(anatomy, 0)
    points, _ = node_places(rng, anatomy, NODE_SHORT_MM[1] / 2, Z_RANGE, hilar=False)
    chosen: list[np.ndarray] = []
    wanted = int(rng.integers(*NODES))
    for point in points:
        if all(np.linalg.norm(point - other) > NODES_APART_MM for other in chosen):
            chosen.append(point)
        if len(chosen) == wanted:
            break
    n = len(chosen)
    short = NODE_SHORT_MM[0] + (NODE_SHORT_MM[1] - NODE_SHORT_MM[0]) * rng.beta(1.2, 2, n)  # the small ones are common
    aspect = np.maximum(rng.uniform(*NODE_ASPECT, n), short / NODE_LONG_MM)
    shape = np.stack([short / aspect / 2 / anatomy.scale, aspect, rng.uniform(0, np.pi, n)], axis=1)
    return np.concatenate([np.reshape(chosen, (n, 3)), shape], axis=1)


def paint_normal_nodes(canvas: Canvas, anatomy: body.Anatomy, node_hu: float) -> None:
    """Paint the nodes of normal size; they enhance as any node does."""
    for x, y, z, radius, aspect, turn in normal_nodes(anatomy):
        paint_ellipsoid(canvas, (x, y, z), (radius, radius * aspect, radius), node_hu, turn)
        if radius > HILUM_FROM_MM:
            off = np.array([-np.sin(turn), np.cos(turn), 0]) * radius * aspect * 0.5
            paint_ellipsoid(canvas, np.add((x, y, z), off), np.full(3, radius * 0.4), FAT + 40, turn)


def paint_in_lungs(canvas: Canvas, anatomy: body.Anatomy, inside: np.ndarray) -> None:
    """Paint granulomas and atelectasis; `inside` (z, y, x) is the lungs' share of each voxel."""
    rng = _generator(anatomy, 1)
    tries = rng.uniform((-120, -75, -30), (120, 75, 170), (60, 3))
    deep = tries[body.lung_distance(anatomy, *tries.T) < -6]
    for point in deep[: rng.poisson(1.5)]:  # healed infections; calcified, so over 200 HU, and under 6 mm
        paint_ellipsoid(canvas, point, np.full(3, rng.uniform(1.8, 3.0)), rng.uniform(300, 800), inside=inside)
    for side in (-1, 1):
        if rng.random() < 0.35:  # a plate of collapsed lung above the diaphragm
            centre = (side * rng.uniform(60, 90), rng.uniform(20, 55), rng.uniform(-25, 45))
            radii = (rng.uniform(14, 26), rng.uniform(1.8, 3.2), rng.uniform(4, 10))
            paint_ellipsoid(canvas, centre, radii, 20, rng.uniform(-0.7, 0.7), inside)
    depth = rng.uniform(0, 8) * (rng.random() < 0.5)
    if depth > 2:  # dependent atelectasis: what lies at the back is denser
        back = np.clip((canvas.y - 50) / 30, 0, 1) * np.float32(depth / 8)
        blend(canvas.hu, inside * (0.35 * back)[None, :, None], -250)


def paint_pleura(canvas: Canvas, anatomy: body.Anatomy) -> None:
    """Paint flat plaques on the pleura, some of them calcified; painted before the chest wall's bones."""
    rng = _generator(anatomy, 2)
    for _ in range(rng.poisson(0.8)):
        angle, z = rng.uniform(0, 2 * np.pi), rng.uniform(-10, 160)
        ray = np.linspace(40, 150, 221)
        x, y = ray * np.cos(angle), ray * np.sin(angle) * 0.8
        at = int(np.argmin(np.abs(body.outline_distance(anatomy, x, y, np.float64(z)) + body.WALL)))
        normal = np.arctan2(y[at] / 97**2, x[at] / 149**2)  # of the trunk's ellipse
        radii = (rng.uniform(2.5, 4.5), rng.uniform(7, 16), rng.uniform(6, 14))
        value = rng.uniform(200, 450) if rng.random() < 0.25 else rng.uniform(30, 50)
        paint_ellipsoid(canvas, (x[at], y[at], z), radii, value, normal)


def paint_osteophytes(canvas: Canvas, anatomy: body.Anatomy) -> None:
    """Paint spurs at the front and side edges of vertebrae, at the discs, in older people."""
    rng = _generator(anatomy, 3)
    sx, sy = body.spine_centre(anatomy)
    first = -anatomy.disc_phase * VERTEBRA_PERIOD_MM / (2 * np.pi)
    for number in range(-8, 8):
        spurs = rng.poisson(np.clip((anatomy.age - 45) / 40, 0, 1))
        for angle, size in zip(rng.uniform(-np.pi, 0, spurs), rng.uniform(3.5, 6, spurs), strict=True):
            centre = (
                sx + (VERTEBRA_MM[0] + 1) * np.cos(angle),
                sy + (VERTEBRA_MM[1] + 1) * np.sin(angle),
                first + number * VERTEBRA_PERIOD_MM,
            )
            paint_ellipsoid(canvas, centre, (size, size * 0.7, 5), anatomy.bone_hu + 200, angle)


def paint_in_liver(canvas: Canvas, anatomy: body.Anatomy, inside: np.ndarray, liver_hu: float) -> None:
    """Paint fat beside the falciform ligament; `inside` (z, y, x) is the liver's share of each voxel."""
    rng = _generator(anatomy, 4)
    if rng.random() < 0.4:
        centre = np.array([-22.0, -56, -62]) + anatomy.offsets["liver_left"] + rng.normal(0, (3, 3, 6))
        radii = rng.uniform((6, 5, 9), (11, 9, 18))
        value = (1 - STEATOSIS) * liver_hu + STEATOSIS * FAT
        paint_ellipsoid(canvas, centre, radii, value, rng.uniform(-0.5, 0.5), inside)


def paint_accessory_spleen(canvas: Canvas, anatomy: body.Anatomy, spleen_hu: float) -> None:
    """Paint a small second spleen at the hilum of the first: one person in eight has one (textbook: 10 to 30 %)."""
    rng = _generator(anatomy, 5)
    if rng.random() < 0.125:
        centre = np.array([64.0, 34, -74]) + anatomy.offsets["spleen"] + rng.normal(0, 3, 3)
        paint_ellipsoid(canvas, centre, np.full(3, rng.uniform(4, 7)), spleen_hu)


def _generator(anatomy: body.Anatomy, part: int) -> np.random.Generator:
    return np.random.default_rng((anatomy.seed, PhantomStream.LOOKALIKES, part))
