"""Cross-slice mining by hand."""

import pytest
from mining_tables import annotated, boxes, complete, rules

from lensnb.boxes import COLUMNS
from lensnb.mining import cross_slice
from lensnb.mining.patients import Patients


def mine(tracklets, annotations, trim=0.0):
    return cross_slice.mine(Patients(annotations, tracklets=tracklets), {"trim": trim}, rules())


def test_takes_the_other_slices_of_the_best_tracklet():
    tracklets = boxes(
        ("p1", 4, 1.0), ("p1", 5, 1.0), ("p1", 6, 2.0),  # IoU 90/110 with the annotation on slice 5
        ("p1", 5, 3.0), ("p1", 7, 3.0),  # IoU 70/130: reaches it too, but less well
        ("p1", 5, 6.0), ("p1", 8, 6.0),  # IoU 40/160: no
        ("p2", 5, 50.0),  # right place, wrong slice
        tracklet=[0, 0, 0, 1, 1, 2, 2, 3],
    )  # fmt: skip
    mined = mine(tracklets, annotated())
    assert list(mined.columns) == [*COLUMNS, "tracklet"]
    assert mined[["volume", "lesion", "z", "x1", "source"]].values.tolist() == [
        ["p1", "dl00000", 4, 1.0, "cross-slice"],
        ["p1", "dl00000", 6, 2.0, "cross-slice"],
    ]


def test_slices_under_the_trim_are_cut_off():
    tracklets = boxes(("p1", 5, 1.0), ("p1", 6, 1.0), ("p1", 7, 1.0), tracklet=0, score=[0.8, 0.5, 0.3])
    assert mine(tracklets, annotated(), trim=0.5)["z"].tolist() == [6]


def test_does_not_repeat_a_lesion_that_was_measured_on_two_slices():
    annotations = boxes(("p1", 5, 0.0), ("p1", 6, 0.0), lesion=["dl00000", "dl00001"])
    tracklets = boxes(("p1", 5, 0.0), ("p1", 6, 1.0), ("p1", 7, 1.0), tracklet=0)
    assert mine(tracklets, annotations)[["lesion", "z"]].values.tolist() == [["dl00000", 7]]


def test_of_nothing_is_an_empty_label_table():
    tracklets = boxes(("p1", 9, 0.0), tracklet=0)
    assert mine(tracklets, annotated()).empty
    assert mine(tracklets.iloc[:0], annotated()).empty


def test_the_lowest_trim_that_is_precise_enough_is_chosen():
    # the lesion ends at slice 7; its tracklet runs on to slice 8 with half of the best score
    lesions = boxes(("p1", 5, 0.0), ("p1", 6, 0.0), ("p1", 7, 0.0), lesion="a")
    tracklets = boxes(
        ("p1", 5, 0.0), ("p1", 6, 0.0), ("p1", 7, 0.0), ("p1", 8, 0.0), score=[0.8, 0.8, 0.6, 0.4], tracklet=0
    )
    patients = Patients(annotated(), tracklets=tracklets)
    numbers, table = cross_slice.choose(patients, lesions, rules(trims=[0.9, 0.5, 0.7]))
    assert numbers == {"trim": 0.7}
    assert list(table.columns) == ["trim", "mined", "precision", "recall"]
    assert table["mined"].tolist() == [3, 2, 1]
    assert table["precision"].tolist() == pytest.approx([2 / 3, 1.0, 1.0])
    assert table["recall"].tolist() == [1.0, 1.0, 0.5]
    numbers, _ = cross_slice.choose(patients, lesions, rules(trims=[0.0, 0.5]))
    assert numbers == {"trim": 0.5}, "none is precise enough: the highest"


def test_audit():
    mined = boxes(("p1", 4, 1.0), ("p1", 7, 1.0))  # one right, one beyond the lesion; slice 6 is missed
    result = cross_slice.audit(mined, Patients(annotated().iloc[:1]), complete(), 0.5)
    assert result == {"strategy": "cross-slice", "mined": 2, "precision": 0.5, "recall": 0.5}
