"""Scans of people without a lesion and their organs, which the pretext task learns from; they belong to no dataset.

The phantoms write them (lensnb/phantom/organ_maps.py): a file <train or val>-<number>.npz for each scan in the folder
FOLDER of the raw files, and the names of the organs in NAMES_FILE.
"""

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lensnb.ct.grid import border_crop, resample
from lensnb.files import read_json
from lensnb.provenance.product import checksum

FOLDER = "pretext"
NAMES_FILE = "organs.json"  # the names of the organs, in the order of their numbers
IGNORED = 255  # of no organ


@dataclass(frozen=True)
class OrganScan:
    """A scan on the grid: hu int16 and organ uint8 (z, y, x), each voxel's organ or IGNORED.

    z_mm (z,): the height of each slice in the body, from the top of the right diaphragm, growing to the head.
    """

    hu: np.ndarray
    organ: np.ndarray
    z_mm: np.ndarray


def organ_names(raw: Path) -> tuple[str, ...]:
    """The names of the organs. Raises FileNotFoundError where there are no such scans, as among real datasets."""
    path = raw / FOLDER / NAMES_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing: only phantoms know the organ of every voxel (notebook 01 or `python -m lensnb "
            "prepare` makes them); set pretext.task to blobs or none"
        )
    names = read_json(path, list)
    if not all(isinstance(name, str) for name in names) or len(names) < 2:
        raise ValueError(f"{path} should list the names of the organs")
    return tuple(names)


def scan_files(raw: Path, split: str) -> list[Path]:
    """The files of a split, in the order of their names. Raises FileNotFoundError if there is none."""
    files = sorted((raw / FOLDER).glob(f"{split}-*.npz"))
    if not files:
        raise FileNotFoundError(f"{raw / FOLDER} has no {split}-*.npz")
    return files


def contents(raw: Path) -> list[tuple[str, str]]:
    """Each file of the folder with its checksum: what a training on them follows from."""
    return [
        (path.name, checksum(path)) for path in sorted((raw / FOLDER).iterdir()) if path.suffix in (".json", ".npz")
    ]


def read_scans(raw: Path, split: str, spacing_mm: Sequence[float], organs: int) -> list[OrganScan]:
    """The scans of a split (train or val) on the grid with `spacing_mm` (x, y, z), borders cropped.

    All of them are held in memory, 0.5 MB a scan of the phantoms. organs: how many there are. Raises ValueError that
    names a file which is broken.
    """
    return [_read(path, spacing_mm, organs) for path in scan_files(raw, split)]


def _read(path: Path, spacing_mm: Sequence[float], organs: int) -> OrganScan:
    try:
        with np.load(path, allow_pickle=False) as file:
            hu, organ, spacing, z_mm = (file[name] for name in ("hu", "organ", "spacing_mm", "z_mm"))
    except (ValueError, KeyError, EOFError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"{path} is no scan with organs: {error}; delete the phantoms to have them made again"
        ) from error
    if hu.ndim != 3 or hu.shape != organ.shape or z_mm.shape != hu.shape[:1] or spacing.shape != (3,):
        raise ValueError(f"{path}: hu {hu.shape}, organ {organ.shape} and z_mm {z_mm.shape} do not fit together")
    known = (organ < organs) | (organ == IGNORED)
    if not known.all():
        raise ValueError(f"{path} has organ {int(organ[~known][0])}; there are {organs}")
    # the axes are the patient's already (compare `grid.normalise`); positions are in voxels of the file
    step = np.asarray(spacing_mm, float) / spacing
    size = np.floor((np.array(hu.shape[::-1]) - 1) / step + 1e-6).astype(int) + 1
    x, y, z = (np.arange(count) * by for count, by in zip(size, step, strict=True))
    rows, columns = border_crop(hu, y, x, tuple(spacing_mm))
    y, x = y[rows], x[columns]
    near = (np.rint(axis).astype(int) for axis in (z, y, x))
    return OrganScan(resample(hu, z, y, x), organ[np.ix_(*near)], np.interp(z, np.arange(len(z_mm)), z_mm))
