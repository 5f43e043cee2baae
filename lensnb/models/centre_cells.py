"""How many cells the centre regions of the AFP have: its supervision, which the grid and the stride decide."""

import numpy as np
import pandas as pd

from lensnb.boxes import BOX
from lensnb.models.afp import CENTER_RATIO

# the boxes of DeepLesion's DL_info.csv on the paper's grid of 0.8 mm at stride 4; tests/test_centre_cells.py counts
# them on the file's first 10,857 rows
DEEPLESION = {"mean": 3.8, "more_than_one": 0.59, "none": 0.06}


def centre_cells(boxes: np.ndarray, stride: int, ratio: float = CENTER_RATIO) -> np.ndarray:
    """How many cells lie in the centre region of each box: (n, 4) in pixels -> (n,).

    Cells lie at the multiples of `stride` (see cells.py); the border of the region belongs to it, as in the AFP.
    """
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]) / 2 * ratio
    first, last = np.ceil((centre - half) / stride), np.floor((centre + half) / stride)
    return (last - first + 1).clip(0).prod(axis=1).astype(int)


def centre_cell_table(boxes: pd.DataFrame, stride: int, scale: float = 1.0) -> pd.DataFrame:
    """What `centre_cells` come to, a row for each dataset and one for all boxes.

    boxes: x1..y2 in pixels and dataset; scale: pixels of the grid that is asked for to one pixel of theirs. Returns
    dataset, stride, boxes (how many), mean (cells of a box), more_than_one, and none: the shares of the boxes with
    more than one cell, and with none, to which the AFP gives the nearest one. Raises ValueError if there is no box.
    """
    if boxes.empty:
        raise ValueError("there are no boxes whose centre cells could be counted")
    corners = (boxes[BOX].to_numpy(dtype=np.float64) + 0.5) * scale - 0.5
    cells = pd.Series(centre_cells(corners, stride))
    names = boxes["dataset"].astype(str).to_numpy()
    parts = {name: cells[names == name] for name in pd.unique(names)} | {"all": cells}
    rows = [(name, stride, len(c), c.mean(), (c > 1).mean(), (c == 0).mean()) for name, c in parts.items()]
    return pd.DataFrame(rows, columns=["dataset", "stride", "boxes", "mean", "more_than_one", "none"])
