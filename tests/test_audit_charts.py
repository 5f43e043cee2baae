"""The picture of the phantom audit: every measured statistic at its place, what differs by number."""

import numpy as np
import pandas as pd
import pytest

from lensnb.phantom import audit
from lensnb.show import audit_charts, plots


@pytest.fixture
def table():
    rows = [
        ("long diameter, p50", 10.0, 11.0, 1.25, "agrees"),
        ("long diameter, p90", 30.0, 60.0, 1.25, "differs"),
        ("nodules a scan", 1.3, 1.2, 1.25, "agrees"),
        ("marked, share", 0.25, 0.40, 0.05, "differs"),
        ("tumours a scan", 6.9, np.nan, 1.25, "not measured"),
    ]
    return pd.DataFrame(rows, columns=["statistic", "published", "phantom", "tolerance", "verdict"]).assign(source="x")


def places(ax):
    return sorted(
        tuple(line.get_xydata()[0])
        for line in ax.lines
        if line.get_marker() in ("o", "s") and len(line.get_xdata()) == 1
    )


def test_every_measured_statistic_is_drawn_once(table, tmp_path):
    fig = audit_charts.audit_chart(table)
    lengths, shares = fig.axes
    assert places(lengths) == [(1.3, 1.2), (10.0, 11.0), (30.0, 60.0)] and places(shares) == [(0.25, 0.40)]
    assert lengths.get_xscale() == lengths.get_yscale() == "log" and shares.get_xscale() == "linear"
    assert [text.get_text() for ax in fig.axes for text in ax.texts] == ["2", "4"]  # their lines in the table
    assert plots.save(fig, tmp_path / "a.png") == plots.save(audit_charts.audit_chart(table), tmp_path / "b.png")


def test_the_band_is_the_tolerance(table):
    for ax, inside, outside in zip(audit_charts.audit_chart(table).axes, ((10, 12.4), (0.25, 0.29)),
                                   ((10, 12.7), (0.25, 0.31)), strict=True):  # fmt: skip
        band = ax.collections[0].get_paths()[0]
        assert band.contains_point(inside) and not band.contains_point(outside)


def test_named_differences_are_told_apart(table):
    named = table.assign(known=["", "the grid", "", np.nan, ""])
    told = audit_charts.sentence(named)
    assert (
        told.startswith("2 of 5 statistics agree") and "1 differ for a reason that is named, 1 differ without" in told
    )
    assert "1 cannot be measured" in told
    assert "0 differ for a reason that is named, 2 differ without one" in audit_charts.sentence(table)
    colours = {
        line.get_color()
        for ax in audit_charts.audit_chart(named).axes
        for line in ax.lines
        if len(line.get_xdata()) == 1
    }
    assert {audit_charts.AGREES, audit_charts.KNOWN, audit_charts.DIFFERS} <= colours


def test_the_published_table_can_be_drawn():
    found = audit.compare({})
    measured = audit.compare(dict(zip(found["statistic"], found["published"], strict=True)))
    assert (measured["verdict"] == "agrees").all() and len(measured) >= 15
    fig = audit_charts.audit_chart(measured)
    assert sum(len(places(ax)) for ax in fig.axes) == len(measured)
    assert audit_charts.audit_chart(found).axes  # nothing measured is no error
