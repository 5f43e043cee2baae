"""Which marks are RECIST pairs: two lines that cross at nearly right angles, the longest diameter and its
perpendicular.

The limits are those of 10,857 rows of DL_info.csv, all of which were bookmarks with the RECIST tool (DeepLesion Sec.
2.2.1). There the lines are within 8.3 degrees of perpendicular in 95 % of the rows and within 30 degrees in all but 4;
they cross in all but 34, and in all but 5 of these there is no more than .3 of the longer line between them. Two lines
that a file ties together may be as much off: 6 rows are not pairs by that. Lines that nothing ties but their place must
cross truly, and not at the ends of both, as the two strokes of an arrow's head do: 33 rows would not be pairs.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from lensnb.bookmarks.marks import DISPLAY, LINE, MM, PIXEL, Mark, follow_up

TIED_DEGREES, TIED_GAP = 45.0, 0.3  # off the right angle; between the lines, as a share of the longer one
LOOSE_DEGREES, LOOSE_GAP = 30.0, 0.01
NEAR_END = 0.05  # of a line's length
PAIR, SINGLE, APART, SLANTED = (
    "RECIST pair",
    "single line",
    "two lines that do not cross",
    "two lines not perpendicular",
)
ENDS_MM = [f"{axis}{number}_mm" for number in range(1, 5) for axis in "xyz"]
ENDS_DRAWN = [f"{axis}{number}_drawn" for number in range(1, 5) for axis in "xy"]
BOOKMARKS = ["bookmark", "form", "file", "place", "tool", "units", "images", "series_uid", "space", "patient_id",
             "follow_up", *ENDS_DRAWN, *ENDS_MM, "left_out"]  # fmt: skip


def crossing(ends: np.ndarray) -> tuple[float, float, bool]:
    """How two lines with `ends` (4, 2 or 3) lie: degrees off the right angle, gap, and whether they meet end to end.

    gap: the least distance between them over the length of the longer one, 0 where they cross. A line without length
    has no direction and counts as perpendicular.
    """
    first, second = ends[1] - ends[0], ends[3] - ends[2]
    lengths = np.linalg.norm(first), np.linalg.norm(second)
    cosine = 0.0 if min(lengths) == 0 else abs(first @ second) / lengths[0] / lengths[1]
    at_first, at_second = _closest(ends[0], first, ends[2], second)
    apart = np.linalg.norm(ends[0] + at_first * first - ends[2] - at_second * second)
    end_to_end = all(min(at, 1 - at) < NEAR_END for at in (at_first, at_second))
    return float(np.degrees(np.arcsin(min(1.0, cosine)))), float(apart / max(*lengths, 1e-9)), end_to_end


def _closest(p: np.ndarray, d: np.ndarray, q: np.ndarray, e: np.ndarray) -> tuple[float, float]:
    """Where the segments p + s d and q + t e are nearest: s and t, both from 0 to 1."""
    between = p - q
    dd, ee, de = d @ d, e @ e, d @ e
    s = 0.0 if dd == 0 else float(np.clip(-(d @ between) / dd, 0, 1))
    if ee == 0:
        return s, 0.0
    slope = dd * ee - de * de
    if slope > 1e-12 * dd * ee:
        s = float(np.clip((de * (e @ between) - ee * (d @ between)) / slope, 0, 1))
    t = float((de * s + e @ between) / ee)
    if not 0 <= t <= 1:
        t = float(np.clip(t, 0, 1))
        s = 0.0 if dd == 0 else float(np.clip((de * t - d @ between) / dd, 0, 1))
    return s, t


def why_no_pair(ends: np.ndarray, tied: bool) -> str:
    """APART or SLANTED if two lines are no RECIST pair, or empty. tied: the file says that they are one measurement."""
    off, gap, end_to_end = crossing(ends)
    most_degrees, most_gap = (TIED_DEGREES, TIED_GAP) if tied else (LOOSE_DEGREES, LOOSE_GAP)
    if gap > most_gap or (end_to_end and not tied):
        return APART
    return SLANTED if off > most_degrees else ""


def bookmarks_of(marks: Sequence[Mark], aspects: Mapping[str, float] | None = None) -> pd.DataFrame:
    """One row for each bookmark: two lines that are a RECIST pair, or any other mark. Columns: BOOKMARKS.

    aspects: by SOPInstanceUID how much longer a pixel is along a column than along a row; 1 without. Pixels of coronal
    pictures are not square, and lines that cross at right angles in the body do not in them.

    tool: PAIR, or what else it is; then left_out says the same, as it has no place in the dataset. ENDS_DRAWN: the four
    ends in index coordinates of the image, the longer line first, or ENDS_MM in patient mm; the other ones are NaN.
    images: (SOPInstanceUID, frame) of what it is drawn on. follow_up: number of the set of bookmarks on one lesion.
    """
    shapes = [_in_square_pixels(mark, aspects or {}) for mark in marks]
    partner = _pairs(marks, shapes)
    more = {j for j, _ in partner.values()}
    drawings = _drawings(marks, {*partner, *more})
    more |= {i for members in drawings.values() for i in members[1:]}
    rows = []
    for i, mark in enumerate(marks):
        if i in more:
            continue
        reason, points = mark.tool if mark.tool != LINE else SINGLE, None
        if i in drawings:
            reason = f"drawing of {len(drawings[i])} lines"
        if i in partner:
            j, reason = partner[i]
            first, second = (i, j) if _length(shapes[i]) >= _length(shapes[j]) else (j, i)
            points = np.concatenate([marks[first].points, marks[second].points])
        tool = PAIR if not reason else reason
        if tool == PAIR and mark.units == DISPLAY:
            reason = "in units of the display"
        drawn, mm = np.full(8, np.nan), np.full(12, np.nan)
        if tool == PAIR and mark.units == MM:
            mm = points.ravel()
        elif tool == PAIR:
            drawn = points.ravel()
        rows.append([len(rows) + 1, mark.form, mark.file, mark.place, tool, mark.units, mark.images, mark.series,
                     mark.space, mark.patient, follow_up(mark.label), *drawn, *mm, reason])  # fmt: skip
    return pd.DataFrame(rows, columns=BOOKMARKS)


def _in_square_pixels(mark: Mark, aspects: Mapping[str, float]) -> np.ndarray:
    """The mark's points as its image shows them, all sides of its pixels alike."""
    if mark.units != PIXEL or not mark.images:
        return mark.points
    return mark.points * (1.0, aspects.get(mark.images[0][0], 1.0))


def _length(line: np.ndarray) -> float:
    return float(np.linalg.norm(line[1] - line[0]))


def _pairs(marks: Sequence[Mark], shapes: Sequence[np.ndarray]) -> dict[int, tuple[int, str]]:
    """Which lines belong together: the first one's index -> the second one's, and why they are no RECIST pair.

    Of all lines on one image those that cross as RECIST pairs do are taken, first those of one group, then by how near
    they are to perpendicular; each is used once. Two lines left, alone in their group, stay together whatever they are.
    """
    groups: dict[tuple, list[int]] = {}
    scopes: dict[tuple, list[int]] = {}
    for i, mark in enumerate(marks):
        if mark.tool == LINE:
            groups.setdefault((mark.group, mark.images, mark.units), []).append(i)
            scopes.setdefault((mark.scope, mark.images, mark.units), []).append(i)
    tied = {(group[0], group[1]) for group in groups.values() if len(group) == 2}
    rated = []
    for i, j in (pair for scope in scopes.values() for pair in combinations(scope, 2)):
        ends = np.concatenate([shapes[i], shapes[j]])
        if not why_no_pair(ends, tied=False):
            rated.append(((i, j) not in tied, marks[i].group != marks[j].group, crossing(ends)[0], i, j))
    partner, taken = {}, set()
    for *_, i, j in sorted(rated):
        if not taken & {i, j}:
            partner[i], taken = (j, ""), taken | {i, j}
    for i, j in sorted(tied):
        if not taken & {i, j}:
            partner[i] = j, why_no_pair(np.concatenate([shapes[i], shapes[j]]), tied=True)
    return partner


def _drawings(marks: Sequence[Mark], paired: set[int]) -> dict[int, list[int]]:
    """Groups of three or more lines that the file says are one thing, as an arrow is: first line -> all its lines."""
    groups: dict[tuple, list[int]] = {}
    for i, mark in enumerate(marks):
        if mark.tool == LINE and mark.bound:
            groups.setdefault((mark.group, mark.images), []).append(i)
    return {group[0]: group for group in groups.values() if len(group) > 2 and not paired & set(group)}


def hull_box(ends: np.ndarray, margin_px: float) -> np.ndarray:
    """Boxes (n, 4) around the four ends (n, 8) of diameters with a margin on every side (DeepLesion Sec. 2.2.1)."""
    points = np.asarray(ends, dtype=float).reshape(-1, 4, 2)
    return np.concatenate([points.min(axis=1) - margin_px, points.max(axis=1) + margin_px], axis=1)
