"""The whole chain, from making phantoms to Table II, at the smoke profile; killed twice on the way (see conftest)."""

import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import psutil

from lensnb import runfolder
from lensnb.evaluation import froc, lesanet_claims, table2
from lensnb.lesanet.methods import CONTROLS
from lensnb.provenance.commit import commit
from lensnb.run import processes, publishing, story, targets
from lensnb.training.experiments import available

COMPONENTS = ["afp", "multi_dataset", "proposal_fusion", "mam", "fpr"]
RATES = ["fp_0.125", "fp_0.25", "fp_0.5", "fp_1", "fp_2", "fp_4", "fp_8"]


def test_killed_starts_say_what_happened(chain):
    killed, failed, last = chain.starts[:3]
    assert killed.returncode == -9
    assert failed.returncode == 1
    message = failed.stdout.strip().splitlines()[-1]
    assert message.startswith("FAILED 10_false_positive_reduction: cell In [") and "its kernel died" in message
    assert last.returncode == 0
    assert "[10_false_positive_reduction] done" in last.stdout


def test_the_next_start_continues(chain):
    _, second, last = chain.starts[:3]
    assert "Ended what an interrupted run had left at work" in second.stdout
    # the checkpoint after iteration 40 was there; of what was finished, nothing ran again
    assert "multi-mined-seed0: iteration 48/60" in second.stdout
    assert "multi-mined-seed0: iteration 36/60" not in second.stdout
    assert "[01_the_data] started" not in second.stdout and "[04_training_lens-multi] started" not in second.stdout
    done = {line.split("]")[0] for line in second.stdout.splitlines() if "] done" in line}
    begun = {line.split("]")[0] for line in last.stdout.splitlines() if "] started" in line}
    assert "[04_training_lens-multi-mined" in done and not done & begun


def test_every_declared_file_is_there_and_every_figure_declared(chain, monkeypatch):
    monkeypatch.setenv("LENSNB_ROOT", str(chain.root))
    monkeypatch.setenv("PYTHONPATH", str(runfolder.repository()))
    found = targets.targets("smoke")
    assert [target.name for target in found if not target.path.stat().st_size] == []
    made = {target.path.name for target in found if target.path.parent == chain.figures}
    assert {path.name for path in chain.figures.iterdir()} == made | {"made.json"}
    for experiment in [*available(phantoms=True), "multi-mined-simpler"]:
        assert (chain.runs / "experiments" / f"{experiment}-seed0" / "weights.safetensors").exists()
    assert not list(chain.runs.rglob("checkpoint.pt")) and not list(chain.runs.rglob("*.part*"))


def test_table2(chain):
    table = pd.read_csv(chain.figures / "table2.csv", keep_default_na=False)
    assert list(table.columns) == [
        "row", "method", *COMPONENTS, *RATES, "average", "average_low", "average_high", "paper_average"
    ]  # fmt: skip
    assert list(table["row"]) == [row.name for row in table2.ROWS]
    assert {"baseline", "a", "b", "c", "e", "f", "g", "h", "complete"} <= set(table["row"])
    assert set(table[COMPONENTS].to_numpy().ravel()) == {"yes", "no"}
    assert table.set_index("row").loc["g", COMPONENTS].tolist() == ["yes", "yes", "yes", "yes", "no"]
    rates = table[RATES].to_numpy(float)
    assert (rates >= 0).all() and (rates <= 1).all() and (np.diff(rates, axis=1) >= 0).all()
    np.testing.assert_allclose(rates.mean(axis=1), table["average"].astype(float), atol=1e-9)
    assert (table["average_low"] <= table["average"]).all() and (table["average"] <= table["average_high"]).all()
    paper = table.set_index("row")["paper_average"]
    assert float(paper["a"]) == 0.368 and float(paper["g"]) == 0.476 and paper["complete"] == ""
    assert "| baseline |" in (chain.figures / "table2.md").read_text()


def test_claims_and_audit(chain):
    claims = pd.read_csv(chain.figures / "claims.csv")
    assert list(claims.columns) == ["table", "claim", "paper", "ours", "low", "high", "verdict", "size"]
    assert set(claims.loc[claims["paper"].notna(), "size"]) <= {"agrees", "smaller", "larger"}
    assert set(claims["verdict"]) <= {"holds", "fails", "undecided"} and set(claims["table"]) == {"table2"}
    table = pd.read_csv(chain.figures / "table2.csv").set_index("row")["average"]
    ours = claims.set_index("claim")["ours"]
    np.testing.assert_allclose(ours["AFP is better than RPN: (a) - baseline"], table["a"] - table["baseline"])
    audit = pd.read_csv(chain.figures / "mining_audit.csv")
    assert list(audit.columns[:4]) == ["strategy", "mined", "precision", "recall"]
    assert list(audit["strategy"]) == ["cross-slice", "intra-patient", "cross-dataset"]
    assert audit["recall"].between(0, 1).all() and audit["precision"].dropna().between(0, 1).all()
    assert (audit["precision"].isna() == (audit["mined"] == 0)).all()
    # the rules are so lenient that strategies 2 and 3 have work; strategy 1 needs a detector that hits key slices
    assert (audit["mined"].iloc[1:] > 0).all()


def test_lesanet_tables(chain):
    names = ("table1", "table2", "table3", "claims", "controls", "expansion")
    tables = {name: pd.read_csv(chain.figures / f"lesanet_{name}.csv") for name in names}
    claims = tables["claims"]
    assert list(claims.columns) == lesanet_claims.COLUMNS
    assert (claims["splits"] == 1).all() and claims["p_corrected"].isna().all(), "the smallest profile has one split"
    assert set(claims["verdict"]) <= {"holds", "fails", "undecided"}
    by_method = tables["table1"].set_index("method")
    assert list(by_method.index)[:4] == ["cnn", "warp", "older", "lesanet"] and len(by_method) == 9
    difference = by_method.loc["lesanet", "text_auc"] - by_method.loc["cnn", "text_auc"]
    np.testing.assert_allclose(claims["ours"][0], difference)
    assert (by_method["text_auc_low"] <= by_method["text_auc_high"]).all() and by_method["complete_auc"].notna().all()
    np.testing.assert_allclose(tables["table2"]["text_auc"].mean(), by_method.loc["lesanet", "text_auc"])
    assert len(tables["table3"]) == 6 and (tables["table3"]["splits"] == 1).all()
    auc = tables["controls"].query("measure == 'auc' and set == 'text-mined'").set_index("method")
    assert list(auc.index) == [*CONTROLS, "lesanet"]
    np.testing.assert_allclose(auc.loc["lesanet", "gain"], difference)
    assert set(tables["expansion"]["method"]) == {"lesanet", "without-expansion", "cnn"}
    recall = tables["expansion"].query("measure == 'recall'")
    assert (recall["difference"] >= 0).all(), "parents can only add to what is found"
    matching = pd.read_csv(chain.figures / "lesanet_matching.csv")
    assert list(matching["embedding"]) == ["simpler", "simpler", "LesaNet", "LesaNet"]
    assert matching["recall"].between(0, 1).all()
    assert (chain.runs / "lesanet" / "lesanet" / "labels.json").exists()


def test_mining_uses_lesanet_and_row_g_is_compared(chain):
    """Before: labels mined by the simpler embedding; after: those of Table II's rows."""
    steps = "".join(start.stdout for start in chain.starts)
    assert steps.index("[lesanet] done") < steps.index("[07_intra_patient_mining] started")
    assert "this embedding: **LesaNet**" in (chain.runs / "07_intra_patient_mining.ipynb").read_text()
    rows = pd.read_csv(chain.figures / "lesanet_row_g.csv")
    assert list(rows["patients"] + rows["row"]) == ["valf", "valg", "testf", "testg"]
    table = pd.read_csv(chain.figures / "table2.csv").set_index("row")
    for row in ("f", "g"):
        line = rows[(rows["patients"] == "test") & (rows["row"] == row)].iloc[0]
        names = ["average", "average_low", "average_high"]
        np.testing.assert_allclose(line[["LesaNet", "LesaNet_low", "LesaNet_high"]].tolist(), table.loc[row, names])
        np.testing.assert_allclose(line["difference"], line["LesaNet"] - line["simpler"], atol=1e-12)
        assert line["low"] <= line["high"]
    mined = pd.read_csv(chain.figures / "lesanet_mining.csv").set_index(["strategy", "embedding"])
    audit = pd.read_csv(chain.figures / "mining_audit.csv").set_index("strategy")
    for strategy in ("intra-patient", "cross-dataset"):
        counted = mined.loc[(strategy, "LesaNet"), ["mined", "precision", "recall"]]
        np.testing.assert_allclose(counted.tolist(), audit.loc[strategy, counted.index].tolist())
    for name in ("intra-patient", "cross-dataset"):
        assert len(pd.read_csv(chain.runs / "mined" / "simpler" / f"{name}.csv"))


def test_detections_are_in_the_original_slices(chain):
    volumes = pd.read_csv(chain.root / "data" / "prepared" / "smoke" / "volumes.csv", dtype={"volume": str})
    volumes = volumes.set_index("volume")
    detections = pd.read_csv(chain.runs / "detections" / "g.csv", dtype={"volume": str})
    assert list(detections.columns) == ["volume", "x1", "y1", "z1", "x2", "y2", "z2", "score"]
    assert set(detections["volume"].map(volumes["split"])) == {"test"}
    first = detections["volume"].map(volumes["first_slice"])
    depth = detections["volume"].map(volumes["original_shape"]).map(lambda text: int(text.strip("[]").split(",")[0]))
    assert (detections["z1"] >= first).all() and (detections["z2"] < first + depth).all()
    assert len(froc.RATES) == len(RATES)


def test_a_second_start_does_nothing(chain):
    before = chain.times()
    result = chain.start()
    assert result.returncode == 0 and "started" not in result.stdout
    assert chain.times() == before


def test_every_table_and_figure_says_what_made_it(chain):
    made = json.loads((chain.figures / "made.json").read_text())
    assert set(made) == {path.name for path in chain.figures.iterdir()} - {"made.json"}
    for name, about in made.items():
        assert about["sha256"] == hashlib.sha256((chain.figures / name).read_bytes()).hexdigest(), name
        assert (about["profile"], about["seed"], len(about["date"])) == ("smoke", 0, 25), name
        assert about["commit"] == commit()
    assert made["table2.csv"]["step"] == "11_froc_and_table2"


def test_every_step_saw_what_it_declares_alone(chain, tmp_path):
    """Each step's process had a list of what it may read; with that of notebook 09 the classifier's run is refused."""
    steps = story.steps("smoke")
    assert {path.stem for path in (chain.runs / "sight").iterdir()} == {step.name for step in steps}
    environment = {**os.environ, "PYTHONPATH": str(runfolder.repository())}
    allowed = tmp_path / "09_retraining.json"  # of this chain, which may be a copy of the one that was made
    written = (chain.runs / "sight" / allowed.name).read_text()
    made_in = json.loads(written)["folders"][0].removesuffix("/data/runs/smoke")
    allowed.write_text(written.replace(f"{made_in}/", f"{chain.root}/"))
    environment["LENSNB_SIGHT"] = str(allowed)
    code = "import sys; from lensnb.provenance import sight; sight.limit(); open(sys.argv[1]).read()"
    for name, refused in (("experiments/multi-seed0/log.csv", False), ("fpr/config.json", True)):
        command = [sys.executable, "-c", code, str(chain.runs / name)]
        ran = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert (ran.returncode == 1 and "Undeclared: 09_retraining reads" in ran.stderr) == refused, ran.stderr


def test_what_was_damaged_is_named_and_made_again(chain):
    """Flipped weights, a deleted volume, a cut table: the same bytes as before, and what follows is not made again."""
    weights = chain.runs / "experiments" / "oracle-mined-seed0" / "weights.safetensors"
    volume = next((chain.root / "data" / "prepared" / "smoke" / "store" / "LiTS").glob("*.npy"))
    table = chain.figures / "table2.csv"
    before = {path: path.read_bytes() for path in (weights, volume, table)}
    flipped = bytearray(before[weights])
    flipped[-4000:] = bytes(byte ^ 1 for byte in flipped[-4000:])
    weights.write_bytes(flipped)
    volume.unlink()
    table.write_bytes(before[table][:100])
    listed = chain.start("--list").stdout
    for text in (f"store/LiTS/{volume.name} is missing", "figures/table2.csv is not as it was written",
                 "experiments/oracle-mined-seed0/weights.safetensors is not as it was written"):  # fmt: skip
        assert text in listed
    result = chain.start()
    assert result.returncode == 0, result.stdout[-2000:]
    assert {path: path.read_bytes() for path in before} == before
    done = {line.split("]")[0].lstrip("[") for line in result.stdout.splitlines() if "] done in" in line}
    assert done == {"02_preparing_ct", "04_training_lens-oracle-mined", "11_froc_and_table2"}
    assert "oracle-mined-seed0/weights.safetensors: made again, because" in result.stdout


def test_only_one_target_is_made(chain):
    fig2, table2 = chain.figures / "fig2.png", chain.figures / "table2.csv"
    fig2.unlink()
    before = table2.stat().st_mtime_ns
    assert chain.start("--only", "fig2").returncode == 0
    assert fig2.exists() and table2.stat().st_mtime_ns == before


def test_targets_by_name(chain):
    unknown = chain.start("--only", "tabel2")
    assert unknown.returncode == 2
    assert unknown.stdout == (
        "run_all.sh: there is no target 'tabel2'; did you mean table2? ./run_all.sh --list names all\n"
    ).replace("mean table2?", unknown.stdout.split("did you ")[1].split("? ")[0] + "?")
    assert "table2" in unknown.stdout
    listing = chain.start("--list").stdout
    assert {"table2", "claims", "fig6", "04_training_lens-multi", "pretext"} <= set(listing.split())


def test_dry_run_says_what_would_be_made(chain):
    before = chain.times()
    claims = chain.figures / "claims.csv"
    claims.rename(chain.root / "claims.csv")
    result = chain.start("--dry-run", "--only", "table2", "--only", "00_start_here")
    (chain.root / "claims.csv").rename(claims)
    lines = {line.split()[-2]: line.split()[0] == "made" for line in result.stdout.splitlines() if line.startswith(" ")}
    assert lines["00_start_here"] and not lines["table2"]  # the notebook that makes the one makes the other
    assert chain.times() == before


def test_publish_refuses_what_is_not_made(chain, monkeypatch, tmp_path):
    monkeypatch.setenv("LENSNB_ROOT", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(runfolder.repository()))
    sources = {path: path.read_bytes() for path in (runfolder.repository() / "notebooks").glob("*.ipynb")}
    try:
        publishing.publish(targets.targets("phantom"))
    except targets.RunError as error:
        assert "cannot publish" in str(error) and "./run_all.sh --profile phantom makes them" in str(error)
    else:
        raise AssertionError("it published a run that was never made")
    assert {path: path.read_bytes() for path in sources} == sources


def test_nothing_is_left_at_work(chain):
    left = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(processes.FOLDER) == str(chain.runs):
                left.append(process.cmdline())
        except (psutil.Error, OSError):
            continue
    assert left == []
