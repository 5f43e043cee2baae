"""The reports of the phantoms' marked lesions, and what is true of these lesions.

In the folder DeepLesion, as a user may have it:
    lesion_ontology.csv         the labels and their relations
    sentences.csv               row (of DL_info.csv, from 0), split, sentence; most marked lesions have one
    relations.csv               row, start, end, label, relation: what experts said of each mention of a label in the
                                sentences of validation and test lesions
    hand_labeled_test_set.json  every label of each test lesion, in the form that was published with LesaNet
In the folder truth:
    labels.csv                  row, group, labels: every label of every marked lesion
    relations.csv               the mentions of all sentences, with the group and the sentence's template

They draw from random streams of their own and are written after everything else.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from lensnb.datasets import UNIVERSAL
from lensnb.files import atomic_write, write_table
from lensnb.phantom import ontology as phantom_ontology
from lensnb.phantom import sentences
from lensnb.phantom.misreading import as_reported
from lensnb.phantom.noun_phrases import Finding
from lensnb.phantom.patients import Patient, Study
from lensnb.phantom.phrases import PHRASES
from lensnb.streams import PhantomStream

GROUPS = ("train", "val", "test")
WITHOUT_SENTENCE = 0.08  # share of marked lesions that the report does not mention
TOGETHER = 0.65  # share of pairs of marked lesions that share a sentence
UNSEEN = 0.5  # share of the test set's sentences that follow templates of its own


def write_report_files(root: Path, patients: dict[str, list[Patient]], marked: dict[str, list]) -> None:
    """Write all files of this module; DL_info.csv and truth/lesions.csv must be there.

    `patients` and `marked` have the keys train, val and test. Raises ValueError if DL_info.csv does not have the
    marked lesions, as the order of its rows tells which lesion each of them is.
    """
    folder, ontology = root / UNIVERSAL, phantom_ontology.read()
    found = _findings(pd.read_csv(folder / "DL_info.csv"), patients, marked, folder)
    texts, mentions, labels = [], [], []
    for group, patient, study, findings in found:
        rng = np.random.default_rng((*study.seed, PhantomStream.SENTENCE))
        for finding in findings:
            names = phantom_ontology.with_parents(set(finding.labels), ontology)
            labels.append((finding.row, group, " | ".join(name for name in ontology.labels if name in names)))
        for letters, sentence in _report(group, patient, study, findings, rng):
            for letter, finding in letters.items():
                texts.append((finding.row, group, sentence.texts[letter]))
                mentions += [
                    (finding.row, m.start, m.end, m.label, m.relation, group, sentence.template)
                    for m in sentence.mentions[letter]
                ]
    columns = ["row", "start", "end", "label", "relation", "group", "template"]
    texts = pd.DataFrame(texts, columns=["row", "split", "sentence"]).sort_values("row")
    mentions = pd.DataFrame(mentions, columns=columns).sort_values(["row", "start", "end"])
    labels = pd.DataFrame(labels, columns=["row", "group", "labels"]).sort_values("row")
    write_table(labels, root / "truth" / "labels.csv")
    write_table(mentions, root / "truth" / "relations.csv")
    write_table(texts, folder / "sentences.csv")
    write_table(mentions[mentions["group"] != "train"][columns[:5]], folder / "relations.csv")
    _write_complete(labels[labels["group"] == "test"], texts, folder / "hand_labeled_test_set.json")
    with atomic_write(folder / "lesion_ontology.csv") as path:
        shutil.copyfile(phantom_ontology.FILE, path)


def _findings(
    table: pd.DataFrame, patients: dict[str, list[Patient]], marked: dict[str, list], folder: Path
) -> list[tuple[str, Patient, Study, list[Finding]]]:
    """The marked lesions of each study, each with its row of DL_info.csv."""
    table = table[table["Possibly_noisy"] == 0]
    rows = {key: own for key, own in table.groupby(["Patient_index", "Study_index"])}
    found = []
    for group in GROUPS:
        for patient, chosen in zip(patients[group], marked[group], strict=True):
            for study, indices in zip(patient.studies, chosen, strict=True):
                own = rows.get((patient.number, study.study), table[:0])
                if len(own) != len(indices):
                    raise ValueError(
                        f"{folder / 'DL_info.csv'} has {len(own)} lesions of patient {patient.number}, study "
                        f"{study.study}, where {len(indices)} are marked; delete the phantoms' folder to make it anew"
                    )
                sizes = [_diameters_mm(row) for row in own.to_dict("records")]
                listed = [
                    _finding(patient, index, int(row), *size)
                    for index, row, size in zip(indices, own.index, sizes, strict=True)
                ]
                found.append((group, patient, study, listed))
    return found


def _diameters_mm(row: dict) -> tuple[float, float]:
    """Long and short diameter of a row of DL_info.csv."""
    pixel = float(row["Spacing_mm_px_"].split(",")[0])
    long_, short = (float(length) * pixel for length in row["Lesion_diameters_Pixel_"].split(","))
    return long_, short


def _finding(patient: Patient, index: int, row: int, long_mm: float, short_mm: float) -> Finding:
    """A patient's lesion with every label that holds at these diameters."""
    lesion = patient.lesions[index]
    labels = frozenset(phantom_ontology.complete_labels(lesion, long_mm, short_mm))
    return Finding(row, lesion.type, lesion.organ, labels, long_mm, short_mm)


def _report(
    group: str, patient: Patient, study: Study, findings: list[Finding], rng: np.random.Generator
) -> list[tuple[dict[str, Finding], sentences.Sentence]]:
    """The sentences of one study's report, each with the marked lesions that it is about."""
    rows = {finding.row for finding in findings if rng.random() >= WITHOUT_SENTENCE}
    shown = [finding_as_painted(patient, study, index) for index in study.present]
    told = [as_reported(finding, shown, rng) for finding in findings if finding.row in rows]
    if len(told) == 2 and rng.random() < TOGETHER:
        about = [dict(zip("AB", told if rng.random() < 0.5 else told[::-1], strict=True))]
    else:
        about = [{"A": finding} for finding in told]
    others = _unmarked(patient, study, findings)
    return [(letters, tell(letters, others, group == "test" and rng.random() < UNSEEN, rng)) for letters in about]


def tell(
    letters: dict[str, Finding], others: list[Finding], unseen: bool, rng: np.random.Generator
) -> sentences.Sentence:
    """A sentence about one lesion (A) or two (A, B), by one of the templates for as many."""
    if "B" in letters:
        templates = PHRASES.two_unseen if unseen else PHRASES.two
    else:
        templates = PHRASES.one_unseen if unseen else PHRASES.one
    templates = [template for template in templates if others or "U}" not in template]
    named = letters | ({"U": others[int(rng.integers(len(others)))]} if others else {})
    return sentences.write_sentence(templates[int(rng.integers(len(templates)))], named, rng)


def _unmarked(patient: Patient, study: Study, marked: list[Finding]) -> list[Finding]:
    """Lesions of a study that nobody marked and that cannot be taken for a marked one."""
    taken = {(finding.organ, finding.type) for finding in marked}
    found = [finding_as_painted(patient, study, index) for index in study.present]
    return [finding for finding in found if (finding.organ, finding.type) not in taken]


def finding_as_painted(patient: Patient, study: Study, index: int) -> Finding:
    """A lesion with the diameters that it was painted with."""
    lesion = patient.lesions[index]
    size = 2 * lesion.radius * study.growth[index]
    return _finding(patient, index, -1, size / np.sqrt(lesion.aspect), size * np.sqrt(lesion.aspect))


def _write_complete(labels: pd.DataFrame, texts: pd.DataFrame, path: Path) -> None:
    """hand_labeled_test_set.json: every label of each lesion, in the published form."""
    text_of = dict(zip(texts["row"], texts["sentence"], strict=True))
    content = [
        {"text": text_of.get(row, ""), "lesion_idx": int(row), "expanded_terms": names.split(" | ")}
        for row, names in zip(labels["row"], labels["labels"], strict=True)
    ]
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")
