"""LesaNet's study, tables, claims, matching over delta and names for lesions, on cases small enough to work out."""

import json

import numpy as np
import pandas as pd
import pytest
from test_lesanet import TinyStore
from test_lesanet_training import NAMES, ONTOLOGY, PROFILE, dl_info, mined_labels  # noqa: F401

from lensnb.evaluation import lesanet_tables, published
from lensnb.lesanet import methods, metrics, naming, prediction, study, text_mining
from lensnb.lesanet.methods import METHODS, TABLE1, TABLE3, MethodRun
from lensnb.lesanet.metrics import TEXT_MINED, Result
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
    assert list(found)[:9] == list(TABLE1) and len(found) == 9 + 2 * 6 + 2
    assert found["without-triplet-split2"] == MethodRun("without-triplet", split=2)
    assert found["lesanet-part1"].part == 1 / 3
    assert len(methods.runs(1)) == 11 and all(run.method in METHODS for run in found.values())


# --- tables and claims ------------------------------------------------------------------------------------------


def result(auc, labels=None):
    """A result whose AUC is `auc` on every set of patients but for a spread of 0.01; all else is half of it."""
    spread = np.linspace(-0.01, 0.01, 41)
    samples = pd.DataFrame({"auc": auc + spread} | {m: np.full(41, auc / 2) for m in metrics.METRICS[1:]})
    means = pd.Series({"auc": auc} | {m: auc / 2 for m in metrics.METRICS[1:]})
    return Result(labels, means, samples)


@pytest.fixture
def results():
    auc = dict(zip(TABLE1, (0.8, 0.85, 0.7, 0.9, 0.9, 0.91, 0.6, 0.89, 0.88), strict=True))
    return {name: {TEXT_MINED: result(value), "complete": result(value - 0.1)} for name, value in auc.items()}


def test_table1_has_the_papers_numbers_beside_ours(results):
    table = lesanet_tables.table1(results).set_index("method")
    assert list(table.index) == list(TABLE1) == list(published.LESANET_TABLE1)
    assert table.loc["lesanet", ["text_auc", "complete_auc", "text_f1"]].tolist() == pytest.approx([0.9, 0.8, 0.45])
    assert table.loc["lesanet", ["text_auc_low", "text_auc_high"]].tolist() == pytest.approx([0.8905, 0.9095])
    assert table.loc["warp", ["paper_text_recall", "paper_complete_precision"]].tolist() == [0.6202, 0.6677]
    assert "| LesaNet | 90.0 [89." in lesanet_tables.table1_markdown(table.reset_index()), "ours"
    assert "] (93.4) | 45.0 (35.9) |" in lesanet_tables.table1_markdown(table.reset_index()), "the paper's"


def test_table1_without_complete_labels(results):
    table = lesanet_tables.table1({name: {TEXT_MINED: of[TEXT_MINED]} for name, of in results.items()})
    assert table["complete_auc"].isna().all() and table["text_auc"].notna().all()


def test_claims_are_paired_differences(results):
    found = lesanet_tables.claims(results)
    assert list(found.columns) == ["table", "claim", "paper", "ours", "low", "high", "verdict"]
    assert len(found) == 2 * len(lesanet_tables.CLAIMS)
    first = found.iloc[0]
    assert first["ours"] == pytest.approx(0.1) and first["low"] == pytest.approx(0.1), "the common spread cancels"
    assert first["paper"] == pytest.approx(0.9344 - 0.9048) and first["verdict"] == "holds"
    by_claim = found.set_index("claim")["verdict"]
    assert by_claim["hard example mining helps: AUC, text-mined test set"] == "fails"
    assert by_claim["score propagation helps: AUC, complete test set"] == "undecided"


def test_table3_is_mean_and_standard_deviation(results):
    other = {name: {TEXT_MINED: result(0.5), "complete": result(0.5)} for name in TABLE3}
    table = lesanet_tables.table3([results, other]).set_index("method")
    assert list(table.index) == list(TABLE3) == list(published.LESANET_TABLE3)
    assert table.loc["lesanet", ["text_auc_mean", "text_auc_sd"]].tolist() == pytest.approx(
        [0.7, np.std([0.9, 0.5], ddof=1)]
    )
    assert table.loc["lesanet", ["paper_text_auc_mean", "paper_complete_f1_sd"]].tolist() == [0.9324, 0.0108]
    assert np.isnan(lesanet_tables.table3([results]).loc[0, "text_auc_sd"])
    assert "70.0 ± 28.3 (93.2 ± 0.1)" in lesanet_tables.table3_markdown(table.reset_index())


def test_table2_and_kinds():
    labels = pd.DataFrame(
        {"label": ["lung", "liver", "cyst"], "kind": ["bodypart", "bodypart", "type"], "train": [5, 4, 3]}
        | {"positive": [2, 3, 0], "auc": [0.8, 0.6, np.nan], "f1": [0.4, 0.2, np.nan]}
    )
    both = {TEXT_MINED: result(0.9, labels), "complete": result(0.9, labels.assign(auc=[1.0, 1.0, 0.5]))}
    table = lesanet_tables.table2(both).set_index("label")
    assert table.loc["lung", ["text_auc", "complete_auc", "paper_auc", "paper_f1"]].tolist() == [0.8, 1.0, 0.986, 0.92]
    kinds = lesanet_tables.kinds(both).set_index("kind")
    assert kinds.loc["bodypart", "text_auc"] == pytest.approx(0.7) and kinds.loc["type", "text_labels"] == 0
    assert kinds.loc["type", "complete_auc"] == 0.5 and np.isnan(kinds.loc["attribute", "text_auc"])


def test_papers_tables_agree_in_what_both_print():
    for name, sets in published.LESANET_TABLE3.items():
        for of_table1, of_table3 in zip(published.LESANET_TABLE1[name], sets, strict=True):
            assert abs(of_table1[0] - of_table3[0][0]) < 0.01


def test_resampled_decisions_by_hand():
    predicted = np.array([[True], [True], [False], [False]])
    labels = np.array([[True], [False], [True], [False]])
    nobody = np.zeros_like(labels)
    alone = metrics.resampled_decisions(predicted, labels, nobody, np.array(["p"] * 4), 3, 0)
    assert (alone == 0.5).all(axis=None) and len(alone) == 3
    patients = np.array(["p", "p", "q", "q"])
    copies = metrics.copies_of_patients(patients, 50, 1)
    found = metrics.resampled_decisions(predicted, labels, nobody, patients, 50, 1)
    p, q = copies[:, 0], copies[:, 2]
    np.testing.assert_allclose(found["recall"], p / (p + q))
    np.testing.assert_allclose(found["precision"], np.where(p > 0, 0.5, 1.0))


def test_gain_claim():
    line = lesanet_tables.gain_claim(np.array([3.0, 2.0]), np.array([2.0, 2.0]), np.array([[1.0, 1.0], [2.0, 0.0]]))
    assert (line["ours"], line["low"] > 0.5, line["verdict"]) == (0.5, True, "holds")
    assert line["paper"] == pytest.approx(0.11)


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


def test_varied_lesions_are_of_different_patients():
    lesions = pd.DataFrame({"patient": ["a", "a", "b", "c"]})
    labels = np.array([[1, 1, 1, 0], [1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 1]], dtype=bool)
    assert lesanet_cards.varied(lesions, labels, 2).tolist() == [1, 2]
    assert len(lesanet_cards.varied(lesions, labels, 9)) == 3


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


def test_rows_before_and_after_are_written_with_their_intervals():
    line = {"patients": "test", "row": "g", "simpler": 0.5, "simpler_low": 0.45, "simpler_high": 0.55, "LesaNet": 0.512}
    line |= {"LesaNet_low": 0.46, "LesaNet_high": 0.56, "difference": 0.012, "low": -0.004, "high": 0.03}
    text = lesanet_tables.before_and_after(pd.DataFrame([line]))
    last = "| test | g | 50.0 [45.0, 55.0] | 51.2 [46.0, 56.0] | +1.2 [-0.4, +3.0] |"
    assert (
        text.splitlines()[0] == "| patients | row | simpler | LesaNet | difference |" and text.splitlines()[-1] == last
    )
