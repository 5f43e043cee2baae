"""Where a bookmark of the simulated archive is drawn, and the DICOM items that say so."""

from dataclasses import dataclass

import numpy as np

from lensnb.phantom.pacs_bookmarks import PICTURES, Bookmark
from lensnb.phantom.pacs_images import Picture, uid_of
from lensnb.phantom.patients import Study


@dataclass(frozen=True)
class Place:
    """Where a bookmark is drawn: a picture, its slice, the ends (4, 2) in it, and the images that it names."""

    picture: Picture
    index: int
    ends: np.ndarray
    images: tuple[str, ...]

    @property
    def stored(self) -> np.ndarray:
        """The ends as DICOM counts pixels, from the corner of the first one."""
        return self.picture.stored(self.ends) + 0.5

    @property
    def mm(self) -> np.ndarray:
        """The ends in patient mm."""
        return self.picture.mm(self.ends, self.index)


def place_of(bookmark: Bookmark, study: Study, pictures: dict[str, Picture]) -> Place:
    """The picture that a bookmark is on; marks on coronal and sagittal ones keep their shape around the lesion."""
    axial = pictures["CT"]
    if bookmark.what not in PICTURES:
        images = (axial.images[bookmark.z],)
        if bookmark.what == "image not here":
            images = (uid_of(study, "an image that was never sent"),)
        if bookmark.what == "several images":
            images = (images[0], axial.images[bookmark.z - 1])
        return Place(axial, bookmark.z, bookmark.ends, images)
    picture = pictures[f"{bookmark.what} {bookmark.number}"]
    index, ends = len(picture.images) // 2, bookmark.ends
    if bookmark.what in ("coronal", "sagittal"):
        mm = np.linalg.norm(picture.to_mm[:3, :2], axis=0)
        middle = ends.mean(axis=0)
        across = middle[0] if bookmark.what == "coronal" else middle[1]
        in_plane = np.array([across, axial.shape[0] - 1 - bookmark.z])
        ends = in_plane + (ends - middle) * study.pixel_mm / mm
    return Place(picture, index, ends, (picture.images[index],))


def references(place: Place) -> list:
    """References to the images that a bookmark names, for a sequence."""
    return [
        make_item(ReferencedSOPClassUID=place.picture.sop_class, ReferencedSOPInstanceUID=uid) for uid in place.images
    ]


def make_item(**values: object) -> object:
    """A pydicom dataset with these values; lists of datasets become sequences."""
    from pydicom.dataset import Dataset

    item = Dataset()
    for name, value in values.items():
        setattr(item, name, value)
    return item
