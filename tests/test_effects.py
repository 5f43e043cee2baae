"""Effects of several trainings and all test patients together, against numbers worked out by hand and by simulation."""

import numpy as np
import pytest
from scipy import stats

from lensnb.evaluation.effects import Effect, effect, holm


def test_holm_by_hand():
    # sorted .01 .02 .03 .04: times 4, 3, 2, 1 = .04 .06 .06 .04, never falling: .04 .06 .06 .06
    np.testing.assert_allclose(holm(np.array([0.04, 0.01, 0.03, 0.02])), [0.06, 0.04, 0.06, 0.06])
    np.testing.assert_allclose(holm(np.array([0.5, 0.6])), [1, 1])


def test_effect_of_seeds_and_patients_by_hand():
    # seeds 1, 2, 3: mean 2, variance 1, so 1/3 for their mean; patients: means over seeds 1 and 3 by draw, variance 2
    found = effect(np.array([1.0, 2, 3]), np.array([[0.0, 2], [1, 3], [2, 4]]))
    np.testing.assert_allclose((found.value, found.error**2), (2, 1 / 3 + 2))
    np.testing.assert_allclose(found.freedom, 2 * (7 / 3 / (1 / 3)) ** 2)  # 98
    half = stats.t.ppf(0.975, 98) * np.sqrt(7 / 3)
    np.testing.assert_allclose(found.interval(), (2 - half, 2 + half))
    np.testing.assert_allclose(found.p(), 2 * stats.t.sf(2 / np.sqrt(7 / 3), 98))


def test_draws_without_a_lesion_are_left_out():
    found = effect(np.array([1.0, 1]), np.array([[0.0, 2, np.nan], [0, 2, np.nan]]))
    np.testing.assert_allclose(found.error**2, 2)


def test_one_seed_decides_nothing():
    with pytest.raises(ValueError, match="1 seed says nothing"):
        effect(np.array([1.0]), np.zeros((1, 5)))


def test_intervals_cover_as_often_as_they_say():
    """Five seeds with sd 1, and patients who move all of them alike by sd .5: 95 % intervals hold 0 in 95 of 100."""
    rng, inside = np.random.default_rng(0), 0
    for _ in range(2000):
        values = rng.normal(0, 1, 5) + rng.normal(0, 0.5)
        low, high = effect(values, values[:, None] + rng.normal(0, 0.5, 400)).interval()
        inside += low <= 0 <= high
    assert 0.935 <= inside / 2000 <= 0.97


def test_what_three_trainings_are_worth():
    """Three splits with sd 1, and patients who move all of them alike: 92 of 100 at the worst, 95 else."""
    rng, inside = np.random.default_rng(2), {}
    for patients in (0.2, 5.0):
        held = 0
        for _ in range(1500):
            values = rng.normal(0, 1, 3) + rng.normal(0, patients)
            low, high = effect(values, values[:, None] + rng.normal(0, patients, 400)).interval()
            held += low <= 0 <= high
        inside[patients] = held / 1500
    assert 0.90 < inside[0.2] < 0.94 < inside[5.0] < 0.97, inside


def test_intervals_are_not_too_narrow_where_seeds_differ_by_patient():
    """Five seeds and forty patients, each with a chance of its own and one for each pair of them."""
    rng, inside = np.random.default_rng(1), 0
    draws = rng.multinomial(40, np.full(40, 1 / 40), size=200) / 40
    for _ in range(400):
        cells = rng.normal(0, 0.1, (5, 1)) + rng.normal(0, 1, (1, 40)) + rng.normal(0, 1, (5, 40))
        low, high = effect(cells.mean(axis=1), cells @ draws.T).interval()
        inside += low <= 0 <= high
    assert inside / 400 >= 0.93


def test_detectable_is_found_with_the_power_it_names():
    found = Effect(0.0, 1.0, 1e9)
    np.testing.assert_allclose(found.detectable, 1.959964 + 0.841621, atol=1e-5)
