"""DL_info.csv, DeepLesion's table of lesions, with its multi-valued cells taken apart."""

import re
from pathlib import Path

import numpy as np
import pandas as pd

from lensnb.ct.grid_shapes import DIAMETERS
from lensnb.datasets import DATASETS, UNIVERSAL
from lensnb.files.cells import numbers, read_cells

SPLITS = {1: "train", 2: "official-val", 3: "official-test"}
MAX_SLICES = 5000  # the longest range of the table has 451
FARTHEST = 1e9  # no pixel, slice or millimetre lies beyond
FILE_NAME = re.compile(r"([0-9]{6}_[0-9]{2}_[0-9]{2})_([0-9]{3,6})\.png")
COLUMNS = ["File_name", "Key_slice_index", "Measurement_coordinates", "Bounding_boxes", "Possibly_noisy", "Slice_range",
           "Spacing_mm_px_", "Image_size", "Train_Val_Test"]  # fmt: skip

ONE_VOLUME = ["spacing_x", "spacing_y", "spacing_z", "width", "height"]  # what is one for all lesions of a sub-volume
ENDS = [f"end_{name}" for name in DIAMETERS]


def read_info(path: Path) -> pd.DataFrame:
    """DL_info.csv with its multi-valued cells taken apart.

    Columns: lesion (dl + 0-based row of the file), series, key, start, end, x1..y2, spacing_x, _y, _z in mm, width,
    height in pixels, noisy, split (1, 2, 3), and end_x1..end_y4, the ends of the RECIST diameters (DIAMETERS), the
    long one first, or equal to a thousandth. Boxes carry 5 pixels of margin around the RECIST diameters. Sex and age,
    which differ between the published copies of the table, are not read.

    The file's boxes and ends are taken as 1-based: 1 is subtracted, as in the authors' code. The true shift is no whole
    pixel. On the 921 lesions that the manual test set marks too, its boxes lie 0.6 (x) and 0.8 (y) pixels beyond ours,
    and 0.4 and 0.2 short of the file's numbers (medians), so that either choice errs by less than a pixel.

    Raises FileNotFoundError, or ValueError naming the file and row.
    """
    table = read_cells(path, advice=f"DeepLesion comes from {DATASETS[UNIVERSAL].source}")
    absent = [name for name in COLUMNS if name not in table]
    if absent:
        raise ValueError(f"{path} has no column {', '.join(absent)}; it has {', '.join(table.columns)}")
    if table.empty:
        raise ValueError(f"{path} has no rows")
    names = [FILE_NAME.fullmatch(name) for name in table["File_name"]]
    _refuse([name is None for name in names], "File_name is not like 000001_01_01_109.png", table, path)
    boxes = _numbers(table, "Bounding_boxes", 4, path) - 1
    ends = _numbers(table, "Measurement_coordinates", 8, path) - 1
    ranges = _whole_numbers(table, "Slice_range", 2, path)
    spacing = _numbers(table, "Spacing_mm_px_", 3, path)
    size = _whole_numbers(table, "Image_size", 2, path)
    noisy, no_number = numbers(table["Possibly_noisy"])
    noisy[np.isnan(noisy) & ~no_number] = 0  # a blank cell
    _refuse(~np.isin(noisy, (0, 1)), "Possibly_noisy is not 0 or 1", table, path)
    _refuse(ranges[:, 1] - ranges[:, 0] >= MAX_SLICES, f"Slice_range is longer than {MAX_SLICES} slices", table, path)
    info = pd.DataFrame(
        {
            "lesion": [f"dl{row:05d}" for row in range(len(table))],
            "series": [name[1] for name in names],
            "key": _whole_numbers(table, "Key_slice_index", 1, path)[:, 0],
            "start": ranges[:, 0],
            "end": ranges[:, 1],
            "width": size[:, 0],
            "height": size[:, 1],
            "noisy": noisy == 1,
            "split": numbers(table["Train_Val_Test"])[0],
        }
    )
    info[["x1", "y1", "x2", "y2"]] = boxes
    info[["spacing_x", "spacing_y", "spacing_z"]] = spacing
    info[ENDS] = ends
    _refuse(info["key"] != [int(name[2]) for name in names], "Key_slice_index is not that of File_name", table, path)
    _refuse(~info["split"].isin(SPLITS), "Train_Val_Test is not 1, 2 or 3", table, path)
    info["split"] = info["split"].astype(int)
    _refuse((boxes[:, 0] >= boxes[:, 2]) | (boxes[:, 1] >= boxes[:, 3]), "Bounding_boxes is inverted", table, path)
    _refuse((spacing <= 0).any(axis=1), "Spacing_mm_px_ is not positive", table, path)
    for names, key, what in ((ONE_VOLUME, ["series", "start", "end"], "sub-volume"), (["split"], "patient", "patient")):
        of_one = info.assign(patient=info["series"].str[:6]).groupby(key)[names]
        other = (info[names] != of_one.transform("first")).any(axis=1)
        _refuse(other, f"{' or '.join(names)} is another than in the row before of this {what}", table, path)
    outside = (info["key"] < info["start"]) | (info["key"] > info["end"])
    _refuse(outside, "the key slice is outside Slice_range", table, path)
    return info


def _numbers(table: pd.DataFrame, column: str, count: int, path: Path) -> np.ndarray:
    """The `count` numbers in each cell of a column: (n, count)."""
    cells = [[part.strip() for part in cell.split(",")] for cell in table[column]]
    _refuse([len(cell) != count for cell in cells], f"{column} is not {count} numbers", table, path)
    values = numbers(pd.Series([part for cell in cells for part in cell], dtype=str))[0].reshape(-1, count)
    far = ~(np.abs(values) <= FARTHEST).all(axis=1)  # nan, too
    _refuse(far, f"{column} is not {count} numbers", table, path)
    return values


def _whole_numbers(table: pd.DataFrame, column: str, count: int, path: Path) -> np.ndarray:
    values = _numbers(table, column, count, path)
    _refuse((values != np.rint(values)).any(axis=1), f"{column} is no whole number", table, path)
    return values.astype(int)


def _refuse(bad: np.ndarray | pd.Series | list[bool], what: str, table: pd.DataFrame, path: Path) -> None:
    rows = np.flatnonzero(np.asarray(bad))
    if len(rows):
        raise ValueError(f"{path}, line {table.index[rows[0]]}: {what} ({len(rows)} such rows)")
