"""CT slices with boxes, and the way every figure is saved and shown.

One colour means one thing in the whole project (Okabe and Ito's palette, which colour-blind readers can tell
apart), and boxes that differ in meaning differ in line style too.
"""

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from lensnb.datasets import DATASETS
from lensnb.files import atomic_write
from lensnb.mining.strategies import STRATEGIES

# lower and upper HU of the grey scale, as radiologists set them
WINDOWS = {"soft tissue": (-160, 240), "lung": (-1350, 150), "bone": (-500, 1300)}

DATASET_COLOURS = {name: dataset.colour for name, dataset in DATASETS.items()}
SOURCE_COLOURS = {
    "annotated": "#F0E442",
    **{strategy.source: strategy.colour for strategy in STRATEGIES},
    "truth": "#FFFFFF",
    "unlabelled": "#D55E00",
}
OUTCOME_COLOURS = {"TP": "#009E73", "FP": "#D55E00", "FN": "#F0E442"}
COLOURS = DATASET_COLOURS | SOURCE_COLOURS | OUTCOME_COLOURS
LABELS = {"TP": "found (TP)", "FP": "false positive (FP)", "FN": "missed (FN)", "truth": "hidden truth"}
STYLES = {"truth": ":", "unlabelled": "--", "FP": "--", "FN": ":"}
STYLES |= {strategy.source: "--" for strategy in STRATEGIES if not strategy.certain}
HALO = withStroke(linewidth=2.6, foreground="black", alpha=0.6)  # keeps white boxes visible on bright tissue


def to_grey(hu: np.ndarray, window: str) -> np.ndarray:
    """Map HU of any shape to grey values in [0, 1] by one of the named WINDOWS."""
    if window not in WINDOWS:
        raise ValueError(f"{window!r} is not a window; choose one of {', '.join(WINDOWS)}")
    low, high = WINDOWS[window]
    return np.clip((hu.astype(np.float32) - low) / (high - low), 0, 1)


def draw_slice(
    ax: plt.Axes,
    hu: np.ndarray,
    boxes: pd.DataFrame | None = None,
    colour_by: str = "source",
    window: str = "soft tissue",
    title: str = "",
    scores: bool = False,
) -> None:
    """Draw one axial slice (y, x) in HU with its boxes, the window's name in the corner.

    Patient right is on the picture's left, as on a radiologist's screen. Each box's colour and line style
    follow its value in column `colour_by` (a dataset, a source, or TP/FP/FN); `scores` writes its score above it.
    """
    ax.imshow(to_grey(hu, window), cmap="gray", vmin=0, vmax=1, interpolation="bilinear")
    ax.set_axis_off()
    ax.set_title(title, fontsize=8)
    name = {
        "color": "white",
        "fontsize": 7,
        "va": "bottom",
        "bbox": {"facecolor": "#303030", "pad": 1.5, "linewidth": 0},
    }
    ax.text(0.015, 0.02, f"{window} window", transform=ax.transAxes, **name)
    if boxes is None:
        return
    for box in boxes.to_dict("records"):
        meaning = box[colour_by]
        colour = COLOURS[meaning]
        width, height = box["x2"] - box["x1"], box["y2"] - box["y1"]
        outline = {"edgecolor": colour, "linestyle": STYLES.get(meaning, "-"), "linewidth": 1.4, "path_effects": [HALO]}
        ax.add_patch(Rectangle((box["x1"], box["y1"]), width, height, fill=False, **outline))
        if scores and meaning != "FN":
            ax.text(box["x1"], box["y1"] - 1, f"{box['score']:.2f}", color=colour, fontsize=6, va="bottom")


def box_legend(fig: Figure, meanings: Sequence[str]) -> None:
    """Put one legend entry for each meaning below the figure, in the style `draw_slice` gives its boxes."""
    handles = [Line2D([], [], color=COLOURS[m], linestyle=STYLES.get(m, "-"), label=LABELS.get(m, m)) for m in meanings]
    legend = fig.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8)
    legend.get_frame().set_facecolor("#404040")
    for text in legend.get_texts():
        text.set_color("white")


def slice_sheet(panels: Sequence[dict], columns: int, colour_by: str = "source", scores: bool = False) -> Figure:
    """A sheet of slices, row by row.

    Each panel is a dict of `draw_slice`'s arguments hu (y, x), boxes, window and title. Every panel with boxes
    contributes to the legend. A panel None leaves its place empty. Without any panel the figure says so.
    """
    if not any(panels):
        fig, ax = plt.subplots(figsize=(4, 1), layout="constrained")
        ax.set_axis_off()
        ax.text(0.5, 0.5, "nothing to show", ha="center")
        return fig
    rows = -(-len(panels) // columns)
    aspect = max(p["hu"].shape[0] / p["hu"].shape[1] for p in panels if p)
    size = (2.6 * columns, (2.55 * aspect + 0.35) * rows + 0.35)
    fig, axes = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    meanings = []
    for ax, panel in zip(axes.flat, list(panels) + [None] * (axes.size - len(panels)), strict=True):
        if panel is None:
            ax.set_axis_off()
            continue
        draw_slice(ax, colour_by=colour_by, scores=scores, **panel)
        if panel.get("boxes") is not None:
            meanings += list(panel["boxes"][colour_by].unique())
    known = [m for m in COLOURS if m in meanings]
    if known:
        box_legend(fig, known)
    return fig


def crop(
    hu: np.ndarray, boxes: pd.DataFrame, centre_xy: tuple[float, float], size: int
) -> tuple[np.ndarray, pd.DataFrame]:
    """Cut a square of `size` pixels around a point out of a slice (y, x), and move its boxes along.

    The square is shifted to stay inside the slice. Boxes that do not touch it are dropped.
    """
    height, width = hu.shape
    left = int(np.clip(round(centre_xy[0]) - size // 2, 0, max(0, width - size)))
    top = int(np.clip(round(centre_xy[1]) - size // 2, 0, max(0, height - size)))
    patch = hu[top : top + size, left : left + size]
    moved = boxes.assign(x1=boxes.x1 - left, x2=boxes.x2 - left, y1=boxes.y1 - top, y2=boxes.y2 - top)
    inside = (moved.x2 > 0) & (moved.y2 > 0) & (moved.x1 < patch.shape[1]) & (moved.y1 < patch.shape[0])
    return patch, moved[inside]


def save(fig: Figure, path: Path) -> bytes:
    """Write the figure as PNG, atomically, with the same bytes each time; return them and close the figure."""
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    plt.close(fig)
    with atomic_write(path) as temporary:
        temporary.write_bytes(buffer.getvalue())
    return buffer.getvalue()


def show(fig: Figure, path: Path, caption: str, alt: str) -> None:
    """Save the figure as PNG and show it with its caption below it.

    `alt` says in words what can be seen, for readers who cannot see it; it travels in the notebook's metadata.
    """
    from IPython.display import Markdown, display

    bundle = {"image/png": base64.b64encode(save(fig, path)).decode(), "text/plain": alt}
    display(bundle, raw=True, metadata={"image/png": {"alt": alt}})
    display(Markdown(f"*{caption}*"))
