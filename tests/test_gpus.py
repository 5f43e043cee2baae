"""Steps that share the GPUs of a machine: each takes one for itself. No GPU is needed to see it."""

import subprocess
import sys

import pytest

from lensnb import runfolder
from lensnb.run import engine, gpus, story

HOLD = (
    "import os, sys, time\nfrom lensnb.run.gpus import own_gpu\n"
    "with own_gpu(lambda line: print(line, flush=True)):\n"
    "    print(os.environ.get('CUDA_VISIBLE_DEVICES', 'none'), flush=True)\n    sys.stdin.readline()"
)


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Start a process that holds a GPU until it reads a line, and return it."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    started = []

    def begin() -> subprocess.Popen:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen([sys.executable, "-c", HOLD], cwd=runfolder.repository(), **pipes))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def test_two_steps_get_different_gpus_and_a_third_waits(start, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-5f3a")
    first, second = start(), None
    assert first.stdout.readline() == "2\n"
    second = start()
    assert second.stdout.readline() == "GPU-5f3a\n"
    third = start()
    assert third.stdout.readline().startswith(f"all GPUs are taken, one by process {first.pid}@")
    second.kill()  # -9: the lock goes with it
    assert third.stdout.readline() == "GPU-5f3a\n"
    third.communicate("\n")
    assert third.returncode == 0


def test_without_a_gpu_nothing_changes(start, tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(gpus, "DEVICES", tmp_path)
    assert gpus.visible() == [] and engine.gpu_limit() == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert [start().stdout.readline() for _ in range(2)] == ["\n", "\n"]


def test_gpus_are_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(gpus, "DEVICES", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for name in ("nvidia0", "nvidia3", "nvidiactl", "nvidia-uvm", "null"):
        (tmp_path / name).touch()
    assert gpus.visible() == ["0", "1"]  # CUDA counts what it finds, whatever the files are called
    assert engine.gpu_limit() == ["--resources", "gpu=2"]
    for named, found in (("3", ["3"]), ("1, 0", ["1", "0"]), ("-1", []), ("0,-1,1", ["0"]), ("", [])):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
        assert gpus.visible() == found


def test_every_step_that_trains_or_detects_takes_a_gpu():
    taking = {step.name for step in story.steps("smoke") if step.gpu}
    assert {"pretext", "lesanet", "embedding", "04_training_lens-multi", "05_proposals"} <= taking
    assert {"10_false_positive_reduction", "12_luna16_cpm", "13_your_own_ct", "15_lesanet"} <= taking
    assert not {"01_the_data", "02_preparing_ct", "11_froc_and_table2"} & taking
