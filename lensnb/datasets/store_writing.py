"""The volumes of the store: each raw volume normalised and written by itself, many at a time.

A volume's array appears whole or not at all, then the mask of its lesions, if it has one, then its record, which says
what it was made from: the code that read it, the grid, and the size and time of each of its files. A later start finds
the records and makes only what is missing, no longer whole, or of files that have been added, replaced or repaired
since. That costs a look at each file, no reading. Memory does not grow with the number of volumes: each process holds
one at a time, and needs up to 2 GB for a real scan of 900 slices.
"""

import errno
import json
import multiprocessing
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import lru_cache
from glob import escape
from pathlib import Path

import numpy as np
import pandas as pd
import psutil

from lensnb.ct.grid import normalise
from lensnb.ct.grid_boxes import clip_to_image, key_boxes_to_grid, pad_boxes, slice_boxes_to_grid
from lensnb.ct.grid_shapes import MASK_ENDING, diameters_to_grid, mask_to_grid
from lensnb.datasets import DATASETS
from lensnb.datasets.readers import READERS
from lensnb.files import atomic_write, fingerprint, read_json, write_array, write_json
from lensnb.provenance import inventory
from lensnb.provenance.product import checksum
from lensnb.provenance.recipe import BY_VALUE, code, text
from lensnb.system import available_cores, progress

DISK_SAMPLE = 5  # volumes of each dataset that are read in order to estimate the disk space for all


@dataclass(frozen=True)
class Task:
    """One volume to be prepared.

    raw_root: folder of the raw data. out: folder of the store. row: of a reader's `find`, as a dictionary. spacing_mm:
    of the grid (x, y, z). box_padding_mm: added in plane to boxes that have no margin of their own.
    """

    raw_root: Path
    out: Path
    row: dict
    spacing_mm: tuple[float, float, float]
    box_padding_mm: float = 0.0

    @property
    def dataset(self) -> str:
        """The name of the volume's dataset."""
        return self.row["dataset"]

    @property
    def source(self) -> Path:
        """The raw file or folder."""
        return self.raw_root / self.row["path"]

    @property
    def array_file(self) -> Path:
        """Where the volume is written; its record lies beside it, as .json."""
        return self.out / "store" / self.dataset / f"{self.row['volume']}.npy"

    @property
    def mask_file(self) -> Path:
        """Where the mask of its lesions is written, if its dataset has masks."""
        return self.array_file.with_suffix(MASK_ENDING)

    @property
    def record_file(self) -> Path:
        """Where the record of the volume is written."""
        return self.array_file.with_suffix(".json")


def settings(spacing_mm: tuple[float, float, float], box_padding_mm: float) -> dict:
    """How volumes are prepared, as records and reports have it."""
    return {
        "spacing_mm": list(map(float, spacing_mm)),
        "box_padding_mm": float(box_padding_mm),
    }


def write_volumes(tasks: list[Task], out: Path, workers: int = 0) -> list[dict]:
    """Write the volumes that are not there yet below `out`/store; return the records of all, in any order.

    `workers`: processes, 0 for one on each core. A volume that can not be used has a record with the `problem` alone.
    Raises OSError, before anything is written, if the disk has not enough room, and MemoryError if a process was
    killed for want of memory.
    """
    workers = workers or available_cores()
    _remove_leftovers(out / "store")
    records = [_finished(task) for task in tasks]
    waiting = [task for task, record in zip(tasks, records, strict=True) if record is None]
    _check_disk(waiting, out)
    if workers <= 1 or len(waiting) < 2:
        done = map(write_volume, waiting)
    else:
        done = _in_processes(waiting, min(workers, len(waiting)))
    lines = max(10, len(waiting) // 100)
    return [record for record in records if record] + list(progress(done, "preparing CT", len(waiting), lines))


def _in_processes(tasks: list[Task], workers: int) -> Iterator[dict]:
    """Records of the tasks, done by several processes."""
    try:
        with process_pool(workers) as pool:
            yield from pool.map(write_volume, tasks)
    except BrokenProcessPool as error:
        raise MemoryError(
            f"one of {workers} processes was killed, as happens when memory runs out; a scan of 900 slices takes 2 GB. "
            "Finished volumes are kept: start again, with fewer processes (prepare --workers)"
        ) from error


def process_pool(workers: int) -> ProcessPoolExecutor:
    """Processes that write volumes. One imports the libraries, without torch, and the others are its forks."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["lensnb.datasets.store_writing"])
    return ProcessPoolExecutor(workers, context)


def _remove_leftovers(store: Path) -> None:
    """Remove the unfinished files of processes that were killed, which could not do so themselves."""
    for path in store.glob("*/.*.part.*"):
        process = path.name.split(".part")[0].rsplit(".", 1)[-1]
        if process.isdigit() and not psutil.pid_exists(int(process)):
            path.unlink(missing_ok=True)


def _check_disk(tasks: list[Task], out: Path) -> None:
    """Say how much room the volumes need and how much there is; OSError if that is not enough."""
    if not tasks:
        return
    needed = disk_needed(tasks)
    existing = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    room = f"{len(tasks)} volumes need about {_size(needed)}, and {_size(free)} are free"
    if needed > free:
        raise OSError(errno.ENOSPC, f"the disk has not enough room for the prepared volumes: {room}", str(out))
    print(f"preparing CT: {room}", flush=True)


def disk_needed(tasks: list[Task]) -> float:
    """Bytes that the volumes of the tasks will take, estimated from some of each dataset.

    Those are read and normalised, because nobody knows how much air the border crop takes away; then they are taken
    to stand for all. The depth, which varies most among the sub-volumes of DeepLesion, is known there beforehand.
    Masks are not counted: compressed they take half a percent of the volumes of phantoms.
    """
    needed = 0.0
    for name in DATASETS:
        mine = [task for task in tasks if task.dataset == name]
        sample = mine[:: max(1, -(-len(mine) // DISK_SAMPLE))]
        if sample:
            bytes_per_mm = sum(map(_grid_bytes, sample)) / sum(map(_depth_mm, sample))
            needed += bytes_per_mm * sum(map(_depth_mm, mine))
    return needed


def _grid_bytes(task: Task) -> int:
    """Bytes of a volume on the grid; 0 if it can not be used."""
    hu = _grid_of(task)[1]
    return 0 if hu is None else hu.nbytes


def _depth_mm(task: Task) -> float:
    """How much of the patient a volume shows; 1 where the dataset's lists do not tell."""
    return task.row["depth_mm"] or 1.0


def _size(number: float) -> str:
    return f"{number / 1e9:.1f} GB" if number >= 5e7 else f"{number / 1e6:.1f} MB"


def _finished(task: Task) -> dict | None:
    """The record of a volume that is prepared already, from the same source and in the same way."""
    if not (task.array_file.exists() and task.record_file.exists()):
        return None
    try:
        record = read_json(task.record_file)
    except ValueError:  # a broken record is as good as none: the volume is made again
        return None
    if record.get("recipe") != _recipe(task):
        return None
    for kind, path in (("array", task.array_file), ("mask", task.mask_file)):
        if kind not in record:
            continue
        state = inventory.state(path) if path.exists() else None
        if record[kind]["state"] == state:
            continue
        if state is None or record[kind]["checksum"] != checksum(path):
            print(f"{path}: is not as it was written; made again", flush=True)
            return None
        record[kind]["state"] = state  # copied, or touched
        write_json(record, task.record_file)
    return record


def _recipe(task: Task) -> dict:
    """All that the prepared volume follows from: the settings, the code, and the state of its files."""
    source = {
        "path": task.row["path"],
        "files": fingerprint([(str(file), inventory.state(file)) for file in _sources(task)]),
        "annotations": json.dumps(task.row["annotations"]),
        "code": _code(task.dataset),
    }
    return settings(task.spacing_mm, task.box_padding_mm) | source


@lru_cache
def _code(dataset: str) -> str:
    """A text for the code that prepares a dataset's volumes; another dataset's reader does not count."""
    own = (__name__, f"lensnb.datasets.{DATASETS[dataset].reader}")
    return text(code(own, aside=(*BY_VALUE, "lensnb.datasets.readers")))


def _sources(task: Task) -> list[Path]:
    """The files that a volume is read from: of a folder all, of an image those of the same name, and its mask."""
    source = task.source
    if source.is_dir():
        files = sorted(path for path in source.iterdir() if path.is_file())
    else:
        stem = source.name.split(".nii")[0].removesuffix(source.suffix)
        files = sorted(path for path in source.parent.glob(f"{escape(stem)}.*") if path.is_file())
    mask = task.raw_root / task.row["mask"] if task.row.get("mask") else None
    return [*files, mask] if mask and mask.is_file() else files


def write_volume(task: Task) -> dict:
    """Write one volume, its mask if it has one, and its record, and return the record.

    A volume that can not be used gives a record with `problem`, which is not kept: the next start tries it
    again.
    """
    record, hu, mask = _grid_of(task)
    if hu is None:
        return record
    task.record_file.unlink(missing_ok=True)
    write_array(hu, task.array_file)
    record["array"] = _as_written(task.array_file)
    if mask is not None:
        with atomic_write(task.mask_file) as temporary:
            np.savez_compressed(temporary, mask=mask)
        record["mask"] = _as_written(task.mask_file)
    write_json(record, task.record_file)
    return record


def _as_written(path: Path) -> dict:
    return {"checksum": checksum(path), "state": inventory.state(path)}


def _grid_of(task: Task) -> tuple[dict, np.ndarray | None, np.ndarray | None]:
    """The record, the grid and the mask of one volume; if it can not be used, what the problem is, and None twice."""
    try:
        return _normalised(task)
    except (ValueError, FileNotFoundError) as error:
        return {"volume": task.row["volume"], "problem": str(error)}, None, None
    except Exception as error:
        error.add_note(f"while preparing {task.row['volume']} of {task.dataset} from {task.source}")
        raise


def _normalised(task: Task) -> tuple[dict, np.ndarray, np.ndarray | None]:
    """The record and the grid of one volume, and its mask; None if its dataset has no masks."""
    recipe, dataset, reader = _recipe(task), DATASETS[task.dataset], READERS[task.dataset]
    ct, original_boxes, *segments = getattr(reader, "read_with_masks", reader.read)(task.raw_root, task.row)
    hu, geometry = normalise(ct, task.spacing_mm)
    if dataset.boxes_from != "diameters":
        original_boxes = pad_boxes(original_boxes, task.box_padding_mm, ct.spacing_mm)
    to_grid = key_boxes_to_grid if dataset.key_slices_only else slice_boxes_to_grid
    grid_boxes, outside = clip_to_image(to_grid(original_boxes, geometry, len(hu)), *hu.shape[1:])
    known = set(grid_boxes["lesion"])
    mask, numbered, ends = None, [], []
    if segments:
        numbered = [segment for segment in segments[0] if segment.lesion in known]
        mask = mask_to_grid(numbered, grid_boxes, geometry, hu.shape)
    if hasattr(reader, "diameters"):
        table = diameters_to_grid(reader.diameters(task.row, ct), geometry, len(hu))
        ends = _values(table[table["lesion"].isin(known)])
    notes = [*ct.notes, *(f"box outside the image: {lesion}" for lesion in dict.fromkeys(outside))]
    notes = [note.replace(";", ",") for note in notes]
    record = {
        "volume": task.row["volume"],
        "problem": "",
        "recipe": recipe,
        "shape": list(hu.shape),
        "first_slice": int(geometry.first_slice),
        "grid_to_original": geometry.grid_to_original.tolist(),
        "original_to_mm": geometry.original_to_mm.tolist(),
        "original_shape": list(geometry.original_shape),
        "notes": notes,
        "boxes": _values(grid_boxes),
        "diameters": ends,
        "numbered": [segment.lesion for segment in numbered],
    }
    return record, hu, mask


def _values(table: pd.DataFrame) -> list[list]:
    """The rows of a table as JSON can hold them."""
    return json.loads(table.to_json(orient="values", double_precision=15))
