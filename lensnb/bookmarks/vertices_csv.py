"""Marks in a csv: four vertices in patient millimetres in each row, as DeepLesion's bookmarks came (Sec. 2.2.1).

Columns: series_uid (SeriesInstanceUID); coordinates, which says LPS (DICOM: x to the left, y to the back, z to the
head) or RAS (x to the right, y to the front), as numbers alone do not; x1, y1, z1 and x2, y2, z2, the ends of the one
diameter; x3, y3, z3 and x4, y4, z4, those of the other. Where they are there: tool (RECIST, the default; others need
no vertices and are counted, under their names if TOOLS has them), image_uid (SOPInstanceUID of the slice), label (as
"B06 F03"), patient_id (compared with the images'). Other columns are left alone.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from lensnb.bookmarks.marks import CSV, LINE, MM, Mark
from lensnb.files.cells import no_number, numbers, read_cells

VERTICES = [f"{axis}{number}" for number in range(1, 5) for axis in "xyz"]
NEEDED = ["series_uid", "coordinates", *VERTICES]
TO_LPS = {"LPS": (1.0, 1.0, 1.0), "RAS": (-1.0, -1.0, 1.0)}
FARTHEST_MM = 1e5  # no scanner's coordinates
TOOLS = ("line", "arrow", "ellipse", "circle", "point", "outline", "segmentation", "text")
PAIRS = ("", "recist", "recist pair", "bidimensional", "bidirectional")  # names of the tool that draws both diameters


def read_vertices(path: Path | str) -> list[Mark]:
    """The marks of a csv; a RECIST pair is two lines, as it is in the other forms.

    Raises FileNotFoundError, or ValueError naming file and line for what is no csv, for columns that are missing, and
    for rows of RECIST pairs that lack a vertex or do not say whether they are LPS or RAS.
    """
    path = Path(path)
    table = read_cells(path, advice="--csv names a table of vertices")
    absent = [name for name in NEEDED if name not in table]
    if absent:
        why = "; LPS or RAS must be said, for each row" if "coordinates" in absent else ""
        raise ValueError(f"{path} has no column {', '.join(absent)}{why}; it has {', '.join(table.columns)}")
    values = {name: numbers(table[name]) for name in VERTICES}
    found = []
    for index, (line, row) in enumerate(table.iterrows()):
        tool = row.get("tool", "").strip().lower()
        place = f"line {line}"
        scope = f"{path}|{place}"
        image = row.get("image_uid", "")
        common = {"form": CSV, "file": path, "place": place, "scope": scope, "group": scope, "units": MM,
                  "images": ((image, 0),) if image else (), "series": row["series_uid"],
                  "patient": row.get("patient_id", ""), "label": row.get("label", ""), "bound": True}  # fmt: skip
        if tool not in PAIRS:
            found.append(Mark(tool=tool if tool in TOOLS else "another tool", points=np.zeros((0, 3)), **common))
            continue
        _check(row, index, values, f"{path}, line {line}")
        vertices = np.array([values[name][0][index] for name in VERTICES]).reshape(4, 3)
        vertices = vertices * TO_LPS[row["coordinates"].upper()]
        found += [Mark(tool=LINE, points=vertices[ends], **common) for ends in (slice(0, 2), slice(2, 4))]
    return found


def _check(row: pd.Series, index: int, values: dict, where: str) -> None:
    """ValueError if a row of a RECIST pair can not be placed."""
    if row["coordinates"].upper() not in TO_LPS:
        raise ValueError(f"{where}: coordinates is {row['coordinates']!r}; it must say LPS or RAS")
    if not row["series_uid"] and not row.get("image_uid", ""):
        raise ValueError(f"{where}: series_uid is empty; without it the vertices lie in no CT")
    for name in VERTICES:
        value, wrong = (column[index] for column in values[name])
        if wrong or not abs(value) <= FARTHEST_MM:  # nan, too
            raise ValueError(f"{where}: {name} is {no_number(row[name]) if row[name] else 'empty'}; give it in mm")
