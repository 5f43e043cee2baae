"""What a run can make, what of it is out of date and why, and Snakemake's command to make it."""

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lensnb import runfolder
from lensnb.run import receipts, story
from lensnb.runfolder import Run

SNAKEFILE = runfolder.repository() / "notebooks" / "Snakefile"
DONE = "done"  # folder of Snakemake's markers: the steps that need not be run


class RunError(Exception):
    """A run that did not make what was asked for; the message says what to do, `status` is the exit status."""

    def __init__(self, message: str, status: int = 1):
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Product:
    """A file that a step makes. name: what --only calls it; reason: why it must be made (again), or nothing."""

    name: str
    path: Path
    step: str
    reason: str = ""

    @property
    def up_to_date(self) -> bool:
        """Whether it is there and is what would be made today."""
        return not self.reason


def snakemake(profile: str, seed: int, *arguments: str) -> list[str]:
    """Snakemake's command for a profile and a seed: it runs the steps that have no marker, and what follows from them.

    It needs no lock of its own (`run` holds one) and no records: receipts tell what a step was made from.
    """
    return [
        sys.executable, "-m", "snakemake", "--snakefile", str(SNAKEFILE),
        "--directory", str(runfolder.runs(profile, seed)), "--nolock", "--rerun-incomplete", "--drop-metadata",
        "--rerun-triggers", "params", "--scheduler", "greedy", "--nocolor",
        "--config", f"profile={profile}", f"seed={seed}", *arguments,
    ]  # fmt: skip


def targets(profile: str, seed: int = 0) -> list[Product]:
    """Every file that the steps of this profile and seed make, in the order of the story."""
    run, steps = Run(profile, seed), story.steps(profile, seed)
    why = receipts.survey(run, steps)
    found = []
    for step in steps:
        reason = "; ".join(why[step.name])
        found += [Product(_shown(run, path), path, step.name, reason) for path in step.makes]
    return found


def _shown(run: Run, path: Path) -> str:
    """Notebooks, figures and tables go by their own names, what lies deeper by its place."""
    if path.parent in (run.figures, run.folder):
        return path.stem
    for folder in (run.folder, runfolder.root() / "data"):
        if path.is_relative_to(folder):
            return str(path.relative_to(folder).with_suffix(""))
    return path.stem


def mark(profile: str, seed: int, waiting: Iterable[str]) -> None:
    """Leave a marker for every step but those `waiting`, which Snakemake then runs."""
    folder, waiting = runfolder.runs(profile, seed) / DONE, set(waiting)
    folder.mkdir(parents=True, exist_ok=True)
    for step in story.steps(profile, seed):
        marker = folder / step.name
        marker.unlink(missing_ok=True)
        if step.name not in waiting:
            marker.touch()


def markers(chosen: Iterable[Product]) -> list[str]:
    """What Snakemake is asked for: the markers of the steps that make these files."""
    return list(dict.fromkeys(f"{DONE}/{target.step}" for target in chosen))
