"""`./run_all.sh --variant NAME --set section.key=value`: a run with other numbers beside the run it is a variant of.

It begins with the files of its reference (`runfolder.borrow`), the receipts of its steps among them, so that only what
depends on the change is made: a step is run again if the part of the settings that it reads or its inputs differ.
Nothing that it writes reaches the reference.
"""

from collections.abc import Sequence

from lensnb import runfolder
from lensnb.datasets.manual_boxes import MANUAL_FILE
from lensnb.evaluation import official
from lensnb.evaluation.differences import changed_tables, row_differences, shared_rows, write_differences
from lensnb.settings import base_of
from lensnb.variants import write_variant


def start_variant(profile: str, name: str, changes: Sequence[str], seed: int = 0) -> str:
    """Write the variant's settings and give it its reference's files; return its name, <profile>+<name>.

    Raises ValueError for what is no change of a setting (see `variants.write_variant`).
    """
    variant = write_variant(profile, name, changes)
    for place in (runfolder.runs, runfolder.prepared, runfolder.figures):
        runfolder.borrow(place(variant, seed), place(profile, seed))
    return variant


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
