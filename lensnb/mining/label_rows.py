"""Small steps that the mining strategies share: origin, extent, columns and order of label rows."""

import pandas as pd

from lensnb.boxes import COLUMNS, overlapping

ORIGIN = ["dataset", "patient", "study", "series"]


def add_origin(table: pd.DataFrame, volumes: pd.DataFrame) -> pd.DataFrame:
    """Add dataset, patient, study and series of each row's volume.

    `volumes` is the prepared store's table, indexed by volume. Raises ValueError for a volume that it lacks.
    """
    names = table["volume"].astype(str)
    unknown = sorted(set(names) - set(volumes.index))
    if unknown:
        raise ValueError(f"{len(unknown)} volumes of the table are not in the prepared store, for example {unknown[0]}")
    origin = volumes.loc[names, ORIGIN].set_axis(table.index)
    return table.drop(columns=ORIGIN, errors="ignore").assign(volume=names, **origin)


def without_overlap(boxes: pd.DataFrame, known: pd.DataFrame, threshold: float) -> pd.DataFrame:
    """The rows of `boxes` that overlap no row of `known` on their slice with IoU > threshold."""
    return boxes[~overlapping(boxes, known, threshold)]


def with_extent(tracklets: pd.DataFrame) -> pd.DataFrame:
    """The same rows with their tracklet's first and last slice as z1 and z2."""
    z = tracklets.groupby("tracklet")["z"]
    return tracklets.assign(z1=z.transform("min"), z2=z.transform("max"))


def label_rows(boxes: pd.DataFrame, *extra: str) -> pd.DataFrame:
    """Label rows with the schema's columns and `extra` ones, in a fixed order."""
    return boxes[[*COLUMNS, *extra]].sort_values(["volume", "lesion", "z"], kind="stable", ignore_index=True)
