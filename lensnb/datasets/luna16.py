"""LUNA16: MetaImage scans in ten subsets, nodules as centre and diameter in patient millimetres."""

from pathlib import Path

import numpy as np
import pandas as pd

from lensnb.ct.read import read_image
from lensnb.ct.volume import CT
from lensnb.datasets import DATASETS, FOUND, SLICE_BOXES
from lensnb.files import files_below, is_macos
from lensnb.files.cells import first_unprintable, numbers, one_a_line, read_cells

NAME = "LUNA16"
LUNA16 = DATASETS[NAME]
FARTHEST_MM = 1e6  # no scanner's coordinates


def find(root: Path | str) -> pd.DataFrame:
    """One row per scan that a csv file names or a subset folder holds; `study` is the subset.

    Scans without nodules stay: they are negatives. Raises FileNotFoundError without annotations.csv,
    ValueError naming the row for a nodule that is not five proper values, or that is of a scan which seriesuids.csv,
    if it is there, does not list: the scan that is meant would be taken for healthy.
    """
    folder = Path(root) / NAME
    nodules = read_annotations(csv_file(folder, "annotations.csv"))
    files, copies = {}, {}
    inside = (path for subset in folder.glob("subset[0-9]") for path in files_below(subset) if not is_macos(path))
    for path in sorted(path for path in inside if path.suffix == ".mhd"):  # unpacking may make folders in folders
        uid = path.name.removesuffix(".mhd")
        if files.setdefault(uid, path) != path:
            copies[uid] = path
    seriesuids = csv_file(folder, "seriesuids.csv")
    listed = read_seriesuids(seriesuids) if seriesuids.exists() else []
    _check_listed(nodules, listed, csv_file(folder, "annotations.csv"), seriesuids)
    of_scan: dict[str, list] = {}
    for uid, *nodule in nodules.to_numpy(object).tolist():
        of_scan.setdefault(uid, []).append(nodule)
    rows = []
    for uid in sorted({*files, *listed, *of_scan}):
        path = files.get(uid)
        problem = "" if path else f"missing scan: {uid}.mhd in no subset folder"
        if path and not any(path.with_suffix(suffix).exists() for suffix in (".raw", ".zraw")):
            problem = f"missing voxels: {path.with_suffix('.raw').relative_to(root)} does not exist"
        if uid in copies:
            both = [str(file.relative_to(root)) for file in (path, copies[uid])]
            problem = f"two files: {' and '.join(both)}; remove one"
        subset = path.relative_to(folder).parts[0] if path else "none"
        file = str(path.relative_to(root)) if path else ""
        annotations = of_scan.get(uid, [])
        rows.append([NAME, uid, subset, uid, uid, "", file, LUNA16.lesions, annotations, problem,
                     "", len(annotations), 0.0])  # fmt: skip
    return pd.DataFrame(rows, columns=FOUND)


def csv_file(folder: Path, name: str) -> Path:
    """One of the challenge's tables, which lie in CSVFILES or beside the subsets."""
    inside = folder / "CSVFILES" / name
    return inside if inside.exists() else folder / name


def read_annotations(path: Path) -> pd.DataFrame:
    """Nodules: seriesuid, lesion (luna + 0-based row of the file), x_mm, y_mm, z_mm (LPS), diameter_mm.

    FileNotFoundError, or ValueError naming file and line for a nodule that is not five proper values or is repeated.
    """
    table = read_cells(path, advice=f"LUNA16 comes from {LUNA16.source}")
    wanted = ["coordX", "coordY", "coordZ", "diameter_mm"]
    absent = [name for name in ["seriesuid", *wanted] if name not in table]
    if absent:
        raise ValueError(f"{path} has no column {', '.join(absent)}")
    if table.empty:  # all scans would be taken for healthy
        raise ValueError(f"{path} has no rows; LUNA16 comes from {LUNA16.source}")
    values = np.column_stack([numbers(table[name])[0] for name in wanted])
    far = ~(np.abs(values) <= FARTHEST_MM).all(axis=1)  # nan, too
    _refuse(far | (values[:, 3] <= 0), "not a position and a positive diameter", table, path)
    _refuse((table["seriesuid"] == "").to_numpy(), "no seriesuid", table, path)
    odd = first_unprintable(table["seriesuid"])
    if odd is not None:
        raise ValueError(f"{path}, line {table.index[odd]}: the seriesuid has an invisible character")
    nodules = pd.DataFrame(values, columns=["x_mm", "y_mm", "z_mm", "diameter_mm"])
    nodules.insert(0, "seriesuid", table["seriesuid"].to_numpy())
    _refuse(nodules.duplicated().to_numpy(), "this nodule is there before", table, path)
    nodules.insert(1, "lesion", [f"luna{row:04d}" for row in range(len(table))])
    return nodules


def _refuse(bad: np.ndarray, what: str, table: pd.DataFrame, path: Path) -> None:
    rows = np.flatnonzero(bad)
    if len(rows):
        raise ValueError(f"{path}, line {table.index[rows[0]]}: {what} ({len(rows)} such rows)")


def read_seriesuids(path: Path) -> list[str]:
    """The scans of the challenge. The official file has no header line, but copies with one exist.

    ValueError for a line with more than one: the others would be missed by nobody.
    """
    lines = one_a_line(path)
    for line, fields in lines:
        if len(fields) > 1:
            raise ValueError(f"{path}, line {line}: {len(fields)} fields; write one seriesuid a line")
    return sorted({fields[0] for _, fields in lines if fields[0] and fields[0].lower() != "seriesuid"})


def _check_listed(nodules: pd.DataFrame, listed: list[str], annotations: Path, seriesuids: Path) -> None:
    unknown = sorted(set(nodules["seriesuid"]) - set(listed)) if listed else []
    if unknown:
        raise ValueError(
            f"{annotations} has nodules of {unknown[0]}, which {seriesuids} does not list ({len(unknown)} such scans); "
            "one of them is misspelt, or the list is cut off"
        )


def read(root: Path | str, row: pd.Series) -> tuple[CT, pd.DataFrame]:
    """One scan and its nodules, each a sphere cut by the slices. The notes name nodules outside the scan."""
    ct = read_image(Path(root) / row["path"])
    boxes, notes = [], list(ct.notes)
    for lesion, *centre, diameter in row["annotations"]:
        circles = sphere_boxes(np.array(centre), diameter / 2, ct)
        boxes += [[lesion, *box] for box in circles]
        if not circles:
            notes.append(f"nodule above or below the scan: {lesion}")
    return CT(ct.hu, ct.index_to_mm, notes=tuple(notes)), pd.DataFrame(boxes, columns=SLICE_BOXES)


def sphere_boxes(centre_mm: np.ndarray, radius_mm: float, ct: CT) -> list[list[float]]:
    """Boxes z, x1, y1, x2, y2 of a sphere in the slices that cut it, in voxels of the file.

    The centre goes through the inverse of the whole matrix: some scans have flipped axes. A sphere that lies
    between two slices gets its full circle on the nearer one; no circle is smaller than one pixel.
    """
    x, y, z = (np.linalg.inv(ct.index_to_mm) @ [*centre_mm, 1.0])[:3]
    sx, sy, sz = ct.spacing_mm
    depth = ct.hu.shape[0]
    slices = np.arange(max(0, np.ceil(z - radius_mm / sz)), min(depth - 1, np.floor(z + radius_mm / sz)) + 1)
    radii = np.sqrt(np.maximum(radius_mm**2 - ((slices - z) * sz) ** 2, 0))
    if len(slices) == 0:
        if not -0.5 <= z < depth - 0.5:
            return []
        slices, radii = np.array([np.rint(z)]), np.array([radius_mm])
    half_x, half_y = np.maximum(radii / sx, 0.5), np.maximum(radii / sy, 0.5)
    return np.column_stack([slices, x - half_x, y - half_y, x + half_x, y + half_y]).tolist()


def count(root: Path | str, found: pd.DataFrame) -> dict[str, int]:
    """The nodules of annotations.csv and the rows of annotations_excluded.csv."""
    excluded = csv_file(Path(root) / NAME, "annotations_excluded.csv")
    findings = len(read_cells(excluded)) if excluded.is_file() else 0
    return {"nodules": int(found["lesions"].sum()), "excluded findings": findings}


def faults(root: Path | str, usable: pd.DataFrame) -> list[tuple[str, str, str]]:
    """None beyond those of `find`."""
    return []
