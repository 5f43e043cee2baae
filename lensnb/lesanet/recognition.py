"""Recognising the lesions of one patient: which embedding mining uses (LENS Sec. V-B), trained if it is not there."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lensnb.datasets import UNIVERSAL
from lensnb.datasets.store import Store
from lensnb.lesanet import prediction, study
from lensnb.lesanet.label_files import has_labels, read_mined
from lensnb.lesanet.lesions import labelled_lesions, unlabelled_lesions
from lensnb.lesanet.ontology import FILES, find_ontology, read_ontology, unrelated
from lensnb.lesanet.report_labels import find_labels
from lensnb.lesanet.training import train_method
from lensnb.runfolder import Run
from lensnb.settings import load_profile
from lensnb.training.loop import remove_checkpoint


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
    if has_labels(Run(profile_name, seed).raw / UNIVERSAL):
        return lesanet(profile_name, seed)
    print("the DeepLesion folder lacks LesaNet's ontology or labels: a simpler embedding takes its place")
    return simpler(profile_name, seed)


def lesanet(profile_name: str, seed: int = 0) -> Recogniser:
    """LesaNet's embedding, trained if it is not there yet."""
    return _load("LesaNet", "lesanet", study.train_for_profile(profile_name, seed), profile_name, seed)


def simpler(profile_name: str, seed: int = 0) -> Recogniser:
    """The simpler embedding (see `train_simpler`), trained if it is not there yet."""
    return _load("simpler", "embedding", train_simpler(profile_name, seed), profile_name, seed)


def train_simpler(profile_name: str, seed: int = 0) -> Path:
    """Train the method "simpler" for a profile into runs/embedding and return that folder; a finished one stays.

    It learns from the labels that LesaNet learns from. Without an ontology nothing follows from a label; without
    labels it learns from two views of each training lesion alone, and a line says so.
    """
    profile, run = load_profile(profile_name), Run(profile_name, seed)
    store, raw, labels_file = Store(run.prepared), run.raw / UNIVERSAL, find_labels(profile_name, seed)
    if labels_file is None:
        print("there are no text-mined labels: the embedding learns from views of lesions alone")
        known, lesions = unrelated(()), unlabelled_lesions(store, raw / "DL_info.csv")
    else:
        mined = read_mined(labels_file)
        has_ontology = any((raw / name).exists() for name in FILES)
        known = read_ontology(find_ontology(raw), list(mined.labels)) if has_ontology else unrelated(mined.labels)
        lesions = labelled_lesions(mined, store, "train", raw / "DL_info.csv")
    return train_method("simpler", lesions, known, store, profile, seed, run.embedding)


def command_lesanet(profile_name: str, seed: int) -> Path:
    """The command `lesanet`: train LesaNet for mining, and leave nothing to continue from."""
    folder = study.train_for_profile(profile_name, seed)
    remove_checkpoint(folder)
    return folder


def command_simpler(profile_name: str, seed: int) -> Path:
    """The command `embedding`: `train_simpler`, and nothing left to continue from."""
    folder = train_simpler(profile_name, seed)
    remove_checkpoint(folder)
    return folder


def _load(name: str, command: str, folder: Path, profile_name: str, seed: int) -> Recogniser:
    """The trained network of `folder` as a Recogniser of the profile's volumes; `command` would make the folder."""
    model, config = prediction.load_network(folder, f"`python -m lensnb {command}`")
    store, network = Store(Run(profile_name, seed).prepared), load_profile(profile_name).network

    def embed(table: pd.DataFrame) -> np.ndarray:
        return prediction.predict(model, store, table, config, network, label=name)[0]

    return Recogniser(name, folder, embed)
