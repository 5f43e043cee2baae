"""Cells in the centre regions: counted as the AFP sees them, by hand, and on the real table of DeepLesion."""

import numpy as np
import pandas as pd
import pytest
import torch

from lensnb.boxes import BOX
from lensnb.datasets.dl_info import read_info
from lensnb.models.afp import CENTER_RATIO, inside, shrink
from lensnb.models.cells import cell_centres
from lensnb.models.centre_cells import DEEPLESION, centre_cell_table, centre_cells


@pytest.mark.parametrize("stride", [2, 4, 8])
def test_the_counted_cells_are_those_of_the_afp(stride):
    rng = np.random.default_rng(stride)
    corner = rng.uniform(0, 60, (300, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(2, 60, (300, 2))], axis=1)
    points = cell_centres(128 // stride, 128 // stride, stride, "cpu").double()
    afp = inside(points, shrink(torch.from_numpy(boxes), CENTER_RATIO)).sum(dim=1)
    assert centre_cells(boxes, stride).tolist() == afp.tolist()
    assert len(set(afp.tolist())) > 3


def test_the_table_by_hand():
    """Centre regions: 2 x 2 pixels around (8, 8) and around (10, 10), 8 x 8 around (10, 10), 4 x 2 around (10, 8)."""
    boxes = [(3, 3, 13, 13), (5, 5, 15, 15), (-10, -10, 30, 30), (0, 3, 20, 13)]
    table = pd.DataFrame(boxes, columns=BOX).assign(dataset=["LiTS", "LiTS", "LiTS", "LUNA16"])
    assert centre_cells(table[BOX], 4).tolist() == [1, 0, 4, 2]
    found = centre_cell_table(table, 4).set_index("dataset")
    assert found.index.tolist() == ["LiTS", "LUNA16", "all"]
    assert found.loc["LiTS", ["boxes", "mean", "more_than_one", "none"]].tolist() == pytest.approx(
        [3, 5 / 3, 1 / 3, 1 / 3]
    )
    assert found.loc["all", ["boxes", "mean", "more_than_one", "none"]].tolist() == pytest.approx(
        [4, 7 / 4, 1 / 2, 1 / 4]
    )


def test_a_finer_grid_and_a_smaller_stride_have_more_cells():
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 60, (4000, 2))
    boxes = pd.DataFrame(np.concatenate([corner, corner + 10], axis=1), columns=BOX).assign(dataset="LiTS")
    coarse = centre_cell_table(boxes, 4).iloc[0]
    # the region has 2 x 2 pixels, and a cell of stride s every s x s
    assert coarse["mean"] == pytest.approx(4 / 16, rel=0.15)
    assert centre_cell_table(boxes, 2).iloc[0]["mean"] == pytest.approx(4 / 4, rel=0.15)
    assert centre_cell_table(boxes, 4, scale=2.0).iloc[0]["mean"] == pytest.approx(16 / 16, rel=0.15)


def test_no_boxes_are_refused():
    with pytest.raises(ValueError, match="no boxes"):
        centre_cell_table(pd.DataFrame(columns=[*BOX, "dataset"]), 4)


def test_the_real_deeplesion_on_the_papers_grid(shared_data):
    info = read_info(shared_data / "real" / "DeepLesion" / "DL_info.csv")
    pixels = (info[BOX] + 0.5).mul(info["spacing_x"] / 0.8, axis=0) - 0.5
    found = centre_cell_table(pixels.assign(dataset="DeepLesion"), 4).iloc[0]
    assert found["boxes"] == 10857
    assert found["mean"] == pytest.approx(DEEPLESION["mean"], abs=0.05)
    assert found[["more_than_one", "none"]].tolist() == pytest.approx(
        [DEEPLESION["more_than_one"], DEEPLESION["none"]], abs=5e-3
    )
