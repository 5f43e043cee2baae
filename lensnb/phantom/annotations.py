"""The annotation files of the four datasets and the hidden truth, from the records of the written volumes.

The boxes of the manual test set and truth/lesions.csv are the tight box of the visible blob plus `box_padding_px` on
every side. Those of DL_info.csv are, as the real ones, the hull of the two RECIST diameters' four ends with that margin
(DeepLesion: 5 pixels, 4 mm at 0.8 mm; 2.5 at 1.6 mm), so they can be a little smaller. LUNA16, LiTS and NIH-LN
annotate the blob itself, without a margin. The volumes that are held out have tables of their own, below held_out.
"""

import json
import pickle
from pathlib import Path

import numpy as np
import pandas as pd

from lensnb.datasets import UNIVERSAL
from lensnb.datasets.manual_boxes import MANUAL_FILE
from lensnb.files import atomic_write, write_json, write_table
from lensnb.phantom import marking, ontology
from lensnb.phantom.patients import HELD_OUT, Patient
from lensnb.phantom.writing import HELD_OUT_FOLDER
from lensnb.settings import Phantom

# Normalized_lesion_location's z: 1 are 1127 mm in the median series of DL_info.csv, and marks in the mediastinum (here
# around z = 100 mm) have .447 in the median
BODY_MM, HEAD_MM = 1127.0, 604.0
DL_COLUMNS = (
    "File_name",
    "Patient_index",
    "Study_index",
    "Series_ID",
    "Key_slice_index",
    "Measurement_coordinates",
    "Bounding_boxes",
    "Lesion_diameters_Pixel_",
    "Normalized_lesion_location",
    "Coarse_lesion_type",
    "Possibly_noisy",
    "Slice_range",
    "Spacing_mm_px_",
    "Image_size",
    "DICOM_windows",
    "Patient_gender",
    "Patient_age",
    "Train_Val_Test",
)


def write_annotations(root: Path, spec: Phantom, patients: dict[str, list[Patient]], marked: dict[str, list]) -> None:
    """Write every table; `patients` has a key for train, val, test, each single-type dataset and HELD_OUT, `marked` for
    the first three.
    """
    records = [json.loads(path.read_text()) for path in sorted((root / "truth" / "parts").glob("*.json"))]
    by_number = {(p.studies[0].dataset, p.studies[0].group, p.number): p for group in patients.values() for p in group}
    apart = [record for record in records if record["group"] == HELD_OUT]
    records = [record for record in records if record["group"] != HELD_OUT]
    truth = _truth(records, by_number, spec.box_padding_px)
    write_table(truth, root / "truth" / "lesions.csv")
    deeplesion = [record for record in records if record["dataset"] == UNIVERSAL]
    _write_deeplesion(root / UNIVERSAL, spec, deeplesion, by_number)
    _write_manual(root / MANUAL_FILE, deeplesion, truth)
    for folder, own in ((root, records), (root / HELD_OUT_FOLDER, apart)):
        _write_luna(folder / "LUNA16", [record for record in own if record["dataset"] == "LUNA16"])
        _write_nihln(folder / "NIH-LN", [record for record in own if record["dataset"] == "NIH-LN"])
    write_table(_truth(apart, by_number, spec.box_padding_px), root / HELD_OUT_FOLDER / "truth" / "lesions.csv")
    write_json(_summary(records, truth, patients, marked), root / "truth" / "summary.json")


def _truth(records: list[dict], patients: dict, padding: float) -> pd.DataFrame:
    """The rows of truth/lesions.csv: a row for each visible slice of each lesion, in index coordinates of the file."""
    rows, identities, count = [], {}, 0
    for record in records:
        patient = patients[record["dataset"], record["group"], record["patient_number"]]
        for lesion in record["lesions"]:
            identity = identities.setdefault(
                (record["dataset"], record["group"], record["patient_number"], lesion["index"]), len(identities)
            )
            what = patient.lesions[lesion["index"]]
            for z, x1, y1, x2, y2 in lesion["boxes"]:
                rows.append(
                    (
                        record["dataset"],
                        record["patient"],
                        record["study"],
                        record["series"],
                        record["volume"],
                        f"t{count:06d}",
                        identity,
                        what.type,
                        what.organ,
                        lesion["marked"],
                        int(z),
                        *np.round([x1 - padding, y1 - padding, x2 + padding, y2 + padding], 3),
                    )
                )
            count += 1
    return pd.DataFrame(
        rows,
        columns=[
            "dataset",
            "patient",
            "study",
            "series",
            "volume",
            "lesion",
            "identity",
            "type",
            "organ",
            "marked",
            "z",
            "x1",
            "y1",
            "x2",
            "y2",
        ],
    )


def _write_deeplesion(folder: Path, spec: Phantom, records: list[dict], patients: dict) -> None:
    """DL_info.csv: a row for each mark, and for a test volume without lesions one that is possibly noisy."""
    rows, known = [], ontology.read()
    for record in sorted(records, key=lambda record: (record["patient_number"], record["study_number"])):
        patient = patients[UNIVERSAL, record["group"], record["patient_number"]]
        lesions = {lesion["index"]: lesion for lesion in record["lesions"]}
        for index in record["marked"]:
            lesion, what = lesions[index], patient.lesions[index]
            row = _dl_row(spec, record, patient, lesion["key_slice"], np.array(lesion["diameters"]))
            row["Coarse_lesion_type"] = -1 if record["group"] == "train" else ontology.coarse_type(what, known)
            row["DICOM_windows"] = "-1500, 500" if what.type == "lung" else "-175, 275"
            rows.append(row)
        if record["group"] == "test" and not record["lesions"]:  # a mark that hit nothing, as DeepLesion flags its own
            z, x1, y1, x2, y2 = record["normal"]
            points = np.array([[x1, (y1 + y2) / 2], [x2, (y1 + y2) / 2], [(x1 + x2) / 2, y1], [(x1 + x2) / 2, y2]])
            row = _dl_row(spec, record, patient, int(z), points)
            rows.append(row | {"Coarse_lesion_type": 3, "Possibly_noisy": 1, "DICOM_windows": "-175, 275"})
    write_table(pd.DataFrame(rows, columns=list(DL_COLUMNS)), folder / "DL_info.csv")


def _dl_row(spec: Phantom, record: dict, patient: Patient, key: int, points: np.ndarray) -> dict:
    """A row of DL_info.csv from the diameters' four end points (0-based; the csv counts pixels from 1)."""
    pairs = [points[:2], points[2:]]
    lengths = [float(np.linalg.norm(p[1] - p[0])) for p in pairs]
    if lengths[0] < lengths[1]:
        pairs, lengths = pairs[::-1], lengths[::-1]
    ends = np.concatenate(pairs) + 1
    box = [*(ends.min(axis=0) - spec.box_padding_px), *(ends.max(axis=0) + spec.box_padding_px)]
    pixel, slice_mm = record["spacing"][0], record["spacing"][2]
    number = record["first_slice"] + key
    study = next(s for s in patient.studies if s.study == record["study_number"])
    top = study.z_low + (record["depth"] - 1) * study.slice_mm  # slices count from the head
    z = (HEAD_MM - (top - key * study.slice_mm)) / BODY_MM
    middle = (np.array(box[:2]) + box[2:]) / 2 / spec.pixels
    return {
        "File_name": f"{record['series']}_{number:03d}.png",
        "Patient_index": record["patient_number"],
        "Study_index": record["study_number"],
        "Series_ID": int(record["series"][-2:]),
        "Key_slice_index": number,
        "Measurement_coordinates": _cell(ends.ravel()),
        "Bounding_boxes": _cell(box),
        "Lesion_diameters_Pixel_": _cell(lengths),
        "Normalized_lesion_location": _cell([*middle, z]),
        "Possibly_noisy": 0,
        "Slice_range": f"{record['first_slice']}, {record['first_slice'] + record['depth'] - 1}",
        "Spacing_mm_px_": _cell([pixel, pixel, slice_mm]),
        "Image_size": f"{spec.pixels}, {spec.pixels}",
        "Patient_gender": patient.anatomy.gender,
        "Patient_age": patient.anatomy.age + int(study.months / 12 + 0.5),  # as if the birthday were half a year off
        "Train_Val_Test": 1 if record["group"] == "train" else 3,
    }


def _cell(values: np.ndarray | list) -> str:
    """Numbers as DL_info.csv has several of them in one cell."""
    return ", ".join(f"{v:.6g}" for v in values)


def _write_manual(file: Path, records: list[dict], truth: pd.DataFrame) -> None:
    """The complete 3D boxes of val and test in the published pickle's structure; z counts the files' slice numbers."""
    boxes = (
        truth[truth["dataset"] == UNIVERSAL]
        .groupby(["volume", "lesion"])
        .agg(
            x1=("x1", "min"),
            y1=("y1", "min"),
            z1=("z", "min"),
            x2=("x2", "max"),
            y2=("y2", "max"),
            z2=("z", "max"),
        )
        .round()
    )
    listed = {name: group.to_numpy(dtype=np.float64) for name, group in boxes.groupby("volume")}
    content: dict[str, dict] = {"val": {}, "test": {}}
    for record in records:
        if record["group"] in content:
            found = listed.get(record["volume"], np.zeros((0, 6)))
            content[record["group"]][record["volume"]] = found + np.array(
                [0, 0, record["first_slice"]] * 2, dtype=np.float64
            )
    with atomic_write(file) as path:
        path.write_bytes(pickle.dumps(content, protocol=4))


def _write_luna(folder: Path, records: list[dict]) -> None:
    """annotations.csv, annotations_excluded.csv (a normal structure of each scan) and seriesuids.csv, in LPS mm."""
    nodules, excluded = [], []
    for record in records:
        origin, step = np.array(record["origin"]), np.array(record["sign"]) * record["spacing"]
        for lesion in record["lesions"]:
            if lesion["marked"]:
                boxes = np.array(lesion["boxes"])
                size = np.max((boxes[:, 3] - boxes[:, 1]) + (boxes[:, 4] - boxes[:, 2])) / 2 * record["spacing"][0]
                nodules.append(
                    (record["series"], *np.round(origin + step * lesion["centre"], 6), round(float(size), 6))
                )
        z, x1, y1, x2, y2 = record["normal"]
        excluded.append((record["series"], *np.round(origin + step * ((x1 + x2) / 2, (y1 + y2) / 2, z), 6), -1.0))
    columns = ["seriesuid", "coordX", "coordY", "coordZ", "diameter_mm"]
    write_table(pd.DataFrame(nodules, columns=columns), folder / "CSVFILES" / "annotations.csv")
    write_table(pd.DataFrame(excluded, columns=columns), folder / "CSVFILES" / "annotations_excluded.csv")
    with atomic_write(folder / "CSVFILES" / "seriesuids.csv") as path:
        path.write_text("".join(f"{uid}\n" for uid in sorted(record["series"] for record in records)))


def _write_nihln(folder: Path, records: list[dict]) -> None:
    """The three text files of a case: index, place (mm) and sizes of each node, a line each."""
    for record in records:
        origin, spacing = np.array(record["origin"]), np.array(record["spacing"])
        indices, points, sizes = [], [], []
        for lesion in (lesion for lesion in record["lesions"] if lesion["marked"]):
            index = np.rint(lesion["centre"]).astype(int)
            ends = np.array(lesion["diameters"]) * spacing[0]
            short, long_ = sorted((np.linalg.norm(ends[1] - ends[0]), np.linalg.norm(ends[3] - ends[2])))
            indices.append("{} {} {}".format(*index))
            points.append(" ".join(f"{v:.6g}" for v in origin + spacing * index))
            sizes.append(f"{short:.2f} {long_:.2f}" if record["volume"].startswith("ABD") else f"{short:.1f}")
        for kind, lines in (("indices", indices), ("physicalPoints", points), ("sizes", sizes)):
            with atomic_write(
                folder / "MED_ABD_LYMPH_ANNOTATIONS" / record["volume"] / f"{record['volume']}_lymphnodes_{kind}.txt"
            ) as path:
                path.write_text("".join(f"{line}\n" for line in lines))


def _summary(
    records: list[dict], truth: pd.DataFrame, patients: dict[str, list[Patient]], marked: dict[str, list]
) -> dict:
    """Counts that tell what the benchmark is like; the recoverable share bounds what intra-patient mining finds."""
    summary = {group: marking.shares(patients[group], marked[group]) for group in ("train", "val", "test")}
    for group in ("train", "val", "test", "all"):
        for dataset in sorted({record["dataset"] for record in records if record["group"] == group}):
            own = [record for record in records if record["group"] == group and record["dataset"] == dataset]
            rows = truth[truth["volume"].isin([record["volume"] for record in own])].drop_duplicates("lesion")
            entry = summary.setdefault(group if group != "all" else dataset, {})
            entry |= {
                "volumes": len(own),
                "slices": sum(record["depth"] for record in own),
                "visible_lesions": len(rows),
                "empty_volumes": sum(not record["lesions"] for record in own),
                "types": rows["type"].value_counts().sort_index().to_dict(),
                "marked_types": rows[rows["marked"]]["type"].value_counts().sort_index().to_dict(),
            }
    return summary
