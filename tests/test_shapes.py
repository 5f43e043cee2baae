"""Masks and RECIST diameters on the grid and in the store."""

import os

import numpy as np
import pandas as pd
import pytest
from test_preparation import SPACING, write_all
from tiny import info_row, write_deeplesion, write_lits

from lensnb.boxes import BOX
from lensnb.ct.grid import normalise
from lensnb.ct.grid_boxes import slice_boxes_to_grid
from lensnb.ct.grid_shapes import DIAMETERS, Segment, diameters_to_grid, mask_to_grid
from lensnb.ct.volume import CT, affine
from lensnb.datasets import SLICE_BOXES, shapes
from lensnb.datasets.masks import mask_boxes, segment_boxes, segments
from lensnb.datasets.preparation import prepare
from lensnb.datasets.store import Store
from lensnb.files import write_table
from lensnb.provenance.recipe import closure


def on_grid(instances: np.ndarray, matrix, spacing_mm=(1.0, 1.0, 2.0)) -> tuple[np.ndarray, pd.DataFrame]:
    """The mask and the boxes of instances (z, y, x) on the grid."""
    hu, geometry = normalise(CT(np.zeros(instances.shape, np.int16), np.array(matrix)), spacing_mm, crop=False)
    found = segments(instances, lambda number: f"n{number}")
    boxes = pd.DataFrame(segment_boxes(found), columns=SLICE_BOXES)
    boxes = slice_boxes_to_grid(boxes, geometry, len(hu))
    return mask_to_grid(found, boxes, geometry, hu.shape), boxes


def places(mask: np.ndarray, number: int) -> list[list[int]]:
    return np.argwhere(mask == number).tolist()


def test_a_mask_is_cut_into_lesions():
    instances = np.zeros((3, 5, 6), np.int32)
    instances[1, 2, 3] = instances[2, 3, 4] = 4  # one lesion, although its voxels touch at a corner only
    instances[0, 0, 5] = 2
    two, four = segments(instances, lambda number: f"n{number}")
    assert (two.lesion, two.corner, two.voxels.tolist()) == ("n2", (0, 0, 5), [[[True]]])
    assert four.lesion == "n4" and four.corner == (1, 2, 3)
    assert np.argwhere(four.voxels).tolist() == [[0, 0, 0], [1, 1, 1]]
    assert segment_boxes([two, four]) == mask_boxes(instances, lambda number: f"n{number}")


def test_a_mask_follows_flipped_axes_and_thick_slices():
    instances = np.zeros((4, 5, 7), np.int32)
    instances[1, 1, 2:4] = 1
    instances[2, 1:3, 2] = 2
    mask, boxes = on_grid(instances, np.diag([-1.0, -1.0, 6.0, 1.0]))  # x and y are flipped: index i is at 6-i, 4-i
    assert mask.dtype == np.uint16 and mask.shape == (10, 5, 7)
    # grid slice k lies at k/3: slice 1 is the nearest from 0.5 to 1.5, slice 2 from there to 2.5
    assert places(mask, 1) == [[z, 3, x] for z in (2, 3, 4) for x in (3, 4)]
    assert places(mask, 2) == [[z, y, 4] for z in (5, 6, 7) for y in (2, 3)]
    assert boxes.groupby("lesion")["z"].apply(list).to_dict() == {"n1": [2, 3, 4], "n2": [5, 6, 7]}
    head_first, _ = on_grid(instances, np.diag([-1.0, -1.0, -6.0, 1.0]))
    # now grid slice k lies at 3 - k/3; half way (k = 4.5, 1.5, 7.5) is no grid slice
    assert places(head_first, 1) == [[z, 3, x] for z in (5, 6, 7) for x in (3, 4)]


def test_a_mask_follows_exchanged_axes():
    instances = np.zeros((2, 3, 5), np.int32)
    instances[0, 0, 3:] = 1
    matrix = affine(np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 2.0]]), np.zeros(3))
    mask, _ = on_grid(instances, matrix)  # the file's x runs to the back
    assert mask.shape == (2, 5, 3) and places(mask, 1) == [[0, 3, 0], [0, 4, 0]]


def test_voxel_centres_half_way_belong_to_the_next_voxel_as_in_the_boxes():
    instances = np.zeros((4, 3, 3), np.int32)
    instances[1] = 1
    instances[2] = 2
    mask, boxes = on_grid(instances, np.diag([1.0, 1, 4, 1]))  # grid slices at 0, 0.5, 1, ... 3
    assert mask[:, 1, 1].tolist() == [0, 1, 1, 2, 2, 0, 0]
    assert boxes["z"].tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("spacing", [(0.7, 0.7, 1.25), (1.3, 1.3, 5.0), (1.0, 1.0, 2.0), (0.83, 0.91, 3.0)])
def test_masks_and_boxes_agree_for_any_spacing(spacing):
    """The same slices, and in plane half a grid pixel, with a pixel that lies between rows of the grid."""
    rng = np.random.default_rng(3)
    noise = rng.normal(size=(12, 30, 34))
    for axis in range(3):
        noise = noise + np.roll(noise, 1, axis) + np.roll(noise, -1, axis)
    instances = np.zeros(noise.shape, np.int32)
    instances[:, 2:14, 2:16], instances[:, 15:28, 17:32] = (noise > 9)[:, 2:14, 2:16], 2 * (noise > 9)[:, 15:28, 17:32]
    mask, boxes = on_grid(instances, np.diag([-spacing[0], spacing[1], -spacing[2], 1.0]))
    for number in (1, 2):
        own = boxes[boxes["lesion"] == f"n{number}"]
        assert np.flatnonzero((mask == number).any(axis=(1, 2))).tolist() == own["z"].tolist()
    whole, _ = on_grid(np.ones((12, 30, 34), np.int32), np.diag([-spacing[0], spacing[1], -spacing[2], 1.0]))
    assert (whole == 1).all()


def test_no_lesion_vanishes_between_the_voxels_of_the_grid():
    instances = np.zeros((9, 7, 7), np.int32)
    instances[4, 2, 2] = 1  # at a voxel centre of the grid, (1, 1, 1)
    instances[4, 3, 3] = 2  # half way between four of them, of which one is taken
    instances[7, 1:6, 1:4] = 3  # between two slices
    mask, boxes = on_grid(instances, np.eye(4), (2.0, 2.0, 4.0))  # centres at 0, 2, 4, 6 and slices at 0, 4, 8
    # no centre lies in the pixel 3, which reaches from 2.5 to 3.5
    assert places(mask, 1) == [[1, 1, 1]] and places(mask, 2) == [[1, 1, 2]]
    assert places(mask, 3) == [[2, y, 1] for y in (1, 2)]  # of slice 7 whole: y 2 and 4, x 2
    assert boxes.set_index("lesion")["z"].to_dict() == {"n1": 1, "n2": 1, "n3": 2}


def test_more_lesions_than_numbers_are_refused(monkeypatch):
    monkeypatch.setattr("lensnb.ct.grid_shapes.MOST_LESIONS", 1)
    _, geometry = normalise(CT(np.zeros((2, 2, 2), np.int16), np.eye(4)), (1.0, 1.0, 1.0), crop=False)
    voxel = Segment("a", (0, 0, 0), np.ones((1, 1, 1), bool))
    with pytest.raises(ValueError, match="2 lesions in a mask; 1 can be numbered"):
        mask_to_grid([voxel, voxel], pd.DataFrame({"lesion": ["a"], "z": [0]}), geometry, (2, 2, 2))


def test_diameters_go_to_the_grid_with_their_length():
    matrix = affine(np.diag([-0.5, 0.5, -3.0]), np.zeros(3))
    _, geometry = normalise(CT(np.zeros((4, 20, 20), np.int16), matrix), (1.0, 1.0, 2.0), crop=False)
    ends = pd.DataFrame([["a", 1, 3.0, 4.0, 15.0, 9.0, 8.0, 2.0, 6.0, 25.0]], columns=["lesion", "z", *DIAMETERS])
    table = diameters_to_grid(ends, geometry, 5)
    # x index i is at 19 - i half pixels, slice 1 is 2 slices of 3 mm above the lowest: 6 mm, grid slice 3
    expected = [(19 - 3) / 2, 2, (19 - 15) / 2, 4.5, (19 - 8) / 2, 1, (19 - 6) / 2, 12.5]
    assert table["z"].tolist() == [3] and table[DIAMETERS].to_numpy().tolist() == [expected]


# the store


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    root = tmp_path_factory.mktemp("raw")
    write_all(root)
    ends = "13, 20, 33, 20, 25, 16, 25, 26"  # as in the file; its box has 5 pixels more on every side
    rows = [info_row("000001_01_01", 9, (8, 11, 38, 31), (5, 12), (1.25, 1.25, 3), size=40),
            info_row("000001_01_01", 8, (8, 11, 38, 31), (5, 12), (1.25, 1.25, 3), size=40, noisy=1)]  # fmt: skip
    write_deeplesion(root, [[*row[:5], ends, *row[6:]] for row in rows], size=40)
    empty = np.zeros((8, 40, 40), int)
    write_lits(root, 4, empty, empty, np.diag([1.25, -1.25, -3.0, 1.0]))
    return root


@pytest.fixture(scope="module")
def store(raw, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    prepare(raw, out, SPACING, workers=1, box_padding_mm=2.0)
    return Store(out)


def test_ends_of_diameters_lie_on_the_sides_of_the_box_less_its_margin(store):
    ends = shapes.recist(store)
    assert list(ends.columns) == shapes.RECIST and ends["lesion"].tolist() == ["dl00000"]  # not the noisy one
    box = store.boxes[store.boxes["lesion"] == "dl00000"].iloc[0]
    assert ends.loc[0, "z"] == box["z"] and ends.loc[0, "volume"] == box["volume"]
    # 1-based 13..33 is 12..32, times 1.25 mm
    assert ends.loc[0, DIAMETERS].tolist() == [15.0, 23.75, 40.0, 23.75, 30.0, 18.75, 30.0, 31.25]
    points = ends[DIAMETERS].to_numpy(float).reshape(4, 2)
    hull = [*points.min(axis=0), *points.max(axis=0)]
    np.testing.assert_allclose(np.array(hull) + np.array([-1, -1, 1, 1]) * 5 * 1.25, box[BOX].to_numpy(float))


def test_the_store_has_masks_where_a_dataset_has_them(store):
    numbers = shapes.mask_numbers(store)
    assert list(numbers.columns) == shapes.NUMBERS
    listed = numbers[["dataset", "volume", "number", "lesion"]].to_numpy().tolist()
    assert listed == [["LiTS", "volume-3", 1, "volume-3-t001"], ["NIH-LN", "ABD_LYMPH_003", 1, "ABD_LYMPH_003-n02"]]
    for volume, number, lesion in numbers[["volume", "number", "lesion"]].itertuples(index=False):
        mask, boxes = shapes.mask(store, volume), store.boxes[store.boxes["lesion"] == lesion]
        assert mask.dtype == np.uint16 and mask.shape == store.hu(volume).shape and set(np.unique(mask)) == {0, number}
        assert np.flatnonzero(mask.any(axis=(1, 2))).tolist() == boxes["z"].tolist()
        assert np.median(store.hu(volume)[mask == number]) > 700  # the bright ball
        for box in boxes.itertuples():
            y, x = np.nonzero(mask[int(box.z)])
            edges = [x.min() - 0.5, y.min() - 0.5, x.max() + 0.5, y.max() + 0.5]
            # a margin of 2 mm; slices of 3 mm whose circles differ by up to a pixel of 1.25 mm
            np.testing.assert_allclose(edges, [box.x1 + 2, box.y1 + 2, box.x2 - 2, box.y2 - 2], atol=0.5 + 1.25 / 2)
    assert not shapes.mask(store, "volume-4").any()  # no tumour
    assert shapes.mask(store, "1.2.0") is None and shapes.mask(store, "000001_01_01_005-012") is None
    with pytest.raises(ValueError, match="volumes.csv has no volume 'x'"):
        shapes.mask(store, "x")


@pytest.mark.parametrize("damage", ["cut", "lost"])
def test_a_damaged_mask_is_said_and_made_again(raw, tmp_path, capsys, damage):
    prepare(raw, tmp_path, SPACING, workers=1, datasets=("LiTS",))
    path, other = (tmp_path / f"store/LiTS/volume-{number}.mask.npz" for number in (3, 4))
    whole, kept = path.read_bytes(), other.stat().st_mtime_ns
    os.utime(path, ns=(1, 1))
    prepare(raw, tmp_path, SPACING, workers=1, datasets=("LiTS",))
    assert path.stat().st_mtime_ns == 1  # touched, but whole
    if damage == "cut":
        path.write_bytes(whole[:-9])
    else:
        path.unlink()
    with pytest.raises(ValueError, match=f"volume-3.mask.npz is {'broken' if damage == 'cut' else 'missing'}"):
        shapes.mask(Store(tmp_path), "volume-3")
    prepare(raw, tmp_path, SPACING, workers=1, datasets=("LiTS",))
    assert "volume-3.mask.npz: is not as it was written; made again" in capsys.readouterr().out
    assert path.read_bytes() == whole and other.stat().st_mtime_ns == kept
    np.savez_compressed(path, mask=np.zeros((1, 2, 3), np.uint16))
    with pytest.raises(ValueError, match=r"volume-3.mask.npz has the shape \(1, 2, 3\), its volume \(11, 49, 49\)"):
        shapes.mask(Store(tmp_path), "volume-3")


def test_a_corrected_mask_is_made_again(tmp_path):
    hu, labels = np.zeros((4, 9, 9), int), np.zeros((4, 9, 9), int)
    labels[1:3, 3:6, 3:6] = 2
    matrix = np.diag([1.25, -1.25, -3.0, 1.0])
    write_lits(tmp_path / "raw", 3, hu, labels, matrix)
    prepare(tmp_path / "raw", tmp_path / "out", SPACING, workers=1, datasets=("LiTS",))
    before = shapes.mask_numbers(Store(tmp_path / "out"))["content"].tolist()
    labels[1, 7, 7] = 2
    write_lits(tmp_path / "raw", 3, hu, labels, matrix)
    prepare(tmp_path / "raw", tmp_path / "out", SPACING, workers=1, datasets=("LiTS",))
    after = shapes.mask_numbers(Store(tmp_path / "out"))
    assert after["number"].tolist() == [1, 2] and not set(after["content"]) & set(before)


def test_a_store_without_masks_and_diameters_has_empty_tables(raw, tmp_path, tiny_store):
    prepare(raw, tmp_path, SPACING, workers=1, datasets=("LUNA16",))
    own = Store(tmp_path)
    assert shapes.recist(own).empty and list(shapes.recist(own).columns) == shapes.RECIST
    assert shapes.mask_numbers(own).empty and shapes.mask(own, "1.2.0") is None
    with pytest.raises(FileNotFoundError, match="recist.csv.*an earlier step makes it"):
        shapes.recist(tiny_store)
    write_table(shapes.recist(own).drop(columns="x4"), tmp_path / "recist.csv")
    with pytest.raises(ValueError, match="recist.csv has no column x4"):
        shapes.recist(own)


def test_no_training_on_boxes_follows_from_masks():
    modules = ["lensnb.training.detector", "lensnb.training.pretext", "lensnb.training.false_positives",
               "lensnb.lesanet.training", "lensnb.detection.inference", "lensnb.detection.selection"]  # fmt: skip
    assert not {"lensnb.datasets.shapes", "lensnb.ct.grid_shapes"} & set(closure(modules))
