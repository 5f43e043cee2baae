"""Runs one step of the story, a notebook or a command, so that it either makes what it declares or says why not.

    python -m lensnb.run.step 04_training_lens-multi --profile P --seed N
    python -m lensnb.run.step NOTEBOOK.ipynb --profile P --expect FILE... --output OUT.ipynb -p name value
    python -m lensnb.run.step NAME --profile P --expect FILE... --module lensnb pretext --profile P

The first form runs a step of the story (story.py), unless it is up to date (receipts.py), and leaves a receipt. A
failure is one line, on the console and in data/runs/<profile>/failures/.
"""

import argparse
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from pathlib import Path

from lensnb import runfolder
from lensnb.provenance import sight
from lensnb.provenance.product import is_product
from lensnb.run import ending, gpus, processes, provenance, receipts, story
from lensnb.run.notebook import Log, StepError, check_outputs, run_notebook
from lensnb.run.story import Step
from lensnb.settings import load_profile

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS",
                    "VECLIB_MAXIMUM_THREADS")  # fmt: skip


def run_module(arguments: Sequence[str], expect: Sequence[Path], log: Log) -> None:
    """Run `python -m arguments...`; StepError names its last line if it fails, or the files it did not write."""
    command = [sys.executable, "-u", "-m", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        last = ""
        for line in process.stdout:
            log.write(line)
            last = line.strip() or last
    if process.returncode:
        reason = f"killed by signal {-process.returncode}" if process.returncode < 0 else last
        raise StepError(f"{log.name}: python -m {' '.join(arguments)}: {reason}")
    check_outputs(log.name, expect)


def _end_with_owner(name: str) -> None:
    """End this step when the run_all.sh that started it was killed, so that nothing works on unseen."""
    while processes.alive(name):
        time.sleep(0.5)
    _stop(signal.SIGKILL, None)


def _stop(number: int, frame: object) -> None:
    _end_children()
    os._exit(128 + number)


def _end_children() -> None:
    mine = processes.identity()
    processes.end(lambda environment: environment.get(processes.JOB) == mine)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one step as the command line says; return 0 if it made what it declares, else 1."""
    parser = argparse.ArgumentParser(prog="python -m lensnb.run.step", description=__doc__.split("\n")[0])
    parser.add_argument("step", help="a notebook, or the name of the step that --module runs")
    parser.add_argument("--profile", required=True, help="or a variant, <profile>+<name>")
    parser.add_argument("--seed", type=int, default=0, help="of everything random")
    parser.add_argument("--output", type=Path, help="where the executed notebook goes")
    parser.add_argument("--expect", type=Path, nargs="*", default=[], help="files that the step must write")
    parser.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="a parameter")
    parser.add_argument("--gpu", action="store_true", help="take one GPU for itself, where there are any")
    parser.add_argument("--timeout", type=int, help="seconds that one cell may take")
    parser.add_argument("--module", nargs=argparse.REMAINDER, help="module and arguments to run instead of a notebook")
    options = parser.parse_args(arguments)
    if options.module and options.output:
        parser.error("give a notebook with --output, or a step with --module")
    run = runfolder.Run(options.profile, options.seed)
    if options.module or options.output:
        return perform(_step_of(options), run, options.timeout)
    found = {step.name: step for step in story.steps(options.profile, options.seed)}
    if options.step not in found:
        parser.error(f"{options.step} is no step of the story; there are {', '.join(found)}")
    return perform(found[options.step], run, options.timeout, receipt=True)


def _step_of(options: argparse.Namespace) -> Step:
    """The step that options describe; it has no receipt."""
    expect = [path.resolve() for path in options.expect if path != options.output]
    if options.module:
        return Step(options.step, (), tuple(expect), module=tuple(options.module), gpu=options.gpu)
    makes = (options.output.resolve(), *expect)
    return Step(
        options.output.stem, (), makes, notebook=Path(options.step), parameters=dict(options.p), gpu=options.gpu
    )


def perform(step: Step, run: runfolder.Run, timeout: int | None = None, receipt: bool = False) -> int:
    """Run one step, alone among all that work on the run; return 0 if it made what it declares, else 1.

    With `receipt`, a step that is up to date is left alone, and what was made is noted.
    """
    failure = run.failures / f"{step.name}.txt"
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    os.environ[processes.JOB] = processes.identity()
    os.environ[processes.FOLDER] = str(run.folder)
    os.environ["PYTHONPATH"] = str(runfolder.repository())  # the kernel starts in another folder
    if threads := load_profile(run.profile).training.threads:  # 0: torch decides, which libgomp does not know
        for variable in THREAD_VARIABLES:
            os.environ[variable] = str(threads)
    if owner := os.environ.get(processes.OWNER):
        threading.Thread(target=_end_with_owner, args=(owner,), daemon=True).start()

    processes.end_abandoned(run.folder)
    with processes.lock(run.lock(step.name), f"[{step.name}] process {{holder}} is working on this; waiting"):
        log = Log(step.name, run.log(step.name))
        start = time.monotonic()
        failure.unlink(missing_ok=True)
        failure.with_suffix(".ipynb").unlink(missing_ok=True)
        try:
            if receipt:
                why = receipts.reasons(run, step)
                if not why:
                    log.say("up to date")
                    return 0
                log.say(f"started: {'; '.join(why[:3])}{' ...' if len(why) > 3 else ''}")
                recipe = receipts.recipe_of(
                    run, step
                )  # as it is now: what changes meanwhile makes it out of date again
                _remove_old(step, run)
                _limit_sight(step, run)
            else:
                log.say("started")
            with gpus.own_gpu(log.say) if step.gpu else nullcontext():
                _run(step, run, log, timeout)
            runfolder.remove_leftovers(step.makes)
            if receipt:
                receipts.write_receipt(run, step, recipe)
                provenance.write(run)
        except Exception as error:
            if not isinstance(error, StepError):
                traceback.print_exc()
                error = StepError(f"{step.name}: {type(error).__name__}: {error}")
            ending.complain(f"{ending.FAILED}{' '.join(str(error).split())}")
            with suppress(OSError):
                failure.parent.mkdir(parents=True, exist_ok=True)
                failure.write_text(f"{error}\n")
            log.say(f"FAILED: {error}")
            return 1
        finally:
            # a kernel that was killed leaves its own helpers behind
            _end_children()
        log.say(f"done in {time.monotonic() - start:.0f} s")
        return 0


def _run(step: Step, run: runfolder.Run, log: Log, timeout: int | None) -> None:
    if step.module:
        run_module(step.module, step.makes, log)
        return
    output, *expect = step.makes
    run_notebook(step.notebook, output, run.profile, step.parameters, expect, log, timeout, run.seed)


def _limit_sight(step: Step, run: runfolder.Run) -> None:
    """Let the step's process read, of all that the run has made, only what the step needs or makes."""
    path = run.folder / "sight" / f"{step.name}.json"
    free = [run.prepared / "store"]  # volumes.csv, which must be declared, has a fingerprint of each
    sight.write_list(path, step.name, (run.folder, run.figures, run.prepared), (*step.needs, *step.makes), free)
    os.environ[sight.VARIABLE] = str(path)


def _remove_old(step: Step, run: runfolder.Run) -> None:
    """Remove what an earlier run made, so that it is not taken for this one's.

    Products with a record of their own stay, and so do the phantoms: who makes them decides.
    """
    receipts.receipt(run, step).unlink(missing_ok=True)
    for path in step.makes:
        if not path.is_relative_to(run.raw) and not is_product(path):
            path.unlink(missing_ok=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except OSError as stopped:  # on a full disk not even its lock can be written
        traceback.print_exc()
        sys.exit(f"{ending.FAILED}{Path(sys.argv[1]).stem}: {ending.line_of(stopped)}")
