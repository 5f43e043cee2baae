"""Marks of DICOM structured reports: measurement groups of TID 1500, and whatever else has coordinates (PS3.16).

A RECIST pair is a container "Measurement Group" with two numbers, the long and the short axis, each inferred from a
polyline of two points that is selected from one image (SCOORD) or lies in a frame of reference (SCOORD3D). Older
writers code the axes in SNOMED RT, newer ones in SNOMED CT; a group of two lines without these codes is one, too, as it
is their crossing that tells. Who measured stands in many reports and is not read.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from lensnb.bookmarks.marks import (
    MM,
    NO_POINTS,
    PIXEL,
    REPORT,
    Mark,
    image_references,
    patient_of,
    points_of,
    polyline_tool,
)

KIND = "1.2.840.10008.5.1.4.1.1.88."  # what the SOP class of every structured report begins with
KEY_IMAGES = f"{KIND}59"  # a list of images, without measurements
GROUP = ("125007", "DCM")
TRACKING = ("112039", "DCM")  # the name of a measurement that comes back in later studies
SNOMED_RT = ("SRT", "SNM3", "99SDM")  # names of one coding scheme
AXES = {  # long, short, major and minor axis (CID 7470)
    ("G-A185", "SRT"), ("103339001", "SCT"), ("G-A186", "SRT"), ("103340004", "SCT"),
    ("G-A193", "SRT"), ("131187009", "SCT"), ("G-A194", "SRT"), ("131188004", "SCT"),
}  # fmt: skip
COORDINATES = {"SCOORD": (2, PIXEL), "SCOORD3D": (3, MM)}
NOWHERE = "measurement without coordinates"
LOST = "reference to nothing"  # to a place that the report does not have


@dataclass(frozen=True)
class _Container:
    """A container with what stands in it but not in another one; in a measurement group that is everything below.

    items: content items, each with whether it is, or is below, a number that means an axis. lost: where references
    stand that lead to no item.
    """

    place: str
    is_group: bool
    items: list[tuple[object, bool]] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)


def read_report(dataset: object, path: Path) -> list[Mark]:
    """The marks of a structured report, a pydicom dataset, in the order of the file.

    Lines of one container may be one measurement. A measurement group without coordinates is a mark without points
    (NOWHERE), and so are coordinates that are no points (NO_POINTS), and references that lead nowhere (LOST).
    """
    containers = [_Container("document", _concept(dataset) == GROUP)]
    _gather(dataset, dataset, containers[0], "", containers, (id(dataset),))
    in_groups = {id(item) for container in containers if container.is_group for item, _ in container.items}
    found = []
    for container in containers:
        items = [pair for pair in container.items if container.is_group or id(pair[0]) not in in_groups]
        found += _marks(dataset, container, items, path)
    return found


def _gather(
    item: object, document: object, owner: _Container, place: str, containers: list, way: tuple, axis: bool = False
) -> None:
    """Give every content item below `item` to its container; a new container is appended to `containers`.

    `way`: the items above, so that a reference that leads back to one of them ends.
    """
    for number, child in enumerate(item.get("ContentSequence") or [], start=1):
        where = f"{place}.{number}" if place else str(number)
        target = _target(child, document)
        if target is None:
            owner.lost.append(where)
            continue
        if id(target) in way:
            continue
        mine = owner
        if target.get("ValueType") == "CONTAINER" and not owner.is_group:
            is_group = _concept(target) == GROUP
            mine = _Container(f"{'group' if is_group else 'container'} {where}", is_group)
            containers.append(mine)
        of_axis = axis or (target.get("ValueType") == "NUM" and _concept(target) in AXES)
        mine.items.append((target, of_axis))
        _gather(target, document, mine, where, containers, (*way, id(target)), of_axis)


def _target(child: object, document: object) -> object | None:
    """A content item itself, or the one whose place in the document it gives, as [1, 3, 2]; None if none is there."""
    place = child.get("ReferencedContentItemIdentifier")
    if place is None:
        return child
    item = document
    for number in [place][1:] if isinstance(place, int) else list(place)[1:]:  # the first one is the document
        content = item.get("ContentSequence") or []
        if not 1 <= number <= len(content):
            return None
        item = content[number - 1]
    return item


def _marks(document: object, container: _Container, items: list[tuple[object, bool]], path: Path) -> list[Mark]:
    scope = f"{path}|{container.place}"
    label = " ".join(str(item.get("TextValue") or "") for item, _ in items if _concept(item) == TRACKING)
    common = {"form": REPORT, "file": path, "scope": scope, "patient": patient_of(document), "label": label,
              "bound": container.is_group}  # fmt: skip
    named = tuple(dict.fromkeys(image for item, _ in items for image in _images(item)))
    found = []
    for item, axis in items:
        if item.get("ValueType") not in COORDINATES:
            continue
        dimensions, units = COORDINATES[item.ValueType]
        place = f"{container.place}, coordinates {len(found) + 1}"
        kind = str(item.get("GraphicType") or "graphic")
        try:
            points = points_of(item.get("GraphicData"), dimensions)
            tool = polyline_tool(points) if kind == "POLYLINE" else "outline" if kind == "POLYGON" else kind.lower()
        except (TypeError, ValueError):
            points, tool = np.zeros((0, dimensions)), NO_POINTS
        below = [_target(child, document) for child in item.get("ContentSequence") or []]
        images = tuple(dict.fromkeys(image for child in below if child is not None for image in _images(child)))
        if units == PIXEL:
            points = points - 0.5
        else:
            images = images or named  # points in a frame of reference are not selected from an image
        space = str(item.get("ReferencedFrameOfReferenceUID") or "")
        found.append(Mark(place=place, group=f"{scope}|{axis}", tool=tool, points=points, units=units, images=images,
                          space=space, **common))  # fmt: skip
    without = [(f"{container.place}, reference {where}", LOST) for where in container.lost]
    if container.is_group and not (found or without):
        without = [(container.place, NOWHERE)]
    for place, tool in without:
        nowhere = np.zeros((0, 2))
        found.append(Mark(place=place, group=scope, tool=tool, points=nowhere, units=PIXEL, images=named,
                          **common))  # fmt: skip
    return found


def _images(item: object) -> tuple[tuple[str, int], ...]:
    return image_references(item.get("ReferencedSOPSequence")) if item.get("ValueType") == "IMAGE" else ()


def _concept(item: object) -> tuple[str, str] | None:
    """Code and scheme of an item's name."""
    names = item.get("ConceptNameCodeSequence") or []
    if not names:
        return None
    scheme = str(names[0].get("CodingSchemeDesignator") or "")
    return str(names[0].get("CodeValue") or ""), "SRT" if scheme in SNOMED_RT else scheme
