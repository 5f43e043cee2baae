"""LiTS: liver CT and segmentation pairs in NIfTI, tumours as connected components of label 2."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import ndimage

from lensnb.ct.grid_shapes import Segment
from lensnb.ct.read import read_array, read_image
from lensnb.ct.volume import CT, affine
from lensnb.datasets import DATASETS, FOUND, SLICE_BOXES
from lensnb.datasets.masks import align_mask, segment_boxes, segments, whole_labels
from lensnb.files import files_below, is_macos

NAME = "LiTS"
LITS = DATASETS[NAME]
LOST_SPACING_MM = (0.75, 0.75, 1.5)  # the middle of what the intact headers have
LOST_HEADERS = range(28, 48)  # published with the identity instead of their matrix
MATCHED_BY_INDEX = range(28, 53)  # these, and 48 to 52, whose images and segmentations name different places


def find(root: Path | str) -> pd.DataFrame:
    """One row per volume-N.nii or .nii.gz below the dataset's folder; tumour-free volumes stay."""
    folder = Path(root) / NAME
    rows = []
    volumes, segmentations = _numbered(folder, "volume"), _numbered(folder, "segmentation")
    for number in sorted({*volumes, *segmentations}):
        name = f"volume-{number}"
        problem = ""
        images, labels = (
            [str(path.relative_to(root)) for path in files.get(number, [])] for files in (volumes, segmentations)
        )
        if not images:
            problem = f"missing volume: {name}.nii"
        elif not labels:
            problem = f"missing segmentation: segmentation-{number}.nii"
        elif len(images) > 1 or len(labels) > 1:
            problem = f"two files: {' and '.join(images if len(images) > 1 else labels)}; remove one"
        path, mask = images[0] if images else "", labels[0] if labels else ""
        rows.append([NAME, name, name, name, name, "", path, LITS.lesions, labels[:1], problem, mask, 0, 0.0])
    if not rows:
        raise FileNotFoundError(f"{folder} holds no volume-N.nii or .nii.gz; LiTS comes from {LITS.source}")
    return pd.DataFrame(rows, columns=FOUND)


def _numbered(folder: Path, kind: str) -> dict[int, list[Path]]:
    """Number -> files of volume-N or segmentation-N. The official test-volume-N have no labels."""
    files = {}
    for path in sorted(files_below(folder)):
        match = re.fullmatch(rf"{kind}-(\d+)\.nii(\.gz)?", path.name)
        if match and path.is_file() and not is_macos(path):
            files.setdefault(int(match[1]), []).append(path)
    return files


def read(root: Path | str, row: pd.Series) -> tuple[CT, pd.DataFrame]:
    """One volume and the boxes of its tumours."""
    return read_with_masks(root, row)[:2]


def read_with_masks(root: Path | str, row: pd.Series) -> tuple[CT, pd.DataFrame, list[Segment]]:
    """One volume, its tumours and their boxes: connected components (26 neighbours) of label 2.

    Two faults of the published files are handled and noted. Where image and segmentation disagree about their
    place (volumes 48 to 52, or any that do not coincide), voxel indices are right and the image's matrix is used.
    Where the header was lost (volumes 28 to 47: identity), the spacing is assumed and the orientation is read off
    the anatomy. Raises ValueError if the sizes differ or a label is not 0, 1 or 2.
    """
    ct = read_image(Path(root) / row["path"])
    path = Path(root) / row["annotations"][0]
    labels, labels_to_mm = read_array(path)
    labels = whole_labels(labels, path)
    if labels.min() < 0 or labels.max() > 2:
        raise ValueError(f"{path}: labels other than 0, 1 (liver) and 2 (tumour)")
    number = int(row["volume"].removeprefix("volume-"))
    notes = list(ct.notes)
    agree = np.allclose(labels_to_mm, ct.index_to_mm, atol=1e-3)
    aligned = labels if agree else align_mask(labels, labels_to_mm, ct)
    if aligned is None or (number in MATCHED_BY_INDEX and not agree):
        notes.append("matrices disagree: the segmentation was matched by voxel index")
        aligned = labels
    if aligned.shape != ct.hu.shape:
        raise ValueError(f"sizes differ: {path.name} has {labels.shape}, the CT {ct.hu.shape} (z, y, x)")
    if _header_lost(ct, number):
        notes.append(f"lost header: spacing assumed to be {LOST_SPACING_MM} mm, orientation read off the anatomy")
        signs = anatomical_signs(ct.hu, aligned)
        ct = CT(ct.hu, affine(np.diag(signs * LOST_SPACING_MM), np.zeros(3)))
    tumours = segments(tumour_components(aligned), lambda i: f"{row['volume']}-t{i:03d}")
    boxes = pd.DataFrame(segment_boxes(tumours), columns=SLICE_BOXES)
    return CT(ct.hu, ct.index_to_mm, notes=tuple(notes)), boxes, tumours


def tumour_components(labels: np.ndarray) -> np.ndarray:
    """Integers (z, y, x): the connected components of label 2, numbered from 1."""
    return ndimage.label(labels == 2, structure=np.ones((3, 3, 3)))[0]


def _header_lost(ct: CT, number: int) -> bool:
    """Whether the file's matrix is the identity (in NIfTI's RAS or in LPS), which no scanner writes.

    Of the volumes known to have lost it, voxels of exactly 1 mm are proof enough, whatever their origin.
    """
    identity = np.allclose(np.abs(ct.index_to_mm), np.eye(4), atol=1e-6)
    cubes_of_1_mm = np.allclose(ct.spacing_mm, 1, atol=1e-6)
    return identity or (number in LOST_HEADERS and cubes_of_1_mm)


def anatomical_signs(hu: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Direction (x, y, z) in which each index axis grows, +1 towards left, back and head, from what the image
    shows.

    The liver lies on the right of the body's centre, bone behind it, air of the lungs above the liver. A
    direction that the image does not show stays +1. `hu`, `labels` (z, y, x), axes assumed to be in the order
    x, y, z.
    """
    hu, labels = hu[::2, ::4, ::4], labels[::2, ::4, ::4]
    height, width = hu.shape[1:]
    lung = np.zeros(hu.shape, bool)
    middle = np.s_[:, height // 4 : height - height // 4, width // 4 : width - width // 4]
    lung[middle] = hu[middle] < -600
    body, liver = _centre(hu > -300), _centre(labels > 0)
    bone, air = _centre(hu > 250), _centre(lung)
    toward = np.array([body[2] - liver[2], bone[1] - body[1], air[0] - liver[0]])
    return np.where(toward < 0, -1.0, 1.0)


def _centre(mask: np.ndarray) -> np.ndarray:
    """Mean index (z, y, x) of a mask; nan where it is empty."""
    indices = np.nonzero(mask)
    return np.array([i.mean() if len(i) else np.nan for i in indices])


def count(root: Path | str, found: pd.DataFrame) -> dict[str, int]:
    """Nothing beyond the volumes: how many tumours there are is known only when the masks are read."""
    return {}


def faults(root: Path | str, usable: pd.DataFrame) -> list[tuple[str, str, str]]:
    """None beyond those of `find`."""
    return []
