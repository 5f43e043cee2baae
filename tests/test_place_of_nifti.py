"""Where the voxels of a NIfTI file lie: what lensnb accepts lies where ITK, and so 3D Slicer, shows it."""

import nibabel
import numpy as np
import pytest

from lensnb.ct.read import read_array, read_ct
from lensnb.ct.volume import affine

sitk = pytest.importorskip("SimpleITK")

SHAPE = (5, 6, 7)  # x, y, z
SIDES = np.array([0.7, 0.8, 2.5])
ORIGIN = np.array([10.0, 20.0, -30.0])
VOXELS = (np.arange(210).reshape(SHAPE, order="F") * 7 - 900).astype(np.int16)
TURN = np.array([[np.cos(0.2), -np.sin(0.2), 0], [np.sin(0.2), np.cos(0.2), 0], [0, 0, 1]])
RIGHT = affine(np.diag([-1, -1, 1] * SIDES), ORIGIN)
LEFT = affine(np.diag(SIDES * [1, -1, 1]), ORIGIN)
TURNED = affine(TURN @ np.diag([-1, -1, 1] * SIDES), ORIGIN)
CYCLED = affine(np.eye(3)[[1, 2, 0]] * SIDES, ORIGIN)  # voxels of an axis in the direction of another one
UNSCALED = affine(np.diag([-1.0, -1, 1]), ORIGIN)
SHEARED = affine(np.array([[-0.7, 0, 0], [0, -0.8, 0.5], [0, 0, np.sqrt(2.5**2 - 0.25)]]), ORIGIN)
MOVED = affine(RIGHT[:3, :3], ORIGIN + [3, 0, 0])
A_LITTLE = affine(RIGHT[:3, :3], ORIGIN + [0, 5e-4, 0])


def write(path, sform=None, s_code=1, qform=None, q_code=1, sides=SIDES, kind=nibabel.Nifti1Header, **fields):
    """A .nii whose header holds exactly this; `fields` overwrite what follows from the matrices."""
    header = kind()
    header.set_data_shape(SHAPE)
    header.set_data_dtype(np.int16)
    if qform is not None:
        header.set_qform(qform, code=q_code)
    if sform is not None:
        header.set_sform(sform, code=s_code)
    header["pixdim"][1:4] = sides
    for name, value in fields.items():
        header[name] = value
    start = 352 if kind is nibabel.Nifti1Header else 544
    header["vox_offset"] = start
    path.write_bytes(header.binaryblock.ljust(start, b"\0") + VOXELS.tobytes("F"))


ACCEPTED = {
    "both": {"sform": RIGHT, "qform": RIGHT},
    "sform alone": {"sform": RIGHT},
    "qform alone": {"qform": RIGHT},
    "sform aligned": {"sform": RIGHT, "s_code": 2, "qform": RIGHT},
    "sform of a template": {"sform": RIGHT, "s_code": 4, "qform": RIGHT},
    "qform aligned": {"sform": RIGHT, "qform": RIGHT, "q_code": 2},
    "left-handed": {"sform": LEFT, "qform": LEFT},
    "left-handed sform": {"sform": LEFT},
    "left-handed qform": {"qform": LEFT},
    "turned": {"sform": TURNED, "qform": TURNED},
    "turned sform": {"sform": TURNED},
    "turned qform": {"qform": TURNED},
    "axes in another order": {"sform": CYCLED, "qform": CYCLED},
    "values of sform without a code": {"sform": TURNED, "s_code": 0, "qform": RIGHT},
    "values of qform without a code": {"sform": TURNED, "qform": RIGHT, "q_code": 0},
    "differing by less than a micron": {"sform": RIGHT, "qform": A_LITTLE},
    "unit not said": {"sform": RIGHT, "qform": RIGHT, "xyzt_units": 0},
    "unit mm and s": {"sform": RIGHT, "qform": RIGHT, "xyzt_units": 2 | 8},
    "in metres": {"sform": np.diag([1e-3] * 3 + [1]) @ RIGHT, "sides": SIDES / 1e3, "xyzt_units": 1},
    "qform in metres": {"qform": np.diag([1e-3] * 3 + [1]) @ RIGHT, "sides": SIDES / 1e3, "xyzt_units": 1},
    "in micron": {"sform": np.diag([1e3] * 3 + [1]) @ RIGHT, "sides": SIDES * 1e3, "xyzt_units": 3},
    "no code": {},
    "no code, but offsets": {"qoffset_x": 5, "qoffset_y": 6},
    "no code, in micron": {"sides": SIDES * 1e3, "xyzt_units": 3},
    "sheared sform": {"sform": SHEARED},
    "NIfTI-2": {"sform": RIGHT, "qform": RIGHT, "kind": nibabel.Nifti2Header},
    "NIfTI-2, qform": {"qform": TURNED, "kind": nibabel.Nifti2Header},
}
UNREAD_BY_ITK = {"sheared sform": SHEARED, "NIfTI-2": RIGHT, "NIfTI-2, qform": TURNED}
LPS = np.diag([-1.0, -1, 1, 1])
NOTED = {
    "in metres": "unit: the header is in m",
    "qform in metres": "unit: ",
    "in micron": "unit: the header is in micron",
    "no code": "orientation is a guess",
    "no code, but offsets": "orientation is a guess",
    "no code, in micron": ("unit: ", "orientation is a guess"),
    "sheared sform": "sheared: ",
}
REFUSED = {
    "sform without scale": ({"sform": UNSCALED}, r"voxels of 1 x 1 x 1, its pixdim of 0.7 x 0.8 x 2.5"),
    "sform without scale, qform with": ({"sform": UNSCALED, "qform": RIGHT}, "only its maker knows"),
    "pixdim left at 1": ({"sform": RIGHT, "sides": 1}, r"voxels of 0.7 x 0.8 x 2.5, its pixdim of 1 x 1 x 1"),
    "pixdim zero": ({"sform": RIGHT, "sides": 0}, r"voxel size \(pixdim\) is 0 x 0 x 0; it must be above 0"),
    "pixdim zero, qform": ({"qform": RIGHT, "sides": 0}, "must be above 0"),
    "pixdim negative": ({"sform": RIGHT, "sides": -SIDES}, "must be above 0"),
    "pixdim nan": ({"sides": np.nan}, "must be above 0"),
    "pixdim a little off": ({"sform": RIGHT, "sides": SIDES * 1.002}, "only its maker knows"),
    "sform nan": ({"sform": np.full((4, 4), np.nan), "qform": RIGHT}, "sform.*degenerate"),
    "sform zero": ({"sform": np.zeros((4, 4)), "qform": RIGHT}, "sform.*degenerate"),
    "sform flat": ({"sform": RIGHT[:, [0, 0, 2, 3]], "sides": SIDES[[0, 0, 2]]}, "degenerate"),
    "matrices turned": ({"sform": RIGHT, "s_code": 2, "qform": TURNED}, r"sform and qform, put .* up to \d"),
    "matrices turned, scanner": ({"sform": TURNED, "qform": RIGHT}, "Set the code of the other one to 0"),
    "matrices mirrored": ({"sform": LEFT, "qform": RIGHT}, "sform and qform"),
    "matrices moved": ({"sform": MOVED, "qform": RIGHT}, "up to 3.00 mm apart"),
    "sheared sform, qform": ({"sform": SHEARED, "qform": RIGHT}, "sform and qform"),
    "metres that are mm": ({"sform": RIGHT, "xyzt_units": 1}, "voxels of 700 x 800 x 2500 mm are no CT's"),
    "micron that are mm": ({"qform": RIGHT, "xyzt_units": 3}, "are no CT's"),
    "unknown unit": ({"sform": RIGHT, "xyzt_units": 5}, "unit of length is number 5"),
    "quaternion too long beside a matrix": (
        {"sform": RIGHT, "qform": RIGHT, "quatern_b": 0.9, "quatern_c": 0.9}, "its matrices .* can not be read"
    ),
    "quaternion too long": ({"qform": RIGHT, "quatern_b": 0.9, "quatern_c": 0.9}, "its qform is no rotation"),
}


def position_by_itk(path) -> np.ndarray:
    image = sitk.ReadImage(str(path))
    return affine(np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing(), np.array(image.GetOrigin()))


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted_voxels_lie_where_itk_has_them(name, tmp_path):
    path = tmp_path / "ct.nii"
    write(path, **ACCEPTED[name])
    ct = read_ct(path)
    np.testing.assert_array_equal(ct.hu, VOXELS.T)
    expected = LPS @ UNREAD_BY_ITK[name] if name in UNREAD_BY_ITK else position_by_itk(path)
    corners = np.array([[x, y, z, 1] for x in (0, 4) for y in (0, 5) for z in (0, 6)])
    np.testing.assert_allclose(corners @ ct.index_to_mm.T, corners @ expected.T, atol=1e-3)
    assert [note for note in ct.notes if note.startswith(NOTED.get(name, "none"))] == list(ct.notes)
    assert bool(ct.notes) == (name in NOTED)


@pytest.mark.parametrize("name", REFUSED)
def test_contradictions_are_refused(name, tmp_path):
    fields, message = REFUSED[name]
    write(tmp_path / "ct.nii", **fields)
    with pytest.raises(ValueError, match=f"ct.nii.*{message}"):
        read_ct(tmp_path / "ct.nii")


def test_a_mask_with_a_contradiction_is_read_for_its_voxels(tmp_path):
    write(tmp_path / "mask.nii", sform=UNSCALED)
    array, matrix = read_array(tmp_path / "mask.nii")
    np.testing.assert_array_equal(array, VOXELS.T)
    np.testing.assert_allclose(np.abs(np.diag(matrix)), 1)
