"""Several seeds: folders of their own, one test set, and their tables beside each other."""

import subprocess
import sys

import pandas as pd
import pytest

from lensnb import __main__ as cli
from lensnb import runfolder
from lensnb.evaluation import seeds
from lensnb.run import options, story, targets
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
    table = seeds.compare(seeds.find("phantom"))
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
    assert "seed 4 alone has tables" in error and "--profile smoke --seed 5 --only table2" in error
    assert cli.main(["seeds", "--profile", "smokey"]) == 2
