"""Shares of the kinds of lesions that are found: by hand, with intervals, and counts where there are few."""

import numpy as np
import pandas as pd
import pytest

from lensnb.boxes import BOX3D
from lensnb.detection import scoring
from lensnb.evaluation import by_kind, froc
from lensnb.evaluation.by_kind import shares_by

RIGHT = (10, 10, 2, 19, 19, 5)
WRONG = (70, 70, 2, 75, 75, 5)


def boxes(rows, *more):
    return pd.DataFrame(rows, columns=["volume", *BOX3D, *more])


def patients(number: int) -> list[str]:
    return [f"{n:06d}_01_01_001-020" for n in range(number)]


@pytest.fixture
def scene():
    """Forty patients with a lung lesion each, the first ten of them with a liver lesion; half of the lung is found."""
    names = patients(40)
    lesions = boxes([(v, *RIGHT, "lung") for v in names], "type")
    liver = boxes([(v, 40, 40, 2, 49, 49, 5, "liver") for v in names[:10]], "type")
    lesions = pd.concat([lesions, liver], ignore_index=True)
    found = boxes([(v, *RIGHT, 0.9) for v in names[:20]] + [(v, *WRONG, 0.5) for v in names], "score")
    return names, lesions, found


def test_shares_and_their_intervals(scene):
    names, lesions, found = scene
    shares = shares_by("type", found, lesions, names, resamples=500)
    assert shares.shape == (501, 2) and list(shares.columns) == ["liver", "lung"]
    assert shares.iloc[0].to_dict() == {"liver": 0.0, "lung": 0.5}
    low, high = froc.interval(shares["lung"].to_numpy()[1:])
    expected = 1.96 * np.sqrt(0.25 / 40)  # of forty patients with one lesion each
    assert low == pytest.approx(0.5 - expected, abs=0.03) and high == pytest.approx(0.5 + expected, abs=0.03)
    assert (scoring.sensitivity_by("type", found, lesions, names) == shares.iloc[0]).all()


def test_the_draws_are_those_of_the_average(scene):
    """In each redrawn test set the lesions of all kinds together are found as FROC says."""
    names, lesions, found = scene
    together = shares_by("all", found, lesions.assign(all="one"), names, resamples=50)["one"]
    truth = {v: lesions.loc[lesions["volume"] == v, BOX3D].to_numpy(float) for v in names}
    samples = froc.bootstrap(froc.match(truth, found), resamples=50, rates=(1.0,))[:, 0]
    np.testing.assert_allclose(together.to_numpy()[1:], samples)


def test_the_threshold_is_set_anew_in_each_draw():
    """Two patients; what is found in one comes after the false positives of the other."""
    names = patients(2)
    lesions = boxes([(names[0], *RIGHT, "node")], "type")
    found = boxes([(names[0], *RIGHT, 0.5), *[(names[1], *WRONG, 0.9)] * 3], "score")
    shares = shares_by("type", found, lesions, names, rate=1.0, resamples=200)["node"]
    assert shares[0] == 0  # three false positives in two volumes come first
    # drawn: both once (0 as above), the first twice (found), the second twice (no lesion at all)
    assert set(shares.dropna()) == {0.0, 1.0} and shares[1:].isna().any()


def test_few_lesions_have_no_percentage(scene):
    names, lesions, found = scene
    counts = lesions["type"].value_counts()
    shares = {"a": shares_by("type", found, lesions, names, resamples=200)}
    more = pd.concat([found, boxes([(v, 40, 40, 2, 49, 49, 5, 0.95) for v in names[:4]], "score")])
    more = pd.concat([more, boxes([(v, *RIGHT, 0.94) for v in names[20:32]], "score")])
    shares["e"] = shares_by("type", more, lesions, names, resamples=200)
    shown = by_kind.table(shares, counts).set_index("kind")
    assert shown["lesions"].to_dict() == {"liver": 10, "lung": 40}
    assert shown.loc["liver"].tolist()[1:] == ["0 of 10", "4 of 10"]
    assert shown.loc["lung", "a"].startswith("50 [") and shown.loc["lung", "e"].startswith("80 [")
    changed = by_kind.changes(shares, [("e", "a")], counts)
    assert by_kind.changes_table(changed).set_index("kind").loc["liver", "(e) - (a)"] == "+4 of 10"
    (lung,) = changed[changed["kind"] == "lung"].itertuples()
    assert lung.change == pytest.approx(0.3) and 0 < lung.low < 0.3 < lung.high  # paired: none was lost
    text = by_kind.clear_changes(changed, "(e) - (a)")
    assert text.startswith("(e) - (a): more: lung +30 [") and text.endswith("fewer than 30 lesions: liver")


def test_a_share_of_few_is_a_count():
    assert [by_kind.share_or_count(0.5, n) for n in (30, 28)] == ["50.0 %", "14 of 28"]


def test_none_found_has_no_interval(scene):
    names, lesions, found = scene
    many = pd.concat([lesions, lesions.assign(type="bone", x1=30, x2=35)], ignore_index=True)
    shown = by_kind.table({"a": shares_by("type", found, many, names, resamples=20)}, many["type"].value_counts())
    assert shown.set_index("kind").loc["bone", "a"] == "0 of 50"
