"""Report sentences that refer to marked lesions by bookmarks, and what each mention of a label in them says of which.

As in LesaNet's Fig. 1, the bookmark of interest reads BOOKMARK, any other one OTHER_BMK. A label that a sentence
mentions is relevant to the lesion of interest, uncertain ("adenopathy or mass") or irrelevant: it belongs to another
lesion, is denied, or describes something else.

A template is text with slots, which phrases.yml explains beside the templates.
"""

import re
from dataclasses import dataclass

import numpy as np

from lensnb.phantom.noun_phrases import Finding, Piece, choose, noun_phrase, place
from lensnb.phantom.phrases import PHRASES

OF_INTEREST, OTHER = "BOOKMARK", "OTHER_BMK"
RIGHT = 0.9  # chance that what is said with doubt is what the radiologist sees ("very likely to be true", LesaNet)


@dataclass(frozen=True)
class TrueMention:
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
    mentions: dict[str, tuple[TrueMention, ...]]


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
    """The parts that a slot of a template stands for."""
    kind, letter = slot[:-1], slot[-1]
    if slot == "P":
        return [_Part(Piece(OTHER), bookmark="P")]
    words = {"change": PHRASES.changes, "hedge": PHRASES.hedges, "without": PHRASES.denials}
    if slot in words:
        return [_Part(Piece(choose(rng, words[slot])))]
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
        if where in PHRASES.stations:
            return [
                _Part(Piece(f"{choose(rng, PHRASES.stations[where])} lymph node", where), letter),
                _Part(Piece(" region")),
            ]
        nouns = PHRASES.places[where][1] or tuple(f"{word} region" for word in PHRASES.places[where][0])
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
        own = [label for label in PHRASES.adjectives if label in finding.labels]
        label = choose(rng, own) if own else ""
        return [_Part(Piece(choose(rng, PHRASES.adjectives[label]), label), "A")] if label else [_Part(Piece("focal"))]
    if slot == "or":
        first = _doubtful(finding, rng)
        doubt = _Part(Piece(f" {choose(rng, PHRASES.doubts)} "))
        one = _Part(Piece(first, PHRASES.type_words.get(first, first)), "A", sure=False)
        if rng.random() < 0.5:
            return [one, doubt, _Part(Piece("other lesion"))]
        second = choose(rng, [word for word in PHRASES.doubtful_types[finding.type] if word != first])
        two = _Part(Piece(second, PHRASES.type_words.get(second, second)), "A", sure=False)
        return [one, doubt, two] if rng.random() < 0.5 else [two, doubt, one]
    if slot == "maybe":
        shown = [label for label in PHRASES.features if label in finding.labels]
        if not shown or rng.random() < 0.5:
            word = _doubtful(finding, rng)
            return [_Part(Piece(word, PHRASES.type_words.get(word, word)), "A", sure=False)]
        label = choose(rng, shown if rng.random() < RIGHT else list(PHRASES.features))
        return [_Part(Piece(choose(rng, PHRASES.features[label]), label), "A", sure=False)]
    if slot == "no":
        words = {word: label for label, texts in PHRASES.features.items() for word in texts} | PHRASES.denied_types
        present = {label for letter in findings for label in findings[letter].labels if letter != "U"}
        word = choose(rng, [word for word, label in words.items() if label not in present])
        return [_Part(Piece(word, words[word]))]
    if slot == "organ":
        where = choose(rng, [near for near in PHRASES.near if near != finding.organ])
        return [_Part(Piece(choose(rng, PHRASES.places[where][1]), where))]
    raise ValueError(f"no slot {slot!r}")


def _doubtful(finding: Finding, rng: np.random.Generator) -> str:
    """A word for the type that the lesion may be of: the one that holds, if any does and the doubt is not justified."""
    words = PHRASES.doubtful_types[finding.type]
    kinds = finding.labels | {label.split()[-1] for label in finding.labels}
    right = [word for word in words if PHRASES.type_words.get(word, word) in kinds]
    return choose(rng, right if right and rng.random() < RIGHT else words)


def _spaced(parts: list[_Part]) -> list[_Part]:
    """Parts with a blank between each two."""
    spaced = [parts[0]]
    for part in parts[1:]:
        spaced += [_Part(Piece(" ")), part]
    return spaced


def _render(parts: list[_Part], letter: str) -> tuple[str, tuple[TrueMention, ...]]:
    """The text and its mentions as they stand for the lesion A or B."""
    text, spans = "", []
    for i, part in enumerate(parts):
        start = len(text)
        text += OF_INTEREST if part.bookmark == letter else part.piece.text
        relation = "irrelevant" if part.owner != letter else "relevant" if part.sure else "uncertain"
        if part.piece.label:
            spans.append(TrueMention(start, len(text), part.piece.label, relation))
        if part.piece.joint:  # from the last word of this piece to the end of the next word
            begin = start + part.piece.text.rfind(" ") + 1
            spans.append(TrueMention(begin, len(text) + 1 + len(parts[i + 2].piece.text), part.piece.joint, relation))
    # a mention within a longer one is no mention
    kept = [m for m in spans if not any(o.start <= m.start and m.end <= o.end and o != m for o in spans)]
    return text[0].upper() + text[1:], tuple(sorted(kept, key=lambda m: (m.start, m.end)))
