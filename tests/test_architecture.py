"""The house of lensnb: which room may know which, no circle, few files at the door, and what runs without torch."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "lensnb"
# a room may import itself and what stands on an earlier line; lensnb/README.md says what each owns
FLOORS = (
    ("boxes", "files", "system", "streams", "table of datasets"),
    ("provenance",),
    ("settings", "runfolder", "variants"),
    ("models", "ct"),
    ("datasets",),
    ("training",),
    ("lesanet",),
    ("mining",),
    ("evaluation",),
    ("detection",),
    ("phantom",),
    ("show",),
    ("own_ct", "bookmarks"),
    ("run",),
    ("__main__",),
)
FLOOR = {room: number for number, floor in enumerate(FLOORS) for room in floor}
FLAT = 10  # files directly in lensnb/


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imported(path: Path) -> set[str]:
    """The modules of lensnb that a file imports, those inside functions included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "lensnb":
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.split(".")[0] == "lensnb"]
        for name in names:
            name = name.removeprefix("lensnb").lstrip(".")
            found.add(name if name in FILES else name.rpartition(".")[0])
    return found - {name_of(path)}


IMPORTS = {name: imported(path) for name, path in FILES.items() if name}


def room(name: str) -> str:
    # what a dataset means is said in lensnb/datasets/__init__.py, which reads nothing and which everybody may read
    return "table of datasets" if name == "datasets" else name.split(".")[0]


def test_every_file_has_its_room():
    assert sorted({room(name) for name in IMPORTS} - FLOOR.keys()) == []
    assert sorted(set(FLOOR) - {room(name) for name in IMPORTS}) == []


@pytest.mark.parametrize("name", sorted(IMPORTS))
def test_imports_go_down_only(name):
    above = {other for other in IMPORTS[name] if FLOOR[room(other)] > FLOOR[room(name)]}
    beside = {o for o in IMPORTS[name] if FLOOR[room(o)] == FLOOR[room(name)] and room(o) != room(name)}
    assert above == set(), f"{name} knows a room above its own"
    # two rooms of one floor do not know each other; the files at the door may
    assert {o for o in beside if "." in o or "." in name} == set()


def test_no_circle():
    tuple(TopologicalSorter(IMPORTS).static_order())  # raises CycleError, which names it


def test_no_import_of_lensnb_is_hidden_in_a_function():
    hidden = []
    for name, path in FILES.items():
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom | ast.Import) and node not in tree.body:
                modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
                hidden += [f"{name}, line {node.lineno}" for module in modules if module.split(".")[0] == "lensnb"]
    assert hidden == []


def test_few_files_at_the_door():
    flat = [path.name for path in PACKAGE.iterdir() if path.is_file()]
    assert len(flat) <= FLAT, sorted(flat)


WITHOUT_TORCH = (
    ("evaluation", "mining", "boxes"), ("datasets", "ct", "phantom"), ("detection.fusion", "detection.scoring"),
)  # fmt: skip


@pytest.mark.parametrize("wanted", WITHOUT_TORCH)
def test_runs_without_torch(wanted):
    """The evaluation and the mining rules run where only numpy and pandas are; many processes read files or write
    phantoms, and torch would cost each of them 600 MB and seconds; so would it a notebook that trains nothing."""
    modules = [f"lensnb.{name}" for name in IMPORTS if room(name) in wanted or name in wanted]
    code = f"import importlib, sys\nfor name in {modules}: importlib.import_module(name)\nprint('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent)
    assert result.stdout == "False\n", result.stderr


def test_boxes_mining_and_evaluation_never_import_torch():
    """Not in a function either: there, a missing torch would show only when the function is called."""
    found = []
    for name in (name for name in IMPORTS if room(name) in ("boxes", "mining", "evaluation")):
        for node in ast.walk(ast.parse(FILES[name].read_text())):
            modules = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            found += [name for module in modules if module.split(".")[0] in ("torch", "torchvision")]
    assert found == []
