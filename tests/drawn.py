"""Presentation states, structured reports and csv files with single marks, written by the tests that read them."""

from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    Comprehensive3DSRStorage,
    CTImageStorage,
    ExplicitVRLittleEndian,
    GrayscaleSoftcopyPresentationStateStorage,
    generate_uid,
)

CROSS = np.array([[10.0, 20.0], [30.0, 20.0], [18.0, 12.0], [18.0, 26.0]])  # two lines, as DICOM counts pixels
HEADER = "series_uid,coordinates,x1,y1,z1,x2,y2,z2,x3,y3,z3,x4,y4,z4"


def item(**values) -> Dataset:
    data = Dataset()
    for name, value in values.items():
        setattr(data, name, Sequence(value) if name.endswith("Sequence") else value)
    return data


def document(sop_class: str, uid: str = "", **values) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class, uid or generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset("drawn", {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    for name, value in values.items():
        setattr(data, name, Sequence(value) if name.endswith("Sequence") else value)
    return data


def save(data: FileDataset, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, data)
    return path


def image(*uids: str, frames=None) -> list[Dataset]:
    more = {} if frames is None else {"ReferencedFrameNumber": frames}
    return [item(ReferencedSOPClassUID=CTImageStorage, ReferencedSOPInstanceUID=uid, **more) for uid in uids]


# presentation states


def graphic(points, kind="POLYLINE", units="PIXEL", **more) -> Dataset:
    points = np.asarray(points, dtype=float)
    return item(GraphicAnnotationUnits=units, GraphicDimensions=2, NumberOfGraphicPoints=len(points),
                GraphicData=points.ravel().tolist(), GraphicType=kind, **more)  # fmt: skip


def text(words: str, **more) -> Dataset:
    corners = {"BoundingBoxTopLeftHandCorner": [1.0, 1.0], "BoundingBoxBottomRightHandCorner": [9.0, 4.0]}
    return item(UnformattedTextValue=words, BoundingBoxAnnotationUnits="PIXEL", **corners, **more)


def annotation(graphics=(), images=(), texts=(), **more) -> Dataset:
    found = item(GraphicLayer="L", **more)
    for name, items in (("GraphicObject", graphics), ("ReferencedImage", images), ("TextObject", texts)):
        if items:
            setattr(found, f"{name}Sequence", Sequence(items))
    return found


def state(*annotations, everywhere=(), **values) -> FileDataset:
    data = document(GrayscaleSoftcopyPresentationStateStorage, Modality="PR", **values)
    data.GraphicAnnotationSequence = Sequence(annotations)
    if everywhere:
        data.ReferencedSeriesSequence = Sequence([item(SeriesInstanceUID="1.9", ReferencedImageSequence=everywhere)])
    return data


# structured reports

LONG, SHORT = ("G-A185", "SRT"), ("G-A186", "SRT")
GROUP, LENGTH, TRACKING = ("125007", "DCM"), ("410668003", "SCT"), ("112039", "DCM")


def content(kind: str, code=None, below=(), **values) -> Dataset:
    found = item(ValueType=kind, RelationshipType="CONTAINS", **values)
    if code:
        found.ConceptNameCodeSequence = Sequence(
            [item(CodeValue=code[0], CodingSchemeDesignator=code[1], CodeMeaning="x")]
        )
    if below:
        found.ContentSequence = Sequence(below)
    return found


def scoord(points, *uids: str, kind="POLYLINE", frames=None) -> Dataset:
    images = [content("IMAGE", ReferencedSOPSequence=image(uid, frames=frames)) for uid in uids]
    return content("SCOORD", None, images, GraphicData=np.ravel(points).astype(float).tolist(), GraphicType=kind)


def scoord3d(points_mm, space: str, kind="POLYLINE") -> Dataset:
    return content("SCOORD3D", None, GraphicData=np.ravel(points_mm).astype(float).tolist(), GraphicType=kind,
                   ReferencedFrameOfReferenceUID=space)  # fmt: skip


def number(code, *below) -> Dataset:
    return content("NUM", code, below)


def group(*items) -> Dataset:
    return content("CONTAINER", GROUP, items)


def bidirectional(cross, *uids: str, long=LONG, short=SHORT) -> Dataset:
    """A measurement group of two axes, as web viewers write it."""
    return group(number(long, scoord(cross[:2], *uids)), number(short, scoord(cross[2:], *uids)))


def report(*items, **values) -> FileDataset:
    data = document(Comprehensive3DSRStorage, Modality="SR", ValueType="CONTAINER", **values)
    data.ContentSequence = Sequence([content("CONTAINER", ("126010", "DCM"), items)])
    return data


def row(series: str, coordinates: str, points_mm) -> str:
    return ",".join([series, coordinates, *(f"{value:.6f}" for value in np.ravel(points_mm))])
