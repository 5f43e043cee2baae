"""What is true of a phantom lesion, in the words of the phantoms' ontology: lesion_ontology.csv beside this module.

Every label follows from how the lesion was painted: where, how dense, with what margin, core and shape, and how
large it came out. Most terms, their parents and exclusions are those of the published ontology.
"""

import numpy as np

from lensnb.lesanet.ontology import Ontology, expand, read_ontology
from lensnb.phantom.lesions import Lesion
from lensnb.runfolder import repository

FILE = repository() / "lensnb" / "phantom" / "lesion_ontology.csv"
MASS_MM = 30.0  # a longer lesion is a mass, a shorter one a nodule
LARGE_MM, SMALL_MM = 40.0, 12.0
ENLARGED_MM, ADENOPATHY_MM = 10.0, 15.0  # short diameter of a node: no normal one, a measurable one by RECIST 1.1
OVAL, ROUND = 0.70, 0.88  # short over long diameter; between them neither is said
OVAL_BY_MM, ROUND_FROM_MM = 5.0, 14.0  # ... where the long one is longer by so much, and where it is so long
COARSE_TYPE = {"lung": 5, "liver": 4, "kidney": 6, "bone": 1, "soft tissue": 7, "adrenal": 2, "spleen": 2}


def read() -> Ontology:
    """The phantoms' ontology."""
    return read_ontology(FILE)


def complete_labels(lesion: Lesion, long_mm: float, short_mm: float) -> set[str]:
    """Every label that holds for a lesion whose visible diameters on its key slice are `long_mm` and `short_mm`.

    Without the parents that follow from them: `with_parents` adds those.
    """
    labels = {lesion.organ, *lesion.attributes} | _type(lesion, long_mm, short_mm) | _shape(lesion, long_mm, short_mm)
    if {"necrosis", "cavitary"} & labels or ("calcified" in labels and lesion.type != "lung"):
        labels.add("heterogeneous")  # a core of another density
    if "calcified" in labels and lesion.type == "lung":
        labels.add("hyperattenuation")  # calcified throughout
    if lesion.type == "lung" and not {"calcified", "ground-glass opacity"} & labels:
        labels.add("noncalcified")
    if long_mm >= LARGE_MM:
        labels.add("large")
    if long_mm < SMALL_MM:
        labels.add("small")
    return labels


def with_parents(labels: set[str], ontology: Ontology) -> set[str]:
    """Labels and all their ancestors."""
    row = np.array([[label in labels for label in ontology.labels]])
    return {ontology.labels[i] for i in np.flatnonzero(expand(row, ontology.parents)[0])}


def coarse_type(lesion: Lesion, ontology: Ontology) -> int:
    """DeepLesion's coarse type: 1 bone, 2 abdomen, 3 mediastinum, 4 liver, 5 lung, 6 kidney, 7 soft tissue."""
    if lesion.type == "node":
        return 3 if "mediastinum" in with_parents({lesion.organ}, ontology) else 2
    return COARSE_TYPE[lesion.type]


def _type(lesion: Lesion, long_mm: float, short_mm: float) -> set[str]:
    """The labels of kind type that hold, by the lesion's size."""
    size = "mass" if long_mm >= MASS_MM else "nodule"
    if "cyst" in lesion.attributes:
        return {"kidney cyst"} if lesion.type == "kidney" else set()
    if lesion.type in ("lung", "liver"):
        return {f"{lesion.type} {size}"}
    if lesion.type == "node":
        enlarged = {"enlargement"} if short_mm >= ENLARGED_MM else set()
        return {"lymph node"} | enlarged | ({"lymphadenopathy"} if short_mm >= ADENOPATHY_MM else set())
    if lesion.type == "bone":
        return set()
    return {size}


def _shape(lesion: Lesion, long_mm: float, short_mm: float) -> set[str]:
    """Oval or round by the visible diameters, where the grid shows it, and lobular by the painted lobes."""
    ratio = short_mm / long_mm
    shape = {"oval"} if ratio < OVAL and long_mm - short_mm >= OVAL_BY_MM else set()
    if ratio > ROUND and long_mm >= ROUND_FROM_MM and not lesion.lobes[0] and "spiculated" not in lesion.attributes:
        shape.add("round")
    return shape | ({"lobular"} if lesion.lobes[0] else set())
