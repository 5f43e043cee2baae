"""LesaNet's figures: labels on lesions, label counts, subsets of labels, propagation weights, neighbours, matching."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from lensnb.show.plots import OUTCOME_COLOURS, draw_slice, text_on

KIND_COLOURS = {"bodypart": "#0072B2", "type": "#D55E00", "attribute": "#009E73"}
KINDS = {"bodypart": "body part", "type": "type", "attribute": "attribute"}
OUTCOMES = {"TP": "right (TP)", "FP": "wrong (FP)", "FN": "missed (FN)"}
NOT_SAID = "*"  # after a label that the sentence does not name but that holds
DARK = "#141414"  # on which all colours of OUTCOME_COLOURS can be read


def label_cards(cards: Sequence[tuple[dict, list[tuple[str, str]]]], columns: int = 3) -> Figure:
    """Lesions, their labels beside them (LesaNet Fig. 4): a card has `draw_slice`'s arguments and (outcome, label)s.

    An outcome is TP, FP, FN, or "" where nothing is judged.
    """
    rows = max(1, -(-len(cards) // columns))
    fig, axes = plt.subplots(
        rows, 2 * columns, figsize=(4.6 * columns, 2.6 * rows + 0.5), layout="constrained", squeeze=False
    )
    for ax in axes.flat:
        ax.set_axis_off()
    for place, (panel, labels) in enumerate(cards):
        row, column = divmod(place, columns)
        draw_slice(axes[row, 2 * column], colour_by="source", **panel)
        _write_labels(axes[row, 2 * column + 1], labels)
    handles = [Line2D([], [], color=colour, linewidth=4, label=OUTCOMES[o]) for o, colour in OUTCOME_COLOURS.items()]
    if not any(outcome for _, labels in cards for outcome, _ in labels):
        return fig
    handles.append(Line2D([], [], linestyle="", label=f"{NOT_SAID} holds, but the sentence does not say so"))
    _dark_legend(fig, handles)
    return fig


def _write_labels(ax: plt.Axes, labels: list[tuple[str, str]]) -> None:
    ax.set_facecolor(DARK)
    ax.add_patch(plt.Rectangle((0, 0), 1, 1, transform=ax.transAxes, color=DARK))
    step = min(0.09, 0.96 / max(1, len(labels)))
    for line, (outcome, label) in enumerate(labels):
        style = {
            "color": OUTCOME_COLOURS.get(outcome, "white"),
            "fontsize": 7.5,
            "va": "top",
            "transform": ax.transAxes,
        }
        ax.text(0.03, 0.98 - step * line, f"{outcome}  {label}".strip(), **style)


def _dark_legend(fig: Figure, handles: list[Line2D]) -> None:
    legend = fig.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8)
    legend.get_frame().set(facecolor=DARK, alpha=1)
    for text in legend.get_texts():
        text.set_color("white")


def count_chart(counts: pd.DataFrame) -> Figure:
    """How many training lesions have each label (LesaNet Fig. 8); counts: label, kind, train."""
    ordered = counts.sort_values("train", ascending=False, kind="stable")
    fig, ax = plt.subplots(figsize=(max(6.0, 0.17 * len(ordered)), 3.6), layout="constrained")
    colours = [KIND_COLOURS[kind] for kind in ordered["kind"]]
    ax.bar(range(len(ordered)), ordered["train"], color=colours)
    every = max(1, len(ordered) // 80)
    ax.set_xticks(range(0, len(ordered), every), ordered["label"].iloc[::every], rotation=90, fontsize=6)
    ax.set_yscale("log")
    ax.set(ylabel="training lesions", xlim=(-0.7, len(ordered) - 0.3))
    ax.legend(handles=[Line2D([], [], color=c, linewidth=4, label=KINDS[k]) for k, c in KIND_COLOURS.items()])
    return fig


def subset_chart(table: pd.DataFrame, measure: str = "F1") -> Figure:
    """A curve for each test subset over the number of training labels (LesaNet Fig. 5);
    table: trained, tested, value."""
    fig, ax = plt.subplots(figsize=(4.6, 3.2), layout="constrained")
    for (tested, part), style in zip(table.groupby("tested"), ("o-", "s--", "^:"), strict=False):
        ax.plot(part["trained"], part["value"], style, label=f"tested on {tested} labels")
    ax.set(xlabel="labels in training, the most frequent first", ylabel=measure, ylim=(0, 1))
    ax.set_xticks(sorted(table["trained"].unique()))
    ax.grid(alpha=0.25)
    ax.legend(fontsize=8, loc="lower left")
    return fig


def weight_chart(matrix: pd.DataFrame) -> Figure:
    """A part of the propagation weights (LesaNet Fig. 6): row i, column j is what label i's score gets
    from label j's."""
    values = matrix.to_numpy()
    off = np.abs(values - np.diag(np.diag(values))).max() or 1.0
    side = 0.42 * len(matrix) + 1.6
    fig, ax = plt.subplots(figsize=(side + 0.8, side), layout="constrained")
    image = ax.imshow(values, cmap="RdBu_r", vmin=-off, vmax=off)
    for i, j in np.ndindex(values.shape):
        dark = abs(values[i, j]) > 0.6 * off
        style = {"ha": "center", "va": "center", "fontsize": 5.5, "color": "white" if dark else "black"}
        ax.text(j, i, f"{values[i, j]:.2f}", **style)
    ax.set_xticks(range(len(matrix)), matrix.columns, rotation=60, ha="right", fontsize=7)
    ax.set_yticks(range(len(matrix)), matrix.index, fontsize=7)
    ax.set(xlabel="from the score of", ylabel="to the score of")
    fig.colorbar(image, ax=ax, shrink=0.7, label="weight; the diagonal is beyond the scale")
    return fig


def neighbour_sheet(rows: Sequence[Sequence[tuple[dict, str]]]) -> Figure:
    """One row for each query: the query and what was retrieved, each `draw_slice`'s arguments and a text below it."""
    columns = max(map(len, rows))
    lines = max(text.count("\n") + 1 for row in rows for _, text in row)
    size = (2.5 * columns, (2.85 + 0.12 * lines) * len(rows))
    fig, axes = plt.subplots(len(rows), columns, figsize=size, layout="constrained", squeeze=False)
    for ax in axes.flat:
        ax.set_axis_off()
    for line, row in zip(axes, rows, strict=True):
        for ax, (panel, text) in zip(line, row, strict=False):
            draw_slice(ax, colour_by="source", **panel)
            ax.text(0.0, -0.03, text, transform=ax.transAxes, fontsize=6.5, va="top")
    return fig


def matching_chart(curves: dict[str, pd.DataFrame], chosen: dict[str, tuple[float, float]]) -> Figure:
    """Precision over recall of matching for each embedding, and both over delta; dots: the delta of validation.

    curves: see `matching.curve`; chosen: recall and precision at the chosen delta, by the same names.
    """
    fig, (left, right) = plt.subplots(1, 2, figsize=(8.6, 3.4), layout="constrained")
    for name, colour in zip(curves, ("#0072B2", "#D55E00", "#009E73", "#CC79A7"), strict=False):
        table = curves[name]
        left.plot(table["recall"], table["precision"], color=colour, label=name)
        left.plot(*chosen[name], "o", color=colour)
        right.plot(table["delta"], table["precision"], color=colour)
        right.plot(table["delta"], table["recall"], "--", color=colour)
    lowest = min((table["precision"].min() for table in curves.values()), default=0.4)
    left.set(xlabel="recall", ylabel="precision", ylim=(min(0.4, lowest), 1.02))
    right.set(xlabel="largest distance delta", ylim=(0, 1.02))
    styles = [Line2D([], [], color="black", linestyle=s, label=n) for s, n in (("-", "precision"), ("--", "recall"))]
    left.legend(fontsize=7)
    right.legend(handles=styles, fontsize=7, loc="center right")
    for ax in (left, right):
        ax.grid(alpha=0.25)
    return fig


def before_and_after(table: pd.DataFrame) -> Figure:
    """Average sensitivity with the simpler embedding and with LesaNet, and the difference, with their intervals.

    table: patients, row, difference, low, high, and for simpler and LesaNet the average, with _low and _high after it.
    """
    names = [f"row ({row}), {patients}" for row, patients in zip(table["row"], table["patients"], strict=True)]
    place = np.arange(len(table))
    fig, (left, right) = plt.subplots(
        1, 2, figsize=(8.6, 0.5 * len(table) + 1.3), layout="constrained", sharey=True, width_ratios=(3, 2)
    )
    for step, (name, colour) in zip((-0.2, 0.2), (("simpler", "#999999"), ("LesaNet", "#009E73")), strict=True):
        values = 100 * table[[name, f"{name}_low", f"{name}_high"]].to_numpy()
        left.barh(place + step, values[:, 0], 0.36, color=colour, label=name)
        left.hlines(place + step, values[:, 1], values[:, 2], color="black", linewidth=1)
        for y, value in zip(place + step, values[:, 0], strict=True):
            left.text(1, y, f"{value:.1f}", va="center", fontsize=7, color=text_on(colour) if value > 8 else "black")
    gain = 100 * table[["difference", "low", "high"]].to_numpy()
    right.hlines(place, gain[:, 1], gain[:, 2], color="black", linewidth=1)
    right.plot(gain[:, 0], place, "o", color="#009E73")
    right.axvline(0, color="#7F7F7F", linewidth=1)
    left.set_yticks(place, names)
    left.invert_yaxis()
    left.set(xlabel="average sensitivity, %", xlim=(0, 100))
    right.set(xlabel="LesaNet minus simpler, points")
    left.legend(fontsize=8, ncols=2, loc="lower right", bbox_to_anchor=(1, 1), frameon=False)
    return fig
