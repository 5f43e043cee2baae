"""LUNA16's rules, one by one on cases worked out by hand, and all together on the golden submission."""

import json

import numpy as np
import pandas as pd
import pytest

from lensnb import luna


def findings(*rows, value="diameter_mm") -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["seriesuid", *luna.POSITION, value])


def marks(*rows) -> pd.DataFrame:
    return findings(*rows, value="probability")


NODULE = findings(["s", 0, 0, 0, 10.0])  # radius 5 mm


def test_a_mark_on_the_sphere_misses():
    at, inside = (
        luna.match(NODULE, findings(), ["s"], marks(["s", 3, 4, 0, 0.9])),
        luna.match(NODULE, findings(), ["s"], marks(["s", 3, 3.999, 0, 0.9])),
    )
    assert (len(at.true_probability), len(at.false_probability)) == (0, 1)
    assert (len(inside.true_probability), len(inside.false_probability)) == (1, 0)


def test_best_mark_of_a_nodule_counts_and_others_are_ignored():
    found = luna.match(NODULE, findings(), ["s"], marks(["s", 0, 0, 0, 0.4], ["s", 1, 0, 0, 0.8], ["s", 0, 1, 0, 0.6]))
    assert found.true_probability.tolist() == [0.8] and found.doubles == 2 and len(found.false_probability) == 0


def test_one_mark_in_two_nodules_finds_both():
    pair = findings(["s", 0, 0, 0, 10.0], ["s", 4, 0, 0, 10.0])
    found = luna.match(pair, findings(), ["s"], marks(["s", 2, 0, 0, 0.7]))
    assert found.true_probability.tolist() == [0.7, 0.7]


def test_excluded_findings_swallow_marks_and_unknown_diameter_is_10_mm():
    excluded = findings(["s", 100, 0, 0, -1.0], ["s", 200, 0, 0, 4.0])
    submission = marks(["s", 104.9, 0, 0, 0.9], ["s", 105, 0, 0, 0.8], ["s", 201.9, 0, 0, 0.7], ["s", 202, 0, 0, 0.6])
    found = luna.match(NODULE, excluded, ["s"], submission)
    assert found.on_excluded == 2 and sorted(found.false_probability) == [0.6, 0.8]
    # a mark in a nodule and in an excluded finding counts for the nodule
    both = luna.match(NODULE, findings(["s", 1, 0, 0, 10.0]), ["s"], marks(["s", 0.5, 0, 0, 0.9]))
    assert (len(both.true_probability), both.on_excluded) == (1, 0)


def test_100_marks_of_a_scan_strictly_above_the_101st():
    probability = np.concatenate([[0.9] * 98, [0.5] * 4, [0.1]])
    submission = marks(*[["s", 50 + i, 50, 50, p] for i, p in enumerate(probability)])
    kept = luna.match(NODULE, findings(), ["s"], submission)
    # the 101st highest is one of the four 0.5, so all four go
    assert (kept.candidates, kept.beyond_100) == (98, 5)
    assert luna.match(NODULE, findings(), ["s"], submission[:100]).candidates == 100


def test_curve_and_interpolation():
    # 2 scans, 4 nodules; by falling probability: hit, false, hit, false, false; one nodule is never found
    nodules = findings(*[["s", 100 * i, 0, 0, 10.0] for i in range(3)], ["t", 0, 0, 0, 10.0])
    submission = marks(
        ["s", 0, 0, 0, 0.9], ["s", 50, 0, 0, 0.8], ["s", 100, 0, 0, 0.7], ["t", 50, 0, 0, 0.6],
        ["t", 60, 0, 0, 0.5], ["t", 0, 0, 0, 0.4],
    )  # fmt: skip
    false_positives, sensitivity = luna.curve(luna.match(nodules, findings(), ["s", "t"], submission))
    np.testing.assert_allclose(false_positives, [0, 0, 0.5, 0.5, 1, 1.5, 1.5])
    np.testing.assert_allclose(sensitivity, [0, 0.25, 0.25, 0.5, 0.5, 0.5, 0.75])
    at = luna.sensitivity_at((false_positives, sensitivity), [0.125, 0.5, 1, 1.25, 8])
    np.testing.assert_allclose(at, [0.25, 0.5, 0.5, 0.5, 0.75])


def test_tied_marks_are_one_point():
    # a hit and a false positive of equal probability: from (0, 0) straight to (1, 1)
    found = luna.match(NODULE, findings(), ["s"], marks(["s", 0, 0, 0, 0.5], ["s", 50, 0, 0, 0.5]))
    np.testing.assert_allclose(luna.sensitivity_at(luna.curve(found), [0.125, 0.5, 1, 2]), [0.125, 0.5, 1, 1])


def test_no_false_positive_no_mark_no_nodule():
    perfect = luna.evaluate(NODULE, findings(), ["s", "t"], marks(["s", 0, 0, 0, 0.5]))
    assert perfect["sensitivity"] == [1.0] * 7 and perfect["cpm"] == 1.0
    assert luna.evaluate(NODULE, findings(), ["s"], marks())["cpm"] == 0
    with pytest.raises(ValueError, match="no nodule is annotated"):
        luna.evaluate(NODULE, findings(), ["t"], marks())


def test_other_scans_are_counted_not_scored():
    result = luna.evaluate(NODULE, findings(), ["s"], marks(["s", 0, 0, 0, 0.5], ["t", 0, 0, 0, 0.9]))
    assert result["candidates_on_other_scans"] == 1 and result["false_positives"] == 0


def test_files_are_checked(tmp_path):
    uids = tmp_path / "seriesuids.csv"
    uids.write_text("a\nb\n\n")
    assert luna.read_seriesuids(uids) == ["a", "b"]
    for content, message in [
        ("seriesuid\na\n", "header"),
        ("a\nb\na\n", "1 scan.s. repeated"),
        ("\n", "no series uid"),
    ]:
        uids.write_text(content)
        with pytest.raises(ValueError, match=message):
            luna.read_seriesuids(uids)
    table = tmp_path / "marks.csv"
    table.write_text("seriesuid,coordX,coordY,coordZ\na,1,2,3\n")
    with pytest.raises(ValueError, match=r"marks.csv: column\(s\) probability missing"):
        luna.read_findings(table, "probability")
    table.write_text("seriesuid,coordX,coordY,coordZ,probability\na,1,2,3,.5\na,1,,3,.5\n")
    with pytest.raises(ValueError, match="marks.csv, row 2: coordY is nan"):
        luna.read_findings(table, "probability")


def test_golden(shared_data):
    folder = shared_data / "real/LUNA16/CSVFILES"
    result = luna.evaluate_files(
        folder / "annotations.csv", folder / "annotations_excluded.csv", folder / "seriesuids.csv",
        shared_data / "golden/luna_submission.csv",
    )  # fmt: skip
    expected = json.loads((shared_data / "golden/luna_froc_expected.json").read_text())
    np.testing.assert_allclose(result["sensitivity"], expected["sensitivity"], rtol=0, atol=1e-9)
    assert result["cpm"] == pytest.approx(expected["cpm"], abs=1e-9)
    counts = expected["counts"]
    assert result["true_positives"] == int(counts["True positives"])
    assert result["false_positives"] == int(counts["False positives"])
    assert result["candidates"] == int(counts["Total number of candidates"])
    assert result["candidates_on_excluded_findings"] == int(counts["Ignored candidates on excluded nodules"])
    assert result["double_candidates"] == int(counts["Ignored candidates which were double detections on a nodule"])
