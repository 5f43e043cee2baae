"""Phantoms: the same seed gives the same bytes, files agree with the truth, marks are missing as they should be."""

import hashlib
import json
import pickle
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lensnb import phantom
from lensnb.datasets import lits, luna16, nih_ln, present, shapes
from lensnb.datasets.preparation import prepare
from lensnb.datasets.store import Store
from lensnb.phantom import marking, ontology, writing
from lensnb.phantom.anatomy import draw_anatomy, kidney, liver_distance, lung_distance
from lensnb.phantom.lesions import Lesion
from lensnb.phantom.painting import paint_lesion
from lensnb.phantom.patients import deeplesion_patients
from lensnb.phantom.recist import visible_boxes
from lensnb.phantom.shapes import blank_canvas

BENCHMARK = {
    "pixels": 128,
    "spacing_mm": [2.6, 3.2],
    "depth_mm": 96,
    "deeplesion_patients": 188,
    "studies": [0.49, 0.21, 0.11, 0.06, 0.13],
    "smallest_mm": 9.0,
    "marking_slope": 1.5,
    "further_mark": 0.08,
    "growth_sd": 0.1,
    "luna_volumes": 64,
    "lits_volumes": 43,
    "nihln_volumes": 32,
    "held_out": 60,
    "val_patients": 45,
    "pretext_patients": 160,
    "pretext_val_patients": 32,
    "test_volumes": 400,
    "test_empty": 0.04,
    "test_seed": 20200613,
    "box_padding_px": 1.3,
}
TINY = {
    "deeplesion_patients": 2,
    "luna_volumes": 4,
    "lits_volumes": 4,
    "nihln_volumes": 2,
    "held_out": 1,
    "val_patients": 1,
    "pretext_patients": 2,
    "pretext_val_patients": 1,
    "test_volumes": 3,
}


def spec(**changes: object) -> SimpleNamespace:
    return SimpleNamespace(**(BENCHMARK | changes))


def digests(root: Path) -> dict[str, str]:
    """Of every file but the record of when they were written."""
    return {
        str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(root.rglob("*"))
        if p.is_file() and p.name != "made.json"
    }


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("phantom")
    phantom.write(root, spec(**TINY), seed=3, workers=1)
    return root


@pytest.fixture(scope="module")
def truth(tiny: Path) -> pd.DataFrame:
    return pd.read_csv(
        tiny / "truth" / "lesions.csv", dtype={"patient": str, "study": str, "series": str, "volume": str}
    )


def dl_info(root: Path) -> pd.DataFrame:
    return pd.read_csv(root / "DeepLesion" / "DL_info.csv")


def numbers(cell: str) -> np.ndarray:
    return np.array([float(v) for v in cell.split(",")])


def test_two_processes_write_the_same_bytes_as_one(tiny, tmp_path):
    phantom.write(tmp_path / "again", spec(**TINY), seed=3, workers=2)
    assert digests(tmp_path / "again") == digests(tiny)


def test_an_interrupted_call_is_continued_to_the_same_bytes(tiny, tmp_path, monkeypatch):
    whole, calls = writing._write_volume, []

    def dies_at_the_eighth(*args):
        calls.append(1)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return whole(*args)

    monkeypatch.setattr(writing, "_write_volume", dies_at_the_eighth)
    with pytest.raises(KeyboardInterrupt):
        phantom.write(tmp_path / "data", spec(**TINY), seed=3, workers=1)
    assert not (tmp_path / "data" / "complete.json").exists()
    phantom.write(tmp_path / "data", spec(**TINY), seed=3, workers=1)
    volumes = json.loads((tiny / "truth" / "summary.json").read_text())
    total = sum(volumes[name]["volumes"] for name in ("train", "val", "test", "LUNA16", "LiTS", "NIH-LN"))
    assert len(calls) == total + 3 * TINY["held_out"] + 1  # only the one that died is made twice
    assert digests(tmp_path / "data") == digests(tiny)


@pytest.mark.parametrize("damage", ["cut", "lost", "added", "other code"])
def test_phantoms_that_are_not_whole_are_written_again(tiny, tmp_path, capsys, damage):
    folder = tmp_path / "data"
    shutil.copytree(tiny, folder)  # other times, the same bytes
    before = digests(folder)
    phantom.write(folder, spec(**TINY), seed=3, workers=1)
    assert "written again" not in capsys.readouterr().out
    file = folder / "LUNA16" / "CSVFILES" / "annotations.csv"
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:40])
    elif damage == "lost":
        file.unlink()
    elif damage == "added":
        (folder / "LiTS" / "volume-99.nii").touch()
    else:
        record = json.loads((folder / "made.json").read_text())
        record["recipe"]["lensnb/phantom/lesions.py"] = "another"
        (folder / "made.json").write_text(json.dumps(record))
    phantom.write(folder, spec(**TINY), seed=3, workers=1)
    assert "the phantoms are written again, because " in capsys.readouterr().out
    assert digests(folder) == before


def test_what_an_interrupted_removal_has_left_is_removed(tiny, tmp_path):
    """Ended while the old phantoms were taken away: nothing says that they are there, and half of them are."""
    folder = tmp_path / "data"
    shutil.copytree(tiny, folder)
    (folder / "complete.json").unlink()
    shutil.rmtree(folder / "truth")
    (next(path for path in (folder / "DeepLesion" / "Images_png").iterdir()) / "999.png").touch()
    phantom.write(folder, spec(**TINY), seed=3, workers=1)
    assert digests(folder) == digests(tiny)


def test_a_folder_of_other_settings_is_refused(tiny):
    with pytest.raises(ValueError, match="growth_sd 0.1 .asked: 0.2.*Delete this folder"):
        phantom.write(tiny, spec(**TINY | {"growth_sd": 0.2}), seed=3)
    with pytest.raises(ValueError, match="seed 3 .asked: 4"):
        phantom.write(tiny, spec(**TINY), seed=4)


def test_a_missing_setting_is_named(tmp_path):
    incomplete = spec()
    del incomplete.growth_sd
    with pytest.raises(ValueError, match="growth_sd"):
        phantom.write(tmp_path, incomplete, seed=0)


def test_shares_counted_by_hand():
    study = SimpleNamespace(present=(0, 1, 2))
    patient = SimpleNamespace(studies=(study, study))
    # six instances, two marked; lesions 0 and 1 are each unmarked once and marked in the other study, lesion 2 never is
    assert marking.shares([patient], [[[0], [1]]]) == {
        "instances": 6,
        "marked": 2,
        "marked_share": 2 / 6,
        "recoverable_share": 2 / 4,
    }


def test_the_test_set_does_not_follow_the_seed():
    a, b = (deeplesion_patients(spec(test_volumes=12), seed, "test") for seed in (0, 1))
    assert [(p.lesions, p.studies) for p in a] == [(p.lesions, p.studies) for p in b]
    a, b = (deeplesion_patients(spec(val_patients=2), seed, "val") for seed in (0, 1))
    assert [p.lesions for p in a] != [p.lesions for p in b]


def test_size_of_the_fixed_test_set():
    patients = deeplesion_patients(spec(), 0, "test")
    assert sum(len(p.studies) for p in patients) == 400
    assert sum(len(p.studies) for p in patients if not p.lesions) == 16
    assert max(len(p.studies) for p in patients) == 2


def test_a_ball_has_the_box_of_its_diameter():
    voxels = np.arange(40) * 3.0
    canvas = blank_canvas(voxels, voxels, voxels, edge=3.5)
    ball = Lesion(0, "lung", "lung", "left", (60.0, 51.0, 60.0), 12.0, 1.0, 0.0, 1.0, (), (40.0,) * 3, ("solid",))
    boxes = visible_boxes(*paint_lesion(canvas, SimpleNamespace(scale=1.0), ball, 1.0, SimpleNamespace(phase="none")))
    assert boxes[:, 0].tolist() == list(range(16, 25))  # 60 mm +- 12 mm in slices of 3 mm
    middle = boxes[boxes[:, 0] == 20][0]
    assert middle[1:] == pytest.approx([16, 13, 24, 21], abs=0.05)
    assert canvas.hu[20, 17, 20] == pytest.approx(40)
    assert canvas.hu[20, 17, 30] == -1000


def test_organs_lie_where_a_radiologist_looks_for_them():
    person = draw_anatomy(np.random.default_rng(5))
    assert liver_distance(person, -80.0, 0.0, -60.0) < -15  # the patient's right
    assert liver_distance(person, 90.0, 20.0, -60.0) > 10
    assert lung_distance(person, np.array([-80.0, 80.0]), np.zeros(2), np.full(2, 80.0)).max() < -15
    assert lung_distance(person, 0.0, 50.0, 80.0) > 5  # spine
    assert kidney(person, "right")[0][0] < -40 and kidney(person, "left")[0][0] > 40


def test_deeplesion_table_has_the_real_form(tiny):
    rows = dl_info(tiny)
    assert list(rows.columns)[:3] == ["File_name", "Patient_index", "Study_index"] and rows.shape[1] == 18
    for _, row in rows.iterrows():
        ends, box = numbers(row["Measurement_coordinates"]).reshape(4, 2), numbers(row["Bounding_boxes"])
        assert box == pytest.approx([*(ends.min(0) - 1.3), *(ends.max(0) + 1.3)], abs=2e-3)
        long_, short = numbers(row["Lesion_diameters_Pixel_"])
        assert long_ >= short and long_ == pytest.approx(np.linalg.norm(ends[1] - ends[0]), abs=2e-3)
        if row["Possibly_noisy"] == 0:  # RECIST: the second diameter is perpendicular to the first
            assert abs(np.dot(ends[1] - ends[0], ends[3] - ends[2])) < 0.01 * long_ * short
        first, last = numbers(row["Slice_range"]).astype(int)
        assert first <= row["Key_slice_index"] <= last
        folder = tiny / "DeepLesion" / "Images_png" / row["File_name"][:12]
        assert sorted(p.name for p in folder.iterdir()) == [f"{k:03d}.png" for k in range(first, last + 1)]
    assert (rows.loc[rows["Train_Val_Test"] == 1, "Coarse_lesion_type"] == -1).all()
    assert (rows.loc[rows["Train_Val_Test"] == 3, "Coarse_lesion_type"] > 0).all()
    assert rows["Possibly_noisy"].sum() == 1


def test_the_store_keeps_masks_and_diameters(tiny, tmp_path):
    prepare(tiny, tmp_path, (1.6, 1.6, 4.0), workers=1, datasets=("DeepLesion", "LiTS", "NIH-LN"))
    store = Store(tmp_path)
    numbers, boxes = shapes.mask_numbers(store), store.boxes
    assert set(numbers["dataset"]) == {"LiTS", "NIH-LN"}
    assert sorted(numbers["lesion"]) == sorted(set(boxes.loc[boxes["dataset"] != "DeepLesion", "lesion"]))
    for volume, known in numbers.groupby("volume"):
        mask = shapes.mask(store, volume)
        assert set(np.unique(mask)) == {0, *known["number"]}
        for number, lesion in zip(known["number"], known["lesion"], strict=True):
            own = boxes[boxes["lesion"] == lesion]
            assert np.flatnonzero((mask == number).any(axis=(1, 2))).tolist() == sorted(own["z"])
            for box in own.itertuples():
                y, x = np.nonzero(mask[int(box.z)] == number)
                edges = [x.min() - 0.5, y.min() - 0.5, x.max() + 0.5, y.max() + 0.5]
                assert edges == pytest.approx([box.x1, box.y1, box.x2, box.y2], abs=1.0)
    marked = boxes[boxes["dataset"] == "DeepLesion"]
    marked = marked.merge(shapes.recist(store), on=["lesion", "z"], suffixes=("", "_end"))
    assert len(marked) == len(shapes.recist(store)) == (boxes["dataset"] == "DeepLesion").sum() > 0
    for row in marked.itertuples():
        x, y = (row.x1_end, row.x2_end, row.x3, row.x4), (row.y1_end, row.y2_end, row.y3, row.y4)
        margin = 1.3 * store.geometry(row.volume).original_to_mm[0, 0] / 1.6
        hull = [min(x) - margin, min(y) - margin, max(x) + margin, max(y) + margin]
        edges = store.volumes.loc[row.volume, ["width", "height"]].to_numpy(float) - 0.5
        hull = np.clip(hull, -0.5, np.tile(edges, 2))  # boxes end at the image
        assert [row.x1, row.y1, row.x2, row.y2] == pytest.approx(hull, abs=5e-3)


def test_marks_agree_with_truth_and_picture(tiny, truth):
    rows = dl_info(tiny)
    for _, row in rows[rows["Possibly_noisy"] == 0].iterrows():
        first = int(numbers(row["Slice_range"])[0])
        seen = truth[
            (truth["series"] == row["File_name"][:12])
            & (truth["z"] == row["Key_slice_index"] - first)
            & truth["marked"]
        ]
        # the csv counts pixels from 1, the truth from 0; the hull of the two diameters lies in the tight box
        x1, y1, x2, y2 = numbers(row["Bounding_boxes"]) - 1
        inside = (seen["x1"] < x1 + 0.2) & (seen["y1"] < y1 + 0.2) & (seen["x2"] > x2 - 0.2) & (seen["y2"] > y2 - 0.2)
        tight = (seen["x2"] - seen["x1"]) * (seen["y2"] - seen["y1"])
        assert ((x2 - x1) * (y2 - y1) / tight)[inside].max() > 0.6
    solid = truth[(truth["dataset"] == "DeepLesion") & (truth["type"] == "lung")]
    assert len(solid)
    for _, box in solid.iterrows():
        first = int(box["volume"].split("_")[-1].split("-")[0])
        hu = (
            np.array(
                Image.open(tiny / "DeepLesion" / "Images_png" / box["series"] / f"{first + box['z']:03d}.png")
            ).astype(int)
            - 32768
        )
        inside = hu[int(np.ceil(box["y1"])) : int(box["y2"]) + 1, int(np.ceil(box["x1"])) : int(box["x2"]) + 1]
        assert inside.max() > -640  # nothing in a lung box is as dark as lung all over


def test_manual_boxes_are_whole_slice_numbers_of_the_files(tiny, truth):
    content = pickle.loads((tiny / "DeepLesion" / "DeepLesion_manual_1K_test_release.pkl").read_bytes())
    assert set(content) == {"val", "test"} and len(content["test"]) == 3 and len(content["val"]) == 1
    assert sum(len(boxes) == 0 for boxes in content["test"].values()) == 1
    for volume, boxes in (content["val"] | content["test"]).items():
        first, last = map(int, volume.split("_")[-1].split("-"))
        assert boxes.dtype == np.float64 and boxes.shape[1] == 6 and (boxes == np.rint(boxes)).all()
        assert (boxes[:, 2] >= first).all() and (boxes[:, 5] <= last).all()
        own = truth[truth["volume"] == volume].groupby("lesion").agg(low=("z", "min"), x1=("x1", "min"))
        assert sorted(boxes[:, 2]) == sorted(own["low"] + first)
        assert sorted(boxes[:, 0]) == sorted(own["x1"].round())


def test_luna_centres_fall_into_their_boxes_in_flipped_files_too(tiny, truth):
    sitk = pytest.importorskip("SimpleITK")
    nodules = pd.read_csv(tiny / "LUNA16" / "CSVFILES" / "annotations.csv")
    assert len(nodules) == truth[(truth["dataset"] == "LUNA16") & truth["marked"]]["lesion"].nunique()
    directions = set()
    for path in (tiny / "LUNA16").glob("subset*/*.mhd"):
        image = sitk.ReadImage(str(path))
        directions.add(image.GetDirection()[0])
        hu = sitk.GetArrayFromImage(image)
        for _, box in truth[(truth["volume"] == path.stem) & truth["marked"]].iterrows():
            rows, columns = slice(int(box["y1"]) + 2, int(box["y2"])), slice(int(box["x1"]) + 2, int(box["x2"]))
            assert hu[box["z"], rows, columns].mean() > -780  # lung alone is darker
        for _, nodule in nodules[nodules["seriesuid"] == path.stem].iterrows():
            x, y, z = image.TransformPhysicalPointToContinuousIndex(nodule[["coordX", "coordY", "coordZ"]].tolist())
            own = truth[(truth["volume"] == path.stem) & truth["marked"]]
            assert (
                own["z"].sub(z).abs().le(0.6) & own["x1"].lt(x) & own["x2"].gt(x) & own["y1"].lt(y) & own["y2"].gt(y)
            ).any()
    assert directions == {1.0, -1.0}


def test_lits_masks_agree_with_truth_in_every_orientation(tiny, truth):
    sitk = pytest.importorskip("SimpleITK")
    label = pytest.importorskip("scipy.ndimage").label
    directions = set()
    for path in sorted((tiny / "LiTS").glob("*/volume-*.nii")):
        image = sitk.ReadImage(str(path))
        mask_image = sitk.ReadImage(str(path.with_name(path.name.replace("volume", "segmentation"))))
        directions.add((image.GetDirection()[0], image.GetDirection()[4], image.GetDirection()[8]))
        assert image.GetOrigin() == mask_image.GetOrigin() and image.GetDirection() == mask_image.GetDirection()
        tumours = sitk.GetArrayFromImage(mask_image) == 2
        own = truth[(truth["volume"] == path.stem) & truth["marked"]]
        assert tumours.any() == (len(own) > 0)
        for z in np.unique(own["z"]):
            rows, columns = np.nonzero(tumours[z])
            here = own[own["z"] == z]
            tight = [columns.min(), rows.min(), columns.max(), rows.max()]
            union = [
                here["x1"].min() + 1.3,
                here["y1"].min() + 1.3,
                here["x2"].max() - 1.3,
                here["y2"].max() - 1.3,
            ]
            assert np.abs(np.subtract(tight, union)).max() <= 1
        assert label(tumours, np.ones((3, 3, 3)))[1] <= own["lesion"].nunique()
    assert len(directions) >= 2


def test_nih_nodes_lie_at_the_written_indices(tiny, truth):
    nibabel = pytest.importorskip("nibabel")
    pydicom = pytest.importorskip("pydicom")
    for folder in (tiny / "NIH-LN" / "MED_ABD_LYMPH_ANNOTATIONS").iterdir():
        case = folder.name
        files = sorted((tiny / "NIH-LN" / "CT Lymph Nodes" / case).glob("*/*/*.dcm"))
        slices = [pydicom.dcmread(f) for f in files]
        heights = [float(s.ImagePositionPatient[2]) for s in slices]
        assert heights != sorted(heights)  # names do not tell the order
        first = slices[int(np.argmin(heights))]
        origin, step = (
            np.array(first.ImagePositionPatient, float),
            [*map(float, first.PixelSpacing), float(first.SliceThickness)],
        )
        mask = np.asarray(nibabel.load(tiny / "NIH-LN" / "MED_ABD_LYMPH_MASKS" / case / f"{case}_mask.nii.gz").dataobj)
        assert mask.shape[2] == len(files)
        lines = {
            kind: (folder / f"{case}_lymphnodes_{kind}.txt").read_text().split("\n")[:-1]
            for kind in ("indices", "physicalPoints", "sizes")
        }
        own = truth[(truth["volume"] == case) & truth["marked"]]
        assert len(lines["indices"]) == own["lesion"].nunique() == len(np.unique(mask)) - 1
        for number, (index, point, size) in enumerate(zip(*lines.values(), strict=True), start=1):
            x, y, z = map(int, index.split())
            assert mask[x, y, z] == number
            assert np.array(point.split(), float) == pytest.approx(origin + np.multiply(step, (x, y, z)), abs=2e-3)
            assert len(size.split()) == (2 if case.startswith("ABD") else 1)


def test_coarse_types_of_deeplesion():
    known = ontology.read()
    values = (0, 0, 0), 16.0, 1, 0, 0.8, (), (40.0,) * 3, ()
    kinds = [("lung", "right upper lobe"), ("liver", "liver"), ("kidney", "left kidney"), ("bone", "rib")]
    kinds += [("node", "pretracheal lymph node"), ("node", "left hilum lymph node"), ("node", "paraaortic")]
    found = [ontology.coarse_type(Lesion(0, kind, organ, "right", *values), known) for kind, organ in kinds]
    assert found == [5, 4, 6, 1, 3, 3, 2]  # the last three: mediastinum, mediastinum, abdomen


def test_the_folder_has_what_the_real_one_has_and_the_reports(tiny):
    names = {path.name for path in (tiny / "DeepLesion").iterdir()}
    published = {"DL_info.csv", "Images_png", "DeepLesion_manual_1K_test_release.pkl"}
    reports = {"lesion_ontology.csv", "sentences.csv", "relations.csv", "hand_labeled_test_set.json"}
    assert names == published | reports


@pytest.mark.parametrize("reader", [luna16, lits, nih_ln])
def test_what_is_held_out_can_be_read_and_is_no_part_of_the_datasets(tiny, reader):
    folder = tiny / writing.HELD_OUT_FOLDER
    found = reader.find(folder)
    assert len(found) == TINY["held_out"] and (found["problem"] == "").all()
    assert not set(found["volume"]) & set(reader.find(tiny)["volume"])
    ct, boxes = reader.read(folder, found.iloc[0])
    truth = pd.read_csv(folder / "truth" / "lesions.csv", dtype={"volume": str})
    own = truth[(truth["volume"] == found["volume"][0]) & truth["marked"]]
    assert ct.hu.shape[1:] == (128, 128) and boxes["lesion"].nunique() == own["lesion"].nunique()
    everywhere = pd.read_csv(tiny / "truth" / "lesions.csv", dtype={"volume": str})
    assert found["volume"][0] not in set(everywhere["volume"])
    assert present(tiny) == ("DeepLesion", "LUNA16", "LiTS", "NIH-LN")
    files = json.loads((tiny / "made.json").read_text())["files"]
    assert any(name.startswith(f"{writing.HELD_OUT_FOLDER}/{reader.NAME}/") for name in files)
