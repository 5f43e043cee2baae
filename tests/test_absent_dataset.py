"""The real data without one of the four datasets: all that does not need it goes on, and says what is left out."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import miniature
import pytest
from conftest import SHARED

from lensnb import runfolder
from lensnb.datasets import NAMES
from lensnb.datasets.store import Store
from lensnb.files import read_table
from lensnb.models.build import build_lens, load_lens
from lensnb.models.weights import save_weights
from lensnb.run import engine
from lensnb.settings import load_profile
from lensnb.training import detector, experiments
from lensnb.training.detector import train_experiment

PROFILE = "paper"
ABSENT = "LUNA16"  # the notebooks are run without it: 02 shows windows on its nodules

pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason="needs the real test files: phantoms have all datasets")


def without(raw: Path, name: str, folder: Path) -> Path:
    """A folder of links to the datasets in `raw`, but for one."""
    folder.mkdir(parents=True)
    for source in raw.iterdir():
        if source.name != name:
            (folder / source.name).symlink_to(source)
    return folder


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    root = tmp_path_factory.mktemp("four") / "raw"
    miniature.write(root, SHARED)
    return root


@pytest.fixture(scope="module")
def executed(raw, tmp_path_factory):
    """Notebooks 01 and 02 without one dataset: their root, and what they printed."""
    root = tmp_path_factory.mktemp("three")
    data = without(raw, ABSENT, root / "data" / "raw")
    environment = {**os.environ, "LENSNB_ROOT": str(root), "LENSNB_DATA": str(data)}
    printed = {}
    for name in ("01_the_data", "02_preparing_ct"):
        notebook, output = runfolder.repository() / "notebooks" / f"{name}.ipynb", root / f"{name}.ipynb"
        command = [sys.executable, "-m", "lensnb.run.step", notebook, "--profile", PROFILE, "--output", output]
        ran = subprocess.run(
            command, cwd=runfolder.repository(), env=environment, capture_output=True, text=True, timeout=900
        )
        assert ran.returncode == 0, ran.stdout[-2000:]
        printed[name] = ran.stdout
    return root, printed


def test_notebooks_on_the_data(executed):
    root, printed = executed
    assert all("all checks passed" in text for text in printed.values())
    assert f"Not there: {ABSENT}." in (root / "01_the_data.ipynb").read_text()
    store = Store(root / "data" / "prepared" / PROFILE)
    assert set(store.volumes["dataset"]) == set(store.boxes["dataset"]) == set(NAMES) - {ABSENT}


@pytest.mark.parametrize("name", ["multi", "multi-mined"])
def test_joint_training_has_one_expert_less(executed, monkeypatch, capsys, name):
    """With the smoke profile's network, on the notebooks' volumes."""
    root, _ = executed
    profile = load_profile("smoke")
    profile = replace(profile, training=replace(profile.training, iterations=6, batch_size=2, validations=0))
    monkeypatch.setattr(detector, "load_profile", lambda _: profile)
    monkeypatch.setenv("LENSNB_ROOT", str(root))
    start = build_lens(profile.network, ("DeepLesion",))
    save_weights(start, runfolder.runs(PROFILE) / "pretext" / "weights.safetensors", ("backbone.",))
    boxes = Store(runfolder.prepared(PROFILE)).boxes
    for strategy in ("cross-slice", "intra-patient", "cross-dataset"):
        table = runfolder.runs(PROFILE) / "mined" / f"{strategy}.csv"
        table.parent.mkdir(exist_ok=True)
        boxes.head(0).to_csv(table, index=False)
    run = train_experiment(name, PROFILE)
    assert f"{name}: no {ABSENT} expert, for want of labelled training volumes of {ABSENT}\n" in capsys.readouterr().out
    rest = tuple(dataset for dataset in NAMES if dataset != ABSENT)
    assert load_lens(run).experts == rest and len(read_table(run / "log.csv"))


def test_experiments_of_what_is_there(executed):
    root, _ = executed
    store = Store(root / "data" / "prepared" / PROFILE)
    assert experiments.of("single", store) == experiments.EXPERIMENTS["single"]
    assert experiments.of("multi", store).datasets == ("DeepLesion", "LiTS", "NIH-LN")
    store.boxes = store.boxes[store.boxes["dataset"] == "DeepLesion"]
    assert experiments.of("multi-mined", store).datasets == ("DeepLesion",)
    store.boxes = store.boxes.head(0)
    with pytest.raises(ValueError, match="boxes.csv has no box on a training volume of DeepLesion"):
        experiments.of("multi", store)


LEFT_OUT = {"LUNA16": {"12_luna16_cpm", "luna16_cpm"}, "LiTS": set(), "NIH-LN": {"13_your_own_ct", "own_ct"}}


@pytest.mark.parametrize("name", LEFT_OUT)
def test_plan(raw, tmp_path, name):
    """run_all.sh --dry-run leaves out the notebook that is about the dataset, and nothing else."""
    data = without(raw, name, tmp_path / "raw")
    ran = plan(data, tmp_path)
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert f"{data} holds no {name}: there will be no {name} expert" in ran.stdout and ran.stdout.count("holds no") == 1
    planned = set(ran.stdout.split())
    every = {
        "01_the_data",
        "02_preparing_ct",
        "05_proposals",
        "08_cross_dataset_mining",
        "11_froc_and_table2",
        "table2",
    }
    every |= {f"04_training_lens-{experiment}" for experiment in experiments.available(False)}
    assert every | set().union(*LEFT_OUT.values()) - LEFT_OUT[name] <= planned
    assert not LEFT_OUT[name] & planned


def test_nothing_goes_without_deeplesion(raw, tmp_path):
    data = without(raw, "DeepLesion", tmp_path / "raw")
    ran = plan(data, tmp_path)
    assert ran.returncode == 2 and not ran.stdout
    assert ran.stderr.startswith(f"run_all.sh: {data} holds no DeepLesion, which every experiment learns from")
    assert not (tmp_path / "root").exists()


def test_deeplesion_alone_is_said(raw, tmp_path, capsys):
    alone = tmp_path / "raw"
    shutil.copytree(raw / "DeepLesion", alone / "DeepLesion")
    engine.check_datasets(alone)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[0].rsplit(" ", 1)[-1] for line in lines[:-1]] == list(NAMES[1:])
    assert "joint training is the same as single" in lines[-1]


def plan(data: Path, folder: Path) -> subprocess.CompletedProcess:
    environment = {**os.environ, "LENSNB_ROOT": str(folder / "root"), "LENSNB_DATA": str(data)}
    command = [sys.executable, "-m", "lensnb.run.engine", "--profile", PROFILE, "--dry-run"]
    return subprocess.run(
        command, cwd=runfolder.repository(), env=environment, capture_output=True, text=True, timeout=900
    )
