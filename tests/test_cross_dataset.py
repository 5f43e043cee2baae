"""Cross-dataset mining by hand."""

import numpy as np
import pandas as pd
import pytest
import torch
from mining_tables import annotated, boxes, complete, rules

from lensnb.boxes import BOX, COLUMNS, on_slices_of
from lensnb.datasets import SINGLE_TYPE
from lensnb.mining import cross_dataset
from lensnb.mining.patients import Patients
from lensnb.models.heads import match_proposals
from lensnb.models.targets import Target
from lensnb.settings import NAMES as PROFILES
from lensnb.settings import load_profile

HALF = {"sigma": dict.fromkeys(SINGLE_TYPE, 0.5)}


def test_keeps_strong_foreign_boxes_that_touch_nothing_known():
    proposals = boxes(
        ("p1", 5, 30.0), ("p1", 5, 31.0),  # two experts, one place: the stronger stays
        ("p1", 5, 9.0),  # touches the annotation
        ("p1", 9, 0.0),  # on a slice without labels
        ("p1", 9, 30.0),  # too weak
        ("p1", 9, 60.0),  # the universal expert's own
        score=[0.7, 0.8, 0.9, 0.6, 0.5, 0.9],
        expert=["LUNA16", "LiTS", "LiTS", "NIH-LN", "LUNA16", "DeepLesion"],
    )  # fmt: skip
    patients = Patients(annotated(), proposals)
    mined = cross_dataset.mine(patients, HALF, rules())
    assert list(mined.columns) == COLUMNS
    assert mined[["lesion", "z", "x1", "expert", "source"]].values.tolist() == [
        ["u000000", 5, 31.0, "LiTS", "uncertain"],
        ["u000001", 9, 0.0, "NIH-LN", "uncertain"],
    ]
    assert on_slices_of(mined, annotated())["lesion"].tolist() == ["u000000"]
    assert len(cross_dataset.mine(patients, HALF, rules(overlap=0.1))) == 3
    known = patients.with_mined(boxes(("p1", 9, 0.0), lesion="m00000"))
    assert cross_dataset.mine(known, HALF, rules())["z"].tolist() == [5]


def test_every_specialist_has_its_own_sigma():
    proposals = boxes(
        ("p1", 9, 0.0), ("p1", 9, 30.0), ("p1", 9, 60.0), score=[0.4, 0.4, 0.9], expert=["LUNA16", "LiTS", "NIH-LN"]
    )
    mined = cross_dataset.mine(Patients(annotated(), proposals), {"sigma": {"LUNA16": 0.3, "LiTS": 0.5}}, rules())
    assert mined["expert"].tolist() == ["LUNA16"]  # LiTS is under its sigma, NIH-LN has none


def test_the_iou_of_suppression_is_that_of_inference():
    near = boxes(("p1", 9, 30.0), ("p1", 9, 34.0), score=[0.7, 0.8], expert=["LUNA16", "LiTS"])  # IoU 6 / 14
    patients = Patients(annotated(), near)
    assert [len(cross_dataset.mine(patients, HALF, rules(nms=nms))) for nms in (0.3, 0.5)] == [1, 2]
    for name in PROFILES:
        profile = load_profile(name)
        assert profile.mining.nms == profile.inference.nms, name


def test_for_each_specialist_the_lowest_sigma_that_is_precise_enough_is_chosen():
    """The liver expert is shy: what it is as sure of is right as often at a lower score."""
    lesions = boxes(("p1", 5, 0.0), ("p1", 8, 40.0), ("p1", 9, 40.0), lesion=["a", "b", "b"])
    proposals = boxes(
        ("p1", 8, 40.0), ("p1", 9, 40.0), ("p1", 8, 80.0), ("p1", 9, 80.0), expert="LUNA16", score=[0.8, 0.6, 0.6, 0.4]
    )
    shy = proposals.assign(expert="LiTS", score=[0.4, 0.35, 0.1, 0.1])
    both = pd.concat([proposals, shy], ignore_index=True)
    numbers, table = cross_dataset.choose(Patients(annotated(), both), lesions, rules(sigmas=[0.3, 0.5, 0.7]))
    assert numbers == {"sigma": {"LUNA16": 0.5, "LiTS": 0.3}}
    assert list(table.columns) == [
        "expert", "sigma", "mined", "precision", "recall", "strict_precision", "strict_recall"]  # fmt: skip
    luna = table[table["expert"] == "LUNA16"]
    assert luna["mined"].tolist() == [4, 3, 1] and luna["sigma"].tolist() == [0.3, 0.5, 0.7]
    assert luna["precision"].tolist() == pytest.approx([0.5, 2 / 3, 1.0])
    assert luna["recall"].tolist() == [1.0, 1.0, 0.5]
    assert table.loc[table["expert"] == "LiTS", "mined"].tolist() == [2, 0, 0]


def test_what_is_chosen_is_what_is_mined():
    """Choosing mines once, with the lowest sigma: what is left over another one is what would be mined with it."""
    rng = np.random.default_rng(0)
    proposals = boxes(*((f"p{i % 3}", i % 5, float(x)) for i, x in enumerate(rng.uniform(0, 60, 300))),
                      score=rng.random(300), expert=rng.choice(SINGLE_TYPE, 300))  # fmt: skip
    patients, sigmas = Patients(annotated(), proposals), [0.1, 0.5, 0.8]
    _, table = cross_dataset.choose(patients, complete(), rules(sigmas=sigmas))
    for expert, sigma, counted in table[["expert", "sigma", "mined"]].itertuples(index=False):
        assert len(cross_dataset.mine(patients, {"sigma": {expert: sigma}}, rules())) == counted


def test_no_specialist_no_sigma():
    nothing = boxes(("p1", 9, 0.0), expert="DeepLesion")
    numbers, table = cross_dataset.choose(Patients(annotated(), nothing), complete(), rules())
    assert numbers == {"sigma": {}} and table.empty and "expert" in table
    assert len(cross_dataset.mine(Patients(annotated(), nothing), numbers, rules())) == 0


def test_audit():
    mined = boxes(("p1", 8, 41.0), ("p1", 8, 80.0))
    result = cross_dataset.audit(mined, Patients(annotated().iloc[:1]), complete(), 0.5)
    # five true boxes are not known, one is reached
    assert result == {
        "strategy": "cross-dataset", "mined": 2, "precision": 0.5, "recall": 0.2,
        "strict_precision": 0.5, "strict_recall": 0.2,
    }  # fmt: skip
    unknown = cross_dataset.audit(mined, Patients(annotated()), None, 0.5)
    assert unknown["mined"] == 2 and np.isnan(unknown["precision"]) and np.isnan(unknown["recall"])


def test_a_box_is_right_if_it_lies_on_a_lesion():
    """Moved by 6 of 10 pixels it has IoU 1/4 but lies to 40 % in the lesion's box; moved by 8, to 20 %."""
    found = [cross_dataset.audit(boxes(("p1", 8, x)), Patients(annotated()), complete(), 0.5) for x in (46.0, 48.0)]
    assert [one["precision"] for one in found] == [1, 0] and [one["strict_precision"] for one in found] == [0, 0]


def test_recall_counts_what_the_loss_leaves_out():
    """The same rule as that of the head, on random boxes."""
    rng = np.random.default_rng(0)

    def some(n: int) -> pd.DataFrame:
        table = boxes(*(("p1", 8, x) for x in rng.uniform(0, 40, n)))
        return table.assign(x2=table["x1"] + rng.uniform(3, 25, n), y1=rng.uniform(0, 5, n))

    lesions, uncertain = some(200), some(3)
    corners = [torch.tensor(table[BOX].to_numpy(), dtype=torch.float64) for table in (lesions, uncertain)]
    label, _ = match_proposals(corners[0], Target(corners[0][:0], corners[1]))
    left_out = cross_dataset.left_out(lesions, uncertain)
    assert left_out.tolist() == (label == -1).tolist() and 20 < left_out.sum() < 180


def test_audit_by_expert():
    mined = boxes(("p1", 8, 41.0), ("p1", 8, 80.0), ("p1", 4, 0.0), expert=["LUNA16", "LUNA16", "NIH-LN"])
    patients = Patients(annotated(), boxes(("p1", 1, 1.0), ("p1", 1, 1.0), ("p1", 1, 1.0), expert=list(SINGLE_TYPE)))
    table = cross_dataset.audit_by_expert(mined, patients, complete(), 0.5)
    assert table["expert"].tolist() == ["LUNA16", "LiTS", "NIH-LN"] and table["mined"].tolist() == [2, 0, 1]
    assert table["share"].tolist() == pytest.approx([2 / 3, 0, 1 / 3])
    assert table["precision"].fillna(-1).tolist() == [0.5, -1, 1.0]
    unknown = cross_dataset.audit_by_expert(mined, patients, None, 0.5)
    assert unknown["mined"].tolist() == [2, 0, 1] and unknown["strict_recall"].isna().all()


def test_without_proposals_mining_says_so():
    with pytest.raises(ValueError, match="cross-dataset mining needs the proposals"):
        cross_dataset.mine(Patients(annotated()), HALF, rules())
