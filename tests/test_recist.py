"""RECIST diameters: the longest of the contour at half height and the longest perpendicular to it."""

import numpy as np
import pytest

from lensnb.phantom.recist import recist_diameters
from lensnb.phantom.shapes import ellipsoid_distance, weight


def ellipse(long_: float, short: float, turn: float, edge: float = 1.25) -> tuple[tuple, np.ndarray]:
    """A block at (5, 40, 30) of a picture with an ellipse of these diameters (pixels) in its middle slice."""
    y, x = np.mgrid[0:41, 0:47].astype(np.float32)
    distance = ellipsoid_distance((x, y, np.float32(0)), (23.3, 19.8, 0), (long_ / 2, short / 2, 10), turn)
    share = np.stack([np.zeros_like(x), weight(distance, edge), np.zeros_like(x)])
    return (slice(5, 8), slice(40, 81), slice(30, 77)), share


@pytest.mark.parametrize("turn", np.linspace(0, np.pi, 13)[:-1])
@pytest.mark.parametrize("long_, short", [(30, 20), (12, 9), (8, 4)])
def test_an_ellipse_has_its_axes_as_diameters(long_, short, turn):
    where, share = ellipse(long_, short, turn)
    first, second = (np.array(pair) for pair in recist_diameters(where, share, 6))
    lengths = [np.linalg.norm(pair[1] - pair[0]) for pair in (first, second)]
    assert lengths == pytest.approx([long_, short], abs=0.35)
    assert first.mean(axis=0) == pytest.approx([30 + 23.3, 40 + 19.8], abs=0.5)
    direction = (first[1] - first[0]) / lengths[0]
    assert abs(direction @ (np.cos(turn), np.sin(turn))) > np.cos(0.12)
    assert abs(direction @ (second[1] - second[0])) < 1e-6  # perpendicular


def test_a_disc_has_equal_diameters_in_any_direction():
    where, share = ellipse(16, 16, 0.0)
    first, second = (np.array(pair) for pair in recist_diameters(where, share, 6))
    lengths = [np.linalg.norm(pair[1] - pair[0]) for pair in (first, second)]
    assert lengths == pytest.approx([16, 16], abs=0.2)
    ends = np.concatenate([first, second])  # DeepLesion's box is their hull
    assert (np.ptp(ends, axis=0) <= 16.1).all()


def test_a_lesion_cut_by_the_picture_ends_there():
    where, share = ellipse(30, 20, 0.0)
    cut = (where[0], where[1], slice(0, 30))
    first, _ = recist_diameters(cut, share[:, :, 17:], 6)
    assert min(first[0][0], first[1][0]) == pytest.approx(0, abs=1e-6)


def test_one_pixel_has_diameters_of_nearly_nothing():
    share = np.zeros((1, 5, 5), dtype=np.float32)
    share[0, 2, 3] = 0.5
    first, second = recist_diameters((slice(9, 10), slice(0, 5), slice(0, 5)), share, 9)
    assert np.ptp(first, axis=0) == pytest.approx([0, 0], abs=1e-6)
    assert first[0] == pytest.approx((3, 2)) and second[0] == pytest.approx((3, 2))


@pytest.mark.parametrize("place", [(2, 2), (0, 4), (3, 1)])
def test_a_tip_that_hardly_reaches_half_height_has_diameters(place):
    for peak in np.linspace(0.5, 0.52, 41):
        share = np.full((1, 5, 5), 0.05, dtype=np.float32)
        share[0][place] = peak
        beside = place[0], place[1] - 1
        share[0][beside] = 0.499
        ends = np.concatenate(recist_diameters((slice(9, 10), slice(0, 5), slice(0, 5)), share, 9))
        assert np.ptp(ends, axis=0).max() < 1.1  # the pixel beside it is just under half height
        assert ends.mean(axis=0) == pytest.approx((place[1], place[0]), abs=0.5)


def test_a_slice_without_the_lesion_is_refused():
    where, share = ellipse(12, 9, 0.0)
    with pytest.raises(ValueError, match="slice 5 does not show the lesion"):
        recist_diameters(where, share, 5)
