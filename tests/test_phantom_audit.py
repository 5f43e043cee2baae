"""The phantoms beside published statistics: the same measure on both, and verdicts by fixed tolerances."""

import os
import pickle

import numpy as np
import pandas as pd
import pytest
from test_phantom import TINY, spec

from lensnb import __main__ as cli
from lensnb import phantom, runfolder
from lensnb.datasets import UNIVERSAL
from lensnb.datasets.manual_boxes import MANUAL_FILE
from lensnb.files.cells import read_csv
from lensnb.phantom import audit

SPACING = "0.5, 0.5, 5"
ROW = {"Study_index": 1, "Series_ID": 1, "Possibly_noisy": 0, "Slice_range": "90, 110", "Image_size": "512, 512",
       "Train_Val_Test": 3, "Measurement_coordinates": "12, 12, 30, 30, 12, 30, 30, 12", "Spacing_mm_px_": SPACING,
       "Normalized_lesion_location": "0.5, 0.5, 0.5", "Patient_age": "60"}  # fmt: skip


def mark(patient: int, box: str, diameters: str, kind: int, key: int = 100, study: int = 1, spacing: str = SPACING):
    return ROW | {
        "File_name": f"{patient:06d}_{study:02d}_01_{key:03d}.png", "Key_slice_index": key, "Bounding_boxes": box,
        "Lesion_diameters_Pixel_": diameters, "Coarse_lesion_type": kind, "Spacing_mm_px_": spacing,
    }  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """Three marks of two patients, and five lesions in the one sub-volume that is marked completely."""
    rows = [
        mark(1, "11, 11, 31, 31", "20, 10", 5),
        mark(1, "101, 101, 141, 141", "40, 30", 4),
        mark(2, "11, 11, 31, 31", "60, 60", 5, study=2, spacing="0.5, 0.5, 1"),
        mark(2, "11, 11, 31, 31", "8, 8", -1, study=3, spacing="0.5, 0.5, 1"),
    ]
    (tmp_path / UNIVERSAL).mkdir()
    pd.DataFrame(rows).to_csv(tmp_path / UNIVERSAL / "DL_info.csv", index=False)
    boxes = [[5, 5, 99, 35, 35, 101], [200, 200, 99, 210, 210, 101], [300, 300, 99, 306, 306, 101],
             [5, 5, 103, 35, 35, 105], [100, 100, 99, 150, 150, 101]]  # fmt: skip
    manual = {
        "val": {},
        "test": {"000001_01_01_090-110": np.array(boxes, float), "000001_02_01_001-020": np.zeros((0, 6))},
    }
    with (tmp_path / MANUAL_FILE).open("wb") as file:
        pickle.dump(manual, file)
    return tmp_path


def test_marks_of_a_small_table(folder):
    found = audit.bookmarks(folder / UNIVERSAL / "DL_info.csv")
    # long diameters 10, 20, 30, 4 mm; short ones 5, 15, 30, 4 mm
    np.testing.assert_allclose(found["DeepLesion long diameter, p50"], 15)
    assert found["DeepLesion short diameter under 10 mm, share"] == 0.5
    np.testing.assert_allclose(found["DeepLesion short over long diameter, median"], (0.75 + 1) / 2)
    np.testing.assert_allclose(found["DeepLesion lung, share of the marks with a type"], 2 / 3)
    assert found["DeepLesion bone, share of the marks with a type"] == 0
    assert "DeepLesion lung long diameter, p50" not in found  # two are too few
    assert found["DeepLesion marks on slices of at most 1.25 mm, share"] == 0.5
    assert found["DeepLesion studies a patient"] == 1.5 and found["DeepLesion patients with one study, share"] == 0.5
    np.testing.assert_allclose(found["DeepLesion marks a sub-volume"], 4 / 3)


def test_marks_that_the_next_study_repeats(tmp_path):
    """By hand: the marks of 8 patients grow from 20 to 30 pixels, of 4 shrink to a half, 4 are scanned elsewhere."""
    rows = []
    for patient in range(1, 17):
        length = 30 if patient <= 8 else 10
        z = 0.9 if patient > 12 else 0.52
        rows.append(mark(patient, "1, 1, 30, 30", "20, 10", 5) | {"Patient_age": 60})
        rows.append(mark(patient, "1, 1, 30, 30", f"{length}, 9", 5, study=2)
                    | {"Patient_age": 60 + patient % 2, "Normalized_lesion_location": f"0.48, 0.5, {z}"})  # fmt: skip
    rows.append(mark(1, "1, 1, 30, 30", "20, 10", 4) | {"Normalized_lesion_location": "0.48, 0.5, 0.52"})  # other type
    pd.DataFrame(rows).to_csv(tmp_path / "DL_info.csv", index=False)
    found = audit.bookmarks(tmp_path / "DL_info.csv")
    assert found["DeepLesion months from study to study"] == 6
    assert found["DeepLesion follow-ups of another region, share"] == 0.25
    np.testing.assert_allclose(found["DeepLesion marks that the next study repeats, share"], 12 / 17)
    np.testing.assert_allclose(found["DeepLesion repeated marks grown by 20 %, share"], 8 / 12)
    np.testing.assert_allclose(found["DeepLesion repeated marks shrunk by 30 %, share"], 4 / 12)


def test_which_lesions_are_marked(folder):
    """By hand: the first box (15 mm) and the last (25 mm) hold a mark; the fourth is on other slices."""
    found = audit.missing_labels(folder)
    assert found["all lesions of a sub-volume"] == 2.5 and found["sub-volumes without a lesion, share"] == 0.5
    assert found["marked, share of all lesions"] == 0.4
    # sides 15, 5, 3, 15, 25 mm: the smallest third is up to 8.3 mm, the largest above 15
    assert found["marked, share of the smallest third"] == 0 and found["marked, share of the largest third"] == 1
    assert found["marked, share of the middle third"] == 0.5  # of the two of 15 mm
    np.testing.assert_allclose(found["all lesions, box side, p50"], 15)


def test_verdicts(tmp_path, monkeypatch):
    table = tmp_path / "published.csv"
    table.write_text(
        "statistic,published,kind,tolerance,source,known\na,10,length,1.25,x,\nb,10,length,1.25,x,why\n"
        "c,0.5,share,0.05,x,\nd,0.5,share,0.05,x,\ne,2,count,1.25,x,\n"
    )
    monkeypatch.setattr(audit, "PUBLISHED", table)
    found = audit.compare({"a": 8.1, "b": 12.6, "c": 0.54, "d": 0.44})
    assert list(found) == audit.COLUMNS
    assert found["verdict"].tolist() == ["agrees", "differs", "agrees", "differs", "not measured"]
    assert found["known"].tolist() == ["", "why", "", "", ""]


def test_published_numbers_are_what_the_real_files_give(shared_data, tmp_path):
    for name in (UNIVERSAL, "LUNA16", "NIH-LN"):
        os.symlink(shared_data / "real" / name, tmp_path / name)
    table = read_csv(audit.PUBLISHED).set_index("statistic")
    found = pd.Series(audit.measure(tmp_path))
    assert set(table.index) - set(found.index) == {"LiTS tumours a scan", "LiTS scans without a tumour, share"} and set(
        found.index
    ) <= set(table.index)
    np.testing.assert_allclose(found, table.loc[found.index, "published"], rtol=5e-4)


def test_command_measures_every_dataset_of_the_phantoms(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LENSNB_ROOT", str(tmp_path))
    assert cli.main(["phantom", "audit", "--profile", "smoke"]) == 2
    assert "there are no phantoms" in capsys.readouterr().err
    phantom.write(runfolder.phantom("smoke"), spec(**TINY), 0, workers=1)
    assert cli.main(["phantom", "audit", "--profile", "smoke", "--csv", str(tmp_path / "audit.csv")]) == 0
    table = pd.read_csv(tmp_path / "audit.csv").set_index("statistic")
    named = table.index[table["phantom"].notna()]
    for name in ("DeepLesion long diameter, p50", "marked, share of all lesions", "LUNA16 diameter, p50",
                 "LiTS tumours a scan", "NIH-LN nodes a case"):  # fmt: skip
        assert name in named
    assert f"of {len(table)} statistics agree" in capsys.readouterr().out
