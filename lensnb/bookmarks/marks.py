"""A mark: one object that somebody drew, as a file holds it, before anybody knows what it is worth."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

STATE, REPORT, CSV = "presentation state", "structured report", "csv"  # the forms in which marks are stored
PIXEL, MM, DISPLAY = "pixel", "mm", "display"  # units of their coordinates
LINE = "line"  # the tool of an open polyline of two points
NO_POINTS = "coordinates that can not be read"  # the tool of a graphic whose numbers are no points
FOLLOW_UP = re.compile(r"\bF0*([0-9]{1,3})\b")  # F03: of the third set of bookmarks on one lesion (DeepLesion Fig. 2)


@dataclass(frozen=True)
class Mark:
    """One drawn object.

    form, file, place: where it is stored; place says it to a person, as "annotation 2, object 1".
    scope: only marks of the same scope can be the two lines of one measurement.
    group: marks of the same group belong together; bound: the file says outright that they are one measurement, and not
    only that they stand in one place.
    tool: LINE, or what else it is.
    points: (n, 2) index coordinates, column first, in units of PIXEL; (n, 3) patient mm, LPS, in MM.
    images: those that it is drawn on: (SOPInstanceUID, frame counted from 1, or 0 if none is named).
    series, space: SeriesInstanceUID and FrameOfReferenceUID, as far as the file says them of the mark.
    patient: of the file, as `patient_of` has it. label: text that is written beside it.
    """

    form: str
    file: Path
    place: str
    scope: str
    group: str
    tool: str
    points: np.ndarray
    units: str
    images: tuple[tuple[str, int], ...] = ()
    series: str = ""
    space: str = ""
    patient: str = ""
    label: str = ""
    bound: bool = False


def follow_up(label: str) -> int:
    """The number of the set of bookmarks on one lesion that a text names, as 3 in "B06 F03"; 0 without."""
    found = FOLLOW_UP.search(label)
    return int(found[1]) if found else 0


def patient_of(dataset: object) -> str:
    """Whose file a pydicom dataset is, by its PatientID; empty if it does not say."""
    return str(dataset.get("PatientID") or "").strip()


def image_references(items: object) -> tuple[tuple[str, int], ...]:
    """The images that a sequence of references names, as Mark has them: one for each frame that is named."""
    found = []
    for item in items or []:
        frames = item.get("ReferencedFrameNumber")
        frames = [0] if frames is None else [frames] if isinstance(frames, int | float | str) else list(frames)
        found += [(str(item.get("ReferencedSOPInstanceUID") or ""), int(frame)) for frame in frames or [0]]
    return tuple(dict.fromkeys(found))


def points_of(values: object, dimensions: int) -> np.ndarray:
    """Graphic Data as points (n, dimensions); ValueError if it does not divide into such points or is not finite."""
    numbers = np.atleast_1d(np.asarray([] if values is None else values, dtype=float)).ravel()
    if len(numbers) % dimensions or not np.isfinite(numbers).all():
        raise ValueError(f"{len(numbers)} numbers are no points of {dimensions} finite coordinates")
    return numbers.reshape(-1, dimensions)


def polyline_tool(points: np.ndarray) -> str:
    """What a polyline (n, 2 or 3) is: LINE, an outline if it ends where it began, or one of several points."""
    if len(points) == 2:
        return LINE
    if len(points) > 2 and np.allclose(points[0], points[-1]):
        return "outline"
    return f"polyline of {len(points)} points"
