"""Calibration of experts' scores: two maps by hand, and what they do to tables of boxes."""

import numpy as np
import pandas as pd
import pytest
from mining_tables import boxes
from small_store import write_store

from lensnb.detection import scoring
from lensnb.evaluation import calibration
from lensnb.evaluation.calibration import Platt, calibrate, calibrate_crosswise, fit_platt, isotonic
from lensnb.settings import load_profile


def test_isotonic_by_hand():
    """Scores .1 to .6, right or not: 0, 1, 0, 1, 0, 1. Both descents are pooled to a half."""
    found = isotonic([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [0, 1, 0, 1, 0, 1])
    assert found["score"].tolist() == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    assert found["chance"].tolist() == [0, 0.5, 0.5, 0.5, 0.5, 1]
    # a late descent reaches back over several blocks: 1/1, 1/2 -> 2/3, then 0 -> 2/4
    assert isotonic([0.1, 0.2, 0.2, 0.9], [1, 1, 0, 0])["chance"].tolist() == [0.5, 0.5, 0.5]
    assert isotonic([0.3, 0.3, 0.3], [1, 0, 0])["chance"].tolist() == pytest.approx([1 / 3])
    assert len(isotonic([], [])) == 0


def some(n: int = 400, slope: float = 2.0, intercept: float = -1.0) -> tuple[np.ndarray, np.ndarray]:
    """Scores, and what they really mean by a Platt map."""
    rng = np.random.default_rng(0)
    scores = rng.uniform(0.01, 0.99, n)
    return scores, rng.random(n) < Platt(slope, intercept)(scores)


def test_isotonic_never_falls_and_is_the_best_such_fit():
    scores, right = some()
    order = np.random.default_rng(1).permutation(len(scores))
    found = isotonic(scores, right)
    assert found.equals(isotonic(scores[order], right[order]))
    assert (np.diff(found["chance"]) >= 0).all() and found["chance"].between(0, 1).all()
    assert found["chance"].mean() == pytest.approx(right.mean())  # all scores differ here
    fitted = np.interp(scores, found["score"], found["chance"])
    for other in (Platt(2.0, -1.0)(scores), np.where(scores > 0.6, 0.8, 0.2), scores):  # all of them never fall
        assert ((fitted - right) ** 2).sum() <= ((other - right) ** 2).sum()


def test_isotonic_is_that_of_scikit_learn():
    of_others = pytest.importorskip("sklearn.isotonic")
    scores, right = some()
    found = isotonic(scores, right)
    wanted = of_others.IsotonicRegression().fit(scores, right).predict(found["score"])
    np.testing.assert_allclose(found["chance"], wanted)


def test_platt_finds_what_scores_mean():
    found = fit_platt(*some(20_000))
    assert found.slope == pytest.approx(2, abs=0.1) and found.intercept == pytest.approx(-1, abs=0.1)
    assert Platt()(np.array([0.2, 0.7])) == pytest.approx([0.2, 0.7])


def test_platt_is_the_most_likely_map():
    """The derivatives of the cross-entropy with Platt's targets vanish."""
    scores, right = some()
    found = fit_platt(scores, right)
    target = np.where(right, (right.sum() + 1) / (right.sum() + 2), 1 / ((~right).sum() + 2))
    error, odds = found(scores) - target, np.log(scores / (1 - scores))
    assert abs(error.sum()) < 1e-5 and abs((error * odds).sum()) < 1e-5


@pytest.mark.parametrize(
    ("scores", "right", "wanted"),
    [
        ([0.9, 0.8, 0.2, 0.1], [False, False, True, True], [0.5, 0.5, 0.5, 0.5]),  # would turn around: flat
        ([0.2, 0.4], [False, False], [0.25, 0.25]),  # 1 / (2 + 2)
        ([], [], []),
    ],
)
def test_platt_of_what_says_little(scores, right, wanted):
    found = fit_platt(np.array(scores), np.array(right, dtype=bool))
    assert found(np.array(scores, dtype=float)).tolist() == pytest.approx(wanted)
    assert found.slope >= 0


def test_platt_stays_finite_where_scores_separate():
    found = fit_platt(np.array([0.1, 0.2, 0.8, 1.0]), np.array([False, False, True, True]))
    chance = found(np.array([0.0, 0.1, 0.8, 1.0]))
    assert np.isfinite(chance).all() and (np.diff(chance) > 0).all() and 0 < found.slope < 100


def proposals() -> pd.DataFrame:
    table = boxes(("p1", 5, 0.0), ("p1", 5, 40.0), ("q1", 5, 0.0), ("q1", 5, 40.0), score=[0.9, 0.6, 0.8, 0.3])
    both = pd.concat([table.assign(expert=name) for name in ("DeepLesion", "LUNA16")], ignore_index=True)
    return both.astype({"expert": "category", "volume": "category"})


def test_calibrated_proposals():
    table = calibrate(proposals(), {"LUNA16": Platt(1.0, 1.0)})
    ours, theirs = (table[table["expert"] == name]["score"].to_numpy() for name in ("DeepLesion", "LUNA16"))
    assert ours.tolist() == [0.9, 0.6, 0.8, 0.3] and (theirs > ours).all()
    assert (np.argsort(ours) == np.argsort(theirs)).all()


def test_each_half_of_the_patients_gets_the_map_of_the_other():
    lesions = boxes(("p1", 5, 0.0), ("q1", 5, 0.0), ("q1", 5, 40.0))  # of q1's boxes all are right, of p1's one
    patients = pd.Series({"p1": "p", "q1": "q"})
    table = calibrate_crosswise(proposals(), {"LUNA16": Platt(1.0, 1.0)}, lesions, patients)
    assert list(table.columns) == list(proposals().columns) and table.index.equals(proposals().index)
    score = table.set_index(["expert", "volume"])["score"]
    of_q = fit_platt(np.array([0.8, 0.3]), np.array([True, True]))
    of_p = fit_platt(np.array([0.9, 0.6]), np.array([True, False]))
    assert score["DeepLesion", "p1"].tolist() == pytest.approx(of_q(np.array([0.9, 0.6])))
    assert score["DeepLesion", "q1"].tolist() == pytest.approx(of_p(np.array([0.8, 0.3])))
    assert score["LUNA16", "p1"].tolist() == pytest.approx(Platt(1.0, 1.0)(np.array([0.9, 0.6])))


def test_an_expert_alone_finds_the_same_after_calibration():
    """A strictly increasing map changes which slices a lesion keeps (trim) but not what comes first."""
    settings = load_profile("phantom").inference
    table = proposals()
    raw = scoring.detections(table, settings, ["LUNA16"])
    new = scoring.detections(calibrate(table, {"LUNA16": Platt(2.0, -1.0)}), settings, ["LUNA16"])
    assert raw.sort_values("score")["x1"].tolist() == pytest.approx(new.sort_values("score")["x1"].tolist())


def test_specialists_learn_from_their_own_validation_volumes(tmp_path):
    """NIH-LN's nodes are labelled from slice 2 to 4: boxes on other slices say nothing."""
    store = write_store(tmp_path)
    store.volumes["split"] = ["train", "val"] * 4
    rows = [
        (f"{name}-{i}", z, x) for name in ("LUNA16", "NIH-LN") for i in (0, 1) for z in (1, 3) for x in (20.0, 40.0)
    ]
    table = boxes(*rows, expert="LUNA16", score=0.5)
    table["expert"] = table["volume"].str[:-2]
    table = table.assign(y1=10.0, y2=20.0, score=np.linspace(0.1, 0.9, len(table)))
    scores, right = calibration.labelled_boxes(table, store, "NIH-LN")
    assert scores.tolist() == table.loc[(table["volume"] == "NIH-LN-1") & (table["z"] == 3), "score"].tolist()
    assert right.tolist() == [True, False]
    scores, right = calibration.labelled_boxes(table, store, "LUNA16")
    assert len(scores) == 4 and right.tolist() == [False, False, True, False]
    universal = boxes(("DeepLesion-1", 5, 0.0), ("DeepLesion-1", 5, 60.0), score=[0.9, 0.2])
    found = calibration.curves(table, universal, boxes(("DeepLesion-1", 5, 0.0)), store)
    assert list(found) == ["DeepLesion", "LUNA16", "NIH-LN"] and found["LUNA16"][0] == fit_platt(scores, right)
    assert found["DeepLesion"][1]["chance"].tolist() == [0, 1] and found["LUNA16"][1].equals(isotonic(scores, right))
    assert list(calibration.curves(None, universal, universal, store)) == ["DeepLesion"]
