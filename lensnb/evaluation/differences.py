"""What a variant changes: its rows of LENS Table II minus those of the run that it is a variant of."""

from pathlib import Path

import numpy as np
import pandas as pd

from lensnb.evaluation import froc
from lensnb.evaluation.markdown import markdown, write_text
from lensnb.evaluation.table2 import LABELS
from lensnb.files import read_table, write_table
from lensnb.runfolder import Run

COLUMNS = ["row", "reference", "variant", "difference", "low", "high"]
NOTE = (
    "Average sensitivity of each row on the test patients, and the difference with its paired 95 % interval, bootstrap "
    "over patients. The interval says nothing about the seed of the training: a row that was trained again moves by "
    "that too."
)


def shared_rows(reference: Run, variant: Run) -> list[str]:
    """The rows of LENS Table II whose detections both runs have."""
    return [row for row in LABELS if all(run.detections(row).exists() for run in (reference, variant))]


def row_differences(reference: Run, variant: Run, truth: dict[str, np.ndarray]) -> pd.DataFrame:
    """What differs in the rows that both runs have: COLUMNS, all but the first as fractions.

    truth: volume -> (n, 6) boxes in original pixels and slice numbers. Rows with the same detections differ by 0.
    """
    rows = []
    for name in shared_rows(reference, variant):
        matches = [froc.match(truth, read_table(run.detections(name))) for run in (reference, variant)]
        averages = [float(froc.sensitivity_at(froc.curve(one)).mean()) for one in matches]
        change = froc.difference(matches[1], matches[0])
        rows.append((name, *averages, change.value, change.low, change.high))
    return pd.DataFrame(rows, columns=COLUMNS)


def changed_tables(reference: Path, variant: Path) -> pd.DataFrame:
    """Every csv of results that both folders hold: table, numbers (of cells), changed (of them), largest (change).

    A table whose lines or columns are not the same has no number of changes.
    """
    rows = []
    for file in sorted(variant.glob("*.csv")):
        other = reference / file.name
        if file.stem == "differences" or not other.exists():
            continue
        before, after = (read_table(one).select_dtypes("number") for one in (other, file))
        if before.shape != after.shape or list(before.columns) != list(after.columns):
            rows.append((file.stem, after.size, np.nan, np.nan))
            continue
        change = np.abs(after.to_numpy(float) - before.to_numpy(float))
        differs = ~((change == 0) | (before.isna().to_numpy() & after.isna().to_numpy()))
        rows.append((file.stem, after.size, int(differs.sum()), float(np.nanmax(change, initial=0.0))))
    return pd.DataFrame(rows, columns=["table", "numbers", "changed", "largest"])


def write_differences(rows: pd.DataFrame, tables: pd.DataFrame, folder: Path) -> str:
    """Write differences.csv and differences.md into `folder`; return the text."""
    write_table(rows, folder / "differences.csv")
    text = "Nothing of Table II to compare yet.\n"
    if len(rows):
        text = markdown(rows.assign(row=rows["row"].map(LABELS)), percent=COLUMNS[1:])
    differ = tables[tables["changed"].fillna(1) > 0]
    text += f"\n{len(tables) - len(differ)} of {len(tables)} tables hold the same numbers.\n"
    if len(differ):
        text += "\n" + markdown(differ)
    return write_text("What the variant changes", text, NOTE if len(rows) else "", folder / "differences.md")
