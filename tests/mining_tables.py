"""Tables of boxes for the tests of mining, small enough to work out by hand. All boxes are 10 x 10 grid pixels."""

from types import SimpleNamespace

import numpy as np
import pandas as pd

# the profile's section mining; tests replace what they are about
RULES = {
    "theta": 0.5,
    "nearest_only": True,
    "trims": [0.0],
    "cross_slice_precision": 0.9,
    "deltas": [0.1, 0.2],
    "scores": [0.5, 0.8],
    "minimum_precision": 0.6,
    "sigmas": [0.5],
    "uncertain_precision": 0.6,
    "overlap": 0.0,
    "nms": 0.3,
}


def rules(**changes) -> SimpleNamespace:
    return SimpleNamespace(**RULES | changes)


def boxes(*rows, **columns) -> pd.DataFrame:
    """Rows (volume, z, x1): a 10 x 10 box; further columns by name, one value or one per row."""
    table = pd.DataFrame(rows, columns=["volume", "z", "x1"])
    table = table.assign(
        y1=0.0, x2=table["x1"] + 10.0, y2=10.0, z1=table["z"], z2=table["z"], score=0.9, expert="DeepLesion"
    )
    table = table.assign(
        dataset="DeepLesion", patient=table["volume"].str[0], study="1", series="1", source="annotated"
    )
    return table.assign(**columns)


def annotated() -> pd.DataFrame:
    """A lesion at x = 0 on slice 5 of volume p1, one at x = 50 on slice 2 of volume p2."""
    return boxes(("p1", 5, 0.0), ("p2", 2, 50.0), lesion=["dl00000", "dl00001"])


def complete() -> pd.DataFrame:
    """Volume p1: lesion a on slices 4, 5, 6 (marked on 5), lesion b on slice 8.

    Volume p2: lesion c, the same as a, on slices 3, 4.
    """
    return boxes(
        ("p1", 4, 0.0), ("p1", 5, 0.0), ("p1", 6, 0.0), ("p1", 8, 40.0), ("p2", 3, 0.0), ("p2", 4, 0.0),
        lesion=["a", "a", "a", "b", "c", "c"], identity=[7, 7, 7, 8, 7, 7],
    )  # fmt: skip


def unit(*degrees) -> np.ndarray:
    angle = np.radians(degrees)
    return np.column_stack([np.cos(angle), np.sin(angle)]).astype(np.float32)
