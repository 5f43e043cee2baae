"""Published notebooks: outputs of the run, code and words of the repository, nothing of the machine."""

from pathlib import Path

import nbformat
import pytest

from lensnb import runfolder
from lensnb import runfolder as paths
from lensnb.run import publishing
from lensnb.run.targets import Product, RunError


def book(code: list[tuple[str, list[str]]], words: str = "# Title") -> nbformat.NotebookNode:
    made = nbformat.v4.new_notebook()
    made.cells = [nbformat.v4.new_markdown_cell(words)]
    made.cells += [nbformat.v4.new_code_cell(source, metadata={"tags": tags}) for source, tags in code]
    return made


PARAMETERS = ('profile = "phantom"  # size\nrate = 0.5', ["parameters"])
INJECTED = ('# Parameters\nprofile = "phantom"', ["injected-parameters"])
CODE = ("print(1)", [])


def executed(**parameters: object) -> nbformat.NotebookNode:
    made = book([PARAMETERS, INJECTED, CODE], words="# An older title")
    made.metadata["papermill"] = {"parameters": parameters, "output_path": "/somewhere"}
    made.metadata["widgets"] = {}
    text = f"{runfolder.root()}/data/runs/x.csv and {Path.home()}/y in half of {runfolder.root().name}"
    cell = made.cells[-1]
    cell.execution_count = 7
    cell.metadata["papermill"] = {"start_time": "2020"}
    cell.outputs = [
        nbformat.v4.new_output("stream", text=text),
        nbformat.v4.new_output(
            "execute_result", {"text/html": f"<b>{runfolder.root()}/a</b>", "image/png": "/+9"}, execution_count=7
        ),
    ]  # fmt: skip
    return made


def test_merge_takes_outputs_alone():
    source = book([PARAMETERS, CODE])
    result = publishing.merge(source, executed(profile="phantom", rate=0.5), "n")
    nbformat.validate(result)
    assert [cell.source for cell in result.cells] == ["# Title", PARAMETERS[0], "print(1)"]
    assert [cell.execution_count for cell in result.cells[1:]] == [1, 2]
    stream, shown = result.cells[2].outputs
    assert stream.text == f"data/runs/x.csv and y in half of {runfolder.root().name}"
    assert shown.data == {"text/html": "<b>a</b>", "image/png": "/+9"} and shown.execution_count == 2
    assert result.metadata == {} and result.cells[2].metadata == {"tags": []}


@pytest.mark.parametrize(
    ("source", "run", "message"),
    [
        (book([PARAMETERS, ("print(2)", [])]), executed(profile="phantom"), "its code was changed after the run"),
        (
            book([PARAMETERS, CODE]),
            executed(profile="smoke"),
            "run with profile = 'smoke', its own default is 'phantom'",
        ),
        (book([PARAMETERS, CODE]), executed(experiment="a"), "run with experiment = 'a', its own default is None"),
    ],
)
def test_merge_refuses_outputs_of_something_else(source, run, message):
    with pytest.raises(RunError, match=message):
        publishing.merge(source, run, "n")


def test_publish_refuses_an_incomplete_run():
    made, missing = Product("a", Path("a"), "step"), Product("b", Path("b"), "step", "not made yet")
    with pytest.raises(RunError, match=r"1 of 2 targets .* are not made or out of date \(b\)"):
        publishing.publish([made, missing])


def test_publish_writes_all_or_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("LENSNB_ROOT", str(tmp_path))
    monkeypatch.setattr(paths, "repository", lambda: tmp_path)
    runs = tmp_path / "data" / "runs" / "phantom"
    for folder in (runs, tmp_path / "notebooks"):
        folder.mkdir(parents=True)
    for name, ran in (("00_a", "00_a"), ("04_b", f"04_b-{publishing.PUBLISHED_EXPERIMENT}")):
        nbformat.write(book([PARAMETERS, CODE]), tmp_path / "notebooks" / f"{name}.ipynb")
        nbformat.write(executed(profile="phantom"), runs / f"{ran}.ipynb")
    nbformat.write(book([PARAMETERS, ("other", [])]), tmp_path / "notebooks" / "05_c.ipynb")
    nbformat.write(executed(profile="phantom"), runs / "05_c.ipynb")
    before = (tmp_path / "notebooks" / "00_a.ipynb").read_bytes()
    with pytest.raises(RunError):
        publishing.publish([])
    assert (tmp_path / "notebooks" / "00_a.ipynb").read_bytes() == before
    (tmp_path / "notebooks" / "05_c.ipynb").unlink()
    assert [path.name for path in publishing.publish([])] == ["00_a.ipynb", "04_b.ipynb"]
    assert nbformat.read(tmp_path / "notebooks" / "04_b.ipynb", 4).cells[2].outputs
