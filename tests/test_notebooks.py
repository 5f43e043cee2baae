"""What every notebook keeps to, so that all of them read as one story, and stay true to what they show."""

import ast
import json
import os
import re
import subprocess
import sys
from collections import Counter

import nbformat
import pytest

from lensnb import runfolder
from lensnb.run import notebook

NOTEBOOKS = sorted((runfolder.repository() / "notebooks").glob("*.ipynb"))
BOOKS = {path.stem: nbformat.read(path, 4) for path in NOTEBOOKS}
each = pytest.mark.parametrize("name", BOOKS)
EXACT = "nbval-check-output"
MACHINE = re.compile(r"(?<![\w.])/(?:home|Users|root|tmp|work|mnt|opt)/[\w.-]")


def code(name: str) -> list:
    return [cell for cell in BOOKS[name].cells if cell.cell_type == "code"]


def tagged(name: str, tag: str) -> list:
    return [cell for cell in code(name) if tag in cell.metadata.get("tags", [])]


def definitions(name: str) -> list[str]:
    nodes = [node for cell in code(name) for node in ast.walk(ast.parse(cell.source))]
    return [node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.ClassDef)]


def texts(value: object) -> list[str]:
    """All texts in an output, without pictures."""
    if isinstance(value, dict):
        return [text for key, item in value.items() if not key.startswith("image/") for text in texts(item)]
    if isinstance(value, list):
        return [text for item in value for text in texts(item)]
    return [value] if isinstance(value, str) else []


def test_the_story_is_complete():
    assert [name[:2] for name in BOOKS] == [f"{number:02d}" for number in range(len(BOOKS))]


@each
def test_valid_and_runnable(name):
    nbformat.validate(BOOKS[name])
    assert BOOKS[name].metadata.kernelspec.language == "python"  # papermill refuses a notebook without it
    assert BOOKS[name].metadata.kernelspec.name == "python3"


@each
def test_parameters_are_literals(name):
    (cell,) = tagged(name, "parameters")
    assert cell is code(name)[0]
    for line in ast.parse(cell.source).body:
        assert isinstance(line, ast.Assign), "papermill puts values in place of plain assignments only"
        ast.literal_eval(line.value)


@each
def test_cells_are_short(name):
    longest = max(code(name), key=lambda cell: cell.source.count("\n"))
    assert longest.source.count("\n") < 30, f"move this into a module:\n{longest.source}"
    assert len(definitions(name)) <= 2, "move functions into a module"


def test_no_function_is_defined_twice():
    count = Counter(function for name in BOOKS for function in set(definitions(name)))
    assert [function for function, times in count.items() if times > 1] == []


@each
def test_first_cell_tells_what_to_expect(name):
    first = BOOKS[name].cells[0]
    assert first.cell_type == "markdown" and first.source.startswith("# ")
    assert [word for word in ("Goal", "Reads", "Writes", "Takes") if f"**{word}" not in first.source] == []


@each
def test_links_between_notebooks_lead_somewhere(name):
    cells = [cell.source for cell in BOOKS[name].cells if cell.cell_type == "markdown"]
    links = [link for source in cells for link in re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", source)]
    assert [link for link in links if not (NOTEBOOKS[0].parent / link).exists()] == []


@each
def test_stored_outputs_are_of_one_whole_execution(name):
    counts = [cell.execution_count for cell in code(name) if cell.source.strip()]
    if not any(counts):
        pytest.skip("not published yet: ./run_all.sh publish")
    assert counts == list(range(1, len(counts) + 1))
    outputs = [output for cell in code(name) for output in cell.outputs]
    assert [output for output in outputs if output.output_type == "error"] == []
    assert [output.text for output in outputs if output.output_type == "stream" and output.name == "stderr"] == []


@each
def test_no_trace_of_one_machine(name):
    found = [text for cell in BOOKS[name].cells for text in (cell.source, *texts(cell.get("outputs", [])))]
    assert [text for text in found if MACHINE.search(text)] == []
    assert "papermill" not in BOOKS[name].metadata
    assert NOTEBOOKS[0].with_name(f"{name}.ipynb").stat().st_size < 3_000_000


@pytest.mark.parametrize("name", [name for name in BOOKS if tagged(name, EXACT)])
def test_exact_outputs(name, chain, tmp_path):
    """Cells whose output does not depend on the data still print what is stored: nbval runs the notebook again.

    It runs a copy at the smoke profile, beside the smoke chain's files, and compares the tagged cells alone.
    """
    copy = json.loads(NOTEBOOKS[0].with_name(f"{name}.ipynb").read_text())
    (parameters,) = [cell for cell in copy["cells"] if "parameters" in cell["metadata"].get("tags", [])]
    parameters["source"] = "".join(parameters["source"])
    for key, value in notebook.parameters(NOTEBOOKS[0].with_name(f"{name}.ipynb"), "smoke", {}).items():
        parameters["source"] = re.sub(rf"(?m)^{key} = [^#\n]*", f"{key} = {value!r}  ", parameters["source"])
    stored = [cell for cell in copy["cells"] if EXACT in cell["metadata"].get("tags", []) and cell["outputs"]]
    if not stored:
        pytest.skip("not published yet: ./run_all.sh publish")
    (tmp_path / f"{name}.ipynb").write_text(json.dumps(copy))
    options = ["--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=120", "-p", "no:cacheprovider", "-q"]
    environment = {key: value for key, value in os.environ.items() if key != "MPLBACKEND"}
    environment |= {"LENSNB_ROOT": str(chain.root), "PYTHONPATH": str(runfolder.repository())}
    command = [sys.executable, "-m", "pytest", *options, f"{name}.ipynb"]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def test_the_search_for_machine_paths_finds_them():
    assert MACHINE.search("read '/home/ann/lensnb/data'") and MACHINE.search("(/mnt/x)")
    assert not MACHINE.search("1/2, data/mnt/x and ../home/y")
