"""The words and sentence templates of the phantoms' radiologists: phrases.yml beside this module, read and checked."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import yaml

FILE = Path(__file__).with_name("phrases.yml")
SLOTS = {f"{kind}{letter}" for kind in ("", "a", "L", "S", "M") for letter in "ABU"} | {
    "P", "old", "adj", "or", "hedge", "maybe", "without", "no", "organ", "change",
}  # fmt: skip
Texts = tuple[str, ...]


@dataclass(frozen=True)
class Phrasebook:
    """What phrases.yml holds, under the same names and in its order; the file says what each is for.

    places: words before the noun, and words after "in the". compounds: label by (last word for a place, word for a
    type). one, two, one_unseen, two_unseen: templates about one lesion or two, and those of the test set alone.
    """

    adjectives: Mapping[str, Texts]
    features: Mapping[str, Texts]
    places: Mapping[str, tuple[Texts, Texts]]
    stations: Mapping[str, Texts]
    coarser: Mapping[str, str]
    taken_for: Mapping[str, Texts]
    compounds: Mapping[tuple[str, str], str]
    plain_nouns: Texts
    doubtful_types: Mapping[str, Texts]
    type_words: Mapping[str, str]
    denied_types: Mapping[str, str]
    doubts: Texts
    near: Texts
    changes: Texts
    hedges: Texts
    denials: Texts
    one: Texts
    two: Texts
    one_unseen: Texts
    two_unseen: Texts


def read_phrases(path: Path) -> Phrasebook:
    """Read a file like phrases.yml.

    Raises ValueError, which names the entry, for a section that is missing or unknown, for anything but text where
    text must be (YAML reads a bare no as false: quote it), and for a template with a slot that does not exist.
    """
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    names = [field.name for field in fields(Phrasebook)]
    if not isinstance(content, dict) or set(content) != set(names):
        raise ValueError(f"{path} should hold the sections {', '.join(names)}, and no others")
    found: dict = {}
    for name, section in content.items():
        where = f"{path}: {name}"
        if name == "places":
            found[name] = {
                _text(place, where): tuple(_texts(words.get(side), f"{where}, {place}") for side in ("before", "after"))
                for place, words in section.items()
            }
        elif name == "compounds":
            found[name] = {
                (_text(entry.get("place"), where), _text(entry.get("type"), where)): _text(entry.get("label"), where)
                for entry in section
            }
        elif isinstance(section, dict):
            found[name] = {
                _text(key, where): _text(value, where) if isinstance(value, str) else _texts(value, f"{where}, {key}")
                for key, value in section.items()
            }
        else:
            found[name] = _texts(section, where)
    for name in ("one", "two", "one_unseen", "two_unseen"):
        for template in found[name]:
            unknown = [slot for slot in re.findall(r"{(.*?)}", template) if slot not in SLOTS]
            if unknown:
                raise ValueError(f"{path}: {name}: {template!r} has the unknown slot {', '.join(unknown)}")
    return Phrasebook(**found)


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{where}: {value!r} is no text; put it in quotes")
    return value


def _texts(value: object, where: str) -> Texts:
    if not isinstance(value, list):
        raise ValueError(f"{where}: {value!r} is no list of texts")
    return tuple(_text(item, where) for item in value)


PHRASES = read_phrases(FILE)
