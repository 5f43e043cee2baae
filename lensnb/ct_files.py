"""Reading a CT from the formats in which CTs come: DICOM folder, NIfTI, MetaImage, NRRD."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

IMAGE_SUFFIXES = (".nii", ".nii.gz", ".mhd", ".mha", ".nrrd", ".nhdr")
ELEMENT_BYTES = {"MET_CHAR": 1, "MET_UCHAR": 1, "MET_SHORT": 2, "MET_USHORT": 2, "MET_INT": 4, "MET_FLOAT": 4}


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


def read_ct(path: Path | str) -> CT:
    """Read a CT of any orientation: DICOM folder, NIfTI (.nii, .nii.gz), MetaImage (.mhd, .mha) or NRRD file.

    Raises FileNotFoundError if `path` is missing, ValueError with the reason if it is no usable CT.
    """
    path = Path(path)
    if path.is_dir():
        return read_dicom_folder(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    if path.name.lower().endswith(IMAGE_SUFFIXES):
        return read_image(path)
    raise ValueError(f"{path} is neither a DICOM folder nor one of {', '.join(IMAGE_SUFFIXES)}")


def read_image(path: Path) -> CT:
    """Read one NIfTI, MetaImage or NRRD file; millimetres are LPS whatever the format prefers."""
    array, index_to_mm = read_array(path)
    return CT(to_int16(array, path), index_to_mm)


def read_array(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read the voxels (z, y, x) in the file's own type, and the 4x4 from index (x, y, z, 1) to LPS mm."""
    import SimpleITK as sitk

    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    if path.name.lower().endswith((".nii", ".nii.gz")):
        return _read_nifti(path)
    if path.suffix.lower() == ".mhd":
        _check_raw_size(path)
    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        reason = [line for line in str(error).splitlines() if line.strip()][-1].strip()
        raise ValueError(f"{path} can not be read: {reason}") from error
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        components = image.GetNumberOfComponentsPerPixel()
        raise ValueError(
            f"{path} is no CT volume: size {image.GetSize()}, {components} values per voxel; expected 3D, 1"
        )
    direction = np.array(image.GetDirection()).reshape(3, 3)
    return sitk.GetArrayFromImage(image), affine(direction * image.GetSpacing(), image.GetOrigin())


def _read_nifti(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read NIfTI through nibabel.

    SimpleITK takes the missing part of a cut-off .nii.gz for zeros, and refuses sheared matrices.
    NIfTI's own millimetres are RAS; x and y change their sign.
    """
    import nibabel

    try:
        image = nibabel.load(path)
        array = np.asanyarray(image.dataobj)
    except Exception as error:  # OSError, EOFError, ImageFileError, zlib.error, ...
        raise ValueError(f"{path} can not be read: {error}") from error
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim != 3:
        raise ValueError(f"{path} is no CT volume: size {image.shape}; expected 3D")
    native = array.T if array.dtype.isnative else array.T.astype(array.dtype.newbyteorder("="))
    return native, np.diag([-1.0, -1.0, 1.0, 1.0]) @ image.affine


def _check_raw_size(header: Path) -> None:
    """Compare the size of the .raw with the header: not every version of SimpleITK notices a cut-off one."""
    entries = dict(line.split("=", 1) for line in header.read_text(errors="replace").splitlines() if "=" in line)
    entries = {key.strip(): value.strip() for key, value in entries.items()}
    data = header.with_name(entries.get("ElementDataFile", ""))
    if entries.get("ElementDataFile") in (None, "", "LOCAL", "LIST"):
        return
    if not data.is_file():
        raise FileNotFoundError(f"{data} does not exist; {header} says that it holds the voxels")
    size = ELEMENT_BYTES.get(entries.get("ElementType", ""))
    if size and entries.get("CompressedData", "False").lower() != "true":
        expected = size * int(np.prod([int(n) for n in entries["DimSize"].split()]))
        if data.stat().st_size < expected:
            raise ValueError(f"{data} is cut off: {data.stat().st_size} bytes, {header.name} needs {expected}")


def affine(matrix: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """4x4 of a 3x3 matrix and an origin, in mm."""
    result = np.eye(4)
    result[:3, :3] = matrix
    result[:3, 3] = origin
    return result


def to_int16(hu: np.ndarray, path: Path) -> np.ndarray:
    """HU as int16, clipped to what fits. ValueError if a value is not finite or the type is not a number."""
    if hu.dtype == np.int16:
        return hu
    if hu.dtype.kind not in "iuf":
        raise ValueError(f"{path} holds {hu.dtype} values, no HU")
    if hu.dtype.kind == "f":
        if not np.isfinite(hu).all():
            raise ValueError(f"{path} holds {np.count_nonzero(~np.isfinite(hu))} values that are not finite")
        hu = np.rint(hu)
    return np.clip(hu, -32768, 32767).astype(np.int16)


def read_dicom_folder(folder: Path) -> CT:
    """Read the one CT series below `folder`, slices ordered by position along their normal, never by name.

    Refused with ValueError: no or several series, other modalities, several frames per file, slices that
    differ in size, orientation or pixel spacing, missing, duplicate or unevenly spaced slices, no rescale to
    HU. A tilted gantry is kept exactly, as a sheared index_to_mm.
    """
    slices = _read_headers(folder)
    first = slices[0][1]
    orientation = np.array(first.ImageOrientationPatient, dtype=float).reshape(2, 3)
    normal = np.cross(orientation[0], orientation[1])
    positions = np.array([header.ImagePositionPatient for _, header in slices], dtype=float)
    order = np.argsort(positions @ normal, kind="stable")
    slices = [slices[i] for i in order]
    positions = positions[order]
    step = _slice_step(positions, normal, [path for path, _ in slices], first)
    row_mm, column_mm = (float(v) for v in first.PixelSpacing)  # distance between rows, then between columns
    matrix = np.column_stack([orientation[0] * column_mm, orientation[1] * row_mm, step])
    hu = np.stack([_slice_hu(path) for path, _ in slices])
    return CT(hu, affine(matrix, positions[0]))


def _read_headers(folder: Path) -> list[tuple[Path, object]]:
    """Headers of the DICOM images below `folder`, checked to be one uniform CT series."""
    import pydicom
    from pydicom.errors import InvalidDicomError

    found, others = [], 0
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        try:
            header = pydicom.dcmread(path, stop_before_pixels=True)
        except (InvalidDicomError, EOFError):
            others += 1
            continue
        except OSError as error:
            raise ValueError(f"{path} can not be read: {error}") from error
        if "Rows" in header:  # a DICOMDIR or a report has no pixels
            found.append((path, header))
        else:
            others += 1
    if not found:
        raise ValueError(f"{folder} holds no DICOM image ({others} other files)")
    series = sorted({str(h.get("SeriesInstanceUID", "")) for _, h in found})
    if len(series) > 1:
        raise ValueError(f"{folder} holds {len(series)} series ({', '.join(series[:3])}, ...); give the folder of one")
    reference = found[0][1]
    for path, header in found:
        _check_header(path, header)
        for name in ("Rows", "Columns", "PixelSpacing", "ImageOrientationPatient"):
            ours, theirs = np.array(header[name].value, float), np.array(reference[name].value, float)
            if not np.allclose(ours, theirs, atol=1e-3):
                raise ValueError(f"{path}: {name} is {ours}, but {theirs} in {found[0][0].name}; not one CT volume")
    return found


def _check_header(path: Path, header: object) -> None:
    if header.get("Modality", "CT") != "CT":
        raise ValueError(f"{path}: modality {header.Modality}, expected CT")
    if int(header.get("NumberOfFrames", 1)) > 1:
        raise ValueError(f"{path}: {header.NumberOfFrames} frames in one file; convert it to NIfTI first")
    for name, count in (("ImagePositionPatient", 3), ("ImageOrientationPatient", 6), ("PixelSpacing", 2)):
        value = header.get(name)
        if value is None or len(value) != count or not np.isfinite(np.array(value, float)).all():
            raise ValueError(f"{path}: {name} is {value}; without it the voxels have no place in the patient")
    if header.get("RescaleIntercept") is None or header.get("RescaleSlope") is None:
        raise ValueError(f"{path}: no RescaleSlope and RescaleIntercept, so its values are not HU")


def _slice_step(positions: np.ndarray, normal: np.ndarray, paths: list[Path], header: object) -> np.ndarray:
    """The vector from slice to slice in mm, after checking that it is everywhere the same."""
    if len(positions) == 1:
        return normal * float(header.get("SliceThickness") or 1.0)
    along = positions @ normal
    gaps = np.diff(along)
    typical = float(np.median(gaps))
    for i, gap in enumerate(gaps):
        pair = f"{paths[i].name} and {paths[i + 1].name} of {paths[i].parent}"
        if gap < 0.01:
            raise ValueError(f"two slices at the same position ({along[i]:.2f} mm): {pair}")
        if abs(gap - typical) > max(0.1 * typical, 0.02):
            missing = round(gap / typical) - 1
            kind = f"{missing} missing slices" if missing > 0 else "uneven slices"
            raise ValueError(f"{kind}: {gap:.2f} mm between {pair}, elsewhere {typical:.2f} mm")
    step = (positions[-1] - positions[0]) / (len(positions) - 1)
    drift = np.abs(positions - positions[0] - np.arange(len(positions))[:, None] * step).max()
    if drift > max(0.5, 0.5 * typical):
        raise ValueError(f"slices of {paths[0].parent} do not lie on one line: up to {drift:.2f} mm beside it")
    return step


def _slice_hu(path: Path) -> np.ndarray:
    """HU (y, x) of one DICOM slice; a compression that pydicom can not decode is left to SimpleITK."""
    import pydicom

    dataset = pydicom.dcmread(path)
    try:
        stored = dataset.pixel_array
    except (NotImplementedError, RuntimeError):
        return to_int16(read_array_2d(path), path)
    except Exception as error:  # a damaged file raises almost anything here
        raise ValueError(f"{path}: the pixels can not be read: {error}") from error
    slope, intercept = float(dataset.RescaleSlope), float(dataset.RescaleIntercept)
    return to_int16(stored.astype(np.float32) * slope + intercept, path)


def read_array_2d(path: Path) -> np.ndarray:
    """Rescaled values (y, x) of one DICOM file through SimpleITK."""
    import SimpleITK as sitk

    try:
        array = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    except RuntimeError as error:
        raise ValueError(f"{path}: its compression can not be decoded") from error
    return array.reshape(array.shape[-2:])
