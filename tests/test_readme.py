"""README.md: what it says of the stored run is what the stored tables say."""

import re
from pathlib import Path

import pandas as pd

from lensnb import settings
from lensnb.evaluation.claims import GAPS

HOUSE = Path(__file__).parents[1]
FIGURES = HOUSE / "figures" / "phantom"
NAMES = ("table2", "claims", "lesanet_matching", "lesanet_row_g")
TABLES = {name: pd.read_csv(FIGURES / f"{name}.csv") for name in NAMES}


def _interval(value: float, low: float, high: float) -> str:
    return f"{100 * value:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}]"


def _share(claim: pd.Series) -> str:
    return f"{100 * claim.ours:.0f} % [{100 * claim.low:.0f}, {100 * claim.high:.0f}]"


def where_it_stands(tables: dict[str, pd.DataFrame]) -> str:
    """README's section "Where it stands", written from the tables (by name, as they are stored)."""
    row = tables["table2"].set_index("row").average.map("{:.1%}".format).str.replace("%", " %")
    claims = tables["claims"].set_index("claim")
    points = {
        name: _share(c) if re.search("the gap|that gap|relative", name) else _interval(c.ours, c.low, c.high)
        for name, c in claims.iterrows()
    }
    matching = tables["lesanet_matching"].set_index(["embedding", "rule"]).loc[("LesaNet", "nearest only")]
    row_g = tables["lesanet_row_g"].set_index(["patients", "row"]).loc[("test", "g")]
    lists = {
        verdict: "; ".join(f"{name} {points[name]}" for name in claims.index[claims.verdict == verdict]) or "none"
        for verdict in ("fails", "undecided")
    }
    return (
        f"{_labels_and_mining(row, points)}. With the second network it is {row.h}. Row (a) with half as many "
        f"iterations more has {row['a-long']}; perfect matching alone would reach {row['oracle-mined']}, perfect "
        f"ignoring of what nobody marked {row['oracle-ignored']}.\n\n"
        f"{(claims.verdict == 'holds').sum()} of {len(claims)} [claims](figures/phantom/claims.md) hold. Those that "
        f"fail: {lists['fails']}. Undecided: {lists['undecided']}.{_sizes(claims)}\n\n"
        f"LesaNet's embedding against a simpler one: at equal recall matching differs by "
        f"{_interval(matching.difference, matching.low, matching.high)} of precision, and row (g) by "
        f"{_interval(row_g.difference, row_g.low, row_g.high)}."
    )


def _labels_and_mining(row: pd.Series, points: dict[str, str]) -> str:
    e, f = points["mining helps on DeepLesion alone: (e) - (a)"], points["mining helps joint training: (f) - (b)"]
    g = points["LENS against one dataset without mining: (g) - (a)"]
    if "complete-keys" not in row:  # the run that was stored before there was this row
        share = points["(g) recovers a third of the gap between (a) and complete labels"]
        return (
            f"In the committed run complete labels lift row (a) from {row.a} to {row.complete} average sensitivity: "
            f"that is what missing labels cost. Mining changes the detector that knows DeepLesion alone (row (e), "
            f"{row.e}) by {e}, and the DeepLesion expert of the joint training (row (f), {row.f}) by {f}. All of LENS "
            f"but the second network, row (g), reaches {row.g}. Against (a) that is {g}, and {share} of what complete "
            "labels would bring"
        )
    return (
        f"In the committed run complete labels on the same slices change row (a) from {row.a} to "
        f"{row['complete-keys']} average sensitivity, and those on all slices to {row.complete}. Mining changes the "
        f"detector that knows DeepLesion alone (row (e), {row.e}) by {e}, which is {points[GAPS['e']]} of what "
        f"complete labels on all slices would bring; it changes the DeepLesion expert of the joint training (row (f), "
        f"{row.f}) by {f}. All of LENS but the second network, row (g), reaches {row.g}. Against (a) that is {g}, and "
        f"{points[GAPS['g']]} of the same gap, with three more datasets"
    )


def _sizes(claims: pd.DataFrame) -> str:
    """How the sizes of the differences compare with the paper's, for the claims of which the paper has one."""
    if "size" not in claims:
        return ""
    counts = claims["size"].value_counts()
    of_paper = int(claims.paper.notna().sum())
    return (
        f" Of the {of_paper} differences that the paper has, too, {counts.get('agrees', 0)} agree with its in size "
        f"(log odds), {counts.get('smaller', 0)} are smaller and {counts.get('larger', 0)} larger."
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


def test_the_gap_is_compared_like_with_like():
    """A run with complete labels on the same slices: (e)'s share of the gap, and (g)'s under its own name."""
    changed = {name: table.copy() for name, table in TABLES.items()}
    table = changed["table2"][changed["table2"].row != "complete-keys"]
    keys = table[table.row == "complete"].assign(row="complete-keys", average=0.654)
    changed["table2"] = pd.concat([table, keys], ignore_index=True)
    claims = changed["claims"][~changed["claims"].claim.str.contains("the gap|that gap")]
    shares = [claims.iloc[0].to_dict() | {"claim": GAPS[name], "ours": share, "low": 0.4, "high": 0.6, "paper": None}
              for name, share in (("e", 0.5), ("g", 0.55))]  # fmt: skip
    changed["claims"] = pd.concat([claims, pd.DataFrame(shares)], ignore_index=True).assign(verdict="fails")
    changed["claims"]["size"] = changed["claims"].paper.notna().map({True: "agrees", False: None})
    text = where_it_stands(changed)
    assert "to 65.4 % average sensitivity, and those on all slices to" in text
    assert "50 % [40, 60] of what complete labels on all slices" in text
    assert "55 % [40, 60] of the same gap, with three more datasets" in text
    assert f"{GAPS['e']} 50 % [40, 60]" in text
    assert "Of the 11 differences that the paper has, too, 11 agree with its in size (log odds), 0 are smaller" in text


def test_every_figure_and_page_that_readme_links_is_there():
    links = re.findall(r"\]\((?!https?:|#)([^)]+)\)", (HOUSE / "README.md").read_text())
    assert len(links) > 20
    missing = [link for link in links if not (HOUSE / link.split("#")[0]).exists()]
    assert not missing, missing


def test_readme_names_every_profile():
    """Each has a file, is accepted, and stands in the table of profiles."""
    table = re.findall(
        r"^\| `(\w+)` \|",
        (HOUSE / "README.md").read_text().split("## Profiles and variants")[1].split("\n## ")[0],
        re.MULTILINE,
    )
    assert tuple(table) == settings.NAMES and {path.stem for path in settings.FOLDER.glob("*.yml")} == set(
        settings.NAMES
    )
    assert all(settings.load_profile(name).name == name for name in settings.NAMES)
