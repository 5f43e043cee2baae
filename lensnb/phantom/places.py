"""Where lesions of each type may lie: proposed centres in body mm, each with the name of its place."""

import numpy as np

from lensnb.phantom import anatomy as body
from lensnb.phantom.fat import clearance
from lensnb.phantom.shapes import ellipsoid_distance

PROPOSED = 300
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
AROUND_STATION_MM = 12.0  # in the axial plane
PER_STATION = 24  # places that are looked at
CENTRE_IN_FAT_MM = 2.5  # from a node's centre to the next thing that is no fat, at least
INTO_LUNG = ("right hilum lymph node", "left hilum lymph node")  # grow into the lung, not into the vessels
VERTEBRA_MM = (19.5, 15.5)  # in-plane radii of a vertebral body
RIB_MIDDLE_MM, RIB_HALF_MM = 13.5, 4.2  # depth of the ribs' middle under the muscles' surface, half their thickness
KIDNEY_FAT_MM = 9.0  # around each kidney
RIB_PERIOD_MM, VERTEBRA_PERIOD_MM = 29.0, 30.0


def candidates(
    rng: np.random.Generator,
    anatomy: body.Anatomy,
    kind: str,
    look: str,
    radius: float,
    z_range: tuple[float, float],
) -> tuple[np.ndarray, list[str]]:
    """Propose centres (n, 3) in body mm with a place each; `radius` in body mm, `look` as in Lesion."""
    points = np.stack([rng.uniform(low, high, PROPOSED) for low, high in ((-130, 130), (-90, 90), z_range)], axis=1)
    x, y, z = points.T
    if kind == "lung":
        return _in_lung(anatomy, points, radius)
    if kind == "liver":
        points = points[body.liver_distance(anatomy, x, y, z) < -min(0.75 * radius, 22)]
        beside = [(body.kidney(anatomy, "right"), KIDNEY_FAT_MM), (body.gallbladder(anatomy), 0)]
        for (centre, radii, turn), more in beside:  # they press into the liver
            off = ellipsoid_distance(tuple(points.T), centre, np.add(radii, more), turn)
            points = points[off > min(0.6 * radius, 12)]
        return points, ["liver"] * len(points)
    if kind == "spleen":
        points = points[body.spleen_distance(anatomy, x, y, z) < -min(0.8 * radius, 6)]
        return points, ["spleen"] * len(points)
    if kind == "node":
        return node_places(rng, anatomy, radius, z_range)
    if kind == "kidney":
        side = str(rng.choice(["right", "left"]))
        centre, radii, _ = body.kidney(anatomy, side)
        angle, height = rng.uniform(-0.4 * np.pi, 0.9 * np.pi, PROPOSED), rng.uniform(-0.7, 0.7, PROPOSED)
        outward = np.stack([np.cos(angle) * np.sign(centre[0]), np.sin(angle), height], axis=1)
        return centre + outward * np.array(radii) * rng.choice([0.62, 0.95]), [f"{side} kidney"] * PROPOSED
    if kind == "adrenal":
        side = str(rng.choice(["right", "left"]))
        return body.adrenal(side) + rng.normal(0, 2.5, (8, 3)), [f"{side} adrenal gland"] * 8
    if kind == "bone":
        return _in_bone(rng, anatomy, points)
    return _in_wall(anatomy, points, look, radius)


def node_places(
    rng: np.random.Generator, anatomy: body.Anatomy, radius: float, z_range: tuple[float, float], hilar: bool = True
) -> tuple[np.ndarray, list[str]]:
    """Centres (n, 3) of nodes of a radius (body mm) in the fat of stations, in random order, with their stations.

    A large node bulges into what surrounds it, one of the lungs' hila into the lung. `hilar`: with those stations.
    """
    names = [name for name in NODE_STATIONS if _reaches(name, z_range) and (hilar or name not in INTO_LUNG)]
    spots = np.array([NODE_STATIONS[name] for name in names]).reshape(-1, 1, 4)
    spread = np.broadcast_to([[[AROUND_STATION_MM, AROUND_STATION_MM, 1]]], (len(names), 1, 3)) * 1.0
    spread[:, :, 2] = spots[:, :, 3]
    points = (spots[:, :, :3] + spread * rng.uniform(-1, 1, (len(names), PER_STATION, 3))).reshape(-1, 3)
    places = np.repeat(names, PER_STATION)
    to_lung, to_others = clearance(anatomy, points)
    enough = max(0.55 * radius - 0.6 * max(0.0, radius - 7), CENTRE_IN_FAT_MM)
    into = np.isin(places, INTO_LUNG)
    fits = (to_others > np.where(into, CENTRE_IN_FAT_MM, enough)) & (to_lung > np.where(into, -0.6 * radius, enough))
    fits &= (points[:, 2] >= z_range[0]) & (points[:, 2] <= z_range[1])
    order = rng.permutation(np.flatnonzero(fits))
    return points[order], [str(places[i]) for i in order]


def vertebra_distance(anatomy: body.Anatomy, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Signed distance (mm) to the vertebral bodies, whatever z."""
    sx, sy = body.spine_centre(anatomy)
    k = np.sqrt(((x - sx) / np.float32(VERTEBRA_MM[0])) ** 2 + ((y - sy) / np.float32(VERTEBRA_MM[1])) ** 2)
    return (k - 1) * np.float32(np.sqrt(VERTEBRA_MM[0] * VERTEBRA_MM[1]))


def rib_wave(anatomy: body.Anatomy, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """1 in the middle of a rib's height, -1 between two ribs: they run down from the back to the front."""
    return np.cos((z - 0.6 * y) * np.float32(2 * np.pi / RIB_PERIOD_MM) + np.float32(anatomy.rib_phase))


def disc_wave(anatomy: body.Anatomy, z: np.ndarray) -> np.ndarray:
    """1 in the middle of a disc, -1 in the middle of a vertebra."""
    return np.cos(z * np.float32(2 * np.pi / VERTEBRA_PERIOD_MM) + np.float32(anatomy.disc_phase))


def ribs_end(z: np.ndarray) -> np.ndarray:
    """The y (mm) in front of which there are no ribs."""
    return np.interp(z, [-150, -110, -60, 10, 200], [70, 40, -5, -75, -80])


def _reaches(name: str, z_range: tuple[float, float]) -> bool:
    *_, z, high = NODE_STATIONS[name]
    return z + high >= z_range[0] and z - high <= z_range[1]


def _in_lung(anatomy: body.Anatomy, points: np.ndarray, radius: float) -> tuple[np.ndarray, list[str]]:
    deep = min(0.8 * radius, 20)
    points = points[body.lung_distance(anatomy, *points.T) < -deep]
    points = points[ellipsoid_distance(tuple(points.T), *body.heart(anatomy)) > deep]  # it is painted over the lung
    return points, [_lobe(p) for p in points]


def _in_wall(anatomy: body.Anatomy, points: np.ndarray, look: str, radius: float) -> tuple[np.ndarray, list[str]]:
    """In the fat under the skin, large ones reaching into the muscles below; or in the muscles of the back."""
    x, y, z = points.T
    outline = body.outline_distance(anatomy, x, y, z)
    if look == "muscle metastasis":
        sx, sy = body.spine_centre(anatomy)
        beside = ((np.abs(x - sx) - 29) / 17) ** 2 + ((y - sy - 23) / 9) ** 2  # the erectors of the spine
        points = points[beside < 1]
    else:
        deep = 0.5 * anatomy.fat - max(0.0, radius - 0.5 * anatomy.fat)
        points = points[np.abs(outline - deep) < 3]
    return points, ["chest wall" if p[2] > -30 else "abdominal wall" for p in points]


def _in_bone(rng: np.random.Generator, anatomy: body.Anatomy, points: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Centres in vertebrae and in ribs at some of the proposed points (n, 3), in random order, with their names."""
    vertebra = points[:40].copy()
    vertebra[:, :2] = body.spine_centre(anatomy) + rng.normal(0, 5, (len(vertebra), 2))
    vertebra = vertebra[disc_wave(anatomy, vertebra[:, 2]) < 0.2][:12]
    x, y, z = points.T
    off = body.outline_distance(anatomy, x, y, z) + RIB_MIDDLE_MM
    rib = points[(np.abs(off) < 4) & (y > ribs_end(z) + 5) & (y < 60) & (rib_wave(anatomy, y, z) > 0.3)]
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
