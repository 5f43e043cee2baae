"""Phantoms: synthetic CT datasets in the real layouts, with the truth that real datasets lack."""

import json
import multiprocessing
import shutil
from functools import partial
from pathlib import Path

from lensnb.datasets import NAMES, SINGLE_TYPE
from lensnb.files import read_json, write_json
from lensnb.phantom.annotations import write_annotations
from lensnb.phantom.marking import mark
from lensnb.phantom.organ_maps import FOLDER, write_organ_map, write_organ_names
from lensnb.phantom.patients import (
    HELD_OUT,
    Patient,
    deeplesion_patients,
    held_out_patients,
    single_type_patients,
    unlabelled_patients,
)
from lensnb.phantom.report_files import GROUPS, write_report_files
from lensnb.phantom.writing import HELD_OUT_FOLDER, record_path, write_patient
from lensnb.provenance import inventory
from lensnb.provenance.recipe import Recipe, code, differences, text
from lensnb.settings import Phantom
from lensnb.system import available_cores, progress

RECORD = "made.json"  # what the phantoms were made from, and their files
OURS = (RECORD, "complete.json", "started.json")  # what is written beside them
SETTINGS = (
    "pixels",
    "spacing_mm",
    "depth_mm",
    "deeplesion_patients",
    "studies",
    "smallest_mm",
    "marking_slope",
    "further_mark",
    "growth_sd",
    "luna_volumes",
    "lits_volumes",
    "nihln_volumes",
    "held_out",
    "val_patients",
    "pretext_patients",
    "pretext_val_patients",
    "test_volumes",
    "test_empty",
    "test_seed",
    "box_padding_px",
)


def write(root: Path | str, spec: Phantom, seed: int, workers: int = 2) -> dict:
    """Write the four phantom datasets below `root`, in the real layouts, and the hidden truth; returns its summary.

    Below root/held_out lie further volumes of the single-type datasets, in the same layouts, for tests of their own: no
    reader of `root` takes them for a part of a dataset. Beside them lies the data of the pretext task (see
    `organ_maps`), which belongs to no dataset.

    `spec` has the attributes SETTINGS (a profile's `phantom` section). Training and validation data follow `seed`, the
    test set and what is held out spec.test_seed. The same spec and seed give the same bytes whatever `workers` is. An
    interrupted call is continued by the next one. A finished folder is left as it is, unless a file of it was changed,
    added or lost, or the code is another: then a line says so, and it is written again. Raises ValueError if a setting
    is missing, or if `root` was written with other settings or another seed: what was made from it would then mix two
    benchmarks, so the folder is never replaced silently. `workers` = 0: all cores.
    """
    root, workers = Path(root), workers or available_cores()
    asked = _stamp(spec, seed)
    for name in ("complete.json", "started.json"):
        if (root / name).exists():
            _check_same(read_json(root / name), asked, root)
    recipe = code([__name__])
    if not _to_write(root, recipe):
        return read_json(root / "truth" / "summary.json")
    patients = {group: deeplesion_patients(spec, seed, group) for group in GROUPS}
    write_json(asked | {"code": text(recipe)}, root / "started.json")
    patients |= {dataset: single_type_patients(spec, seed, dataset) for dataset in SINGLE_TYPE}
    patients[HELD_OUT] = [p for dataset in SINGLE_TYPE for p in held_out_patients(spec, dataset)]
    marked = _marks(spec, patients)
    jobs = [(p, m) for group in patients for p, m in zip(patients[group], marked[group], strict=True)]
    jobs += [(p, None) for p in unlabelled_patients(spec, seed)]
    work = partial(_write_one, root, spec)
    if workers > 1:
        with multiprocessing.get_context("spawn").Pool(workers) as pool:
            for _ in progress(pool.imap_unordered(work, jobs, chunksize=4), "phantom patients", total=len(jobs)):
                pass
    else:
        for job in progress(jobs, "phantom patients"):
            work(job)
    marked = {group: [_written(root, patient) for patient in patients[group]] for group in GROUPS}
    write_annotations(root, spec, patients, marked)
    write_report_files(root, patients, marked)
    write_organ_names(root)
    (root / "started.json").unlink()
    shutil.rmtree(root / "truth" / "parts")
    write_json({"recipe": recipe, "files": inventory.take(root, OURS)}, root / RECORD)
    write_json(asked, root / "complete.json")
    return read_json(root / "truth" / "summary.json")


def _to_write(root: Path, recipe: Recipe) -> bool:
    """Whether the phantoms of a folder must be written; takes away what another code or a damage has left there."""
    if (root / "complete.json").exists():
        reason = _why_not(root, recipe)
        if not reason:
            return False
        print(f"{root}: the phantoms are written again, because {reason}", flush=True)
        (root / "complete.json").unlink()
    elif (root / "started.json").exists() and read_json(root / "started.json").get("code") == text(recipe):
        return True  # go on
    # nothing is there yet, or what another code has left, or what is left of it if taking it away was interrupted
    for name in (*NAMES, HELD_OUT_FOLDER, "truth", FOLDER):
        shutil.rmtree(root / name, ignore_errors=True)
    return True


def _why_not(root: Path, recipe: Recipe) -> str:
    """Why finished phantoms can not stay, or nothing."""
    try:
        record = read_json(root / RECORD)
        known, files = record["recipe"], record["files"]
    except (OSError, ValueError, KeyError):
        return "nothing says what they were made from"
    reasons = differences(known, recipe) or inventory.faults(root, files, OURS)
    more = f" and {len(reasons) - 3} more" if len(reasons) > 3 else ""
    return ", ".join(reasons[:3]) + more


def _marks(spec: Phantom, patients: dict[str, list[Patient]]) -> dict[str, list]:
    """Which lesions are marked: for each patient of a group a list of indices for each study."""
    return {
        group: [mark(p, spec.marking_slope, spec.further_mark) for p in listed] for group, listed in patients.items()
    }


def _written(root: Path, patient: Patient) -> list[list[int]]:
    """The marks in the files of a patient's studies: a lesion that no voxel shows has none."""
    return [read_json(record_path(root, study))["marked"] for study in patient.studies]


def _write_one(root: Path, spec: Phantom, job: tuple) -> int:
    patient, marked = job
    if marked is None:  # of the pretext task
        return write_organ_map(root, spec, patient)
    return write_patient(root, spec, patient, marked)


def _stamp(spec: Phantom, seed: int) -> dict:
    """The settings and the seed that a folder is made with, as JSON gives them back; ValueError names missing ones."""
    missing = [name for name in SETTINGS if not hasattr(spec, name)]
    if missing:
        raise ValueError(
            f"the phantom settings lack {', '.join(missing)}; they belong in the profile's section `phantom`"
        )
    return json.loads(json.dumps({"seed": seed} | {name: getattr(spec, name) for name in SETTINGS}))


def _check_same(found: dict, asked: dict, root: Path) -> None:
    """ValueError if a folder's stamp differs from the one asked for."""
    other = [f"{key} {found.get(key)} (asked: {value})" for key, value in asked.items() if found.get(key) != value]
    if other:
        raise ValueError(
            f"{root} holds phantoms made with other settings: {'; '.join(other)}. "
            "Delete this folder, and what was made from it, to write new ones."
        )
