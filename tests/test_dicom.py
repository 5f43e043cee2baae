"""DICOM as it comes from hospitals: what is no slice, what can not be one volume, and how values are stored."""

import base64
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    MediaStorageDirectoryStorage,
    RLELossless,
    SecondaryCaptureImageStorage,
    generate_uid,
)
from tiny import sample, write_dicom

from lensnb.ct import dicom_pixels
from lensnb.ct.grid import grid_to_mm, grid_to_original, normalise
from lensnb.ct.read import read_ct

sitk = pytest.importorskip("SimpleITK")

MATRIX = np.array([[0.7, 0, 0, -20.0], [0, 0.9, 0, 30], [0, 0, 2, -5], [0, 0, 0, 1]])
HU = np.arange(-500, -500 + 6 * 4 * 5, dtype=np.int16).reshape(6, 4, 5)
# what pyjpegls 1.5.1 makes of 1000 + 37 y + 11 x + (x y mod 5), 6 x 8 pixels
JPEG_LS = base64.b64decode(
    "/9j/9wALCwAGAAgBAREA/9oACAEBAAAAAAAAAAD87XPH/d5KuNtMre4Kvch1hrhI5h5dhq5GYQ5p5TREptpSq2D/2Q=="
)


def setting(only: int | None = 2, **values):
    """An edit for `write_dicom`: give slice `only` (None: all) these tags; None deletes a tag."""

    def edit(data, k):
        if only in (None, k):
            for name, value in values.items():
                if value is None:
                    delattr(data, name)
                else:
                    setattr(data, name, value)

    return edit


def pixels(values: np.ndarray, signed: bool, bits: int = 16, **values_of_tags):
    """An edit for `write_dicom`: the stored values (z, y, x) themselves."""

    def edit(data, k):
        data.PixelRepresentation, data.BitsStored, data.HighBit = int(signed), bits, bits - 1
        data.PixelData = values[k].astype("<i2" if signed else "<u2").tobytes()
        setting(None, **values_of_tags)(data, k)

    return edit


def write_other(path: Path, sop_class: str, modality: str, **tags) -> None:
    """A DICOM file that is no CT slice."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = UID(sop_class), generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset(path.name, {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.SeriesInstanceUID, data.Modality = generate_uid(), modality
    for name, value in tags.items():
        setattr(data, name, value)
    pydicom.dcmwrite(path, data)


def item(**tags) -> Dataset:
    data = Dataset()
    for name, value in tags.items():
        setattr(data, name, Sequence(value) if isinstance(value, list) and name.endswith("Sequence") else value)
    return data


def write_enhanced(path: Path, hu: np.ndarray, matrix: np.ndarray, order, edit=None) -> None:
    """An enhanced CT: all slices in one file, in any order, each with a rescaling of its own."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = EnhancedCTImageStorage, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset(path.name, {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.SeriesInstanceUID, data.Modality, data.NumberOfFrames = generate_uid(), "CT", len(hu)
    data.Rows, data.Columns = hu.shape[1:]
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    axes = [float(v) for v in np.r_[matrix[:3, 0] / spacing[0], matrix[:3, 1] / spacing[1]]]
    measures = item(PixelSpacing=[float(spacing[1]), float(spacing[0])], SliceThickness=3.0)
    shared = item(PlaneOrientationSequence=[item(ImageOrientationPatient=axes)], PixelMeasuresSequence=[measures])
    frames, stored = [], []
    for k in order:
        position = [float(v) for v in (matrix @ [0, 0, k, 1])[:3]]
        rescaling = item(RescaleSlope=0.5, RescaleIntercept=-1000 - 10 * int(k), RescaleType="HU")
        frames.append(
            item(
                PlanePositionSequence=[item(ImagePositionPatient=position)],
                PixelValueTransformationSequence=[rescaling],
            )
        )
        stored.append((hu[k] + 1000 + 10 * k) * 2)
    data.SharedFunctionalGroupsSequence = Sequence([shared])
    data.PerFrameFunctionalGroupsSequence = Sequence(frames)
    data.PixelData = np.array(stored).astype("<i2").tobytes()
    if edit:
        edit(data)
    pydicom.dcmwrite(path, data)


def check(folder: Path, hu=HU, matrix=MATRIX) -> None:
    ct = read_ct(folder)
    np.testing.assert_array_equal(ct.hu, hu)
    np.testing.assert_allclose(ct.index_to_mm, matrix, atol=1e-4)


# what lies in the folder


def test_files_in_any_order_of_names_and_without_extension(tmp_path):
    write_dicom(tmp_path / "a", HU, MATRIX, names=["IM9", "IM1", "IM10", "IM5", "IM2", "IM3"])
    check(tmp_path / "a")
    write_dicom(tmp_path / "b" / "deep" / "down", HU[::-1], MATRIX @ np.diag([1, 1, -1, 1]))
    ct = read_ct(tmp_path / "b")  # head to feet in the files, feet to head here
    assert (ct.hu[:, 0, 0] == HU[:, 0, 0]).all() and ct.index_to_mm[2, 2] == 2


def test_folders_that_are_links_are_entered(tmp_path):
    write_dicom(tmp_path / "disk", HU, MATRIX)
    (tmp_path / "ct").mkdir()
    (tmp_path / "ct" / "series").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "back").symlink_to(tmp_path / "ct")
    check(tmp_path / "ct")


def test_what_is_no_slice_is_left_out_and_counted(tmp_path):
    write_dicom(tmp_path, HU, MATRIX)
    write_dicom(
        tmp_path / "scout", HU[:1, :2], MATRIX, names=["scout"],
        edit=setting(None, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], ImageOrientationPatient=[0, 1, 0, 0, 0, -1]),
    )  # fmt: skip
    write_other(tmp_path / "DICOMDIR", MediaStorageDirectoryStorage, "")
    screen = {"Rows": 4, "Columns": 5, "SamplesPerPixel": 3, "PixelData": bytes(60), "BitsAllocated": 8}
    write_other(tmp_path / "screen.dcm", SecondaryCaptureImageStorage, "CT", **screen)
    write_other(tmp_path / "dose.dcm", "1.2.840.10008.5.1.4.1.1.88.67", "SR")
    write_other(tmp_path / "pet.dcm", "1.2.840.10008.5.1.4.1.1.128", "PT", Rows=4, Columns=5)
    (tmp_path / "readme.txt").write_text("no image")
    (tmp_path / "empty").write_bytes(b"")
    check(tmp_path)
    (note,) = read_ct(tmp_path).notes
    assert note == (
        "left out: 7 files that are no CT slice (1 Media Storage Directory Storage, 1 Positron Emission Tomography "
        "Image Storage, 1 Secondary Capture Image Storage, 1 X-Ray Radiation Dose SR Storage, 1 localizer, 2 no DICOM)"
    )


def test_a_folder_without_ct_says_what_it_holds(tmp_path):
    write_other(tmp_path / "mr1", "1.2.840.10008.5.1.4.1.1.4", "MR", Rows=4, Columns=5)
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(ValueError, match=r"holds no CT image \(1 MR Image Storage, 1 no DICOM\); give the folder of"):
        read_ct(tmp_path)


def test_several_series_are_listed_and_one_can_be_chosen(tmp_path):
    write_dicom(tmp_path / "thin", HU, MATRIX, edit=setting(None, SeriesInstanceUID="1.2.3", SeriesDescription="thin"))
    write_dicom(tmp_path / "thick", HU[:3], MATRIX, edit=setting(None, SeriesInstanceUID="1.2.4"))
    with pytest.raises(ValueError) as error:
        read_ct(tmp_path)
    assert "holds 2 series: 1.2.4 ('', 3 files, thick/); 1.2.3 ('thin', 6 files, thin/)" in str(error.value)
    assert "choose one" in str(error.value)
    np.testing.assert_array_equal(read_ct(tmp_path, series="1.2.3").hu, HU)
    with pytest.raises(ValueError, match="has no series 9; it has 1.2.4"):
        read_ct(tmp_path, series="9")
    with pytest.raises(ValueError, match="is a file; a series"):
        read_ct(next((tmp_path / "thin").iterdir()), series="9")


def test_old_files_without_preamble(tmp_path):
    write_dicom(tmp_path, HU, MATRIX)
    for path in tmp_path.iterdir():
        data = pydicom.dcmread(path)
        del data.file_meta, data.preamble
        pydicom.dcmwrite(path, data, implicit_vr=True, little_endian=True, enforce_file_format=False)
        assert path.read_bytes()[128:132] != b"DICM"
    check(tmp_path)


def test_one_file(tmp_path):
    write_dicom(tmp_path / "ct", HU, MATRIX, names=[f"IM{k}" for k in range(6)])
    with pytest.raises(ValueError, match=r"IM2 is one slice of a CT; give the folder that holds all of them, .*ct"):
        read_ct(tmp_path / "ct" / "IM2")
    write_other(tmp_path / "DICOMDIR", MediaStorageDirectoryStorage, "")
    with pytest.raises(ValueError, match="DICOMDIR is no CT image"):
        read_ct(tmp_path / "DICOMDIR")


# geometry


def test_tilted_gantry_stays_exact(tmp_path):
    # the gantry leans by 15 degrees; the table moves along the body
    lean = np.radians(15)
    matrix = np.eye(4)
    matrix[:3, 1] = [0, 0.8 * np.cos(lean), 0.8 * np.sin(lean)]
    matrix[:3, 2] = [0, 0, 2.0]
    hu = np.rint(sample(matrix, (6, 8, 9))).astype(np.int16)
    write_dicom(tmp_path, hu, matrix)
    ct = read_ct(tmp_path)
    np.testing.assert_allclose(ct.index_to_mm, matrix, atol=1e-5)
    assert ct.notes == ("tilted gantry: the slices are tilted by 15.0 degrees; positions are exact, boxes slanted",)
    grid, geometry = normalise(ct, (1.0, 1.0, 2.0))
    z, y, x = (n // 2 for n in grid.shape)
    expected = sample(np.eye(4), (1, 1, 1))[0, 0, 0] + grid_to_mm([[x, y, z]], geometry)[0] @ [3, -5, 7]
    assert abs(grid[z, y, x] - expected) < 1.1  # the field's value at these millimetres


def test_a_single_slice(tmp_path):
    write_dicom(tmp_path, HU[:1], MATRIX, edit=setting(None, SliceThickness=2.0))
    check(tmp_path, HU[:1])
    assert read_ct(tmp_path).notes == ("one slice: its thickness, 2 mm, is taken for the slice distance",)


REFUSED = {
    "missing": (lambda data, k: k != 3, "1 missing slices: 4.00 mm between .* elsewhere 2.00 mm. Copy or export"),
    "two missing": (lambda data, k: k not in (3, 4), "2 missing slices: 6.00 mm between"),
    "phases": (setting(ImagePositionPatient=[-20, 30, -3]), "two slices at the same position .*several phases"),
    "uneven": (setting(ImagePositionPatient=[-20, 30, -0.1]), "uneven slices: 2.90 mm between .*dcm .* as NIfTI"),
    "shifted": (setting(ImagePositionPatient=[-11, 30, -1]), r"0?838.dcm: the slices do not lie on one line.* 9.00 mm"),
    "another series": (setting(SeriesInstanceUID="1.2.3"), "holds 2 series"),
    "another modality": (setting(Modality="MR"), "838.dcm: modality MR, expected CT; take it out"),
    "two numbers of frames": (setting(NumberOfFrames=[1, 2]), "NumberOfFrames is .*, not a whole number"),
    "frames": (setting(NumberOfFrames=4), "838.dcm: 4 frames in one file, but positions of 0; .*NIfTI"),
    "other spacing": (setting(PixelSpacing=[2, 2]), r"838.dcm: PixelSpacing is \[2.0, 2.0\], but \[0.9, 0.7\] in 0000"),
    "other size": (setting(Rows=2), r"838.dcm: Rows and Columns is \[2.0, 5.0\], but .*not one CT volume. Give"),
    "turned": (setting(ImageOrientationPatient=[0, 1, 0, 0, 0, -1]), "838.dcm: ImageOrientationPatient is .*, but"),
    "skewed": (setting(ImageOrientationPatient=[1, 0, 0, 1, 0, 0]), "838.dcm: ImageOrient.*right-angled"),
    "zero spacing": (setting(PixelSpacing=[0, 1]), "838.dcm: PixelSpacing is .* must be above 0"),
    "no position": (setting(ImagePositionPatient=None), "838.dcm: ImagePositionPatient is missing; .* voxels have no"),
    "no orientation": (setting(ImageOrientationPatient=None), "838.dcm: ImageOrientationPatient is missing"),
    "no spacing": (setting(PixelSpacing=None), "838.dcm: PixelSpacing is missing; .*Export the series again"),
    "no slope": (setting(RescaleSlope=None), "838.dcm: RescaleSlope is missing; .* values are no HU"),
    "no intercept": (setting(RescaleIntercept=None), "838.dcm: RescaleIntercept is missing; .* values are no HU"),
    "slope 0": (setting(RescaleSlope=0), "838.dcm: RescaleSlope 0 and RescaleType '' do not give HU"),
    "no HU": (setting(RescaleType="Z_EFF"), "838.dcm: .*RescaleType 'Z_EFF' do not give HU"),
    "no rows": (setting(Rows=None), "838.dcm: a CT image without Rows and Columns; it is cut off"),
    "colours": (setting(SamplesPerPixel=3), "838.dcm: 3 values per pixel"),
    "no columns": (setting(Columns=0), "838.dcm: 4 rows and 0 columns; it is damaged"),
    "rows without end": (setting(None, Rows=65535, Columns=65535), "can not be read: its header says 6 x 65535 x 655"),
    "two high bits": (setting(HighBit=[15, 15]), r"838.dcm: HighBit is \[15, 15\], not one number"),
    "one thin slice": (lambda data, k: k == 2 and setting(SliceThickness=-3)(data, k) is None, "SliceThickness is -3"),
    "high bit": (setting(HighBit=11), "838.dcm: HighBit 11 does not go with BitsStored 16"),
    "voxels of a kilometre": (setting(None, PixelSpacing=[1e6, 1e6]), "are no CT's"),
    "slope of a million": (setting(None, RescaleSlope=1e6), "are no HU: "),
    "intercept of a million": (setting(None, RescaleIntercept=1e6), "are no HU: "),
    "offset of 32768": (setting(None, RescaleIntercept=31744), "are no HU: "),
    "slope nan": (setting(RescaleSlope="nan"), "838.dcm: RescaleSlope is nan"),
    "no bits": (setting(BitsAllocated=None), "838.dcm: the pixels can not be read"),
    "no pixels": (setting(PixelData=None), "838.dcm: the pixels can not be read"),
    "few pixels": (setting(PixelData=bytes(10)), "838.dcm: the pixels can not be read .*copy it again"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_file_reason_and_advice(name, tmp_path):
    edit, message = REFUSED[name]
    write_dicom(tmp_path, HU, MATRIX, edit=edit)
    with pytest.raises(ValueError, match=message):
        read_ct(tmp_path)


def alternating(tag: str, first: object, second: object):
    """An edit for `write_dicom`: every other slice has another value."""
    return lambda data, k: setattr(data, tag, second if k % 2 else first)


def two_parts(tag: str, first: object, second: object):
    """An edit for `write_dicom`: the upper half has another value."""
    return lambda data, k: setattr(data, tag, second if k > 2 else first)


ONE_SERIES_OF_TWO = {
    "patients": ("PatientID", "4711", "4712"),
    "names": ("PatientName", "Doe^Jane", "Roe^Jane"),
    "birthdays": ("PatientBirthDate", "19500101", "19510101"),
    "studies": ("StudyInstanceUID", "1.2.3", "1.2.4"),
    "frames of reference": ("FrameOfReferenceUID", "1.2.3", "1.2.4"),
    "series numbers": ("SeriesNumber", 3, 4),
    "kernels": ("ConvolutionKernel", "B30f", "B70f"),
    "kernels of two words": ("ConvolutionKernel", ["Br40", "3"], ["Br40", "4"]),
    "positions": ("PatientPosition", "HFS", "FFS"),
    "scanners": ("DeviceSerialNumber", "1", "2"),
}
ALTERNATING = {
    "acquisitions": ("AcquisitionNumber", 1, 2),
    "tube voltages": ("KVP", "80", "140"),
    "kinds of image": ("ImageType", ["ORIGINAL", "PRIMARY"], ["DERIVED", "SECONDARY"]),
    "descriptions": ("SeriesDescription", "native", "portal"),
    "contrast": ("ContrastBolusAgent", "none", "iodine"),
    "phases": ("NominalPercentageOfCardiacPhase", 30.0, 70.0),
}


@pytest.mark.parametrize("name", ONE_SERIES_OF_TWO | ALTERNATING)
@pytest.mark.parametrize("series", [None, "1.2.3.4"])
def test_one_series_that_hides_two_is_refused(name, series, tmp_path):
    tag, first, second = (ONE_SERIES_OF_TWO | ALTERNATING)[name]

    def edit(data, k):
        alternating(tag, first, second)(data, k)
        data.SeriesInstanceUID = series or ""

    write_dicom(tmp_path, HU, MATRIX, edit=edit)
    shown = [re.escape("\\".join(map(str, v)) if isinstance(v, list) else f"{v}") for v in (first, second)]
    message = rf"(?i)one series of two .*: {tag} is '{shown[0]}' in .*dcm, but '{shown[1]}' in .*dcm\. Give a folder"
    with pytest.raises(ValueError, match=message.replace(r"\.0'", "'")):
        read_ct(tmp_path)


@pytest.mark.parametrize("name", ONE_SERIES_OF_TWO)
def test_two_of_what_a_ct_has_one_of_are_refused_in_two_parts_too(name, tmp_path):
    write_dicom(tmp_path, HU, MATRIX, edit=two_parts(*ONE_SERIES_OF_TWO[name]))
    with pytest.raises(ValueError, match="one series of two"):
        read_ct(tmp_path)


@pytest.mark.parametrize("name", ALTERNATING)
def test_a_scan_in_two_parts_is_one_ct(name, tmp_path):
    write_dicom(tmp_path, HU, MATRIX, edit=two_parts(*ALTERNATING[name]))
    check(tmp_path)


@pytest.mark.parametrize(
    "edit",
    [
        lambda data, k: setattr(data, "AcquisitionNumber", k + 1),  # a number for every rotation
        alternating("PatientName", "Doe^Jane", "DOE^JANE^^"),
        alternating("PatientID", "4711", " 4711 "),
        alternating("KVP", "120", "120.0"),
        lambda data, k: setattr(data, "PatientID", "") if k % 2 else None,
        lambda data, k: setattr(data, "ExposureTime", 500 + k),
    ],
)
def test_tags_that_say_the_same_or_nothing(edit, tmp_path):
    write_dicom(tmp_path, HU, MATRIX, edit=edit)
    check(tmp_path)


def turned_by(degrees: float, only=lambda k: k % 2):
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    axes = [f"{v:.10g}" for v in (cosine, sine, 0, -sine, cosine, 0)]
    return lambda data, k: setattr(data, "ImageOrientationPatient", axes) if only(k) else None


@pytest.mark.parametrize("degrees", [0.0, 0.005])
def test_rounded_orientations_are_alike(degrees, tmp_path):
    write_dicom(tmp_path, HU, MATRIX, edit=turned_by(degrees))
    check(tmp_path)
    assert read_ct(tmp_path).notes == ()


@pytest.mark.parametrize("degrees", [0.1, 1, 10])
def test_orientations_that_move_no_pixel_by_a_millimetre_are_noted(degrees, tmp_path):
    write_dicom(tmp_path, HU, MATRIX, edit=turned_by(degrees))  # 3.5 x 3.6 mm
    check(tmp_path)
    (note,) = read_ct(tmp_path).notes
    assert note.startswith(f"turned slices: ImageOrientationPatient differs by up to {degrees:g} degrees")


def test_orientations_that_move_a_pixel_by_more_are_refused(tmp_path):
    hu = np.zeros((6, 400, 400), np.int16)
    hu[:, 100:] = 70
    write_dicom(tmp_path, hu, MATRIX, edit=turned_by(0.5))
    with pytest.raises(ValueError, match=r"turned by 0.5 degrees, which moves the last pixel by \d.* mm \(1 is tol"):
        read_ct(tmp_path)
    write_dicom(tmp_path / "mirrored", HU, MATRIX, edit=turned_by(180, only=lambda k: k == 2))
    with pytest.raises(ValueError, match="turned by 180 degrees"):
        read_ct(tmp_path / "mirrored")


def test_what_macos_adds_is_left_out(tmp_path):
    write_dicom(tmp_path / "ct", HU, MATRIX)
    debris = b"\0\x05\x16\x07\0\x02\0\0Mac OS X" + bytes(200)
    for path in list((tmp_path / "ct").iterdir()):
        path.with_name(f"._{path.name}").write_bytes(debris)
        (tmp_path / "__MACOSX/ct").mkdir(parents=True, exist_ok=True)
        (tmp_path / "__MACOSX/ct" / path.name).write_bytes(path.read_bytes()[:300])
    (tmp_path / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    check(tmp_path)
    assert read_ct(tmp_path).notes == ("left out: 13 files that are no CT slice (13 of macOS)",)


def test_links_without_a_file_and_closed_folders_are_told(tmp_path):
    write_dicom(tmp_path, HU, MATRIX)
    (tmp_path / "IM7").symlink_to(tmp_path / "gone")
    with pytest.raises(ValueError, match="IM7 is a link whose file does not exist; bring"):
        read_ct(tmp_path)
    (tmp_path / "IM7").unlink()
    (tmp_path / "closed").mkdir(mode=0)
    if os.access(tmp_path / "closed", os.R_OK):
        pytest.skip("this user may read everything")
    with pytest.raises(PermissionError, match="closed"):
        read_ct(tmp_path)


def test_copies_and_phases_are_told_apart(tmp_path):
    write_dicom(tmp_path, HU, MATRIX)
    shutil.copy(tmp_path / "0838.dcm", tmp_path / "0838 (1).dcm")
    with pytest.raises(ValueError, match=r"same position \(-1.00 mm\): .*0838.dcm.* One file is a copy of the other"):
        read_ct(tmp_path)


@pytest.mark.parametrize("size", [0, 60, 140, 400, 600])
def test_cut_off_files_are_named(size, tmp_path):
    write_dicom(tmp_path, HU, MATRIX)
    path = tmp_path / "0595.dcm"  # an outer slice: without it, the others would still be even
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match="0595.dcm"):
        read_ct(tmp_path)


def test_values_that_are_no_numbers_are_named(tmp_path):
    write_dicom(tmp_path, HU, MATRIX, edit=setting(PixelSpacing=["1.5", "2.5"]))
    path = tmp_path / "0838.dcm"
    path.write_bytes(path.read_bytes().replace(b"1.5\\2.5", b"abc\\2.5"))
    with pytest.raises(ValueError, match=r"0838.dcm: PixelSpacing is \['abc', .*2.5.*Export the series again"):
        read_ct(tmp_path)


# values


def test_each_slice_has_its_own_rescaling(tmp_path):
    stored = np.arange(6 * 20).reshape(6, 4, 5)

    def edit(data, k):
        data.PixelRepresentation, data.PixelData = 0, stored[k].astype("<u2").tobytes()
        data.RescaleSlope, data.RescaleIntercept = 0.25 + 0.5 * k, -100.5 * k
        data.RescaleType = "HU"

    write_dicom(tmp_path, HU, MATRIX, edit=edit)
    k = np.arange(6)[:, None, None]
    check(tmp_path, np.rint(stored * (0.25 + 0.5 * k) - 100.5 * k).astype(np.int16))


def test_signed_unsigned_and_unused_bits(tmp_path):
    signed = np.arange(-60, 60).reshape(6, 4, 5)
    write_dicom(tmp_path / "signed", HU, MATRIX, edit=pixels(signed, True, RescaleIntercept=0))
    check(tmp_path / "signed", signed)
    unsigned = signed + 65535 - 100
    write_dicom(tmp_path / "unsigned", HU, MATRIX, edit=pixels(unsigned, False, RescaleIntercept=-65435))
    check(tmp_path / "unsigned", signed)
    # 12 of 16 bits, the others zero: -1 is stored as 0x0FFF
    write_dicom(tmp_path / "twelve", HU, MATRIX, edit=pixels(signed & 0x0FFF, False, RescaleIntercept=0))
    for path in (tmp_path / "twelve").iterdir():
        data = pydicom.dcmread(path)
        data.PixelRepresentation, data.BitsStored, data.HighBit = 1, 12, 11
        data.save_as(path)
    check(tmp_path / "twelve", signed)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
@pytest.mark.parametrize(("signed", "bits"), [(True, 16), (False, 16), (True, 12), (False, 12)])
def test_slices_without_compression_are_parsed_once(syntax, signed, bits, tmp_path, monkeypatch):
    values = np.arange(-60, 60).reshape(6, 4, 5) + (0 if signed else 2000)
    junk = 0 if bits == 16 else 0x5000  # unused bits may hold anything
    write_dicom(tmp_path, HU, MATRIX, edit=pixels(values & 0xFFFF >> 16 - bits | junk, False, RescaleIntercept=0))
    for path in tmp_path.iterdir():
        data = pydicom.dcmread(path)
        data.PixelRepresentation, data.BitsStored, data.HighBit = int(signed), bits, bits - 1
        data.file_meta.TransferSyntaxUID = syntax
        pydicom.dcmwrite(path, data, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=True)
    slow = [dicom_pixels._decode(path) for path in sorted(tmp_path.iterdir())]
    quick = [dicom_pixels.read_pixels(dicom_pixels.read_header(path)).stored[0] for path in sorted(tmp_path.iterdir())]
    np.testing.assert_array_equal(quick, slow)
    parsed, dcmread = [], pydicom.dcmread
    monkeypatch.setattr(
        pydicom, "dcmread", lambda file, **options: parsed.append(file.name) or dcmread(file, **options)
    )
    check(tmp_path, values)
    assert len(parsed) == len(set(parsed)) == 6


def test_monochrome1_is_a_way_to_show_values(tmp_path):
    write_dicom(tmp_path, HU, MATRIX, edit=setting(None, PhotometricInterpretation="MONOCHROME1"))
    check(tmp_path)


def test_padding_becomes_air(tmp_path):
    stored = np.full((6, 8, 8), 1100)
    stored[:, :3, :3] = -2000

    def declared(data, k):
        pixels(stored, True)(data, k)
        data.add_new("PixelPaddingValue", "US", 65536 - 2000)  # -2000 in 16 bits, as some scanners write it

    for name, edit in (("declared", declared), ("not declared", pixels(stored, True))):
        write_dicom(tmp_path / name, np.zeros((6, 8, 8), np.int16), MATRIX, edit=edit)
    assert np.unique(read_ct(tmp_path / "declared").hu).tolist() == [-1024, 76]
    assert np.unique(read_ct(tmp_path / "not declared").hu).tolist() == [-3024, 76]
    # a range, far above any tissue
    stored[:, :3, :3], stored[:, 0, 0] = 30000, 29990
    edit = pixels(stored, False, PixelPaddingValue=29990, PixelPaddingRangeLimit=30000)
    write_dicom(tmp_path / "range", np.zeros((6, 8, 8), np.int16), MATRIX, edit=edit)
    assert np.unique(read_ct(tmp_path / "range").hu).tolist() == [-1024, 76]


def test_padding_that_could_be_tissue_counts_at_the_border_only(tmp_path):
    stored = np.full((6, 8, 8), 1100)
    stored[:, :2], stored[:, 5, 5] = 1024, 1024  # 0 HU: around the image, and water in its middle
    edit = pixels(stored, False, PixelPaddingValue=1024)
    write_dicom(tmp_path, np.zeros((6, 8, 8), np.int16), MATRIX, edit=edit)
    hu = read_ct(tmp_path).hu
    assert (hu[:, :2] == -1024).all() and (hu[:, 5, 5] == 0).all() and hu[0, 4, 4] == 76


def test_lossy_compression_is_noted(tmp_path):
    write_dicom(tmp_path, HU, MATRIX, edit=setting(LossyImageCompression="01"))
    assert read_ct(tmp_path).notes == ("lossy compression: in 1 files the HU are not exact",)


# transfer syntaxes


def compressed_by_simpleitk(folder: Path, image: np.ndarray, compressor: str) -> tuple[bytes, str]:
    """One frame as SimpleITK compresses it, and its transfer syntax."""
    folder.mkdir(exist_ok=True)
    writer = sitk.ImageFileWriter()
    writer.SetFileName(str(folder / "one.dcm"))
    writer.UseCompressionOn()
    writer.SetCompressor(compressor)
    writer.Execute(sitk.GetImageFromArray(image[None]))
    data = pydicom.dcmread(folder / "one.dcm")
    (frame,) = generate_frames(data.PixelData, number_of_frames=1)
    return frame, data.file_meta.TransferSyntaxUID


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize(
    ("compressor", "syntax"), [("JPEG", JPEGLosslessSV1), ("JPEG2000", JPEG2000Lossless), ("", RLELossless)]
)
def test_compressed_slices(compressor, syntax, signed, tmp_path):
    # one decoder is pydicom's, the other SimpleITK's: JPEG lossless, the most common, needs the latter
    hu = np.random.default_rng(0).integers(-1024, 3071, (3, 16, 24)).astype(np.int16)
    kind = np.int16 if signed else np.uint16

    def edit(data, k):
        data.PixelRepresentation, data.RescaleIntercept = int(signed), 0 if signed else -1024
        stored = (hu[k].astype(int) - int(data.RescaleIntercept)).astype(kind)
        data.PixelData = stored.tobytes()
        if not compressor:
            data.compress(syntax)
            return
        frame, found = compressed_by_simpleitk(tmp_path / "scratch", stored, compressor)
        assert found == syntax
        data.file_meta.TransferSyntaxUID = syntax
        data.PixelData = encapsulate([frame])
        data["PixelData"].is_undefined_length = True

    write_dicom(tmp_path / "ct", hu, MATRIX, edit=edit)
    check(tmp_path / "ct", hu)


def in_a_stream_of_another_sign(folder: Path, values: np.ndarray, compressor: str, bits: int, signed: bool):
    """Slices whose compressed numbers are `values`, with their sign, and whose header says `bits` and `signed`."""

    def edit(data, k):
        frame, syntax = compressed_by_simpleitk(folder.parent / "scratch", values[k], compressor)
        data.PixelRepresentation, data.BitsStored, data.HighBit = int(signed), bits, bits - 1
        data.RescaleIntercept = 0
        data.file_meta.TransferSyntaxUID = syntax
        data.PixelData = encapsulate([frame])
        data["PixelData"].is_undefined_length = True

    write_dicom(folder, values.astype(np.int16), MATRIX, edit=edit)


@pytest.mark.parametrize("compressor", ["JPEG", "JPEG2000"])
@pytest.mark.parametrize("bits", [12, 13, 15, 16])
def test_signed_values_in_an_unsigned_stream(compressor, bits, tmp_path):
    hu = np.random.default_rng(0).integers(-1024, 2000, (3, 16, 24))
    stream = (hu & (1 << bits) - 1).astype(np.uint16)
    in_a_stream_of_another_sign(tmp_path / "ct", stream, compressor, bits, signed=True)
    check(tmp_path / "ct", hu)


@pytest.mark.parametrize("compressor", ["JPEG", "JPEG2000"])
def test_values_that_their_bits_can_not_hold_are_refused(compressor, tmp_path):
    hu = np.random.default_rng(0).integers(0, 6000, (3, 16, 24)).astype(np.uint16)
    in_a_stream_of_another_sign(tmp_path / "ct", hu, compressor, 12, signed=False)
    with pytest.raises(ValueError, match=r"\.dcm: its pixels are \d+ to 59\d\d, but BitsStored is 12 and PixelRepr"):
        read_ct(tmp_path / "ct")


@pytest.mark.parametrize("compressor", ["JPEG", "JPEG2000"])
def test_negative_values_in_a_header_without_sign_are_never_other_values(compressor, tmp_path):
    hu = np.random.default_rng(0).integers(-1024, 2000, (3, 16, 24)).astype(np.int16)
    in_a_stream_of_another_sign(tmp_path / "ct", hu, compressor, 16, signed=False)
    if compressor == "JPEG2000":  # whose stream has a sign
        with pytest.raises(ValueError, match="are no HU"):
            read_ct(tmp_path / "ct")
        return
    assert any(note.startswith("values that are no HU: ") for note in read_ct(tmp_path / "ct").notes)


def test_jpeg_ls_slices(tmp_path):
    y, x = np.mgrid[:6, :8]
    hu = np.stack([1000 + 37 * y + 11 * x + (x * y) % 5 - 1024] * 2).astype(np.int16)

    def edit(data, k):
        data.PixelRepresentation, data.BitsStored, data.HighBit = 0, 11, 10  # as in the stream
        data.file_meta.TransferSyntaxUID = JPEGLSLossless
        data.PixelData = encapsulate([JPEG_LS])
        data["PixelData"].is_undefined_length = True
        data.PhotometricInterpretation = "MONOCHROME1"  # SimpleITK would invert it

    write_dicom(tmp_path, hu, MATRIX, edit=edit)
    check(tmp_path, hu)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_uncompressed_syntaxes(syntax, tmp_path):
    write_dicom(tmp_path, HU, MATRIX)
    for path in tmp_path.iterdir():
        data = pydicom.dcmread(path)
        data.file_meta.TransferSyntaxUID = syntax
        if syntax == ExplicitVRBigEndian:
            data.PixelData = np.frombuffer(data.PixelData, "<i2").astype(">i2").tobytes()
        order = {"is_implicit_VR": syntax.is_implicit_VR, "is_little_endian": syntax.is_little_endian}
        again = FileDataset(path.name, dict(data), file_meta=data.file_meta, preamble=b"\0" * 128, **order)
        again.save_as(path)
    check(tmp_path)


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.4.100", "1.2.840.10008.1.2.4.201"])
def test_a_compression_that_nobody_decodes_is_named(syntax, tmp_path):
    def edit(data, k):
        data.file_meta.TransferSyntaxUID = UID(syntax)
        data.PixelData = encapsulate([b"\xff\x4f\xff\x51" + bytes(60)])
        data["PixelData"].is_undefined_length = True

    write_dicom(tmp_path, HU, MATRIX, edit=edit)
    with pytest.raises(ValueError, match=rf"\.dcm: its compression \(.*{syntax}\) can not be decoded.*gdcmconv"):
        read_ct(tmp_path)


# enhanced CT


@pytest.mark.parametrize("compress", [False, True])
def test_enhanced_ct(compress, tmp_path):
    def edit(data):
        if compress:
            data.compress(RLELossless)

    write_enhanced(tmp_path / "IM1", HU, MATRIX, order=[3, 1, 0, 5, 4, 2], edit=edit)
    check(tmp_path)
    check(tmp_path / "IM1")  # the file alone, too


def test_enhanced_ct_compressed_beyond_pydicom(tmp_path, monkeypatch):
    def no_decoder(self):
        raise RuntimeError("no decoder")

    write_enhanced(tmp_path / "IM1", HU, MATRIX, order=[3, 1, 0, 5, 4, 2])
    monkeypatch.setattr(Dataset, "pixel_array", property(no_decoder))
    check(tmp_path)


def test_enhanced_ct_in_several_files(tmp_path):
    for name, order in (("a", [0, 2, 4]), ("b", [5, 3, 1])):
        write_enhanced(tmp_path / name, HU, MATRIX, order=order, edit=lambda d: setattr(d, "SeriesInstanceUID", "1.2"))
        data = pydicom.dcmread(tmp_path / name)
        data.NumberOfFrames = 3
        data.save_as(tmp_path / name)
    check(tmp_path)


def test_enhanced_ct_is_refused_with_the_frame(tmp_path):
    def without_position(data):
        del data.PerFrameFunctionalGroupsSequence[1].PlanePositionSequence

    write_enhanced(tmp_path / "IM1", HU, MATRIX, order=range(6), edit=without_position)
    with pytest.raises(ValueError, match="IM1: ImagePositionPatient is missing"):
        read_ct(tmp_path)
    write_enhanced(tmp_path / "IM1", HU, MATRIX, order=[0, 1, 2, 2, 3, 4])
    with pytest.raises(ValueError, match=r"same position .*IM1 \(frame 3\) and .*IM1 \(frame 4\). If there"):
        read_ct(tmp_path)


# a real one


def test_real_chest(shared_data):
    folder = shared_data / "real" / "dicom" / "chest_99_slices"
    ct = read_ct(folder)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    np.testing.assert_array_equal(ct.hu, sitk.GetArrayFromImage(image))
    np.testing.assert_allclose(ct.index_to_mm[:3, 3], image.GetOrigin())
    assert ct.notes == ()
    hu, geometry = normalise(ct, (0.8, 0.8, 2.0))
    assert hu.shape[0] == 148
    points = np.array([[0, 0, 0], [150, 120, 30], [300, 200, 140]])
    index = grid_to_original(points, geometry)
    np.testing.assert_allclose(
        [image.TransformContinuousIndexToPhysicalPoint(p.tolist()) for p in index],
        grid_to_mm(points, geometry),
        atol=1e-3,
    )
    # the lungs are dark, the heart is not, and the spine lies behind it
    middle = ct.hu[50]
    assert (middle < -700).mean() > 0.2 and np.percentile(middle, 80) > -200
    bright = np.argwhere(middle > 500)
    assert np.median(bright[:, 0]) > 256 and abs(np.median(bright[:, 1]) - 256) < 80
