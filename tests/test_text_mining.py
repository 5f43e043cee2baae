"""Text mining: mentions and relations in sentences, worked out by hand, and against the phantoms' own reports."""

import hashlib
import json

import numpy as np
import pandas as pd
import pytest

from lensnb.__main__ import main
from lensnb.lesanet import relations, report_labels
from lensnb.lesanet.ontology import read_ontology
from lensnb.lesanet.targets import excluded
from lensnb.lesanet.text_mining import (
    Mention,
    base_form,
    find_mentions,
    label_matrices,
    mention_table,
    phrases,
    read_sentences,
    tokenize,
)
from lensnb.phantom import misreading, sentences
from lensnb.phantom import ontology as phantom_ontology
from lensnb.phantom import phrases as phantom_phrases
from lensnb.phantom import practice as phantom_practice
from lensnb.phantom.lesions import Lesion
from lensnb.phantom.noun_phrases import Finding, noun_phrase
from lensnb.settings import load_profile

SENTENCE = "Large nodules in the right lower lobe BOOKMARK, possibly a right lung mass; low-density nodule OTHER_BMK."


@pytest.fixture(scope="module")
def ontology():
    return phantom_ontology.read()


@pytest.fixture(scope="module")
def practice(ontology):
    examples = phantom_practice.practice(load_profile("phantom").phantom, seed=5, patients=20)
    return examples.sentences, examples.mentions


def found(sentence, ontology):
    table = mention_table(pd.DataFrame({"sentence": [sentence]}), ontology)
    return list(zip(table["mention"], table["label"], strict=True))


def test_words_signs_and_base_forms():
    tokens = tokenize("Ill-defined masses, 1.5 cm (OTHER_BMK).")
    texts = ["Ill", "-", "defined", "masses", ",", "1", ".", "5", "cm", "(", "OTHER_BMK", ")."]
    assert [token.text for token in tokens] == texts
    assert (tokens[3].base, tokens[3].start, tokens[3].end) == ("mass", 12, 18)
    assert base_form("BOOKMARK") == "BOOKMARK"
    for one, other in (
        ("Nodules", "nodule"), ("metastases", "metastasis"), ("vertebrae", "vertebra"), ("adenopathies", "adenopathy"),
        ("masses", "mass"), ("hila", "hilum"),
    ):  # fmt: skip
        assert base_form(one) == base_form(other)
    assert base_form("larger") != base_form("large") and base_form("mass") != base_form("massive")


def test_mentions_are_the_longest_phrases(ontology):
    assert found(SENTENCE, ontology) == [
        ("Large", "large"),
        ("nodules", "nodule"),
        ("right lower lobe", "right lower lobe"),
        ("right lung", "right lung"),
        ("lung mass", "lung mass"),  # overlaps the one before; neither holds the other
        ("low-density", "hypoattenuation"),
        ("nodule", "nodule"),
    ]
    assert found("RLL ground-glass and ground glass opacities", ontology) == [
        ("RLL", "right lower lobe"),
        ("ground-glass", "ground-glass opacity"),
        ("ground glass opacities", "ground-glass opacity"),
    ]
    assert found("Nothing of note in the lower lobe", ontology) == []


def test_a_name_goes_before_another_label_s_synonym(tmp_path):
    header = "class,term,synonyms,term_exclusive,term_parents\n"
    text = "bodypart,common node,iliac node | deep node,,\nbodypart,iliac node,,,\nbodypart,third,deep node,,\n"
    (tmp_path / "o.csv").write_text(header + text)
    small = read_ontology(tmp_path / "o.csv")
    assert found("iliac nodes, deep node", small) == [("iliac nodes", "iliac node"), ("deep node", "common node")]


def test_labels_of_a_sentence_are_expanded_and_the_strongest_mention_counts(ontology):
    mentions = pd.DataFrame(
        [
            (0, "right lower lobe", "relevant"),
            (0, "lung", "irrelevant"),  # follows from the lobe all the same
            (0, "nodule", "uncertain"),
            (0, "nodule", "irrelevant"),
            (1, "mass", "irrelevant"),
        ],
        columns=["sentence_number", "label", "relation"],
    )
    relevant, uncertain, irrelevant = label_matrices(3, mentions, ontology)
    names = [{ontology.labels[i] for i in np.flatnonzero(row)} for row in relevant]
    assert names == [{"right lower lobe", "right lung", "lung", "chest"}, set(), set()]
    assert np.argwhere(uncertain).tolist() == [[0, ontology.index("nodule")]]
    assert np.argwhere(irrelevant).tolist() == [[1, ontology.index("mass")]]


def test_the_network_reads_kinds_and_distances():
    tokens = tokenize("BOOKMARK large RLL mass or node, 2.1 cm, BOOKMARK")
    mentions = [Mention(0, 1, 1), Mention(0, 2, 2), Mention(0, 3, 3), Mention(0, 5, 5)]
    kinds = ["attribute", "bodypart", "type", "bodypart"]
    words, mention, bookmark = relations.symbols(tokens, mentions, kinds, target=2)
    start = ["BOOKMARK", "<attribute>", "<bodypart>", "<this type>", "or", "<bodypart>", ","]
    assert words == [*start, "<number>", ".", "<number>", "cm", ",", "BOOKMARK"]
    assert (mention, bookmark) == (3, 0)

    examples = relations.encode([(words, mention, bookmark)], [*relations.SYMBOLS, "or", "<this type>"])
    assert examples.words[0, :6].tolist() == [1, 1, 1, 4, 3, 1] and examples.words[0, 13:].max() == 0
    middle = relations.FARTHEST + 1
    assert examples.to_mention[0, :5].tolist() == [middle - 3, middle - 2, middle - 1, middle, middle + 1]
    assert examples.to_bookmark[0, :2].tolist() == [middle, middle + 1]
    assert examples.to_bookmark[0, 12] == middle + 12 and examples.to_bookmark[0, 13] == 0


def test_overlapping_mentions_each_get_their_turn():
    tokens = tokenize("right lung mass BOOKMARK")
    mentions, kinds = [Mention(0, 0, 1), Mention(0, 1, 2)], ["bodypart", "type"]
    assert relations.symbols(tokens, mentions, kinds, 0)[0] == ["<this bodypart>", "mass", "BOOKMARK"]
    assert relations.symbols(tokens, mentions, kinds, 1)[0] == ["<bodypart>", "<this type>", "BOOKMARK"]


def test_a_long_sentence_is_cut_around_the_mention():
    words = [f"w{i}" for i in range(300)]
    examples = relations.encode([(words, 150, 290)], [*relations.SYMBOLS, *words])
    assert examples.words[0, [0, -1]].tolist() == [150 - 40 + 3, 150 + 39 + 3]
    assert examples.to_mention[0, 40] == relations.FARTHEST + 1


def test_relations_are_learned_from_the_words_around(practice):
    table, mentions = practice
    learn = mentions["sentence_number"] < 0.8 * len(table)
    model = relations.train_relations(table, mentions[learn], seed=0, epochs=12)
    test = mentions[~learn]
    told = relations.relate(model, table, test.drop(columns="relation"))
    right = (told["relation"].to_numpy() == test["relation"].to_numpy()).mean()
    always = (test["relation"] == "relevant").mean()
    assert right > max(0.8, always + 0.1)
    assert told["probability"].between(1 / 3, 1).all()
    again = relations.train_relations(table, mentions[learn], seed=0, epochs=12)
    assert relations.relate(again, table, test.drop(columns="relation")).equals(told)
    with pytest.raises(ValueError, match="relations to learn from: maybe; they should be relevant"):
        relations.train_relations(table, mentions.assign(relation="maybe"))


# --- the phantoms' reports ----------------------------------------------------------------------------------------


def lesion(**changes):
    look = {"type": "lung", "organ": "right lower lobe", "aspect": 0.9, "attributes": ("solid", "spiculated")}
    look |= {"waves": (), "radius": 10.0, "centre": (0, 0, 0), "turn": 0.0, "depth": 1.0}
    return Lesion(**({"identity": 0, "side": "right", "contrast": (40.0,) * 3} | look | changes))


def test_complete_labels_follow_from_the_look(ontology):
    assert phantom_ontology.complete_labels(lesion(), 22, 20) == {
        "right lower lobe", "lung nodule", "solid", "spiculated", "noncalcified",
    }  # fmt: skip
    node = lesion(type="node", organ="paraaortic", attributes=("necrosis",), lobes=(4, 0.4))
    assert phantom_ontology.complete_labels(node, 41, 28) == {
        "paraaortic", "lymph node", "enlargement", "lymphadenopathy", "necrosis", "heterogeneous", "oval", "lobular",
        "large",
    }  # fmt: skip
    cyst = lesion(type="kidney", organ="left kidney", attributes=("cyst", "hypoattenuation"))
    names = phantom_ontology.complete_labels(cyst, 17, 17)
    assert names == {"left kidney", "kidney cyst", "cyst", "hypoattenuation", "round"}
    assert phantom_ontology.with_parents(names, ontology) - names == {"kidney", "retroperitoneum", "abdomen"}


def test_the_phantoms_ontology(ontology):
    assert len(ontology.labels) == 80 and [int(ontology.of_kind(kind).sum()) for kind in
                                           ("bodypart", "type", "attribute")] == [49, 13, 18]  # fmt: skip
    assert ontology.parents.sum() >= 100 and np.triu(ontology.exclusive).sum() >= 1000
    assert ontology.listed_exclusive.sum() == (ontology.listed_exclusive & ontology.listed_exclusive.T).sum()


def test_a_sentence_about_two_lesions_stands_for_each(ontology):
    a = Finding(0, "liver", "liver", frozenset({"liver", "liver mass"}), 31.0, 30.0)
    b = Finding(1, "bone", "rib", frozenset({"rib", "sclerotic"}), 20.0, 15.0)
    template = "{or} in the {LA} {MA}, {without} {no}, and {B} {MB}, {SB}."
    made = sentences.write_sentence(template, {"A": a, "B": b}, np.random.default_rng(2))
    assert made.texts["A"].count("BOOKMARK") == made.texts["A"].count("OTHER_BMK") == 1
    assert made.texts["B"] == made.texts["A"].replace("OTHER_BMK", "X").replace("BOOKMARK", "OTHER_BMK").replace(
        "X", "BOOKMARK"
    )
    assert made.texts["A"].startswith("Mass or cyst in the hepatic lobe BOOKMARK")
    told = {letter: [(m.label, m.relation) for m in made.mentions[letter]] for letter in "AB"}
    assert [relation for _, relation in told["A"][:4]] == ["uncertain", "uncertain", "relevant", "irrelevant"]
    assert set(told["A"][4:]) <= {("rib", "irrelevant"), ("bone", "irrelevant"), ("sclerotic", "irrelevant")}
    assert [relation for _, relation in told["B"][:4]] == ["irrelevant"] * 4
    for letter in "AB":
        for m in made.mentions[letter]:
            assert (made.texts[letter][m.start : m.end], m.label) in found(made.texts[letter], ontology)


def test_every_mention_of_every_template_is_found(practice, ontology):
    table, truth = practice
    mentions = mention_table(table, ontology)
    key = ["sentence_number", "start", "end", "label"]
    assert len(truth) > 300
    both = mentions.merge(truth, on=key, how="outer", indicator=True)
    missed = both[both["_merge"] != "both"]
    assert missed.empty, missed.head().to_dict("records")


def test_the_sentences_are_those_they_were(practice):
    """phrases.yml in another order, or one more random number, would change every phantom's reports."""
    text = "\n".join(practice[0]["sentence"])
    assert (
        hashlib.sha256(text.encode()).hexdigest() == "c29f652206eedd66e25cf1b882d67df47f0eaa0d9da0a11e8763add423650fb2"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("plain_nouns:", "nouns:"), "should hold the sections adjectives, .* and no others"),
        (("solid: [solid]", "solid: [no]"), "adjectives, solid: False is no text; put it in quotes"),
        (("denials: [without", "denials: without #["), "denials: 'without' is no list"),
        (("{A} {MA} measuring {SA}.", "{A} {MA} measuring {SC}."), "one: .* has the unknown slot SC"),
    ],
)
def test_phrases_that_cannot_be_read_are_named(tmp_path, change, message):
    text = phantom_phrases.FILE.read_text()
    assert change[0] in text
    (tmp_path / "phrases.yml").write_text(text.replace(*change, 1))
    with pytest.raises(ValueError, match=message):
        phantom_phrases.read_phrases(tmp_path / "phrases.yml")


def test_every_label_of_the_phrases_is_in_the_ontology(ontology):
    words = phantom_phrases.PHRASES
    said = {*words.adjectives, *words.features, *words.places, *words.stations, *words.coarser, *words.near}
    said |= {*words.coarser.values(), *words.compounds.values(), *words.type_words.values()}
    said |= {*words.denied_types.values()}
    said |= {words.type_words.get(word, word) for listed in words.doubtful_types.values() for word in listed}
    assert said - {"opacity", "cyst"} <= set(ontology.labels)


def test_no_report_names_what_a_lesion_is_not():
    finding = Finding(0, "node", "paraaortic", frozenset({"paraaortic", "lymph node", "solid"}), 20.0, 18.0)
    rng = np.random.default_rng(0)
    named = {piece.label for _ in range(200) for piece in noun_phrase(finding, rng)} - {""}
    assert named == {"paraaortic", "lymph node", "solid"}


# --- files --------------------------------------------------------------------------------------------------------


def write_examples(folder, ontology, practice):
    """A DeepLesion folder with sentences of all three splits."""
    table, mentions = practice
    rows = np.arange(len(table))
    split = np.array(["val", "train", "test"])[rows % 3]
    table.assign(row=rows + 7, split=split)[["row", "split", "sentence"]].to_csv(folder / "sentences.csv", index=False)
    known = mentions.assign(row=mentions["sentence_number"] + 7)[split[mentions["sentence_number"]] != "train"]
    known[["row", "start", "end", "label", "relation"]].to_csv(folder / "relations.csv", index=False)
    (folder / "lesion_ontology.csv").write_text(phantom_ontology.FILE.read_text())


def test_mining_a_folder_learns_from_validation_sentences(tmp_path, ontology, practice, monkeypatch):
    monkeypatch.setattr(report_labels, "LEAST", {"train": 1, "val": 1, "test": 1})
    write_examples(tmp_path, ontology, practice)
    taught = []
    train = relations.train_relations
    monkeypatch.setattr(
        report_labels, "train_relations", lambda t, m, seed: taught.append(m) or train(t, m, seed, epochs=2)
    )
    mined, mentions = report_labels.mine(tmp_path)
    assert set(taught[0]["sentence_number"] % 3) == {0}
    assert set(mentions["row"].astype(int) % 3) == {(1 + 7) % 3}, "only training lesions are decided by the network"
    assert mined.lesions["split"].drop_duplicates().tolist() == ["train", "val", "test"]
    assert mined.relevant.shape == (len(practice[0]), len(mined.labels))
    # an expert's word stands
    row = mined.lesions.index[mined.lesions["split"] == "test"][0]
    number = mined.lesions["row"][row] - 7
    own = practice[1][practice[1]["sentence_number"] == number]
    expected = label_matrices(len(practice[0]), own, ontology)[0][number]
    kept = [ontology.index(label) for label in mined.labels]
    assert (mined.relevant[row] == expected[kept]).all()


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("relations.csv", ("relevant", "maybe"), "relations.csv, line .*: relation 'maybe' is none of"),
        ("relations.csv", ("\n7,", "\n6,"), "relations.csv, line 2: sentences.csv has no row 6"),
        ("relations.csv", (",label,", ",labels,"), "relations.csv has no column label"),
        ("sentences.csv", ("BOOKMARK", "BMK"), "sentences.csv, line .*: no BOOKMARK in"),
        ("sentences.csv", ("row,", "number,"), "sentences.csv has no column row"),
    ],
)
def test_wrong_examples_are_refused(tmp_path, ontology, practice, file, change, message):
    write_examples(tmp_path, ontology, practice)
    text = (tmp_path / file).read_text()
    assert change[0] in text
    (tmp_path / file).write_text(text.replace(*change))
    with pytest.raises(ValueError, match=message):
        report_labels.read_examples(tmp_path, ontology)


def test_anybody_s_sentences(tmp_path, ontology, practice, capsys):
    write_examples(tmp_path, ontology, practice)
    (tmp_path / "mine.csv").write_text(f'id,sentence\nx,"{SENTENCE}"\ny,Nothing BOOKMARK\n')
    arguments = ["labels", "mine.csv", "--ontology", "lesion_ontology.csv", "--output", "out.csv", "--examples", "."]
    assert main([str(tmp_path / a) if "." in a else a for a in arguments]) == 0
    table = pd.read_csv(tmp_path / "out.csv", keep_default_na=False)
    assert list(table.columns) == ["id", "sentence", "label", "kind", "relation", "probability", "mention"]
    assert set(table["id"]) == {"x"} and len(table) >= 6
    assert table["mention"][table["label"] == "right lower lobe"].tolist() == ["right lower lobe"]
    assert f"labels in {tmp_path / 'out.csv'}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "mine.csv does not exist"),
        ("id,text\n1,a BOOKMARK\n", "mine.csv has no column sentence, only id, text"),
        ("sentence\na BOOKMARK\nb OTHER_BMK\n", "mine.csv, line 3: no BOOKMARK in 'b OTHER_BMK'"),
        ("id,sentence\n1, \n", "mine.csv, line 2: the sentence is empty"),
        ("label,sentence\n1,a BOOKMARK\n", "mine.csv has a column label, which is to be written"),
    ],
)
def test_wrong_sentences_end_in_one_line(tmp_path, capsys, text, message):
    if text:
        (tmp_path / "mine.csv").write_text(text)
    ontology = str(phantom_ontology.FILE)
    assert (
        main(["labels", str(tmp_path / "mine.csv"), "--ontology", ontology, "--output", str(tmp_path / "o.csv")]) == 2
    )
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "o.csv").exists()


def test_report_files_of_a_folder_name_each_lesion(tmp_path, ontology, monkeypatch):
    """Read back: complete labels never contradict themselves, and without errors the texts agree with the truth."""
    monkeypatch.setattr(misreading, "OTHER_LESION", 0.0)
    monkeypatch.setattr(misreading, "MISREAD", 0.0)
    from lensnb import phantom
    from tests.test_phantom import TINY, spec

    phantom.write(tmp_path, spec(**TINY), seed=3, workers=1)
    folder = tmp_path / "DeepLesion"
    table = read_sentences(folder / "sentences.csv")
    truth = pd.read_csv(tmp_path / "truth" / "labels.csv")
    names = [set(cell.split(" | ")) for cell in truth["labels"]]
    matrix = np.array([[label in own for label in ontology.labels] for own in names])
    assert not (matrix & excluded(matrix, ontology.exclusive)).any()
    complete = json.loads((folder / "hand_labeled_test_set.json").read_text())
    assert [entry["lesion_idx"] for entry in complete] == truth["row"][truth["group"] == "test"].tolist()
    assert set(table["row"].astype(int)) <= set(truth["row"])
    told = pd.read_csv(tmp_path / "truth" / "relations.csv")
    own = dict(zip(truth["row"], names, strict=True))
    assert all(label in own[row] for row, label in told[told["relation"] == "relevant"][["row", "label"]].to_numpy())
    shown = pd.read_csv(folder / "relations.csv")
    assert set(shown["row"]) <= set(truth["row"][truth["group"] != "train"])
    (folder / "sentences.csv").unlink()
    files = (path for path in tmp_path.rglob("*") if path.is_file() and path.name != "made.json")
    before = {path: path.read_bytes() for path in files}
    phantom.write(tmp_path, spec(**TINY), seed=3, workers=1)
    assert (folder / "sentences.csv").exists()
    assert all(path.read_bytes() == content for path, content in before.items())


def test_phrases_of_the_published_ontology(shared_data):
    known = read_ontology(shared_data / "real" / "lesanet" / "lesion_ontology_181022.xlsx")
    tokens = tokenize("Enlarged right hilar lymph nodes and a low-attenuation hepatic lobe lesion BOOKMARK")
    named = [known.labels[m.label] for m in find_mentions(tokens, phrases(known))]
    assert named == ["enlargement", "right hilum lymph node", "hypoattenuation", "liver"]
