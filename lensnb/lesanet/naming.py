"""Labels for lesions of any CT: a trained LesaNet with its thresholds, as `python -m lensnb detect` uses it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lensnb.files import read_json
from lensnb.lesanet import prediction
from lensnb.lesanet.metrics import decide
from lensnb.lesanet.targets import most_specific
from lensnb.runfolder import CONFIG, NAMING, WEIGHTS
from lensnb.settings import Network, from_dict

FILES = (WEIGHTS, CONFIG, NAMING)


@dataclass(frozen=True)
class OneVolume:
    """One volume, hu (z, y, x) with its spacing (x, y, z) in mm, in the form of a prepared store."""

    array: np.ndarray
    spacing_mm: tuple[float, float, float]

    def hu(self, volume: str) -> np.ndarray:
        """The volume, whatever it is called."""
        return self.array

    @property
    def volumes(self) -> pd.DataFrame:
        """Its row in a table of volumes."""
        return pd.DataFrame([self.spacing_mm], columns=[f"spacing_{a}_mm" for a in "xyz"], index=["input"])


def find_lesanet(*folders: Path) -> Path | None:
    """The first of `folders` that holds a trained LesaNet with its labels; None if none does."""
    return next((folder for folder in folders if all((folder / name).exists() for name in FILES)), None)


def check_lesanet(folder: Path) -> None:
    """FileNotFoundError if `folder` lacks one of FILES, ValueError if labels.json is not whole or of other labels."""
    missing = [name for name in FILES if not (folder / name).exists()]
    if missing:
        raise FileNotFoundError(
            f"{folder} has no {', '.join(missing)}; `python -m lensnb lesanet` makes a folder that has"
        )
    known = read_json(folder / NAMING)
    absent = [name for name in ("labels", "thresholds", "parents", "network") if name not in known]
    if absent or known["labels"] != read_json(folder / CONFIG).get("labels"):
        reason = f"has no {', '.join(absent)}" if absent else "has other labels than config.json"
        raise ValueError(f"{folder / NAMING} {reason}; delete it and run `python -m lensnb lesanet` again")


def name_lesions(
    folder: Path, hu: np.ndarray, spacing_mm: tuple[float, float, float], boxes: pd.DataFrame
) -> list[str]:
    """The predicted labels of each box (z, x1, y1, x2, y2 in pixels of hu), as "lung nodule 0.93, right lung 0.88".

    Predicted are labels over their thresholds and all their parents; listed are those from which the others follow,
    the surest first. Raises what `check_lesanet` raises.
    """
    check_lesanet(folder)
    if not len(boxes):
        return []
    model, config = prediction.load_network(folder, "`python -m lensnb lesanet`")
    known = read_json(folder / NAMING)
    names, network = known["labels"], from_dict(Network, known["network"], f"{folder / NAMING}: network")
    parents = np.array([[name in above for name in names] for above in known["parents"]])
    thresholds = np.array([np.inf if t is None else t for t in known["thresholds"]])
    table = boxes.assign(volume="input")
    scores = prediction.predict(model, OneVolume(hu, spacing_mm), table, config, network, label="labels")[1]
    chosen = most_specific(decide(scores, thresholds, parents), parents)
    return [_listed(names, row, own) for row, own in zip(chosen, scores, strict=True)]


def _listed(names: list[str], chosen: np.ndarray, scores: np.ndarray) -> str:
    """Chosen labels (C,) bool with their scores, the surest first."""
    order = [c for c in np.argsort(-scores, kind="stable") if chosen[c]]
    return ", ".join(f"{names[c]} {scores[c]:.2f}" for c in order)
