"""One's own report sentences: what they say of the lesions that they link; the command `labels`."""

from pathlib import Path

import pandas as pd

from lensnb.files import write_table
from lensnb.lesanet.label_files import RELATIONS
from lensnb.lesanet.ontology import find_ontology, read_ontology
from lensnb.lesanet.relations import RelationNet, relate, train_relations
from lensnb.lesanet.report_labels import read_examples, with_kinds
from lensnb.lesanet.text_mining import labels_of_sentences, read_sentences
from lensnb.phantom import ontology as phantom_ontology
from lensnb.phantom import report_files

PRACTICE_PATIENTS = 80  # whose sentences are drawn for who has no relations to learn from


def label_sentences(sentences: Path, ontology: Path, output: Path, examples: Path | None = None) -> pd.DataFrame:
    """Write what the sentences of a csv say of their lesions; the command `labels`. Returns the table.

    sentences: csv with the column sentence. ontology: .xlsx or .csv. examples: a folder with sentences.csv (row,
    sentence) and relations.csv (row, start, end, label, relation) to learn relations from; without it, they are
    learned from sentences that phantoms' radiologists write. Columns of the result: those of the csv, then label,
    kind, relation, probability, mention; see `labels_of_sentences`.
    """
    table, known = read_sentences(sentences), read_ontology(ontology)
    taken = [name for name in ("label", "kind", "relation", "probability", "mention") if name in table.columns]
    if taken:
        raise ValueError(f"{sentences} has a column {', '.join(taken)}, which is to be written; rename it")
    if examples is None:
        model = practised(seed=0)
    else:
        model = train_relations(*read_examples(examples, read_ontology(find_ontology(examples))))
    result = labels_of_sentences(table, known, lambda rows, mentions: relate(model, rows, mentions))
    write_table(result, output)
    return result


def practised(seed: int) -> RelationNet:
    """A relation network that has learned from sentences about phantom lesions, drawn for the purpose."""
    table, mentions = report_files.practice(PRACTICE_PATIENTS, seed)
    return train_relations(table, with_kinds(mentions, phantom_ontology.read()), seed, epochs=15)


def command(sentences: Path, ontology: Path, output: Path, examples: Path | None) -> str:
    """The command `labels`: how many labels of each relation were written."""
    counts = label_sentences(sentences, ontology, output, examples)["relation"].value_counts()
    return f"{', '.join(f'{counts.get(name, 0)} {name}' for name in RELATIONS)} labels in {output}"
