"""The paper profile from raw files to Table II: full-size networks, one epoch, on a miniature of the real datasets.

Where the real test files are not beside the repository, small phantoms take their place. One epoch on a dozen slices
teaches a network nothing, so what a trained one would find, the known lesions, is added to its proposals: then every
later stage has something to work on.
"""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import miniature
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import SHARED
from safetensors.torch import load_file
from torchvision.models import densenet121, resnet18

from lensnb import phantom, runfolder, settings
from lensnb.boxes import BOX, BOX3D, COLUMNS, overlapping, stack_to_tracklets, tracklets_to_3d, trim_tracklets
from lensnb.datasets import NAMES, SINGLE_TYPE
from lensnb.datasets.preparation import prepare
from lensnb.datasets.store import Store
from lensnb.detection import fusion, inference, scoring
from lensnb.evaluation import claims, froc, table2
from lensnb.files import read_table, write_table
from lensnb.lesanet import recognition
from lensnb.mining import cross_dataset, cross_slice, intra_patient, patients
from lensnb.mining.label_rows import add_origin
from lensnb.mining.strategies import STRATEGIES
from lensnb.models.build import load_lens
from lensnb.run import story
from lensnb.settings import Profile, load_profile
from lensnb.training import experiments, pretext
from lensnb.training.detector import train_experiment
from lensnb.training.false_positives import label_proposals, load_fpr, score_fpr, train_fpr

PROFILE, REPOSITORY = "paper", runfolder.repository()
SHORTER = {
    # without validations: a slice takes seconds
    "training": {
        "epochs": 1,
        "threads": 1,
        "loader_workers": 0,
        "checkpoint_every": 100,
        "validations": 0,
    },  # fmt: skip
    "lesanet": {"iterations": 2, "batch_size": 4, "triplets": 50},
    "fpr": {"epochs": 1, "batch_size": 4, "per_volume": 6},
    "network": {"proposals": 60},  # of 300 in each slice: they, not the layers, take most of the time
    "inference": {"per_slice": 3},
}
SMALL_PHANTOMS = {
    "phantom": {"pixels": 96, "spacing_mm": [3.6, 4.2], "depth_mm": 48, "deeplesion_patients": 2, "luna_volumes": 2,
                "lits_volumes": 2, "nihln_volumes": 2, "val_patients": 1, "test_volumes": 2},
    "grid": {"spacing_mm": [3.6, 3.6, 4.0]},
}  # fmt: skip
WEIGHTS = {"densenet121-a639ec97.pth": densenet121, "resnet18-f37072fd.pth": resnet18}  # where torchvision looks


def shortened(copy: Path, changes: dict) -> None:
    """A copy of the code and the notebooks whose paper profile has other sizes; an unknown setting is an error.

    A copy, so that a notebook in a process of its own reads the same profile as the tests.
    """
    for name in ("lensnb", "notebooks"):
        shutil.copytree(REPOSITORY / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    path = copy / "lensnb" / "profiles" / f"{PROFILE}.yml"
    content = settings.read_yaml(path)
    path.write_text(yaml.safe_dump(content | {section: content[section] | new for section, new in changes.items()}))


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Every stage, one after the other; what each of them made."""
    root = tmp_path_factory.mktemp("paper")
    real = SHARED.is_dir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LENSNB_ROOT", str(root))
        patch.setenv("TORCH_HOME", str(root / "torch"))
        patch.setenv("LENSNB_DATA", str(root / "data" / "raw"))
        shortened(root / "code", SHORTER if real else SHORTER | SMALL_PHANTOMS)
        patch.setattr(settings, "FOLDER", root / "code" / "lensnb" / "profiles")
        profile = load_profile(PROFILE)
        if real:
            miniature.write(runfolder.real_data(), SHARED)
        else:
            phantom.write(runfolder.phantom(PROFILE), profile.phantom, 0, workers=1)
        yield run_chain(profile)


def run_chain(profile: Profile) -> SimpleNamespace:
    """Preparation, initial weights, trainings, proposals, mining, false positive reduction, evaluation."""
    runs, raw = runfolder.runs(PROFILE), runfolder.raw(PROFILE)
    report = prepare(raw, runfolder.prepared(PROFILE), profile.grid.spacing_mm, 0, 1, profile.grid.box_padding_mm)
    store = Store(runfolder.prepared(PROFILE))
    with pytest.raises(RuntimeError, match="densenet121-a639ec97.pth"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.hub, "download_url_to_file", unreachable)
        pretext.train_pretext(PROFILE)
    save_imagenet(Path(torch.hub.get_dir()) / "checkpoints")
    pretext.train_pretext(PROFILE)
    proposals = {("multi", split): train_and_detect("multi", store, profile, split) for split in ("train", "val")}
    mined = mine(store, profile, proposals["multi", "train"])
    for split in ("train", "val", "test"):
        proposals["multi-mined", split] = train_and_detect("multi-mined", store, profile, split)
    scores = reduce_false_positives(store, profile, proposals)
    evaluations, detections = evaluate(raw, store, proposals["multi-mined", "test"], scores, profile)
    return SimpleNamespace(
        root=runfolder.root(), runs=runs, raw=raw, profile=profile, report=report, store=store, proposals=proposals,
        mined=mined, scores=scores, evaluations=evaluations, detections=detections,
    )  # fmt: skip


def unreachable(*args, **options):
    raise OSError("no network")


def save_imagenet(folder: Path) -> None:
    """Put files of the right layout where a user without network is told to put the ImageNet weights."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    for name, network in WEIGHTS.items():
        torch.save(network(weights=None).state_dict(), folder / name)


def volumes_of(store: Store, split: str) -> list[str]:
    table = store.volumes
    return table.index[(table["dataset"] == "DeepLesion") & (table["split"] == split)].tolist()


def train_and_detect(experiment: str, store: Store, profile: Profile, split: str) -> pd.DataFrame:
    """Train unless that is done, detect, and add the known lesions as all experts would find them."""
    run = train_experiment(experiment, PROFILE)
    out = runfolder.runs(PROFILE) / "proposals" / f"{experiment}-{split}.npz"
    found = inference.detect(load_lens(run), store, volumes_of(store, split), profile.inference, out, split)
    known = store.boxes[store.boxes["volume"].isin(volumes_of(store, split))]
    known = pd.concat([known.assign(z=known["z"] + step, score=0.9 - 0.1 * abs(step)) for step in (-1, 0, 1)])
    known = known[known["z"].between(0, known["volume"].map(store.volumes["depth"]) - 1)]
    known = pd.concat([known.assign(expert=expert) for expert in NAMES])
    both = pd.concat([found.astype({"volume": str, "expert": str}), known[list(found)]], ignore_index=True)
    write_table(both.astype({"volume": "category", "expert": "category"}), out)
    return read_table(out)


def mine(store: Store, profile: Profile, proposals: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The three strategies of Sec. V; thresholds that need a trained network are set, not chosen."""
    rules, runs = profile.mining, runfolder.runs(PROFILE)
    annotations = store.boxes[store.boxes["volume"].isin(volumes_of(store, "train"))].reset_index(drop=True)
    tracklets = stack_to_tracklets(fusion.fuse(proposals, nms=profile.inference.nms), rules.theta)
    tracklets = add_origin(tracklets, store.volumes)
    write_table(tracklets, runs / "mined" / "tracklets.npz")
    known = patients.Patients(annotations, add_origin(proposals, store.volumes), tracklets)
    across = cross_slice.mine(known, {"trim": 0.0}, rules)
    known = known.with_mined(across)
    # the real files have no ontology, and phantoms as few as these no label that enough lesions have
    find = recognition.for_mining if SHARED.is_dir() else recognition.simpler
    embed = find(PROFILE).embed
    over = overlapping(tracklets, known.known, rules.theta)
    new = tracklets[~tracklets["tracklet"].isin(tracklets["tracklet"][over])]
    centres = patients.centre_boxes(new[new["tracklet"].isin(strongest(new, 40))])
    vectors = [embed(part) for part in (annotations, centres)]
    assert all(np.allclose(np.linalg.norm(part, axis=1), 1, atol=1e-4) for part in vectors)
    known = replace(known, embedded=patients.Embedded(vectors[0], centres, vectors[1]))
    matched = intra_patient.mine(known, {"delta": 2.0, "score": 0.0}, rules)
    sigma = np.quantile(proposals["score"], 0.8)
    uncertain = cross_dataset.mine(known.with_mined(matched), {"sigma": dict.fromkeys(SINGLE_TYPE, sigma)}, rules)
    mined = {"cross-slice": across, "intra-patient": matched, "cross-dataset": uncertain}
    for name, table in mined.items():
        write_table(table, runs / "mined" / f"{name}.csv")
        row = {"strategy": name, "mined": len(table), "precision": np.nan, "recall": np.nan}
        write_table(pd.DataFrame([row]), runs / "audit" / f"{name}.csv")
    return mined


def strongest(tracklets: pd.DataFrame, number: int) -> pd.Index:
    return tracklets.groupby("tracklet")["score"].max().nlargest(number).index


def reduce_false_positives(store: Store, profile: Profile, proposals: dict) -> dict[str, pd.DataFrame]:
    """Train the second network on the training volumes' proposals, and score those of validation and test."""
    rules, runs, settings = profile.fpr, runfolder.runs(PROFILE), profile.inference
    fused = fusion.fuse(proposals["multi-mined", "train"], nms=settings.nms)
    tracklets = trim_tracklets(stack_to_tracklets(fused, settings.theta), settings.trim)
    candidates = tracklets_to_3d(tracklets)
    candidates = candidates.loc[scoring.best_of_volume(candidates, rules.per_volume)]
    labels = experiments.training_labels(experiments.EXPERIMENTS["multi-mined"], store, runfolder.Run(PROFILE))
    known = labels[(labels["dataset"] == "DeepLesion") & (labels["source"] == "annotated")]
    answer = label_proposals(tracklets, known, known.iloc[:0], rules.theta, rules.theta_fp, rules.iobb_fp)
    train_fpr(profile, 0, runs / "fpr", store, candidates, answer.loc[candidates["tracklet"]].to_numpy())
    network, scores = load_fpr(runs / "fpr"), {}
    for split in ("val", "test"):
        found = scoring.detections(proposals["multi-mined", split], settings)
        best = scoring.best_of_volume(found, rules.per_volume)
        found = found.assign(fpr=np.nan)
        found.loc[best, "fpr"] = score_fpr(network, store, found.loc[best], profile)
        write_table(found, runs / "fpr" / f"scores-{split}.csv")
        scores[split] = found
    return scores


def evaluate(raw: Path, store: Store, proposals: pd.DataFrame, scores: dict, profile: Profile) -> tuple:
    """Rows f, g and h of Table II on the test volumes."""
    second = scores["test"]
    found = {
        "f": scoring.detections(proposals, profile.inference, ["DeepLesion"]),
        "g": scoring.detections(proposals, profile.inference),
        "h": second.assign(score=fusion.combine(second["score"], second["fpr"])),
    }
    truth = scoring.manual_truth(raw, "test")
    return {name: scoring.score(boxes, store, truth) for name, boxes in found.items()}, {
        name: fusion.to_original(boxes, store) for name, boxes in found.items()
    }


def at_home(store: Store) -> pd.DataFrame:
    """The annotations of the single-type datasets' validation volumes, as all experts would find them."""
    table = store.volumes
    names = table.index[(table["dataset"] != "DeepLesion") & (table["split"] == "val")]
    known = store.boxes[store.boxes["volume"].isin(names)].assign(score=0.5)
    known = pd.concat([known.assign(expert=expert) for expert in NAMES], ignore_index=True)
    known = known[["volume", "z", *BOX, "expert", "score"]]
    return known.astype({"volume": "category"}).assign(expert=pd.Categorical(known["expert"], list(NAMES)))


def finish_for_notebooks(done: SimpleNamespace) -> None:
    """The tables of the trainings that were left out here; any will do to see whether a notebook runs."""
    proposals, experiments_folder = done.runs / "proposals", done.runs / "experiments"
    for name in ("multi", "multi-mined"):
        write_table(at_home(done.store), proposals / f"{name}-own.npz")
    for name in experiments.available(phantoms=False):
        for split in ("val", "test"):
            if not (proposals / f"{name}-{split}.npz").exists():
                shutil.copy(proposals / f"multi-mined-{split}.npz", proposals / f"{name}-{split}.npz")
        (experiments_folder / f"{name}-seed0").mkdir(exist_ok=True)
        if not (experiments_folder / f"{name}-seed0" / "log.csv").exists():
            shutil.copy(experiments_folder / "multi-seed0" / "log.csv", experiments_folder / f"{name}-seed0")


def test_prepared_volumes(done):
    assert {name: part["skipped"] for name, part in done.report["datasets"].items()} == dict.fromkeys(NAMES, 0)
    store = done.store
    assert set(store.volumes["dataset"]) == set(NAMES) and set(store.boxes["dataset"]) == set(NAMES)
    assert {"train", "val", "test"} <= set(store.volumes.loc[store.volumes["dataset"] == "DeepLesion", "split"])
    assert len(volumes_of(store, "test")) == len(scoring.manual_truth(done.raw, "test"))
    for name, row in store.volumes.iterrows():
        hu = store.hu(name)
        assert hu.shape == (row["depth"], row["height"], row["width"]) and hu.min() >= -1024 and hu.max() <= 3071
    check_boxes(store.boxes, store, "annotated")


def test_initial_weights_are_those_of_imagenet(done):
    weights = load_file(done.runs / "pretext" / "weights.safetensors")
    published = torch.load(Path(done.root / "torch/hub/checkpoints/densenet121-a639ec97.pth"), weights_only=True)
    assert torch.equal(weights["backbone.stem.0.weight"], published["features.conv0.weight"])
    assert {name.split(".")[1] for name in weights} >= {"stem", "denseblock1", "denseblock3", "transition2"}


@pytest.mark.parametrize("experiment", ["multi", "multi-mined"])
def test_training(done, experiment):
    run = done.runs / "experiments" / f"{experiment}-seed0"
    log = read_table(run / "log.csv")
    assert np.isfinite(log.to_numpy(float)).all() and log["iteration"].iloc[-1] >= 4  # each dataset at least once
    model = load_lens(run)
    assert model.experts == NAMES and not any(p.isnan().any() for p in model.parameters())
    # the network of Sec. VI-B: DenseNet-121 to its third block, 512 channels, two layers of 2048
    assert model.backbone.denseblock3.denselayer24 and model.backbone.channels == 512
    assert model.head.fc1.weight.shape == (2048, 512 * 7 * 7) and model.head.fc2.weight.shape == (2048, 2048)


def test_proposals_lie_in_their_volumes(done):
    for (experiment, split), table in done.proposals.items():
        assert list(table) == ["volume", "z", *BOX, "expert", "score"], experiment
        assert set(table["volume"]) == set(volumes_of(done.store, split)) and set(table["expert"]) == set(NAMES)
        assert table["score"].between(0.01, 1).all() and (table.groupby("expert", observed=True).size() > 10).all()
        check_boxes(table, done.store)


def test_mined_labels(done):
    for strategy in STRATEGIES:
        table = done.mined[strategy.name]
        assert list(table)[: len(COLUMNS)] == COLUMNS
        check_boxes(table, done.store, strategy.source)
        assert set(table["dataset"]) <= {"DeepLesion"}
    across, matched = done.mined["cross-slice"], done.mined["intra-patient"]
    marked = done.store.boxes.set_index("lesion")["volume"]
    # the added proposals lie on both sides of every annotated key slice
    assert set(across["lesion"]) == set(marked.index[marked.isin(volumes_of(done.store, "train"))])
    assert len(matched) and (marked.loc[matched["matched_to"]].to_numpy() != matched["volume"].to_numpy()).all()
    uncertain = done.mined["cross-dataset"]
    assert len(uncertain) and "DeepLesion" not in set(uncertain["expert"].astype(str))


def test_second_network(done):
    for split, table in done.scores.items():
        given = table["fpr"].dropna()
        assert given.between(0, 1).all() and (given > 0).any(), split
    assert (done.runs / "fpr" / "weights.safetensors").exists()
    assert load_fpr(done.runs / "fpr").conv1.weight.shape == (64, 1, 1, 7, 7)


def test_evaluation_in_original_slices(done):
    for name, table in done.detections.items():
        assert list(table) == ["volume", *BOX3D, "score"] and set(table["volume"]) == set(
            volumes_of(done.store, "test")
        )
        rows = done.store.volumes.loc[table["volume"]]
        shape = np.array([json.loads(text) for text in rows["original_shape"]])
        first = rows["first_slice"].to_numpy()
        assert (table["z1"].to_numpy() >= first).all() and (table["z2"].to_numpy() < first + shape[:, 0]).all()
        assert (table["x1"] >= -1).all() and (table["x2"].to_numpy() <= shape[:, 2]).all(), name
    table = table2.table2(done.evaluations)
    values = table[[*table2.FP_COLUMNS, "average", "average_low", "average_high"]].to_numpy(float)
    assert list(table["row"]) == ["f", "g", "h"] and np.isfinite(values).all() and (np.diff(values[:, :7]) >= 0).all()
    assert table["paper_average"].tolist() == [0.473, 0.476, 0.504]
    assert 0 < done.evaluations["g"].average <= 1  # the added proposals are the test lesion, so it is found
    assert len(froc.RATES) == len(table2.FP_COLUMNS)


real_only = pytest.mark.skipif(not SHARED.is_dir(), reason="needs the real test files: phantoms have a hidden truth")


@real_only
@pytest.mark.parametrize(
    "name",
    [
        "02_preparing_ct",
        "06_cross_slice_mining",
        "07_intra_patient_mining",
        "08_cross_dataset_mining",
        "09_retraining",
        "11_froc_and_table2",
    ],
)
def test_notebooks_need_no_hidden_truth(done, name):
    """What they would train or detect is there already, made with the same numbers and the same code."""
    finish_for_notebooks(done)
    code, output = done.root / "code", done.runs / f"{name}.ipynb"
    command = [sys.executable, "-m", "lensnb.run.step", code / "notebooks" / f"{name}.ipynb", "--profile", PROFILE,
               "--output", output]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(code)}
    ran = subprocess.run(command, cwd=code, env=environment, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stdout[-2000:]
    assert "all checks passed" in ran.stdout and output.exists()
    assert "iteration" not in ran.stdout, ran.stdout[-2000:]  # nothing was trained


@real_only
def test_tables_of_real_data_name_no_truth(done):
    """After the notebooks: the rows and claims that only phantoms can have are not there, and the audit is empty."""
    figures = runfolder.figures(PROFILE)
    if not (figures / "table2.csv").exists():
        pytest.skip("the notebook on Table II was not run")
    assert list(pd.read_csv(figures / "table2.csv")["row"]) == ["baseline", *"abcefgh"]
    found = pd.read_csv(figures / "claims.csv")
    assert len(found) == len(claims.PAPER_CLAIMS) and found["paper"].notna().all()
    found = pd.read_csv(figures / "mining_audit.csv")
    assert len(found) == 3 and found[["precision", "recall"]].isna().all(axis=None) and (found["mined"] >= 0).all()


@real_only
def test_the_plan_for_real_data_has_no_oracle(done, tmp_path):
    """run_all.sh --dry-run on the miniature, from nothing: every row of the paper, and nothing that needs a truth."""
    planned = plan(done.raw, tmp_path)
    assert {
        "table2",
        "fig6",
        "pretext/weights",
        *(f"04_training_lens-{e}" for e in experiments.available(False)),
    } <= set(planned)
    of_phantoms = (
        "oracle",
        "single-complete",
        "uncertain_wrong",
        "intra_patient_wrong",
        "embedding_distances",
        "organs",
    )
    for name in of_phantoms:
        assert not [word for word in planned if name in word], name
    assert not (tmp_path / "data" / "prepared").exists()


@real_only
def test_without_its_ontology_lesanet_is_not_planned(done, tmp_path, monkeypatch):
    """Mining then waits for the simpler embedding, and the notebooks on LesaNet are left out."""
    monkeypatch.setenv("LENSNB_ROOT", str(tmp_path))
    monkeypatch.setenv("LENSNB_DATA", str(done.raw))
    assert not {"lesanet", "15_lesanet", "16_lesanet_tables", "17_lesanet_in_mining"} & set(steps())
    assert "embedding" in steps()["07_intra_patient_mining"]
    labelled = tmp_path / "labelled" / "DeepLesion"
    labelled.mkdir(parents=True)
    for path in (done.raw / "DeepLesion").iterdir():
        (labelled / path.name).symlink_to(path)
    (labelled / "lesion_ontology_181022.xlsx").touch()
    monkeypatch.setenv("LENSNB_DATA", str(labelled.parent))
    before_mining = steps()["07_intra_patient_mining"]
    assert "lesanet" in before_mining and not {"embedding", "15_lesanet"} & before_mining
    assert {"embedding", "15_lesanet", "16_lesanet_tables", "17_lesanet_in_mining"} <= set(steps())


def steps() -> dict[str, set[str]]:
    """The steps of a run on real data, each with the names of those that it waits for."""
    found = story.steps(PROFILE)
    return {step.name: {other.name for other in story.before(step, found)} for step in found}


def plan(data: Path, root: Path) -> list[str]:
    """The words that run_all.sh --dry-run prints for real data in a folder."""
    environment = {**os.environ, "LENSNB_ROOT": str(root), "LENSNB_DATA": str(data)}
    command = [sys.executable, "-m", "lensnb.run.engine", "--profile", PROFILE, "--dry-run"]
    ran = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=900)
    assert ran.returncode == 0, ran.stderr[-2000:]
    return ran.stdout.split()


def check_boxes(table: pd.DataFrame, store: Store, source: str | None = None) -> None:
    """2D boxes are finite, upright and inside their volumes, and say what they are."""
    rows = store.volumes.loc[table["volume"].astype(str)]
    assert np.isfinite(table[["z", *BOX]].to_numpy(float)).all()
    assert (table["x1"] < table["x2"]).all() and (table["y1"] < table["y2"]).all()
    assert (table[["x1", "y1"]].to_numpy() >= -0.5).all()
    assert (table["x2"].to_numpy() <= rows["width"] - 0.5).all()
    assert (table["y2"].to_numpy() <= rows["height"] - 0.5).all()
    assert table["z"].between(0, rows["depth"].to_numpy() - 1).all()
    if source:
        assert set(table["source"]) == {source} and set(table["expert"].astype(str)) <= set(NAMES)
        assert (table["dataset"].to_numpy() == rows["dataset"].to_numpy()).all()
