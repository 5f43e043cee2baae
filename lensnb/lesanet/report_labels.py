"""Labels from whole files of report sentences: anybody's, and those of the phantoms' DeepLesion folder."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lensnb import runfolder
from lensnb.datasets import UNIVERSAL
from lensnb.files import write_table
from lensnb.files.cells import for_spreadsheet, numbers, read_cells
from lensnb.lesanet.label_files import PUBLISHED, RELATIONS, SPLITS, MinedLabels, has_labels, write_mined
from lensnb.lesanet.ontology import Ontology, find_ontology, read_ontology
from lensnb.lesanet.relations import relate, train_relations
from lensnb.lesanet.text_mining import (
    RelationExamples,
    label_matrices,
    labels_of_sentences,
    mention_table,
    read_sentences,
    with_kinds,
)
from lensnb.provenance.product import checksum, is_made, write_record
from lensnb.provenance.recipe import code, values
from lensnb.settings import load_profile

# lesions of each split that a label must have; the paper says 2 of val, its published file has labels with 1
LEAST = {"train": 10, "val": 1, "test": 2}


def label_sentences(sentences: Path, ontology: Path, output: Path, examples: Path | RelationExamples) -> pd.DataFrame:
    """Write what the sentences of a csv say of their lesions; the command `labels`. Returns the table.

    sentences: csv with the column sentence. ontology: .xlsx or .csv. examples: what relations are learned from, either
    a folder with sentences.csv (row, sentence), relations.csv (row, start, end, label, relation) and an ontology, or
    tables (`phantom.practice` draws some). Columns of the result: those of the csv, then label, kind, relation,
    probability, mention; see `labels_of_sentences`. In the file an apostrophe stands before text that a spreadsheet
    would run as a formula.
    """
    table, known = read_sentences(sentences), read_ontology(ontology)
    taken = [name for name in ("label", "kind", "relation", "probability", "mention") if name in table.columns]
    if taken:
        raise ValueError(f"{sentences} has a column {', '.join(taken)}, which is to be written; rename it")
    if isinstance(examples, Path):
        examples = RelationExamples(*read_examples(examples, read_ontology(find_ontology(examples))))
    model = train_relations(examples.sentences, examples.mentions, epochs=examples.epochs)
    result = labels_of_sentences(table, known, lambda rows, mentions: relate(model, rows, mentions))
    write_table(for_spreadsheet(result), output)
    return result


def read_examples(folder: Path, ontology: Ontology) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Sentences, and their mentions with a known relation, of a folder: tables for `train_relations`.

    Raises FileNotFoundError, and ValueError for a missing column, a mention outside its sentence, a relation or label
    that does not exist, and a row without a sentence.
    """
    table, path = read_sentences(folder / "sentences.csv"), folder / "relations.csv"
    mentions = read_cells(path, advice="it should hold the relations of mentions to learn from")
    for name, columns, file in (
        (table, ("row",), "sentences.csv"),
        (mentions, ("row", "start", "end", "label", "relation"), "relations.csv"),
    ):
        missing = [column for column in columns if column not in name.columns]
        if missing:
            raise ValueError(f"{folder / file} has no column {', '.join(missing)}")
    twice = table["row"][table["row"].duplicated()]
    if len(twice):
        raise ValueError(f"{folder / 'sentences.csv'} has more than one sentence of row {twice.iloc[0]!r}")
    number = {row: i for i, row in enumerate(table["row"])}
    length = table["sentence"].str.len().tolist()
    for column in ("start", "end"):
        values, _ = numbers(mentions[column])
        wrong = np.flatnonzero(~(np.abs(values) <= max(length)) | (values != np.rint(values)))
        if len(wrong):
            cell = mentions[column].iloc[wrong[0]]
            where = f"{path}, line {mentions.index[wrong[0]]}"
            raise ValueError(f"{where}: {column} is {cell!r}, no place in the sentence")
        mentions[column] = values.astype(int)
    for line, m in zip(mentions.index, mentions.to_dict("records"), strict=True):
        if m["row"] not in number:
            raise ValueError(f"{path}, line {line}: sentences.csv has no row {m['row']}")
        if not 0 <= m["start"] < m["end"] <= length[number[m["row"]]]:
            raise ValueError(f"{path}, line {line}: characters {m['start']} to {m['end']} are not in the sentence")
        if m["relation"] not in RELATIONS:
            raise ValueError(f"{path}, line {line}: relation {m['relation']!r} is none of {', '.join(RELATIONS)}")
        if m["label"] not in ontology.labels:
            raise ValueError(f"{path}, line {line}: the ontology has no label {m['label']!r}")
    mentions = mentions.reset_index(drop=True)
    mentions.insert(0, "sentence_number", mentions["row"].map(number))
    return table, with_kinds(mentions, ontology)


def find_labels(profile_name: str, seed: int = 0) -> Path | None:
    """`mined_labels_file`, or None if the data have neither a label file nor sentences with an ontology."""
    folder = runfolder.raw(profile_name, seed) / UNIVERSAL
    found = (folder / PUBLISHED).exists() or has_labels(folder)
    return mined_labels_file(profile_name, seed) if found else None


def mined_labels_file(profile_name: str, seed: int = 0) -> Path:
    """The label file of a profile: the published one if it is there, else one mined from the phantoms' sentences.

    The mined one is written to runs/lesanet/text_mined_labels.json, unless it is there (see
    provenance/product.py). relations.csv beside it has every mention in the sentences of training lesions and what
    became of it. The profile's lesanet.least_train says how many training lesions a label must have.
    """
    run = runfolder.Run(profile_name, seed)
    folder, path = run.raw / UNIVERSAL, run.mined_labels
    if (folder / PUBLISHED).exists():
        return folder / PUBLISHED
    least = LEAST | {"train": load_profile(profile_name).lesanet.least_train}
    learned_from = [find_ontology(folder), *(folder / name for name in ("sentences.csv", "relations.csv"))]
    recipe = code([__name__]) | values(seed=seed, least=least)
    recipe |= {f"file {file.name}": checksum(file) for file in learned_from if file.is_file()}
    product = [path, path.with_name("relations.csv")]
    if not is_made(product, recipe):
        mined, mentions = mine(folder, seed, least)
        write_table(mentions, product[1])
        write_mined(mined, path)
        write_record(product, recipe)
    return path


@dataclass(frozen=True)
class ReadSentences:
    """All sentences of a folder (row, split, sentence) and every mention in them, with what was read of it:
    sentence_number, row, split, start, end, mention, label, kind, relation, probability."""

    sentences: pd.DataFrame
    mentions: pd.DataFrame


def read_sentences_apart(folder: Path, seed: int = 0) -> ReadSentences:
    """What the network of `mine`, which learns from validation lesions' sentences, reads in the sentences of all."""
    ontology = read_ontology(find_ontology(folder))
    table, known = read_examples(folder, ontology)
    split = table["split"].to_numpy()
    model = train_relations(table, known[split[known["sentence_number"]] == "val"], seed)
    found = relate(model, table, mention_table(table, ontology))
    row = table["row"].astype(np.int64).to_numpy()[found["sentence_number"]]
    return ReadSentences(table, found.assign(row=row, split=split[found["sentence_number"]]))


def mine(folder: Path, seed: int = 0, least: dict[str, int] = LEAST) -> tuple[MinedLabels, pd.DataFrame]:
    """Labels of a DeepLesion folder's sentences (LesaNet Sec. 3.2 and 5.1), and the mentions of the training ones.

    The relations of validation and test lesions are those that experts gave (relations.csv). The network learns from
    the validation lesions' and decides for the training lesions. A label is kept if at least so many lesions of each
    split have it (`least`), relevant or uncertain. Mentions: row, start, end, mention, label, kind, relation,
    probability.
    """
    ontology = read_ontology(find_ontology(folder))
    table, known = read_examples(folder, ontology)
    wrong = set(table.get("split", ["none"])) - set(SPLITS)
    if wrong:
        raise ValueError(f"{folder / 'sentences.csv'} needs a column split with train, val or test")
    _, no_number = numbers(table["row"])
    if no_number.any() or (table["row"] == "").any():
        raise ValueError(f"{folder / 'sentences.csv'}: its column row should hold rows of DL_info.csv, whole numbers")
    split = table["split"].to_numpy()
    learn = known[split[known["sentence_number"]] == "val"]
    model = train_relations(table, learn, seed)
    found = mention_table(table, ontology)
    found = relate(model, table, found[split[found["sentence_number"]] == "train"].reset_index(drop=True))
    matrices = label_matrices(len(table), pd.concat([found, known], ignore_index=True), ontology)
    positive = matrices[0] | matrices[1]
    keep = np.logical_and.reduce([positive[split == name].sum(0) >= number for name, number in least.items()])
    order = np.argsort([SPLITS.index(name) for name in split], kind="stable")
    lesions = pd.DataFrame({"split": split, "row": table["row"].astype(np.int64)}).iloc[order].reset_index(drop=True)
    labels = tuple(label for label, kept in zip(ontology.labels, keep, strict=True) if kept)
    found.insert(0, "row", table["row"].to_numpy()[found["sentence_number"]])
    return MinedLabels(labels, lesions, *(m[order][:, keep] for m in matrices)), found.drop(columns="sentence_number")
