"""Training: samples of an epoch, schedules, resuming to the same weights, two processes against one."""

from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from small_store import label_rows

from lensnb import files, settings
from lensnb.datasets import NAMES
from lensnb.files import read_table, write_table
from lensnb.models.build import build_lens, load_lens
from lensnb.models.weights import initialise
from lensnb.runfolder import Run
from lensnb.settings import load_profile
from lensnb.training import loop
from lensnb.training.augment import Drawn, canvas_size, crop_offset, draw, place_batch
from lensnb.training.blobs import paste_blob
from lensnb.training.detector import Batches, learning_rate, make_schedule, place_in_dataset, train_experiment
from lensnb.training.experiments import EXPERIMENTS, FOLDS, Experiment, available, training_labels, training_volumes
from lensnb.training.pretext import train_pretext
from lensnb.training.samples import SliceSampler, searched_slices


def test_an_epoch_has_one_slice_of_each_lesion_and_half_as_many_negatives():
    rows = [("LUNA16", "v", f"n{k}", z, "annotated") for k in range(4) for z in (1, 2, 3)]
    sampler = SliceSampler(label_rows(rows), {"v": range(6)}, negatives=True, seed=0, dataset=1)
    assert len(sampler) == 6
    for epoch in range(3):
        slices = [sampler.slice(i)[1] for i in range(6 * epoch, 6 * epoch + 6)]
        assert sum(z in (1, 2, 3) for z in slices) == 4
        assert sum(z in (0, 4, 5) for z in slices) == 2


def test_uncertain_boxes_are_neither_lesions_nor_negatives_on_their_own():
    rows = [
        ("DeepLesion", "v", "a", 2, "annotated"),
        ("DeepLesion", "v", "u", 2, "uncertain"),
        ("DeepLesion", "v", "w", 4, "uncertain"),
    ]
    sampler = SliceSampler(label_rows(rows), {"v": range(5)}, negatives=True, seed=0, dataset=0)
    assert sampler.lesions == [("v", np.array([2]))]
    assert {z for _, z in sampler.negatives} == {0, 1, 3, 4}  # slice 4 is used, its uncertain box ignored
    lesions, uncertain = sampler.target("v", 4)
    assert len(lesions) == 0 and len(uncertain) == 1


def test_samples_follow_from_seed_and_number_alone():
    rows = [("LiTS", "v", f"n{k}", z, "annotated") for k in range(5) for z in range(9)]
    one, two = (SliceSampler(label_rows(rows), {"v": range(20)}, True, 3, 1) for _ in range(2))
    forward = [one.slice(i) for i in range(30)]
    assert [two.slice(i) for i in reversed(range(30))][::-1] == forward
    other_seed = SliceSampler(label_rows(rows), {"v": range(20)}, True, 4, 1)
    assert [other_seed.slice(i) for i in range(30)] != forward


def test_negatives_of_nih_ln_come_from_the_region_that_its_case_lists():
    depths = pd.Series({"v": 20, "w": 9})
    labels = label_rows(
        [("NIH-LN", "v", "n0", z, "annotated") for z in (4, 5)] + [("NIH-LN", "v", "n1", 8, "annotated")]
    )
    assert searched_slices("NIH-LN", depths, labels) == {"v": range(4, 9)}  # w has no node that tells its region
    assert searched_slices("LUNA16", depths, labels) == {"v": range(20), "w": range(9)}


def test_nothing_to_train_on_is_an_error():
    with pytest.raises(ValueError, match="no lesion to train on"):
        SliceSampler(label_rows([("LiTS", "v", "u", 1, "uncertain")]), {"v": range(3)}, True, 0, 0)


def test_batches_are_padded_and_boxes_stay_on_their_lesions():
    settings = SimpleNamespace(scale=[0.8, 1.2], shift_mm=24.0)
    images, boxes = [], []
    for size in (40, 55):
        image = torch.zeros(9, size, size)
        image[:, 16:24, 12:24] = 1
        images.append(image)
        boxes.append(np.array([[11.5, 15.5, 23.5, 23.5], [0, 0, 5, 5]], np.float32))
    rng = np.random.default_rng(5)
    drawn = [draw(settings, (3.0, 3.0, 4.0), rng) for _ in images]
    size = canvas_size([(40, 40), (55, 55)], drawn, (), 16)
    batch, targets = place_batch(images, boxes, [1, 1], drawn, size)
    assert batch.shape[2] % 16 == 0 and batch.shape[3] % 16 == 0
    for image, target in zip(batch, targets, strict=True):
        rows, columns = np.nonzero(image[4].numpy() > 0.5)
        edges = [columns.min() - 0.5, rows.min() - 0.5, columns.max() + 0.5, rows.max() + 0.5]
        assert np.abs(target.lesions[0].numpy() - edges).max() <= 1
        assert len(target.uncertain) <= 1


def test_shifts_are_in_millimetres():
    """At the paper's 0.8 mm a pixel they are its -8 to 8 pixels; 6.4 mm are 2 pixels of 3 mm, and 3 of 2 mm."""
    settings = SimpleNamespace(scale=[0.8, 1.2], shift_mm=6.4)
    for spacing_mm, most in ((0.8, 8), (3.0, 2), (2.0, 3)):
        rng = np.random.default_rng(0)
        drawn = [draw(settings, (spacing_mm, spacing_mm, 2.0), rng) for _ in range(300)]
        for axis in (0, 1):
            assert {one.shift[axis] for one in drawn} == set(range(-most, most + 1))
    ratios = [one.ratio for one in drawn]
    assert 0.8 <= min(ratios) < 0.81 and 1.19 < max(ratios) <= 1.2, "each image has its own"
    across = {draw(settings, (0.8, 6.4, 2.0), np.random.default_rng(k)).shift[1] for k in range(50)}
    assert across == {-1, 0, 1}, "the grid's spacing of the same axis"


def whole(shift=(0, 0), chosen=0.0, corner=(0.0, 0.0), ratio=1.0) -> Drawn:
    return Drawn(ratio, shift, chosen, corner)


def test_a_crop_holds_a_whole_lesion():
    """An image of 40 x 60 pixels (height, width) and crops of 32 x 32: 28 columns and 8 rows are free."""
    lesion = np.array([[30.0, 4, 41, 12]])
    corners = [crop_offset((40, 60), lesion, whole(corner=(u, u)), (32, 32)) for u in np.linspace(0, 0.999, 400)]
    # its last column, 41, is in from corner 10 on, its first one, 30, up to 28, which is the last place; rows 0 to 4
    assert {-x for x, _ in corners} == set(range(10, 29)) and {-y for _, y in corners} == set(range(5))
    free = [crop_offset((40, 60), lesion[:0], whole(corner=(u, u)), (32, 32)) for u in np.linspace(0, 0.999, 400)]
    assert {-x for x, _ in free} == set(range(29)) and {-y for _, y in free} == set(range(9))
    # which lesion of several is drawn, too: the second lies in the right lower corner
    two = np.array([[0.0, 0, 5, 5], [50, 30, 59, 39]])
    assert crop_offset((40, 60), two, whole(chosen=0.49), (32, 32)) == (0, 0)
    assert crop_offset((40, 60), two, whole(chosen=0.51), (32, 32)) == (-28, -8)
    # larger than the crop in x: centred; columns 5 to 54 around 29.5, so 14 to 45
    assert crop_offset((40, 60), np.array([[5.0, 5, 54, 20]]), whole(corner=(0.9, 0.0)), (32, 32)) == (-14, 0)


def test_what_is_shifted_is_cropped_afterwards():
    """A lesion at columns 30 to 41 that moves 3 to the right is in from corner 13 on; 32 rows are all there are."""
    lesion = np.array([[30.0, 4, 41, 12]])
    assert crop_offset((32, 60), lesion, whole(shift=(3, -2)), (32, 32)) == (3 - 13, -2)
    assert crop_offset((20, 30), lesion[:0], whole(shift=(3, -2), corner=(0.9, 0.9)), (32, 32)) == (3, -2)


def test_a_crop_of_a_batch_by_hand():
    """Three boxes at the border of a crop of columns 10 to 41 and rows 0 to 31."""
    image = torch.arange(60.0).repeat(9, 40, 1)  # grey value: the column
    boxes = np.array(
        [
            [30, 4, 41, 12],  # inside: it decides where the crop begins
            [0, 10, 16, 18],  # 6 of 16 columns are left: uncertain
            [4, 20, 16, 30],  # 6 of 12 are left: a lesion, cut
            [0, 0, 9, 9],  # outside
            [38, 20, 45, 29],  # 3 of 7 are left, but it was uncertain before
        ],
        np.float32,
    )
    batch, (target,) = place_batch([image], [boxes], [1], [whole()], (32, 32))
    assert batch.shape == (1, 9, 32, 32) and batch[0, 4, 5].tolist() == list(range(10, 42))
    assert target.lesions.tolist() == [[20, 4, 31, 12], [0, 20, 6, 30]]
    assert target.uncertain.tolist() == [[0, 10, 6, 18], [28, 20, 31, 29]]
    # smaller than the crop: all of it, zeros around
    batch, (target,) = place_batch([image[:, :20, :20]], [boxes[1:2]], [0], [whole(corner=(0.9, 0.9))], (32, 32))
    assert batch[0, 0, 0].tolist() == [*range(20), *[0] * 12] and target.lesions.tolist() == [[0, 10, 16, 18]]


def test_a_crop_must_fit_the_backbone():
    assert canvas_size([(40, 60)], [whole()], (96, 64), 16) == (96, 64)
    for crop in ((96, 90), (96,), (0, 96)):
        with pytest.raises(ValueError, match="training.crop is .*; it must be height and width, multiples of 16"):
            canvas_size([(40, 60)], [whole()], crop, 16)
    # whole slices: each with its own ratio
    assert canvas_size([(40, 60), (50, 50)], [whole(), whole(ratio=1.2)], (), 16) == (64, 64)


def test_crops_of_a_training(tiny_store):
    """Every labelled slice keeps a lesion in its crop; a process' own part is what one process would make."""
    profile = load_profile("smoke")
    profile = replace(profile, training=replace(profile.training, crop=(32, 32)))
    experiment = EXPERIMENTS["multi"]
    labels = training_labels(experiment, tiny_store, Run("smoke"))
    batches = Batches(experiment, profile, tiny_store, labels, 0, 16)
    first, second = (Batches(experiment, profile, tiny_store, labels, 0, 16, rank, 2) for rank in (0, 1))
    for t in range(8):
        one = batches[t]
        assert one.slices.shape == (8, 9, 32, 32)
        sampler, place = batches.samplers[one.dataset], batches.place[t] * 8
        for n, target in enumerate(one.targets):
            assert len(target.lesions) == len(sampler.target(*sampler.slice(place + n))[0])
        assert torch.equal(torch.cat([first[t].slices, second[t].slices]), one.slices)
        both = [*first[t].targets, *second[t].targets]
        assert all(torch.equal(a.lesions, b.lesions) for a, b in zip(one.targets, both, strict=True))
    assert not torch.equal(Batches(experiment, profile, tiny_store, labels, 1, 16)[0].slices, batches[0].slices)
    assert torch.equal(batches[3].slices, Batches(experiment, profile, tiny_store, labels, 0, 16)[3].slices)


def test_schedule_of_iterations_and_of_epochs():
    fixed = SimpleNamespace(iterations=100, others=0.5, epochs=0, batch_size=8)
    # DeepLesion has its 100 batches whatever comes on top: in proportion, as long as that is not over a half
    assert np.bincount(make_schedule([500, 100, 50, 25], fixed, 0)).tolist() == [100, 20, 10, 5]
    assert np.bincount(make_schedule([500, 300, 150, 50], fixed, 0)).tolist() == [100, 30, 15, 5]
    assert make_schedule([9], fixed, 0).tolist() == [0] * 100
    # the control is at least as long as any joint training
    assert len(make_schedule([9], fixed, 0, 1.5)) == 150 >= len(make_schedule([500, 300, 150, 50], fixed, 0))
    epochs = SimpleNamespace(epochs=2, batch_size=4)
    schedule = make_schedule([8, 5], epochs, 0)  # 2 and 2 batches an epoch
    assert np.bincount(schedule[:4]).tolist() == np.bincount(schedule[4:]).tolist() == [2, 2]


def test_learning_rates_of_the_paper():
    steps = SimpleNamespace(learning_rate=1e-4, warmup=0, schedule="steps")
    assert [learning_rate(t, 8, steps) for t in (0, 3, 4, 5, 6, 7)] == pytest.approx(
        [1e-4, 1e-4, 1e-5, 1e-5, 1e-6, 1e-6]
    )
    cosine = SimpleNamespace(learning_rate=1.0, warmup=10, schedule="cosine")
    assert learning_rate(0, 1000, cosine) == pytest.approx(0.1)
    assert learning_rate(1000, 1000, cosine) == pytest.approx(0.02)


def test_the_paper_profile_starts_from_imagenet(tmp_path, monkeypatch):
    """The initial weights of the paper's network are the trunk of a DenseNet-121 and nothing else."""
    from torchvision.models import DenseNet121_Weights, densenet121

    published = densenet121().state_dict()
    monkeypatch.setenv("LENSNB_ROOT", str(tmp_path))
    monkeypatch.setattr(DenseNet121_Weights, "get_state_dict", lambda *_, **__: published)
    monkeypatch.setattr("lensnb.training.pretext.Store", lambda root: None)
    weights = train_pretext("paper") / "weights.safetensors"
    model = build_lens(load_profile("paper").network, ("DeepLesion",))
    initialise(model, weights)
    torch.testing.assert_close(model.backbone.stem[0].weight, published["features.conv0.weight"])
    assert not any(name.startswith(("head.", "backbone.lateral")) for name in load_file(weights))


def short(monkeypatch, iterations=6, validations=0):
    """Make the smoke profile even shorter."""
    read = settings._read

    def shortened(name):
        content = read(name)
        content["training"] |= {"iterations": iterations, "checkpoint_every": 2, "batch_size": 4,
                                "validations": validations}  # fmt: skip
        content["pretext"] |= {"iterations": 2, "batch_size": 2}
        return content

    monkeypatch.setattr(settings, "_read", shortened)


@contextmanager
def interrupted():
    """Ctrl-C when a training writes its checkpoint, unless that is the first file that it writes."""
    saved, write = [], files.atomic_write

    def interrupt(path):
        if path.name == "checkpoint.pt" and saved:
            raise KeyboardInterrupt
        saved.append(path)
        return write(path)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop, "atomic_write", interrupt)
        yield


def test_a_run_resumes_to_the_same_weights(tiny_store, tmp_path, monkeypatch):
    short(monkeypatch)
    train_pretext("smoke")
    straight = train_experiment("multi", "smoke", 0, tmp_path / "straight")

    with interrupted():
        train_experiment("multi", "smoke", 0, tmp_path / "broken")
    assert (tmp_path / "broken" / "checkpoint.pt").exists()
    resumed = train_experiment("multi", "smoke", 0, tmp_path / "broken")
    assert (straight / "weights.safetensors").read_bytes() == (resumed / "weights.safetensors").read_bytes()
    assert (straight / "log.csv").read_bytes() == (resumed / "log.csv").read_bytes()
    assert load_lens(resumed).experts == NAMES


def test_weights_that_were_removed_come_back_without_training(tiny_store, tmp_path, monkeypatch, capsys):
    """As when a step of run_all.sh is interrupted after its training: Snakemake removes what the step declares."""
    short(monkeypatch)
    train_pretext("smoke")
    run = train_experiment("single", "smoke", 0, tmp_path / "run")
    before = {name: (run / name).read_bytes() for name in ("weights.safetensors", "log.csv")}
    for name in before:
        (run / name).unlink()
    capsys.readouterr()
    train_experiment("single", "smoke", 0, run)
    assert "iteration" not in capsys.readouterr().out
    assert {name: (run / name).read_bytes() for name in before} == before
    loop.remove_checkpoint(run)
    assert not (run / "checkpoint.pt").exists()


@pytest.mark.parametrize("changed", ["settings", "labels", "start"])
def test_a_checkpoint_of_something_else_is_not_continued(tiny_store, tmp_path, monkeypatch, capsys, changed):
    short(monkeypatch)
    train_pretext("smoke")
    run = train_experiment("single", "smoke", 0, tmp_path / "run")
    (run / "weights.safetensors").unlink()
    if changed == "settings":
        short(monkeypatch, iterations=8)
    elif changed == "labels":
        boxes = tiny_store.boxes.assign(x2=tiny_store.boxes["x2"] + 1)
        write_table(boxes, tiny_store.root / "boxes.csv")
    else:
        Run("smoke").pretext.unlink()
        train_pretext("smoke", 0)  # from its own checkpoint: the same weights, so nothing has changed yet
        weights = load_file(Run("smoke").pretext)
        name = next(iter(weights))
        save_file(weights | {name: weights[name] + 1}, Run("smoke").pretext)
    capsys.readouterr()
    train_experiment("single", "smoke", 0, run)
    printed = capsys.readouterr().out
    assert "begins again" in printed and "iteration" in printed


def test_an_unknown_word_for_labels_is_refused():
    with pytest.raises(ValueError, match="labels 'mind' is none of annotated, mined"):
        Experiment("typo", "a misspelt word must not train on the hidden truth", labels="mind")
    with pytest.raises(ValueError, match="labels 'cross-slice' is none of"):
        replace(EXPERIMENTS["single-mined"], labels="cross-slice")


def test_each_batch_is_the_next_of_its_dataset():
    assert place_in_dataset(np.array([0, 1, 0, 0, 2, 1])).tolist() == [0, 0, 1, 2, 0, 1]


def test_unknown_experiment_and_missing_pretext_are_clear_errors(tiny_store, monkeypatch):
    short(monkeypatch)
    with pytest.raises(ValueError, match="choose one of baseline"):
        train_experiment("nonsense", "smoke")
    with pytest.raises(FileNotFoundError, match="python -m lensnb pretext"):
        train_experiment("single", "smoke")


def test_labels_of_experiments(tiny_store):
    run = Run("smoke")
    assert set(training_labels(EXPERIMENTS["single"], tiny_store, run)["dataset"]) == {"DeepLesion"}
    with pytest.raises(FileNotFoundError, match="cross-slice"):
        training_labels(EXPERIMENTS["multi-mined"], tiny_store, run)
    with pytest.raises(ValueError, match="only phantoms"):
        training_labels(EXPERIMENTS["single-complete"], tiny_store, run)
    assert "oracle-mined" in available(phantoms=True) and "oracle-mined" not in available(phantoms=False)


def test_each_embedding_has_its_own_mined_labels(tiny_store):
    run, rows = Run("smoke"), label_rows([("DeepLesion", "DeepLesion-0", "x", 3, "cross-slice")])
    for name in ("cross-slice", "intra-patient", "cross-dataset"):
        write_table(rows.assign(lesion=name), run.mined(name))
        write_table(rows.assign(lesion=f"simpler {name}"), run.mined(name, embedding="simpler"))
    found = {
        name: training_labels(EXPERIMENTS[name], tiny_store, run) for name in ("multi-mined", "multi-mined-simpler")
    }
    new = {name: set(table["lesion"]) - set(tiny_store.boxes["lesion"]) for name, table in found.items()}
    assert new["multi-mined"] == {"cross-slice", "intra-patient", "cross-dataset"}
    assert new["multi-mined-simpler"] == {"cross-slice", "simpler intra-patient", "simpler cross-dataset"}
    plain, after = (EXPERIMENTS[name] for name in ("multi-mined-simpler", "multi-mined"))
    same = ("datasets", "proposal_network", "negatives")
    assert [getattr(plain, name) for name in same] == [getattr(after, name) for name in same]
    assert "multi-mined-simpler" not in available(phantoms=True), "notebook 17 trains it; no row of Table II needs it"


def test_a_fold_never_sees_its_half_of_the_patients(tiny_store):
    run, rows = Run("smoke"), [("DeepLesion", f"DeepLesion-{i}", f"x{i}", 3, "cross-slice") for i in (0, 1)]
    for name in ("cross-slice", "intra-patient", "cross-dataset"):
        write_table(label_rows(rows), run.mined(name))
    universal = {"DeepLesion-0", "DeepLesion-1"}
    every = set(training_volumes(EXPERIMENTS["multi-mined"], tiny_store.volumes).index)
    left_out = []
    for name in FOLDS:
        plan = EXPERIMENTS[name]
        seen = set(training_volumes(plan, tiny_store.volumes).index)
        assert seen >= every - universal and replace(plan, left_out=None, name="", title="") == replace(
            EXPERIMENTS["multi-mined"], name="", title=""
        )
        labels = training_labels(plan, tiny_store, run)
        assert set(labels["volume"]) == seen and "cross-slice" in set(labels["source"])
        batches = Batches(plan, load_profile("smoke"), tiny_store, labels, 0, 16)
        drawn = {batches.samplers[0].slice(i)[0] for i in range(20)}  # unlabelled slices are negatives, too
        assert drawn == seen & universal
        left_out.append(every - seen)
    assert left_out[0] | left_out[1] == universal and not left_out[0] & left_out[1]
    assert not set(FOLDS) & set(available(phantoms=True)), "notebook 10 may use them; no row of Table II needs them"


def test_oracle_labels_are_what_matching_could_reach(tiny_store):
    rows = [("DeepLesion", "DeepLesion-0", "t1", 3, "truth"), ("DeepLesion", "DeepLesion-0", "t2", 3, "truth")]
    truth = label_rows(rows).assign(patient="p", identity=[1, 2], marked=[True, False])
    again = label_rows([("DeepLesion", "DeepLesion-1", "t3", 1, "truth")]).assign(patient="p", identity=1, marked=False)
    tiny_store.truth = pd.concat([truth, again])
    assert len({EXPERIMENTS[name].negatives for name in ("oracle-mined", "oracle-ignored", "single-complete")}) == 1
    mined = training_labels(EXPERIMENTS["oracle-mined"], tiny_store, Run("smoke"))
    assert mined["lesion"].tolist() == ["t1", "t3"]
    ignored = training_labels(EXPERIMENTS["oracle-ignored"], tiny_store, Run("smoke"))
    assert ignored.set_index("lesion")["source"].to_dict() == {"t1": "truth", "t2": "uncertain", "t3": "truth"}


def test_complete_labels_of_the_same_slices(tiny_store):
    """The key slices get all their lesions, and no other slice gets any: slices of `single`, labels of the truth."""
    single = training_labels(EXPERIMENTS["single"], tiny_store, Run("smoke"))
    volume, z = single.iloc[0][["volume", "z"]]
    elsewhere = z + 1  # the annotated lesion goes on there, and nobody drew it
    rows = [("DeepLesion", volume, f"t{n}", at, "truth") for n, at in enumerate((z, z, elsewhere, elsewhere))]
    tiny_store.truth = label_rows(rows).assign(patient="p", identity=range(4), marked=False)
    keys = training_labels(EXPERIMENTS["single-complete-keys"], tiny_store, Run("smoke"))
    assert keys["lesion"].tolist() == ["t0", "t1"] and set(keys["source"]) == {"truth"}
    assert not EXPERIMENTS["single-complete-keys"].negatives and not EXPERIMENTS["single"].negatives
    whole = training_labels(EXPERIMENTS["single-complete"], tiny_store, Run("smoke"))
    assert whole["lesion"].tolist() == ["t0", "t1", "t2", "t3"]
    assert "single-complete-keys" in available(phantoms=True) and "single-complete-keys" not in available(
        phantoms=False
    )


def test_pasted_blob_lies_in_its_box():
    group = np.zeros((9, 64, 64), np.float32)
    box = None
    rng = np.random.default_rng(1)
    while box is None:
        group[:] = 0
        box = paste_blob(group, [3.0, 3.0, 4.0], rng)
    rows, columns = np.nonzero(np.abs(group[4]) > 0.5 * np.abs(group).max())
    assert box[0] <= columns.min() and columns.max() <= box[2]
    assert box[1] <= rows.min() and rows.max() <= box[3]


def test_tables_survive_writing_with_the_same_bytes(tmp_path):
    table = pd.DataFrame({"volume": ["b", "a", "b"], "z": [1, 2, 3], "score": [0.1, 1 / 3, np.nan]})
    for name in ("t.csv", "t.npz"):
        write_table(table, tmp_path / name)
        first = (tmp_path / name).read_bytes()
        write_table(table, tmp_path / name)
        assert (tmp_path / name).read_bytes() == first
        back = read_table(tmp_path / name).astype({"volume": str})
        pd.testing.assert_frame_equal(back, table)
