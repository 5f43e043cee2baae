"""`detect` with broken networks, outputs and choices, and outputs of other commands; rows like those of
test_broken_inputs.py. Whatever it is, it is told before anything is written."""

import json
import os
from pathlib import Path

import broken
import numpy as np
import pytest
import torch
from broken import (
    HU,
    MATRIX,
    Place,
    a_folder_instead,
    cut_off,
    deeplesion,
    no_damage,
    nothing,
    refused,
    remove,
    replaced,
    run,
    table,
    write,
)
from safetensors.torch import load_file, save_file
from test_broken_runs import BINARY, CASES, DETECT, EVALUATE, LUNA, boxes, config_without, marks, scan
from tiny import write_dicom

from lensnb import files
from lensnb.datasets import NAMES
from lensnb.models.lesanet import LesaNet
from lensnb.models.weights import save_weights
from lensnb.provenance.product import write_record
from lensnb.settings import load_profile, to_dict

NAMED = f"{DETECT} --lesanet {{}}/lesanet"
FOLDER = DETECT.replace("/weights.safetensors", "")
SENTENCES = "labels {}/s.csv --ontology {}/o.csv --output {}/out"
NAN, INFINITE = float("nan"), float("inf")


# sound files


def named_scan(folder: Path) -> None:
    """A CT, a network, and a LesaNet."""
    scan(folder)
    profile, names = load_profile("smoke"), ["chest", "lung"]
    save_weights(LesaNet(profile.lesanet, 2), folder / "lesanet/weights.safetensors")
    files.write_json({"labels": names, **to_dict(profile.lesanet)}, folder / "lesanet/config.json")
    known = {"labels": names, "thresholds": [0.5, None], "parents": [[], ["chest"]]}
    files.write_json(known | {"network": to_dict(profile.network)}, folder / "lesanet/labels.json")


def dicom_scan(folder: Path) -> None:
    scan(folder)
    (folder / "ct.nii.gz").unlink()
    write_dicom(folder / "ct.nii.gz", HU, MATRIX)


def sentences(folder: Path) -> None:
    (folder / "s.csv").write_text("sentence\na nodule BOOKMARK in the lung\n")
    (folder / "o.csv").write_text("not looked at\n")


# what breaks


def tensor(name: str, change, file: str = "run"):
    """Change a tensor of the weights."""

    def edit(at: Place) -> None:
        path = at / file / "weights.safetensors"
        content = load_file(path)
        content[name] = change(content[name].clone())
        save_file(content, path)

    return edit


def one(value: float):
    def change(content: torch.Tensor) -> torch.Tensor:
        content.view(-1)[0] = value
        return content

    return change


def every_tensor(change):
    """Change all numbers with a fraction of the weights."""

    def edit(at: Place) -> None:
        content = load_file(at / "run/weights.safetensors")
        content = {name: change(v) if v.is_floating_point() else v for name, v in content.items()}
        save_file(content, at / "run/weights.safetensors")

    return edit


def config(value: object, *keys: str, file: str = "run/config.json"):
    """Put another value into a JSON file."""

    def edit(at: Place) -> None:
        content = json.loads((at / file).read_text())
        place = content
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value
        (at / file).write_text(json.dumps(content))

    return edit


def read_only(name: str):
    """A folder that may not be written to; root may, so the system is asked in its place."""

    def close(at: Place) -> None:
        (at / name).mkdir(parents=True, exist_ok=True)
        allowed = os.access
        at.patch.setattr(os, "access", lambda path, mode: Path(path) != at / name and allowed(path, mode))

    return close


def folder(name: str):
    return lambda at: (at / name).mkdir(parents=True)


def flipped_after_its_record(at: Place) -> None:
    """One bit of a weight: the network is another one, and as sound as before."""
    path = at / "run/weights.safetensors"
    write_record([path], {})
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)


LAST, FC = "head.boxes.3.weight", "head.fc1.weight"
DAMAGED = "copy both again from the run that made them, or train again"
AGAIN = "delete it and run `python -m lensnb lesanet` again"

# fmt: off
CASES_HERE = [
    *table(
        "detect, damaged weights", scan, DETECT,
        ("all NaN", every_tensor(lambda v: v * NAN), refused("run/weights.safetensors", "are not finite", DAMAGED)),
        ("one NaN", tensor(FC, one(NAN)), refused("weights.safetensors: 1 of", f"values of {FC} are not finite")),
        ("one infinite bias", tensor("head.fc1.bias", one(INFINITE)), refused("head.fc1.bias are not finite", DAMAGED)),
        ("a NaN in a norm", tensor("backbone.stem.1.running_var", one(NAN)), refused("running_var are not finite")),
        ("all zeros", every_tensor(torch.zeros_like), refused("weights.safetensors: all values of", "are 0", DAMAGED)),
        ("a hole of zeros", tensor(LAST, torch.zeros_like), refused(f"all values of {LAST} are 0")),
        ("so large that scores overflow", tensor(FC, lambda v: v.sign() * 3e38),
         refused("the network's scores or boxes are not finite", "take other weights", status=1)),
        ("a negative variance", tensor("backbone.stem.1.running_var", lambda v: v * -1 - 9),
         refused("the network's features or proposals are not finite", status=1)),
        ("a bit that flipped, with the run's record", flipped_after_its_record, refused(
            "weights.safetensors is not as the training wrote it", "weights.safetensors.made", "copy both again")),
        ("empty", write("run/weights.safetensors", b""), refused("weights.safetensors does not hold the network")),
        ("a csv", write("run/weights.safetensors", "volume,x1\na,1\n"), refused("does not hold the network")),
        ("a folder", a_folder_instead("run/weights.safetensors"), refused("weights.safetensors", "is missing")),
        ("of another layer's shape", tensor(LAST, lambda v: v[:2]), refused("does not hold the network", "config.json",
                                                                           "size mismatch")),
    ),
    *table(
        "detect, weights of another kind", scan, DETECT.replace("weights.safetensors", "config.json"),
        ("config.json as weights", no_damage, refused("config.json does not hold the network")),
    ),
    *table(
        "detect, weights by folder", scan, FOLDER,
        ("without weights", remove("run/weights.safetensors"), refused("run/weights.safetensors is missing")),
        ("without config", remove("run/config.json"), refused("run/config.json is missing")),
    ),
    *table(
        "detect, config", scan, DETECT,
        ("empty", write("run/config.json", ""), refused("config.json is not valid JSON")),
        ("binary", write("run/config.json", BINARY), refused("run/config.json")),
        ("nested without end", write("run/config.json", "[" * 10**5), refused("config.json is not valid JSON")),
        ("a folder", a_folder_instead("run/config.json"), refused("config.json is a folder")),
        ("no experts", config([], "datasets"), refused("config.json", "datasets is []")),
        ("experts in one text", config("DeepLesion", "datasets"), refused("config.json", "it must list the experts")),
        ("an expert twice", config(["LiTS"] * 4, "datasets"), refused("config.json", "each once")),
        ("an unknown expert", config([*NAMES[:3], "KiTS"], "datasets"), refused("'KiTS'", "none of DeepLesion")),
        ("fewer experts", config(list(NAMES[:3]), "datasets"), refused("weights.safetensors does not hold")),
        ("experts missing", config_without("datasets"), refused("config.json does not describe", "datasets")),
        ("another proposal network", config("rpn", "proposal_network"), refused("weights.safetensors does not hold")),
        ("an unknown proposal network", config("ssd", "proposal_network"),
         refused("config.json", "choose one of afp, rpn")),
        ("a layer of a billion", config(10**9, "network", "fc_channels"), refused("does not hold", "config.json")),
        ("a billion layers", config([10**9] * 3, "network", "block_config"), refused("tensors for 3000000000 layers")),
        ("slices that make no group", config(6, "network", "slices"), refused("config.json", "3, 9, 15")),
        ("spacing of zero", config([0, 3, 4], "spacing_mm"), refused("config.json: spacing_mm is [0, 3, 4]")),
        ("spacing below zero", config([3, -3, 4], "spacing_mm"), refused("config.json: spacing_mm", "three numbers")),
        ("spacing NaN", config([NAN, 3, 4], "spacing_mm"), refused("config.json")),
        ("spacing of two numbers", config([3, 4], "spacing_mm"), refused("config.json: spacing_mm is [3, 4]")),
        ("spacing is a word", config("fine", "spacing_mm"), refused("config.json: spacing_mm is 'fine'")),
        ("inference is a number", config(3, "inference"), refused("config.json: inference is 3")),
        ("inference incomplete", config_without("inference", "nms"), refused("config.json: inference", "nms")),
        ("no slices at once", config(0, "inference", "slices_at_once"), refused("config.json", "slices_at_once is 0")),
        ("all slices at once", config(10**9, "inference", "slices_at_once"), refused("slices_at_once", "1 to 64")),
        ("a score of 7", config(7, "inference", "score"), refused("config.json: inference: score is 7", "0 to 1")),
        ("a score NaN", config(NAN, "inference", "score"), refused("config.json")),
        ("phantom is a word", config("no", "phantom"), refused("config.json: phantom is 'no'")),
    ),
    *table(
        "detect, LesaNet", named_scan, NAMED,
        ("weights NaN", tensor("embedding.weight", one(NAN), "lesanet"),
         refused("lesanet/weights.safetensors", "embedding.weight are not finite", "delete it")),
        ("weights cut off", cut_off("lesanet/weights.safetensors"), refused("lesanet/weights.safetensors", "delete")),
        ("weights missing", remove("lesanet/weights.safetensors"), refused("lesanet has no weights.safetensors")),
        ("config cut off", cut_off("lesanet/config.json"), refused("lesanet/config.json is not valid JSON")),
        ("config without a size", replaced("lesanet/config.json", '"pooled"', '"poled"'),
         refused("lesanet/config.json", "missing ['pooled']")),
        ("labels are a number", lambda at: [config(5, "labels", file=f"lesanet/{name}.json")(at)
                                            for name in ("config", "labels")], refused("labels.json", AGAIN)),
        ("other labels", config(["a", "b"], "labels", file="lesanet/labels.json"), refused("other labels", AGAIN)),
        ("a threshold missing", config([0.5], "thresholds", file="lesanet/labels.json"),
         refused("labels.json does not have thresholds for each of its 2 labels", AGAIN)),
        ("a threshold of 7", config([7, 0.5], "thresholds", file="lesanet/labels.json"),
         refused("labels.json has a threshold 7", AGAIN)),
        ("a threshold NaN", config([NAN, 0.5], "thresholds", file="lesanet/labels.json"), refused("labels.json")),
        ("an unknown parent", config([[], ["spleen"]], "parents", file="lesanet/labels.json"),
         refused("labels.json has a parent 'spleen'", AGAIN)),
        ("no window", config({}, "network", file="lesanet/labels.json"), refused("labels.json: network", "missing")),
    ),
    *table("detect, LesaNet", scan, f"{DETECT} --lesanet {{}}/run",
           ("a detector's folder", no_damage, refused("run has no labels.json", "lensnb lesanet"))),
    *table("detect, LesaNet", scan, f"{DETECT} --lesanet {{}}/ct.nii.gz",
           ("a file", no_damage, refused("ct.nii.gz has no weights.safetensors"))),
    *table(
        "detect, output", scan, DETECT,
        ("may not be written to", read_only("out"), refused("out may not be written to; name another folder")),
        ("below one that may not be written to", lambda at: read_only(".")(Place(at.folder, at.patch)),
         refused("may not be written to")),
        ("a folder where the table belongs", folder("out/detections.csv"), refused("out/detections.csv is a folder")),
        ("a folder where the last file belongs", folder("out/about.json"), refused("out/about.json is a folder")),
    ),
    *table("detect, output", dicom_scan, DETECT.replace("{}/out", "{}/ct.nii.gz"),
           ("the input itself", no_damage, refused("--output", "lies in the input"))),
    *table("detect, output", dicom_scan, DETECT.replace("{}/out", "{}/ct.nii.gz/a/b"),
           ("below the input", no_damage, refused("--output", "lies in the input", "name another folder"))),
    *table("detect, series", dicom_scan, f"{DETECT} --series 1.2.3",
           ("an unknown one", no_damage, refused("has no series 1.2.3; it has"))),
    *table("detect, series", scan, f"{DETECT} --series 1.2.3",
           ("of a file", no_damage, refused("a series can only be chosen in a DICOM folder"))),
    *table("labels", sentences, SENTENCES + ".csv",
           ("output is a folder", folder("out.csv"), refused("--output", "out.csv is a folder"))),
    *table("labels", sentences, SENTENCES + ".txt",
           ("output of another kind", no_damage, refused("--output", "out.txt must end with .csv or .npz"))),
    *table("labels", sentences, SENTENCES + "/a.csv",
           ("output below a file", write("out", ""), refused("out is a file; name a folder"))),
    *table("evaluate", boxes, EVALUATE, ("result is a folder", folder("out/result.json"), refused("--json", "folder"))),
    *table("evaluate", boxes, EVALUATE.replace("{}/out/result.json", "/dev/null"),
           ("result is a device", no_damage, refused("/dev/null", "device", "replaced"))),
    *table("evaluate-luna", marks, LUNA,
           ("result is a folder", folder("out/result.json"), refused("--json", "folder"))),
    *table("data check", deeplesion, "data check --root {}/raw --list {}/out.txt",
           ("list of another kind", no_damage, refused("--list", "must end with .csv or .npz"))),
    *table("data check", nothing, "data check --root {}/raw --list {}/raw",
           ("list is a folder", no_damage, refused("--list", "raw"))),
]
# fmt: on


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in CASES_HERE])
def test_broken_networks(case, tmp_path, monkeypatch):
    if case.call.startswith("labels"):  # the network is not trained for an output that is refused

        def trained(*_):
            raise AssertionError("the output was not looked at first")

        monkeypatch.setattr("lensnb.own_ct.sentences.practice", trained)
    run(case, tmp_path, monkeypatch)


def test_the_rows_are_distinct():
    names = [case.name for case in (*CASES_HERE, *CASES)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("make, call", [(named_scan, NAMED), (scan, FOLDER), (dicom_scan, DETECT)])
def test_sound_files_pass(make, call, tmp_path, monkeypatch):
    monkeypatch.setenv("LENSNB_ROOT", str(tmp_path / "root"))
    make(tmp_path)
    status, _, error = broken.call(call, tmp_path)
    assert status == 0, error
    found = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert found == ["about.json", "detections.csv", "detections.mrk.json", "overlay.png"]


def test_an_input_may_lie_in_the_output(tmp_path, monkeypatch):
    """One file among those that are written: none has its name."""
    scan(tmp_path)
    before = (tmp_path / "ct.nii.gz").read_bytes()
    status, _, error = broken.call(DETECT.replace("{}/out", "{}"), tmp_path)
    assert status == 0 and (tmp_path / "ct.nii.gz").read_bytes() == before, error
    assert np.isfinite(json.loads((tmp_path / "about.json").read_text())["simpleitk_differs_by_mm"])
