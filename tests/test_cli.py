"""The command line: what it prints, what it writes, and one line and a status for everything that goes wrong."""

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lensnb import __main__ as cli
from lensnb import phantom, runfolder
from lensnb.datasets import NAMES, preparation
from lensnb.detection import selection
from lensnb.own_ct import detect

ROOT = Path(__file__).resolve().parents[1]
HEADER = "volume,x1,y1,z1,x2,y2,z2"


def run(*arguments, **environment):
    command = [sys.executable, "-m", "lensnb", *map(str, arguments)]
    return subprocess.run(
        command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True, timeout=120
    )


@pytest.fixture
def files(tmp_path):
    truth, predictions = tmp_path / "truth.csv", tmp_path / "predictions.csv"
    truth.write_text(f"{HEADER}\na,10,10,5,19,19,9\nb,,,,,,\n")
    predictions.write_text(f"{HEADER},score\nb,1,1,1,2,2,2,.9\na,15,10,5,24,19,9,.8\n")
    return truth, predictions


def test_evaluate_as_a_program(files, tmp_path):
    out = tmp_path / "result.json"
    done = run("evaluate", "--truth", files[0], "--predictions", files[1], "--json", out)
    assert (done.returncode, done.stderr) == (0, "")
    assert "IoBB >= 0.3" in done.stdout
    result = json.loads(out.read_text())
    # one false positive in two volumes before the hit: found from 0.5 FP on
    assert result["sensitivity"] == [0, 0, 1, 1, 1, 1, 1] and result["average"] == pytest.approx(5 / 7)


def test_evaluate_options(files, tmp_path):
    out = tmp_path / "result.json"
    common = ["evaluate", "--truth", str(files[0]), "--predictions", str(files[1]), "--json", str(out)]
    for options, average in [
        (["--overlap", "iou"], 5 / 7),  # IoU 1/3
        (["--overlap", "iou", "--threshold", "0.34"], 0),
        (["--threshold", "0.5"], 5 / 7),  # IoBB exactly 0.5
        (["--threshold", "0.51"], 0),
    ]:
        assert cli.main(common + options) == 0
        assert json.loads(out.read_text())["average"] == pytest.approx(average), options


def test_errors_are_one_line_and_status_2(files, tmp_path):
    files[1].write_text(f"{HEADER},score\na,15,10,5,4,19,9,.8\n")
    done = run("evaluate", "--truth", files[0], "--predictions", files[1])
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("lensnb: ") and done.stderr.count("\n") == 1
    assert "predictions.csv" in done.stderr and "inverted box" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "--truth", "nowhere.csv", "--predictions", "p.csv"], "nowhere.csv does not exist"),
        (["evaluate", "--truth", "x.csv"], "required: --predictions"),
        (["evaluate", "--truth", "x", "--predictions", "y", "--threshold", "30"], "30 is not above 0 and at most 1"),
        (["nonsense"], "invalid choice: 'nonsense'"),
        ([], "required: COMMAND"),
        (["train", "nonsense"], "choose one of baseline, single"),
        (["train", "single", "--profile", "nonsense"], "'nonsense' is not a profile"),
        (["train", "single", "--profile", "smoke"], "volumes.csv does not exist"),
        (["prepare", "--profile", "smoke", "--data", "."], "holds none of DeepLesion"),
        (["detect", "ct.nii", "--output", "out"], "there are no weights yet"),
    ],
)
def test_wrong_usage(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LENSNB_ROOT", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    try:
        status = cli.main(arguments)
    except SystemExit as stop:
        status = stop.code
    error = capsys.readouterr().err
    assert status == 2
    assert message in error and error.startswith("lensnb: ") and error.count("\n") == 1


def test_failures_have_status_1_and_an_escape_hatch(files, monkeypatch, capsys):
    def diverge(*_):
        raise FloatingPointError("the loss is nan at iteration 3")

    monkeypatch.setattr(selection, "train_and_select", diverge)
    assert cli.main(["train", "single"]) == 1
    assert capsys.readouterr().err == "lensnb: the loss is nan at iteration 3\n"
    monkeypatch.setenv("LENSNB_TRACEBACK", "1")
    with pytest.raises(FloatingPointError):
        cli.main(["train", "single"])


def test_help_is_quick_and_has_examples():
    """--help must not wait for torch: no heavy module may be imported by the command line itself."""
    code = "import sys, lensnb.__main__; print(sorted({'torch', 'pandas', 'SimpleITK', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "[]\n"
    for command in ("evaluate", "evaluate-luna", "detect", "train", "prepare", "data"):
        with pytest.raises(SystemExit) as stop:
            cli.parser().parse_args([command, "--help"])
        assert stop.value.code == 0
        assert cli.EXAMPLES[command].count(f"python -m lensnb {command}") >= 1


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_the_function_of_a_command_takes_its_arguments(name):
    """In the order of the table: a name that both have stands in the same place."""
    command = cli.COMMANDS[name]
    taken = list(inspect.signature(cli.function_of(command)).parameters)
    given = [names[0].lstrip("-") for names, _ in command.arguments]
    assert len(given) <= len(taken)
    assert [word for word in given if word in taken and taken.index(word) != given.index(word)] == []


def test_train_calls_the_training_with_its_options(monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(selection, "train_and_select", lambda *arguments: calls.append(arguments) or Path("somewhere"))
    assert cli.main(["train", "multi", "--profile", "smoke", "--seed", "3"]) == 0
    assert cli.main(["train", "single"]) == 0
    assert calls == [("multi", "smoke", 3), ("single", "phantom", 0)]
    assert capsys.readouterr().out == "somewhere\nsomewhere\n"


def test_both_embeddings_can_be_trained(tmp_path, monkeypatch):
    calls = []

    def call(name: str):
        return lambda *given: calls.append((name, *given)) or tmp_path

    monkeypatch.setattr("lensnb.lesanet.study.train_for_profile", call("LesaNet"))
    monkeypatch.setattr("lensnb.lesanet.recognition.train_simpler", call("simpler"))
    assert cli.main(["lesanet", "--profile", "smoke"]) == 0 and cli.main(["embedding", "--seed", "3"]) == 0
    assert calls == [("LesaNet", "smoke", 0), ("simpler", "phantom", 3)]


def test_prepare_writes_phantoms_only_where_they_are_used(tmp_path, monkeypatch):
    monkeypatch.setenv("LENSNB_ROOT", str(tmp_path))
    written, prepared = [], []

    def write(root, spec, seed, workers):
        written.append((root, seed))
        for name in NAMES:
            (root / name).mkdir(parents=True)

    monkeypatch.setattr(phantom, "write", write)
    monkeypatch.setattr(preparation, "prepare", lambda *arguments: prepared.append(arguments) or {"datasets": {}})
    assert cli.main(["prepare", "--profile", "smoke", "--seed", "2"]) == 0
    assert written == [(runfolder.phantom("smoke", 2), 2)]
    raw, out, spacing, seed, _, _, datasets = prepared.pop()
    assert (raw, out, seed) == (runfolder.phantom("smoke", 2), runfolder.prepared("smoke", 2), 2)
    assert len(spacing) == 3 and datasets == NAMES
    (tmp_path / "mine" / "LiTS").mkdir(parents=True)
    assert cli.main(["prepare", "--profile", "smoke", "--data", str(tmp_path / "mine")]) == 0
    assert len(written) == 1 and prepared.pop()[6] == ("LiTS",)


def test_detect_prints_warnings(tmp_path, monkeypatch, capsys):
    import pandas as pd

    def found(input_path, output, weights, series, lesanet=None):
        output.mkdir(exist_ok=True)
        (output / "about.json").write_text(json.dumps({"warnings": [detect.PHANTOM_WARNING], "score_at_least": 0.05}))
        row = {"lesion": 1, "x_mm": 1.0, "y_mm": 2.0, "z_mm": 3.0, "long_mm": 9.5, "short_mm": 8.0, "score": 0.75}
        return pd.DataFrame([row, row | {"score": 0.25}][: 0 if series == "1.2.empty" else 2])

    monkeypatch.setattr(detect, "detect", found)
    assert cli.main(["detect", "ct.nii", "--output", str(tmp_path / "out"), "--weights", "w"]) == 0
    captured = capsys.readouterr()
    assert captured.err == f"lensnb: warning: {detect.PHANTOM_WARNING}\n"
    assert "2 detections, 1 scored 0.5 or more, in" in captured.out and "0.75" in captured.out
    arguments = ["detect", "ct", "--output", str(tmp_path / "out"), "--series", "1.2.empty"]
    assert cli.main(arguments) == 0
    assert "nothing was found with a score of 0.05 or more" in capsys.readouterr().out


def test_evaluate_luna(tmp_path, capsys):
    (tmp_path / "annotations.csv").write_text("seriesuid,coordX,coordY,coordZ,diameter_mm\ns,0,0,0,10\n")
    (tmp_path / "excluded.csv").write_text("seriesuid,coordX,coordY,coordZ,diameter_mm\n")
    (tmp_path / "seriesuids.csv").write_text("s\n")
    rows = "s,1,1,1,0.5\nother,0,0,0,0.9\n"
    (tmp_path / "submission.csv").write_text(f"seriesuid,coordX,coordY,coordZ,probability\n{rows}")
    arguments = ["evaluate-luna", "--json", str(tmp_path / "out.json")]
    for name in ("annotations", "excluded", "seriesuids", "submission"):
        arguments += [f"--{name}", str(tmp_path / f"{name}.csv")]
    assert cli.main(arguments) == 0
    assert "1 marks lie on scans" in capsys.readouterr().err
    result = json.loads((tmp_path / "out.json").read_text())
    assert (result["cpm"], result["sensitivity"], result["fp"][0]) == (1.0, [1.0] * 7, 0.125)
