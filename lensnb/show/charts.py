"""Charts: losses, FROC curves, bars with intervals, and the two drawings of the problem and of the framework."""

from collections.abc import Callable

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lensnb.evaluation import froc, luna, published
from lensnb.evaluation.froc import Evaluation
from lensnb.evaluation.luna import LunaMatches
from lensnb.show.examples import window_for
from lensnb.show.plots import DATASET_COLOURS, arrow, block, draw_slice, text_on
from lensnb.streams import Stream, generator

# pairs of rows that differ by mining alone share a colour; mined rows are solid
ROW_STYLES = {
    "baseline": ("#7F7F7F", ":"),
    "a": ("#0072B2", "--"),
    "a-long": ("#56B4E9", "--"),
    "b": ("#E69F00", "--"),
    "c": ("#009E73", "--"),
    "e": ("#0072B2", "-"),
    "f": ("#E69F00", "-"),
    "g": ("#009E73", "-"),
    "h": ("#D55E00", "-"),
    "fpr-alone": ("#D55E00", ":"),
    "complete-keys": ("#000000", "--"),
    "complete": ("#000000", "-"),
    "oracle-mined": ("#CC79A7", "--"),
    "oracle-ignored": ("#CC79A7", "-"),
}
ROW_COLOURS = {name: colour for name, (colour, _) in ROW_STYLES.items()}


def froc_chart(evaluations: dict[str, Evaluation], labels: dict[str, str] | None = None, paper: bool = True) -> Figure:
    """FROC curves of the given rows on the left; where `paper`, the points of the paper's Table II on the right."""
    labels = labels or {}
    fig, axes = plt.subplots(
        1, 1 + paper, figsize=(5.2 + 3.6 * paper, 4.2), layout="constrained", sharey=True, squeeze=False
    )
    ours = axes[0, 0]
    rates = np.geomspace(froc.RATES[0], froc.RATES[-1], 200)
    for name, result in evaluations.items():
        colour, line = ROW_STYLES.get(name, (DATASET_COLOURS.get(name, "#000000"), "-"))
        label = f"{labels.get(name, name)}  {100 * result.average:.1f}"
        ours.plot(rates, froc.sensitivity_at(froc.curve(result.matches), rates), line, color=colour, label=label)
        ours.plot(froc.RATES, result.sensitivity, "o", color=colour, markersize=3)
    ours.set(ylabel="sensitivity")
    if paper:
        ours.set(title="ours")
        for name in evaluations:
            if name in published.TABLE2:
                colour, line = ROW_STYLES[name]
                sensitivity, average = published.TABLE2[name]
                label = f"{labels.get(name, name)}  {100 * average:.1f}"
                axes[0, 1].plot(froc.RATES, sensitivity, line, marker="o", markersize=3, color=colour, label=label)
        axes[0, 1].set(title="the paper (real data)")
    for ax in axes.flat:
        ax.set_xscale("log", base=2)
        ax.set_xticks(froc.RATES, [f"{rate:g}" for rate in froc.RATES])
        ax.set(xlabel="false positives per sub-volume", ylim=(0, 1))
        ax.grid(alpha=0.25)
        ax.legend(fontsize=7, loc="lower right", title="average, %", title_fontsize=7)
    return fig


def luna_chart(matches: dict[str, LunaMatches], seed: int = 0) -> Figure:
    """LUNA16's FROC curve of each detector with its seven points, a band for the first one's interval, and the CPM."""
    fig, ax = plt.subplots(figsize=(5.6, 4.0), layout="constrained")
    rates = np.geomspace(froc.RATES[0], froc.RATES[-1], 200)
    for place, (name, one) in enumerate(matches.items()):
        colour = DATASET_COLOURS.get(name.split()[0], "#000000")
        points = luna.curve(one)
        sensitivity = luna.sensitivity_at(points)
        label = f"{name}  {100 * sensitivity.mean():.1f}"
        ax.plot(rates, luna.sensitivity_at(points, rates), color=colour, label=label)
        ax.plot(froc.RATES, sensitivity, "o", color=colour, markersize=4)
        if place == 0:
            bounds = np.array([luna.interval(samples) for samples in luna.bootstrap(one, seed=seed).T])
            ax.fill_between(froc.RATES, *bounds.T, color=colour, alpha=0.18, linewidth=0, label=f"{name}, 95 %")
    ax.set_xscale("log", base=2)
    ax.set_xticks(froc.RATES, [f"{rate:g}" for rate in froc.RATES])
    ax.set(xlabel="false positives per scan", ylabel="sensitivity", xlim=(0.11, 9), ylim=(0, 1))
    ax.grid(alpha=0.25)
    ax.legend(fontsize=7, loc="lower right", title="CPM, %", title_fontsize=7)
    return fig


def average_bars(
    evaluations: dict[str, Evaluation], labels: dict[str, str] | None = None, paper: dict[str, float] | None = None
) -> Figure:
    """Average sensitivity of each row with its 95 % interval, and a diamond where the paper has that row."""
    labels, paper = labels or {}, paper or {}
    names = list(evaluations)
    fig, ax = plt.subplots(figsize=(7.2, 0.36 * len(names) + 1.1), layout="constrained")
    for place, name in enumerate(names):
        result = evaluations[name]
        colour = ROW_COLOURS.get(name, DATASET_COLOURS.get(name, "#7F7F7F"))
        ax.barh(place, result.average, color=colour)
        ax.plot([result.average_low, result.average_high], [place, place], color="black", linewidth=1)
        inside = result.average > 0.08
        x, colour = (0.01, text_on(colour)) if inside else (result.average_high + 0.01, "black")
        ax.text(x, place, f"{100 * result.average:.1f}", va="center", fontsize=8, color=colour, weight="bold")
        if name in paper:
            ax.plot(paper[name], place, "D", color="white", markeredgecolor="black", markersize=5)
    if paper:
        ax.plot([], [], "D", color="white", markeredgecolor="black", markersize=5, label="the paper")
        ax.legend(fontsize=8, loc="lower right", bbox_to_anchor=(1, 1), frameon=False)
    ax.set_yticks(range(len(names)), [labels.get(name, name) for name in names])
    ax.invert_yaxis()
    ax.set(xlabel="average sensitivity", xlim=(0, 1))
    return fig


def grouped_bars(table: pd.DataFrame, ylabel: str, colours: dict[str, str] | None = None) -> Figure:
    """One group of bars for each row of the table, one bar for each column; values are written above the bars."""
    colours = colours or DATASET_COLOURS
    fig, ax = plt.subplots(figsize=(max(4.5, 1.5 * len(table)), 3.2), layout="constrained")
    width = 0.8 / len(table.columns)
    for place, column in enumerate(table.columns):
        x = np.arange(len(table)) + (place - (len(table.columns) - 1) / 2) * width
        bars = ax.bar(x, table[column], width, label=column, color=colours.get(column, "#7F7F7F"))
        ax.bar_label(bars, fmt="%.2f", fontsize=6)
    ax.set_xticks(range(len(table)), table.index)
    ax.set(ylabel=ylabel, ylim=(0, 1))
    ax.legend(fontsize=8, ncols=len(table.columns), loc="lower center", bbox_to_anchor=(0.5, 1.0), frameon=False)
    return fig


def bars_by_type(panels: dict[str, pd.DataFrame], ylabel: str) -> Figure:
    """A panel of grouped bars for each table: a group for each row (a type of lesion), a bar for each expert."""
    widths = [max(3, len(table)) for table in panels.values()]
    fig, axes = plt.subplots(
        1, len(panels), figsize=(0.9 * sum(widths) + 1, 3.2), layout="constrained", sharey=True, squeeze=False,
        width_ratios=widths,
    )  # fmt: skip
    for ax, (title, table) in zip(axes.flat, panels.items(), strict=True):
        width = 0.8 / len(table.columns)
        for place, expert in enumerate(table.columns):
            x = np.arange(len(table)) + (place - (len(table.columns) - 1) / 2) * width
            ax.bar(x, table[expert], width, label=f"{expert} expert", color=DATASET_COLOURS.get(expert, "#7F7F7F"))
        ax.set_xticks(range(len(table)), table.index)
        ax.set(title=title, ylim=(0, 1))
    axes[0, 0].set(ylabel=ylabel)
    fig.legend(*axes[0, -1].get_legend_handles_labels(), fontsize=8, ncols=4, loc="outside upper center", frameon=False)
    return fig


def calibration_chart(curves: dict[str, tuple[Callable, pd.DataFrame]]) -> Figure:
    """What each expert's scores mean: the share of boxes that are lesions over the score.

    curves: by expert, the map (n,) -> (n,) that is used, drawn as a line, and the free curve (score, chance), dotted.
    """
    fig, ax = plt.subplots(figsize=(5.6, 3.6), layout="constrained")
    scores = np.linspace(0.01, 0.99, 99)
    for expert, (mapped, free) in curves.items():
        colour = DATASET_COLOURS.get(expert, "#7F7F7F")
        ax.plot(scores, mapped(scores), color=colour, label=f"{expert} expert")
        ax.step(free["score"], free["chance"], ":", where="post", color=colour, linewidth=1)
    ax.plot([0, 1], [0, 1], color="#BBBBBB", linewidth=0.8)
    ax.set(xlabel="score", ylabel="share that are its lesions", xlim=(0, 1), ylim=(0, 1))
    ax.legend(fontsize=8, frameon=False)
    return fig


def sigma_chart(table: pd.DataFrame, chosen: dict[str, float], wanted: float) -> Figure:
    """Precision and recall of each specialist's uncertain boxes over sigma, with the value that was chosen.

    table: expert, sigma, precision, recall. wanted: the precision that is asked for, a horizontal line.
    """
    fig, axes = plt.subplots(1, 2, figsize=(8.4, 3.2), layout="constrained", sharex=True, sharey=True)
    for expert, own in table.groupby("expert", sort=False):
        colour = DATASET_COLOURS.get(expert, "#7F7F7F")
        at = own[own["sigma"] == chosen[expert]]
        for ax, measure in zip(axes, ("precision", "recall"), strict=True):
            ax.plot(own["sigma"], own[measure], "-", color=colour, label=f"{expert}, {chosen[expert]:g}")
            ax.plot(at["sigma"], at[measure], "o", color=colour)
            ax.set(title=measure, xlabel="sigma", ylim=(0, 1))
    axes[0].axhline(wanted, color="#404040", linestyle="--", linewidth=0.8)
    if chosen:
        axes[1].legend(fontsize=8, title="expert and its sigma", title_fontsize=8, frameon=False)
    return fig


def loss_curves(log: pd.DataFrame, window: int = 5) -> Figure:
    """Every column of a training log against its `iteration`, one panel each; dots as logged, a line through them."""
    terms = [name for name in log.columns if name != "iteration"]
    fig, axes = plt.subplots(1, len(terms), figsize=(2.4 * len(terms), 2.4), layout="constrained", squeeze=False)
    for ax, term in zip(axes.flat, terms, strict=True):
        ax.plot(log["iteration"], log[term], ".", color="#BBBBBB", markersize=3)
        ax.plot(log["iteration"], log[term].rolling(window, min_periods=1, center=True).mean(), color="#0072B2")
        ax.set(title=term, xlabel="iteration")
        ax.set_ylim(bottom=0)
    return fig


def distance_histogram(distances: pd.Series, same: np.ndarray, line: float) -> Figure:
    """Distances (n,) of pairs that are the same lesion and of pairs that are not, with a vertical line."""
    fig, ax = plt.subplots(figsize=(6, 2.8), layout="constrained")
    bins = np.linspace(0, max(0.5, float(distances.max())), 40)
    for chosen, colour, label in ((same, "#009E73", "the same lesion"), (~same, "#D55E00", "another place")):
        if chosen.any():
            label = f"{label} ({int(chosen.sum())})"
            ax.hist(distances[chosen], bins, color=colour, alpha=0.6, label=label, density=True)
    ax.axvline(line, color="black", linestyle="--", linewidth=1, label=f"{line:g}")
    ax.set(xlabel="distance of the embeddings", ylabel="density")
    ax.legend(fontsize=8, frameon=False)
    return fig


def target_chart(hu: np.ndarray, boxes: pd.DataFrame, labels: np.ndarray, stride: int) -> Figure:
    """A slice (y, x) with its boxes, and beside it what the AFP is told at every cell: labels (y / stride, x / stride).

    1 is drawn green (centre), -1 grey (ignored), 0 stays dark (background). The window is that of the boxes' places.
    """
    fig, (left, right) = plt.subplots(
        1, 2, figsize=(8.4, 8.4 / 2 * hu.shape[0] / hu.shape[1] + 0.7), layout="constrained"
    )
    for ax, title in ((left, "the slice and its labels"), (right, "centre (green), ignored (grey), background")):
        draw_slice(ax, hu, boxes, window=window_for(hu, boxes), title=title)
    colours = {1: (0.0, 0.62, 0.45, 0.9), -1: (0.75, 0.75, 0.75, 0.75), 0: (0.0, 0.0, 0.0, 0.35)}
    overlay = np.array([[colours[int(label)] for label in row] for row in labels])
    height, width = (side * stride for side in labels.shape)
    start = -stride / 2  # a cell is the middle of its square (see models/cells.py)
    right.imshow(overlay, extent=(start, start + width, start + height, start), interpolation="nearest")
    right.set(xlim=(-0.5, hu.shape[1] - 0.5), ylim=(hu.shape[0] - 0.5, -0.5))
    return fig


def problem_chart(seed: int = 0) -> Figure:
    """The scatter maps of LENS Fig. 1: lesions as dots, kinds of lesions as marks, labelled ones filled."""
    rng = generator(seed, Stream.JITTER)
    centres = {
        "lung": (-1.1, 0.5, "o", "#E69F00"),
        "liver": (1.0, 0.7, "s", "#CC79A7"),
        "lymph node": (0.9, -0.8, "^", "#009E73"),
        "other": (-0.9, -0.8, "D", "#56B4E9"),
    }
    fig, axes = plt.subplots(1, 3, figsize=(9, 3), layout="constrained")
    titles = ("(a) every lesion labelled", "(b) some of every kind labelled", "(c) all of one kind labelled")
    for ax, title in zip(axes, titles, strict=True):
        ax.set(title=title, xticks=[], yticks=[], xlim=(-2.2, 2.2), ylim=(-1.9, 1.9))
    for name, (x, y, mark, colour) in centres.items():
        points = rng.normal((x, y), 0.38, (22, 2))
        labelled = (np.ones(22, bool), rng.random(22) < 0.4, np.full(22, name == "lung"))
        for ax, filled in zip(axes, labelled, strict=True):
            ax.scatter(*points[filled].T, marker=mark, s=26, color=colour, label=name if ax is axes[0] else None)
            ax.scatter(*points[~filled].T, marker=mark, s=26, facecolors="none", edgecolors=colour, linewidths=0.8)
    fig.legend(*axes[0].get_legend_handles_labels(), fontsize=8, ncols=4, loc="outside lower center", frameon=False)
    return fig


def framework_chart() -> Figure:
    """The framework as in LENS Fig. 2: shared parts in grey, what belongs to one dataset in that dataset's colour."""
    fig, ax = plt.subplots(figsize=(10, 4.6), layout="constrained")
    ax.set(xlim=(0, 100), ylim=(0, 46))
    ax.set_axis_off()
    block(ax, 1, 17, 11, 12, "9 CT slices\nas 3 images of\n3 channels", "#F2F2F2")
    block(ax, 16, 17, 14, 12, "truncated\nDenseNet-121\n3D fusion, FPN", "#D9D9D9")
    for place, (dataset, colour) in enumerate(DATASET_COLOURS.items()):
        y = 36 - 11.5 * place
        block(ax, 35, y, 11, 8, f"AFP\n{dataset}", colour)
        block(ax, 76, y, 11, 8, f"class, box\n{dataset}", colour)
        arrow(ax, (30, 23), (35, y + 4))
        arrow(ax, (46, y + 4), (50, 23))
        arrow(ax, (73, 23), (76, y + 4))
        arrow(ax, (87, y + 4), (90, 23))
    block(ax, 50, 17, 9, 12, "pool\nproposals,\nNMS", "#D9D9D9")
    block(ax, 62, 17, 11, 12, "ROIAlign\n2 shared FC", "#D9D9D9")
    block(ax, 90, 17, 9, 12, "fuse, stack\nto 3D,\nFPR", "#F2F2F2")
    for start, end in (((12, 23), (16, 23)), ((59, 23), (62, 23))):
        arrow(ax, start, end)
    return fig
