"""NIfTI: voxels, and where two matrices, the voxel size and a unit put them; refused where these contradict.

Where a file is accepted, its voxels lie where ITK, and with it 3D Slicer, shows them, to 0.1 mm at the far corner.
"""

from itertools import product
from pathlib import Path

import numpy as np

from lensnb.ct.compression import check_size, check_stream
from lensnb.ct.volume import affine
from lensnb.files.reasons import reason_of

SPARE = 4096  # bytes that may follow the voxels
MM_PER_UNIT = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}  # by xyzt_units: not said (taken for mm), m, mm, micron
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # NIfTI's own millimetres are RAS
SAME_MM = 0.1  # to which sform and qform must agree in every corner of the volume
SAME_SIZE = 1e-3  # share of a voxel's side to which matrix and pixdim must agree
NO_ORIENTATION = (
    "orientation is a guess: neither sform nor qform is set; as ITK does, x is taken to grow to the patient's left, y "
    "to the back, z to the head, from (0, 0, 0) mm"
)


def read_nifti(path: Path, strict: bool = True) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Voxels (z, y, x) in the file's own type, the 4x4 from index (x, y, z, 1) to LPS mm, and notes.

    nibabel reads, since SimpleITK takes the missing part of a cut-off .nii.gz for zeros and refuses sheared matrices.
    `strict=False` lets sform count where a header contradicts itself, for masks, whose place is compared with their
    CT's anyway. Raises ValueError that names the file if it is damaged, no volume, or contradicts itself.
    """
    import nibabel

    try:
        if path.suffix.lower() == ".nii" and _begins_with(path, b"\x1f\x8b"):
            raise ValueError("it is compressed; name it .nii.gz")
        image = nibabel.load(path)
        if not isinstance(image, nibabel.Nifti1Pair):
            raise ValueError(f"it is no NIfTI but {type(image).__name__.removesuffix('Image')}")
        shape = image.shape
        while len(shape) > 3 and shape[-1] == 1:
            shape = shape[:-1]
        check_size(shape)
        _check_bytes(path, image)
        sides = _pixdim(path, type(image.header))
        array = np.asanyarray(image.dataobj).reshape(shape, order="A")
    except MemoryError as error:
        raise ValueError(f"{path} can not be read: there is not enough memory for its {image.shape} voxels") from error
    except Exception as error:  # OSError, EOFError, ImageFileError, zlib.error, ...
        reason = reason_of(error)
        if "w2 should be positive" in reason:  # nibabel's words for a quaternion that is longer than 1
            reason = "its qform is no rotation"
        raise ValueError(f"{path} can not be read: {reason}") from error
    if array.ndim != 3:
        raise ValueError(f"{path} is no CT volume: size {image.shape}; expected 3D")
    native = array.T if array.dtype.isnative else array.T.astype(array.dtype.newbyteorder("="))
    matrix, notes = _place(path, image.header, sides, strict)
    return native, matrix, notes


def _begins_with(path: Path, start: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(start)) == start


def _check_bytes(path: Path, image: object) -> None:
    """Whether the file holds the voxels that its header tells of, to the checksum if it is compressed."""
    header = image.header
    needs = int(header["vox_offset"]) + int(np.prod(image.shape, dtype=np.int64)) * header.get_data_dtype().itemsize
    if path.name.lower().endswith(".gz"):
        with path.open("rb") as file:
            check_stream(file, needs, needs + SPARE)
        return
    size = path.stat().st_size
    if size < needs:
        raise ValueError(f"it is cut off: {size} bytes, its header tells of {needs}")
    if size > needs + SPARE:
        raise ValueError(f"it has {size} bytes, but its header tells of {needs}; one of them is wrong")


def _place(path: Path, header: object, sides: np.ndarray, strict: bool) -> tuple[np.ndarray, list[str]]:
    """The matrix from index to LPS mm by ITK's rules, and notes; ValueError where the header contradicts itself."""
    unit = int(header["xyzt_units"]) & 7
    if unit not in MM_PER_UNIT:
        raise ValueError(f"{path}: its unit of length is number {unit}, which NIfTI does not know; write it in mm")
    to_mm = np.diag([MM_PER_UNIT[unit]] * 3 + [1.0])
    if not np.isfinite(sides).all() or sides.min() <= 0:
        if strict:
            raise ValueError(f"{path}: its voxel size (pixdim) is {_sides(sides)}; it must be above 0. Write it again")
        sides = np.where(np.isfinite(sides) & (sides != 0), np.abs(sides), 1.0)
    try:
        sform = header.get_sform() if int(header["sform_code"]) > 0 else None
        asked = int(header["qform_code"]) > 0 and (strict or sform is None)  # a mask lies where its sform says
        qform = header.get_qform() if asked else None
    except ValueError as error:
        raise ValueError(f"{path}: its matrices (sform, qform) can not be read: {error}; write them again") from error
    notes = [] if unit in (0, 2) else [f"unit: the header is in {'m' if unit == 1 else 'micron'}, not in mm"]
    if sform is None and qform is None:
        return to_mm @ affine(np.diag(sides), np.zeros(3)), [*notes, NO_ORIENTATION]
    if sform is not None and strict:
        _check_sform(path, sform, sides, header.get_data_shape()[:3])
    if sform is not None and qform is not None and strict:
        apart = _apart(sform, qform, header.get_data_shape()[:3]) * MM_PER_UNIT[unit]
        if not apart <= SAME_MM:
            raise ValueError(
                f"{path}: its two matrices, sform and qform, put the same voxel up to {apart:.2f} mm apart; which is "
                "right only its maker knows. Set the code of the other one to 0"
            )
    matrix = LPS @ to_mm @ (qform if sform is None else sform)
    if sform is not None and _skew(sform) > 1e-3:
        notes.append(
            "sheared: the axes of its voxels are not at right angles, as after a tilted gantry; ITK refuses it"
        )
    return matrix, notes


def _pixdim(path: Path, kind: type) -> np.ndarray:
    """The voxel's sides (x, y, z) as the file has them: nibabel makes 0 to 1, and negative ones positive."""
    from nibabel.openers import ImageOpener

    with ImageOpener(path) as file:
        header = kind(file.read(kind.template_dtype.itemsize), check=False)
    return np.array(header["pixdim"][1:4], dtype=float)


def _check_sform(path: Path, sform: np.ndarray, sides: np.ndarray, shape: tuple[int, ...]) -> None:
    columns = np.linalg.norm(sform[:3, :3], axis=0)
    if not np.isfinite(sform).all() or columns.min() == 0:
        raise ValueError(f"{path}: its matrix (sform) is degenerate: {sform[:3].round(4).tolist()}")
    off = np.abs(columns - sides)  # ITK takes the sides of pixdim, and lies beside us by so much a voxel
    if (off > SAME_SIZE * sides).any() or (off * shape > SAME_MM).any():
        raise ValueError(
            f"{path}: its matrix (sform) has voxels of {_sides(columns)}, its pixdim of {_sides(sides)}; which is "
            "right only its maker knows. Write both alike"
        )


def _sides(sides: np.ndarray) -> str:
    return " x ".join(f"{side:.5g}" for side in sides)


def _apart(sform: np.ndarray, qform: np.ndarray, shape: tuple[int, ...]) -> float:
    corners = np.array([[*corner, 1] for corner in product(*[(0, length - 1) for length in shape])])
    return float(np.linalg.norm((corners @ (sform - qform).T)[:, :3], axis=1).max())


def _skew(matrix: np.ndarray) -> float:
    """The largest cosine between two axes."""
    axes = matrix[:3, :3] / np.linalg.norm(matrix[:3, :3], axis=0)
    return float(np.abs(axes.T @ axes - np.eye(3)).max())
