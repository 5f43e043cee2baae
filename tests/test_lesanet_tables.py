"""LesaNet's tables, claims and controls, on results small enough to work out."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lensnb.evaluation import lesanet_claims, lesanet_controls, lesanet_tables, published
from lensnb.lesanet import metrics
from lensnb.lesanet.methods import CONTROLS, TABLE1, TABLE3
from lensnb.lesanet.metrics import TEXT_MINED, Result


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
    assert table.loc["lesanet", ["text_f1_low", "text_f1_high"]].tolist() == [0.45, 0.45], "the same on every draw"
    text = lesanet_tables.table1_markdown(table.reset_index())
    line = next(line for line in text.splitlines() if line.startswith("| LesaNet |"))
    assert line.startswith(
        "| LesaNet | 90.0 [89.1, 91.0] (93.4) | 45.0 [45.0, 45.0] (35.9) | 45.0 [45.0, 45.0] (53.3) |"
    )
    first, second = text.split("**Complete test set**")
    assert first.startswith("**Text-mined test set**") and "| LesaNet | 80.0 [79.1, 81.0] (94.0) |" in second


def test_table1_without_complete_labels(results):
    table = lesanet_tables.table1({name: {TEXT_MINED: of[TEXT_MINED]} for name, of in results.items()})
    assert table["complete_auc"].isna().all() and table["text_auc"].notna().all()


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


def test_rows_before_and_after_are_written_with_their_intervals():
    line = {"patients": "test", "row": "g", "simpler": 0.5, "simpler_low": 0.45, "simpler_high": 0.55, "LesaNet": 0.512}
    line |= {"LesaNet_low": 0.46, "LesaNet_high": 0.56, "difference": 0.012, "low": -0.004, "high": 0.03}
    text = lesanet_tables.before_and_after(pd.DataFrame([line]))
    last = "| test | g | 50.0 [45.0, 55.0] | 51.2 [46.0, 56.0] | +1.2 [-0.4, +3.0] |"
    assert (
        text.splitlines()[0] == "| patients | row | simpler | LesaNet | difference |" and text.splitlines()[-1] == last
    )


# --- claims ---


def of(values):
    """A result: for each measure the value, and after it the same on each draw of patients."""
    draws = pd.DataFrame({m: values[1:] for m in metrics.METRICS})
    return Result(None, pd.Series({m: values[0] for m in metrics.METRICS}), draws)


def split(gains, moved=(0.0, 0.0)):
    """A split's results: LesaNet's .9 on all draws, an ablation's less by its gain, which two draws move."""
    found = {name: of(np.array([0.9, 0.9, 0.9])) for name in TABLE1}
    found |= {name: of(0.9 - np.array([gain, gain + moved[0], gain + moved[1]])) for name, gain in gains.items()}
    return {name: {TEXT_MINED: one, "complete": one} for name, one in found.items()}


def test_claims_on_one_split_are_paired_differences_over_patients(results):
    found = lesanet_claims.claims([results])
    assert list(found.columns) == lesanet_claims.COLUMNS and len(found) == 2 * len(lesanet_claims.CLAIMS)
    first = found.iloc[0]
    assert first["ours"] == pytest.approx(0.1) and first["low"] == pytest.approx(0.1), "the common spread cancels"
    assert first["paper"] == pytest.approx(0.9344 - 0.9048) and first["verdict"] == "holds"
    by_claim = found.set_index("claim")["verdict"]
    assert by_claim["hard example mining helps: AUC, text-mined test set"] == "fails"
    assert by_claim["score propagation helps: AUC, complete test set"] == "undecided"
    assert (found["splits"] == 1).all() and found["p_corrected"].isna().all()
    assert set(found["table"]) == {"lesanet_table1"}


def test_claims_on_three_splits_by_hand():
    """Label expansion gains 4, 5 and 6 points on three splits, and 2 points less or more on two draws of patients.

    Mean 5 points; the splits' variance is 1e-4, that of their mean a third; the patients' 8e-4, from -.02 and .02.
    """
    first, *further = [split({"without-expansion": gain}, (-0.02, 0.02)) for gain in (0.04, 0.05, 0.06)]
    splits = [first, *({name: one[name] for name in TABLE3} for one in further)]
    found = lesanet_claims.claims(splits).set_index("claim")
    line = found.loc["label expansion helps: AUC, text-mined test set"]
    variance = 1e-4 / 3 + 8e-4
    freedom = 2 * (variance / (1e-4 / 3)) ** 2  # 1250
    half = stats.t.ppf(0.975, freedom) * np.sqrt(variance)
    assert line[["ours", "low", "high"]].tolist() == pytest.approx([0.05, 0.05 - half, 0.05 + half])
    assert line["splits"] == 3 and line["table"] == "lesanet_table3"
    assert line["paper"] == pytest.approx(0.9324 - 0.9237), "the paper's over splits, too"
    # 14 lines have a p: seven claims on two test sets; twelve of them are 0 on all splits and draws, p = 1
    p = 2 * stats.t.sf(0.05 / np.sqrt(variance), freedom)  # .083
    assert found["p_corrected"].notna().sum() == 14 and line["p_corrected"] == pytest.approx(min(1, 14 * p))
    assert line["verdict"] == "undecided"


def test_a_gain_that_changes_its_sign_is_no_gain():
    """Of the triplet loss one training says +.67 points with a narrow interval; the three say +.67, -.17, +.14."""
    triplet, expansion = (0.0067, -0.0017, 0.0014), (0.0490, 0.0489, 0.0491)
    splits = [split({"without-triplet": t, "without-expansion": e}, (-1e-5, 1e-5))
              for t, e in zip(triplet, expansion, strict=True)]  # fmt: skip
    splits[1:] = [{name: one[name] for name in TABLE3} for one in splits[1:]]
    alone, together = (lesanet_claims.claims(which).set_index("claim") for which in (splits[:1], splits))
    name = "the triplet loss helps: AUC, text-mined test set"
    assert (alone.loc[name, "verdict"], alone.loc[name, "splits"]) == ("holds", 1)
    assert (together.loc[name, "verdict"], together.loc[name, "splits"]) == ("undecided", 3)
    assert together.loc[name, "ours"] == pytest.approx(0.0064 / 3) and together.loc[name, "low"] < -0.008
    assert together.loc["label expansion helps: AUC, text-mined test set", "verdict"] == "holds"
    of_splits = lesanet_claims.by_split(splits).set_index("claim")
    assert of_splits.loc[name].tolist() == pytest.approx(triplet) and len(of_splits) == 2 * 7, "not the rivals'"


def test_rivals_rest_on_the_split_they_have():
    first, second = split({"cnn": 0.1, "without-expansion": 0.1}), split({"without-expansion": 0.1})
    second = {name: second[name] for name in TABLE3}
    found = lesanet_claims.claims([first, second]).set_index("claim")
    rival = found.loc["LesaNet is better than the plain multilabel CNN: AUC, complete test set"]
    assert (rival["splits"], rival["table"], rival["verdict"]) == (1, "lesanet_table1", "holds")
    assert np.isnan(rival["p_corrected"]) and rival["paper"] == pytest.approx(0.9398 - 0.9151)
    assert found.loc["score propagation raises recall: recall, complete test set", "splits"] == 2
    text = lesanet_claims.claims_markdown(found.reset_index()[lesanet_claims.COLUMNS])
    assert "AUC, complete test set | 2.5 % | 10.0 % | 10.0 % | 10.0 % | 1 |  | holds |" in text
    told = lesanet_claims.told(found.reset_index().iloc[0])
    assert told.endswith("CNN: AUC, text-mined test set: +10.0 points [+10.0, +10.0], 1 split")


def test_splits_must_share_their_draws():
    fewer = {name: {TEXT_MINED: of(np.array([0.9, 0.9]))} for name in TABLE3}
    with pytest.raises(ValueError, match="differ in their number of draws"):
        lesanet_claims.claims([split({}), fewer])


def test_gain_claim():
    line = lesanet_claims.gain_claim(np.array([3.0, 2.0]), np.array([2.0, 2.0]), np.array([[1.0, 1.0], [2.0, 0.0]]))
    assert (line["ours"], line["low"] > 0.5, line["verdict"]) == (0.5, True, "holds")
    assert line["paper"] == pytest.approx(0.11)
    assert line["splits"] == 1 and np.isnan(line["p_corrected"]) and set(line) == set(lesanet_claims.COLUMNS)


# --- controls ---


def test_controls_by_hand(results):
    """AUC: the CNN .8, LesaNet .9, CNN + expansion .85, which is half of the way; F1 is half of each."""
    both = results | {name: {TEXT_MINED: result(0.8)} for name in CONTROLS}
    both = {name: {TEXT_MINED: of_sets[TEXT_MINED]} for name, of_sets in both.items()}
    both["cnn-expansion"] = {TEXT_MINED: result(0.85)}
    table = lesanet_controls.controls(both).set_index(["measure", "method"])
    assert list(table.loc["auc"].index) == [*CONTROLS, "lesanet"] and set(table["set"]) == {TEXT_MINED}
    names = ["value", "gain", "low", "high", "share", "share_low", "share_high"]
    assert table.loc[("auc", "cnn-expansion"), names].tolist() == pytest.approx([0.85, 0.05, 0.05, 0.05, 0.5, 0.5, 0.5])
    assert table.loc[("f1", "cnn-expansion"), names].tolist() == pytest.approx(
        [0.425, 0.025, 0.025, 0.025, 0.5, 0.5, 0.5]
    )
    assert table.loc[("auc", "cnn-triplet"), ["gain", "share"]].tolist() == pytest.approx([0, 0])
    assert table.loc[("auc", "lesanet"), ["gain", "share"]].tolist() == pytest.approx([0.1, 1])
    text = lesanet_controls.controls_markdown(table.reset_index())
    assert "| CNN + label expansion | +5.0 [+5.0, +5.0] = 50% [50, 50] | +2.5 [+2.5, +2.5] = 50% [50, 50] |" in text


def test_there_is_no_share_of_a_lead_that_may_be_none():
    """LesaNet's lead is +1 and, on the two draws, -1 and 3 points: what a part is of it nobody can say."""
    level = {name: {TEXT_MINED: of(np.array([0.8, 0.8, 0.8]))} for name in ("cnn", *CONTROLS)}
    level["lesanet"] = {TEXT_MINED: of(np.array([0.81, 0.79, 0.83]))}
    table = lesanet_controls.controls(level)
    assert table[["share", "share_low", "share_high"]].isna().all(axis=None) and table["gain"].notna().all()
    assert "=" not in lesanet_controls.controls_markdown(table)


def test_what_parents_add_at_test_by_hand():
    """Expanded .6, .5 and .7 on two draws, without .5, .4 and .4: differences .1 and, on the draws, .1 and .3."""
    expanded, plain = {TEXT_MINED: of(np.array([0.6, 0.5, 0.7]))}, {TEXT_MINED: of(np.array([0.5, 0.4, 0.4]))}
    other = {TEXT_MINED: of(np.zeros(3))}
    table = lesanet_controls.expansion_at_test({"cnn": expanded, "warp": other}, {"cnn": plain})
    assert list(table["measure"]) == ["precision", "recall", "f1"] and set(table["method"]) == {"cnn"}
    line = table.iloc[2]
    # percentiles 2.5 and 97.5 between .1 and .3
    names = ["expanded", "plain", "difference", "low", "high"]
    assert line[names].tolist() == pytest.approx([0.6, 0.5, 0.1, 0.105, 0.295])
    last = "| Multiscale multilabel CNN | text-mined | F1 | 60.0 | 50.0 | +10.0 [+10.5, +29.5] |"
    assert lesanet_controls.expansion_markdown(table).splitlines()[-1] == last
