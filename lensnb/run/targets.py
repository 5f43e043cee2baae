"""What a run can make: Snakemake's command and the files that the Snakefile declares."""

import csv
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from lensnb import runfolder

SNAKEFILE = runfolder.repository() / "notebooks" / "Snakefile"


class RunError(Exception):
    """A run that did not make what was asked for; the message says what to do, `status` is the exit status."""

    def __init__(self, message: str, status: int = 1):
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Product:
    """A file that the Snakefile declares."""

    name: str  # what --only calls it
    file: str  # as the Snakefile writes it
    path: Path
    rule: str
    up_to_date: bool


def snakemake(profile: str, seed: int, *arguments: str) -> list[str]:
    """The Snakemake command for a profile and a seed.

    It needs no lock of its own (`run` holds one), and redoes whatever was interrupted. A file is made again when
    something that it is made from changed: its inputs, the notebook's code or the profile's numbers.
    """
    folder = runfolder.runs(profile, seed)
    return [
        sys.executable, "-m", "snakemake", "--snakefile", str(SNAKEFILE), "--directory", str(folder), "--nolock",
        "--rerun-incomplete", "--rerun-triggers", "mtime", "params", "input", "--scheduler", "greedy", "--nocolor",
        "--config", f"profile={profile}", f"seed={seed}", *arguments,
    ]  # fmt: skip


def targets(profile: str, seed: int = 0) -> list[Product]:
    """Every file that the Snakefile declares for this profile and seed, in the order of the story."""
    runs, figures = runfolder.runs(profile, seed), runfolder.figures(profile, seed)
    runs.mkdir(parents=True, exist_ok=True)
    result = subprocess.run(snakemake(profile, seed, "--summary"), capture_output=True, text=True)
    if result.returncode:
        raise RunError(f"Snakemake cannot plan the run (status {result.returncode}):\n{result.stderr.strip()}")
    found = []
    for row in csv.DictReader(result.stdout.splitlines(), delimiter="\t"):
        path = runs / row["output_file"]
        # notebooks, figures and tables go by their own names, what lies deeper by its place
        shown = path.stem if path.parent == figures else str(Path(row["output_file"]).with_suffix(""))
        shown = os.path.relpath(shown, runfolder.root() / "data") if Path(shown).is_absolute() else shown
        made = row["status"] == "ok" and row["plan"] == "no update"
        found.append(Product(shown, row["output_file"], path, row["rule"], made))
    notebooks = {target.rule: target.name for target in found if target.path.suffix == ".ipynb"}
    return sorted(found, key=lambda target: (notebooks.get(target.rule, "steps without a notebook"), target.path))
