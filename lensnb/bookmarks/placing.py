"""From what a mark says of its place to a slice of a CT series and pixels of the dataset's picture.

DeepLesion keeps CT, RECIST pairs and axial images (Sec. 2.2.1). The paper subtracts ImagePositionPatient and divides by
the pixel spacing, which is right only where the slices lie exactly along the patient's axes; here the slice's whole
matrix is inverted. What can not be placed is left out, and the column left_out says why.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from lensnb.bookmarks.images import Archive
from lensnb.bookmarks.marks import MM
from lensnb.bookmarks.recist import ENDS_DRAWN, ENDS_MM
from lensnb.bookmarks.series import NOT_AXIAL, NotUsable, Series, open_series, to_plane, turned
from lensnb.ct.grid_shapes import DIAMETERS
from lensnb.system import progress

BEYOND_PX = 1.0  # how far beyond the image's edge an end may be drawn
OFF_MM = 0.5  # how far beyond half a slice from its middle a vertex may lie: files round
NO_IMAGE, SEVERAL, ABSENT = "it names no image", "it names several images", "its image is not here"
NO_SERIES, AMBIGUOUS, OUTSIDE = "its series is not here", "several CT series fit", "outside of its image"
OF_ANOTHER = "its image is of another patient"
ABOUT = ["series_uid", "study_uid", "patient_id", "issuer", "modality", "year"]  # what the archive says of an image


@dataclass(frozen=True)
class _Place:
    """Where a bookmark is, or why it has no place: series, index of its slice (-1 without), ends (4, 2) as x, y."""

    series_uid: str = ""
    why_not: str = ""
    index: int = -1
    ends: np.ndarray | None = None


class _Shelf:
    """The images of an archive, and its series as they are asked for."""

    def __init__(self, archive: Archive):
        images = archive.images
        self.by_image = images.set_index("image")
        self.by_series = {uid: images.loc[rows] for uid, rows in images.groupby("series_uid").groups.items()}
        usable = images[(images["why_not"] == "") & (images["space"] != "")]
        self.by_space = {space: list(dict.fromkeys(part)) for space, part in usable.groupby("space")["series_uid"]}
        self.opened: dict[str, Series | str] = {}
        self.details: list[str] = []

    def open(self, uid: str) -> Series | str:
        """A series, or in a few words why it can not be used."""
        if uid not in self.opened:
            images = self.by_series[uid]
            try:
                self.opened[uid] = open_series(list(images.loc[images["why_not"] == "", "path"]))
            except NotUsable as error:
                self.opened[uid] = error.reason
                if error.reason != NOT_AXIAL:
                    self.details.append(str(error))
        return self.opened[uid]


def place(bookmarks: pd.DataFrame, archive: Archive) -> tuple[pd.DataFrame, dict[str, Series], list[str]]:
    """Place the RECIST pairs of `bookmarks` (columns: recist.BOOKMARKS) in the archive's CT series.

    Returns the table with ABOUT, image and frame of the slice, slice (-1 without one) and DIAMETERS, the four ends in
    index coordinates of the dataset's picture, the longer line first; series_uid and patient_id become those of the
    image. left_out says why a bookmark has no place. Then the series that bookmarks lie on, by UID, and a note on each
    series that is no volume.
    """
    shelf = _Shelf(archive)
    rows, ends = [], np.full((len(bookmarks), 8), np.nan)
    for number, row in enumerate(progress(bookmarks.to_dict("records"), "placing bookmarks")):
        found = _Place(why_not=row["left_out"]) if row["left_out"] else _place(row, shelf)
        image, series = row["images"][0] if row["images"] else ("", 0), shelf.opened.get(found.series_uid)
        if found.index >= 0:
            image, ends[number] = series.images[found.index], found.ends.ravel()
        about = _about(image[0], found.series_uid or row["series_uid"], shelf)
        why_not = found.why_not
        if not why_not and row["patient_id"] and about["patient_id"] and row["patient_id"] != about["patient_id"]:
            why_not = OF_ANOTHER
        rows.append({**about, "image": image[0], "frame": image[1], "slice": found.index, "left_out": why_not})
    placed = pd.DataFrame(rows, index=bookmarks.index, columns=[*ABOUT, "image", "frame", "slice", "left_out"])
    table = bookmarks.drop(columns=[name for name in placed if name in bookmarks]).join(placed)
    table[DIAMETERS] = ends
    used = table.loc[table["left_out"] == "", "series_uid"].unique()
    return table, {uid: shelf.opened[uid] for uid in used}, shelf.details


def _about(image: str, series: str, shelf: _Shelf) -> dict[str, str]:
    """What the archive says of an image or, without one, of a series; empty if it has neither."""
    if image in shelf.by_image.index:
        return {name: shelf.by_image.at[image, name] for name in ABOUT}
    if series in shelf.by_series:
        return {name: shelf.by_series[series][name].iloc[0] for name in ABOUT}
    return dict.fromkeys(ABOUT, "")


def _place(row: dict, shelf: _Shelf) -> _Place:
    if len(row["images"]) > 1:
        return _Place(why_not=SEVERAL)
    if row["images"]:
        return _on_image(row, shelf)
    if row["units"] != MM or not (row["series_uid"] or row["space"]):
        return _Place(why_not=NO_IMAGE)
    if row["series_uid"]:
        if row["series_uid"] not in shelf.by_series:
            return _Place(why_not=NO_SERIES)
        reasons = shelf.by_series[row["series_uid"]]["why_not"]
        if (reasons != "").all():
            return _Place(row["series_uid"], why_not=reasons.iloc[0])
        return _in_series(row, row["series_uid"], shelf)
    found = [_in_series(row, uid, shelf) for uid in shelf.by_space.get(row["space"], [])]
    fitting = [one for one in found if not one.why_not]
    if len(fitting) > 1:
        return _Place(why_not=AMBIGUOUS)
    return (fitting or found or [_Place(why_not=NO_SERIES)])[0]


def _on_image(row: dict, shelf: _Shelf) -> _Place:
    """A bookmark that names its image."""
    if row["images"][0][0] not in shelf.by_image.index:
        return _Place(why_not=ABSENT)
    image = shelf.by_image.loc[row["images"][0][0]]
    if image["why_not"]:
        return _Place(image["series_uid"], why_not=image["why_not"])
    return _in_series(row, image["series_uid"], shelf, row["images"][0])


def _in_series(row: dict, uid: str, shelf: _Shelf, image: tuple[str, int] | None = None) -> _Place:
    """The slice and the ends of a bookmark in a series; on the slice `image` if that is known."""
    series = shelf.open(uid)
    if isinstance(series, str):
        return _Place(uid, why_not=series)
    indices = _indices(series, image)
    if not indices:
        return _Place(uid, why_not=ABSENT)
    if row["units"] == MM:
        points_mm = np.array([row[name] for name in ENDS_MM], dtype=float).reshape(4, 3)
        index = _nearest(series, indices, points_mm)
        inside = to_plane(series, index, points_mm)
        limit = series.spacing_mm[2] / 2 + OFF_MM
        if np.ptp(inside[:, 2]) > limit:
            return _Place(uid, why_not=NOT_AXIAL)  # drawn across the slices, on a picture made of them
        if np.abs(inside[:, 2]).max() > limit:
            return _Place(uid, why_not=OUTSIDE)
        drawn = inside[:, :2]
    else:
        if len(indices) > 1:
            return _Place(uid, why_not=SEVERAL)
        index = indices[0]
        drawn = np.array([row[name] for name in ENDS_DRAWN], dtype=float).reshape(4, 2)
    ends = turned(series, drawn)
    if (ends < -0.5 - BEYOND_PX).any() or (ends > np.array(series.size) - 0.5 + BEYOND_PX).any():
        return _Place(uid, why_not=OUTSIDE)
    return _Place(uid, index=index, ends=ends)


def _indices(series: Series, image: tuple[str, int] | None) -> list[int]:
    """The slices that a bookmark may be on: all without an image, all frames of one of which no frame is named."""
    if image is None:
        return list(range(len(series.images)))
    return [i for i, (uid, frame) in enumerate(series.images) if uid == image[0] and image[1] in (0, frame)]


def _nearest(series: Series, indices: list[int], points_mm: np.ndarray) -> int:
    """The one of some slices that the middle of some points lies nearest to."""
    off = np.linalg.inv(series.to_mm[indices])[:, 2] @ np.append(points_mm.mean(axis=0), 1)
    return indices[int(np.argmin(np.abs(off)))]
