"""The list of mining strategies, and what is done with all of them."""

import inspect
import time
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from mining_tables import annotated, boxes, complete, rules

from lensnb.boxes import COLUMNS
from lensnb.datasets import SINGLE_TYPE
from lensnb.files import write_table
from lensnb.mining import counts, cross_dataset, cross_slice
from lensnb.mining.label_rows import add_origin, label_rows
from lensnb.mining.patients import Patients, centre_boxes
from lensnb.mining.strategies import SOURCES, STRATEGIES, Strategy, audits, open_patients, table4
from lensnb.runfolder import Run
from lensnb.training import experiments

MINED = {
    "cross-slice": boxes(("p1", 4, 0.0), ("p1", 6, 0.0), lesion="dl00000", source="cross-slice"),
    "intra-patient": boxes(
        ("p2", 2, 0.0), ("p2", 3, 0.0), lesion="m00000", source="intra-patient", matched_to="dl00000"
    ),
    "cross-dataset": boxes(("p1", 4, 60.0), ("p1", 19, 60.0), lesion=["u000000", "u000001"], source="uncertain"),
}
VOLUMES = pd.DataFrame({"depth": [24, 30]}, index=["p1", "p2"])


# a fourth strategy: every proposal of the LiTS expert over a score is a lesion


def toy_choose(patients, lesions, rules):
    return {"lowest": 0.5}, pd.DataFrame({"lowest": [0.5]})


def toy_mine(patients, numbers, rules):
    found = patients.proposals[patients.proposals["expert"] == "LiTS"]
    found = found[found["score"] > numbers["lowest"]]
    return label_rows(found.assign(lesion=[f"t{number}" for number in range(len(found))], source="toy"))


def toy_audit(mined, patients, truth, theta):
    return {"strategy": "toy", "mined": len(mined), "precision": 1.0, "recall": float(len(patients.known))}


def toy_count(known, mined):
    return counts.certain(known, mined)


TOY = SimpleNamespace(choose=toy_choose, mine=toy_mine, audit=toy_audit, count=toy_count)
FOUR = (*STRATEGIES, Strategy("toy", "toy", True, "+ Toy", "#0072B2", TOY))


@pytest.mark.parametrize("strategy", FOUR, ids=lambda strategy: strategy.name)
def test_every_strategy_has_the_same_four_functions(strategy):
    wanted = {
        "choose": ["patients", "lesions", "rules"],
        "mine": ["patients", "numbers", "rules"],
        "audit": ["mined", "patients", "truth", "theta"],
        "count": ["known", "mined"],
    }
    for name, arguments in wanted.items():
        given = inspect.signature(getattr(strategy.functions, name)).parameters.values()
        assert [one.name for one in given if one.default is one.empty] == arguments, name


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setenv("LENSNB_ROOT", str(tmp_path))
    return Run("smoke")


def test_a_fourth_strategy_is_a_line_of_the_list(run):
    """It mines, is audited, counted in Table IV, and opened for what comes after, by the code that serves the three."""
    proposals = boxes(("p2", 7, 20.0), ("p2", 8, 20.0), expert="LiTS", score=[0.9, 0.4])
    patients = Patients(annotated(), proposals)
    numbers, _ = FOUR[3].functions.choose(patients, complete(), rules())
    mined = MINED | {"toy": FOUR[3].functions.mine(patients, numbers, rules())}
    judged = audits(mined, Patients(annotated()), complete(), 0.5, FOUR)
    assert judged["strategy"].tolist() == [strategy.name for strategy in FOUR]
    # it knows two annotations, two boxes of the first and two of the second strategy, and no ignored one
    assert judged.set_index("strategy").loc["toy", ["mined", "recall"]].tolist() == [1, 6]
    table = table4(annotated(), mined, VOLUMES, FOUR).set_index("method")
    assert table.index.tolist()[-3:] == ["+ Cross-dataset", "+ Toy", "+ Unlabeled"]
    assert table.loc["+ Toy"].tolist() == [4, 7, 1, 6]
    for name, rows in mined.items():
        write_table(rows, run.mined(name))
    write_table(boxes(("p2", 7, 20.0), tracklet=0), run.tracklets())
    assert len(open_patients(run, "train", annotated(), "toy", proposals, FOUR).known) == 6


def test_training_reads_what_every_strategy_mined():
    names = [strategy.name for strategy in STRATEGIES]
    for read in experiments.MINED.values():
        assert [strategy for strategy, _ in read] == names


def test_label_rows_of_a_strategy_say_whether_they_are_certain():
    """Training ignores the source `uncertain` and believes every other one."""
    assert SOURCES == ("annotated", "cross-slice", "intra-patient", "uncertain", "truth")
    assert all((strategy.source == "uncertain") != strategy.certain for strategy in STRATEGIES)


def test_counts_follow_table_4():
    table = table4(annotated(), MINED, VOLUMES)
    assert list(table.columns) == ["method", "gt_3d", "gt_2d", "uncertain_2d", "training_slices"]
    assert table["method"].tolist() == [
        "No mining", "+ Cross-slice", "+ Intra-patient", "+ Cross-dataset", "+ Unlabeled",
    ]  # fmt: skip
    assert table.drop(columns="method").values.tolist() == [
        [2, 2, 0, 2],
        [2, 4, 0, 4],
        [3, 6, 0, 5],
        [3, 6, 1, 5],
        [3, 6, 2, 54],
    ]


def test_each_strategy_is_audited_as_one_that_knows_the_earlier_ones():
    judged = audits(MINED, Patients(annotated()), complete(), 0.5)
    alone = cross_dataset.audit(MINED["cross-dataset"], Patients(annotated()), complete(), 0.5)
    known = Patients(annotated(), mined=(MINED["cross-slice"], MINED["intra-patient"]))
    assert judged["strategy"].tolist() == ["cross-slice", "intra-patient", "cross-dataset"]
    for number, strategy in enumerate(STRATEGIES):
        line = strategy.functions.audit(MINED[strategy.name], known, complete(), 0.5)
        assert judged.loc[number, line.keys()].tolist() == pytest.approx(list(line.values()))
    assert alone["mined"] == judged["mined"][2]


def test_where_nobody_knows_the_truth_only_numbers_are_told():
    judged = audits(MINED, Patients(annotated()), None, 0.5)
    assert list(judged.columns) == ["strategy", "mined", "precision", "recall"]
    assert judged["mined"].tolist() == [2, 1, 2] and judged[["precision", "recall"]].isna().all(axis=None)


def test_patients_are_opened_with_what_was_mined_before(run):
    for split, score in (("train", 0.9), ("val", 0.4)):
        write_table(boxes(("p2", 3, 0.0), tracklet=0, score=score), run.tracklets(split))
        write_table(MINED["cross-slice"], run.mined("cross-slice", split))
    patients = open_patients(run, "val", annotated(), before="intra-patient")
    assert patients.tracklets["score"].tolist() == [0.4]
    assert patients.known["lesion"].tolist() == ["dl00000", "dl00001", "dl00000", "dl00000"]
    assert open_patients(run, "train", annotated(), before="cross-slice").mined == ()
    with pytest.raises(FileNotFoundError, match=r"intra-patient\.csv"):
        open_patients(run, "train", annotated(), before="cross-dataset")
    with pytest.raises(ValueError, match="'uncertain' is no mining strategy; choose one of cross-slice"):
        open_patients(run, "train", annotated(), before="uncertain")


def test_add_origin_names_an_unknown_volume():
    volumes = pd.DataFrame({"dataset": "DeepLesion", "patient": "p", "study": "1", "series": "1"}, index=["v"])
    table = pd.DataFrame({"volume": pd.Categorical(["v", "v"])})
    assert add_origin(table, volumes)["patient"].tolist() == ["p", "p"]
    with pytest.raises(ValueError, match="lost"):
        add_origin(pd.DataFrame({"volume": ["lost"]}), volumes)


def test_300_000_proposals_take_seconds():
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
    patients = Patients(known, table, table)
    start = time.process_time()
    assert set(cross_slice.mine(patients, {"trim": 0.0}, rules()).columns) >= set(COLUMNS)
    cross_dataset.mine(patients, {"sigma": dict.fromkeys(SINGLE_TYPE, 0.5)}, rules())
    centre_boxes(table)
    assert time.process_time() - start < 15
