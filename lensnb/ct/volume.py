"""A CT as it was read: HU, the way to patient millimetres, and what had to be said about it."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

SIDES_MM = (0.02, 50.0)  # of a voxel, from the finest detector to the thickest slices


@dataclass(frozen=True)
class CT:
    """A CT volume as its file holds it.

    hu: int16 (z, y, x). index_to_mm: 4x4, maps voxel index (x, y, z, 1) to patient millimetres, LPS: x grows
    to the patient's left, y to the back, z to the head. first_slice: the number that the source gives to
    slice index 0. notes: what the reader had to assume or leave out, as "kind: detail".
    """

    hu: np.ndarray
    index_to_mm: np.ndarray
    first_slice: int = 0
    notes: tuple[str, ...] = field(default=())

    @property
    def spacing_mm(self) -> np.ndarray:
        """Distance between voxel centres along x, y, z of the array, in mm."""
        return np.linalg.norm(self.index_to_mm[:3, :3], axis=0)


def affine(matrix: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """4x4 of a 3x3 matrix and an origin, in mm."""
    result = np.eye(4)
    result[:3, :3] = matrix
    result[:3, 3] = origin
    return result


def check_sides(index_to_mm: np.ndarray, path: Path) -> None:
    """ValueError if a matrix from index to mm gives voxels no size, or one that no CT of a patient has."""
    sides = np.linalg.norm(index_to_mm[:3, :3], axis=0)
    if not np.isfinite(index_to_mm).all() or abs(np.linalg.det(index_to_mm[:3, :3])) < 1e-9 * sides.prod():
        raise ValueError(
            f"{path}: its matrix from voxels to millimetres is degenerate: {index_to_mm[:3, :3].round(4).tolist()}"
        )
    if sides.min() < SIDES_MM[0] or sides.max() > SIDES_MM[1]:
        shown = " x ".join(f"{side:.5g}" for side in sides)
        raise ValueError(
            f"{path}: voxels of {shown} mm are no CT's ({SIDES_MM[0]:g} to {SIDES_MM[1]:g} mm); the header is wrong"
        )


def to_int16(hu: np.ndarray, path: Path) -> np.ndarray:
    """HU as int16, clipped to what fits, which `values.check_hu` then counts. ValueError if a value is not finite or
    the type is not a number."""
    if hu.dtype == np.int16:
        return hu
    if hu.dtype.kind not in "iuf":
        raise ValueError(f"{path} holds {hu.dtype} values, no HU")
    if hu.dtype.kind == "f":
        if not np.isfinite(hu).all():
            raise ValueError(f"{path} holds {np.count_nonzero(~np.isfinite(hu))} values that are not finite")
        hu = np.rint(hu)
    return np.clip(hu, -32768, 32767).astype(np.int16)
