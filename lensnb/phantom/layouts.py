"""Files of one volume in each dataset's own layout; arrays are (z, y, x) in the order of the file."""

import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lensnb.files import atomic_write
from lensnb.phantom.patients import Patient, Study
from lensnb.streams import PhantomStream

# real volumes 28-52 have wrong affines and readers treat those numbers specially, so phantoms do not use them
LITS_NUMBERS = tuple(n for n in range(10_000) if not 28 <= n <= 52)
LITS_FLIPS = ((False, False, False), (False, True, False), (True, True, False), (False, False, True))


def names(patient: Patient, study: Study, depth: int) -> tuple[str, str, str, str]:
    """Patient, study, series and volume as the readers will name them."""
    n = patient.number
    if study.dataset == "DeepLesion":
        series = f"{n:06d}_{study.study:02d}_{study.series:02d}"
        return (
            f"{n:06d}",
            series[:9],
            series,
            f"{series}_{study.first_slice:03d}-{study.first_slice + depth - 1:03d}",
        )
    if study.dataset == "LUNA16":
        digits = np.random.default_rng((*study.seed, PhantomStream.UIDS)).integers(0, 10, 30)
        uid = "1.3.6.1.4.1.14519.5.2.1.6279.6001." + "1" + "".join(map(str, digits[1:]))
        return uid, uid, uid, uid
    if study.dataset == "LiTS":
        name = f"volume-{LITS_NUMBERS[n]}"
        return name, name, name, name
    case = f"MED_LYMPH_{n // 2 + 1:03d}" if study.region == "chest" else f"ABD_LYMPH_{n // 2 + 1:03d}"
    return case, case, case, case


def flips(patient: Patient, study: Study) -> tuple[bool, bool, bool]:
    """Which of the axes (x, y, z) run against LPS in the written array."""
    if study.dataset == "DeepLesion":
        return False, False, True  # files are numbered from head to feet
    if study.dataset == "LUNA16":
        return (True, True, False) if patient.number % 5 == 2 else (False, False, False)
    if study.dataset == "LiTS":
        return LITS_FLIPS[(patient.number + patient.number // 4) % 4]
    return False, False, False


@dataclass(frozen=True)
class Placement:
    """Where an array lies: origin and spacing (mm) and sign of direction, each (3,) in x, y, z of LPS."""

    origin: np.ndarray
    spacing: np.ndarray
    sign: np.ndarray


def geometry(study: Study, shape: tuple[int, int, int], flipped: tuple[bool, bool, bool]) -> Placement:
    """Where the array (z, y, x) of a study lies as it is written; the origin differs by scan."""
    rng = np.random.default_rng((*study.seed, PhantomStream.FILES))
    spacing = np.array([study.pixel_mm, study.pixel_mm, study.slice_mm])
    size = np.array(shape[::-1])
    lowest = -(size - 1) / 2 * spacing * (1, 1, 0) + np.round(rng.uniform((-15, -160, -700), (15, -20, -100)), 1)
    lowest[:2] = np.round(lowest[:2], 6)
    sign = np.where(flipped, -1.0, 1.0)
    return Placement(np.where(flipped, lowest + (size - 1) * spacing, lowest), spacing, sign)


def write_deeplesion(root: Path, series: str, first_slice: int, hu: np.ndarray) -> None:
    """Write Images_png/<series>/KKK.png, 16 bit, HU + 32768."""
    from PIL import Image

    with atomic_write(root / "DeepLesion" / "Images_png" / series) as folder:
        folder.mkdir(parents=True)
        for k, plane in enumerate((hu.astype(np.int32) + 32768).astype(np.uint16)):
            Image.fromarray(plane).save(folder / f"{first_slice + k:03d}.png", compress_level=1)


def write_luna(root: Path, number: int, uid: str, hu: np.ndarray, place: Placement) -> None:
    """Write subset<K>/<uid>.mhd and .raw."""
    folder = root / "LUNA16" / f"subset{number % 10}"
    with atomic_write(folder / f"{uid}.raw") as path:
        path.write_bytes(np.ascontiguousarray(hu, dtype="<i2").tobytes())
    header = {
        "ObjectType": "Image",
        "NDims": 3,
        "BinaryData": True,
        "BinaryDataByteOrderMSB": False,
        "CompressedData": False,
        "TransformMatrix": f"{place.sign[0]:g} 0 0 0 {place.sign[1]:g} 0 0 0 {place.sign[2]:g}",
        "Offset": " ".join(repr(float(v)) for v in place.origin),
        "CenterOfRotation": "0 0 0",
        "AnatomicalOrientation": "RAI" if place.sign[0] > 0 else "LPI",
        "ElementSpacing": " ".join(repr(float(v)) for v in place.spacing),
        "DimSize": " ".join(str(n) for n in hu.shape[::-1]),
        "ElementType": "MET_SHORT",
        "ElementDataFile": f"{uid}.raw",
    }
    with atomic_write(folder / f"{uid}.mhd") as path:
        path.write_text("".join(f"{key} = {value}\n" for key, value in header.items()))


def write_lits(root: Path, name: str, hu: np.ndarray, labels: np.ndarray, place: Placement) -> None:
    """Write volume-N.nii and segmentation-N.nii (1 liver, 2 tumour); NIfTI's x and y run against LPS."""
    import nibabel

    number = int(name.split("-")[1])
    folder = root / "LiTS" / ("Training_Batch1" if number < 28 else "Training_Batch2")
    affine = np.diag([*(place.sign * place.spacing * (-1, -1, 1)), 1.0])
    affine[:3, 3] = place.origin * (-1, -1, 1)
    for stem, array, kind in ((f"segmentation-{number}", labels, np.uint8), (name, hu, np.int16)):
        with atomic_write(folder / f"{stem}.nii") as path:
            path.write_bytes(nibabel.Nifti1Image(array.transpose(2, 1, 0).astype(kind), affine).to_bytes())


def write_nihln(
    root: Path,
    case: str,
    hu: np.ndarray,
    nodes: np.ndarray,
    place: Placement,
    seed: tuple[int, ...],
) -> None:
    """Write the DICOM series (file names not in slice order) and the mask with one number per node."""
    import nibabel
    import pydicom
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

    origin, spacing = place.origin, place.spacing
    study_uid, series_uid, frame_uid = (_uid(seed, kind) for kind in ("study", "series", "frame"))
    order = np.random.default_rng((*seed, PhantomStream.FILE_ORDER)).permutation(len(hu))
    with atomic_write(root / "NIH-LN" / "CT Lymph Nodes" / case) as top:
        folder = top / study_uid / series_uid
        folder.mkdir(parents=True)
        for k, plane in enumerate(hu):
            meta = FileMetaDataset()
            meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = (
                CTImageStorage,
                _uid(seed, f"slice {k}"),
            )
            meta.TransferSyntaxUID, meta.ImplementationClassUID = (
                ExplicitVRLittleEndian,
                pydicom.uid.PYDICOM_IMPLEMENTATION_UID,
            )
            d = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
            d.SOPClassUID, d.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
            d.StudyInstanceUID, d.SeriesInstanceUID, d.FrameOfReferenceUID = study_uid, series_uid, frame_uid
            d.Modality, d.PatientID, d.PatientName, d.BodyPartExamined = "CT", case, case, case[:3]
            d.SeriesNumber, d.InstanceNumber = 2, len(hu) - k
            d.ImagePositionPatient = [_decimal(v) for v in origin + (0, 0, k * spacing[2])]
            d.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
            d.PixelSpacing, d.SliceThickness = (
                [_decimal(spacing[1]), _decimal(spacing[0])],
                _decimal(spacing[2]),
            )
            d.Rows, d.Columns, d.SamplesPerPixel, d.PhotometricInterpretation = *plane.shape, 1, "MONOCHROME2"
            d.BitsAllocated, d.BitsStored, d.HighBit, d.PixelRepresentation = 16, 16, 15, 1
            d.RescaleIntercept, d.RescaleSlope = -1024, 1
            d.PixelData = (plane.astype(np.int32) + 1024).astype("<i2").tobytes()
            d.save_as(folder / f"{order[k]:06d}.dcm", enforce_file_format=True)
    affine = np.diag([*(spacing * (-1, -1, 1)), 1.0])
    affine[:3, 3] = origin * (-1, -1, 1)
    content = nibabel.Nifti1Image(nodes.transpose(2, 1, 0).astype(np.uint8), affine).to_bytes()
    with atomic_write(root / "NIH-LN" / "MED_ABD_LYMPH_MASKS" / case / f"{case}_mask.nii.gz") as path:
        path.write_bytes(gzip.compress(content, compresslevel=6, mtime=0))


def _uid(seed: tuple[int, ...], kind: str) -> str:
    """A DICOM UID of a series, study, frame or slice that follows from the seed."""
    digest = hashlib.sha256(repr((seed, kind)).encode()).digest()
    return "2.25." + str(int.from_bytes(digest[:16], "big"))


def _decimal(value: float) -> str:
    """A number as DICOM's decimal string, which holds at most 16 characters."""
    return f"{value:.6f}".rstrip("0").rstrip(".")
