"""A look at the slices that bookmarks lie on: what is in the boxes, and where the body is."""

import numpy as np
import pandas as pd

from lensnb.bookmarks.noise import MEASURES, measure
from lensnb.bookmarks.series import Series, planes
from lensnb.ct.grid import border_crop
from lensnb.ct.grid_shapes import DIAMETERS
from lensnb.ct.values import check_hu
from lensnb.system import progress

UNREADABLE, NO_HU = "its pixels can not be read", "its values are no HU"
BODY = ["body_x1", "body_y1", "body_x2", "body_y2"]  # the box of the body in a slice, in pixels


def look(bookmarks: pd.DataFrame, series: dict[str, Series], margin_px: float) -> tuple[pd.DataFrame, list[str]]:
    """Measure the boxes of all bookmarks that have a place, on their key slices.

    Returns the table with noise.MEASURES of each bookmark's own diameters, and BODY of its slice; a bookmark whose
    slice can not be read, or holds no HU, gets left_out, and a note says why.
    """
    table = bookmarks.assign(**dict.fromkeys([*MEASURES, *BODY], np.nan))
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
        found = measure(part[DIAMETERS].to_numpy(float), margin_px, series[uid].spacing_mm[:2], plane)
        table.loc[part.index, MEASURES] = found[MEASURES].to_numpy()
        table.loc[part.index, BODY] = _body(plane, series[uid].spacing_mm)
    return table, notes


def _body(plane: np.ndarray, spacing_mm: tuple[float, float, float]) -> list[int]:
    """x1, y1, x2, y2 of the body in a slice (y, x) in HU; x2 and y2 are one beyond it."""
    height, width = plane.shape
    rows, columns = border_crop(plane[None], np.arange(height), np.arange(width), spacing_mm)
    return [columns.start, rows.start, columns.stop, rows.stop]
