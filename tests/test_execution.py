"""Steps that fail in every way known must say so; steps that succeed must leave what they declared."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest

from lensnb import runfolder
from lensnb.run import processes
from lensnb.settings import load_profile

PARAMETERS = 'profile = "phantom"\nseed = 0\nrate = 0.5\nlabel = "a"\n'


@pytest.fixture
def run_step(tmp_path, monkeypatch):
    """Write a notebook of these cells and run it as the Snakefile does; the exit status comes back."""
    monkeypatch.setenv("LENSNB_ROOT", str(tmp_path))
    runs = tmp_path / "data" / "runs" / "smoke"

    def run(*cells: str, expect: tuple[str, ...] = (), options: tuple[str, ...] = ()) -> int:
        source = write_notebook(tmp_path / "source.ipynb", *cells)
        command = [sys.executable, "-m", "lensnb.run.step", source, "--profile", "smoke"]
        command += ["--expect", *(runs / name for name in expect), "--output", runs / "out.ipynb", *options]
        run.result = subprocess.run(command, capture_output=True, text=True, timeout=100)
        print(run.result.stdout, run.result.stderr)  # seen when a test fails
        return run.result.returncode

    run.runs = runs
    run.failure = lambda: (runs / "failures" / "out.txt").read_text()
    return run


def write_notebook(path: Path, *cells: str) -> Path:
    kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
    notebook = nbformat.v4.new_notebook(metadata={"kernelspec": kernel})
    notebook.cells = [nbformat.v4.new_code_cell(PARAMETERS, metadata={"tags": ["parameters"]})]
    notebook.cells += [nbformat.v4.new_code_cell(cell) for cell in cells]
    nbformat.write(notebook, path)
    return path


WRITE = "from lensnb import runfolder\n(runfolder.runs(profile) / 'table.csv').write_text(f'{rate} {label}')"


def test_success(run_step):
    cells = ("print('iteration 1/2')\nprint('iteration 2/2')", WRITE, "import os; print(os.environ['OMP_NUM_THREADS'])")
    assert run_step(*cells, expect=("table.csv",), options=("-p", "rate", "2", "-p", "label", "2")) == 0
    assert (run_step.runs / "table.csv").read_text() == "2 2"  # a number for a number, text for text
    assert "[out] iteration 2/2\n" in run_step.result.stdout
    assert f"[out] {load_profile('smoke').training.threads}\n" in run_step.result.stdout
    assert "iteration 2/2" in (run_step.runs / "logs" / "out.log").read_text()
    executed = nbformat.read(run_step.runs / "out.ipynb", 4)
    assert executed.cells[1].source.endswith('label = "2"\n')
    assert not list((run_step.runs / "partial").glob("*.ipynb")) and not (run_step.runs / "failures").exists()


@pytest.mark.parametrize(
    ("cells", "options", "message"),
    [
        ((WRITE,), ("-p", "ratte", "1"), "has no parameter 'ratte'; it has profile, seed, rate, label"),
        ((WRITE,), ("-p", "rate", "fast"), "parameter rate is 'fast'; it must be like its default 0.5"),
        ((WRITE,), ("-p", "seed", "1.5"), "parameter seed is 1.5; its default is 0, another type"),
        (
            ("x = 1", "y = x\nassert y == 2, 'not two'", WRITE),
            (),
            "cell In [4] (assert y == 2, 'not two'): AssertionError: not two",
        ),
        (("x = 1", "# why\nraise ValueError('bad\\nnumber')", WRITE), (), "cell In [4] (raise ValueError"),
        ((f"{WRITE}\nimport os; os.kill(os.getpid(), 9)", "1"), (), "its kernel died"),
        ((f"{WRITE}\nimport sys; sys.exit(0)", "1"), (), "stopped here without an error"),
        ((f"{WRITE}\nimport os; os._exit(0)", "1"), (), "its kernel died"),
        ((f"{WRITE}\nimport time; time.sleep(60)",), ("--timeout", "2"), "took longer than 2 s"),
        (("1 + 1",), (), "ran to its end but did not write table.csv"),
    ],
    ids=[
        "unknown",
        "mistyped",
        "float for int",
        "failing line",
        "error",
        "killed",
        "exit",
        "hard exit",
        "timeout",
        "nothing written",
    ],
)
def test_failure(run_step, cells, options, message):
    run_step.runs.mkdir(parents=True)
    (run_step.runs / "out.ipynb").write_text("of an earlier run")
    assert run_step(*cells, expect=("table.csv",), options=options) == 1
    assert message in run_step.failure() and len(run_step.failure().splitlines()) == 1
    assert f"[out] FAILED: {run_step.failure()}" in run_step.result.stdout
    if "parameter" not in message:  # those are found before anything starts
        assert not (run_step.runs / "out.ipynb").exists()
        assert (run_step.runs / "failures" / "out.ipynb").exists()


def test_a_failure_is_forgotten_when_the_step_succeeds(run_step):
    assert run_step("raise ValueError('x')") == 1
    assert run_step("1") == 0
    assert not (run_step.runs / "failures" / "out.txt").exists()
    assert not (run_step.runs / "failures" / "out.ipynb").exists()


def test_command(tmp_path, monkeypatch):
    monkeypatch.setenv("LENSNB_ROOT", str(tmp_path))
    command = [sys.executable, "-m", "lensnb.run.step", "listing", "--profile", "smoke", "--expect"]
    module = ["--module", "json.tool", tmp_path / "in.json"]
    (tmp_path / "in.json").write_text("{}")
    assert subprocess.run([*command, tmp_path / "out.json", *module, tmp_path / "out.json"]).returncode == 0
    failed = subprocess.run([*command, tmp_path / "other", *module, tmp_path / "out.json"], capture_output=True)
    assert b"did not write other" in failed.stdout
    (tmp_path / "in.json").write_text("{")
    failed = subprocess.run([*command, tmp_path / "out.json", *module, tmp_path / "out.json"], capture_output=True)
    assert failed.returncode == 1 and b"FAILED: listing: python -m json.tool" in failed.stdout


def test_nothing_stays_at_work_when_the_owner_is_killed(tmp_path, monkeypatch):
    """kill -9 on run_all.sh: the step ends itself, its kernel and what the kernel started."""
    monkeypatch.setenv("LENSNB_ROOT", str(tmp_path))
    runs = tmp_path / "data" / "runs" / "smoke"
    marker = runs / "helper.pid"
    busy = (
        "import subprocess, time\nfrom lensnb import runfolder\nhelper = subprocess.Popen(['sleep', '300'])\n"
        "(runfolder.runs(profile) / 'helper.pid').write_text(str(helper.pid))\ntime.sleep(300)"
    )
    source = write_notebook(tmp_path / "source.ipynb", busy)
    owner = subprocess.Popen(["sleep", "300"])
    try:
        monkeypatch.setenv(processes.OWNER, processes.identity(owner.pid))
        command = [
            sys.executable,
            "-m",
            "lensnb.run.step",
            source,
            "--profile",
            "smoke",
            "--output",
            runs / "out.ipynb",
        ]
        step = subprocess.Popen(command)
        wait_until(lambda: marker.exists() and marker.read_text())
        helper, kernel = int(marker.read_text()), psutil.Process(step.pid).children()
        assert len(kernel) == 1
    finally:
        owner.kill()
    assert step.wait(timeout=20) != 0
    wait_until(lambda: not working(helper) and not kernel[0].is_running())


def test_orphans_of_a_killed_step_are_ended_by_the_next_start(tmp_path, monkeypatch):
    monkeypatch.setenv("LENSNB_ROOT", str(tmp_path))
    runs = tmp_path / "data" / "runs" / "smoke"
    mine = {processes.FOLDER: str(runs), processes.OWNER: processes.identity()}
    with subprocess.Popen(["sleep", "0.01"]) as gone:
        dead = processes.identity(gone.pid)
    orphan = subprocess.Popen(["sleep", "300"], env={**os.environ, **mine, processes.JOB: dead})
    elsewhere = subprocess.Popen(["sleep", "300"], env={**os.environ, processes.OWNER: dead, processes.FOLDER: "other"})
    busy = subprocess.Popen(["sleep", "300"], env={**os.environ, **mine})
    try:
        assert processes.end_abandoned(runs) == 1
        assert [working(p.pid) for p in (orphan, elsewhere, busy)] == [False, True, True]
    finally:
        for process in (orphan, elsewhere, busy):
            process.kill()
            process.wait()


def test_lock_waits_for_its_holder_and_outlives_no_kill(tmp_path, capsys):
    path = tmp_path / "lock"
    imports = "import time, pathlib\nfrom lensnb.run.processes import lock\n"
    code = f"{imports}with lock(pathlib.Path({str(path)!r}), ''): time.sleep(300)"
    holder = subprocess.Popen([sys.executable, "-c", code])
    wait_until(lambda: path.exists() and path.read_text())
    threading_kill = subprocess.Popen(
        [sys.executable, "-c", f"import os, time; time.sleep(1); os.kill({holder.pid}, 9)"]
    )
    with processes.lock(path, "waiting for {holder}"):
        assert holder.wait(timeout=10) == -signal.SIGKILL
    threading_kill.wait()
    assert f"waiting for {holder.pid}@" in capsys.readouterr().out


def test_identity_is_no_mere_number():
    number, started, machine = processes.identity().split("@")
    assert processes.alive(f"{number}@{started}@{machine}")
    assert not processes.alive(f"{number}@{float(started) - 1000:.0f}@{machine}")
    assert processes.alive(f"{number}@{started}@another machine")
    assert not processes.alive("")


def test_leftovers_of_what_is_made_go(tmp_path):
    table, weights = tmp_path / "p" / "multi-val.npz", tmp_path / "r" / "weights.safetensors"
    leftovers = [
        tmp_path / "r" / "checkpoint.pt",
        runfolder.part_of(table, "abc", 64),
        runfolder.part_of(table, "d", 0),
    ]
    other = runfolder.part_of(tmp_path / "p" / "multi-test.npz", "abc", 64)
    for path in (*leftovers, other, table, weights):
        path.parent.mkdir(exist_ok=True)
        path.touch()
    runfolder.remove_leftovers([table, weights])
    assert [path.exists() for path in (*leftovers, other, table, weights)] == [False] * 3 + [True] * 3


def wait_until(condition, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)


def working(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
