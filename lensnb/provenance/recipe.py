"""What a result follows from: the code that computes it, and the versions of the libraries that this code uses.

A recipe is a dictionary from the name of one such thing to a short fingerprint of it, so that two recipes can be
compared and the difference be named. Code counts by module: a module and every module of lensnb that it imports, in
whatever function, directly or through others; comments, docstrings and layout do not count. Nothing is imported in
order to find out, so that it costs no torch and sees the files as they are.
"""

import ast
import hashlib
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib import metadata
from pathlib import Path

from lensnb.files import fingerprint

PACKAGE = Path(__file__).resolve().parents[1]
Recipe = dict[str, str]
OURS = ("lensnb.provenance", *(f"lensnb.provenance.{n}" for n in ("recipe", "product", "inventory", "commit", "sight")))
# What these give enters every recipe by value or not at all: the numbers of a profile, the place of a file, the plan of
# an experiment or a method. A new setting or experiment must not make all others again.
BY_VALUE = ("lensnb.settings", "lensnb.runfolder", "lensnb.system", "lensnb.training.experiments",
            "lensnb.lesanet.methods", *OURS)  # fmt: skip
# libraries that show, wait or count, but compute no number of a result
NO_NUMBERS = ("IPython", "ipywidgets", "nbformat", "nbclient", "papermill", "psutil", "snakemake")
SOLD_AS = {"yaml": "PyYAML", "PIL": "pillow"}  # libraries that are installed under another name
DATA = (".csv", ".yml", ".json")  # files in the room of a module that count as its code


def code(modules: Iterable[str], aside: Iterable[str] = BY_VALUE) -> Recipe:
    """The recipe of the code of some modules of lensnb: a fingerprint for each file, a version for each library.

    modules: names such as "lensnb.models.lens". aside: modules that are neither counted nor followed.
    Raises ValueError for a module that does not exist.
    """
    files, libraries, rooms = {}, set(), set()
    for module in closure(modules, aside):
        path = file_of(module)
        parsed = _parse(path.read_text(), module)
        files[_name_of(path)] = parsed.code
        libraries |= parsed.libraries
        rooms.add(path.parent)
    for data in (data for room in rooms for data in _data_in(room)):
        files[_name_of(data)] = _short(data.read_bytes())
    return dict(sorted(files.items())) | versions(libraries)


def closure(modules: Iterable[str], aside: Iterable[str] = BY_VALUE) -> list[str]:
    """These modules and all that they import, directly or through others, by name; without those set aside."""
    aside, found, waiting = set(aside), set(), list(modules)
    while waiting:
        module = waiting.pop()
        if module in found or module in aside:
            continue
        path = file_of(module)
        if path is None:
            raise ValueError(f"there is no module {module}")
        found.add(module)
        waiting += _parse(path.read_text(), module).modules
    return sorted(found)


def imports_of(cells: str, name: str) -> tuple[set[str], set[str]]:
    """The modules of lensnb and the libraries that the cells of the notebook `name` import."""
    parsed = _parse(_without_magic(cells), name)
    return set(parsed.modules), set(parsed.libraries)


def code_of(cells: str, name: str) -> str:
    """A fingerprint of a notebook's cells that comments, docstrings and layout do not change."""
    return _parse(_without_magic(cells), name).code


def _without_magic(cells: str) -> str:
    """Cells with IPython's own lines, which begin with % or !, as what Python can read and compare."""
    return re.sub(r"^(\s*)([%!].*)$", lambda line: f"{line[1]}0, {line[2]!r}", cells, flags=re.MULTILINE)


def versions(libraries: Iterable[str]) -> Recipe:
    """The installed version of each library that can change a number; "absent" if it is not installed."""
    names = sorted(SOLD_AS.get(name, name) for name in set(libraries) - set(NO_NUMBERS))
    return {f"library {name}": _version(name) for name in names}


def values(**named: object) -> Recipe:
    """The recipe of values that JSON can hold, each under its own name."""
    return {name: fingerprint(value) for name, value in named.items()}


def text(recipe: Recipe) -> str:
    """A recipe as one short text, for what can only be the same or not."""
    return fingerprint(recipe)


def differences(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """What differs between two recipes, a few words each; libraries with both versions."""
    found = []
    for name in [*new, *(name for name in old if name not in new)]:
        if old.get(name) == new.get(name):
            continue
        if name.startswith("library ") and name in old and name in new:
            found.append(f"{name.removeprefix('library ')} is {new[name]}, it was {old[name]}")
        else:
            found.append(f"{name} {'is new' if name not in old else 'is gone' if name not in new else 'changed'}")
    return found


def file_of(module: str) -> Path | None:
    """The file of a module of lensnb, or None if there is none."""
    name = os.path.join(PACKAGE.parent, *module.split("."))
    return next((Path(file) for file in (f"{name}/__init__.py", f"{name}.py") if os.path.isfile(file)), None)


class _Parsed:
    """What one file says: its code without words, the modules of lensnb and the libraries that it imports."""

    def __init__(self, source: str, module: str):
        tree = ast.parse(source, module)  # a SyntaxError then says where
        nodes = list(ast.walk(tree))  # once: it is what takes longest
        self.libraries, modules = set(), set()
        for name in _imported(nodes):
            top = name.split(".")[0]
            if top == "lensnb":
                modules |= set(_existing(name))
            elif top not in sys.stdlib_module_names:
                self.libraries.add(top)
        for room in _rooms_by_name(nodes):
            modules |= _named_in(room)
        self.modules = sorted(modules - {module})
        _without_docstrings(nodes)
        self.code = _short(ast.unparse(tree).encode())  # nor comments and layout


@cache
def _parse(source: str, module: str) -> _Parsed:
    return _Parsed(source, module)


def _imported(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Every name that code imports, wherever it does; `from a import b` gives a and a.b."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _existing(name: str) -> Iterator[str]:
    """The modules of lensnb that importing a name executes: itself, if it is one, and the rooms around it."""
    parts = name.split(".")
    for length in range(1, len(parts) + 1):
        module = ".".join(parts[:length])
        if file_of(module):
            yield module


def _rooms_by_name(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Rooms whose modules are imported by a computed name, as import_module(f"lensnb.datasets.{reader}") does."""
    for node in nodes:
        if isinstance(node, ast.JoinedStr) and node.values and isinstance(node.values[0], ast.Constant):
            start = str(node.values[0].value)
            if start.startswith("lensnb.") and start.endswith(".") and file_of(start[:-1]):
                yield start[:-1]


def _named_in(room: str) -> set[str]:
    """The modules of a room whose names stand as texts in its __init__, as the readers of the datasets do."""
    texts = {node.value for node in ast.walk(ast.parse(file_of(room).read_text())) if isinstance(node, ast.Constant)}
    return {f"{room}.{path.stem}" for path in file_of(room).parent.glob("*.py") if path.stem in texts}


def _without_docstrings(nodes: Iterable[ast.AST]) -> None:
    """Takes the docstrings out of a tree, of which these are all nodes."""
    for node in nodes:
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = node.body[1:] or [ast.Pass()]


def _data_in(room: Path) -> list[Path]:
    if room == PACKAGE:
        return []
    return [room / name for name in sorted(os.listdir(room)) if name.endswith(DATA)]


def _name_of(path: Path) -> str:
    """A file of lensnb, from the folder in which that lies."""
    return f"lensnb/{os.fspath(path)[len(os.fspath(PACKAGE)) + 1 :].replace(os.sep, '/')}"


def _short(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


@cache
def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "absent"
