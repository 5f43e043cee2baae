"""Small made-up inputs that stand for faults which users reported; the files are beside the repository or absent."""

import numpy as np
import pytest

from lensnb import __main__ as cli
from lensnb.ct.read import read_ct
from lensnb.datasets import deeplesion
from lensnb.datasets.check import check
from lensnb.own_ct import slicer

SIDES = (0.7, 0.8, 2.5)
FIRST = (-11.2, -9.6, 100)


@pytest.fixture(scope="module")
def faults(shared_data):
    folder = shared_data / "faults"
    if not folder.is_dir():
        pytest.skip("the shared test files have no folder of faults")
    return folder


@pytest.fixture(scope="module")
def voxels(faults):
    """(8, 24, 32) HU that every one of these files was written from, without any header around them."""
    return np.fromfile(faults / "08_no_spacing" / "M00_plain.raw", "<i2").reshape(8, 24, 32)


def check_whole(ct, voxels) -> None:
    np.testing.assert_array_equal(ct.hu, voxels)
    assert (voxels.min(), voxels.max()) == (-1000, 1200)
    np.testing.assert_allclose(ct.spacing_mm, SIDES, rtol=1e-6)


def test_files_of_macos_are_left_out_and_counted(faults, voxels):
    ct = read_ct(faults / "01_appledouble_dcm")
    check_whole(ct, voxels)
    np.testing.assert_allclose(ct.index_to_mm[:3, 3], FIRST)
    assert ct.notes == ("left out: 9 files that are no CT slice (9 of macOS)",)


def test_a_sign_that_the_stream_does_not_have(faults, voxels):
    ct = read_ct(faults / "09_jpeg2000_sign")
    check_whole(ct, voxels)
    assert ct.notes == ()


def test_slightly_turned_slices_are_read_with_a_note(faults, voxels):
    ct = read_ct(faults / "17_iop_2e-3")
    check_whole(ct, voxels)
    assert len(ct.notes) == 1 and "turned slices" in ct.notes[0] and "0.11 degrees" in ct.notes[0]


def test_nifti_without_orientation_lies_where_itk_has_it(faults, voxels):
    path = faults / "06_nifti_no_orientation/N03_no_codes.nii"
    ct = read_ct(path)
    check_whole(ct, voxels)
    (note,) = ct.notes
    assert note.startswith("orientation is a guess")
    corners = np.array([[x, y, z] for x in (0, 31) for y in (0, 23) for z in (0, 7)])
    ours = corners @ ct.index_to_mm[:3, :3].T + ct.index_to_mm[:3, 3]
    np.testing.assert_allclose(ours, slicer.itk_positions(slicer.itk_image(path), corners), atol=1e-3)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("02_two_patients_no_series_uid", r"two patients: PatientID is 'A' in .*dcm, but 'B' in .*dcm\. Give a folder"),
        ("05_nifti_spacing_contradicts/N02_sform_without_scale.nii", "voxels of 1 x 1 x 1, its pixdim of 0.7 x 0.8"),
        ("08_no_spacing/M06_no_spacing.mhd", "the spacing is missing; without ElementSpacing"),
    ],
)
def test_refused(faults, name, message):
    with pytest.raises(ValueError, match=message) as error:
        read_ct(faults / name)
    assert "\n" not in str(error.value)


def test_pngs_with_another_offset_are_reported(faults, capsys):
    root = faults / "14_deeplesion_offset_lost"
    problems = check(root, read=True).problems
    ours = problems[problems["dataset"] == "DeepLesion"]
    assert ours["effect"].tolist() == ["left out"] and "are no HU" in ours["problem"].iloc[0]
    row = deeplesion.find(root).iloc[0]
    with pytest.raises(ValueError, match="too few slices: 0 .*are no HU; it should hold HU"):
        deeplesion.read(root, row)
    assert cli.main(["data", "check", "--root", str(root), "--read"]) == 1
    assert "are no HU" in capsys.readouterr().out
