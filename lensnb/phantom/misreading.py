"""How a report errs: a sentence about another lesion than the marked one, words for what the lesion is not.

In 237 real lesions that have both the published labels of their sentence and labels by hand, 76 % of the labels that
the sentence names or implies hold (LesaNet's files). A part of the rest are errors of the report, a part of mining, a
part are labels that the hands left out; which part is which nobody knows. Here all are errors of the report, as often
as it takes; how they divide into the two kinds is a guess.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from lensnb.phantom.noun_phrases import Finding, choose
from lensnb.phantom.phrases import PHRASES

OTHER_LESION = 0.2  # chance that what is said of a lesion is true of another one of the scan, if there is one
MISREAD = 0.38  # chance of each label to be taken for another one: solved so that 76 % hold


def as_reported(finding: Finding, others: Sequence[Finding], rng: np.random.Generator) -> Finding:
    """The lesion as a sentence describes it. `others`: what else the scan shows; its size and row stay its own."""
    if len(others) and rng.random() < OTHER_LESION:
        told = others[int(rng.integers(len(others)))]
        finding = replace(told, row=finding.row, long_mm=finding.long_mm, short_mm=finding.short_mm)
    return misread(finding, MISREAD, rng)


def misread(finding: Finding, share: float, rng: np.random.Generator) -> Finding:
    """A lesion of which a `share` of the labels that phrases.yml has another one for are taken for that."""
    organ, labels = finding.organ, set(finding.labels)
    for label in PHRASES.taken_for:  # in the file's order, as a set has none
        if label in finding.labels and rng.random() < share:
            other = choose(rng, PHRASES.taken_for[label])
            labels = labels - {label} | {other}
            organ = other if label == organ else organ
    return replace(finding, organ=organ, labels=frozenset(labels))
