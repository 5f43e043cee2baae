"""Bookmarks of the simulated archive as structured reports by TID 1500.

Axes are coded in SNOMED RT or CT, their ends lie in the image or in the frame of reference. Who measured stands there,
too.
"""

import numpy as np

from lensnb.phantom.pacs_bookmarks import TOOLS, Bookmark
from lensnb.phantom.pacs_images import CT, new_file, uid_of
from lensnb.phantom.pacs_places import Place, make_item, references
from lensnb.phantom.pacs_states import READER
from lensnb.phantom.patients import Patient, Study

SOP_CLASS = "1.2.840.10008.5.1.4.1.1.88.34"
AXES = ({"long": ("G-A185", "SRT", "Long Axis"), "short": ("G-A186", "SRT", "Short Axis")},
        {"long": ("103339001", "SCT", "Long Axis"), "short": ("103340004", "SCT", "Short Axis")})  # fmt: skip
LENGTH = ("410668003", "SCT", "Length")


def structured_report(drawn: list, patient: Patient, study: Study) -> object:
    """A structured report by TID 1500 with a measurement group for each bookmark."""
    data = new_file(study, patient, SOP_CLASS, uid_of(study, "report"))
    data.Modality, data.SeriesInstanceUID, data.SeriesNumber = "SR", uid_of(study, "reports"), 800
    data.InstanceNumber, data.ContentDate, data.ContentTime = 1, data.StudyDate, "112000"
    data.CompletionFlag, data.VerificationFlag = "COMPLETE", "UNVERIFIED"
    data.ValueType, data.ContinuityOfContent = "CONTAINER", "SEPARATE"
    data.ConceptNameCodeSequence = [_code("126000", "DCM", "Imaging Measurement Report")]
    data.ContentTemplateSequence = [make_item(MappingResource="DCMR", TemplateIdentifier="1500")]
    observer = _content("TEXT", "HAS OBS CONTEXT", ("121008", "DCM", "Person Observer Name"), TextValue=READER)
    groups = [_measurement_group(bookmark, place, patient, study) for bookmark, place in drawn]
    measurements = _content("CONTAINER", "CONTAINS", ("126010", "DCM", "Imaging Measurements"),
                            ContinuityOfContent="SEPARATE", ContentSequence=groups)  # fmt: skip
    data.ContentSequence = [observer, measurements]
    return data


def _measurement_group(bookmark: Bookmark, place: Place, patient: Patient, study: Study) -> object:
    tracked = ("112039", "DCM", "Tracking Identifier"), ("112040", "DCM", "Tracking Unique Identifier")
    items = [_content("TEXT", "HAS OBS CONTEXT", tracked[0], TextValue=bookmark.label)]
    items.append(
        _content("UIDREF", "HAS OBS CONTEXT", tracked[1], UID=f"2.25.{patient.number}{bookmark.identity + 1:04d}")
    )
    codes = AXES[study.study % 2]
    in_space = place.picture.sop_class == CT and len(place.images) == 1 and bookmark.number % 3 == 0
    if bookmark.what == "line":
        items.append(_measured(LENGTH, place.stored[:2], place))
    elif bookmark.what == "ellipse":
        items.append(_selected("ELLIPSE", place.stored, place, "CONTAINS"))
    elif bookmark.what in ("arrow", "text"):
        items.append(_selected("POINT", place.stored[:1], place, "CONTAINS"))
    else:
        for axis, ends in (("long", slice(0, 2)), ("short", slice(2, 4))):
            points = place.mm[ends] if in_space else place.stored[ends]
            items.append(_measured(codes[axis], points, place, uid_of(study, "frame") if in_space else ""))
    if in_space and bookmark.what not in TOOLS:
        items.append(_content("IMAGE", "CONTAINS", ("121112", "DCM", "Source of Measurement"),
                              ReferencedSOPSequence=references(place)))  # fmt: skip
    return _content("CONTAINER", "CONTAINS", ("125007", "DCM", "Measurement Group"), ContinuityOfContent="SEPARATE",
                    ContentSequence=items)  # fmt: skip


def _measured(code: tuple[str, str, str], points: np.ndarray, place: Place, space: str = "") -> object:
    """A length that was measured between two points, of the image or of the frame of reference `space`."""
    ends = points if space else place.picture.mm(_canonical(place, points), place.index)
    length = float(np.linalg.norm(ends[1] - ends[0]))
    value = make_item(NumericValue=f"{length:.2f}", MeasurementUnitsCodeSequence=[_code("mm", "UCUM", "mm")])
    return _content("NUM", "CONTAINS", code, MeasuredValueSequence=[value],
                    ContentSequence=[_selected("POLYLINE", points, place, "INFERRED FROM", space)])  # fmt: skip


def _canonical(place: Place, points: np.ndarray) -> np.ndarray:
    """Those of the bookmark's ends that `points` are, as they were stored."""
    at = [int(np.argmin(np.linalg.norm(place.stored - point, axis=1))) for point in points]
    return place.ends[at]


def _selected(kind: str, points: np.ndarray, place: Place, relation: str, space: str = "") -> object:
    data = {"GraphicData": points.ravel().tolist(), "GraphicType": kind}
    if space:
        return _content("SCOORD3D", relation, None, ReferencedFrameOfReferenceUID=space, **data)
    image = _content("IMAGE", "SELECTED FROM", None, ReferencedSOPSequence=references(place)[:1])
    more = [_content("IMAGE", "SELECTED FROM", None, ReferencedSOPSequence=[one]) for one in references(place)[1:]]
    return _content("SCOORD", relation, None, ContentSequence=[image, *more], **data)


def _content(kind: str, relation: str, code: tuple[str, str, str] | None, **values: object) -> object:
    item = make_item(RelationshipType=relation, ValueType=kind)
    if code:
        item.ConceptNameCodeSequence = [_code(*code)]
    for name, value in values.items():
        setattr(item, name, value)
    return item


def _code(value: str, scheme: str, meaning: str) -> object:
    return make_item(CodeValue=value, CodingSchemeDesignator=scheme, CodeMeaning=meaning)
