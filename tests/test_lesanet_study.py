"""LesaNet's study, matching over delta and names for lesions, on cases small enough to work out."""

import json

import numpy as np
import pandas as pd
import pytest
from test_lesanet import TinyStore
from test_lesanet_training import NAMES, ONTOLOGY, PROFILE, dl_info, mined_labels  # noqa: F401

from lensnb.lesanet import methods, metrics, naming, prediction, study, text_mining
from lensnb.lesanet.lesions import LabelledLesions
from lensnb.lesanet.methods import CONTROLS, METHODS, TABLE1, MethodRun
from lensnb.lesanet.metrics import TEXT_MINED
from lensnb.lesanet.study import Exam, LabelStudy
from lensnb.mining import reach
from lensnb.mining.patients import Embedded, Patients
from lensnb.show import lesanet_cards


@pytest.fixture(scope="module")
def folder(tmp_path_factory, dl_info):  # noqa: F811
    """A DeepLesion folder of TinyStore: lesions 16 and 17 have complete labels too."""
    made = tmp_path_factory.mktemp("deeplesion")
    lines = [
        "class,term,synonyms,term_exclusive,term_parents",
        "bodypart,abdomen,abdomen,,",
        "bodypart,liver,liver,,abdomen",
    ]
    lines += ["attribute,dark,dark,bright,", "attribute,bright,bright,,"]
    (made / "lesion_ontology.csv").write_text("\n".join(lines) + "\n")
    (made / "DL_info.csv").write_bytes(dl_info.read_bytes())
    complete = [{"lesion_idx": 16, "expanded_terms": ["liver", "abdomen", "dark"], "text": ""}]
    complete.append({"lesion_idx": 17, "expanded_terms": ["bright", "abdomen", "odd"], "text": ""})
    (made / study.COMPLETE).write_text(json.dumps(complete))
    return made


@pytest.fixture(scope="module")
def work(folder):
    mined = mined_labels()
    mined.lesions.loc[mined.lesions["row"] >= 18, "split"] = "test"  # 50 is not in the store
    return study.open_study(mined, TinyStore(), folder)


# --- the study --------------------------------------------------------------------------------------------------


def test_the_study_has_both_test_sets(work):
    assert (len(work.train), len(work.val)) == (16, 2)
    assert list(work.exams[TEXT_MINED].table["lesion"]) == ["dl00018", "dl00019"]
    complete = work.exams["complete"]
    assert complete.labels.tolist() == [[True, True, True, False], [True, False, False, True]]
    assert not complete.unknown.any()
    assert len(work.tables()) == 16 + 2 + 2, "lesions 16 and 17 are listed once"


def test_without_complete_labels_there_is_one_test_set(work, folder, tmp_path, capsys):
    for name in ("lesion_ontology.csv", "DL_info.csv"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    found = study.open_study(mined_labels(), TinyStore(), tmp_path)
    assert list(found.exams) == [TEXT_MINED] and study.COMPLETE in capsys.readouterr().out


def test_parts_of_the_labels_are_the_most_frequent_ones(work):
    # training labels of lesions 0 to 14: dark 8, bright 7, liver 8 and one uncertain
    assert study.label_counts(work.train).tolist() == [0, 9, 8, 7]
    assert study.most_frequent(work, 0.5).tolist() == [1, 2]
    own, columns = study.of_run(work, MethodRun("lesanet", part=0.5))
    assert own.ontology.labels == ("liver", "dark") and columns.tolist() == [1, 2]
    assert own.train.relevant.shape == (16, 2) and own.exams["complete"].labels.tolist() == [
        [True, True],
        [False, False],
    ]


def test_a_new_split_deals_patients_out_anew_and_keeps_the_test_sets(work):
    own, columns = study.of_run(work, MethodRun("lesanet", split=1))
    before = sorted([*work.train.table["lesion"], *work.val.table["lesion"]])
    assert sorted([*own.train.table["lesion"], *own.val.table["lesion"]]) == before and len(columns) == 4
    assert own.exams is work.exams
    assert not set(own.train.table["patient"]) & set(own.val.table["patient"])


def test_what_sentences_leave_out():
    table = pd.DataFrame({"lesion": ["a", "b"]})
    said = np.array([[False, True, True, False], [False, False, False, False]])
    unknown = np.array([[False, False, False, False], [True, False, False, False]])
    holds = np.array([[True, True, True, False], [False, False, False, True]])
    exams = {TEXT_MINED: Exam(table, said, unknown), "complete": Exam(table, holds, np.zeros_like(holds))}
    found = study.labels_said(LabelStudy(ONTOLOGY, None, None, exams)).set_index("label is")
    # named: liver, dark of a; excluded by dark: bright of a; b's abdomen is open; left are a's abdomen, b's other three
    assert found["entries"].to_dict() == {"named or implied": 2, "excluded": 1, "uncertain": 1, "not mentioned": 4}
    assert found["that hold"].tolist() == [1.0, 0.0, 0.0, 0.5]


def test_a_run_is_trained_asked_and_asked_only_once(work, tmp_path, monkeypatch):
    folder = tmp_path / "lesanet"
    answers, path = study.train_run(MethodRun("lesanet"), work, TinyStore(), PROFILE, 0, folder)
    assert path == tmp_path / "predictions" / "lesanet.npz" and len(answers) == 20
    model, config = prediction.load_network(folder, "x")
    exam = work.exams["complete"]
    expected = prediction.predict(model, TinyStore(), exam.table, config, PROFILE.network)
    np.testing.assert_allclose(study.scores_of(answers, exam.table, NAMES), expected[1], atol=1e-6)
    np.testing.assert_allclose(study.embedding_of(answers, exam.table), expected[0], atol=1e-6)
    monkeypatch.setattr(prediction, "predict", None)  # must not be called again
    again, _ = study.train_run(MethodRun("lesanet"), work, TinyStore(), PROFILE, 0, folder)
    monkeypatch.undo()
    pd.testing.assert_frame_equal(answers, again.astype({"lesion": str}), check_dtype=False)
    with pytest.raises(ValueError, match="lack 1 lesions, for example dl00099"):
        study.scores_of(answers, pd.DataFrame({"lesion": ["dl00099"]}), NAMES)
    study.write_labels(folder, answers, work, PROFILE)
    check_names(folder, work, answers)


def scored(scores: dict, val_scores: dict) -> tuple[LabelStudy, pd.DataFrame]:
    """A study of two validation and two test lesions, and answers for them: by label, abdomen and bright stay at 0.

    Validation: both are livers, the first is dark. Test: the first is a liver and so abdomen, the second is dark.
    """
    tables = [pd.DataFrame({"lesion": [f"{s}0", f"{s}1"], "patient": ["p", "q"]}) for s in ("v", "t")]
    val = np.array([[False, True, True, False], [False, True, False, False]])
    train, val = (LabelledLesions(tables[0], val, np.zeros_like(val), np.zeros_like(val)) for _ in range(2))
    truth = np.array([[True, True, False, False], [False, False, True, False]])
    exam = Exam(tables[1], truth, np.zeros_like(truth))
    answers = pd.DataFrame({"lesion": ["v0", "v1", "t0", "t1"]} | {f"label {name}": 0.0 for name in NAMES})
    for name in scores:
        answers[f"label {name}"] = [*val_scores[name], *scores[name]]
    return LabelStudy(ONTOLOGY, train, val, {TEXT_MINED: exam}), answers


def test_parents_of_predictions_count_unless_switched_off():
    """Only liver is ever predicted, of the first test lesion: abdomen is right with its parents, and missed without."""
    work, answers = scored({"liver": [0.9, 0.1]}, {"liver": [0.8, 0.7]})
    both = {
        expanded: study.score_run(answers, work, MethodRun("cnn"), TEXT_MINED, 0, 4, expanded=expanded)
        for expanded in (True, False)
    }
    recall = {expanded: result.labels.set_index("label")["recall"] for expanded, result in both.items()}
    assert recall[True][["abdomen", "liver", "dark"]].tolist() == [1, 1, 0]
    assert recall[False][["abdomen", "liver", "dark"]].tolist() == [0, 1, 0]
    assert both[True].means["recall"] == pytest.approx(2 / 3) and both[False].means["recall"] == pytest.approx(1 / 3)
    assert both[True].means["auc"] == both[False].means["auc"] == pytest.approx((0.5 + 1 + 0.5) / 3)
    assert both[True].samples["auc"].equals(both[False].samples["auc"])
    assert both[True].with_samples("recall").tolist() == [2 / 3, *both[True].samples["recall"]]


def test_warps_thresholds_are_not_capped():
    """dark: .99 of a dark lesion, .95 of another. The grid ends at .9 and predicts both; every score tried, one."""
    work, answers = scored({"dark": [0.97, 0.995]}, {"dark": [0.99, 0.95]})
    thresholds = {name: study.thresholds_of(answers, work, name)[2] for name in METHODS}
    assert thresholds.pop("warp") == 0.99 and set(thresholds.values()) == {0.3}, "the lowest of equally good ones"
    precision = {
        name: study.score_run(answers, work, MethodRun(name), TEXT_MINED, 0, draws=0).labels.set_index("label")
        for name in ("warp", "lesanet")
    }
    assert precision["warp"].loc["dark", ["threshold", "precision", "recall"]].tolist() == [0.99, 1, 1]
    assert precision["lesanet"].loc["dark", ["threshold", "precision", "recall"]].tolist() == [0.3, 0.5, 1]


def check_names(folder, work, answers):
    """Boxes of a volume that is in no store get the labels of the study's own scores and thresholds."""
    store, lesions = TinyStore(), work.exams["complete"].table
    one = lesions[lesions["volume"] == lesions["volume"].iloc[0]]
    spacing = tuple(store.volumes.loc[one["volume"].iloc[0], [f"spacing_{a}_mm" for a in "xyz"]])
    namer = naming.load_namer(folder)
    named = naming.name_lesions(namer, np.asarray(store.hu(one["volume"].iloc[0])), spacing, one)
    scores, thresholds = study.scores_of(answers, one, NAMES), study.thresholds_of(answers, work)
    chosen = metrics.decide(scores, thresholds, work.ontology.parents)
    for text, own, score in zip(named, chosen, scores, strict=True):
        listed = {part.rsplit(" ", 1)[0]: float(part.rsplit(" ", 1)[1]) for part in text.split(", ") if part}
        assert {NAMES[c] for c in np.flatnonzero(own)} - set(listed) <= {"abdomen"}, "only a parent may be left out"
        assert all(value == pytest.approx(score[NAMES.index(name)], abs=0.006) for name, value in listed.items())
    assert naming.name_lesions(namer, np.zeros((3, 9, 9), np.int16), spacing, one.head(0)) == []
    other = json.loads((folder / "labels.json").read_text()) | {"labels": ["x", "y", "z", "u"]}
    (folder / "labels.json").write_text(json.dumps(other))
    with pytest.raises(ValueError, match="has other labels than config.json"):
        naming.check_lesanet(folder)
    (folder / "labels.json").unlink()
    with pytest.raises(FileNotFoundError, match="has no labels.json"):
        naming.check_lesanet(folder)


def test_the_first_whole_lesanet_is_found(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    assert naming.find_lesanet(first, second) is None
    for place in (second, first):
        place.mkdir()
        for name in naming.FILES:
            (place / name).write_text("")
        assert naming.find_lesanet(first, second) == place
    (first / "labels.json").unlink()
    assert naming.find_lesanet(first, second) == second


def test_all_runs_by_name():
    found = methods.runs(3)
    assert list(found)[:13] == [*TABLE1, *CONTROLS] and len(found) == 9 + 4 + 2 * 6 + 2
    assert all(found[name] == MethodRun(name) for name in CONTROLS), "on the label file's own split"
    assert found["without-triplet-split2"] == MethodRun("without-triplet", split=2)
    assert found["lesanet-part1"].part == 1 / 3
    assert len(methods.runs(1)) == 15 and all(run.method in METHODS for run in found.values())


# --- single lesions ---------------------------------------------------------------------------------------------


def test_outcomes_of_a_lesion():
    scores, predicted = np.array([0.9, 0.8, 0.7, 0.1]), np.array([True, True, True, False])
    nothing, known = np.zeros(4, dtype=bool), {"parents": ONTOLOGY.parents, "names": NAMES}
    known |= {"true": np.array([True, True, False, False])}
    lines = lesanet_cards.outcomes(scores, predicted, unknown=nothing, complete=np.full(4, np.nan), **known)
    assert lines == [("TP", "liver 0.80"), ("FP", "dark 0.70")], "the parent of liver is not listed"
    complete = np.array([1.0, 1.0, 1.0, 0.0])
    lines = lesanet_cards.outcomes(scores, predicted, unknown=nothing, complete=complete, **known)
    assert lines[1] == ("FP", "dark 0.70*")
    open_ = np.array([0, 0, 1, 0], bool)
    lines = lesanet_cards.outcomes(scores, nothing, unknown=open_, complete=complete, **known)
    assert lines == [("FN", "liver")]


def test_judged_cards_have_the_labels_of_their_own_lesion():
    """Lesion 4 is predicted right, lesion 6 wrong; only the latter is asked for."""
    store = TinyStore()
    decided = np.array([[False, False, True, False], [False, False, False, True]])
    true = np.array([[False, False, True, False], [False, False, True, False]])
    ((panel, lines),) = lesanet_cards.judged(
        store, store.boxes.iloc[[4, 6]], np.array([1]), scores=np.full((2, 4), 0.7), predicted=decided, true=true,
        unknown=np.zeros_like(true), complete=np.full((2, 4), np.nan), parents=ONTOLOGY.parents, names=NAMES,
    )  # fmt: skip
    assert panel["title"] == "dl00006" and lines == [("FP", "bright 0.70"), ("FN", "dark")]


def test_varied_lesions_are_of_different_patients():
    lesions = pd.DataFrame({"patient": ["a", "a", "b", "c"]})
    labels = np.array([[1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 1]], dtype=bool)
    assert lesanet_cards.varied(lesions, labels, 2).tolist() == [1, 2]
    assert len(lesanet_cards.varied(lesions, labels, 9)) == 3


def test_what_is_written_below_lesions():
    labels = np.array([[True, True, True, False], [False, False, False, False]])
    assert lesanet_cards.said(labels, ONTOLOGY.parents, NAMES) == ["liver\ndark", "(the sentence names no label)"]
    scores = np.array([[0.95, 0.6, 0.9, 0.1], [0.1, 0.1, 0.1, 0.1]])
    found = lesanet_cards.predicted(scores, labels, ONTOLOGY.parents, NAMES)
    assert found == ["predicted:\ndark 0.90\nliver 0.60", "predicted:\nnothing"], "the surest first, no parent"
    table = pd.DataFrame(
        {"row": ["12", "3"], "sentence": ["Dark BOOKMARK in the right liver.", "Two words here and more"]}
    )
    lesions = pd.DataFrame({"lesion": ["dl00003", "dl00012", "dl00004"]})
    assert lesanet_cards.sentences(lesions, table, width=14, lines=2) == [
        "Two words here\nand more", "Dark BOOKMARK\nin the ...", ""
    ]  # fmt: skip


def test_neighbours_have_their_own_texts():
    store = TinyStore()
    queries, database = store.boxes.iloc[[0]], store.boxes.iloc[[4, 6, 8]]
    texts = ["first", "second", "third"]
    (line,) = lesanet_cards.neighbour_rows(
        store, queries, database, np.array([[2, 0]]), common=np.array([[4, 1]]), query_texts=["asked"],
        database_texts=texts,
    )  # fmt: skip
    assert [text for _, text in line] == ["asked", "third", "first"]
    assert [panel["title"] for panel, _ in line] == ["query", "1: 4 labels in common", "2: 1 labels in common"]


def test_agreement_of_mentions():
    truth = pd.DataFrame(
        {"row": [0, 0, 1], "label": ["lung", "mass", "cyst"], "relation": ["relevant"] * 2 + ["uncertain"]}
    )
    found = pd.DataFrame({"row": [0, 0, 1, 1], "label": ["lung", "lung", "mass", "cyst"], "relation": ["relevant"] * 4})
    table = text_mining.agreement(found, truth).set_index("relation")
    assert table.loc["relevant", ["true", "found", "both"]].tolist() == [2, 3, 1]
    assert table.loc["relevant", ["precision", "recall"]].tolist() == pytest.approx([1 / 3, 1 / 2])
    assert table.loc["uncertain", "recall"] == 0 and np.isnan(table.loc["uncertain", "precision"])


# --- matching over delta ----------------------------------------------------------------------------------------


def box(volume, patient, x, **more):
    return {"volume": volume, "patient": patient, "z": 5, "x1": x, "y1": 0.0, "x2": x + 10.0, "y2": 10.0, **more}


def test_reach_by_hand():
    """One patient, three scans. The annotation is in scan 1; scan 2 has its lesion (near) and a vessel (nearer)."""
    annotations = pd.DataFrame([box("1", "p", 0.0, lesion="a")])
    rows = [box("2", "p", 0.0, tracklet=1), box("2", "p", 50.0, tracklet=2), box("3", "p", 0.0, tracklet=3)]
    tracklets = pd.DataFrame(rows).assign(score=0.9)
    truth = [box("1", "p", 0.0, lesion="t1"), box("2", "p", 0.0, lesion="t1"), box("3", "p", 0.0, lesion="t1")]
    truth = pd.DataFrame([*truth, box("3", "p", 90.0, lesion="t2")])
    distance = {1: 0.4, 2: 0.2, 3: 0.6}
    angle = 2 * np.arcsin(np.array([0.0, *distance.values()]) / 2)
    vectors = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    embedded = Embedded(vectors[:1], tracklets, vectors[1:])
    patients = Patients(annotations, tracklets=tracklets, embedded=embedded)
    every = reach.reach(patients, truth, 0.5, 0.5, nearest_only=False)
    assert every.tracklets["right"].tolist() == [False, True, True]
    np.testing.assert_allclose(every.tracklets["distance"], [0.2, 0.4, 0.6])
    np.testing.assert_allclose(np.sort(every.lesions["distance"]), [0.4, 0.6, np.inf])
    table = reach.curve(every, [0.1, 0.3, 0.5, 0.7])
    assert table["matched"].tolist() == [0, 1, 2, 3] and np.isnan(table["precision"][0])
    np.testing.assert_allclose(table["recall"], [0, 0, 1 / 3, 2 / 3])
    assert reach.precision_at_recall(every, 1 / 3) == pytest.approx(1 / 2)
    assert reach.precision_at_recall(every, 2 / 3) == pytest.approx(2 / 3)
    assert np.isnan(reach.precision_at_recall(every, 1.0)), "the last lesion is never reached"
    nearest = reach.reach(patients, truth, 0.5, 0.5, nearest_only=True)
    assert nearest.tracklets["right"].tolist() == [False, True], "the vessel takes the lesion's place"
    gain = reach.compare(every, nearest, 1 / 3, draws=5, seed=0)
    assert gain.tolist() == [0.0] * 6 or gain[0] == pytest.approx(1 / 2 - 1 / 2)


def test_nothing_matched():
    tracklets = pd.DataFrame({"patient": [], "distance": [], "right": []}).astype({"right": bool, "distance": float})
    found = reach.Reach(tracklets, pd.DataFrame({"patient": ["p"], "distance": [np.inf]}))
    table = reach.curve(found, reach.steps(found))
    assert table["matched"].tolist() == [0] and table["recall"].tolist() == [0]
    assert np.isnan(reach.compare(found, found, 0.0, 3, 0)).all()


def test_patients_count_as_often_as_they_are_drawn():
    tracklets = pd.DataFrame({"patient": ["p", "q"], "distance": [0.1, 0.2], "right": [True, False]})
    lesions = pd.DataFrame({"patient": ["p", "q"], "distance": [0.3, np.inf]})
    found = reach.Reach(tracklets, lesions)
    assert reach.precision_at_recall(found, 0.5) == 0.5
    assert reach.precision_at_recall(found, 0.5, {"p": 3, "q": 1}) == 0.75
    assert np.isnan(reach.precision_at_recall(found, 0.5, {"p": 1, "q": 2}))
