"""Intra-patient mining by hand."""

import numpy as np
import pandas as pd
import pytest
from mining_tables import annotated, boxes, complete, rules, unit

from lensnb.boxes import COLUMNS
from lensnb.mining import intra_patient
from lensnb.mining.patients import Embedded, Patients, centre_boxes, embed


def test_match_pairs_near_embeddings_of_one_patient_in_other_volumes():
    # L2 distance of two unit vectors 10 degrees apart: 2 sin(5 deg) = 0.1743; 5 degrees: 0.0872
    centres = boxes(
        ("p2", 3, 0.0), ("p2", 4, 30.0), ("p3", 3, 0.0), ("p1", 8, 0.0), ("q1", 3, 0.0), ("p3", 9, 0.0),
        tracklet=[10, 11, 12, 13, 14, 15], score=[0.9, 0.8, 0.5, 0.9, 0.9, 0.2],
    )  # fmt: skip
    # 13 lies in the annotation's own volume, 14 belongs to another patient
    patients = Patients(annotated().iloc[:1], embedded=Embedded(unit(0), centres, unit(5, 10, 5, 0, 0, 0)))
    near = intra_patient.match(patients, delta=0.15, score=0.3, nearest_only=True)
    assert near["tracklet"].tolist() == [10, 12]
    assert np.allclose(near["distance"], 2 * np.sin(np.radians(2.5)), atol=1e-4)
    wide = intra_patient.match(patients, delta=0.18, score=0.3, nearest_only=True)
    assert wide["tracklet"].tolist() == [10, 12], "11 is farther than 10 and in the same volume"
    literal = intra_patient.match(patients, delta=0.18, score=0.3, nearest_only=False)
    assert literal["tracklet"].tolist() == [10, 12, 11]
    weak = intra_patient.match(patients, delta=0.15, score=0.1, nearest_only=True)
    assert weak["tracklet"].tolist() == [15, 10], "with the weak tracklet 15 admitted, it is the nearest in p3"


def test_whole_tracklets_become_lesions():
    tracklets = boxes(
        ("p2", 3, 0.0), ("p2", 4, 0.0),  # a new lesion
        ("p2", 3, 1.0), ("p2", 5, 80.0),  # over the first on slice 3, matched less closely
        ("p2", 1, 51.0), ("p2", 2, 51.0),  # over the annotation of p2
        ("p3", 7, 20.0),  # another new lesion
        tracklet=[10, 10, 11, 11, 12, 12, 13],
    )  # fmt: skip
    centres = centre_boxes(tracklets)
    # nearest first: 12, 10, 11, 13
    embedded = Embedded(unit(0, 180), centres, unit(2, 3, 1, 4))
    patients = Patients(annotated(), tracklets=tracklets, embedded=embedded)
    every = rules(nearest_only=False)
    mined = intra_patient.mine(patients, {"delta": 0.1, "score": 0.5}, every)
    assert list(mined.columns) == [*COLUMNS, "tracklet", "matched_to"]
    assert mined[["volume", "lesion", "z", "z1", "z2", "matched_to"]].values.tolist() == [
        ["p2", "m00000", 3, 3, 4, "dl00000"],
        ["p2", "m00000", 4, 3, 4, "dl00000"],
        ["p3", "m00001", 7, 7, 7, "dl00000"],
    ]
    assert set(mined["source"]) == {"intra-patient"}
    across = boxes(("p3", 7, 20.0), lesion="dl00000", source="cross-slice")
    assert intra_patient.mine(patients.with_mined(across), {"delta": 0.1, "score": 0.5}, every)["z"].tolist() == [3, 4]
    assert intra_patient.mine(patients, {"delta": 0.001, "score": 0.5}, every).empty


def test_centre_boxes_have_the_middle_slice_the_extent_and_the_best_score():
    tracklets = boxes(
        ("v", 3, 0.0), ("v", 4, 1.0), ("v", 5, 2.0), ("v", 9, 7.0), tracklet=[5, 5, 5, 2], score=[0.2, 0.3, 0.8, 0.4]
    )
    centre = centre_boxes(tracklets)
    assert centre[["tracklet", "z", "x1", "z1", "z2", "score"]].values.tolist() == [
        [2, 9, 7, 9, 9, 0.4],
        [5, 4, 1, 3, 5, 0.8],
    ]


def test_only_tracklets_with_a_high_score_are_embedded():
    tracklets = boxes(("p2", 2, 10.0), ("p2", 5, 30.0), tracklet=[0, 1], score=[0.9, 0.2])
    patients = Patients(annotated(), tracklets=tracklets)

    def by_place(table):
        return unit(*table["x1"])

    few, all_of_them = embed(patients, by_place, 0.3), embed(patients, by_place, 0.1)
    assert few.embedded.centres["tracklet"].tolist() == [0] and len(few.embedded.annotations) == 2
    assert len(all_of_them.embedded.centres) == len(all_of_them.embedded.tracklets) == 2


def test_without_vectors_matching_says_so():
    with pytest.raises(ValueError, match="intra-patient mining needs the embedded"):
        intra_patient.match(Patients(annotated()), 0.1, 0.5, nearest_only=True)


def test_the_highest_recall_that_is_precise_enough_is_chosen():
    annotations = boxes(("p1", 5, 0.0), ("p5", 7, 0.0), ("p6", 1, 0.0), lesion=["dl00000", "dl00001", "dl00002"])
    lesions = boxes(
        ("p1", 5, 0.0), ("p2", 3, 0.0), ("p3", 3, 0.0), ("p5", 7, 0.0), ("p6", 1, 0.0), ("p6", 2, 0.0),
        lesion=["a", "c", "d", "e", "f", "f"],
    )  # fmt: skip
    tracklets = boxes(
        ("p2", 3, 0.0), ("p3", 3, 0.0), ("p4", 3, 0.0), ("p1", 5, 0.0), ("p5", 7, 0.0), ("p6", 2, 0.0),
        tracklet=[0, 1, 2, 3, 4, 5], score=[0.9, 0.6, 0.6, 0.9, 0.9, 0.9],
    )  # fmt: skip
    embedded = Embedded(unit(0, 180, 180), tracklets, unit(4, 8, 8, 0, 0, 4))
    patients = Patients(annotations, tracklets=tracklets, embedded=embedded)
    # delta .1 finds tracklet 0 and 5; delta .2 also 1 (right) and 2 (wrong) at score .5; 3 and 4 lie over annotations
    # and do not count; 5 is right, but f has an annotation, so it adds nothing to recall
    numbers, _ = intra_patient.choose(patients, lesions, rules(minimum_precision=0.6))
    assert (numbers["delta"], numbers["score"], numbers["recall"], numbers["reached"]) == (0.2, 0.5, 1.0, True)
    numbers, table = intra_patient.choose(patients, lesions, rules(minimum_precision=0.9))
    assert numbers["recall"] == 0.5 and numbers["precision"] == 1.0 and numbers["matched"] == 2
    assert table["matched"].tolist() == [2, 4, 2, 2]
    numbers, _ = intra_patient.choose(patients, lesions, rules(minimum_precision=0.9, deltas=[0.2], scores=[0.5]))
    assert numbers["precision"] == 0.75 and not numbers["reached"]


def test_choosing_can_replace_the_rule_of_the_nearest_tracklet():
    tracklets = boxes(("p2", 3, 0.0), ("p2", 6, 40.0), tracklet=[0, 1])
    lesions = boxes(("p1", 5, 0.0), ("p2", 3, 0.0), ("p2", 6, 40.0), lesion=["a", "c", "d"])
    embedded = Embedded(unit(0), tracklets, unit(1, 2))
    patients = Patients(annotated().iloc[:1], tracklets=tracklets, embedded=embedded)
    nearest, _ = intra_patient.choose(patients, lesions, rules())
    every, _ = intra_patient.choose(patients, lesions, rules(), nearest_only=False)
    assert (nearest["recall"], every["recall"]) == (0.5, 1.0)


def test_audit():
    mined = boxes(
        ("p2", 3, 0.0), ("p2", 4, 90.0), ("p1", 8, 40.0), ("p1", 1, 0.0),
        lesion=["m00000", "m00000", "m00001", "m00002"], matched_to="dl00000",
    )  # fmt: skip
    result = intra_patient.audit(mined, Patients(annotated().iloc[:1]), complete(), 0.5)
    # m00000 reaches c (the annotated lesion at another time), m00001 reaches b (another lesion), m00002 nothing
    assert result["mined"] == 3 and result["precision"] == pytest.approx(2 / 3)
    assert result["recall"] == 1.0 and result["same_lesion"] == pytest.approx(1 / 3)
    assert result["recoverable"] == 0.5  # c of b and c
    unjudged = intra_patient.audit(mined, Patients(annotated()), None, 0.5)
    assert unjudged["mined"] == 3 and list(pd.isna(list(unjudged.values()))) == [False, False, True, True]
