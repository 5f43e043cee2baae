"""What mined label rows add to the counts of LENS Table IV: 3D and 2D ground truths, uncertain boxes, slices."""

import pandas as pd

from lensnb.boxes import on_slices_of

COUNTS = ["gt_3d", "gt_2d", "uncertain_2d", "training_slices"]


def labels(rows: pd.DataFrame) -> dict:
    """The counts of label rows that all count as lesions."""
    lesions, slices = rows.drop_duplicates(["volume", "lesion"]), rows.drop_duplicates(["volume", "z"])
    return dict(zip(COUNTS, (len(lesions), len(rows), 0, len(slices)), strict=True))


def certain(known: pd.DataFrame, mined: pd.DataFrame) -> dict:
    """What `mined` rows that count as lesions add to the `known` ones."""
    before, after = labels(known), labels(pd.concat([known, mined], ignore_index=True))
    return {name: after[name] - before[name] for name in COUNTS}


def ignored(known: pd.DataFrame, mined: pd.DataFrame) -> dict:
    """What `mined` rows that training ignores add: boxes on slices that have a known label are looked at."""
    return dict.fromkeys(COUNTS, 0) | {"uncertain_2d": len(on_slices_of(mined, known))}
