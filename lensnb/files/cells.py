"""Csv tables that people and their programs wrote, as text; every cell is where its column's name says, or an error.

pandas alone would take a first field too many for an index and shift the row, fill short rows, use the first of two
columns of one name, and read True as 1.
"""

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from lensnb.files.text import decoded, read_text

NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|[+-]?(?:inf|infinity|nan)", re.ASCII | re.IGNORECASE)
DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d+", re.ASCII)
SEPARATORS = {";": "';'", "\t": "tabs", "|": "'|'"}
INVISIBLE = re.compile(r"[\x00-\x1f\x7f\u200b-\u200f\u2028-\u202e\u2060\ufffd]")
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def read_cells(path: Path | str, exact: Sequence[str] = (), advice: str = "") -> pd.DataFrame:
    """The cells of a csv with a header, as text without blanks around it, "" where empty; `exact` columns as they are.

    The index, `line`, says where in the file a row begins. Rows without any text are left out, and columns at the end
    without a name and any text. Raises FileNotFoundError with `advice`, and ValueError naming file and line for what is
    no text, another separator than a comma, a quotation mark that does not close, a row with more or fewer fields than
    the header, and a column that is there twice.
    """
    rows, lines = _rows(decoded(path, advice), path, blanks=bool(exact))
    header = [name.strip() for name in rows[0]]
    columns = {
        name: [cell if name in exact else cell.strip() for cell in cells]
        for name, cells in zip(header, zip(*rows[1:], strict=True) if rows[1:] else [()] * len(header), strict=True)
    }
    return pd.DataFrame(columns, index=pd.Index(lines[1:], name="line", dtype=int), dtype=str)


def read_csv(path: Path | str, **options) -> pd.DataFrame:
    """`pandas.read_csv` of a table that lensnb wrote; raises what `read_cells` does."""
    text = decoded(path)
    _rows(text, path, blanks=True)
    try:
        return pd.read_csv(io.StringIO(text), index_col=False, **options)
    except ValueError as error:
        raise ValueError(f"{path} can not be read as a csv: {error}") from error


def one_a_line(path: Path | str) -> list[tuple[int, list[str]]]:
    """The lines of a list in a text file that are not empty: line number, and its fields (one, if it is a list).

    Quotation marks and blanks around a field, and empty fields at the end, are taken away.
    """
    found = []
    for line, text in enumerate(read_text(path).split("\n"), start=1):
        fields = [field.strip().strip('"').strip() for field in text.split(",")]
        while fields and not fields[-1]:
            fields.pop()
        if fields:
            found.append((line, fields))
    return found


def numbers(cells: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """The cells of a column as float (n,), and which of them are no number: bool (n,). Empty ones are NaN.

    Python's float, as in the authors' scripts: other parsers may be off by the last digit, and that decides about a
    mark on a nodule's surface. Its liberties (1_000, digits of other scripts) are no numbers here.
    """
    texts = cells.tolist()
    wrong = np.array([bool(text) and not NUMBER.fullmatch(text) for text in texts], dtype=bool)
    values = [float("nan") if bad or not text else float(text) for text, bad in zip(texts, wrong, strict=True)]
    return np.array(values, dtype=float), wrong


def no_number(text: str) -> str:
    """What to say of a cell that is no number."""
    comma = "; write a point instead of the decimal comma" if DECIMAL_COMMA.fullmatch(text) else ""
    return f"{text[:60]!r}, not a number{comma}"


def first_unprintable(names: pd.Series) -> int | None:
    """The position of the first name with a control or invisible character, which equals no other; None without."""
    return next((i for i, name in enumerate(names) if INVISIBLE.search(name)), None)


def for_spreadsheet(table: pd.DataFrame) -> pd.DataFrame:
    """A table to be opened by a spreadsheet: an apostrophe before text that it would run as a formula.

    Numbers stay as they are, also those that are text, as -5.
    """
    named = table.rename(columns=_harmless)
    return named.assign(**{name: named[name].map(_harmless) for name in named if named[name].dtype.kind not in "biuf"})


def _harmless(value: object) -> object:
    is_text = isinstance(value, str) and value.startswith(FORMULA) and not NUMBER.fullmatch(value)
    return f"'{value}" if is_text else value


def _rows(text: str, path: Path | str, blanks: bool) -> tuple[list[list[str]], list[int]]:
    """Header and rows, all of one length, and the line where each begins; `blanks` before a field belong to it."""
    rows, lines, line = [], [], 1
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, skipinitialspace=not blanks)
    try:
        for row in reader:
            if any(map(str.strip, row)):
                rows.append(row)
                lines.append(line)
            line = reader.line_num + 1
    except csv.Error as error:
        reason = "a quotation mark that is not closed" if "unexpected end" in str(error) else str(error)
        raise ValueError(f"{path} can not be read as a csv: line {line}: {reason}") from error
    if not rows:
        raise ValueError(f"{path} can not be read as a csv: No columns, the file is empty")
    _check_header(rows[0], path)
    width = len(rows[0])
    while width and not rows[0][width - 1].strip() and not any(cell.strip() for r in rows for cell in r[width - 1 :]):
        width -= 1
    for row, number in zip(rows, lines, strict=True):
        if len(row) < width or any(cell.strip() for cell in row[width:]):
            raise ValueError(
                f"{path} can not be read as a csv: line {number} has {len(row)} fields, the header {width}: "
                f"{','.join(row)[:80]!r}"
            )
        del row[width:]
    rows[0] = [name if name.strip() else f"Unnamed: {i}" for i, name in enumerate(rows[0])]
    return rows, lines


def _check_header(header: list[str], path: Path | str) -> None:
    names = [name.strip() for name in header]
    while len(names) > 1 and not names[-1]:
        names.pop()
    if names[0].lower().startswith("sep="):
        raise ValueError(f"{path} can not be read as a csv: its first line is {names[0]!r}; remove that line")
    for separator, name in SEPARATORS.items():
        if len(names) == 1 and separator in names[0]:
            raise ValueError(
                f"{path} can not be read as a csv: it is separated by {name}, not by commas; save it with commas, "
                "and with points in its numbers"
            )
    twice = next((name for i, name in enumerate(names) if name and name in names[:i]), None)
    if twice is not None:
        raise ValueError(f"{path} can not be read as a csv: the column {twice} is there twice; remove one")
