"""What is said of real bookmarks holds on real rows and files; where they are absent, these tests are skipped."""

import numpy as np
import pandas as pd
import pydicom
import pytest
import SimpleITK as sitk

from lensnb.bookmarks import noise
from lensnb.bookmarks.export import COLUMNS, ranges
from lensnb.bookmarks.images import marks_in, scan
from lensnb.bookmarks.mine import mine
from lensnb.bookmarks.recist import APART, SLANTED, bookmarks_of, hull_box, why_no_pair
from lensnb.boxes import iou
from lensnb.ct.grid_shapes import DIAMETERS
from lensnb.ct.png import read_png
from lensnb.datasets import deeplesion


def cells(table: pd.DataFrame, column: str) -> np.ndarray:
    return np.array([[float(part) for part in cell.split(",")] for cell in table[column]])


@pytest.fixture(scope="module")
def rows(shared_data):
    return pd.read_csv(shared_data / "real" / "DeepLesion" / "DL_info.csv")


@pytest.fixture(scope="module")
def ends(rows):
    return cells(rows, "Measurement_coordinates")


def test_boxes_are_the_hull_of_the_ends_and_5_pixels_in_all_rows(rows, ends):
    assert len(rows) == 10_857
    assert np.abs(hull_box(ends, 5.0) - cells(rows, "Bounding_boxes")).max() < 1e-3
    lengths = np.linalg.norm(ends.reshape(-1, 2, 2, 2)[:, :, 1] - ends.reshape(-1, 2, 2, 2)[:, :, 0], axis=2)
    assert np.abs(np.sort(lengths, axis=1)[:, ::-1] - cells(rows, "Lesion_diameters_Pixel_")).max() < 2e-3


def test_the_columns_are_those_of_the_published_table(rows):
    assert rows.columns.tolist() == COLUMNS


def test_real_bookmarks_are_recist_pairs(ends):
    """All of them were made with the RECIST tool; the limits leave out 6 of 10,857 if the lines are tied, else 33."""
    pairs = ends.reshape(-1, 4, 2)
    tied, loose = ([reason for one in pairs if (reason := why_no_pair(one, tied))] for tied in (True, False))
    assert (tied.count(APART), tied.count(SLANTED)) == (5, 1)
    assert (loose.count(APART), loose.count(SLANTED)) == (30, 3)


def test_no_pair_of_boxes_on_a_slice_is_left_to_be_merged(rows):
    boxes = cells(rows, "Bounding_boxes")
    largest = 0.0
    for part in rows.groupby("File_name").indices.values():
        if len(part) > 1:
            overlap = iou(boxes[part], boxes[part])
            largest = max(largest, overlap[np.triu_indices(len(part), 1)].max())
    assert 0.59 < largest <= 0.6


def test_ranges_are_those_of_the_published_table(rows):
    """Sub-volumes of one or several key slices; others end with the scan, or hold key slices that are not here."""
    series: dict[str, list] = {}
    spacings, published = cells(rows, "Spacing_mm_px_")[:, 2], cells(rows, "Slice_range").astype(int).tolist()
    for name, key, spacing, found in zip(rows["File_name"], rows["Key_slice_index"], spacings, published, strict=True):
        if spacing in (1.0, 2.0, 4.0, 5.0):
            series.setdefault(name[:12], []).append((key, spacing, tuple(found)))
    right = total = 0
    for listed in series.values():
        wanted = {found for _, _, found in listed}
        last = max(end for _, end in wanted)  # the scan has at least so many slices
        made = ranges([key - 1 for key, *_ in listed], last, listed[0][1], 30.0)
        total += len(wanted)
        right += len({(start + 1, end + 1) for start, end in made} & wanted)
    print(f"{right} of {total} ranges")
    assert total > 4000 and right / total > 0.93


def test_the_rules_on_real_rows(rows, ends):
    """What the rules that need no pixels flag of all rows, and of those that are marked as noisy."""
    spacing = cells(rows, "Spacing_mm_px_")[:, :2]
    assert np.abs(spacing[:, 0] - spacing[:, 1]).max() < 1e-6
    measured = noise.measure(ends, 5.0, (1.0, 1.0), np.zeros((4, 4)))  # in pixels
    measured = measured.assign(
        area_mm2=measured["area_mm2"] * spacing.prod(axis=1), mean_hu=40.0, sd_hu=40.0, noise_hu=9.0
    )
    flags = noise.flag(noise.in_units(measured))
    noisy = (rows["Possibly_noisy"] == 1).to_numpy()
    for rules, expected in ((noise.PAPERS, (126, 4)), (noise.RULES, (191, 5))):
        flagged = flags[list(rules)].any(axis=1).to_numpy()
        assert (flagged.sum(), (flagged & noisy).sum(), noisy.sum()) == (*expected, 17)
    for name, column in (("area", "area_mm2"), ("ratio", "side_ratio"), ("axes", "axis_ratio")):
        low, middle, high = np.percentile(np.log(measured[column]), (10, 50, 90))
        units = (middle, (middle - low) / noise.NORMAL, (high - middle) / noise.NORMAL)
        assert noise.REFERENCE[name] == pytest.approx(units, abs=0.01)


def test_no_real_lesion_is_dark_or_faint(rows, shared_data):
    """On the real key slices, by the reference: livers mostly, whose lesions hardly stand out."""
    folder = shared_data / "real" / "DeepLesion" / "Images_png"
    measured, faintest = [], []
    for row in rows.itertuples():
        path = folder / row.File_name[:12] / row.File_name[13:]
        if path.exists():
            table = pd.DataFrame([row._asdict()])
            drawn = cells(table, "Measurement_coordinates") - 1
            measured.append(noise.measure(drawn, 5.0, cells(table, "Spacing_mm_px_")[0, :2], read_png(path)))
    measured = pd.concat(measured, ignore_index=True)
    units = noise.in_units(measured.iloc[: noise.ENOUGH - 1])
    faintest = units["noise"].min()
    assert len(measured) == 27 and not noise.flag(units)[["dark", "faint"]].any(axis=None)
    assert 1.3 < faintest < 1.5 and measured["noise_hu"].between(5, 15).all()


def test_reports_without_a_recist_pair_are_read_named_and_left_out(shared_data, tmp_path):
    archive = scan(shared_data / "real" / "dicom_sr")
    assert len(archive.reports) == 2
    marks, notes = marks_in(archive)
    found = bookmarks_of(marks)
    assert notes == [] and (found["left_out"] != "").all()
    assert sorted(found["left_out"]) == ["circle", "circle", "measurement without coordinates", "point",
                                         "polyline of 4 points"]  # fmt: skip
    with pytest.raises(ValueError, match=r"gives no RECIST pair on an axial CT slice: left out are 2 \(circle\), 1 \("):
        mine(shared_data / "real" / "dicom_sr", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_vertices_in_a_real_ct(shared_data, tmp_path):
    """Ends of diameters go to mm by SimpleITK and come back; the PNGs are SimpleITK's slices."""
    folder = shared_data / "real" / "dicom" / "chest_99_slices"
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = sitk.DICOMOrient(reader.Execute(), "LPS")
    hu = sitk.GetArrayFromImage(image)
    uid = str(pydicom.dcmread(next(folder.glob("*")), stop_before_pixels=True).SeriesInstanceUID)
    rng, wanted, lines = np.random.default_rng(0), [], ["series_uid,coordinates,"
        + ",".join(f"{axis}{n}" for n in range(1, 5) for axis in "xyz")]  # fmt: skip
    for z in (30, 55):
        middle, angle = rng.uniform(200, 300, 2), rng.uniform(0, 3)
        along = np.array([np.cos(angle), np.sin(angle)])
        ends = np.stack([middle - 9 * along, middle + 9 * along, middle - 6 * along[::-1] * [-1, 1],
                         middle + 6 * along[::-1] * [-1, 1]])  # fmt: skip
        mm = [image.TransformContinuousIndexToPhysicalPoint((*end, float(z))) for end in ends.tolist()]
        lines.append(",".join([uid, "LPS", *(f"{value:.4f}" for value in np.ravel(mm))]))
        wanted.append((len(hu) - 1 - z, ends))
    (tmp_path / "v.csv").write_text("\n".join(lines) + "\n")
    mined = mine(folder, tmp_path / "out", tmp_path / "v.csv")
    for (index, ends), row in zip(wanted, mined.bookmarks.to_dict("records"), strict=True):
        assert row["slice"] == index and row["left_out"] == ""
        assert np.array([row[name] for name in DIAMETERS]) == pytest.approx(ends.ravel(), abs=0.01)
    for path in sorted((tmp_path / "out").rglob("*.png")):
        assert np.array_equal(read_png(path), hu[len(hu) - int(path.stem)])
    assert deeplesion.find(tmp_path / "out")["volume"].str.startswith("000001_01_01_").all()
