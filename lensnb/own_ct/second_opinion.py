"""Where SimpleITK, by itself, puts the voxels of a CT: compared with lensnb's positions before any is written.

A wrong place in the patient does not show in a picture or a score. SimpleITK reads headers with other code (ITK, GDCM)
than lensnb (nibabel, pydicom), so a fault of one of them, or a header that contradicts itself, makes them differ.
MetaImage and NRRD are read with SimpleITK by both.
"""

from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

from lensnb.ct.grid import transform
from lensnb.ct.read import IMAGE_SUFFIXES
from lensnb.ct.volume import CT, affine
from lensnb.files import files_below

LIMIT_MM, LIMIT_VOXELS = 0.1, 0.1  # how far apart they may be: the larger one; headers round to about 0.01 mm


@dataclass(frozen=True)
class Opinion:
    """SimpleITK's 4x4 from voxel index (x, y, z, 1) to patient mm, LPS; None where it has none, for `reason`."""

    index_to_mm: np.ndarray | None
    limit_mm: float
    reason: str = ""

    @property
    def warning(self) -> list[str]:
        """What has to be said if it has none."""
        return [f"the positions could not be compared with SimpleITK's: {self.reason}"] if self.reason else []

    def compare(self, path: Path | str, indices: np.ndarray, points_mm: np.ndarray) -> float:
        """The largest distance in mm between `points_mm` (n, 3) and where SimpleITK puts the voxel `indices` (n, 3).

        0 if it has no opinion. ValueError, which names `path` and the distance, if that is over the limit.
        """
        if self.index_to_mm is None or not len(indices):
            return 0.0
        distances = np.linalg.norm(transform(self.index_to_mm, indices) - points_mm, axis=1)
        if not distances.max() <= self.limit_mm:
            worst = int(distances.argmax())
            raise ValueError(
                f"{path}: lensnb and SimpleITK put voxel {np.round(indices[worst], 1).tolist()} (x, y, z) "
                f"{distances[worst]:.1f} mm apart, at {np.round(points_mm[worst], 1).tolist()} and "
                f"{transform(self.index_to_mm, indices[worst]).round(1)[0].tolist()} mm (LPS); nothing is written. Its "
                "header contradicts itself (in NIfTI: qform and sform): convert or export the CT again"
            )
        return float(distances.max())


def ask(path: Path | str, ct: CT, series: str | None = None) -> Opinion:
    """SimpleITK's opinion on the input that `ct` was read from; of DICOM it reads headers and two slices.

    It has none of a tilted gantry, of enhanced DICOM, of slices in several folders, of what it refuses to read, and
    where it is not installed.
    """
    limit = max(LIMIT_MM, LIMIT_VOXELS * float(ct.spacing_mm.min()))
    slant = slant_mm(ct)
    try:
        import SimpleITK  # noqa: F401
    except ImportError:
        return Opinion(None, limit, "it is not installed")
    if slant > limit:
        return Opinion(None, limit, f"it knows no tilted gantry, and the slices here are shifted by {slant:.1f} mm")
    path = Path(path)
    try:
        if path.is_dir():
            found = _of_folder(path, ct, series)
        elif path.name.lower().endswith(IMAGE_SUFFIXES):
            found = _of_file(path, ct)
        else:
            return Opinion(None, limit, "it does not read the places of the frames of enhanced DICOM")
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return Opinion(None, limit, f"it can not read the input ({lines[-1] if lines else 'no reason given'})")
    if found is None:
        return Opinion(None, limit, f"it finds no folder with a series of {len(ct.hu)} single slices")
    return Opinion(found, limit)


def corners(ct: CT) -> np.ndarray:
    """Indices (8, 3: x, y, z) of the centres of a volume's corner voxels."""
    return np.array(list(product(*((0, size - 1) for size in ct.hu.shape[::-1]))), dtype=float)


def slant_mm(ct: CT) -> float:
    """How far the last slice is shifted sideways in mm, against a box with right angles."""
    x, y, step = ct.index_to_mm[:3, :3].T
    normal = np.cross(x, y) / np.linalg.norm(np.cross(x, y))
    between = np.linalg.norm(x) * np.dot(x / np.linalg.norm(x), y / np.linalg.norm(y))
    sideways = np.linalg.norm(step - normal * (step @ normal)) * (len(ct.hu) - 1)
    return max(float(sideways), abs(float(between)) * (ct.hu.shape[2] - 1))


def _of_file(path: Path, ct: CT) -> np.ndarray:
    """From the header of an image file; ValueError if it has other voxels than `ct`."""
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    dimensions, size = reader.GetDimension(), reader.GetSize()
    if tuple(size[:3]) != ct.hu.shape[::-1]:
        raise ValueError(f"{path}: SimpleITK sees {size} voxels, lensnb {ct.hu.shape[::-1]}; convert the CT again")
    direction = np.array(reader.GetDirection()).reshape(dimensions, dimensions)[:3, :3]
    return affine(direction * reader.GetSpacing()[:3], np.array(reader.GetOrigin()[:3]))


def _of_folder(path: Path, ct: CT, series: str | None) -> np.ndarray | None:
    """From the first and last slice of the series that has as many as `ct`; None if no folder holds one."""
    import SimpleITK as sitk

    reader = sitk.ImageSeriesReader()
    found = []
    for folder in sorted({str(file.parent) for file in files_below(path)}):
        for name in reader.GetGDCMSeriesIDs(folder):
            if series in (None, name):
                files = reader.GetGDCMSeriesFileNames(folder, name)
                if len(files) == len(ct.hu):
                    found.append(_of_ends(files))
    points = corners(ct)
    ours = transform(ct.index_to_mm, points)
    # a localizer with as many files is another series, and no reason to refuse this one
    return min(found, key=lambda matrix: np.abs(transform(matrix, points) - ours).max(), default=None)


def _of_ends(files: tuple[str, ...]) -> np.ndarray:
    """From the first and last of a series' files in GDCM's order; between them the slices are evenly spaced."""
    import SimpleITK as sitk

    ends = [files[0], files[-1]] if len(files) > 1 else [files[0]]
    image = sitk.ReadImage(ends)
    origin, *axes = (
        np.array(image.TransformContinuousIndexToPhysicalPoint(index))
        for index in ([0.0, 0, 0], [1.0, 0, 0], [0.0, 1, 0], [0.0, 0, 1])
    )
    matrix = np.column_stack([axis - origin for axis in axes])
    matrix[:, 2] /= max(1, len(files) - 1)
    return affine(matrix, origin)
