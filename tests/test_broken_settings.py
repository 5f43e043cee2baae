"""Settings, tables, notebook parameters and run_all.sh's options that are broken; the rows are like those of
test_broken_inputs.py."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from broken import (
    Malice,
    Place,
    change,
    cut_off,
    full_at,
    lits,
    no_damage,
    nothing,
    refused,
    remove,
    replaced,
    run,
    table,
    told,
    write,
)

from lensnb import files, settings
from lensnb.run import engine, notebook, options, targets
from lensnb.settings import FOLDER, load_profile
from lensnb.show.session import start

BINARY = b"\x89\xff\x00" * 99


# sound files


def profile_files(folder: Path) -> None:
    shutil.copytree(FOLDER, folder / "profiles", ignore=shutil.ignore_patterns("*.py", "__pycache__"))


def tables(folder: Path) -> None:
    rows = pd.DataFrame({"volume": ["a", "b"] * 50, "score": np.linspace(0, 1, 100)})
    files.write_table(rows, folder / "t.csv")
    files.write_table(rows, folder / "t.npz")
    files.write_json({"a": 1}, folder / "t.json")


def a_notebook(folder: Path) -> None:
    code = {"cell_type": "code", "metadata": {"tags": ["parameters"]}, "execution_count": None, "outputs": [],
            "source": 'profile = "phantom"\nseed = 0\nshare = 0.5\nflag = False'}  # fmt: skip
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    content = {"cells": [code], "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
    (folder / "n.ipynb").write_text(json.dumps(content))


# what breaks, and the calls that are no command


def setting(old: str, new: str):
    """Change a line of the smoke profile, or of the phantom profile where it is not in smoke's."""

    def replace(at: Place) -> None:
        own = at / "profiles/smoke.yml"
        change(own if old in own.read_text() else at / "profiles/phantom.yml", old, new)

    return replace


def load_changed(folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settings, "FOLDER", folder / "profiles")
        load_profile("smoke")


def parameters(**given: str):
    """What a step's notebook is called with, as StepError tells it."""

    def call(folder: Path) -> None:
        try:
            notebook.parameters(folder / "n.ipynb", "smoke", given)
        except notebook.StepError as error:
            raise ValueError(str(error)) from error

    return call


def run_all(*arguments: str):
    """run_all.sh, up to its planning."""

    def call(folder: Path) -> None:
        try:
            engine.make(options.parse([word.replace("{}", str(folder)) for word in arguments]))
        except targets.RunError as error:
            raise ValueError(str(error)) from error

    return call


def keep_variables(at: Place) -> None:
    """runner.make sets these; what is set here is put back after the case."""
    for variable in ("LENSNB_DATA", "PYTHONPATH"):
        at.patch.setenv(variable, os.environ.get(variable, ""))


def read(name: str, *columns: str):
    return lambda folder: files.read_table(folder / name, columns)


# fmt: off
CASES = [
    *table(
        "profile", profile_files, load_changed,
        ("missing", remove("profiles/smoke.yml"), refused("smoke.yml")),
        ("empty", write("profiles/smoke.yml", ""), refused("smoke.yml should hold sections")),
        ("broken YAML", write("profiles/smoke.yml", "seed: [0,\nphantom: {"), refused("smoke.yml is not valid YAML")),
        ("a number twice", write("profiles/smoke.yml", "base: phantom\ntraining:\n  threads: 1\n  threads: 2\n"),
         refused("smoke.yml is not valid YAML", "is there twice")),
        ("binary", write("profiles/smoke.yml", BINARY), refused("smoke.yml is not valid YAML")),
        ("a list", write("profiles/smoke.yml", "- 1\n- 2\n"), refused("smoke.yml should hold sections")),
        ("unknown key", setting("  warmup: 10", "  warmups: 10"),
         refused("profile smoke: training", "unknown ['warmups']")),
        ("unknown section", setting("fpr:\n", "fpr_:\n"), refused("profile smoke", "unknown ['fpr_']")),
        ("another base", setting("base: phantom", "base: fantom"),
         refused("base is 'fantom'; it must be another one of")),
        ("base of itself", setting("base: phantom", "base: smoke"),
         refused("base is 'smoke'; it must be another one of")),
        ("6e-3, a text in YAML", setting("learning_rate: 6.0e-3\n  schedule", "learning_rate: 6e-3\n  schedule"),
         refused("profile smoke: training: learning_rate is '6e-3'; it must be of type float")),
        ("part of a step", setting("iterations: 40 ", "iterations: 40.5 "), refused("iterations is 40.5", "type int")),
        ("a switch that is a text", setting("freeze_batch_norm: true", 'freeze_batch_norm: "false"'),
         refused("freeze_batch_norm is 'false'", "type bool")),
        ("one number instead of three", setting("spacing_mm: [3.0, 3.0, 4.0]", "spacing_mm: 3.0"),
         refused("grid: spacing_mm is 3.0", "must be a list of numbers")),
        ("a list with a word", setting("hu: [-1024, -200, 250, 1100]", "hu: [-1024, low, 250, 1100]"),
         refused("network: hu is", "list of numbers")),
        ("blank value", setting("theta: 0.5\n  score", "theta:\n  score"), refused("inference: theta is None")),
    ),
    *table("table", tables, read("t.csv"),
           ("missing", remove("t.csv"), refused("t.csv does not exist")),
           ("empty", write("t.csv", ""), refused("t.csv can not be read as a csv")),
           ("binary", write("t.csv", BINARY), refused("t.csv can not be read as text")),
           ("ragged rows", write("t.csv", "a,b\n1,2\n1,2,3\n"), refused("t.csv can not be read as a csv"))),
    *table("table", tables, read("t.csv", "volume", "x1"),
           ("column missing", no_damage, refused("t.csv has no column x1"))),
    *table("table", tables, read("t.xlsx"),
           ("of a spreadsheet", write("t.xlsx", BINARY), refused("t.xlsx", ".csv or .npz"))),
    *table("table, npz", tables, read("t.npz"),
           ("cut off", cut_off("t.npz"), refused("t.npz is no table")),
           ("a text", write("t.npz", "volume,score\n"), refused("t.npz is no table")),
           ("empty", write("t.npz", b""), refused("t.npz is no table")),
           ("other arrays", lambda at: np.savez(at / "t.npz", a=np.zeros(3)), refused("t.npz is no table", "columns")),
           ("a pickle that runs a program", lambda at: np.savez(at / "t.npz", columns=np.array([Malice()], object)),
            refused("t.npz is no table"))),
    *table("table", nothing, lambda folder: tables(folder),
           ("disk full at an npz", full_at("t.npz"), refused("t.npz", "No space left", status=1, keeps=("t.csv",)))),
    *table("JSON", tables, lambda folder: files.read_json(folder / "t.json"),
           ("cut off", cut_off("t.json"), refused("t.json is not valid JSON")),
           ("a list", write("t.json", "[1]"), refused("t.json should hold names and values"))),
    *table("notebook", a_notebook, parameters(sede="1"),
           ("unknown parameter", no_damage, refused("n: this notebook has no parameter 'sede'"))),
    *table("notebook", a_notebook, parameters(seed="one"),
           ("seed is a word", no_damage, refused("parameter seed is 'one'"))),
    *table("notebook", a_notebook, parameters(flag="1"),
           ("switch is a number", no_damage, refused("parameter flag is 1"))),
    *table("notebook", a_notebook, parameters(),
           ("default that is computed", replaced("n.ipynb", "share = 0.5", "share = 1 / len(dir())"),
            refused("n: parameter share is not a literal"))),
    *table("notebook", nothing, lambda folder: start("smoke", "0"),
           ("seed is a text, inside", no_damage, refused("parameter seed is '0'; it must be of type int"))),
    *table("run_all.sh", nothing, run_all("--data", "{}/none"),
           ("--data that does not exist", no_damage, told("there is no folder", "none", status=2))),
    *table("run_all.sh", tables, run_all("--data", "{}/t.csv"),
           ("--data is a file", no_damage, told("there is no folder", "t.csv", status=2))),
    *table("run_all.sh", nothing, run_all("--data", "{}/raw"),
           ("--data without a dataset", keep_variables, refused("raw holds none of DeepLesion"))),
    *table("run_all.sh", lits, run_all("--data", "{}/raw", "--profile", "smoke"),
           ("real data for phantoms", keep_variables, refused("--data", "--profile paper"))),
    *table("run_all.sh", nothing, run_all("--cores", "0"),
           ("no core", no_damage, told("0 is not a whole number", status=2))),
]
# fmt: on


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in CASES])
def test_broken_settings(case, tmp_path, monkeypatch):
    run(case, tmp_path, monkeypatch)


def test_the_rows_are_distinct():
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)
