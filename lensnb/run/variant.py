"""`./run_all.sh --variant NAME --set section.key=value`: a run with other numbers beside the run it is a variant of.

It begins with the files of its reference (`runfolder.borrow`) and with what Snakemake knows of them, so that only what
depends on the change is made: a step is run again if the part of the settings that it reads, its inputs or its notebook
differ. Nothing that it writes reaches the reference.
"""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from pathlib import Path

from lensnb import runfolder
from lensnb.datasets.manual_boxes import MANUAL_FILE
from lensnb.evaluation import official
from lensnb.evaluation.differences import changed_tables, row_differences, shared_rows, write_differences
from lensnb.settings import base_of
from lensnb.variants import write_variant

METADATA = Path(".snakemake") / "metadata"  # a file for each output: how Snakemake made it
LONGEST = 254  # characters of a file's name; Snakemake cuts longer ones into folders that begin with @


def start_variant(profile: str, name: str, changes: Sequence[str], seed: int = 0) -> str:
    """Write the variant's settings and give it its reference's files; return its name, <profile>+<name>.

    Raises ValueError for what is no change of a setting (see `variants.write_variant`).
    """
    variant = write_variant(profile, name, changes)
    places = (runfolder.runs, runfolder.prepared, runfolder.figures)
    moves = [(place(profile, seed), place(variant, seed)) for place in places]
    for reference, own in moves:
        runfolder.borrow(own, reference)
    borrow_metadata(moves[0][0], moves[0][1], moves)
    return variant


def borrow_metadata(reference: Path, own: Path, moves: Sequence[tuple[Path, Path]]) -> None:
    """Copy Snakemake's records of the outputs that are borrowed, with the reference's folders replaced by the own.

    An output of another time than the reference's was made by the variant itself, which has its record.
    """
    for file in sorted(path for path in (reference / METADATA).rglob("*") if path.is_file()):
        parts = file.relative_to(reference / METADATA).parts
        output = urlsafe_b64decode("".join(part.removeprefix("@") for part in parts).encode()).decode()
        made, borrowed = reference / output, own / _moved(output, moves)
        if made.exists() and borrowed.exists() and made.stat().st_mtime_ns == borrowed.stat().st_mtime_ns:
            target = _record(own / METADATA, _moved(output, moves))
            record = json.loads(file.read_text())
            record["input"] = [_moved(path, moves) for path in record.get("input") or []]
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(json.dumps(record))


def _moved(path: str, moves: Sequence[tuple[Path, Path]]) -> str:
    for reference, own in moves:
        if path.startswith(f"{reference}/"):
            return f"{own}/{path.removeprefix(f'{reference}/')}"
    return path


def _record(folder: Path, output: str) -> Path:
    """Where Snakemake keeps the record of an output."""
    name = urlsafe_b64encode(output.encode()).decode()
    *first, last = [name[i : i + LONGEST] for i in range(0, len(name), LONGEST)]
    return folder.joinpath(*(f"@{part}" for part in first), last)


def report_differences(variant: str, seed: int = 0) -> str:
    """Write differences.csv and .md beside the variant's tables and return the text."""
    reference = base_of(variant)
    run, own = runfolder.Run(reference, seed), runfolder.Run(variant, seed)
    if run.raw != own.raw:
        return f"{variant} has phantoms of its own, so its tables and those of {reference} are of different patients.\n"
    # before there are detections there may be no truth either
    truth = official.read_truth(own.raw / MANUAL_FILE, "test") if shared_rows(run, own) else {}
    rows = row_differences(run, own, truth)
    return write_differences(rows, changed_tables(run.figures, own.figures), own.figures)
