"""What run_all.sh does once its environment stands: calls Snakemake, reports, and survives being killed.

Only one run works on a profile at a time (a second waits); what an earlier, killed one left at work is ended first.
"""

import difflib
import os
import re
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path

from lensnb import runfolder
from lensnb.datasets import DATASETS, NAMES, UNIVERSAL, present
from lensnb.evaluation import seeds
from lensnb.run import checks, ending, gpus, options, processes, publishing
from lensnb.run.targets import Product, RunError, mark, markers, snakemake, targets
from lensnb.run.variant import report_differences, start_variant
from lensnb.settings import load_profile
from lensnb.system import available_cores

COMPARED = ("table2",)  # what --seeds makes of each seed
TEST_PROCESSES = 4  # two of them run long chains of steps, and the rest is soon done


def choose(found: Sequence[Product], wanted: Sequence[str]) -> list[Product]:
    """The targets with these names: of a target, of its file, or of its step. RunError names the nearest if none."""
    chosen = []
    for name in wanted:
        matching = [target for target in found if name in (target.name, target.path.name, target.step)]
        if not matching:
            near = difflib.get_close_matches(name, sorted({target.name for target in found}), n=3, cutoff=0.4)
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            raise RunError(f"there is no target {name!r}{hint} ./run_all.sh --list names all", status=2)
        chosen += matching
    return chosen


def plan(profile: str, only: Sequence[str] | None, seed: int = 0) -> list[Product]:
    """The targets with the names `only`, or all if there are none."""
    return choose(targets(profile, seed), only) if only else targets(profile, seed)


def run(profile: str, only: Sequence[str] | None, found: Sequence[Product], cores: int, seed: int = 0) -> None:
    """Make the targets `only` of those `found`, or all; RunError with notebook, cell and error if that fails."""
    files = runfolder.Run(profile, seed)
    started = time.time()
    engine_log = files.log("snakemake")
    engine_log.parent.mkdir(parents=True, exist_ok=True)
    mark(profile, seed, {target.step for target in found if not target.up_to_date})
    chosen = choose(found, only) if only else found
    command = snakemake(profile, seed, *gpu_limit(), "--cores", str(cores), *markers(chosen))
    if _run_engine(command, files.folder, engine_log):
        raise RunError(failure_report(files, engine_log, started))
    waiting = [target for target in plan(profile, only, seed) if not target.up_to_date]
    if any(not target.path.exists() for target in waiting):
        raise RunError(failure_report(files, engine_log, started))
    if waiting:  # somebody edited something meanwhile
        raise RunError(
            f"{len(waiting)} targets are out of date again, {waiting[0].name} because {waiting[0].reason}; "
            "the same command makes them"
        )


def out_of_date(chosen: Sequence[Product]) -> list[str]:
    """The names of the targets that are missing, damaged, or not what would be made today."""
    return [target.name for target in chosen if not target.up_to_date]


def _run_engine(command: list[str], runs: Path, log: Path) -> int:
    """Run Snakemake until it ends, and end whatever it leaves behind; return its exit status."""
    environment = {
        **os.environ,
        processes.OWNER: processes.identity(),
        processes.FOLDER: str(runs),
        "PYTHONUNBUFFERED": "1",
    }
    # a session of its own: Ctrl-C reaches only this process, which then ends everything at once
    with subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as engine:
        threading.Thread(target=_follow, args=(engine.stderr, log), daemon=True).start()
        try:
            return engine.wait()
        finally:
            mine = environment[processes.OWNER]
            processes.end(lambda e: e.get(processes.OWNER) == mine and e.get(processes.FOLDER) == str(runs))


def gpu_limit() -> list[str]:
    """As many steps that use a GPU at a time as there are GPUs; without one, they only share the cores."""
    found = len(gpus.visible())
    return ["--resources", f"gpu={found}"] if found else []


_said: dict[Path, deque[str]] = {}  # the end of each log, also of one that a full disk kept from being written


def _follow(lines: Iterable[str], log: Path) -> None:
    """Keep Snakemake's own messages in its log, and show how many steps are done.

    On a full disk the log ends, but not the reading: Snakemake would wait for ever for its messages to be read.
    """
    last = deque(maxlen=200)
    _said[log] = last
    file = None
    for line in lines:
        last.append(line)
        try:
            file = file or log.open("w")
            file.write(line)
            file.flush()
        except OSError:
            file = None
        if " steps (" in line and line.rstrip().endswith("done"):
            ending.say(f"--- {line.strip()} ---")


def failure_report(files: runfolder.Run, engine_log: Path, started: float) -> str:
    """What failed since `started`: one line for each step, and where its notebook and log are."""
    # file times can be coarser than the clock
    failures = [path for path in sorted(files.failures.glob("*.txt")) if path.stat().st_mtime >= started - 1]
    engine = "".join(_said.get(engine_log, ())) or engine_log.read_text()
    notes = [" ".join(path.read_text().split()) for path in failures]
    told = re.findall(
        f"^{ending.FAILED}(.*)$", engine, re.MULTILINE
    )  # on a full disk there is no note, or an empty one
    failed = list(dict.fromkeys(filter(None, [*notes, *told])))
    if not failed:
        # a step that was killed could not say so itself
        first_outputs = re.findall(r"^Error in rule .*?^    output: ([^,\n]+)", engine, re.MULTILINE | re.DOTALL)
        killed = [Path(file).stem for file in first_outputs]
        if not killed:
            return (f"FAILED Snakemake stopped before every target was made: {ending.reason(engine)}; "
                    f"its log: {engine_log}")  # fmt: skip
        return "\n".join(
            f"FAILED {name}: was killed, or could not start; logs: {files.log(name)}, {engine_log}" for name in killed
        )
    report = []
    for path in failures:
        as_far = path.with_suffix(".ipynb")
        report.append(f"as far as it came: {as_far}" if as_far.exists() else f"log: {files.log(path.stem)}")
    return "\n".join([*report, *(f"FAILED {line}" for line in failed)])


def show(found: Sequence[Product]) -> None:
    """Print the targets by the step that makes them, and why a step is out of date."""
    for step in dict.fromkeys(target.step for target in found):
        own = [target for target in found if target.step == step]
        print(step if own[0].up_to_date else f"{step}: {own[0].reason}")
        for target in own:
            print(f"  {'made' if target.up_to_date else '    '}  {target.name:42} {os.path.relpath(target.path)}")


def check_datasets(folder: Path) -> None:
    """Say what a run on the real data does without; RunError if it can do nothing, for want of the universal one."""
    there = present(folder)
    if UNIVERSAL not in there:
        raise RunError(
            f"{folder} holds no {UNIVERSAL}, which every experiment learns from and is tested on; "
            f"`python -m lensnb data check --root {folder}` says where to get it",
            status=2,
        )
    for name in (name for name in NAMES if name not in there):
        notebook = DATASETS[name].notebook  # the Snakefile leaves it out
        needed = f", nor notebook {notebook}, which needs it" if notebook else ""
        ending.say(f"{folder} holds no {name}: there will be no {name} expert{needed}.")
    if there == (UNIVERSAL,):
        print(f"With {UNIVERSAL} alone, joint training is the same as single: its rows of Table II will repeat those.")


def make(asked: object) -> None:
    """Do what run_all.sh's options ask for."""
    checks.check_names()
    os.environ["PYTHONPATH"] = str(runfolder.repository())  # lensnb need not be installed
    os.environ.pop(runfolder.BY_HAND, None)  # also when a notebook that is run by hand starts it
    if asked.data:
        os.environ["LENSNB_DATA"] = str(asked.data)
        if not runfolder.has_real_data():
            raise RunError(f"{asked.data} holds none of {', '.join(NAMES)}", status=2)
    profile = asked.profile or ("paper" if runfolder.has_real_data() else "phantom")
    if asked.data and profile != "paper":
        raise RunError(f"--data holds real datasets, which the profile {profile} does not read; use --profile paper", 2)
    if profile == "paper" and runfolder.has_real_data():
        check_datasets(runfolder.real_data())
    checks.check_places((runfolder.runs(profile), runfolder.prepared(profile), runfolder.figures(profile)))
    if not asked.seeds:
        make_seed(profile, asked, asked.seed, asked.only)
        return
    for seed in range(asked.seeds):
        ending.say(f"--- seed {seed}, of {asked.seeds} ---")
        name = make_seed(profile, asked, seed, COMPARED)
    if not (asked.list or asked.dry_run):
        print(seeds.command(name))


def make_seed(profile: str, asked: object, seed: int, only: Sequence[str] | None) -> str:
    """Make the targets `only`, or all, of one seed of a profile or its variant, whose name is returned."""
    if asked.variant:
        try:
            profile = start_variant(profile, asked.variant, asked.set, seed)
        except ValueError as error:
            raise RunError(ending.line_of(error), status=2) from error
    load_profile(profile)  # what is wrong with it is said here, not by Snakemake
    files = runfolder.Run(profile, seed)
    checks.provide_home(files.folder / "home")
    if asked.list or asked.dry_run:
        show(plan(profile, only, seed))
        return profile
    waiting = f"Another run_all.sh (process {{holder}}) works on {files.folder.name}; waiting for it to end."
    with processes.lock(files.lock("run"), waiting):
        if processes.end_abandoned(files.folder):
            ending.say("Ended what an interrupted run had left at work; continuing from there.")
        found = targets(profile, seed)
        chosen = choose(found, only) if only else found
        if not out_of_date(chosen):
            ending.say(f"All {len(chosen)} targets were made already: {files.figures}")
        else:
            ending.say(f"Profile {profile}, seed {seed}, {asked.cores} cores; logs in {files.logs}")
            start = time.monotonic()
            run(profile, only, found, asked.cores, seed)
            minutes = (time.monotonic() - start) / 60
            ending.say(f"All {len(chosen)} targets are made ({minutes:.1f} min): {files.figures}")
        if asked.variant:
            ending.say(f"\n{report_differences(profile, seed)}")
    return profile


def run_tests(arguments: Sequence[str]) -> None:
    """Become pytest, with a process for each core, TEST_PROCESSES at most; `arguments` come last, so they override."""
    os.chdir(runfolder.repository())
    environment = {**os.environ, "MPLBACKEND": "agg", "OMP_NUM_THREADS": "1"}
    share = ["-n", str(min(available_cores(), TEST_PROCESSES)), "--dist", "loadscope"]
    os.execve(sys.executable, [sys.executable, "-m", "pytest", *share, *arguments], environment)


def main(arguments: Sequence[str]) -> int:
    """Run one command line; return its exit status."""
    ending.answer_signals()
    asked = options.parse(arguments)
    try:
        if asked.command == "test":
            run_tests(asked.rest)
        elif asked.command == "publish":
            publishing.publish(targets("phantom"))
        else:
            make(asked)
    except KeyboardInterrupt:
        return ending.stopped()
    except RunError as error:
        ending.complain(f"run_all.sh: {error}" if error.status == 2 else f"\n{error}")
        return error.status
    except Exception as error:
        return ending.tell(error)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
