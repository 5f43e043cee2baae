"""The one place that says what an interval means, on intervals made by hand."""

import ast

import numpy as np
import pytest

from lensnb import runfolder
from lensnb.evaluation import verdicts
from lensnb.evaluation.claims import PHANTOM_CLAIMS, claim_line
from lensnb.evaluation.verdicts import MARGIN, by_interval, by_p, log_odds, size


@pytest.mark.parametrize(
    ("low", "high", "bound", "verdict"),
    [
        (0.01, 0.03, 0.0, "holds"),
        (-0.03, -0.01, 0.0, "fails"),
        (-0.01, 0.03, 0.0, "undecided"),
        (0.0, 0.03, 0.0, "undecided"),  # the bound itself is not over it
        (0.05, 0.12, 0.08, "undecided"),
        (0.09, 0.12, 0.08, "holds"),
        (0.05, 0.07, 0.08, "fails"),
        # "b does not help": a - b against -MARGIN
        (-0.004, 0.006, -MARGIN, "holds"),  # b brings four tenths of a point at most
        (0.02, 0.04, -MARGIN, "holds"),  # b hurts, so it does not help
        (-0.03, -0.015, -MARGIN, "fails"),  # b brings a point and a half at least
        (-0.02, 0.02, -MARGIN, "undecided"),  # nobody can say
        (-0.02, -0.002, -MARGIN, "undecided"),  # b helps a little: by more than a point or less
        (np.nan, np.nan, 0.0, "undecided"),
    ],
)
def test_verdict_of_an_interval(low, high, bound, verdict):
    assert by_interval(low, high, bound) == verdict


def test_verdict_of_a_corrected_p():
    assert [by_p(0.1, 0.049), by_p(-0.1, 0.049), by_p(0.1, 0.05), by_p(0.0, 0.0), by_p(0.1, np.nan)] == [
        "holds", "fails", "undecided", "undecided", "undecided",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("paper", "low", "high", "word"),
    [(0.4, 0.2, 0.5, "agrees"), (0.4, 0.4, 0.5, "agrees"), (0.4, 0.1, 0.3, "smaller"), (0.4, -0.3, -0.1, "smaller"),
     (0.4, 0.5, 0.9, "larger"), (np.nan, 0.1, 0.2, ""), (0.4, np.nan, np.nan, "")],
)  # fmt: skip
def test_size_beside_the_papers(paper, low, high, word):
    assert size(paper, low, high) == word


def test_size_is_compared_on_the_scale_of_odds():
    np.testing.assert_allclose(log_odds(0.5), 0)
    np.testing.assert_allclose(log_odds(0.8), np.log(4))
    # ten points from .368 to .468 are as much as 9.3 from .65 to .743, not as ten
    np.testing.assert_allclose(log_odds(0.468) - log_odds(0.368), log_odds(0.7374) - log_odds(0.65), atol=2e-3)


def test_more_iterations_have_a_margin():
    (claim,) = [claim for claim in PHANTOM_CLAIMS if "do not help" in claim.text]
    assert (claim.first, claim.second, claim.bound) == ("a", "a-long", -MARGIN) and MARGIN == 0.01
    samples = np.r_[-0.002, np.linspace(-0.006, 0.002, 101)]  # longer training brings two tenths of a point
    assert claim_line("t", claim.text, np.nan, samples, claim.bound)["verdict"] == "holds"
    assert claim_line("t", claim.text, np.nan, samples - 0.02, claim.bound)["verdict"] == "fails"
    assert claim_line("t", claim.text, np.nan, samples * 10, claim.bound)["verdict"] == "undecided"


def test_no_other_file_makes_a_verdict():
    words = {
        path.name
        for path in (runfolder.repository() / "lensnb").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and node.value in verdicts.VERDICTS
    }
    assert words == {"verdicts.py"}
