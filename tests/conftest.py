"""What the tests share."""

import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from small_store import write_store
from xdist.scheduler import LoadScopeScheduling

from lensnb import runfolder
from lensnb.datasets.store import Store

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


LONGEST = ("chain", "test_paper_profile.py")  # begun first, so that no process works on alone at the end


def group_of(nodeid: str) -> str:
    """Which tests one process does: those of a file, and those of both files that look at the chain."""
    file = nodeid.split("::")[0].rpartition("/")[2]
    return "chain" if file in ("test_chain.py", "test_notebooks.py") else file


class ByGroup(LoadScopeScheduling):
    """Hands out whole groups. xdist's own way, marks, has no effect with this pytest."""

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> ByGroup:
    """How several processes share the tests."""
    return ByGroup(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest groups first; within a group tests stay in their order."""
    groups = {item: group_of(item.nodeid) for item in items}
    items.sort(key=lambda item: LONGEST.index(groups[item]) if groups[item] in LONGEST else len(LONGEST))


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
    """The chain's files after a start that was killed, a start whose kernel was killed, and one left alone."""
    made = Chain(tmp_path_factory.mktemp("chain"))
    made.start(kill="run", at="multi-mined-seed0: iteration 42/60")  # past its last checkpoint but one
    made.start(kill="kernel", at="fpr: iteration")
    made.start()
    if made.starts[-1].returncode:
        pytest.fail("\n".join(made.starts[-1].stdout.splitlines()[-30:]))
    return made


@pytest.fixture(autouse=True)
def not_by_hand():
    """A notebook's set-up cell that a test executes in this process leaves the next test where it was."""
    os.environ.pop(runfolder.BY_HAND, None)
    yield
    os.environ.pop(runfolder.BY_HAND, None)


@pytest.fixture
def tiny_store(tmp_path, monkeypatch) -> Store:
    """Two volumes of every dataset with one bright lesion each, in a data folder of their own."""
    monkeypatch.setenv("LENSNB_ROOT", str(tmp_path))
    return write_store(runfolder.prepared("smoke"))
