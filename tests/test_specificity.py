"""Experts judged in their own fields, on lesions few enough to work out by hand."""

import numpy as np
import pandas as pd
import pytest
from small_store import write_store

from lensnb.boxes import BOX3D, COLUMNS
from lensnb.evaluation import froc, specificity
from lensnb.evaluation.specificity import Scans, auc, auc_interval, best_scores, edge, open_scans
from lensnb.files import write_table

# two patients: a and b have a nodule each, a has a liver lesion too; c is healthy
PATIENTS = pd.Series({"a": "p1", "b": "p2", "c": "p3"})
PLACES = {"nodule a": ("a", 10), "liver a": ("a", 40), "nodule b": ("b", 10), "nothing": ("c", 70), "wall": ("b", 70)}


def lesions() -> pd.DataFrame:
    rows = [(*at(name), kind) for name, kind in (("nodule a", "lung"), ("liver a", "liver"), ("nodule b", "lung"))]
    return pd.DataFrame(rows, columns=["volume", *BOX3D, "type"])


def at(place: str, shift: float = 0) -> tuple:
    volume, x = PLACES[place]
    return (volume, x + shift, 10.0, 2.0, x + shift + 9, 19.0, 5.0)


def detections(*rows) -> pd.DataFrame:
    """Rows (place, score) or (place, score, shift): a 3D box of the lesion's size there."""
    table = [(*at(place, *shift), score) for place, score, *shift in rows]
    return pd.DataFrame(table, columns=["volume", *BOX3D, "score"])


def scans(found: dict[str, pd.DataFrame], dataset: str = "LUNA16", complete: bool = True) -> Scans:
    return Scans(dataset, PATIENTS, lesions(), complete, found)


FOUND = {
    "DeepLesion": detections(("nodule a", 0.3), ("liver a", 0.9), ("nothing", 0.5)),
    "LUNA16": detections(("nodule a", 0.9), ("nodule a", 0.4), ("nodule b", 0.6), ("liver a", 0.7), ("wall", 0.2)),
    "LiTS": detections(("liver a", 0.8)),
}


def test_a_lesion_has_the_highest_score_of_the_detections_that_hit_it():
    scores = best_scores(FOUND, lesions())
    assert scores["LUNA16"].tolist() == [0.9, 0.7, 0.6]
    assert scores["DeepLesion"].tolist() == [0.3, 0.9, 0.0]  # nodule b: no box at all
    # 10 pixels wide: moved by 7 it keeps 30 % in the lesion's box and hits, moved by 8 it does not
    moved = {"LUNA16": detections(("nodule a", 0.9, 8), ("nodule a", 0.4, 7))}
    assert best_scores(moved, lesions())["LUNA16"].tolist() == [0.4, 0.0, 0.0]


def test_auc_by_hand():
    assert auc(np.array([0.9, 0.6]), np.array([0.7])) == 0.5
    assert auc(np.array([0.9, 0.7]), np.array([0.7, 0.1])) == 3.5 / 4
    assert np.isnan(auc(np.array([]), np.array([0.7])))


def test_interval_of_auc_is_over_patients():
    rng = np.random.default_rng(0)
    own, others = rng.normal(1, 1, 60), rng.normal(0, 1, 60)
    low, high = auc_interval(own, others, np.arange(60), np.arange(60, 120))
    assert low < auc(own, others) < high and 0.1 < high - low < 0.25
    # the same lesions all of few patients: less is known
    few = auc_interval(own, others, np.arange(60) % 4, np.arange(60) % 4)
    many = auc_interval(own, others, np.arange(60), np.arange(60))
    assert few != many and few == auc_interval(own, others, np.arange(60) % 4, np.arange(60) % 4)
    # one patient is drawn whole, so that every draw is the same
    assert auc_interval(own, others, np.zeros(60), np.zeros(60)) == pytest.approx((auc(own, others),) * 2)
    assert np.isnan(auc_interval(own, others[:0], np.zeros(60), np.zeros(0))).all()


def test_table_of_own_volumes():
    table = specificity.specificity([scans(FOUND)], resamples=50).set_index("expert")
    assert list(table.index) == ["DeepLesion", "LUNA16"]  # LiTS's expert is not asked about lungs
    luna = table.loc["LUNA16"]
    assert (luna.volumes, luna.type, luna.patients, luna.own, luna.others, luna.background) == (
        "LUNA16", "lung", 3, 2, 1, 1)  # fmt: skip
    assert luna.auc_types == 0.5 and luna.auc_background == 1.0
    assert luna.mean_lung == pytest.approx(0.75) and luna.mean_liver == 0.7
    assert luna.with_LUNA16 == 1.0
    assert luna.with_DeepLesion == pytest.approx(np.corrcoef([0.9, 0.7, 0.6], [0.3, 0.9, 0.0])[0, 1])
    universal = table.loc["DeepLesion"]
    assert universal.auc_types == 0.0 and universal.type == "lung" and np.isnan(universal.edge_found)


def test_one_patient_has_no_interval():
    alone = Scans("LUNA16", pd.Series(dict.fromkeys("abc", "p1")), lesions(), True, FOUND)
    luna = specificity.specificity([alone], resamples=20).set_index("expert").loc["LUNA16"]
    assert luna.auc_types == 0.5 and np.isnan(luna.auc_types_low) and luna.edge_found == 0.5
    assert np.isnan(luna.edge_average_high)


def test_edge_counts_own_lesions_and_what_hits_none():
    """At one false positive a volume, three in all: a detection on another type's lesion is none."""
    own = np.array([True, False, True])
    line = edge(scans(FOUND), "LUNA16", own, resamples=200)
    assert line["found"] == line["average"] == 1.0 and line["found_universal"] == 0.5
    # DeepLesion's expert: a false positive comes before the nodule, so 0 below 1/3 a volume
    assert line["average_universal"] == pytest.approx(0.5 * 5 / 7)
    assert line["edge_found"] == 0.5 and line["edge_found_low"] <= 0.5 <= line["edge_found_high"]
    assert line["edge_average"] == pytest.approx(1 - 0.5 * 5 / 7)
    # the liver lesion was the highest score of DeepLesion's expert; unknown, it is one more false positive
    unknown = Scans("LUNA16", PATIENTS, lesions().iloc[[0, 2]], False, FOUND)
    assert edge(unknown, "LUNA16", np.array([True, True]))["average_universal"] == pytest.approx(0.5 * 4 / 7)
    assert np.isnan(list(edge(scans(FOUND), "LUNA16", np.zeros(3, bool)).values())).all()


def test_the_edge_is_that_of_two_evaluations():
    """Where all lesions count, the difference and its interval are those of the evaluation itself."""
    line = edge(scans(FOUND), "LUNA16", np.ones(3, bool), resamples=300)
    truth = {v: lesions().loc[lesions().volume == v, BOX3D].to_numpy(float) for v in PATIENTS.index}
    matches = [froc.match(truth, FOUND[name]) for name in ("LUNA16", "DeepLesion")]
    wanted = froc.difference(*matches, PATIENTS.tolist(), resamples=300)
    assert (line["edge_average"], line["edge_average_low"], line["edge_average_high"]) == pytest.approx(
        (wanted.value, wanted.low, wanted.high)
    )


def test_on_deeplesion_all_experts_are_asked():
    table = specificity.specificity([scans(FOUND, "DeepLesion")], resamples=20).set_index("expert")
    assert table["type"].to_dict() == {"DeepLesion": "all", "LUNA16": "lung", "LiTS": "liver"}
    assert table["own"].to_dict() == {"DeepLesion": 3, "LUNA16": 2, "LiTS": 1}
    assert table.loc["LiTS", "auc_types"] == 1.0 and table.loc["LiTS", "edge_found"] == 0.0
    assert np.isnan(table.loc["DeepLesion", "auc_types"])


def test_without_a_truth_only_the_own_type_is_known():
    known = Scans("LUNA16", PATIENTS, lesions().iloc[[0, 2]].reset_index(drop=True), False, FOUND)
    table = specificity.specificity([known], resamples=20).set_index("expert")
    assert table["others"].tolist() == [0, 0] and table["auc_types"].isna().all()
    assert table.loc["LUNA16", "auc_background"] == 0.75  # the liver lesion counts as background
    untyped = Scans("DeepLesion", PATIENTS, lesions().assign(type=""), False, FOUND)
    table = specificity.specificity([untyped], resamples=20).set_index("expert")
    assert table.loc["LUNA16", ["own", "others"]].tolist() == [0, 0] and np.isnan(table.loc["LUNA16", "found"])
    assert table.loc["DeepLesion", "own"] == 3 and not [name for name in table if name.startswith("mean_")]


def test_own_lesions_that_the_dataset_does_not_mark_are_neither():
    some = Scans("LUNA16", PATIENTS, lesions().assign(marked=[True, False, False]), True, FOUND)
    table = specificity.specificity([some], resamples=20).set_index("expert")
    assert table.loc["LUNA16", ["own", "others"]].tolist() == [1, 1]
    assert table.loc["LUNA16", "background"] == 1  # the unmarked nodule is no background
    everywhere = Scans("DeepLesion", PATIENTS, some.lesions, True, FOUND)  # there few are marked, and all count
    assert specificity.specificity([everywhere], resamples=20).set_index("expert").loc["LUNA16", "own"] == 2


def test_scans_of_real_data(tmp_path):
    """NIH-LN labels a part of each scan: what is found outside is not judged. LUNA16's scans are searched whole."""
    store = write_store(tmp_path)
    store.volumes["split"] = ["train", "val"] * 4
    box = dict(zip(BOX3D, (20.0, 10.0, 2.0, 34.0, 22.0, 4.0), strict=True))
    store.boxes = store.boxes.assign(z1=2.0, z2=4.0)
    found = pd.DataFrame([{"volume": f"{name}-1", **box, "z": z, "score": 0.5} for name in ("LUNA16", "NIH-LN")
                          for z in (1, 2, 4, 5)])  # fmt: skip
    nodes = open_scans(store, "NIH-LN", {"NIH-LN": found})
    assert nodes.found["NIH-LN"]["z"].tolist() == [2, 4] and nodes.lesions["type"].tolist() == ["node"]
    assert nodes.patients.to_dict() == {"NIH-LN-1": "NIH-LN-1"} and not nodes.complete
    assert open_scans(store, "LUNA16", {"LUNA16": found}).found["LUNA16"]["z"].tolist() == [1, 2, 4, 5]
    universal = open_scans(store, "DeepLesion", {"DeepLesion": found.iloc[:0]})
    assert len(universal.lesions) == 0 and list(universal.patients) == ["DeepLesion-1"]


def test_scans_of_phantoms_know_all_lesions(tmp_path):
    write_store(tmp_path)
    rows = [("LUNA16-1", "l1", z, kind) for kind, z in (("lung", 2), ("lung", 3))] + [("LUNA16-1", "l2", 4, "node")]
    truth = pd.DataFrame(rows, columns=["volume", "lesion", "z", "type"])
    truth = truth.reindex(columns=[*COLUMNS, "type"]).assign(x1=1.0, y1=1.0, x2=9.0, y2=9.0, z1=2, z2=3, marked=True)
    write_table(truth, tmp_path / "truth.csv")
    store = specificity.Store(tmp_path)
    store.volumes["split"] = "val"
    found = pd.DataFrame([("LUNA16-1", *range(3), 9, 9, 3, 0, 0.5)], columns=["volume", *BOX3D, "z", "score"])
    here = open_scans(store, "LUNA16", {"LUNA16": found})
    assert here.complete and here.lesions["type"].tolist() == ["lung", "node"]
    assert len(here.patients) == 2 and len(here.found["LUNA16"]) == 1
