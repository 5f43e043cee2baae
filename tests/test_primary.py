"""The primary claims: seeds and patients together, corrected, against numbers worked out by hand and by simulation."""

import numpy as np
import pytest

from lensnb.evaluation import primary
from lensnb.evaluation.effects import effect
from lensnb.evaluation.froc import Matches, averages
from lensnb.evaluation.primary import PRIMARY, ROWS, primary_claims


def test_the_claims_are_the_five_that_were_named():
    assert [(claim.first, claim.second) for claim in PRIMARY] == list(primary.PAIRS) and len(PRIMARY) == 5
    assert ROWS == ("a", "baseline", "c", "b", "e", "g", "f", "h")


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
    found = {
        seed: {name: averages(row(np.random.default_rng((seed, number)), share), resamples=200)
               for number, (name, share) in enumerate(shares.items())} for seed in range(5)
    }  # fmt: skip
    table = primary_claims(found)
    assert list(table) == primary.COLUMNS and (table["seeds"] == 5).all()
    verdicts = dict(zip([(claim.first, claim.second) for claim in PRIMARY], table["verdict"], strict=True))
    assert verdicts["a", "baseline"] == "fails" and verdicts["e", "a"] == "holds"
    assert verdicts["c", "b"] == "undecided"
    assert (table["low"] <= table["ours"]).all() and (table["ours"] <= table["high"]).all()
    assert (table["detectable"] > 0).all() and table["p_corrected"].between(0, 1).all()
    assert set(table["size"]) <= {"agrees", "smaller", "larger"} and table["size"][0] == "smaller"
    assert table.equals(primary_claims(dict(reversed(found.items()))))  # in any order of the seeds


def test_seeds_must_share_rows_and_draws():
    whole = {name: np.linspace(0.5, 0.6, 11) for name in ROWS}
    with pytest.raises(ValueError, match="seed 1 has no row h"):
        primary_claims({0: whole, 1: {name: whole[name] for name in ROWS[:-1]}})
    with pytest.raises(ValueError, match="differ in their number of bootstrap samples"):
        primary_claims({0: whole, 1: whole | {"c": np.linspace(0.5, 0.6, 6)}})


def simulated(rng: np.random.Generator, seeds: int, volumes: int) -> np.ndarray:
    """The difference of two methods for some seeds: (seeds, 1 + draws) averages of FROC curves.

    Each seed moves the second method by chance, each patient is easy or hard for all seeds, and each seed is better or
    worse at each patient.
    """
    hard, both = rng.normal(0, 1, volumes), []
    for seed_moves in (np.zeros(seeds), rng.normal(0, 0.3, seeds)):
        own = []
        for moved in seed_moves:
            share = 1 / (1 + np.exp(-(0.3 + moved + hard + rng.normal(0, 0.5, volumes))))
            own.append(averages(row(rng, share, volumes), resamples=300))
        both.append(np.array(own))
    return both[1] - both[0]


def test_error_is_that_of_a_hierarchical_bootstrap():
    """Seeds and, in each draw, patients drawn with replacement, on simulated curves.

    Drawing k seeds has (k - 1) / k of the variance of a mean over seeds. For the rest both agree, up to what seed and
    patient do together, which the bootstrap counts three times and `effect` twice (Owen, Ann. Appl. Stat. 2007).
    """
    rng, ratios = np.random.default_rng(0), []
    for seeds in (4, 8):
        for _ in range(4):
            apart = simulated(rng, seeds, 80)
            drawn = rng.integers(seeds, size=(4000, seeds))
            patients = rng.integers(1, apart.shape[1], size=4000)
            samples = apart[drawn, patients[:, None]].mean(axis=1)
            of_patients = apart[:, 1:].mean(axis=0).var(ddof=1)
            corrected = of_patients + (samples.var(ddof=1) - of_patients) * seeds / (seeds - 1)
            ratios.append(effect(apart[:, 0], apart[:, 1:]).error ** 2 / corrected)
    assert 0.6 < min(ratios) and max(ratios) < 1.1, ratios
