"""The store of prepared volumes: memory-mapped HU on the grid, and the tables that belong to them."""

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from lensnb.boxes import COLUMNS
from lensnb.ct.grid import Geometry
from lensnb.files import read_table

NEEDED = (
    "dataset",
    "patient",
    "volume",
    "split",
    "depth",
    "height",
    "width",
    "file",
    "content",
    "note",
)  # of volumes.csv


class Store:
    """The prepared volumes and tables of a profile; volumes are memory-mapped, so thousands of them cost no
    memory.

    volumes: table with one row per volume, indexed by volume. boxes, manual, truth: tables in grid
    coordinates; manual is empty and truth is None where the data has none.
    """

    def __init__(self, root: Path | str):
        self.root = Path(root)
        self.volumes = read_table(self.root / "volumes.csv", NEEDED).set_index("volume", drop=False)
        self.volumes["note"] = self.volumes["note"].astype(object).fillna("")
        self.boxes = read_table(self.root / "boxes.csv", COLUMNS)
        self.manual = read_table(self.root / "manual.csv", COLUMNS)
        self.truth = read_table(self.root / "truth.csv", COLUMNS) if (self.root / "truth.csv").exists() else None

    def hu(self, volume: str) -> np.memmap:
        """HU int16 (z, y, x) of a volume, mapped from disk and read-only."""
        self._check(volume)
        path = self.root / self.volumes.at[volume, "file"]
        try:
            return _mapped(path, path.stat().st_mtime_ns)
        except (ValueError, EOFError) as error:  # cut off, no array, or empty
            raise ValueError(f"{path} is broken: {error}; delete it and prepare the data again") from error

    def geometry(self, volume: str) -> Geometry:
        """The way from the grid of a volume to its original voxels and millimetres."""
        self._check(volume)
        return geometry_of(self.volumes.loc[volume])

    def contents(self, volumes: Sequence[str]) -> list[tuple[str, str]]:
        """Each volume with the fingerprint of its voxels: what a result that read them follows from."""
        for volume in volumes:
            self._check(volume)
        return [(volume, str(self.volumes.at[volume, "content"])) for volume in volumes]

    def _check(self, volume: str) -> None:
        if volume not in self.volumes.index:
            raise ValueError(f"{self.root / 'volumes.csv'} has no volume {volume!r}")


@lru_cache(maxsize=2048)
def _mapped(path: Path, changed_ns: int) -> np.memmap:
    """An array file as a map that is kept open: a training comes back to each volume every minute."""
    return np.load(path, mmap_mode="r")


def geometry_of(row: pd.Series) -> Geometry:
    """The Geometry in a row of volumes.csv."""
    return Geometry(
        np.array(json.loads(row["grid_to_original"])),
        np.array(json.loads(row["original_to_mm"])),
        tuple(json.loads(row["original_shape"])),
        tuple(float(row[f"spacing_{axis}_mm"]) for axis in "xyz"),
        int(row["first_slice"]),
    )
