"""From marks to slices and pixels, through whole folders: series of every orientation, what is left out, errors."""

import stat
from pathlib import Path

import drawn
import numpy as np
import pandas as pd
import pydicom
import pytest
import SimpleITK as sitk
from drawn import CROSS, HEADER, annotation, bidirectional, graphic, group, number, report, scoord3d, state
from PIL import Image
from pydicom.uid import MRImageStorage
from test_dicom import write_enhanced
from tiny import write_dicom

from lensnb import __main__ as cli
from lensnb.bookmarks import noise
from lensnb.bookmarks.marks import CSV, REPORT, STATE
from lensnb.bookmarks.mine import mine
from lensnb.ct.grid_shapes import DIAMETERS
from lensnb.ct.png import read_png
from lensnb.datasets import deeplesion
from lensnb.datasets.dl_info import read_info

SHAPE = (9, 40, 50)  # slices, rows, columns as they are stored
SPACING = 0.8, 0.9, 2.5  # of columns, rows, slices
NAME = "Phantom^Pia"
FRAME = b"\x08\x00\x60\x11IS\x02\x00"  # tag, kind and length of the number of a frame


def axes(columns, rows, degrees=0.0, about=(1.0, 0, 0)) -> np.ndarray:
    """A matrix from stored column, row and slice to mm, turned by some degrees about an axis."""
    columns, rows = np.array(columns, dtype=float), np.array(rows, dtype=float)
    x, y, z = np.array(about) / np.linalg.norm(about)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.radians(degrees)
    turn = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    matrix = np.eye(4)
    matrix[:3, :3] = turn @ np.column_stack([columns, rows, np.cross(columns, rows)]) * SPACING
    matrix[:3, 3] = (-101.5, 33.25, -402.75)
    return matrix


X, Y = (1, 0, 0), (0, 1, 0)
ORIENTATIONS = {
    "plain": axes(X, Y),
    "turned by 180": axes((-1, 0, 0), (0, -1, 0)),
    "mirrored": axes((-1, 0, 0), Y),
    "rows reversed": axes(X, (0, -1, 0)),
    "transposed": axes(Y, X),
    "transposed and mirrored": axes((0, -1, 0), X),
    "oblique by 20": axes(X, Y, 20),
    "oblique by 14, mirrored": axes((-1, 0, 0), Y, 14, (1, 2, 3)),
    "oblique by 9, transposed": axes(Y, X, 9, (3, -1, 1)),
}


def write_series(folder: Path, matrix: np.ndarray, hu=None, edit=None, shape=SHAPE) -> list[str]:
    """A series of shuffled files; the SOPInstanceUID of each slice by its stored index."""
    uids = {}

    def more(data, k):
        data.PatientID, data.PatientName, data.StudyInstanceUID = "Secret-77", NAME, "1.2.77"
        data.StudyDate, data.PatientBirthDate, data.PatientSex = "20190405", "19490404", "F"
        data.FrameOfReferenceUID, data.SeriesNumber, data.SliceThickness = "1.2.88", 4, 2.5
        data.WindowCenter, data.WindowWidth = 50, 450
        data.AccessionNumber, data.StudyID, data.StudyTime, data.ReferringPhysicianName = "Acc-7", "7", "101500", ""
        uids[k] = data.SOPInstanceUID
        return edit(data, k) if edit else None

    rng = np.random.default_rng(0)
    if hu is None:
        hu = (rng.normal(40, 8, shape) + 90 * np.sin(np.arange(shape[2]) / 5)).round()
        hu[:, :4, :4] = -1000
    write_dicom(folder, hu, matrix, names=[f"{n:03d}.dcm" for n in rng.permutation(len(hu))], edit=more)
    return [uids.get(k, "") for k in range(len(hu))]


def series_uid(folder: Path) -> str:
    return str(pydicom.dcmread(next(folder.glob("*.dcm"))).SeriesInstanceUID)


def in_mm(matrix: np.ndarray, cross: np.ndarray, k: int) -> np.ndarray:
    """Ends as DICOM counts pixels in patient mm: the centre of the first pixel is .5, .5."""
    index = np.column_stack([cross - 0.5, np.full(4, k), np.ones(4)])
    return (index @ matrix.T)[:, :3]


def by_simpleitk(folder: Path, mm: np.ndarray) -> tuple[np.ndarray, int]:
    """Where points (n, 3) lie in the dataset's picture (n, 2), and on which slice from the head, by SimpleITK alone.

    It reads the same files and brings them to LPS by an orientation filter of its own, whose slices begin at the feet.
    """
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = sitk.DICOMOrient(reader.Execute(), "LPS")
    points = np.array([image.TransformPhysicalPointToContinuousIndex(point) for point in mm.tolist()])
    z = round(points[0, 2])
    assert np.abs(points[:, 2] - z).max() < 1e-3
    return points[:, :2], image.GetSize()[2] - 1 - z


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_every_form_in_a_series_of_every_orientation(orientation, tmp_path):
    """The ends land where SimpleITK puts them, and on the pixels that are bright under them."""
    matrix, k = ORIENTATIONS[orientation], 6
    cross = CROSS + 0.5  # the centres of pixels
    hu = np.random.default_rng(1).normal(40, 8, SHAPE).round()
    for column, row in CROSS.astype(int):
        hu[k, row, column] = 900
    uids = write_series(tmp_path / "in" / "ct", matrix, hu)
    mm, uid = in_mm(matrix, cross, k), series_uid(tmp_path / "in" / "ct")
    lines = [graphic(cross[ends]) for ends in (slice(0, 2), slice(2, 4))]
    drawn.save(state(annotation(lines, drawn.image(uids[k]))), tmp_path / "in" / "state.dcm")
    in_space = [number(code, scoord3d(mm[n : n + 2], "1.2.88")) for code, n in ((drawn.LONG, 0), (drawn.SHORT, 2))]
    drawn.save(report(bidirectional(cross, uids[k]), group(*in_space)), tmp_path / "in" / "report.dcm")
    rows = [",".join((image, drawn.row(uid, coordinates, points))) for image, coordinates, points in
            (("", "LPS", mm), ("", "RAS", mm * [-1, -1, 1]), (uids[k], "LPS", mm))]  # fmt: skip
    (tmp_path / "v.csv").write_text("\n".join([f"image_uid,{HEADER}", *rows]) + "\n")
    mined = mine(tmp_path / "in", tmp_path / "out", tmp_path / "v.csv")
    wanted, z = by_simpleitk(tmp_path / "in" / "ct", mm)
    found = mined.bookmarks
    assert found["form"].value_counts().to_dict() == {STATE: 1, REPORT: 2, CSV: 3}
    assert found["left_out"].tolist() == [""] * 6 and found["slice"].tolist() == [z] * 6
    for ends in found[DIAMETERS].to_numpy(float).reshape(-1, 4, 2):
        assert np.abs(ends - wanted).max() < 1e-3
    assert len(mined.info) == 1 and (found["merged_into"] > 0).sum() == 5
    picture = read_png(tmp_path / "out" / "DeepLesion" / "Images_png" / "000001_01_01" / f"{z + 1:03d}.png")
    assert [picture[round(y), round(x)] for x, y in wanted] == [900] * 4
    x_mm, y_mm = SPACING[1::-1] if "transposed" in orientation else SPACING[:2]
    spacing = [float(part) for part in mined.info.loc[1, "Spacing_mm_px_"].split(",")]
    assert spacing == pytest.approx([x_mm, y_mm, 2.5], abs=1e-4)
    assert mined.info.loc[1, "Image_size"] == ("40, 50" if "transposed" in orientation else "50, 40")


def test_the_paper_s_way_errs_where_slices_are_oblique():
    """Subtracting the position and dividing by the spacing is right in the patient's axes only (DeepLesion 2.2.1)."""
    errors = {}
    for name in ("plain", "oblique by 20", "mirrored"):
        matrix = ORIENTATIONS[name]
        position = (matrix @ [0, 0, 6, 1])[:3]
        papers = (in_mm(matrix, CROSS, 6) - position)[:, :2] / SPACING[:2]
        errors[name] = np.abs(papers - (CROSS - 0.5)).max()
    assert errors["plain"] < 1e-9 and errors["oblique by 20"] > 1.5 and errors["mirrored"] > 50


def test_an_oblique_vertex_by_hand(tmp_path):
    """Rows go down by 20 degrees: the vertex 10.5 pixels along and 4 down is at 10.5 x .8 and 4 x .9 (cos, sin)."""
    position, c, s = np.array([-101.5, 33.25, -402.75]), np.cos(np.radians(20)), np.sin(np.radians(20))
    write_series(tmp_path / "in", ORIENTATIONS["oblique by 20"])
    down = np.array([0, c, s])

    def at(column, row):
        return position + column * 0.8 * np.array(X) + row * 0.9 * down

    csv = tmp_path / "v.csv"
    vertices = np.array([at(10.5, 4), at(30.5, 4), at(20, 1), at(20, 11)])
    off = vertices + 1.2 * np.array([0, -s, c])  # between two slices, as some viewers say
    rows = [drawn.row(series_uid(tmp_path / "in"), "LPS", points) for points in (vertices, off)]
    csv.write_text("\n".join([HEADER, *rows]) + "\n")
    found = mine(tmp_path / "in", tmp_path / "out", csv).bookmarks
    for ends in found[DIAMETERS].to_numpy(float):
        assert ends == pytest.approx([10.5, 4, 30.5, 4, 20, 1, 20, 11], abs=1e-3)
    assert found["slice"].tolist() == [8, 8]  # the first stored slice is the lowest


# what is left out


@pytest.fixture
def archive(tmp_path):
    """A CT with one bookmark, and the UIDs of its slices."""
    uids = write_series(tmp_path / "in" / "ct", ORIENTATIONS["plain"])
    drawn.save(report(bidirectional(CROSS, uids[4])), tmp_path / "in" / "good.dcm")
    return tmp_path, uids


def left_out(tmp_path: Path, csv: Path | None = None) -> list[str]:
    """Why the bookmarks beside the good one are left out."""
    found = mine(tmp_path / "in", tmp_path / "out", csv).bookmarks
    assert (found["left_out"] == "").sum() == 1
    return found.loc[found["left_out"] != "", "left_out"].tolist()


def test_what_names_no_image_or_several_or_another(archive):
    tmp_path, uids = archive
    items = [bidirectional(CROSS), bidirectional(CROSS, uids[4], uids[5]), bidirectional(CROSS, "1.2.3.4")]
    far = bidirectional(CROSS + [25, 0], uids[4])  # two ends are 4 pixels beyond the edge
    drawn.save(report(*items, far), tmp_path / "in" / "more.dcm")
    assert left_out(tmp_path) == ["it names no image", "it names several images", "its image is not here",
                                  "outside of its image"]  # fmt: skip


def test_modalities_localizers_and_burned_in_text(archive):
    tmp_path, _ = archive
    items = []
    for name, values in {
        "mr": {"SOPClassUID": MRImageStorage, "Modality": "MR"},
        "scout": {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]},
        "capture": {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"},
        "written": {"BurnedInAnnotation": "YES"},
    }.items():

        def edit(data, k, name=name, values=values):
            data.SOPInstanceUID, data.SeriesInstanceUID = f"1.9.{ord(name[0])}.{k}", f"1.9.{ord(name[0])}"
            for tag, value in values.items():
                setattr(data, tag, value)

        write_series(tmp_path / "in" / name, ORIENTATIONS["plain"], edit=edit)
        items.append(bidirectional(CROSS, f"1.9.{ord(name[0])}.4"))
    drawn.save(report(*items), tmp_path / "in" / "more.dcm")
    assert left_out(tmp_path) == ["modality MR", "on a localizer", "on a picture that is no CT slice",
                                  "text is burned into the image"]  # fmt: skip
    counts = pd.read_csv(tmp_path / "out" / "counts.csv")
    assert counts["bookmarks"].sum() == 5 and set(counts["what"]) > {"modality MR", "in the dataset"}


@pytest.mark.parametrize("name", ["coronal", "tilted by 40"])
def test_series_that_are_not_axial(archive, name):
    tmp_path, _ = archive
    matrix = axes(X, (0, 0, -1)) if name == "coronal" else axes(X, Y, 40)
    uids = write_series(tmp_path / "in" / "other", matrix)
    drawn.save(report(bidirectional(CROSS, uids[4])), tmp_path / "in" / "more.dcm")
    assert left_out(tmp_path) == ["not axial"]


def test_vertices_across_the_slices_beyond_them_and_of_no_series(archive):
    tmp_path, _ = archive
    matrix, uid = ORIENTATIONS["plain"], series_uid(tmp_path / "in" / "ct")
    mm = in_mm(matrix, CROSS, 4)
    coronal = mm[:, [0, 2, 1]] * [1, 0, 0] + [0, mm[0, 1], 0] + np.outer([0, 0, -6, 8], [0, 0, 1]) + [0, 0, mm[0, 2]]
    rows = [drawn.row(uid, "LPS", coronal), drawn.row(uid, "LPS", mm + [0, 0, 300]), drawn.row("1.7", "LPS", mm),
            drawn.row(uid, "RAS", mm)]  # fmt: skip
    (tmp_path / "v.csv").write_text("\n".join([HEADER, *rows]) + "\n")
    assert left_out(tmp_path, tmp_path / "v.csv") == ["not axial", "outside of its image", "its series is not here",
                                                      "outside of its image"]  # fmt: skip


def test_a_point_in_space_that_two_series_could_hold(archive):
    tmp_path, _ = archive
    write_series(tmp_path / "in" / "again", ORIENTATIONS["plain"])
    mm = in_mm(ORIENTATIONS["plain"], CROSS, 4)
    for name, space in (("both", "1.2.88"), ("none", "1.2.99")):
        parts = [number(code, scoord3d(mm[k : k + 2], space)) for code, k in ((drawn.LONG, 0), (drawn.SHORT, 2))]
        drawn.save(report(group(*parts)), tmp_path / "in" / f"{name}.dcm")
    assert left_out(tmp_path) == ["several CT series fit", "its series is not here"]


def test_a_series_with_a_gap_is_named_and_the_others_are_used(archive, capsys):
    tmp_path, _ = archive
    uids = write_series(tmp_path / "in" / "gap", ORIENTATIONS["plain"], edit=lambda data, k: k != 3)
    drawn.save(report(bidirectional(CROSS, uids[4])), tmp_path / "in" / "more.dcm")
    assert cli.main(["bookmarks", str(tmp_path / "in"), "--output", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr()
    assert "1 left out: its series is no even volume" in printed.out
    assert "warning: 1 missing slices" in printed.err and "gap" in printed.err


def test_the_file_of_one_patient_on_the_image_of_another(archive):
    tmp_path, uids = archive
    drawn.save(report(bidirectional(CROSS, uids[5]), PatientID="Somebody"), tmp_path / "in" / "more.dcm")
    drawn.save(report(bidirectional(CROSS, uids[6]), PatientID="Secret-77"), tmp_path / "in" / "own.dcm")
    found = mine(tmp_path / "in", tmp_path / "out").bookmarks
    assert sorted(found["left_out"]) == ["", "", "its image is of another patient"]


def test_values_that_are_no_hu(archive):
    tmp_path, _ = archive
    hu = np.full(SHAPE, 1074)
    hu[:, :20] = 24
    hu[:, 0, 0] = 3000
    uids = write_series(tmp_path / "in" / "shifted", ORIENTATIONS["plain"], hu)
    drawn.save(report(bidirectional(CROSS, uids[4])), tmp_path / "in" / "more.dcm")
    assert left_out(tmp_path) == ["its values are no HU"]


def test_damaged_files_are_named_and_the_rest_is_used(archive):
    tmp_path, uids = archive
    whole = (tmp_path / "in" / "good.dcm").read_bytes()
    (tmp_path / "in" / "cut.dcm").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "in" / "notes.txt").write_text("hello")
    (tmp_path / "in" / "copy.dcm").write_bytes(whole)
    broken = annotation([drawn.item(GraphicData=[1.0, 2, 3], GraphicType="POLYLINE")], drawn.image(uids[3]))
    drawn.save(state(broken), tmp_path / "in" / "broken.dcm")
    other = drawn.document("1.2.840.10008.5.1.4.1.1.11.1", pydicom.dcmread(tmp_path / "in" / "good.dcm").SOPInstanceUID)
    drawn.save(other, tmp_path / "in" / "other.dcm")
    lines = [graphic(CROSS[k : k + 2]) for k in (0, 2)]
    drawn.save(state(annotation(lines, drawn.image(uids[3], frames=7))), tmp_path / "in" / "wrong.dcm")
    whole = (tmp_path / "in" / "wrong.dcm").read_bytes()
    (tmp_path / "in" / "wrong.dcm").write_bytes(whole.replace(FRAME + b"7 ", FRAME + b"x "))
    mined = mine(tmp_path / "in", tmp_path / "out")
    assert mined.counts["what"].tolist() == ["in the dataset", "coordinates that can not be read"]
    assert len(mined.info) == 1
    assert "1 no DICOM" in mined.summary and "3 copies of another file" in mined.summary
    for name in ("cut.dcm", "other.dcm"):
        assert any(f"{name} is not read: it has the SOPInstanceUID of" in note for note in mined.notes)
    assert "1 whose marks can not be read" in mined.summary
    assert any("wrong.dcm: its marks can not be read" in note for note in mined.notes)


def test_a_slice_that_can_not_be_read_is_missing_and_named(archive):
    """A slice beside the key slice: the reader of the dataset says so, too."""
    tmp_path, uids = archive
    path = next(p for p in (tmp_path / "in" / "ct").iterdir() if pydicom.dcmread(p).SOPInstanceUID == uids[2])
    path.write_bytes(path.read_bytes()[:-500])
    mined = mine(tmp_path / "in", tmp_path / "out")
    assert len(mined.notes) == 1 and path.name in mined.notes[0]
    found = deeplesion.find(tmp_path / "out")
    ct, boxes = deeplesion.read(tmp_path / "out", found.iloc[0])
    assert any("missing PNG: 007.png" in note for note in ct.notes) and len(boxes) == 1


def test_frames_of_an_enhanced_ct(tmp_path):
    """All slices in one file: a mark names a frame, or none, which is no place for pixels but for patient mm."""
    matrix, shape = ORIENTATIONS["oblique by 20"], (6, 40, 50)
    hu = (np.random.default_rng(0).normal(40, 8, shape) + 90 * np.sin(np.arange(50) / 5)).round().astype(np.int16)
    order = [3, 0, 5, 1, 4, 2]
    (tmp_path / "in").mkdir()
    write_enhanced(tmp_path / "in" / "ct.dcm", hu, matrix, order)
    uid = str(pydicom.dcmread(tmp_path / "in" / "ct.dcm").SOPInstanceUID)
    frames = [[5], [5, 6], [9], None]
    lines = [graphic(CROSS[ends]) for ends in (slice(0, 2), slice(2, 4))]
    parts = [annotation(lines, drawn.image(uid, frames=frame)) for frame in frames]
    drawn.save(state(*parts), tmp_path / "in" / "state.dcm")
    (tmp_path / "v.csv").write_text(f"image_uid,{HEADER}\n{uid},{drawn.row('', 'LPS', in_mm(matrix, CROSS, 4))}\n")
    found = mine(tmp_path / "in", tmp_path / "out", tmp_path / "v.csv").bookmarks
    several = "it names several images"
    assert found["left_out"].tolist() == ["", several, "its image is not here", several, ""]
    assert found["slice"].tolist() == [1, -1, -1, -1, 1] and found["frame"].tolist()[::4] == [5, 5]  # stored slice 4
    picture = read_png(tmp_path / "out" / "DeepLesion" / "Images_png" / "000001_01_01" / "002.png")
    assert np.array_equal(picture, hu[4])


# what is written


def test_identifiers_stay_where_they_are_asked_for(archive):
    """File names of exports hold patients' names, and reports who measured: nothing of it may leave."""
    tmp_path, uids = archive
    data = report(bidirectional(CROSS + 1, uids[3]), PatientID="Secret-77", PatientName=NAME)
    data.ContentSequence[0].ContentSequence[0].ContentSequence.append(
        drawn.content("TEXT", drawn.TRACKING, TextValue=f"{NAME} F04, Dr. Rolf")
    )
    drawn.save(data, tmp_path / "in" / f"{NAME}.dcm")
    far = bidirectional(CROSS + [100, 0], uids[3])
    click = bidirectional((CROSS - CROSS.mean(axis=0)) * 0.02 + CROSS.mean(axis=0), uids[5])
    drawn.save(report(far, click, PatientID="Secret-77"), tmp_path / "in" / "Pia_2.dcm")
    identities = tmp_path / "safe" / "identities.csv"
    mined = mine(tmp_path / "in", tmp_path / "out", review=tmp_path / "look", identities=identities)
    written = [p for folder in ("out", "look") for p in (tmp_path / folder).rglob("*") if p.is_file()]
    assert {p.name for p in written} > {"DL_info.csv", "bookmarks.csv", "counts.csv", "flagged.csv"}
    for path in written:
        content = path.read_bytes() + str(path.relative_to(tmp_path)).encode()
        for secret in (
            b"Secret",
            b"Pia",
            b"Rolf",
            b"20190405",
            b"19490404",
            b"1.2.77",
            b"1.2.88",
            b"Acc-7",
            uids[3].encode(),
        ):
            assert secret not in content, (path, secret)
    public = pd.read_csv(tmp_path / "out" / "bookmarks.csv", keep_default_na=False)
    assert public["year"].astype(str).tolist() == ["2019"] * 4 and sorted(public["follow_up"]) == [0, 0, 0, 4]
    table = pd.read_csv(identities, dtype=str, keep_default_na=False)
    assert table["patient_id"].tolist() == ["Secret-77"] * 4 and len(table) == len(mined.bookmarks)
    flagged = pd.read_csv(tmp_path / "look" / "flagged.csv")
    assert flagged["rules"].tolist() == ["small"]  # the double click
    for name in flagged["picture"]:
        with Image.open(tmp_path / "look" / name) as picture:
            assert (
                picture.size[0] > 400
                and len(picture.convert("L").getcolors(256)) > 20
                and not picture.info.get("Author")
            )
    assert f"{NAME}.dcm" in set(table["file"]) and uids[3] in set(table["image"])
    assert stat.S_IMODE(identities.stat().st_mode) == 0o600


def test_numbers_do_not_tell_the_order_of_the_files(archive):
    """Archives are sorted by patients' names. What is given away must be the same however the files are called."""
    tmp_path, uids = archive
    marks = [report(bidirectional(CROSS + d, uids[k]), *more, PatientID="Secret-77") for k, d, *more in
             ((2, 0), (3, 9, group(number(drawn.LENGTH))), (5, 4), (7, 1), (7, 2))]  # fmt: skip
    (tmp_path / "in" / "good.dcm").unlink()
    for turn, order in enumerate((range(5), (4, 2, 0, 3, 1))):
        for place, which in enumerate(order):
            drawn.save(marks[which], tmp_path / "in" / f"report_{place}.dcm")
        out = tmp_path / f"out{turn}"
        mined = mine(tmp_path / "in", out)
        numbers = pd.read_csv(out / "bookmarks.csv")
        assert numbers["bookmark"].tolist() == list(range(1, 7)) and mined.info.index.tolist() == [1, 2, 3, 4]
        assert numbers.loc[:3, "File_name"].tolist() == mined.info["File_name"].tolist()
        merged = mined.bookmarks[mined.bookmarks["merged_into"] > 0]
        assert merged["merged_into"].tolist() == [1] and merged["bookmark"].tolist() == [5]
    one, other = (pd.read_csv(tmp_path / f"out{k}" / "bookmarks.csv").drop(columns=noise.MEASURES) for k in (0, 1))
    pd.testing.assert_frame_equal(one, other)


def test_the_same_files_give_the_same_bytes(archive):
    tmp_path, uids = archive
    crosses = ((2, 0), (3, 9), (5, 4))
    drawn.save(report(*(bidirectional(CROSS + d, uids[k]) for k, d in crosses)), tmp_path / "in" / "more.dcm")
    contents = []
    for name in ("one", "two"):
        mine(tmp_path / "in", tmp_path / name, review=tmp_path / f"{name}-look")
        files = sorted(p for part in (name, f"{name}-look") for p in (tmp_path / part).rglob("*") if p.is_file())
        contents.append([(p.name, p.read_bytes()) for p in files])
    assert contents[0] == contents[1] and len(contents[0]) > 10


def test_the_dataset_is_what_the_readers_of_deeplesion_expect(archive):
    tmp_path, uids = archive
    jitter = CROSS + [0.3, -0.2]
    drawn.save(report(bidirectional(jitter, uids[4])), tmp_path / "in" / "second_reader.dcm")
    mined = mine(tmp_path / "in", tmp_path / "out", context_mm=5.0, margin_px=4.0)
    info = read_info(tmp_path / "out" / "DeepLesion" / "DL_info.csv")
    assert mined.counts["bookmarks"].tolist() == [1, 1] and len(info) == 1
    middle = CROSS - 0.5 + [0.15, -0.1]
    assert info.loc[0, [f"end_{name}" for name in DIAMETERS]].tolist() == pytest.approx(
        middle.ravel().tolist(), abs=1e-3
    )
    box = [*(middle.min(axis=0) - 4), *(middle.max(axis=0) + 4)]
    assert info.loc[0, ["x1", "y1", "x2", "y2"]].tolist() == pytest.approx(box, abs=1e-3)
    assert info.loc[0, ["series", "key", "start", "end"]].tolist() == ["000001_01_01", 5, 3, 7]
    row = mined.info.iloc[0]
    assert row[["Patient_gender", "Patient_age", "DICOM_windows"]].tolist() == ["F", "70", "-175, 275"]
    found = deeplesion.find(tmp_path / "out")
    assert found["problem"].tolist() == [""] and found["volume"].tolist() == ["000001_01_01_003-007"]
    ct, boxes = deeplesion.read(tmp_path / "out", found.iloc[0])
    assert ct.hu.shape == (5, 40, 50) and ct.notes == () and boxes.loc[0, "z"] == 2
    assert ct.spacing_mm.tolist() == pytest.approx(SPACING)


# errors


def run(tmp_path: Path, *more: object) -> int:
    return cli.main(["bookmarks", *(str(word) for word in (tmp_path / "in", "--output", tmp_path / "out", *more))])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--csv", "none.csv"], "none.csv does not exist; --csv names a table of vertices"),
        (["--identities", "out/who.csv"], "which is to be given away; name another place"),
        (["--identities", "who.txt"], "--identities: who.txt must end with .csv"),
        (["--review", "out/look"], "--review out/look and --output"),
        (["--review", "in/look"], "lies in"),
    ],
)
def test_places_that_will_not_do(archive, arguments, message, monkeypatch, capsys):
    tmp_path, _ = archive
    monkeypatch.chdir(tmp_path)
    assert run(tmp_path, *arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("lensnb: ") and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_an_output_that_is_in_use_or_in_the_input(archive, capsys):
    tmp_path, _ = archive
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old.png").write_text("")
    assert run(tmp_path) == 2 and "out is not empty; name a new folder" in capsys.readouterr().err
    assert cli.main(["bookmarks", str(tmp_path / "in"), "--output", str(tmp_path / "in" / "mined")]) == 2
    assert "which is read; name another folder" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--margin-px", "--context-mm"])
def test_numbers_that_will_not_do(archive, option, capsys):
    with pytest.raises(SystemExit):
        run(archive[0], option, "-3")
    assert "-3 is not a number above 0" in capsys.readouterr().err


def test_folders_without_anything_to_mine(tmp_path, capsys):
    assert run(tmp_path) == 2 and "in does not exist; give the folder" in capsys.readouterr().err
    (tmp_path / "in").mkdir()
    assert run(tmp_path) == 2 and "holds no DICOM images and no marks (it is empty)" in capsys.readouterr().err
    uids = write_series(tmp_path / "in", ORIENTATIONS["plain"])
    assert run(tmp_path) == 2
    assert "no bookmark is in its presentation states and reports; name a --csv" in capsys.readouterr().err
    drawn.save(report(group(number(drawn.LENGTH, drawn.scoord(CROSS[:2], uids[3])))), tmp_path / "in" / "line.dcm")
    assert run(tmp_path) == 2 and "left out are 1 (single line)" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_full_disk_leaves_nothing(archive, monkeypatch):

    tmp_path, _ = archive

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match="No space left"):
        mine(tmp_path / "in", tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


# an independent writer


def test_reports_that_highdicom_writes(archive):
    """A library of others writes valid TID 1500 reports: axes in the image, and in the frame of reference."""
    hd = pytest.importorskip("highdicom", reason="highdicom, a writer of reports, is not installed")
    from highdicom import sr
    from pydicom.sr.codedict import codes

    tmp_path, uids = archive
    slices = [pydicom.dcmread(path) for path in (tmp_path / "in" / "ct").iterdir()]
    one = next(data for data in slices if data.SOPInstanceUID == uids[6])
    cross = CROSS + [3.25, 1.5]
    mm = in_mm(ORIENTATIONS["plain"], cross, 6)
    where = (one.ImagePositionPatient, one.ImageOrientationPatient, one.PixelSpacing)
    theirs = hd.spatial.ImageToReferenceTransformer(*([float(v) for v in values] for values in where))
    assert np.allclose(theirs(cross), mm, atol=1e-6)  # they, too, count from the corner of the first pixel
    axes_of = {"Long Axis": slice(0, 2), "Short Axis": slice(2, 4)}
    names = {"Long Axis": codes.SCT.LongAxis, "Short Axis": codes.SCT.ShortAxis}
    groups = []
    for in_space in (False, True):
        measured = []
        for axis, ends in axes_of.items():
            if in_space:
                place = sr.CoordinatesForMeasurement3D("POLYLINE", mm[ends], one.FrameOfReferenceUID)
            else:
                image = sr.SourceImageForRegion.from_source_image(one)
                place = sr.CoordinatesForMeasurement("POLYLINE", cross[ends], image)
            length = float(np.linalg.norm(mm[ends][1] - mm[ends][0]))
            unit = codes.UCUM.Millimeter
            measured.append(sr.Measurement(names[axis], length, unit, referenced_coordinates=[place]))
        tracked = sr.TrackingIdentifier(uid=hd.UID(), identifier="B02 F05")
        groups.append(sr.MeasurementsAndQualitativeEvaluations(tracking_identifier=tracked, measurements=measured))
    person = sr.PersonObserverIdentifyingAttributes("Reader^Rolf")
    observer = sr.ObserverContext(codes.DCM.Person, person)
    context = sr.ObservationContext(observer_person_context=observer)
    content = sr.MeasurementReport(context, codes.LN.CTUnspecifiedBodyRegion, groups)
    written = sr.Comprehensive3DSR([one], content, hd.UID(), 9, hd.UID(), 1, "them")
    written.save_as(tmp_path / "in" / "theirs.dcm")
    found = mine(tmp_path / "in", tmp_path / "out").bookmarks
    theirs = found[found["file"] == "theirs.dcm"]
    assert theirs["tool"].tolist() == ["RECIST pair"] * 2 and theirs["left_out"].tolist() == [""] * 2
    assert theirs["image"].tolist() == [one.SOPInstanceUID] * 2 and theirs["follow_up"].tolist() == [5, 5]
    for ends in theirs[DIAMETERS].to_numpy(float):
        assert ends == pytest.approx((cross - 0.5).ravel(), abs=1e-3)
