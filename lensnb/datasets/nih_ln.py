"""NIH CT Lymph Nodes: DICOM series of chests and abdomens, masks with one number per node."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import ndimage

from lensnb.ct.dicom import read_dicom_folder
from lensnb.ct.grid_shapes import Segment
from lensnb.ct.read import read_array
from lensnb.ct.volume import CT
from lensnb.datasets import DATASETS, FOUND, SLICE_BOXES
from lensnb.datasets.masks import align_mask, segment_boxes, segments, whole_labels
from lensnb.files import files_below, is_macos, read_text

NAME = "NIH-LN"
NIH_LN = DATASETS[NAME]
POINT_MARGIN = 2  # voxels by which an annotated point may miss the box of its node
IMAGES, MASKS, ANNOTATIONS = "CT Lymph Nodes", "MED_ABD_LYMPH_MASKS", "MED_ABD_LYMPH_ANNOTATIONS"

# Abdominal case -> mediastinal case that is the same CT (equal geometry). Each lists only the nodes of its
# own region, so the two share a patient here and never end up on different sides of a split.
SAME_CT = {1: 2, 2: 4, 10: 7, 11: 8, 13: 17, 15: 19, 19: 24, 24: 30, 27: 31, 28: 35, 31: 38, 32: 40, 34: 43,
           39: 46, 40: 47, 42: 49, 46: 52, 50: 60, 52: 63, 56: 67, 62: 69, 69: 74, 83: 85}  # fmt: skip
PATIENT_OF = {f"MED_LYMPH_{med:03d}": f"ABD_LYMPH_{abd:03d}" for abd, med in SAME_CT.items()}


def find(root: Path | str) -> pd.DataFrame:
    """One row per case that has images, a mask or annotations.

    `scope` says which region its labels cover: a mediastinal case may show abdominal nodes that nobody marked, and the
    other way round. Two cases that are one CT share their patient. `annotations`: the mask, and of each annotated node
    index and millimetres (x, y, z), None without annotations.
    """
    folder = Path(root) / NAME
    cases = {p.name for part in (IMAGES, MASKS, ANNOTATIONS) for p in (folder / part).glob("*_LYMPH_*") if p.is_dir()}
    if not cases:
        raise FileNotFoundError(f"{folder} holds no case in '{IMAGES}' or {MASKS}; NIH-LN comes from {NIH_LN.source}")
    rows = []
    for case in sorted(cases):
        series = image_folders(folder / IMAGES / case)
        mask = folder / MASKS / case / f"{case}_mask.nii.gz"
        problem, nodes = "", None
        if not series:
            problem = f"missing DICOM: no .dcm below {IMAGES}/{case}"
        elif len(series) > 1:
            problem = f"several series: {len(series)} folders of slices below {IMAGES}/{case}"
        elif not mask.exists():
            problem = f"missing mask: {MASKS}/{case}/{mask.name}"
        try:
            nodes = read_nodes(folder, case)
        except ValueError as error:
            problem = problem or f"broken annotations: {error}"
        points = None if nodes is None else nodes[["x", "y", "z", "x_mm", "y_mm", "z_mm"]].to_numpy().tolist()
        region = "abdominal" if case.startswith("ABD") else "mediastinal"
        path = str(series[0].relative_to(root)) if series else ""
        annotations = {"mask": str(mask.relative_to(root)), "nodes": points}
        rows.append([NAME, PATIENT_OF.get(case, case), case, case, case, "", path, f"{region} {NIH_LN.lesions}",
                     annotations, problem, annotations["mask"], len(points or []), 0.0])  # fmt: skip
    return pd.DataFrame(rows, columns=FOUND)


def image_folders(case: Path) -> list[Path]:
    """The folders of DICOM slices below a case. Since 2023 a segmentation in a single file lies beside the images."""
    files: dict[Path, int] = {}
    for path in files_below(case):
        if path.suffix == ".dcm" and not is_macos(path):
            files[path.parent] = files.get(path.parent, 0) + 1
    several = [folder for folder, count in files.items() if count > 1]
    return sorted(several or files)


def read_nodes(folder: Path, case: str) -> pd.DataFrame | None:
    """The annotated nodes of a case, None if it has no annotations.

    Columns: x, y, z (voxel index, slices counted from the feet), x_mm, y_mm, z_mm (LPS), short_mm, long_mm (nan where
    not measured: mediastinal cases have short diameters only, and a published 0 is no diameter).
    Raises ValueError naming the file if the three texts do not have the same number of proper rows.
    """
    texts = {
        kind: folder / ANNOTATIONS / case / f"{case}_lymphnodes_{kind}.txt"
        for kind in ("indices", "physicalPoints", "sizes")
    }
    if not texts["indices"].exists():
        return None
    points = _rows(texts["indices"], (3,))
    missing = np.full((len(points), 3), np.nan)
    mm, sizes = (_rows(path, n) if path.exists() else missing
                 for path, n in ((texts["physicalPoints"], (3,)), (texts["sizes"], (1, 2))))  # fmt: skip
    for kind, values in (("physicalPoints", mm), ("sizes", sizes)):
        if len(values) != len(points):
            raise ValueError(f"{texts[kind]} has {len(values)} nodes, {texts['indices'].name} {len(points)}")
    nodes = pd.DataFrame(np.column_stack([points, mm]), columns=["x", "y", "z", "x_mm", "y_mm", "z_mm"])
    sizes = np.where(sizes > 0, sizes, np.nan)
    if sizes.shape[1] == 2:
        sizes = np.sort(sizes, axis=1)  # a published pair has the long one first
    nodes["short_mm"], nodes["long_mm"] = sizes[:, 0], sizes[:, 1] if sizes.shape[1] > 1 else np.nan
    return nodes


def _rows(path: Path, widths: tuple[int, ...]) -> np.ndarray:
    """The numbers of a text file, every line with the same number of them, one of `widths`."""
    try:
        lines = [[float(word) for word in line.split()] for line in read_text(path).split("\n") if line.strip()]
        if not all(math.isfinite(number) for line in lines for number in line):
            raise ValueError("a number is not finite")
    except ValueError as error:  # no number, or no text at all
        raise ValueError(str(error) if str(path) in str(error) else f"{path}: {error}") from error
    counts = {len(line) for line in lines}
    if len(counts) > 1 or not counts <= set(widths):
        raise ValueError(f"{path}: lines of {sorted(counts)} numbers, expected {' or '.join(map(str, widths))}")
    return np.array(lines).reshape(len(lines), counts.pop() if counts else widths[0])


def read(root: Path | str, row: pd.Series) -> tuple[CT, pd.DataFrame]:
    """One case and the boxes of its nodes."""
    return read_with_masks(root, row)[:2]


def read_with_masks(root: Path | str, row: pd.Series) -> tuple[CT, pd.DataFrame, list[Segment]]:
    """One case, its nodes and their boxes, one node per number in the mask.

    If the matrices of mask and CT do not coincide, but their sizes do and most annotated nodes lie in the mask, voxel
    indices count. The notes say so, and where annotations and files disagree.
    Raises ValueError if mask and CT do not coincide.
    """
    ct = read_dicom_folder(Path(root) / row["path"])
    points = row["annotations"]["nodes"]
    path = Path(root) / row["annotations"]["mask"]
    mask, mask_to_mm = read_array(path)
    notes = list(ct.notes)
    labels = whole_labels(mask, path)
    nodes = align_mask(labels, mask_to_mm, ct)
    if nodes is None and mask.shape == ct.hu.shape and points and _points_in(labels, points) * 2 > len(points):
        notes.append("matrices disagree: the mask was matched by voxel index, as the annotated points confirm")
        nodes = labels
    if nodes is None:
        raise ValueError(f"mask and CT do not coincide: {path.name} has {mask.shape}, the CT {ct.hu.shape} (z, y, x)")
    if nodes.min() < 0:
        raise ValueError(f"{path}: negative numbers in the mask")
    nodes = nodes.astype(np.int32)
    found = segments(nodes, lambda i: f"{row['volume']}-n{i:02d}")
    if points is not None:
        notes += _disagreements(ct, nodes, points, len(found))
    boxes = pd.DataFrame(segment_boxes(found), columns=SLICE_BOXES)
    return CT(ct.hu, ct.index_to_mm, notes=tuple(notes)), boxes, found


def _disagreements(ct: CT, nodes: np.ndarray, points: list[list[float]], count: int) -> list[str]:
    """Notes on what the annotation texts say otherwise than CT and mask."""
    notes = []
    if count != len(points):
        notes.append(f"node counts differ: {count} in the mask, {len(points)} in the annotations")
    missed = len(points) - _points_in(nodes, points)
    if missed:
        notes.append(f"annotated nodes outside the mask: {missed} of {len(points)}")
    table = np.array(points, dtype=float).reshape(-1, 6)
    mm = table[:, :3] @ ct.index_to_mm[:3, :3].T + ct.index_to_mm[:3, 3]
    far = np.abs(mm - table[:, 3:]).max(axis=1) > ct.spacing_mm.max()  # false for nan
    if far.any():
        notes.append(f"annotated millimetres differ from the CT's: {far.sum()} of {len(points)} nodes")
    return notes


def _points_in(nodes: np.ndarray, points: list[list[float]]) -> int:
    """How many annotated points lie in the box of a node, widened by a few voxels."""
    boxes = [region for region in ndimage.find_objects(nodes) if region is not None]
    low = np.array([[r.start for r in box] for box in boxes]).reshape(-1, 3) - POINT_MARGIN
    high = np.array([[r.stop - 1 for r in box] for box in boxes]).reshape(-1, 3) + POINT_MARGIN
    return sum(bool(((low <= p) & (p <= high)).all(axis=1).any()) for p in (np.array(q[2::-1]) for q in points))


def count(root: Path | str, found: pd.DataFrame) -> dict[str, int]:
    """The nodes of the annotation texts."""
    return {"annotated nodes": int(found["lesions"].sum())}


def faults(root: Path | str, usable: pd.DataFrame) -> list[tuple[str, str, str]]:
    """None beyond those of `find`."""
    return []
