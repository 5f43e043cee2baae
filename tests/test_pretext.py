"""The common start: organs on people without a lesion, trained until its own loss settles; blobs and none beside it."""

import json
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from small_store import write_organ_scans
from test_training import interrupted

from lensnb import runfolder, settings
from lensnb.datasets import organ_maps, present
from lensnb.datasets.organ_maps import IGNORED, OrganScan
from lensnb.files import read_table
from lensnb.models.build import BACKBONES, build_lens
from lensnb.models.organs import OrganNetwork
from lensnb.models.weights import initialise
from lensnb.phantom import organ_maps as writing
from lensnb.phantom.patients import deeplesion_patients, single_type_patients, unlabelled_patients
from lensnb.phantom.rendering import render
from lensnb.runfolder import Run
from lensnb.settings import Phantom, load_profile
from lensnb.show import organ_charts
from lensnb.training import organs
from lensnb.training.augment import Drawn
from lensnb.training.blobs import PastedBlobs
from lensnb.training.loop import Validation
from lensnb.training.pretext import load_organ_network, train_pretext

STILL = Drawn(1.0, (0, 0), 0.0, (0.0, 0.0))


def spec(**changes: object) -> Phantom:
    few = {"pretext_patients": 4, "pretext_val_patients": 2, "deeplesion_patients": 3, "val_patients": 2}
    return replace(load_profile("smoke").phantom, **(few | changes))


def set_pretext(monkeypatch, **numbers: object) -> None:
    """Other numbers of the section pretext in every profile."""
    read = settings._read

    def changed(name):
        content = read(name)
        content["pretext"] |= numbers
        return content

    monkeypatch.setattr(settings, "_read", changed)


# the data


@pytest.fixture(scope="module")
def painted():
    """Patients of the pretext task with their scans and organs: (patient, hu, organ)."""
    patients = unlabelled_patients(spec(), seed=0)
    return [(p, render(p, p.studies[0], 128, 96).hu, writing.organ_map(p, 128, 96)) for p in patients]


def test_the_people_of_the_pretext_task_have_no_lesion_and_are_nobody_else(painted):
    patients = [patient for patient, _, _ in painted]
    assert len(patients) == 6 and all(not p.lesions and len(p.studies) == 1 for p in patients)
    others = [p for group in ("train", "val", "test") for p in deeplesion_patients(spec(), 0, group)]
    others += [p for name in ("LUNA16", "LiTS", "NIH-LN") for p in single_type_patients(spec(), 0, name)]
    seeds = {p.studies[0].seed for p in others}
    assert not {p.studies[0].seed for p in patients} & seeds
    scales = {p.anatomy.scale for p in others}
    assert not {p.anatomy.scale for p in patients} & scales


def test_nearly_every_voxel_has_an_organ_and_every_organ_occurs(painted):
    for _, hu, organ in painted:
        assert organ.shape == hu.shape and (organ == IGNORED).mean() < 0.02
    found = np.concatenate([organ.ravel() for _, _, organ in painted])
    counts = np.bincount(found, minlength=256)[: len(writing.ORGANS)]
    assert (counts > 0).all(), dict(zip(writing.ORGANS, counts, strict=True))


@pytest.mark.parametrize(
    ("organ", "low", "high"),
    [("air", -1010, -900), ("lung", -900, -750), ("fat", -115, -85), ("soft tissue", 30, 80), ("bone", 120, 330),
     ("fluid", -10, 30), ("liver", 45, 125), ("kidney", 30, 200), ("spleen", 40, 135)],
)  # fmt: skip
def test_an_organ_has_the_hu_that_it_is_painted_with(painted, organ, low, high):
    """So the map lies on the picture: half of an organ's voxels would be another's if it did not."""
    number = writing.ORGANS.index(organ)
    medians = [np.median(hu[found == number]) for _, hu, found in painted if (found == number).sum() > 500]
    assert medians and all(low <= median <= high for median in medians), medians


def test_codes_between_two_organs_are_of_none():
    names = writing.ORGANS
    codes = np.array([-1000, -3010, -100, 60, 250, 12, 6000, 8000, 3212, 24_000, 30_000, 44_000, 11_030, 60_000])
    assert [names[number] for number in writing.classes_of(codes)] == list(names)
    assert (writing.classes_of(np.array([-2000, -300, 10_000 - 1500, 33_000, 50_000])) == [255, 255, 7, 255, 255]).all()
    ranges = sorted(pair for pairs in writing.CLASSES.values() for pair in pairs)
    assert all(high < low for (_, high), (low, _) in zip(ranges, ranges[1:], strict=False))


def test_what_is_written_is_read_on_the_grid(tmp_path, painted):
    patient, hu, organ = painted[0]
    for split_of in (patient, replace(patient, number=5)):  # the fifth of four and two is held out
        assert writing.write_organ_map(tmp_path, spec(), split_of) == 1
        assert writing.write_organ_map(tmp_path, spec(), split_of) == 0
    writing.write_organ_names(tmp_path)
    assert organ_maps.organ_names(tmp_path) == writing.ORGANS
    assert sorted(path.name for path in (tmp_path / "pretext").iterdir()) == [
        "organs.json", "train-0001.npz", "val-0005.npz"
    ]  # fmt: skip
    assert present(tmp_path) == (), "no dataset"
    study = patient.studies[0]
    own = (study.pixel_mm, study.pixel_mm, study.slice_mm)
    (scan,) = organ_maps.read_scans(tmp_path, "train", own, len(writing.ORGANS))
    assert len(scan.hu) == len(hu) and scan.z_mm == pytest.approx(study.z_low + study.slice_mm * np.arange(len(hu)))
    # the border of air is gone, and nothing else is changed
    assert (scan.organ != writing.ORGANS.index("air")).sum() == (organ != writing.ORGANS.index("air")).sum()
    (scan,) = organ_maps.read_scans(tmp_path, "val", (3.0, 3.0, 4.0), len(writing.ORGANS))
    assert scan.hu.shape == scan.organ.shape and scan.z_mm[1] - scan.z_mm[0] == pytest.approx(4.0)
    fat = scan.hu[scan.organ == writing.ORGANS.index("fat")]
    assert np.median(fat) == pytest.approx(-100, abs=8)


def test_broken_scans_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="organs.json is missing: only phantoms know .* blobs or none"):
        organ_maps.organ_names(tmp_path)
    write_organ_scans(tmp_path / "pretext")
    with pytest.raises(ValueError, match="has organ 2; there are 2"):
        organ_maps.read_scans(tmp_path, "train", (3.0, 3.0, 4.0), 2)
    (tmp_path / "pretext" / "val-0004.npz").write_bytes(b"PK cut off")
    with pytest.raises(ValueError, match="val-0004.npz is no scan with organs"):
        organ_maps.read_scans(tmp_path, "val", (3.0, 3.0, 4.0), 3)
    (tmp_path / "pretext" / "val-0004.npz").unlink()
    with pytest.raises(FileNotFoundError, match="has no val-"):
        organ_maps.read_scans(tmp_path, "val", (3.0, 3.0, 4.0), 3)


# the task


def small_scan() -> OrganScan:
    """Organ 1 is a bright square, organ 2 a dark one, on air; slice z is at 100 mm + 4 z."""
    organ = np.zeros((9, 64, 64), np.uint8)
    organ[:, 8:28, 8:28], organ[:, 36:56, 30:54] = 1, 2
    hu = np.array([-1000, 100, -700], np.int16)[organ]
    hu[0] = 1000  # below all others
    return OrganScan(hu, organ, 100 + 4.0 * np.arange(9))


def test_organs_stay_on_their_places_when_a_slice_is_scaled_shifted_and_cropped():
    network = load_profile("smoke").network
    scan, grey = small_scan(), {0: -50, 1: 50, 2: 10}
    for drawn in (STILL, Drawn(1.2, (5, -3), 0.0, (0.9, 0.2)), Drawn(0.8, (-7, 7), 0.0, (0.0, 0.0))):
        batch = organs.organ_batch([(scan, 5)], np.array([True]), [drawn], (48, 48), network, 4)
        assert batch.slices.shape == (1, 9, 48, 48) and batch.organ.shape == (1, 12, 12)
        seen = batch.slices[0, 4, ::4, ::4]
        body = batch.organ[0] > 0
        body &= batch.organ[0] != IGNORED
        assert body.sum() > 8
        bright = seen > 100
        inner = (batch.organ[0] == 1) & bright
        assert inner.sum() >= 0.6 * (batch.organ[0] == 1).sum(), f"{grey}: edges alone may be blurred"
        assert not (bright & (batch.organ[0] == 2)).any()
    whole = organs.organ_batch([(scan, 5)], np.array([True]), [STILL], (80, 64), network, 4)
    assert (whole.organ[0, 16:] == IGNORED).all(), "beyond the slice there is no organ"
    assert whole.height.tolist() == pytest.approx([1.2])


def test_half_of_the_groups_is_turned_over_and_says_so():
    network = load_profile("smoke").network
    batch = organs.organ_batch([(small_scan(), 4)] * 2, np.array([True, False]), [STILL] * 2, (64, 64), network, 4)
    assert batch.upward.tolist() == [1, 0]
    assert torch.equal(batch.slices[0], batch.slices[1].flip(0)) and not torch.equal(batch.slices[0], batch.slices[1])
    assert batch.slices[0, 0].min() > batch.slices[0, 8].min(), "the first slice is the one at the feet"


def test_batches_follow_from_seed_and_number_alone():
    profile = load_profile("smoke")
    one, two, other = (
        organs.OrganSlices([small_scan()], profile.network, profile.training, (3, 3, 4), seed, 4, 16)
        for seed in (3, 3, 4)
    )
    forward = [one[t] for t in range(4)]
    for t in reversed(range(4)):
        again = two[t]
        assert torch.equal(again.slices, forward[t].slices) and torch.equal(again.organ, forward[t].organ)
    assert not torch.equal(other[0].slices, forward[0].slices)
    assert {value for batch in forward for value in batch.upward.tolist()} == {0.0, 1.0}


def test_slices_held_out_are_whole_and_always_the_same():
    network = load_profile("smoke").network
    batches = organs.held_out([small_scan()] * 3, network, 2, 4, 16)
    assert [len(batch.slices) for batch in batches] == [2, 1]  # one of nine slices each: the one in the middle of six
    assert all(batch.slices.shape[2:] == (64, 64) for batch in batches)
    assert torch.cat([batch.height for batch in batches]).tolist() == pytest.approx([1.12] * 3)
    assert batches[0].upward.tolist() == [1, 0]


def test_all_organs_weigh_the_same():
    scan = small_scan()
    weights = organs.organ_weights([scan, scan], 4)
    counts = np.bincount(scan.organ.ravel(), minlength=4)
    assert weights[:3] * torch.tensor(counts[:3]) == pytest.approx(float(weights[0] * counts[0]))
    assert weights[3] == 0 and weights.sum() == pytest.approx(1)


def test_losses_by_hand():
    """Two cells of which one has no organ; height 30 mm off; a direction that is a coin's."""

    def network(slices):
        return torch.tensor([[[[0.0, 9.0]], [[0.0, 0.0]]]]), torch.tensor([1.5]), torch.tensor([0.0])

    organ = torch.tensor([[[1, IGNORED]]])
    batch = organs.OrganBatch(torch.zeros(1, 9, 4, 8), organ, torch.tensor([1.2]), torch.tensor([1.0]))
    losses = organs.organ_losses(network, batch, torch.tensor([0.2, 0.8]))
    assert losses["organ"] == pytest.approx(np.log(2)) and losses["direction"] == pytest.approx(np.log(2))
    assert losses["height"] == pytest.approx(0.3**2 / 2)


# its length


def test_a_loss_has_settled_when_its_best_gains_no_more_than_a_hundredth():
    assert not organs.has_settled([], 2) and not organs.has_settled([1.0, 1.0], 2)
    assert organs.has_settled([1.0, 1.0, 1.0], 2)
    assert organs.has_settled([1.0, 0.995, 1.4], 2)
    assert not organs.has_settled([1.0, 0.98, 1.4], 2)  # more than 1 %
    assert not organs.has_settled([9.0, 1.0, 0.5, 1.1, 1.2], 3), "the best of before is 1.0"
    assert organs.has_settled([9.0, 0.5, 0.6, 0.4999, 1.1], 3)


def test_when_a_model_is_looked_at():
    every = Validation(score=lambda model: 0.0, number=0, recipe={}, every=30)
    assert (
        every.iterations(100) == [30, 60, 90, 100] and every.iterations(60) == [30, 60] and every.iterations(2) == [2]
    )


def test_a_start_stops_when_its_loss_has_settled_and_keeps_the_best_weights(tiny_store, monkeypatch):
    losses = iter([1.0, 0.5, 0.6, 0.499, 0.7, 0.8])
    monkeypatch.setattr("lensnb.training.organs.validation_loss", lambda *_: next(losses))
    set_pretext(monkeypatch, iterations=40, evaluate_every=2, patience=2, batch_size=2)
    run = Run("smoke")
    train_pretext("smoke")
    table = read_table(run.organs / "validation.csv")
    assert table["iteration"].tolist() == [2, 4, 6, 8] and table["kept"].tolist() == [False, False, False, True]
    assert (-table["score"]).tolist() == [1.0, 0.5, 0.6, 0.499]
    assert read_table(run.organs / "log.csv")["iteration"].tolist() == [8]


@pytest.fixture
def quick(tiny_store, monkeypatch):
    set_pretext(monkeypatch, iterations=6, evaluate_every=2, patience=2, batch_size=2)
    return Run("smoke")


def test_the_start_is_the_backbone_and_nothing_else(quick):
    train_pretext("smoke")
    start, whole = load_file(quick.pretext), load_file(quick.organs / "weights.safetensors")
    assert set(start) == {name for name in whole if name.startswith("backbone.")} < set(whole)
    assert all(torch.equal(value, whole[name]) for name, value in start.items())
    torch.manual_seed(5)
    model, untrained = (build_lens(load_profile("smoke").network, ("DeepLesion",)) for _ in range(2))
    initialise(model, quick.pretext)
    torch.testing.assert_close(model.backbone.stem[0].weight, start["backbone.stem.0.weight"])
    assert (model.head.fc1.weight - untrained.head.fc1.weight).abs().max() > 0, "drawn, not read"
    assert int(model.backbone.stem[1].num_batches_tracked) > 0
    network, names = load_organ_network(quick.organs)
    assert names == ("air", "soft tissue", "lung") and not network.training


def test_a_start_that_is_interrupted_ends_with_the_same_weights(quick):
    train_pretext("smoke")
    whole = {name: (quick.organs / name).read_bytes() for name in ("weights.safetensors", "log.csv", "validation.csv")}
    start = quick.pretext.read_bytes()
    for path in (*quick.organs.iterdir(), quick.pretext):
        path.unlink()
    with interrupted():
        train_pretext("smoke")
    assert not quick.pretext.exists()
    train_pretext("smoke")
    assert {name: (quick.organs / name).read_bytes() for name in whole} == whole
    assert quick.pretext.read_bytes() == start


def test_a_start_that_had_settled_is_not_trained_further(tiny_store, monkeypatch):
    """As when its weights were removed and the checkpoint was left."""
    losses = iter([1.0, 1.0, 1.0])
    monkeypatch.setattr("lensnb.training.organs.validation_loss", lambda *_: next(losses))
    set_pretext(monkeypatch, iterations=40, evaluate_every=2, patience=2, batch_size=2)
    run = Run("smoke")
    train_pretext("smoke")
    before = (run.organs / "weights.safetensors").read_bytes()
    (run.organs / "weights.safetensors").unlink()
    run.pretext.unlink()
    train_pretext("smoke")  # a further look would raise StopIteration
    assert (run.organs / "weights.safetensors").read_bytes() == before and run.pretext.exists()


def test_other_scans_make_another_start(quick, capsys):
    train_pretext("smoke")
    before = quick.pretext.read_bytes()
    capsys.readouterr()
    train_pretext("smoke")
    assert "already trained" in capsys.readouterr().out and quick.pretext.read_bytes() == before
    path = quick.raw / "pretext" / "train-0001.npz"
    with np.load(path) as file:
        content = dict(file)
    np.savez_compressed(path, **content | {"hu": content["hu"] + np.int16(30)})
    train_pretext("smoke")
    assert "scans changed" in capsys.readouterr().out and quick.pretext.read_bytes() != before


def test_it_learns_organs(tiny_store, monkeypatch):
    """In sixty steps more than half of each organ's cells; an untrained network calls all of them the same."""
    set_pretext(monkeypatch, iterations=60, evaluate_every=20, patience=9, batch_size=4)
    train_pretext("smoke")
    run, network = Run("smoke"), load_profile("smoke").network
    trained, names = load_organ_network(run.organs)
    scans = organ_maps.read_scans(run.raw, "val", (3.0, 3.0, 4.0), len(names))
    looked_at = organs.held_out(scans, network, 2, 4, 16)
    report = organs.organ_report(trained, looked_at, names)
    assert report["organ"].tolist() == list(names) and report["cells"].min() > 0
    assert (report["right"] > 0.5).all(), report
    table = read_table(run.organs / "validation.csv")
    assert table["score"].max() > table["score"][0]


# how it is shown


def test_the_pictures_of_the_start():
    network = load_profile("smoke").network
    torch.manual_seed(0)
    trained, scans = OrganNetwork(BACKBONES[network.backbone](network), 3).eval(), []
    for lowest in (400, -100, 150):
        scans.append(replace(small_scan(), z_mm=lowest + 4.0 * np.arange(9)))
    panels = organ_charts.organ_panels(trained, scans, network, 2)
    assert [panel["title"].split(" mm")[0] for panel in panels] == ["height -84", "height 416"]
    assert all((panel["hu"] == small_scan().hu[4]).all() for panel in panels)
    assert all(panel["true"].shape == panel["said"].shape == (16, 16) for panel in panels)
    fig = organ_charts.organ_sheet(panels, ("air", "bright", "dark"), 4)
    assert len(fig.axes) == 6 and [text.get_text() for text in fig.legends[0].get_texts()] == ["air", "bright", "dark"]
    (picture,) = fig.axes[2].images
    assert picture.get_extent() == [-2, 62, 62, -2], "cell 0 has its middle on pixel 0"
    log = pd.DataFrame({"iteration": [20, 40], "organ": [2.0, 1.0], "height": [0.5, 0.25]})
    looks = pd.DataFrame({"iteration": [20, 40], "score": [-1.5, -1.75], "kept": [True, False]})
    (ax,) = organ_charts.settling_chart(log, looks).axes
    training, unseen, kept = ax.lines
    assert training.get_ydata().tolist() == [2.5, 1.25] and unseen.get_ydata().tolist() == [1.5, 1.75]
    assert kept.get_label() == "kept: iteration 20" and kept.get_ydata() == [1.5]
    plt.close("all")


# the others


def test_no_pretext_leaves_random_weights_and_gives_batch_norm_its_statistics(tiny_store, monkeypatch):
    set_pretext(monkeypatch, task="none", batch_size=2)
    train_pretext("smoke")
    start = load_file(Run("smoke").pretext)
    torch.manual_seed(0)
    fresh = build_lens(load_profile("smoke").network, ["pretext"]).backbone.state_dict()
    learned = [name for name in fresh if not torch.equal(fresh[name], start[f"backbone.{name}"])]
    assert learned and {name.rsplit(".", 1)[1] for name in learned} == {
        "running_mean", "running_var", "num_batches_tracked"
    }  # fmt: skip


def test_slices_without_blobs_are_those_of_the_store(tiny_store):
    profile = load_profile("smoke")
    still = replace(profile.training, scale=(1.0, 1.0), shift_mm=0.0, crop=(), batch_size=2)
    plain, pasted = (PastedBlobs(profile.network, still, (3.0, 3.0, 4.0), tiny_store, 0, 8, most)[0] for most in (0, 3))
    assert all(len(target.lesions) == 0 for target in plain.targets)
    assert any(len(target.lesions) for target in pasted.targets)


def test_blobs_start_the_shared_layers_too(tiny_store, monkeypatch):
    set_pretext(monkeypatch, task="blobs", iterations=2, batch_size=2)
    train_pretext("smoke")
    assert {name.split(".")[0] for name in load_file(Run("smoke").pretext)} == {"backbone", "head"}
    assert (Run("smoke").pretext.parent / "log.csv").exists()


def test_an_unknown_task_is_refused(tiny_store, monkeypatch):
    set_pretext(monkeypatch, task="organ")
    with pytest.raises(ValueError, match="pretext.task is 'organ'; choose one of organs, blobs, none"):
        train_pretext("smoke")


def test_the_folder_of_the_start_has_what_the_story_says(quick):
    from lensnb.run import story

    train_pretext("smoke")
    (step,) = [step for step in story.steps("smoke") if step.name == "pretext"]
    assert all(path.is_file() for path in step.makes)
    assert {path.name for path in quick.organs.iterdir()} - {"checkpoint.pt", "weights.safetensors.made"} == {
        path.name for path in step.makes
    }
    assert step.raw == (runfolder.phantom("smoke") / "pretext",)
    assert json.loads((quick.organs / "config.json").read_text())["organs"] == ["air", "soft tissue", "lung"]
