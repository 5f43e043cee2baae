"""The files of the LUNA16 challenge's layout: nodules, excluded findings, the list of scans, a submission."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from lensnb.boxes import MARK as POSITION
from lensnb.evaluation.froc import require_columns
from lensnb.evaluation.names import altered
from lensnb.files.cells import INVISIBLE, first_unprintable, no_number, numbers, one_a_line, read_cells

FARTHEST_MM = 1e6  # no scanner's coordinates; their squares stay finite
EXCLUDED_SOURCE = "it comes in the evaluation script of https://luna16.grand-challenge.org"


def read_seriesuids(path: Path | str) -> list[str]:
    """Read one series uid a line. ValueError names the line of a header or a repeated scan, which would count as a
    scan, and of what is no uid."""
    found = one_a_line(path)
    if not found:
        raise ValueError(f"{path}: no series uid in it")
    seen = {}
    for line, fields in found:
        uid = fields[0]
        if uid.lower() == "seriesuid":
            raise ValueError(
                f"{path}: line {line} is a header; the official file has none, and it would count as a scan: remove it"
            )
        if len(fields) > 1 or ";" in uid or " " in uid or INVISIBLE.search(uid):
            raise ValueError(f"{path}, line {line}: {','.join(fields)[:80]!r} is no series uid; give one a line")
        seen.setdefault(uid, []).append(line)
    repeated = {uid: lines for uid, lines in seen.items() if len(lines) > 1}
    if repeated:
        uid, lines = next(iter(repeated.items()))
        where = f"in lines {lines[0]} and {lines[1]}"
        raise ValueError(f"{path}: {len(repeated)} scan(s) repeated, the first is {uid} {where}")
    return list(seen)


def read_findings(path: Path | str, value: str) -> pd.DataFrame:
    """Read a csv with seriesuid, coordX, coordY, coordZ (LPS mm) and the column `value`; others stay as text.

    ValueError naming file and row if a column, an id or a number is missing, a number is not finite or out of reach,
    or a diameter is not positive (-1: unknown).
    """
    table = read_cells(path).reset_index(drop=True)
    require_columns(table, ["seriesuid", *POSITION, value], str(path))
    nameless = np.flatnonzero(table["seriesuid"].to_numpy() == "")
    if len(nameless):
        raise ValueError(f"{path}, row {nameless[0] + 1}: no seriesuid")
    odd = first_unprintable(table["seriesuid"])
    if odd is not None:
        raise ValueError(f"{path}, row {odd + 1}: seriesuid {table['seriesuid'][odd]!r} has an invisible character")
    for column in [*POSITION, value]:
        cells = table[column]
        table[column], wrong = numbers(cells)
        _refuse(wrong, lambda row, c=cells, name=column: f"{name} is {no_number(c[row])}", path)
        bad = ~np.isfinite(table[column].to_numpy())
        _refuse(bad, lambda row, c=cells, name=column: f"{name} is {c[row] or 'nan'}, not a finite number", path)
    for column in POSITION:
        far = table[column].abs().to_numpy() > FARTHEST_MM
        _refuse(far, lambda row, name=column: f"{name} is {table[name][row]:g} mm, farther than any scan", path)
    if value == "diameter_mm":
        size = table[value].to_numpy()
        bad = ((size <= 0) & (size != -1)) | (size > FARTHEST_MM)
        _refuse(bad, lambda row: f"diameter_mm is {size[row]:g}; it must be positive, or -1 if it is unknown", path)
    return table


def _refuse(bad: np.ndarray, what, path: Path | str) -> None:
    rows = np.flatnonzero(bad)
    if len(rows):
        raise ValueError(f"{path}, row {rows[0] + 1}: {what(rows[0])}")


def read_challenge(folder: Path | str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The nodules and the excluded findings of a LUNA16 folder, whose csv files may lie in CSVFILES.

    FileNotFoundError if one is missing: without the excluded findings, marks on them would be false positives.
    """
    tables = []
    for name in ("annotations.csv", "annotations_excluded.csv"):
        places = [Path(folder) / "CSVFILES" / name, Path(folder) / name]
        path = next((place for place in places if place.is_file()), None)
        if path is None:
            raise FileNotFoundError(f"{places[0]} does not exist; {EXCLUDED_SOURCE}")
        tables.append(read_findings(path, "diameter_mm"))
    return tables[0], tables[1]


def check_scans(seriesuids: Sequence[str], list_file: Path, tables: Mapping[Path, pd.DataFrame]) -> None:
    """Raise ValueError if a table's uids are listed ones that a program has changed: they would be other scans."""
    listed = set(seriesuids)
    for path, table in tables.items():
        elsewhere = [uid for uid in table["seriesuid"].unique() if uid not in listed]
        if reason := altered(elsewhere, seriesuids):
            raise ValueError(f"{path} and {list_file} name scans differently: {reason}")


def require_rows_on(seriesuids: Sequence[str], list_file: Path, path: Path, table: pd.DataFrame, what: str) -> None:
    """Raise ValueError if a table has rows, but none of a listed scan."""
    if len(table) and not table["seriesuid"].isin(list(seriesuids)).any():
        raise ValueError(
            f"{path}: none of its {len(table)} {what} lies on one of the {len(seriesuids)} scans of {list_file}; it "
            f"names {table['seriesuid'].iloc[0]!r}, the list {seriesuids[0]!r}"
        )
