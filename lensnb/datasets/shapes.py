"""What the store knows of lesions beyond their boxes: masks of LiTS and NIH-LN, RECIST diameters of DeepLesion.

A file of its own, so that what learns from boxes alone does not follow from it. LUNA16 has spheres, and no masks.
"""

import zipfile
import zlib

import numpy as np
import pandas as pd

from lensnb.ct.grid_shapes import DIAMETERS, MASK_ENDING
from lensnb.datasets.store import Store
from lensnb.files import read_table

RECIST = ["dataset", "volume", "lesion", "z", *DIAMETERS]
NUMBERS = ["dataset", "volume", "number", "lesion", "content"]
RECIST_FILE, NUMBERS_FILE = "recist.csv", "masks.csv"  # beside boxes.csv


def recist(store: Store) -> pd.DataFrame:
    """A row for each lesion whose RECIST diameters were published, with the columns RECIST.

    z: the grid slice of its box; x1, y1, x2, y2: the ends of the long diameter, x3, y3, x4, y4: of the short one, in
    pixels of the grid. Lesions are those of `store.boxes`. No row where no dataset has diameters.
    """
    return read_table(store.root / RECIST_FILE, RECIST)


def mask_numbers(store: Store) -> pd.DataFrame:
    """Which number is which lesion of `store.boxes` in the masks, with the columns NUMBERS.

    content: a fingerprint of the volume's mask, for what follows from it.
    """
    return read_table(store.root / NUMBERS_FILE, NUMBERS)


def mask(store: Store, volume: str) -> np.ndarray | None:
    """The lesions of a volume by their numbers in `mask_numbers`: uint16, of the shape (z, y, x) of the volume.

    All 0 for a volume without a lesion. None if its dataset has no masks. A mask is small on disk and as large as its
    volume in memory. ValueError for an unknown volume, a mask that is missing, broken or of another shape.
    """
    shape = store.hu(volume).shape
    path = (store.root / store.volumes.at[volume, "file"]).with_suffix(MASK_ENDING)
    if not path.exists():
        if store.volumes.at[volume, "dataset"] in set(mask_numbers(store)["dataset"]):
            raise ValueError(f"{path} is missing; prepare the data again")
        return None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = arrays["mask"]
    except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} is broken: {error}; delete it and prepare the data again") from error
    if found.shape != shape:
        raise ValueError(f"{path} has the shape {found.shape}, its volume {shape}; prepare the data again")
    return found
