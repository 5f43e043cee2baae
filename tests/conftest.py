"""What the tests share."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import pytest
from filelock import FileLock
from small_store import write_organ_scans, write_store
from xdist.scheduler import LoadFileScheduling

from lensnb import runfolder
from lensnb.datasets.store import Store

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


# the chain is begun first, as it takes longest, and what goes on from its files last: it needs them ready
FIRST, LAST = ("test_chain.py", "test_paper_profile.py"), ("test_after_the_chain.py", "test_notebooks.py")


def place_of(file: str) -> int:
    """Where a file's tests stand in the order in which they are begun."""
    if file in LAST:
        return len(FIRST) + 1 + LAST.index(file)
    return FIRST.index(file) if file in FIRST else len(FIRST)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> LoadFileScheduling:
    """How several processes share the tests: whole files, in the order in which they stand, not the largest first."""
    config.option.loadscopereorder = False
    return LoadFileScheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files in the order in which they are begun; within a file tests stay in their order."""
    items.sort(key=lambda item: place_of(item.path.name))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real and golden files; a clone elsewhere has none, and the tests that need it are skipped."""
    if not SHARED.is_dir():
        pytest.skip(f"the real test files ({SHARED.name}) are not beside this repository")
    return SHARED


@dataclass
class Chain:
    """The whole chain at the smoke profile in a folder of its own, and how each start of it went."""

    root: Path
    starts: list[subprocess.CompletedProcess] = field(default_factory=list)

    @property
    def runs(self) -> Path:
        return self.root / "data" / "runs" / "smoke"

    @property
    def figures(self) -> Path:
        return self.root / "figures" / "smoke"

    def times(self) -> dict[Path, int]:
        """When each result was written."""
        results = [*self.figures.iterdir(), *self.runs.glob("*.ipynb"), *self.runs.glob("experiments/*/*")]
        return {path: path.stat().st_mtime_ns for path in results}

    def start(self, *options: str, kill: str = "", at: str = "") -> subprocess.CompletedProcess:
        """Call run_all.sh's runner; kill -9 the "run" or a "kernel" when a line that holds `at` appears."""
        command = [sys.executable, "-m", "lensnb.run.engine", "--profile", "smoke", *options]
        environment = {**os.environ, "LENSNB_ROOT": str(self.root), "PYTHONPATH": str(runfolder.repository())}
        environment.pop("LENSNB_DATA", None)
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        limit = threading.Timer(1200, process.kill)
        limit.start()
        lines = []
        for line in process.stdout:
            lines.append(line)
            if kill and at in line:
                step = line.split("]")[0].lstrip("[")
                victim = process.pid if kill == "run" else kernel_of(step, process.pid)
                os.kill(victim, signal.SIGKILL)
                if kill == "run":
                    break  # what it started is still at work
                kill = ""
        limit.cancel()
        process.stdout.close()
        result = subprocess.CompletedProcess(command, process.wait(), "".join(lines))
        self.starts.append(result)
        return result


def plain_papermill(notebook: Path, *arguments: str | Path, **environment: str) -> subprocess.CompletedProcess:
    """Run papermill on a notebook as a reader does, from the notebook's folder.

    Two kernels that start together can pick the same port, so one that died before it said anything is started again.
    """
    command = [sys.executable, "-m", "papermill", notebook, *arguments]
    for _ in range(3):
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=notebook.parent, env={**os.environ, **environment}
        )
        if "Kernel died before replying" not in done.stderr:
            break
    return done


def kernel_of(step: str, runner: int) -> int:
    """The process of the kernel that executes a step."""
    for process in psutil.Process(runner).children(recursive=True):
        words = process.cmdline() if process.status() != psutil.STATUS_ZOMBIE else []
        if "lensnb.run.step" in words and any(word.startswith(step) for word in words):
            kernels = [child for child in process.children() if "ipykernel_launcher" in " ".join(child.cmdline())]
            if kernels:
                return kernels[0].pid
    raise AssertionError(f"no kernel of {step} is running")


@pytest.fixture(scope="session")
def chain(tmp_path_factory) -> Chain:
    """The chain's files after a start that was killed, a start whose kernel was killed, and one left alone.

    Where several processes share the tests, the first one that needs the chain makes it, and works on in its folder;
    the others wait for that and get a copy each, so that none sees what the others' tests do.
    """
    shared, worker = tmp_path_factory.getbasetemp(), os.environ.get("PYTEST_XDIST_WORKER", "")
    if worker:
        shared = shared.parent
    untouched, starts = shared / "chain-untouched", shared / "chain-starts.json"
    made = Chain(shared / f"chain{worker}")
    with FileLock(shared / "chain.lock"):
        if not starts.exists():
            made.root.mkdir()
            made.start(kill="run", at="multi-mined-seed0: iteration 42/60")  # past its last checkpoint but one
            made.start(kill="kernel", at="fpr: iteration")
            made.start()
            shutil.copytree(made.root, untouched, symlinks=True)
            starts.write_text(json.dumps([[start.returncode, start.stdout] for start in made.starts]))
        else:
            shutil.copytree(untouched, made.root, symlinks=True)
            made.starts += [subprocess.CompletedProcess([], *start) for start in json.loads(starts.read_text())]
    if made.starts[-1].returncode:
        pytest.fail("\n".join(made.starts[-1].stdout.splitlines()[-30:]))
    return made


@pytest.fixture(autouse=True)
def not_by_hand():
    """A notebook's set-up cell that a test executes in this process leaves the next test where it was."""
    os.environ.pop(runfolder.BY_HAND, None)
    yield
    os.environ.pop(runfolder.BY_HAND, None)


def box(x1: float, y1: float, x2: float, y2: float, **more: object) -> dict:
    """A row of a table of boxes to draw."""
    return {"x1": x1, "y1": y1, "x2": x2, "y2": y2, **more}


@pytest.fixture
def slice_hu() -> np.ndarray:
    """A slice to draw on: a rectangle of soft tissue in air."""
    hu = np.full((40, 60), -1000.0)
    hu[10:30, 10:50] = 40
    return hu


@pytest.fixture
def tiny_store(tmp_path, monkeypatch) -> Store:
    """Two volumes of every dataset with one bright lesion each, and scans with organs, in their own folder."""
    monkeypatch.setenv("LENSNB_ROOT", str(tmp_path))
    write_organ_scans(runfolder.phantom("smoke") / "pretext")
    return write_store(runfolder.prepared("smoke"))
