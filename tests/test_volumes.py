"""Reading CTs, the grid, and the way back."""

from itertools import permutations, product

import numpy as np
import pytest
from scipy import ndimage
from tiny import field, sample, write_dicom, write_image

from lensnb.ct.grid import (
    border_crop,
    boxes3d_to_grid,
    boxes3d_to_original,
    grid_to_mm,
    grid_to_original,
    mm_to_grid,
    normalise,
    original_to_grid,
    resample,
)
from lensnb.ct.read import read_ct
from lensnb.ct.volume import CT, affine

SPACING = np.array([0.9, 0.7, 2.5])
ORIENTATIONS = [(axes, signs) for axes in permutations(range(3)) for signs in product([1, -1], repeat=3)]


def oriented(axes, signs, origin=(-20.0, 30.0, 5.0)) -> np.ndarray:
    """Matrix of an image whose index axis i runs along patient axis axes[i], with sign signs[i]."""
    matrix = np.zeros((3, 3))
    for index, (patient, sign) in enumerate(zip(axes, signs, strict=False)):
        matrix[patient, index] = sign * SPACING[index]
    return affine(matrix, np.array(origin))


def rotated(degrees: float) -> np.ndarray:
    angle = np.radians(degrees)
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    return affine(turn @ np.diag(SPACING), np.array([3.0, 4.0, 5.0]))


def check_against_field(hu: np.ndarray, geometry) -> None:
    z, y, x = np.meshgrid(*[np.arange(n) for n in hu.shape], indexing="ij")
    points = np.stack([x, y, z], axis=-1).reshape(-1, 3)
    expected = field(grid_to_mm(points, geometry)).reshape(hu.shape)
    assert np.abs(hu - np.clip(expected, -1024, 3071)).max() < 1.01  # both are rounded


@pytest.mark.parametrize(("axes", "signs"), ORIENTATIONS)
def test_every_orientation_gives_the_same_patient(axes, signs):
    matrix = oriented(axes, signs)
    ct = CT(np.rint(sample(matrix, (7, 11, 9))).astype(np.int16), matrix, first_slice=40)
    hu, geometry = normalise(ct, (0.8, 0.6, 1.5))
    check_against_field(hu, geometry)
    steps = grid_to_mm(np.eye(3), geometry) - grid_to_mm(np.zeros((3, 3)), geometry)
    np.testing.assert_allclose(steps, np.diag([0.8, 0.6, 1.5]), atol=1e-9)  # left, back, head
    points = np.random.default_rng(0).uniform(0, 6, (20, 3))
    np.testing.assert_allclose(original_to_grid(grid_to_original(points, geometry), geometry), points, atol=1e-9)
    np.testing.assert_allclose(mm_to_grid(grid_to_mm(points, geometry), geometry), points, atol=1e-9)
    corner = grid_to_original(np.zeros((1, 3)), geometry)[0]  # the first voxels coincide
    assert all(min(abs(c), abs(c - n + 1)) < 1e-9 for c, n in zip(corner, (9, 11, 7), strict=False))


def test_small_tilts_stay_exact_and_large_ones_are_refused():
    ct = CT(np.rint(sample(rotated(12), (7, 11, 9))).astype(np.int16), rotated(12))
    check_against_field(*normalise(ct, (0.8, 0.6, 1.5)))
    with pytest.raises(ValueError, match="tilted by 40 degrees"):
        normalise(CT(ct.hu, rotated(40)), (0.8, 0.6, 1.5))
    with pytest.raises(ValueError, match="degenerate"):
        normalise(CT(ct.hu, np.diag([1.0, 1.0, 0.0, 1.0])), (0.8, 0.6, 1.5))
    with pytest.raises(ValueError, match="three dimensions"):
        normalise(CT(ct.hu[0], rotated(0)), (0.8, 0.6, 1.5))


def test_resampling_agrees_with_scipy():
    rng = np.random.default_rng(1)
    hu = rng.integers(-1024, 3000, (5, 9, 8)).astype(np.int16)
    z, y, x = np.linspace(0, 4, 7), np.arange(12) * 0.7, np.arange(5) * 1.6
    where = np.meshgrid(z, y, x, indexing="ij")
    expected = ndimage.map_coordinates(hu.astype(float), where, order=1)
    assert np.abs(resample(hu, z, y, x) - expected).max() < 0.51


def test_pads_and_metal_do_not_bleed():
    hu = np.zeros((1, 2, 4), np.int16)
    hu[:, :, 0], hu[:, :, 3] = -3024, 9000
    result = resample(hu, np.zeros(1), np.zeros(1), np.array([0, 0.5, 1, 2, 2.5, 3]))
    np.testing.assert_array_equal(result[0, 0], [-1024, -512, 0, 0, 1536, 3071])


def test_first_and_single_slices():
    hu = np.arange(60, dtype=np.int16).reshape(1, 6, 10)
    grid, geometry = normalise(CT(hu, np.eye(4)), (1.0, 1.0, 3.0))
    np.testing.assert_array_equal(grid, hu)
    np.testing.assert_allclose(geometry.grid_to_original, np.diag([1, 1, 3, 1]))


def test_border_crop_keeps_the_body_and_drops_thin_things():
    hu = np.full((2, 40, 50), -1000, np.int16)
    hu[0, 10:25, 8:30] = 40  # body
    hu[1, 12:28, 10:32] = 40
    hu[:, 33:36, :] = 100  # a table of 3 pixels
    positions = np.arange(40.0), np.arange(50.0)
    assert border_crop(hu, *positions, (0.8, 0.8, 2.0)) == (slice(10, 28), slice(8, 32))
    air = np.full_like(hu, -1000)
    assert border_crop(air, *positions, (0.8, 0.8, 2.0)) == (slice(0, 40), slice(0, 50))


@pytest.mark.parametrize("seed", range(5))
def test_border_crop_equals_the_opening_of_scipy(seed):
    rng = np.random.default_rng(seed)
    mask = ndimage.binary_dilation(rng.random((1, 30, 34)) > 0.985, np.ones((1, 6, 6)))
    opened = ndimage.binary_opening(mask[0], np.ones((7, 7)))
    hu = np.where(mask, 0, -1000).astype(np.int16)
    rows, columns = border_crop(hu, np.arange(30.0), np.arange(34.0), (0.8, 0.8, 2.0))
    if not opened.any():
        assert (rows, columns) == (slice(0, 30), slice(0, 34))
    else:
        y, x = np.nonzero(opened)
        assert (rows.start, rows.stop, columns.start, columns.stop) == (
            y.min(),
            y.max() + 1,
            x.min(),
            x.max() + 1,
        )


def test_crop_is_in_the_way_back():
    hu = np.full((3, 30, 30), -1000, np.int16)
    hu[:, 10:22, 6:24] = 50
    hu[1, 15, 17] = 900
    matrix = np.diag([1.0, 1.0, -2.0, 1.0])
    grid, geometry = normalise(CT(hu, matrix, first_slice=5), (1.0, 1.0, 2.0))
    assert grid.shape == (3, 12, 18)
    z, y, x = np.argwhere(grid == 900)[0]
    np.testing.assert_allclose(grid_to_original([[x, y, z]], geometry), [[17, 15, 1]])


def test_manual_boxes_worked_out_by_hand():
    # DeepLesion slices of 5 mm from head to feet, numbered from 10, on a grid of 2 mm
    _, geometry = normalise(
        CT(np.zeros((5, 20, 20), np.int16), np.diag([1.0, 1.0, -5.0, 1.0]), 10), (1.0, 1.0, 2.0), crop=False
    )
    # slices 11 and 12 reach from 15 + 2.5 to 10 - 2.5 mm above the lowest slice, 14: 7.5 to 17.5 mm, 3.75 to
    # 8.75 slices
    grid = boxes3d_to_grid(np.array([[3.0, 4, 11, 6, 8, 12]]), geometry)
    np.testing.assert_allclose(grid, [[3, 4, 4.25, 6, 8, 8.25]])
    np.testing.assert_allclose(boxes3d_to_original(grid, geometry), [[3, 4, 11, 6, 8, 12]])
    # whole grid slices 4 to 8 (8 to 16 mm) hold the centres of the same original slices, at 10 and 15 mm
    np.testing.assert_allclose(boxes3d_to_original([[3, 4, 4, 6, 8, 8]], geometry), [[3, 4, 11, 6, 8, 12]])
    # grid slice 6 reaches from 11 to 13 mm, between two original slices; 10 mm, number 12, is the nearest
    np.testing.assert_allclose(boxes3d_to_original([[3, 4, 6, 6, 8, 6]], geometry)[0, [2, 5]], [12, 12])


@pytest.mark.parametrize("step", [0.5, 1.0, 2.0, 2.5, 5.0])
@pytest.mark.parametrize("sign", [1, -1])
def test_manual_boxes_return_exactly(step, sign):
    _, geometry = normalise(
        CT(np.zeros((60, 8, 8), np.int16), np.diag([0.7, 0.9, sign * step, 1]), 30),
        (0.8, 0.8, 2.0),
        crop=False,
    )
    first = np.arange(32, 60)
    boxes = np.column_stack([np.full((28, 2), 1.5), first, np.full((28, 2), 5.5), first + 5])
    np.testing.assert_allclose(boxes3d_to_original(boxes3d_to_grid(boxes, geometry), geometry), boxes, atol=1e-9)


FLIPPED = affine(np.diag([-0.9, -0.7, 2.5]), np.array([20.0, 10.0, -30.0]))


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mhd", ".mha", ".nrrd", "dicom"])
@pytest.mark.parametrize("matrix", [FLIPPED, oriented((2, 0, 1), (1, -1, -1)), rotated(15)])
def test_every_format_reads_the_same_patient(tmp_path, suffix, matrix):
    hu = np.rint(sample(matrix, (6, 8, 9))).astype(np.int16)
    path = tmp_path / ("series" if suffix == "dicom" else f"ct{suffix}")
    write_dicom(path, hu, matrix) if suffix == "dicom" else write_image(path, hu, matrix)
    ct = read_ct(path)
    assert ct.hu.dtype == np.int16
    np.testing.assert_allclose(np.abs(ct.hu - sample(ct.index_to_mm, ct.hu.shape)).max(), 0, atol=0.6)
    check_against_field(*normalise(ct, (0.8, 0.6, 1.5)))


def test_broken_files_are_refused_with_the_reason(tmp_path):
    hu = np.zeros((6, 8, 9), np.int16)
    write_image(tmp_path / "cut.mhd", hu, np.eye(4))
    raw = tmp_path / "cut.raw"
    raw.write_bytes(raw.read_bytes()[:100])
    with pytest.raises(ValueError, match="cut.raw is cut off: 100 bytes, cut.mhd needs 864"):
        read_ct(tmp_path / "cut.mhd")
    raw.unlink()
    with pytest.raises(FileNotFoundError, match="cut.raw"):
        read_ct(tmp_path / "cut.mhd")
    for name in ("empty.nii", "text.nii.gz", "text.nrrd", "text.mha"):
        (tmp_path / name).write_text("" if name.startswith("empty") else "no image")
        with pytest.raises(ValueError, match=f"{name} can not be read"):
            read_ct(tmp_path / name)
    for suffix in (".nii", ".nii.gz", ".mha", ".nrrd"):
        write_image(
            tmp_path / f"whole{suffix}",
            np.random.default_rng(0).integers(0, 99, (6, 8, 9)).astype(np.int16),
            np.eye(4),
        )
        data = (tmp_path / f"whole{suffix}").read_bytes()
        (tmp_path / f"half{suffix}").write_bytes(data[: len(data) - 300])
        with pytest.raises(ValueError, match=f"half{suffix} can not be read"):
            read_ct(tmp_path / f"half{suffix}")
    write_image(
        tmp_path / "nan.nii",
        np.where(np.arange(432).reshape(6, 8, 9) < 3, np.nan, 0).astype(np.float32),
        np.eye(4),
    )
    with pytest.raises(ValueError, match="nan.nii holds 3 values that are not finite"):
        read_ct(tmp_path / "nan.nii")
    import SimpleITK as sitk

    sitk.WriteImage(sitk.Image([4, 5, 6, 2], sitk.sitkInt16), str(tmp_path / "four.nii"))
    with pytest.raises(ValueError, match=r"four.nii is no CT volume: size \(4, 5, 6, 2\)"):
        read_ct(tmp_path / "four.nii")
    (tmp_path / "picture.jpg").write_text("x")
    with pytest.raises(ValueError, match="neither a DICOM folder"):
        read_ct(tmp_path / "picture.jpg")
    with pytest.raises(FileNotFoundError, match="absent.nii"):
        read_ct(tmp_path / "absent.nii")
    (tmp_path / "nothing").mkdir()
    with pytest.raises(ValueError, match="holds no CT image .it is empty"):
        read_ct(tmp_path / "nothing")
