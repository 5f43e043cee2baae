"""Table II and its claims, on results small enough to work out by hand."""

import numpy as np
import pandas as pd
import pytest

from lensnb.boxes import BOX3D
from lensnb.evaluation import claims, froc, published, table2
from lensnb.evaluation.markdown import markdown

VOLUMES = [f"{patient:06d}_01_01_001-024" for patient in range(40)]
TRUTH = {volume: np.array([[10.0, 10, 2, 19, 19, 5]]) for volume in VOLUMES}


def evaluation(found: int, false: int = 0) -> froc.Evaluation:
    """A method that finds the lesion in the first `found` of 40 volumes, after `false` wrong detections."""
    rows = [(volume, 10, 10, 2, 19, 19, 5, 0.5) for volume in VOLUMES[:found]]
    rows += [(volume, 50, 50, 9, 55, 55, 9, 0.9) for volume in VOLUMES[:false]]
    return froc.evaluate(TRUTH, pd.DataFrame(rows, columns=["volume", *BOX3D, "score"]), resamples=200)


@pytest.fixture(scope="module")
def evaluations():
    found = {
        "baseline": 10,
        "a": 20,
        "b": 20,
        "c": 21,
        "e": 30,
        "f": 19,
        "g": 32,
        "h": 36,
        "complete-keys": 24,
        "complete": 38,
        "fpr-alone": 5,
    }
    return {name: evaluation(count) for name, count in found.items()}


def verdicts(claims: pd.DataFrame) -> pd.Series:
    return claims.set_index("claim")["verdict"]


def test_table2_has_the_columns_that_others_rely_on(evaluations):
    table = table2.table2(evaluations)
    rates = ["fp_0.125", "fp_0.25", "fp_0.5", "fp_1", "fp_2", "fp_4", "fp_8"]
    components = ["afp", "multi_dataset", "proposal_fusion", "mam", "fpr"]
    last = ["average", "average_low", "average_high", "paper_average"]
    assert list(table.columns) == ["row", "method", *components, *rates, *last]
    assert list(table.row) == ["baseline", "a", "b", "c", "e", "f", "g", "h", "complete-keys", "complete"]


def test_table2_components_are_those_of_the_paper(evaluations):
    table = table2.table2(evaluations).set_index("row")
    marks = table[list(table2.COMPONENTS)].eq("yes").astype(int).apply(lambda row: "".join(map(str, row)), axis=1)
    paper = {
        "baseline": "00000",
        "a": "10000",
        "b": "11000",
        "c": "11100",
        "e": "10010",
        "f": "11010",
        "g": "11110",
        "h": "11111",
    }
    assert marks[list(paper)].to_dict() == paper


def test_table2_values_are_fractions_of_the_lesions_found(evaluations):
    table = table2.table2(evaluations).set_index("row")
    assert table.loc["a", "fp_8"] == table.loc["a", "average"] == 0.5  # 20 of 40, without a false positive
    assert table.loc["h", "average_low"] < 0.9 < table.loc["h", "average_high"]
    assert table.loc["g", "paper_average"] == 0.476 and np.isnan(table.loc["complete", "paper_average"])


def test_false_positives_lower_the_left_end_only():
    few = table2.table2({"a": evaluation(20, false=10)}).iloc[0]  # 10 false positives in 40 volumes come first
    assert few["fp_0.125"] == 0 and few["fp_0.25"] == few["fp_8"] == 0.5
    assert few["average"] == pytest.approx(0.5 * 6 / 7)


def test_paper_numbers_agree_with_their_printed_averages():
    for sensitivities, average in published.TABLE2.values():
        assert np.mean(sensitivities) == pytest.approx(average, abs=0.0007)


def test_claims_are_differences_of_averages(evaluations):
    found = claims.table2_claims(evaluations, resamples=300)
    assert list(found.columns) == claims.COLUMNS
    ours = found.set_index("claim").ours
    assert ours["mining helps on DeepLesion alone: (e) - (a)"] == pytest.approx(0.25)
    assert ours["LENS against the baseline, relative: (h) / baseline - 1"] == pytest.approx(36 / 10 - 1)
    assert ours[claims.GAPS["e"]] == pytest.approx((30 - 20) / (38 - 20))
    assert ours[claims.GAPS["g"]] == pytest.approx((32 - 20) / (38 - 20))
    paper = found.set_index("claim").paper
    assert paper["mining helps on DeepLesion alone: (e) - (a)"] == pytest.approx(0.468 - 0.368)
    assert paper["LENS against the baseline, relative: (h) / baseline - 1"] == pytest.approx(0.487, abs=0.001)


def test_verdicts_follow_the_whole_interval(evaluations):
    found = verdicts(claims.table2_claims(evaluations, resamples=300))
    assert found["mining helps on DeepLesion alone: (e) - (a)"] == "holds"  # ten patients gained, none lost
    assert found["joint training helps: (b) - (a)"] == "undecided"  # no difference at all
    assert found["fusing the experts helps: (c) - (b)"] == "undecided"  # one patient gained: some draws miss that one
    assert found["complete labels on all slices bring 8 points or more: complete - (a)"] == "holds"  # 18 of 40 gained
    worse = {"a": evaluation(20), "baseline": evaluation(30), "complete": evaluation(21)}
    found = verdicts(claims.table2_claims(worse, resamples=300))
    assert found["AFP is better than RPN: (a) - baseline"] == "fails"
    assert found["complete labels on all slices bring 8 points or more: complete - (a)"] in (
        "fails",
        "undecided",
    )  # 1 of 40 is 2.5 points


def test_claims_without_their_rows_are_left_out():
    found = claims.table2_claims({"a": evaluation(20), "e": evaluation(30)}, resamples=50)
    assert list(found.claim) == ["mining helps on DeepLesion alone: (e) - (a)"]


def test_nothing_to_divide_by_gives_no_verdict():
    nothing = {name: evaluation(0, false=40) for name in ("a", "g", "complete", "baseline", "h")}
    found = claims.table2_claims(nothing, resamples=50).set_index("claim")
    share = found.loc[claims.GAPS["g"]]
    assert share.verdict == "undecided" and np.isnan(share.ours)


def test_sizes_beside_the_papers(evaluations):
    """Differences of log odds by hand, ours and the paper's in the comments."""
    size = claims.table2_claims(evaluations, resamples=300).set_index("claim")["size"]
    assert size["mining helps on DeepLesion alone: (e) - (a)"] == "larger"  # log 3 = 1.10, .41
    assert size["the FPR score alone is worse than LENS: (g) - FPR alone"] == "larger"  # log 4 + log 7, .66
    assert size["joint training helps: (b) - (a)"] == "smaller"  # the same lesions: 0 in every draw, .02
    assert size["mining helps joint training: (f) - (b)"] == "smaller"  # one patient lost, .41
    assert size["fusing the experts helps: (c) - (b)"] == "agrees"  # one patient of 40 gained: 0 to .2 or so, .09
    assert (size[[claims.GAPS["e"], claims.GAPS["g"]]] == "").all()


def test_claims_page_has_units(evaluations, tmp_path):
    table = claims.table2_claims(evaluations, resamples=100)
    text = claims.write_claims(table, tmp_path / "claims.md", "smoke")
    (mining,) = [line for line in text.splitlines() if "DeepLesion alone: (e) - (a)" in line]
    assert mining.startswith("| mining helps on DeepLesion alone: (e) - (a) | +10.0 points | +25.0 points |")
    (share,) = [line for line in text.splitlines() if claims.GAPS["e"] in line]
    assert share.startswith(f"| {claims.GAPS['e']} |  | 55.6 % |")
    (relative,) = [line for line in text.splitlines() if "/ baseline - 1" in line]
    assert "| 48.7 % | 260.0 % |" in relative
    told = claims.told(table.set_index("claim", drop=False).loc["mining helps on DeepLesion alone: (e) - (a)"])
    assert told.startswith("mining helps on DeepLesion alone: (e) - (a): +25.0 points [+") and told.endswith(
        "; larger than the paper's"
    )


def test_which_of_the_papers_steps_are_too_small(evaluations):
    text = claims.too_small(claims.table2_claims(evaluations, resamples=200))
    # ours vary by patients who change from row to row: not at all from (a) to (b), by one in 40 from (b) to (c)
    assert text.startswith("Half of the interval of a difference is 0.0 to ")
    assert "fusing the experts helps" in text and "joint training helps: (b) - (a)" not in text
    assert f"of the paper's {len(claims.PAPER_CLAIMS) - 1} differences" in text


def test_markdown_has_the_paper_in_brackets(evaluations, tmp_path):
    text = table2.write_table2(table2.table2(evaluations), tmp_path / "table2.md", "smoke")
    (line,) = [line for line in text.splitlines() if line.startswith("| a |")]
    assert "50.0 (15.8)" in line and line.endswith("(36.8) |")
    (upper,) = [line for line in text.splitlines() if line.startswith("| complete |")]
    assert "(" not in upper.split("bound")[1]
    assert (tmp_path / "table2.md").read_text().startswith("# Table II, profile smoke")


def test_markdown_of_missing_values_and_percent():
    table = pd.DataFrame({"name": ["x"], "share": [0.123], "value": [1.23456], "nothing": [np.nan]})
    assert markdown(table, percent=["share"], digits=2).splitlines()[-1] == "| x | 12.3 % | 1.23 |  |"
