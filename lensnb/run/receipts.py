"""Whether a step's results are those that it would make today, and if not, why.

A finished step has a receipt in made/ of the run's folder: its recipe (the notebook's code and every module of lensnb
that it uses, the libraries that change numbers, the sections of the profile that it reads, its inputs by content, the
state of the datasets' own files) and the checksums of what it made. A step is out of date if its recipe is another one
today, or if something that it made is missing or is not as it was written. When a file was touched does not matter.

Folders that hold gigabytes, the raw data and the prepared volumes, are looked at, not read: the size and time of each
file counts. Volumes have checksums of their own, which are compared when their time is another (see store_writing.py).
"""

import json
import time
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import import_module
from pathlib import Path

from lensnb.files import files_below, fingerprint, read_json, write_json
from lensnb.provenance import inventory, product
from lensnb.provenance.commit import commit
from lensnb.provenance.recipe import OURS, Recipe, code, code_of, differences, imports_of, values, versions
from lensnb.run.story import Step, before
from lensnb.runfolder import Run
from lensnb.settings import load_profile, to_dict

# the numbers of a profile count by section; what reads them does not
NOT_CODE = ("lensnb.settings", *OURS)


def receipt(run: Run, step: Step) -> Path:
    """Where a finished step says what it made from what."""
    return run.folder / "made" / f"{step.name}.json"


def recipe_of(run: Run, step: Step) -> Recipe:
    """All that a step's results follow from, as it is now."""
    profile = to_dict(load_profile(run.profile))
    found = code_of_step(step)
    found |= {f"section {name} of the profile": fingerprint(profile[name]) for name in step.reads}
    own = profile["notebooks"].get(step.notebook.stem) if step.notebook else None
    module = [word for word in step.module if word != run.profile]
    what = {"parameters": step.parameters, "own": own, "module": module, "seed": run.seed}
    found |= values(**{"the step's parameters": what})
    found |= {f"input {place(run, path)}": _content(path) for path in step.needs}
    return found | {f"{place(run, path)}": _listing(path) for path in step.raw}


def code_of_step(step: Step) -> Recipe:
    """The recipe of the code that a step runs: of its notebook's cells and what they import, or of its command."""
    if step.notebook:
        cells = json.loads(step.notebook.read_text())["cells"]
        source = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
        name = step.notebook.name
        modules, libraries = imports_of(source, name)
        return {f"code of {name}": code_of(source, name)} | code(modules, NOT_CODE) | versions(libraries)
    if step.module[0] == "lensnb":
        commands = import_module("lensnb.__main__").COMMANDS
        return code([commands[step.module[1]].function.partition(":")[0]], NOT_CODE)
    return {}


def reasons(run: Run, step: Step) -> list[str]:
    """Why a step is out of date, a few words each; nothing if it is made."""
    missing = [place(run, path) for path in step.makes if not path.exists()]
    try:
        known = read_json(receipt(run, step))
        recipe, outputs, folders = known["recipe"], known["outputs"], known["folders"]
    except (OSError, ValueError, KeyError):
        return ["not made yet" if missing else "nothing says what it was made from"]
    found = [f"{name} is missing" for name in missing]
    for path in step.makes:
        name = place(run, path)
        if name not in missing and outputs.get(name) != _content(path):
            found.append(f"{name} is not as it was written")
    for folder in step.fills:
        found += _changes(folder, folders.get(place(run, folder), {}), place(run, folder))
    return found + differences(recipe, recipe_of(run, step))


def survey(run: Run, steps: Iterable[Step]) -> dict[str, list[str]]:
    """Why each step is out of date, by name; one that is made itself may follow from one that is not."""
    steps, found = list(steps), {}
    for step in steps:
        waits = [other.name for other in before(step, steps) if found.get(other.name)]
        found[step.name] = reasons(run, step) or [f"follows from {name}" for name in waits]
    return found


def write_receipt(run: Run, step: Step, recipe: Recipe) -> None:
    """Say that a step is made: from `recipe`, which was taken before it began."""
    content = {
        "recipe": recipe,
        "outputs": {place(run, path): _content(path) for path in step.makes},
        "folders": {place(run, folder): _states(folder) for folder in step.fills},
        "profile": run.profile, "seed": run.seed, "commit": commit(), "date": time.strftime("%Y-%m-%d %H:%M:%S %z"),
    }  # fmt: skip
    write_json(content, receipt(run, step))


@cache
def place(run: Run, path: Path) -> str:
    """A file's name among the files of a run, which is the same for a variant of it."""
    for name, folder in (("run", run.folder), ("prepared", run.prepared), ("figures", run.figures), ("raw", run.raw)):
        if path == folder or path.is_relative_to(folder):
            return path.relative_to(folder).as_posix() if name == "run" else f"{name}/{path.relative_to(folder)}"
    return str(path)


def _content(path: Path) -> str:
    """A fingerprint of a file's content; "missing" if it is not there."""
    try:
        status = path.stat()
    except OSError:
        return "missing"
    return _checksum(path, status.st_size, status.st_mtime_ns, status.st_ino)


@cache
def _checksum(path: Path, size: int, changed: int, number: int) -> str:
    """One reading serves several steps."""
    return product.checksum(path)


def _listing(path: Path) -> str:
    """A fingerprint of the size and time of a file, or of every file below a folder."""
    if path.is_file():
        return fingerprint(inventory.state(path))
    return fingerprint(_states(path)) if path.is_dir() else "missing"


def _states(folder: Path) -> dict[str, list[int]]:
    start = len(str(folder)) + 1  # real data have a million files
    return {str(path)[start:]: inventory.state(path) for path in files_below(folder)}


def _changes(folder: Path, known: Mapping[str, list[int]], name: str) -> list[str]:
    """What is missing from a folder, new in it or changed; the first ones by name."""
    now = _states(folder) if folder.is_dir() else {}
    found = [
        f"{name}/{file} is {'missing' if file not in now else 'changed'}"
        for file in known
        if now.get(file) != known[file]
    ]
    found += [f"{name}/{file} is new" for file in now if file not in known]
    return found if len(found) <= 3 else [*found[:3], f"{len(found) - 3} more in {name}"]
