"""The worked examples of change_one_thing.md: made on a copy of the package, each works and touches few files."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from small_store import write_store

from lensnb import __main__
from lensnb.boxes import COLUMNS
from lensnb.files import write_table
from lensnb.run import options
from lensnb.runfolder import Run
from lensnb.variants import write_variant

REPOSITORY = Path(__file__).resolve().parents[1]
PAGE = REPOSITORY / "notebooks" / "change_one_thing.md"
# files of lensnb: the thing itself, and its registration
MOST = {"A threshold": 0, "An experiment": 1, "A loss": 1}
PATCHES_NOTHING = "A threshold"  # a command and no change, so that its check holds without one


def examples() -> dict[str, dict[str, list[tuple[str, str]]]]:
    """Title of each example -> its files [(kind, file, text)], its check, other Python to try, and its commands."""
    found = {}
    for section in re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)[1:]:
        title = section.splitlines()[0].split(". ", 1)[1]
        blocks = re.findall(r"^```(.*?)\n(.*?)^```$", section, flags=re.MULTILINE | re.DOTALL)
        changes = []
        for info, text in blocks:
            if match := re.fullmatch(r"(python|diff) file=(\S+)", info):
                changes.append((match[1], match[2], text))
        checks = [text for info, text in blocks if info == "python check"]
        assert len(checks) == 1, f"{title}: an example has one check"
        tried = [text for info, text in blocks if info == "python"]
        plain = re.sub(r"^```(?!\n).*?\n.*?^```$", "", section, flags=re.MULTILINE | re.DOTALL)  # no code but commands
        commands = re.findall(r"(?:^|`)((?:\w+=\S+ )*(?:\./run_all\.sh|python -m lensnb) [^`\n]+)", plain, re.MULTILINE)
        found[title] = {"changes": changes, "check": checks[0], "tried": tried, "commands": commands}
    return found


EXAMPLES = examples()


def apply(text: str, diff: str) -> str:
    """`text` after the hunks of a diff, each of which must fit one place of it."""
    for hunk in diff.split("@@\n"):
        lines = hunk.splitlines(keepends=True)
        assert all(line[0] in " -+" for line in lines), hunk
        old = "".join(line[1:] for line in lines if line[0] in " -")
        new = "".join(line[1:] for line in lines if line[0] in " +")
        assert old and text.count(old) == 1, f"fits {text.count(old)} places:\n{hunk}"
        text = text.replace(old, new)
    return text


def copy_of_lensnb(folder: Path) -> Path:
    return shutil.copytree(REPOSITORY / "lensnb", folder / "lensnb", ignore=shutil.ignore_patterns("__pycache__"))


def make(changes: list[tuple[str, str, str]], package: Path) -> None:
    for kind, name, text in changes:
        file = package / name
        assert file.exists() == (kind == "diff"), f"{name}: a new file does not exist yet, and a changed one does"
        file.write_text(apply(file.read_text(), text) if kind == "diff" else text)


def run(code: str, folder: Path) -> subprocess.CompletedProcess:
    environment = {
        **os.environ, "PYTHONPATH": f"{folder}:{REPOSITORY / 'tests'}", "LENSNB_ROOT": str(folder / "root"),
        "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip
    environment.pop("LENSNB_DATA", None)
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, timeout=300
    )


def test_every_kind_of_change_has_an_example():
    kinds = ["A threshold", "An experiment", "A backbone", "A proposal network", "A loss", "A mining rule", "A dataset"]
    assert list(EXAMPLES) == kinds


@pytest.mark.parametrize("title", EXAMPLES)
def test_example_touches_few_files(title):
    files = {name for _, name, _ in EXAMPLES[title]["changes"]}
    assert len(files) <= MOST.get(title, 2), files


@pytest.mark.parametrize("title", EXAMPLES)
def test_example_works(title, tmp_path):
    make(EXAMPLES[title]["changes"], copy_of_lensnb(tmp_path))
    result = run(EXAMPLES[title]["check"], tmp_path)
    assert result.returncode == 0, result.stderr[-3000:]


def write_mined(run: Run) -> None:
    """The tables that mining starts from: an unmarked lesion beside each marked one, and a tracklet on it."""
    boxes = write_store(run.prepared).boxes
    boxes = boxes[boxes["dataset"] == "DeepLesion"]
    others = boxes.assign(lesion=boxes["lesion"] + "-b", x1=boxes["x1"] + 20, x2=boxes["x2"] + 20)
    write_table(pd.concat([boxes, others], ignore_index=True), run.prepared / "truth.csv")
    write_table(others.assign(tracklet=range(len(others)), score=0.9), run.tracklets("train"))
    for strategy in ("cross-slice", "intra-patient"):
        write_table(pd.DataFrame(columns=COLUMNS), run.mined(strategy))


@pytest.mark.parametrize("title", [title for title in EXAMPLES if EXAMPLES[title]["tried"]])
def test_what_an_example_tries_works(title, tmp_path, monkeypatch):
    """Python that is no check, on the tables of a small run."""
    make(EXAMPLES[title]["changes"], copy_of_lensnb(tmp_path))
    monkeypatch.setenv("LENSNB_ROOT", str(tmp_path / "root"))
    write_mined(Run("smoke"))
    for text in EXAMPLES[title]["tried"]:
        result = run(text, tmp_path)
        assert result.returncode == 0, result.stderr[-3000:]
        assert "'mined': 2, 'precision': 1.0, 'recall': 1.0" in result.stdout


def test_the_commands_are_commands(tmp_path, monkeypatch):
    """Names and values of every command on the page are known; the examples' own words are theirs."""
    monkeypatch.setenv("LENSNB_ROOT", str(tmp_path))
    commands = [command for example in EXAMPLES.values() for command in example["commands"]]
    assert len(commands) >= 9
    for command in commands:
        words = [word.replace("DIR", str(tmp_path)) for word in shlex.split(re.sub(r"^(\w+=\S+ )+", "", command))]
        if words[0] == "python":
            __main__.parser().parse_args(words[3:])
        else:
            asked = options.parse(words[1:])
            assert not asked.variant or write_variant(asked.profile, asked.variant, asked.set)


def test_checks_fail_without_the_change(tmp_path):
    """All of them in one process: what a check says must come from the change."""
    copy_of_lensnb(tmp_path)
    lines = ["import traceback", "passed = []"]
    for title in EXAMPLES:
        lines += ["try:", f"    exec({EXAMPLES[title]['check']!r}, {{}})", f"    passed.append({title!r})"]
        lines += ["except Exception:", "    pass"]
    result = run("\n".join([*lines, "print(passed)"]), tmp_path)
    assert result.stdout.splitlines()[-1:] == [repr([PATCHES_NOTHING])], result.stderr


def test_a_reader_sees_which_file_a_block_is_of():
    """The info string of a block is not shown where Markdown is rendered."""
    for info, kind, name in re.findall(r"^(.*)\n\n```(python|diff) file=(\S+)$", PAGE.read_text(), flags=re.MULTILINE):
        assert info == (f"`{name}`, new:" if kind == "python" else f"`{name}`:")


def test_no_line_is_too_long_for_the_package():
    lines = [line for example in EXAMPLES.values() for *_, text in example["changes"] for line in text.splitlines()]
    assert [line for line in lines if len(line) > 121] == []
