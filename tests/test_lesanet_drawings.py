"""LesaNet's drawings: where words, labels and shapes stand, worked out by hand."""

import numpy as np
import pandas as pd
import torch
from test_lesanet_training import CONFIG, ONTOLOGY

from lensnb.lesanet.ontology import closure, unrelated
from lensnb.models.lesanet import LesaNet
from lensnb.show import lesanet_drawings
from lensnb.show.lesanet_drawings import lines_of, places, runs_of_line, siblings_apart, tensor_shapes

SENTENCE = "Dark node BOOKMARK, no cyst of the liver."


def words(fig) -> list[str]:
    return [text.get_text() for ax in fig.axes for text in ax.texts]


def test_a_line_is_cut_where_its_meaning_changes():
    spans = [(23, 27, "irrelevant"), (5, 9, "relevant")]
    pieces = runs_of_line(0, 20, spans)
    assert pieces == [(0, 5, ""), (5, 9, "relevant"), (9, 20, "")] and SENTENCE[5:9] == "node"
    assert runs_of_line(20, 41, spans) == [(20, 23, ""), (23, 27, "irrelevant"), (27, 41, "")]
    assert runs_of_line(7, 9, spans) == [(7, 9, "relevant")], "a mention that began on the line before"
    assert runs_of_line(10, 20, []) == [(10, 20, "")]
    # "right lung nodule": right lung, and a lung nodule
    overlap = runs_of_line(0, 17, [(6, 17, "uncertain"), (0, 10, "relevant")])
    assert overlap == [(0, 10, "relevant"), (10, 17, "uncertain")]


def test_lines_are_places_in_the_sentence():
    found = lines_of(SENTENCE, 20)
    assert [SENTENCE[a:b] for a, b in found] == ["Dark node BOOKMARK,", "no cyst of the", "liver."]
    twice = "a a a a"
    assert lines_of(twice, 3) == [(0, 3), (4, 7)], "the second line is not the first one again"


def test_mentions_have_the_colour_of_their_relation():
    mentions = pd.DataFrame({"start": [5, 23], "end": [9, 27], "relation": ["relevant", "irrelevant"]})
    labels = {"relevant": ["lymph node"], "uncertain": [], "irrelevant": ["cyst"]}
    fig = lesanet_drawings.reading({"hu": np.zeros((9, 9)), "title": "x"}, SENTENCE, mentions, labels)
    colours = {text.get_text(): text.get_color() for text in fig.axes[1].texts}
    assert colours["node"] == lesanet_drawings.RELATION_COLOURS["relevant"]
    assert colours["cyst"] != colours["node"] and colours["BOOKMARK,"] == "black"
    assert {"Dark", "liver.", "lymph node", "none"} <= set(words(fig))


def test_labels_hang_below_the_first_parent_of_their_kind():
    # abdomen > liver are body parts, dark and bright attributes; there are no types, so no column for them
    table = places(ONTOLOGY)
    assert table["label"].tolist() == ["abdomen", "liver", "dark", "bright"]
    assert table[["column", "line", "depth", "above"]].to_numpy().tolist() == [
        [0, 0, 0, -1], [0, 1, 1, 0], [1, 0, 0, -1], [1, 1, 0, -1]
    ]  # fmt: skip
    assert places(ONTOLOGY, lines=1)["column"].tolist() == [0, 1, 2, 3], "a full column goes on in the next"


def test_grandparents_and_further_parents():
    """c is below b, which is below a, and below d; the pair of c and a follows, and is no line of the drawing."""
    parents = closure(np.array([[0, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 1], [0, 0, 0, 0]], dtype=bool))
    known = unrelated(("a", "b", "c", "d"))
    known = type(known)(**(vars(known) | {"parents": parents}))
    table = places(known)
    assert table[["line", "depth", "above"]].to_numpy().tolist() == [[0, 0, -1], [1, 1, 0], [2, 2, 1], [3, 0, -1]]
    assert "+ d" in words(lesanet_drawings.label_tree(known))


def test_only_exclusive_siblings_are_joined():
    above = places(ONTOLOGY)["above"].to_numpy()
    assert siblings_apart(ONTOLOGY, above) == [(2, 3)], "dark and bright, both ways round once"
    other = ONTOLOGY.listed_exclusive.copy()
    other[1, 2] = True  # a body part below another and an attribute below none
    changed = type(ONTOLOGY)(**(vars(ONTOLOGY) | {"listed_exclusive": other}))
    assert siblings_apart(changed, above) == [(2, 3)]
    assert len(lesanet_drawings.label_tree(ONTOLOGY).axes[0].patches) == 1


def test_shapes_are_those_of_the_network():
    # widths 4, 6, 8, 8, 8; 32 pixels are halved from stage to stage; 8 features, an embedding of 16, 4 labels
    model = LesaNet(CONFIG, 4).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    shapes = tensor_shapes(model, 32)
    stages = [shapes[f"stages.{i}"] for i in range(5)]
    assert stages == [(4, 32, 32), (6, 16, 16), (8, 8, 8), (8, 4, 4), (8, 2, 2)]
    assert all(shapes[f"project.{i}"] == (8,) for i in range(5))
    assert (shapes["embedding"], shapes["scores"], shapes["propagate"]) == ((16,), (4,), (4,))
    assert model.training and all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(layer._forward_hooks for layer in model.modules())
    drawn = words(lesanet_drawings.network(model, 32))
    assert "joined: 40" in drawn and "stage 3\n8 x 8 x 8" in drawn and "scores\n4" in drawn
