"""DeepLesion: 16-bit PNG slices, DL_info.csv, and the manual 3D test set of the LENS authors."""

import hashlib
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd

from lensnb.ct.grid_shapes import DIAMETERS
from lensnb.ct.png import read_png
from lensnb.ct.values import check_hu
from lensnb.ct.volume import CT
from lensnb.datasets import DATASETS, FOUND, INCOMPLETE, LEFT_OUT, SLICE_BOXES
from lensnb.datasets.dl_info import ENDS, SPLITS
from lensnb.datasets.dl_info import read_info as read_info
from lensnb.datasets.manual_boxes import MANUAL_FILE, load_manual_boxes
from lensnb.files import read_json
from lensnb.system import progress

NAME = "DeepLesion"
DEEPLESION = DATASETS[NAME]
MANUAL_SOURCE = "https://github.com/viggin/DeepLesion_manual_test_set"
LABELS_FILE = "text_mined_labels_171_and_split.json"
USUAL_DL_INFO = "f954fe34176b3443f0d89b21e21367754637aa43"  # what `git hash-object` says of the published DL_info.csv
SAME = ["series", "start", "end", "key", "x1", "y1", "x2", "y2", *ENDS]  # what two rows of one lesion have in common
MIN_SLICES = 3  # a run of fewer slices has no context to look at


def find(root: Path | str) -> pd.DataFrame:
    """One row per sub-volume: a series and a Slice_range of DL_info.csv.

    Volumes are named like those of the manual test set, `{series}_{start:03d}-{end:03d}`, and that set's val
    and test take precedence over the official split, whose other volumes are official-val and official-test.
    Rows marked Possibly_noisy are left out, as MULAN does, and with them a sub-volume that has no other row, unless
    it is in the manual test set. Of rows that say the same of the same slice the first counts; `read` notes the others.
    Raises FileNotFoundError or ValueError if DL_info.csv is missing or not what it should be.
    """
    folder = Path(root) / NAME
    info = read_info(folder / "DL_info.csv")
    manual = read_manual(root)
    manual_split = {volume: split for split, volumes in manual.items() for volume in volumes}
    groups: dict[tuple, list[dict]] = {}
    for row in info.assign(again=info.duplicated(SAME)).to_dict("records"):
        groups.setdefault((row["series"], row["start"], row["end"]), []).append(row)
    present = _folders(folder / "Images_png")
    rows = []
    for (series, start, end), group in sorted(groups.items(), key=lambda item: item[0]):
        volume = f"{series}_{start:03d}-{end:03d}"
        first = group[0]
        split = manual_split.pop(volume, SPLITS[first["split"]])
        again = [row["lesion"] for row in group if row["again"]]
        used = [row for row in group if not row["noisy"] and not row["again"]]
        problem = ""
        if not used and split not in manual:  # the manual boxes do without the rows
            problem = DEEPLESION.on_purpose
        elif series not in present:
            problem = f"missing folder: Images_png/{series}"
        annotations = {
            "start": start,
            "end": end,
            "spacing_mm": [first["spacing_x"], first["spacing_y"], first["spacing_z"]],
            "size": [first["width"], first["height"]],
            "lesions": [[row[name] for name in ("lesion", "key", "x1", "y1", "x2", "y2")] for row in used],
            "ends": [[row[name] for name in ("lesion", "key", *ENDS)] for row in used],
        }
        if again:
            annotations["again"] = again
        path = f"{NAME}/Images_png/{series}"
        depth_mm = (end - start + 1) * first["spacing_z"]
        rows.append([NAME, *series_names(series), volume, split, path, DEEPLESION.lesions, annotations, problem,
                     "", len(used), depth_mm])  # fmt: skip
    for volume, split in manual_split.items():
        series = volume.rsplit("_", 1)[0]
        problem = "of the manual test set, not in DL_info.csv"
        rows.append([NAME, *series_names(series), volume, split, "", DEEPLESION.lesions, {}, problem, "", 0, 0.0])
    return pd.DataFrame(rows, columns=FOUND)


def _folders(folder: Path) -> set[str]:
    """Names of the folders in `folder`; none if it does not exist."""
    if not folder.is_dir():
        return set()
    with os.scandir(folder) as entries:
        return {entry.name for entry in entries if entry.is_dir()}


def series_names(series: str) -> tuple[str, str, str]:
    """Patient, study and series of a folder name: 000001, 000001_01, 000001_01_02."""
    parts = series.split("_")
    return parts[0], "_".join(parts[:2]), series


def read_manual(root: Path | str) -> dict[str, dict[str, np.ndarray]]:
    """The manual 3D boxes, split -> sub-volume -> (n, 6), as in the file; empty if it is not there.

    Raises ValueError for another split than val and test, a sub-volume in both, a name that is no sub-volume, and
    boxes whose z leave the slices of their sub-volume, as those that count from its start do.
    """
    path = Path(root) / MANUAL_FILE
    if not path.exists():
        return {}
    manual = load_manual_boxes(path)
    unknown = sorted(set(manual) - {"val", "test"})
    if unknown:
        raise ValueError(f"{path} has the split {unknown[0]!r}; its splits should be val, test")
    twice = sorted(set(manual.get("val", ())) & set(manual.get("test", ())))
    if twice:
        raise ValueError(f"{path} has {twice[0]} in both val and test ({len(twice)} such sub-volumes)")
    for volume, boxes in ((volume, boxes) for volumes in manual.values() for volume, boxes in volumes.items()):
        name = re.fullmatch(r"[0-9]{6}_[0-9]{2}_[0-9]{2}_([0-9]{3,6})-([0-9]{3,6})", volume)
        if not name:
            raise ValueError(f"{path}, sub-volume {volume}: the name is not like 000001_01_01_103-115")
        start, end = int(name[1]), int(name[2])
        if len(boxes) and not (start <= boxes[:, 2].min() and boxes[:, 5].max() <= end):
            raise ValueError(
                f"{path}, sub-volume {volume}: boxes from z {boxes[:, 2].min():g} to {boxes[:, 5].max():g} are not "
                f"within its slices {start} to {end}; z are slice numbers, not counted from the sub-volume's start"
            )
    return manual


def read(root: Path | str, row: pd.Series) -> tuple[CT, pd.DataFrame]:
    """One sub-volume from its PNGs, as far as they are there, and its key-slice boxes.

    Slices run from head to feet, which the matrix says. If slices are missing or broken, the unbroken run
    with most of the annotated slices is used, and the notes say what was left out. ValueError if a run has
    fewer than 3 slices, or if the slices do not have the size that DL_info.csv states: its boxes would not fit.
    """
    folder = Path(root) / row["path"]
    start, end, spacing_mm, lesions = (row["annotations"][k] for k in ("start", "end", "spacing_mm", "lesions"))
    images, notes = {}, [f"lesion that is there before: {lesion}" for lesion in row["annotations"].get("again", ())]
    for number in range(start, end + 1):
        path = folder / f"{number:03d}.png"
        if not path.exists():
            notes.append(f"missing PNG: {path.name}")
            continue
        try:
            images[number] = read_png(path)
        except ValueError as error:
            notes.append(f"broken PNG: {error}")
    run = best_run(sorted(images), [lesion[1] for lesion in lesions])
    if len(run) < min(MIN_SLICES, end - start + 1):
        raise ValueError(
            f"too few slices: {len(run)} in a row of {end - start + 1} in {folder}; {', '.join(notes[:3])}"
        )
    shapes = {images[number].shape for number in run}
    if len(shapes) > 1:
        raise ValueError(f"slices of different size: {sorted(shapes)} in {folder}")
    width, height = row["annotations"]["size"]
    if shapes != {(height, width)}:
        raise ValueError(f"slices of another size: {shapes.pop()[::-1]} in {folder}, {width, height} in DL_info.csv")
    notes += [f"lesion without its key slice: {lesion[0]}" for lesion in lesions if lesion[1] not in run]
    boxes = [[lesion[0], lesion[1] - run[0], *lesion[2:]] for lesion in lesions if lesion[1] in run]
    sx, sy, sz = spacing_mm
    hu = np.stack([images[number] for number in run])
    ct = CT(hu, np.diag([sx, sy, -sz, 1.0]), run[0], (*notes, *check_hu(hu, folder)))
    return ct, pd.DataFrame(boxes, columns=SLICE_BOXES)


def diameters(row: pd.Series, ct: CT) -> pd.DataFrame:
    """The RECIST diameters of the lesions that `read` has boxes of: lesion, z, x1 to y4, in original coordinates."""
    used, rows = range(ct.first_slice, ct.first_slice + len(ct.hu)), row["annotations"]["ends"]
    ends = [[lesion, key - ct.first_slice, *points] for lesion, key, *points in rows if key in used]
    return pd.DataFrame(ends, columns=["lesion", "z", *DIAMETERS])


def best_run(numbers: list[int], keys: list[int]) -> range:
    """The run of consecutive slice numbers with most keys in it, the longest of equals."""
    runs, start = [range(0)], 0
    for i, number in enumerate(numbers):
        if i + 1 == len(numbers) or numbers[i + 1] != number + 1:
            runs.append(range(numbers[start], number + 1))
            start = i + 1
    return max(runs, key=lambda run: (sum(key in run for key in keys), len(run)))


def count(root: Path | str, found: pd.DataFrame) -> dict[str, int]:
    """What DL_info.csv, the manual test set and the text-mined labels hold."""
    folder = Path(root) / NAME
    series = read_info(folder / "DL_info.csv")["series"]
    manual = [boxes for volumes in read_manual(root).values() for boxes in volumes.values()]
    labels = _text_mined_labels(folder)
    return {
        "lesions in DL_info.csv": len(series),
        "patients": series.str[:6].nunique(),
        "studies": series.str[:9].nunique(),
        "sub-volumes of the manual test set": len(manual),
        "boxes of the manual test set": sum(map(len, manual)),
        "lesions with text-mined labels": sum(map(len, labels.values())),
    }


def faults(root: Path | str, usable: pd.DataFrame) -> list[tuple[str, str, str]]:
    """PNGs that are not in their folders, sub-volumes that have too few of them, and a table out of order."""
    return [*_missing_slices(Path(root), usable), *_out_of_order(Path(root) / NAME)]


def _missing_slices(root: Path, usable: pd.DataFrame) -> list[tuple[str, str, str]]:
    missed, folder, listed = [], "", set()
    for row in progress(list(usable.itertuples()), f"listing {NAME}"):
        if row.path != folder:
            folder, listed = row.path, set(os.listdir(root / row.path))
        wanted = range(row.annotations["start"], row.annotations["end"] + 1)
        there = [number for number in wanted if f"{number:03d}.png" in listed]
        if len(there) == len(wanted):
            continue
        run = best_run(there, [lesion[1] for lesion in row.annotations["lesions"]])
        if len(run) < min(MIN_SLICES, len(wanted)):
            reason = f"too few slices: {len(run)} in a row of {len(wanted)} in {folder}"
            missed.append((row.volume, LEFT_OUT, reason))
        for number in sorted(set(wanted) - set(there)):
            missed.append((row.volume, INCOMPLETE, f"missing PNG: {Path(folder).name}/{number:03d}.png"))
    return missed


def _out_of_order(folder: Path) -> list[tuple[str, str, str]]:
    """The text-mined labels count the rows of the published DL_info.csv; in another order they are of other lesions."""
    path = folder / "DL_info.csv"
    if not path.is_file() or not _text_mined_labels(folder):
        return []
    order = read_info(path)[["series", "key"]]
    in_order = order.equals(order.sort_values(["series", "key"], kind="stable"))
    if in_order or _git_hash(path) == USUAL_DL_INFO:
        return []
    return [("", INCOMPLETE, f"rows out of order: {LABELS_FILE} counts the rows of the published table")]


def _text_mined_labels(folder: Path) -> dict[str, list]:
    """Split -> rows of DL_info.csv that have labels; empty without the file."""
    path = folder / LABELS_FILE
    content = read_json(path) if path.exists() else {}
    rows = {name: listed for name, listed in content.items() if name.endswith("_lesion_idxs")}
    if not all(isinstance(listed, list) for listed in rows.values()):
        raise ValueError(f"{path}: {', '.join(rows)} should be lists of rows of DL_info.csv")
    return rows


def _git_hash(path: Path) -> str:
    """What `git hash-object` says of a file."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
