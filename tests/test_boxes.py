"""Boxes: overlaps, suppression and stacking against numbers worked out by hand."""

import numpy as np
import pandas as pd
import pytest
import torch
from torchvision.ops import nms

from lensnb.boxes import (
    BOX,
    iobb,
    iou,
    nms_table,
    paired_iou,
    ranges,
    same_slice_pairs,
    slices_of,
    stack_to_tracklets,
    tracklets_to_3d,
    trim_tracklets,
)


def table(rows, columns=("volume", "z", "x1", "y1", "x2", "y2", "score")):
    return pd.DataFrame(rows, columns=list(columns))


def test_iou_and_iobb_by_hand():
    a = np.array([[0.0, 0, 4, 4], [10, 10, 12, 12]])
    b = np.array([[2.0, 2, 6, 6], [0, 0, 2, 2]])
    # 2 x 2 shared of 16 + 16 - 4; 2 x 2 shared of 16
    np.testing.assert_allclose(iou(a, b), [[4 / 28, 4 / 16], [0, 0]])
    np.testing.assert_allclose(iobb(a, b), [[4 / 16, 4 / 16], [0, 0]])


def test_iou_of_nothing_is_an_empty_matrix():
    assert iou(np.zeros((0, 4)), np.zeros((3, 4))).shape == (0, 3)


def test_nms_works_within_a_slice_only():
    rows = table(
        [("v", 0, 0, 0, 4, 4, 0.5), ("v", 0, 0, 0, 4, 4.5, 0.9), ("v", 1, 0, 0, 4, 4, 0.3), ("w", 0, 0, 0, 4, 4, 0.2)]
    )
    assert nms_table(rows, 0.5)["score"].tolist() == [0.9, 0.3, 0.2]


def test_nms_keeps_the_rows_that_torchvision_keeps():
    """On random tables with equal scores, equal boxes, boxes without area, and IoUs of exactly the threshold."""
    rng = np.random.default_rng(0)
    for number in range(60):
        n = int(rng.integers(1, 200))
        low, size = rng.uniform(0, 30, (n, 2)), rng.uniform(0, 15, (n, 2))
        if number % 2:
            low, size = low.round(), size.round()
        rows = pd.DataFrame(np.c_[low, low + size], columns=BOX, dtype=[np.float64, np.float32][number % 3 == 0])
        rows = rows.assign(volume=rng.integers(0, 3, n).astype(str), z=rng.integers(0, 3, n), score=rng.random(n))
        rows["score"] = rows["score"].round(1 + number % 2)
        for threshold in (0.0, 0.3, 0.5):
            kept = []
            for _, here in rows.groupby(["volume", "z"]):
                boxes, scores = torch.tensor(here[BOX].to_numpy(float)), torch.tensor(here["score"].to_numpy(float))
                kept += here.index[nms(boxes, scores, threshold).numpy()].tolist()
            assert nms_table(rows, threshold).index.tolist() == sorted(kept)


def test_ranges_come_one_after_another():
    assert ranges([10, 20, 30], [2, 0, 3]).tolist() == [10, 11, 30, 31, 32]
    assert ranges(np.zeros(0, int), np.zeros(0, int)).tolist() == []


def test_slices_of_a_3d_box():
    boxes = pd.DataFrame({"volume": ["v", "v"], "z1": [2.4, 7.0], "z2": [4.2, 7.0]})
    assert slices_of(boxes)["z"].tolist() == [2, 3, 4, 7]


def test_same_slice_pairs_finds_every_pair_once_with_its_iou():
    columns = ("volume", "z", "x1", "y1", "x2", "y2")
    a = table([("v", 1, 0, 0, 10, 10), ("v", 2, 0, 0, 10, 10), ("w", 1, 0, 0, 10, 10)], columns)
    b = table([("w", 1, 5, 0, 15, 10), ("v", 1, 0, 0, 10, 10), ("v", 1, 5, 0, 15, 10), ("v", 3, 0, 0, 10, 10)], columns)
    pairs = same_slice_pairs(a, b)
    found = {(i, j): round(v, 6) for i, j, v in pairs.itertuples(index=False)}
    assert found == {(0, 1): 1.0, (0, 2): round(50 / 150, 6), (2, 0): round(50 / 150, 6)}


def test_paired_iou_is_the_diagonal_of_the_matrix():
    rng = np.random.default_rng(0)
    a, b = (np.c_[low := rng.uniform(0, 20, (50, 2)), low + rng.uniform(1, 20, (50, 2))] for _ in range(2))
    assert np.array_equal(paired_iou(a, b), np.diag(iou(a, b)))


def test_stacking_follows_a_lesion_through_slices_and_stops_at_gaps():
    rows = table(
        [
            ("v", 3, 0, 0, 10, 10, 0.9),
            ("v", 4, 1, 1, 11, 11, 0.8),  # IoU 81 / 119 with the slice before
            ("v", 6, 1, 1, 11, 11, 0.7),  # a slice is missing between: another tracklet
            ("v", 4, 30, 30, 40, 40, 0.6),
            ("w", 5, 1, 1, 11, 11, 0.5),  # the next slice, but of another volume
        ]
    )
    result = stack_to_tracklets(rows, 0.5)
    groups = result.groupby("tracklet")["score"].apply(sorted).tolist()
    assert sorted(groups) == sorted([[0.8, 0.9], [0.7], [0.6], [0.5]])


def test_stacking_gives_a_contested_box_to_the_better_overlap():
    rows = table([("v", 0, 0, 0, 10, 10, 0.9), ("v", 0, 2, 0, 12, 10, 0.8), ("v", 1, 2, 0, 12, 10, 0.7)])
    result = stack_to_tracklets(rows, 0.5).set_index("score")["tracklet"]
    assert result[0.7] == result[0.8] != result[0.9]


def test_stacking_threshold_is_strict():
    rows = table([("v", 0, 0, 0, 10, 10, 0.9), ("v", 1, 0, 0, 10, 5, 0.8)])  # IoU exactly 0.5
    assert stack_to_tracklets(rows, 0.5)["tracklet"].nunique() == 2


def test_3d_box_is_the_score_weighted_average():
    rows = table([("v", 3, 0, 0, 10, 10, 0.9), ("v", 4, 2, 2, 12, 12, 0.3)]).assign(tracklet=7, expert="LiTS")
    result = tracklets_to_3d(rows).iloc[0]
    assert result[["x1", "x2"]].tolist() == pytest.approx([0.5, 10.5])  # weights 3/4 and 1/4
    assert result[["z1", "z2", "z", "score", "tracklet"]].tolist() == [3, 4, 3, 0.9, 7]


def test_trimming_drops_fading_ends_only():
    rows = table([("v", z, 0, 0, 1, 1, s) for z, s in enumerate([0.2, 0.8, 0.9, 0.4])]).assign(tracklet=0)
    assert trim_tracklets(rows, 0.5)["z"].tolist() == [1, 2]
    assert len(trim_tracklets(rows, 0.0)) == 4


def test_empty_tables_pass_through():
    empty = table([]).assign(expert=[])
    assert nms_table(empty, 0.5).empty
    stacked = stack_to_tracklets(empty, 0.5)
    assert tracklets_to_3d(stacked).empty
