"""LUNA16: MetaImage scans in ten subsets, nodules as centre and diameter in patient millimetres."""

from pathlib import Path

import numpy as np
import pandas as pd

from lensnb.ct_files import CT, read_image
from lensnb.datasets import FOUND, SLICE_BOXES

NAME = "LUNA16"
SOURCE = "https://luna16.grand-challenge.org (subset0 to subset9, 888 scans, and the csv files; CC BY 4.0)"
SCOPE = "lung nodules"


def find(root: Path | str) -> pd.DataFrame:
    """One row per scan that seriesuids.csv lists or a subset folder holds; `study` is the subset.

    Scans without nodules stay: they are negatives. Raises FileNotFoundError without annotations.csv,
    ValueError naming the row for a nodule that is not five proper values.
    """
    folder = Path(root) / NAME
    nodules = read_annotations(_csv(folder, "annotations.csv"))
    files = {}
    for path in sorted(folder.glob("subset[0-9]/*.mhd")):
        files.setdefault(path.name.removesuffix(".mhd"), path)
    listed = read_seriesuids(_csv(folder, "seriesuids.csv")) if _csv(folder, "seriesuids.csv").exists() else []
    of_scan: dict[str, list] = {}
    for uid, *nodule in nodules.to_numpy(object).tolist():
        of_scan.setdefault(uid, []).append(nodule)
    rows = []
    for uid in sorted({*files, *listed}):
        path = files.get(uid)
        annotations = of_scan.get(uid, [])
        problem = "" if path else f"missing scan: {uid}.mhd in no subset folder"
        subset = path.parent.name if path else "none"
        rows.append(
            [
                NAME,
                uid,
                subset,
                uid,
                uid,
                "",
                str(path.relative_to(root)) if path else "",
                SCOPE,
                annotations,
                problem,
            ]
        )
    return pd.DataFrame(rows, columns=FOUND)


def _csv(folder: Path, name: str) -> Path:
    inside = folder / "CSVFILES" / name
    return inside if inside.exists() else folder / name


def read_annotations(path: Path) -> pd.DataFrame:
    """Nodules: seriesuid, lesion (luna + 0-based row of the file), x_mm, y_mm, z_mm (LPS), diameter_mm."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; LUNA16 comes from {SOURCE}")
    table = pd.read_csv(path, dtype={"seriesuid": str})
    wanted = ["coordX", "coordY", "coordZ", "diameter_mm"]
    absent = [name for name in ["seriesuid", *wanted] if name not in table]
    if absent:
        raise ValueError(f"{path} has no column {', '.join(absent)}")
    numbers = table[wanted].apply(pd.to_numeric, errors="coerce").to_numpy(float)
    bad = np.flatnonzero(~np.isfinite(numbers).all(axis=1) | (numbers[:, 3] <= 0))
    if len(bad):
        raise ValueError(f"{path}, line {bad[0] + 2}: not a position and a positive diameter ({len(bad)} such rows)")
    nodules = pd.DataFrame(numbers, columns=["x_mm", "y_mm", "z_mm", "diameter_mm"])
    nodules.insert(0, "lesion", [f"luna{row:04d}" for row in range(len(table))])
    nodules.insert(0, "seriesuid", table["seriesuid"])
    return nodules


def read_seriesuids(path: Path) -> list[str]:
    """The scans of the challenge. The official file has no header line, but copies with one exist."""
    lines = [line.split(",")[0].strip() for line in path.read_text().splitlines()]
    return sorted({line for line in lines if line and line.lower() != "seriesuid"})


def read(root: Path | str, row: pd.Series) -> tuple[CT, pd.DataFrame]:
    """One scan and its nodules, each a sphere cut by the slices."""
    ct = read_image(Path(root) / row["path"])
    boxes = []
    for lesion, *centre, diameter in row["annotations"]:
        boxes += [[lesion, *box] for box in sphere_boxes(np.array(centre), diameter / 2, ct)]
    return ct, pd.DataFrame(boxes, columns=SLICE_BOXES)


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
