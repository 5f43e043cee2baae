"""Boxes: overlaps, suppression and stacking against numbers worked out by hand."""

import numpy as np
import pandas as pd
import pytest

from lensnb.boxes import iobb, iou, nms_table, stack_to_tracklets, tracklets_to_3d, trim_tracklets


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
