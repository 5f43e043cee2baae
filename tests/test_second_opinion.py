"""SimpleITK's opinion on where voxels lie: asked for every format, and what follows where there is none."""

import builtins
import json
import re

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from test_detect import bright_blocks, write_weights
from tiny import write_dicom, write_image

from lensnb.ct.grid import transform
from lensnb.ct.read import read_ct
from lensnb.ct.volume import CT, affine
from lensnb.own_ct import detect, second_opinion

HU = np.where(np.random.default_rng(0).random((7, 30, 34)) > 0.5, 1200, -900).astype(np.int16)
TURNED = affine(
    Rotation.from_euler("xyz", [4, -6, 9], degrees=True).as_matrix() @ np.diag([0.9, 1.1, 2.5]),
    np.array([-120.5, 33.25, 410.0]),
)
SAGITTAL = affine(np.array([[0, 0, 2.5], [0.9, 0, 0], [0, -1.1, 0]]), np.array([-20.0, 33, 70]))
UPSIDE_DOWN = affine(np.diag([0.9, 1.1, -2.5]), np.array([-20.0, 33, 70]))
MATRICES = {"turned": TURNED, "sagittal": SAGITTAL, "upside down": UPSIDE_DOWN}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return write_weights(tmp_path_factory.mktemp("run"))


def difference(path, series=None) -> float:
    """How far SimpleITK is from lensnb at the corners; it must have an opinion."""
    ct = read_ct(path, series)
    opinion = second_opinion.ask(path, ct, series)
    assert opinion.reason == "" and opinion.warning == []
    points = second_opinion.corners(ct)
    return opinion.compare(path, points, transform(ct.index_to_mm, points))


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("name", ["ct.nii", "ct.nii.gz", "ct.mha", "ct.mhd", "ct.nrrd", "ct.nhdr"])
def test_image_files_agree(name, matrix, tmp_path):
    write_image(tmp_path / name, HU, MATRICES[matrix])
    assert difference(tmp_path / name) < 0.02


@pytest.mark.parametrize("place", ["ct", "ct/a/b"])
@pytest.mark.parametrize("matrix", MATRICES)
def test_dicom_folders_agree(matrix, place, tmp_path):
    write_dicom(tmp_path / place, HU, MATRICES[matrix])
    assert difference(tmp_path / "ct") < 0.02


def test_one_slice_and_a_chosen_series_agree(tmp_path):
    write_dicom(tmp_path / "one", HU[:1], TURNED)
    assert difference(tmp_path / "one") < 0.02
    for number in (1, 11):  # the second has the first's UID as its beginning, and lies elsewhere
        moved = TURNED.copy()
        moved[:3, 3] += 100 * number
        uid = f"1.2.{number}"
        names = [f"{number}-{k}.dcm" for k in range(len(HU))]
        write_dicom(tmp_path / "ct", HU, moved, names, edit=lambda d, k, uid=uid: setattr(d, "SeriesInstanceUID", uid))
    assert difference(tmp_path / "ct", "1.2.1") < 0.02 and difference(tmp_path / "ct", "1.2.11") < 0.02


def test_a_ct_that_lensnb_reads_elsewhere_is_refused_and_nothing_written(weights, tmp_path, monkeypatch):
    """Whatever the reason: before the network runs."""
    write_image(tmp_path / "ct.nii", HU, TURNED)
    moved = TURNED.copy()
    moved[0, 3] += 0.4
    monkeypatch.setattr(detect, "read_ct", lambda path, series: CT(HU, moved))
    monkeypatch.setattr(detect.inference, "detect_volume", None)
    with pytest.raises(ValueError, match=r"ct.nii: lensnb and SimpleITK put voxel .* 0.4 mm apart.*nothing is written"):
        detect.detect(tmp_path / "ct.nii", tmp_path / "out", weights)
    assert not (tmp_path / "out").exists()


def test_wrong_centres_are_refused_and_nothing_written(weights, tmp_path, monkeypatch):
    """A fault in the way from the grid to the table, which the corners do not show."""
    monkeypatch.setattr(detect.inference, "detect_volume", bright_blocks)
    write_image(tmp_path / "ct.nii", np.where(np.arange(30) > 12, 1200, -900)[:, None] * np.ones_like(HU[:1]), TURNED)
    described = detect.describe
    detect.detect(tmp_path / "ct.nii", tmp_path / "out", weights)
    about = json.loads((tmp_path / "out" / "about.json").read_text())
    assert about["simpleitk_differs_by_mm"] < 0.02 and about["detections"] > 0
    monkeypatch.setattr(detect, "describe", lambda scan: described(scan).assign(y_mm=lambda t: t["y_mm"] + 0.3))
    with pytest.raises(ValueError, match="put voxel .* 0.3 mm apart"):
        detect.detect(tmp_path / "ct.nii", tmp_path / "other", weights)
    assert not (tmp_path / "other").exists()


def warned(path, folder, weights) -> str:
    """The one warning about positions, in about.json; everything else is written as ever."""
    detect.detect(path, folder, weights)
    about = json.loads((folder / "about.json").read_text())
    assert "simpleitk_differs_by_mm" not in about and (folder / "detections.mrk.json").exists()
    (warning,) = [text for text in about["warnings"] if "positions" in text and "SimpleITK" in text]
    assert "\n" not in warning
    return warning


def test_a_tilted_gantry_is_not_compared(weights, tmp_path):
    sheared = affine(np.diag([0.9, 1.1, 2.5]), np.zeros(3))
    sheared[1, 2] = 0.6
    write_dicom(tmp_path / "ct", HU, sheared)
    assert "it knows no tilted gantry, and the slices here are shifted by 3.6 mm" in warned(
        tmp_path / "ct", tmp_path / "out", weights
    )


def test_slices_in_several_folders_are_not_compared(weights, tmp_path):
    write_dicom(tmp_path / "ct", HU, TURNED)
    (tmp_path / "ct" / "more").mkdir()
    for path in sorted((tmp_path / "ct").glob("*.dcm"))[:3]:
        path.rename(tmp_path / "ct" / "more" / path.name)
    assert "no folder with a series of 7 single slices" in warned(tmp_path / "ct", tmp_path / "out", weights)


def test_without_simpleitk_positions_are_written_with_a_warning(weights, tmp_path, monkeypatch):
    write_dicom(tmp_path / "ct", HU, TURNED)
    imported = builtins.__import__

    def absent(name, *rest):
        if name == "SimpleITK":
            raise ImportError(name)
        return imported(name, *rest)

    monkeypatch.setattr(builtins, "__import__", absent)
    assert "it is not installed" in warned(tmp_path / "ct", tmp_path / "out", weights)


def test_what_simpleitk_can_not_read_is_not_compared(tmp_path):
    path = tmp_path / "ct.nii"
    write_image(path, HU, TURNED)
    ct = read_ct(path)
    path.write_bytes(b"no image")
    assert second_opinion.ask(path, ct).reason.startswith("it can not read the input (")
    with pytest.raises(ValueError, match=re.escape("SimpleITK sees (34, 30, 7) voxels, lensnb (34, 30, 6)")):
        write_image(path, HU, TURNED)
        second_opinion.ask(path, CT(HU[:6], TURNED))
    enhanced = tmp_path / "enhanced.dcm"
    enhanced.write_bytes(b"")
    assert "frames of enhanced DICOM" in second_opinion.ask(enhanced, ct).reason


def test_the_limit_follows_the_voxels():
    fine, coarse = (CT(HU, affine(np.diag([mm, mm, 2 * mm]), np.zeros(3))) for mm in (0.5, 3.0))
    limits = [second_opinion.ask("ct.dcm", ct).limit_mm for ct in (fine, coarse)]
    assert limits == pytest.approx([0.1, 0.3])
    assert second_opinion.slant_mm(fine) == 0
