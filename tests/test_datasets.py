"""The four readers, on tiny files that the tests write and on real ones."""

import time

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage
from tiny import (
    INFO_COLUMNS,
    ball,
    info_row,
    write_deeplesion,
    write_image,
    write_lits,
    write_luna,
    write_nih,
    write_png,
)

from lensnb.ct.volume import CT, affine
from lensnb.datasets import DATASETS, NAMES, SINGLE_TYPE, UNIVERSAL, deeplesion, lits, luna16, nih_ln
from lensnb.datasets.masks import align_mask, mask_boxes
from lensnb.datasets.readers import READERS

ROW = info_row("000001_01_01", 12, (11, 21, 31, 36), (10, 14))


def one(found: pd.DataFrame, volume: str) -> pd.Series:
    return found.set_index("volume", drop=False).loc[volume]


# DeepLesion


def test_deeplesion_boxes_slices_and_hu(tmp_path):
    rows = [
        ROW,
        info_row("000001_01_01", 14, (1, 1, 9, 9), (10, 14)),
        info_row("000001_01_01", 31, (2, 2, 8, 8), (30, 33)),
    ]
    write_deeplesion(tmp_path, rows, hu=lambda number: np.full((48, 48), -2048 if number == 10 else number))
    found = deeplesion.find(tmp_path)
    assert list(found["volume"]) == ["000001_01_01_010-014", "000001_01_01_030-033"]
    assert list(found.loc[0, ["patient", "study", "series", "split"]]) == [
        "000001",
        "000001_01",
        "000001_01_01",
        "train",
    ]
    ct, boxes = deeplesion.read(tmp_path, found.loc[0])
    assert ct.first_slice == 10 and list(ct.hu[:, 5, 5]) == [-2048, 11, 12, 13, 14]
    np.testing.assert_allclose(ct.index_to_mm, np.diag([0.8, 0.8, -2, 1]))
    assert boxes.to_numpy().tolist() == [["dl00000", 2, 10, 20, 30, 35], ["dl00001", 4, 0, 0, 8, 8]]
    assert ct.notes == ()


def test_deeplesion_header_variants_and_blank_ages(tmp_path):
    ages = enumerate(("", "62", "62.0"))
    rows = [info_row("000001_01_01", 12, (1, n, 9, 9 + n), (10, 14), age=age) for n, age in ages]
    write_deeplesion(tmp_path, rows, gender="Patient_sex")
    assert len(deeplesion.find(tmp_path).loc[0, "annotations"]["lesions"]) == 3


def test_deeplesion_splits_and_noisy_rows(tmp_path):
    box, ranges = (1, 1, 9, 9), (10, 14)
    rows = [
        info_row("000001_01_01", 12, box, ranges, noisy=1),
        info_row("000002_01_01", 12, box, ranges, noisy=1),
        info_row("000002_01_01", 13, box, ranges),
        info_row("000003_01_01", 12, box, ranges, split=2),
        info_row("000004_01_01", 12, box, ranges, split=3),
        info_row("000005_01_01", 12, box, ranges, split=3),
        info_row("000006_01_01", 12, box, ranges, split=3, noisy=1),
    ]
    manual = {
        "val": {"000005_01_01_010-014": np.full((1, 6), 12.0), "000006_01_01_010-014": np.zeros((0, 6))},
        "test": {"000009_01_01_001-005": np.zeros((0, 6))},
    }
    write_deeplesion(tmp_path, rows, manual)
    found = deeplesion.find(tmp_path).set_index("patient")
    assert found["split"].to_dict() == {
        "000001": "train", "000002": "train", "000003": "official-val", "000004": "official-test",
        "000005": "val", "000006": "val", "000009": "test",
    }  # fmt: skip
    assert found["problem"].to_dict() == {
        "000001": "only possibly noisy lesions", "000002": "", "000003": "", "000004": "",
        "000005": "", "000006": "", "000009": "of the manual test set, not in DL_info.csv",
    }  # fmt: skip
    assert [lesion[0] for lesion in found.loc["000002", "annotations"]["lesions"]] == ["dl00002"]
    ct, boxes = deeplesion.read(tmp_path, found.loc["000006"])
    assert ct.hu.shape == (5, 48, 48) and boxes.empty


def test_deeplesion_uses_what_is_whole(tmp_path):
    rows = [info_row("000001_01_01", key, (1, 1, 9, 9), (10, 19)) for key in (11, 16, 17)]
    write_deeplesion(tmp_path, rows)
    folder = tmp_path / "DeepLesion" / "Images_png" / "000001_01_01"
    (folder / "013.png").write_bytes((folder / "013.png").read_bytes()[:60])
    (folder / "019.png").unlink()
    ct, boxes = deeplesion.read(tmp_path, deeplesion.find(tmp_path).loc[0])
    assert ct.first_slice == 14 and list(ct.hu[:, 0, 0]) == [14, 15, 16, 17, 18]
    assert boxes[["lesion", "z"]].to_numpy().tolist() == [["dl00001", 2], ["dl00002", 3]]
    kinds = [note.split(":")[0] for note in ct.notes]
    assert kinds == ["broken PNG", "missing PNG", "lesion without its key slice"]
    assert "013.png" in ct.notes[0] and ct.notes[1].endswith("019.png") and ct.notes[2].endswith("dl00000")


def test_deeplesion_refuses_eight_bits_and_torn_folders(tmp_path):
    from PIL import Image

    write_deeplesion(tmp_path, [ROW])
    folder = tmp_path / "DeepLesion" / "Images_png" / "000001_01_01"
    for number in (11, 12, 13):
        Image.fromarray(np.zeros((48, 48), np.uint8)).save(folder / f"{number:03d}.png")
    with pytest.raises(ValueError, match="too few slices: 1 in a row of 5 .*011.png: mode L, not 16-bit"):
        deeplesion.read(tmp_path, deeplesion.find(tmp_path).loc[0])
    folder.rename(folder.with_name("elsewhere"))
    assert deeplesion.find(tmp_path).loc[0, "problem"] == "missing folder: Images_png/000001_01_01"


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("Measurement_coordinates", "1, 2, 3, 4", "line 3: Measurement_coordinates is not 8 numbers"),
        ("Bounding_boxes", "1, 2, 3", "line 3: Bounding_boxes is not 4 numbers"),
        ("Bounding_boxes", "9, 2, 3, nan", "line 3: Bounding_boxes is not 4 numbers"),
        ("Bounding_boxes", "9, 2, 3, 4", "line 3: Bounding_boxes is inverted"),
        ("Slice_range", "20, 24", "line 3: the key slice is outside"),
        ("Spacing_mm_px_", "0, 0, 1", "line 3: Spacing_mm_px_ is not positive"),
        ("Train_Val_Test", 7, "line 3: Train_Val_Test"),
        ("File_name", "../../etc_01.png", "line 3: File_name"),
        ("Key_slice_index", 13, "line 3: Key_slice_index is not that of File_name"),
        ("Key_slice_index", "", "line 3: Key_slice_index is not 1 numbers"),
        ("Image_size", "48.5, 48", "line 3: Image_size is no whole number"),
    ],
)
def test_deeplesion_table_errors_name_the_line(tmp_path, column, value, message):
    write_deeplesion(tmp_path, [ROW, ROW])
    path = tmp_path / "DeepLesion" / "DL_info.csv"
    table = pd.read_csv(path).astype(object)
    table.loc[1, column] = value
    table.to_csv(path, index=False)
    with pytest.raises(ValueError, match=f"DL_info.csv, {message}"):
        deeplesion.find(tmp_path)
    table.drop(columns=column).to_csv(path, index=False)
    with pytest.raises(ValueError, match=f"DL_info.csv has no column {column}"):
        deeplesion.find(tmp_path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="DL_info.csv does not exist; DeepLesion comes from"):
        deeplesion.find(tmp_path)


def test_deeplesion_finds_wrong_bits_and_resized_copies(tmp_path):
    rng = np.random.default_rng(0)
    write_deeplesion(tmp_path, [ROW], hu=lambda number: rng.integers(-1000, 1000, (48, 48)))
    file = tmp_path / "DeepLesion" / "Images_png" / "000001_01_01" / "012.png"
    whole, accepted = file.read_bytes(), 0
    for position in rng.integers(8, len(whole), 200):
        changed = bytearray(whole)
        changed[position] ^= 1 << int(rng.integers(8))
        file.write_bytes(changed)
        try:
            deeplesion.read_png(file)
            accepted += 1
        except ValueError as error:
            assert str(error).startswith("012.png: ")
    assert accepted == 0
    write_deeplesion(tmp_path, [ROW], hu=lambda number: np.zeros((24, 24)))
    with pytest.raises(ValueError, match=r"another size: \(24, 24\) in .*, \(48, 48\) in DL_info.csv"):
        deeplesion.read(tmp_path, deeplesion.find(tmp_path).loc[0])


def test_deeplesion_ranges_of_one_folder_stay_apart(tmp_path):
    """Slices 13 and 14 belong to no range and 15 begins another: nothing is read across."""
    rows = [info_row("000001_01_01", 11, (1, 1, 9, 9), (10, 12)), info_row("000001_01_01", 16, (1, 1, 9, 9), (15, 18))]
    write_deeplesion(tmp_path, rows, hu=lambda number: np.full((48, 48), number))
    for number in (13, 14):
        write_png(tmp_path / "DeepLesion" / "Images_png" / "000001_01_01" / f"{number:03d}.png", np.full((48, 48), 999))
    volumes = [deeplesion.read(tmp_path, row)[0] for _, row in deeplesion.find(tmp_path).iterrows()]
    assert [list(ct.hu[:, 0, 0]) for ct in volumes] == [[10, 11, 12], [15, 16, 17, 18]]
    assert [ct.first_slice for ct in volumes] == [10, 15]


def test_deeplesion_finds_a_full_table_quickly(tmp_path):
    rows = [
        info_row(f"{patient:06d}_01_{series:02d}", 12, (1, 1, 9, 9), (10, 14))
        for patient in range(1, 1001)
        for series in range(1, 7)
    ]
    folder = tmp_path / "DeepLesion"
    (folder / "Images_png").mkdir(parents=True)
    pd.DataFrame(rows, columns=INFO_COLUMNS).to_csv(folder / "DL_info.csv", index=False)
    start = time.process_time()
    found = deeplesion.find(tmp_path)
    assert len(found) == 6000 and time.process_time() - start < 2  # 0.1 s; quadratic work takes minutes


# LUNA16


def test_luna_spheres_worked_out_by_hand():
    ct = CT(np.zeros((10, 40, 40), np.int16), affine(np.diag([-0.5, -0.5, 3.0]), np.array([10.0, 10.0, -9.0])))
    # a radius of 5 mm at x = 2 mm, index 16; y = 0, index 20; z = 3 mm, index 4: it cuts slices 3, 4, 5 (4 mm
    # in the outer)
    boxes = luna16.sphere_boxes(np.array([2.0, 0.0, 3.0]), 5.0, ct)
    np.testing.assert_allclose(boxes, [[3, 8, 12, 24, 28], [4, 6, 10, 26, 30], [5, 8, 12, 24, 28]])
    # 1 mm at z = 4.3 mm lies between slices 4 (3 mm) and 5 (6 mm): its full circle on the nearer
    np.testing.assert_allclose(luna16.sphere_boxes(np.array([2.0, 0.0, 4.3]), 1.0, ct), [[4, 14, 18, 18, 22]])
    assert luna16.sphere_boxes(np.array([2.0, 0.0, 90.0]), 1.0, ct) == []


def test_luna_lists_missing_scans_and_keeps_negatives(tmp_path):
    scan = (np.arange(210).reshape(5, 6, 7), np.diag([1.0, 1, 1, 1]))
    write_luna(
        tmp_path,
        {"1.2": scan, "1.3": scan},
        [("1.2", 3.0, 3.0, 2.0, 2.0)],
        listed=["seriesuid", "1.2", "1.3", "1.9"],
    )
    found = luna16.find(tmp_path)
    assert list(found["volume"]) == ["1.2", "1.3", "1.9"]
    assert list(found["problem"]) == ["", "", "missing scan: 1.9.mhd in no subset folder"]
    assert list(found["study"]) == ["subset0", "subset0", "none"]
    assert len(luna16.read(tmp_path, found.loc[0])[1]) == 3 and luna16.read(tmp_path, found.loc[1])[1].empty
    path = tmp_path / "LUNA16" / "CSVFILES" / "annotations.csv"
    path.write_text(path.read_text() + "1.2,1,2,,5\n")
    with pytest.raises(ValueError, match="annotations.csv, line 3"):
        luna16.find(tmp_path)
    path.write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="no column seriesuid"):
        luna16.find(tmp_path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="LUNA16 comes from"):
        luna16.find(tmp_path)


def test_luna_loses_no_nodule_silently(tmp_path):
    scan = (np.arange(210).reshape(5, 6, 7), np.diag([1.0, 1, 1, 1]))
    write_luna(tmp_path, {"1.2": scan, "1.3": scan}, [("1.2", 3.0, 3.0, 20.0, 2.0), ("1.8", 1.0, 1.0, 1.0, 4.0)])
    folder = tmp_path / "LUNA16"
    (folder / "CSVFILES" / "seriesuids.csv").unlink()
    (folder / "subset0" / "subset0").mkdir()
    for suffix in (".mhd", ".raw"):  # as some programs unpack the zip files
        (folder / "subset0" / f"1.2{suffix}").rename(folder / "subset0" / "subset0" / f"1.2{suffix}")
    (folder / "subset0" / "1.3.raw").unlink()
    found = luna16.find(tmp_path)
    assert dict(zip(found["volume"], found["problem"], strict=True)) == {
        "1.2": "",
        "1.3": "missing voxels: LUNA16/subset0/1.3.raw does not exist",
        "1.8": "missing scan: 1.8.mhd in no subset folder",
    }
    assert list(found["study"]) == ["subset0", "subset0", "none"]
    ct, boxes = luna16.read(tmp_path, found.loc[0])
    assert boxes.empty and ct.notes == ("nodule above or below the scan: luna0000",)


# masks


def test_mask_boxes_reach_to_pixel_edges():
    mask = np.zeros((4, 6, 8), int)
    mask[1, 2:4, 3] = 1
    mask[2, 2, 3:6] = 1
    mask[3, 5, 7] = 3
    assert mask_boxes(mask, lambda i: f"n{i}") == [
        ["n1", 1, 2.5, 1.5, 3.5, 3.5], ["n1", 2, 2.5, 1.5, 5.5, 2.5], ["n3", 3, 6.5, 4.5, 7.5, 5.5],
    ]  # fmt: skip


def test_masks_are_brought_to_the_order_of_the_ct():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, (4, 5, 6))
    ct = CT(np.zeros((4, 5, 6), np.int16), affine(np.diag([0.8, 0.8, 2.0]), np.array([1.0, 2.0, 3.0])))
    flipped = affine(np.diag([0.8, -0.8, -2.0]), np.array([1.0, 2 + 4 * 0.8, 3 + 3 * 2.0]))
    np.testing.assert_array_equal(align_mask(truth[::-1, ::-1], flipped, ct), truth)
    swapped = ct.index_to_mm[:, [1, 0, 2, 3]]
    np.testing.assert_array_equal(align_mask(truth.transpose(0, 2, 1), swapped, ct), truth)
    shifted = ct.index_to_mm.copy()
    shifted[2, 3] += 2.0
    assert align_mask(truth, shifted, ct) is None
    assert align_mask(truth[:3], ct.index_to_mm, ct) is None


# LiTS


MATRIX = affine(np.diag([0.8, 0.8, 2.5]), np.array([-10.0, -12.0, 40.0]))
LABELS = np.where(ball((8, 40, 44), (4, 15, 12), 9), 1, 0)
LABELS[3:5, 14, 10:13] = 2
LABELS[6, 20, 12] = 2
LABELS[5, 15, 13] = 2  # touches the first tumour at a corner only


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_lits_components(tmp_path, suffix):
    write_lits(tmp_path, 3, 60 + LABELS, LABELS, MATRIX, suffix=suffix)
    row = one(lits.find(tmp_path), "volume-3")
    ct, boxes = lits.read(tmp_path, row)
    np.testing.assert_allclose(ct.index_to_mm, MATRIX, atol=1e-6)
    assert boxes.to_numpy().tolist() == [
        ["volume-3-t001", 3, 9.5, 13.5, 12.5, 14.5], ["volume-3-t001", 4, 9.5, 13.5, 12.5, 14.5],
        ["volume-3-t001", 5, 12.5, 14.5, 13.5, 15.5], ["volume-3-t002", 6, 11.5, 19.5, 12.5, 20.5],
    ]  # fmt: skip
    assert ct.notes == ()


def test_lits_disagreeing_matrices_are_matched_by_index(tmp_path):
    other = affine(np.diag([-0.8, 0.8, 2.5]), np.array([500.0, 0, 0]))
    write_lits(tmp_path, 48, 60 + LABELS, LABELS, MATRIX, labels_matrix=other)
    write_lits(tmp_path, 5, 60 + LABELS, LABELS, MATRIX)
    found = lits.find(tmp_path)
    ct, boxes = lits.read(tmp_path, one(found, "volume-48"))
    _, right = lits.read(tmp_path, one(found, "volume-5"))
    np.testing.assert_array_equal(boxes.drop(columns="lesion"), right.drop(columns="lesion"))
    assert ct.notes[0].startswith("matrices disagree")
    write_lits(tmp_path, 49, 60 + LABELS, LABELS[:5], MATRIX)
    with pytest.raises(ValueError, match="sizes differ: segmentation-49.nii"):
        lits.read(tmp_path, one(lits.find(tmp_path), "volume-49"))
    write_lits(tmp_path, 50, 60 + LABELS, LABELS * 3, MATRIX)
    with pytest.raises(ValueError, match="segmentation-50.nii: labels other than 0, 1"):
        lits.read(tmp_path, one(lits.find(tmp_path), "volume-50"))


def test_lits_trusts_indices_where_the_published_matrices_are_wrong(tmp_path):
    """A mirrored matrix that covers the same place turns the labels elsewhere, but not in volumes 48 to 52."""
    mirrored = MATRIX @ affine(np.diag([-1.0, 1, 1]), np.array([LABELS.shape[2] - 1.0, 0, 0]))
    for number in (47, 48, 52, 53):
        write_lits(tmp_path, number, 60 + LABELS, LABELS, MATRIX, labels_matrix=mirrored)
    found = lits.find(tmp_path)
    for number in (48, 52, 53):
        ct, boxes = lits.read(tmp_path, one(found, f"volume-{number}"))
        by_index = number < 53
        assert [note.split(":")[0] for note in ct.notes] == ["matrices disagree"] * by_index
        x = boxes.iloc[0]["x1"]
        assert x == (9.5 if by_index else LABELS.shape[2] - 1 - 12.5)


def test_lits_keeps_volumes_without_tumour_and_labels_stored_as_floats(tmp_path):
    write_lits(tmp_path, 32, 60 + LABELS, np.minimum(LABELS, 1), MATRIX)
    write_lits(tmp_path, 33, 60 + LABELS, LABELS, MATRIX)
    file = tmp_path / "LiTS" / "Training_Batch1" / "segmentation-33.nii"
    write_image(file, LABELS.astype(np.float32) * 0.99999, MATRIX)
    found = lits.find(tmp_path)
    assert list(found["problem"]) == ["", ""]
    assert lits.read(tmp_path, found.loc[0])[1].empty
    assert lits.read(tmp_path, found.loc[1])[1]["lesion"].nunique() == 2
    write_image(file, LABELS.astype(np.float32) * 0.75, MATRIX)
    with pytest.raises(ValueError, match="segmentation-33.nii: labels that are no whole numbers"):
        lits.read(tmp_path, found.loc[1])
    labels = LABELS.copy()
    labels[7, 0, 0] = 3  # one voxel
    write_lits(tmp_path, 33, 60 + LABELS, labels, MATRIX)
    with pytest.raises(ValueError, match="labels other than 0, 1"):
        lits.read(tmp_path, found.loc[1])


def test_lits_one_millimetre_is_false_in_the_volumes_that_lost_their_headers_only(tmp_path):
    one_mm = affine(np.eye(3), np.array([5.0, 6.0, 7.0]))
    for number in (30, 60):
        write_lits(tmp_path, number, 60 + LABELS, LABELS, one_mm)
    found = lits.find(tmp_path)
    lost, right = (lits.read(tmp_path, one(found, f"volume-{n}"))[0] for n in (30, 60))
    assert lost.notes[0].startswith("lost header") and right.notes == ()
    np.testing.assert_allclose(right.index_to_mm, one_mm)


@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, 1), (1, -1, -1), (-1, -1, 1)])
def test_lits_lost_headers_are_replaced_by_what_the_anatomy_shows(tmp_path, flips):
    hu = np.full((12, 80, 96), -1000)
    hu[:, 8:72, 8:88] = 30  # the body
    hu[7:, 24:56, 24:72] = -850  # lungs above
    hu[:, 60:70, 44:52] = 600  # spine behind
    labels = np.zeros(hu.shape, int)
    labels[1:6, 25:50, 12:40] = 1  # liver on the right, below
    labels[3, 30, 20:23] = 2
    turned = tuple(slice(None, None, sign) for sign in flips[::-1])
    write_lits(tmp_path, 30, hu[turned], labels[turned], np.diag([-1.0, -1, 1, 1]))
    ct, boxes = lits.read(tmp_path, lits.find(tmp_path).loc[0])
    np.testing.assert_allclose(np.diag(ct.index_to_mm)[:3], np.array(flips) * lits.LOST_SPACING_MM)
    assert ct.notes[0].startswith("lost header") and len(boxes) == 1


def test_lits_reports_half_pairs_and_ignores_other_files(tmp_path):
    write_lits(tmp_path, 3, 60 + LABELS, LABELS, MATRIX)
    folder = tmp_path / "LiTS" / "Training_Batch1"
    write_image(folder / "volume-4.nii", LABELS.astype(np.int16), MATRIX)
    write_image(folder / "segmentation-5.nii", LABELS.astype(np.uint8), MATRIX)
    write_image(folder / "test-volume-6.nii", LABELS.astype(np.uint8), MATRIX)
    found = lits.find(tmp_path).set_index("volume")["problem"].to_dict()
    assert found == {
        "volume-3": "",
        "volume-4": "missing segmentation: segmentation-4.nii",
        "volume-5": "missing volume: volume-5.nii",
    }
    (tmp_path / "empty" / "LiTS").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="LiTS comes from"):
        lits.find(tmp_path / "empty")


def test_real_pairs_read_like_lits(tmp_path, shared_data):
    import SimpleITK as sitk

    folder = tmp_path / "LiTS" / "Training_Batch1"
    folder.mkdir(parents=True)
    for number, case in enumerate(("STS_019", "STS_044")):
        source = shared_data / "real" / "nifti_pairs" / case
        (folder / f"volume-{number}.nii.gz").symlink_to(source / "CT_image.nii.gz")
        mask = sitk.ReadImage(str(source / "CT_mask.nii.gz"))
        sitk.WriteImage((mask > 0) * 2, str(folder / f"segmentation-{number}.nii.gz"))
    found = lits.find(tmp_path)
    counts = []
    for _, row in found.iterrows():
        ct, boxes = lits.read(tmp_path, row)
        image = sitk.ReadImage(str(tmp_path / row["path"]))
        corner = image.TransformIndexToPhysicalPoint([n - 1 for n in image.GetSize()])
        np.testing.assert_allclose((ct.index_to_mm @ [*(n - 1 for n in image.GetSize()), 1])[:3], corner, atol=1e-2)
        counts.append(boxes["lesion"].nunique())
        big = boxes.loc[((boxes["x2"] - boxes["x1"]) * (boxes["y2"] - boxes["y1"])).idxmax()]
        region = ct.hu[big.z, int(big.y1 + 1) : int(big.y2), int(big.x1 + 1) : int(big.x2)]
        assert -150 < np.median(region) < 200  # sarcoma: soft tissue
    assert counts == [1, 2]


# NIH-LN


def test_nih_reads_by_position_and_instance(tmp_path):
    nodes = np.zeros((6, 10, 12), int)
    nodes[2:4, 3:6, 4:8], nodes[5, 8, 9] = 1, 4
    hu = np.arange(6)[:, None, None] * np.ones((1, 10, 12))
    write_nih(tmp_path, "ABD_LYMPH_001", hu, nodes, MATRIX)
    write_nih(tmp_path, "MED_LYMPH_002", hu, nodes[::-1], MATRIX, mask_matrix=MATRIX @ np.array(
        [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, 5], [0, 0, 0, 1.0]]))  # fmt: skip
    (tmp_path / "NIH-LN" / "MED_ABD_LYMPH_MASKS" / "MED_LYMPH_009").mkdir()
    found = nih_ln.find(tmp_path)
    assert list(found["patient"]) == [
        "ABD_LYMPH_001",
        "ABD_LYMPH_001",
        "MED_LYMPH_009",
    ]  # the first two are one CT
    assert list(found["scope"]) == [
        "abdominal lymph nodes",
        "mediastinal lymph nodes",
        "mediastinal lymph nodes",
    ]
    assert found["problem"][2].startswith("missing DICOM")
    ct, boxes = nih_ln.read(tmp_path, found.loc[0])
    assert list(ct.hu[:, 0, 0]) == [0, 1, 2, 3, 4, 5] and ct.notes == ()
    assert boxes.to_numpy().tolist() == [
        ["ABD_LYMPH_001-n01", 2, 3.5, 2.5, 7.5, 5.5], ["ABD_LYMPH_001-n01", 3, 3.5, 2.5, 7.5, 5.5],
        ["ABD_LYMPH_001-n04", 5, 8.5, 7.5, 9.5, 8.5],
    ]  # fmt: skip
    _, again = nih_ln.read(tmp_path, found.loc[1])  # the same nodes in a mask that is written upside down
    np.testing.assert_array_equal(again.drop(columns="lesion"), boxes.drop(columns="lesion"))


def test_nih_refuses_masks_of_another_ct_and_reports_counts(tmp_path):
    nodes = np.zeros((6, 10, 12), int)
    nodes[2, 3, 4] = 1
    write_nih(tmp_path, "MED_LYMPH_001", nodes * 50, nodes, MATRIX, mask_matrix=affine(MATRIX[:3, :3], np.zeros(3)))
    annotation(tmp_path, "MED_LYMPH_001", "indices").unlink()
    with pytest.raises(ValueError, match="mask and CT do not coincide"):
        nih_ln.read(tmp_path, nih_ln.find(tmp_path).loc[0])
    write_nih(tmp_path, "MED_LYMPH_001", nodes * 50, nodes, MATRIX)
    annotation(tmp_path, "MED_LYMPH_001", "indices").write_text("4 3 2\n5 5 3\n")
    ct, _ = nih_ln.read(tmp_path, nih_ln.find(tmp_path).loc[0])
    assert ct.notes == ("node counts differ: 1 in the mask, 2 in the annotations",)


def test_nih_mask_with_a_wrong_place_is_used_if_the_annotations_confirm_it(tmp_path):
    nodes = np.zeros((6, 10, 12), int)
    nodes[1, 2, 2], nodes[4, 7, 9] = 1, 2
    elsewhere = affine(MATRIX[:3, :3], np.zeros(3))
    write_nih(tmp_path, "ABD_LYMPH_001", nodes * 50, nodes, MATRIX, mask_matrix=elsewhere)
    ct, boxes = nih_ln.read(tmp_path, nih_ln.find(tmp_path).loc[0])
    assert boxes[["z", "x1", "y1"]].to_numpy().tolist() == [[1, 1.5, 1.5], [4, 8.5, 6.5]]
    assert [note.split(":")[0] for note in ct.notes] == ["matrices disagree"]
    text = annotation(tmp_path, "ABD_LYMPH_001", "indices")
    text.write_text("9 2 4\n2 7 1\n")  # as if the mask were upside down
    with pytest.raises(ValueError, match="mask and CT do not coincide"):
        nih_ln.read(tmp_path, nih_ln.find(tmp_path).loc[0])


def annotation(root, case, kind):
    return root / "NIH-LN" / "MED_ABD_LYMPH_ANNOTATIONS" / case / f"{case}_lymphnodes_{kind}.txt"


def test_nih_annotations_with_one_and_two_columns(tmp_path):
    for case, sizes in (("ABD_LYMPH_001", "8.5 11.0\n12.0 9.0\n"), ("MED_LYMPH_001", "0\n7.5\n")):
        annotation(tmp_path, case, "indices").parent.mkdir(parents=True)
        annotation(tmp_path, case, "indices").write_text("1 2 3\n4 5 6\n")
        annotation(tmp_path, case, "physicalPoints").write_text("1.5 2.5 -3\n4 5 6e1\n")
        annotation(tmp_path, case, "sizes").write_text(sizes)
    folder = tmp_path / "NIH-LN"
    abdominal, mediastinal = (nih_ln.read_nodes(folder, f"{kind}_LYMPH_001") for kind in ("ABD", "MED"))
    assert abdominal[["short_mm", "long_mm"]].to_numpy().tolist() == [[8.5, 11.0], [9.0, 12.0]]
    np.testing.assert_array_equal(mediastinal[["short_mm", "long_mm"]], [[np.nan, np.nan], [7.5, np.nan]])
    assert abdominal.loc[1, ["x", "y", "z", "x_mm", "y_mm", "z_mm"]].tolist() == [4, 5, 6, 4, 5, 60]
    assert nih_ln.read_nodes(folder, "MED_LYMPH_002") is None
    annotation(tmp_path, "MED_LYMPH_001", "sizes").write_text("7.5\n")
    with pytest.raises(ValueError, match="sizes.txt has 1 nodes, MED_LYMPH_001_lymphnodes_indices.txt 2"):
        nih_ln.read_nodes(folder, "MED_LYMPH_001")
    annotation(tmp_path, "ABD_LYMPH_001", "indices").write_text("1 2 3\n4 5\n")
    with pytest.raises(ValueError, match="indices.txt: lines of .2, 3. numbers, expected 3"):
        nih_ln.read_nodes(folder, "ABD_LYMPH_001")
    found = nih_ln.find(tmp_path)
    assert found["problem"].str.startswith("missing DICOM").all()


def test_nih_segmentation_beside_the_images_and_a_second_series(tmp_path):
    nodes = np.zeros((4, 10, 12), int)
    nodes[2, 3, 4] = 1
    write_nih(tmp_path, "MED_LYMPH_003", nodes * 50, nodes, MATRIX)
    study = tmp_path / "NIH-LN" / "CT Lymph Nodes" / "MED_LYMPH_003" / "1.2.3"
    (study / "1.2.3.9").mkdir()
    (study / "1.2.3.9" / "1-1.dcm").write_bytes(b"a DICOM-SEG")
    row = nih_ln.find(tmp_path).loc[0]
    assert row["problem"] == "" and row["path"].endswith("1.2.3.4")
    assert len(nih_ln.read(tmp_path, row)[1]) == 1
    (study / "1.2.3.9" / "1-2.dcm").write_bytes(b"another slice")
    assert nih_ln.find(tmp_path).loc[0, "problem"].startswith("several series: 2 folders of slices")


def test_nih_says_where_texts_and_files_disagree(tmp_path):
    nodes = np.zeros((6, 10, 12), int)
    nodes[1, 2, 2], nodes[4, 7, 9] = 1, 2
    write_nih(tmp_path, "ABD_LYMPH_001", nodes * 50, nodes, MATRIX)
    annotation(tmp_path, "ABD_LYMPH_001", "indices").write_text("2 2 1\n2 9 1\n")
    right = (MATRIX @ [2, 2, 1, 1])[:3]
    text = " ".join(f"{v:.6g}" for v in right)
    annotation(tmp_path, "ABD_LYMPH_001", "physicalPoints").write_text(f"{text}\n1 2 3\n")
    ct, _ = nih_ln.read(tmp_path, nih_ln.find(tmp_path).loc[0])
    assert ct.notes == (
        "annotated nodes outside the mask: 1 of 2",
        "annotated millimetres differ from the CT's: 1 of 2 nodes",
    )


def test_connected_components_use_all_26_neighbours():
    labels = np.zeros((2, 2, 2), int)
    labels[0, 0, 0] = labels[1, 1, 1] = 2
    assert lits.tumour_components(labels).max() == 1 < ndimage.label(labels == 2)[1]


# the table of datasets


def test_every_dataset_has_its_reader_and_the_universal_one_is_first():
    assert tuple(READERS) == NAMES == tuple(name for name, dataset in DATASETS.items() if dataset.name == name)
    assert [name for name in NAMES if DATASETS[name].universal] == [UNIVERSAL]
    assert SINGLE_TYPE == NAMES[1:]
    functions = ("find", "read", "count", "faults")
    assert all(callable(getattr(reader, name)) for reader in READERS.values() for name in functions)
    assert len({dataset.colour for dataset in DATASETS.values()}) == len(DATASETS)
