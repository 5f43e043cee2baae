"""Labels for lesions of any CT: a trained LesaNet with its thresholds, as `python -m lensnb detect` uses it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lensnb.files import read_json
from lensnb.lesanet import prediction
from lensnb.lesanet.metrics import decide
from lensnb.lesanet.targets import most_specific
from lensnb.models.lesanet import LesaNet
from lensnb.runfolder import CONFIG, NAMING, WEIGHTS
from lensnb.settings import Lesanet, Network, from_dict

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
    reason = _fault(known, read_json(folder / CONFIG).get("labels"))
    if reason:
        raise ValueError(f"{folder / NAMING} {reason}; delete it and run `python -m lensnb lesanet` again")


def _fault(known: dict, labels: object) -> str:
    """What is wrong with the content of labels.json for a network of these labels; empty if nothing is."""
    absent = [name for name in ("labels", "thresholds", "parents", "network") if name not in known]
    if absent:
        return f"has no {', '.join(absent)}"
    names, thresholds, parents = known["labels"], known["thresholds"], known["parents"]
    if names != labels:
        return "has other labels than config.json"
    if not names or not isinstance(names, list) or len(set(map(str, names))) < len(names):
        return "does not list labels, each once"
    for name, values in (("thresholds", thresholds), ("parents", parents)):
        if not isinstance(values, list) or len(values) != len(names):
            return f"does not have {name} for each of its {len(names)} labels"
    for value in thresholds:
        if value is not None and not (type(value) in (int, float) and 0 <= value <= 1):
            return f"has a threshold {value!r}, which is neither null nor a number of 0 to 1"
    for above in parents:
        unknown = [name for name in above if name not in names] if isinstance(above, list) else [above]
        if unknown:
            return f"has a parent {unknown[0]!r}, which is no label"
    return ""


@dataclass(frozen=True)
class Namer:
    """A trained LesaNet that names lesions: its network and settings, the profile's window, and of each of its labels
    the name, the threshold (infinite: never said) and, as a matrix (C, C) of bool, which labels are above it."""

    model: LesaNet
    config: Lesanet
    network: Network
    names: list[str]
    thresholds: np.ndarray
    parents: np.ndarray


def load_namer(folder: Path) -> Namer:
    """The trained LesaNet of a folder. Raises what `check_lesanet` and `prediction.load_network` raise."""
    check_lesanet(folder)
    model, config = prediction.load_network(folder, "`python -m lensnb lesanet`")
    known = read_json(folder / NAMING)
    names = known["labels"]
    thresholds = np.array([np.inf if t is None else t for t in known["thresholds"]])
    parents = np.array([[name in above for name in names] for above in known["parents"]])
    network = from_dict(Network, known["network"], f"{folder / NAMING}: network")
    return Namer(model, config, network, names, thresholds, parents)


def name_lesions(
    namer: Namer, hu: np.ndarray, spacing_mm: tuple[float, float, float], boxes: pd.DataFrame
) -> list[str]:
    """The predicted labels of each box (z, x1, y1, x2, y2 in pixels of hu), as "lung nodule 0.93, right lung 0.88".

    Predicted are labels over their thresholds and all their parents; listed are those from which the others follow,
    the surest first. FloatingPointError if a score is not finite.
    """
    if not len(boxes):
        return []
    volume, table = OneVolume(hu, spacing_mm), boxes.assign(volume="input")
    scores = prediction.predict(namer.model, volume, table, namer.config, namer.network, label="labels")[1]
    chosen = most_specific(decide(scores, namer.thresholds, namer.parents), namer.parents)
    return [_listed(namer.names, row, own) for row, own in zip(chosen, scores, strict=True)]


def _listed(names: list[str], chosen: np.ndarray, scores: np.ndarray) -> str:
    """Chosen labels (C,) bool with their scores, the surest first."""
    order = [c for c in np.argsort(-scores, kind="stable") if chosen[c]]
    return ", ".join(f"{names[c]} {scores[c]:.2f}" for c in order)
