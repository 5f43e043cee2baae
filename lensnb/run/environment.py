"""Sets up the Python environment for run_all.sh, then hands over to the runner. Uses the standard library only.

An active virtual or conda environment is used if it holds the versions of requirements.txt; else .venv is made beside
this package. A stamp written last says that .venv is complete: an interrupted installation is done again.
"""

import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from lensnb.run import checks, ending, options

OLDEST, NEWEST = (3, 11), (3, 13)  # run_all.sh and pyproject.toml say the same; tests/test_pins.py compares them
REPOSITORY = Path(__file__).resolve().parents[2]
REQUIREMENTS = REPOSITORY / "requirements.txt"
VENV = REPOSITORY / ".venv"
STAMP = VENV / "installed.txt"


def pins(text: str) -> dict[str, str]:
    """The `name==version` lines of a requirements file; ValueError for a line that pins no version."""
    found = {}
    for line in text.splitlines():
        line = line.split("#")[0].strip()
        if line:
            name, separator, version = line.partition("==")
            if not separator:
                raise ValueError(f"requirements.txt: {line!r} pins no version")
            found[name] = version
    return found


def unmet() -> list[str]:
    """The pinned packages that the running interpreter has not, or in another version, each with what it has."""
    differences = []
    for name, version in pins(REQUIREMENTS.read_text()).items():
        try:
            installed = metadata.version(name).split("+")[0]  # torch says 2.11.0+cpu for a build without CUDA
        except metadata.PackageNotFoundError:
            installed = "absent"
        if installed != version:
            differences.append(f"{name} {installed} instead of {version}")
    return differences


def python_of(folder: Path) -> Path:
    """The interpreter of a virtual or conda environment."""
    return folder / "bin" / "python"


def active() -> Path | None:
    """The interpreter of the active environment if it is suitable; prints why not if it is not."""
    folder = os.environ.get("VIRTUAL_ENV") or os.environ.get("CONDA_PREFIX")
    if not folder or Path(folder).resolve() == VENV.resolve():
        return None
    check = (
        "import sys; from lensnb.run.environment import NEWEST, OLDEST, unmet;"
        "bad = [] if OLDEST <= sys.version_info[:2] <= NEWEST else ['Python %d.%d' % sys.version_info[:2]];"
        "print('; '.join((bad or unmet())[:3]))"
    )
    python = python_of(Path(folder))
    try:
        result = subprocess.run([python, "-c", check], capture_output=True, text=True)
    except OSError as error:
        ending.say(f"The active environment cannot be used ({error}); using .venv.")
        return None
    difference = result.stdout.strip() or (result.stderr.strip().splitlines() or [""])[-1]
    if difference:
        ending.say(f"The active environment {folder} has {difference}; using .venv.")
        return None
    return python


def stamp() -> str:
    """What .venv must have been made from: the pinned versions, at this place (a moved .venv does not work)."""
    return f"{hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()} {REPOSITORY}\n"


def complete() -> bool:
    """Whether .venv was installed to its end from the present requirements and its Python still starts."""
    try:
        if STAMP.read_text() != stamp():
            return False
        return not subprocess.run([python_of(VENV), "-c", ""], stderr=subprocess.DEVNULL).returncode
    except (OSError, ValueError):
        return False


def install() -> Path:
    """Make .venv unless it is complete; return its interpreter.

    RuntimeError says why pip failed. A complete one is used also where nothing can be written.
    """
    if complete():
        return python_of(VENV)
    try:
        opened = (REPOSITORY / ".venv.lock").open("w")
    except OSError as error:
        raise ending.Refused(
            f"{ending.line_of(error)}, and .venv belongs there; or activate an environment that has the versions of "
            "requirements.txt"
        ) from error
    with opened as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            ending.say("Waiting for another installation into .venv to end.")
            fcntl.flock(lock, fcntl.LOCK_EX)
        if not complete():
            ending.say(f"Installing the packages of requirements.txt into {VENV} (some minutes).")
            shutil.rmtree(VENV, ignore_errors=True)
            # pip inherits the lock: if this process is killed, the next start waits until its pip has ended
            _create(lock.fileno())
            pip = [python_of(VENV), "-m", "pip", "--disable-pip-version-check"]
            _call([*pip, "install", "--quiet", "-r", REQUIREMENTS], lock.fileno())
            _call([*pip, "install", "--quiet", "--no-deps", "--no-build-isolation", "-e", REPOSITORY], lock.fileno())
            STAMP.write_text(stamp())
    return python_of(VENV)


def _create(lock: int) -> None:
    base = getattr(sys, "_base_executable", sys.executable)  # never .venv's own Python, which may be running this
    made = subprocess.run([base, "-m", "venv", VENV], pass_fds=[lock], capture_output=True, text=True)
    if made.returncode:
        # Debian and Ubuntu keep a part of venv in a package of its own; pip can do without that part
        shutil.rmtree(VENV, ignore_errors=True)
        _call([base, "-m", "venv", "--without-pip", VENV], lock)
        _call([base, "-m", "pip", "--python", python_of(VENV), "install", "--quiet", "pip"], lock)


def _call(command: list, lock: int) -> None:
    """Do a part of the installation; RuntimeError says why if it fails. It ends when this process is told to."""
    lines = []
    # a session of its own: Ctrl-C reaches only this process, and no other shows where it was interrupted
    with subprocess.Popen(
        command, pass_fds=[lock], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, errors="replace", start_new_session=True,
    ) as process:  # fmt: skip
        try:
            for line in process.stdout:
                lines.append(line)
                if line.startswith("WARNING:"):  # as when the network is slow
                    ending.say(line.rstrip())
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    if process.returncode:
        errors = [line for line in lines if line.startswith("ERROR:")]
        why = errors[-1].removeprefix("ERROR:") if errors else ending.reason("".join(lines))
        if os.environ.get(ending.SHOW):
            sys.stderr.writelines(lines)
        done = " ".join(map(str, command))
        raise RuntimeError(f"setting up .venv failed: {done} ended with {process.returncode}: {why.strip()}")


def main(arguments: Sequence[str]) -> None:
    """Check the arguments, find or make the environment, and become the runner in it."""
    ending.answer_signals()
    options.parse(arguments)
    checks.check_names()
    python = active() or install()
    # the tools of this environment come first for whatever the notebooks start
    os.environ["PATH"] = f"{python.parent}{os.pathsep}{os.environ.get('PATH', '')}"
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # until `start` can answer it
    os.execv(python, [str(python), "-m", "lensnb.run.start", "engine", *arguments])
