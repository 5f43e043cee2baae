"""What a seed leaves for the comparison of seeds: one small file, to be committed or carried to another machine.

It holds the lines of the seed's tables and, for each row of LENS Table II, the average sensitivity with its bootstrap
samples. All seeds are tested on the same patients and draw the same samples of them, so that files made on different
machines, in any order, can be put together.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lensnb.datasets.manual_boxes import MANUAL_FILE
from lensnb.evaluation import froc
from lensnb.evaluation.official import read_truth
from lensnb.evaluation.primary import ROWS
from lensnb.evaluation.table2 import LABELS
from lensnb.files import atomic_write, fingerprint, read_json, read_table
from lensnb.runfolder import Run

# table, the column that names its lines, and the columns that are compared, each with its kind
COMPARED = (
    ("table2", "row", {"average": "row"}),
    ("claims", "claim", {"ours": "claim"}),
    ("mining_audit", "strategy", {"precision": "precision", "recall": "recall"}),
)
MADE = "made.json"  # beside a run's tables: which commit made them
DIGITS = 6  # of an average
LINE = ("kind", "name", "value", "verdict")  # the last is empty for all but claims


@dataclass(frozen=True)
class SeedResult:
    """One seed of a profile.

    lines: value and verdict, by kind (row, claim, precision, recall) and name. averages: row -> (1 + draws,), the
    average sensitivity and its bootstrap samples; empty if the run's detections are not there. test_set: a fingerprint.
    """

    profile: str
    seed: int
    commit: str
    lines: pd.DataFrame
    test_set: str = ""
    averages: Mapping[str, np.ndarray] | None = None


def file_of(profile: str, seed: int) -> Path:
    """Where a seed's result lies: among the tables of the profile's first run, which may be committed."""
    return Run(profile).figures / "seeds" / f"{seed}.json"


def of_run(run: Run, resamples: int = 1000) -> SeedResult:
    """The result of a run whose tables are there; without averages if not all ROWS have detections."""
    made = read_json(run.figures / MADE) if (run.figures / MADE).exists() else {}
    commit = str(made.get("table2.csv", {}).get("commit", "unknown"))
    test_set, averages = "", {}
    if all(run.detections(row).exists() for row in ROWS):
        truth = read_truth(run.raw / MANUAL_FILE, "test")
        test_set = fingerprint({volume: np.asarray(boxes, float).tolist() for volume, boxes in truth.items()})
        for row in (row for row in LABELS if run.detections(row).exists()):
            values = froc.averages(froc.match(truth, read_table(run.detections(row))), resamples=resamples)
            averages[row] = values.round(DIGITS)
    return SeedResult(run.profile, run.seed, commit, lines_of(run), test_set, averages)


def lines_of(run: Run) -> pd.DataFrame:
    """The compared numbers of a run's tables: value and verdict, by kind and name. ValueError for a broken table."""
    parts = []
    for file, name, columns in COMPARED:
        wanted = [name, *columns, *(["verdict"] if "claim" in columns.values() else [])]
        table = read_table(run.table(file), wanted)
        for column, kind in columns.items():
            if len(table) and not pd.api.types.is_numeric_dtype(table[column]):
                raise ValueError(f"{run.table(file)}: the column {column} should hold numbers; make it again")
            verdict = table["verdict"] if kind == "claim" else ""
            part = {"kind": kind, "name": table[name], "value": table[column], "verdict": verdict}
            parts.append(pd.DataFrame(part))
    lines = _typed(pd.concat(parts))
    if lines.index.has_duplicates:
        twice = " ".join(map(str, lines.index[lines.index.duplicated()][0]))
        raise ValueError(f"{run.figures}: its tables have {twice!r} more than once; make them again")
    return lines


def _typed(lines: pd.DataFrame) -> pd.DataFrame:
    types = {"kind": str, "name": str, "value": float, "verdict": str}
    return lines.fillna({"verdict": ""}).astype(types).set_index(["kind", "name"])


def write(result: SeedResult) -> None:
    """Write the file of a seed; the same result gives the same bytes."""
    lines = result.lines.reset_index()[list(LINE)].astype(object)
    content = {
        "profile": result.profile,
        "seed": result.seed,
        "commit": result.commit,
        "test_set": result.test_set,
        "lines": lines.where(lines.notna(), None).to_numpy().tolist(),
        "averages": {row: [None if np.isnan(v) else v for v in values.tolist()]
                     for row, values in (result.averages or {}).items()},
    }  # fmt: skip
    with atomic_write(file_of(result.profile, result.seed)) as temporary:
        temporary.write_text(json.dumps(content) + "\n")


def read(path: Path) -> SeedResult:
    """Read the file of a seed. ValueError, which names the file, for anything else."""
    content = read_json(path)
    try:
        lines = _typed(pd.DataFrame(content["lines"], columns=list(LINE)))
        averages = {str(row): np.array(values, dtype=float) for row, values in content["averages"].items()}
        texts = {name: str(content[name]) for name in ("profile", "commit", "test_set")}
        result = SeedResult(seed=int(content["seed"]), lines=lines, averages=averages, **texts)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"it has no {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"{path} is not what `python -m lensnb seeds` writes: {what}") from error
    if len({values.shape for values in averages.values()}) > 1 or lines.index.has_duplicates:
        raise ValueError(
            f"{path} is not what `python -m lensnb seeds` writes: rows of several lengths, or a line twice"
        )
    return result
