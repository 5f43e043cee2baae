"""Every entrance with broken datasets, one row each: an error of one line that names file and cause, or a volume that
is left out or used in part, and counted. No half-written file stays behind (see broken.run)."""

import pickle
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import pydicom
import pytest
from broken import (
    BOX,
    HU,
    MARK,
    MATRIX,
    SHAPE,
    STORE,
    A,
    B,
    Malice,
    Place,
    a_file_instead,
    a_folder_instead,
    cell,
    change,
    cut,
    deeplesion,
    fill_disk,
    left_out,
    lits,
    luna,
    nih,
    noted,
    nothing,
    refused,
    run,
    table,
    told,
    without,
)
from tiny import write_dicom, write_image, write_png

from lensnb import files
from lensnb.ct.volume import affine
from lensnb.datasets import preparation, store_writing
from lensnb.datasets.readers import READERS

PREPARE = "prepare --profile smoke --data {}/raw --workers 1"
CHECK = "data check --root {}/raw"


# sound files

INFO, PICKLE = "raw/DeepLesion/DL_info.csv", "raw/DeepLesion/DeepLesion_manual_1K_test_release.pkl"
PNG = "raw/DeepLesion/Images_png/000001_01_01"
CSV, MHD, RAW = "raw/LUNA16/CSVFILES", "raw/LUNA16/subset0/1.2.0.mhd", "raw/LUNA16/subset0/1.2.0.raw"
LITS = "raw/LiTS/Training_Batch1"
NIH, MASK = "raw/NIH-LN/CT Lymph Nodes/ABD_LYMPH_003/1.2.3/1.2.3.4", "raw/NIH-LN/MED_ABD_LYMPH_MASKS/ABD_LYMPH_003"
ELSEWHERE = affine(MATRIX[:3, :3], np.array([90.0, 0, 0]))
NODES = "raw/NIH-LN/MED_ABD_LYMPH_ANNOTATIONS/ABD_LYMPH_003/ABD_LYMPH_003_lymphnodes_indices.txt"


# what breaks


def manual(content: object):
    """Put something else into the manual test set."""
    return lambda at: (at / PICKLE).write_bytes(pickle.dumps(content))


def png(name: str, hu: np.ndarray):
    return lambda at: write_png(at / PNG / name, hu)


def grey_8_bit(at: Place) -> None:
    from PIL import Image

    for path in (at / PNG).iterdir():
        Image.fromarray(np.zeros(SHAPE[1:], np.uint8)).save(path)


def nifti(name: str, array: np.ndarray, matrix: np.ndarray = MATRIX, sides=None, code: int = 1):
    """Write an array (x, y, z) exactly as it is, with its matrix as sform and its pixdim (or `sides`)."""

    def write(at: Place) -> None:
        image = nibabel.Nifti1Image(array, None)
        image.header.set_sform(matrix, code=code)
        lengths = np.linalg.norm(matrix[:3, :3], axis=0)
        image.header["pixdim"][1:4] = np.where(lengths > 0, lengths, 1) if sides is None else sides
        nibabel.save(image, at / LITS / name)

    return write


def mhd(array: np.ndarray):
    return lambda at: write_image(at / MHD, array, MATRIX)


def colours(at: Place) -> None:
    import SimpleITK as sitk

    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((*SHAPE, 3), np.uint8), isVector=True), str(at / MHD))


def dicom(edit, which: int = 2):
    """Change one slice, by its position, through pydicom."""

    def write(at: Place) -> None:
        path = slices(at)[which]
        dataset = pydicom.dcmread(path)
        edit(dataset)
        pydicom.dcmwrite(path, dataset)

    return write


def slices(at: Place) -> list[Path]:
    """The slices of the NIH-LN case, by position."""
    return sorted((at / NIH).iterdir(), key=lambda p: float(pydicom.dcmread(p).ImagePositionPatient[2]))


def dicom_all(edit):
    """Change every slice, by its position k, through pydicom."""

    def write(at: Place) -> None:
        for k, path in enumerate(slices(at)):
            dataset = pydicom.dcmread(path)
            edit(dataset, k)
            pydicom.dcmwrite(path, dataset)

    return write


def macos(path: Path) -> None:
    """What macOS puts beside a file when it packs a folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\0\x05\x16\x07\0\x02\0\0Mac OS X" + bytes(200))


def wrong_checksum(at: Place) -> None:
    content = bytearray((at / LITS / "volume-4.nii.gz").read_bytes())
    content[-6] ^= 255
    (at / LITS / "volume-4.nii.gz").write_bytes(content)


def set_to(name: str, value: object):
    return lambda dataset: setattr(dataset, name, value)


def mask(nodes: np.ndarray, matrix: np.ndarray = MATRIX):
    return lambda at: write_image(at / MASK / "ABD_LYMPH_003_mask.nii.gz", nodes, matrix)


def interrupted(at: Place) -> None:
    def half(array, path):
        with files.atomic_write(path) as temporary:
            temporary.write_bytes(array.tobytes()[:100])
            raise KeyboardInterrupt

    at.patch.setattr(store_writing, "write_array", half)


def small_quota(at: Place) -> None:
    """The operating system lets no file grow beyond 512 bytes, as a quota does."""
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    write = files.write_array

    def limited(array, path):
        resource.setrlimit(resource.RLIMIT_FSIZE, (512, limits[1]))
        try:
            write(array, path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    at.patch.setattr(store_writing, "write_array", limited)


def failing_disk(at: Place) -> None:
    def unreadable(root, row):
        raise OSError(5, "Input/output error", str(Path(root) / row["path"]))

    at.patch.setattr(READERS["LiTS"], "read_with_masks", unreadable)


# fmt: off
CASES = [
    *table(
        "DeepLesion", deeplesion, PREPARE,
        ("DL_info.csv missing", lambda at: (at / INFO).unlink(), refused("DL_info.csv does not exist", "https://")),
        ("DL_info.csv empty", lambda at: (at / INFO).write_text(""), refused("DL_info.csv", "No columns")),
        ("DL_info.csv is a picture", lambda at: (at / INFO).write_bytes((at / PNG / "005.png").read_bytes()),
         refused("DL_info.csv", "csv")),
        ("DL_info.csv without rows", lambda at: (at / INFO).write_text((at / INFO).read_text().split("\n")[0] + "\n"),
         refused("DL_info.csv has no rows")),
        ("column missing", lambda at: without(at / INFO, "Slice_range"),
         refused("DL_info.csv", "no column Slice_range")),
        ("box inverted", lambda at: cell(at / INFO, "Bounding_boxes", "30, 8, 22, 20", 1),
         refused("DL_info.csv, line 3", "Bounding_boxes is inverted")),
        ("box NaN", lambda at: cell(at / INFO, "Bounding_boxes", "nan, 8, 22, 20"),
         refused("DL_info.csv, line 2", "Bounding_boxes is not 4 numbers")),
        ("box outside the image", lambda at: cell(at / INFO, "Bounding_boxes", "700, 8, 720, 20"),
         noted(A, "box outside the image", "dl00000")),
        ("key slice is a word", lambda at: cell(at / INFO, "Key_slice_index", "seven"),
         refused("DL_info.csv, line 2", "Key_slice_index")),
        ("key slice blank", lambda at: cell(at / INFO, "Key_slice_index", "", 1),
         refused("DL_info.csv, line 3", "Key_slice_index")),
        ("key slice outside its range", lambda at: cell(at / INFO, "Slice_range", "8, 10"),
         refused("DL_info.csv, line 2", "key slice is outside")),
        ("Possibly_noisy is a word", lambda at: cell(at / INFO, "Possibly_noisy", "maybe"),
         refused("DL_info.csv, line 2", "Possibly_noisy")),
        ("range of a billion slices", lambda at: cell(at / INFO, "Slice_range", "5, 1000000000"),
         refused("DL_info.csv, line 2", "Slice_range")),
        ("spacing zero", lambda at: cell(at / INFO, "Spacing_mm_px_", "0, 0, 3"),
         refused("DL_info.csv, line 2", "Spacing_mm_px_ is not positive")),
        ("split 9", lambda at: cell(at / INFO, "Train_Val_Test", "9"),
         refused("DL_info.csv, line 2", "Train_Val_Test")),
        ("file name that climbs out", lambda at: cell(at / INFO, "File_name", "../../etc/passwd_001.png"),
         refused("DL_info.csv, line 2", "File_name")),
        ("folder of a series missing", lambda at: (at / PNG).rename(at / "raw/elsewhere"),
         left_out(A, "missing folder", "000001_01_01")),
        ("PNG cut off at the end of the range", lambda at: cut(at / PNG / "010.png"),
         noted(A, "broken PNG", "010.png")),
        ("PNG empty", lambda at: (at / PNG / "005.png").write_bytes(b""), noted(A, "broken PNG", "005.png")),
        ("PNG is a folder", a_folder_instead(f"{PNG}/005.png"), noted(A, "broken PNG", "005.png")),
        ("PNG missing in the middle", lambda at: (at / PNG / "008.png").unlink(), noted(A, "missing PNG", "008.png")),
        ("all PNGs of 8 bits", grey_8_bit, left_out(A, "too few slices", "not 16-bit")),
        ("PNGs of two sizes", png("008.png", HU[0, :20]), left_out(A, "different size")),
        ("PNGs saved as HU + 1024", lambda at: [png(path.name, HU[0] - 31744)(at) for path in (at / PNG).iterdir()],
         left_out(A, "too few slices", "are no HU", "HU + 32768")),
        ("PNGs saved as HU", lambda at: [png(path.name, HU[0] - 32768)(at) for path in (at / PNG).iterdir()],
         left_out(A, "too few slices", "are no HU")),
        ("one PNG saved as HU + 1024", png("010.png", HU[0] - 31744), noted(A, "broken PNG", "010.png", "are no HU")),
        ("PNGs of one value", lambda at: [png(path.name, HU[0] * 0)(at) for path in (at / PNG).iterdir()],
         noted(A, "no image: every voxel is 0")),
        ("only possibly noisy rows", lambda at: cell(at / INFO, "Possibly_noisy", 1), left_out(A, "possibly noisy")),
    ),
    *table(
        "manual test set", deeplesion, PREPARE,
        ("pickle that runs a program", manual({"test": {B: Malice()}}),
         refused("manual_1K_test_release.pkl", "only numpy arrays are admitted")),
        ("pickle cut off", lambda at: cut(at / PICKLE), refused("manual_1K_test_release.pkl", "not a pickle")),
        ("pickle empty", lambda at: (at / PICKLE).write_bytes(b""), refused("manual_1K_test_release.pkl")),
        ("a list instead of a dictionary", manual([BOX]), refused("manual_1K_test_release.pkl", "dictionary")),
        ("boxes of five numbers", manual({"test": {B: BOX[:, :5]}}), refused(f"sub-volume {B}", "shape (1, 5)")),
        ("box NaN", manual({"test": {B: BOX * np.nan}}), refused(f"sub-volume {B}", "not finite")),
        ("box inverted", manual({"test": {B: BOX[:, ::-1]}}), refused(f"sub-volume {B}", "ends before it begins")),
        ("z counted from the range's start", manual({"test": {B: BOX - [0, 0, 5, 0, 0, 5]}}),
         refused("manual_1K_test_release.pkl", B, "slices 5 to 10")),
        ("unknown split", manual({"testing": {B: BOX}}),
         refused("manual_1K_test_release.pkl", "'testing'", "val, test")),
        ("one sub-volume in both splits", manual({"val": {B: BOX}, "test": {B: BOX}}),
         refused("manual_1K_test_release.pkl", B, "val", "test")),
    ),
    *table(
        "DeepLesion", deeplesion, PREPARE,
        ("manual sub-volume that DL_info.csv has not", manual({"test": {B: BOX, "000009_01_01_001-009": BOX}}),
         left_out("000009_01_01_001-009", "not in DL_info.csv")),
    ),
    *table(
        "LUNA16", luna, PREPARE,
        ("annotations.csv missing", lambda at: (at / CSV / "annotations.csv").unlink(),
         refused("annotations.csv does not exist", "https://luna16")),
        ("annotations.csv empty", lambda at: (at / CSV / "annotations.csv").write_text(""),
         refused("annotations.csv", "No columns")),
        ("annotations.csv is binary", lambda at: (at / CSV / "annotations.csv").write_bytes(b"\x89\xff\x00" * 99),
         refused("annotations.csv", "csv")),
        ("column missing", lambda at: without(at / CSV / "annotations.csv", "coordZ"),
         refused("annotations.csv has no column coordZ")),
        ("diameter NaN", lambda at: cell(at / CSV / "annotations.csv", "diameter_mm", "nan"),
         refused("annotations.csv, line 2", "diameter")),
        ("nodule far above the scan", lambda at: cell(at / CSV / "annotations.csv", "coordZ", 900),
         noted("1.2.0", "above or below the scan", "luna0000")),
        ("nodule beside the scan", lambda at: cell(at / CSV / "annotations.csv", "coordX", 900),
         noted("1.2.0", "outside the", "luna0000")),
        ("nodule of a scan that nobody lists", lambda at: cell(at / CSV / "annotations.csv", "seriesuid", "9.9"),
         refused("annotations.csv has nodules of 9.9", "does not list")),
        ("listed scan missing", lambda at: (at / CSV / "seriesuids.csv").write_text("1.2.0\n1.2.1\n1.2.7\n"),
         left_out("1.2.7", "missing scan")),
        ("seriesuids.csv is binary", lambda at: (at / CSV / "seriesuids.csv").write_bytes(b"\x89\xff\x00" * 99),
         refused("seriesuids.csv")),
        ("one scan in two subsets", lambda at: mhd(HU.astype(np.int16))(at) or write_image(
            at / MHD.replace("subset0", "subset1"), HU.astype(np.int16) + 1, MATRIX),
         left_out("1.2.0", "subset0", "subset1")),
        ("voxels cut off", lambda at: cut(at / RAW), left_out("1.2.0", "1.2.0.raw is cut off")),
        ("voxels missing", lambda at: (at / RAW).unlink(), left_out("1.2.0", "1.2.0.raw does not exist")),
        ("header empty", lambda at: (at / MHD).write_text(""), left_out("1.2.0", "1.2.0.mhd")),
        ("header without a size", lambda at: change(at / MHD, "DimSize", "NoSize"),
         left_out("1.2.0", "1.2.0.mhd", "DimSize")),
        ("size that is no number", lambda at: change(at / MHD, "DimSize = 32", "DimSize = many"),
         left_out("1.2.0", "1.2.0.mhd", "DimSize")),
        ("three values per voxel", colours, left_out("1.2.0", "no CT volume")),
        ("voxels NaN", mhd(np.where(MARK, np.nan, HU).astype(np.float32)), left_out("1.2.0", "not finite")),
        ("matrix of zeros", lambda at: change(at / MHD, "TransformMatrix = 1 0 0 0 1 0 0 0 1",
                                              "TransformMatrix = 1 0 0 1 0 0 0 0 1"), left_out("1.2.0")),
        ("spacing missing", lambda at: change(at / MHD, "ElementSpacing", "Spacing"),
         left_out("1.2.0", "1.2.0.mhd: the spacing is missing")),
        ("voxels of another file", lambda at: change(at / MHD, "1.2.0.raw", "../../../../etc/passwd"),
         left_out("1.2.0", "another folder")),
        ("size of another scan", lambda at: change(at / MHD, "DimSize = 32 32 6", "DimSize = 16 16 6"),
         left_out("1.2.0", "1.2.0.raw has", "tells of")),
        ("offset of 32768 not subtracted", mhd(np.where(MARK, 33568, 32808).astype(np.uint16)),
         left_out("1.2.0", "are no HU")),
        ("a voxel of 1e30", mhd(np.where(np.arange(HU.size).reshape(SHAPE) == 9, 1e30, HU).astype(np.float32)),
         noted("1.2.0", "values that are no HU: 1 voxels")),
        ("spacing zero", lambda at: change(at / MHD, "ElementSpacing = 1.25", "ElementSpacing = 0"), left_out("1.2.0")),
    ),
    *table(
        "LiTS", lits, PREPARE,
        ("no pair at all", lambda at: (at / LITS).rename(at / "elsewhere"),
         refused("LiTS holds no volume-N.nii", "https://")),
        ("segmentation missing", lambda at: (at / LITS / "segmentation-3.nii").unlink(),
         left_out("volume-3", "missing segmentation")),
        ("volume missing", lambda at: (at / LITS / "volume-3.nii").unlink(), left_out("volume-3", "missing volume")),
        ("volume cut off", lambda at: cut(at / LITS / "volume-3.nii"),
         left_out("volume-3", "volume-3.nii can not be read")),
        ("compressed volume cut off", lambda at: cut(at / LITS / "volume-4.nii.gz"),
         left_out("volume-4", "volume-4.nii.gz can not be read")),
        ("volume is a text", lambda at: (at / LITS / "volume-3.nii").write_text("version https://git-lfs\n" * 9),
         left_out("volume-3", "volume-3.nii can not be read")),
        ("volume of four dimensions", nifti("volume-3.nii", np.zeros((32, 32, 6, 2), np.int16)),
         left_out("volume-3", "expected 3D")),
        ("complex voxels", nifti("volume-3.nii", np.zeros(SHAPE[::-1], np.complex64)), left_out("volume-3", "no HU")),
        ("voxels NaN", nifti("volume-3.nii", np.full(SHAPE[::-1], np.nan, np.float32)),
         left_out("volume-3", "not finite")),
        ("matrix of zeros", nifti("volume-3.nii", np.zeros(SHAPE[::-1], np.int16), np.diag([0.0, 0, 0, 1])),
         left_out("volume-3", "volume-3.nii", "degenerate")),
        ("matrix NaN", nifti("volume-3.nii", np.zeros(SHAPE[::-1], np.int16), np.full((4, 4), np.nan)),
         left_out("volume-3", "volume-3.nii", "degenerate")),
        ("matrix without scale", nifti("volume-3.nii", HU.T.astype(np.int16), MATRIX, sides=(0.7, 0.8, 2.5)),
         left_out("volume-3", "volume-3.nii", "1.25 x 1.25 x 3", "0.7 x 0.8 x 2.5")),
        ("no orientation", nifti("volume-3.nii", HU.T.astype(np.int16), MATRIX, code=0),
         noted("volume-3", "orientation is a guess")),
        ("compressed volume with a wrong checksum", wrong_checksum,
         left_out("volume-4", "volume-4.nii.gz can not be read", "checksum is wrong")),
        ("files of macOS are no volumes", lambda at: [macos(at / LITS / "._volume-3.nii"),
         macos(at / "raw/LiTS/__MACOSX/volume-9.nii"), nifti("volume-3.nii", HU.T.astype(np.int16) * 0)(at)],
         noted("volume-3", "no image")),
        ("segmentation with swapped axes", nifti("segmentation-3.nii", (MARK * 2).astype(np.uint8)),
         left_out("volume-3", "sizes differ", "segmentation-3.nii")),
        ("label 3", nifti("segmentation-3.nii", (MARK * 3).T.astype(np.uint8)),
         left_out("volume-3", "labels other than 0, 1")),
        ("labels NaN", nifti("segmentation-3.nii", np.where(MARK, np.nan, 0).T.astype(np.float32)),
         left_out("volume-3", "segmentation-3.nii", "no whole numbers")),
        ("one number twice",
         lambda at: write_image(at / LITS.replace("h1", "h2") / "volume-3.nii", HU.astype(np.int16), MATRIX),
         left_out("volume-3", "Training_Batch1", "Training_Batch2")),
    ),
    *table(
        "NIH-LN", nih, PREPARE,
        ("no case at all", lambda at: (at / "raw/NIH-LN").rename(at / "x") and (at / "raw/NIH-LN").mkdir(),
         refused("NIH-LN holds no case", "https://")),
        ("mask missing", lambda at: (at / MASK / "ABD_LYMPH_003_mask.nii.gz").unlink(),
         left_out("ABD_LYMPH_003", "missing mask")),
        ("DICOM missing", lambda at: (at / NIH).rename(at / "x"), left_out("ABD_LYMPH_003", "missing DICOM")),
        ("two series", lambda at: write_dicom(at / NIH.replace("1.2.3.4", "1.2.3.5"), HU, MATRIX),
         left_out("ABD_LYMPH_003", "several series")),
        ("two series in one folder", lambda at: write_dicom(at / NIH, HU, MATRIX, names=[f"x{k}.dcm" for k in range(6)])
         or dicom(set_to("SeriesInstanceUID", "1.2.99"))(at), left_out("ABD_LYMPH_003", "series")),
        ("slice missing", lambda at: slices(at)[2].unlink(), left_out("ABD_LYMPH_003", "missing slice")),
        ("slice twice", lambda at: (at / NIH / "again.dcm").write_bytes(slices(at)[2].read_bytes()),
         left_out("ABD_LYMPH_003", "again.dcm")),
        ("slice cut off", lambda at: cut(slices(at)[2]), left_out("ABD_LYMPH_003", ".dcm")),
        ("outer slice empty", lambda at: slices(at)[0].write_bytes(b""), left_out("ABD_LYMPH_003", ".dcm")),
        ("slice is a text", lambda at: slices(at)[5].write_text("no DICOM"), left_out("ABD_LYMPH_003", ".dcm")),
        ("slice of another size",
         dicom(lambda d: [setattr(d, "Rows", 16), setattr(d, "PixelData", d.PixelData[:1024])]),
         left_out("ABD_LYMPH_003", "Rows")),
        ("MR instead of CT", dicom(set_to("Modality", "MR")), left_out("ABD_LYMPH_003", "modality MR")),
        ("two patients", dicom_all(lambda d, k: setattr(d, "PatientID", f"P{k % 2}")),
         left_out("ABD_LYMPH_003", "two patients", "'P0'", "'P1'")),
        ("two kernels", dicom_all(lambda d, k: setattr(d, "ConvolutionKernel", f"B{k % 2}0f")),
         left_out("ABD_LYMPH_003", "two reconstruction kernels", "'B00F'", "'B10F'")),
        ("files of macOS", lambda at: [macos(path.with_name(f"._{path.name}")) for path in slices(at)],
         noted("ABD_LYMPH_003", "left out: 6 files", "6 of macOS")),
        ("slices slightly turned", dicom_all(
            lambda d, k: setattr(d, "ImageOrientationPatient", [1, 0.002 * (k % 2), 0, -0.002 * (k % 2), 1, 0])),
         noted("ABD_LYMPH_003", "turned slices", "0.11 degrees")),
        ("values of another offset", dicom_all(lambda d, k: setattr(d, "RescaleIntercept", -32768)),
         left_out("ABD_LYMPH_003", "are no HU")),
        ("no rescaling to HU", dicom(lambda d: d.__delattr__("RescaleSlope")),
         left_out("ABD_LYMPH_003", "RescaleSlope")),
        ("no position", dicom(lambda d: d.__delattr__("ImagePositionPatient")),
         left_out("ABD_LYMPH_003", "ImagePositionPatient")),
        ("mask beside the CT, but its nodes where they are listed", mask((MARK * 1).astype(np.uint8), ELSEWHERE),
         noted("ABD_LYMPH_003", "matched by voxel index")),
        ("mask of another CT", lambda at: [(at / NODES).unlink(), mask((MARK * 1).astype(np.uint8), ELSEWHERE)(at)],
         left_out("ABD_LYMPH_003", "mask and CT do not coincide")),
        ("mask with swapped axes", mask((MARK * 1).astype(np.uint8).T.copy()),
         left_out("ABD_LYMPH_003", "do not coincide")),
        ("mask negative", mask((MARK * -1).astype(np.int16)), left_out("ABD_LYMPH_003", "_mask.nii.gz", "negative")),
        ("mask NaN", mask(np.where(MARK, np.nan, 0).astype(np.float32)),
         left_out("ABD_LYMPH_003", "_mask.nii.gz", "no whole numbers")),
        ("mask cut off", lambda at: cut(at / MASK / "ABD_LYMPH_003_mask.nii.gz"),
         left_out("ABD_LYMPH_003", "_mask.nii.gz can not be read")),
        ("more nodes listed than drawn", lambda at: (at / NODES).write_text("1 1 1\n2 2 2\n"),
         noted("ABD_LYMPH_003", "node counts differ")),
    ),
    *table(
        "prepare", lits, PREPARE,
        ("every volume broken", lambda at: [cut(path, 0.1) for path in (at / LITS).iterdir()],
         refused("none of the 2 volumes", "volume-3.nii can not be read")),
        ("disk full at a volume", lambda at: fill_disk(at / STORE / "LiTS/volume-4.npy"),
         refused("volume-4.npy", "No space left", status=1, keeps=(STORE,))),
        ("disk full at a table", lambda at: fill_disk(at / "root/data/prepared/smoke/boxes.csv"),
         refused("boxes.csv", "No space left", status=1, keeps=(STORE, "root/data/prepared/smoke/volumes.csv"))),
        ("quota used up", small_quota, refused("volume-3.npy", "could not be written", status=1)),
        ("disk that can not be read", failing_disk, refused("volume-3.nii", "Input/output error", status=1)),
        ("interrupted in a volume", interrupted, told("interrupted", status=130)),
        ("a file where data/ belongs", a_file_instead("root/data"), refused("root/data", "Not a directory", status=1)),
        ("--data that does not exist", lambda at: (at / "raw").rename(at / "x"), refused("there is no folder", "raw")),
        ("--data is a file", lambda at: [(at / "raw").rename(at / "x"), (at / "raw").write_text("")],
         refused("raw", "not a folder")),
    ),
    *table(
        "prepare", nothing, PREPARE,
        ("--data without a dataset", lambda at: None, refused("raw holds none of DeepLesion, LUNA16")),
    ),
    *table("prepare", lits, f"{PREPARE} --workers none",
           ("--workers none", lambda at: None, refused("--workers", "none"))),
    *table("prepare", lits, f"{PREPARE} --seed -1", ("--seed -1", lambda at: None, refused("--seed", "-1"))),
    *table(
        "data check", deeplesion, CHECK,
        ("pickle that runs a program", manual({"test": {B: Malice()}}),
         told("manual_1K_test_release.pkl", "only numpy arrays are admitted", status=1)),
        ("DL_info.csv is binary", lambda at: (at / INFO).write_bytes(b"\x89\xff\x00" * 99),
         told("DL_info.csv", status=1)),
        ("DL_info.csv without a column", lambda at: without(at / INFO, "File_name"),
         told("no column File_name", status=1)),
        ("a part of the table", lambda at: None, told("2 of 32,735 lesions in DL_info.csv", "https://nihcc", status=1)),
        ("folder that does not exist", lambda at: (at / "raw").rename(at / "x"), refused("raw is no folder", "--root")),
    ),
    *table(
        "data check", luna, CHECK,
        ("annotations.csv empty", lambda at: (at / CSV / "annotations.csv").write_text(""),
         told("annotations.csv", status=1)),
        ("files of macOS",
         lambda at: [macos(at / "raw/LUNA16/subset0/._1.2.0.mhd"), macos(at / "raw/LUNA16/.DS_Store")],
         told("handled: files of macOS\n", "2 are left out", "2 of    888 scans", status=1)),
        ("a scan without its header", lambda at: (at / MHD).unlink(), told("1.2.0.mhd", status=1)),
    ),
]


# fmt: on


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in CASES])
def test_broken_datasets(case, tmp_path, monkeypatch):
    run(case, tmp_path, monkeypatch)


def test_the_rows_are_distinct():
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names) >= 60


def test_sound_files_pass(tmp_path, monkeypatch):
    """Without the damage every maker's files are prepared, so no row of the table fails for another reason."""
    for make in (deeplesion, luna, lits, nih):
        make(tmp_path)
    report = preparation.prepare(tmp_path / "raw", tmp_path / "out", (3.0, 3.0, 4.0), workers=1)
    for name, counts in report["datasets"].items():
        assert (counts["prepared"], counts["skipped"], counts["notes"]) == (2, 0, {}), name
        assert counts["lesions"] == (1 if name == "LUNA16" else 2)
    assert len(pd.read_csv(tmp_path / "out/manual.csv")) == 1
