"""The pictures of a study of the simulated archive as DICOM, lying in the patient in many ways."""

import hashlib
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np

from lensnb.phantom.pacs_bookmarks import PICTURES, Bookmark
from lensnb.phantom.patients import Patient, Study
from lensnb.phantom.rendering import Rendering

CT, MR, PT = (f"1.2.840.10008.5.1.4.1.1.{number}" for number in ("2", "4", "128"))
MOST_TILT = 20.0  # degrees
BESIDE = 1  # slices on either side of a mark in the short series of MR, PET, coronal and sagittal pictures
# of stored columns and rows: transposed, columns reversed, rows reversed
TURNS = ((False, False, False), (False, True, True), (False, True, False), (True, False, True))
FIRST_DAY = date(2012, 3, 1)
WINDOW = "50", "450"


@dataclass(frozen=True)
class Picture:
    """A series as it is stored.

    uid: SeriesInstanceUID; images: SOPInstanceUID of each slice; modality; sop_class. to_mm (4, 4): index of the
    series' own canonical volume (x, y, slice, 1) -> patient mm. turn: as in TURNS. shape: slices, y, x of that volume.
    """

    uid: str
    images: tuple[str, ...]
    modality: str
    sop_class: str
    to_mm: np.ndarray
    turn: tuple[bool, bool, bool]
    shape: tuple[int, int, int]

    def stored(self, points: np.ndarray) -> np.ndarray:
        """Canonical x, y (n, 2) as stored column, row (n, 2), index coordinates."""
        transposed, back, up = self.turn
        points = points[:, ::-1] if transposed else points
        size = np.array(self.shape[1:] if transposed else self.shape[:0:-1]) - 1
        return np.where([back, up], size - points, points)

    def mm(self, points: np.ndarray, index: int) -> np.ndarray:
        """Canonical x, y (n, 2) of a slice as patient mm (n, 3), LPS."""
        homogeneous = np.column_stack([points, np.full(len(points), index), np.ones(len(points))])
        return (homogeneous @ self.to_mm.T)[:, :3]


def write_study(
    folder: Path, rng: np.random.Generator, patient: Patient, study: Study, scan: Rendering, bookmarks: list[Bookmark]
) -> dict[str, Picture]:
    """Write the pictures of a study: the axial CT, a localizer, and those of PICTURES that bookmarks are on.

    Returns the series by their names: "CT", "localizer", and "MR 3" for that of bookmark 3.
    """
    depth, size = len(scan.hu), scan.hu.shape[1]
    spacing = np.array([study.pixel_mm, study.pixel_mm, study.slice_mm])
    tilt = np.radians(rng.uniform(6, MOST_TILT)) if (patient.number + study.study) % 3 == 0 else 0.0
    axis = rng.normal(0, 1, 3)
    turn = _rotation(axis / np.linalg.norm(axis), tilt)
    to_mm = np.eye(4)
    to_mm[:3, :3] = turn * spacing
    centre = np.array([size - 1, size - 1, depth - 1]) / 2
    to_mm[:3, 3] = rng.uniform((-15, -160, -700), (15, -20, -100)).round(1) - to_mm[:3, :3] @ centre
    stored = TURNS[(patient.number + 2 * study.study) % len(TURNS)]
    scanner = _Writer(folder, rng, patient, study)
    pictures = {"CT": scanner.write("CT", scan.hu, to_mm, stored, CT, "CT")}
    front = scan.hu.max(axis=1)[::-1][None]
    pictures["localizer"] = scanner.write(
        "localizer", front, _coronal(to_mm, depth, 0), TURNS[0], CT, "CT", "LOCALIZER"
    )
    for bookmark in bookmarks:
        if bookmark.what not in PICTURES:
            continue
        name = f"{bookmark.what} {bookmark.number}"
        x, y = np.rint(bookmark.ends.mean(axis=0)).astype(int)
        if bookmark.what in ("MR", "PT"):
            low = max(0, bookmark.z - BESIDE)
            values = np.clip(scan.hu[low : bookmark.z + BESIDE + 1] + 1000, 0, 2000)
            sop_class = MR if bookmark.what == "MR" else PT
            pictures[name] = scanner.write(name, values, _from_slice(to_mm, low), stored, sop_class, bookmark.what)
        elif bookmark.what == "coronal":
            planes = scan.hu[::-1, y - BESIDE : y + BESIDE + 1].transpose(1, 0, 2)
            pictures[name] = scanner.write(name, planes, _coronal(to_mm, depth, y - BESIDE), TURNS[0], CT, "CT")
        else:
            planes = scan.hu[::-1, :, x - BESIDE : x + BESIDE + 1].transpose(2, 0, 1)
            pictures[name] = scanner.write(name, planes, _sagittal(to_mm, depth, x - BESIDE), TURNS[0], CT, "CT")
    return pictures


def _rotation(axis: np.ndarray, angle: float) -> np.ndarray:
    """The rotation (3, 3) by an angle about an axis of length 1."""
    x, y, z = axis
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def _from_slice(to_mm: np.ndarray, first: int) -> np.ndarray:
    """The matrix of a volume that begins at slice `first`."""
    moved = to_mm.copy()
    moved[:3, 3] += first * to_mm[:3, 2]
    return moved


def _coronal(to_mm: np.ndarray, depth: int, first: int) -> np.ndarray:
    """The matrix of coronal planes from y = `first` on: x to the left, y to the feet."""
    columns = np.stack([to_mm[:3, 0], -to_mm[:3, 2], to_mm[:3, 1]], axis=1)
    return _matrix(columns, to_mm[:3, 3] + (depth - 1) * to_mm[:3, 2] + first * to_mm[:3, 1])


def _sagittal(to_mm: np.ndarray, depth: int, first: int) -> np.ndarray:
    """The matrix of sagittal planes from x = `first` on: x to the back, y to the feet."""
    columns = np.stack([to_mm[:3, 1], -to_mm[:3, 2], to_mm[:3, 0]], axis=1)
    return _matrix(columns, to_mm[:3, 3] + (depth - 1) * to_mm[:3, 2] + first * to_mm[:3, 0])


def _matrix(columns: np.ndarray, origin: np.ndarray) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = columns, origin
    return matrix


class _Writer:
    """Writes the series of one study, each with files in no order."""

    def __init__(self, folder: Path, rng: np.random.Generator, patient: Patient, study: Study):
        self.folder, self.rng, self.patient, self.study = folder, rng, patient, study
        self.series = 0

    def write(
        self,
        name: str,
        values: np.ndarray,
        to_mm: np.ndarray,
        turn: tuple[bool, bool, bool],
        sop_class: str,
        modality: str,
        kind: str = "AXIAL",
    ) -> Picture:
        """Write a volume (slices, y, x) that `to_mm` puts into the patient, stored as `turn` says."""
        self.series += 1
        uid = uid_of(self.study, name)
        images = tuple(uid_of(self.study, f"{name} {k}") for k in range(len(values)))
        picture = Picture(uid, images, modality, sop_class, to_mm, turn, values.shape)
        transposed, back, up = turn
        ends = picture.mm(self._corners(picture), 0)
        step = to_mm[:3, 2]
        sides = ends[1] - ends[0], ends[2] - ends[0]
        lengths = [float(np.linalg.norm(side)) for side in sides]
        place = self.folder / f"series_{self.series:02d}"
        place.mkdir(parents=True)
        for k, number in enumerate(self.rng.permutation(len(values))):
            plane = values[k].T if transposed else values[k]
            plane = plane[:: -1 if up else 1, :: -1 if back else 1]
            data = new_file(self.study, self.patient, sop_class, images[k])
            data.Modality, data.SeriesInstanceUID, data.SeriesNumber = modality, uid, self.series
            data.ImageType = ["ORIGINAL", "PRIMARY", kind]
            data.FrameOfReferenceUID = uid_of(self.study, "frame")
            data.InstanceNumber = int(number) + 1
            data.ImagePositionPatient = [decimal(v) for v in ends[0] + k * step]
            data.ImageOrientationPatient = [
                decimal(v) for side, length in zip(sides, lengths, strict=True) for v in side / length
            ]
            data.PixelSpacing = [decimal(lengths[1]), decimal(lengths[0])]
            data.SliceThickness = decimal(float(np.linalg.norm(step)))
            data.WindowCenter, data.WindowWidth = WINDOW
            data.Rows, data.Columns, data.SamplesPerPixel = *plane.shape, 1
            data.PhotometricInterpretation = "MONOCHROME2"
            data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
            data.RescaleIntercept, data.RescaleSlope = (-1024, 1) if modality == "CT" else (0, 1)
            data.PixelData = (plane.astype(np.int32) - int(data.RescaleIntercept)).astype("<i2").tobytes()
            data.save_as(place / f"{number:05d}.dcm", enforce_file_format=True)
        return picture

    @staticmethod
    def _corners(picture: Picture) -> np.ndarray:
        """Canonical x, y (3, 2) of the stored pixels (0, 0), (1, 0) and (0, 1): column, row."""
        transposed, back, up = picture.turn
        last = np.array(picture.shape[1:] if transposed else picture.shape[:0:-1]) - 1
        stored = np.array([[0, 0], [1, 0], [0, 1]])
        points = np.where([back, up], last - stored, stored)
        return points[:, ::-1] if transposed else points


def new_file(study: Study, patient: Patient, sop_class: str, uid: str) -> object:
    """A pydicom file with what all files of a study say of patient and study, names and dates among it."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import PYDICOM_IMPLEMENTATION_UID, ExplicitVRLittleEndian

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class, uid
    meta.TransferSyntaxUID, meta.ImplementationClassUID = ExplicitVRLittleEndian, PYDICOM_IMPLEMENTATION_UID
    data = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = sop_class, uid
    made = FIRST_DAY + timedelta(days=37 * patient.number + round(30.4 * study.months))
    born = date(FIRST_DAY.year - patient.anatomy.age, 7, 1)
    data.StudyDate, data.StudyTime, data.StudyID = f"{made:%Y%m%d}", "101500", str(study.study)
    data.AccessionNumber = f"ACC{patient.number:04d}{study.study:02d}"
    data.ReferringPhysicianName = "Referrer^Rita"
    data.PatientName, data.PatientID = f"Phantom^Pia {patient.number:03d}", patient_id(patient)
    data.PatientBirthDate, data.PatientSex = f"{born:%Y%m%d}", patient.anatomy.gender
    data.StudyInstanceUID = uid_of(study, "study")
    return data


def patient_id(patient: Patient) -> str:
    """The PatientID of a patient of the archive."""
    return f"PACS-{patient.number:04d}"


def uid_of(study: Study, name: str) -> str:
    """A DICOM UID that follows from the study's seed and a name."""
    digest = hashlib.sha256(repr((study.seed, name)).encode()).digest()
    return "2.25." + str(int.from_bytes(digest[:16], "big"))


def decimal(value: float) -> str:
    """A number as DICOM's decimal string of at most 16 characters."""
    return f"{value:.9f}".rstrip("0").rstrip(".")[:16] or "0"
