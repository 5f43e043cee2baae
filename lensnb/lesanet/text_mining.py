"""From a report sentence to labels of the lesion that its bookmark points at (LesaNet Sec. 3.2).

A sentence reads BOOKMARK where its radiologist linked the lesion of interest, and OTHER_BMK where another image is
linked. Its words are cut and brought to a base form by NLTK; every synonym of the ontology whose words stand in the
sentence one after the other is a mention of its label. Whether a mention is relevant, uncertain or irrelevant for the
lesion is decided by `lensnb.lesanet.relations`.

The paper's lemmas need NLTK's WordNet, which is not to be had from a package registry; the Snowball stemmer, which
is part of NLTK, does as well for finding synonyms, since both sides of a comparison are stemmed. It also unites
"calcific" and "calcification"; what it misses are irregular plurals, and these are listed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from lensnb.files.cells import read_cells
from lensnb.lesanet.label_files import RELATIONS
from lensnb.lesanet.ontology import Ontology, expand

BOOKMARK, OTHER_BOOKMARK = "BOOKMARK", "OTHER_BMK"
IRREGULAR = {
    "metastases": "metastasis", "mets": "metastasis", "hila": "hilum", "ova": "ovum", "diverticula": "diverticulum",
    "stenoses": "stenosis", "thromboses": "thrombosis", "septa": "septum", "foci": "focus", "bronchi": "bronchus",
    "femora": "femur", "pelves": "pelvis", "adnexae": "adnexa", "cortices": "cortex", "apices": "apex",
    "biopsies": "biopsy", "axillary": "axilla",
}  # fmt: skip


@dataclass(frozen=True)
class Token:
    """A word or sign at sentence[start:end], and its base form."""

    text: str
    base: str
    start: int
    end: int


@dataclass(frozen=True)
class Mention:
    """A label (its position in the ontology) that the tokens first to last (inclusive) name."""

    label: int
    first: int
    last: int


@dataclass(frozen=True)
class Phrases:
    """Which label each sequence of base forms names, and the length of the longest."""

    labels: dict[tuple[str, ...], int]
    longest: int


@dataclass(frozen=True)
class RelationExamples:
    """What relations are learned from: `sentences` (column sentence), their `mentions` (sentence_number, start, end,
    label, kind, relation), and for how many epochs."""

    sentences: pd.DataFrame
    mentions: pd.DataFrame
    epochs: int = 30


def tokenize(sentence: str) -> list[Token]:
    """Cut a sentence into words, numbers and signs."""
    from nltk.tokenize import WordPunctTokenizer

    spans = WordPunctTokenizer().span_tokenize(sentence)
    return [Token(sentence[a:b], base_form(sentence[a:b]), a, b) for a, b in spans]


@lru_cache(maxsize=100_000)
def base_form(word: str) -> str:
    """The form under which a word is compared: lower case, without its ending; bookmarks stay as they are."""
    if word in (BOOKMARK, OTHER_BOOKMARK):
        return word
    lower = word.lower()
    return _stemmer().stem(IRREGULAR.get(lower, lower))


@lru_cache(maxsize=1)
def _stemmer() -> object:
    from nltk.stem.snowball import SnowballStemmer

    return SnowballStemmer("english")


def phrases(ontology: Ontology) -> Phrases:
    """The synonyms of all labels as sequences of base forms.

    Where two labels share a synonym, it stands for the label that bears it as its name, else for the first one.
    """
    found: dict[tuple[str, ...], int] = {}
    for names_only in (True, False):
        for label, synonyms in enumerate(ontology.synonyms):
            for synonym in synonyms[:1] if names_only else synonyms[1:]:
                found.setdefault(tuple(t.base for t in tokenize(synonym) if t.text.isalnum()), label)
    found.pop((), None)
    return Phrases(found, max(map(len, found), default=0))


def find_mentions(tokens: list[Token], known: Phrases) -> list[Mention]:
    """All phrases in a sentence, but for those within a longer one; hyphens do not matter.

    "Right lung nodule" mentions the right lung and a lung nodule, not the lung and not a nodule.
    """
    words = [i for i, token in enumerate(tokens) if token.text != "-"]
    found: list[Mention] = []
    reached = -1  # last token of a mention so far; one that ends no later lies within it
    for k, first in enumerate(words):
        for length in range(min(known.longest, len(words) - k), 0, -1):
            last = words[k + length - 1]
            label = known.labels.get(tuple(tokens[i].base for i in words[k : k + length]))
            if label is not None:
                if last > reached:
                    found.append(Mention(label, first, last))
                    reached = last
                break
    return found


def read_sentences(path: Path | str) -> pd.DataFrame:
    """Read a csv with the column sentence; other columns, which say whose sentence it is, stay as text.

    Raises FileNotFoundError, and ValueError that names the line for an empty sentence and one without BOOKMARK, or what
    `read_cells` refuses.
    """
    table = read_cells(path, exact=("sentence",), advice="it should hold report sentences")
    if "sentence" not in table.columns:
        raise ValueError(f"{path} has no column sentence, only {', '.join(table.columns)}")
    if table.empty:
        raise ValueError(f"{path} has no rows, so no sentences")
    for line, sentence in table["sentence"].items():
        if not sentence.strip():
            raise ValueError(f"{path}, line {line}: the sentence is empty")
        if BOOKMARK not in (token.text for token in tokenize(sentence)):
            raise ValueError(
                f"{path}, line {line}: no {BOOKMARK} in {sentence[:60]!r}; write {BOOKMARK} where the lesion of "
                f"interest is linked, and {OTHER_BOOKMARK} where another one is"
            )
    return table.reset_index(drop=True)


def with_kinds(mentions: pd.DataFrame, ontology: Ontology) -> pd.DataFrame:
    """Mentions with the kind of each label; ValueError for a label that the ontology does not have."""
    return mentions.assign(kind=[ontology.kinds[ontology.index(label)] for label in mentions["label"]])


def mention_table(table: pd.DataFrame, ontology: Ontology) -> pd.DataFrame:
    """The mentions in all sentences of a table, one row each.

    Columns: sentence_number (position in `table`), start, end (characters), mention (text), label, kind.
    """
    known, rows = phrases(ontology), []
    for number, sentence in enumerate(table["sentence"]):
        tokens = tokenize(sentence)
        for m in find_mentions(tokens, known):
            start, end = tokens[m.first].start, tokens[m.last].end
            rows.append((number, start, end, sentence[start:end], ontology.labels[m.label], ontology.kinds[m.label]))
    return pd.DataFrame(rows, columns=["sentence_number", "start", "end", "mention", "label", "kind"])


def label_matrices(
    sentences: int, mentions: pd.DataFrame, ontology: Ontology
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Relevant, uncertain and irrelevant labels of each sentence from its mentions: bool (sentences, C) each.

    `mentions` has sentence_number, label and relation. Relevant labels come with all their ancestors, as in the
    published file; a label counts where the strongest of its mentions puts it.
    """
    found = {relation: np.zeros((sentences, len(ontology.labels)), dtype=bool) for relation in RELATIONS}
    for number, label, relation in zip(
        mentions["sentence_number"], mentions["label"], mentions["relation"], strict=True
    ):
        found[relation][number, ontology.index(label)] = True
    relevant = expand(found["relevant"], ontology.parents)
    uncertain = found["uncertain"] & ~relevant
    return relevant, uncertain, found["irrelevant"] & ~relevant & ~uncertain


def labels_of_sentences(
    table: pd.DataFrame, ontology: Ontology, relate: Callable[[pd.DataFrame, pd.DataFrame], pd.DataFrame]
) -> pd.DataFrame:
    """Everything that the sentences of a table say of their lesions: one row for each sentence and label.

    `relate(table, mentions)` adds the columns relation and probability to mentions. The result has the columns of
    `table`, then label, kind, relation, probability, mention; a label that only follows from a child has no mention.
    """
    mentions = relate(table, mention_table(table, ontology))
    matrices = label_matrices(len(table), mentions, ontology)
    best = mentions.sort_values("probability", ascending=False, kind="stable").drop_duplicates(
        ["sentence_number", "label", "relation"]
    )
    found = best.set_index(["sentence_number", "label", "relation"])[["mention", "probability"]].to_dict("index")
    rows = []
    for number, record in enumerate(table.to_dict("records")):
        for relation, matrix in zip(RELATIONS, matrices, strict=True):
            for i in np.flatnonzero(matrix[number]):
                label = ontology.labels[i]
                said = found.get((number, label, relation), {"mention": "", "probability": np.nan})
                rows.append({**record, "label": label, "kind": ontology.kinds[i], "relation": relation, **said})
    columns = [*table.columns, "label", "kind", "relation", "probability", "mention"]
    return pd.DataFrame(rows, columns=columns)


def agreement(found: pd.DataFrame, truth: pd.DataFrame, by: str = "row") -> pd.DataFrame:
    """How far found mentions agree with true ones: relation, true, found, both, precision, recall; one row a relation.

    Both tables have `by` (whose sentence it is), label and relation. What is compared is which label has which
    relation for which sentence; a label that a sentence mentions twice in one relation counts once.
    """
    rows = []
    for relation in RELATIONS:
        true, ours = (
            set(table.loc[table["relation"] == relation, [by, "label"]].itertuples(index=False, name=None))
            for table in (truth, found)
        )
        both = len(true & ours)
        precision = both / len(ours) if ours else np.nan
        rows.append((relation, len(true), len(ours), both, precision, both / len(true) if true else np.nan))
    return pd.DataFrame(rows, columns=["relation", "true", "found", "both", "precision", "recall"])
