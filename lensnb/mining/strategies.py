"""The list of mining strategies (LENS Sec. V), and what is asked of all: files, colours, audits, LENS Table IV."""

from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType

import pandas as pd

from lensnb.files import read_table
from lensnb.mining import counts, cross_dataset, cross_slice, intra_patient
from lensnb.mining.patients import Patients
from lensnb.runfolder import Run


@dataclass(frozen=True)
class Strategy:
    """One mining strategy.

    name: in tables and of its files (`Run.mined`, `Run.audit`).
    source: of its label rows; `uncertain` for those that training ignores, whoever found them.
    certain: whether its boxes count as lesions; else they are ignored.
    row: of LENS Table IV.
    colour: of its boxes in figures.
    functions: the module with choose, mine, audit and count, see the docstring of `lensnb.mining`.
    """

    name: str
    source: str
    certain: bool
    row: str
    colour: str
    functions: ModuleType


# in the order in which they mine: each knows what the certain ones before it have found
STRATEGIES = (
    Strategy("cross-slice", "cross-slice", True, "+ Cross-slice", "#009E73", cross_slice),
    Strategy("intra-patient", "intra-patient", True, "+ Intra-patient", "#E69F00", intra_patient),
    Strategy("cross-dataset", "uncertain", False, "+ Cross-dataset", "#CC79A7", cross_dataset),
)
SOURCES = ("annotated", *dict.fromkeys(strategy.source for strategy in STRATEGIES), "truth")


def open_patients(
    run: Run,
    split: str,
    annotations: pd.DataFrame,
    before: str,
    proposals: pd.DataFrame | None = None,
    strategies: Sequence[Strategy] = STRATEGIES,
) -> Patients:
    """What the strategy of name `before` knows of the patients of a split ("train" or "val").

    Reads the tracklets of the run and what the certain strategies before it have mined. Raises FileNotFoundError if
    one of them has not mined yet, ValueError for a name that is no strategy.
    """
    names = [strategy.name for strategy in strategies]
    if before not in names:
        raise ValueError(f"{before!r} is no mining strategy; choose one of {', '.join(names)}")
    earlier = [strategy.name for strategy in strategies[: names.index(before)] if strategy.certain]
    mined = tuple(read_table(run.mined(name, split)) for name in earlier)
    return Patients(annotations, proposals, read_table(run.tracklets(split)), mined)


def audits(
    mined: dict[str, pd.DataFrame],
    patients: Patients,
    truth: pd.DataFrame | None,
    theta: float,
    strategies: Sequence[Strategy] = STRATEGIES,
) -> pd.DataFrame:
    """Audit what all strategies mined (label rows by name of the strategy): strategy, mined, precision, recall, ...

    Each is judged as one that knows what the certain ones before it have found. `patients` know annotations alone.
    """
    lines = []
    for strategy in strategies:
        found = mined[strategy.name]
        lines.append(strategy.functions.audit(found, patients, truth, theta))
        if strategy.certain:
            patients = patients.with_mined(found)
    return pd.DataFrame(lines)


def table4(
    annotations: pd.DataFrame,
    mined: dict[str, pd.DataFrame],
    volumes: pd.DataFrame,
    strategies: Sequence[Strategy] = STRATEGIES,
) -> pd.DataFrame:
    """The counts of LENS Table IV: labels and training slices as strategies are added.

    mined: label rows by name of the strategy. volumes: the store's table of the training volumes; with unlabelled
    slices, all their slices are trained on, and all ignored boxes count. Returns method, gt_3d, gt_2d, uncertain_2d,
    training_slices.
    """
    known, total, everywhere = annotations, counts.labels(annotations), 0
    rows = [{"method": "No mining", **total}]
    for strategy in strategies:
        found = mined[strategy.name]
        added = strategy.functions.count(known, found)
        total = {name: total[name] + added[name] for name in counts.COUNTS}
        rows.append({"method": strategy.row, **total})
        if strategy.certain:
            known = pd.concat([known, found], ignore_index=True)
        else:
            everywhere += len(found)
    unlabelled = total | {"uncertain_2d": everywhere, "training_slices": int(volumes["depth"].sum())}
    return pd.DataFrame([*rows, {"method": "+ Unlabeled", **unlabelled}])
