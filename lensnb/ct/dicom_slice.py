"""One slice of a CT as a DICOM file tells it: where it lies in the patient, and how its values become HU."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lensnb.ct.dicom_pixels import Header

HU_TYPES = ("HU", "HU_MOD", "US", "")  # US: not said


@dataclass(frozen=True)
class Slice:
    """One slice: its file's header and frame, where it lies in the patient (LPS mm), and its rescaling to HU.

    position: centre of the first pixel. orientation: (2, 3) directions in which columns and rows are counted.
    spacing: mm between rows, between columns. shape: rows, columns. frame: index in the file, 0 for one slice a file.
    """

    header: Header
    frame: int
    position: np.ndarray
    orientation: np.ndarray
    spacing: np.ndarray
    shape: tuple[int, int]
    slope: float
    intercept: float
    thickness: float

    @property
    def path(self) -> Path:
        """The slice's file."""
        return self.header.path

    @property
    def name(self) -> str:
        """The slice's file, with its frame beyond the first, as errors say it."""
        return f"{self.path} (frame {self.frame + 1})" if self.frame else str(self.path)


def slices_of(header: Header) -> list[Slice]:
    """The slices of one file: one, or the frames of an enhanced CT.

    ValueError names the file and the tag that is missing, no number, or impossible.
    """
    path, tags = header.path, header.tags
    said = tag_value(path, tags, "NumberOfFrames")
    if said is not None and not re.fullmatch(r"[0-9]{0,6}", str(said)):
        raise ValueError(f"{path}: NumberOfFrames is {said}, not a whole number; export it again")
    frames = int(said or 1)
    groups = tags.get("PerFrameFunctionalGroupsSequence") or []
    if frames > 1 and len(groups) != frames:
        raise ValueError(
            f"{path}: {frames} frames in one file, but positions of {len(groups)}; only enhanced CT can have several. "
            "Export it again as single slices, or convert it to NIfTI"
        )
    if len(groups) != frames:
        return [_slice(header, 0, [tags])]
    shared = list(tags.get("SharedFunctionalGroupsSequence") or [])
    return [_slice(header, frame, [group, *shared, tags]) for frame, group in enumerate(groups)]


def _slice(header: Header, frame: int, places: list) -> Slice:
    """One slice, its values taken from the first of `places` (own group, shared group, header) that has them."""
    path = header.path

    def look(sequence: str, name: str) -> object:
        items = places
        if len(places) > 1:  # enhanced CT
            items = [item for place in places for item in [*(place.get(sequence) or []), place]]
        return next((value for item in items if (value := tag_value(path, item, name)) is not None), None)

    def numbers(sequence: str, name: str, count: int) -> np.ndarray:
        value = look(sequence, name)
        try:
            array = np.array([] if value is None else value, dtype=float).ravel()
        except (TypeError, ValueError):
            array = np.array([])
        if len(array) != count or not np.isfinite(array).all():
            found = "missing" if value is None else value
            why = "its values are no HU" if name.startswith("Rescale") else "the voxels have no place in the patient"
            raise ValueError(f"{path}: {name} is {found}; without it {why}. Export the series again with all its tags")
        return array

    position = numbers("PlanePositionSequence", "ImagePositionPatient", 3)
    orientation = numbers("PlaneOrientationSequence", "ImageOrientationPatient", 6).reshape(2, 3)
    spacing = numbers("PixelMeasuresSequence", "PixelSpacing", 2)
    slope = numbers("PixelValueTransformationSequence", "RescaleSlope", 1)[0]
    intercept = numbers("PixelValueTransformationSequence", "RescaleIntercept", 1)[0]
    unit = str(look("PixelValueTransformationSequence", "RescaleType") or "").strip()
    if np.abs(orientation @ orientation.T - np.eye(2)).max() > 0.01:
        raise ValueError(f"{path}: ImageOrientationPatient is {orientation.ravel().tolist()}, no two right-angled axes")
    if spacing.min() <= 0:
        raise ValueError(f"{path}: PixelSpacing is {spacing.tolist()}; it must be above 0")
    if slope == 0 or unit.upper() not in HU_TYPES:
        raise ValueError(f"{path}: RescaleSlope {slope:g} and RescaleType '{unit}' do not give HU; give a series in HU")
    shape = (int(numbers("", "Rows", 1)[0]), int(numbers("", "Columns", 1)[0]))
    if min(shape) < 1:
        raise ValueError(f"{path}: {shape[0]} rows and {shape[1]} columns; it is damaged, copy it again or remove it")
    given = look("PixelMeasuresSequence", "SliceThickness")
    thickness = numbers("PixelMeasuresSequence", "SliceThickness", 1)[0] if given else 1.0
    return Slice(header, frame, position, orientation, spacing, shape, float(slope), float(intercept), float(thickness))


def tag_value(path: Path, item: object, name: str) -> object:
    """A tag's value, None without; pydicom converts it only now, and fails on what is no number."""
    try:
        return item.get(name)
    except Exception as error:
        raise ValueError(f"{path}: {name} can not be read: {error}") from error
