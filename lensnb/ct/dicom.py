"""Reading a CT out of a folder of DICOM files, or saying why it can not be read as one volume, and what to do.

What is no CT slice (scouts, reports, screen captures, DICOMDIR, what macOS adds, other files) is left out and counted
in the notes. Slices that do not make one evenly spaced volume are refused: guessing where a slice lies would move
lesions.
"""

from collections import Counter
from pathlib import Path

import numpy as np

from lensnb.ct.compression import check_size
from lensnb.ct.dicom_pixels import Header, read_header, read_pixels, to_hu
from lensnb.ct.dicom_slice import Slice, slices_of
from lensnb.ct.dicom_stack import check_order, check_origin, check_uniform, slice_step
from lensnb.ct.values import check_hu
from lensnb.ct.volume import CT, affine, check_sides
from lensnb.files import files_below, is_macos
from lensnb.files.reasons import reason_of

SINGLE_FRAME = "1.2.840.10008.5.1.4.1.1.2"
MULTI_FRAME = ("1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2")  # enhanced CT, and converted to it
SUFFIXES = (".dcm", ".dicom", ".ima")


def is_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM files do, with a preamble or, as old ones, without."""
    with path.open("rb") as file:
        start = file.read(132)
    return start[128:] == b"DICM" or (start[:2] in (b"\x02\0", b"\x08\0") and start[3:4] == b"\0")


def read_dicom_folder(folder: Path, series: str | None = None) -> CT:
    """Read the one CT series below `folder` (or the one of several whose SeriesInstanceUID is `series`).

    Slices are ordered by position along their normal, never by name; every slice has its own rescaling to HU. Enhanced
    CT (many frames in a file) is read, too. A tilted gantry is kept exactly, as a sheared index_to_mm. Padding becomes
    air. Refused with ValueError, which names the file and says what to do: no or several CT series, slices of several
    patients or acquisitions, that differ in size, orientation or pixel spacing, missing, duplicate or unevenly spaced
    slices, values that are no HU, tags that are missing, a compression that neither pydicom nor SimpleITK decodes,
    damaged files, links that lead nowhere. OSError if a folder may not be entered.
    """
    paths = sorted(files_below(folder))
    for path in paths:
        if path.is_symlink() and not path.exists():
            raise ValueError(f"{path} is a link whose file does not exist; bring the file back, or remove the link")
    images, left_out = _scan([path for path in paths if path.is_file()])
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
        if is_macos(path):
            left_out["of macOS"] += 1
            continue
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
        raise ValueError(
            f"{path}: its header can not be read ({reason_of(error)}); copy it again, or remove it"
        ) from error


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
    slices = [one for image in images for one in slices_of(image)]
    check_origin(slices)
    turned = check_uniform(slices)
    orientation = slices[0].orientation
    normal = np.cross(orientation[0], orientation[1])
    slices.sort(key=lambda one: float(one.position @ normal))
    check_order(slices)
    step, uneven = slice_step(slices, normal)
    rows_mm, columns_mm = slices[0].spacing
    index_to_mm = affine(
        np.column_stack([orientation[0] * columns_mm, orientation[1] * rows_mm, step]), slices[0].position
    )
    check_sides(index_to_mm, slices[0].path)
    hu, notes = _read_pixels(slices)
    notes += [*check_hu(hu, slices[0].path.parent), *turned, *uneven]
    if left_out:
        notes.append(f"left out: {sum(left_out.values())} files that are no CT slice ({_listed(left_out)})")
    tilt = np.degrees(np.arccos(np.clip(step @ normal / np.linalg.norm(step), -1, 1)))
    if tilt > 1:
        notes.append(f"tilted gantry: the slices are tilted by {tilt:.1f} degrees; positions are exact, boxes slanted")
    return CT(hu, index_to_mm, notes=tuple(notes))


def _listed(kinds: Counter) -> str:
    return ", ".join(f"{number} {kind}" for kind, number in sorted(kinds.items()))


def _read_pixels(slices: list[Slice]) -> tuple[np.ndarray, list[str]]:
    """HU int16 (z, y, x) of slices in their order, and notes on what is special about the values."""
    shape = (len(slices), *slices[0].shape)
    try:
        check_size(shape)
    except ValueError as error:
        raise ValueError(f"{slices[0].path} can not be read: {error}") from error
    hu = np.empty(shape, np.int16)
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
