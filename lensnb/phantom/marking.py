"""Which lesions a radiologist marks: one or two of a sub-volume, the representative ones, not random ones."""

import numpy as np

from lensnb.phantom.patients import Patient
from lensnb.streams import PhantomStream

# small nodules and nodes are the ones left out: they are common, and one stands for all
TYPE_WEIGHT = {
    "lung": 1.0,
    "liver": 1.15,
    "node": 0.85,
    "kidney": 1.0,
    "bone": 1.0,
    "soft tissue": 1.0,
    "adrenal": 1.0,
    "spleen": 0.9,
}


def mark(patient: Patient, noise: float, second: float) -> list[list[int]]:
    """Choose the marked lesions of each study: those with the largest size x type weight x lognormal(`noise`).

    `second` is the chance of a second mark. Returns for each study the indices of the marked lesions, the most
    telling one first.
    """
    marked = []
    for study in patient.studies:
        rng = np.random.default_rng((*study.seed, PhantomStream.MARKING))
        score = [
            patient.lesions[i].radius * study.growth[i] * TYPE_WEIGHT[patient.lesions[i].type] for i in study.present
        ]
        score = np.array(score) * np.exp(rng.normal(0, noise, len(score)))
        count = 1 + int(rng.random() < second)
        marked.append([study.present[i] for i in np.argsort(-score)[:count]])
    return marked


def shares(patients: list[Patient], marked: list[list[list[int]]]) -> dict[str, float]:
    """Count marks: instances, share marked, share of the unmarked ones that another study of the patient marks."""
    instances = done = recoverable = 0
    for patient, studies in zip(patients, marked, strict=True):
        ever = {i for study in studies for i in study}
        for study, chosen in zip(patient.studies, studies, strict=True):
            instances += len(study.present)
            done += len(chosen)
            recoverable += len(ever.intersection(study.present) - set(chosen))
    unmarked = instances - done
    return {
        "instances": instances,
        "marked": done,
        "marked_share": done / max(1, instances),
        "recoverable_share": recoverable / max(1, unmarked),
    }
