"""The bookmarks of a study of the simulated archive, stored in their forms, with the truth of each."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from lensnb.phantom.pacs_bookmarks import ENDS, FORMS, TOOLS, TRUTH, Bookmark
from lensnb.phantom.pacs_images import Picture, patient_id, uid_of
from lensnb.phantom.pacs_places import Place, place_of
from lensnb.phantom.pacs_reports import structured_report
from lensnb.phantom.pacs_states import in_one_state, presentation_state
from lensnb.phantom.patients import Patient, Study

STATE, REPORT, CSV = FORMS
VERTICES = [f"{axis}{number}" for number in range(1, 5) for axis in "xyz"]
CSV_COLUMNS = ["patient_id", "series_uid", "image_uid", "tool", "label", "coordinates", *VERTICES]
TO_RAS = np.array([-1.0, -1.0, 1.0])


def write_drawn(
    folder: Path,
    patient: Patient,
    study: Study,
    pictures: dict[str, Picture],
    bookmarks: Sequence[Bookmark],
    earlier: Sequence[dict[str, Picture]],
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Write a study's presentation states and report; returns its rows of the truth and of the csv of vertices.

    earlier: the pictures of the patient's studies before, for marks that name a wrong series.
    """
    placed = [place_of(bookmark, study, pictures) for bookmark in bookmarks]
    drawn = list(zip(bookmarks, placed, strict=True))
    states = [pair for pair in drawn if STATE in pair[0].forms]
    for number, part in enumerate(in_one_state(states, study), start=1):
        data = presentation_state(part, patient, study, number)
        data.save_as(folder / f"state_{number}.dcm", enforce_file_format=True)
    reported = [pair for pair in drawn if REPORT in pair[0].forms]
    if reported:
        structured_report(reported, patient, study).save_as(folder / "report.dcm", enforce_file_format=True)
    rows = [_csv_row(*pair, patient, study, pictures, earlier) for pair in drawn if CSV in pair[0].forms]
    truth = [_truth_row(form, *pair, patient, study, pictures) for pair in drawn for form in pair[0].forms]
    return pd.DataFrame(truth, columns=TRUTH), pd.DataFrame(rows, columns=CSV_COLUMNS)


def _truth_row(
    form: str, bookmark: Bookmark, place: Place, patient: Patient, study: Study, pictures: dict[str, Picture]
) -> list:
    on_slice = place.picture is pictures["CT"]
    ends = bookmark.ends.ravel().round(6).tolist() if on_slice else [np.nan] * len(ENDS)
    slice_number = place.picture.shape[0] - 1 - bookmark.z if on_slice else -1
    number = f"{patient.number:04d}-{study.study}-{bookmark.number:02d}"
    whose = [patient_id(patient), str(study.study), bookmark.identity, bookmark.type, bookmark.follow_up]
    where = [place.picture.uid, place.images[0], slice_number, *ends]
    return [number, form, bookmark.what, bookmark.reader, *whose, *where]


def _csv_row(
    bookmark: Bookmark,
    place: Place,
    patient: Patient,
    study: Study,
    pictures: dict[str, Picture],
    earlier: Sequence[dict[str, Picture]],
) -> list:
    """A row of vertices, in LPS or RAS; every other one names its image, too.

    Coronal and sagittal pictures are made of the axial series by a viewer, which is the series that it names then.
    """
    series, image = place.picture.uid, place.images[0] if bookmark.number % 2 else ""
    if bookmark.what in ("coronal", "sagittal"):
        series, image = pictures["CT"].uid, ""
    if bookmark.what == "image not here":
        series, image = uid_of(study, "a series that was never sent"), ""
    if bookmark.what == "wrong series":
        series, image = earlier[-1]["CT"].uid if earlier else uid_of(study, "another series"), ""
    coordinates = "RAS" if study.study % 2 else "LPS"
    mm = place.mm * TO_RAS if coordinates == "RAS" else place.mm
    numbers = [f"{value:.6f}" for value in mm.ravel()]
    tool = bookmark.what if bookmark.what in TOOLS else "RECIST"
    if tool != "RECIST":
        drawn = 6 if tool == "line" else 0
        numbers[drawn:] = [""] * (len(numbers) - drawn)
    return [patient_id(patient), series, image, tool, bookmark.label, coordinates, *numbers]
