"""Tables as Markdown."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from lensnb.files import atomic_write


def markdown(table: pd.DataFrame, percent: Sequence[str] = (), digits: int = 3) -> str:
    """A table as Markdown: floats with `digits` digits, the columns in `percent` as percent, missing values empty."""
    header = [str(column) for column in table.columns]
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    for values in table.itertuples(index=False, name=None):
        cells = [_cell(value, name in percent, digits) for name, value in zip(header, values, strict=True)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(value: object, as_percent: bool, digits: int) -> str:
    if value is None or value is pd.NA or (isinstance(value, float) and np.isnan(value)):
        return ""
    if as_percent:
        return f"{100 * value:.1f} %"
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)


def write_text(title: str, text: str, note: str, path: Path) -> str:
    """Write a table's text with a title and a note, and return it without the title."""
    body = f"{text}\n{note}\n"
    with atomic_write(path) as temporary:
        temporary.write_text(f"# {title}\n\n{body}")
    return body
