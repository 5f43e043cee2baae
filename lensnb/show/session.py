"""What every notebook does first: check its parameters, fix the style, and say where things lie."""

import os
import platform
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython import get_ipython
from IPython.display import Markdown, display
from matplotlib.figure import Figure

from lensnb import runfolder
from lensnb.datasets import UNIVERSAL, present
from lensnb.datasets.store import Store
from lensnb.evaluation.markdown import markdown
from lensnb.provenance import sight
from lensnb.settings import Profile, load_profile
from lensnb.show import needs
from lensnb.show.parameters import CannotStart, check_injected
from lensnb.show.plots import show


@dataclass(frozen=True)
class Session:
    """A profile, a seed and the folders that belong to them. Nothing is written outside these folders."""

    profile: Profile
    seed: int
    run: runfolder.Run

    @property
    def name(self) -> str:
        """The profile's name."""
        return self.profile.name

    @property
    def raw(self) -> Path:
        """The datasets' own files."""
        return self.run.raw

    @property
    def figures(self) -> Path:
        """Tables and figures."""
        return self.run.figures

    @cached_property
    def store(self) -> Store:
        """The prepared volumes and their boxes, which notebook 02 makes."""
        return Store(self.run.prepared)

    @property
    def real(self) -> bool:
        """Whether the scans are real ones and not phantoms."""
        return self.raw == runfolder.real_data()

    @property
    def datasets(self) -> tuple[str, ...]:
        """The datasets that are there; phantoms have all."""
        return present(self.raw)

    @property
    def controls(self) -> bool:
        """Whether the trainings that only phantoms allow belong to this run."""
        return not self.real and self.profile.phantom.controls

    def volumes(self, split: str, dataset: str = UNIVERSAL) -> list[str]:
        """The names of a dataset's volumes in a split (train, val, test)."""
        table = self.store.volumes
        return table.index[(table["dataset"] == dataset) & (table["split"] == split)].tolist()

    def annotations(self, split: str, dataset: str = UNIVERSAL) -> pd.DataFrame:
        """The annotated boxes of a dataset's volumes in a split."""
        return self.store.boxes[self.store.boxes["volume"].isin(self.volumes(split, dataset))].reset_index(drop=True)

    def truth(self, volumes: Sequence[str]) -> pd.DataFrame | None:
        """The hidden truth of some volumes, a row for each lesion and slice; None for real data."""
        truth = self.store.truth
        return None if truth is None else truth[truth["volume"].isin(volumes)].reset_index(drop=True)

    def needs(self, *names: str, experiments: Sequence[str] = (), proposals: Sequence[str] = ()) -> None:
        """Stop the notebook with one line unless all of this is there; the line says what makes it.

        names: of `needs.NEEDS`; experiments: trained ones; proposals: of experiments on splits, such as "multi-val".
        """
        wanted = [needs.NEEDS[name] for name in names if not (name == "raw data" and self.real)]
        wanted += [needs.experiment(name) for name in experiments]
        wanted += [needs.proposals(name) for name in proposals]
        needs.check(wanted, self.run)

    def show(self, fig: Figure, name: str, caption: str, alt: str) -> None:
        """Save a figure as figures/<profile>/<name>.png and show it with its caption (see `plots.show`)."""
        show(fig, self.run.figure(name), caption, alt)


def start(profile: str, seed: int, interactive: bool = False) -> Session:
    """Open a notebook: check its parameters, set the style of tables and figures, print what it runs on.

    Raises CannotStart, a ValueError that Jupyter shows as one line, for a profile that does not exist, for a name or
    a type among papermill's parameters that is not the notebook's own, and for a parameter of the wrong type: a
    profile's `true` that arrives as text would switch on what it should switch off.
    """
    if shell := get_ipython():
        check_injected(shell.user_ns.get("In", [])[1:])
    for label, value, kind in (("profile", profile, str), ("seed", seed, int), ("interactive", interactive, bool)):
        if type(value) is not kind:
            raise CannotStart(f"parameter {label} is {value!r}; it must be of type {kind.__name__}")
    try:
        settings = load_profile(profile)
    except ValueError as error:
        raise CannotStart(str(error)) from None
    if runfolder.STEP not in os.environ:
        runfolder.work_by_hand(profile, seed)
    else:
        sight.limit()
    plt.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "figure.dpi": 110})
    pd.set_option("display.max_columns", 30, "display.width", 160)
    warnings.filterwarnings("ignore", message=".*IProgress not found.*")
    versions = f"Python {platform.python_version()}, numpy {np.__version__}, pandas {pd.__version__}"
    print(f"profile {profile}, seed {seed}, {versions}")
    run = runfolder.Run(profile, seed)
    if runfolder.STEP not in os.environ:
        print(f"by hand: all that this notebook writes goes to {_short(run.folder)} and {_short(run.figures)}")
    return Session(
        profile=settings,
        seed=seed,
        run=run,
    )


def _short(folder: Path) -> Path:
    return folder.relative_to(runfolder.root())


def say(text: str) -> None:
    """Show a sentence with computed numbers in it, as Markdown."""
    display(Markdown(text))


def show_table(table: pd.DataFrame, caption: str, percent: Sequence[str] = (), digits: int = 3) -> None:
    """Show a table with its caption above it; the columns in `percent` hold fractions and are shown as percent."""
    say(f"**{caption}**\n\n{markdown(table, percent, digits)}")
