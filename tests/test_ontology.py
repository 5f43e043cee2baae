"""The ontology: relations worked out by hand, and the counts of the published spreadsheet and label files."""

import json

import numpy as np
import pandas as pd
import pytest

from lensnb.lesanet import ontology
from lensnb.lesanet.label_files import MinedLabels, read_complete, read_mined, write_mined
from lensnb.lesanet.ontology import (
    close_exclusive,
    closure,
    expand,
    read_ontology,
    reduction,
    without_ancestors,
)
from lensnb.lesanet.targets import excluded

HEADER = "id,class,term,synonyms,num_detected,term_exclusive,term_parents,term_children\n"
# chest > lung > left lung, right lung; nodule, lung > lung nodule; the abdomen excludes the chest
SMALL = HEADER + (
    "1,bodypart,chest,chest | thoracic,,,,\n"
    "2,bodypart,lung,lung | pulmonary,,,chest,\n"
    "3,bodypart,left lung,left lung,,right lung,lung,\n"
    "4,bodypart,right lung,right lung,,,lung | chest,\n"
    "5,bodypart,abdomen,abdominal,,chest | pelvis,,\n"
    "6,type,nodule,nodule | nodular,,,,\n"
    "7,type,lung nodule,pulmonary nodule,,,nodule | lung,\n"
    "8,attribute,solid,solid,,,,\n"
)


@pytest.fixture
def small(tmp_path):
    (tmp_path / "small.csv").write_text(SMALL)
    return read_ontology(tmp_path / "small.csv")


def pairs(small, matrix):
    return {(small.labels[a], small.labels[b]) for a, b in np.argwhere(matrix)}


def test_a_table_of_terms(small):
    assert small.labels[:3] == ("chest", "lung", "left lung")
    assert small.kinds.count("bodypart") == 5 and small.kinds.count("type") == 2
    assert small.synonyms[4] == ("abdomen", "abdominal"), "a term is its own synonym"
    assert small.of_kind("attribute").tolist() == [False] * 7 + [True]
    assert pairs(small, small.parents) == {
        ("lung", "chest"),
        ("left lung", "lung"),
        ("left lung", "chest"),
        ("right lung", "lung"),
        ("right lung", "chest"),
        ("lung nodule", "nodule"),
        ("lung nodule", "lung"),
        ("lung nodule", "chest"),
    }
    assert reduction(small.parents).sum() == 5
    with pytest.raises(ValueError, match="no label 'brain'"):
        small.index("brain")


def test_whatever_is_below_exclusive_labels_is_exclusive(small):
    below_chest = ["chest", "lung", "left lung", "right lung", "lung nodule"]
    expected = {("abdomen", name) for name in below_chest} | {("left lung", "right lung")}
    assert pairs(small, small.exclusive) == expected | {(b, a) for a, b in expected}


def test_relations_that_no_lesion_could_meet_are_dropped():
    # 2 is below 0 and 1, which exclude each other; 1 excludes 3, which is below 1
    parents = closure(np.array([[0, 0, 0, 0], [0, 0, 0, 0], [1, 1, 0, 0], [0, 1, 0, 0]]))
    listed = np.zeros((4, 4), dtype=bool)
    listed[0, 1] = listed[1, 3] = True
    both = close_exclusive(listed, parents)
    assert (both == both.T).all()
    assert np.triu(both).astype(int).tolist() == [[0, 1, 1, 1], [0, 0, 1, 1], [0, 0, 1, 1], [0, 0, 0, 1]]
    # left: 0 with 1, 0 with 3, 2 with 3
    kept = without_ancestors(both, parents)
    assert np.argwhere(np.triu(kept)).tolist() == [[0, 1], [0, 3], [2, 3]]


def test_expansion(small):
    said = np.zeros((3, 8), dtype=bool)
    said[0, [6, 4]] = True  # lung nodule and abdomen
    said[1, [2, 3]] = True  # left and right lung
    full = expand(said, small.parents)
    assert [np.flatnonzero(row).tolist() for row in full] == [[0, 1, 4, 5, 6], [0, 1, 2, 3], []]
    assert (expand(full, small.parents) == full).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("term_parents", "parents"), "has no column term_parents; an ontology has class, term"),
        (("6,type", "6,kind"), "row 7: class 'kind' is none of bodypart, type, attribute"),
        ((",solid,", ",,"), "row 9: the term is empty"),
        ((",solid,", ",nodule,"), "lists 'nodule' more than once"),
        (("chest | thoracic,,,", "chest,,,left lung"), "chest, lung, left lung are their own ancestors"),
    ],
)
def test_a_wrong_table_is_refused(tmp_path, change, message):
    assert change[0] in SMALL
    (tmp_path / "wrong.csv").write_text(SMALL.replace(*change))
    with pytest.raises(ValueError, match=message):
        read_ontology(tmp_path / "wrong.csv")


def test_missing_and_unreadable_files_are_named(tmp_path, small):
    with pytest.raises(FileNotFoundError, match="no.csv does not exist"):
        read_ontology(tmp_path / "no.csv")
    (tmp_path / "text.xlsx").write_text(SMALL)
    with pytest.raises(ValueError, match="text.xlsx is not a readable table"):
        read_ontology(tmp_path / "text.xlsx")
    with pytest.raises(ValueError, match="has no term 'brain'"):
        read_ontology(tmp_path / "small.csv", ["lung", "brain"])
    with pytest.raises(FileNotFoundError, match="has no ontology .lesion_ontology_181022.xlsx or"):
        ontology.find_ontology(tmp_path)


# --- the published files ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published(shared_data):
    folder = shared_data / "real" / "lesanet"
    labels = json.loads((folder / "text_mined_labels_171_and_split.json").read_text())
    return read_ontology(ontology.find_ontology(folder), labels["term_list"])


def test_published_classes(published, shared_data):
    assert [int(published.of_kind(kind).sum()) for kind in ontology.KINDS] == [115, 27, 29]
    whole = read_ontology(ontology.find_ontology(shared_data / "real" / "lesanet"))
    assert [int(whole.of_kind(kind).sum()) for kind in ontology.KINDS] == [219, 72, 42]
    assert "hypodense" in published.synonyms[published.index("hypoattenuation")]
    # relations among the 171 are the same whether the other 162 terms are there or not
    place = [whole.index(label) for label in published.labels]
    assert (whole.parents[np.ix_(place, place)] == published.parents).all()


def test_published_parents(published):
    assert published.listed_parents.sum() == 252
    assert reduction(published.parents).sum() == 137
    assert published.parents.sum() == 268
    assert (closure(reduction(published.parents)) == published.parents).all()


def test_published_exclusions(published):
    assert published.listed_exclusive.sum() == 390  # 396 entries less 6 repeats
    assert np.triu(published.listed_exclusive | published.listed_exclusive.T).sum() == 196
    both = close_exclusive(published.listed_exclusive, published.parents)
    assert np.triu(both, 1).sum() == 4460
    assert np.triu(both).sum() == 4461, "the paper's number counts a label that excludes itself"
    # one of the 4,460 is a label with its own ancestor
    assert np.triu(published.exclusive).sum() == 4459
    counts = (both & ~np.eye(171, dtype=bool)).sum(1)
    assert (counts.min(), np.median(counts), counts.max(), (counts == 0).sum()) == (0, 80, 102, 29)


def test_published_mined_labels(published, shared_data):
    mined = read_mined(shared_data / "real" / "lesanet" / "text_mined_labels_171_and_split.json")
    assert mined.labels == published.labels
    split = mined.lesions["split"]
    assert split.value_counts().to_dict() == {"train": 20266, "val": 1976, "test": 1879}
    assert (mined.lesions["row"].min(), mined.lesions["row"].max()) == (7, 32734)
    for name, empty, relevant, uncertain, used in (
        ("train", 1429, 79361, 1650, 19221),
        ("val", 124, 7686, 178, 1852),
        ("test", 118, 7338, 158, 1761),
    ):
        own = (split == name).to_numpy()
        assert (~mined.relevant[own].any(1)).sum() == empty and mined.relevant[own].sum() == relevant
        assert mined.uncertain[own].any(1).sum() == uncertain
        positive = mined.relevant | mined.uncertain if name == "train" else mined.relevant  # as the authors use them
        assert positive[own].any(1).sum() == used
        assert mined.irrelevant[own].any() == (name == "train")
    train = (mined.relevant | mined.uncertain)[(split == "train").to_numpy()]
    assert train.sum() == 81430 and (train.sum(0).min(), train.sum(0).max()) == (17, 7599)
    # 1,493 lesions contradict themselves, 56 of them only by the pair that is dropped
    listed = close_exclusive(published.listed_exclusive, published.parents) & ~np.eye(171, dtype=bool)
    assert (train & excluded(train, listed)).any(1).sum() == 1493
    assert (train & excluded(train, published.exclusive)).any(1).sum() == 1437
    relevant = mined.relevant[(split == "train").to_numpy()]
    # the published labels are expanded, but not wholly (1,195 cases if a list's repeats are counted)
    missing = {
        (child, parent): int((relevant[:, child] & ~relevant[:, parent]).sum())
        for child, parent in np.argwhere(published.listed_parents)
    }
    assert sum(missing.values()) == 1146 and sum(count > 0 for count in missing.values()) == 11
    assert missing[published.index("kidney"), published.index("upper abdomen")] == 349


def test_published_complete_labels(published, shared_data):
    rows, labels = read_complete(shared_data / "real" / "lesanet" / "hand_labeled_test_set.json", published.labels)
    assert len(rows) == len(set(rows)) == 500 and labels.sum() == 2712 and labels.any(0).sum() == 149
    mined = read_mined(shared_data / "real" / "lesanet" / "text_mined_labels_171_and_split.json").lesions
    assert mined["split"][mined["row"].isin(rows)].value_counts().to_dict() == {"test": 237}


def test_mined_labels_are_read_as_written(tmp_path):
    lesions = pd.DataFrame({"split": ["train", "train", "test"], "row": [4, 2, 9]})
    relevant = np.array([[1, 0, 1], [0, 0, 0], [0, 1, 0]], dtype=bool)
    written = MinedLabels(("a", "b", "c"), lesions, relevant, ~relevant, np.zeros((3, 3), dtype=bool))
    write_mined(written, tmp_path / "mined.json")
    again = read_mined(tmp_path / "mined.json")
    assert again.labels == written.labels and again.lesions.equals(lesions)
    assert (again.relevant == relevant).all() and (again.uncertain == ~relevant).all() and not again.irrelevant.any()

    content = json.loads((tmp_path / "mined.json").read_text())
    for change, message in (
        ({"train_relevant_labels": [[0]]}, "train_relevant_labels has 1 lists for 2 lesions"),
        ({"test_relevant_labels": [[3]]}, "term_list has 3"),
        ({"test_lesion_idxs": [4]}, "lists lesion 4 more than once"),
    ):
        (tmp_path / "wrong.json").write_text(json.dumps(content | change))
        with pytest.raises(ValueError, match=message):
            read_mined(tmp_path / "wrong.json")
    del content["val_lesion_idxs"]
    (tmp_path / "wrong.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="has no val_lesion_idxs"):
        read_mined(tmp_path / "wrong.json")
    (tmp_path / "wrong.json").write_text('[{"lesion": 3}]')
    with pytest.raises(ValueError, match="no list of lesion_idx and expanded_terms: see its entry 0"):
        read_complete(tmp_path / "wrong.json", ("a",))
