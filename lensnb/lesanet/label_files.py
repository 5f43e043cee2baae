"""The label files that were published with LesaNet, and the phantoms' in the same form.

A lesion is named by its 0-based row of DL_info.csv. text_mined_labels_171_and_split.json holds what was mined from
report sentences, for training, validation and test lesions; hand_labeled_test_set.json holds what two radiologists
said of 500 lesions when they were asked for everything.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lensnb.files import atomic_write, read_json
from lensnb.lesanet import ontology

PUBLISHED = "text_mined_labels_171_and_split.json"
COMPLETE = "hand_labeled_test_set.json"
SPLITS = ("train", "val", "test")
RELATIONS = ("relevant", "uncertain", "irrelevant")


def has_labels(folder: Path) -> bool:
    """Whether LesaNet can learn from a DeepLesion folder: it has an ontology, and mined labels or sentences to mine."""
    labels = any((folder / name).exists() for name in (PUBLISHED, "sentences.csv"))
    return labels and any((folder / name).exists() for name in ontology.FILES)


def files(folder: Path) -> list[Path]:
    """What a DeepLesion folder may hold that says something of labels, there or not."""
    names = (PUBLISHED, COMPLETE, *ontology.FILES, "sentences.csv", "relations.csv", "DL_info.csv")
    return [folder / name for name in names]


@dataclass(frozen=True)
class MinedLabels:
    """`lesions` has the columns split and row (of DL_info.csv); the matrices are bool (lesions, labels)."""

    labels: tuple[str, ...]
    lesions: pd.DataFrame
    relevant: np.ndarray
    uncertain: np.ndarray
    irrelevant: np.ndarray


def read_mined(path: Path | str) -> MinedLabels:
    """Read mined labels; ValueError if lists that belong together differ in length or a label number has no name.

    A label that a lesion's list repeats counts once. The published file has irrelevant labels for training only.
    """
    content = read_json(path)
    names = tuple(_required(content, "term_list", path))
    frames, lists = [], {relation: [] for relation in RELATIONS}
    for split in SPLITS:
        rows = _required(content, f"{split}_lesion_idxs", path)
        frames.append(pd.DataFrame({"split": split, "row": np.array(rows, dtype=np.int64)}))
        for relation in RELATIONS:
            key = f"{split}_{relation}_labels"
            found = content.get(key, [[]] * len(rows)) if relation == "irrelevant" else _required(content, key, path)
            if len(found) != len(rows):
                raise ValueError(f"{path}: {key} has {len(found)} lists for {len(rows)} lesions")
            lists[relation] += found
    lesions = pd.concat(frames, ignore_index=True)
    if lesions["row"].duplicated().any():
        twice = lesions["row"][lesions["row"].duplicated()].iloc[0]
        raise ValueError(f"{path} lists lesion {twice} more than once")
    return MinedLabels(names, lesions, *(_matrix(lists[name], len(names), path) for name in RELATIONS))


def write_mined(mined: MinedLabels, path: Path | str) -> None:
    """Write mined labels in the published form, with the irrelevant ones of every split."""
    content: dict = {"term_list": list(mined.labels)}
    for split in SPLITS:
        own = np.flatnonzero(mined.lesions["split"] == split)
        content[f"{split}_lesion_idxs"] = mined.lesions["row"].iloc[own].tolist()
        for relation in RELATIONS:
            matrix = getattr(mined, relation)
            content[f"{split}_{relation}_labels"] = [np.flatnonzero(matrix[i]).tolist() for i in own]
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content) + "\n")


def read_complete(path: Path | str, labels: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Read hand_labeled_test_set.json: rows of DL_info.csv (n,), and which of `labels` hold: bool (n, labels).

    Terms that are not among `labels` are left out: the published file uses some that were too rare to be trained.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text())
        rows = np.array([entry["lesion_idx"] for entry in content], dtype=np.int64)
        terms = [entry["expanded_terms"] for entry in content]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} is no list of lesion_idx and expanded_terms: {error}") from error
    number = {label: i for i, label in enumerate(labels)}
    return rows, _matrix([[number[t] for t in listed if t in number] for listed in terms], len(labels), path)


def _required(content: dict, key: str, path: Path | str) -> list:
    if key not in content:
        raise ValueError(f"{path} has no {key}; it should be like text_mined_labels_171_and_split.json")
    return content[key]


def _matrix(lists: list[list[int]], labels: int, path: Path | str) -> np.ndarray:
    """Lists of label numbers, one a lesion, as a bool matrix (n, labels); ValueError for a number without a label."""
    matrix = np.zeros((len(lists), labels), dtype=bool)
    for i, numbers in enumerate(lists):
        if any(not 0 <= number < labels for number in numbers):
            raise ValueError(f"{path}: labels {numbers} of lesion {i}, but term_list has {labels}")
        matrix[i, numbers] = True
    return matrix
