"""CT volumes on one grid: orientation, resampling, border crop, and the way back.

Every volume, whatever its file, ends as int16 HU (z, y, x) with x growing to the patient's left, y to the
back and z to the head, and the spacing that the profile asks for. `Geometry` keeps the exact way back to the
original voxels and to patient millimetres.
"""

from dataclasses import dataclass

import numpy as np

from lensnb.ct.volume import CT

HU_RANGE = (-1024, 3071)  # 12 bits, the range of DeepLesion and of the network's window; pads and metal are clipped
BODY_HU = -768  # brighter voxels belong to a body or to what it lies on (MULAN's border clip)
OPENING_MM = 5.6  # thinner structures do not count: 7 pixels of 0.8 mm in MULAN
MAX_EXTENT_MM = 3000  # longer than any table of a scanner
MAX_TILT_DEGREES = 30  # gantry tilt reaches this; at 45 degrees the axes of an image have no name any more


@dataclass(frozen=True)
class Geometry:
    """Where a grid lies in its original volume and in the patient.

    grid_to_original: 4x4, grid index (x, y, z, 1) -> original voxel index. original_to_mm: 4x4, original
    voxel index -> patient mm (LPS). original_shape: (z, y, x). spacing_mm: of the grid, x, y, z. first_slice:
    number of the original slice with index 0.
    """

    grid_to_original: np.ndarray
    original_to_mm: np.ndarray
    original_shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    first_slice: int = 0


def normalise(ct: CT, spacing_mm: tuple[float, float, float], crop: bool = True) -> tuple[np.ndarray, Geometry]:
    """Bring a CT to the grid: patient axes, `spacing_mm` (x, y, z), linear interpolation, borders cropped
    (LENS Sec. VI-A).

    Axes are permuted and flipped to the nearest patient axes; small tilts are not resampled away but stay,
    exactly, in the geometry. The first grid voxel lies on the first original voxel of the oriented volume,
    then the crop takes away rows and columns of air. Returns int16 HU (z, y, x) and its Geometry.
    Raises ValueError for a volume that is not 3D, has a degenerate matrix, or is tilted by over 30 degrees,
    and for one longer than 3 m, whose spacing must be wrong.
    """
    if ct.hu.ndim != 3 or 0 in ct.hu.shape:
        raise ValueError(f"a CT needs three dimensions, none empty; this one has shape {ct.hu.shape}")
    # here, so that what only asks for the way back (training, detection) needs no nibabel
    from nibabel.orientations import apply_orientation, inv_ornt_aff

    orientation = nearest_axes(ct.index_to_mm)
    hu = apply_orientation(ct.hu.T, orientation).T
    oriented_to_original = inv_ornt_aff(orientation, ct.hu.T.shape)
    spacing = ct.spacing_mm[np.argsort(orientation[:, 0])]
    step = np.array(spacing_mm, dtype=float) / spacing
    size = np.floor((np.array(hu.shape[::-1]) - 1) / step + 1e-6).astype(int) + 1
    extent_mm = size * spacing_mm
    if (extent_mm > MAX_EXTENT_MM).any():
        raise ValueError(f"the volume would be {extent_mm.max() / 1000:.0f} m long; is its spacing in mm?")
    x, y, z = (np.arange(n) * s for n, s in zip(size, step, strict=True))
    rows, columns = border_crop(hu, y, x, spacing_mm) if crop else (slice(0, len(y)), slice(0, len(x)))
    grid_to_oriented = np.diag([*step, 1.0])
    grid_to_oriented[0, 3] = columns.start * step[0]
    grid_to_oriented[1, 3] = rows.start * step[1]
    geometry = Geometry(
        oriented_to_original @ grid_to_oriented,
        ct.index_to_mm,
        ct.hu.shape,
        tuple(map(float, spacing_mm)),
        ct.first_slice,
    )
    return resample(hu, z, y[rows], x[columns]), geometry


def nearest_axes(index_to_mm: np.ndarray) -> np.ndarray:
    """Along which patient axis each index axis of a CT runs: (3, 2), rows x, y, z of the index, as nibabel has it.

    Columns: patient axis (0 to 2 for x, y, z), and 1 where the index grows along it, -1 where it grows to the right,
    front or feet. ValueError for a degenerate matrix, and a tilt of over 30 degrees.
    """
    from nibabel.orientations import io_orientation

    matrix = np.asarray(index_to_mm, dtype=float)[:3, :3]
    lengths = np.linalg.norm(matrix, axis=0)
    if not np.isfinite(matrix).all() or (lengths < 1e-3).any() or abs(np.linalg.det(matrix / lengths)) < 0.1:
        raise ValueError(f"the matrix from voxels to millimetres is degenerate: {matrix.round(4).tolist()}")
    orientation = io_orientation(index_to_mm)
    along = (matrix / lengths)[orientation[:, 0].astype(int), range(3)]
    tilt = np.degrees(np.arccos(np.clip(np.abs(along).min(), 0, 1)))
    if tilt > MAX_TILT_DEGREES:
        raise ValueError(
            f"the image is tilted by {tilt:.0f} degrees against the patient; {MAX_TILT_DEGREES} can be read"
        )
    return orientation


def border_crop(hu: np.ndarray, y: np.ndarray, x: np.ndarray, spacing_mm: tuple) -> tuple[slice, slice]:
    """Rows and columns of the grid that hold body: one crop for all slices of a volume.

    The mask HU > -768 is opened in every slice with a square of about 5.6 mm (an odd number of grid pixels,
    at least 3), as in the baseline; its bounding box over all slices counts. Empty mask: the whole image.
    `y`, `x`: positions of the grid in voxels of `hu` (z, y, x); the nearest voxels decide.
    """
    near_y, near_x = np.rint(y).astype(int), np.rint(x).astype(int)
    height, width = (
        min(max(3, 2 * int(OPENING_MM / mm / 2) + 1), len(c)) for mm, c in zip(spacing_mm[1::-1], (y, x), strict=True)
    )
    rows, columns = np.zeros(len(y), bool), np.zeros(len(x), bool)
    at_once = max(1, 2**18 // (len(y) * len(x)))  # slices that fit into a processor's cache together
    for start in range(0, len(hu), at_once):
        mask = (hu[start : start + at_once] > BODY_HU).take(near_y, axis=1).take(near_x, axis=2)
        # true where a full square begins, in any of these slices
        square = _all_in_window(_all_in_window(mask, height, 1), width, 2).any(axis=0)
        rows[: square.shape[0]] |= square.any(axis=1)
        columns[: square.shape[1]] |= square.any(axis=0)
    if not rows.any():
        return slice(0, len(y)), slice(0, len(x))
    top, left = np.flatnonzero(rows), np.flatnonzero(columns)
    return slice(int(top[0]), int(top[-1]) + height), slice(int(left[0]), int(left[-1]) + width)


def _all_in_window(mask: np.ndarray, size: int, axis: int) -> np.ndarray:
    """Whether `size` voxels along `axis` from each one on are all true; the axis gets shorter by size - 1."""
    mask = np.moveaxis(mask, axis, 0)
    covered = 1
    while covered < size:
        shift = min(covered, size - covered)
        mask = mask[:-shift] & mask[shift:]
        covered += shift
    return np.moveaxis(mask, 0, axis)


def resample(hu: np.ndarray, z: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Linear interpolation of `hu` (z, y, x) at the positions z, y, x (in its voxels), each axis by itself:
    int16.

    Values are clipped to the 12-bit range first, so that pads do not bleed into the image.
    """
    z_low, z_weight = _neighbours(z, hu.shape[0])
    y_low, y_weight = _neighbours(y, hu.shape[1])
    x_low, x_weight = _neighbours(x, hu.shape[2])
    result = np.empty((len(z), len(y), len(x)), np.int16)
    planes: dict[int, np.ndarray] = {}  # the planes between which the current slice lies

    def plane(index: int) -> np.ndarray:
        if index not in planes:
            image = np.clip(hu[index], *HU_RANGE).astype(np.float32)
            image = _blend(image, y_low, y_weight[:, None], axis=0)
            planes[index] = _blend(image, x_low, x_weight, axis=1)
        return planes[index]

    for k, (low, weight) in enumerate(zip(z_low.tolist(), z_weight.tolist(), strict=True)):
        for index in [i for i in planes if i < low]:
            del planes[index]
        image = plane(low)
        if weight > 0:
            image = image + (plane(low + 1) - image) * np.float32(weight)
        result[k] = np.rint(image)
    return result


def _neighbours(positions: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """The voxel below each position and the weight of the next one, exact voxels with weight 0."""
    low = np.clip(np.floor(positions + 1e-6), 0, length - 1).astype(int)
    weight = np.clip(positions - low, 0, 1).astype(np.float32)
    weight[(weight < 1e-5) | (low == length - 1)] = 0
    return low, weight


def _blend(image: np.ndarray, low: np.ndarray, weight: np.ndarray, axis: int) -> np.ndarray:
    first = image.take(low, axis=axis)
    if not weight.any():
        return first
    second = image.take(np.minimum(low + 1, image.shape[axis] - 1), axis=axis)
    second -= first
    second *= weight
    first += second
    return first


def transform(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Apply a 4x4 matrix to points (n, 3)."""
    points = np.asarray(points, dtype=float).reshape(-1, 3)
    return points @ matrix[:3, :3].T + matrix[:3, 3]


def grid_to_original(grid_points: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Grid index (n, 3: x, y, z) -> original voxel index (n, 3: x, y, z)."""
    return transform(geometry.grid_to_original, grid_points)


def original_to_grid(original_points: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Original voxel index (n, 3: x, y, z) -> grid index (n, 3: x, y, z)."""
    return transform(np.linalg.inv(geometry.grid_to_original), original_points)


def grid_to_mm(grid_points: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Grid index (n, 3: x, y, z) -> patient mm, LPS (n, 3)."""
    return transform(geometry.original_to_mm @ geometry.grid_to_original, grid_points)


def mm_to_grid(points_mm: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Patient mm, LPS (n, 3) -> grid index (n, 3: x, y, z)."""
    return transform(np.linalg.inv(geometry.original_to_mm @ geometry.grid_to_original), points_mm)


def boxes3d_to_original(grid_boxes: np.ndarray, geometry: Geometry) -> np.ndarray:
    """3D boxes of the grid in original pixels and slice numbers, as the manual test set has them.

    `grid_boxes` (n, 6): x1, y1, z1, x2, y2, z2, slices inclusive, so z reaches from z1 - 0.5 to z2 + 0.5. Returns
    (n, 6) in the same order: x, y in original pixels, z1 and z2 the first and last original slice
    (first_slice + index) whose centre lies in that range; the nearest slice if there is none.
    """
    corners = np.asarray(grid_boxes, dtype=float).reshape(-1, 2, 3) + [[0, 0, -0.5], [0, 0, 0.5]]
    mapped = grid_to_original(corners, geometry).reshape(-1, 2, 3)
    low, high = mapped.min(axis=1), mapped.max(axis=1)
    last = geometry.original_shape[0] - 1
    middle = np.rint((low[:, 2] + high[:, 2]) / 2)
    first_z = np.ceil(low[:, 2] - 1e-6)
    last_z = np.floor(high[:, 2] - 1e-6)
    empty = last_z < first_z
    first_z[empty] = last_z[empty] = middle[empty]
    z = np.clip(np.stack([first_z, last_z]), 0, last) + geometry.first_slice
    return np.column_stack([low[:, :2], z[0], high[:, :2], z[1]])


def boxes3d_to_grid(original_boxes: np.ndarray, geometry: Geometry) -> np.ndarray:
    """3D boxes (n, 6) in original pixels and slice numbers, slices inclusive -> grid, z1 and z2 fractional.

    The inverse of `boxes3d_to_original`: the half slice that a box reaches beyond the centres of its outer
    slices is kept in mm. A box thinner than one grid slice becomes one grid slice.
    """
    corners = np.asarray(original_boxes, dtype=float).reshape(-1, 2, 3) + [[0, 0, -0.5], [0, 0, 0.5]]
    corners[..., 2] -= geometry.first_slice
    mapped = original_to_grid(corners, geometry).reshape(-1, 2, 3)
    low, high = mapped.min(axis=1), mapped.max(axis=1)
    z1, z2 = low[:, 2] + 0.5, high[:, 2] - 0.5
    middle = (z1 + z2) / 2
    return np.column_stack([low[:, :2], np.minimum(z1, middle), high[:, :2], np.maximum(z2, middle)])
