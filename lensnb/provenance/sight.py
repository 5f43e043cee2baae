"""A step sees the files that it declares and nothing else of its run.

A result that follows from a file nobody declared depends on what happens to be finished, and is not made again when
that file changes. So the process of a step refuses to open such a file. Only reading is watched, and only where Python
opens files; the datasets' own files and everything outside the run are free.
"""

import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path

VARIABLE = "LENSNB_SIGHT"  # names the list of what a step may read


class Undeclared(PermissionError):
    """A file that a step reads without saying so."""


def write_list(
    path: Path, step: str, folders: Iterable[Path], files: Iterable[Path], free: Iterable[Path] = ()
) -> None:
    """Write the list for a step: below `folders`, but for those that are `free`, it may read `files` only."""
    lists = {"folders": folders, "files": files, "free": free}
    content = {"step": step, **{name: [str(path) for path in paths] for name, paths in lists.items()}}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def limit() -> None:
    """From now on this process opens below the folders of its list, if it has one, only what the list names."""
    path = os.environ.get(VARIABLE)
    if not path:
        return
    seen = json.loads(Path(path).read_text())
    step, files = seen["step"], set(seen["files"])
    folders, free = (tuple(f"{folder}{os.sep}" for folder in seen[name]) for name in ("folders", "free"))

    def watch(event: str, arguments: tuple) -> None:
        if event != "open":
            return
        name, _, flags = arguments
        if not isinstance(name, str | os.PathLike) or (isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR)):
            return
        file = os.path.abspath(name)
        if file.startswith(folders) and not file.startswith(free) and file not in files and not _is_passing(file):
            raise Undeclared(f"{step} reads {file}, which is not among its inputs in lensnb/run/story.py")

    sys.addaudithook(watch)


def _is_passing(file: str) -> bool:
    """Whether a file is a record of a product, or what an interrupted one goes on from."""
    name = os.path.basename(file)
    return name.endswith((".made", ".pt")) or ".part" in name
