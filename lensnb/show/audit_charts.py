"""The phantoms beside the published statistics, as a picture."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

AGREES, DIFFERS, KNOWN = "#009E73", "#D55E00", "#0072B2"  # as in plots.py: one colour, one meaning


def audit_chart(table: pd.DataFrame) -> Figure:
    """Published against phantom for each measured statistic of `phantom.audit.compare`, with the tolerance as a band.

    Lengths (dots) and counts (squares) on the left, both axes logarithmic; shares on the right. What differs has the
    number of its line in the table, from 1. A difference that is named (column `known`, if there is one) has a colour
    of its own.
    """
    table = table.assign(number=np.arange(1, len(table) + 1), known=_known(table))
    table = table[table["phantom"].notna()]
    share = table["tolerance"] < 1
    fig, axes = plt.subplots(1, 2, figsize=(9.6, 5.0), layout="compressed")
    for ax, part, title in ((axes[0], table[~share], "lengths in mm, and counts"), (axes[1], table[share], "shares")):
        ax.set(title=title, xlabel="published, of the real datasets", ylabel="phantoms")
        _band(ax, part, logarithmic=title != "shares")
        for one in part.to_dict("records"):
            differs = one["verdict"] == "differs"
            colour = AGREES if not differs else KNOWN if one["known"] else DIFFERS
            mark = "o" if ", p" in one["statistic"] or title == "shares" else "s"
            ax.plot(one["published"], one["phantom"], mark, color=colour, markersize=5,
                    markerfacecolor="none" if differs else colour)  # fmt: skip
            if differs:
                ax.annotate(str(one["number"]), (one["published"], one["phantom"]), xytext=(4, 2),
                            textcoords="offset points", fontsize=7)  # fmt: skip
    for colour, filled, label in ((AGREES, True, "agrees"), (DIFFERS, False, "differs"),
                                  (KNOWN, False, "differs, for a reason that is named")):  # fmt: skip
        axes[1].plot([], [], "o", color=colour, markerfacecolor=colour if filled else "none", label=label)
    axes[1].legend(fontsize=8, loc="upper left", frameon=False)
    return fig


def _known(table: pd.DataFrame) -> pd.Series:
    """Whether a difference has a name: (n,) bool."""
    if "known" not in table:
        return pd.Series(False, index=table.index)
    return table["known"].fillna("").astype(str).str.strip() != ""


def _band(ax: plt.Axes, part: pd.DataFrame, logarithmic: bool) -> None:
    """The diagonal, and around it what the tolerance of most of these statistics allows."""
    if logarithmic:
        values = part[["published", "phantom"]].to_numpy(float)
        values = values[values > 0]
        low, high = (values.min() / 1.5, values.max() * 1.5) if len(values) else (1, 10)
        x, tolerance = np.geomspace(low, high, 50), part["tolerance"].median() if len(part) else 1.25
        below, above = x / tolerance, x * tolerance
        ax.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high))
        ticks = [t for t in (1, 2, 5, 10, 20, 50, 100) if low <= t <= high]
        ax.set_xticks(ticks, map(str, ticks))
        ax.set_yticks(ticks, map(str, ticks))
        ax.minorticks_off()
    else:
        x, tolerance = np.linspace(-0.05, 1.05, 50), part["tolerance"].median() if len(part) else 0.05
        below, above = x - tolerance, x + tolerance
        ax.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
    ax.fill_between(x, below, above, color="#7F7F7F", alpha=0.2, linewidth=0)
    ax.plot(x, x, color="#7F7F7F", linewidth=0.8)
    ax.set_aspect("equal")
    ax.grid(alpha=0.25)


def sentence(table: pd.DataFrame) -> str:
    """How many statistics agree, differ for a named reason, differ, and could not be measured."""
    differs, known = table["verdict"] == "differs", _known(table)
    agrees, unmeasured = (table["verdict"] == "agrees").sum(), (table["verdict"] == "not measured").sum()
    text = (
        f"{agrees} of {len(table)} statistics agree within their tolerance, {(differs & known).sum()} differ for a "
        f"reason that is named, {(differs & ~known).sum()} differ without one"
    )
    return text + (f", and {unmeasured} cannot be measured on so few phantoms." if unmeasured else ".")
