"""How fast volumes are prepared here: on one core beside what SimpleITK alone needs, and on all cores.

SimpleITK's part is the same for the same files: reading them (slices in order, labels too) and resampling the CT
linearly to the same spacing. Preparing also checks the files, crops the borders, makes the boxes and writes.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from lensnb import runfolder
from lensnb.datasets import NAMES, present, store_writing
from lensnb.datasets.preparation import find_all
from lensnb.datasets.store_writing import Task
from lensnb.settings import load_profile
from lensnb.system import available_cores

COLUMNS = ["dataset", "volumes", "simpleitk_s", "lensnb_s", "ratio", "per_minute", "cores", "per_minute_all", "mb"]


def benchmark(
    root: Path | str, spacing_mm: tuple[float, float, float], volumes: int = 4, cores: int = 0, repeats: int = 3
) -> pd.DataFrame:
    """Measure on up to `volumes` volumes of each dataset below `root`; prepared volumes go to a temporary folder.

    `spacing_mm`: the grid (x, y, z). `cores`: 0 for all. What takes one core is measured in seconds of processor time,
    the least of `repeats`, so that neither disks nor other programs count. Returns one row per dataset: simpleitk_s and
    lensnb_s (seconds a volume), their ratio, volumes a minute on one core and (by the clock) on `cores` cores, and
    the megabytes of a prepared volume. Raises FileNotFoundError if there is no usable volume.
    """
    root, cores = Path(root), cores or available_cores()
    rows = []
    with tempfile.TemporaryDirectory(prefix="lensnb-benchmark-") as out:
        for name in present(root):
            tasks = _usable(root, Path(out), name, spacing_mm, volumes)
            if tasks:
                rows.append(_measure(name, tasks, cores, repeats))
    if not rows:
        raise FileNotFoundError(f"{root} holds no usable volume of {', '.join(NAMES)}; `data check` says what it has")
    return pd.DataFrame(rows, columns=COLUMNS)


def _usable(root: Path, out: Path, dataset: str, spacing_mm: tuple, number: int) -> list[Task]:
    """Tasks for `number` volumes that can be prepared, spread over the dataset."""
    found = find_all(root, (dataset,), seed=0)
    found = found[found["problem"] == ""].to_dict("records")
    spread = sorted(range(len(found)), key=lambda i: (i % max(1, len(found) // number), i))
    tasks = []
    for row in (found[i] for i in spread):
        task = Task(root, out, row, spacing_mm)
        if len(tasks) < number and not store_writing.write_volume(task)["problem"]:
            tasks.append(task)
    return tasks


def _measure(name: str, tasks: list[Task], cores: int, repeats: int) -> list:
    ours = _least_time(lambda: [store_writing.write_volume(task) for task in tasks], repeats) / len(tasks)
    theirs = _least_time(lambda: [read_and_resample(task) for task in tasks], repeats) / len(tasks)
    together = tasks * -(-4 * cores // len(tasks))  # enough work for every core
    with store_writing.process_pool(cores) as pool:
        list(pool.map(store_writing.write_volume, tasks[:1] * cores))  # processes start and load their libraries
        start = time.perf_counter()
        list(pool.map(store_writing.write_volume, together))
        all_cores = len(together) / (time.perf_counter() - start)
    size = sum(task.array_file.stat().st_size for task in tasks) / len(tasks) / 1e6
    return [name, len(tasks), theirs, ours, ours / theirs, 60 / ours, cores, 60 * all_cores, size]


def _least_time(action: Callable[[], object], repeats: int) -> float:
    """Seconds of processor time of the quickest of several runs."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        action()
        times.append(time.process_time() - start)
    return min(times)


def read_and_resample(task: Task) -> np.ndarray:
    """One volume by SimpleITK alone, on one core: HU int16 (z, y, x), neither cropped nor turned to the patient."""
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    path, annotations = task.source, task.row["annotations"]
    if path.is_dir() and next(path.iterdir()).suffix == ".png":
        slices = [path / f"{number:03d}.png" for number in range(annotations["start"], annotations["end"] + 1)]
        image = sitk.ReadImage([str(file) for file in slices if file.exists()], sitk.sitkInt32) - 32768
        image.SetSpacing(annotations["spacing_mm"])
    elif path.is_dir():
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(path)))
        image = reader.Execute()
    else:
        image = sitk.ReadImage(str(path))
    if task.row["mask"]:
        sitk.ReadImage(str(task.raw_root / task.row["mask"]))
    spacing = task.spacing_mm
    extent = zip(image.GetSize(), image.GetSpacing(), spacing, strict=True)
    size = [int((voxels - 1) * old / new + 1e-6) + 1 for voxels, old, new in extent]
    resampled = sitk.Resample(
        sitk.Cast(image, sitk.sitkInt16), size, sitk.Transform(), sitk.sitkLinear, image.GetOrigin(), spacing,
        image.GetDirection(), -1024.0,
    )  # fmt: skip
    return sitk.GetArrayFromImage(resampled)


def report(table: pd.DataFrame) -> str:
    """The measurements as lines for a terminal."""
    cores = int(table["cores"].iloc[0])
    lines = [f"{'':12}{'SimpleITK':>12}{'lensnb':>12}{'ratio':>8}{'1 core':>12}{f'{cores} cores':>12}{'size':>12}"]
    for row in table.to_dict("records"):
        lines.append(
            f"{row['dataset']:12}{row['simpleitk_s']:>10.3f} s{row['lensnb_s']:>10.3f} s{row['ratio']:>8.2f}"
            f"{row['per_minute']:>8.0f}/min{row['per_minute_all']:>8.0f}/min{row['mb']:>9.1f} MB"
        )
    return "\n".join([*lines, "seconds and megabytes: of a volume; ratio: lensnb / SimpleITK, both on one core"])


def command(root: Path | None, profile: str, volumes: int, cores: int | None) -> str:
    """The command `benchmark`: the report, for the datasets and the grid of a profile."""
    grid = tuple(load_profile(profile).grid.spacing_mm)
    return report(benchmark(root or runfolder.raw(profile), grid, volumes, cores or 0))
