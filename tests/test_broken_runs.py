"""Evaluation, detection and training with broken inputs; the rows are like those of test_broken_inputs.py."""

import functools
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import broken
import nibabel
import numpy as np
import pandas as pd
import pytest
import torch
from broken import (
    BOX,
    HU,
    MATRIX,
    STORE,
    B,
    Malice,
    Place,
    a_folder_instead,
    cell,
    cut,
    cut_off,
    deeplesion,
    fill_disk,
    full_at,
    no_damage,
    nothing,
    refused,
    remove,
    replaced,
    run,
    table,
    without,
    write,
)
from tiny import write_dicom, write_image

from lensnb import files
from lensnb.ct.volume import affine
from lensnb.datasets import NAMES, preparation
from lensnb.datasets.manual_boxes import MANUAL_FILE
from lensnb.models.build import build_lens
from lensnb.models.lens import LENS
from lensnb.models.weights import save_weights
from lensnb.settings import load_profile, to_dict
from lensnb.training import detector, loop
from lensnb.training.loop import Progress, save_checkpoint

HEADER = "volume,x1,y1,z1,x2,y2,z2"
RUN = "root/data/runs/smoke/experiments/single-seed0/"
PRETEXT = "root/data/runs/smoke/pretext/weights.safetensors"
PREPARED = "root/data/prepared/smoke"
MANUAL = f"root/data/phantom/smoke/{MANUAL_FILE}"


# sound files


def boxes(folder: Path) -> None:
    (folder / "truth.csv").write_text(f"{HEADER}\na,10,10,5,19,19,9\nb,,,,,,\n")
    (folder / "mine.csv").write_text(f"{HEADER},score\nb,1,1,1,2,2,2,.9\na,15,10,5,24,19,9,.8\n")
    (folder / "truth.pkl").write_bytes(pickle.dumps({"val": {"a": BOX}, "test": {"a": BOX, "b": BOX[:0]}}))


def marks(folder: Path) -> None:
    (folder / "annotations.csv").write_text("seriesuid,coordX,coordY,coordZ,diameter_mm\ns,0,0,0,10\n")
    (folder / "excluded.csv").write_text("seriesuid,coordX,coordY,coordZ,diameter_mm\ns,50,0,0,-1\n")
    (folder / "seriesuids.csv").write_text("s\nt\n")
    (folder / "mine.csv").write_text("seriesuid,coordX,coordY,coordZ,probability\ns,1,1,1,0.5\nt,1,1,1,0.9\n")


@functools.cache
def network() -> LENS:
    return build_lens(load_profile("smoke").network, NAMES)


def write_run(folder: Path) -> None:
    """A run with a random network."""
    profile = load_profile("smoke")
    config = {
        "datasets": list(NAMES), "proposal_network": "afp", "network": to_dict(profile.network),
        "inference": to_dict(profile.inference), "spacing_mm": profile.grid.spacing_mm, "phantom": True,
    }  # fmt: skip
    save_weights(network(), folder / "run/weights.safetensors")
    files.write_json(config, folder / "run/config.json")


def scan(folder: Path) -> None:
    write_run(folder)
    write_image(folder / "ct.nii.gz", np.full((9, 24, 24), 40, np.int16), affine(np.diag([3.0, 3, 4]), np.zeros(3)))


def prepared(folder: Path) -> None:
    """A store with DeepLesion, a volume to validate on, the weights to start from, and mined tables."""
    deeplesion(folder)
    preparation.prepare(folder / "raw", folder / PREPARED, (3.0, 3.0, 4.0), workers=1, datasets=("DeepLesion",))
    volumes = pd.read_csv(folder / PREPARED / "volumes.csv", dtype=str)
    volumes["split"] = volumes["split"].replace("test", "val")
    volumes.to_csv(folder / PREPARED / "volumes.csv", index=False)
    (folder / MANUAL).parent.mkdir(parents=True)
    (folder / MANUAL).write_bytes(pickle.dumps({"val": {B: BOX}}))
    save_weights(network(), folder / PRETEXT, ("backbone.", "head.fc1.", "head.fc2."))
    boxes = folder / PREPARED / "boxes.csv"
    for name in ("cross-slice", "intra-patient", "cross-dataset"):
        (folder / "root/data/runs/smoke/mined").mkdir(exist_ok=True)
        shutil.copy(boxes, folder / f"root/data/runs/smoke/mined/{name}.csv")


# what breaks


def ct(array: np.ndarray, matrix: np.ndarray):
    """Another CT, array (x, y, z) with its matrix as sform."""

    def replace(at: Place) -> None:
        image = nibabel.Nifti1Image(array, None)
        image.header.set_zooms([*np.linalg.norm(matrix[:3, :3], axis=0), *([1.0] * (array.ndim - 3))])
        image.header.set_sform(matrix, code=1)
        nibabel.save(image, at / "ct.nii.gz")

    return replace


def tilted(degrees: float) -> np.ndarray:
    matrix, angle = np.eye(4), np.radians(degrees)
    matrix[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return matrix


def config_without(*keys: str):
    def drop(at: Place) -> None:
        content = files.read_json(at / "run/config.json")
        place = content
        for key in keys[:-1]:
            place = place[key]
        del place[keys[-1]]
        files.write_json(content, at / "run/config.json")

    return drop


def checkpoint(model: torch.nn.Module):
    """A checkpoint of this model where the training would continue from one."""
    optimizer = torch.optim.RAdam(model.parameters())

    def write(at: Place) -> None:
        at.patch.setattr(loop, "text", lambda recipe: "this recipe")
        save_checkpoint(at / RUN / "checkpoint.pt", model, optimizer, Progress(done=20), "this recipe")

    return write


def other_start(at: Place) -> None:
    wide = replace(load_profile("smoke").network, growth_rate=4)
    save_weights(build_lens(wide, NAMES), at / PRETEXT, ("backbone.",))


def no_training(at: Place) -> None:
    """Let a training come to its checkpoint and its end at once."""

    at.patch.setattr(detector, "make_schedule", lambda *_: np.zeros(1, dtype=int))


def two_series(at: Place) -> None:
    (at / "ct.nii.gz").unlink()
    for k in range(2):
        write_dicom(at / f"ct.nii.gz/{k}", HU, MATRIX)


EVALUATE = "evaluate --truth {}/truth.csv --predictions {}/mine.csv --json {}/out/result.json"
PICKLE = EVALUATE.replace("truth.csv", "truth.pkl")
LUNA = ("evaluate-luna --annotations {}/annotations.csv --excluded {}/excluded.csv --seriesuids {}/seriesuids.csv "
        "--submission {}/mine.csv --json {}/out/result.json")  # fmt: skip
DETECT = "detect {}/ct.nii.gz --output {}/out --weights {}/run/weights.safetensors"
TRAIN = "train single --profile smoke"
BINARY = b"\x89\xff\x00" * 99

# fmt: off
CASES = [
    *table(
        "evaluate", boxes, EVALUATE,
        ("truth missing", remove("truth.csv"), refused("truth.csv does not exist")),
        ("truth empty", write("truth.csv", ""), refused("truth.csv", "No columns")),
        ("truth is binary", write("truth.csv", BINARY), refused("truth.csv can not be read as text")),
        ("truth is a folder", a_folder_instead("truth.csv"), refused("truth.csv")),
        ("truth without any lesion", write("truth.csv", f"{HEADER}\na,,,,,,\nb,,,,,,\n"),
         refused("truth", "no lesion")),
        ("truth with swapped corners", write("truth.csv", f"{HEADER}\na,19,10,5,10,19,9\n"),
         refused("truth.csv", "row 1", "inverted box")),
        ("volume with and without lesions", write("truth.csv", f"{HEADER}\na,1,1,1,2,2,2\na,,,,,,\n"),
         refused("truth.csv", "for a", "remove one")),
        ("column missing", lambda at: without(at / "mine.csv", "z2"), refused("mine.csv", "z2 missing")),
        ("ragged rows", write("mine.csv", f"{HEADER},score\na,1,1,1,2,2,2,.5\na,1,1,1,2,2,2,.5,9,9\n"),
         refused("mine.csv")),
        ("coordinate is a word", lambda at: cell(at / "mine.csv", "y1", "ten", 1),
         refused("mine.csv, row 2: y1 is 'ten', not a number")),
        ("coordinate infinite", lambda at: cell(at / "mine.csv", "x2", "inf"), refused("mine.csv", "row 1", "finite")),
        ("score NaN", lambda at: cell(at / "mine.csv", "score", "nan"),
         refused("mine.csv", "row 1", "the score is nan")),
        ("volume of another split", lambda at: cell(at / "mine.csv", "volume", "zz"),
         refused("mine.csv", "the first is zz", "choose the right split")),
        ("disk full", full_at("out/result.json"), refused("result.json", "No space left", status=1)),
        ("a file where the folder of the result belongs", write("out", ""),
         refused("--json", "out is a file; name a folder")),
    ),
    *table(
        "evaluate, pickle", boxes, PICKLE,
        ("runs a program", write("truth.pkl", pickle.dumps({"test": {"a": Malice()}})),
         refused("truth.pkl", "only numpy arrays are admitted")),
        ("cut off", cut_off("truth.pkl"), refused("truth.pkl is not a pickle of numpy arrays")),
        ("is a csv", write("truth.pkl", f"{HEADER}\n"), refused("truth.pkl is not a pickle")),
        ("split missing", write("truth.pkl", pickle.dumps({"val": {"a": BOX}})),
         refused("truth.pkl has no split 'test'")),
        ("two corners swapped", write("truth.pkl", pickle.dumps({"test": {"a": BOX[:, [3, 1, 2, 0, 4, 5]]}})),
         refused("truth.pkl, sub-volume a", "ends before it begins")),
    ),
    *table(
        "evaluate-luna", marks, LUNA,
        ("annotations missing", remove("annotations.csv"), refused("annotations.csv")),
        ("excluded findings empty", write("excluded.csv", ""), refused("excluded.csv", "No columns")),
        ("submission is binary", write("mine.csv", BINARY), refused("mine.csv can not be read as text")),
        ("seriesuids binary", write("seriesuids.csv", BINARY), refused("seriesuids.csv can not be read")),
        ("seriesuids with a header", write("seriesuids.csv", "seriesuid\ns\n"),
         refused("seriesuids.csv", "header", "remove it")),
        ("a scan listed twice", write("seriesuids.csv", "s\nt\ns\n"),
         refused("seriesuids.csv", "repeated", "the first is s")),
        ("probability missing", lambda at: without(at / "mine.csv", "probability"),
         refused("mine.csv", "probability missing")),
        ("probability NaN", lambda at: cell(at / "mine.csv", "probability", "nan", 1),
         refused("mine.csv, row 2: probability is nan")),
        ("no nodule in the scans", write("seriesuids.csv", "t\n"),
         refused("none of its 1 nodules lies on one of the 1 scans")),
    ),
    *table(
        "detect, input", scan, DETECT,
        ("missing", remove("ct.nii.gz"), refused("ct.nii.gz does not exist")),
        ("empty folder", a_folder_instead("ct.nii.gz"), refused("ct.nii.gz holds no CT image")),
        ("cut off", cut_off("ct.nii.gz"), refused("ct.nii.gz can not be read")),
        ("a picture", write("ct.nii.gz", b"\x89PNG\r\n\x1a\n"), refused("ct.nii.gz can not be read")),
        ("two series", two_series, refused("2 series")),
        ("voxels NaN", ct(np.full((24, 24, 9), np.nan, np.float32), np.eye(4)), refused("ct.nii.gz", "not finite")),
        ("no slice", ct(np.zeros((24, 24, 0), np.int16), np.eye(4)), refused("ct.nii.gz")),
        ("a film: four dimensions", ct(np.zeros((24, 24, 9, 3), np.int16), np.eye(4)),
         refused("ct.nii.gz", "expected 3D")),
        ("axes in one plane", ct(np.zeros((24, 24, 9), np.int16), np.eye(4)[:, [0, 0, 2, 3]]),
         refused("ct.nii.gz", "degenerate")),
        ("tilted by 40 degrees", ct(np.zeros((24, 24, 9), np.int16), tilted(40)), refused("tilted by 40 degrees")),
        ("spacing of a metre", ct(np.zeros((24, 24, 9), np.int16), np.diag([1000.0, 1000, 1000, 1])),
         refused("voxels of 1000 x 1000 x 1000 mm", "header is wrong")),
    ),
    *table(
        "detect, input", scan, DETECT.replace("ct.nii.gz", "run/config.json"),
        ("a text file", no_damage, refused("config.json is neither a DICOM")),
    ),
    *table(
        "detect, weights", scan, DETECT,
        ("missing", remove("run/weights.safetensors"), refused("weights.safetensors is missing")),
        ("cut off", cut_off("run/weights.safetensors"), refused("weights.safetensors does not hold the network")),
        ("a pickle that runs a program", write("run/weights.safetensors", pickle.dumps(Malice())),
         refused("weights.safetensors does not hold the network")),
        ("config missing", remove("run/config.json"), refused("config.json is missing")),
        ("config cut off", cut_off("run/config.json"), refused("config.json is not valid JSON")),
        ("config is a list", write("run/config.json", "[1, 2]"), refused("config.json should hold names and values")),
        ("config without a network", config_without("network"),
         refused("config.json does not describe a network", "network")),
        ("network without a size", config_without("network", "fpn_channels"),
         refused("config.json does not describe a network", "fpn_channels")),
        ("of another network", replaced("run/config.json", '"fpn_channels": 24', '"fpn_channels": 16'),
         refused("weights.safetensors does not hold the network", "config.json")),
        ("config without spacing", config_without("spacing_mm"), refused("config.json does not say spacing_mm")),
    ),
    *table(
        "detect, output", scan, DETECT,
        ("a file where the folder belongs", write("out", ""), refused("out is a file; name a folder")),
        ("disk full at the first file", full_at("out/detections.csv"),
         refused("detections.csv", "No space left", status=1)),
        ("disk full at the last file", full_at("out/about.json"), refused("about.json", "No space left", status=1)),
    ),
    *table(
        "detect, output", scan, DETECT.replace("{}/out", "{}/ct.nii.gz/out"),
        ("a folder below a file", no_damage, refused("ct.nii.gz is a file; name a folder")),
    ),
    *table("train", nothing, "train doubly --profile smoke",
           ("unknown experiment", no_damage, refused("'doubly' is not an experiment", "single-mined"))),
    *table("train", nothing, "train single --profile smoky",
           ("unknown profile", no_damage, refused("'smoky' is not a profile", "smoke, phantom, sealed, paper"))),
    *table("train", prepared, "train single-complete --profile smoke",
           ("complete truth of real data", no_damage, refused("single-complete needs the complete truth", "phantoms"))),
    *table("train", prepared, "train single-mined --profile smoke",
           ("mined table missing", remove("root/data/runs/smoke/mined/cross-dataset.csv"),
            refused("cross-dataset.csv does not exist", "run_all.sh")),
           ("mined table without a column",
            lambda at: without(at / "root/data/runs/smoke/mined/cross-dataset.csv", "source"),
            refused("cross-dataset.csv has no column source")),
           ("mined table empty", write("root/data/runs/smoke/mined/cross-dataset.csv", ""),
            refused("cross-dataset.csv", "No columns"))),
    *table(
        "train", prepared, TRAIN,
        ("nothing prepared", remove(f"{PREPARED}/volumes.csv"), refused("volumes.csv does not exist", "run_all.sh")),
        ("volumes.csv without a column", lambda at: without(at / PREPARED / "volumes.csv", "depth"),
         refused("volumes.csv has no column depth")),
        ("boxes.csv without rows", lambda at: (at / PREPARED / "boxes.csv").write_text(
            (at / PREPARED / "boxes.csv").read_text().split("\n")[0] + "\n"),
         refused("boxes.csv has no box", "DeepLesion", "prepare")),
        ("a volume cut off", cut_off(f"{STORE}DeepLesion/000001_01_01_005-010.npy"),
         refused("000001_01_01_005-010.npy is broken", "prepare")),
        ("a volume empty", write(f"{STORE}DeepLesion/000001_01_01_005-010.npy", b""),
         refused("000001_01_01_005-010.npy is broken", "prepare")),
        ("a volume missing", remove(f"{STORE}DeepLesion/000001_01_01_005-010.npy"),
         refused("000001_01_01_005-010.npy")),
        ("start weights missing", remove(PRETEXT), refused("weights.safetensors is missing", "lensnb pretext")),
        ("start weights cut off", cut_off(PRETEXT), refused("pretext/weights.safetensors", "delete it")),
        ("start weights of another size", other_start,
         refused("pretext/weights.safetensors", "size mismatch", "delete it")),
        ("manual boxes missing", remove(MANUAL), refused("DeepLesion_manual_1K_test_release.pkl")),
        ("manual boxes without a lesion", write(MANUAL, pickle.dumps({"val": {B: BOX[:0]}})),
         refused("DeepLesion_manual_1K_test_release.pkl hold no lesion", "training.validations is 2", "set it to 0")),
        ("checkpoint cut off", lambda at: (checkpoint(network())(at), cut(at / RUN / "checkpoint.pt")),
         refused("checkpoint.pt", "delete it to start this training again")),
        ("checkpoint empty", write(f"{RUN}checkpoint.pt", b""), refused("checkpoint.pt", "delete it")),
        ("checkpoint of another network", checkpoint(torch.nn.Linear(2, 2)), refused("checkpoint.pt", "delete it")),
        ("checkpoint that runs a program", write(f"{RUN}checkpoint.pt", pickle.dumps(Malice())),
         refused("checkpoint.pt", "delete it")),
        ("disk full at the checkpoint", lambda at: (no_training(at), fill_disk(at / RUN / "checkpoint.pt")),
         refused("checkpoint.pt", "No space left", status=1)),
        ("disk full at the log", lambda at: (no_training(at), fill_disk(at / RUN / "log.csv")),
         refused("log.csv", "No space left", status=1, keeps=(f"{RUN}checkpoint.pt",))),
        ("disk full at the weights", lambda at: (no_training(at), fill_disk(at / RUN / "weights.safetensors")),
         refused("weights.safetensors", "No space left", status=1, keeps=(RUN,))),
    ),
]
# fmt: on


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in CASES])
def test_broken_runs(case, tmp_path, monkeypatch):
    run(case, tmp_path, monkeypatch)


def test_the_rows_are_distinct():
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("make, call", [(boxes, EVALUATE), (boxes, PICKLE), (marks, LUNA), (scan, DETECT)])
def test_sound_files_pass(make, call, tmp_path, monkeypatch):
    """Without the damage these commands succeed, so no row of the table fails for another reason."""
    monkeypatch.setenv("LENSNB_ROOT", str(tmp_path / "root"))
    make(tmp_path)
    status, _, error = broken.call(call, tmp_path)
    assert status == 0, error
