"""LesaNet's drawings: a sentence and what is read in it (Fig. 1), labels and their relations (Fig. 2), the network (3).

What is drawn is computed: mentions from text mining, relations from the ontology, shapes by asking the network.
"""

import re
import textwrap
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch

from lensnb.lesanet.label_files import RELATIONS
from lensnb.lesanet.ontology import KINDS, Ontology, reduction
from lensnb.models.lesanet import LesaNet
from lensnb.show import lesanet_charts
from lensnb.show.lesanet_charts import KIND_COLOURS
from lensnb.show.plots import arrow, block, draw_slice

RELATION_COLOURS = dict(zip(RELATIONS, ("#009E73", "#E69F00", "#999999"), strict=True))
EXCLUSIVE = "#D62728"
OWN = "#F7C6C0"  # what is LesaNet's own, as the paper has it in red
CHARACTER = 0.602 * 8 / 72  # inches: a letter of the fixed font at 8 points
LINE = 0.16  # inches between two lines of text


# --- Fig. 1 -----------------------------------------------------------------------------------------------------


def runs_of_line(start: int, end: int, spans: Sequence[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    """A line, characters start to end of a sentence, in pieces of one meaning: (start, end, relation or "").

    spans: mentions as (start, end, relation), in any order; where two overlap, a word is the first one's.
    """
    pieces, place = [], start
    for first, last, relation in sorted(spans):
        first, last = max(first, place), min(last, end)
        if first >= last:
            continue
        pieces += [(place, first, "")] if place < first else []
        pieces.append((first, last, relation))
        place = last
    return pieces + ([(place, end, "")] if place < end else [])


def lines_of(sentence: str, width: int) -> list[tuple[int, int]]:
    """Where the lines of a sentence that is wrapped at `width` characters begin and end."""
    found, place = [], 0
    for line in textwrap.wrap(sentence, width, drop_whitespace=True, break_on_hyphens=False):
        start = sentence.index(line, place)
        found.append((start, start + len(line)))
        place = start + len(line)
    return found


def reading(panel: dict, sentence: str, mentions: pd.DataFrame, labels: Mapping[str, Sequence[str]]) -> Figure:
    """A lesion, its sentence with every mention in the colour of its relation, and the labels made of it (Fig. 1).

    panel: `draw_slice`'s arguments. mentions: start, end, relation. labels: what each line below the sentence is
    called, and its labels.
    """
    spans = list(mentions[["start", "end", "relation"]].itertuples(index=False, name=None))
    below = [(name, line) for name, own in labels.items() for line in textwrap.wrap(", ".join(own) or "none", 62)]
    lines = lines_of(sentence, 76)
    height = max(2.4, LINE * (len(lines) + len(below) + 5))
    fig = plt.figure(figsize=(9.2, height))
    picture, text = fig.add_axes((0.01, 0.02, 2.2 / 9.2, 0.86)), fig.add_axes((2.4 / 9.2, 0, 6.8 / 9.2, 1))
    draw_slice(picture, colour_by="source", **panel)
    text.set(xlim=(0, 6.8), ylim=(height, 0))
    text.set_axis_off()
    style = {"family": "DejaVu Sans Mono", "fontsize": 8, "va": "top"}
    y = 0.2
    for start, end in lines:
        for first, last, relation in runs_of_line(start, end, spans):
            weight = {"color": RELATION_COLOURS[relation], "weight": "bold"} if relation else {"color": "black"}
            for word in re.finditer(r"\S+", sentence[first:last]):  # each in its place: widths are rounded to pixels
                text.text(0.1 + CHARACTER * (first - start + word.start()), y, word[0], **style, **weight)
        y += LINE
    y += LINE
    for place, (name, line) in enumerate(below):
        if place == 0 or below[place - 1][0] != name:
            text.text(0.1, y, name, **style, color=RELATION_COLOURS.get(name, "black"))
        text.text(0.1 + 14 * CHARACTER, y, line, **style)
        y += LINE
    handles = [Line2D([], [], color=colour, linewidth=4, label=name) for name, colour in RELATION_COLOURS.items()]
    text.legend(handles=handles, loc="lower left", ncols=len(handles), fontsize=8, frameon=False)
    return fig


# --- Fig. 2 -----------------------------------------------------------------------------------------------------


def places(ontology: Ontology, lines: int = 60) -> pd.DataFrame:
    """Where each label stands in the drawing: label, column, line, depth, above (the label it hangs from, -1: none).

    A row for each label, in the ontology's order. Each kind begins a column, a column has at most so many lines, and a
    label hangs below the first parent of its own kind, one step to the right.
    """
    parents, kinds = reduction(ontology.parents), np.array(ontology.kinds)
    same = parents & (kinds[:, None] == kinds[None, :])
    above = np.where(same.any(1), same.argmax(1), -1)
    rows, column = {}, -1
    for kind in KINDS:
        column, line = column + 1, 0
        waiting = [(c, 0) for c in np.flatnonzero((kinds == kind) & (above < 0))[::-1]]
        if not waiting:
            column -= 1
        while waiting:
            label, depth = waiting.pop()
            if line == lines:
                column, line = column + 1, 0
            rows[label] = (ontology.labels[label], column, line, depth, above[label])
            line += 1
            waiting += [(c, depth + 1) for c in np.flatnonzero(above == label)[::-1]]
    return pd.DataFrame([rows[c] for c in range(len(kinds))], columns=["label", "column", "line", "depth", "above"])


def siblings_apart(ontology: Ontology, above: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of labels below one label (or of one kind and below none) that the file lists as exclusive."""
    listed = ontology.listed_exclusive | ontology.listed_exclusive.T
    kinds, above = np.array(ontology.kinds), np.asarray(above)
    near = (above[:, None] == above[None, :]) & (kinds[:, None] == kinds[None, :])
    return [(int(a), int(b)) for a, b in np.argwhere(np.triu(listed & near, 1))]


def label_tree(ontology: Ontology, lines: int = 60) -> Figure:
    """The labels and their relations (Fig. 2): children below parents, red arrows between exclusive siblings.

    Behind a label, in grey, are its further parents. Exclusive labels that are no siblings are left out.
    """
    table, parents, wide = places(ontology, lines), reduction(ontology.parents), 3.4
    size = wide * (1 + table["column"].max()), LINE * (3 + table["line"].max())
    fig = plt.figure(figsize=size)
    ax = fig.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, size[0]), ylim=(size[1], 0))
    ax.set_axis_off()
    x, y = 0.1 + wide * table["column"] + 0.16 * table["depth"], LINE * (table["line"] + 1.8)
    ends = []
    for c, row in enumerate(table.itertuples()):
        colour = KIND_COLOURS[ontology.kinds[c]]
        ax.text(x[c], y[c], row.label, color=colour, fontsize=7.5, va="center")
        further = [ontology.labels[p] for p in np.flatnonzero(parents[c]) if p != row.above]
        start = x[c] + 0.062 * len(row.label) + 0.08
        ax.text(start, y[c], f"+ {', '.join(further)}" if further else "", color="#888888", fontsize=6, va="center")
        ends.append(start + (0.045 * len(f"+ {', '.join(further)}") if further else 0))
        if row.above >= 0 and table["column"][row.above] == row.column:
            left = x[row.above] + 0.06
            ax.plot([left, left, x[c] - 0.03], [y[row.above] + 0.07, y[c], y[c]], color="#BBBBBB", linewidth=0.7)
    for a, b in siblings_apart(ontology, table["above"].to_numpy()):
        if table["column"][a] == table["column"][b]:
            between = (table["column"] == table["column"][a]) & table["line"].between(*sorted(table["line"][[a, b]]))
            edge = max(np.array(ends)[between]) + 0.03
            bend = {"connectionstyle": f"arc3,rad={-0.4 if y[a] < y[b] else 0.4}", "shrinkA": 0, "shrinkB": 0}
            style = {"arrowstyle": "<->", "mutation_scale": 5, "color": EXCLUSIVE, "linewidth": 0.6, "alpha": 0.8}
            ax.add_patch(FancyArrowPatch((edge, y[a]), (edge, y[b]), **bend, **style))
    first = table.groupby([ontology.kinds[c] for c in range(len(table))], sort=False)["column"].min()
    for kind, column in first.items():
        name = f"{lesanet_charts.KINDS[kind]}s"
        ax.text(0.1 + wide * column, LINE * 0.8, name, weight="bold", fontsize=8.5, va="center")
    return fig


# --- Fig. 3 -----------------------------------------------------------------------------------------------------


def tensor_shapes(model: LesaNet, side: int) -> dict[str, tuple[int, ...]]:
    """What each layer makes of one patch of `side` pixels: shapes without the batch, by the layer's name.

    Names are those of the stages, projections ("stages.0", "project.0") and of embedding, scores and propagate.
    """
    shapes, hooks, training = {}, [], model.training
    wanted = [(f"{room}.{i}", layer) for room in ("stages", "project") for i, layer in enumerate(getattr(model, room))]
    wanted += [(name, getattr(model, name)) for name in ("embedding", "scores", "propagate") if getattr(model, name)]
    for name, layer in wanted:
        hooks.append(layer.register_forward_hook(lambda _, __, out, name=name: shapes.update({name: out.shape[1:]})))
    device = next(model.parameters()).device
    box = torch.tensor([[0.25, 0.25, 0.75, 0.75]], device=device) * side
    with torch.no_grad():
        model.eval()(torch.zeros(1, 3, side, side, device=device), box)
    model.train(training)
    for hook in hooks:
        hook.remove()
    return {name: tuple(shape) for name, shape in shapes.items()}


def network(model: LesaNet, side: int, near: int = 3) -> Figure:
    """The network with the shapes of its tensors (Fig. 3); `near`: stages that are pooled within the lesion's box.

    In red what the paper calls its own: score propagation, and the losses on relations and on triplets.
    """
    shapes, pooled = tensor_shapes(model, side), model.pooled
    fig, ax = plt.subplots(figsize=(11, 4.4), layout="constrained")
    ax.set(xlim=(-1, 112), ylim=(0, 44))
    ax.set_axis_off()
    block(ax, 0, 31, 10, 9, f"patch and\nlesion's box\n3 x {side} x {side}", "#F2F2F2")
    number = len(model.stages)
    for i in range(number):
        x = 13 + 13 * i
        arrow(ax, (x - 2.5 if i else 10.4, 35.5), (x, 35.5))
        block(ax, x, 31, 10.2, 9, f"stage {i + 1}\n" + " x ".join(map(str, shapes[f"stages.{i}"])), "#D9D9D9")
        where = "lesion's box" if i < near else "whole patch"
        block(ax, x, 19, 10.2, 8, f"{where}\n{pooled} x {pooled} cells", "#CFE3F3" if i < near else "#E3F0D8")
        block(ax, x, 9, 10.2, 6, f"FC {shapes[f'project.{i}'][0]}", "#D9D9D9")
        arrow(ax, (x + 5, 31), (x + 5, 27.2))
        arrow(ax, (x + 5, 19), (x + 5, 15.2))
        arrow(ax, (x + 5, 9), (x + 5, 5.2))
    joined = sum(shapes[f"project.{i}"][0] for i in range(number))
    right = 13 + 13 * number
    block(ax, 13, 1, right - 16, 4, f"joined: {joined}", "#F2F2F2")
    arrow(ax, (right - 2.8, 3), (right, 9))
    arrow(ax, (right - 2.8, 3), (right, 31))
    block(ax, right, 31, 13, 9, f"embedding\n{shapes['embedding'][0]}, length 1", "#D9D9D9")
    block(ax, right + 17, 31, 15, 9, "triplet loss", OWN)
    arrow(ax, (right + 13.2, 35.5), (right + 17, 35.5))
    block(ax, right, 9, 13, 7, f"scores\n{shapes['scores'][0]}", "#D9D9D9")
    block(ax, right + 17, 17, 15, 9, "weighted\ncross-entropy\nand RHEM", OWN)
    arrow(ax, (right + 13.2, 13), (right + 17, 20))
    weights = " x ".join(map(str, model.propagate.weight.shape))
    block(ax, right + 17, 3, 15, 10, f"score propagation\n{weights}: final scores,\nweighted cross-entropy", OWN)
    arrow(ax, (right + 13.2, 12), (right + 17, 9))
    return fig
