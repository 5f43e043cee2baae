"""Reading a CT from the formats in which CTs come: DICOM folder, NIfTI, MetaImage, NRRD."""

import math
from pathlib import Path

import numpy as np

from lensnb.ct import dicom
from lensnb.ct.volume import CT, affine, to_int16

IMAGE_SUFFIXES = (".nii", ".nii.gz", ".mhd", ".mha", ".nrrd", ".nhdr")
ELEMENT_BYTES = {"MET_CHAR": 1, "MET_UCHAR": 1, "MET_SHORT": 2, "MET_USHORT": 2, "MET_INT": 4, "MET_FLOAT": 4}


def read_ct(path: Path | str, series: str | None = None) -> CT:
    """Read a CT of any orientation: DICOM folder, NIfTI (.nii, .nii.gz), MetaImage (.mhd, .mha) or NRRD file.

    An enhanced DICOM CT may also be given as its one file. `series` chooses by SeriesInstanceUID in a folder of
    several. Raises FileNotFoundError if `path` is missing, ValueError with the reason if it is no usable CT.
    """
    path = Path(path)
    if path.is_dir():
        return dicom.read_dicom_folder(path, series)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist")
    if series is not None:
        raise ValueError(f"{path} is a file; a series can only be chosen in a DICOM folder")
    if path.name.lower().endswith(IMAGE_SUFFIXES):
        return read_image(path)
    if path.is_file() and dicom.is_dicom(path):
        return dicom.read_dicom_file(path)
    raise ValueError(f"{path} is neither a DICOM folder nor one of {', '.join(IMAGE_SUFFIXES)}")


def read_image(path: Path) -> CT:
    """Read one NIfTI, MetaImage or NRRD file; millimetres are LPS whatever the format prefers."""
    array, index_to_mm = read_array(path)
    if not np.isfinite(index_to_mm).all() or abs(np.linalg.det(index_to_mm[:3, :3])) < 1e-9:
        raise ValueError(
            f"{path}: its matrix from voxels to millimetres is degenerate: {index_to_mm[:3].round(4).tolist()}"
        )
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
    absent = [key for key in ("DimSize", "ElementType", "ElementDataFile") if not entries.get(key)]
    if absent:
        raise ValueError(f"{header} is no MetaImage header: it does not say {', '.join(absent)}")
    if entries["ElementDataFile"] in ("LOCAL", "LIST"):
        return
    data = header.parent / entries["ElementDataFile"]
    if not data.is_file():
        raise FileNotFoundError(f"{data} does not exist; {header} says that it holds the voxels")
    dimensions = entries["DimSize"].split()
    if not all(number.isdecimal() for number in dimensions):
        raise ValueError(f"{header}: DimSize is {entries['DimSize']!r}, not whole numbers")
    size = ELEMENT_BYTES.get(entries["ElementType"])
    if size and entries.get("CompressedData", "False").lower() != "true":
        expected = size * math.prod(map(int, dimensions))
        if data.stat().st_size < expected:
            raise ValueError(f"{data} is cut off: {data.stat().st_size} bytes, {header.name} needs {expected}")
