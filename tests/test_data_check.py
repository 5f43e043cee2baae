"""`data check`: what is there, what is missing by name, and the exit status that says so."""

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from tiny import INFO_COLUMNS, info_row, write_deeplesion, write_lits, write_luna, write_nih

from lensnb import __main__ as cli
from lensnb.datasets import DATASETS, deeplesion
from lensnb.datasets import check as data_check
from lensnb.datasets.check import HANDLED, INCOMPLETE, LEFT_OUT, check, report
from lensnb.datasets.readers import READERS
from lensnb.files import read_table, write_json

MATRIX = np.diag([0.8, 0.8, 2.0, 1.0])
CUBE = np.arange(4 * 12 * 14).reshape(4, 12, 14)


def kinds(result: data_check.Check, dataset: str) -> list[tuple[str, str]]:
    rows = result.problems[result.problems["dataset"] == dataset]
    return [(row.effect, row.problem.split(":")[0]) for row in rows.itertuples()]


def count(result: data_check.Check, what: str) -> tuple[int, int]:
    row = result.counts.set_index("what").loc[what]
    return row["found"], row["expected"]


@pytest.fixture
def whole(tmp_path, monkeypatch):
    """All four datasets, complete by the numbers of a smaller world."""
    rows = [info_row("000001_01_01", 12, (2, 2, 9, 9), (10, 14)), info_row("000001_02_01", 12, (2, 2, 9, 9), (10, 14)),
            info_row("000002_01_01", 33, (2, 2, 9, 9), (30, 34), noisy=1)]  # fmt: skip
    manual = {"val": {"000001_02_01_010-014": np.array([[1.0, 1, 11, 8, 8, 13]])}, "test": {}}
    write_deeplesion(tmp_path, rows, manual)
    labels = {f"{split}_lesion_idxs": [n] for n, split in enumerate(("train", "val", "test"))}
    write_json(labels, tmp_path / "DeepLesion" / "text_mined_labels_171_and_split.json")
    nodes = np.zeros_like(CUBE)
    nodes[2, 3, 4] = 1
    write_luna(tmp_path, {"1.2": (CUBE, MATRIX), "1.3": (CUBE, MATRIX)}, [("1.2", 3.0, 3.0, 2.0, 2.0)])
    excluded = "seriesuid,coordX,coordY,coordZ,diameter_mm\n1.2,1,1,1,-1\n"
    (tmp_path / "LUNA16" / "CSVFILES" / "annotations_excluded.csv").write_text(excluded)
    write_lits(tmp_path, 0, CUBE, nodes * 2, MATRIX)
    write_nih(tmp_path, "ABD_LYMPH_001", CUBE, nodes, MATRIX)
    smaller = {
        "DeepLesion": (3, 2, 3, 1, 1, 3),
        "LUNA16": (2, 1, 1),
        "LiTS": (1,),
        "NIH-LN": (1, 1),
    }
    for name, numbers in smaller.items():
        expected = dict(zip(DATASETS[name].expected, numbers, strict=True))
        monkeypatch.setitem(DATASETS, name, replace(DATASETS[name], expected=expected))
    return tmp_path


@pytest.mark.parametrize("read", [False, True])
def test_whole_datasets_are_complete(whole, read, capsys):
    """A sub-volume that has only possibly noisy lesions is left out by rule and misses nowhere."""
    result = check(whole, read)
    assert result.complete and result.problems.empty and result.absent == ()
    assert count(result, "sub-volumes with images") == (2, 2)
    assert cli.main(["data", "check", "--root", str(whole), *["--read", "--workers", "1"] * read]) == 0
    text = capsys.readouterr().out
    assert text.count("complete") == 4 and "differs" not in text and "get it" not in text


LINKED = {
    "DeepLesion": ["Images_png/000001_01_01", "Images_png"],
    "LUNA16": ["subset0/subset0", "subset0", "CSVFILES"],
    "LiTS": ["Training_Batch1"],
    "NIH-LN": ["CT Lymph Nodes/ABD_LYMPH_001/1.2.3/1.2.3.4", "CT Lymph Nodes/ABD_LYMPH_001/1.2.3", "CT Lymph Nodes",
               "MED_ABD_LYMPH_MASKS/ABD_LYMPH_001", "MED_ABD_LYMPH_ANNOTATIONS"],
}  # fmt: skip


@pytest.mark.parametrize("name", LINKED)
def test_folders_that_are_links(whole, name, tmp_path_factory):
    """Parts of a dataset may lie on other disks; links that lead back, or to the same folder twice, change nothing."""
    if name == "LUNA16":  # as some programs unpack it
        (whole / name / "subset0" / "subset0").mkdir()
        for file in (whole / name / "subset0").glob("1.2.*"):
            file.rename(file.parent / "subset0" / file.name)
    reader = READERS[name]
    before = reader.find(whole)
    images = [reader.read(whole, row)[0].hu for _, row in before[before["problem"] == ""].iterrows()]
    other_disk = tmp_path_factory.mktemp("other")
    for number, part in enumerate(LINKED[name]):
        (whole / name / part).rename(other_disk / str(number))
        (whole / name / part).symlink_to(other_disk / str(number))
        (other_disk / str(number) / "back").symlink_to(whole / name / part)
    (whole / name / "Training_Batch2").symlink_to(whole / name / "Training_Batch1")
    found = reader.find(whole)
    assert str(found.to_dict("records")) == str(before.to_dict("records")) and len(images)  # as text: nan is not nan
    for (_, row), hu in zip(found[found["problem"] == ""].iterrows(), images, strict=True):
        ct, _ = reader.read(whole, row)
        np.testing.assert_array_equal(ct.hu, hu)
        assert not ct.notes
    assert check(whole, read=True).complete


def test_what_the_real_files_must_hold():
    """The numbers that the datasets' makers state."""
    assert list(DATASETS["DeepLesion"].expected.values())[:5] == [32735, 4427, 10594, 1000, 5447]
    assert list(DATASETS["LUNA16"].expected.values()) == [888, 1186, 35192]
    assert DATASETS["LiTS"].expected == {"volumes with labels": 131}
    assert list(DATASETS["NIH-LN"].expected.values()) == [176, 983]


def test_nothing_there_says_where_everything_is(tmp_path, capsys):
    assert cli.main(["data", "check", "--root", str(tmp_path)]) == 1
    text = capsys.readouterr().out
    assert re.findall(r"(\S+): absent", text) == ["DeepLesion", "LUNA16", "LiTS", "NIH-LN"]
    assert text.count("https://") == 6 and text.count("get it: ") == 4 and text.count(" GB") == 4
    assert list(tmp_path.iterdir()) == []
    assert cli.main(["data", "check", "--root", str(tmp_path / "nowhere")]) == 2
    assert "nowhere is no folder" in capsys.readouterr().err


def test_missing_files_are_named_and_the_rest_is_usable(whole, tmp_path_factory, capsys):
    images = whole / "DeepLesion" / "Images_png"
    (images / "000001_01_01" / "014.png").unlink()
    for number in (11, 13):
        (images / "000001_02_01" / f"{number:03d}.png").unlink()
    (whole / "LUNA16" / "subset0" / "1.3.raw").unlink()
    (whole / "LiTS" / "Training_Batch1" / "segmentation-0.nii").unlink()
    (whole / "NIH-LN" / "MED_ABD_LYMPH_MASKS" / "ABD_LYMPH_001" / "ABD_LYMPH_001_mask.nii.gz").unlink()
    result = check(whole)
    assert not result.complete
    assert (
        kinds(result, "DeepLesion")
        == [(INCOMPLETE, "missing PNG"), (LEFT_OUT, "too few slices")] + [(INCOMPLETE, "missing PNG")] * 2
    )
    assert result.problems["problem"][0] == "missing PNG: 000001_01_01/014.png"
    assert result.usable["DeepLesion"] == {"volumes": 1, "lesions": 1, "all lesions": 2}
    assert kinds(result, "LUNA16") == [(LEFT_OUT, "missing voxels")]
    assert result.usable["LUNA16"] == {"volumes": 1, "lesions": 1, "all lesions": 1}
    assert kinds(result, "LiTS") == [(LEFT_OUT, "missing segmentation")]
    assert kinds(result, "NIH-LN") == [(LEFT_OUT, "missing mask")]
    assert count(result, "scans") == (1, 2) and count(result, "sub-volumes with images") == (1, 2)
    names = tmp_path_factory.mktemp("out") / "names.csv"
    assert cli.main(["data", "check", "--root", str(whole), "--list", str(names)]) == 1
    assert len(read_table(names)) == len(result.problems) == 7
    text = capsys.readouterr().out
    assert "missing PNG (3 in 2 volumes)" in text and "000001_02_01/013.png" in text
    assert "usable as it is: 1 volumes with 1 of 2 annotated lesions" in text


def test_reading_finds_what_listing_can_not(whole):
    png = whole / "DeepLesion" / "Images_png" / "000001_01_01" / "010.png"
    png.write_bytes(png.read_bytes()[:-30])
    (whole / "LUNA16" / "subset0" / "1.2.raw").write_bytes(b"short")
    write_lits(whole, 0, CUBE, CUBE * 0, MATRIX, labels_matrix=np.diag([1.0, 1, 3, 1]))
    assert check(whole).complete
    for workers in (1, 2):
        result = check(whole, read=True, workers=workers)
        assert not result.complete
        assert (
            kinds(result, "DeepLesion") == [(INCOMPLETE, "broken PNG")] and "010.png" in result.problems["problem"][0]
        )
        assert kinds(result, "LUNA16") == [(LEFT_OUT, "unreadable")] and result.usable["LUNA16"]["volumes"] == 1
        assert "1.2.raw is cut off: 5 bytes" in result.problems["problem"][1]
        assert kinds(result, "LiTS") == [(HANDLED, "matrices disagree")]
        assert kinds(result, "NIH-LN") == []
    text = report(result, whole)
    assert "LiTS: complete" in text and "handled: matrices disagree (1 in 1 volumes)" in text


def test_broken_tables_and_rows_out_of_order(whole):
    table = whole / "DeepLesion" / "DL_info.csv"
    pd.read_csv(table).iloc[::-1].to_csv(table, index=False)
    result = check(whole)
    assert kinds(result, "DeepLesion") == [(INCOMPLETE, "rows out of order")] and not result.complete
    (whole / "DeepLesion" / "text_mined_labels_171_and_split.json").unlink()
    assert kinds(check(whole), "DeepLesion") == []  # nothing counts rows then
    table.write_text("a,b\n1,2\n")
    result = check(whole)
    assert kinds(result, "DeepLesion") == [(LEFT_OUT, "whole dataset")] and result.absent == ()
    assert "DL_info.csv has no column File_name" in result.problems["problem"][0]
    assert "DeepLesion: incomplete" in report(result, whole)


def test_the_published_table_is_known_by_its_git_hash(whole, tmp_path_factory, monkeypatch):
    file = tmp_path_factory.mktemp("git") / "file"
    file.write_text("test content\n")
    assert deeplesion._git_hash(file) == "d670460b4b4aece5915caf5c68d12f560a9fe3e4"  # the example of git's own book
    table = whole / "DeepLesion" / "DL_info.csv"
    pd.read_csv(table).iloc[::-1].to_csv(table, index=False)
    monkeypatch.setattr(deeplesion, "USUAL_DL_INFO", deeplesion._git_hash(table))
    assert check(whole).complete  # whatever its order


def test_many_problems_are_counted_and_few_are_shown(tmp_path):
    rows = [info_row(f"{n:06d}_01_01", 12, (2, 2, 9, 9), (10, 14)) for n in range(1, 21)]
    (tmp_path / "DeepLesion").mkdir()
    pd.DataFrame(rows, columns=INFO_COLUMNS).to_csv(tmp_path / "DeepLesion" / "DL_info.csv", index=False)
    text = report(check(tmp_path), tmp_path)
    assert "left out: missing folder (20 in 20 volumes)" in text and "and 17 more (--list FILE names all)" in text
    assert text.count("Images_png/0") == 3


def test_real_files(shared_data):
    result = check(shared_data / "real")
    assert count(result, "sub-volumes of the manual test set") == (1000, 1000)
    assert count(result, "boxes of the manual test set") == (5447, 5447)
    assert count(result, "lesions in DL_info.csv") == (10857, 32735)
    assert count(result, "scans") == (3, 888) and count(result, "nodules") == (1186, 1186)
    assert count(result, "excluded findings") == (35192, 35192)
    assert count(result, "annotated nodes") == (983, 983) and count(result, "cases with masks") == (0, 176)
    assert result.usable["DeepLesion"] == {"volumes": 1, "lesions": 3, "all lesions": 10840}
    assert result.usable["LUNA16"] == {"volumes": 3, "lesions": 4, "all lesions": 1186}
    assert result.absent == ("LiTS",) and not result.complete
