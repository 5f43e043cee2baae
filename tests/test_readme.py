"""README.md: what it says of the stored run is what the stored tables say."""

import re
from pathlib import Path

import pandas as pd

HOUSE = Path(__file__).parents[1]
FIGURES = HOUSE / "figures" / "phantom"
NAMES = ("table2", "claims", "lesanet_matching", "lesanet_row_g")
TABLES = {name: pd.read_csv(FIGURES / f"{name}.csv") for name in NAMES}


def _interval(value: float, low: float, high: float) -> str:
    return f"{100 * value:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]"


def where_it_stands(tables: dict[str, pd.DataFrame]) -> str:
    """README's section "Where it stands", written from the tables (by name, as they are stored)."""
    row = tables["table2"].set_index("row").average.map("{:.1%}".format).str.replace("%", " %")
    claims = tables["claims"].set_index("claim")
    points = {name: _interval(c.ours, c.low, c.high) for name, c in claims.iterrows()}
    gap = claims.loc["(g) recovers a third of the gap between (a) and complete labels"]
    recovered = f"{100 * gap.ours:.0f} % [{100 * gap.low:.0f}, {100 * gap.high:.0f}]"
    matching = tables["lesanet_matching"].set_index(["embedding", "rule"]).loc[("LesaNet", "nearest only")]
    row_g = tables["lesanet_row_g"].set_index(["patients", "row"]).loc[("test", "g")]
    lists = {
        verdict: "; ".join(f"{name} {points[name]}" for name in claims.index[claims.verdict == verdict]) or "none"
        for verdict in ("fails", "undecided")
    }
    return (
        f"In the committed run complete labels lift row (a) from {row.a} to {row.complete} average sensitivity: that "
        f"is what missing labels cost. Mining changes the detector that knows DeepLesion alone (row (e), {row.e}) by "
        f"{points['mining helps on DeepLesion alone: (e) - (a)']}, and the DeepLesion expert of the joint training "
        f"(row (f), {row.f}) by {points['mining helps joint training: (f) - (b)']}. All of LENS but the second "
        f"network, row (g), reaches {row.g}. Against (a) that is "
        f"{points['LENS against one dataset without mining: (g) - (a)']}, and {recovered} of what complete labels "
        f"would bring. With the second network it is {row.h}. Row (a) with half as many iterations more has "
        f"{row['a-long']}; perfect matching alone would reach {row['oracle-mined']}, perfect ignoring of what nobody "
        f"marked {row['oracle-ignored']}.\n\n"
        f"{(claims.verdict == 'holds').sum()} of {len(claims)} [claims](figures/phantom/claims.md) hold. Those that "
        f"fail: {lists['fails']}. Undecided: {lists['undecided']}.\n\n"
        f"LesaNet's embedding against a simpler one: at equal recall matching differs by "
        f"{_interval(matching.difference, matching.low, matching.high)} of precision, and row (g) by "
        f"{_interval(row_g.difference, row_g.low, row_g.high)}."
    )


def test_what_readme_says_of_the_stored_run_is_in_the_stored_tables():
    readme = " ".join((HOUSE / "README.md").read_text().split())
    for paragraph in where_it_stands(TABLES).split("\n\n"):
        assert paragraph in readme, f"README.md, Where it stands: the tables in {FIGURES.name} say\n{paragraph}"


def test_sentences_follow_their_tables():
    changed = {name: table.copy() for name, table in TABLES.items()}
    changed["table2"].loc[changed["table2"].row == "a", "average"] = 0.1234
    changed["claims"]["verdict"] = "holds"
    text = where_it_stands(changed)
    assert "from 12.3 % to" in text
    assert f"{len(changed['claims'])} of {len(changed['claims'])} [claims]" in text and "fail: none." in text


def test_every_figure_and_page_that_readme_links_is_there():
    links = re.findall(r"\]\((?!https?:|#)([^)]+)\)", (HOUSE / "README.md").read_text())
    assert len(links) > 20
    missing = [link for link in links if not (HOUSE / link.split("#")[0]).exists()]
    assert not missing, missing
