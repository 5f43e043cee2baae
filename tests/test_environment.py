"""Setting up: run_all.sh's arguments, and which environment is good enough."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lensnb import runfolder
from lensnb.run import engine, environment, options

ROOT = runfolder.repository()


def test_requirements_pin_everything():
    pins = environment.pins(environment.REQUIREMENTS.read_text())
    assert {"torch", "numpy", "papermill", "snakemake", "pytest"} <= set(pins)
    assert not [name for name in pins if name.startswith(("nvidia", "cuda", "triton"))]  # torch's own choice
    with pytest.raises(ValueError, match="'numpy>=2' pins no version"):
        environment.pins("torch==2.11.0  # why\nnumpy>=2\n")


def test_this_environment_meets_the_pins_and_another_does_not(tmp_path, monkeypatch):
    assert environment.unmet() == []
    monkeypatch.setattr(environment, "REQUIREMENTS", tmp_path / "requirements.txt")
    (tmp_path / "requirements.txt").write_text("# only\nnumpy==0.1\nno-such-package==1\n")
    old, absent = environment.unmet()
    assert old.startswith("numpy ") and old.endswith(" instead of 0.1")
    assert absent == "no-such-package absent instead of 1"


def test_an_active_environment_is_used_only_if_it_fits(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("CONDA_PREFIX", raising=False)
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)
    assert environment.active() is None
    monkeypatch.setenv("VIRTUAL_ENV", sys.prefix)
    monkeypatch.setattr(environment, "VENV", tmp_path / ".venv")
    assert environment.active() == Path(sys.prefix) / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "bare"], check=True)
    monkeypatch.setenv("VIRTUAL_ENV", str(tmp_path / "bare"))
    assert environment.active() is None
    assert "absent instead of" in capsys.readouterr().out
    monkeypatch.setenv("VIRTUAL_ENV", str(tmp_path / "nothing"))
    assert environment.active() is None
    assert "cannot be used" in capsys.readouterr().out


def test_an_interrupted_or_outdated_installation_is_not_complete(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "VENV", Path(sys.prefix))
    monkeypatch.setattr(environment, "STAMP", tmp_path / "installed.txt")
    assert not environment.complete()
    environment.STAMP.write_text(environment.stamp())
    assert environment.complete()
    monkeypatch.setattr(environment, "VENV", tmp_path)
    assert not environment.complete()
    monkeypatch.setattr(environment, "VENV", Path(sys.prefix))
    monkeypatch.setattr(environment, "REQUIREMENTS", tmp_path / "requirements.txt")
    (tmp_path / "requirements.txt").write_text("numpy==9\n")
    assert not environment.complete()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--prof=smoke"], "unrecognized arguments: --prof=smoke"),
        (["--profile", "huge"], "invalid choice: 'huge' (choose from "),
        (["--cores", "0"], "0 is not a whole number of at least 1"),
        (["--data", "no/such"], "there is no folder no/such"),
        (["tset"], "invalid choice: 'tset'"),
        (["publish", "--cores", "2"], "publish takes no options"),
    ],
)
def test_wrong_arguments_end_with_status_2_before_anything_is_installed(arguments, message):
    result = run_all(*arguments)
    assert result.returncode == 2 and message in result.stderr
    assert result.stdout == ""


def test_help_names_every_option():
    result = run_all("--help")
    assert result.returncode == 0
    for word in ("--profile", "--only", "--cores", "--data", "--dry-run", "--list", "publish", "test"):
        assert word in result.stdout


def test_defaults():
    asked = options.parse([])
    assert (asked.command, asked.profile, asked.only, asked.dry_run) == ("run", None, None, False)
    assert asked.cores >= 1
    assert options.parse(["test", "-k", "froc"]).rest == ["-k", "froc"]


PYTHON = """#!/bin/sh
[ "$2" = -c ] || [ "$3" = -c ] && { printf '%s' "SAYS"; exit STATUS; }
"""


@pytest.mark.parametrize(
    ("pythons", "message"),
    [
        ({}, "found none on the PATH"),
        ({"python3.11": ("pyenv: not found", 127), "python3.12": ("", 127)}, "found none on the PATH"),
        (
            {"python3.11": ("3.11.2 without pip", 1), "python3": ("3.14.1", 1)},
            "found python3.11 (3.11.2 without pip), python3 (3.14.1)",
        ),
        ({"python3.13": ("", 139)}, "found python3.13 (does not start)"),
        ({"python": ("2.7.18", 1)}, "found python (2.7.18)"),
        ({"python3.10": ("3.10.13", 1)}, "found python3.10 (3.10.13)"),
    ],
    ids=["none", "pyenv's names", "pip and too new", "crashes", "Python 2", "too old"],
)
@pytest.mark.parametrize("shell", ["sh", "bash", None])
def test_what_was_found_is_said(tmp_path, shell, pythons, message):
    for tool in ("sh", "bash", "dirname", "env"):
        (tmp_path / tool).symlink_to(shutil.which(tool))
    for name, (says, status) in pythons.items():
        (tmp_path / name).write_text(PYTHON.replace("SAYS", says).replace("STATUS", str(status)))
        (tmp_path / name).chmod(0o755)
    command = [*([shell] if shell else []), ROOT / "run_all.sh"]
    result = subprocess.run(command, env={"PATH": str(tmp_path)}, capture_output=True, text=True)
    assert result.returncode == 1 and result.stdout == ""
    assert result.stderr == (
        f"run_all.sh: needs Python 3.11, 3.12 or 3.13 with pip; {message}. "
        "Install one, or activate an environment that has it.\n"
    )


def run_all(*arguments: str) -> subprocess.CompletedProcess:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environ = {key: value for key, value in os.environ.items() if key not in ("VIRTUAL_ENV", "CONDA_PREFIX")}
    command = [ROOT / "run_all.sh", *arguments]
    return subprocess.run(command, env={**environ, "PATH": path}, capture_output=True, text=True, timeout=60)


def test_tests_share_the_cores_unless_told_otherwise(monkeypatch):
    called = []
    monkeypatch.setattr(os, "execve", lambda program, arguments, variables: called.append((arguments, variables)))
    monkeypatch.setattr(os, "chdir", lambda folder: None)
    monkeypatch.setattr(engine, "available_cores", lambda: 2)
    engine.main(["test", "-n", "0", "-k", "froc"])
    ((command, variables),) = called
    assert command[1:] == ["-m", "pytest", "-n", "2", "--dist", "loadscope", "-n", "0", "-k", "froc"]
    assert variables["OMP_NUM_THREADS"] == "1"
