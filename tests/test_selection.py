"""Which weights a training ends with: the best on validation patients, whatever interrupts it."""

import pickle
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from test_training import short

from lensnb import files
from lensnb.datasets.manual_boxes import MANUAL_FILE
from lensnb.datasets.store import Store
from lensnb.detection import selection
from lensnb.files import read_table, write_table
from lensnb.models.build import build_lens, load_lens
from lensnb.runfolder import Run
from lensnb.settings import load_profile
from lensnb.training import loop
from lensnb.training.detector import train_experiment
from lensnb.training.loop import Course, Validation, fit, remove_checkpoint
from lensnb.training.pretext import train_pretext

RUN_FILES = ("weights.safetensors", "log.csv", "validation.csv", "config.json")


class Ladder(torch.nn.Module):
    """One weight that each step of training raises by one."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return -self.weight.sum() * x


def climb(folder, scores: dict[int, float], length: int = 10, stop: int = 0, **options) -> Ladder:
    """Train a Ladder whose score after so many steps is given; `stop`: break off after so many steps."""
    model = Ladder()
    batches = [torch.ones(()) for _ in range(length)]
    asked = []

    def score(module: Ladder) -> float:
        assert not module.training
        asked.append(round(module.weight.item()))
        return scores[asked[-1]]

    def losses_of(module: Ladder, x: torch.Tensor) -> dict[str, torch.Tensor]:
        if stop and module.weight.item() >= stop:
            raise KeyboardInterrupt
        return {"loss": module(x)}

    validation = Validation(score, options.pop("number", 5), {"truth": "t"}, **options)
    course = Course(lambda t: 1.0, gradient_clip=10.0, checkpoint_every=2)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    fit(model, batches, losses_of, optimizer, course, folder, {}, {}, validation=validation)
    model.asked = asked
    return model


def test_the_weights_with_the_best_score_are_kept_and_the_first_of_equals(tmp_path):
    model = climb(tmp_path / "a", {6: 0.1, 7: 0.4, 8: 0.3, 9: 0.4, 10: 0.2})
    assert model.asked == [6, 7, 8, 9, 10] and model.weight.item() == 7
    assert load_file(tmp_path / "a" / "weights.safetensors")["weight"].item() == 7
    table = read_table(tmp_path / "a" / "validation.csv")
    assert table.to_dict("list") == {
        "iteration": [6, 7, 8, 9, 10], "score": [0.1, 0.4, 0.3, 0.4, 0.2],
        "kept": [False, True, False, False, False],
    }  # fmt: skip
    assert climb(tmp_path / "b", {8: -2.0, 10: -1.0}, number=2).asked == [8, 10]
    with pytest.raises(FloatingPointError, match="c: the score on validation data is nan at iteration 6"):
        climb(tmp_path / "c", {6: float("nan")})


def test_evenly_over_the_second_half():
    look = Validation(lambda model: 0.0, 4, {})
    assert look.iterations(800) == [500, 600, 700, 800], "after epochs 5 to 8 of 8"
    assert replace(look, number=5).iterations(2800) == [1680, 1960, 2240, 2520, 2800]
    assert replace(look, number=5).iterations(3) == [2, 3], "never twice"
    assert replace(look, every=300).iterations(800) == [300, 600, 800]


@pytest.mark.parametrize("stop", [1, 5, 7, 8, 10])
def test_an_interrupted_training_keeps_the_same_weights(tmp_path, stop):
    scores = {6: 0.1, 7: 0.4, 8: 0.3, 9: 0.2, 10: 0.2}
    climb(tmp_path / "straight" / "x", scores)
    with pytest.raises(KeyboardInterrupt):
        climb(tmp_path / "broken" / "x", scores, length=11 if stop == 10 else 10, stop=stop)
    if stop < 10:
        again = climb(tmp_path / "broken" / "x", scores)
        assert len(again.asked) == sum(place > stop for place in scores), "what was looked at is not looked at again"
        for name in RUN_FILES:
            straight, broken = (tmp_path / kind / "x" / name for kind in ("straight", "broken"))
            assert straight.read_bytes() == broken.read_bytes(), name


def test_weights_that_were_removed_come_back_as_the_best(tmp_path):
    scores = {6: 0.1, 7: 0.4, 8: 0.3, 9: 0.2, 10: 0.2}
    climb(tmp_path / "x", scores)
    before = {name: (tmp_path / "x" / name).read_bytes() for name in RUN_FILES}
    for name in RUN_FILES[:3]:
        (tmp_path / "x" / name).unlink()
    assert climb(tmp_path / "x", {}).asked == []
    assert {name: (tmp_path / "x" / name).read_bytes() for name in RUN_FILES} == before
    remove_checkpoint(tmp_path / "x")
    (tmp_path / "x" / "validation.csv").unlink()
    assert climb(tmp_path / "x", scores).asked == [6, 7, 8, 9, 10], "validation.csv belongs to the run"


def test_a_training_may_end_when_it_has_settled(tmp_path):
    scores = {2: 0.1, 4: 0.5, 6: 0.5, 8: 0.9, 10: 0.9}
    options = {"every": 2, "number": 0, "settled": lambda found: len(found) > 1 and found[-1] <= found[-2]}
    ended = {}
    for name in ("straight", "broken"):
        if name == "broken":
            with pytest.raises(KeyboardInterrupt):
                climb(tmp_path / name, scores, stop=5, **options)
        ended[name] = climb(tmp_path / name, scores, **options)
        assert ended[name].weight.item() == 4 and read_table(tmp_path / name / "log.csv")["iteration"].tolist() == [6]
    assert ended["straight"].asked == [2, 4, 6] and ended["broken"].asked == [6]
    (tmp_path / "straight" / "weights.safetensors").unlink()
    assert climb(tmp_path / "straight", scores, **options).asked == [], "it had ended"


def with_validation(store: Store, manual: dict) -> None:
    """Make DeepLesion-1 the one validation volume, with these manual boxes."""
    volumes = store.volumes.copy()
    volumes.loc["DeepLesion-1", "split"] = "val"
    write_table(volumes.reset_index(drop=True), store.root / "volumes.csv")
    path = Run("smoke").raw / MANUAL_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps({"val": manual, "test": {"DeepLesion-0": np.ones((1, 6))}}))


LESION = np.array([[20.0, 10, 2, 34, 22, 4]])


def test_an_experiment_ends_with_its_best_weights_also_after_a_kill(tiny_store, tmp_path, monkeypatch, capsys):
    with_validation(tiny_store, {"DeepLesion-1": LESION})
    short(monkeypatch, iterations=20, validations=5)
    train_pretext("smoke")
    straight = selection.train_and_select("single", "smoke", 0, tmp_path / "straight")
    assert capsys.readouterr().out.count("validation 0.") == 5
    table = read_table(straight / "validation.csv")
    assert table["iteration"].tolist() == [12, 14, 16, 18, 20] and table["kept"].sum() == 1
    assert table["kept"].idxmax() == table["score"].idxmax(), "idxmax is the first of equals"
    # what was kept has the score that was written
    profile, store = load_profile("smoke"), Store(Run("smoke").prepared)
    found = selection.average_sensitivity(load_lens(straight), store, {"DeepLesion-1": LESION}, profile.inference)
    assert found == table["score"].max()

    class Killed(Exception):
        pass

    write, written = files.atomic_write, []

    def interrupt(path):
        written.append(path.name)
        if written.count("checkpoint.pt") == 9:  # the 14th iteration's: that of the second look
            raise Killed
        return write(path)

    monkeypatch.setattr(loop, "atomic_write", interrupt)
    with pytest.raises(Killed):
        selection.train_and_select("single", "smoke", 0, tmp_path / "broken")
    monkeypatch.setattr(loop, "atomic_write", write)
    broken = selection.train_and_select("single", "smoke", 0, tmp_path / "broken")
    for name in RUN_FILES:
        assert (straight / name).read_bytes() == (broken / name).read_bytes(), name


@pytest.mark.parametrize("changed", ["truth", "inference", "number", "nothing"])
def test_a_run_follows_from_what_it_was_validated_on(tiny_store, tmp_path, monkeypatch, capsys, changed):
    with_validation(tiny_store, {"DeepLesion-1": LESION})
    short(monkeypatch, validations=2)
    train_pretext("smoke")
    run = selection.train_and_select("single", "smoke", 0, tmp_path / "run")
    if changed == "truth":
        with_validation(tiny_store, {"DeepLesion-1": LESION + 1})
    elif changed == "number":
        short(monkeypatch, validations=1)
    elif changed == "inference":
        from lensnb import settings

        read = settings._read
        monkeypatch.setattr(
            settings, "_read", lambda name: {**read(name), "inference": read(name)["inference"] | {"nms": 0.4}}
        )
    capsys.readouterr()
    selection.train_and_select("single", "smoke", 0, run)
    said = capsys.readouterr().out
    assert ("already trained" in said) == (changed == "nothing") and ("made again" in said) == (changed != "nothing")


def test_validation_that_is_asked_for_is_not_forgotten(tiny_store):
    with pytest.raises(ValueError, match="training.validations is 2, but nothing to validate with was given"):
        train_experiment("single", "smoke")
    with pytest.raises(ValueError, match="choose one of baseline"):
        selection.train_and_select("nonsense", "smoke")


def test_validation_needs_lesions(tiny_store):
    profile, run = load_profile("smoke"), Run("smoke")
    with pytest.raises(FileNotFoundError, match="DeepLesion_manual_1K_test_release.pkl"):
        selection.validation_of(profile, run, tiny_store)
    for manual in ({}, {"DeepLesion-1": LESION[:0]}, {"not prepared": LESION}):
        with_validation(tiny_store, manual)
        with pytest.raises(ValueError, match="training.validations is 2, but the . prepared .* hold no lesion"):
            selection.validation_of(profile, run, Store(run.prepared))


def test_a_fixed_part_of_the_sub_volumes_is_looked_at():
    names = [f"v{k:02}" for k in range(96)]
    assert selection.spread(names, 48) == names[::2]
    assert selection.spread(names, 0) == selection.spread(names, 96) == selection.spread(names, 500) == names
    assert selection.spread(names[:5], 2) == ["v00", "v02"]


def test_the_expert_of_deeplesion_decides(tiny_store, monkeypatch):
    """Known detections: a hit of DeepLesion's expert, and hits of another one, which play no part."""
    with_validation(tiny_store, {"DeepLesion-1": LESION})
    store, inference = Store(Run("smoke").prepared), load_profile("smoke").inference
    hit = pd.DataFrame({"z": [2, 3, 4], "x1": 20.0, "y1": 10.0, "x2": 34.0, "y2": 22.0, "score": 0.5})
    miss = hit.assign(x1=40.0, x2=50.0, score=0.9)
    truth = {"DeepLesion-1": LESION}

    def average(**of_expert) -> float:
        rows = [table.assign(expert=name) for name, table in of_expert.items()]
        monkeypatch.setattr(selection, "detect_volume", lambda *_: pd.concat(rows, ignore_index=True))
        model = SimpleNamespace(experts=dict.fromkeys(of_expert))
        return selection.average_sensitivity(model, store, truth, inference)

    assert average(DeepLesion=hit, LiTS=miss) == 1.0
    assert average(DeepLesion=miss, LiTS=hit) == 0.0
    # one false positive above it: found at 1, 2, 4 and 8 of the seven rates
    assert average(DeepLesion=pd.concat([hit, miss])) == pytest.approx(4 / 7)


def test_a_specialist_that_is_trained_alone_is_looked_at_on_its_own_volumes(tiny_store):
    """Its dataset's labels as 3D boxes; the grid of these volumes is the original one."""
    with_validation(tiny_store, {"DeepLesion-1": LESION})
    tables = Store(Run("smoke").prepared).volumes.reset_index(drop=True)
    tables.loc[tables["volume"] == "LiTS-1", "split"] = "val"
    write_table(tables, tiny_store.root / "volumes.csv")
    write_table(tiny_store.boxes.assign(z1=2, z2=4), tiny_store.root / "boxes.csv")  # the lesion's slices
    store, profile = Store(Run("smoke").prepared), load_profile("smoke")
    known = selection.labelled_lesions(store, ["LiTS-1"])
    assert list(known) == ["LiTS-1"]
    np.testing.assert_allclose(known["LiTS-1"], LESION, atol=1e-9)
    looked_at = selection.validation_of(profile, Run("smoke"), store, "LiTS").recipe
    assert looked_at != selection.validation_of(profile, Run("smoke"), store).recipe
    with pytest.raises(ValueError, match="boxes.csv hold no lesion"):
        selection.validation_of(profile, Run("smoke"), store, "LUNA16")


def test_the_paper_profile_looks_after_its_last_four_epochs():
    training = load_profile("paper").training
    assert Validation(lambda model: 0.0, training.validations, {}).iterations(training.epochs) == [5, 6, 7, 8]
    assert training.crop == () and training.shift_mm == 8 * 0.8
    assert build_lens(load_profile("smoke").network, ["DeepLesion", "LiTS"]).head.hard == (0.0, 0.5)
