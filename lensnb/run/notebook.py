"""Executing one notebook of the story: its parameters, its cells, and in one line why it failed.

papermill alone calls too much a success: parameters that the notebook does not know, a kernel that left by
sys.exit, a result that was never written. Here each of these is a failure, which names the notebook, the cell and the
error.
"""

import ast
import os
import re
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from lensnb import runfolder
from lensnb.settings import load_profile, to_dict
from lensnb.show.parameters import CannotStart
from lensnb.show.parameters import check as check_parameters
from lensnb.show.parameters import declared as parameters_of

KERNEL_STARTS = 3


class StepError(Exception):
    """A step that failed; the message is one line for the user."""


class Log:
    """Where a step's printed lines go: whole to its log file, and with the step's name before them to the console."""

    def __init__(self, name: str, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.name, self.path, self.file, self.rest = name, path, path.open("a"), ""

    def write(self, text: str) -> None:
        """Take a piece of output, which may hold several lines or the start of one."""
        *lines, self.rest = re.split(r"[\r\n]+", self.rest + text)
        for line in filter(str.strip, lines):
            self.say(line)

    def say(self, line: str, console: bool = True) -> None:
        """Write one line."""
        with suppress(OSError):  # a full disk; what the step must keep fails by itself
            self.file.write(f"{time.strftime('%H:%M:%S')} {line}\n")
            self.file.flush()
        if console:
            try:
                sys.stdout.write(f"[{self.name}] {line}\n")
                sys.stdout.flush()
            except OSError:
                pass  # nobody reads the console any more (`./run_all.sh | head`); that is no failure

    def flush(self) -> None:
        """papermill calls this after every write."""


def _own_parameters(notebook: Path, settings: dict) -> dict:
    return settings.get("notebooks", {}).get(notebook.stem, {})


def parameters(notebook: Path, profile: str, given: dict[str, str], seed: int = 0) -> dict:
    """A notebook's parameters: the profile's name, the seed, the profile's `notebooks` section, and `given`.

    Values given as text become the type of the notebook's own default. Raises StepError for a name that the
    notebook does not declare, and for a value of another type: papermill would run the default in silence.
    """
    try:
        declared = parameters_of(notebook)
    except ValueError as error:
        raise StepError(f"{notebook.stem}: {error}") from error
    settings = to_dict(load_profile(profile))
    values = {"profile": profile, "seed": seed, **_own_parameters(notebook, settings)}
    try:
        for name, text in given.items():
            values[name] = _typed(text, declared.get(name), f"{notebook.stem}: parameter {name}")
        check_parameters(values, declared)
    except CannotStart as error:
        raise StepError(f"{notebook.stem}: {error}") from error
    return values


def _typed(text: str, default: object, where: str) -> object:
    if isinstance(default, str) or default is None:
        return text
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError) as error:
        raise StepError(f"{where} is {text!r}; it must be like its default {default!r}") from error


def run_notebook(notebook: Path, output: Path, profile: str, given: dict[str, str], expect: Sequence[Path],
                 log: Log, timeout: int | None = None, seed: int = 0) -> None:  # fmt: skip
    """Execute a notebook into `output`, which appears only if every cell ran and every `expect`ed file was written.

    `timeout` is the longest that one cell may take, in seconds. Raises StepError with one line; the notebook as far
    as it came is then kept in the run's failures folder.
    """
    values = parameters(notebook, profile, given, seed)
    files = runfolder.Run(profile, seed)
    partial = files.partial(output.name)
    partial.parent.mkdir(parents=True, exist_ok=True)
    output.unlink(missing_ok=True)
    try:
        _execute(notebook, partial, values, log, timeout)
        check_outputs(log.name, expect)
    except StepError:
        if partial.exists():
            kept = files.failures / output.name
            kept.parent.mkdir(parents=True, exist_ok=True)
            os.replace(partial, kept)
        raise
    output.parent.mkdir(parents=True, exist_ok=True)
    os.replace(partial, output)


def _execute(notebook: Path, partial: Path, values: dict, log: Log, timeout: int | None) -> None:
    # jsonschema would compile a grammar of web addresses for three seconds; a notebook's format has no use for it
    sys.modules.setdefault("rfc3987_syntax", None)
    import papermill
    from nbclient.exceptions import CellTimeoutError, DeadKernelError

    # the kernel of this environment, whatever kernels the user has installed elsewhere
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"
    # with this variable set, no figure would get into the notebook
    os.environ.pop("MPLBACKEND", None)
    started = []  # source of each code cell whose execution began

    def note_cell(cell, cell_index: int) -> None:
        started.append(cell.source)
        log.say(f"In [{len(started)}] {_first_line(cell.source)}", console=False)

    def fail(error: str, line: str = "") -> StepError:
        where = f"cell In [{len(started)}] ({line or _first_line(started[-1])})" if started else "before its first cell"
        return StepError(f"{log.name}: {where}: {error}")

    for attempt in range(1, KERNEL_STARTS + 1):
        try:
            executed = papermill.execute_notebook(
                _literal(notebook), _literal(partial), values, kernel_name="python3", progress_bar=False,
                start_timeout=180, execution_timeout=timeout, cwd=notebook.resolve().parent, stdout_file=log,
                on_cell_execute=note_cell,
                shutdown_kernel="immediate",  # all is written when the last cell ends; to take torch down takes seconds
            )  # fmt: skip
            break
        except papermill.PapermillExecutionError as error:
            if error.ename in ("SystemExit", "KeyboardInterrupt"):
                raise fail(f"left by {error.ename} {error.evalue}".rstrip()) from error
            if error.ename == CannotStart.__name__:
                raise StepError(f"{log.name}: {error.evalue}") from error
            raise fail(f"{error.ename}: {_first_line(error.evalue)}", _failing_line(error.traceback)) from error
        except CellTimeoutError as error:
            raise fail(f"took longer than {timeout} s") from error
        except DeadKernelError as error:
            if started or attempt == KERNEL_STARTS:
                raise fail("its kernel died (killed, or out of memory)") from error
        except Exception as error:
            if started or attempt == KERNEL_STARTS:
                raise fail(f"{type(error).__name__}: {_first_line(str(error))}") from error
        # two kernels that start together can pick the same port; that is the only thing worth a second try
        log.say("the kernel did not start; trying again")
    code_cells = [cell for cell in executed.cells if cell.cell_type == "code" and cell.source.strip()]
    if len(started) < len(code_cells) or any(cell.execution_count is None for cell in code_cells):
        raise fail("the notebook stopped here without an error (sys.exit?); later cells did not run")


def _literal(path: Path) -> str:
    """A path as papermill must be told it, which fills in what stands in braces."""
    return str(path).replace("{", "{{").replace("}", "}}")


def check_outputs(name: str, expect: Sequence[Path]) -> None:
    """Raise StepError unless each declared file exists and holds something."""
    missing = [path.name for path in expect if not path.exists() or (path.is_file() and path.stat().st_size == 0)]
    if missing:
        raise StepError(f"{name}: ran to its end but did not write {', '.join(missing)}")


def _first_line(text: str) -> str:
    line = next((line.strip() for line in text.splitlines() if line.strip() and not line.startswith(("#", "%"))), "")
    return line if len(line) <= 160 else line[:157] + "..."


def _failing_line(frames: Sequence[str]) -> str:
    """The line of the cell at which a traceback of IPython points with an arrow, or nothing."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(frames))
    arrow = re.search(r"^-+> \d+ (.+)$", plain, re.MULTILINE)
    return _first_line(arrow.group(1)) if arrow else ""
