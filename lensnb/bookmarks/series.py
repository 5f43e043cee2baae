"""A CT series as one volume: which slices it has, where they lie, and which way they are turned in the dataset.

A series is used only if its slices make one evenly spaced volume (lensnb/ct/dicom_stack.py) that is axial: turned or
flipped in any way, but its slices not tilted by more than 30 degrees against the patient. Its pixels keep their values
and places in the slice; they are only reversed or transposed so that x grows to the left and y to the back, and the
slices are counted from the head.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lensnb.ct.dicom_pixels import read_header, read_pixels, to_hu
from lensnb.ct.dicom_slice import Slice, slices_of
from lensnb.ct.dicom_stack import check_order, check_origin, check_uniform, slice_step
from lensnb.ct.grid import nearest_axes
from lensnb.ct.volume import affine, check_sides

NOT_AXIAL, UNEVEN = "not axial", "its series is no even volume"


@dataclass(frozen=True)
class Series:
    """A series whose slices are counted from the head.

    frames: file and frame (from 0) of each slice. images: SOPInstanceUID and frame (from 1) of each. to_mm (n, 4, 4):
    stored column, stored row, mm off the slice, 1 -> patient mm, LPS. turn (3, 3): stored column, row, 1 -> x, y of the
    dataset's picture, 1; transposed, flipped (x, y): the same for arrays. spacing_mm: between pixels along x and y, and
    between slices. size: width and height of the dataset's picture. tags: what else its first slice says, by name.
    """

    frames: tuple[tuple[Path, int], ...]
    images: tuple[tuple[str, int], ...]
    to_mm: np.ndarray
    turn: np.ndarray
    transposed: bool
    flipped: tuple[bool, bool]
    spacing_mm: tuple[float, float, float]
    size: tuple[int, int]
    tags: dict[str, object]


class NotUsable(ValueError):
    """A series that has no place in the dataset: `reason` in a few words, the message with its details."""

    def __init__(self, reason: str, detail: str):
        super().__init__(detail)
        self.reason = reason


TAGS = ("WindowCenter", "WindowWidth", "PatientSex", "PatientAge", "PatientBirthDate", "StudyDate", "StudyTime",
        "SeriesNumber", "SeriesInstanceUID", "StudyInstanceUID")  # fmt: skip


def open_series(paths: Sequence[Path]) -> Series:
    """The series whose slices are these files; NotUsable, a ValueError, says why it can not be used."""
    try:
        slices = [one for path in paths for one in slices_of(read_header(path))]
        check_origin(slices)
        check_uniform(slices)
    except Exception as error:  # a damaged file raises almost anything
        raise NotUsable(UNEVEN, " ".join(str(error).split())) from error
    first = slices[0]
    normal = np.cross(*first.orientation)
    axes = np.column_stack([first.orientation[0], first.orientation[1], normal])
    try:
        along = nearest_axes(affine(axes, np.zeros(3)))
    except ValueError as error:
        raise NotUsable(NOT_AXIAL, f"{first.path}: {error}") from error
    if along[2, 0] != 2:
        raise NotUsable(NOT_AXIAL, f"{first.path}: its slices are not axial")
    slices.sort(key=lambda one: float(one.position @ normal))
    try:
        check_order(slices)
        step, _ = slice_step(slices, normal)
        rows_mm, columns_mm = first.spacing
        sides = np.column_stack([first.orientation[0] * columns_mm, first.orientation[1] * rows_mm, step])
        check_sides(affine(sides, first.position), first.path)
    except ValueError as error:
        raise NotUsable(UNEVEN, str(error)) from error
    if along[2, 1] > 0:  # towards the head
        slices.reverse()
    transposed = along[0, 0] == 1
    turn, flipped = _turn(along, first.shape)
    in_plane = (rows_mm, columns_mm) if transposed else (columns_mm, rows_mm)
    height, width = first.shape[::-1] if transposed else first.shape
    return Series(
        frames=tuple((one.path, one.frame) for one in slices),
        images=tuple((str(one.header.tags.get("SOPInstanceUID")), one.frame + 1) for one in slices),
        to_mm=np.stack([_to_mm(one) for one in slices]),
        turn=turn,
        transposed=transposed,
        flipped=flipped,
        spacing_mm=(float(in_plane[0]), float(in_plane[1]), float(np.linalg.norm(step))),
        size=(int(width), int(height)),
        tags={name: first.header.tags.get(name) for name in TAGS},
    )


def _to_mm(one: Slice) -> np.ndarray:
    """From column, row and mm off the slice to patient mm: the whole matrix, of any orientation."""
    columns, rows = one.orientation
    rows_mm, columns_mm = one.spacing
    return affine(np.column_stack([columns * columns_mm, rows * rows_mm, np.cross(columns, rows)]), one.position)


def _turn(along: np.ndarray, shape: tuple[int, int]) -> tuple[np.ndarray, tuple[bool, bool]]:
    """From stored column and row to the dataset's x and y (3, 3), and whether x and y run the other way.

    along: as from `nearest_axes`; x of the dataset is the stored axis that runs along the patient's x.
    """
    last = shape[1] - 1, shape[0] - 1  # of columns, of rows
    turn, flipped = np.eye(3), [False, False]
    turn[:2, :2] = 0
    for stored in (0, 1):
        axis = int(along[stored, 0])
        flipped[axis] = bool(along[stored, 1] < 0)
        turn[axis, stored] = -1 if flipped[axis] else 1
        turn[axis, 2] = last[stored] if flipped[axis] else 0
    return turn, tuple(flipped)


def turned(series: Series, points: np.ndarray) -> np.ndarray:
    """Stored columns and rows (n, 2) as x and y of the dataset's picture (n, 2)."""
    return points @ series.turn[:2, :2].T + series.turn[:2, 2]


def to_plane(series: Series, index: int, points_mm: np.ndarray) -> np.ndarray:
    """Patient mm (n, 3) as stored column, stored row and mm off slice `index`: (n, 3), by the full inverse matrix."""
    inverse = np.linalg.inv(series.to_mm[index])
    return points_mm @ inverse[:3, :3].T + inverse[:3, 3]


def planes(series: Series, indices: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
    """HU int16 (y, x) of slices, turned as in the dataset, each with its index.

    Raises ValueError for pixels that can not be read.
    """
    pixels, path, slices = None, None, []
    for index in indices:
        wanted, frame = series.frames[index]
        if wanted != path:  # an enhanced CT is decompressed once for all its frames
            header = read_header(wanted)
            pixels, slices, path = read_pixels(header), slices_of(header), wanted
        hu = to_hu(pixels, frame, slices[frame].slope, slices[frame].intercept)
        hu = hu.T if series.transposed else hu
        yield index, hu[:: -1 if series.flipped[1] else 1, :: -1 if series.flipped[0] else 1]
