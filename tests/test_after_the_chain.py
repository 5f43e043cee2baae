"""What goes on from the chain's finished files: a start without kills, a variant, a notebook by hand (see conftest)."""

import pandas as pd
from conftest import plain_papermill

from lensnb import runfolder


def test_undisturbed_it_gives_the_same_bytes(chain):
    """What the killed starts made is made again without disturbance, from the mined labels' training on."""
    names = ("table2.csv", "claims.csv", "mining_audit.csv", "lesanet_row_g.csv")
    disturbed = {name: (chain.figures / name).read_bytes() for name in names}
    weights = chain.runs / "experiments" / "multi-mined-seed0" / "weights.safetensors"
    of_training = weights.read_bytes()
    for path in (weights, *chain.runs.glob("proposals/multi-mined-*.npz"), *chain.runs.glob("fpr/*"),
                 *(chain.figures / name for name in names)):  # fmt: skip
        path.unlink()
    result = chain.start()
    assert result.returncode == 0 and "multi-mined-seed0: iteration 6/60" in result.stdout
    assert "[10_false_positive_reduction] done" in result.stdout
    assert weights.read_bytes() == of_training
    assert {name: (chain.figures / name).read_bytes() for name in names} == disturbed


def test_a_variant_makes_what_depends_on_its_change_and_nothing_else(chain):
    """Another sigma needs mining again, but no training; the reference stays, and the differences are printed."""
    before = chain.times()
    of_reference = pd.read_csv(chain.runs / "mined" / "cross-dataset.csv")
    sigma = round(of_reference["score"].median(), 4)
    result = chain.start("--variant", "low", "--set", f"mining.sigma={sigma}", "--only", "table4_counts")
    assert result.returncode == 0, result.stdout[-2000:]
    started = {line.split("]")[0].lstrip("[") for line in result.stdout.splitlines() if "] started" in line}
    mining = {"06_cross_slice_mining", "07_intra_patient_mining", "08_cross_dataset_mining"}
    assert started == mining
    assert "tables hold the same numbers" in result.stdout and "difference" in result.stdout
    own = chain.root / "figures" / "smoke+low"
    assert (own / "differences.md").exists() and (own / "table4_counts.csv").exists()
    boxes = pd.read_csv(chain.root / "data" / "runs" / "smoke+low" / "mined" / "cross-dataset.csv")
    assert 0 < len(boxes) < len(of_reference) and boxes["score"].min() > sigma
    assert chain.times() == before
    again = chain.start("--variant", "low", "--only", "table4_counts")
    assert again.returncode == 0 and "started" not in again.stdout and "tables hold the same numbers" in again.stdout
    other = chain.start("--variant", "low", "--set", "mining.sigma=0.5", "--only", "table4_counts")
    assert other.returncode == 2 and "variant low exists with other settings" in other.stdout


def test_a_notebook_by_hand_leaves_the_run_as_it_is(chain, tmp_path):
    """Plain papermill: the notebook reads what the run made and writes into folders of its own."""
    before = chain.times()
    notebook = runfolder.repository() / "notebooks" / "06_cross_slice_mining.ipynb"
    folders = {"LENSNB_ROOT": str(chain.root), "PYTHONPATH": str(runfolder.repository())}
    result = plain_papermill(notebook, tmp_path / "out.ipynb", "-p", "profile", "smoke", **folders)
    assert result.returncode == 0, result.stderr[-2000:]
    assert chain.times() == before
    own = chain.root / "data" / "runs" / "smoke+by-hand" / "mined" / "cross-slice.csv"
    reference = chain.runs / "mined" / "cross-slice.csv"
    assert own.read_bytes() == reference.read_bytes() and own.stat().st_ino != reference.stat().st_ino
    assert (chain.root / "figures" / "smoke+by-hand" / "cross_slice.png").exists()
    assert "by hand: all that this notebook writes" in (tmp_path / "out.ipynb").read_text()
