"""A prepared store of a few small volumes without their raw files, and scans with organs: for tests of training."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from lensnb.boxes import COLUMNS
from lensnb.datasets import NAMES
from lensnb.datasets.store import Store
from lensnb.files import atomic_write, write_json, write_table


def label_rows(rows):
    """Rows (dataset, volume, lesion, z, source) with a box in the middle."""
    table = pd.DataFrame(rows, columns=["dataset", "volume", "lesion", "z", "source"])
    for name, value in zip(("x1", "y1", "x2", "y2"), (20.0, 10.0, 34.0, 22.0), strict=True):
        table[name] = value
    return table.reindex(columns=COLUMNS)


def write_store(folder: Path) -> Store:
    """Two volumes of every dataset with one bright lesion each."""
    rng = np.random.default_rng(0)
    volumes, boxes = [], []
    for dataset in NAMES:
        for i in range(2):
            name = f"{dataset}-{i}"
            hu = rng.normal(40, 20, (6, 40, 56)).astype(np.int16)
            hu[2:5, 10:23, 20:35] += 200
            with atomic_write(folder / "store" / dataset / f"{name}.npy") as temporary:
                np.save(temporary, hu)
            volumes.append(dict(
                dataset=dataset, patient=name, study="1", series="1", volume=name, split="train", depth=6, height=40,
                width=56, spacing_x_mm=3, spacing_y_mm=3, spacing_z_mm=4, first_slice=0,
                grid_to_original=json.dumps(np.eye(4).tolist()), original_to_mm=json.dumps(np.eye(4).tolist()),
                original_shape="[6, 40, 56]", scope="", note="", file=f"store/{dataset}/{name}.npy",
                content=f"c{i}",
            ))  # fmt: skip
            slices = [3] if dataset == "DeepLesion" else [2, 3, 4]
            boxes += [(dataset, name, f"{name}-a", z, "annotated") for z in slices]
    write_table(pd.DataFrame(volumes), folder / "volumes.csv")
    write_table(label_rows(boxes), folder / "boxes.csv")
    write_table(pd.DataFrame(columns=COLUMNS), folder / "manual.csv")
    return Store(folder)


def write_organ_scans(folder: Path, organs: tuple[str, ...] = ("air", "soft tissue", "lung")) -> None:
    """What the pretext task reads: three scans to learn from and one held out, of a lung that grows upwards."""
    rng, (y, x) = np.random.default_rng(1), np.ogrid[:40, :56]
    for number in range(1, 5):
        organ = np.zeros((12, 40, 56), np.uint8)
        organ[:, ((y - 20) / 16) ** 2 + ((x - 28) / 22) ** 2 < 1] = 1
        for z in range(12):
            organ[z, 12:28, 14 : 18 + 2 * z] = 2
        hu = np.array([-1000, 50, -850])[organ] + rng.normal(0, 15, organ.shape)
        content = {"hu": hu.astype(np.int16), "organ": organ, "spacing_mm": np.array([3.0, 3.0, 4.0]),
                   "z_mm": 10.0 * number + 4.0 * np.arange(12)}  # fmt: skip
        with atomic_write(folder / f"{'train' if number < 4 else 'val'}-{number:04d}.npz") as temporary:
            np.savez_compressed(temporary, **content)
    write_json(list(organs), folder / "organs.json")
