"""LUNA16's rules, one by one on cases worked out by hand, and all together on the golden submission."""

import json

import numpy as np
import pandas as pd
import pytest

from lensnb.datasets.preparation import prepare
from lensnb.datasets.store import Store
from lensnb.detection import fusion
from lensnb.evaluation import luna


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
    assert found.marks.outcome.tolist() == [luna.ON_EXCLUDED, luna.FALSE, luna.ON_EXCLUDED, luna.FALSE]
    assert sorted(found.false_probability) == [0.6, 0.8]
    # a mark in a nodule and in an excluded finding counts for the nodule
    both = luna.match(NODULE, findings(["s", 1, 0, 0, 10.0]), ["s"], marks(["s", 0.5, 0, 0, 0.9]))
    assert (len(both.true_probability), both.marks.outcome.tolist()) == (1, [luna.HIT])


def test_100_marks_of_a_scan_strictly_above_the_101st():
    probability = np.concatenate([[0.9] * 98, [0.5] * 4, [0.1]])
    submission = marks(*[["s", 50 + i, 50, 50, p] for i, p in enumerate(probability)])
    kept = luna.match(NODULE, findings(), ["s"], submission)
    # the 101st highest is one of the four 0.5, so all four go
    assert (kept.marks.outcome == luna.BEYOND).sum() == 5 and len(kept.false_probability) == 98
    assert len(luna.match(NODULE, findings(), ["s"], submission[:100]).false_probability) == 100


def test_the_limit_of_100_can_cost_a_nodule_and_is_for_each_scan():
    # s: 100 false marks above the only mark on the nodule; t: 100 marks, the last one on its nodule
    nodules = findings(["s", 0, 0, 0, 10.0], ["t", 0, 0, 0, 10.0])
    on_s, on_t = ([[uid, 50 + i, 0, 0, 0.9 - i / 1000] for i in range(100)] for uid in "st")
    submission = marks(*on_s, ["s", 0, 0, 0, 0.1], *on_t[:99], ["t", 0, 0, 0, 0.1])
    result = luna.evaluate(nodules, findings(), ["s", "t"], submission)
    assert (result["true_positives"], result["false_positives"], result["candidates"]) == (1, 199, 200)
    # 101 equal marks: the 101st is as probable as all others, so none is left
    equal = luna.evaluate(NODULE, findings(), ["s"], marks(*[["s", 0, 0, 0, 0.5]] * 101))
    assert (equal["candidates"], equal["candidates_beyond_100_a_scan"], equal["cpm"]) == (0, 101, 0)


def test_marks_are_told_what_became_of_them():
    pair = findings(["s", 0, 0, 0, 10.0], ["s", 4, 0, 0, 10.0])
    # 0.8 lies on both nodules and is the best of the second, 0.9 is the best of the first
    found = luna.match(pair, findings(), ["s"], marks(["s", -4, 0, 0, 0.9], ["s", 2, 0, 0, 0.8], ["s", 1, 0, 0, 0.7]))
    assert found.marks.outcome.tolist() == [luna.HIT, luna.HIT, luna.DOUBLE]
    assert found.nodules.probability.tolist() == [0.9, 0.8]
    assert found.doubles == 3  # counted for each nodule, as the official report does: 2 on the first, 1 on the second


def test_nodules_never_marked_and_scans_without_nodules_count():
    # 4 scans, one of them without a nodule, one without a mark: the sensitivity is 1 of 3, not 1 of 1 or 1 of 2,
    # and one false positive is 1/4 a scan
    nodules = findings(["s", 0, 0, 0, 10.0], ["s", 90, 0, 0, 10.0], ["t", 0, 0, 0, 10.0])
    submission = marks(["empty", 0, 0, 0, 0.9], ["s", 0, 0, 0, 0.8])
    false_positives, sensitivity = luna.curve(luna.match(nodules, findings(), ["s", "t", "u", "empty"], submission))
    np.testing.assert_allclose(false_positives, [0, 0.25, 0.25])
    np.testing.assert_allclose(sensitivity, [0, 0, 1 / 3])


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


def test_found_at_one_false_positive_a_scan_by_size():
    # two scans, so two false positives are allowed at 1 a scan; the third one, 0.5, must not be reached
    nodules = findings(["s", 0, 0, 0, 5.0], ["s", 100, 0, 0, 9.0], ["t", 0, 0, 0, 10.0], ["t", 100, 0, 0, 30.0])
    false = [["s", 50, 0, 0, 0.9], ["t", 50, 0, 0, 0.8], ["t", 60, 0, 0, 0.5]]
    hits = [["s", 0, 0, 0, 0.5], ["s", 100, 0, 0, 0.51], ["t", 0, 0, 0, 0.4]]
    one = luna.match(nodules, findings(), ["s", "t"], marks(*false, *hits))
    all_hit = luna.match(nodules, findings(), ["s", "t"], marks(*hits, ["t", 100, 0, 0, 0.1]))
    assert luna.found_at(one).tolist() == [False, True, False, False]
    assert luna.found_at(one, rate=2).tolist() == [True, True, True, False]
    table = luna.by_size({"one": one, "all": all_hit}, [10, 20])
    assert table.to_numpy().tolist() == [
        ["under 10 mm", 2, 0.5, 1.0],
        ["10 to 20 mm", 1, 0, 1],
        ["20 mm and more", 1, 0, 1],
    ]


def test_bootstrap_interval_by_hand():
    # two scans, one nodule each, found in s only, no false positive: a set has s twice, once, or not at all
    nodules = findings(["s", 0, 0, 0, 10.0], ["t", 0, 0, 0, 10.0])
    matches = luna.match(nodules, findings(), ["s", "t"], marks(["s", 0, 0, 0, 0.5]))
    samples = luna.bootstrap(matches, 4000)
    values, counts = np.unique(samples[:, 0], return_counts=True)
    assert values.tolist() == [0, 0.5, 1] and (samples == samples[:, :1]).all()
    np.testing.assert_allclose(counts / 4000, [0.25, 0.5, 0.25], atol=0.03)
    np.testing.assert_array_equal(samples, luna.bootstrap(matches, 4000))
    assert (samples != luna.bootstrap(matches, 4000, seed=1)).any()
    # the official ranks: floor(0.025 * 1000) and floor(0.975 * 1000), counted from 0
    assert luna.interval(np.r_[np.arange(1000)[::-1], np.nan]) == (25, 975)
    # a set of scans that happens to have no nodule is left out
    only_s = luna.bootstrap(luna.match(nodules[:1], findings(), ["s", "t"], marks(["s", 0, 0, 0, 0.5])))
    assert 0.2 < np.isnan(only_s).mean() < 0.3 and luna.interval(only_s.mean(axis=1)) == (1, 1)


def test_bootstrap_counts_false_positives_of_a_scan_as_often_as_it_is_drawn():
    # s has the nodule and two false positives above it, t has nothing: the nodule is found at 2 * times(s) / 2
    submission = marks(["s", 50, 0, 0, 0.9], ["s", 60, 0, 0, 0.8], ["s", 0, 0, 0, 0.7])
    samples = luna.bootstrap(luna.match(NODULE, findings(), ["s", "t"], submission))
    assert {tuple(row) for row in samples[np.isfinite(samples[:, 0])]} == {(0, 0, 0, 1, 1, 1, 1), (0, 0, 0, 0, 1, 1, 1)}


def test_real_marks_fall_on_their_nodules_in_flipped_scans_too(shared_data, tmp_path):
    """Annotations to boxes on the grid to marks in mm, through files with either orientation, by the official rules."""
    annotations, excluded = luna.read_challenge(shared_data / "real/LUNA16")
    marks_of = {}
    for name in ("subset0", "subset0_flipped"):
        root = tmp_path / name
        (root / "LUNA16").mkdir(parents=True)
        (root / "LUNA16" / "subset0").symlink_to(shared_data / "real/LUNA16" / name)
        (root / "LUNA16" / "CSVFILES").symlink_to(shared_data / "real/LUNA16/CSVFILES")
        prepare(root, root / "prepared", (0.8, 0.8, 2.0), seed=0, workers=1, datasets=("LUNA16",))
        store = Store(root / "prepared")
        boxes = store.boxes.groupby(["volume", "lesion"], as_index=False).agg(
            {"x1": "min", "y1": "min", "z1": "min", "x2": "max", "y2": "max", "z2": "max"}
        )
        submission = fusion.to_marks(boxes.assign(score=0.5), store)
        result = luna.evaluate(annotations, excluded, list(store.volumes.index), submission)
        assert (result["scans"], result["nodules"], result["cpm"], result["false_positives"]) == (3, 4, 1.0, 0)
        rows = boxes["lesion"].str.removeprefix("luna").astype(int)
        apart = np.abs(submission[luna.POSITION].to_numpy() - annotations.loc[rows, luna.POSITION].to_numpy())
        assert apart[:, :2].max() < 0.1 and apart[:, 2].max() <= 2.0  # z is known to the slice only
        marks_of[name] = submission
    both = [table[luna.POSITION].to_numpy() for table in marks_of.values()]
    np.testing.assert_allclose(both[0], both[1], atol=0.5)
    # the way back: a mark's millimetres are those of the box's centre in the original voxels
    geometry = store.geometry(boxes["volume"][0])
    centre = boxes.loc[0, ["x1", "y1", "z1"]].to_numpy(float) / 2 + boxes.loc[0, ["x2", "y2", "z2"]].to_numpy(float) / 2
    voxel = geometry.grid_to_original @ [*centre, 1]
    np.testing.assert_allclose(both[1][0], (geometry.original_to_mm @ voxel)[:3], atol=1e-9)


def test_submissions_go_through_their_file(tmp_path):
    table = marks(["s", 0.1 + 0.2, -1 / 3, 1e-17, 0.1], ["s", 1, 2, 3, 1 - 2**-53])
    table.to_csv(tmp_path / "marks.csv", index=False)
    pd.testing.assert_frame_equal(luna.read_findings(tmp_path / "marks.csv", "probability"), table)


def test_the_challenge_s_tables_are_found_or_asked_for(tmp_path):
    rows = "seriesuid,coordX,coordY,coordZ,diameter_mm\ns,1,2,3,4\n"
    (tmp_path / "annotations.csv").write_text(rows)
    with pytest.raises(FileNotFoundError, match="annotations_excluded.csv does not exist; .*evaluation script"):
        luna.read_challenge(tmp_path)
    (tmp_path / "CSVFILES").mkdir()
    (tmp_path / "CSVFILES" / "annotations_excluded.csv").write_text(rows)
    annotations, excluded = luna.read_challenge(tmp_path)
    assert len(annotations) == len(excluded) == 1


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
