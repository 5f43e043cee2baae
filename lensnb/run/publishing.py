"""`./run_all.sh publish`: puts the outputs of the last full phantom run into notebooks/, to be read on the web."""

import re
from collections.abc import Sequence
from pathlib import Path

import nbformat

from lensnb import runfolder
from lensnb.files import atomic_write
from lensnb.run.targets import Product, RunError
from lensnb.show.parameters import assignments

PROFILE = "phantom"
PUBLISHED_EXPERIMENT = "single"  # whose training the one training notebook shows: its own default
LARGE = 2_000_000  # bytes


def publish(found: Sequence[Product]) -> list[Path]:
    """Copy the outputs of every executed notebook into its source in notebooks/; return the files written.

    Raises RunError if a target of the run is missing or out of date, or if a notebook's own defaults are not what it
    was run with: the reader sees the defaults above outputs that they did not make.
    """
    waiting = [target.name for target in found if not target.up_to_date]
    if waiting:
        some = ", ".join(waiting[:5]) + (" ..." if len(waiting) > 5 else "")
        raise RunError(f"cannot publish: {len(waiting)} of {len(found)} targets of the {PROFILE} run are not made or "
                       f"out of date ({some}); ./run_all.sh --profile {PROFILE} makes them")  # fmt: skip
    merged = {}
    for source in sorted((runfolder.repository() / "notebooks").glob("*.ipynb")):
        runs = runfolder.runs(PROFILE)
        executed = runs / source.name
        if not executed.exists():
            executed = runs / f"{source.stem}-{PUBLISHED_EXPERIMENT}.ipynb"
        if not executed.exists():
            raise RunError(f"cannot publish: the Snakefile runs no notebook {source.stem}")
        merged[source] = merge(nbformat.read(source, 4), nbformat.read(executed, 4), source.stem)
    for source, notebook in merged.items():
        with atomic_write(source) as temporary:
            nbformat.write(notebook, temporary)
        size = source.stat().st_size
        print(
            f"published {source.relative_to(runfolder.repository())}, {size / 1e6:.1f} MB"
            + (" (large)" * (size > LARGE))
        )
    return list(merged)


def merge(source: nbformat.NotebookNode, executed: nbformat.NotebookNode, name: str) -> nbformat.NotebookNode:
    """The source notebook with the outputs of its execution, free of papermill's marks, paths and times.

    Raises RunError if the code is not what was executed, or if the defaults are not the parameters of the execution.
    """
    ran = [cell for cell in executed.cells if cell.cell_type == "code" and "injected-parameters" not in _tags(cell)]
    code = [cell for cell in source.cells if cell.cell_type == "code"]
    if [cell.source for cell in code] != [cell.source for cell in ran]:
        raise RunError(f"cannot publish {name}: its code was changed after the run")
    defaults = assignments(next((cell.source for cell in code if "parameters" in _tags(cell)), ""))
    used = executed.metadata.get("papermill", {}).get("parameters", {})
    for parameter, value in used.items():
        if defaults.get(parameter) != value:
            raise RunError(f"cannot publish {name}: it was run with {parameter} = {value!r}, its own default is "
                           f"{defaults.get(parameter)!r}")  # fmt: skip
    for number, (cell, result) in enumerate(zip(code, ran, strict=True), start=1):
        cell.execution_count = number
        cell.outputs = [_without_paths(output) for output in result.outputs]
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = number
        for key in ("papermill", "execution"):
            cell.metadata.pop(key, None)
    for key in ("papermill", "widgets"):
        source.metadata.pop(key, None)
    return source


def _tags(cell: nbformat.NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def _without_paths(output: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The output with this machine's folders taken out of its texts."""
    folders = sorted(
        {str(f) for f in (runfolder.root(), runfolder.repository(), runfolder.real_data(), Path.home())}, key=len
    )
    pattern = "|".join(re.escape(folder) + "/" for folder in reversed(folders) if folder != "/")

    def clean(value):
        if isinstance(value, str):
            return re.sub(pattern, "", value)
        if isinstance(value, list):
            return [clean(item) for item in value]
        if isinstance(value, dict):
            cleaned = {key: item if key.startswith("image/") else clean(item) for key, item in value.items()}
            return nbformat.NotebookNode(cleaned)
        return value

    return clean(output)
