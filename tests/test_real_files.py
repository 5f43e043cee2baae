"""Every real file beside the repository: it is read, and what it says of lesions lies on the right tissue.

The files are not part of the repository; where they are absent, these tests are skipped.
"""

import json

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk

from lensnb.boxes import BOX
from lensnb.ct import read
from lensnb.ct.grid import boxes3d_to_grid, boxes3d_to_original, grid_to_mm, normalise
from lensnb.ct.grid_boxes import clip_to_image, slice_boxes_to_grid
from lensnb.ct.grid_shapes import mask_to_grid
from lensnb.ct.volume import CT
from lensnb.datasets import SLICE_BOXES, deeplesion, lits, luna16, nih_ln
from lensnb.datasets.dl_info import ENDS
from lensnb.datasets.masks import align_mask, segment_boxes, segments
from lensnb.datasets.preparation import split_by_patient
from lensnb.evaluation import luna
from lensnb.files import read_json

SOFT_TISSUE_HU = (-30, 150)


@pytest.fixture(scope="module")
def real(shared_data):
    return shared_data / "real"


@pytest.fixture(scope="module")
def info(real):
    info = deeplesion.read_info(real / "DeepLesion" / "DL_info.csv")
    names = [f"{row.series}_{row.start:03d}-{row.end:03d}" for row in info.itertuples()]
    return info.assign(volume=names)


@pytest.fixture(scope="module")
def manual(real):
    return {name: boxes for split in deeplesion.read_manual(real).values() for name, boxes in split.items()}


def is_soft(values: np.ndarray) -> bool:
    return SOFT_TISSUE_HU[0] < np.median(values) < SOFT_TISSUE_HU[1]


def test_no_real_file_is_forgotten(real):
    """The tests below read all of these; a new file needs a test that reads it."""
    known = {
        "DeepLesion": 2 + 29 + 28,  # table, manual boxes, a whole sub-volume, key slices
        "LUNA16": 3 + 6 + 6,
        "NIH-LN": 3 * 176,
        "nifti_pairs": 4,
        "dicom": 99,
        "lesanet": 3,
        "dicom_sr": 2,  # read in test_bookmarks_real.py
    }
    later = {"LesionHarvester": 3}  # for what is not built yet: revised annotations
    assert {p.name: sum(f.is_file() for f in p.rglob("*")) for p in real.iterdir()} == known | later


# DeepLesion


def test_every_png_holds_hu_of_the_stated_size_and_lesions_of_soft_tissue(real, info):
    keys = {}
    for row in info.itertuples():
        keys.setdefault((row.series, row.key), []).append(row)
    lesions = slices = 0
    for path in sorted((real / "DeepLesion" / "Images_png").rglob("*.png")):
        hu = deeplesion.read_png(path)
        slices += 1
        assert hu.dtype == np.int16 and -2048 <= hu.min() <= -1024 and 1000 < hu.max() <= 3071, path
        assert 0.2 < np.mean(hu < -900) < 0.8 and np.mean((hu > -150) & (hu < 250)) > 0.1, path  # air around a body
        for row in keys.get((path.parent.name, int(path.stem)), []):
            assert hu.shape == (row.height, row.width)
            x, y = round((row.x1 + row.x2) / 2), round((row.y1 + row.y2) / 2)
            assert is_soft(hu[y - 2 : y + 3, x - 2 : x + 3]), (path, row.lesion)
            lesions += 1
    assert (slices, lesions) == (57, 27)


def test_whole_sub_volume_runs_from_head_to_feet(real):
    found = deeplesion.find(real).set_index("volume", drop=False)
    ct, boxes = deeplesion.read(real, found.loc["000062_01_01_056-084"])
    assert ct.hu.shape == (29, 512, 512) and len(boxes) == 3 and ct.notes == ()
    grid, geometry = normalise(ct, (0.8, 0.8, 2.0))
    # kidneys below, stomach and transverse colon with their gas above: gas inside the body lies in the upper half
    inside = grid[:, 60:-60, 60:-60]
    gas = (inside < -500).mean(axis=(1, 2))
    assert geometry.first_slice == 56 and gas[len(gas) // 2 :].sum() > gas[: len(gas) // 2].sum()


def test_manual_splits_take_precedence(real):
    found = deeplesion.find(real)
    splits = found["split"].value_counts()
    assert splits[["val", "test"]].tolist() == [200, 800]
    assert not found["problem"].str.startswith("of the manual test set").any()
    lesions = found["annotations"].map(lambda a: len(a["lesions"])).groupby(found["split"]).sum()
    assert lesions[["val", "test", "official-test"]].sum() == 4927 - 15 and lesions["official-val"] == 4889 - 2


def test_table_of_val_and_test(info):
    names = {2: "val", 3: "test"}
    per = {names[s]: info[info["split"] == s] for s in names}
    assert {s: len(t) for s, t in per.items()} == {"val": 4889, "test": 4927}
    assert {s: int(t["noisy"].sum()) for s, t in per.items()} == {"val": 2, "test": 15}
    assert {s: t["volume"].nunique() for s, t in per.items()} == {"val": 3003, "test": 3016}
    assert {s: t["series"].nunique() for s, t in per.items()} == {"val": 2193, "test": 2184}
    patients = {s: set(t["series"].str[:6]) for s, t in per.items()}
    assert {s: len(p) for s, p in patients.items()} == {"val": 703, "test": 665} and patients["val"].isdisjoint(
        patients["test"]
    )
    blocks = {s: t.groupby("series")["volume"].nunique() for s, t in per.items()}
    assert {s: int((b > 1).sum()) for s, b in blocks.items()} == {"val": 606, "test": 623}
    assert {s: sorted(set(t["width"])) for s, t in per.items()} == {"val": [512, 768, 1024], "test": [512, 768]}
    points = info[ENDS].to_numpy().reshape(-1, 4, 2)
    hull = np.column_stack([points.min(axis=1), points.max(axis=1)])
    np.testing.assert_allclose(
        hull + [-5, -5, 5, 5], info[BOX].to_numpy(), atol=6e-4
    )  # also where they leave the image
    long_, short = (np.linalg.norm(points[:, i + 1] - points[:, i], axis=1) for i in (0, 2))
    assert (long_ > short - 1e-2).all() and (short > long_ + 1e-3).sum() == 5  # which are as long but for rounding
    diagonal = info[["x2", "y2"]].to_numpy() - info[["x1", "y1"]].to_numpy() - 10
    assert (diagonal >= -1e-6).all()  # 5 pixels of margin on every side of the diameters


def test_boxes_that_leave_the_image_end_at_its_edge(info):
    leaving = info[(info["x2"] > info["width"] - 0.5) & info["split"].isin([2, 3])]
    assert leaving["split"].value_counts().to_dict() == {2: 2, 3: 1}
    for _, row in leaving.iterrows():
        inside, dropped = clip_to_image(row[["lesion", *BOX]].to_frame().T, row["height"], row["width"])
        assert inside["x2"].tolist() == [511.5] and inside["x1"].tolist() == [row["x1"]] and dropped.empty


def test_ranges_of_a_series_never_overlap(info):
    for _, ranges in info.drop_duplicates("volume").groupby("series"):
        ordered = ranges.sort_values("start")
        assert (ordered["start"].to_numpy()[1:] > ordered["end"].to_numpy()[:-1]).all()


def test_manual_test_set_is_whole(real, info):
    manual = deeplesion.read_manual(real)
    counts = {s: (len(v), sum(map(len, v.values())), sum(not len(b) for b in v.values())) for s, v in manual.items()}
    assert counts["val"][:2] == (200, 1292) and counts["test"] == (800, 4155, 31)
    patients = {split: {name[:6] for name in volumes} for split, volumes in manual.items()}
    assert (len(patients["val"]), len(patients["test"])) == (99, 519) and not patients["val"] & patients["test"]
    official_test = set(info.loc[info["split"] == 3, "volume"])
    assert {name for volumes in manual.values() for name in volumes} <= official_test


def test_manual_z_is_the_slice_number_and_x_is_a_pixel_at_most_off(info, manual):
    hits, mirrored, rows, shifts = 0, 0, 0, []
    for row in info[info["volume"].isin(manual)].itertuples():
        rows += 1
        box = np.array([row.x1, row.y1, row.x2, row.y2])
        best, nearest = best_overlap(box, manual[row.volume], row.key)
        hits += best > 0.5
        mirrored += best_overlap(box, manual[row.volume], row.start + row.end - row.key)[0] > 0.5
        if best > 0.7:
            shifts.append(
                [(nearest[0] + nearest[3] - box[0] - box[2]) / 2, (nearest[1] + nearest[4] - box[1] - box[3]) / 2]
            )
    assert (rows, hits, mirrored) == (1515, 1296, 719)
    # what read_info says of the pixel that it subtracts
    assert len(shifts) == 921
    np.testing.assert_allclose(np.median(shifts, axis=0), [0.63, 0.81], atol=0.01)


def best_overlap(box: np.ndarray, boxes: np.ndarray, z: int) -> tuple[float, np.ndarray | None]:
    """The highest IoU of a key-slice box with manual boxes on slice z (both ends included), and that box."""
    on = boxes[(boxes[:, 2] <= z) & (z <= boxes[:, 5])]
    if not len(on):
        return 0.0, None
    sides = np.minimum(on[:, 3:5], box[2:] + 1) - np.maximum(on[:, :2], box[:2] + 1)
    shared = np.clip(sides, 0, None).prod(axis=1)
    areas = (on[:, 3:5] - on[:, :2]).prod(axis=1) + (box[2:] - box[:2]).prod()
    overlap = shared / (areas - shared)
    return overlap.max(), on[overlap.argmax()]


def test_manual_boxes_go_to_the_grid_and_back(info, manual):
    rows = info.drop_duplicates("volume").set_index("volume")
    boxes_there = thin = 0
    for name, boxes in manual.items():
        row = rows.loc[name]
        spacing = row[["spacing_x", "spacing_y", "spacing_z"]].to_numpy(float)
        hu = np.zeros((row["end"] - row["start"] + 1, 2, 2), np.int16)
        ct = CT(hu, np.diag([spacing[0], spacing[1], -spacing[2], 1.0]), int(row["start"]))
        geometry = normalise(ct, (0.8, 0.8, 2.0))[1]
        back = boxes3d_to_original(boxes3d_to_grid(boxes, geometry), geometry)
        thick = (boxes[:, 5] - boxes[:, 2] + 1) * spacing[2] >= 2.0  # a grid slice is the least that a box can have
        np.testing.assert_allclose(back[thick], boxes[thick], atol=1e-9, err_msg=name)
        np.testing.assert_allclose(back[~thick][:, [0, 1, 3, 4]], boxes[~thick][:, [0, 1, 3, 4]], atol=1e-9)
        assert (back[~thick, 2] <= boxes[~thick, 2]).all() and (back[~thick, 5] >= boxes[~thick, 5]).all()
        boxes_there, thin = boxes_there + len(boxes), thin + int((~thick).sum())
    assert boxes_there == 5447 and thin < 20


# LUNA16


def test_nodules_of_plain_and_flipped_scans_are_the_same_millimetres(real):
    found = luna16.find(real)
    assert len(found) == 888 and found["annotations"].map(len).sum() == 1186
    present = found[found["problem"] == ""]
    assert present["annotations"].map(len).tolist() == [3, 1, 0]
    for _, row in present.iterrows():
        plain, boxes = luna16.read(real, row)
        mirror = row.copy()
        mirror["path"] = row["path"].replace("subset0", "subset0_flipped")
        flipped, other = luna16.read(real, mirror)
        assert plain.index_to_mm[0, 0] > 0 > flipped.index_to_mm[0, 0] and plain.notes == flipped.notes == ()
        (grid, geometry), (again, same) = (normalise(ct, (0.8, 0.8, 2.0)) for ct in (plain, flipped))
        np.testing.assert_array_equal(grid, again)
        centres = [grid_centres(boxes, geometry, len(grid)), grid_centres(other, same, len(grid))]
        assert centres[0].keys() == centres[1].keys() == {nodule[0] for nodule in row["annotations"]}
        for lesion, *mm, diameter in row["annotations"]:
            np.testing.assert_allclose(centres[0][lesion], centres[1][lesion], atol=0.1)
            np.testing.assert_allclose(centres[0][lesion][:2], mm[:2], atol=0.1)
            assert abs(centres[0][lesion][2] - mm[2]) <= plain.spacing_mm[2]  # slices that are cut, not a centre
            for ct in (plain, flipped):
                inside, around = (
                    sphere_hu(ct, mm, 0, diameter / 4),
                    sphere_hu(ct, mm, diameter / 2 + 2, diameter / 2 + 6),
                )
                assert -150 < np.median(inside) < 150 and np.percentile(around, 25) < -800  # dense, in lung


def grid_centres(boxes: pd.DataFrame, geometry, depth: int) -> dict[str, np.ndarray]:
    """Lesion -> centre in mm of its extent on the grid."""
    table = slice_boxes_to_grid(boxes, geometry, depth)
    if table.empty:
        return {}
    per = table.groupby("lesion")[[*BOX, "z1", "z2"]].agg(
        {"x1": "min", "y1": "min", "x2": "max", "y2": "max", "z1": "min", "z2": "max"}
    )
    points = np.column_stack([(per[f"{axis}1"] + per[f"{axis}2"]) / 2 for axis in "xyz"])
    return dict(zip(per.index, grid_to_mm(points, geometry), strict=True))


def sphere_hu(ct: CT, centre_mm, low_mm: float, high_mm: float) -> np.ndarray:
    """HU of the voxels whose distance from a point is between two radii."""
    z, y, x = np.indices(ct.hu.shape)
    points = np.stack([x, y, z, np.ones_like(x)], axis=-1) @ ct.index_to_mm.T
    distance = np.linalg.norm(points[..., :3] - centre_mm, axis=-1)
    return ct.hu[(distance >= low_mm) & (distance <= max(high_mm, 1.5))]


def test_luna_reader_agrees_with_itk(real):
    """The matrix, and the crops' origin, by the function that the challenge recommends."""
    for path in sorted((real / "LUNA16").glob("subset0*/*.mhd")):
        ct, image = read.read_image(path), sitk.ReadImage(str(path))
        for index in ((0, 0, 0), (5, 11, 3)):
            np.testing.assert_allclose(
                (ct.index_to_mm @ [*index, 1])[:3], image.TransformIndexToPhysicalPoint(index), atol=1e-6
            )
            assert ct.hu[index[::-1]] == image[index]


def test_luna_tables(real):
    folder = real / "LUNA16" / "CSVFILES"
    assert len(luna16.read_seriesuids(folder / "seriesuids.csv")) == 888
    excluded = luna.read_findings(folder / "annotations_excluded.csv", "diameter_mm")
    assert len(excluded) == 35192


# masks beside CT, as LiTS has them


@pytest.mark.parametrize(("case", "components"), [("STS_019", 1), ("STS_044", 2)])
def test_nifti_pairs_have_their_tumours_on_soft_tissue(real, case, components):
    folder = real / "nifti_pairs" / case
    ct = read.read_image(folder / "CT_image.nii.gz")
    mask, mask_to_mm = read.read_array(folder / "CT_mask.nii.gz")
    tumours = lits.tumour_components((align_mask(mask, mask_to_mm, ct) > 0) * 2)
    assert tumours.max() == components
    for tumour in range(1, components + 1):
        assert is_soft(ct.hu[tumours == tumour])
    found = segments(tumours, str)
    hu, geometry = normalise(ct, (0.8, 0.8, 2.0))
    boxes = slice_boxes_to_grid(pd.DataFrame(segment_boxes(found), columns=SLICE_BOXES), geometry, len(hu))
    on_grid = mask_to_grid(found, boxes, geometry, hu.shape)
    for number, segment in enumerate(found, start=1):
        own = boxes[boxes["lesion"] == segment.lesion]
        assert np.flatnonzero((on_grid == number).any(axis=(1, 2))).tolist() == own["z"].tolist()
        assert is_soft(hu[on_grid == number])
        volume_mm3 = [(on_grid == number).sum() * 0.8 * 0.8 * 2.0, segment.voxels.sum() * ct.spacing_mm.prod()]
        assert volume_mm3[0] == pytest.approx(volume_mm3[1], rel=0.05)
    air = ct.hu < -500
    assert air.mean() > 0.2 and air[tumours > 0].mean() < 0.01  # most of the image, next to nothing of the tumour


# DICOM


def test_dicom_chest_stands_upright(real):
    ct = read.read_ct(real / "dicom" / "chest_99_slices")
    assert ct.hu.shape == (99, 512, 512) and -1024 <= ct.hu.min() and ct.hu.max() <= 3071
    grid, _ = normalise(ct, (1.5, 1.5, 3.0))
    lung = ((grid < -700) & (grid > -950)).mean(axis=(1, 2))
    assert lung[len(lung) // 2] > 3 * lung[0] and lung[-1] > lung[0]  # the belly is below, at slice 0
    bone_y = np.argwhere(grid[len(grid) // 2] > 300)[:, 0].mean()
    assert bone_y > grid.shape[1] / 2  # the spine is behind


# NIH lymph nodes


def test_lymph_node_annotations(real):
    found = nih_ln.find(real).set_index("volume", drop=False)
    assert len(found) == 176 and found["problem"].str.startswith("missing DICOM").all()
    folder = real / "NIH-LN"
    nodes = {case: nih_ln.read_nodes(folder, case) for case in found.index}
    assert sum(len(t) for case, t in nodes.items() if case.startswith("MED")) == 388
    assert sum(len(t) for case, t in nodes.items() if case.startswith("ABD")) == 595
    for case, table in nodes.items():
        assert table["long_mm"].isna().all() == case.startswith("MED")
        assert table["short_mm"].isna().sum() == (case == "MED_LYMPH_010"), case  # a diameter of 0 in the file
        assert not (table["short_mm"] > table["long_mm"]).any()
        for axis in "xyz":
            assert residual(table[axis], table[f"{axis}_mm"]) < 0.001, case  # one line: origin + spacing * index


def residual(index: pd.Series, mm: pd.Series) -> float:
    if index.nunique() < 2:
        return 0.0
    slope, offset = np.polyfit(index, mm, 1)
    assert slope > 0
    return float(np.abs(slope * index + offset - mm).max())


def test_pairs_of_cases_are_one_ct_and_stay_together(real):
    folder = real / "NIH-LN"
    compared = 0
    for abdominal, mediastinal in nih_ln.SAME_CT.items():
        tables = [
            nih_ln.read_nodes(folder, f"{k}_LYMPH_{n:03d}") for k, n in (("ABD", abdominal), ("MED", mediastinal))
        ]
        for axis in "xyz":
            if all(table[axis].nunique() > 1 for table in tables):
                (slope, offset), other = (np.polyfit(table[axis], table[f"{axis}_mm"], 1) for table in tables)
                np.testing.assert_allclose([slope, offset], other, rtol=2e-4, atol=0.05)
                compared += 1
    assert compared >= 39
    found = nih_ln.find(real)
    for seed in range(20):
        sides = dict(
            zip(found["volume"], split_by_patient(found["patient"], np.random.default_rng((seed, 3))), strict=True)
        )
        assert set(sides.values()) == {"train", "val"}
        for abdominal, mediastinal in nih_ln.SAME_CT.items():
            assert sides[f"ABD_LYMPH_{abdominal:03d}"] == sides[f"MED_LYMPH_{mediastinal:03d}"]


# LesaNet's labels


def test_text_mined_labels(real):
    folder = real / "lesanet"
    labels = read_json(folder / deeplesion.LABELS_FILE)
    assert len(labels["term_list"]) == 171 and json.loads((folder / "hand_labeled_test_set.json").read_text())
    assert sum(len(labels[f"{split}_lesion_idxs"]) for split in ("train", "val", "test")) == 24121
    assert (folder / "lesion_ontology_181022.xlsx").read_bytes()[:2] == b"PK"
