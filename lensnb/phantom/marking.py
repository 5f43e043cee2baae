"""Which lesions a radiologist marks: one of a sub-volume and some more, the telling ones, not random ones.

RECIST 1.1 asks for large lesions that can be measured well, so the chance of a mark follows the size over the least
that makes a target lesion (10 mm long, a node's short axis 15 mm) to the power `slope`. The slope is solved, by `fit`,
so that among the phantoms' patients the largest third of all lesions is marked as many times as often as the smallest
third as in DeepLesion's completely marked sub-volumes (published.csv). By region of the body the marked shares there
are chest .22, abdomen .27, pelvis .24; within a third of the sizes chest and abdomen differ by a factor of up to 1.44.
What of this is the type and what the conspicuity nobody knows, so a type has no weight of its own beyond RECIST's two
thresholds.
"""

import numpy as np

from lensnb.phantom.patients import Patient, Study
from lensnb.streams import PhantomStream

TARGET_MM = 10.0  # long diameter of a target lesion (RECIST 1.1)
TARGET_NODE_MM = 15.0  # short axis of a target node
INDISTINCT = 0.2  # weight of a lesion that hardly stands out against that of a clear one: a guess
LARGEST_OVER_SMALLEST = 0.4363 / 0.1451  # shares marked of the largest and the smallest third, published.csv


def mark(patient: Patient, slope: float, further: float) -> list[list[int]]:
    """Choose the marked lesions of each study, drawn one after another with chances as their `weights`.

    A study with lesions has one mark, and each other lesion gives a further one with the chance `further`. Returns for
    each study the indices of the marked lesions, the first one first.
    """
    marked = []
    for study in patient.studies:
        rng = np.random.default_rng((*study.seed, PhantomStream.MARKING))
        luck = rng.gumbel(size=len(study.present))  # the largest log weight + Gumbel is a draw by weight
        count = 1 + rng.binomial(max(0, len(study.present) - 1), further)
        order = np.argsort(-(np.log(weights(patient, study, slope)) + luck))
        marked.append([study.present[i] for i in order[:count]])
    return marked


def weights(patient: Patient, study: Study, slope: float) -> np.ndarray:
    """How each lesion that a study shows draws the radiologist: (present,), above 0."""
    lesions = [patient.lesions[i] for i in study.present]
    growth = np.array([study.growth[i] for i in study.present])
    is_node = np.array([lesion.type == "node" for lesion in lesions], dtype=bool)
    diameter = growth * [2 * lesion.radius for lesion in lesions]
    aspect = np.sqrt([lesion.aspect for lesion in lesions])
    over = np.where(is_node, diameter * aspect / TARGET_NODE_MM, diameter / aspect / TARGET_MM)
    return over**slope * INDISTINCT ** (1 - np.array([lesion.conspicuity for lesion in lesions]))


def expected(weight: np.ndarray, further: float) -> np.ndarray:
    """Chance of each lesion of a study to be marked: (n,). Of the further marks one is reckoned with."""
    first = weight / weight.sum()
    if len(weight) == 1:
        return first
    rest = weight.sum() - weight  # what is left when a lesion is taken first
    second = weight * ((first / rest).sum() - first / rest)
    return np.minimum(1, first + min(1.0, further * (len(weight) - 1)) * second)


def fit(patients: list[Patient], further: float) -> float:
    """The slope with which the largest third of all lesions is marked LARGEST_OVER_SMALLEST times as often as the
    smallest. Raises ValueError if none between 0 and 8 does.
    """
    shown = [(p, study) for p in patients for study in p.studies if study.present]
    size = np.concatenate([[2 * p.lesions[i].radius * s.growth[i] for i in s.present] for p, s in shown])
    small, large = np.quantile(size, (1 / 3, 2 / 3))
    low, high = 0.0, 8.0

    def ratio(slope: float) -> float:
        chance = np.concatenate([expected(weights(p, study, slope), further) for p, study in shown])
        return chance[size > large].mean() / chance[size <= small].mean()

    if not ratio(low) < LARGEST_OVER_SMALLEST < ratio(high):
        raise ValueError(f"no slope from {low} to {high} marks the largest third {LARGEST_OVER_SMALLEST:.2f} times")
    while high - low > 0.001:
        middle = (low + high) / 2
        low, high = (middle, high) if ratio(middle) < LARGEST_OVER_SMALLEST else (low, middle)
    return (low + high) / 2


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
