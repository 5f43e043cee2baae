"""Lesions: where they sit, what they look like, and the boxes of what can be seen of them."""

from dataclasses import dataclass

import numpy as np

from lensnb.phantom import anatomy as body
from lensnb.phantom.shapes import Canvas, blend, block, weight

# in-plane radius in mm; at the phantoms' 3 mm grid a lung nodule has 2.2 to 8.5 pixels
RADIUS_MM = {
    "lung": (6.6, 25.0),
    "liver": (7.5, 25.0),
    "node": (9.0, 19.0),
    "kidney": (8.4, 15.0),
    "bone": (8.4, 14.0),
    "soft tissue": (8.4, 15.0),
    "adrenal": (8.4, 14.0),
    "spleen": (8.4, 15.0),
}
# mean number of lesions of each type in one sub-volume of 96 mm
RATES = {
    "chest": {"lung": 3.0, "node": 2.1, "bone": 0.35, "soft tissue": 0.35},
    "abdomen": {
        "liver": 2.5,
        "node": 2.2,
        "kidney": 0.6,
        "bone": 0.25,
        "soft tissue": 0.3,
        "adrenal": 0.25,
        "spleen": 0.2,
    },
    "base": {"lung": 1.7, "liver": 2.0, "node": 1.3, "bone": 0.3, "soft tissue": 0.3, "spleen": 0.2},
}
MOST = 6  # of one type in one sub-volume
SELECTED = 2.0
NODE_STATIONS = {  # body mm; the last number is how far along z (mm) nodes of that station lie from the point
    "pretracheal lymph node": (-13, -14, 122, 14),
    "aorticopulmonary window": (30, -4, 116, 6),
    "subcarinal lymph node": (2, 24, 88, 8),
    "right hilum lymph node": (-48, 8, 88, 12),
    "left hilum lymph node": (52, 12, 88, 12),
    "anterior mediastinum": (6, -52, 118, 22),
    "superior mediastinum lymph node": (-8, -34, 155, 10),
    "cardiophrenic": (-34, -52, 8, 14),
    "paraaortic": (32, 24, -128, 50),
    "paracaval lymph node": (-40, 22, -150, 24),
    "retrocrural lymph node": (26, 40, -40, 18),
    "porta Hepatis lymph node": (-28, -6, -86, 10),
    "mesentery lymph node": (16, -26, -138, 34),
    "peripancreatic lymph node": (24, -22, -92, 10),
    "retroperitoneum lymph node": (-5, 12, -150, 34),
}


@dataclass(frozen=True)
class Lesion:
    """A lesion of a patient, the same in all studies but for its size; lengths in mm, centre in body mm."""

    identity: int
    type: str
    organ: str
    side: str
    centre: tuple[float, float, float]
    radius: float  # in-plane
    aspect: float  # short over long in-plane radius
    turn: float  # of the long axis, radians
    depth: float  # z radius over in-plane radius
    waves: tuple  # surface irregularity: (kx, ky, kz, phase, amplitude)
    contrast: float  # HU against the organ, or HU itself for types without a parent organ's HU
    attributes: tuple[str, ...]


def draw_lesions(
    rng: np.random.Generator,
    anatomy: body.Anatomy,
    region: str,
    z_range: tuple[float, float],
    first_identity: int = 0,
    selected_for: str = "",
) -> list[Lesion]:
    """Draw the lesions of one sub-volume whose studies all cover `z_range` (mm), without overlaps.

    A patient selected for one type of lesion has SELECTED times as many of it.
    """
    lesions: list[Lesion] = []
    for kind, rate in RATES[region].items():
        for _ in range(min(MOST, rng.poisson(rate * (SELECTED if kind == selected_for else 1)))):
            low, high = RADIUS_MM[kind]
            radius = low * (high / low) ** (rng.random() ** 1.15)
            for _ in range(6):
                place = _place(rng, anatomy, kind, radius, z_range, lesions)
                if place is not None:
                    break
                radius = max(low, radius * 0.85)
            if place is not None:
                lesions.append(_draw_look(rng, kind, radius, place, first_identity + len(lesions)))
    return lesions


def _place(
    rng: np.random.Generator,
    anatomy: body.Anatomy,
    kind: str,
    radius: float,
    z_range: tuple[float, float],
    others: list[Lesion],
) -> tuple[np.ndarray, str, str] | None:
    """Find a free centre for a lesion; returns (centre, organ, side) or None."""
    points, organs = _candidates(rng, anatomy, kind, radius / anatomy.scale, z_range)
    for point, organ in zip(points, organs, strict=True):
        if not z_range[0] <= point[2] <= z_range[1]:
            continue
        scale = np.array([anatomy.scale, anatomy.scale, 1])
        gaps = [np.linalg.norm((point - o.centre) * scale) - radius - o.radius for o in others]
        if not gaps or min(gaps) > 4:
            return point, organ, "right" if point[0] < 0 else "left"
    return None


def _candidates(
    rng: np.random.Generator, anatomy: body.Anatomy, kind: str, radius: float, z_range: tuple[float, float]
) -> tuple[np.ndarray, list[str]]:
    """Propose centres (n, 3) in body mm with an organ name each; `radius` in body mm."""
    n = 300
    points = np.stack([rng.uniform(-130, 130, n), rng.uniform(-90, 90, n), rng.uniform(*z_range, n)], axis=1)
    x, y, z = points.T
    if kind == "lung":
        points = points[body.lung_distance(anatomy, x, y, z) < -min(0.8 * radius, 24)]
        return points, [_lobe(p) for p in points]
    if kind == "liver":
        points = points[body.liver_distance(anatomy, x, y, z) < -0.75 * radius]
        return points, ["liver"] * len(points)
    if kind == "spleen":
        points = points[body.spleen_distance(anatomy, x, y, z) < -min(0.8 * radius, 9)]
        return points, ["spleen"] * len(points)
    if kind == "node":
        names = rng.permutation(list(NODE_STATIONS))
        # nearer the middle of a free space than half of its own size: big ones bulge into what surrounds them
        spots = [np.array(NODE_STATIONS[name]) for name in names]
        points = np.array([s[:3] + rng.uniform(-1, 1, 3) * (4, 4, s[3]) for s in spots])
        outward = np.sign(points[:, :1]) * np.maximum(0, radius - 10) * (np.abs(points[:, :1]) > 20)
        points[:, :1] += 0.8 * outward
        return points, [str(name) for name in names]
    if kind == "kidney":
        side = str(rng.choice(["right", "left"]))
        centre, radii, _ = body.kidney(anatomy, side)
        angle, height = rng.uniform(-0.4 * np.pi, 0.9 * np.pi, n), rng.uniform(-0.7, 0.7, n)
        outward = np.stack([np.cos(angle) * np.sign(centre[0]), np.sin(angle), height], axis=1)
        return centre + outward * np.array(radii) * 0.8, [f"{side} kidney"] * n
    if kind == "adrenal":
        side = str(rng.choice(["right", "left"]))
        centre = np.array([-42.0 if side == "right" else 42.0, 42, -76])
        return centre + rng.normal(0, 2.5, (8, 3)), [f"{side} adrenal gland"] * 8
    if kind == "bone":
        return _bone_candidates(rng, anatomy, points)
    outline = body.outline_distance(anatomy, x, y, z)
    in_fat = (np.abs(outline - 0.4 * anatomy.fat) < 4) & (np.abs(y) < 80)
    points = points[in_fat]
    return points, ["chest wall" if p[2] > -30 else "abdominal wall" for p in points]


def _bone_candidates(
    rng: np.random.Generator, anatomy: body.Anatomy, points: np.ndarray
) -> tuple[np.ndarray, list[str]]:
    """Centres in vertebrae and in ribs at some of the proposed points (n, 3), in random order, with their names."""
    centre = body.spine_centre(anatomy)
    vertebra = points[:12].copy()
    vertebra[:, :2] = centre + rng.normal(0, 4, (len(vertebra), 2))
    shell = body.outline_distance(anatomy, *points.T)
    y_lowest = np.interp(points[:, 2], [-150, -110, -60, 10, 200], [70, 40, -5, -75, -80])
    rib = points[(np.abs(shell + 13) < 3) & (points[:, 1] > y_lowest) & (points[:, 1] < 60)]
    both = np.concatenate([vertebra, rib[:8]])
    names = ["thoracic spine" if z > -60 else "lumbar" for z in vertebra[:, 2]] + ["rib"] * len(rib[:8])
    order = rng.permutation(len(both))
    return both[order], [names[i] for i in order]


def _lobe(point: np.ndarray) -> str:
    """The lobe of a point in a lung, by the planes of the fissures."""
    side = "right" if point[0] < 0 else "left"
    low = point[2] + 0.8 * -point[1] < 62  # the oblique fissure falls forwards
    if side == "left":
        return "left lower lobe" if low and point[1] > -25 else "left upper lung"
    if point[1] < 5 and point[2] < 75:
        return "right mid lung"
    return "right lower lobe" if low or point[2] < 75 else "right upper lobe"


def _draw_look(
    rng: np.random.Generator, kind: str, radius: float, place: tuple[np.ndarray, str, str], identity: int
) -> Lesion:
    """Draw shape, density and attributes; every attribute can be seen in the picture. `place`: as from `_place`."""
    centre, organ, side = place
    attributes = []
    rough = rng.uniform(0.02, 0.07)
    contrast = rng.uniform(28, 55)
    chance = rng.random()
    if kind == "lung":
        if chance < 0.15:
            attributes, contrast, rough = ["ground-glass opacity"], rng.uniform(-520, -400), 0.06
        elif chance < 0.27:
            attributes, contrast = ["calcified"], rng.uniform(330, 520)
        elif chance < 0.37 and radius > 10:
            attributes = ["cavitary"]
        else:
            attributes = ["solid"]
        if "calcified" not in attributes:
            spiculated = rng.random() < 0.35
            attributes.append("spiculated" if spiculated else "circumscribed")
            rough = 0.14 if spiculated else rough
    elif kind == "liver":
        contrast = -rng.uniform(32, 75)
        attributes = ["hypoattenuation", "indistinct" if rng.random() < 0.3 else "circumscribed"]
        attributes += ["necrosis"] if radius > 13 and chance < 0.35 else ["calcified"] if chance > 0.9 else []
    elif kind == "node":
        contrast = rng.uniform(18, 50)
        attributes = ["necrosis"] if radius > 11 and chance < 0.25 else ["calcified"] if chance > 0.88 else ["solid"]
        rough += 0.03 if rng.random() < 0.3 else 0
    elif kind == "kidney":
        cyst = chance < 0.5
        contrast, attributes = (
            (rng.uniform(-2, 14), ["cyst", "hypoattenuation"]) if cyst else (rng.uniform(48, 78), ["exophytic"])
        )
    elif kind == "bone":
        sclerotic = chance < 0.5
        contrast, attributes = (rng.uniform(560, 800), ["sclerotic"]) if sclerotic else (rng.uniform(20, 60), ["lytic"])
    elif kind == "spleen":
        contrast, attributes = -rng.uniform(40, 75), ["hypoattenuation"]
    elif kind == "adrenal":
        contrast, attributes = rng.uniform(0, 45), ["hypoattenuation" if contrast < 38 else "solid"]
    else:
        attributes = ["subcutaneous"]
    waves = []
    for _ in range(5):
        direction = rng.normal(0, 1, 3)
        direction *= rng.uniform(1.6, 3.2) / np.linalg.norm(direction)
        waves.append((*direction, rng.uniform(0, 2 * np.pi), rng.normal(0, rough)))
    if "spiculated" in attributes:
        waves += [(*rng.normal(0, 5, 3), rng.uniform(0, 2 * np.pi), 0.10) for _ in range(3)]
    return Lesion(
        identity=identity,
        type=kind,
        organ=organ,
        side=side,
        centre=tuple(float(v) for v in centre),
        radius=float(radius),
        aspect=float(rng.uniform(0.74, 1)),
        turn=float(rng.uniform(0, np.pi)),
        depth=float(rng.uniform(0.7, 0.95)),
        waves=tuple(waves),
        contrast=float(contrast),
        attributes=tuple(attributes),
    )


def paint_lesion(canvas: Canvas, anatomy: body.Anatomy, lesion: Lesion, growth: float, organ_hu: float) -> tuple | None:
    """Paint a lesion; returns (index of the block, share of each voxel (z, y, x)), None if it lies outside."""
    radius = lesion.radius * growth
    plane, deep = radius / anatomy.scale, radius * lesion.depth
    pad = plane * 1.5 + 2 * canvas.edge
    found = block(
        canvas,
        np.subtract(lesion.centre, (pad, pad, deep * 1.6 + 2)),
        np.add(lesion.centre, (pad, pad, deep * 1.6 + 2)),
    )
    if found is None:
        return None
    where, (x, y, z) = found
    cos, sin = np.float32(np.cos(lesion.turn)), np.float32(np.sin(lesion.turn))
    x, y, z = (
        (x - np.float32(lesion.centre[0])) / plane,
        (y - np.float32(lesion.centre[1])) / plane,
        (z - lesion.centre[2]) / deep,
    )
    z = z.astype(np.float32)
    long_, short = np.float32(np.sqrt(1 / lesion.aspect)), np.float32(np.sqrt(lesion.aspect))
    u, v = (cos * x + sin * y) / long_, (cos * y - sin * x) / short
    k = np.sqrt(u * u + v * v + z * z)
    bumps = np.float32(1)
    for kx, ky, kz, phase, amplitude in lesion.waves:
        bumps = bumps + np.float32(amplitude) * np.sin(
            np.float32(kx) * u + np.float32(ky) * v + np.float32(kz) * z + np.float32(phase)
        )
    distance = (k / np.maximum(bumps, 0.5) - 1) * np.float32(plane)
    edge = canvas.edge * (2.0 if "indistinct" in lesion.attributes else 1.0)
    share = weight(distance, edge)
    part = canvas.hu[where]
    relative = lesion.type in ("liver", "spleen")
    value = organ_hu + lesion.contrast if relative else lesion.contrast
    blend(part, share, np.float32(value))
    if "necrosis" in lesion.attributes or "cavitary" in lesion.attributes:
        core = weight(distance + 0.42 * plane, canvas.edge)
        blend(part, core, np.float32(-700 if "cavitary" in lesion.attributes else value - 38))
    if "calcified" in lesion.attributes and lesion.type != "lung":
        blend(part, weight(distance + 0.62 * plane, canvas.edge), np.float32(380))
    return where, share


def visible_boxes(where: tuple, share: np.ndarray) -> np.ndarray:
    """Boxes of the visible blob, one per slice: (n, 5) slice index, x1, y1, x2, y2 in pixel-centre coordinates.

    The border is where the soft edge has half its height, interpolated between pixels; a slice counts if any voxel
    reaches half.
    """
    rows = []
    for offset, plane in enumerate(share):
        if plane.max() < 0.5:
            continue
        x1, x2 = _half_maximum(plane.max(axis=0))
        y1, y2 = _half_maximum(plane.max(axis=1))
        rows.append(
            (
                where[0].start + offset,
                where[2].start + x1,
                where[1].start + y1,
                where[2].start + x2,
                where[1].start + y2,
            )
        )
    return np.array(rows, dtype=float).reshape(-1, 5)


def _half_maximum(profile: np.ndarray) -> tuple[float, float]:
    """First and last crossing of 0.5 along a profile, in samples."""
    above = np.flatnonzero(profile >= 0.5)
    first, last = int(above[0]), int(above[-1])
    low = float(first)
    if first > 0:
        low -= float((profile[first] - 0.5) / max(profile[first] - profile[first - 1], 1e-6))
    high = float(last)
    if last < len(profile) - 1:
        high += float((profile[last] - 0.5) / max(profile[last] - profile[last + 1], 1e-6))
    return low, high
