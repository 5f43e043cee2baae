"""FROC: the authors' rule by hand and on the golden predictions, and its bootstrap intervals."""

import json
import time

import numpy as np
import pandas as pd
import pytest

from lensnb.evaluation import froc
from lensnb.streams import Stream, generator

LESION = [10, 10, 5, 19, 19, 9]  # 10 x 10 x 5 voxels, ends included


def detections(*rows) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["volume", *froc.BOX3D, "score"])


def points(matches: froc.Matches) -> list[tuple[float, float]]:
    line = froc.curve(matches)
    return list(zip(line.false_positives.tolist(), line.sensitivity.tolist(), strict=True))


def test_overlap_includes_both_ends():
    # 5 x 10 x 5 = 250 shared voxels of a 10 x 10 x 5 = 500 voxel detection; the union is 750
    half = np.array([[15, 10, 5, 24, 19, 9]], dtype=float)
    lesion = np.array([LESION], dtype=float)
    assert froc.overlap_3d(half, lesion, "iobb")[0, 0] == 0.5
    assert froc.overlap_3d(half, lesion, "iou")[0, 0] == pytest.approx(1 / 3, abs=1e-15)
    # a detection inside a lesion lies in it wholly, however small
    inside = np.array([[12, 12, 6, 12, 12, 6]], dtype=float)
    assert froc.overlap_3d(inside, lesion, "iobb")[0, 0] == 1.0
    assert froc.overlap_3d(inside, lesion, "iou")[0, 0] == 1 / 500
    # boxes that only touch (last voxel 19, first voxel 20) share nothing
    assert froc.overlap_3d(np.array([[20, 10, 5, 29, 19, 9]], dtype=float), lesion, "iobb")[0, 0] == 0
    with pytest.raises(ValueError, match="overlap is 'dice'"):
        froc.overlap_3d(half, lesion, "dice")


def test_threshold_is_reached_not_exceeded():
    # 3 of the detection's 10 columns lie in the lesion: IoBB is exactly 0.3 and hits
    at = detections(["a", 17, 10, 5, 26, 19, 9, 0.5])
    assert points(froc.match({"a": [LESION]}, at, threshold=0.3)) == [(0.0, 1.0)]
    assert points(froc.match({"a": [LESION]}, at, threshold=0.31)) == [(1.0, 0.0)]


def test_repeated_hit_is_neither_true_nor_false():
    truth = {"a": [LESION], "b": []}
    twice = detections(["a", *LESION, 0.9], ["a", *LESION, 0.8], ["b", *LESION, 0.7])
    assert points(froc.match(truth, twice)) == [(0.0, 1.0), (0.0, 1.0), (0.5, 1.0)]
    assert points(froc.match(truth, twice, one_to_one=True)) == [(0.0, 1.0), (0.5, 1.0), (1.0, 1.0)]


def test_one_box_over_two_lesions_finds_both():
    neighbour = [20, 10, 5, 29, 19, 9]
    truth = {"a": [LESION, neighbour], "b": [LESION]}
    over_both = detections(["a", 10, 10, 5, 29, 19, 9, 0.9], ["a", *neighbour, 0.8], ["b", *LESION, 0.7])
    assert froc.match(truth, over_both).new_lesions.tolist() == [2, 0, 1]
    assert points(froc.match(truth, over_both))[-1] == (0.0, 1.0)
    strict = froc.match(truth, over_both, one_to_one=True)
    assert strict.new_lesions.tolist() == [
        1,
        1,
        1,
    ]  # the second detection finds the lesion that is still free
    assert not strict.is_false.any()


def test_one_to_one_takes_the_lesion_of_largest_overlap():
    truth = {"a": [[10, 10, 5, 19, 19, 9], [10, 10, 5, 17, 19, 9]]}
    found = froc.match(
        truth, detections(["a", 10, 10, 5, 17, 19, 9, 0.9], ["a", *LESION, 0.8]), "iou", 0.9, one_to_one=True
    )
    assert found.new_lesions.tolist() == [1, 1]


def test_volumes_without_lesions_or_detections_count():
    truth = {"a": [LESION], "empty": [], "c": [LESION], "d": []}
    found = froc.match(truth, detections(["empty", *LESION, 0.9], ["a", *LESION, 0.8]))
    # one false positive in four volumes before the only hit; the lesion of c is missed
    assert points(found) == [(0.25, 0.0), (0.25, 0.5)]
    assert froc.sensitivity_at(froc.curve(found), [0.125, 0.25, 8]).tolist() == [0.0, 0.5, 0.5]


def test_no_detections_at_all():
    result = froc.evaluate({"a": [LESION], "b": []}, detections())
    assert result.sensitivity == (0.0,) * 7 and result.average == 0
    assert (result.average_low, result.average_high) == (0, 0)


def test_no_lesion_at_all_is_an_error():
    with pytest.raises(ValueError, match="no lesion in its 2 volume"):
        froc.evaluate({"a": [], "b": []}, detections(["a", *LESION, 1.0]))


def test_sensitivity_between_points_is_that_of_the_point_before():
    away = [100, 100, 5, 109, 109, 9]
    truth = {"a": [LESION, [40, 40, 5, 49, 49, 9]], "b": [], "c": []}
    found = froc.match(
        truth,
        detections(
            ["a", *LESION, 0.9],
            ["b", *away, 0.8],
            ["c", *away, 0.7],
            ["a", 40, 40, 5, 49, 49, 9, 0.6],
            ["c", *away, 0.5],
        ),
    )
    # points: (0, .5) (1/3, .5) (2/3, .5) (2/3, 1) (1, 1)
    rates = [0.0, 0.5, 0.6, 2 / 3, 0.8, 1.0, 2.0]
    assert froc.sensitivity_at(froc.curve(found), rates).tolist() == [0.5, 0.5, 0.5, 1, 1, 1, 1]


def authors_rule(truth, table, overlap, threshold, rates):
    """The rule as stated, box by box, with scipy's interpolation: slow, and independent of froc.py."""
    from scipy.interpolate import interp1d

    rows = [(v, row) for v in truth for row in table.loc[table.volume == v, [*froc.BOX3D, "score"]].to_numpy(float)]
    order = np.argsort(np.array([row[6] for _, row in rows]))[::-1]
    hit = {v: [False] * len(boxes) for v, boxes in truth.items()}
    true, false, sensitivity, false_positives = 0, 0, [], []
    for volume, row in (rows[i] for i in order):
        hits = []
        for j, lesion in enumerate(truth[volume]):
            sides = [max(0.0, min(row[3 + k], lesion[3 + k]) - max(row[k], lesion[k]) + 1) for k in range(3)]
            shared = sides[0] * sides[1] * sides[2]
            size = np.prod([row[3 + k] - row[k] + 1 for k in range(3)])
            union = size + np.prod([lesion[3 + k] - lesion[k] + 1 for k in range(3)]) - shared
            if shared / (size if overlap == "iobb" else union) >= threshold:
                hits.append(j)
        true += sum(not hit[volume][j] for j in hits)
        for j in hits:
            hit[volume][j] = True
        false += not hits
        sensitivity.append(true / sum(len(boxes) for boxes in truth.values()))
        false_positives.append(false / len(truth))
    x, y = np.array(false_positives), np.array(sensitivity)
    line = interp1d(x, y)
    return [0.0 if rate < x[0] else y[-1] if rate > x[-1] else float(line(rate)) for rate in rates]


@pytest.mark.parametrize("overlap", froc.OVERLAPS)
@pytest.mark.parametrize("decimals", [6, 1])
def test_agrees_with_a_box_by_box_evaluation(overlap, decimals):
    # 37 volumes: the rates fall between the points; one decimal: most scores are tied
    rng = np.random.default_rng((1, decimals))
    truth = {f"v{i}": _boxes(rng, rng.integers(0, 6)) for i in range(37)}
    rows = []
    for volume in rng.choice(list(truth), 600):
        boxes = truth[volume]
        box = boxes[rng.integers(len(boxes))] if len(boxes) and rng.random() < 0.5 else _boxes(rng, 1)[0]
        box = box + np.tile(rng.integers(-3, 4, 3), 2)
        rows.append([volume, *box, round(rng.random(), decimals)])
    table = detections(*rows)
    ours = froc.sensitivity_at(froc.curve(froc.match(truth, table, overlap, 0.3)), froc.RATES)
    np.testing.assert_allclose(ours, authors_rule(truth, table, overlap, 0.3, froc.RATES), rtol=0, atol=1e-9)
    assert 0 < ours[2] < 0.6 * ours[-1] < 0.6  # the rates do fall on the rising part


def _boxes(rng, number):
    low = rng.integers(0, 40, (number, 3))
    return np.hstack([low, low + rng.integers(3, 15, (number, 3))]).astype(float)


def test_golden(shared_data):
    safe_pickle = pytest.importorskip("lensnb.datasets.manual_boxes")
    golden = shared_data / "golden"
    truth = safe_pickle.load_manual_boxes(shared_data / "real/DeepLesion/DeepLesion_manual_1K_test_release.pkl")
    table = pd.read_csv(golden / "deeplesion_val_predictions.csv")
    expected = json.loads((golden / "deeplesion_froc_expected.json").read_text())
    assert expected
    for key, wanted in expected.items():
        split, overlap, threshold = key.split("/")
        result = froc.evaluate(truth[split], table, overlap.lower(), float(threshold), resamples=0)
        np.testing.assert_allclose(result.sensitivity, wanted["sensitivity"], rtol=0, atol=1e-9, err_msg=key)
        assert result.average == pytest.approx(wanted["average"], abs=1e-9), key


def many_boxes(number: int, volumes: int, seed: int):
    rng = np.random.default_rng(seed)
    truth = {f"{i % 300:06d}_01_01_{i:03d}-999": _boxes(rng, 5) for i in range(volumes)}
    names = rng.choice(list(truth), number)
    boxes = np.array([truth[v][rng.integers(5)] if rng.random() < 0.3 else _boxes(rng, 1)[0] for v in names])
    return truth, pd.DataFrame(
        {"volume": names, **dict(zip(froc.BOX3D, boxes.T, strict=True)), "score": rng.random(number)}
    )


def test_ten_thousand_boxes_in_well_under_a_second():
    truth, table = many_boxes(10_000, 400, seed=2)
    start = time.perf_counter()
    matches = froc.match(truth, table)
    froc.sensitivity_at(froc.curve(matches))
    matched = time.perf_counter()
    samples = froc.bootstrap(matches)
    assert matched - start < 0.5  # 0.03 s when the machine is idle
    assert time.perf_counter() - matched < 5  # 0.05 s
    assert samples.shape == (1000, 7)


def test_bootstrap_equals_evaluating_the_resampled_volumes():
    truth, table = many_boxes(300, 12, seed=3)
    matches = froc.match(truth, table)
    groups = [f"p{i % 5}" for i in range(12)]
    samples = froc.bootstrap(matches, groups, resamples=8, seed=4)
    draws = generator(4, Stream.FROC_BOOTSTRAP, 5).multinomial(5, [0.2] * 5, size=8)
    for sample, drawn in zip(samples, draws, strict=True):
        copies = [(v, k) for i, v in enumerate(truth) for k in range(drawn[i % 5])]
        again = pd.concat([table[table.volume == v].assign(volume=f"{v}/{k}") for v, k in copies])
        wanted = froc.sensitivity_at(froc.curve(froc.match({f"{v}/{k}": truth[v] for v, k in copies}, again)))
        np.testing.assert_allclose(sample, wanted, rtol=0, atol=1e-12)


def test_bootstrap_is_seeded_and_draws_patients():
    truth, table = many_boxes(2000, 60, seed=5)
    matches = froc.match(truth, table)
    np.testing.assert_array_equal(froc.bootstrap(matches, seed=1), froc.bootstrap(matches, seed=1))
    assert (froc.bootstrap(matches, seed=1) != froc.bootstrap(matches, seed=2)).any()
    # all volumes in one group: every resampled set is the test set itself
    alone = froc.bootstrap(matches, ["all"] * 60, resamples=3)
    np.testing.assert_allclose(alone, [froc.sensitivity_at(froc.curve(matches))] * 3)
    with pytest.raises(ValueError, match="1 groups for 60 volumes"):
        froc.bootstrap(matches, ["all"])


def test_patients_from_names():
    assert froc.patients(["000012_03_01_004-060", "000012_04_01_001-010", "ABD_LYMPH_001"]) == [
        "000012",
        "000012",
        "ABD_LYMPH_001",
    ]


def test_interval_holds_the_average_and_narrows_with_volumes():
    few, many = (froc.evaluate(*many_boxes(10 * n, n, seed=6)) for n in (20, 300))
    for result in (few, many):
        assert result.average_low < result.average < result.average_high
    assert many.average_high - many.average_low < 0.6 * (few.average_high - few.average_low)


def test_paired_difference():
    truth, table = many_boxes(400, 100, seed=7)
    matches = froc.match(truth, table)
    same = froc.difference(matches, matches)
    assert (same.value, same.low, same.high) == (0, 0, 0)  # unpaired, the interval would not be a point
    # the second method misses the lesions of every fourth detection
    worse = froc.match(truth, table[np.arange(len(table)) % 4 > 0])
    found = froc.difference(matches, worse)
    averages = [froc.sensitivity_at(froc.curve(m)).mean() for m in (matches, worse)]
    assert found.value == pytest.approx(averages[0] - averages[1])
    assert 0 < found.low < found.value < found.high
    lone = [froc.interval(froc.bootstrap(m).mean(axis=1)) for m in (matches, worse)]
    assert found.high - found.low < max(high - low for low, high in lone)
    with pytest.raises(ValueError, match="the same volumes"):
        froc.difference(matches, froc.match({"a": [LESION]}, detections()))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (detections(["a", *LESION, 0.5]).drop(columns="z2"), r"column\(s\) z2 missing"),
        (detections(["a", *LESION, 0.5], ["a", *LESION, np.nan]), "row 2: the score is nan"),
        (detections(["a", 1, 2, 3, np.nan, 5, 6, 0.5]), "row 1: a coordinate is not a finite number"),
        (detections(["a", 1, 2, 3, 4, 5, 2, 0.5]), "row 1: an inverted box"),
        (detections(["a", *LESION, 0.5], ["x", *LESION, 0.5]), "1 volume.* the first is x"),
    ],
)
def test_bad_detections_are_refused(table, message):
    with pytest.raises(ValueError, match=message):
        froc.match({"a": [LESION]}, table)


def test_truth_as_a_table():
    table = pd.DataFrame([["a", *LESION], ["b", *[np.nan] * 6], ["a", *LESION]], columns=["volume", *froc.BOX3D])
    truth = froc.truth_by_volume(table)
    assert {v: len(b) for v, b in truth.items()} == {"a": 2, "b": 0}
    with pytest.raises(ValueError, match="a volume without lesions.* for a"):
        froc.truth_by_volume(pd.DataFrame([["a", *LESION], ["a", *[np.nan] * 6]], columns=["volume", *froc.BOX3D]))
    with pytest.raises(ValueError, match="the truth of a, box 0: an inverted box"):
        froc.truth_by_volume({"a": [[5, 5, 5, 1, 9, 9]]})
    with pytest.raises(ValueError, match="the truth, row 2: a coordinate"):
        froc.truth_by_volume(pd.DataFrame([["a", *LESION], ["b", 1, *[np.nan] * 5]], columns=["volume", *froc.BOX3D]))
