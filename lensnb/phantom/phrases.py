"""How a radiologist names a lesion: noun phrases whose words are known to stand for labels.

Nobody names everything: each attribute is left out about half the time, the place is often told coarsely, and the type
often is just "lesion".
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Piece:
    """Words that name a label, or none.

    `joint` is a label that the last of these words forms with the next piece: "right lung" names the right lung, and
    with "nodule" after it a lung nodule besides.
    """

    text: str
    label: str = ""
    joint: str = ""


ADJECTIVES = {
    "large": ("large", "bulky"),
    "small": ("small", "tiny"),
    "enlargement": ("enlarged",),
    "solid": ("solid",),
    "calcified": ("calcified",),
    "noncalcified": ("noncalcified", "uncalcified"),
    "cavitary": ("cavitary", "cavitating"),
    "heterogeneous": ("heterogeneous",),
    "spiculated": ("spiculated",),
    "circumscribed": ("circumscribed", "well-circumscribed", "well-defined"),
    "indistinct": ("indistinct", "ill-defined", "poorly defined"),
    "lobular": ("lobular", "lobulated"),
    "oval": ("oval", "ovoid"),
    "round": ("round", "rounded"),
    "hypoattenuation": ("hypodense", "hypoattenuating", "low-attenuation", "low density"),
    "hyperattenuation": ("hyperdense", "dense"),
    "sclerotic": ("sclerotic",),
    "lytic": ("lytic", "lucent"),
    "exophytic": ("exophytic",),
    "necrosis": ("necrotic",),
    "subcutaneous": ("subcutaneous",),
}
FEATURES = {  # what a lesion comes with, shows, or lacks
    "calcified": ("calcification", "calcifications"),
    "cavitary": ("cavitation",),
    "spiculated": ("spiculation", "spiculated margins"),
    "necrosis": ("necrosis",),
}
# before the noun, and after "in the"
PLACES = {
    "chest": (("thoracic",), ("chest",)),
    "abdomen": (("abdominal",), ("abdomen",)),
    "upper abdomen": (("upper abdominal",), ("upper abdomen",)),
    "lung": (("pulmonary", "lung"), ("lung",)),
    "right lung": (("right lung",), ("right lung",)),
    "left lung": (("left lung",), ("left lung",)),
    "right upper lobe": (("right upper lobe", "RUL"), ("right upper lobe", "right upper lung")),
    "right mid lung": (("right middle lobe", "RML", "right mid lung"), ("right middle lobe",)),
    "right lower lobe": (("right lower lobe", "RLL"), ("right lower lobe", "right lower lung")),
    "left upper lung": (("left upper lobe", "LUL"), ("left upper lobe", "left upper lung")),
    "left lower lobe": (("left lower lobe", "LLL"), ("left lower lobe", "left lower lung")),
    "mediastinum": (("mediastinal",), ("mediastinum",)),
    "aorticopulmonary window": (("AP window", "aortopulmonary window"), ("AP window", "aorticopulmonary window")),
    "anterior mediastinum": (("anterior mediastinal", "prevascular"), ("anterior mediastinum",)),
    "cardiophrenic": (("cardiophrenic",), ("cardiophrenic angle",)),
    "retroperitoneum": (("retroperitoneal",), ("retroperitoneum",)),
    "paraaortic": (("paraaortic", "periaortic", "para-aortic"), ()),
    "liver": (("hepatic", "liver"), ("liver", "hepatic lobe")),
    "spleen": (("splenic",), ("spleen",)),
    "kidney": (("renal",), ("kidney",)),
    "right kidney": (("right renal",), ("right kidney",)),
    "left kidney": (("left renal",), ("left kidney",)),
    "adrenal gland": (("adrenal",), ("adrenal gland",)),
    "right adrenal gland": (("right adrenal",), ("right adrenal gland",)),
    "left adrenal gland": (("left adrenal",), ("left adrenal gland",)),
    "bone": (("osseous", "bone"), ("bone",)),
    "spine": (("spinal", "vertebral"), ("spine",)),
    "thoracic spine": (("thoracic spine",), ("thoracic spine", "thoracic vertebra")),
    "lumbar": (("lumbar", "lumbar spine"), ("lumbar spine", "lumbar vertebral body")),
    "rib": (("rib",), ("rib",)),
    "chest wall": (("chest wall",), ("chest wall",)),
    "abdominal wall": (("abdominal wall",), ("abdominal wall",)),
}
STATIONS = {  # the place and the word for a node are one name
    "mediastinum lymph node": ("mediastinal",),
    "hilum lymph node": ("hilar",),
    "right hilum lymph node": ("right hilar",),
    "left hilum lymph node": ("left hilar",),
    "pretracheal lymph node": ("pretracheal",),
    "subcarinal lymph node": ("subcarinal",),
    "superior mediastinum lymph node": ("superior mediastinal",),
    "abdomen lymph node": ("abdominal",),
    "retroperitoneum lymph node": ("retroperitoneal",),
    "paracaval lymph node": ("paracaval", "pericaval"),
    "retrocrural lymph node": ("retrocrural",),
    "mesentery lymph node": ("mesenteric",),
    "porta Hepatis lymph node": ("porta hepatis", "periportal"),
    "peripancreatic lymph node": ("peripancreatic",),
}
COARSER = {  # what a hasty radiologist says instead
    "right upper lobe": "right lung",
    "right mid lung": "right lung",
    "right lower lobe": "lung",
    "left upper lung": "left lung",
    "left lower lobe": "lung",
    "right hilum lymph node": "hilum lymph node",
    "left hilum lymph node": "mediastinum lymph node",
    "pretracheal lymph node": "mediastinum lymph node",
    "subcarinal lymph node": "mediastinum lymph node",
    "superior mediastinum lymph node": "mediastinum lymph node",
    "anterior mediastinum": "mediastinum lymph node",
    "paracaval lymph node": "retroperitoneum lymph node",
    "retrocrural lymph node": "retroperitoneum lymph node",
    "porta Hepatis lymph node": "abdomen lymph node",
    "mesentery lymph node": "abdomen lymph node",
    "right kidney": "kidney",
    "left kidney": "kidney",
    "right adrenal gland": "adrenal gland",
    "left adrenal gland": "adrenal gland",
    "thoracic spine": "spine",
    "lumbar": "spine",
    "rib": "bone",
}
COMPOUNDS = {  # the last word for a place, and the word for a type after it
    ("lung", "nodule"): "lung nodule",
    ("lung", "mass"): "lung mass",
    ("pulmonary", "nodule"): "lung nodule",
    ("pulmonary", "mass"): "lung mass",
    ("liver", "nodule"): "liver nodule",
    ("liver", "mass"): "liver mass",
    ("hepatic", "nodule"): "liver nodule",
    ("hepatic", "mass"): "liver mass",
    ("renal", "cyst"): "kidney cyst",
    ("mediastinal", "lymph node"): "mediastinum lymph node",
    ("mediastinal", "lymphadenopathy"): "mediastinum lymph node",
}
PLAIN_NOUNS = ("lesion", "lesion", "focus", "abnormality")


@dataclass(frozen=True)
class Finding:
    """A lesion as its radiologist sees it; `labels` are complete_labels, `row` is that of DL_info.csv, -1 if none."""

    row: int
    type: str
    organ: str
    labels: frozenset[str]
    long_mm: float
    short_mm: float


def choose(rng: np.random.Generator, options: tuple | list) -> str:
    """One of some texts."""
    return options[int(rng.integers(len(options)))]


def noun(finding: Finding, rng: np.random.Generator) -> Piece:
    """The word for the lesion's type, one time in four one that says nothing."""
    if rng.random() < 0.25 or finding.type == "bone":
        return Piece(choose(rng, PLAIN_NOUNS))
    if finding.type == "node":
        if "lymphadenopathy" in finding.labels and rng.random() < 0.5:
            return Piece("adenopathy", "lymphadenopathy")
        return Piece(choose(rng, ("lymph node", "node")), "lymph node")
    if "ground-glass opacity" in finding.labels and rng.random() < 0.7:
        return Piece(choose(rng, ("ground-glass opacity", "ground glass opacity", "GGO")), "ground-glass opacity")
    kinds = {label.split()[-1] for label in finding.labels}
    word = next(word for word in ("cyst", "nodule", "mass") if word in kinds)
    return Piece(word, word)


def adjectives(finding: Finding, rng: np.random.Generator, share: float = 0.45, most: int = 3) -> list[Piece]:
    """Up to `most` of the attributes, each with probability `share`."""
    said = [label for label in ADJECTIVES if label in finding.labels and rng.random() < share][:most]
    return [Piece(choose(rng, ADJECTIVES[label]), label) for label in said]


def place(finding: Finding, rng: np.random.Generator) -> str:
    """The label of the place that is told: one time in five a coarser one."""
    return COARSER.get(finding.organ, finding.organ) if rng.random() < 0.2 else finding.organ


def noun_phrase(finding: Finding, rng: np.random.Generator, share: float = 0.45) -> list[Piece]:
    """The lesion as a noun phrase without an article: "small solid RLL nodule", "cyst of the left kidney"."""
    before, thing, where = adjectives(finding, rng, share), noun(finding, rng), place(finding, rng)
    if rng.random() < 0.06:
        return [*before, thing]
    phrase = [*before, *placed(thing, where, rng)]
    shown = [label for label in FEATURES if label in finding.labels and label not in {piece.label for piece in before}]
    if shown and rng.random() < 0.2:
        label = choose(rng, shown)
        phrase += [Piece("with"), Piece(choose(rng, FEATURES[label]), label)]
    return phrase


def placed(thing: Piece, where: str, rng: np.random.Generator) -> list[Piece]:
    """A noun with its place, before it or after it."""
    if where in STATIONS:
        word = thing.text if thing.label else choose(rng, ("lymph node", "node"))
        return [Piece(f"{choose(rng, STATIONS[where])} {word}", where)]
    before, after = PLACES[where]
    if after and rng.random() < 0.4:
        return [thing, Piece(choose(rng, ("in the", "of the", "within the"))), Piece(choose(rng, after), where)]
    adjective = choose(rng, before)
    compound = COMPOUNDS.get((adjective.split()[-1], thing.label), "")
    if compound and " " not in adjective:
        return [Piece(f"{adjective} {thing.text}", compound)]
    return [Piece(adjective, where, compound), thing]
