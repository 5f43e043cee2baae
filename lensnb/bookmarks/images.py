"""What a folder of DICOM files holds: its images by their UIDs, and the files that may hold marks.

Only a few tags of each file are kept, so that an archive of millions of slices fits into memory.
"""

import filecmp
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from lensnb.bookmarks import presentation_states, structured_reports
from lensnb.bookmarks.marks import Mark, patient_of
from lensnb.bookmarks.report import numbers
from lensnb.ct.dicom import MULTI_FRAME, SINGLE_FRAME, is_dicom
from lensnb.files import files_below, is_macos
from lensnb.files.reasons import reason_of
from lensnb.system import progress

TAGS = ["SOPClassUID", "SOPInstanceUID", "Modality", "ImageType", "PatientID", "IssuerOfPatientID", "StudyInstanceUID",
        "SeriesInstanceUID", "FrameOfReferenceUID", "Rows", "PixelSpacing", "BurnedInAnnotation",
        "StudyDate"]  # fmt: skip
IMAGES = ["path", "image", "series_uid", "study_uid", "patient_id", "issuer", "space", "modality", "year", "aspect",
          "why_not"]  # fmt: skip


@dataclass(frozen=True)
class Archive:
    """What a folder holds.

    images: a row for each image file: IMAGES; aspect: how much longer a pixel is along a column than along a row;
    why_not says what keeps a CT image out of the dataset, or is empty.
    states, reports: files that may hold marks. others: how many files there are of each other kind. notes: a line for
    each file that can not be read.
    """

    images: pd.DataFrame
    states: tuple[Path, ...]
    reports: tuple[Path, ...]
    others: Counter
    notes: tuple[str, ...]


def scan(folder: Path) -> Archive:
    """List what lies below `folder`; FileNotFoundError or ValueError if that is no folder, or holds no DICOM at all.

    Of several files with one SOPInstanceUID, which are copies, the first one by its path counts; of marks, the others
    must hold the same, or a note says that they do not.
    """
    if not folder.exists():
        raise FileNotFoundError(f"{folder} does not exist; give the folder of the DICOM files")
    if not folder.is_dir():
        raise ValueError(f"{folder} is a file; give the folder of the DICOM files")
    rows, states, reports, others, notes, seen = [], [], [], Counter(), [], {}
    for path in progress(list(files_below(folder)), f"reading the headers in {folder}"):
        if is_macos(path):
            others["of macOS"] += 1
            continue
        try:
            header = _header(path)
        except Exception as error:  # a damaged file raises almost anything
            others["damaged"] += 1
            notes.append(f"{path}: its header can not be read ({reason_of(error)}); copy it again")
            continue
        if header is None:
            others["no DICOM"] += 1
            continue
        kind, name = str(header.get("SOPClassUID") or ""), str(header.get("SOPInstanceUID") or "")
        if name and name in seen:
            others["copies of another file"] += 1
            if "Rows" not in header and not filecmp.cmp(seen[name], path, shallow=False):
                notes.append(f"{path} is not read: it has the SOPInstanceUID of {seen[name]}, and other contents")
            continue
        seen[name] = path
        if kind.startswith(presentation_states.KIND):
            states.append(path)
        elif kind.startswith(structured_reports.KIND) and kind != structured_reports.KEY_IMAGES:
            reports.append(path)
        elif "Rows" in header and name:
            rows.append(_row(path, header, kind))
        else:
            others[getattr(header.get("SOPClassUID"), "name", "") or "DICOM without a kind"] += 1
    if not (rows or states or reports):
        there = numbers(dict(sorted(others.items()))) or "it is empty"
        raise ValueError(f"{folder} holds no DICOM images and no marks ({there}); give the archive's folder")
    return Archive(pd.DataFrame(rows, columns=IMAGES), tuple(states), tuple(reports), others, tuple(notes))


def marks_in(archive: Archive) -> tuple[list[Mark], list[str]]:
    """The marks of all presentation states and reports, and a note on each such file that can not be read."""
    found, notes = [], []
    for paths, read in (
        (archive.states, presentation_states.read_presentation_state),
        (archive.reports, structured_reports.read_report),
    ):
        for path in paths:
            try:
                found += read(_whole(path), path)
            except Exception as error:  # a damaged file raises almost anything
                notes.append(f"{path}: its marks can not be read ({reason_of(error)}); export it again")
    return found, notes


def _header(path: Path) -> object | None:
    """The tags of a DICOM file that are looked at, None for another file."""
    import pydicom

    if not path.is_file():
        raise ValueError("a link whose file does not exist")
    if not is_dicom(path):
        return None
    return pydicom.dcmread(path, stop_before_pixels=True, specific_tags=TAGS, force=True)


def _whole(path: Path) -> object:
    import pydicom

    return pydicom.dcmread(path, force=True)


def _row(path: Path, header: object, kind: str) -> list:
    """An image as a row of IMAGES."""
    text = {tag: str(header.get(tag) or "").strip() for tag in TAGS}
    # what becomes public is a code, whatever somebody wrote there
    modality = text["Modality"] if re.fullmatch(r"[A-Z0-9_]{1,16}", text["Modality"]) else ""
    modality = modality or ("CT" if kind in (SINGLE_FRAME, *MULTI_FRAME) else "unknown")
    why_not = ""
    if modality != "CT":
        why_not = f"modality {modality}"
    elif kind not in (SINGLE_FRAME, *MULTI_FRAME):
        why_not = "on a picture that is no CT slice"
    elif "LOCALIZER" in text["ImageType"].upper():
        why_not = "on a localizer"
    elif text["BurnedInAnnotation"].upper() == "YES":
        why_not = "text is burned into the image"
    names = [text[tag] for tag in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")]
    whose = [patient_of(header), text["IssuerOfPatientID"]]
    year = text["StudyDate"][:4] if re.fullmatch(r"[0-9]{8}", text["StudyDate"]) else ""
    return [path, *names, *whose, text["FrameOfReferenceUID"], modality, year, _aspect(header), why_not]


def _aspect(header: object) -> float:
    """How much longer a pixel is along a column than along a row; 1 if the header does not say."""
    try:
        rows_mm, columns_mm = (float(side) for side in header.get("PixelSpacing"))
    except (TypeError, ValueError):
        return 1.0
    return rows_mm / columns_mm if rows_mm > 0 and columns_mm > 0 else 1.0
