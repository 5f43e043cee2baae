"""What is drawn in a study of the simulated archive: RECIST pairs of lesions, and all that is no such thing."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from lensnb.phantom.patients import Patient, Study
from lensnb.phantom.recist import recist_diameters
from lensnb.phantom.rendering import Rendering

FORMS = ("presentation state", "structured report", "csv")
TOOLS = ("arrow", "line", "ellipse", "text")
PICTURES = ("MR", "PT", "coronal", "sagittal")
ONLY_IN = {"wrong series": FORMS[2:], "several images": FORMS[:2]}  # a form can not err in every way
ENDS = ["x1", "y1", "x2", "y2", "x3", "y3", "x4", "y4"]  # of the long diameter, then of the short one
# what: "lesion" for a RECIST pair around a lesion, else a name of pacs.SHARES. reader: 2 for a second mark of a lesion.
# patient: its PatientID. study: its number, from 1. identity: the lesion's in its patient, -1 for none. image:
# SOPInstanceUID of the slice. slice: from 0 at the head, -1 for none. ENDS: index coordinates of the slice with x to
# the left and y to the back, empty for what is not on an axial CT slice
TRUTH = ["bookmark", "form", "what", "reader", "patient", "study", "identity", "type", "follow_up", "series_uid",
         "image", "slice", *ENDS]  # fmt: skip
JITTER_MM = 1.0  # sd of an end in a second reader's mark: a guess
SMALL_PX, FLAT_PX = 0.3, 0.4  # length of a double click; half the width of a flat one
TRIES = 200  # places that are looked at for a box without a lesion


class Chances(Protocol):
    """What is needed of pacs.Pacs."""

    shares: Mapping[str, float]
    forms_of_each: int


@dataclass(frozen=True)
class Bookmark:
    """One bookmark of a study.

    what, reader, identity, type, follow_up: as in TRUTH. number: of the bookmark in its study. forms: in which it is
    stored. z: slice of the canonical volume (up). ends: (4, 2) x, y in pixels of that slice.
    """

    what: str
    number: int
    forms: tuple[str, ...]
    z: int
    ends: np.ndarray
    identity: int = -1
    type: str = ""
    follow_up: int = 0
    reader: int = 1

    @property
    def label(self) -> str:
        """What is written beside it, as B06 F03 (DeepLesion Fig. 2)."""
        return f"B{self.number:02d} F{self.follow_up:02d}" if self.follow_up else f"B{self.number:02d}"


def draw_bookmarks(
    rng: np.random.Generator,
    patient: Patient,
    study: Study,
    scan: Rendering,
    marked: list[int],
    sets: dict[int, int],
    spec: Chances,
) -> list[Bookmark]:
    """All bookmarks of a study. marked: visible lesions that somebody measured; sets: lesion -> number of its set."""
    found: list[Bookmark] = []

    def add(what: str, z: int, ends: np.ndarray, **more) -> None:
        turn = len(found) + patient.number + study.study
        possible = ONLY_IN.get(what, FORMS)
        forms = tuple(possible[(turn + k) % len(possible)] for k in range(min(spec.forms_of_each, len(possible))))
        found.append(Bookmark(what, len(found) + 1, forms, z, ends, **more))

    for lesion in marked:
        boxes = scan.boxes[lesion]
        z = int(boxes[np.argmax((boxes[:, 3] - boxes[:, 1]) * (boxes[:, 4] - boxes[:, 2])), 0])
        ends = np.array(recist_diameters(*scan.shares[lesion], z)).reshape(4, 2)
        about = {"identity": patient.lesions[lesion].identity, "type": patient.lesions[lesion].type,
                 "follow_up": sets[lesion]}  # fmt: skip
        add("lesion", z, ends, **about)
        for what, share in spec.shares.items():
            if rng.random() >= share:
                continue
            if what == "second reader":
                moved = ends + rng.normal(0, JITTER_MM / study.pixel_mm, ends.shape)
                add("lesion", z, moved, **about, reader=2)
            else:
                add(what, z, _drawn(rng, what, ends, scan, z), **about)
    return found


def _drawn(rng: np.random.Generator, what: str, ends: np.ndarray, scan: Rendering, z: int) -> np.ndarray:
    """Where a bookmark that is no lesion's is drawn, (4, 2); most lie on a lesion, as other tools do."""
    middle, size = ends.mean(axis=0), scan.hu.shape[1]
    if what == "outside":
        reach = rng.uniform(0.03, 0.06) * size
        corner = np.array([size * (0.08 if rng.random() < 0.5 else 0.92), size * 0.08])
        return _cross(corner, reach, 0.8 * reach, rng.uniform(0, np.pi))
    if what == "small":
        return _cross(middle, SMALL_PX, SMALL_PX / 2, rng.uniform(0, np.pi))
    if what == "large":
        return _cross(np.array([size / 2, size / 2]), 0.42 * size, 0.25 * size, rng.normal(0, 0.2))
    if what == "flat":
        length = np.linalg.norm(ends[1] - ends[0]) / 2 + 4
        return _cross(middle, length, FLAT_PX, rng.uniform(0, np.pi))
    if what == "no lesion":
        return _in_plain_tissue(rng, scan, z)
    return ends


def _cross(middle: np.ndarray, long: float, short: float, angle: float) -> np.ndarray:
    """Two lines at right angles that halve each other; long, short: half their lengths in pixels."""
    along = np.array([np.cos(angle), np.sin(angle)])
    across = np.array([-along[1], along[0]])
    return np.stack([middle - long * along, middle + long * along, middle - short * across, middle + short * across])


def _in_plain_tissue(rng: np.random.Generator, scan: Rendering, z: int) -> np.ndarray:
    """A pair in soft tissue or fat where the picture varies least, away from all lesions of the slice."""
    plane, size, half = scan.hu[z], scan.hu.shape[1], 4
    taken = [row[1:] for boxes in scan.boxes.values() for row in boxes if int(row[0]) == z]
    best, least = None, np.inf
    for x, y in rng.integers(size // 6, size - size // 6, (TRIES, 2)):
        block = plane[y - 2 * half : y + 2 * half + 1, x - 2 * half : x + 2 * half + 1]
        if any(x1 - half <= x <= x2 + half and y1 - half <= y <= y2 + half for x1, y1, x2, y2 in taken):
            continue
        if -250 < block.mean() < 250 and block.std() < least:
            best, least = (float(x), float(y)), block.std()
    middle = np.array(best if best else (size / 2, size / 2))
    return _cross(middle, half, 0.7 * half, rng.uniform(0, np.pi))
