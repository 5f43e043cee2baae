"""CTs of one's own that are broken: an error of one line that says what is wrong, or a note; never other voxels."""

import gzip
import os
import zlib
from pathlib import Path

import numpy as np
import pytest
from broken import HU, MATRIX, Place, change, cut, refused, run, table
from tiny import write_image

from lensnb.ct.read import read_ct
from lensnb.ct.volume import affine

CT = np.where(HU > 100, 800, np.arange(HU.size).reshape(HU.shape) % 900 - 850).astype(np.int16)


def written(name: str, array: np.ndarray = CT, matrix: np.ndarray = MATRIX):
    return lambda folder: write_image(folder / name, array, matrix)


def compressed(name: str):
    """A MetaImage or NRRD file whose voxels are compressed."""

    def make(folder: Path) -> None:
        import SimpleITK as sitk

        write_image(folder / name, CT, MATRIX)
        sitk.WriteImage(sitk.ReadImage(str(folder / name)), str(folder / name), useCompression=True)

    return make


def reading(name: str):
    return lambda folder: read_ct(folder / name)


def nothing(folder: Path) -> None:
    """The damage makes the file."""


def header(name: str, old: str, new: str):
    """Replace bytes of a header that has voxels behind it."""

    def replace(at: Place) -> None:
        content = (at / name).read_bytes()
        assert old.encode() in content
        (at / name).write_bytes(content.replace(old.encode(), new.encode(), 1))

    return replace


def line(name: str, key: str, value: str | None = None):
    """Take a line out of a header, or put another one in its place."""

    def replace(at: Place) -> None:
        lines = (at / name).read_bytes().split(b"\n")
        (number,) = (i for i, text in enumerate(lines) if text.startswith(key.encode()))
        lines[number : number + 1] = [] if value is None else [value.encode()]
        (at / name).write_bytes(b"\n".join(lines))

    return replace


def flipped(name: str, place: float = 0.5):
    """One wrong bit, as a broken disk or download makes."""

    def flip(at: Place) -> None:
        content = bytearray((at / name).read_bytes())
        content[int(place * len(content))] ^= 4
        (at / name).write_bytes(content)

    return flip


def wrong_sum(name: str, behind: int):
    """Another checksum, `behind` bytes before the end: the decoder itself finds nothing wrong."""

    def change_sum(at: Place) -> None:
        content = bytearray((at / name).read_bytes())
        content[-behind] ^= 255
        (at / name).write_bytes(content)

    return change_sum


def field(name: str, at_byte: int, content: bytes):
    """Put bytes into a NIfTI header."""

    def put(at: Place) -> None:
        opened = gzip.open if name.endswith(".gz") else open
        with opened(at / name, "rb") as file:
            whole = bytearray(file.read())
        whole[at_byte : at_byte + len(content)] = content
        with opened(at / name, "wb") as file:
            file.write(whole)

    return put


def longer(name: str, count: int):
    return lambda at: (at / name).open("ab").write(bytes(count))


def short(*numbers: int) -> bytes:
    return np.array(numbers, "<i2").tobytes()


def zeros_behind(at: Place) -> None:
    """A stream of 64 MB of zeros behind a header that tells of 12 kB."""
    with gzip.open(at / "ct.nii.gz", "rb") as file:
        content = file.read()
    with gzip.open(at / "ct.nii.gz", "wb", compresslevel=1) as file:
        file.write(content + bytes(64 << 20))


def elsewhere(at: Place) -> None:
    (at / "other").mkdir()
    (at / "ct.raw").rename(at / "other/ct.raw")
    change(at / "ct.mhd", "ct.raw", "other/ct.raw")


def pipe(name: str):
    return lambda at: os.mkfifo(at / name)


def loop(name: str):
    return lambda at: (at / name).symlink_to(at / name)


def dangling(name: str):
    return lambda at: (at / name).symlink_to(at / "gone")


def unreadable(name: str):
    def forbid(at: Place) -> None:
        (at / name).chmod(0)
        if os.access(at / name, os.R_OK):
            pytest.skip("this user may read everything")

    return forbid


# fmt: off
CASES = [
    *table(
        "MetaImage", written("ct.mhd"), reading("ct.mhd"),
        ("no spacing", line("ct.mhd", "ElementSpacing"), refused("ct.mhd: the spacing is missing", "ElementSpacing")),
        ("spacing negative", line("ct.mhd", "ElementSpacing", "ElementSpacing = 1 -1 3"), refused("must be above 0")),
        ("spacing nan", line("ct.mhd", "ElementSpacing", "ElementSpacing = 1 nan 3"), refused("must be above 0")),
        ("spacing in words", line("ct.mhd", "ElementSpacing", "ElementSpacing = 1 mm 3"), refused("not numbers")),
        ("spacing in metres", line("ct.mhd", "ElementSpacing", "ElementSpacing = .0008 .0008 .002"),
         refused("are no CT's")),
        ("unit in the header", header("ct.mhd", "DimSize", "DistanceUnits = um\nDimSize"), refused("'um'", "in mm")),
        ("spacing twice", header("ct.mhd", "DimSize", "ElementSpacing = 9 9 9\nDimSize"),
         refused("says ElementSpacing twice")),
        ("spacing twice, with a colon", header("ct.mhd", "DimSize", "ElementSpacing : 9 9 9\nDimSize"),
         refused("says ElementSpacing twice")),
        ("voxels of another file, with a colon", header("ct.mhd", "DimSize", "ElementDataFile : /etc/passwd\nDimSize"),
         refused("ct.mhd")),
        ("an absolute path, with a colon", line("ct.mhd", "ElementDataFile", "ElementDataFile : /etc/passwd"),
         refused("another folder, /etc/passwd")),
        ("spacing of two sides", line("ct.mhd", "ElementSpacing", "ElementSpacing = 1 1"),
         refused("ct.mhd: the spacing is", "2 numbers for 3 axes")),
        ("spacing of four sides", line("ct.mhd", "ElementSpacing", "ElementSpacing = 1 1 3 1"),
         refused("4 numbers for 3 axes")),
        ("infinitely many bytes skipped", header("ct.mhd", "DimSize", "HeaderSize = inf\nDimSize"),
         refused("ct.mhd: HeaderSize is 'inf', not a whole number")),
        ("half a byte skipped", header("ct.mhd", "DimSize", "HeaderSize = 1.5\nDimSize"), refused("not a whole")),
        ("matrix twice", header("ct.mhd", "DimSize", "Rotation = -1 0 0 0 -1 0 0 0 1\nDimSize"),
         refused("says TransformMatrix twice")),
        ("matrix with a scale", line("ct.mhd", "TransformMatrix", "TransformMatrix = 2 0 0 0 2 0 0 0 2"),
         refused("contradict the spacing")),
        ("size too small", line("ct.mhd", "DimSize", "DimSize = 4 4 4"), refused("ct.raw")),
        ("size too large", line("ct.mhd", "DimSize", "DimSize = 32 32 7"), refused("ct.raw is cut off")),
        ("size of a petabyte", line("ct.mhd", "DimSize", "DimSize = 99999 99999 99999"),
         refused("ct.mhd can not be read", "which no CT has")),
        ("size zero", line("ct.mhd", "DimSize", "DimSize = 32 0 6"), refused("which no CT has")),
        ("kind of voxel unknown", line("ct.mhd", "ElementType", "ElementType = MET_STRING"), refused("MET_STRING")),
        ("voxels of double width", line("ct.mhd", "ElementType", "ElementType = MET_FLOAT"), refused("is cut off")),
        ("scale that ITK does not apply", header("ct.mhd", "DimSize", "ElementToIntensityFunctionSlope = 2\nDimSize"),
         refused("ElementToIntensityFunctionSlope")),
        ("said to be compressed", line("ct.mhd", "CompressedData", "CompressedData = True"),
         refused("ct.raw can not be read", "compressed data")),
        ("absolute path", line("ct.mhd", "ElementDataFile", "ElementDataFile = /etc/passwd"),
         refused("another folder, /etc/passwd")),
        ("path that climbs out", line("ct.mhd", "ElementDataFile", "ElementDataFile = ../ct.raw"),
         refused("another folder, ../ct.raw")),
        ("path of Windows", line("ct.mhd", "ElementDataFile", "ElementDataFile = C:\\ct.raw"),
         refused("another folder")),
        ("path into a folder", elsewhere, refused("another folder, other/ct.raw")),
        ("list of files", line("ct.mhd", "ElementDataFile", "ElementDataFile = LIST\n/etc/passwd"),
         refused("several files")),
        ("pattern of files", line("ct.mhd", "ElementDataFile", "ElementDataFile = ct%03d.raw 1 6 1"),
         refused("several files")),
        ("voxels are a folder", lambda at: [(at / "ct.raw").unlink(), (at / "ct.raw").mkdir()],
         refused("ct.raw does not exist")),
        ("voxels are a pipe", lambda at: [(at / "ct.raw").unlink(), pipe("ct.raw")(at)], refused("ct.raw")),
        ("two values per voxel", header("ct.mhd", "DimSize", "ElementNumberOfChannels = 2\nDimSize"),
         refused("is cut off")),
        ("header of zeros", lambda at: (at / "ct.mhd").write_bytes(bytes(1 << 20)), refused("it is no MetaImage")),
    ),
    *table(
        "MetaImage, compressed", compressed("ct.mha"), reading("ct.mha"),
        ("a bit flipped", flipped("ct.mha", 0.9), refused("ct.mha can not be read")),
        ("checksum wrong", wrong_sum("ct.mha", 1), refused("ct.mha can not be read", "checksum is wrong")),
        ("cut off", lambda at: cut(at / "ct.mha", 0.9), refused("ct.mha can not be read", "cut off")),
        ("said not to be", header("ct.mha", "CompressedData = True", "CompressedData = False"),
         refused("ct.mha can not be read", "cut off")),
        ("no spacing", line("ct.mha", "ElementSpacing"), refused("spacing is missing")),
        ("size too small", line("ct.mha", "DimSize", "DimSize = 2 2 1"), refused("ct.mha")),
    ),
    *table(
        "NRRD", written("ct.nrrd"), reading("ct.nrrd"),
        ("no directions", line("ct.nrrd", "space directions"), refused("ct.nrrd: the spacing is missing")),
        ("spacings nan", line("ct.nrrd", "space directions", "spacings: nan nan nan"), refused("must be above 0")),
        ("unit", header("ct.nrrd", "kinds:", 'space units: "um" "um" "um"\nkinds:'), refused("'um'", "in mm")),
        ("voxels of another file", line("ct.nrrd", "kinds:", "data file: /etc/passwd"), refused("another folder")),
        ("infinitely many bytes skipped", line("ct.nrrd", "kinds:", "byte skip: inf"), refused("byte skip is 'inf'")),
        ("infinitely many lines skipped", line("ct.nrrd", "kinds:", "line skip: inf"), refused("line skip is 'inf'")),
        ("list of files", line("ct.nrrd", "kinds:", "data file: LIST"), refused("several files")),
        ("pattern of files", line("ct.nrrd", "kinds:", "datafile: ct%d.raw 1 6 1"), refused("several files")),
        ("cut off", lambda at: cut(at / "ct.nrrd"), refused("ct.nrrd can not be read", "cut off")),
        ("cut off in the header", lambda at: cut(at / "ct.nrrd", 0.01), refused("ct.nrrd can not be read")),
        ("size of a petabyte", line("ct.nrrd", "sizes:", "sizes: 99999 99999 99999"), refused("which no CT has")),
        ("kind of voxel unknown", line("ct.nrrd", "type:", "type: block"), refused("block")),
        ("encoding unknown", line("ct.nrrd", "encoding:", "encoding: bzip9"), refused("ct.nrrd can not be read")),
        ("text", lambda at: (at / "ct.nrrd").write_text("version https://git-lfs\n"), refused("no NRRD")),
    ),
    *table(
        "NRRD, compressed", compressed("ct.nrrd"), reading("ct.nrrd"),
        ("checksum wrong", wrong_sum("ct.nrrd", 6), refused("ct.nrrd can not be read", "checksum is wrong")),
        ("cut off", lambda at: cut(at / "ct.nrrd", 0.9), refused("ct.nrrd can not be read", "cut off")),
        ("said not to be", line("ct.nrrd", "encoding:", "encoding: raw"), refused("ct.nrrd can not be read")),
    ),
    *table(
        "NIfTI, compressed", written("ct.nii.gz"), reading("ct.nii.gz"),
        ("a bit flipped", flipped("ct.nii.gz"), refused("ct.nii.gz can not be read")),
        ("checksum wrong", wrong_sum("ct.nii.gz", 6), refused("ct.nii.gz can not be read", "checksum is wrong")),
        ("cut off before the checksum", lambda at: cut(at / "ct.nii.gz", 0.999), refused("ct.nii.gz", "cut off")),
        ("a size that its stream has not", field("ct.nii.gz", 42, short(2000, 1000, 100)),
         refused("cut off", "tells of")),
        ("header of a terabyte", field("ct.nii.gz", 42, short(32767, 32767, 32767)), refused("which no CT has")),
        ("64 MB of zeros", zeros_behind, refused("ct.nii.gz can not be read", "more than")),
        ("not compressed", lambda at: (at / "ct.nii.gz").write_bytes(gzip.decompress((at / "ct.nii.gz").read_bytes())),
         refused("ct.nii.gz can not be read")),
        ("only zlib", lambda at: (at / "ct.nii.gz").write_bytes(zlib.compress(b"x" * 999)),
         refused("ct.nii.gz can not be read")),
    ),
    *table(
        "NIfTI", written("ct.nii"), reading("ct.nii"),
        ("compressed, but not named so", lambda at: (at / "ct.nii").write_bytes(gzip.compress(b"x" * 999)),
         refused("name it .nii.gz")),
        ("dimension negative", field("ct.nii", 42, short(-32)), refused("ct.nii can not be read")),
        ("dimension zero", field("ct.nii", 42, short(0)), refused("ct.nii can not be read")),
        ("size too small", longer("ct.nii", 5000), refused("ct.nii can not be read", "tells of")),
        ("voxels of another kind", field("ct.nii", 70, short(999)), refused("ct.nii can not be read")),
        ("colours", field("ct.nii", 70, short(128, 24)), refused("ct.nii")),
        ("slope nan", field("ct.nii", 112, np.array([1, np.nan], "<f4").tobytes()), refused("ct.nii can not be read")),
        ("slope of a million", field("ct.nii", 112, np.array([1e6, 3], "<f4").tobytes()), refused("are no HU")),
        ("may not be read", unreadable("ct.nii"), refused("ct.nii", "Permission denied")),
    ),
    *table(
        "values", nothing, reading("ct.nii"),
        ("all 1e30", lambda at: write_image(at / "ct.nii", CT * np.float32(1e30), MATRIX), refused("are no HU")),
        ("offset 32768 not subtracted",
         lambda at: write_image(at / "ct.nii", (CT.astype(np.int32) + 32768).astype(np.uint16), MATRIX),
         refused("are no HU")),
        ("offset 32768 subtracted twice",
         lambda at: write_image(at / "ct.nii", (CT.astype(np.int32) - 31744).astype(np.int16), MATRIX),
         refused("are no HU")),
        ("offset 1024 not subtracted",
         lambda at: write_image(at / "ct.nii", np.where(CT < -400, 24, 1064 + CT % 50).astype(np.int16), MATRIX),
         refused("look like HU + 1024")),
        ("infinite", lambda at: write_image(at / "ct.nii", np.where(CT < 0, np.inf, 0).astype(np.float32), MATRIX),
         refused("not finite")),
        ("voxels of a metre", lambda at: write_image(at / "ct.nii", CT, np.diag([900.0, 900, 900, 1])),
         refused("are no CT's")),
    ),
    *table(
        "path", nothing, reading("ct.nii"),
        ("absent", lambda at: None, refused("ct.nii does not exist")),
        ("loop of links", loop("ct.nii"), refused("ct.nii is a link whose file does not exist")),
        ("link that leads nowhere", dangling("ct.nii"), refused("ct.nii is a link whose file does not exist")),
        ("pipe", pipe("ct.nii"), refused("ct.nii is no file but a device or pipe")),
        ("empty folder", lambda at: (at / "ct.nii").mkdir(), refused("ct.nii holds no CT image (it is empty)")),
        ("empty file", lambda at: (at / "ct.nii").write_bytes(b""), refused("ct.nii can not be read")),
    ),
    *table(
        "path", nothing, reading("c\udcfft \n*中.mha"),
        ("name of odd bytes",
         lambda at: [written("ct.mha")(at.folder), (at / "ct.mha").rename(at / "c\udcfft \n*中.mha")],
         refused("rename the file")),
    ),
]
# fmt: on


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in CASES])
def test_broken_cts(case, tmp_path, monkeypatch):
    run(case, tmp_path, monkeypatch)


def partly(value: float):
    return lambda folder: write_image(folder / "ct.nii", np.where(CT == 800, value, CT).astype(np.float32), MATRIX)


def spacings_alone(at: Place) -> None:
    line("ct.nrrd", "space directions", "spacings: 1.25 1.25 3")(at)
    line("ct.nrrd", "space origin")(at)
    line("ct.nrrd", "space:")(at)


NOTED = {
    "some voxels of 1e30": ("ct.nii", partly(1e30), None, "values that are no HU: "),
    "some voxels of -20000": ("ct.nii", partly(-20000), None, "values that are no HU: "),
    "constant": ("ct.nii", written("ct.nii", CT * 0), None, "no image: every voxel is 0"),
    "nothing below 0": ("ct.nii", written("ct.nii", np.where(CT == 800, 1500, CT % 99)), None, "no value below 0"),
    "MetaImage without a place": ("ct.mhd", written("ct.mhd"), line("ct.mhd", "Offset"), "orientation is a guess"),
    "MetaImage without axes": ("ct.mhd", written("ct.mhd"), line("ct.mhd", "TransformMatrix"), "orientation is a g"),
    "thickness beside spacing": (
        "ct.mhd", written("ct.mhd"), header("ct.mhd", "DimSize", "ElementSize = 1.25 1.25 5\nDimSize"),
        "ElementSize differs",
    ),
    "NRRD without a space": (
        "ct.nrrd", written("ct.nrrd"), line("ct.nrrd", "space:", "space dimension: 3"), "orientation is a guess",
    ),
    "NRRD of spacings alone": (
        "ct.nrrd", written("ct.nrrd"), spacings_alone, "orientation is",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NOTED)
def test_noted(name, tmp_path, monkeypatch):
    file, make, damage, note = NOTED[name]
    make(tmp_path)
    if damage:
        damage(Place(tmp_path, monkeypatch))
    ct = read_ct(tmp_path / file)
    assert [text for text in ct.notes if text.startswith(note)], ct.notes
    np.testing.assert_allclose(ct.spacing_mm, [1.25, 1.25, 3])


PADDED = np.where(np.hypot(*np.mgrid[-16:16, -16:16]) > 14, -3024, CT)


@pytest.mark.parametrize(
    "array", [CT, PADDED, np.maximum(CT, -100), CT.astype(np.float32), np.clip(CT * 40, -1024, 30710)]
)
def test_values_that_are_hu_have_no_note(array, tmp_path):
    write_image(tmp_path / "ct.nii", array if array.dtype == np.float32 else array.astype(np.int16), MATRIX)
    assert read_ct(tmp_path / "ct.nii").notes == ()


@pytest.mark.parametrize("name", ["ct.mhd", "ct.mha", "ct.nrrd", "ct.nhdr", "ct 1 é 中.mha"])
@pytest.mark.parametrize("pack", [written, compressed])
def test_sound_files_have_no_note(name, pack, tmp_path):
    pack(name)(tmp_path)
    ct = read_ct(tmp_path / name)
    np.testing.assert_array_equal(ct.hu, CT)
    np.testing.assert_allclose(ct.index_to_mm, affine(MATRIX[:3, :3], MATRIX[:3, 3]))
    assert ct.notes == ()


def test_voxels_beside_the_header_may_be_a_link(tmp_path):
    write_image(tmp_path / "disk/ct.mhd", CT, MATRIX)
    (tmp_path / "ct.mhd").symlink_to(tmp_path / "disk/ct.mhd")
    (tmp_path / "ct.raw").symlink_to(tmp_path / "disk/ct.raw")
    np.testing.assert_array_equal(read_ct(tmp_path / "ct.mhd").hu, CT)
