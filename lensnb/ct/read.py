"""Reading a CT from the formats in which CTs come: DICOM folder, NIfTI, MetaImage, NRRD."""

from pathlib import Path

import numpy as np

from lensnb.ct import dicom
from lensnb.ct.headers import check_metaimage, check_nrrd
from lensnb.ct.nifti import read_nifti
from lensnb.ct.values import check_hu
from lensnb.ct.volume import CT, affine, check_sides, to_int16

NIFTI, METAIMAGE, NRRD = (".nii", ".nii.gz"), (".mhd", ".mha"), (".nrrd", ".nhdr")
IMAGE_SUFFIXES = (*NIFTI, *METAIMAGE, *NRRD)
UNIT_LENGTH = 1e-3  # to which a direction's length must be 1


def read_ct(path: Path | str, series: str | None = None) -> CT:
    """Read a CT of any orientation: DICOM folder, NIfTI (.nii, .nii.gz), MetaImage (.mhd, .mha) or NRRD file.

    An enhanced DICOM CT may also be given as its one file. `series` chooses by SeriesInstanceUID in a folder of
    several. Raises FileNotFoundError if `path` is missing, ValueError with the reason if it is no usable CT.
    """
    path = Path(path)
    if path.is_dir():
        return dicom.read_dicom_folder(path, series)
    _check_file(path)
    if series is not None:
        raise ValueError(f"{path} is a file; a series can only be chosen in a DICOM folder")
    if path.name.lower().endswith(IMAGE_SUFFIXES):
        return read_image(path)
    if dicom.is_dicom(path):
        return dicom.read_dicom_file(path)
    raise ValueError(f"{path} is neither a DICOM folder nor one of {', '.join(IMAGE_SUFFIXES)}")


def read_image(path: Path) -> CT:
    """Read one NIfTI, MetaImage or NRRD file; millimetres are LPS whatever the format prefers.

    ValueError if the file is damaged, contradicts itself about size or place, or does not hold HU (`values.check_hu`).
    """
    array, index_to_mm, notes = _read(path, strict=True)
    check_sides(index_to_mm, path)
    hu = to_int16(array, path)
    return CT(hu, index_to_mm, notes=(*notes, *check_hu(hu, path)))


def read_array(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read the voxels (z, y, x) in the file's own type, and the 4x4 from index (x, y, z, 1) to LPS mm.

    For masks: their values are not judged, and a NIfTI header may contradict itself about their place.
    """
    array, index_to_mm, _ = _read(path, strict=False)
    return array, index_to_mm


def _read(path: Path, strict: bool) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Voxels, matrix, and notes on what the header does not say."""
    _check_file(path)
    name = path.name.lower()
    if name.endswith(NIFTI):
        return read_nifti(path, strict)
    notes = check_metaimage(path) if name.endswith(METAIMAGE) else check_nrrd(path) if name.endswith(NRRD) else []
    return *_read_by_simpleitk(path), notes


def _check_file(path: Path) -> None:
    """FileNotFoundError or ValueError that says what is there instead of a file that can be read."""
    if path.is_file():
        return
    if path.is_dir():
        raise ValueError(f"{path} is a folder, not a file")
    if path.is_symlink():
        raise FileNotFoundError(f"{path} is a link whose file does not exist")
    if path.exists():
        raise ValueError(f"{path} is no file but a device or pipe; give a file")
    raise FileNotFoundError(f"{path} does not exist")


def _read_by_simpleitk(path: Path) -> tuple[np.ndarray, np.ndarray]:
    import SimpleITK as sitk

    try:
        str(path).encode()
    except UnicodeError as error:  # bytes of another encoding; SimpleITK would end the whole process
        raise ValueError(f"{str(path)!a}: the name is no UTF-8; rename the file") from error
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
    if np.abs(np.linalg.norm(direction, axis=0) - 1).max() > UNIT_LENGTH:
        raise ValueError(
            f"{path}: its directions are {direction.round(4).tolist()}, whose columns do not have the length 1; they "
            "contradict the spacing. Write the header again"
        )
    return sitk.GetArrayFromImage(image), affine(direction * image.GetSpacing(), image.GetOrigin())
