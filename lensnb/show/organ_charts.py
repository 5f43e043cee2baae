"""Pictures of the start: slices with their organs, and how its loss settled."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from lensnb.datasets.organ_maps import OrganScan
from lensnb.models.organs import OrganNetwork
from lensnb.settings import Network
from lensnb.show.plots import draw_slice
from lensnb.training import organs

COLOURS = plt.get_cmap("tab20").colors


def organ_panels(trained: OrganNetwork, scans: Sequence[OrganScan], network: Network, number: int) -> list[dict]:
    """What `organ_sheet` needs to draw a slice of `number` of the scans, from the lowest to the highest in the body."""
    places = np.rint(np.linspace(0, len(scans) - 1, number)).astype(int)
    ordered = sorted(scans, key=lambda scan: scan.z_mm.mean())
    panels = []
    for scan in (ordered[place] for place in places):
        middle = len(scan.hu) // 2
        size = trained.backbone.multiple
        batch = organs.whole_slices([(scan, middle)], np.array([True]), network, trained.backbone.stride, size)
        said, height_mm, _ = organs.answer(trained, batch)
        title = f"height {scan.z_mm[middle]:.0f} mm, said {height_mm[0]:.0f} mm"
        panels.append({"hu": scan.hu[middle], "true": batch.organ[0].numpy(), "said": said[0], "title": title})
    return panels


def organ_sheet(panels: Sequence[dict], names: Sequence[str], stride: int) -> Figure:
    """A column for each slice: the slice, the organ of every cell, and what the network says.

    panels: dicts with hu (y, x), true and said (y / stride, x / stride), numbers of `names` or others for none, title.
    """
    colours = np.array([*COLOURS[: len(names)], (1.0, 1.0, 1.0)])
    aspect = max(panel["hu"].shape[0] / panel["hu"].shape[1] for panel in panels)
    size = (2.6 * len(panels), 3 * (2.6 * aspect + 0.25) + 0.8)
    fig, axes = plt.subplots(3, len(panels), figsize=size, layout="constrained", squeeze=False)
    for column, panel in zip(axes.T, panels, strict=True):
        height, width = panel["hu"].shape
        draw_slice(column[0], panel["hu"], title=panel["title"])
        for ax, cells, title in ((column[1], panel["true"], "what it is"), (column[2], panel["said"], "what is said")):
            picture = colours[np.where(cells < len(names), cells, len(names))]
            # cell j lies on pixel stride * j
            low, (down, right) = -stride / 2, np.array(cells.shape) * stride - stride / 2
            ax.imshow(picture, extent=(low, right, down, low), interpolation="nearest")
            ax.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
            ax.set_axis_off()
            ax.set_title(title, fontsize=8)
    shown = np.unique(np.concatenate([panel[kind].ravel() for panel in panels for kind in ("true", "said")]))
    handles = [Patch(color=colours[number], label=names[number]) for number in shown if number < len(names)]
    fig.legend(handles=handles, loc="outside lower center", ncols=min(7, len(handles)), fontsize=8, frameon=False)
    return fig


def settling_chart(log: pd.DataFrame, validation: pd.DataFrame) -> Figure:
    """The sum of the losses by iteration: in training, on people held out, and where the weights were taken.

    log: iteration and a column for each loss; validation: iteration, score (the loss with a minus), kept.
    """
    fig, ax = plt.subplots(figsize=(6, 2.8), layout="constrained")
    ax.plot(log["iteration"], log.drop(columns="iteration").sum(axis=1), color="#BBBBBB", linewidth=1, label="training")
    ax.plot(validation["iteration"], -validation["score"], "o-", color="#0072B2", markersize=3, label="people held out")
    chosen = validation[validation["kept"]].iloc[0]
    ax.plot(chosen["iteration"], -chosen["score"], "D", color="#D55E00", label=f"kept: iteration {chosen['iteration']}")
    ax.set(xlabel="iteration", ylabel="loss")
    ax.set_ylim(bottom=0)
    ax.legend(fontsize=8, frameon=False)
    return fig
