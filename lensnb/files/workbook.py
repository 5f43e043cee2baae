"""The first sheet of an Excel workbook as text, for tables that were published so."""

import zipfile
from collections.abc import Sequence
from pathlib import Path

import openpyxl
import pandas as pd

from lensnb.files.reasons import reason_of
from lensnb.files.text import require_file

MAX_BYTES = 2**28  # unpacked; a workbook can be packed a thousandfold


def read_sheet(path: Path | str, columns: Sequence[str], advice: str = "") -> pd.DataFrame:
    """`columns` of the first sheet as text without blanks around it, "" where empty; the index is the sheet's row.

    Rows without any text are left out. Raises FileNotFoundError with `advice`, and ValueError naming file and cell for
    a broken workbook, a missing or repeated column, merged cells (only the first of them holds the text), a formula
    (its value may never have been computed) and an error that Excel shows.
    """
    path = require_file(path, advice)
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(part.file_size for part in archive.infolist()) > MAX_BYTES:
                raise ValueError(f"it unpacks to more than {MAX_BYTES:,} bytes")
        sheet = openpyxl.load_workbook(path).worksheets[0]
    except Exception as error:  # zip and XML errors alike, and a workbook of charts alone
        raise ValueError(f"{path} is not a readable table: {reason_of(error)}") from error
    if sheet.merged_cells.ranges:
        raise ValueError(f"{path}: the cells {sorted(map(str, sheet.merged_cells.ranges))[0]} are merged; unmerge them")
    rows = sheet.iter_rows()
    header = [str(cell.value or "").strip() for cell in next(rows, ())]
    for name in columns:
        if header.count(name) != 1:
            what = "no column" if name not in header else "more than one column"
            raise ValueError(f"{path} has {what} {name}; it should have {', '.join(columns)}")
    places = [header.index(name) for name in columns]
    texts = {}
    for cells in rows:
        row = [cells[place] for place in places]
        for cell in row:
            if cell.data_type in ("f", "e"):
                what = "a formula; paste its value" if cell.data_type == "f" else f"the error {cell.value}"
                raise ValueError(f"{path}, cell {cell.coordinate}: {what}")
        texts[cells[0].row] = ["" if cell.value is None else str(cell.value).strip() for cell in row]
    texts = {row: cells for row, cells in texts.items() if any(cells)}
    return pd.DataFrame(texts.values(), columns=list(columns), index=pd.Index(texts, name="line", dtype=int), dtype=str)
