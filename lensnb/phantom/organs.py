"""Painting a person's organs, chest and abdomen, with one scan's contrast."""

from dataclasses import dataclass

import numpy as np

from lensnb.phantom.anatomy import (
    WALL,
    Anatomy,
    aorta,
    diaphragm_height,
    kidney,
    liver_distance,
    lung_distance,
    outline_distance,
    spine_centre,
    spleen_distance,
)
from lensnb.phantom.shapes import Canvas, blend, paint_ellipsoid, paint_tube, weight

FAT = -103.0


@dataclass(frozen=True)
class Contrast:
    """HU of the organs in one scan; they follow the phase of the contrast agent."""

    phase: str
    artery: float
    vein: float
    liver: float
    liver_vessel: float
    spleen: float
    cortex: float
    medulla: float
    muscle: float
    bowel: float  # content of the bowel: water, or oral contrast


def draw_contrast(rng: np.random.Generator) -> Contrast:
    """Draw the phase (none, arterial, portal venous) and its HU."""
    phase = str(rng.choice(["none", "arterial", "portal"], p=[0.2, 0.2, 0.6]))
    base = {
        "none": (42, 42, 57, 40, 47, 34, 32, 50),
        "arterial": (260, 120, 68, 80, 118, 175, 85, 56),
        "portal": (150, 145, 106, 142, 118, 178, 140, 60),
    }[phase]
    organs = (np.array(base) * rng.uniform(0.92, 1.08, len(base))).tolist()
    bowel = rng.uniform(150, 320) if rng.random() < 0.35 else rng.uniform(5, 25)
    return Contrast(phase, *organs, bowel)


def paint_body(canvas: Canvas, anatomy: Anatomy, contrast: Contrast, fat: float, rng: np.random.Generator) -> None:
    """Paint the whole body; `fat` is this study's subcutaneous fat (mm), `rng` moves what moves (bowel)."""
    x, y, z = canvas.x[None, None, :], canvas.y[None, :, None], canvas.z[:, None, None]
    outline = outline_distance(anatomy, x, y, z)
    blend(canvas.hu, weight(outline - fat, canvas.edge), FAT)
    blend(canvas.hu, weight(outline, canvas.edge), contrast.muscle)
    _paint_fat_planes(canvas, outline)
    wall = WALL - 8 * np.clip((-z - 30) / 60, 0, 1)
    blend(canvas.hu, weight(outline + wall, canvas.edge), FAT + 6)
    _paint_ribs(canvas, anatomy, outline)
    _paint_back(canvas, anatomy, contrast)
    if canvas.z[-1] > -80:
        _paint_lungs(canvas, anatomy, contrast, outline)
    if canvas.z[0] < 10:
        _paint_upper_abdomen(canvas, anatomy, contrast, outline, rng)
    if canvas.z[-1] > -12:
        _paint_mediastinum(canvas, anatomy, contrast)
    _paint_great_vessels(canvas, anatomy, contrast)
    for nx, ny, nz, radius in anatomy.normal_nodes:
        paint_ellipsoid(canvas, (nx, ny, nz), (radius, radius * 0.8, radius), 45)


def _paint_fat_planes(canvas: Canvas, outline: np.ndarray) -> None:
    """Fat between the muscles: outside the ribs in the chest, between the layers of the flank in the belly."""
    x, y = canvas.x[None, None, :], canvas.y[None, :, None]
    thick = np.interp(canvas.z, [-90, -20, 40, 200], [1.0, 1.6, 2.6, 5.0]).astype(np.float32)[:, None, None]
    side = np.clip((np.abs(x) - 70) / 30, 0, 1) * np.clip((90 - np.abs(y + 10)) / 40, 0, 1)
    # between the pectorals, and the white line of the belly
    front = np.clip((18 - np.abs(x)) / 8, 0, 1) * (y < 0)
    share = weight(np.abs(outline + 5.5) - thick, canvas.edge) * np.maximum(side, 0)
    share = np.maximum(share, weight(np.abs(outline + 4) - 4, canvas.edge) * front)
    back = np.clip((6 - np.abs(x)) / 5, 0, 1) * (y > 70)
    blend(canvas.hu, np.maximum(share, weight(np.abs(outline + 3) - 3, canvas.edge) * back), FAT + 10)


def _paint_ribs(canvas: Canvas, anatomy: Anatomy, outline: np.ndarray) -> None:
    """Ribs run from high at the back to low in front: an axial slice cuts each of them over a short arc."""
    y, z = canvas.y[None, :, None], canvas.z[:, None, None]
    wave = np.cos((z - 0.6 * y) * np.float32(2 * np.pi / 29) + np.float32(anatomy.rib_phase))
    lowest = np.interp(canvas.z, [-150, -110, -60, 10, 200], [70, 40, -5, -75, -80]).astype(np.float32)[:, None, None]
    along = np.clip(wave * 3 + 0.3, 0, 1) * (y > lowest)
    shell = np.abs(outline + 13.5) - 4.2
    share = weight(shell, canvas.edge) * along
    blend(canvas.hu, share, anatomy.bone_hu + 120)
    marrow = weight(shell + 3, canvas.edge) * along
    blend(canvas.hu, marrow, anatomy.bone_hu)


def _paint_back(canvas: Canvas, anatomy: Anatomy, contrast: Contrast) -> None:
    """Spine with canal, discs and processes, the muscles beside it, psoas and sternum."""
    sx, sy = spine_centre(anatomy)
    top, bottom = canvas.z[-1] + 50, canvas.z[0] - 50
    for side in (-1, 1):
        paint_ellipsoid(canvas, (sx + side * 29, sy + 23, 0), (23, 15, 1e4), contrast.muscle)
        if bottom < -70:
            paint_tube(
                canvas,
                np.array(
                    [
                        [sx + side * 20, sy - 2, -75],
                        [sx + side * 30, sy - 2, -120],
                        [sx + side * 38, sy - 8, -260],
                    ]
                ),
                np.array([5, 14, 20]),
                contrast.muscle,
            )
    z = canvas.z[:, None, None]
    disc = np.clip(np.cos(z * np.float32(2 * np.pi / 30) + np.float32(anatomy.disc_phase)) * 6 - 4.2, 0, 1)
    bone = anatomy.bone_hu
    body = anatomy.bone_hu * (1 - disc) + 85 * disc
    cortex = (bone + 190) * (1 - disc) + 95 * disc
    paint_ellipsoid(canvas, (sx, sy, 0), (19.5, 15.5, 1e5), _profile(canvas, cortex))
    paint_ellipsoid(canvas, (sx, sy, 0), (16.5, 12.5, 1e5), _profile(canvas, body))
    arch = np.clip(np.cos(z * np.float32(2 * np.pi / 30) + np.float32(anatomy.disc_phase + 2.6)) * 2 + 0.8, 0, 1)
    posterior = _profile(canvas, (bone + 160) * arch + contrast.muscle * (1 - arch))
    for side in (-1, 1):
        paint_tube(
            canvas,
            np.array([[sx + side * 9, sy + 12, top], [sx + side * 9, sy + 12, bottom]]),
            np.array([5, 5]),
            posterior,
        )
        for sweep in np.linspace(0, 1, 3):
            paint_ellipsoid(canvas, (sx + side * (14 + 12 * sweep), sy + 17 + 4 * sweep, 0), (6, 4.5, 1e5), posterior)
    paint_ellipsoid(canvas, (sx, sy + 32, 0), (3.6, 11, 1e5), posterior)
    paint_ellipsoid(canvas, (sx, sy + 19, 0), (8.5, 7.5, 1e5), 28)
    if top > 60:
        front = float(np.interp(canvas.z.mean(), [0, 120, 200], [-84, -82, -74]))
        paint_ellipsoid(canvas, (0, front, 105), (18, 5.5, 75), bone + 60)


def _profile(canvas: Canvas, values: np.ndarray) -> np.ndarray:
    """A value per slice, for shapes that reach through the whole canvas."""
    return np.asarray(values, dtype=np.float32).reshape(-1, 1, 1)


def _paint_lungs(canvas: Canvas, anatomy: Anatomy, contrast: Contrast, outline: np.ndarray) -> np.ndarray:
    x, y, z = canvas.x[None, None, :], canvas.y[None, :, None], canvas.z[:, None, None]
    share = weight(lung_distance(anatomy, x, y, z, outline), canvas.edge)
    blend(canvas.hu, share, anatomy.lung_hu + 0.35 * y)
    inside = share * np.float32(1)
    for side in ("right", "left"):
        for points, radii in anatomy.vessels[side]:
            paint_tube(canvas, points, radii, 0.6 * contrast.vein + 5, inside)
    return share


def _paint_mediastinum(canvas: Canvas, anatomy: Anatomy, contrast: Contrast) -> None:
    """Heart with its chambers, pulmonary arteries, veins, trachea and main bronchi."""
    heart = np.array([20.0, -30, 40]) + anatomy.offsets["heart"]
    size = anatomy.heart_size
    blood, wall = contrast.vein * 0.5 + contrast.artery * 0.5, 50 + 0.35 * contrast.vein
    paint_ellipsoid(canvas, heart + (2, 0, 0), (65 * size, 47 * size, 53), FAT + 8, 0.55)
    paint_ellipsoid(canvas, heart, (59 * size, 41 * size, 48), wall, 0.55)
    paint_ellipsoid(canvas, heart + (22, 8, -6), (24 * size, 15 * size, 31), contrast.artery, 0.6)
    paint_ellipsoid(canvas, heart + (4, -18, -6), (29 * size, 12 * size, 33), blood, 0.55)
    paint_ellipsoid(canvas, heart + (-34, -4, -2), (16 * size, 21 * size, 28), contrast.vein, 0.3)
    paint_ellipsoid(canvas, heart + (-6, 27, 10), (27 * size, 13 * size, 20), contrast.artery, 0.1)
    trunk = np.array([[14, -34, 72], [17, -24, 92], [16, -10, 103]]) + anatomy.offsets["heart"] * 0.5
    paint_tube(canvas, trunk, np.array([14, 13, 11]), blood)
    paint_tube(
        canvas,
        np.array([trunk[2], [-10, -1, 101], anatomy.vessels["right"][0][0][0]]),
        np.array([11, 9.5, 7]),
        blood,
    )
    paint_tube(
        canvas, np.array([trunk[2], [30, 4, 106], anatomy.vessels["left"][0][0][0]]), np.array([11, 10, 7]), blood
    )
    paint_tube(
        canvas,
        np.array([[-25, -12, 60], [-27, -14, 110], [-24, -16, 150], [-30, -18, 210]]),
        np.full(4, 8.5),
        contrast.vein,
    )
    for start, stop, radius in (
        ((-10, -16, 132), (-20, -10, 210), 6),
        ((0, -6, 136), (8, -4, 210), 4.5),
        ((12, 6, 137), (26, 4, 210), 5),
    ):
        paint_tube(canvas, np.array([start, stop], float), np.array([radius, radius]), contrast.artery)
    paint_tube(
        canvas, np.array([[-24, -18, 148], [10, -26, 150], [38, -10, 175]], float), np.full(3, 6.0), contrast.vein
    )
    for points, radii in (
        ([[0, 2, 230], [1, 6, 150], [0, 10, 108]], [9, 9, 9]),
        ([[0, 10, 108], [-20, 15, 95], [-42, 16, 84]], [8, 7, 6]),
        ([[0, 10, 108], [20, 17, 92], [44, 18, 80]], [8, 6.5, 5.5]),
    ):
        points = np.array(points, float) + anatomy.offsets["trachea"] * (1, 1, 0.5)
        paint_tube(canvas, points, np.array(radii) + 2.0, 40)
        paint_tube(canvas, points, np.array(radii), -990)


def _paint_great_vessels(canvas: Canvas, anatomy: Anatomy, contrast: Contrast) -> None:
    """Aorta, oesophagus, inferior vena cava and the abdominal branches."""
    points, radii = aorta(anatomy)
    paint_tube(canvas, points, radii, contrast.artery)
    gullet = np.array([[2, 22, 230], [3, 26, 120], [6, 24, 50], [12, 16, 0], [22, 2, -25]], float)
    paint_tube(canvas, gullet, np.full(5, 7.0), 45)
    paint_tube(canvas, gullet[:4], np.full(4, 1.6), -400)
    cava = np.array([[-22, -6, 22], [-23, 14, -8], [-21, 22, -60], [-17, 24, -120], [-15, 24, -260]], float)
    cava += anatomy.offsets["ivc"] * (1, 1, 0)
    paint_tube(canvas, cava, np.array([11, 11.5, 12, 11.5, 10]), 0.8 * contrast.vein + 0.2 * contrast.muscle)
    if canvas.z[0] > -20:
        return
    for side, level in (("right", -118), ("left", -108)):
        centre = kidney(anatomy, side)[0]
        hilum = centre * (0.72, 0.75, 1)
        source = cava[3] if side == "right" else points[10]
        paint_tube(canvas, np.array([[source[0], source[1], level], hilum]), np.array([5, 4]), contrast.vein)
    paint_tube(
        canvas,
        np.array([[6, 16, -82], [4, 2, -105], [3, -4, -230]], float),
        np.array([4.5, 4.5, 4]),
        contrast.artery,
    )
    paint_tube(
        canvas,
        np.array([[-8, 4, -98], [-9, -4, -130], [-7, -8, -230]], float),
        np.array([6.5, 6, 5]),
        contrast.vein,
    )
    paint_tube(
        canvas,
        np.array([[-38, 4, -80], [-10, 4, -98], [30, 2, -86], [72, 26, -72]], float),
        np.array([7, 7, 5, 4]),
        contrast.vein,
    )


def _paint_upper_abdomen(
    canvas: Canvas, anatomy: Anatomy, contrast: Contrast, outline: np.ndarray, rng: np.random.Generator
) -> None:
    """Solid organs, stomach, pancreas and bowel; order matters where they touch."""
    x, y, z = canvas.x[None, None, :], canvas.y[None, :, None], canvas.z[:, None, None]
    _paint_bowel(canvas, anatomy, contrast, rng)
    _paint_stomach(canvas, anatomy, contrast, rng)
    pancreas = np.array([[-30, -4, -118], [-22, -10, -104], [8, -14, -94], [38, 2, -84], [68, 22, -74]], float)
    paint_tube(canvas, pancreas + anatomy.offsets["pancreas"], np.array([12, 11, 9, 9, 8]), 0.55 * contrast.liver + 30)
    under = weight((z - diaphragm_height(anatomy, x, y)) * 0.6, canvas.edge)
    spleen = weight(spleen_distance(anatomy, x, y, z, outline), canvas.edge) * under
    blend(canvas.hu, spleen, contrast.spleen)
    for side in ("right", "left"):
        centre, radii, turn = kidney(anatomy, side)
        paint_ellipsoid(canvas, centre, np.array(radii) + 9, FAT, turn)
    liver = weight(liver_distance(anatomy, x, y, z, outline), canvas.edge)
    blend(canvas.hu, liver, contrast.liver)
    for name in ("portal", "veins"):
        for points, radii in anatomy.vessels[name]:
            paint_tube(canvas, points, radii * 0.9, contrast.liver_vessel, liver)
    for side in ("right", "left"):
        _paint_kidney(canvas, anatomy, contrast, side)
    for side in (-1, 1):  # adrenals: a thin inverted Y above each kidney
        top = np.array([side * 34.0, 38, -72])
        paint_tube(canvas, np.array([top, top + (side * 12, 14, -10)]), np.array([2.6, 2]), 55)
        paint_tube(canvas, np.array([top, top + (side * 2, 16, -10)]), np.array([2.6, 2]), 55)
    gall = np.array([-46.0, -44, -98]) + anatomy.offsets["gallbladder"]
    paint_ellipsoid(canvas, gall, (15.5, 18.5, 29), 0.5 * contrast.liver + 10, 0.4)
    paint_ellipsoid(canvas, gall, (13.5, 16.5, 27), 8, 0.4)


def _paint_kidney(canvas: Canvas, anatomy: Anatomy, contrast: Contrast, side: str) -> None:
    centre, radii, turn = kidney(anatomy, side)
    inward = np.array([-np.sign(centre[0]) * 9.0, -6.0, 0.0])
    paint_ellipsoid(canvas, centre, radii, contrast.cortex, turn)
    paint_ellipsoid(canvas, centre + inward * 0.3, np.array(radii) - 7, contrast.medulla, turn)
    paint_ellipsoid(canvas, centre + inward * 1.3, (13, 12, 26), FAT + 15, turn)
    paint_ellipsoid(canvas, centre + inward * 1.2, (6, 6, 15), 12, turn)


def _paint_stomach(canvas: Canvas, anatomy: Anatomy, contrast: Contrast, rng: np.random.Generator) -> None:
    centre = np.array([52.0, -22, -64]) + anatomy.offsets["stomach"]
    fill = rng.uniform(0.75, 1.05)
    radii = np.array([38 * fill, 42 * fill, 46])
    paint_ellipsoid(canvas, centre, radii, 60, 0.4)
    paint_ellipsoid(canvas, centre, radii - 5, contrast.bowel, 0.4)
    paint_ellipsoid(canvas, centre - (0, 20 * fill, 0), (22 * fill, 15 * fill, 26), -940)
    paint_tube(canvas, np.array([centre + (-8, -14, -28), (8, -52, -92), (-26, -40, -96)]), np.array([20, 17, 12]), 60)
    paint_tube(
        canvas,
        np.array([centre + (-8, -14, -28), (8, -52, -92), (-26, -40, -96)]),
        np.array([15, 12, 7]),
        contrast.bowel,
    )


def _paint_bowel(canvas: Canvas, anatomy: Anatomy, contrast: Contrast, rng: np.random.Generator) -> None:
    """Small bowel loops in other places at every study, and the colon with gas and faeces."""
    for _ in range(26):
        start = np.array([rng.uniform(-80, 85), rng.uniform(-68, -8), rng.uniform(-230, -88)])
        bend = start + rng.normal(0, (26, 14, 10))
        stop = bend + rng.normal(0, (26, 14, 10))
        points = np.stack([start, bend, stop])
        points[:, 0] = np.clip(points[:, 0], -92, 96)
        points[:, 1] = np.clip(points[:, 1], -70, 2)
        points[:, 2] = np.minimum(points[:, 2], -80)
        radius = rng.uniform(9, 13)
        paint_tube(canvas, points, np.full(3, radius), 45 + 0.25 * contrast.vein)
        content = -850 if rng.random() < 0.15 else contrast.bowel
        paint_tube(canvas, points, np.full(3, radius - rng.uniform(3, 6)), content)
    sag = rng.uniform(-130, -105)
    paths = (
        np.array([[-96, 22, -250], [-98, 18, -170], [-94, 4, -118]], float) + anatomy.offsets["colon_right"],
        np.array([[-94, 4, -118], [-50, -60, sag], [0, -68, sag - 8], [55, -60, sag + 6], [94, 0, -92]], float),
        np.array([[94, 0, -92], [102, 30, -130], [98, 32, -250]], float) + anatomy.offsets["colon_left"],
    )
    for path, radius in zip(paths, (20, 17, 14), strict=True):
        paint_tube(canvas, path, np.full(len(path), radius), 50)
        paint_tube(canvas, path, np.full(len(path), radius - 3.5), rng.uniform(-120, 60))
        paint_tube(canvas, path - (0, 5, 0), np.full(len(path), radius - 9.5), -930)
