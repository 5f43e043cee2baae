"""Soft-edged solids painted into a CT grid.

Coordinates are body millimetres (x to the patient's left, y to the back, z to the head), arrays are (z, y, x)
float32. A distance is negative inside a solid; painting turns it into a partial-volume weight over one soft edge.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Canvas:
    """A CT grid being painted: `hu` (z, y, x) and ascending x, y, z of its voxel centres in body mm."""

    hu: np.ndarray
    x: np.ndarray
    y: np.ndarray
    z: np.ndarray
    edge: float


def blank_canvas(x: np.ndarray, y: np.ndarray, z: np.ndarray, edge: float) -> Canvas:
    """Make a canvas of air."""
    x, y, z = (np.asarray(a, dtype=np.float32) for a in (x, y, z))
    return Canvas(np.full((len(z), len(y), len(x)), -1000, dtype=np.float32), x, y, z, float(edge))


def block(canvas: Canvas, low: tuple, high: tuple) -> tuple[tuple, tuple] | None:
    """Find the part of the canvas between two corners (x, y, z); None if it is empty.

    Returns the index of the block and open grids x (1,1,n), y (1,n,1), z (n,1,1).
    """
    cuts = [
        slice(*np.searchsorted(axis, (a, b)))
        for axis, a, b in zip((canvas.x, canvas.y, canvas.z), low, high, strict=True)
    ]
    if any(cut.start >= cut.stop for cut in cuts):
        return None
    sx, sy, sz = cuts
    return (sz, sy, sx), (canvas.x[None, None, sx], canvas.y[None, sy, None], canvas.z[sz, None, None])


def weight(distance: np.ndarray, edge: float) -> np.ndarray:
    """Turn a signed distance (mm) into a share of the voxel, 0.5 at the surface."""
    return np.clip(0.5 - distance * np.float32(1 / edge), 0, 1)


def blend(part: np.ndarray, share: np.ndarray, value: float | np.ndarray) -> None:
    """Mix `value` HU into `part` (a view of the canvas) by `share`."""
    part += share * (value - part)


def ellipsoid_distance(grid: tuple, centre: tuple, radii: tuple, turn: float = 0.0) -> np.ndarray:
    """Approximate signed distance (mm) to an ellipsoid turned by `turn` radians in the axial plane."""
    x, y, z = (
        grid[0] - np.float32(centre[0]),
        grid[1] - np.float32(centre[1]),
        grid[2] - np.float32(centre[2]),
    )
    if turn:
        cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
        x, y = cos * x + sin * y, cos * y - sin * x
    k = np.sqrt((x / np.float32(radii[0])) ** 2 + (y / np.float32(radii[1])) ** 2 + (z / np.float32(radii[2])) ** 2)
    return (k - 1) * np.float32(np.sqrt(radii[0] * radii[1]))


def paint_ellipsoid(
    canvas: Canvas, centre: tuple, radii: tuple, value: float, turn: float = 0.0, inside: np.ndarray | None = None
) -> None:
    """Paint an ellipsoid; `inside` (z, y, x) restricts it to another organ's share."""
    reach = max(radii[0], radii[1]) if turn else None
    pad = [(reach or radius) + 2 * canvas.edge for radius in radii[:2]] + [radii[2] + 2 * canvas.edge]
    found = block(canvas, np.subtract(centre, pad), np.add(centre, pad))
    if found is None:
        return
    where, grid = found
    share = weight(ellipsoid_distance(grid, centre, radii, turn), canvas.edge)
    blend(canvas.hu[where], share if inside is None else share * inside[where], value)


def paint_tube(
    canvas: Canvas, points: np.ndarray, radii: np.ndarray, value: float, inside: np.ndarray | None = None
) -> None:
    """Paint a tube along a polyline `points` (n, 3) whose radius runs through `radii` (n,)."""
    for start, stop, r0, r1 in zip(points[:-1], points[1:], radii[:-1], radii[1:], strict=True):
        pad = max(r0, r1) + canvas.edge
        found = block(canvas, np.minimum(start, stop) - pad, np.maximum(start, stop) + pad)
        if found is None:
            continue
        where, grid = found
        along = np.asarray(stop, np.float32) - np.asarray(start, np.float32)
        x, y, z = (g - np.float32(s) for g, s in zip(grid, start, strict=True))
        t = np.clip((x * along[0] + y * along[1] + z * along[2]) / np.float32(along @ along + 1e-6), 0, 1)
        far = np.sqrt((x - t * along[0]) ** 2 + (y - t * along[1]) ** 2 + (z - t * along[2]) ** 2)
        share = weight(far - (np.float32(r0) + t * np.float32(r1 - r0)), canvas.edge)
        blend(canvas.hu[where], share if inside is None else share * inside[where], value)
