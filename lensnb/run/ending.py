"""How run_all.sh speaks and ends: what goes wrong is told in one line, whatever it is.

LENSNB_TRACEBACK=1 shows the whole trace instead, as for `python -m lensnb`. Uses the standard library only: it is
needed before anything is installed.
"""

import errno
import os
import re
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable

SHOW = "LENSNB_TRACEBACK"
FAILED = "step failed: "  # begins the line of a step that can not leave a note of its failure in the run folder
STOPPED = 130
REMEDIES = {
    errno.ENOSPC: "make room and start again",
    errno.EDQUOT: "make room and start again",
    errno.EFBIG: "a limit forbids larger files; see `ulimit -f`",
    errno.EMFILE: "too many files are open; see `ulimit -n`",
}
# the last line of a Python traceback, or "X in file Y, line Z:" as Snakemake says it
RAISED = re.compile(r"^(?:[A-Za-z_][\w.]*(?:Error|Exception|Interrupt|Exit)\b|[A-Za-z_][\w.]*Error in file .*:$)")


class Refused(Exception):
    """What run_all.sh does not begin, with the reason; nothing is wrong inside, so there is no trace to see."""


def say(text: str) -> None:
    """Print a line of progress; that nobody reads it any more (`| head`) or that it can not be kept is no failure."""
    try:
        print(text, flush=True)
    except (OSError, ValueError):
        pass


def remedy(error: OSError) -> str:
    """What the user may do about it, in brackets, or nothing."""
    known = REMEDIES.get(error.errno or 0)
    return f" ({known})" if known else ""


def line_of(error: BaseException) -> str:
    """What an error says, in one line: for a file its name and what the system says, without a number."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror:
        name = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes | os.PathLike) else ""
        text = f"{name}{error.strerror}{remedy(error)}"
    elif isinstance(error, ImportError):
        while isinstance(error.__cause__, ImportError):  # numpy explains at length what its cause says in a line
            error = error.__cause__
        text = (
            f"a package cannot be loaded: {error}; is there too little memory? Else remove .venv, to have it made again"
        )
    elif isinstance(error, MemoryError):
        text = f"out of memory {text}"
    elif not isinstance(error, ValueError | RuntimeError | OSError | FloatingPointError):
        text = f"{type(error).__name__}: {text}"
    return " ".join(text.split()) or type(error).__name__


def reason(output: str) -> str:
    """The line of a failed program's messages that says why: its last error, else its last line."""
    lines = [" ".join(line.split()) for line in output.splitlines() if line.strip()]
    for number in reversed(range(len(lines))):
        if RAISED.match(lines[number]):
            # Snakemake's own way names the place first
            following = lines[number + 1] if lines[number].endswith(":") and number + 1 < len(lines) else ""
            return f"{lines[number]} {following}".strip()
    return lines[-1] if lines else "it said nothing"


def tell(error: BaseException) -> int:
    """Say in one line what went wrong; return the exit status. With LENSNB_TRACEBACK=1 the error is raised instead."""
    if isinstance(error, Refused):
        complain(f"run_all.sh: {error}")
        return 2
    if os.environ.get(SHOW):
        raise error
    if isinstance(error, BrokenPipeError) and not error.filename:
        return 0  # as in `./run_all.sh --list | head`
    kept = "" if isinstance(error, OSError | MemoryError | ImportError | ValueError) else _keep(error)
    shown = f"; {kept or f'{SHOW}=1 shows where'}"
    complain(f"run_all.sh: {line_of(error)}{shown}")
    return 1


def complain(text: str) -> None:
    """Print a line on the error stream, if there is one that takes it."""
    try:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):  # closed, full, or none at all
        pass


def _keep(error: BaseException) -> str:
    """Put the trace of what should not happen into a file; say where it is, or nothing if it can not be written."""
    try:
        with tempfile.NamedTemporaryFile("w", prefix="run_all-", suffix=".txt", delete=False) as file:
            traceback.print_exception(error, file=file)
            return f"the whole trace: {file.name}"
    except OSError:
        return ""


def stopped() -> int:
    """Say that Ctrl-C was heard; return the exit status."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # this process ends now; a second one would only disturb it
    say("\nStopped. The same command continues.")
    return STOPPED


def answer_signals(answer: Callable = signal.default_int_handler) -> None:
    """Let `answer` hear Ctrl-C, a lost terminal and a polite kill; without one, KeyboardInterrupt ends this process,
    with what it has started."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup asks to ignore SIGHUP, and `&` in a script SIGINT
            signal.signal(number, answer)


def end_at_once(*_: object) -> None:
    """Answer a signal while modules are imported: an exception that is raised then can be lost in compiled code."""
    leave(stopped())


def guarded(action: Callable[[], int | None]) -> int:
    """Do something and return the exit status, 0 if it returns none; whatever it raises ends in one line.

    A signal ends this process at once until `action` has imported what it needs and calls `answer_signals()`.
    """
    try:
        answer_signals(end_at_once)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # see run_all.sh
        return action() or 0
    except KeyboardInterrupt:
        return stopped()
    except Exception as error:
        return tell(error)


def leave(status: int) -> None:
    """End this process now, without what Python would say of streams that can not be written any more."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError as error:
            if status == 0 and not isinstance(error, BrokenPipeError):
                complain(f"run_all.sh: the output could not be written: {error.strerror}")
                status = 1
        except (ValueError, AttributeError):
            pass
    os._exit(status)
