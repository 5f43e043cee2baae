"""A notebook that cannot run says so in its set-up cell, in one line: what is missing and who makes it, or which
parameter is not its own."""

import re
import subprocess
import sys
from pathlib import Path

import nbformat
import papermill
import pytest
from conftest import plain_papermill

from lensnb import runfolder
from lensnb.detection import scoring
from lensnb.run import story
from lensnb.settings import load_profile
from lensnb.show import needs, parameters
from lensnb.show.session import start
from lensnb.training import experiments
from lensnb.variants import write_variant

NOTEBOOKS = sorted((runfolder.repository() / "notebooks").glob("*.ipynb"))
AFTER = {path.stem[:2]: "01_the_data" if path.stem[:2] in ("02", "13", "14", "15", "16") else "02_preparing_ct"
         for path in NOTEBOOKS[2:]}  # fmt: skip


def stopped(notebook: Path, out: Path, **given: object) -> str:
    """The one line with which a notebook ends at its start."""
    kernel = {"kernel_name": "python3", "progress_bar": False, "cwd": notebook.parent}
    with pytest.raises(papermill.PapermillExecutionError) as stop:
        papermill.execute_notebook(notebook, out, given, **kernel)
    (error,) = [
        output for cell in nbformat.read(out, 4).cells for output in cell.get("outputs", [])
        if output.output_type == "error"
    ]  # fmt: skip
    assert error.traceback == [f"CannotStart: {error.evalue}"] and "\n" not in error.evalue
    assert stop.value.exec_count == 3  # behind the parameters' cell and papermill's own
    return error.evalue


@pytest.fixture
def empty(tmp_path, monkeypatch) -> Path:
    """An empty folder for everything that is read and written."""
    monkeypatch.setenv("LENSNB_ROOT", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(runfolder.repository()))
    monkeypatch.delenv("LENSNB_DATA", raising=False)
    monkeypatch.setenv(runfolder.BY_HAND, "")  # a notebook that is opened here sets it; no step may inherit it
    return tmp_path


def first_to_run(line: str, number: str) -> bool:
    target = AFTER[number]
    said = f"run notebook {target}.ipynb first" in line and f"./run_all.sh --profile smoke --only {target}`" in line
    return said and re.search(r"there is no data/(phantom|prepared)/smoke(\+by-hand)?/", line) is not None


@pytest.mark.parametrize("notebook", NOTEBOOKS[2:], ids=lambda path: path.stem)
def test_a_notebook_names_what_must_be_run_first(notebook, empty):
    """The first two code cells, as a kernel runs them; a kernel for each notebook would cost minutes."""
    names = {}
    cells = [cell.source for cell in nbformat.read(notebook, 4).cells if cell.cell_type == "code"]
    exec(cells[0] + '\nprofile = "smoke"', names)
    with pytest.raises(parameters.CannotStart) as stop:
        exec(cells[1], names)
    assert first_to_run(str(stop.value), notebook.stem[:2])


@pytest.mark.parametrize("number", [2, 6])
def test_papermill_stops_with_one_line(number, empty):
    notebook = NOTEBOOKS[number]
    assert first_to_run(stopped(notebook, empty / "out.ipynb", profile="smoke"), notebook.stem[:2])


def test_needs_are_files_that_their_targets_make():
    """The table says of each file the step that the story says."""
    run, makers = runfolder.Run("smoke"), {path: step for step in story.steps("smoke") for path in step.makes}
    named = [needs.experiment("multi"), *(needs.proposals(f"multi-{split}") for split in ("val", "train", "own"))]
    for need in (*needs.NEEDS.values(), *named):
        found = {makers[path].name for path in need.files(run)}
        if need.name == "mined boxes" or need.name == "audits of mining":  # 08 is the last of three
            assert need.target in found
        elif need.name == "predictions of LesaNet and its rivals":  # LesaNet's own are made with it
            assert found == {need.target, "lesanet"}
        else:
            assert found == {need.target}, need.name


@pytest.mark.parametrize("notebook", ["09_retraining", "11_froc_and_table2"])
def test_all_trainings_that_a_notebook_compares_are_made_before_it(notebook):
    steps = story.steps("smoke")
    own = next(step for step in steps if step.name == notebook)
    before = {step.name for step in story.before(own, steps)}
    assert {f"04_training_lens-{name}" for name in experiments.available(True)} <= before


def test_cross_fitted_proposals_need_two_trainings_more(tmp_path, monkeypatch):
    monkeypatch.setenv("LENSNB_ROOT", str(tmp_path))
    usual, name = {step.name for step in story.steps("smoke")}, "10_false_positive_reduction"
    steps = story.steps(write_variant("smoke", "cross-fit", ["fpr.cross_fit=true"]))
    folds = {f"04_training_lens-{fold}" for fold in experiments.FOLDS}
    assert {step.name for step in steps} - usual == folds
    own = next(step for step in steps if step.name == name)
    assert folds <= {step.name for step in story.before(own, steps)}
    assert not any("multi-mined-train" in path.name for path in own.makes)


def test_a_command_and_an_experiment_are_named(empty):
    session = start("smoke", 3)
    with pytest.raises(parameters.CannotStart, match="run `python -m lensnb pretext --profile smoke --seed 3` first"):
        session.needs("starting weights")
    with pytest.raises(parameters.CannotStart, match='notebook 04_training_lens.ipynb with experiment = "multi" first'):
        session.needs(experiments=["multi"])
    with pytest.raises(parameters.CannotStart, match="only 04_training_lens-multi-mined`"):
        session.needs(proposals=["multi-mined-test"])
    found = session.run.proposals("multi", "train")
    found.parent.mkdir(parents=True)
    found.touch()
    session.needs(proposals=["multi-train"])


def test_papermill_with_a_misspelt_parameter(empty):
    """Plain papermill takes any name and would show the defaults' results."""
    done = plain_papermill(NOTEBOOKS[0], empty / "out.ipynb", "-p", "profle", "smoke")
    assert done.returncode != 0
    line = "CannotStart: this notebook has no parameter 'profle'; it has profile, seed, interactive"
    assert line in done.stderr.splitlines()


def test_papermill_with_a_wrong_type_or_profile(empty):
    line = stopped(NOTEBOOKS[0], empty / "out.ipynb", interactive="yes")
    assert line == "parameter interactive is 'yes'; its default is False, another type"
    assert "choose one of smoke" in stopped(NOTEBOOKS[0], empty / "out.ipynb", profile="huge")


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        (["a = 1\nb = ''", "# Parameters\na = 2\n"], None),
        (["a = 1.5", "# Parameters\na = 2\n"], None),
        (["a = 1", "# Parameters\na = 2.5\n"], "parameter a is 2.5; its default is 1, another type"),
        (["a = 1", "# Parameters\nc = 2\n"], "has no parameter 'c'; it has a"),
        (["a = 1", "b = 2"], None),
        (["a = 1", "b = 2", "# Parameters\nc = 2\n"], None),  # by hand
        (["%matplotlib inline", "# Parameters\nc = 2\n"], None),
        (["a = 1.0", "# Parameters\na = float('nan')\n"], "not a literal"),
        (["a = 1"], None),
        ([], None),
    ],
)
def test_what_papermill_injected_is_checked(cells, message):
    if message is None:
        parameters.check_injected(cells)
        return
    with pytest.raises(parameters.CannotStart, match=message):
        parameters.check_injected(cells)


def test_a_step_that_cannot_start_fails_with_that_line(empty):
    notebook = NOTEBOOKS[6]
    output = runfolder.runs("smoke") / notebook.name
    command = [sys.executable, "-m", "lensnb.run.step", notebook, "--profile", "smoke", "--output", output]
    assert subprocess.run(command, capture_output=True, cwd=runfolder.repository()).returncode == 1
    told = (runfolder.runs("smoke") / "failures" / f"{notebook.stem}.txt").read_text()
    assert told.startswith(f"{notebook.stem}: prepared volumes: missing, there is no data/prepared/smoke/volumes.csv;")


def test_without_the_controls_table2_has_no_rows_of_theirs(tmp_path, monkeypatch):
    """A variant that does without them may have borrowed their proposals, as it has here."""
    monkeypatch.setenv("LENSNB_ROOT", str(tmp_path))
    monkeypatch.setattr(scoring, "detections", lambda file, settings, experts: file.name)
    for name, rows in (("smoke", {"a", "a-long"}), (write_variant("smoke", "none", ["phantom.controls=false"]), {"a"})):
        run = runfolder.Run(name)
        for experiment in ("single", "single-long"):
            path = run.proposals(experiment, "val")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        assert set(scoring.rows_on(run, "val", load_profile(name).inference)) == rows
