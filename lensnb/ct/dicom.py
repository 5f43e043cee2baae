"""Reading a CT out of a folder of DICOM files, or saying why it can not be read as one volume, and what to do.

What is no CT slice (scouts, reports, screen captures, DICOMDIR, other files) is left out and counted in the notes.
Slices that do not make one evenly spaced volume are refused: guessing where a slice lies would move lesions.
"""

import filecmp
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lensnb.ct.dicom_pixels import Header, read_header, read_pixels, to_hu
from lensnb.ct.volume import CT, affine
from lensnb.files import files_below

SINGLE_FRAME = "1.2.840.10008.5.1.4.1.1.2"
MULTI_FRAME = ("1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2")  # enhanced CT, and converted to it
HU_TYPES = ("HU", "HU_MOD", "US", "")  # US: not said
SUFFIXES = (".dcm", ".dicom", ".ima")


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


def is_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM files do, with a preamble or, as old ones, without."""
    with path.open("rb") as file:
        start = file.read(132)
    return start[128:] == b"DICM" or (start[:2] in (b"\x02\0", b"\x08\0") and start[3:4] == b"\0")


def read_dicom_folder(folder: Path, series: str | None = None) -> CT:
    """Read the one CT series below `folder` (or the one of several whose SeriesInstanceUID is `series`).

    Slices are ordered by position along their normal, never by name; every slice has its own rescaling to HU. Enhanced
    CT (many frames in a file) is read, too. A tilted gantry is kept exactly, as a sheared index_to_mm. Padding becomes
    air. Refused with ValueError, which names the file and says what to do: no or several CT series, slices that differ
    in size, orientation or pixel spacing, missing, duplicate or unevenly spaced slices, values that are no HU, tags
    that are missing, a compression that neither pydicom nor SimpleITK decodes, damaged files.
    """
    images, left_out = _scan(sorted(p for p in files_below(folder) if p.is_file()))
    if not images:
        found = _listed(left_out) or "it is empty"
        raise ValueError(f"{folder} holds no CT image ({found}); give the folder of one CT")
    return _read_series(_one_series(images, folder, series), left_out)


def read_dicom_file(path: Path) -> CT:
    """Read an enhanced CT, which has all its slices in one file; ValueError for any other single DICOM file."""
    images, left_out = _scan([path])
    if not images:
        raise ValueError(f"{path} is no CT image ({_listed(left_out)}); give the folder of one CT")
    if str(images[0].tags.get("SOPClassUID")) not in MULTI_FRAME:
        raise ValueError(f"{path} is one slice of a CT; give the folder that holds all of them, {path.parent}")
    return _read_series(images, left_out)


def _scan(paths: list[Path]) -> tuple[list[Header], Counter]:
    """Headers of the CT images among the files, and how many others there are of each kind."""
    images, left_out = [], Counter()
    for path in paths:
        header = _header(path)
        other = "no DICOM" if header is None else _not_a_slice(path, header.tags)
        if other:
            left_out[other] += 1
        else:
            images.append(header)
    return images, left_out


def _header(path: Path) -> Header | None:
    """The header of a DICOM file, None for a file that is none."""
    try:
        dicom = is_dicom(path)
        if not dicom and path.suffix.lower() in SUFFIXES:
            size = path.stat().st_size
            raise ValueError(f"{path} is no DICOM file ({size} bytes), though named so; copy it again, or remove it")
        return read_header(path) if dicom else None
    except OSError as error:
        raise ValueError(f"{path} can not be read: {error.strerror or error}") from error
    except ValueError:
        raise
    except Exception as error:  # a damaged file raises almost anything here
        raise ValueError(f"{path}: its header can not be read ({error}); copy it again, or remove it") from error


def _not_a_slice(path: Path, header: object) -> str:
    """What a DICOM file is, if not a CT slice; empty for a slice. ValueError for a CT image that contradicts itself."""
    kind = header.get("SOPClassUID") or getattr(header, "file_meta", {}).get("MediaStorageSOPClassUID", "")
    modality = header.get("Modality") or ""
    if str(kind) not in (SINGLE_FRAME, *MULTI_FRAME, ""):
        return getattr(kind, "name", str(kind))
    if not kind and not modality:
        raise ValueError(f"{path}: neither SOPClassUID nor Modality; it is damaged, copy it again or remove it")
    if not kind and modality != "CT":
        return f"modality {modality}"
    if modality not in ("CT", ""):
        raise ValueError(f"{path}: modality {modality}, expected CT; take it out of the folder")
    if "LOCALIZER" in str(header.get("ImageType", "")).upper():
        return "localizer"
    if "Rows" not in header or "Columns" not in header:
        raise ValueError(f"{path}: a CT image without Rows and Columns; it is cut off or damaged, copy it again")
    return ""


def _one_series(images: list[Header], folder: Path, series: str | None) -> list[Header]:
    """The images of the wanted series; ValueError that lists what is there if that leaves none or a choice."""
    names: dict[str, list[Header]] = {}
    for image in images:
        names.setdefault(str(image.tags.get("SeriesInstanceUID", "")), []).append(image)
    if series is None and len(names) == 1:
        return images
    if series in names:
        return names[series]
    shown = [
        f"{uid} ('{first.tags.get('SeriesDescription', '')}', {1 + len(others)} files, {first.path.parent.name}/)"
        for uid, (first, *others) in list(names.items())[:6]
    ]
    listed = "; ".join([*shown, *(["..."] if len(names) > 6 else [])])
    if series is not None:
        raise ValueError(f"{folder} has no series {series}; it has {listed}")
    raise ValueError(
        f"{folder} holds {len(names)} series: {listed}. Give the folder of one, or choose one (detect: --series UID)"
    )


def _read_series(images: list[Header], left_out: Counter) -> CT:
    slices = [one for image in images for one in _slices(image)]
    _check_uniform(slices)
    orientation = slices[0].orientation
    normal = np.cross(orientation[0], orientation[1])
    slices.sort(key=lambda one: float(one.position @ normal))
    step = _slice_step(slices, normal)
    rows_mm, columns_mm = slices[0].spacing
    matrix = np.column_stack([orientation[0] * columns_mm, orientation[1] * rows_mm, step])
    hu, notes = _read_pixels(slices)
    if left_out:
        notes.append(f"left out: {sum(left_out.values())} files that are no CT slice ({_listed(left_out)})")
    if len(slices) == 1:
        notes.append(f"one slice: its thickness, {np.linalg.norm(step):g} mm, is taken for the slice distance")
    tilt = np.degrees(np.arccos(np.clip(step @ normal / np.linalg.norm(step), -1, 1)))
    if tilt > 1:
        notes.append(f"tilted gantry: the slices are tilted by {tilt:.1f} degrees; positions are exact, boxes slanted")
    return CT(hu, affine(matrix, slices[0].position), notes=tuple(notes))


def _listed(kinds: Counter) -> str:
    return ", ".join(f"{number} {kind}" for kind, number in sorted(kinds.items()))


def _slices(header: Header) -> list[Slice]:
    """The slices of one file: one, or the frames of an enhanced CT."""
    path, tags = header.path, header.tags
    frames = int(_value(path, tags, "NumberOfFrames") or 1)
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
        return next((value for item in items if (value := _value(path, item, name)) is not None), None)

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
    given = look("PixelMeasuresSequence", "SliceThickness")
    thickness = numbers("PixelMeasuresSequence", "SliceThickness", 1)[0] if given else 1.0
    return Slice(header, frame, position, orientation, spacing, shape, float(slope), float(intercept), float(thickness))


def _value(path: Path, item: object, name: str) -> object:
    """A tag's value; pydicom converts it only now, and fails on what is no number."""
    try:
        return item.get(name)
    except Exception as error:
        raise ValueError(f"{path}: {name} can not be read: {error}") from error


def _check_uniform(slices: list[Slice]) -> None:
    fields = {"Rows and Columns": "shape", "PixelSpacing": "spacing", "ImageOrientationPatient": "orientation"}
    for tag, field in fields.items():
        values = np.array([np.ravel(getattr(one, field)) for one in slices], dtype=float)
        other = np.flatnonzero(~np.isclose(values, values[0], atol=1e-3).all(axis=1))
        if len(other):
            raise ValueError(
                f"{_name(slices[other[0]])}: {tag} is {values[other[0]].tolist()}, but {values[0].tolist()} in "
                f"{slices[0].path.name}; not one CT volume. Give a folder with only the slices that belong together"
            )


def _name(one: Slice) -> str:
    return f"{one.path} (frame {one.frame + 1})" if one.frame else str(one.path)


def _slice_step(slices: list[Slice], normal: np.ndarray) -> np.ndarray:
    """The vector from slice to slice in mm, after checking that it is everywhere the same."""
    if len(slices) == 1:
        return normal * slices[0].thickness
    positions = np.array([one.position for one in slices])
    along = positions @ normal
    gaps = np.diff(along)
    typical = float(np.sort(gaps)[len(gaps) // 2])
    even = "For even slices, resample the series and give it as NIfTI"
    for i, gap in enumerate(gaps):
        pair = f"{_name(slices[i])} and {_name(slices[i + 1])}"
        if gap < 0.01:
            a, b = slices[i].path, slices[i + 1].path
            advice = "One file is a copy of the other: remove it"
            if a == b or not filecmp.cmp(a, b, shallow=False):
                advice = "If there are several phases or reconstructions, give a folder with only one of them"
            raise ValueError(f"two slices at the same position ({along[i]:.2f} mm): {pair}. {advice}")
        if abs(gap - typical) > max(0.1 * typical, 0.02):
            missing = round(gap / typical) - 1
            if missing > 0 and abs(gap / typical - missing - 1) < 0.1:
                raise ValueError(
                    f"{missing} missing slices: {gap:.2f} mm between {pair}, elsewhere {typical:.2f} mm. "
                    "Copy or export the series again"
                )
            raise ValueError(f"uneven slices: {gap:.2f} mm between {pair}, elsewhere {typical:.2f} mm. {even}")
    step = (positions[-1] - positions[0]) / (len(positions) - 1)
    drift = np.abs(positions - positions[0] - np.arange(len(positions))[:, None] * step).max(axis=1)
    if drift.max() > max(0.5, 0.5 * typical):
        worst = slices[int(drift.argmax())]
        raise ValueError(
            f"{_name(worst)}: the slices do not lie on one line, this one up to {drift.max():.2f} mm beside it. {even}"
        )
    return step


def _read_pixels(slices: list[Slice]) -> tuple[np.ndarray, list[str]]:
    """HU int16 (z, y, x) of slices in their order, and notes on what is special about the values."""
    hu = np.empty((len(slices), *slices[0].shape), np.int16)
    members: dict[Path, list[int]] = {}
    for index, one in enumerate(slices):
        members.setdefault(one.path, []).append(index)
    lossy = 0
    for indices in members.values():
        pixels = read_pixels(slices[indices[0]].header)
        lossy += pixels.lossy
        for index in indices:
            one = slices[index]
            hu[index] = to_hu(pixels, one.frame, one.slope, one.intercept)
    return hu, [f"lossy compression: in {lossy} files the HU are not exact"] if lossy else []
