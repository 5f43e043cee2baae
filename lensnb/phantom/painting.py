"""Painting a lesion into a CT grid: its shape, its border, what is inside it and what it follows."""

import numpy as np

from lensnb.phantom.anatomy import Anatomy, outline_distance
from lensnb.phantom.lesions import Lesion
from lensnb.phantom.looks import PHASES, Look, look_of
from lensnb.phantom.organs import Contrast
from lensnb.phantom.places import RIB_HALF_MM, RIB_MIDDLE_MM, vertebra_distance
from lensnb.phantom.shapes import Canvas, blend, block, weight

LYTIC_BEYOND_MM = 2.5  # how far a lytic lesion grows out of the bone; a sclerotic one stays inside (guesses)
SPICULE_SHARE, SPICULE_MM = 0.8, 6.0  # density of spicules against the lesion, their least length (guesses)
SMALLEST_CORE_MM = 3.0  # radius of a calcified core: the grid shows it
HILUM_OFF = 0.45  # from the middle to the hilum, share of the short radius (a guess)
MOTTLE_PER_MM = (0.85, 0.75, 0.65)  # waves of the texture along x, y and z, radians a mm


def paint_lesion(
    canvas: Canvas, anatomy: Anatomy, lesion: Lesion, growth: float, contrast: Contrast
) -> tuple[tuple, np.ndarray] | None:
    """Paint a lesion as it looks in a scan with this contrast.

    Returns (index of the block, share of each voxel (z, y, x)), None if it lies outside. The share is the lesion's
    body, without its spicules, which a radiologist does not measure.
    """
    look = look_of(lesion.type, lesion.look)
    plane, deep = lesion.radius * growth / anatomy.scale, lesion.radius * growth * lesion.depth
    edge = float(np.hypot(canvas.edge, look.margin_mm / anatomy.scale))
    pad = plane * 1.3 / np.sqrt(lesion.aspect) + edge + (max(plane, SPICULE_MM) if lesion.spicules else 0)
    high = deep * (1.35 + edge / plane) + 1
    found = block(canvas, np.subtract(lesion.centre, (pad, pad, high)), np.add(lesion.centre, (pad, pad, high)))
    if found is None:
        return None
    where, grid = found
    u, v, w = _own_axes(grid, lesion, plane, deep)
    k = np.sqrt(u * u + v * v + w * w)
    surface = _surface(lesion, u, v, w, k)
    outside = k / np.maximum(surface, 0.5) - 1  # in radii
    distance = outside * np.float32(plane)
    share = weight(distance, edge)
    if lesion.type == "bone":
        share = share * _in_bone(canvas, anatomy, lesion, grid)
    part = canvas.hu[where]
    value = lesion.contrast[PHASES.index(contrast.phase)] + (getattr(contrast, look.beside) if look.beside else 0)
    value = value + _mottle(grid, lesion, look.texture) if look.texture else np.float32(value)
    if lesion.spicules:
        blend(part, _spicules(lesion, (u, v, w), k, outside, plane), value)
    blend(part, share, value)
    if look.core and lesion.radius >= look.core_from:
        _paint_core(part, look, (u, v, w), (plane, canvas.edge), value)
    return where, share


def _own_axes(grid: tuple, lesion: Lesion, plane: float, deep: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Coordinates along the lesion's axes, 1 at its surface."""
    x, y, z = (g - np.float32(c) for g, c in zip(grid, lesion.centre, strict=True))
    cos, sin = np.float32(np.cos(lesion.turn)), np.float32(np.sin(lesion.turn))
    long_, short = (np.float32(plane * a) for a in (lesion.aspect**-0.5, lesion.aspect**0.5))
    return (cos * x + sin * y) / long_, (cos * y - sin * x) / short, z / np.float32(deep)


def _surface(lesion: Lesion, u: np.ndarray, v: np.ndarray, w: np.ndarray, k: np.ndarray) -> np.ndarray | np.float32:
    """How far out the surface lies in each direction, 1 for an ellipsoid."""
    surface = np.float32(1)
    for ku, kv, kw, phase, amplitude in lesion.waves:
        surface = surface + np.float32(amplitude) * np.sin(
            np.float32(ku) * u + np.float32(kv) * v + np.float32(kw) * w + np.float32(phase)
        )
    count, amplitude = lesion.lobes
    if count:  # none at the poles
        level = np.sqrt(u * u + v * v) / np.maximum(k, 1e-3)
        around = np.abs(np.cos(np.float32(count / 2) * np.arctan2(v, u) + np.float32(lesion.turn)))
        surface = surface + np.float32(amplitude) * level * (around - np.float32(0.64))  # the mean stays the same
    return surface


def _in_bone(canvas: Canvas, anatomy: Anatomy, lesion: Lesion, grid: tuple) -> np.ndarray:
    """The share of each voxel that lies in the bone, or near it for a lytic lesion."""
    beyond = np.float32(LYTIC_BEYOND_MM if "lytic" in lesion.attributes else 0)
    if lesion.organ == "rib":
        distance = np.abs(outline_distance(anatomy, *grid) + np.float32(RIB_MIDDLE_MM)) - np.float32(RIB_HALF_MM)
    else:
        distance = vertebra_distance(anatomy, grid[0], grid[1])
    return weight(distance - beyond, canvas.edge).astype(np.float32)


def _mottle(grid: tuple, lesion: Lesion, texture: float) -> np.ndarray:
    """HU of an uneven inside; the phase follows from the place, so that it moves with the lesion."""
    waves = (np.sin(np.float32(f) * (g - np.float32(c)) + np.float32(lesion.turn))
             for f, g, c in zip(MOTTLE_PER_MM, grid, lesion.centre, strict=True))  # fmt: skip
    x, y, z = waves
    return np.float32(2 * texture) * x * y * z


def _spicules(lesion: Lesion, axes: tuple, k: np.ndarray, outside: np.ndarray, plane: float) -> np.ndarray:
    """Shares of thin strands that leave the surface and fade; `outside`: how far out, in radii."""
    u, v, _ = axes
    angle = np.arctan2(v, u)
    bend = np.sin(2 * angle + np.float32(lesion.turn))
    faint = np.float32(0.7) + np.float32(0.3) * np.sin(3 * angle + np.float32(5 * lesion.turn))  # and shorter
    star = np.clip(2 * np.cos(np.float32(lesion.spicules) * angle + np.float32(1.3) * bend) - np.float32(0.7), 0, 1)
    level = np.sqrt(u * u + v * v) / np.maximum(k, 1e-3)
    reach = faint * np.float32(max(1.0, SPICULE_MM / plane))
    return np.float32(SPICULE_SHARE) * star * faint * level * np.clip(1 - outside / reach, 0, 1) * (outside > -0.5)


def _paint_core(part: np.ndarray, look: Look, axes: tuple, size: tuple, value: np.ndarray | np.float32) -> None:
    """Paint what lies inside, an ellipsoid; `size`: the lesion's radius and the canvas's edge."""
    (u, v, w), (plane, edge) = axes, size
    radius = look.core_size * plane
    if look.core == "calcium":
        radius = max(radius, SMALLEST_CORE_MM)
    if look.core == "hilum":  # to one side
        v = v - np.float32(HILUM_OFF)
    distance = np.sqrt(u * u + v * v + w * w) * np.float32(plane) - np.float32(radius)
    core = weight(distance, edge)
    blend(part, core, value + np.float32(look.core_hu) if look.core == "rim" else np.float32(look.core_hu))
