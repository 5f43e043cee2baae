"""From the experts' 2D boxes to sensitivities on the manual validation and test sets."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from lensnb.datasets import NAMES, UNIVERSAL
from lensnb.datasets.manual_boxes import MANUAL_FILE
from lensnb.datasets.store import Store
from lensnb.detection import fusion
from lensnb.evaluation import by_kind, froc, official
from lensnb.evaluation.specificity import Scans, open_scans
from lensnb.evaluation.table2 import ROWS
from lensnb.files import read_table
from lensnb.runfolder import Run
from lensnb.settings import Inference, load_profile
from lensnb.training import experiments


def manual_truth(raw: Path, split: str) -> dict[str, np.ndarray]:
    """The manual 3D boxes of split "val" or "test": volume -> (n, 6), original pixels and slice numbers."""
    return official.read_truth(raw / MANUAL_FILE, split)


def detections(
    proposals: pd.DataFrame | Path, settings: Inference, experts: Sequence[str] | None = None
) -> pd.DataFrame:
    """3D detections in grid coordinates out of a table (or file) of 2D proposals of several experts.

    `settings`: the profile's inference section. `experts`: whom to listen to; None fuses all (LENS Sec. IV-C).
    """
    table = read_table(proposals) if isinstance(proposals, Path) else proposals
    fused = fusion.fuse(table, None if experts is None else list(experts), nms=settings.nms)
    return fusion.detections_3d(fused, settings)


def score(found: pd.DataFrame, store: Store, truth: dict[str, np.ndarray]) -> froc.Evaluation:
    """Evaluate 3D detections of the grid by the official rule, in original pixels and slices (LENS Sec. VI-C)."""
    return froc.evaluate(truth, fusion.to_original(found, store))


def rows_on(run: Run, split: str, settings: Inference) -> dict[str, pd.DataFrame]:
    """3D detections (grid) of every row of LENS Table II whose proposals of `split` are there, except (h)'s.

    Not of the controls that the run's profile does without: a variant may have those of its reference.
    """
    trained = experiments.available(load_profile(run.profile).phantom.controls)
    rows = [row for row in ROWS if row.name != "h" and row.experiment in trained]
    files = {row.name: (run.proposals(row.experiment, split), row) for row in rows}
    return {name: detections(file, settings, row.experts) for name, (file, row) in files.items() if file.exists()}


def best_of_volume(found: pd.DataFrame, number: int) -> pd.Index:
    """The index of the `number` highest scored rows of each volume, in the table's order."""
    return found.sort_values("score", ascending=False, kind="stable").groupby("volume").head(number).index.sort_values()


def experts_and_fusion(proposals: pd.DataFrame, settings: Inference) -> dict[str, pd.DataFrame]:
    """3D detections of each expert alone, by its name, and of all together as "all fused".

    The experts are the categories of the column `expert`, so that one who reports nothing is among them.
    """
    experts = proposals["expert"].astype("category").cat.categories
    names = [name for name in NAMES if name in experts]
    found = {name: detections(proposals, settings, [name]) for name in names}
    return found if len(names) == 1 else found | {"all fused": detections(proposals, settings)}


def expert_scans(run: Run, experiment: str, store: Store, settings: Inference) -> list[Scans]:
    """What each expert of a joint training finds alone: on the single-type datasets' validation volumes, each expert's
    own, and on DeepLesion's validation patients. For `evaluation.specificity.specificity`.

    Raises FileNotFoundError if the proposals of the experiment are not there.
    """
    scans = []
    universal = read_table(run.proposals(experiment, "val"))
    experts = [name for name in NAMES if name in set(universal["expert"].astype("category").cat.categories)]
    if len(experts) > 1:
        own = read_table(run.proposals(experiment, "own"))
        found = {name: detections(own, settings, [name]) for name in experts}
        scans = [open_scans(store, name, found) for name in experts if name != UNIVERSAL]
    found = {name: detections(universal, settings, [name]) for name in experts}
    return [*scans, open_scans(store, UNIVERSAL, found)]


def alone_scans(run: Run, alone: Mapping[str, str], beside: str, store: Store, settings: Inference) -> list[Scans]:
    """What specialists that were trained alone find on their own validation volumes.

    alone: experiment by dataset. beside: the joint training whose DeepLesion expert they are compared with. Raises
    FileNotFoundError if proposals are not there.
    """
    universal = detections(read_table(run.proposals(beside, "own")), settings, [UNIVERSAL])
    found = {name: read_table(run.proposals(experiment, "own")) for name, experiment in alone.items()}
    return [
        open_scans(store, name, {name: detections(table, settings, [name]), UNIVERSAL: universal})
        for name, table in found.items()
    ]


def result_table(results: dict[str, froc.Evaluation], column: str) -> pd.DataFrame:
    """Sensitivities and average of several evaluations, one row each, their names in `column`."""
    rows = [(name, *e.sensitivity, e.average) for name, e in results.items()]
    return pd.DataFrame(rows, columns=[column, *[f"FP@{rate:g}" for rate in froc.RATES], "average"])


def separation(scores: pd.Series, right: pd.Series) -> float:
    """Probability that a random right detection scores above a random wrong one (area under the ROC curve)."""
    ranks, right = scores.rank().to_numpy(), right.to_numpy(bool)
    pairs = right.sum() * (~right).sum()
    return float((ranks[right].sum() - right.sum() * (right.sum() + 1) / 2) / pairs) if pairs else float("nan")


def sensitivity_by(
    column: str, found: pd.DataFrame, lesions: pd.DataFrame, volumes: Sequence[str], rate: float = 1.0
) -> pd.Series:
    """Share of the lesions with each value of `column` that are found at `rate` false positives per volume.

    As `by_kind.shares_by`, which also has the intervals.
    """
    return by_kind.shares_by(column, found, lesions, volumes, rate, resamples=0).iloc[0]
