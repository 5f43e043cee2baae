"""Which of the real datasets are there, and whether they are complete (`python -m lensnb data check`)."""

from pathlib import Path
from types import ModuleType

import pandas as pd

from lensnb.datasets import deeplesion, lits, luna16, nih_ln

# what the makers of the datasets state; for LiTS and NIH-LN a volume with its labels
LESIONS_IN_DL_INFO, MANUAL_SUB_VOLUMES = 32_735, 1_000
SCANS = {"LUNA16": 888, "LiTS": 131, "NIH-LN": 176}
READERS = {"LUNA16": luna16, "LiTS": lits, "NIH-LN": nih_ln}
COLUMNS = ["dataset", "what", "found", "expected", "remark"]


def check(root: Path | str) -> pd.DataFrame:
    """Found against expected counts of the four datasets below `root`; `remark` says what to do where they differ.

    Columns dataset, what, found, expected, remark (empty where all is there). Files are listed, not read.
    """
    root = Path(root)
    rows = _check_deeplesion(root)
    for name, reader in READERS.items():
        what = "scans" if name == "LUNA16" else "volumes with labels"
        rows.append((name, what, *_usable(reader, root, SCANS[name])))
    return pd.DataFrame(rows, columns=COLUMNS)


def _check_deeplesion(root: Path) -> list[tuple]:
    name, folder = deeplesion.NAME, root / deeplesion.NAME
    try:
        lesions, remark = len(deeplesion.read_info(folder / "DL_info.csv")), ""
    except (FileNotFoundError, ValueError) as error:
        lesions, remark = 0, str(error)
    if lesions and lesions != LESIONS_IN_DL_INFO:
        remark = f"{folder / 'DL_info.csv'} is not the whole table; get it again from {deeplesion.SOURCE}"
    rows = [(name, "lesions in DL_info.csv", lesions, LESIONS_IN_DL_INFO, remark)]
    if lesions:
        rows.append((name, "sub-volumes with images", *_usable(deeplesion, root, None)))
    try:
        manual = sum(len(volumes) for volumes in deeplesion.read_manual(root).values())
        remark = "" if manual else f"{folder / deeplesion.MANUAL_FILE} comes from {deeplesion.MANUAL_SOURCE}"
    except ValueError as error:
        manual, remark = 0, str(error)
    if 0 < manual != MANUAL_SUB_VOLUMES:
        remark = f"{folder / deeplesion.MANUAL_FILE} is not the published file ({deeplesion.MANUAL_SOURCE})"
    return [*rows, (name, "sub-volumes of the manual test set", manual, MANUAL_SUB_VOLUMES, remark)]


def _usable(reader: ModuleType, root: Path, expected: int | None) -> tuple[int, int, str]:
    """Usable volumes of a dataset, how many there should be (None: as many as it names), and what is wrong."""
    try:
        found = reader.find(root)
    except (FileNotFoundError, ValueError) as error:
        return 0, expected or 0, str(error)
    problems = found.loc[found["problem"] != "", "problem"]
    usable = len(found) - len(problems)
    expected = len(found) if expected is None else expected
    if usable == expected:
        return usable, expected, ""
    reason = f"{len(problems)} unusable, first: {problems.iloc[0]}; " if len(problems) else ""
    return usable, expected, f"{reason}the dataset comes from {reader.SOURCE}"


def report(table: pd.DataFrame, root: Path | str) -> str:
    """The check as lines for a terminal."""
    lines = [f"datasets in {root}:"]
    for row in table.to_dict("records"):
        state = "ok" if row["found"] == row["expected"] else "absent" if row["found"] == 0 else "differs"
        lines.append(f"  {state:<8}{row['dataset']:<12}{row['found']:>7} of {row['expected']:>6} {row['what']}")
        if row["remark"]:
            lines.append(f"          {row['remark']}")
    return "\n".join(lines)


def complete(table: pd.DataFrame) -> bool:
    """Whether every count is as expected."""
    return bool((table["found"] == table["expected"]).all())
