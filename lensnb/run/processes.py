"""Processes that outlive an interrupted start: how they are recognised and ended before the next start continues.

`kill -9` on one process leaves its children at work: a notebook's kernel, its loader processes, Snakemake. Everything
that run_all.sh starts therefore inherits two environment variables: the folder it works on, and who started it.
"""

import fcntl
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from lensnb import runfolder

OWNER = "LENSNB_OWNER"  # identity of the run_all.sh that started a process
JOB = runfolder.STEP  # identity of the lensnb.run.step that started it
FOLDER = "LENSNB_RUNS"  # the run folder it works on


def identity(pid: int | None = None) -> str:
    """A process' number, the second it was started and its machine: numbers are used again, the three are not."""
    process = psutil.Process(pid)
    return f"{process.pid}@{process.create_time():.0f}@{platform.node()}"


def alive(name: str) -> bool:
    """Whether the process with this identity still works (a killed one that nobody has waited for does not).

    One on another machine, as on a cluster, counts as alive.
    """
    try:
        number, started, machine = name.split("@", 2)
        if machine != platform.node():
            return True
        process = psutil.Process(int(number))
        # the clock may have been set a little since then
        return abs(process.create_time() - float(started)) < 5 and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, ValueError):
        return False


def end(chosen: Callable[[dict[str, str]], bool]) -> int:
    """Kill every process of this user, except this one, whose environment is `chosen`; return how many there were.

    Killing is safe because results appear whole or not at all. Looks again until no process is found, since one
    that is being killed may just have started another.
    """
    killed = 0
    for _ in range(20):
        found = [
            process for process in psutil.process_iter() if process.pid != os.getpid() and _matches(process, chosen)
        ]
        if not found:
            break
        for process in found:
            try:
                process.kill()
            except psutil.Error:
                continue  # it ended by itself
        psutil.wait_procs(found, timeout=2)
        killed += len(found)
    return killed


def _matches(process: psutil.Process, chosen: Callable[[dict[str, str]], bool]) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE and chosen(process.environ())
    except (psutil.Error, OSError):
        return False  # another user's, or gone


def end_abandoned(folder: Path) -> int:
    """Kill what earlier, killed starts left at work on a run folder; return the number of processes."""

    def abandoned(environment: dict[str, str]) -> bool:
        starters = [environment[name] for name in (OWNER, JOB) if name in environment]
        return environment.get(FOLDER) == str(folder) and not all(alive(name) for name in starters)

    return end(abandoned)


@contextmanager
def lock(path: Path, wait_message: str) -> Iterator[None]:
    """Hold a lock file for the time of the block; print `wait_message` with the holder's identity if it must wait."""
    with first_free([path], wait_message, lambda line: print(line, flush=True)):
        yield


@contextmanager
def first_free(paths: Sequence[Path], wait_message: str, say: Callable[[str], None]) -> Iterator[Path]:
    """Hold the first of these lock files that is free for the time of the block; yield its path.

    If it must wait, it says `wait_message` with the identity of the first one's holder. The operating system drops a
    lock when its holder dies, however it dies, so there is never one to remove.
    """
    told = False
    while True:
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a+") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                file.truncate(0)
                file.write(identity() + "\n")
                file.flush()
                yield path
                return
        if not told:
            say(wait_message.format(holder=paths[0].read_text().strip() or "?"))
            told = True
        time.sleep(0.5)
