"""Recognising the lesions of one patient: which embedding mining uses, and matching with it (LENS, Sec. V-B)."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lensnb import runfolder
from lensnb.datasets import UNIVERSAL
from lensnb.datasets.store import Store
from lensnb.lesanet import embedding, prediction, study
from lensnb.lesanet.label_files import has_labels
from lensnb.settings import load_profile


@dataclass(frozen=True)
class Recogniser:
    """A trained embedding: what it is called, its folder, and `embed`, from 2D boxes to unit vectors (n, d)."""

    name: str
    folder: Path
    embed: Callable[[pd.DataFrame], np.ndarray]


def for_mining(profile_name: str, seed: int = 0) -> Recogniser:
    """The embedding that mining uses: LesaNet, or the simpler one where the data lack what LesaNet learns from.

    It is trained if it is not there yet.
    """
    if has_labels(runfolder.raw(profile_name, seed) / UNIVERSAL):
        return lesanet(profile_name, seed)
    print("the DeepLesion folder lacks LesaNet's ontology or labels: a simpler embedding takes its place")
    return simpler(profile_name, seed)


def lesanet(profile_name: str, seed: int = 0) -> Recogniser:
    """LesaNet's embedding, trained if it is not there yet."""
    return _load("LesaNet", "lesanet", study.train_for_profile(profile_name, seed), profile_name, seed)


def simpler(profile_name: str, seed: int = 0) -> Recogniser:
    """The simpler embedding, trained if it is not there yet; see `embedding`."""
    return _load("simpler", "embedding", embedding.train_for_profile(profile_name, seed), profile_name, seed)


def _load(name: str, command: str, folder: Path, profile_name: str, seed: int) -> Recogniser:
    model, config = prediction.load(folder, f"`python -m lensnb {command}`")
    store, network = Store(runfolder.prepared(profile_name, seed)), load_profile(profile_name).network

    def embed(table: pd.DataFrame) -> np.ndarray:
        return prediction.predict(model, store, table, config, network, label=name)[0]

    return Recogniser(name, folder, embed)
