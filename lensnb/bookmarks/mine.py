"""All steps from a hospital's archive to a dataset (`python -m lensnb bookmarks`)."""

import os
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import pandas as pd

from lensnb.bookmarks import noise
from lensnb.bookmarks.export import export
from lensnb.bookmarks.images import Archive, marks_in, scan
from lensnb.bookmarks.keys import look
from lensnb.bookmarks.marks import Mark
from lensnb.bookmarks.merge import merge
from lensnb.bookmarks.names import number
from lensnb.bookmarks.placing import place
from lensnb.bookmarks.recist import bookmarks_of
from lensnb.bookmarks.report import PUBLIC, summary, what_became, write_identities
from lensnb.bookmarks.review import write_review
from lensnb.bookmarks.series import Series
from lensnb.bookmarks.vertices_csv import read_vertices
from lensnb.files import atomic_write, check_output, write_table
from lensnb.files.cells import for_spreadsheet

REPORT, COUNTS = "bookmarks.csv", "counts.csv"
SHOWN = 5  # notes on the terminal


@dataclass(frozen=True)
class Mined:
    """What was found, with everything that must not leave the hospital.

    bookmarks: a row each, in the order of the files: what recist.BOOKMARKS says of the mark, what placing.place says of
    its place, what keys.look measured, rules (those that flag it, as "dark, faint"), units_area, units_ratio,
    units_axes, units_mean, units_noise, merged_into, and File_name and lesion of the dataset. The numbers in the column
    bookmark follow the dataset's files, as `_numbered` says. series: those in the dataset, by
    SeriesInstanceUID. info: DL_info.csv. counts: what became of the bookmarks. notes: what could not be read.
    """

    bookmarks: pd.DataFrame
    series: dict[str, Series]
    info: pd.DataFrame
    counts: pd.DataFrame
    notes: tuple[str, ...]
    summary: str


def mine(
    folder: Path | str,
    output: Path | str,
    csv: Path | str | None = None,
    margin_px: float = 5.0,
    context_mm: float = 30.0,
    merge_iou: float = 0.6,
    review: Path | str | None = None,
    identities: Path | str | None = None,
) -> Mined:
    """Make a dataset in DeepLesion's format out of the bookmarks in `folder` and of those in a csv of vertices.

    Writes the folder `output`, whole or not at all: DeepLesion/ with DL_info.csv and Images_png/, bookmarks.csv (every
    bookmark, and why it is left out if it is) and counts.csv; with `review` pictures of the flagged ones into that
    folder, and with `identities` the table that leads back to patients and files. margin_px: around the diameters;
    context_mm: on either side of a key slice; merge_iou: over which two boxes on a slice are one lesion.
    Raises FileNotFoundError or ValueError if something is wrong with the places, the csv or the whole folder, and if no
    bookmark at all has a place in the dataset; nothing is written then. The same files give the same bytes.
    """
    folder, output = Path(folder), Path(output)
    review, identities = (Path(path) if path else None for path in (review, identities))
    _check_places(folder, output, csv, review, identities)
    vertices = read_vertices(csv) if csv else []
    archive = scan(folder)
    marks, unread = marks_in(archive)
    marks += vertices
    others = archive.others + Counter({"whose marks can not be read": len(unread)})
    notes = [*archive.notes, *unread]
    placed, series, details = place(_bookmarks(marks, archive, folder), archive)
    looked, more = look(placed, series, margin_px)
    bookmarks = merge(_flagged(looked), margin_px, merge_iou)
    lesions = bookmarks[(bookmarks["left_out"] == "") & (bookmarks["merged_into"] == 0)]
    counts = what_became(bookmarks)
    notes += [*details, *more]
    if lesions.empty:
        raise ValueError(_nothing(folder, counts, csv, notes))
    numbered = number(lesions, series)
    with atomic_write(output) as part:
        info, made, missing = export(part, lesions, series, numbered, margin_px, context_mm)
        bookmarks, info = _numbered(_named(bookmarks, info), info)
        write_table(for_spreadsheet(bookmarks[PUBLIC].sort_values("bookmark").round(3)), part / REPORT)
        write_table(for_spreadsheet(counts), part / COUNTS)
        flagged = bookmarks[bookmarks["bookmark"].isin(info.index) & (bookmarks["rules"] != "")]
        if review:
            with atomic_write(review) as pictures:
                write_review(pictures, flagged.sort_values("bookmark"), series, margin_px)
        if identities:
            write_identities(bookmarks, identities)
    notes += missing
    read = {"CT slices": int((archive.images["modality"] == "CT").sum()),
            "other images": int((archive.images["modality"] != "CT").sum()),
            "presentation states": len(archive.states), "structured reports": len(archive.reports)}  # fmt: skip
    made = {"lesions": len(info), **made, "patients": info["Patient_index"].nunique()}
    text = summary(counts, bookmarks.loc[lesions.index, "rules"], others, read, made)
    used = {uid: series[uid] for uid in numbered["series_uid"]}
    return Mined(bookmarks, used, info, counts, tuple(notes), text)


def _check_places(folder: Path, output: Path, csv: object, review: Path | None, identities: Path | None) -> None:
    """ValueError if what is written would mix with what is read, or with what must not leave."""
    for option, path in (("--output", output), ("--review", review)):
        if path is None:
            continue
        check_output(path / REPORT, option)
        if path.is_dir() and any(path.iterdir()):
            raise ValueError(
                f"{option} {path} is not empty; name a new folder, so that nothing of an older run is mixed in"
            )
        if path.resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"{option} {path} lies in {folder}, which is read; name another folder")
    if review and (
        review.resolve().is_relative_to(output.resolve()) or output.resolve().is_relative_to(review.resolve())
    ):
        raise ValueError(f"--review {review} and --output {output} lie in one another; name two folders")
    if identities:
        check_output(identities, "--identities", (".csv",), [Path(csv)] if csv else [])
        for option, path in (("--output", output), ("--review", review)):
            if path and identities.resolve().is_relative_to(path.resolve()):
                raise ValueError(
                    f"--identities {identities} lies in {option} {path}, which is to be given away; name another place"
                )


def _bookmarks(marks: list[Mark], archive: Archive, folder: Path) -> pd.DataFrame:
    """The bookmarks; a file of the archive is named from its folder on."""
    table = bookmarks_of(marks, dict(zip(archive.images["image"], archive.images["aspect"], strict=True)))
    inside = [path.relative_to(folder) if path.is_relative_to(folder) else path for path in table["file"]]
    return table.assign(file=[path.as_posix() for path in inside])


def _flagged(bookmarks: pd.DataFrame) -> pd.DataFrame:
    """With the measures of those that have a place in robust units, and the flags of the rules."""
    inside = bookmarks[bookmarks["left_out"] == ""]
    units = noise.in_units(inside[noise.MEASURES])
    reasons = noise.reasons(noise.flag(units)).reindex(bookmarks.index, fill_value="")
    units = units.reindex(bookmarks.index).add_prefix("units_")
    return bookmarks.join(units).assign(rules=reasons)


def _named(bookmarks: pd.DataFrame, info: pd.DataFrame) -> pd.DataFrame:
    """File_name and lesion (its row of DL_info.csv, as the reader calls it) of those in the dataset."""
    files = bookmarks["bookmark"].map(info["File_name"]).fillna("")
    lesions = {number: f"dl{row:05d}" for row, number in enumerate(info.index)}
    return bookmarks.assign(File_name=files, lesion=bookmarks["bookmark"].map(lesions).fillna(""))


def _numbered(bookmarks: pd.DataFrame, info: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both tables with new numbers of the bookmarks: 1, 2, ... as their rows in DL_info.csv, then all others.

    The others are numbered by what their public columns say, and nothing else. Numbers in the order of the archive's
    files would tell the order of the patients' names, by which many archives are sorted.
    """
    order = bookmarks.assign(row=bookmarks["bookmark"].map(dict(zip(info.index, range(len(info)), strict=True))))
    into = order["merged_into"].map(order.set_index("bookmark")["row"])
    said = [name for name in PUBLIC if name not in ("bookmark", "merged_into")]
    order = order.assign(into=into).sort_values(["row", "into", *said], kind="stable")
    new = dict(zip(order["bookmark"], range(1, len(order) + 1), strict=True)) | {0: 0}
    renamed = {name: bookmarks[name].map(new) for name in ("bookmark", "merged_into")}
    return bookmarks.assign(**renamed), info.rename(index=new)


def _nothing(folder: Path, counts: pd.DataFrame, csv: object, notes: list[str]) -> str:
    """What to say where no bookmark has a place."""
    whole = counts.groupby("what", sort=False)["bookmarks"].sum()
    if whole.empty:
        found = "no bookmark is in its presentation states and reports" + (
            f" or in {csv}" if csv else "; name a --csv of vertices"
        )
    else:
        found = "left out are " + ", ".join(f"{number} ({what})" for what, number in whole.items())
    also = f"; {notes[0]}" if notes else ""
    return f"{folder} gives no RECIST pair on an axial CT slice: {found}{also}"


def command(
    folder: Path,
    csv: Path | None,
    output: Path,
    margin_px: float,
    context_mm: float,
    merge_iou: float,
    review: Path | None,
    identities: Path | None,
) -> str:
    """The command `bookmarks`: the summary; what could not be read goes to stderr."""
    if "MPLBACKEND" not in os.environ:
        matplotlib.use("Agg")  # no window is opened, so none must be possible
    mined = mine(folder, output, csv, margin_px, context_mm, merge_iou, review, identities)
    for note in mined.notes[:SHOWN]:
        sys.stderr.write(f"lensnb: warning: {note}\n")
    if len(mined.notes) > SHOWN:
        sys.stderr.write(f"lensnb: warning: and {len(mined.notes) - SHOWN:,} more\n")
    text = f"{mined.summary}\n{output}: DeepLesion/, and of every bookmark what became of it in {REPORT}"
    if mined.info["Possibly_noisy"].any():
        where = f"see {review}, " if review else "draw them with --review, "
        text += (
            f"\n{where}and put a 0 into Possibly_noisy of DL_info.csv for those that are right; until then none is used"
        )
    return text
