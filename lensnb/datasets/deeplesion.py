"""DeepLesion: 16-bit PNG slices, DL_info.csv, and the manual 3D test set of the LENS authors."""

from pathlib import Path

import numpy as np
import pandas as pd

from lensnb.ct_files import CT
from lensnb.datasets import FOUND, SLICE_BOXES
from lensnb.safe_pickle import load_manual_boxes

NAME = "DeepLesion"
SOURCE = "the NIH Clinical Center, https://nihcc.app.box.com/v/DeepLesion (225 GB of PNG, DL_info.csv)"
MANUAL_FILE = "DeepLesion_manual_1K_test_release.pkl"
MANUAL_SOURCE = "https://github.com/viggin/DeepLesion_manual_test_set"
SCOPE = "all lesion types, few of the lesions marked"
SPLITS = {1: "train", 2: "official-val", 3: "official-test"}
MIN_SLICES = 3  # a run of fewer slices has no context to look at
COLUMNS = ["File_name", "Patient_index", "Study_index", "Key_slice_index", "Bounding_boxes", "Possibly_noisy",
           "Slice_range", "Spacing_mm_px_", "Train_Val_Test"]  # fmt: skip


def find(root: Path | str) -> pd.DataFrame:
    """One row per sub-volume: a series and a Slice_range of DL_info.csv.

    Volumes are named like those of the manual test set, `{series}_{start:03d}-{end:03d}`, and that set's val
    and test take precedence over the official split, whose other volumes are official-val and official-test.
    Rows marked Possibly_noisy are left out, as MULAN does, and with them a sub-volume that has no other row, unless
    it is in the manual test set.
    Raises FileNotFoundError or ValueError if DL_info.csv is missing or not what it should be.
    """
    folder = Path(root) / NAME
    info = read_info(folder / "DL_info.csv")
    manual = read_manual(root)
    manual_split = {volume: split for split, volumes in manual.items() for volume in volumes}
    groups: dict[tuple, list] = {}
    for row in info.itertuples(index=False):
        groups.setdefault((row.series, row.start, row.end), []).append(row)
    present = {path.name for path in (folder / "Images_png").glob("*") if path.is_dir()}
    rows = []
    for (series, start, end), group in sorted(groups.items()):
        volume = f"{series}_{start:03d}-{end:03d}"
        split = manual_split.pop(volume, SPLITS[group[0].split])
        used = [row for row in group if not row.noisy]
        problem = ""
        if not used and split not in manual:  # the manual boxes do without the rows
            problem = "only possibly noisy lesions"
        elif series not in present:
            problem = f"missing folder: Images_png/{series}"
        annotations = {
            "start": start,
            "end": end,
            "spacing_mm": [group[0].spacing_x, group[0].spacing_y, group[0].spacing_z],
            "lesions": [[row.lesion, row.key, row.x1, row.y1, row.x2, row.y2] for row in used],
        }
        path = f"{NAME}/Images_png/{series}"
        rows.append([NAME, *series_names(series), volume, split, path, SCOPE, annotations, problem])
    for volume, split in manual_split.items():
        series = volume.rsplit("_", 1)[0]
        problem = "of the manual test set, not in DL_info.csv"
        rows.append([NAME, *series_names(series), volume, split, "", SCOPE, {}, problem])
    return pd.DataFrame(rows, columns=FOUND)


def series_names(series: str) -> tuple[str, str, str]:
    """Patient, study and series of a folder name: 000001, 000001_01, 000001_01_02."""
    parts = series.split("_")
    return parts[0], "_".join(parts[:2]), series


def read_manual(root: Path | str) -> dict[str, dict[str, np.ndarray]]:
    """The manual 3D boxes, split -> sub-volume -> (n, 6), as in the file; empty if it is not there."""
    path = Path(root) / NAME / MANUAL_FILE
    return load_manual_boxes(path) if path.exists() else {}


def read_info(path: Path) -> pd.DataFrame:
    """DL_info.csv with its multi-valued cells taken apart.

    Columns: lesion (dl + 0-based row of the file), series, key, start, end, x1..y2, spacing_x, _y, _z in mm,
    noisy, split (1, 2, 3). Boxes are 1-based in the file; 1 is subtracted here as in the authors' code (two
    independent measurements put the true shift between 0.4 and 1.4 pixels, so either choice errs by half a
    pixel). They carry 5 pixels of margin around the RECIST diameters. Raises ValueError naming the file and
    row.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; DeepLesion comes from {SOURCE}")
    table = pd.read_csv(path)
    absent = [name for name in COLUMNS if name not in table]
    if absent:
        raise ValueError(f"{path} has no column {', '.join(absent)}; it has {', '.join(table.columns)}")
    if table.empty:
        raise ValueError(f"{path} has no rows")
    name = table["File_name"].astype(str)
    boxes = _numbers(table, "Bounding_boxes", 4, path) - 1
    ranges = _numbers(table, "Slice_range", 2, path).astype(int)
    spacing = _numbers(table, "Spacing_mm_px_", 3, path)
    info = pd.DataFrame(
        {
            "lesion": [f"dl{row:05d}" for row in range(len(table))],
            "series": name.str.rsplit("_", n=1).str[0],
            "key": table["Key_slice_index"].astype(int),
            "start": ranges[:, 0],
            "end": ranges[:, 1],
            "noisy": table["Possibly_noisy"].fillna(0).astype(int) == 1,
            "split": table["Train_Val_Test"],
        }
    )
    info[["x1", "y1", "x2", "y2"]] = boxes
    info[["spacing_x", "spacing_y", "spacing_z"]] = spacing
    _refuse(
        ~name.str.fullmatch(r"\d{6}_\d{2}_\d{2}_\d{3,}\.png"),
        "File_name is not like 000001_01_01_109.png",
        path,
    )
    _refuse(~info["split"].isin(SPLITS), "Train_Val_Test is not 1, 2 or 3", path)
    _refuse((boxes[:, 0] >= boxes[:, 2]) | (boxes[:, 1] >= boxes[:, 3]), "Bounding_boxes is inverted", path)
    _refuse((spacing <= 0).any(axis=1), "Spacing_mm_px_ is not positive", path)
    _refuse(
        (info["key"] < info["start"]) | (info["key"] > info["end"]),
        "the key slice is outside Slice_range",
        path,
    )
    return info


def _numbers(table: pd.DataFrame, column: str, count: int, path: Path) -> np.ndarray:
    parts = table[column].astype(str).str.split(",", expand=True)
    numbers = parts.apply(pd.to_numeric, errors="coerce").to_numpy(float)
    if numbers.shape[1] != count:
        raise ValueError(f"{path}: {column} should have {count} values in a cell, not {numbers.shape[1]}")
    _refuse(~np.isfinite(numbers).all(axis=1), f"{column} is not {count} numbers", path)
    return numbers


def _refuse(bad: np.ndarray | pd.Series, what: str, path: Path) -> None:
    rows = np.flatnonzero(np.asarray(bad))
    if len(rows):
        raise ValueError(f"{path}, line {rows[0] + 2}: {what} ({len(rows)} such rows)")


def read(root: Path | str, row: pd.Series) -> tuple[CT, pd.DataFrame]:
    """One sub-volume from its PNGs, as far as they are there, and its key-slice boxes.

    Slices run from head to feet, which the matrix says. If slices are missing or broken, the unbroken run
    with most of the annotated slices is used, and the notes say what was left out. ValueError if a run has
    fewer than 3 slices.
    """
    folder = Path(root) / row["path"]
    start, end, spacing_mm, lesions = (row["annotations"][k] for k in ("start", "end", "spacing_mm", "lesions"))
    images, notes = {}, []
    for number in range(start, end + 1):
        path = folder / f"{number:03d}.png"
        if not path.exists():
            notes.append(f"missing PNG: {path.name}")
            continue
        try:
            images[number] = read_png(path)
        except ValueError as error:
            notes.append(f"broken PNG: {error}")
    run = _best_run(sorted(images), [lesion[1] for lesion in lesions])
    if len(run) < min(MIN_SLICES, end - start + 1):
        raise ValueError(
            f"too few slices: {len(run)} in a row of {end - start + 1} in {folder}; {', '.join(notes[:3])}"
        )
    shapes = {images[number].shape for number in run}
    if len(shapes) > 1:
        raise ValueError(f"slices of different size: {sorted(shapes)} in {folder}")
    notes += [f"lesion without its key slice: {lesion[0]}" for lesion in lesions if lesion[1] not in run]
    boxes = [[lesion[0], lesion[1] - run[0], *lesion[2:]] for lesion in lesions if lesion[1] in run]
    sx, sy, sz = spacing_mm
    ct = CT(np.stack([images[number] for number in run]), np.diag([sx, sy, -sz, 1.0]), run[0], tuple(notes))
    return ct, pd.DataFrame(boxes, columns=SLICE_BOXES)


def _best_run(numbers: list[int], keys: list[int]) -> range:
    """The run of consecutive slice numbers with most keys in it, the longest of equals."""
    runs, start = [range(0)], 0
    for i, number in enumerate(numbers):
        if i + 1 == len(numbers) or numbers[i + 1] != number + 1:
            runs.append(range(numbers[start], number + 1))
            start = i + 1
    return max(runs, key=lambda run: (sum(key in run for key in keys), len(run)))


def read_png(path: Path) -> np.ndarray:
    """HU int16 (y, x) of a 16-bit PNG: stored value - 32768. ValueError if it is broken or has 8 bits."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            mode = image.mode
            stored = np.asarray(image)
    except Exception as error:  # a damaged PNG raises OSError, SyntaxError, zlib.error, ...
        raise ValueError(f"{path.name}: {error}") from error
    if mode not in ("I;16", "I;16B", "I") or stored.ndim != 2:
        raise ValueError(f"{path.name}: mode {mode}, not 16-bit grey, so its values are not HU")
    return (stored.astype(np.int32) - 32768).astype(np.int16)
