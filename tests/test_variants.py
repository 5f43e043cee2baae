"""Variants of a profile, and folders that borrow another one's files."""

import os

import numpy as np
import pandas as pd
import pytest

from lensnb import runfolder
from lensnb.evaluation.differences import changed_tables, row_differences, write_differences
from lensnb.files import atomic_write, write_table
from lensnb.run.variant import report_differences
from lensnb.runfolder import Run
from lensnb.settings import load_profile
from lensnb.variants import write_variant


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("LENSNB_ROOT", str(tmp_path))
    monkeypatch.delenv(runfolder.BY_HAND, raising=False)
    return tmp_path


def test_a_variant_is_its_profile_with_other_numbers(root):
    name = write_variant(
        "smoke", "low", ["mining.sigma=0.05", "training.learning_rate=1.0e-3", "network.hu=[-1000, 9]"]
    )
    assert name == "smoke+low"
    plain, variant = load_profile("smoke"), load_profile(name)
    assert variant.mining.sigmas == (0.05,) and variant.training.learning_rate == 1e-3
    assert variant.network.hu == (-1000, 9)
    assert variant.fpr == plain.fpr and variant.inference == plain.inference and variant.name == name
    assert write_variant("smoke", "low", []) == name  # known already
    assert runfolder.runs(name, 2) == root / "data" / "runs" / "smoke+low-seed2"
    assert runfolder.figures(name) == root / "figures" / "smoke+low"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["mining.sigma"], "is no change of a setting"),
        (["minig.sigma=1"], "there is no section 'minig'; the sections are phantom, grid"),
        (["mining.sgima=1"], "section mining has no setting 'sgima'; did you mean"),
        (["training.batch_size=many"], "batch_size is 'many'; it must be of type int"),
        (["mining.sigmas=0.5"], "sigmas is 0.5; it must be a list of numbers"),
        (["mining.sigma=[a"], "the value is not valid YAML"),
        ([], "variant odd does not exist; --set section.key=value says what it changes"),
    ],
)
def test_what_is_no_variant_is_refused_and_leaves_nothing(root, changes, message):
    with pytest.raises(ValueError) as error:
        write_variant("smoke", "odd", changes)
    assert message in str(error.value)
    assert not list(root.rglob("*.yml"))


def test_a_variant_does_not_change_its_meaning(root):
    write_variant("smoke", "low", ["mining.sigma=0.05"])
    assert write_variant("smoke", "low", ["mining.sigma=0.05"]) == "smoke+low"
    with pytest.raises(ValueError, match="variant low exists with other settings"):
        write_variant("smoke", "low", ["mining.sigma=0.1"])
    with pytest.raises(ValueError, match="cannot be called '../x'"):
        write_variant("smoke", "../x", ["mining.sigma=0.1"])
    with pytest.raises(ValueError, match="is no variant of smoke"):
        load_profile("smoke+high")


def test_a_variant_shares_phantoms_unless_it_changes_them(root):
    mining = write_variant("smoke", "low", ["mining.sigma=0.05"])
    other = write_variant("smoke", "many", ["phantom.growth_sd=0.2"])
    assert runfolder.raw(mining) == runfolder.raw("smoke")
    assert runfolder.raw(other) == root / "data" / "phantom" / "smoke+many"


def test_borrowed_files_cost_nothing_and_stay_apart(root):
    reference, own = root / "a", root / "b"
    for name in ("one.txt", "deep/two.txt", "logs/x.log", ".snakemake/y"):
        with atomic_write(reference / name) as temporary:
            temporary.write_text(f"reference {name}")
    assert runfolder.borrow(own, reference) == 2
    assert (own / "one.txt").stat().st_ino == (reference / "one.txt").stat().st_ino
    assert not (own / "logs").exists() and not (own / ".snakemake").exists()
    with atomic_write(own / "one.txt") as temporary:
        temporary.write_text("mine")
    assert (reference / "one.txt").read_text() == "reference one.txt"
    with atomic_write(reference / "deep/two.txt") as temporary:
        temporary.write_text("new")
    os.utime(reference / "deep/two.txt", ns=(1, 1))
    assert (own / "deep/two.txt").read_text() == "reference deep/two.txt"
    assert runfolder.borrow(own, reference) == 1  # what was written in the meantime, and what is new in the reference
    assert (own / "one.txt").read_text() == "mine" and (own / "deep/two.txt").read_text() == "new"
    assert runfolder.borrow(own, reference) == 0
    assert runfolder.borrow(own, root / "nothing") == 0


def test_work_by_hand_has_folders_of_its_own(root, monkeypatch):
    table = runfolder.Run("smoke").table("table2")
    write_table(pd.DataFrame({"average": [0.5]}), table)
    monkeypatch.setenv(runfolder.BY_HAND, "")
    runfolder.work_by_hand("smoke", 0)
    own = runfolder.Run("smoke").table("table2")
    assert own == root / "figures" / "smoke+by-hand" / "table2.csv" and own.exists()
    write_table(pd.DataFrame({"average": [0.9]}), own)
    assert "0.5" in table.read_text()
    runfolder.work_by_hand("smoke", 0)  # another notebook: what was written stays
    assert "0.9" in own.read_text()


@pytest.mark.parametrize("change", ["mining.sigma=0.05", "phantom.growth_sd=0.2"])
def test_a_variant_that_has_made_nothing_yet_has_a_report(root, change):
    report = report_differences(write_variant("smoke", "new", [change]))
    assert ("Nothing of Table II to compare yet." if "mining" in change else "phantoms of its own") in report


def test_differences_are_paired(root):
    truth = {f"{i:06d}_01_01_001-009": np.array([[0.0, 0, 1, 9, 9, 3]]) for i in range(20)}
    names = list(truth)

    def write(run, row, found):
        boxes = [(volume, 0, 0, 1, 9, 9, 3, 0.9) for volume in names[:found]]
        columns = ["volume", "x1", "y1", "z1", "x2", "y2", "z2", "score"]
        write_table(pd.DataFrame(boxes, columns=columns), run.detections(row))

    reference, variant = Run("smoke"), Run("smoke+low")
    for run, counts in ((reference, {"a": 10, "b": 5, "c": 5}), (variant, {"a": 15, "b": 5})):
        for row, count in counts.items():
            write(run, row, count)
    rows = row_differences(reference, variant, truth).set_index("row")
    assert list(rows.index) == ["a", "b"]
    assert (
        rows.loc["a", "difference"] == pytest.approx(0.25) and 0 < rows.loc["a", "low"] < 0.25 < rows.loc["a", "high"]
    )
    assert rows.loc["b", ["difference", "low", "high"]].tolist() == [0, 0, 0]
    for folder, value in ((root / "x", 0.5), (root / "y", 0.75)):
        write_table(pd.DataFrame({"n": ["p", "q"], "v": [value, np.nan]}), folder / "t.csv")
        write_table(pd.DataFrame({"v": [1.0]}), folder / "same.csv")
    tables = changed_tables(root / "x", root / "y").set_index("table")
    assert tables.loc["t"].tolist() == [2, 1, 0.25] and tables.loc["same"].tolist() == [1, 0, 0]
    text = write_differences(rows.reset_index(), tables.reset_index(), root / "y")
    assert "1 of 2 tables hold the same numbers" in text and "25.0 %" in text
    assert (root / "y" / "differences.md").exists()
