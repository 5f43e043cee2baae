"""Report sentences that refer to marked lesions by bookmarks, and what each mention of a label in them says of which.

As in LesaNet's Fig. 1, the bookmark of interest reads BOOKMARK, any other one OTHER_BMK. A label that a sentence
mentions is relevant to the lesion of interest, uncertain ("adenopathy or mass") or irrelevant: it belongs to another
lesion, is denied, or describes something else.

A template is text with slots: {A} the lesion, {aA} the same with an article, {LA} only where it is, {SA} how large it
is, {MA} its bookmark; B likewise, another marked lesion of the report; {U} a lesion that nobody marked; {P} the
bookmark of an earlier examination; {or} two words for A's type of which at most one is right, {hedge} words of doubt
and {maybe} what is doubted, {without} words of denial and {no} what is denied, {organ} a place nearby.
"""

import re
from dataclasses import dataclass

import numpy as np

from lensnb.phantom.phrases import ADJECTIVES, FEATURES, PLACES, STATIONS, Finding, Piece, choose, noun_phrase, place

OF_INTEREST, OTHER = "BOOKMARK", "OTHER_BMK"
ONE = (
    "{A} {MA} measuring {SA}.",
    "{change} {A}, {MA}, {SA}.",
    "there is {aA} ({MA}), {SA}.",
    "{A} measures {SA} ({MA}), previously {old} ({P}).",
    "{A} now {SA} {MA}, {old} before.",
    "{A} ({MA}) is {change}, {without} {no}.",
    "{aA} {MA}, {SA}, {without} {no}.",
    "{aA} {MA}. no {no} is seen.",
    "no {no}, but {aA} is seen {MA}, {SA}.",
    "{or} in the {LA} {MA}, {SA}.",
    "{adj} {or} {MA} of the {LA}, {SA}.",
    "{change} {or} ({MA}), {LA}.",
    "{A} {MA}, {SA}, {hedge} {maybe}.",
    "{A} {MA} {hedge} {maybe}.",
    "{A} ({MA}, {SA}), {hedge} {maybe}, {change}.",
    "{adj} lesion in the {LA} {MA}, {hedge} {or}.",
    "{A} {MA}, {SA}, adjacent to the {organ}.",
    "{A} {MA} near the {organ} is {change}.",
    "{A} ({MA}) and several other lesions such as {aU}.",
    "{U} is {change}. {A} {MA}, {SA}.",
    "{A} {MA}, {SA}; {U} is not measured.",
)
TWO = (
    "{A} {MA} and {B} {MB}.",
    "{A} ({MA}, {SA}) and {B} ({MB}, {SB}).",
    "{B} {MB}, {SB}, {A} {MA}, {SA}.",
    "{B} {MB} is {change}; {aA} {MA} measures {SA}.",
    "there are {aB} ({MB}) and {aA} ({MA}).",
    "{A} {MA}, {SA}, {hedge} {maybe}, and {B} {MB}.",
    "{or} in the {LA} {MA} and {B} {MB}, {SB}.",
    "{A} {MA} {without} {no}, {B} {MB}.",
)
# only the test set has these: what is learned must not be the templates themselves
ONE_UNSEEN = (
    "reference lesion {MA}: {A}, {SA}, compared with {old} {P}.",
    "again seen is {aA}, now {SA} {MA}, {without} {no}.",
    "{MA} in the {LA} is {or}.",
    "differential for {MA} in the {LA} comprises {or}.",
    "{A} ({MA}) measures {SA} and is {hedge} {maybe}.",
    "measuring {SA} {MA}, the {A} abuts the {organ}, {without} {no}.",
    "unlike {U}, which is {change}, {A} {MA} is new.",
    "{MA} shows {aA}, equivocal {maybe}.",
)
TWO_UNSEEN = (
    "unlike {B} ({MB}), {A} ({MA}) is {change}.",
    "index lesions are {A}, {MA}, as well as {B}, {MB}.",
    "{MB} is {aB} of {SB}, whereas {MA} is {aA} of {SA}.",
    "{A} {MA} lies far from {B} {MB}, and neither has {no}.",
)
UNSEEN = ONE_UNSEEN + TWO_UNSEEN
CHANGES = ("stable", "unchanged", "slightly larger", "slightly smaller", "increased", "decreased", "new")
HEDGES = (
    "possibly with", "suspicious for", "may represent", "cannot exclude", "questionable", "likely representing",
    "concerning for", "perhaps", "suggesting",
)  # fmt: skip
DENIALS = ("without", "with no", "no evidence of", "free of")
WORDS = {"change": CHANGES, "hedge": HEDGES, "without": DENIALS}
DOUBTFUL_TYPES = {
    "lung": ("nodule", "opacity", "mass"),
    "liver": ("cyst", "mass", "nodule"),
    "node": ("adenopathy", "mass", "lymph node"),
    "kidney": ("cyst", "mass", "nodule"),
    "bone": ("sclerosis", "osteolysis", "cyst"),
    "soft tissue": ("nodule", "lymph node", "mass"),
    "adrenal": ("nodule", "mass", "cyst"),
    "spleen": ("cyst", "mass", "nodule"),
}
TYPE_WORDS = {  # other words are labels themselves
    "adenopathy": "lymphadenopathy",
    "sclerosis": "sclerotic",
    "osteolysis": "lytic",
}
DENIED_TYPES = {"adenopathy": "lymphadenopathy", "ground-glass opacity": "ground-glass opacity"}
DOUBTS = ("or", "versus", "and/or")


@dataclass(frozen=True)
class Mention:
    """A label named at text[start:end], and its relation to the lesion of interest."""

    start: int
    end: int
    label: str
    relation: str


@dataclass(frozen=True)
class Sentence:
    """One sentence as it stands for each of its lesions: `texts` and `mentions` by letter, A or B."""

    template: str
    texts: dict[str, str]
    mentions: dict[str, tuple[Mention, ...]]


@dataclass(frozen=True)
class _Part:
    """A piece in a sentence: whose it is (A, B, U or nobody), how sure, or the bookmark of A, B or P."""

    piece: Piece
    owner: str = ""
    sure: bool = True
    bookmark: str = ""


def write_sentence(template: str, findings: dict[str, Finding], rng: np.random.Generator) -> Sentence:
    """Fill a template; `findings` has the lesions A, B and U that it names."""
    parts: list[_Part] = []
    for literal, slot in re.findall(r"([^{]+)|\{(\w+)\}", template):
        parts += [_Part(Piece(literal))] if literal else _fill(slot, findings, rng)
    letters = [letter for letter in ("A", "B") if letter in findings]
    rendered = {letter: _render(parts, letter) for letter in letters}
    return Sentence(
        template, {k: text for k, (text, _) in rendered.items()}, {k: found for k, (_, found) in rendered.items()}
    )


def _fill(slot: str, findings: dict[str, Finding], rng: np.random.Generator) -> list[_Part]:
    kind, letter = slot[:-1], slot[-1]
    if slot == "P":
        return [_Part(Piece(OTHER), bookmark="P")]
    if slot in WORDS:
        return [_Part(Piece(choose(rng, WORDS[slot])))]
    if letter in "ABU" and kind in ("", "a", "L", "S", "M"):
        return _of(findings[letter], letter, kind, rng)
    return _around(slot, findings, rng)


def _of(finding: Finding, letter: str, kind: str, rng: np.random.Generator) -> list[_Part]:
    """The lesion itself, its place, its size or its bookmark."""
    if kind == "M":
        return [_Part(Piece(OTHER), bookmark=letter)]
    if kind == "S":
        return [_Part(Piece(f"{finding.long_mm / 10:.1f} x {finding.short_mm / 10:.1f} cm"))]
    if kind == "L":
        where = place(finding, rng)
        if where in STATIONS:
            return [_Part(Piece(f"{choose(rng, STATIONS[where])} lymph node", where), letter), _Part(Piece(" region"))]
        nouns = PLACES[where][1] or tuple(f"{word} region" for word in PLACES[where][0])
        text = choose(rng, nouns)
        return [_Part(Piece(text.removesuffix(" region"), where), letter), _Part(Piece(" region" * ("region" in text)))]
    parts = [_Part(piece, letter) for piece in noun_phrase(finding, rng)]
    if kind == "a":
        first = parts[0].piece.text
        parts.insert(0, _Part(Piece("an" if first[0] in "aeiou" else "a")))
    return _spaced(parts)


def _around(slot: str, findings: dict[str, Finding], rng: np.random.Generator) -> list[_Part]:
    """What else is said of A, or beside it."""
    finding = findings["A"]
    if slot == "old":
        size = finding.long_mm * float(np.exp(rng.normal(0, 0.2)))
        return [_Part(Piece(f"{size / 10:.1f} cm"))]
    if slot == "adj":
        own = [label for label in ADJECTIVES if label in finding.labels]
        label = choose(rng, own) if own else ""
        return [_Part(Piece(choose(rng, ADJECTIVES[label]), label), "A")] if label else [_Part(Piece("focal"))]
    if slot == "or":
        words = [str(word) for word in rng.permutation(DOUBTFUL_TYPES[finding.type])[:2]]
        one, two = (_Part(Piece(word, TYPE_WORDS.get(word, word)), "A", sure=False) for word in words)
        return [one, _Part(Piece(f" {choose(rng, DOUBTS)} ")), two]
    if slot == "maybe":
        if rng.random() < 0.5:
            word = choose(rng, DOUBTFUL_TYPES[finding.type])
            return [_Part(Piece(word, TYPE_WORDS.get(word, word)), "A", sure=False)]
        label = choose(rng, list(FEATURES))
        return [_Part(Piece(choose(rng, FEATURES[label]), label), "A", sure=False)]
    if slot == "no":
        words = {word: label for label, texts in FEATURES.items() for word in texts} | DENIED_TYPES
        present = {label for letter in findings for label in findings[letter].labels if letter != "U"}
        word = choose(rng, [word for word, label in words.items() if label not in present])
        return [_Part(Piece(word, words[word]))]
    if slot == "organ":
        where = choose(
            rng, [p for p in ("liver", "spleen", "chest wall", "rib", "adrenal gland") if p != finding.organ]
        )
        return [_Part(Piece(choose(rng, PLACES[where][1]), where))]
    raise ValueError(f"no slot {slot!r}")


def _spaced(parts: list[_Part]) -> list[_Part]:
    spaced = [parts[0]]
    for part in parts[1:]:
        spaced += [_Part(Piece(" ")), part]
    return spaced


def _render(parts: list[_Part], letter: str) -> tuple[str, tuple[Mention, ...]]:
    """The text and its mentions as they stand for the lesion A or B."""
    text, spans = "", []
    for i, part in enumerate(parts):
        start = len(text)
        text += OF_INTEREST if part.bookmark == letter else part.piece.text
        relation = "irrelevant" if part.owner != letter else "relevant" if part.sure else "uncertain"
        if part.piece.label:
            spans.append(Mention(start, len(text), part.piece.label, relation))
        if part.piece.joint:  # from the last word of this piece to the end of the next word
            begin = start + part.piece.text.rfind(" ") + 1
            spans.append(Mention(begin, len(text) + 1 + len(parts[i + 2].piece.text), part.piece.joint, relation))
    # a mention within a longer one is no mention
    kept = [m for m in spans if not any(o.start <= m.start and m.end <= o.end and o != m for o in spans)]
    return text[0].upper() + text[1:], tuple(sorted(kept, key=lambda m: (m.start, m.end)))
