"""Detection in one CT: positions checked through the files' own headers, and every file that is written."""

import json
from itertools import product

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import ndimage
from tiny import write_dicom

from lensnb.boxes import BOX, BOX3D
from lensnb.ct.grid import normalise
from lensnb.ct.read import read_ct
from lensnb.ct.volume import CT
from lensnb.datasets import NAMES
from lensnb.files import write_json
from lensnb.models.build import build_lens
from lensnb.models.lesanet import LesaNet
from lensnb.models.weights import save_weights
from lensnb.own_ct import detect, scan, slicer
from lensnb.settings import load_profile, to_dict

sitk = pytest.importorskip("SimpleITK")


def write_weights(folder, phantom: bool = True, score: float = 0.0):
    """A small network with random weights, saved as a training run saves it."""
    profile = load_profile("smoke")
    torch.manual_seed(0)
    model = build_lens(profile.network, NAMES)
    settings = to_dict(profile.inference) | {"score": score, "per_slice": 3}
    config = {
        "experiment": "multi",
        "profile": "smoke",
        "datasets": list(NAMES),
        "proposal_network": "afp",
        "phantom": phantom,
        "network": to_dict(profile.network),
        "inference": settings,
        "spacing_mm": profile.grid.spacing_mm,
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(model, folder / "weights.safetensors")
    write_json(config, folder / "config.json")
    return folder / "weights.safetensors"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_weights(tmp_path_factory.mktemp("run"))


def check_positions(table: pd.DataFrame, image: "sitk.Image") -> None:
    """Every position in mm is the voxel position, put through the header by SimpleITK."""
    assert len(table) > 0
    for row in table.to_dict("records"):
        low, high = ([row[f"{axis}{end}"] for axis in "xyz"] for end in "12")
        for suffix, index in (("1", low), ("2", high), ("", [(a + b) / 2 for a, b in zip(low, high, strict=True)])):
            expected = image.TransformContinuousIndexToPhysicalPoint(index)
            ours = [row[f"{axis}{suffix}_mm"] for axis in "xyz"]
            np.testing.assert_allclose(ours, expected, atol=2e-3)
        size = np.array(image.GetSize()) - 0.5
        assert (np.array(low) >= -0.5).all() and (np.array(high) <= size).all() and (np.array(low) < high).all()
        assert low[2] - 0.5 <= row["first_slice"] <= row["last_slice"] <= high[2] + 0.5


def check_roi(roi: dict, row: pd.Series, image: "sitk.Image") -> None:
    """The eight corners of a Slicer box are those of the voxel box, put through the header by SimpleITK."""
    ends = [[row[f"{axis}1"], row[f"{axis}2"]] for axis in "xyz"]
    expected = [image.TransformContinuousIndexToPhysicalPoint(corner) for corner in product(*ends)]
    axes, half = np.array(roi["orientation"]).reshape(3, 3), np.array(roi["size"]) / 2
    found = [np.array(roi["center"]) + axes @ (half * signs) for signs in product((-1, 1), repeat=3)]
    nearest = np.linalg.norm(np.array(expected)[:, None] - np.array(found)[None], axis=2)
    assert nearest.min(axis=0).max() < 0.01 and nearest.min(axis=1).max() < 0.01


def check_schema(markups: list[dict]) -> None:
    """What Slicer's markups-schema-v1.0.3 asks for, and what its reader of ROIs needs besides."""
    assert {m["type"] for m in markups} <= {"Fiducial", "Line", "Angle", "Curve", "ClosedCurve", "Plane", "ROI"}
    for markup in markups:
        assert markup["coordinateSystem"] in ("LPS", "RAS") and markup["coordinateUnits"] in ("mm", "um")
        assert isinstance(markup["name"], str) and isinstance(markup["locked"], bool)
        for point in markup["controlPoints"]:
            assert all(isinstance(point[key], str) for key in ("id", "label", "description"))
            assert point["positionStatus"] in ("undefined", "preview", "defined")
            assert len(point["position"]) == 3 and all(type(v) is float for v in point["position"])
        if markup["type"] == "ROI":
            assert markup["roiType"] == "Box"  # BoundingBox would be made from the control points
            assert [len(markup[key]) for key in ("center", "orientation", "size")] == [3, 9, 3]
            assert all(type(v) is float for key in ("center", "orientation", "size") for v in markup[key])
            assert min(markup["size"]) > 0
            axes = np.array(markup["orientation"]).reshape(3, 3)
            np.testing.assert_allclose(axes @ axes.T, np.eye(3), atol=1e-5)
            assert np.linalg.det(axes) > 0.99  # right-handed, or Slicer mirrors its handles


def bright_blocks(model, hu, settings):
    """Stands in for the network: a box around everything brighter than 1000 HU."""
    rows = []
    labels, number = ndimage.label(hu > 1000)
    for z, image in enumerate(labels):
        for label in range(1, number + 1):
            y, x = np.nonzero(image == label)
            if len(y):
                score = 0.9 if label == 1 else 0.5
                rows.append([z, x.min() - 0.5, y.min() - 0.5, x.max() + 0.5, y.max() + 0.5, "LiTS", score])
                rows.append([z, x.min() - 0.5, y.min() - 0.5, x.max() + 0.5, y.max() + 0.5, "LUNA16", score / 2])
    return pd.DataFrame(rows, columns=["z", "x1", "y1", "x2", "y2", "expert", "score"])


DIRECTIONS = {
    "identity": np.eye(3),
    "feet to head reversed": np.diag([1, 1, -1]),
    "as many NIfTI files": np.diag([-1, -1, 1]),
    "sagittal": np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0]]),
    "coronal, flipped": np.array([[-1, 0, 0], [0, 0, 1], [0, -1, 0]]),
    "tilted by 10 degrees": np.array(
        [[1, 0, 0], [0, np.cos(0.1745), -np.sin(0.1745)], [0, np.sin(0.1745), np.cos(0.1745)]]
    ),
}


@pytest.mark.parametrize("orientation", DIRECTIONS)
def test_a_block_is_found_where_it_is_in_any_orientation(orientation, weights, tmp_path, monkeypatch):
    monkeypatch.setattr(detect.inference, "detect_volume", bright_blocks)
    hu = np.full((40, 60, 70), 40, dtype=np.int16)
    hu[14:26, 20:36, 30:50] = 1500
    image = sitk.GetImageFromArray(hu)
    image.SetSpacing((1.5, 1.2, 2.0))
    image.SetOrigin((-31.5, 17.25, 203.0))
    image.SetDirection(DIRECTIONS[orientation].ravel().tolist())
    sitk.WriteImage(image, str(tmp_path / "ct.nrrd"))
    table = detect.detect(tmp_path / "ct.nrrd", tmp_path / "out", weights)
    check_positions(table, image)
    best = table.iloc[0]
    markups = json.loads((tmp_path / "out/detections.mrk.json").read_text())["markups"]
    check_schema(markups)
    check_roi(markups[1], best, image)
    check_positions(table, slicer.itk_image(tmp_path / "ct.nrrd"))
    # the block's edges, to within one voxel of the 3 x 3 x 4 mm grid
    coarse = np.abs(DIRECTIONS[orientation]).round().T @ [3, 3, 4] / np.array(image.GetSpacing())
    np.testing.assert_array_less(np.abs(best[["x1", "y1", "z1"]].to_numpy(float) - [29.5, 19.5, 13.5]), coarse)
    np.testing.assert_array_less(np.abs(best[["x2", "y2", "z2"]].to_numpy(float) - [49.5, 35.5, 25.5]), coarse)
    centre = image.TransformContinuousIndexToPhysicalPoint((39.5, 27.5, 19.5))
    assert np.linalg.norm(best[["x_mm", "y_mm", "z_mm"]].to_numpy(float) - centre) < 3
    assert 14 - coarse[2] < best["first_slice"] <= best["last_slice"] < 25 + coarse[2]
    # 30 x 19.2 x 24 mm along the file's axes
    sides = np.abs(DIRECTIONS[orientation]).round() @ [30, 19.2, 24]
    assert best["long_mm"] == pytest.approx(max(sides[:2]), abs=6)
    assert best["short_mm"] == pytest.approx(min(sides[:2]), abs=6)
    assert best["height_mm"] == pytest.approx(sides[2], abs=8)
    assert (best["score"], best["score_LiTS"], best["score_LUNA16"], best["score_DeepLesion"]) == (0.9, 0.9, 0.45, 0)


def test_expert_scores():
    lesion = pd.DataFrame([[10, 10, 4, 20, 20, 6]], columns=BOX3D)
    boxes = [
        (5, 10, 10, 20, 20, "A", 0.3),
        (6, 11, 10, 20, 20, "A", 0.4),  # the best of A
        (7, 10, 10, 20, 20, "A", 0.9),  # beyond its slices
        (4, 10, 10, 14, 14, "B", 0.8),  # too small: IoU 0.16
        (4, 10, 10, 20, 15, "C", 0.2),  # IoU exactly 0.5
    ]
    table = pd.DataFrame(boxes, columns=["z", "x1", "y1", "x2", "y2", "expert", "score"])
    found = detect.expert_scores(lesion, table, ("A", "B", "C", "D"))
    assert found.iloc[0].to_dict() == {"score_A": 0.4, "score_B": 0, "score_C": 0.2, "score_D": 0}
    assert detect.expert_scores(lesion, table[:0], ("A",)).iloc[0].to_dict() == {"score_A": 0}


def test_expert_scores_of_many_detections_are_those_of_each_alone():
    rng = np.random.default_rng(0)
    corner, size = rng.uniform(0, 60, (900, 2)), rng.uniform(5, 30, (900, 2))
    boxes = pd.DataFrame(np.hstack([corner, corner + size]), columns=BOX)
    table = boxes.assign(z=rng.integers(0, 30, 900), expert=rng.choice(["A", "B"], 900), score=rng.random(900))
    z1 = rng.integers(0, 30, 300)
    lesions = boxes.head(300).assign(z1=z1, z2=z1 + rng.integers(0, 4, 300))
    found = detect.expert_scores(lesions, table, ("A", "B"))
    alone = pd.concat([detect.expert_scores(lesions.iloc[[i]], table, ("A", "B")) for i in range(300)])
    pd.testing.assert_frame_equal(found, alone, check_exact=True)
    assert len(lesions) > 2 * scan.AT_ONCE and (found > 0).any(axis=None) and (found == 0).any(axis=None)


def test_everything_written(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(detect.inference, "detect_volume", bright_blocks)
    hu = np.full((30, 50, 60), 40, dtype=np.int16)
    hu[8:16, 10:25, 10:30] = 1500
    hu[18:24, 30:44, 36:52] = 1500
    image = sitk.GetImageFromArray(hu)
    image.SetSpacing((2.0, 2.0, 3.0))
    sitk.WriteImage(image, str(tmp_path / "ct.nii.gz"))
    table = detect.detect(tmp_path / "ct.nii.gz", tmp_path / "out", weights)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "about.json", "detections.csv", "detections.mrk.json", "overlay.png"
    ]  # fmt: skip
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "out/detections.csv"), table, check_dtype=False)
    assert table["lesion"].tolist() == [1, 2] and table["score"].tolist() == [0.9, 0.5]
    about = json.loads((tmp_path / "out/about.json").read_text())
    assert any("phantoms" in warning for warning in about["warnings"]) and about["detections"] == 2
    assert any("values reach from 40 to 1500" in warning for warning in about["warnings"])
    named = {name.strip() for names in about["columns"] for name in names.split(",")}
    assert named == set(table.columns)
    boxes = slicer.read_markups(tmp_path / "out/detections.mrk.json")
    assert boxes["lesion"].tolist() == [1, 2]
    in_voxels = (table[["x1", "y1", "z1"]].to_numpy() + table[["x2", "y2", "z2"]].to_numpy()) / 2
    itk = slicer.itk_image(tmp_path / "ct.nii.gz")
    np.testing.assert_allclose(slicer.itk_positions(itk, in_voxels), boxes[slicer.POSITION], atol=2e-3)
    markups = json.loads((tmp_path / "out/detections.mrk.json").read_text())["markups"]
    check_schema(markups)
    assert [m["type"] for m in markups] == ["Fiducial", "ROI", "ROI"]
    assert all(m["coordinateSystem"] == "LPS" for m in markups)
    assert [p["position"] for p in markups[0]["controlPoints"]] == table[["x_mm", "y_mm", "z_mm"]].to_numpy().tolist()
    first = table.iloc[0]
    span = [abs(first[f"{axis}2_mm"] - first[f"{axis}1_mm"]) for axis in "xyz"]
    np.testing.assert_allclose(markups[1]["size"], span, atol=1e-3)
    assert markups[1]["orientation"] == [1, 0, 0, 0, 1, 0, 0, 0, 1]
    assert (tmp_path / "out/overlay.png").read_bytes().startswith(b"\x89PNG")


def write_lesanet(folder):
    """A LesaNet with random weights, whose scores are all over the thresholds but that of `never`."""
    profile, names = load_profile("smoke"), ["chest", "lung", "never"]
    model = LesaNet(profile.lesanet, len(names))
    save_weights(model, folder / "weights.safetensors")
    write_json({"labels": names, **to_dict(profile.lesanet)}, folder / "config.json")
    known = {"thresholds": [0.0, 0.0, None], "parents": [[], ["chest"], []], "labels": names}
    write_json(known | {"network": to_dict(profile.network)}, folder / "labels.json")


def test_a_lesanet_beside_the_weights_adds_labels(tmp_path, monkeypatch):
    monkeypatch.setattr(detect.inference, "detect_volume", bright_blocks)
    weights = write_weights(tmp_path / "run")
    hu = np.full((30, 50, 60), 40, dtype=np.int16)
    hu[8:16, 10:25, 10:30] = 1500
    sitk.WriteImage(sitk.GetImageFromArray(hu), str(tmp_path / "ct.nii.gz"))
    assert "labels" not in detect.detect(tmp_path / "ct.nii.gz", tmp_path / "out", weights)
    write_lesanet(tmp_path / "run" / "lesanet")
    table = detect.detect(tmp_path / "ct.nii.gz", tmp_path / "out", weights)
    assert table["labels"].str.fullmatch(r"lung [01]\.\d\d").all() and len(table) == 1
    written = pd.read_csv(tmp_path / "out/detections.csv")
    assert written["labels"].tolist() == table["labels"].tolist()
    about = json.loads((tmp_path / "out/about.json").read_text())
    assert "labels" in about["columns"] and about["lesanet"].endswith("lesanet")
    with pytest.raises(FileNotFoundError, match="has no weights.safetensors, config.json, labels.json"):
        detect.detect(tmp_path / "ct.nii.gz", tmp_path / "out", weights, lesanet=tmp_path)


def test_other_markups_are_refused(tmp_path):
    point = {"id": "1", "position": [1.0, 2.0, 3.0]}
    centres = {"coordinateSystem": "LPS", "controlPoints": [point]}
    box = {"name": "lesion 1: 0.90", "coordinateSystem": "LPS", "center": [1.0, 2.0, 3.0], "size": [4.0, 5.0, 6.0]}
    path = tmp_path / "found.mrk.json"
    write_json({"@schema": slicer.SCHEMA, "markups": [centres, box]}, path)
    assert slicer.read_markups(path).to_numpy().tolist() == [[1, "lesion 1: 0.90", 1, 2, 3, 4, 5, 6]]
    write_json({"@schema": slicer.SCHEMA, "markups": [centres, box | {"center": [-1.0, -2.0, 3.0]}]}, path)
    with pytest.raises(ValueError, match="found.mrk.json: the listed centres are not those of the boxes"):
        slicer.read_markups(path)
    write_json({"@schema": slicer.SCHEMA, "markups": [centres, box | {"coordinateSystem": "RAS"}]}, path)
    with pytest.raises(ValueError, match="not in LPS"):
        slicer.read_markups(path)
    write_json({"markups": []}, path)
    with pytest.raises(ValueError, match="found.mrk.json is no markups file"):
        slicer.read_markups(path)


def test_nothing_found(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(detect.inference, "detect_volume", bright_blocks)
    sitk.WriteImage(sitk.GetImageFromArray(np.full((12, 40, 40), 40, np.int16)), str(tmp_path / "ct.mha"))
    table = detect.detect(tmp_path / "ct.mha", tmp_path / "out", weights)
    assert len(table) == 0 and "x1_mm" in (tmp_path / "out/detections.csv").read_text()
    assert json.loads((tmp_path / "out/detections.mrk.json").read_text())["markups"][0]["controlPoints"] == []


def test_weights_of_real_data_carry_no_warning(tmp_path, monkeypatch):
    weights = write_weights(tmp_path / "run", phantom=False)
    monkeypatch.setattr(detect.inference, "detect_volume", bright_blocks)
    hu = np.full((12, 40, 40), 40, np.int16)
    hu[6] = 45
    sitk.WriteImage(sitk.GetImageFromArray(hu), str(tmp_path / "ct.mha"))
    detect.detect(tmp_path / "ct.mha", tmp_path / "out", weights)
    (warning,) = json.loads((tmp_path / "out/about.json").read_text())["warnings"]
    assert "phantom" not in warning and "values reach from 40 to 45; a CT in HU" in warning


def test_values_unlike_hu_are_told():
    hu = np.full((2, 4, 4), -1000, np.int16)
    hu[0, 0, 0] = 900
    assert detect.unlike_ct(CT(hu, np.eye(4))) == []
    assert "from 0 to 255" in detect.unlike_ct(CT(np.where(hu > 0, 255, 0).astype(np.int16), np.eye(4)))[0]


def test_a_series_can_be_chosen(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(detect.inference, "detect_volume", bright_blocks)
    for number in (1, 2):
        hu = np.full((6, 30, 30), -1000, np.int16)
        hu[1:5, 5 : 5 + 8 * number, 5:20] = 1500
        uid = f"1.2.{number}"
        write_dicom(
            tmp_path / "ct" / uid,
            hu,
            np.diag([3.0, 3, 4, 1]),
            edit=lambda d, k, uid=uid: setattr(d, "SeriesInstanceUID", uid),
        )
    with pytest.raises(ValueError, match="holds 2 series: 1.2.1 .*--series UID"):
        detect.detect(tmp_path / "ct", tmp_path / "out", weights)
    assert not (tmp_path / "out").exists()
    heights = [
        detect.detect(tmp_path / "ct", tmp_path / "out", weights, uid)["long_mm"][0] for uid in ("1.2.1", "1.2.2")
    ]
    assert heights[0] < heights[1]


def test_missing_weights_say_how_to_make_them(tmp_path, monkeypatch):
    monkeypatch.setenv("LENSNB_ROOT", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="multi-mined-seed0.*run_all.sh --only table2.*--weights"):
        detect.load_weights()
    with pytest.raises(FileNotFoundError, match="none.safetensors is missing"):
        detect.load_weights(tmp_path / "none.safetensors")
    weights = write_weights(tmp_path / "run")
    config = json.loads((tmp_path / "run/config.json").read_text())
    del config["spacing_mm"]
    write_json(config, tmp_path / "run/config.json")
    with pytest.raises(ValueError, match="config.json does not say spacing_mm"):
        detect.load_weights(weights)


def test_bad_input(weights, tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing.nii does not exist"):
        detect.detect(tmp_path / "nothing.nii", tmp_path / "out", weights)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="--output .* is a file"):
        detect.detect(tmp_path / "nothing.nii", tmp_path / "file", weights)


@pytest.mark.parametrize("name", ["dicom/chest_99_slices", "nifti_pairs/STS_019/CT_image.nii.gz"])
def test_real_ct_with_a_random_network(name, shared_data, weights, tmp_path):
    path = shared_data / "real" / name
    if path.is_dir():
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(path)))
        image = reader.Execute()
    else:
        image = sitk.ReadImage(str(path))
    table = detect.detect(path, tmp_path / "out", weights)
    check_positions(table, image)
    assert table["score"].is_monotonic_decreasing
    experts = table[[f"score_{name}" for name in NAMES]].max(axis=1)
    assert (experts >= table["score"] - 1e-6).mean() > 0.9  # the fused score is that of one of the experts


def test_the_picture_shows_each_box_on_its_own_slice(tmp_path):
    # 3 mm voxels, 4 mm slices, x running to the patient's right in the file
    image = sitk.GetImageFromArray(np.full((5, 40, 40), 40, np.int16))
    image.SetSpacing((3.0, 3.0, 4.0))
    image.SetDirection((-1, 0, 0, 0, 1, 0, 0, 0, 1))
    sitk.WriteImage(image, str(tmp_path / "ct.nrrd"))
    ct = read_ct(tmp_path / "ct.nrrd")
    hu, geometry = normalise(ct, (3.0, 3.0, 4.0))
    rows = [[10, 10, 1, 20, 20, 3, 2, 0.9, "LiTS"], [5, 25, 4, 12, 32, 4, 4, 0.5, "LUNA16"],
            [22, 10, 2, 30, 20, 2, 2, 0.4, "LiTS"]]  # fmt: skip
    lesions = pd.DataFrame(rows, columns=[*BOX3D, "z", "score", "expert"])
    figure = detect.overlay(ct, detect.Scan(hu, geometry, lesions))
    panels = [ax for ax in figure.axes if ax.images]
    assert [ax.get_title() for ax in panels] == ["z = 8.0 mm", "z = 16.0 mm"]
    # three times finer pixels on the same first voxel
    drawn = [[patch.get_bbox().extents.round(6).tolist() for patch in ax.patches] for ax in panels]
    assert drawn == [[[30, 30, 60, 60], [66, 30, 90, 60]], [[15, 75, 36, 96]]]
    labels = [[text.get_text() for text in ax.texts if ":" in text.get_text()] for ax in panels]
    assert labels == [["1: 0.90", "3: 0.40"], ["2: 0.50"]]
