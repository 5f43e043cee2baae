"""Several seeds: folders of their own, one test set, and their tables beside each other."""

import json
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from lensnb import __main__ as cli
from lensnb import runfolder
from lensnb.datasets.manual_boxes import MANUAL_FILE
from lensnb.evaluation import seed_results, seeds
from lensnb.evaluation.primary import PRIMARY, ROWS
from lensnb.files import write_table
from lensnb.run import engine, options, story, targets
from lensnb.runfolder import Run


def write_tables(folder, average, difference, verdict, row="a"):
    folder.mkdir(parents=True)
    pd.DataFrame({"row": [row, "b"], "average": [average, 0.5]}).to_csv(folder / "table2.csv", index=False)
    claim = {"claim": ["b is better, or is it"], "ours": [difference], "verdict": [verdict]}
    pd.DataFrame(claim).to_csv(folder / "claims.csv", index=False)
    audit = {"strategy": ["cross-slice"], "mined": [7], "precision": [0.9], "recall": [0.25]}
    pd.DataFrame(audit).to_csv(folder / "mining_audit.csv", index=False)


@pytest.fixture
def figures(tmp_path, monkeypatch):
    """The figures folder of two seeds, and what looks like others."""
    monkeypatch.setenv("LENSNB_ROOT", str(tmp_path))
    write_tables(runfolder.figures("phantom"), 0.5, 0.01, "undecided")
    write_tables(runfolder.figures("phantom", 12), 0.6, 0.03, "holds")
    write_tables(tmp_path / "figures" / "phantom-seed07", 0.9, 0.9, "fails")  # no seed is written so
    write_tables(tmp_path / "figures" / "phantom-old", 0.9, 0.9, "fails")
    runfolder.figures("phantom", 3).mkdir()  # a run that has not come to its tables
    return tmp_path / "figures"


def test_each_seed_has_folders_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("LENSNB_ROOT", str(tmp_path))
    assert options.parse([]).seed == 0 and options.parse(["--seed", "12"]).seed == 12
    assert runfolder.figures("phantom") == tmp_path / "figures" / "phantom"
    for folder in (runfolder.phantom, runfolder.prepared, runfolder.runs, runfolder.figures):
        assert folder("smoke", 12) == folder("smoke").with_name("smoke-seed12")


@pytest.mark.parametrize("wrong", ["-1", "1.5", "one", ""])
def test_no_seed(wrong, capsys):
    with pytest.raises(SystemExit):
        options.parse(["--seed", wrong])
    assert "is not a whole number of at least 0" in capsys.readouterr().err


def test_the_steps_of_another_seed_stay_in_its_folders(tmp_path, monkeypatch):
    """Every file and every command of seed 12 is that seed's, and so is what Snakemake would run."""
    monkeypatch.setenv("LENSNB_ROOT", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(runfolder.repository()))
    monkeypatch.delenv("LENSNB_DATA", raising=False)
    runfolder.runs("smoke", 12).mkdir(parents=True)
    command = targets.snakemake("smoke", 12, "--dry-run", "--printshellcmds", "--cores", "1")
    assert command[:3] == [sys.executable, "-m", "snakemake"]
    planned = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert planned.returncode == 0, planned.stderr[-2000:]
    commands = [line for line in planned.stdout.splitlines() if "lensnb.run.step" in line]
    steps = story.steps("smoke", 12)
    assert len(commands) == len(steps) > 20 and all(line.endswith("--seed 12") for line in commands)
    modules = [step.module for step in steps if step.module]
    assert len(modules) == 3 and all(module[-4:] == ("--profile", "smoke", "--seed", "12") for module in modules)
    made = [str(path) for step in steps for path in step.makes]
    assert any("experiments/multi-seed12/weights.safetensors" in path for path in made)
    assert all("smoke-seed12/" in path for path in made)


def test_runs_are_found_by_seed(figures):
    assert seeds.find("phantom") == {0: Run("phantom"), 12: Run("phantom", 12)}
    assert seeds.find("smoke") == {}


def test_lines_means_and_verdicts(figures):
    table = seeds.compare(seeds.collect("phantom"))
    assert table["kind"].tolist() == ["row", "row", "claim", "precision", "recall"]
    assert table["name"].tolist() == ["a", "b", "b is better, or is it", "cross-slice", "cross-slice"]
    assert table["seed_0"].tolist() == [0.5, 0.5, 0.01, 0.9, 0.25]
    assert table["seed_12"].tolist() == [0.6, 0.5, 0.03, 0.9, 0.25]
    assert table["mean"].tolist() == pytest.approx([0.55, 0.5, 0.02, 0.9, 0.25])
    assert table["sd"].tolist() == pytest.approx([0.1 / 2**0.5, 0, 0.02 / 2**0.5, 0, 0])  # of a sample of two
    assert table["verdicts"].tolist() == ["", "", "holds 1, undecided 1", "", ""]


def test_the_command_writes_both_tables(figures, capsys):
    assert cli.main(["seeds"]) == 0
    text = (figures / "phantom" / "seeds.md").read_text()
    lacking = "Without the primary claims' seeds 0, 12: their detections of all rows are not in data/runs."
    assert capsys.readouterr().out.strip() == f"{text}\n{lacking}"
    assert "| row | a | 50.0 % | 60.0 % | 55.0 % | 7.1 % |  |" in text
    assert "| claim | b is better, or is it | 1.0 % | 3.0 % | 2.0 % | 1.4 % | holds 1, undecided 1 |" in text
    assert pd.read_csv(figures / "phantom" / "seeds.csv")["seed_12"].tolist() == [0.6, 0.5, 0.03, 0.9, 0.25]


def test_tables_of_another_version_are_not_mixed(figures, capsys):
    write_tables(runfolder.figures("phantom", 5), 0.5, 0.0, "fails", row="z")
    assert cli.main(["seeds"]) == 2
    error = capsys.readouterr().err
    assert "phantom-seed5" in error and "'row a'" in error and "make both with the same version" in error


def test_one_seed_is_nothing_to_compare(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LENSNB_ROOT", str(tmp_path))
    assert cli.main(["seeds", "--profile", "smoke"]) == 2
    assert "no seed has tables" in capsys.readouterr().err
    write_tables(runfolder.figures("smoke", 4), 0.5, 0.0, "fails")
    assert cli.main(["seeds", "--profile", "smoke"]) == 2
    error = capsys.readouterr().err
    assert "seed 4 alone has tables" in error and "--profile smoke --seed 0 --only table2" in error
    assert "--profile smoke --seeds 5" in error
    assert cli.main(["seeds", "--profile", "smokey"]) == 2


# --- small files, from here and from elsewhere ------------------------------------------------------------------------

NAMES = [f"{n:06d}_01_01_001-020" for n in range(6)]
LESIONS = np.array([[10.0, 10, 3, 20, 20, 5], [40, 40, 3, 50, 50, 5]])


def write_run(seed: int, more: tuple[str, ...] = ("e",), lesions: np.ndarray = LESIONS) -> Run:
    """A finished seed whose rows find one lesion in each volume, and those in `more` the second one, too."""
    run = Run("smoke", seed)
    write_tables(run.figures, 0.5, 0.01 * seed, "holds")
    (run.raw / MANUAL_FILE).parent.mkdir(parents=True)
    with (run.raw / MANUAL_FILE).open("wb") as file:
        pickle.dump({"val": {}, "test": {name: lesions for name in NAMES}}, file)
    for row in ROWS:
        found = [(name, *LESIONS[0], 0.9) for name in NAMES] + [(NAMES[seed % 6], 90, 90, 3, 99, 99, 5, 0.95)]
        found += [(name, *LESIONS[1], 0.8) for name in NAMES] if row in more else []
        table = pd.DataFrame(found, columns=["volume", "x1", "y1", "z1", "x2", "y2", "z2", "score"])
        write_table(table, run.detections(row))
    return run


def test_one_seed_leaves_its_file_for_another_machine(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LENSNB_ROOT", str(tmp_path))
    write_run(1)
    assert cli.main(["seeds", "--profile", "smoke"]) == 2 and "seed 1 alone" in capsys.readouterr().err
    left = seed_results.read(runfolder.figures("smoke") / "seeds" / "1.json")
    assert left.seed == 1 and set(ROWS) <= set(left.averages)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Three finished seeds, and what `python -m lensnb seeds` says of them."""
    root, patch = tmp_path_factory.mktemp("seeds"), pytest.MonkeyPatch()
    patch.setenv("LENSNB_ROOT", str(root))
    for seed in (0, 1, 4):
        write_run(seed)
    assert cli.main(["seeds", "--profile", "smoke"]) == 0
    patch.undo()
    return root


@pytest.fixture
def three(finished, tmp_path, monkeypatch):
    """A copy of them; the folder of their tables."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("LENSNB_ROOT", str(tmp_path))
    return runfolder.figures("smoke")


def test_primary_claims_of_several_runs(three):
    table = pd.read_csv(three / "primary_claims.csv").set_index("claim")
    gain = next(claim.text for claim in PRIMARY if claim.first == "e")
    # one false positive above all in six volumes: nothing is found at 1/8; at the other six rates half, and all by (e)
    np.testing.assert_allclose(table.loc[gain, "ours"], 0.5 * 6 / 7, atol=1e-6)
    np.testing.assert_allclose(table["ours"].drop(gain), 0, atol=1e-12)
    assert (table["seeds"] == 3).all() and table.loc[gain, "verdict"] == "holds"
    assert set(table["verdict"].drop(gain)) == {"undecided"}


def test_small_files_merge_in_any_order(three, tmp_path, monkeypatch, capsys):
    """Another machine gets the files one by one, the last seed first, and ends with the same tables."""
    tables = {name: (three / name).read_bytes() for name in ("seeds.csv", "primary_claims.csv", "primary_claims.md")}
    files = {path.name: path.read_bytes() for path in (three / "seeds").iterdir()}
    assert sorted(files) == ["0.json", "1.json", "4.json"] and max(map(len, files.values())) < 200_000
    monkeypatch.setenv("LENSNB_ROOT", str(tmp_path / "elsewhere"))
    there = runfolder.figures("smoke")
    (there / "seeds").mkdir(parents=True)
    for name in ("4.json", "1.json", "0.json"):
        (there / "seeds" / name).write_bytes(files[name])
        assert cli.main(["seeds", "--profile", "smoke"]) == (2 if name == "4.json" else 0)
    assert {name: (there / name).read_bytes() for name in tables} == tables
    assert {path.name: path.read_bytes() for path in (there / "seeds").iterdir()} == files
    capsys.readouterr()


def test_a_checkout_has_tables_but_no_detections(three, tmp_path, monkeypatch, capsys):
    """The committed tables of seed 0 with its file give what the run gave; beside other tables the file is no use."""
    for row in ROWS:
        Run("smoke").detections(row).unlink()
    before = (three / "primary_claims.csv").read_bytes()
    assert cli.main(["seeds", "--profile", "smoke"]) == 0
    assert (three / "primary_claims.csv").read_bytes() == before
    assert "Without" not in capsys.readouterr().out
    table = pd.read_csv(three / "table2.csv")
    table.assign(average=0.7).to_csv(three / "table2.csv", index=False)
    assert cli.main(["seeds", "--profile", "smoke"]) == 0
    assert "Without the primary claims' seeds 0" in capsys.readouterr().out
    assert (pd.read_csv(three / "primary_claims.csv")["seeds"] == 2).all()


def test_a_run_counts_before_its_file(three):
    run = Run("smoke", 1)
    for row in ROWS:
        write_table(pd.read_csv(run.detections(row)).head(0), run.detections(row))
    assert cli.main(["seeds", "--profile", "smoke"]) == 0
    assert not seed_results.read(three / "seeds" / "1.json").averages["a"].any()


def spoil(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / "1.json").write_text("{"), "1.json is not valid JSON"),
        (
            lambda folder: (folder / "1.json").write_text("{}"),
            "1.json is not what `python -m lensnb seeds` writes: it has",
        ),
        (lambda folder: spoil(folder / "1.json", averages=[1]), "1.json is not what"),
        (lambda folder: spoil(folder / "1.json", averages={"a": [0.1], "b": [0.1, 0.2]}), "rows of several lengths"),
        (lambda folder: spoil(folder / "1.json", lines=[["row", "a", 0.5]]), "1.json is not what"),
        (lambda folder: spoil(folder / "1.json", lines=[["row", "z", 0.5, ""]]), "differ in their lines"),
        (lambda folder: spoil(folder / "1.json", test_set="other"), "seeds 0 and 1 were tested on different patients"),
        (lambda folder: (folder / "7.json").write_bytes((folder / "4.json").read_bytes()), "are both of seed 4"),
        (lambda folder: spoil(folder / "1.json", averages={"a": [0.1, 0.2]}), "seed 1 has no row baseline"),
    ],
)
def test_broken_files_are_refused(three, tmp_path, monkeypatch, capsys, change, message):
    monkeypatch.setenv("LENSNB_ROOT", str(tmp_path / "elsewhere"))
    there = runfolder.figures("smoke") / "seeds"
    there.mkdir(parents=True)
    for path in (three / "seeds").iterdir():
        (there / path.name).write_bytes(path.read_bytes())
    change(there)
    capsys.readouterr()
    assert cli.main(["seeds", "--profile", "smoke"]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (there.parent / "seeds.csv").exists()


def test_a_variant_leaves_its_profiles_files_alone(three, tmp_path):
    """A variant begins with links to its profile's files, the seeds' among them."""
    variants = tmp_path / "data" / "variants"
    variants.mkdir(parents=True)
    (variants / "smoke+low.yml").write_text("base: smoke\nmining:\n  sigmas: [0.05]\n")
    runfolder.borrow(runfolder.figures("smoke+low"), runfolder.figures("smoke"))
    assert list(seeds.collect("smoke+low")) == [0]


# --- ./run_all.sh --seeds ---------------------------------------------------------------------------------------------


def test_all_seeds_are_made_one_after_another_and_then_compared(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LENSNB_ROOT", str(tmp_path))
    monkeypatch.delenv("LENSNB_DATA", raising=False)
    made = []

    def run(profile, only, found, cores, seed):
        made.append((profile, seed, tuple(only)))
        write_run(seed)

    monkeypatch.setattr(engine, "run", run)
    engine.make(options.parse(["--profile", "smoke", "--seeds", "3", "--cores", "1"]))
    assert made == [("smoke", seed, ("table2",)) for seed in range(3)]
    assert (pd.read_csv(runfolder.figures("smoke") / "primary_claims.csv")["seeds"] == 3).all()
    assert "p_corrected" in capsys.readouterr().out and (runfolder.figures("smoke") / "seeds" / "2.json").exists()


def test_a_dry_run_names_the_steps_of_each_seed(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LENSNB_ROOT", str(tmp_path))
    monkeypatch.delenv("LENSNB_DATA", raising=False)
    engine.make(options.parse(["--profile", "smoke", "--seeds", "2", "--dry-run"]))
    shown = capsys.readouterr().out
    assert "seed 0" in shown and "smoke-seed1/table2.csv" in shown and shown.count("table2.md") == 2
    assert not (runfolder.figures("smoke") / "seeds").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "1"], "1 is not a whole number of at least 2"),
        (["--seeds", "3", "--seed", "1"], "--seeds makes seeds 0 to 2; --seed names one"),
        (["--seeds", "3", "--seed=0"], "--seed names one"),
        (["--seeds", "3", "--only", "fig6"], "--seeds makes Table II of each seed"),
    ],
)
def test_what_seeds_cannot_go_with(arguments, message, capsys):
    with pytest.raises(SystemExit) as ended:
        options.parse(arguments)
    assert ended.value.code == 2 and message in capsys.readouterr().err


def test_help_says_so(capsys):
    with pytest.raises(SystemExit):
        options.parse(["--help"])
    assert "--seeds N" in capsys.readouterr().out
