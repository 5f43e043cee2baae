"""Lesions with mined labels: which box each of them is, and what its report says."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from lensnb.datasets import UNIVERSAL
from lensnb.datasets.store import Store
from lensnb.files.cells import numbers, read_cells
from lensnb.lesanet.label_files import MinedLabels
from lensnb.streams import Stream, generator

LESION_COLUMNS = ["volume", "patient", "lesion", "z", "x1", "y1", "x2", "y2"]


@dataclass(frozen=True)
class LabelledLesions:
    """n lesions and C labels.

    table: volume, patient, lesion, z, x1, y1, x2, y2 in grid pixels, and what the older embedding learns from:
    place_x, place_y, place_z (position in the body, 0 to 1), long_mm, short_mm. relevant, uncertain and irrelevant
    are bool (n, C): labels that the lesion's sentence names of it, maybe of it, and of something else.
    """

    table: pd.DataFrame
    relevant: np.ndarray
    uncertain: np.ndarray
    irrelevant: np.ndarray

    def __len__(self) -> int:
        return len(self.table)

    def select(self, rows: np.ndarray) -> "LabelledLesions":
        """The lesions of some rows (numbers, or a bool mask), in that order."""
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows
        matrices = {name: getattr(self, name)[rows] for name in ("relevant", "uncertain", "irrelevant")}
        return replace(self, table=self.table.iloc[rows].reset_index(drop=True), **matrices)


def labelled_lesions(mined: MinedLabels, store: Store, split: str, dl_info: Path) -> LabelledLesions:
    """The lesions of one split of a label file whose boxes are in the prepared store, in the file's order.

    Lesion k of the file is row k of `dl_info` (DL_info.csv), dl%05d in the store. Lesions that the store does not
    have (possibly noisy ones, volumes that were not prepared) are left out, and a line says how many.
    """
    rows = np.flatnonzero(mined.lesions["split"] == split)
    boxes = store.boxes[store.boxes["dataset"] == UNIVERSAL].set_index("lesion", drop=False)
    names = mined.lesions["row"].iloc[rows].map("dl{:05d}".format)
    found = names.isin(boxes.index).to_numpy()
    if not found.all():
        print(f"{split}: {(~found).sum()} of {len(rows)} lesions with labels are not in the prepared store")
    rows = rows[found]
    table = boxes.loc[names[found], LESION_COLUMNS].reset_index(drop=True)
    cues = _cues(table, store, dl_info, mined.lesions["row"].iloc[rows])
    matrices = (mined.relevant[rows], mined.uncertain[rows], mined.irrelevant[rows])
    return LabelledLesions(pd.concat([table, cues], axis=1), *matrices)


def unlabelled_lesions(store: Store, dl_info: Path) -> LabelledLesions:
    """The training lesions of the prepared store, of whose labels nothing is known (C = 0), in its order."""
    train = store.volumes.index[store.volumes["split"] == "train"]
    table = store.boxes[(store.boxes["dataset"] == UNIVERSAL) & store.boxes["volume"].isin(train)]
    table = table[LESION_COLUMNS].reset_index(drop=True)
    rows = table["lesion"].str.removeprefix("dl").astype(int)
    nothing = np.zeros((len(table), 0), dtype=bool)
    return LabelledLesions(pd.concat([table, _cues(table, store, dl_info, rows)], axis=1), nothing, nothing, nothing)


def _cues(table: pd.DataFrame, store: Store, dl_info: Path, rows: pd.Series) -> pd.DataFrame:
    """Place and size of lesions: Normalized_lesion_location of DL_info.csv, and the sides of the boxes in mm."""
    place = _places(dl_info, rows)
    spacing = store.volumes.loc[table["volume"].astype(str), ["spacing_x_mm", "spacing_y_mm"]].to_numpy()
    sides = np.sort((table[["x2", "y2"]].to_numpy() - table[["x1", "y1"]].to_numpy()) * spacing, axis=1)
    columns = ["place_x", "place_y", "place_z", "long_mm", "short_mm"]
    return pd.DataFrame(np.column_stack([place, sides[:, ::-1]]), columns=columns)


def _places(dl_info: Path, rows: pd.Series) -> np.ndarray:
    """Normalized_lesion_location of some rows of DL_info.csv: (n, 3); ValueError names the file and the line."""
    table, column = read_cells(dl_info), "Normalized_lesion_location"
    if column not in table:
        raise ValueError(f"{dl_info} has no column {column}; it has {', '.join(table.columns)}")
    if len(rows) and rows.max() >= len(table):
        raise ValueError(f"{dl_info} has {len(table)} rows, but row {rows.max()} has labels: it is not whole")
    cells = table[column].iloc[rows]
    parts = [[part.strip() for part in cell.split(",")] for cell in cells]
    padded = pd.Series([part for cell in parts for part in [*cell, "", "", ""][:4]], dtype=str)
    values = numbers(padded)[0].reshape(-1, 4)  # a fourth one is one too many
    three = np.array([len(cell) == 3 for cell in parts], dtype=bool)
    wrong = ~np.isfinite(values[:, :3]).all(axis=1) | ~three
    if wrong.any():
        raise ValueError(f"{dl_info}, line {cells.index[wrong.argmax()]}: {column} is not 3 numbers")
    return values[:, :3]


def resplit(first: LabelledLesions, second: LabelledLesions, seed: int) -> tuple[LabelledLesions, LabelledLesions]:
    """Deal the patients of two splits out again at random, as many to each as before (LesaNet Sec. 7.2.2)."""
    together = replace(
        first,
        table=pd.concat([first.table, second.table], ignore_index=True),
        **{
            name: np.concatenate([getattr(first, name), getattr(second, name)])
            for name in ("relevant", "uncertain", "irrelevant")
        },
    )
    patients = np.sort(together.table["patient"].astype(str).unique())
    chosen = generator(seed, Stream.LESANET_SPLIT).permutation(patients)[: second.table["patient"].nunique()]
    in_second = together.table["patient"].astype(str).isin(chosen).to_numpy()
    return together.select(~in_second), together.select(in_second)
