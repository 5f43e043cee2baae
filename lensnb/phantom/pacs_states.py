"""Bookmarks of the simulated archive as presentation states.

Writers differ, and so do these: the two lines of a pair stand in one annotation, in two, or in one group of an
annotation with everything else on the image; a study has one state, or one for each image. Who drew stands in them.
"""

import numpy as np

from lensnb.phantom.pacs_bookmarks import Bookmark
from lensnb.phantom.pacs_images import new_file, uid_of
from lensnb.phantom.pacs_places import Place, make_item, references
from lensnb.phantom.patients import Patient, Study

SOP_CLASS = "1.2.840.10008.5.1.4.1.1.11.1"
READER = "Reader^Rolf"


def in_one_state(states: list, study: Study) -> list[list]:
    """Which bookmarks stand in one presentation state: all of a study, or, in every third one, those of an image."""
    if study.patient % 3 or not states:
        return [states] if states else []
    images = list(dict.fromkeys(place.images for _, place in states))
    return [[pair for pair in states if pair[1].images == image] for image in images]


def presentation_state(drawn: list, patient: Patient, study: Study, number: int) -> object:
    """A presentation state. Its only image is named once, for all annotations; several by each annotation."""
    data = new_file(study, patient, SOP_CLASS, uid_of(study, f"state {number}"))
    data.Modality, data.SeriesInstanceUID, data.SeriesNumber = "PR", uid_of(study, f"states {number}"), 900 + number
    data.InstanceNumber, data.ContentLabel, data.ContentCreatorName = number, "MARKS", READER
    data.PresentationCreationDate, data.PresentationCreationTime = data.StudyDate, "111500"
    data.PresentationLUTShape = "IDENTITY"
    series: dict[str, list] = {}
    for _, place in drawn:
        series.setdefault(place.picture.uid, []).extend(references(place))
    data.ReferencedSeriesSequence = [
        make_item(SeriesInstanceUID=uid, ReferencedImageSequence=_unique(items)) for uid, items in series.items()
    ]
    alone = len({place.images for _, place in drawn}) == 1
    way = (2 * patient.number + study.study) % 3
    annotations, together = [], {}
    for group, (bookmark, place) in enumerate(drawn, start=1):
        images = {} if alone else {"ReferencedImageSequence": references(place)}
        graphics = _graphics(bookmark, place, group if way == 2 else None)
        texts = [_text(bookmark.label, place, bookmark.what == "text", group if way == 2 and graphics else None)]
        if way == 1 and len(graphics) == 2:
            annotations += [_annotation(images, [graphic], texts) for graphic in graphics]
        elif way == 2 and graphics:
            kept = together.setdefault(place.images, (images, [], []))
            kept[1].extend(graphics)
            kept[2].extend(texts)
        else:
            annotations.append(_annotation(images, graphics, texts, bookmark, place))
    data.GraphicAnnotationSequence = annotations + [_annotation(*kept) for kept in together.values()]
    data.GraphicLayerSequence = [make_item(GraphicLayer="MARKS", GraphicLayerOrder=1)]
    return data


def _annotation(
    images: dict, graphics: list, texts: list, bookmark: Bookmark | None = None, place: Place | None = None
) -> object:
    item = make_item(GraphicLayer="MARKS", TextObjectSequence=texts, **images)
    if graphics:
        item.GraphicObjectSequence = graphics
    if bookmark and bookmark.what == "arrow":  # a compound graphic, and the lines that draw it for older viewers
        for graphic in graphics:
            graphic.CompoundGraphicInstanceID = 1
        points = place.stored[:2].ravel().tolist()
        item.CompoundGraphicSequence = [
            make_item(
                CompoundGraphicInstanceID=1,
                CompoundGraphicUnits="PIXEL",
                CompoundGraphicType="ARROW",
                GraphicDimensions=2,
                NumberOfGraphicPoints=2,
                GraphicData=points,
            )
        ]
    return item


def _graphics(bookmark: Bookmark, place: Place, group: int | None) -> list:
    """The graphic objects of a bookmark: two lines for a RECIST pair."""
    points = place.stored
    if bookmark.what == "text":
        return []
    if bookmark.what == "ellipse":
        return [_graphic("ELLIPSE", points, group)]
    if bookmark.what == "line":
        return [_graphic("POLYLINE", points[:2], group)]
    if bookmark.what == "arrow":  # a shaft, and a head of two strokes
        tip, tail = points[0], points[1] + (points[1] - points[0])
        back = (tail - tip) / max(np.linalg.norm(tail - tip), 1e-6) * 3
        sides = [tip + 0.8 * back + sign * 0.6 * np.array([-back[1], back[0]]) for sign in (-1, 1)]
        return [_graphic("POLYLINE", np.stack([end, tip]), group) for end in (tail, *sides)]
    return [_graphic("POLYLINE", line, group) for line in (points[2:], points[:2])]


def _graphic(kind: str, points: np.ndarray, group: int | None) -> object:
    item = make_item(
        GraphicAnnotationUnits="PIXEL",
        GraphicDimensions=2,
        NumberOfGraphicPoints=len(points),
        GraphicData=points.ravel().tolist(),
        GraphicType=kind,
        GraphicFilled="N",
    )
    if group is not None:
        item.GraphicGroupID = group
    return item


def _text(words: str, place: Place, anchored: bool, group: int | None) -> object:
    x, y = place.stored[0].tolist()
    item = make_item(
        UnformattedTextValue=words,
        BoundingBoxAnnotationUnits="PIXEL",
        BoundingBoxTopLeftHandCorner=[x, y],
        BoundingBoxBottomRightHandCorner=[x + 12, y + 4],
        BoundingBoxTextHorizontalJustification="LEFT",
    )
    if anchored:
        item.AnchorPointAnnotationUnits, item.AnchorPoint, item.AnchorPointVisibility = "PIXEL", [x, y], "Y"
    if group is not None:
        item.GraphicGroupID = group
    return item


def _unique(items: list) -> list:
    return list({item.ReferencedSOPInstanceUID: item for item in items}.values())
