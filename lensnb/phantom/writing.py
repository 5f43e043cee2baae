"""Writing one volume: its files, and a record of what the tables will say of it."""

from pathlib import Path

import numpy as np

from lensnb.files import write_json
from lensnb.phantom import layouts
from lensnb.phantom.anatomy import liver_distance
from lensnb.phantom.lookalikes import normal_nodes
from lensnb.phantom.patients import HELD_OUT, Patient, Study
from lensnb.phantom.recist import recist_diameters
from lensnb.phantom.rendering import Rendering, grid, render
from lensnb.phantom.scanning import COLLECTIONS
from lensnb.settings import Phantom

HELD_OUT_FOLDER = "held_out"  # below the datasets' folders; it has some of the same names


def record_path(root: Path, study: Study) -> Path:
    """Where the record of a finished volume lies while the others are being written."""
    return root / "truth" / "parts" / f"{study.dataset}-{study.group}-{study.patient:06d}-{study.study:02d}.json"


def write_patient(root: Path, spec: Phantom, patient: Patient, marked: list[list[int]]) -> int:
    """Write all studies of a patient that have no record yet; returns how many were written."""
    written = 0
    for study, chosen in zip(patient.studies, marked, strict=True):
        if record_path(root, study).exists():
            continue
        if study.dataset in COLLECTIONS:
            chosen = [i for i in study.present if patient.lesions[i].type == COLLECTIONS[study.dataset].type]
        write_json(_write_volume(root, spec, patient, study, chosen), record_path(root, study))
        written += 1
    return written


def _write_volume(root: Path, spec: Phantom, patient: Patient, study: Study, marked: list[int]) -> dict:
    """Write one study's files and return the record of it that the tables are made of (see `annotations`).

    Lesions that no voxel shows are not marked; if none would be in the universal dataset, the longest in z is.
    """
    scan = render(patient, study, spec.pixels, spec.depth_mm)
    marked, asked = [i for i in marked if i in scan.boxes], marked
    if asked and not marked and scan.boxes and study.dataset not in COLLECTIONS:
        marked = [max(scan.boxes, key=lambda i: len(scan.boxes[i]))]
    if study.group == HELD_OUT:
        root = root / HELD_OUT_FOLDER
    flipped = layouts.flips(patient, study)
    shape = scan.hu.shape
    place = layouts.geometry(study, shape, flipped)
    patient_name, study_name, series, volume = layouts.names(patient, study, shape[0])
    hu = _turn(scan.hu, flipped)
    write_files = {
        "DeepLesion": lambda: layouts.write_deeplesion(root, series, study.first_slice, hu),
        "LUNA16": lambda: layouts.write_luna(root, patient.number, series, hu, place),
        "LiTS": lambda: layouts.write_lits(
            root, volume, hu, _turn(_liver_labels(patient, study, scan, spec), flipped), place
        ),
        "NIH-LN": lambda: layouts.write_nihln(
            root, volume, hu, _node_numbers(patient, scan, marked), place, study.seed
        ),
    }
    write_files[study.dataset]()
    lesions = [_lesion_record(scan, i, i in marked, flipped) for i in study.present if i in scan.boxes]
    return {
        "dataset": study.dataset,
        "group": study.group,
        "patient_number": patient.number,
        "study_number": study.study,
        "patient": patient_name,
        "study": study_name,
        "series": series,
        "volume": volume,
        "depth": shape[0],
        "first_slice": study.first_slice,
        "origin": place.origin.tolist(),
        "spacing": place.spacing.tolist(),
        "sign": place.sign.tolist(),
        "phase": scan.phase,
        "marked": marked,
        "lesions": lesions,
        "normal": _normal_structure(patient, study, spec, shape, flipped),
    }


def _turn(array: np.ndarray, flipped: tuple[bool, bool, bool]) -> np.ndarray:
    """Reverse the axes (x, y, z) of a (z, y, x) array that run the other way in the file."""
    return array[tuple(slice(None, None, -1 if f else 1) for f in flipped[::-1])]


def _lesion_record(scan: Rendering, index: int, marked: bool, flipped: tuple[bool, bool, bool]) -> dict:
    """Boxes, centre and key-slice diameters of one lesion in the written array's index coordinates."""
    where, share = scan.shares[index]
    boxes = scan.boxes[index].copy()
    size = np.array(scan.hu.shape[::-1]) - 1
    key = boxes[np.argmax((boxes[:, 3] - boxes[:, 1]) * (boxes[:, 4] - boxes[:, 2]))]
    solid = np.argwhere(share >= 0.5).mean(axis=0)[::-1] + [where[2].start, where[1].start, where[0].start]
    points = np.array(recist_diameters(where, share, int(key[0]))).reshape(4, 2)
    for axis, low, high in ((0, 1, 3), (1, 2, 4)):
        if flipped[axis]:
            boxes[:, [low, high]] = size[axis] - boxes[:, [high, low]]
            points[:, axis] = size[axis] - points[:, axis]
            solid[axis] = size[axis] - solid[axis]
    key_z = key[0]
    if flipped[2]:
        boxes[:, 0], solid[2], key_z = size[2] - boxes[:, 0], size[2] - solid[2], size[2] - key_z
    boxes = boxes[np.argsort(boxes[:, 0])]
    return {
        "index": index,
        "marked": marked,
        "boxes": np.round(boxes, 3).tolist(),
        "centre": np.round(solid, 3).tolist(),
        "key_slice": int(key_z),
        "diameters": np.round(points, 3).tolist(),
    }


def _liver_labels(patient: Patient, study: Study, scan: Rendering, spec: Phantom) -> np.ndarray:
    """LiTS' mask (z, y, x) of the canonical array: 1 liver, 2 tumour."""
    x, y, z = grid(patient, study, spec.pixels, spec.depth_mm)
    inside = liver_distance(
        patient.anatomy,
        *(np.asarray(a, np.float32) for a in (x[None, None, :], y[None, :, None], z[:, None, None])),
    )
    labels = (inside < 0).astype(np.uint8)
    for i, (where, share) in scan.shares.items():
        if patient.lesions[i].type == "liver":
            labels[where][share >= 0.5] = 2
    return labels


def _node_numbers(patient: Patient, scan: Rendering, marked: list[int]) -> np.ndarray:
    """NIH-LN's mask (z, y, x): the marked nodes that can be seen, numbered from 1; 0 elsewhere."""
    numbers = np.zeros(scan.hu.shape, dtype=np.uint8)
    for number, i in enumerate((i for i in marked if i in scan.shares), start=1):
        where, share = scan.shares[i]
        numbers[where][share >= 0.5] = number
    return numbers


def _normal_structure(
    patient: Patient, study: Study, spec: Phantom, shape: tuple, flipped: tuple[bool, bool, bool]
) -> list[float]:
    """Box (z, x1, y1, x2, y2) of the first normal node in the volume: what a hasty mark lands on."""
    x, y, z = grid(patient, study, spec.pixels, spec.depth_mm)
    middle = z.mean()
    nx, ny, nz, radius = min(normal_nodes(patient.anatomy)[:, :4].tolist(), key=lambda node: abs(node[2] - middle))
    step = x[1] - x[0]
    k = int(np.clip(round((nz - z[0]) / study.slice_mm), 1, shape[0] - 2))
    k = shape[0] - 1 - k if flipped[2] else k
    column, row, reach = (nx - x[0]) / step, (ny - y[0]) / step, radius / step
    return [k, column - reach, row - 0.8 * reach, column + reach, row + 0.8 * reach]
