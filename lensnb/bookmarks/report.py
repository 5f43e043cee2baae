"""What became of every bookmark, for those who may know who the patients are and for those who may not.

The dataset's own tables hold no identifier, no date but the year, no file name and no text that anybody typed: file
names of exports hold names of patients. The table that says which file and which patient a bookmark is of is written
only where the command is told to.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from lensnb.bookmarks.noise import MEASURES
from lensnb.files import atomic_write
from lensnb.files.cells import for_spreadsheet

PUBLIC = ["bookmark", "form", "tool", "modality", "year", "left_out", "merged_into", "File_name", "lesion", "follow_up",
          *MEASURES, "rules"]  # fmt: skip
REVIEWED = ["bookmark", "File_name", "lesion", "rules", *MEASURES]
PRIVATE = ["bookmark", "File_name", "lesion", "left_out", "patient_id", "study_uid", "series_uid", "image", "frame",
           "file", "place"]  # fmt: skip
IN_DATASET, MERGED = "in the dataset", "merged into another one"


def what_became(bookmarks: pd.DataFrame) -> pd.DataFrame:
    """How many bookmarks of each form came to what: columns what, form, bookmarks. All of them are counted once."""
    what = bookmarks["left_out"].where(bookmarks["left_out"] != "", IN_DATASET)
    what = what.where((bookmarks["merged_into"] == 0) | (bookmarks["left_out"] != ""), MERGED)
    counts = pd.DataFrame({"what": what, "form": bookmarks["form"]}).value_counts().rename("bookmarks").reset_index()
    order = {IN_DATASET: 0, MERGED: 1}
    counts["place"] = [order.get(name, 2) for name in counts["what"]]
    counts["all"] = counts.groupby("what")["bookmarks"].transform("sum")
    counts = counts.sort_values(["place", "all", "what", "form"], ascending=[True, False, True, True], kind="stable")
    return counts[["what", "form", "bookmarks"]].reset_index(drop=True)


def summary(counts: pd.DataFrame, flags: pd.Series, others: Counter, read: dict[str, int], made: dict[str, int]) -> str:
    """The lines that the command prints. flags: of the lesions in the dataset. read, made: name -> number."""
    lines = ["read: " + numbers(read)]
    if others:
        lines.append("  and left alone: " + numbers(dict(sorted(others.items()))))
    whole = counts.groupby("what", sort=False)["bookmarks"].sum()
    lines.append(f"bookmarks: {int(whole.sum()):,}")
    lines += [f"  {number:>7,} {what if what in (IN_DATASET, MERGED) else f'left out: {what}'}" for what, number in
              whole.items()]  # fmt: skip
    rules = Counter(rule for text in flags for rule in text.split(", ") if rule)
    lines.append(f"  {int((flags != '').sum()):>7,} of those in the dataset are flagged as possibly wrong"
                 + (f": {numbers(dict(sorted(rules.items())))}" if rules else ""))  # fmt: skip
    lines.append("written: " + numbers(made))
    return "\n".join(lines)


def numbers(counts: Mapping[str, int]) -> str:
    """Counts in one line, as "2 damaged, 1,005 no DICOM"."""
    return ", ".join(f"{number:,} {what}" for what, number in counts.items())


def write_identities(bookmarks: pd.DataFrame, path: Path) -> None:
    """Write which file and which patient each bookmark is of, readable by its owner alone."""
    with atomic_write(path) as temporary:
        temporary.touch(mode=0o600)
        for_spreadsheet(bookmarks[PRIVATE].sort_values("bookmark")).to_csv(temporary, index=False, lineterminator="\n")
