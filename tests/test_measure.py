"""Sizes of lesions, against ellipses and boxes worked out by hand."""

import numpy as np
import pandas as pd
import pytest

from lensnb.boxes import BOX
from lensnb.ct import measure


def boxes(*rows) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=BOX)


def ellipse(long_mm: float, short_mm: float, degrees: float, spacing: tuple) -> np.ndarray:
    """A mask (z, y, x) of three slices with an ellipse of these axes; the middle slice shows it largest."""
    y, x = np.mgrid[:120, :120]
    x, y = (x - 60) * spacing[0], (y - 60) * spacing[1]
    turn = np.radians(degrees)
    along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    return np.stack([(2 * along / long_mm) ** 2 + (2 * across / short_mm) ** 2 <= size for size in (0.5, 1, 0.3)])


def axes_of(mask: np.ndarray, spacing: tuple) -> tuple[float, float]:
    """Long and short axis in mm of the one lesion in a mask."""
    (lesion,) = measure.lesions_in(mask.astype(int), spacing).to_dict("records")
    return lesion["long_mm"], lesion["short_mm"]


def test_whole_pixels_include_both_ends():
    # pixels 10 to 19 are 10 pixels of 0.8 mm, rows 20 to 25 are 6 of 0.5 mm
    found = measure.from_boxes(boxes([10, 20, 19, 25], [3, 3, 3, 3]), (0.8, 0.5, 2.0))
    assert found.columns.tolist() == list(measure.COLUMNS)
    np.testing.assert_allclose(found.to_numpy(), [[8, 3, np.sqrt(73)], [0.8, 0.5, np.sqrt(0.89)]])


def test_edges_measure_the_same_box():
    pixels = measure.from_boxes(boxes([10, 20, 19, 25]), (0.8, 0.5))
    edges = measure.from_boxes(boxes([9.5, 19.5, 19.5, 25.5]), (0.8, 0.5), inclusive=False)
    pd.testing.assert_frame_equal(pixels, edges)


def test_margins_come_off_again():
    # 30 x 20 mm with a margin of 4 mm: 22 x 12 mm; a side of 6 mm keeps 3
    found = measure.from_boxes(boxes([0, 0, 30, 20], [0, 0, 6, 20]), (1, 1), margin_mm=4, inclusive=False)
    np.testing.assert_allclose(found[["long_mm", "short_mm"]], [[22, 12], [12, 3]])
    found = measure.from_boxes(boxes([0, 0, 30, 20], [0, 0, 30, 20]), (1, 1), np.array([4, 0]), inclusive=False)
    np.testing.assert_allclose(found["long_mm"], [22, 30])


def test_inverted_boxes_are_named():
    with pytest.raises(ValueError, match=r"box 1 is \[5.0, 3.0, 2.0, 9.0\]: x1, y1 must be below"):
        measure.from_boxes(boxes([0, 0, 1, 1], [5.0, 3.0, 2.0, 9.0]), (1, 1))
    with pytest.raises(ValueError, match="box 0"):
        measure.from_boxes(boxes([0, np.nan, 1, 1]), (1, 1))
    assert measure.from_boxes(boxes(), (1, 1)).empty


@pytest.mark.parametrize("degrees", [0, 20, 45, 70, 90])
@pytest.mark.parametrize("spacing", [(0.5, 0.5), (0.4, 0.7)])
def test_a_mask_gives_the_axes_of_an_ellipse_in_any_direction(degrees, spacing):
    long, short = axes_of(ellipse(30, 18, degrees, spacing), spacing)
    assert abs(long - 30) < 1.1 * max(spacing) and abs(short - 18) < 1.5 * max(spacing)


@pytest.mark.parametrize("degrees", [0, 30, 45, 80])
def test_a_box_bounds_the_long_axis(degrees):
    mask = ellipse(30, 18, degrees, (0.5, 0.5))
    y, x = np.nonzero(mask[1])
    found = measure.from_boxes(boxes([x.min(), y.min(), x.max(), y.max()]), (0.5, 0.5)).iloc[0]
    long, _ = axes_of(mask, (0.5, 0.5))
    assert found["long_mm"] <= long <= found["at_most_mm"]
    if degrees == 0:
        assert found["long_mm"] == pytest.approx(30, abs=0.6) and found["short_mm"] == pytest.approx(18, abs=0.6)


def test_a_single_pixel():
    mask = np.zeros((1, 4, 4), bool)
    mask[0, 1, 2] = True
    assert axes_of(mask, (3, 4)) == pytest.approx((4, 3))


def test_lesions_of_a_mask_with_numbers():
    instances = np.zeros((5, 20, 20), np.uint8)
    instances[1, 2:4, 2:4] = 3
    instances[2, 2:6, 2:5] = 3  # 3 x 4 pixels: the longest slice
    instances[4, 10, 7:17] = 7
    found = measure.lesions_in(instances, (3.0, 4.0))
    assert found[["number", "z_long", *BOX]].to_numpy().tolist() == [[3, 2, 2, 2, 4, 5], [7, 4, 7, 10, 16, 10]]
    # a line of 10 pixels of 3 mm, one of 4 mm wide
    np.testing.assert_allclose(found.loc[1, ["long_mm", "short_mm"]].tolist(), [30, 4])
    # centres 6 mm and 12 mm apart: sqrt(180) = 13.416 along (1, 2) / sqrt(5), where a pixel is sqrt(9 + 64) / sqrt(5)
    # long; across, along (-2, 1) / sqrt(5), the centres reach over 24 / sqrt(5), and a pixel is sqrt(36 + 16) / sqrt(5)
    expected = [np.sqrt(180) + np.sqrt(73 / 5), 24 / np.sqrt(5) + np.sqrt(52 / 5)]
    np.testing.assert_allclose(found.loc[0, ["long_mm", "short_mm"]].tolist(), expected)
    np.testing.assert_allclose(found.loc[1, ["x", "y", "z"]].tolist(), [11.5, 10, 4])
    box = measure.from_boxes(found, (3.0, 4.0))
    np.testing.assert_allclose(box[["long_mm", "short_mm"]], [[16, 9], [30, 4]])
    assert measure.lesions_in(instances * 0, (1, 1)).empty
