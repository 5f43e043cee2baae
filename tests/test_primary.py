"""The primary claims: seeds and patients together, corrected, against numbers worked out by hand and by simulation."""

import pickle

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lensnb.datasets.manual_boxes import MANUAL_FILE
from lensnb.evaluation import primary
from lensnb.evaluation.froc import Matches
from lensnb.evaluation.primary import PRIMARY, ROWS, Effect, effect, holm, log_odds, primary_claims
from lensnb.files import write_table
from lensnb.runfolder import Run


def test_the_claims_are_the_five_that_were_named():
    assert [(claim.first, claim.second) for claim in PRIMARY] == list(primary.PAIRS) and len(PRIMARY) == 5
    assert ROWS == ("a", "baseline", "c", "b", "e", "g", "f", "h")


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


def test_detectable_is_found_with_the_power_it_names():
    found = Effect(0.0, 1.0, 1e9)
    np.testing.assert_allclose(found.detectable, 1.959964 + 0.841621, atol=1e-5)


def row(rng: np.random.Generator, share: float, volumes: int = 120) -> Matches:
    """One lesion in each volume, found with this probability, and one false positive in each."""
    hit = rng.random(volumes) < share
    order = rng.permutation(2 * volumes)
    return Matches(
        volumes=tuple(f"{n:06d}_01_01_001-020" for n in range(volumes)),
        lesions=np.ones(volumes, dtype=np.int64),
        volume=np.tile(np.arange(volumes), 2)[order],
        score=np.linspace(1, 0, 2 * volumes),
        new_lesions=np.r_[hit, np.zeros(volumes, bool)].astype(np.int64)[order],
        is_false=np.r_[~hit, np.ones(volumes, bool)][order],
    )


def test_verdicts_follow_what_was_put_in():
    shares = {"baseline": 0.8, "a": 0.5, "b": 0.6, "c": 0.6, "e": 0.9, "f": 0.7, "g": 0.7, "h": 0.7}
    matches = {
        seed: {name: row(np.random.default_rng((seed, number)), share) for number, (name, share) in
               enumerate(shares.items())} for seed in range(5)
    }  # fmt: skip
    table = primary_claims(matches, resamples=200)
    assert list(table) == primary.COLUMNS and (table["seeds"] == 5).all()
    verdicts = dict(zip([(claim.first, claim.second) for claim in PRIMARY], table["verdict"], strict=True))
    assert verdicts["a", "baseline"] == "fails" and verdicts["e", "a"] == "holds"
    assert verdicts["c", "b"] == "undecided"
    assert (table["low"] <= table["ours"]).all() and (table["ours"] <= table["high"]).all()
    assert (table["detectable"] > 0).all() and table["p_corrected"].between(0, 1).all()
    again = primary_claims(matches, resamples=200)
    assert table.equals(again)


def test_size_is_compared_on_the_scale_of_odds():
    np.testing.assert_allclose(log_odds(0.5), 0)
    np.testing.assert_allclose(log_odds(0.8), np.log(4))


def test_seeds_must_share_rows_and_test_set():
    whole = {name: row(np.random.default_rng(0), 0.5) for name in ROWS}
    with pytest.raises(ValueError, match="seed 1 has no row h"):
        primary_claims({0: whole, 1: {name: whole[name] for name in ROWS[:-1]}})
    with pytest.raises(ValueError, match="seed 1, row c: its test set is another one"):
        primary_claims({0: whole, 1: whole | {"c": row(np.random.default_rng(0), 0.5, 119)}})


def test_the_command_reads_the_runs_of_all_seeds(tmp_path, monkeypatch):
    """Two seeds whose rows find the same lesions, but for row (e), which finds the second one too."""
    monkeypatch.setenv("LENSNB_ROOT", str(tmp_path))
    runs = {seed: Run("smoke", seed) for seed in (0, 1)}
    names = [f"{n:06d}_01_01_001-020" for n in range(6)]
    for seed, run in runs.items():
        (run.raw / MANUAL_FILE).parent.mkdir(parents=True)
        boxes = np.array([[10.0, 10, 3, 20, 20, 5], [40, 40, 3, 50, 50, 5]])
        with (run.raw / MANUAL_FILE).open("wb") as file:
            pickle.dump({"val": {}, "test": {name: boxes for name in names}}, file)
        for row_name in ROWS:
            found = [(name, *boxes[0], 0.9) for name in names] + [(names[seed], 90, 90, 3, 99, 99, 5, 0.95)]
            found += [(name, *boxes[1], 0.8) for name in names] if row_name == "e" else []
            table = pd.DataFrame(found, columns=["volume", "x1", "y1", "z1", "x2", "y2", "z2", "score"])
            write_table(table, run.detections(row_name))
    table = primary_claims(primary.matches_of(runs), resamples=50).set_index("claim")
    gain = next(claim.text for claim in PRIMARY if claim.first == "e")
    # one false positive above all in six volumes: nothing is found at 1/8; at the other six rates half, and all by (e)
    np.testing.assert_allclose(table.loc[gain, "ours"], 0.5 * 6 / 7)
    np.testing.assert_allclose(table["ours"].drop(gain), 0, atol=1e-12)
    assert (table["seeds"] == 2).all()
