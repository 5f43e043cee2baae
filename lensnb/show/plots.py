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
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch, Rectangle
from matplotlib.patheffects import withStroke

from lensnb.datasets import DATASETS
from lensnb.files import atomic_write
from lensnb.mining.strategies import STRATEGIES

# lower and upper HU of the grey scale, as radiologists set them
WINDOWS = {"soft tissue": (-160, 240), "lung": (-1350, 150), "bone": (-500, 1300)}
# for slices with boxes in both: a third of the grey scale for air and lung, the rest for soft tissue
BOTH, BOTH_HU, BOTH_GREY = "lung and soft tissue", (-1000, -300, -160, 240), (0.0, 0.3, 0.35, 1.0)

DATASET_COLOURS = {name: dataset.colour for name, dataset in DATASETS.items()}
SOURCE_COLOURS = {
    "annotated": "#F0E442",
    **{strategy.source: strategy.colour for strategy in STRATEGIES},
    "truth": "#FFFFFF",
    "unlabelled": "#D55E00",
}
OUTCOME_COLOURS = {"TP": "#009E73", "FP": "#D55E00", "FN": "#F0E442"}
ELSEWHERE = "TP elsewhere"  # a lesion that is found by a box on other slices only
COLOURS = DATASET_COLOURS | SOURCE_COLOURS | OUTCOME_COLOURS | {ELSEWHERE: OUTCOME_COLOURS["TP"]}
LABELS = {"TP": "found (TP)", ELSEWHERE: "found on other slices", "FP": "false positive (FP)", "FN": "missed (FN)",
          "truth": "hidden truth"}  # fmt: skip
STYLES = {"truth": ":", "unlabelled": "--", "FP": "--", "FN": ":", ELSEWHERE: ":"}
STYLES |= {strategy.source: "--" for strategy in STRATEGIES if not strategy.certain}
LEGEND = "#202020"  # on which all line colours can be told apart
HALO = withStroke(linewidth=2.6, foreground="black", alpha=0.6)  # keeps white boxes visible on bright tissue
TEXT_HALO = withStroke(linewidth=1.8, foreground="black")  # and coloured scores readable on it


def to_grey(hu: np.ndarray, window: str) -> np.ndarray:
    """Map HU of any shape to grey values in [0, 1] by one of the named WINDOWS, or by that for BOTH."""
    if window == BOTH:
        return np.interp(hu, BOTH_HU, BOTH_GREY).astype(np.float32)
    if window not in WINDOWS:
        raise ValueError(f"{window!r} is not a window; choose one of {', '.join(WINDOWS)}")
    low, high = WINDOWS[window]
    return np.clip((hu.astype(np.float32) - low) / (high - low), 0, 1)


def luminance(colour: str) -> float:
    """The relative luminance of a colour such as #0072B2, from 0 (black) to 1 (white), as WCAG 2 defines it."""
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    """How well two colours can be told apart, from 1 to 21 (WCAG 2); small text needs 4.5."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def text_on(colour: str) -> str:
    """White or black, whichever can be read better on a colour."""
    return max(("white", "black"), key=lambda text: contrast(text, colour))


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
        if scores and meaning not in ("FN", ELSEWHERE):
            score = {"color": colour, "fontsize": 7, "weight": "bold", "va": "bottom", "path_effects": [TEXT_HALO]}
            ax.text(box["x1"], box["y1"] - 1, f"{box['score']:.2f}", **score)


def box_legend(fig: Figure, meanings: Sequence[str]) -> None:
    """Put one legend entry for each meaning below the figure, in the style `draw_slice` gives its boxes."""
    handles = [Line2D([], [], color=COLOURS[m], linestyle=STYLES.get(m, "-"), label=LABELS.get(m, m)) for m in meanings]
    legend = fig.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8)
    legend.get_frame().set(facecolor=LEGEND, alpha=1)
    for text in legend.get_texts():
        text.set_color("white")


def slice_sheet(
    panels: Sequence[dict], columns: int, colour_by: str = "source", scores: bool = False, rows: Sequence[str] = ()
) -> Figure:
    """A sheet of slices, row by row.

    Each panel is a dict of `draw_slice`'s arguments hu (y, x), boxes, window and title. Every panel with boxes
    contributes to the legend. A panel None leaves its place empty. Without any panel the figure says so.
    rows: what is written beside each row.
    """
    if not any(panels):
        fig, ax = plt.subplots(figsize=(4, 1), layout="constrained")
        ax.set_axis_off()
        ax.text(0.5, 0.5, "nothing to show", ha="center")
        return fig
    number = -(-len(panels) // columns)
    aspect = max(p["hu"].shape[0] / p["hu"].shape[1] for p in panels if p)
    lines = max(p.get("title", "").count("\n") + 1 for p in panels if p)
    size = (2.6 * columns + 0.25 * bool(rows), (2.55 * aspect + 0.16 + 0.17 * lines) * number + 0.4)
    fig, axes = plt.subplots(number, columns, figsize=size, layout="compressed", squeeze=False)
    for ax, text in zip(axes[:, 0], rows, strict=False):
        ax.text(-0.03, 0.5, text, transform=ax.transAxes, rotation=90, ha="right", va="center", fontsize=8)
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


def block(ax: plt.Axes, x: float, y: float, width: float, height: float, text: str, colour: str) -> None:
    """A box of a drawing with its text; x, y is its lower left corner."""
    ax.add_patch(FancyBboxPatch((x, y), width, height, boxstyle="round,pad=0.2", facecolor=colour, edgecolor="#404040"))
    ax.text(x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=8)


def arrow(ax: plt.Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    """An arrow of a drawing."""
    ax.annotate("", xy=end, xytext=start, arrowprops={"arrowstyle": "->", "color": "#404040", "linewidth": 0.9})
