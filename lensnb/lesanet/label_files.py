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
MAX_ROWS = 10**9
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
    """Read mined labels; ValueError names the file and the list that is not what it should be: names that are no text
    or repeated, numbers that are none, lists that belong together but differ in length, a label number without a name.

    A label that a lesion's list repeats counts once. The published file has irrelevant labels for training only.
    """
    content = read_json(path)
    names = tuple(_required(content, "term_list", path))
    if not all(isinstance(name, str) and name for name in names) or len(set(names)) < len(names):
        raise ValueError(f"{path}: term_list should hold names of labels, each once")
    frames, lists = [], {relation: [] for relation in RELATIONS}
    for split in SPLITS:
        rows = _required(content, f"{split}_lesion_idxs", path)
        _require_rows(rows, f"{path}: {split}_lesion_idxs")
        frames.append(pd.DataFrame({"split": split, "row": np.array(rows, dtype=np.int64)}))
        for relation in RELATIONS:
            key = f"{split}_{relation}_labels"
            found = content.get(key, [[]] * len(rows)) if relation == "irrelevant" else _required(content, key, path)
            if not isinstance(found, list) or not all(isinstance(numbers, list) for numbers in found):
                raise ValueError(f"{path}: {key} should hold a list of label numbers for each lesion")
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
    path, entries = Path(path), read_json(path, list)
    for i, entry in enumerate(entries):
        terms = entry.get("expanded_terms") if isinstance(entry, dict) else None
        if not isinstance(terms, list) or not all(isinstance(term, str) for term in terms) or "lesion_idx" not in entry:
            raise ValueError(f"{path} is no list of lesion_idx and expanded_terms: see its entry {i}")
    rows, terms = [entry["lesion_idx"] for entry in entries], [entry["expanded_terms"] for entry in entries]
    _require_rows(rows, f"{path}: lesion_idx")
    rows = np.array(rows, dtype=np.int64)
    twice = rows[pd.Series(rows).duplicated()]
    if len(twice):
        raise ValueError(f"{path} lists lesion {twice[0]} more than once")
    number = {label: i for i, label in enumerate(labels)}
    return rows, _matrix([[number[t] for t in listed if t in number] for listed in terms], len(labels), path)


def _required(content: dict, key: str, path: Path | str) -> list:
    if key not in content:
        raise ValueError(f"{path} has no {key}; it should be like text_mined_labels_171_and_split.json")
    if not isinstance(content[key], list):
        raise ValueError(f"{path}: {key} should be a list, not a {type(content[key]).__name__}")
    return content[key]


def _require_rows(rows: list, where: str) -> None:
    """Raise ValueError unless all are whole numbers that can be rows of DL_info.csv; True and 1.0 are none."""
    wrong = next((row for row in rows if type(row) is not int or not 0 <= row < MAX_ROWS), None)
    if wrong is not None:
        raise ValueError(f"{where} has {str(wrong)[:60]!r}; it should hold rows of DL_info.csv, counted from 0")


def _matrix(lists: list[list[int]], labels: int, path: Path | str) -> np.ndarray:
    """Lists of label numbers, one a lesion, as a bool matrix (n, labels); ValueError for a number without a label."""
    matrix = np.zeros((len(lists), labels), dtype=bool)
    for i, numbers in enumerate(lists):
        if any(type(number) is not int or not 0 <= number < labels for number in numbers):
            raise ValueError(f"{path}: labels {str(numbers)[:80]} of lesion {i}, but term_list has {labels}")
        matrix[i, numbers] = True
    return matrix
