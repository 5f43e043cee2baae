"""Where and on what the program works, and the progress of long loops.

Progress is a few printed lines: they read well in a terminal, a log and a stored notebook alike.
"""

import os
import time
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path


def progress(items: Iterable, label: str, total: int | None = None, lines: int = 10) -> Iterator:
    """Iterate over `items`, printing about `lines` lines with the count, the time spent and the time left.

    A loop that is over within two seconds prints nothing. `total` defaults to len(items).
    """
    total = len(items) if total is None else total
    start = time.monotonic()
    next_report = max(1, total // lines)
    for done, item in enumerate(items, start=1):
        yield item
        elapsed = time.monotonic() - start
        if done >= next_report and elapsed > 2:
            left = elapsed / done * max(0, total - done)
            print(f"{label}: {done}/{total}, {_clock(elapsed)} spent, {_clock(left)} left", flush=True)
            next_report = done + max(1, total // lines)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def available_cores() -> int:
    """The cores that this process may use; in a container or a cluster job they are less than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def repository() -> Path:
    """The folder that holds the `lensnb` package and the notebooks."""
    return Path(__file__).resolve().parents[1]


def root() -> Path:
    """The folder under which data/ and figures/ are read and written."""
    return Path(os.environ.get("LENSNB_ROOT") or repository()).resolve()
