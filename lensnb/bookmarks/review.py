"""Pictures of the flagged bookmarks, one each, for somebody who decides whether they are right.

The paper had its flagged boxes checked by hand (DeepLesion Sec. 2.2.1). A row of the dataset that turns out to be right
gets a 0 in Possibly_noisy of DL_info.csv; until then no reader of the dataset uses it.
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from lensnb.bookmarks.merge import MEAN
from lensnb.bookmarks.recist import hull_box
from lensnb.bookmarks.report import REVIEWED
from lensnb.bookmarks.series import Series, planes
from lensnb.files import write_table
from lensnb.show import plots
from lensnb.show.examples import window_for
from lensnb.system import progress

LISTED = "flagged.csv"
LEAST_PX = 40  # that the second picture shows on a side
LONG_COLOUR, SHORT_COLOUR = "#56B4E9", "#E69F00"


def write_review(folder: Path, flagged: pd.DataFrame, series: dict[str, Series], margin_px: float) -> None:
    """Write folder/flagged.csv, a row for each flagged bookmark, and a picture of each named after its number. The
    column `right` is empty, for whoever looks at them.

    flagged: rows of bookmarks with series_uid, slice, merge.MEAN, rules, and what REVIEWED names. The picture shows the
    whole slice, and beside it the box with twice its surroundings; no identifier is in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    table = flagged[REVIEWED].round(3).assign(picture=[f"{number:06d}.png" for number in flagged["bookmark"]], right="")
    for row in progress(flagged.to_dict("records"), "drawing what was flagged"):
        _, hu = next(planes(series[row["series_uid"]], [row["slice"]]))
        _draw(hu, row, margin_px, folder / f"{row['bookmark']:06d}.png")
    write_table(table, folder / LISTED)


def _draw(hu: np.ndarray, row: dict, margin_px: float, path: Path) -> None:
    ends = np.array([row[name] for name in MEAN], dtype=float)
    box = pd.DataFrame(hull_box(ends, margin_px), columns=["x1", "y1", "x2", "y2"]).assign(source="annotated")
    window = window_for(hu, box)
    fig, axes = plt.subplots(1, 2, figsize=(8, 4.3), layout="constrained")
    for ax in axes:
        plots.draw_slice(ax, hu, box, window=window)
        for (x1, y1, x2, y2), colour in zip(ends.reshape(2, 4), (LONG_COLOUR, SHORT_COLOUR), strict=True):
            ax.plot([x1, x2], [y1, y2], color=colour, linewidth=1.2)
    x1, y1, x2, y2 = box[["x1", "y1", "x2", "y2"]].to_numpy()[0]
    reach = max(x2 - x1, y2 - y1, LEAST_PX / 2)
    axes[0].set(xlim=(-0.5, hu.shape[1] - 0.5), ylim=(hu.shape[0] - 0.5, -0.5))
    axes[1].set(
        xlim=((x1 + x2) / 2 - reach, (x1 + x2) / 2 + reach), ylim=((y1 + y2) / 2 + reach, (y1 + y2) / 2 - reach)
    )
    fig.suptitle(f"bookmark {row['bookmark']}, {row['File_name']}: {row['rules']}", fontsize=9)
    plots.save(fig, path)
