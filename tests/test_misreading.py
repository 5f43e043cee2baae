"""The reports of the phantoms err as often as real ones, and what they say with doubt is mostly right."""

from dataclasses import replace

import numpy as np
import pytest

from lensnb.phantom import marking, misreading, ontology, report_files
from lensnb.phantom.noun_phrases import Finding
from lensnb.phantom.patients import training_patients
from lensnb.phantom.phrases import PHRASES
from lensnb.settings import load_profile

NODULE = Finding(7, "lung", "right upper lobe", frozenset({"right upper lobe", "lung nodule", "solid"}), 20.0, 18.0)
CYST = Finding(-1, "kidney", "left kidney", frozenset({"left kidney", "kidney cyst"}), 40.0, 30.0)


def mentions(patients: int) -> tuple[np.ndarray, np.ndarray]:
    """Whether each label holds that sentences name or imply, and each that they name with doubt."""
    spec, known = load_profile("phantom").phantom, ontology.read()
    sure, doubtful = [], []
    for patient in training_patients(spec, 4, patients):
        for study, chosen in zip(patient.studies, marking.mark(patient, spec.marking_slope, 0.08), strict=True):
            found = [report_files.finding_as_painted(patient, study, index) for index in chosen]
            found = [replace(finding, row=row) for row, finding in enumerate(found)]
            rng = np.random.default_rng((*study.seed, 99))
            for letters, sentence in report_files._report("train", patient, study, found, rng):
                for letter, told in letters.items():
                    true = ontology.with_parents(set(found[told.row].labels), known)
                    named = {m.label for m in sentence.mentions[letter] if m.relation == "relevant"}
                    sure += [label in true for label in ontology.with_parents(named, known)]
                    doubtful += [m.label in true for m in sentence.mentions[letter] if m.relation == "uncertain"]
    return np.array(sure), np.array(doubtful)


def test_as_many_labels_hold_as_in_real_reports():
    """76 % of what 237 real sentences name or imply (LesaNet's files); "most uncertain labels are true" (its paper)."""
    sure, doubtful = mentions(250)
    assert len(sure) > 3000 and sure.mean() == pytest.approx(0.76, abs=0.03)
    assert doubtful.mean() > 0.5


def test_without_errors_all_is_true(monkeypatch):
    monkeypatch.setattr(misreading, "OTHER_LESION", 0.0)
    monkeypatch.setattr(misreading, "MISREAD", 0.0)
    assert mentions(20)[0].all()


def test_another_lesion_is_described_with_the_own_size(monkeypatch):
    monkeypatch.setattr(misreading, "OTHER_LESION", 1.0)
    monkeypatch.setattr(misreading, "MISREAD", 0.0)
    told = misreading.as_reported(NODULE, [CYST], np.random.default_rng(0))
    assert told == replace(CYST, row=7, long_mm=20.0, short_mm=18.0)
    assert misreading.as_reported(NODULE, [], np.random.default_rng(0)) == NODULE


def test_every_label_that_can_be_is_taken_for_another():
    told = misreading.misread(NODULE, 1.0, np.random.default_rng(0))
    assert told.organ in PHRASES.taken_for["right upper lobe"] and told.organ in told.labels
    assert "lung mass" in told.labels and not {"right upper lobe", "lung nodule", "solid"} & told.labels
    assert misreading.misread(NODULE, 0.0, np.random.default_rng(0)) == NODULE


def test_labels_that_are_taken_for_others_are_labels():
    labels = set(ontology.read().labels)
    assert set(PHRASES.taken_for) <= labels
    assert {other for others in PHRASES.taken_for.values() for other in others} <= labels
    assert not [label for label, others in PHRASES.taken_for.items() if label in others]
