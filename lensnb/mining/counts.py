"""The counts of LENS's Table IV."""

import pandas as pd

from lensnb.boxes import on_slices_of


def counts(
    annotations: pd.DataFrame,
    cross_slice: pd.DataFrame,
    intra_patient: pd.DataFrame,
    uncertain: pd.DataFrame,
    volumes: pd.DataFrame,
) -> pd.DataFrame:
    """The counts of Table IV: 3D and 2D ground truths, uncertain 2D boxes and training slices as strategies are added.

    `volumes` is the store's table of the training volumes: with unlabelled slices, all their slices are trained on.
    """
    steps = [("No mining", [annotations]), ("+ Cross-slice", [annotations, cross_slice])]
    steps.append(("+ Intra-patient", [annotations, cross_slice, intra_patient]))
    rows = []
    for method, parts in steps:
        labels = pd.concat(parts, ignore_index=True)
        rows.append((method, _count_3d(labels), len(labels), 0, _count_slices(labels)))
    on_labelled = len(on_slices_of(uncertain, labels))
    rows.append(("+ Cross-dataset", *rows[-1][1:3], on_labelled, rows[-1][4]))
    rows.append(("+ Unlabeled", *rows[-1][1:3], len(uncertain), int(volumes["depth"].sum())))
    return pd.DataFrame(rows, columns=["method", "gt_3d", "gt_2d", "uncertain_2d", "training_slices"])


def _count_3d(labels: pd.DataFrame) -> int:
    return len(labels.drop_duplicates(["volume", "lesion"]))


def _count_slices(labels: pd.DataFrame) -> int:
    return len(labels.drop_duplicates(["volume", "z"]))
