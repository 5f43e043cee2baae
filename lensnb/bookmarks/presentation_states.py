"""Marks of DICOM presentation states: graphics that a viewer drew over images (PS3.3, C.10.5 and A.33).

A presentation state has no object that is a RECIST pair. It is two polylines of two points on one image, which a common
group, a common annotation or nothing but the crossing holds together; `recist.bookmarks_of` finds them. Only graphics
in units of PIXEL have a place in the image. How the state turns or enlarges the picture does not change them.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lensnb.bookmarks.marks import (
    DISPLAY,
    NO_POINTS,
    PIXEL,
    STATE,
    Mark,
    image_references,
    patient_of,
    points_of,
    polyline_tool,
)

KIND = "1.2.840.10008.5.1.4.1.1.11."  # what the SOP class of every presentation state begins with
LINES = ("RULER", "MULTILINE")  # compound graphics that are polylines


def read_presentation_state(dataset: object, path: Path) -> list[Mark]:
    """The marks of a presentation state, a pydicom dataset, in the order of the file.

    Text that stands in one group with graphics, or without a group in one annotation with them, is their label; other
    text is a mark of its own. A compound graphic is one mark, and the simple objects that draw it for viewers without
    compound graphics are none. A graphic whose coordinates are no points is a mark without any (NO_POINTS).
    """
    everywhere = _all_images(dataset)
    patient = patient_of(dataset)
    found = []
    for number, item in enumerate(dataset.get("GraphicAnnotationSequence") or [], start=1):
        images = image_references(item.get("ReferencedImageSequence")) or everywhere
        scope = f"{path}|{images}"  # the two lines of a pair may be in two annotations of one image
        where = f"annotation {number}"
        common = {"form": STATE, "file": path, "scope": scope, "images": images, "patient": patient}
        drawn = list(_graphics(item, where))
        groups = {group for _, group, *_ in drawn}
        texts = [
            (_group(text, where), str(text.get("UnformattedTextValue") or ""))
            for text in item.get("TextObjectSequence") or []
        ]
        for place, group, tool, points, units in drawn:
            label = " ".join(words for of, words in texts if of in (group, where))
            found.append(Mark(place=place, group=f"{scope}|{where}|{group}", tool=tool, points=points, units=units,
                              label=label, bound=group != where, **common))  # fmt: skip
        for index, (of, words) in enumerate(texts, start=1):
            if of in groups or (of == where and drawn):
                continue
            place = f"{where}, text {index}"
            nowhere = np.zeros((0, 2))
            found.append(Mark(place=place, group=f"{scope}|{place}", tool="text", points=nowhere, units=PIXEL,
                              label=words, **common))  # fmt: skip
    return found


def _all_images(dataset: object) -> tuple[tuple[str, int], ...]:
    """The images that the whole state is of, for annotations that name none."""
    found = []
    for series in dataset.get("ReferencedSeriesSequence") or []:
        found += image_references(series.get("ReferencedImageSequence"))
    return tuple(found)


def _graphics(item: object, where: str) -> Iterator[tuple[str, str, str, np.ndarray, str]]:
    """Place, group, tool, points and units of each graphic of an annotation."""
    compounds = list(item.get("CompoundGraphicSequence") or [])
    drawn_twice = {compound.get("CompoundGraphicInstanceID") for compound in compounds} - {None}
    for index, graphic in enumerate(item.get("GraphicObjectSequence") or [], start=1):
        if graphic.get("CompoundGraphicInstanceID") in drawn_twice:
            continue
        tool, points, units = _drawn(graphic, "GraphicType", "GraphicAnnotationUnits", ("POLYLINE",))
        yield f"{where}, object {index}", _group(graphic, where), tool, points, units
    for index, compound in enumerate(compounds, start=1):
        tool, points, units = _drawn(compound, "CompoundGraphicType", "CompoundGraphicUnits", LINES)
        yield f"{where}, compound {index}", _group(compound, where), tool, points, units


def _group(graphic: object, where: str) -> str:
    number = graphic.get("GraphicGroupID")
    return where if number is None else f"group {number}"


def _drawn(graphic: object, kind_tag: str, units_tag: str, lines: tuple[str, ...]) -> tuple[str, np.ndarray, str]:
    """Tool, points (n, 2) and units; pixels as index coordinates, other units as they are. lines: polylines' kinds."""
    kind = str(graphic.get(kind_tag) or "graphic")
    try:
        points = points_of(graphic.get("GraphicData"), 2)
    except (TypeError, ValueError):
        return NO_POINTS, np.zeros((0, 2)), PIXEL
    tool = polyline_tool(points) if kind in lines else "curve" if kind == "INTERPOLATED" else kind.lower()
    in_pixels = str(graphic.get(units_tag) or PIXEL).upper() == "PIXEL"
    return (tool, points - 0.5, PIXEL) if in_pixels else (tool, points, DISPLAY)
