"""How a radiologist names a lesion: noun phrases whose words are known to stand for labels.

Nobody names everything: each attribute is left out about half the time, the place is often told coarsely, and the type
often is just "lesion". The words are those of phrases.yml.
"""

from dataclasses import dataclass

import numpy as np

from lensnb.phantom.phrases import PHRASES


@dataclass(frozen=True)
class Piece:
    """Words that name a label, or none.

    `joint` is a label that the last of these words forms with the next piece: "right lung" names the right lung, and
    with "nodule" after it a lung nodule besides.
    """

    text: str
    label: str = ""
    joint: str = ""


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
        return Piece(choose(rng, PHRASES.plain_nouns))
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
    said = [label for label in PHRASES.adjectives if label in finding.labels and rng.random() < share][:most]
    return [Piece(choose(rng, PHRASES.adjectives[label]), label) for label in said]


def place(finding: Finding, rng: np.random.Generator) -> str:
    """The label of the place that is told: one time in five a coarser one."""
    return PHRASES.coarser.get(finding.organ, finding.organ) if rng.random() < 0.2 else finding.organ


def noun_phrase(finding: Finding, rng: np.random.Generator, share: float = 0.45) -> list[Piece]:
    """The lesion as a noun phrase without an article: "small solid RLL nodule", "cyst of the left kidney"."""
    before, thing, where = adjectives(finding, rng, share), noun(finding, rng), place(finding, rng)
    if rng.random() < 0.06:
        return [*before, thing]
    phrase = [*before, *placed(thing, where, rng)]
    shown = [
        label
        for label in PHRASES.features
        if label in finding.labels and label not in {piece.label for piece in before}
    ]
    if shown and rng.random() < 0.2:
        label = choose(rng, shown)
        phrase += [Piece("with"), Piece(choose(rng, PHRASES.features[label]), label)]
    return phrase


def placed(thing: Piece, where: str, rng: np.random.Generator) -> list[Piece]:
    """A noun with its place, before it or after it."""
    if where in PHRASES.stations:
        word = thing.text if thing.label else choose(rng, ("lymph node", "node"))
        return [Piece(f"{choose(rng, PHRASES.stations[where])} {word}", where)]
    before, after = PHRASES.places[where]
    if after and rng.random() < 0.4:
        return [thing, Piece(choose(rng, ("in the", "of the", "within the"))), Piece(choose(rng, after), where)]
    adjective = choose(rng, before)
    compound = PHRASES.compounds.get((adjective.split()[-1], thing.label), "")
    if compound and " " not in adjective:
        return [Piece(f"{adjective} {thing.text}", compound)]
    return [Piece(adjective, where, compound), thing]
