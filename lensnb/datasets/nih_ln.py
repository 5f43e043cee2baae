"""NIH CT Lymph Nodes: DICOM series of chests and abdomens, masks with one number per node."""

from pathlib import Path

import numpy as np
import pandas as pd

from lensnb.ct_files import CT, read_array
from lensnb.datasets import FOUND, SLICE_BOXES
from lensnb.datasets.masks import align_mask, mask_boxes
from lensnb.dicom import read_dicom_folder

NAME = "NIH-LN"
SOURCE = "https://www.cancerimagingarchive.net/collection/ct-lymph-nodes (176 cases, masks; CC BY 3.0)"
IMAGES, MASKS, ANNOTATIONS = "CT Lymph Nodes", "MED_ABD_LYMPH_MASKS", "MED_ABD_LYMPH_ANNOTATIONS"

# Abdominal case -> mediastinal case that is the same CT (equal geometry). Each lists only the nodes of its
# own region, so the two share a patient here and never end up on different sides of a split.
SAME_CT = {1: 2, 2: 4, 10: 7, 11: 8, 13: 17, 15: 19, 19: 24, 24: 30, 27: 31, 28: 35, 31: 38, 32: 40, 34: 43,
           39: 46, 40: 47, 42: 49, 46: 52, 50: 60, 52: 63, 56: 67, 62: 69, 69: 74, 83: 85}  # fmt: skip
PATIENT_OF = {f"MED_LYMPH_{med:03d}": f"ABD_LYMPH_{abd:03d}" for abd, med in SAME_CT.items()}


def find(root: Path | str) -> pd.DataFrame:
    """One row per case that has images, a mask or annotations. `scope` says which region its labels cover."""
    folder = Path(root) / NAME
    cases = {p.name for part in (IMAGES, MASKS, ANNOTATIONS) for p in (folder / part).glob("*_LYMPH_*") if p.is_dir()}
    if not cases:
        raise FileNotFoundError(f"{folder} holds no case in '{IMAGES}' or {MASKS}; NIH-LN comes from {SOURCE}")
    rows = []
    for case in sorted(cases):
        series = sorted({path.parent for path in (folder / IMAGES / case).rglob("*.dcm")})
        mask = folder / MASKS / case / f"{case}_mask.nii.gz"
        problem = ""
        if not series:
            problem = f"missing DICOM: no .dcm below {IMAGES}/{case}"
        elif len(series) > 1:
            problem = f"several series: {len(series)} folders with .dcm below {IMAGES}/{case}"
        elif not mask.exists():
            problem = f"missing mask: {MASKS}/{case}/{mask.name}"
        region = "abdominal" if case.startswith("ABD") else "mediastinal"
        path = str(series[0].relative_to(root)) if series else ""
        rows.append([NAME, PATIENT_OF.get(case, case), case, case, case, "", path, f"{region} lymph nodes",
                     [str(mask.relative_to(root)), node_count(folder, case)], problem])  # fmt: skip
    return pd.DataFrame(rows, columns=FOUND)


def node_count(folder: Path, case: str) -> int | None:
    """Number of nodes in the case's annotation text, None without one."""
    path = folder / ANNOTATIONS / case / f"{case}_lymphnodes_indices.txt"
    return len([line for line in path.read_text().splitlines() if line.strip()]) if path.exists() else None


def read(root: Path | str, row: pd.Series) -> tuple[CT, pd.DataFrame]:
    """One case and its nodes, one per number in the mask. ValueError if mask and CT do not coincide."""
    ct = read_dicom_folder(Path(root) / row["path"])
    mask_file, expected = row["annotations"]
    path = Path(root) / mask_file
    mask, mask_to_mm = read_array(path)
    aligned = align_mask(mask, mask_to_mm, ct)
    if aligned is None:
        raise ValueError(f"mask and CT do not coincide: {path.name} has {mask.shape}, the CT {ct.hu.shape} (z, y, x)")
    nodes = np.rint(aligned).astype(np.int32) if aligned.dtype.kind == "f" else aligned.astype(np.int32)
    if nodes.min() < 0:
        raise ValueError(f"{path}: negative numbers in the mask")
    boxes = pd.DataFrame(mask_boxes(nodes, lambda i: f"{row['volume']}-n{i:02d}"), columns=SLICE_BOXES)
    notes = ct.notes
    if expected is not None and boxes["lesion"].nunique() != expected:
        notes = (*notes, f"node counts differ: {boxes['lesion'].nunique()} in the mask, {expected} in the annotations")
    return CT(ct.hu, ct.index_to_mm, notes=notes), boxes
