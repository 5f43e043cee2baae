"""Whatever stands in the way of run_all.sh ends in one true line before anything starts, and never in a traceback."""

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lensnb import runfolder, settings
from lensnb.run import checks, ending, engine, environment, notebook

ROOT = runfolder.repository()
DRY = ("--profile", "smoke", "--dry-run")
DIGITS = "9" * 300


@pytest.fixture
def start(tmp_path, monkeypatch, capfd):
    """Call the engine in this process; its exit status and what it printed come back."""
    monkeypatch.setenv("LENSNB_ROOT", str(tmp_path / "root"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.delenv("LENSNB_DATA", raising=False)
    monkeypatch.delenv(ending.SHOW, raising=False)

    def call(*arguments: str) -> tuple[int, str]:
        try:
            status = engine.main(arguments)
        except SystemExit as left:
            status = left.code
        output, error = capfd.readouterr()
        assert "Traceback" not in output + error
        return status, error

    return call


def in_shell(script: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
    """Run a line of shell; $0 is run_all.sh's engine as `start` calls it, in this Python."""
    known = {
        "PYTHONPATH": str(ROOT),
        "PYTHONUTF8": "1",
        "PYTHONUNBUFFERED": "",
        "PYTHON": sys.executable,
        "CHECKOUT": str(ROOT),
    }
    environ = {**os.environ, **known, **variables}
    result = subprocess.run(["sh", "-c", script, *arguments], env=environ, capture_output=True, text=True, timeout=60)
    assert "Traceback" not in result.stdout + result.stderr
    return result


ENGINE = '"$PYTHON" -m lensnb.run.start engine'


# names


@pytest.mark.parametrize("name", ["new\nline", "a\ttab"])
@pytest.mark.parametrize("what", ["LENSNB_ROOT", "the checkout"])
def test_names_that_cannot_work_are_refused(name, what, start, tmp_path, monkeypatch):
    if what == "LENSNB_ROOT":
        monkeypatch.setenv("LENSNB_ROOT", str(tmp_path / name))
    else:
        monkeypatch.setattr(checks, "repository", lambda: tmp_path / name)
    status, error = start(*DRY)
    assert status == 2 and error.startswith(f"run_all.sh: {what} lies in ") and error.count("\n") == 1
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize(
    "name",
    ["it's a", 'quo"te', "back\\slash", "glob*?[a]", "per%s", "dol$HOME", "中é", "-rf", "a:b", "br{aces", "x}", "<x>"],
)
def test_other_names_are_admitted(name, tmp_path, monkeypatch):
    monkeypatch.setenv("LENSNB_ROOT", str(tmp_path / name))
    checks.check_names()


def test_strange_names_work(tmp_path):
    """A notebook is executed in a folder with all of these in its name."""
    root = tmp_path / '-it\'s "a" b\\c *?[d] {e} <f> %s $HOME $(touch g) ;&| ~#=,! 中é a:b'
    command = f"{ENGINE} --profile smoke --only 00_start_here"
    result = in_shell(command, PYTHON=sys.executable, PYTHONPATH=str(ROOT), LENSNB_ROOT=str(root))
    assert result.returncode == 0 and "All 2 targets are made" in result.stdout, result.stdout + result.stderr
    assert (root / "figures" / "smoke" / "fig2.png").exists() and not list(tmp_path.rglob("g"))


def test_a_name_that_is_not_utf8(start, tmp_path, monkeypatch):
    monkeypatch.setenv("LENSNB_ROOT", os.fsdecode(os.fsencode(tmp_path) + b"/latin\xe9"))
    status, error = start(*DRY)
    assert status == 2 and "whose name is not UTF-8" in error


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("co:lon", "has a colon in its name, which PYTHONPATH and PATH cannot hold"),
        ("br{aces}", "invalid choice: 'huge'"),  # this one works: the arguments are read
        ("end\n", "a name with '\\n' cannot be passed on"),
        ("-x y", "invalid choice: 'huge'"),  # and this
    ],
)
def test_the_checkout_lies_in_a_strange_folder(name, message, tmp_path):
    place = tmp_path / name
    (place / "lensnb").mkdir(parents=True)
    shutil.copy(ROOT / "run_all.sh", place)
    shutil.copy(ROOT / "requirements.txt", place)
    for file in [*(ROOT / "lensnb").glob("*.py"), *(ROOT / "lensnb" / "run").glob("*.py")]:
        copy = place / file.relative_to(ROOT)
        copy.parent.mkdir(exist_ok=True)
        shutil.copy(file, copy)
    shutil.copytree(ROOT / "lensnb" / "profiles", place / "lensnb" / "profiles")
    arguments = ["--profile", "huge"] if "huge" in message else ["--list"]
    result = in_shell('PATH="$BIN:$PATH"; cd "$PLACE" && exec sh run_all.sh "$@"', "sh", *arguments,
                      PLACE=str(place), BIN=str(Path(sys.executable).parent), LENSNB_ROOT="")  # fmt: skip
    assert result.returncode in (1, 2) and message in result.stderr and result.stdout == ""


def test_a_copy_of_run_all_alone_says_what_is_wrong(tmp_path):
    shutil.copy(ROOT / "run_all.sh", tmp_path)
    result = in_shell('sh "$PLACE/run_all.sh"', PLACE=str(tmp_path))
    assert result.returncode == 1 and "call it by its place beside lensnb/" in result.stderr


# places


@pytest.mark.parametrize(
    ("file", "message"),
    [("root", "root is not a folder"), ("root/data", "data is not a folder"),
     ("root/figures", "figures is not a folder"), ("root/data/runs", "runs is not a folder"),
     ("root/data/prepared", "prepared is not a folder")],
)  # fmt: skip
def test_a_file_where_a_folder_belongs(file, message, start, tmp_path):
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).touch()
    status, error = start(*DRY)
    assert status == 2 and message in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("code", "message"),
    [(errno.ENOSPC, "No space left on device (make room and start again)"), (errno.EROFS, "Read-only file system"),
     (errno.EACCES, "Permission denied"),
     (errno.EFBIG, "File too large (a limit forbids larger files; see `ulimit -f`)")],
)  # fmt: skip
def test_a_folder_that_cannot_be_written(code, message, start, monkeypatch):
    def refuse(**options):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(checks.tempfile, "TemporaryFile", refuse)
    status, error = start(*DRY)
    assert status == 2 and message in error and "LENSNB_ROOT may name another folder" in error


def test_a_root_that_cannot_exist(start, monkeypatch):
    monkeypatch.setenv("LENSNB_ROOT", "/proc/nowhere")
    assert start(*DRY)[0] == 2
    monkeypatch.setenv("LENSNB_ROOT", "/tmp/" + "a" * 300)
    status, error = start(*DRY)
    assert status == 1 and "File name too long" in error


def test_a_read_only_checkout_without_an_environment(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "REPOSITORY", tmp_path / "nowhere")
    monkeypatch.setattr(environment, "complete", lambda: False)
    with pytest.raises(ending.Refused, match=r"\.venv\.lock: No such file.*activate an environment"):
        environment.install()
    monkeypatch.setattr(environment, "complete", lambda: True)
    assert environment.install() == environment.python_of(environment.VENV)  # needs no lock


# arguments and settings


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--seed", DIGITS), "99999999999999999999... (300 characters) is more than 4294967295"),
        (("--seed", "4294967296"), "is more than 4294967295, the most that is possible"),
        (("--seed", "-1"), "-1 is not a whole number of at least 0"),
        (("--cores", DIGITS + "9" * 100), "(400 characters) is more than 9999"),
        (("--cores", "9" * 5000), "(5000 characters) is more than 9999"),
        (("--cores", "000"), "000 is not a whole number of at least 1"),
        (("--only", "nothing"), "there is no target 'nothing'"),
        (("--variant", "a/b"), "a variant cannot be called 'a/b'"),
    ],
)
def test_arguments_out_of_range(arguments, message, start):
    status, error = start("--profile", "smoke", "--dry-run", *arguments)
    assert status == 2 and message in error


@pytest.mark.parametrize(
    "content", [b"\x89\xff\x00\x01", b"base: phantom\ntraining: {iter", b"", b"- 1\n", b"base: 7\n"]
)
@pytest.mark.parametrize("what", ["profile", "variant"])
def test_damaged_settings(content, what, start, tmp_path, monkeypatch):
    if what == "profile":
        monkeypatch.setattr(settings, "FOLDER", tmp_path)
        (tmp_path / "smoke.yml").write_bytes(content)
        status, error = start(*DRY)
    else:
        file = tmp_path / "root" / "data" / "variants" / "smoke+low.yml"
        file.parent.mkdir(parents=True)
        file.write_bytes(content)
        status, error = start(*DRY, "--variant", "low")
    assert status in (1, 2) and error.count("\n") == 1 and ("smoke" in error), error


# errors without a message of their own


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/a/b"), "/a/b: No space left on device (make room"),
        (
            OSError(errno.EMFILE, "Too many open files"),
            "Too many open files (too many files are open; see `ulimit -n`)",
        ),
        (OSError("odd"), "odd"),
        (MemoryError(), "out of memory"),
        (ImportError("numpy is broken"), "a package cannot be loaded: numpy is broken"),
        (ValueError("two\nlines"), "two lines"),
        (RuntimeError(), "RuntimeError"),
        (KeyError("name"), "KeyError: 'name'"),
    ],
)
def test_any_error_is_one_line(error, line, start, tmp_path, monkeypatch):
    def fail(*arguments):
        raise error

    monkeypatch.setattr(ending.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(engine, "make", fail)
    status, said = start(*DRY)
    assert status == 1 and said.startswith(f"run_all.sh: {line}") and said.count("\n") == 1
    traces = list(tmp_path.glob("run_all-*.txt"))
    assert [str(trace) in said for trace in traces] == [True] * isinstance(error, KeyError | RuntimeError)
    monkeypatch.setenv(ending.SHOW, "1")
    with pytest.raises(type(error)):
        engine.main(DRY)


def test_ctrl_c(start, monkeypatch):
    monkeypatch.setattr(engine, "make", lambda asked: signal.raise_signal(signal.SIGINT))
    before = signal.getsignal(signal.SIGINT)
    try:
        assert start(*DRY)[0] == 130
    finally:
        signal.signal(signal.SIGINT, before)


SWALLOWED = """
import signal
from lensnb.run import ending

def importing():
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:  # as compiled code does when it imports something
        pass

ending.leave(ending.guarded(importing))
"""


def test_ctrl_c_is_not_lost_in_an_import():
    done = subprocess.run(
        [sys.executable, "-c", SWALLOWED], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 130 and done.stdout == "\nStopped. The same command continues.\n" and not done.stderr


@pytest.mark.parametrize("delay", [0.01, 0.05, 0.1, 0.2, 0.4, 0.8])
def test_ctrl_c_while_it_starts(delay, tmp_path):
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "LENSNB_ROOT": str(tmp_path)}
    # blocked from the beginning, as in run_all.sh
    process = subprocess.Popen(
        [sys.executable, "-m", "lensnb.run.start", "engine", *DRY], env=environ, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
        preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT}),
    )  # fmt: skip
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 130 and output == "\nStopped. The same command continues.\n"


@pytest.mark.parametrize(
    ("script", "status", "message"),
    [
        ('sh "$CHECKOUT/run_all.sh" --profile huge 2>&-', 2, ""),
        ('sh "$CHECKOUT/run_all.sh" --help >&-', 0, ""),
        ('bash "$CHECKOUT/run_all.sh" --help >&- 2>&- <&-', 0, ""),
        (f"{ENGINE} --help | true", 0, ""),
        (f"{ENGINE} --help >/dev/full", 1, "the output could not be written: No space left on device"),
        ('mkdir "$LENSNB_ROOT/gone"; cd "$LENSNB_ROOT/gone"; rmdir "$LENSNB_ROOT/gone"; ' + f"{ENGINE} --dry-run", 2,
         "the folder that you are in was removed"),
        (f"ulimit -f 0; {ENGINE} --dry-run", 2, "File too large"),
        (f"ulimit -v 60000; {ENGINE} --dry-run", 1, ""),
        ('sh "$CHECKOUT/run_all.sh" --seed x 2>&- >&-', 2, ""),
    ],
)  # fmt: skip
def test_limits_and_streams(script, status, message, tmp_path):
    if "/dev/full" in script and not Path("/dev/full").exists():
        pytest.skip("only Linux has /dev/full")
    if "ulimit -v" in script and sys.platform != "linux":
        pytest.skip("only Linux limits the address space")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    result = in_shell(script, LENSNB_ROOT=str(tmp_path), PATH=path)
    assert result.returncode == status and message in result.stderr
    assert len(result.stderr.splitlines()) <= 2, result.stderr  # the shell may have said one


# what other programs say


@pytest.mark.parametrize(
    ("output", "line"),
    [
        ("Traceback (most recent call last):\n  File 'x'\nOSError: [Errno 28] full\n\n", "OSError: [Errno 28] full"),
        ('RuleException in file "S", line 1:\nNot all output.\n', 'RuleException in file "S", line 1: Not all output.'),
        ("Building DAG\nlast words\n", "last words"),
        ("", "it said nothing"),
    ],
)  # fmt: skip
def test_the_reason_in_a_programs_messages(output, line):
    assert ending.reason(output) == line


def test_pip_that_fails_is_one_line(capsys):
    says = "print('WARNING: slow'); print('Traceback'); print('ERROR: No space left'); print('more'); exit(1)"
    with Path(os.devnull).open() as lock, pytest.raises(RuntimeError, match="ended with 1: No space left$"):
        environment._call([sys.executable, "-c", says], lock.fileno())
    assert capsys.readouterr().out == "WARNING: slow\n"


def test_an_interrupted_installation_ends_its_pip():
    says = "import time; print('WARNING: begun', flush=True); time.sleep(100)"
    begun = time.monotonic()
    with Path(os.devnull).open() as lock, pytest.MonkeyPatch.context() as patch:
        patch.setattr(ending, "say", lambda text: signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            environment._call([sys.executable, "-c", says], lock.fileno())
    assert time.monotonic() - begun < 20


def test_snakemakes_messages_are_read_on_when_the_disk_is_full(tmp_path, monkeypatch, capsys):
    log = tmp_path / "no" / "snakemake.log"  # cannot be opened
    engine._follow(iter(["a\n", "1 of 2 steps (50%) done\n", f"{ending.FAILED}multi: No space left on device\n"]), log)
    assert "--- 1 of 2 steps (50%) done ---" in capsys.readouterr().out
    monkeypatch.setenv("LENSNB_ROOT", str(tmp_path))
    files = runfolder.Run("smoke")
    assert engine.failure_report(files, log, time.time()) == "FAILED multi: No space left on device"
    files.failures.mkdir(parents=True)
    (files.failures / "multi.txt").touch()  # opened, but nothing could be written
    assert engine.failure_report(files, log, time.time()).endswith("\nFAILED multi: No space left on device")


def test_a_step_that_cannot_write_its_log_goes_on(capsys):
    log = notebook.Log.__new__(notebook.Log)
    log.name, log.file, log.rest = "out", open("/dev/full", "w") if Path("/dev/full").exists() else None, ""
    if log.file:
        log.say("one line")
        assert capsys.readouterr().out == "[out] one line\n"
        log.file = None


def test_a_home_that_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/proc/nowhere")
    checks.provide_home(tmp_path / "home")
    assert os.environ["HOME"] == str(tmp_path / "home") and (tmp_path / "home").is_dir()
    checks.provide_home(tmp_path / "other")
    assert os.environ["HOME"] == str(tmp_path / "home")
