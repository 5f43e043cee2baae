"""The parameters of a notebook: what its first code cell assigns, and what papermill puts in their place.

papermill runs a cell of its own behind that first one and takes any name; a misspelt one would change nothing, and the
notebook would show results of other numbers than it was asked for.
"""

import ast
import json
from collections.abc import Sequence
from pathlib import Path

INJECTED = "# Parameters"  # how papermill's cell begins


class CannotStart(ValueError):
    """Why a notebook can not run; Jupyter shows this one line instead of a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [f"{type(self).__name__}: {self}"]


def assignments(code: str) -> dict[str, object]:
    """The values that a cell assigns to names. ValueError for one that is computed."""
    found = {}
    for line in ast.parse(code).body:
        if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name):
            name = line.targets[0].id
            try:
                found[name] = ast.literal_eval(line.value)
            except (ValueError, TypeError) as error:
                raise ValueError(f"parameter {name} is not a literal: {ast.unparse(line.value)}") from error
    return found


def declared(notebook: Path) -> dict[str, object]:
    """The parameters that a notebook declares, in the cell with that tag, and their defaults.

    ValueError for one that is computed.
    """
    cells = json.loads(notebook.read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if "parameters" in cell["metadata"].get("tags", [])]
    return assignments(code[0]) if code else {}


def check(given: dict[str, object], declared: dict[str, object]) -> None:
    """CannotStart for a name that the notebook does not declare, and for a value of another type than its default.

    A whole number may stand for another number, and anything for None.
    """
    for name, value in given.items():
        if name not in declared:
            raise CannotStart(f"this notebook has no parameter {name!r}; it has {', '.join(declared) or 'none'}")
        default = declared[name]
        number_as_float = isinstance(default, float) and type(value) is int
        if default is not None and type(value) is not type(default) and not number_as_float:
            raise CannotStart(f"parameter {name} is {value!r}; its default is {default!r}, another type")


def check_injected(cells: Sequence[str]) -> None:
    """`check` papermill's cell, if it is the second of these cells, which a kernel has run in this order.

    Says nothing where a reader who works by hand has run something else first.
    """
    if len(cells) < 2 or not cells[1].startswith(INJECTED):
        return
    try:
        declared, given = assignments(cells[0]), assignments(cells[1])
    except SyntaxError:  # a cell with a magic command, no parameters
        return
    except ValueError as error:
        raise CannotStart(str(error)) from error
    check(given, declared)
