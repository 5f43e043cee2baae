"""Painting a person's organs, chest and abdomen, with one scan's contrast."""

from dataclasses import dataclass

import numpy as np

from lensnb.phantom import lookalikes
from lensnb.phantom.anatomy import (
    WALL,
    Anatomy,
    adrenal,
    diaphragm_height,
    gallbladder,
    heart,
    kidney,
    liver_distance,
    lung_distance,
    outline_distance,
    spine_centre,
    spleen_distance,
)
from lensnb.phantom.fat import AIRWAY_WALL, MESENTERY_MM, mesentery_distance, pancreas, psoas, stomach, stomach_outlet
from lensnb.phantom.lookalikes import FAT
from lensnb.phantom.places import KIDNEY_FAT_MM, RIB_HALF_MM, RIB_MIDDLE_MM, VERTEBRA_MM, disc_wave, rib_wave, ribs_end
from lensnb.phantom.shapes import Canvas, blend, paint_ellipsoid, paint_tube, weight
from lensnb.phantom.vessels import (
    Tube,
    airways,
    belly_vessels,
    chest_vessels,
    great_vessels,
    gullet,
    mesenteric_vessels,
)

LOOPS = 80  # of small bowel that are tried; those across the root of the mesentery are left out
COLLAPSED = 0.3  # share of them without content: as thick as a node, as dense as one (a guess)


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
    node: float = 45.0  # lymph nodes


def draw_contrast(rng: np.random.Generator) -> Contrast:
    """Draw the phase (none, arterial, portal venous) and its HU."""
    phase = str(rng.choice(["none", "arterial", "portal"], p=[0.2, 0.2, 0.6]))
    base = {
        "none": (42, 42, 57, 40, 47, 34, 32, 50, 38),
        "arterial": (260, 120, 68, 80, 118, 175, 85, 56, 62),
        "portal": (150, 145, 106, 142, 118, 178, 140, 60, 85),
    }[phase]
    *organs, node = (np.array(base) * rng.uniform(0.92, 1.08, len(base))).tolist()
    bowel = rng.uniform(150, 320) if rng.random() < 0.35 else rng.uniform(5, 25)
    return Contrast(phase, *organs, bowel, node)


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
    lookalikes.paint_normal_nodes(canvas, anatomy, contrast.node)


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
    along = np.clip(rib_wave(anatomy, y, z) * 3 + 0.3, 0, 1) * (y > ribs_end(z).astype(np.float32))
    shell = np.abs(outline + RIB_MIDDLE_MM) - RIB_HALF_MM
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
            paint_tube(canvas, *psoas(anatomy, side), contrast.muscle)
    z = canvas.z[:, None, None]
    disc = np.clip(disc_wave(anatomy, z) * 6 - 4.2, 0, 1)
    bone = anatomy.bone_hu
    body = anatomy.bone_hu * (1 - disc) + 85 * disc
    cortex = (bone + 190) * (1 - disc) + 95 * disc
    paint_ellipsoid(canvas, (sx, sy, 0), (*VERTEBRA_MM, 1e5), _profile(canvas, cortex))
    paint_ellipsoid(canvas, (sx, sy, 0), (VERTEBRA_MM[0] - 3, VERTEBRA_MM[1] - 3, 1e5), _profile(canvas, body))
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
    lookalikes.paint_osteophytes(canvas, anatomy)


def _profile(canvas: Canvas, values: np.ndarray) -> np.ndarray:
    """A value per slice, for shapes that reach through the whole canvas."""
    return np.asarray(values, dtype=np.float32).reshape(-1, 1, 1)


def _paint_lungs(canvas: Canvas, anatomy: Anatomy, contrast: Contrast, outline: np.ndarray) -> None:
    """The lungs with their vessels, and what else they and the pleura may have."""
    x, y, z = canvas.x[None, None, :], canvas.y[None, :, None], canvas.z[:, None, None]
    share = weight(lung_distance(anatomy, x, y, z, outline), canvas.edge)
    blend(canvas.hu, share, anatomy.lung_hu + 0.35 * y)
    inside = share * np.float32(1)
    for side in ("right", "left"):
        for points, radii in anatomy.vessels[side]:
            paint_tube(canvas, points, radii, 0.6 * contrast.vein + 5, inside)
    lookalikes.paint_in_lungs(canvas, anatomy, inside)
    lookalikes.paint_pleura(canvas, anatomy)


def _paint_mediastinum(canvas: Canvas, anatomy: Anatomy, contrast: Contrast) -> None:
    """Heart with its chambers, pulmonary arteries, veins, trachea and main bronchi."""
    around, radii, turn = heart(anatomy)
    middle, size = around - (2, 0, 0), anatomy.heart_size
    blood, wall = contrast.vein * 0.5 + contrast.artery * 0.5, 50 + 0.35 * contrast.vein
    paint_ellipsoid(canvas, around, radii, FAT + 8, turn)
    paint_ellipsoid(canvas, middle, (59 * size, 41 * size, 48), wall, 0.55)
    paint_ellipsoid(canvas, middle + (22, 8, -6), (24 * size, 15 * size, 31), contrast.artery, 0.6)
    paint_ellipsoid(canvas, middle + (4, -18, -6), (29 * size, 12 * size, 33), blood, 0.55)
    paint_ellipsoid(canvas, middle + (-34, -4, -2), (16 * size, 21 * size, 28), contrast.vein, 0.3)
    paint_ellipsoid(canvas, middle + (-6, 27, 10), (27 * size, 13 * size, 20), contrast.artery, 0.1)
    _paint_tubes(canvas, contrast, chest_vessels(anatomy))
    for tube in airways(anatomy):
        paint_tube(canvas, tube.points, tube.radii + AIRWAY_WALL, 40)
        paint_tube(canvas, tube.points, tube.radii, -990)


def _paint_tubes(canvas: Canvas, contrast: Contrast, tubes: list[Tube]) -> None:
    """Vessels with the blood that flows in them."""
    blood = {
        "artery": contrast.artery,
        "vein": contrast.vein,
        "mixed": 0.5 * contrast.vein + 0.5 * contrast.artery,
        "cava": 0.8 * contrast.vein + 0.2 * contrast.muscle,
    }
    for tube in tubes:
        paint_tube(canvas, tube.points, tube.radii, blood[tube.blood])


def _paint_great_vessels(canvas: Canvas, anatomy: Anatomy, contrast: Contrast) -> None:
    """Aorta, oesophagus, inferior vena cava and the abdominal branches."""
    wide, cava = great_vessels(anatomy)
    _paint_tubes(canvas, contrast, [wide])
    food = gullet()
    paint_tube(canvas, food.points, food.radii, 45)
    paint_tube(canvas, food.points[:4], np.full(4, 1.6), -400)
    _paint_tubes(canvas, contrast, [cava])
    if canvas.z[0] <= -20:
        _paint_tubes(canvas, contrast, belly_vessels(anatomy))
        _paint_tubes(canvas, contrast, mesenteric_vessels(anatomy))


def _paint_upper_abdomen(
    canvas: Canvas, anatomy: Anatomy, contrast: Contrast, outline: np.ndarray, rng: np.random.Generator
) -> None:
    """Solid organs, stomach, pancreas and bowel; order matters where they touch."""
    x, y, z = canvas.x[None, None, :], canvas.y[None, :, None], canvas.z[:, None, None]
    _paint_bowel(canvas, anatomy, contrast, rng)
    _paint_stomach(canvas, anatomy, contrast, rng)
    paint_tube(canvas, *pancreas(anatomy), 0.55 * contrast.liver + 30)
    under = weight((z - diaphragm_height(anatomy, x, y)) * 0.6, canvas.edge)
    spleen = weight(spleen_distance(anatomy, x, y, z, outline), canvas.edge) * under
    blend(canvas.hu, spleen, contrast.spleen)
    lookalikes.paint_accessory_spleen(canvas, anatomy, contrast.spleen)
    for side in ("right", "left"):
        centre, radii, turn = kidney(anatomy, side)
        paint_ellipsoid(canvas, centre, np.array(radii) + KIDNEY_FAT_MM, FAT, turn)
    liver = weight(liver_distance(anatomy, x, y, z, outline), canvas.edge)
    blend(canvas.hu, liver, contrast.liver)
    for name in ("portal", "veins"):
        for points, radii in anatomy.vessels[name]:
            paint_tube(canvas, points, radii * 0.9, contrast.liver_vessel, liver)
    lookalikes.paint_in_liver(canvas, anatomy, liver, contrast.liver)
    for side in ("right", "left"):
        _paint_kidney(canvas, anatomy, contrast, side)
    for side in ("right", "left"):  # a thin inverted Y in fat
        middle, outward = adrenal(side), -1 if side == "right" else 1
        paint_ellipsoid(canvas, middle, (13, 12, 15), FAT + 5)
        top = middle + (-outward, -3, 5)
        for limb in ((outward * 10, 12, -10), (outward * 1, 14, -10)):
            paint_tube(canvas, np.array([top, top + limb]), np.array([2.6, 2]), 55)
    gall, radii, turn = gallbladder(anatomy)
    paint_ellipsoid(canvas, gall, radii, 0.5 * contrast.liver + 10, turn)
    paint_ellipsoid(canvas, gall, np.array(radii) - 2, 8, turn)


def _paint_kidney(canvas: Canvas, anatomy: Anatomy, contrast: Contrast, side: str) -> None:
    centre, radii, turn = kidney(anatomy, side)
    inward = np.array([-np.sign(centre[0]) * 9.0, -6.0, 0.0])
    paint_ellipsoid(canvas, centre, radii, contrast.cortex, turn)
    paint_ellipsoid(canvas, centre + inward * 0.3, np.array(radii) - 7, contrast.medulla, turn)
    paint_ellipsoid(canvas, centre + inward * 1.3, (13, 12, 26), FAT + 15, turn)
    paint_ellipsoid(canvas, centre + inward * 1.2, (6, 6, 15), 12, turn)


def _paint_stomach(canvas: Canvas, anatomy: Anatomy, contrast: Contrast, rng: np.random.Generator) -> None:
    centre = stomach(anatomy)
    fill = rng.uniform(0.75, 1.05)
    radii = np.array([38 * fill, 42 * fill, 46])
    paint_ellipsoid(canvas, centre, radii, 60, 0.4)
    paint_ellipsoid(canvas, centre, radii - 5, contrast.bowel, 0.4)
    paint_ellipsoid(canvas, centre - (0, 20 * fill, 0), (22 * fill, 15 * fill, 26), -940)
    antrum, thick = stomach_outlet(anatomy)
    paint_tube(canvas, antrum, thick, 60)
    paint_tube(canvas, antrum, thick - 5, contrast.bowel)


def _loop(rng: np.random.Generator) -> np.ndarray:
    """Three points (3, 3) of a loop of small bowel."""
    start = np.array([rng.uniform(-80, 85), rng.uniform(-68, -8), rng.uniform(-230, -88)])
    bend = start + rng.normal(0, (26, 14, 10))
    points = np.stack([start, bend, bend + rng.normal(0, (26, 14, 10))])
    return np.clip(points, (-92, -70, -np.inf), (96, 2, -80))


def _paint_bowel(canvas: Canvas, anatomy: Anatomy, contrast: Contrast, rng: np.random.Generator) -> None:
    """Small bowel loops in other places at every study, and the colon with gas and faeces.

    The root of the mesentery stays free: its nodes and vessels lie in fat.
    """
    for _ in range(LOOPS):
        points = _loop(rng)
        collapsed = rng.random() < COLLAPSED
        radius = rng.uniform(6, 9) if collapsed else rng.uniform(9, 13)
        gas, wall = rng.random() < 0.15, rng.uniform(3, 6)
        if mesentery_distance(points).min() < MESENTERY_MM + radius:
            continue
        paint_tube(canvas, points, np.full(3, radius), 45 + 0.25 * contrast.vein)
        if not collapsed:
            paint_tube(canvas, points, np.full(3, radius - wall), -850 if gas else contrast.bowel)
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
