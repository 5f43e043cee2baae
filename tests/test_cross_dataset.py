"""Cross-dataset mining by hand."""

import pytest
from mining_tables import annotated, boxes, complete, rules

from lensnb.boxes import COLUMNS, on_slices_of
from lensnb.mining import cross_dataset
from lensnb.mining.patients import Patients


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
    mined = cross_dataset.mine(patients, {"sigma": 0.5}, rules())
    assert list(mined.columns) == COLUMNS
    assert mined[["lesion", "z", "x1", "expert", "source"]].values.tolist() == [
        ["u000000", 5, 31.0, "LiTS", "uncertain"],
        ["u000001", 9, 0.0, "NIH-LN", "uncertain"],
    ]
    assert on_slices_of(mined, annotated())["lesion"].tolist() == ["u000000"]
    assert len(cross_dataset.mine(patients, {"sigma": 0.5}, rules(overlap=0.1))) == 3
    known = patients.with_mined(boxes(("p1", 9, 0.0), lesion="m00000"))
    assert cross_dataset.mine(known, {"sigma": 0.5}, rules())["z"].tolist() == [5]


def test_the_lowest_sigma_that_is_precise_enough_is_chosen():
    lesions = boxes(("p1", 5, 0.0), ("p1", 8, 40.0), ("p1", 9, 40.0), lesion=["a", "b", "b"])
    proposals = boxes(
        ("p1", 8, 40.0), ("p1", 9, 40.0), ("p1", 8, 80.0), ("p1", 9, 80.0), expert="LUNA16", score=[0.8, 0.6, 0.6, 0.4]
    )
    numbers, table = cross_dataset.choose(Patients(annotated(), proposals), lesions, rules(sigmas=[0.3, 0.5, 0.7]))
    assert numbers == {"sigma": 0.5}
    assert list(table.columns) == ["sigma", "mined", "precision", "recall"]
    assert table["mined"].tolist() == [4, 3, 1]
    assert table["precision"].tolist() == pytest.approx([0.5, 2 / 3, 1.0])
    assert table["recall"].tolist() == [1.0, 1.0, 0.5]


def test_audit():
    mined = boxes(("p1", 8, 41.0), ("p1", 8, 80.0))
    result = cross_dataset.audit(mined, Patients(annotated().iloc[:1]), complete(), 0.5)
    # five true boxes are not known, one is reached
    assert result == {"strategy": "cross-dataset", "mined": 2, "precision": 0.5, "recall": 0.2}


def test_without_proposals_mining_says_so():
    with pytest.raises(ValueError, match="cross-dataset mining needs the proposals"):
        cross_dataset.mine(Patients(annotated()), {"sigma": 0.5}, rules())
