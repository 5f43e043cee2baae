"""What is measured of a lesion that can be seen: its box on every slice and its two RECIST diameters.

Both follow the contour at which the soft edge has half its height, interpolated between pixels. `where` is the index
(z, y, x) of a block of the picture and `share` the lesion's share of each of its voxels, as
`paint_lesion` gives them; places are pixel-centre coordinates of the whole picture.
"""

import numpy as np

STEP_PX = 0.25  # of the finer raster on which contour and perpendicular diameter are found

Diameter = tuple[tuple[float, float], tuple[float, float]]


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


def recist_diameters(where: tuple, share: np.ndarray, z: int) -> tuple[Diameter, Diameter]:
    """The longest diameter of a lesion on slice `z` of the picture and the longest one perpendicular to it.

    Each is ((x, y), (x, y)) in pixel-centre coordinates of the picture, as a radiologist measures by RECIST 1.1 and
    as DeepLesion's bookmarks do. The hull of the four ends, with a margin, is DeepLesion's box. Raises ValueError if
    the lesion reaches half its height nowhere on the slice.
    """
    plane = share[z - where[0].start]
    if plane.max() < 0.5:
        raise ValueError(f"slice {z} does not show the lesion")
    corner = np.array([where[2].start, where[1].start])
    return tuple(tuple(tuple(map(float, end + corner)) for end in pair) for pair in _diameters(plane))


def _diameters(plane: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The two diameters in a plane (y, x): each two points (x, y), in its own pixels."""
    points = _contour(plane)
    apart = np.linalg.norm(points[:, None] - points[None], axis=2)
    first, last = np.unravel_index(np.argmax(apart), apart.shape)
    start, end = points[first], points[last]
    length = apart[first, last]
    if length < 1e-6:  # a single point at half height
        return np.stack([start, end]), np.stack([start, end])
    along = (end - start) / length
    across = np.array([-along[1], along[0]])
    t = np.arange(0, length + STEP_PX, STEP_PX)
    reach = np.abs((points - start) @ across).max() + 1
    s = np.arange(-reach, reach + STEP_PX, STEP_PX)
    grid = start + t[:, None, None] * along + s[None, :, None] * across
    profiles = _sample(plane, grid)
    seen = profiles.max(axis=1) >= 0.5
    if not seen.any():  # so small that it lies between the points looked at
        middle = (start + end) / 2
        return np.stack([start, end]), np.stack([middle, middle])
    ends = np.array([_half_maximum(profile) for profile in profiles[seen]]) * STEP_PX - reach
    widest = int(np.argmax(ends[:, 1] - ends[:, 0]))
    middle = start + t[seen][widest] * along
    return np.stack([start, end]), middle + ends[widest][:, None] * across


def _contour(plane: np.ndarray) -> np.ndarray:
    """Points (n, 2) as x, y at which the plane crosses half its height, on a finer raster, or at its rim."""
    height, width = plane.shape
    x, y = (np.arange(0, size - 1 + STEP_PX / 2, STEP_PX) for size in (width, height))
    fine = _sample(plane, np.stack(np.meshgrid(x, y), axis=-1))
    points = []
    for axis, (low, high) in enumerate(((fine[:-1], fine[1:]), (fine[:, :-1], fine[:, 1:]))):
        rows, columns = np.nonzero((low >= 0.5) != (high >= 0.5))
        a, b = low[rows, columns], high[rows, columns]
        part = (0.5 - a) / (b - a)
        points.append(np.stack([columns + part * (axis == 1), rows + part * (axis == 0)], axis=1))
    rows, columns = np.nonzero(fine >= 0.5)
    rim = (rows == 0) | (columns == 0) | (rows == len(y) - 1) | (columns == len(x) - 1)
    points.append(np.stack([columns[rim], rows[rim]], axis=1))
    found = np.concatenate(points)
    return (found if len(found) else np.stack([columns, rows], axis=1)) * STEP_PX


def _sample(plane: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The plane's values at points (..., 2) as x, y, bilinear; nothing outside."""
    height, width = plane.shape
    x = np.clip(points[..., 0], 0, width - 1)
    y = np.clip(points[..., 1], 0, height - 1)
    x0, y0 = np.minimum(x.astype(int), max(width - 2, 0)), np.minimum(y.astype(int), max(height - 2, 0))
    x1, y1 = np.minimum(x0 + 1, width - 1), np.minimum(y0 + 1, height - 1)
    right, down = x - x0, y - y0
    top = plane[y0, x0] * (1 - right) + plane[y0, x1] * right
    bottom = plane[y1, x0] * (1 - right) + plane[y1, x1] * right
    inside = ((points >= 0) & (points <= (width - 1, height - 1))).all(axis=-1)
    return np.where(inside, top * (1 - down) + bottom * down, 0)


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
