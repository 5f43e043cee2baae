"""A look at the slices that bookmarks lie on: what is in the boxes, and where in the body they are."""

import numpy as np
import pandas as pd

from lensnb.bookmarks.merge import MEAN
from lensnb.bookmarks.noise import MEASURES, measure
from lensnb.bookmarks.recist import hull_box
from lensnb.bookmarks.series import Series, planes
from lensnb.ct.grid import border_crop
from lensnb.ct.values import check_hu
from lensnb.system import progress

UNREADABLE, NO_HU = "its pixels can not be read", "its values are no HU"
LOOKED_AT = [*MEASURES, "body_x", "body_y"]


def look(bookmarks: pd.DataFrame, series: dict[str, Series], margin_px: float) -> tuple[pd.DataFrame, list[str]]:
    """Measure the boxes of all bookmarks that have a place, on their key slices.

    Returns the table with noise.MEASURES, and body_x, body_y: the middle of the box, 0 to 1 from the right and front to
    the left and back end of the body in the slice; a bookmark whose slice can not be read, or holds no HU, gets
    left_out, and a note says why.
    """
    table = bookmarks.assign(**dict.fromkeys(LOOKED_AT, np.nan))
    kept = table[table["left_out"] == ""]
    notes = []
    groups = list(kept.groupby(["series_uid", "slice"], sort=True))
    for (uid, index), part in progress(groups, "looking at key slices"):
        try:
            _, plane = next(planes(series[uid], [index]))
        except ValueError as error:
            table.loc[part.index, "left_out"] = UNREADABLE
            notes.append(str(error))
            continue
        try:
            check_hu(plane[None], series[uid].frames[index][0])
        except ValueError as error:
            table.loc[part.index, "left_out"] = NO_HU
            notes.append(str(error))
            continue
        ends = part[MEAN].to_numpy(float)
        found = measure(ends, margin_px, series[uid].spacing_mm[:2], plane)
        found[["body_x", "body_y"]] = _in_body(hull_box(ends, 0.0), plane, series[uid].spacing_mm)
        table.loc[part.index, LOOKED_AT] = found[LOOKED_AT].to_numpy()
    return table, notes


def _in_body(boxes: np.ndarray, plane: np.ndarray, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """Middles of boxes (n, 4) as shares (n, 2) of the body's width and depth in a slice."""
    height, width = plane.shape
    rows, columns = border_crop(plane[None], np.arange(height), np.arange(width), spacing_mm)
    first, size = (
        np.array([columns.start, rows.start]),
        np.array([columns.stop - columns.start, rows.stop - rows.start]),
    )
    return ((boxes[:, :2] + boxes[:, 2:]) / 2 - first) / size
