"""Sentences to learn relations from for who has none: about the lesions of patients that are drawn but not scanned."""

import numpy as np
import pandas as pd

from lensnb.lesanet.text_mining import RelationExamples, with_kinds
from lensnb.phantom import ontology
from lensnb.phantom.patients import training_patients
from lensnb.phantom.report_files import UNSEEN, finding_as_painted, tell
from lensnb.settings import Phantom
from lensnb.streams import PhantomStream

PATIENTS = 80
EPOCHS = 15  # they are many sentences, and of few templates


def practice(spec: Phantom, seed: int = 0, patients: int = PATIENTS) -> RelationExamples:
    """Sentences about the lesions of `patients` patients that are drawn but not scanned, and their mentions.

    All templates are used. `spec` is a profile's section `phantom`; how its patients' lesions vary is what counts.
    """
    texts, mentions = [], []
    for patient in training_patients(spec, seed, patients):
        study = patient.studies[0]
        rng = np.random.default_rng((*study.seed, PhantomStream.OTHER_SENTENCE))
        told = [finding_as_painted(patient, study, index) for index in rng.permutation(study.present)]
        while told:
            letters = dict(zip("AB", told[: 1 + int(rng.random() < 0.5)], strict=False))
            told = told[len(letters) :]
            sentence = tell(letters, told, rng.random() < UNSEEN, rng)
            for letter, text in sentence.texts.items():
                found = sentence.mentions[letter]
                mentions += [(len(texts), m.start, m.end, m.label, m.relation) for m in found]
                texts.append(text)
    columns = ["sentence_number", "start", "end", "label", "relation"]
    table = pd.DataFrame(mentions, columns=columns)
    return RelationExamples(pd.DataFrame({"sentence": texts}), with_kinds(table, ontology.read()), EPOCHS)
