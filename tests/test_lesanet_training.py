"""LesaNet's network and its training: VGG-16's weights, batches, what each method switches on, and resuming."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import torchvision
from test_lesanet import NETWORK, TinyStore

from lensnb import runfolder
from lensnb.lesanet import losses, prediction, recognition, training
from lensnb.lesanet.label_files import PUBLISHED, MinedLabels, write_mined
from lensnb.lesanet.lesions import LabelledLesions, labelled_lesions, resplit, unlabelled_lesions
from lensnb.lesanet.methods import METHODS, TABLE1
from lensnb.lesanet.ontology import Ontology, unrelated
from lensnb.lesanet.training import LesionBatch, comparable, method_losses, rows_of_batch, targets_of
from lensnb.lesanet.views import plain_views, random_views
from lensnb.models.lesanet import LesaNet, load_imagenet
from lensnb.settings import load_profile

CONFIG = replace(
    load_profile("smoke").lesanet, patch_mm=96, patch_px=32, slice_gap_mm=4.0, widths=(4, 6, 8, 8, 8),
    convolutions=(1, 1, 1, 1, 1), pooled=3,
    features=8, embedding=16, imagenet=False, iterations=12, batch_size=12, views=2, learning_rate=0.05, drops=(0.67,),
    weight_decay=1e-4, gradient_clip=10.0, hard_examples=500, gamma=2.0, triplets=200, theta=1.0, margin=0.1,
    triplet_weight=5.0, same_patient=False, near=0.1, alike_mm=5.0, shift_mm=6.0, scale=(0.9, 1.1), slice_shift=0.25,
    box_jitter=0.08, gain=0.05, noise=0.05, checkpoint_every=5,
)  # fmt: skip
PROFILE = replace(load_profile("paper"), lesanet=CONFIG, training=replace(load_profile("paper").training, threads=1))
VGG16 = SimpleNamespace(
    widths=[64, 128, 256, 512, 512], convolutions=[2, 2, 3, 3, 3], pooled=5, features=256, embedding=256
)


def relation(*pairs):
    matrix = np.zeros((4, 4), dtype=bool)
    for a, b in pairs:
        matrix[a, b] = True
    return matrix


# body > liver; dark x bright; the blobs of TinyStore are dark (even lesions) or bright (odd ones)
NAMES = ("abdomen", "liver", "dark", "bright")
EXCLUSIVE = relation((2, 3), (3, 2))
ONTOLOGY = Ontology(
    NAMES, ("bodypart", "bodypart", "attribute", "attribute"), ((),) * 4,
    relation((1, 0)), EXCLUSIVE, relation((1, 0)), EXCLUSIVE,
)  # fmt: skip


def mined_labels():
    """Lesions 0 to 19 of TinyStore, which has no lesion 50."""
    lesions = pd.DataFrame({"split": ["train"] * 16 + ["val"] * 4 + ["test"], "row": [*range(20), 50]})
    row = lesions["row"].to_numpy()
    relevant = np.stack([np.zeros(21, bool), row % 4 < 2, row % 2 == 0, row % 2 == 1], axis=1)
    uncertain, irrelevant = np.zeros((21, 4), bool), np.zeros((21, 4), bool)
    uncertain[2, 1] = irrelevant[3, 0] = True
    relevant[15] = False
    return MinedLabels(NAMES, lesions, relevant, uncertain, irrelevant)


@pytest.fixture(scope="module")
def dl_info(tmp_path_factory):
    path = tmp_path_factory.mktemp("raw") / "DL_info.csv"
    places = [f"0.{k:02d}, 0.5, 0.25" for k in range(51)]
    pd.DataFrame({"Normalized_lesion_location": places}).to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def lesions(dl_info):
    return labelled_lesions(mined_labels(), TinyStore(), "train", dl_info)


# --- network ----------------------------------------------------------------------------------------------------


def test_the_published_network_has_24721615_parameters():
    with torch.device("meta"):
        model = LesaNet(VGG16, labels=171)
    assert sum(p.numel() for p in model.parameters()) == 24_721_615
    assert sum(p.numel() for p in model.stages.parameters()) == 14_723_136


def test_imagenet_weights_make_the_stages_torchvisions(monkeypatch):
    torch.manual_seed(0)
    layers = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs["D"], batch_norm=True)
    published = torch.nn.ModuleDict({"features": layers}).eval()
    weights = torchvision.models.VGG16_BN_Weights
    monkeypatch.setattr(weights, "get_state_dict", lambda self, progress: published.state_dict())
    model = LesaNet(VGG16, labels=2).eval()
    load_imagenet(model)
    x = torch.randn(1, 3, 48, 48)
    with torch.no_grad():
        ours = x
        for level, stage in enumerate(model.stages):
            ours = stage(ours if level == 0 else torch.nn.functional.max_pool2d(ours, 2))
        assert torch.equal(ours, layers[:-1](x))  # all but the last pooling
    with pytest.raises(ValueError, match="0.0.weight: give it VGG-16's widths"):
        load_imagenet(LesaNet(CONFIG, labels=2))


def test_imagenet_weights_that_cannot_be_had_say_what_to_do(monkeypatch):
    def refuse(self, progress):
        raise OSError("no route to host")

    monkeypatch.setattr(torchvision.models.VGG16_BN_Weights, "get_state_dict", refuse)
    with pytest.raises(RuntimeError, match="no route to host.*checkpoints.*lesanet.imagenet: false"):
        load_imagenet(LesaNet(CONFIG, labels=0))


# --- lesions ----------------------------------------------------------------------------------------------------


def test_lesions_are_found_by_their_row_and_get_their_cues(lesions, dl_info, capsys):
    assert lesions.table["lesion"].tolist() == [f"dl{k:05d}" for k in range(16)]
    third = lesions.table.iloc[3]
    assert third[["place_x", "place_y", "place_z"]].tolist() == [0.03, 0.5, 0.25]
    assert third[["long_mm", "short_mm"]].tolist() == [21, 15], "boxes of 5 x 7 pixels of 3 mm"
    missing = labelled_lesions(mined_labels(), TinyStore(), "test", dl_info)
    assert (
        len(missing) == 0
        and "test: 1 of 1 lesions with labels are not in the prepared store" in capsys.readouterr().out
    )


def test_patients_are_dealt_out_again():
    def some(patients):
        table = pd.DataFrame(
            {"patient": [str(p) for p in patients], "lesion": [f"l{p}-{k}" for k, p in enumerate(patients)]}
        )
        marks = np.array([[p % 2 == 0] for p in patients])
        return LabelledLesions(table, marks, ~marks, marks)

    train, val = some([1, 1, 2, 3, 4, 4, 5]), some([6, 7, 7])
    splits = set()
    for seed in range(6):
        a, b = resplit(train, val, seed)
        assert len(a) + len(b) == 10 and b.table["patient"].nunique() == 2
        assert not set(a.table["patient"]) & set(b.table["patient"])
        for part in (a, b):
            assert (part.relevant[:, 0] == (part.table["patient"].astype(int) % 2 == 0)).all(), (
                "labels stay with lesions"
            )
        splits.add(tuple(b.table["patient"]))
    assert len(splits) > 2


# --- batches and methods ----------------------------------------------------------------------------------------


def test_an_epoch_has_every_lesion_at_most_once():
    first = [rows_of_batch(t, 10, 3, seed=0) for t in range(3)]
    assert len(np.unique(np.concatenate(first))) == 9 and all(len(rows) == 3 for rows in first)
    second = [rows_of_batch(t, 10, 3, seed=0) for t in range(3, 6)]
    assert not np.array_equal(np.concatenate(first), np.concatenate(second))
    assert sorted(rows_of_batch(7, 4, 64, seed=0)) == [0, 1, 2, 3]


def test_what_methods_take_for_true(lesions):
    true = {name: targets_of(lesions, METHODS[name], ONTOLOGY).labels for name in METHODS}
    assert true["lesanet"][0].tolist() == [True, True, True, False], "liver brings abdomen"
    assert true["cnn"][0].tolist() == [False, True, True, False]
    assert true["lesanet"][2].tolist() == [False, True, True, False], "an uncertain label counts, what follows is open"
    assert targets_of(lesions, METHODS["lesanet"], ONTOLOGY).unknown[2].tolist() == [True, False, False, False]
    assert true["without-text-mining"][3].tolist() == [True, False, False, True]
    assert true["lesanet"][3].tolist() == [False, False, False, True]
    assert (true["simpler"] == true["lesanet"]).all()
    assert not targets_of(lesions, METHODS["simpler"], ONTOLOGY).unknown.any(), "what is not true is false"
    expanded = replace(lesions, relevant=true["lesanet"])
    assert (targets_of(expanded, METHODS["cnn"], ONTOLOGY).labels == true["cnn"]).all(), "parents are taken away again"


def test_methods_are_those_of_the_paper(lesions):
    assert [METHODS[name].title for name in TABLE1] == [
        "Multiscale multilabel CNN", "WARP", "Lesion embedding", "LesaNet", "w/o score propagation layer", "w/o RHEM",
        "w/o label expansion", "w/o text-mining module", "w/o triplet loss",
    ]  # fmt: skip
    torch.manual_seed(0)
    model = LesaNet(CONFIG, 4)
    targets = targets_of(lesions, METHODS["lesanet"], ONTOLOGY)
    batch = LesionBatch.of_all(lesions, targets, ONTOLOGY)
    weights = losses.label_weights(batch.labels)
    patches, boxes = torch.rand(16, 3, 32, 32), torch.tensor([[10.0, 10, 20, 20]] * 16)

    def parts(name):
        return method_losses(
            model, patches, boxes, batch, weights=weights, method=METHODS[name], config=CONFIG,
            generator=torch.Generator().manual_seed(0),
        )  # fmt: skip

    names = {name: set(parts(name)) for name in METHODS}
    everything = {"scores", "hard_examples", "propagated", "triplet"}
    assert names["lesanet"] == names["without-expansion"] == names["without-text-mining"] == everything
    assert names["cnn"] == names["warp"] == names["cnn-expansion"] == {"scores"}
    assert names["without-propagation"] == everything - {"propagated"}
    assert names["without-hard-examples"] == names["simpler"] == everything - {"hard_examples"}
    assert names["without-triplet"] == everything - {"triplet"}
    assert names["cnn-propagation"] == {"scores", "propagated"} and names["cnn-triplet"] == {"scores", "triplet"}
    assert names["cnn-hard-examples"] == {"scores", "hard_examples"} and names["older"] == {"sequence", "scores"}
    parts("older")["scores"].backward()
    assert model.scores.weight.grad.any() and model.stages[0][0].weight.grad is None, "labels do not shape its features"


def test_pairs_of_one_patient_in_two_volumes_are_left_out_if_asked(lesions):
    targets = targets_of(lesions, METHODS["lesanet"], ONTOLOGY)
    batch = LesionBatch.of_all(lesions, targets, ONTOLOGY).select(np.array([0, 1, 2, 4]))  # volumes 0, 0, 1, 2
    assert lesions.table["volume"].iloc[[0, 1, 2, 4]].tolist() == ["0_0", "0_0", "1_1", "0_2"]
    off = ~np.eye(4, dtype=bool)
    assert (comparable(batch, same_patient=True).numpy() == off).all()
    off[[0, 1, 3, 3], [3, 3, 0, 1]] = False
    assert (comparable(batch, same_patient=False).numpy() == off).all()


def test_training_resumes_to_the_same_weights_and_predicts(lesions, dl_info, tmp_path, monkeypatch):
    store = TinyStore()
    whole = training.train_method("lesanet", lesions, ONTOLOGY, store, PROFILE, 0, tmp_path / "whole")
    calls = []

    def stop_in_iteration_8(*arguments, **named):
        calls.append(None)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return method_losses(*arguments, **named)

    monkeypatch.setattr(training, "method_losses", stop_in_iteration_8)
    with pytest.raises(KeyboardInterrupt):
        training.train_method("lesanet", lesions, ONTOLOGY, store, PROFILE, 0, tmp_path / "parts")
    parts = training.train_method("lesanet", lesions, ONTOLOGY, store, PROFILE, 0, tmp_path / "parts")
    assert len(calls) == 8 + 7, "goes on from the checkpoint after iteration 5"
    for name in ("weights.safetensors", "log.csv", "config.json"):
        assert (whole / name).read_bytes() == (parts / name).read_bytes()
    about = json.loads((whole / "config.json").read_text())
    assert about["lesions"] == 15, "a lesion without labels is not trained on"
    assert about["labels"] == list(NAMES) and about["method"] == "lesanet"
    assert training.train_method("lesanet", lesions, ONTOLOGY, store, PROFILE, 0, whole) == whole and len(calls) == 15

    model, config = prediction.load_network(whole, "training")
    embeddings, scores = prediction.predict(model, store, lesions.table, config, NETWORK, batch=7)
    assert embeddings.shape == (16, 16) and np.allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)
    assert scores.shape == (16, 4) and scores.min() > 0 and scores.max() < 1
    some = np.array([11, 2, 7])
    again = prediction.predict(model, store, lesions.table.iloc[some], config, NETWORK)
    assert np.allclose(again[0], embeddings[some], atol=1e-5) and np.allclose(again[1], scores[some], atol=1e-5)


def test_it_learns_what_can_be_seen(lesions, tmp_path):
    """Bright blobs are told from dark ones after some dozen steps, and by each kind of loss."""
    config = replace(CONFIG, iterations=25, patch_px=24)
    profile = replace(PROFILE, lesanet=config)
    for name in ("lesanet", "cnn", "warp", "older"):
        out = training.train_method(name, lesions, ONTOLOGY, TinyStore(), profile, 0, tmp_path / name)
        model, config = prediction.load_network(out, "training")
        scores = prediction.predict(model, TinyStore(), lesions.table, config, NETWORK)[1]
        dark = np.arange(15) % 2 == 0
        assert scores[:15][dark, 2].min() > scores[:15][~dark, 2].max(), name


def test_the_simpler_embedding_has_two_random_views_whatever_the_profile_says(lesions, tmp_path):
    still = {"views": 1, "same_patient": True, "shift_mm": 0.0, "scale": [1.0, 1.0], "noise": 0.0, "iterations": 2}
    profile = replace(PROFILE, lesanet=replace(CONFIG, **still))
    about = {}
    for name in ("lesanet", "simpler"):
        out = training.train_method(name, lesions, ONTOLOGY, TinyStore(), profile, 0, tmp_path / name)
        about[name] = json.loads((out / "config.json").read_text())
    assert about["lesanet"] | still == about["lesanet"] and about["lesanet"]["method"] == "lesanet"
    assert {key for key, value in about["simpler"].items() if about["lesanet"][key] != value} == {
        "method", "views", "same_patient", "shift_mm", "scale", "noise",
    }  # fmt: skip
    assert about["simpler"]["views"] == 2 and not about["simpler"]["same_patient"]


def test_views_of_lesions_train_an_embedding_without_labels(dl_info, tmp_path):
    """Neither labels nor an ontology: two views of a lesion are alike, all else differs."""
    lesions, nothing = unlabelled_lesions(TinyStore(), dl_info), unrelated(())
    assert len(lesions) == 20 and lesions.relevant.shape == (20, 0) and lesions.table["place_x"][7] == 0.07
    out = training.train_method("simpler", lesions, nothing, TinyStore(), PROFILE, 0, tmp_path / "run")
    about = json.loads((out / "config.json").read_text())
    assert about["labels"] == [] and about["lesions"] == 20
    assert list(pd.read_csv(out / "log.csv").columns) == ["iteration", "triplet"]
    model, config = prediction.load_network(out, "training")
    embeddings, scores = prediction.predict(model, TinyStore(), lesions.table, config, NETWORK)
    assert np.allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5) and scores.shape == (20, 0)


def test_views_of_one_lesion_are_alike_by_hand():
    """Three lesions, twice each: a triplet's first two rows are one lesion, the third is another."""
    batch = SimpleNamespace(lesion=torch.tensor([0, 1, 2, 0, 1, 2]))
    expected = torch.eye(3).repeat(2, 2)
    assert torch.equal(training._one_lesion(batch), expected)


@pytest.mark.parametrize("ontology", [True, False])
def test_the_simpler_embedding_learns_from_what_there_is(ontology, dl_info, tmp_path, monkeypatch, capsys):
    """With a published label file, with and without its ontology; then without labels."""
    monkeypatch.setenv("LENSNB_ROOT", str(tmp_path))
    folder = runfolder.raw("smoke") / "DeepLesion"
    folder.mkdir(parents=True)
    (folder / "DL_info.csv").write_text(dl_info.read_text())
    write_mined(mined_labels(), folder / PUBLISHED)
    if ontology:
        lines = ["class,term,synonyms,term_exclusive,term_parents", "bodypart,abdomen,,,", "bodypart,liver,,,abdomen"]
        lines += ["attribute,dark,,bright,", "attribute,bright,,,"]
        (folder / "lesion_ontology.csv").write_text("\n".join(lines) + "\n")
    profile = replace(PROFILE, lesanet=replace(CONFIG, iterations=2))
    monkeypatch.setattr(recognition, "load_profile", lambda name: profile)
    monkeypatch.setattr(recognition, "Store", lambda folder: TinyStore())
    given = []
    train = recognition.train_method
    monkeypatch.setattr(recognition, "train_method", lambda *known: given.append(known) or train(*known))
    out = recognition.train_simpler("smoke")
    assert out == runfolder.runs("smoke") / "embedding"
    name, lesions, known = given[0][:3]
    assert name == "simpler" and known.labels == NAMES and len(lesions) == 16
    assert known.parents.any() == known.exclusive.any() == ontology
    capsys.readouterr()
    assert recognition.train_simpler("smoke") == out and "already trained" in capsys.readouterr().out
    (folder / PUBLISHED).unlink()
    (out / "weights.safetensors").unlink()
    about = json.loads((recognition.train_simpler("smoke") / "config.json").read_text())
    assert about["labels"] == [] and "no text-mined labels" in capsys.readouterr().out


def test_without_labels_there_is_nothing_to_train(lesions, tmp_path):
    nothing = lesions.select(np.array([15]))
    with pytest.raises(ValueError, match="none of 1 lesions has a label"):
        training.train_method("lesanet", nothing, ONTOLOGY, TinyStore(), PROFILE, 0, tmp_path / "run")


def test_a_missing_training_says_how_to_make_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="no trained network; the notebook makes it"):
        prediction.load_network(tmp_path, "the notebook")


def test_random_views_without_any_randomness_are_the_plain_ones(lesions):
    """The paper's profile has no augmentation."""
    none = dict(shift_mm=0, scale=[1, 1], slice_shift=0, box_jitter=0, gain=0, noise=0)
    config = replace(CONFIG, **none)
    rng = np.random.default_rng(0)
    table = lesions.table.iloc[:4]
    random, plain = (
        random_views(TinyStore(), table, config, NETWORK, rng),
        plain_views(TinyStore(), table, config, NETWORK),
    )
    assert torch.equal(random[0], plain[0]) and torch.equal(random[1], plain[1])
    moved = random_views(TinyStore(), table, CONFIG, NETWORK, rng)
    assert not torch.equal(moved[0], plain[0]) and not torch.equal(moved[1], plain[1])
