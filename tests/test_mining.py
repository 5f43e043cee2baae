"""Mining on tables small enough to work out by hand. All boxes are 10 x 10 unless said otherwise."""

import time

import numpy as np
import pandas as pd
import pytest

from lensnb.boxes import COLUMNS, on_slices_of
from lensnb.mining import cross_dataset, cross_slice, intra_patient
from lensnb.mining.counts import counts
from lensnb.mining.label_rows import add_origin


def boxes(*rows, **columns):
    """Rows (volume, z, x1): a 10 x 10 box; further columns by name, one value or one per row."""
    table = pd.DataFrame(rows, columns=["volume", "z", "x1"])
    table = table.assign(
        y1=0.0, x2=table["x1"] + 10.0, y2=10.0, z1=table["z"], z2=table["z"], score=0.9, expert="DeepLesion"
    )
    table = table.assign(
        dataset="DeepLesion", patient=table["volume"].str[0], study="1", series="1", source="annotated"
    )
    return table.assign(**columns)


@pytest.fixture
def annotations():
    # a lesion at x = 0 on slice 5 of volume p1, one at x = 50 on slice 2 of volume p2
    return boxes(("p1", 5, 0.0), ("p2", 2, 50.0), lesion=["dl00000", "dl00001"])


def test_cross_slice_takes_the_other_slices_of_the_best_tracklet(annotations):
    tracklets = boxes(
        ("p1", 4, 1.0), ("p1", 5, 1.0), ("p1", 6, 2.0),  # IoU 90/110 with the annotation on slice 5
        ("p1", 5, 3.0), ("p1", 7, 3.0),  # IoU 70/130: reaches it too, but less well
        ("p1", 5, 6.0), ("p1", 8, 6.0),  # IoU 40/160: no
        ("p2", 5, 50.0),  # right place, wrong slice
        tracklet=[0, 0, 0, 1, 1, 2, 2, 3],
    )  # fmt: skip
    mined = cross_slice.cross_slice(tracklets, annotations, theta=0.5)
    assert list(mined.columns) == [*COLUMNS, "tracklet"]
    assert mined[["volume", "lesion", "z", "x1", "source"]].values.tolist() == [
        ["p1", "dl00000", 4, 1.0, "cross-slice"],
        ["p1", "dl00000", 6, 2.0, "cross-slice"],
    ]


def test_cross_slice_does_not_repeat_a_lesion_that_was_measured_on_two_slices():
    annotations = boxes(("p1", 5, 0.0), ("p1", 6, 0.0), lesion=["dl00000", "dl00001"])
    tracklets = boxes(("p1", 5, 0.0), ("p1", 6, 1.0), ("p1", 7, 1.0), tracklet=0)
    mined = cross_slice.cross_slice(tracklets, annotations, theta=0.5)
    assert mined[["lesion", "z"]].values.tolist() == [["dl00000", 7]]


def test_cross_slice_of_nothing_is_an_empty_label_table(annotations):
    tracklets = boxes(("p1", 9, 0.0), tracklet=0)
    assert cross_slice.cross_slice(tracklets, annotations, 0.5).empty
    assert cross_slice.cross_slice(tracklets.iloc[:0], annotations, 0.5).empty


def unit(*degrees):
    angle = np.radians(degrees)
    return np.column_stack([np.cos(angle), np.sin(angle)]).astype(np.float32)


@pytest.fixture
def centres():
    # L2 distance of two unit vectors 10 degrees apart: 2 sin(5 deg) = 0.1743; 5 degrees: 0.0872
    return boxes(
        ("p2", 3, 0.0), ("p2", 4, 30.0), ("p3", 3, 0.0), ("p1", 8, 0.0), ("q1", 3, 0.0), ("p3", 9, 0.0),
        tracklet=[10, 11, 12, 13, 14, 15], score=[0.9, 0.8, 0.5, 0.9, 0.9, 0.2],
    )  # fmt: skip


def test_match_pairs_near_embeddings_of_one_patient_in_other_volumes(annotations, centres):
    one = annotations.iloc[:1]
    embedding = unit(5, 10, 5, 0, 0, 0)  # 13 lies in the annotation's own volume, 14 belongs to another patient
    near = intra_patient.match_intra_patient(one, unit(0), centres, embedding, delta=0.15, score=0.3)
    assert near["tracklet"].tolist() == [10, 12]
    assert np.allclose(near["distance"], 2 * np.sin(np.radians(2.5)), atol=1e-4)
    wide = intra_patient.match_intra_patient(one, unit(0), centres, embedding, delta=0.18, score=0.3)
    assert wide["tracklet"].tolist() == [10, 12], "11 is farther than 10 and in the same volume"
    literal = intra_patient.match_intra_patient(
        one, unit(0), centres, embedding, delta=0.18, score=0.3, nearest_only=False
    )
    assert literal["tracklet"].tolist() == [10, 12, 11]
    weak = intra_patient.match_intra_patient(one, unit(0), centres, embedding, delta=0.15, score=0.1)
    assert weak["tracklet"].tolist() == [15, 10], "with the weak tracklet 15 admitted, it is the nearest in p3"


def test_intra_patient_makes_lesions_of_whole_tracklets(annotations):
    tracklets = boxes(
        ("p2", 3, 0.0), ("p2", 4, 0.0),  # a new lesion
        ("p2", 3, 1.0), ("p2", 5, 80.0),  # over the first on slice 3, matched less closely
        ("p2", 1, 51.0), ("p2", 2, 51.0),  # over the annotation of p2
        ("p3", 7, 20.0),  # another new lesion
        tracklet=[10, 10, 11, 11, 12, 12, 13],
    )  # fmt: skip
    matches = pd.DataFrame(
        {
            "lesion": "dl00000",
            "tracklet": [12, 10, 11, 13],
            "volume": ["p2", "p2", "p2", "p3"],
            "distance": [0.01, 0.02, 0.03, 0.04],
        }
    )
    mined = intra_patient.intra_patient(matches, tracklets, annotations, theta=0.5)
    assert mined[["volume", "lesion", "z", "z1", "z2", "matched_to"]].values.tolist() == [
        ["p2", "m00000", 3, 3, 4, "dl00000"],
        ["p2", "m00000", 4, 3, 4, "dl00000"],
        ["p3", "m00001", 7, 7, 7, "dl00000"],
    ]
    assert set(mined["source"]) == {"intra-patient"}
    assert intra_patient.intra_patient(matches.iloc[:0], tracklets, annotations, 0.5).empty


def test_cross_dataset_keeps_strong_foreign_boxes_that_touch_nothing_known(annotations):
    proposals = boxes(
        ("p1", 5, 30.0), ("p1", 5, 31.0),  # two experts, one place: the stronger stays
        ("p1", 5, 9.0),  # touches the annotation
        ("p1", 9, 0.0),  # on a slice without labels
        ("p1", 9, 30.0),  # too weak
        ("p1", 9, 60.0),  # the universal expert's own
        score=[0.7, 0.8, 0.9, 0.6, 0.5, 0.9],
        expert=["LUNA16", "LiTS", "LiTS", "NIH-LN", "LUNA16", "DeepLesion"],
    )  # fmt: skip
    experts = ["LUNA16", "LiTS", "NIH-LN"]
    mined = cross_dataset.cross_dataset(proposals, annotations, sigma=0.5, experts=experts)
    assert mined[["lesion", "z", "x1", "expert", "source"]].values.tolist() == [
        ["u000000", 5, 31.0, "LiTS", "uncertain"],
        ["u000001", 9, 0.0, "NIH-LN", "uncertain"],
    ]
    assert on_slices_of(mined, annotations)["lesion"].tolist() == ["u000000"]
    touching = cross_dataset.cross_dataset(proposals, annotations, sigma=0.5, experts=experts, overlap=0.1)
    assert len(touching) == 3


def test_centre_boxes_have_the_middle_slice_the_extent_and_the_best_score():
    tracklets = boxes(
        ("v", 3, 0.0), ("v", 4, 1.0), ("v", 5, 2.0), ("v", 9, 7.0), tracklet=[5, 5, 5, 2], score=[0.2, 0.3, 0.8, 0.4]
    )
    centre = intra_patient.centre_boxes(tracklets)
    assert centre[["tracklet", "z", "x1", "z1", "z2", "score"]].values.tolist() == [
        [2, 9, 7, 9, 9, 0.4],
        [5, 4, 1, 3, 5, 0.8],
    ]


def test_add_origin_names_an_unknown_volume():
    volumes = pd.DataFrame({"dataset": "DeepLesion", "patient": "p", "study": "1", "series": "1"}, index=["v"])
    table = pd.DataFrame({"volume": pd.Categorical(["v", "v"])})
    assert add_origin(table, volumes)["patient"].tolist() == ["p", "p"]
    with pytest.raises(ValueError, match="lost"):
        add_origin(pd.DataFrame({"volume": ["lost"]}), volumes)


# --- audit ------------------------------------------------------------------------------------------------------


@pytest.fixture
def truth():
    # volume p1: lesion a on slices 4, 5, 6 (marked on 5), lesion b on slice 8
    # volume p2: lesion c (the same as a) on 3, 4
    return boxes(
        ("p1", 4, 0.0), ("p1", 5, 0.0), ("p1", 6, 0.0), ("p1", 8, 40.0), ("p2", 3, 0.0), ("p2", 4, 0.0),
        lesion=["a", "a", "a", "b", "c", "c"], identity=[7, 7, 7, 8, 7, 7],
    )  # fmt: skip


def test_audit_of_cross_slice(truth, annotations):
    mined = boxes(("p1", 4, 1.0), ("p1", 7, 1.0))  # one right, one beyond the lesion; slice 6 is missed
    result = cross_slice.audit_cross_slice(mined, annotations.iloc[:1], truth)
    assert result == {"strategy": "cross-slice", "mined": 2, "precision": 0.5, "recall": 0.5}


def test_audit_of_intra_patient(truth, annotations):
    mined = boxes(
        ("p2", 3, 0.0), ("p2", 4, 90.0), ("p1", 8, 40.0), ("p1", 1, 0.0),
        lesion=["m00000", "m00000", "m00001", "m00002"], matched_to="dl00000",
    )  # fmt: skip
    result = intra_patient.audit_intra_patient(mined, annotations.iloc[:1], truth)
    # m00000 reaches c (the annotated lesion at another time), m00001 reaches b (another lesion), m00002 nothing
    assert result["mined"] == 3 and result["precision"] == pytest.approx(2 / 3)
    assert result["recall"] == 1.0 and result["same_lesion"] == pytest.approx(1 / 3)
    assert result["recoverable"] == 0.5  # c of b and c


def test_audit_of_uncertain_boxes(truth, annotations):
    mined = boxes(("p1", 8, 41.0), ("p1", 8, 80.0))
    result = cross_dataset.audit_uncertain(mined, annotations.iloc[:1], truth)
    # five true boxes are not known, one is reached
    assert result == {"strategy": "cross-dataset", "mined": 2, "precision": 0.5, "recall": 0.2}


def test_threshold_rule_takes_the_highest_recall_that_is_precise_enough():
    annotations = boxes(("p1", 5, 0.0), ("p5", 7, 0.0), ("p6", 1, 0.0), lesion=["dl00000", "dl00001", "dl00002"])
    lesions = boxes(
        ("p1", 5, 0.0), ("p2", 3, 0.0), ("p3", 3, 0.0), ("p5", 7, 0.0), ("p6", 1, 0.0), ("p6", 2, 0.0),
        lesion=["a", "c", "d", "e", "f", "f"],
    )  # fmt: skip
    tracklets = boxes(
        ("p2", 3, 0.0), ("p3", 3, 0.0), ("p4", 3, 0.0), ("p1", 5, 0.0), ("p5", 7, 0.0), ("p6", 2, 0.0),
        tracklet=[0, 1, 2, 3, 4, 5], score=[0.9, 0.6, 0.6, 0.9, 0.9, 0.9],
    )  # fmt: skip
    arguments = (annotations, unit(0, 180, 180), tracklets, unit(4, 8, 8, 0, 0, 4), tracklets, lesions)
    # delta .1 finds tracklet 0 and 5; delta .2 also 1 (right) and 2 (wrong) at score .5; 3 and 4 lie over annotations
    # and do not count; 5 is right, but f has an annotation, so it adds nothing to recall
    choice, table = intra_patient.choose_threshold(
        *arguments, deltas=[0.1, 0.2], scores=[0.5, 0.8], minimum_precision=0.6
    )
    assert (choice["delta"], choice["score"], choice["recall"], choice["reached"]) == (0.2, 0.5, 1.0, True)
    choice, table = intra_patient.choose_threshold(
        *arguments, deltas=[0.1, 0.2], scores=[0.5, 0.8], minimum_precision=0.9
    )
    assert choice["recall"] == 0.5 and choice["precision"] == 1.0 and choice["matched"] == 2
    assert table["matched"].tolist() == [2, 4, 2, 2]
    choice, _ = intra_patient.choose_threshold(*arguments, deltas=[0.2], scores=[0.5], minimum_precision=0.9)
    assert choice["precision"] == 0.75 and not choice["reached"]


def test_trim_rule_takes_the_lowest_trim_that_is_precise_enough(annotations):
    # the lesion ends at slice 7; its tracklet runs on to slice 8 with half of the best score
    lesions = boxes(("p1", 5, 0.0), ("p1", 6, 0.0), ("p1", 7, 0.0), lesion="a")
    tracklets = boxes(
        ("p1", 5, 0.0), ("p1", 6, 0.0), ("p1", 7, 0.0), ("p1", 8, 0.0), score=[0.8, 0.8, 0.6, 0.4], tracklet=0
    )  # fmt: skip
    trim, table = cross_slice.choose_trim(tracklets, annotations, lesions, [0.9, 0.5, 0.7], minimum_precision=0.9)
    assert trim == 0.7
    assert table["mined"].tolist() == [3, 2, 1]
    assert table["precision"].tolist() == pytest.approx([2 / 3, 1.0, 1.0])
    assert table["recall"].tolist() == [1.0, 1.0, 0.5]
    assert cross_slice.choose_trim(tracklets, annotations, lesions, [0.0, 0.5], 0.9)[0] == 0.5  # none is: the highest


def test_sigma_rule_takes_the_lowest_sigma_that_is_precise_enough(annotations):
    lesions = boxes(("p1", 5, 0.0), ("p1", 8, 40.0), ("p1", 9, 40.0), lesion=["a", "b", "b"])
    proposals = boxes(
        ("p1", 8, 40.0), ("p1", 9, 40.0), ("p1", 8, 80.0), ("p1", 9, 80.0), expert="LUNA16", score=[0.8, 0.6, 0.6, 0.4]
    )
    sigma, table = cross_dataset.choose_sigma(proposals, annotations, lesions, [0.3, 0.5, 0.7], 0.6, ["LUNA16"])
    assert sigma == 0.5
    assert table["mined"].tolist() == [4, 3, 1]
    assert table["precision"].tolist() == pytest.approx([0.5, 2 / 3, 1.0])
    assert table["recall"].tolist() == [1.0, 1.0, 0.5]


def test_counts_follow_table_4(annotations):
    cross = boxes(("p1", 4, 0.0), ("p1", 6, 0.0), lesion="dl00000")
    intra = boxes(("p2", 2, 0.0), ("p2", 3, 0.0), lesion="m00000")
    uncertain = boxes(("p1", 4, 60.0), ("p1", 19, 60.0), lesion=["u000000", "u000001"])
    volumes = pd.DataFrame({"depth": [24, 30]}, index=["p1", "p2"])
    table = counts(annotations, cross, intra, uncertain, volumes)
    assert table.drop(columns="method").values.tolist() == [
        [2, 2, 0, 2],
        [2, 4, 0, 4],
        [3, 6, 0, 5],
        [3, 6, 1, 5],
        [3, 6, 2, 54],
    ]


def test_300_000_proposals_take_seconds(annotations):
    n = 300_000
    rng = np.random.default_rng(0)
    x1 = rng.integers(0, 100, n).astype(float)
    names = np.array([f"p{i}" for i in range(400)])
    table = pd.DataFrame({"volume": pd.Categorical(names[np.arange(n) % 400]), "z": np.arange(n) // 400 % 24})
    table = table.assign(x1=x1, y1=0.0, x2=x1 + 10, y2=10.0, score=rng.random(n), tracklet=np.arange(n) // 3)
    table["expert"] = pd.Categorical(np.array(["DeepLesion", "LUNA16", "LiTS", "NIH-LN"])[np.arange(n) % 4])
    table = table.assign(dataset="DeepLesion", patient="p", study="1", series="1", source="", z1=0, z2=0)
    known = boxes(
        *((f"p{i % 400}", i % 24, float(i % 97)) for i in range(5000)), lesion=[f"dl{i:05d}" for i in range(5000)]
    )
    start = time.process_time()
    cross_slice.cross_slice(table, known, 0.5)
    cross_dataset.cross_dataset(table, known, 0.5, ["LUNA16", "LiTS", "NIH-LN"])
    intra_patient.centre_boxes(table)
    assert time.process_time() - start < 15
