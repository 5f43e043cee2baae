"""Whether a slow product is there, whole, and made from what it would be made from today.

Trainings, detections and LesaNet's answers take minutes to days. Whoever asks for one, a notebook, a command or
run_all.sh, gets the one that is there, if its record says that it follows from the same code, numbers, labels and
libraries, and if its files still have the checksums that the record has of them. Otherwise it is made again, and a line
says why. The record lies beside the product, so that it goes wherever the product goes.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from lensnb.files import read_json, write_json
from lensnb.provenance.recipe import Recipe, differences

ENDING = ".made"  # of a record's name, behind that of the first file


def checksum(path: Path) -> str:
    """The SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def record_of(first: Path) -> Path:
    """Where the record of a product lies whose first file this is."""
    return first.with_name(f"{first.name}{ENDING}")


def write_record(files: Sequence[Path], recipe: Recipe) -> None:
    """Say what these files of one folder, a product, were made from; to be called when all are written."""
    content = {"recipe": recipe, "files": {path.name: checksum(path) for path in files}}
    write_json(content, record_of(files[0]))


def is_made(files: Sequence[Path], recipe: Recipe) -> bool:
    """Whether a product need not be made; prints why if there is something, but not what it should be."""
    reason = why_not(files, recipe)
    if reason and files[0].exists():
        print(f"{files[0].parent.name}/{files[0].name}: made again, because {reason}", flush=True)
    return not reason


def why_not(files: Sequence[Path], recipe: Recipe) -> str:
    """Why a product must be made (again), or nothing."""
    missing = [path.name for path in files if not path.is_file()]
    if missing:
        return f"{', '.join(missing)} is missing"
    try:
        record = read_json(record_of(files[0]))
        known, sums = record["recipe"], record["files"]
    except (OSError, ValueError, KeyError):
        return "nothing says what it was made from"
    damaged = [path.name for path in files if sums.get(path.name) != checksum(path)]
    if damaged:
        return f"{', '.join(damaged)} is not as it was written"
    return "; ".join(differences(known, recipe)[:3])


def is_altered(first: Path) -> bool:
    """Whether the first file of a product is not as its record says; no file without a record that can be read is."""
    try:
        known = read_json(record_of(first))["files"][first.name]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return first.is_file() and checksum(first) != known


def is_product(path: Path) -> bool:
    """Whether a file belongs to a product that has a record: who makes it decides whether it is made again."""
    for record in path.parent.glob(f"*{ENDING}"):
        try:
            if path.name in json.loads(record.read_text())["files"]:
                return True
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return False
