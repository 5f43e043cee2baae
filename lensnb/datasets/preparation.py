"""From the raw files of the datasets to one store of normalised volumes and one table of boxes.

Each volume is written by itself, with a record beside it; the tables are assembled from the records at the
end. Whatever interrupts the work, the next start goes on with the volumes that have no record yet.
"""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd

from lensnb.boxes import BOX, BOX3D, COLUMNS
from lensnb.ct.grid import boxes3d_to_grid
from lensnb.ct.grid_boxes import GRID_BOXES, clip_to_image, slice_boxes_to_grid
from lensnb.datasets import DATASETS, NAMES, UNIVERSAL, deeplesion
from lensnb.datasets.readers import READERS
from lensnb.datasets.shapes import NUMBERS, NUMBERS_FILE, RECIST, RECIST_FILE
from lensnb.datasets.store import geometry_of
from lensnb.datasets.store_writing import Task, settings, write_volumes
from lensnb.files import read_table, write_json, write_table
from lensnb.streams import Stream, generator

KEYS = ["dataset", "patient", "study", "series"]
VOLUME_COLUMNS = [*KEYS, "volume", "split", "depth", "height", "width", "spacing_x_mm", "spacing_y_mm",
                  "spacing_z_mm", "first_slice", "grid_to_original", "original_to_mm", "original_shape", "file",
                  "content", "scope", "note"]  # fmt: skip
TRUTH_COLUMNS = [*COLUMNS, "identity", "type", "organ", "marked"]


def prepare(
    raw_root: Path | str,
    out: Path | str,
    spacing_mm: tuple[float, float, float],
    seed: int = 0,
    workers: int = 0,
    box_padding_mm: float = 0.0,
    datasets: tuple[str, ...] = NAMES,
) -> dict:
    """Prepare all volumes of the datasets below `raw_root` into the store `out`, and return its report.

    Writes volumes.csv, boxes.csv, manual.csv, truth.csv (phantoms only), recist.csv, masks.csv, report.json
    and store/.
    `spacing_mm`: grid (x, y, z). `seed`: draws the 80/20 split by patient of the single-type datasets.
    `box_padding_mm`: margin added in plane to boxes that come from masks and spheres, which have none of
    their own. Resumable; the result does not depend on `workers`. Volumes that can not be used are counted,
    with the reason, in the report. Raises FileNotFoundError if a dataset's folder is missing; name the
    present ones in `datasets` to do without.
    """
    raw_root, out = Path(raw_root), Path(out)
    found = find_all(raw_root, datasets, seed)
    usable = found[found["problem"] == ""]
    tasks = [Task(raw_root, out, row, spacing_mm, box_padding_mm) for row in usable.to_dict("records")]
    records = write_volumes(tasks, out, workers)
    problems = dict(zip(found["volume"], found["problem"], strict=True)) | {r["volume"]: r["problem"] for r in records}
    records = {record["volume"]: record for record in records if not record["problem"]}
    found = found.assign(problem=found["volume"].map(problems))
    volumes = pd.DataFrame(
        [_volume_row(row, records[row["volume"]]) for _, row in found.iterrows() if row["volume"] in records]
    )
    volumes = volumes.reindex(columns=VOLUME_COLUMNS)
    if volumes.empty:
        reason = found["problem"].iloc[0]
        raise ValueError(f"none of the {len(found)} volumes below {raw_root} can be used; the first: {reason}")
    boxes = _box_table(volumes, records)
    manual, manual_lost = _with_keys([], volumes, "truth")[COLUMNS], {}
    if UNIVERSAL in datasets:
        manual, manual_lost = manual_boxes(raw_root, volumes)
    truth = truth_boxes(raw_root / "truth" / "lesions.csv", volumes)
    write_table(volumes, out / "volumes.csv")
    write_table(boxes, out / "boxes.csv")
    write_table(manual, out / "manual.csv")
    write_table(_recist_table(volumes, records), out / RECIST_FILE)
    write_table(_number_table(volumes, records), out / NUMBERS_FILE)
    if truth is not None:
        write_table(truth, out / "truth.csv")
    made_with = settings(spacing_mm, box_padding_mm) | {"seed": seed}
    report = _report(found, volumes, boxes, manual, truth, manual_lost, made_with)
    write_json(report, out / "report.json")
    return report


def find_all(raw_root: Path, datasets: tuple[str, ...], seed: int) -> pd.DataFrame:
    """The volumes of the named datasets, in expert order, with their splits. Raises if a folder is missing."""
    unknown = sorted(set(datasets) - set(READERS))
    if unknown:
        raise ValueError(f"no dataset {', '.join(unknown)}; there are {', '.join(NAMES)}")
    parts = []
    for name, dataset in DATASETS.items():
        if name not in datasets:
            continue
        if not (raw_root / name).is_dir():
            raise FileNotFoundError(
                f"{raw_root / name} does not exist; {name} comes from {dataset.source}. "
                "To work without it, name the others in `datasets`"
            )
        part = READERS[name].find(raw_root)
        if not dataset.own_split:
            part["split"] = split_by_patient(part["patient"], generator(seed, Stream.SPLIT, NAMES.index(name)))
        parts.append(part.sort_values("volume"))
    found = pd.concat(parts, ignore_index=True)
    twice = found.loc[found["volume"].duplicated(), "volume"]
    if len(twice):
        raise ValueError(f"{raw_root}: two volumes have the name {twice.iloc[0]}")
    return found


def split_by_patient(patients: pd.Series, rng: np.random.Generator, validation: float = 0.2) -> list[str]:
    """train or val for every row; all volumes of a patient fall on one side (LENS Sec. VI-A: 80 % and 20 %)."""
    names = np.array(sorted(set(patients)))
    chosen = set(names[rng.permutation(len(names))[: round(validation * len(names))]])
    return ["val" if patient in chosen else "train" for patient in patients]


def _volume_row(row: pd.Series, record: dict) -> dict:
    spacing = record["recipe"]["spacing_mm"]
    values = {name: row[name] for name in (*KEYS, "volume", "split", "scope")}
    values |= dict(zip(("depth", "height", "width"), record["shape"], strict=True))
    values |= dict(zip(("spacing_x_mm", "spacing_y_mm", "spacing_z_mm"), spacing, strict=True))
    values |= {name: json.dumps(record[name]) for name in ("grid_to_original", "original_to_mm", "original_shape")}
    values["first_slice"] = record["first_slice"]
    values["file"] = f"store/{row['dataset']}/{row['volume']}.npy"
    values["content"] = record["array"]["checksum"][:16]
    values["note"] = "; ".join(record["notes"])
    return values


def _box_table(volumes: pd.DataFrame, records: dict[str, dict]) -> pd.DataFrame:
    parts = [(name, pd.DataFrame(records[name]["boxes"], columns=GRID_BOXES)) for name in volumes["volume"]]
    return _with_keys(parts, volumes, "annotated")[COLUMNS]


def _recist_table(volumes: pd.DataFrame, records: dict[str, dict]) -> pd.DataFrame:
    """The RECIST diameters of all volumes, with the columns RECIST."""
    pairs = zip(volumes["dataset"], volumes["volume"], strict=True)
    rows = [[dataset, name, *ends] for dataset, name in pairs for ends in records[name]["diameters"]]
    return pd.DataFrame(rows, columns=RECIST)


def _number_table(volumes: pd.DataFrame, records: dict[str, dict]) -> pd.DataFrame:
    """Which number is which lesion in the masks, with the columns NUMBERS."""
    rows = []
    for dataset, name in zip(volumes["dataset"], volumes["volume"], strict=True):
        for number, lesion in enumerate(records[name]["numbered"], start=1):
            rows.append([dataset, name, number, lesion, records[name]["mask"]["checksum"][:16]])
    return pd.DataFrame(rows, columns=NUMBERS)


def _with_keys(parts: list[tuple[str, pd.DataFrame]], volumes: pd.DataFrame, source: str) -> pd.DataFrame:
    """Join tables of boxes (volume, boxes) and fill the columns of the schema that say where a box belongs."""
    parts = [(volume, part) for volume, part in parts if len(part)]
    if not parts:
        return pd.DataFrame(columns=TRUTH_COLUMNS)
    table = pd.concat([part for _, part in parts], ignore_index=True)
    table["volume"] = np.repeat([volume for volume, _ in parts], [len(part) for _, part in parts])
    table = table.merge(volumes[[*KEYS, "volume"]], on="volume", how="left", validate="many_to_one")
    return table.assign(source=source, expert=table["dataset"], score=np.nan).astype({"z1": float, "z2": float})


def manual_boxes(raw_root: Path, volumes: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, int]]:
    """The manual 3D boxes on the grid, and how many belong to volumes that are not prepared, by split.

    Their z are absolute slice numbers; x and y are taken as 0-based, as their authors' code does.
    """
    prepared = {row["volume"]: row for row in volumes.to_dict("records")}
    parts, lost = [], Counter()
    for split, manual in deeplesion.read_manual(raw_root).items():
        for name in sorted(manual):
            if name in prepared:
                table = pd.DataFrame(boxes3d_to_grid(manual[name], geometry_of(prepared[name])), columns=BOX3D)
                table.insert(0, "lesion", [f"{name}-m{i:02d}" for i in range(len(table))])
                parts.append((name, table.assign(z=np.nan)))
            elif len(manual[name]):
                lost[split] += len(manual[name])
    return _with_keys(parts, volumes, "truth")[COLUMNS], dict(lost)


def truth_boxes(path: Path, volumes: pd.DataFrame) -> pd.DataFrame | None:
    """A phantom's hidden truth on the grid, one row per lesion and grid slice; None for real data."""
    if not path.exists():
        return None
    lesions = read_table(path)
    prepared = {row["volume"]: row for row in volumes.to_dict("records")}
    parts = []
    for name, rows in lesions.groupby("volume", sort=True):
        if name in prepared:
            row = prepared[name]
            boxes = rows[["lesion", *BOX]].assign(z=rows["z"] - _cut_slices(row))
            boxes = slice_boxes_to_grid(boxes, geometry_of(row), row["depth"])
            parts.append((name, clip_to_image(boxes, row["height"], row["width"])[0]))
    attributes = lesions.drop_duplicates("lesion")[["lesion", "identity", "type", "organ", "marked"]]
    truth = _with_keys(parts, volumes, "truth")
    return truth.drop(columns=TRUTH_COLUMNS[-4:], errors="ignore").merge(attributes, on="lesion", how="left")[
        TRUTH_COLUMNS
    ]


def _cut_slices(row: dict) -> int:
    """How many unusable slices a volume lost at its start; the truth counts from the start that its name tells."""
    if not DATASETS[row["dataset"]].numbered_slices:
        return 0
    return row["first_slice"] - int(row["volume"].rsplit("_", 1)[1].split("-")[0])


def _report(found, volumes, boxes, manual, truth, manual_lost, settings) -> dict:
    """Counts of what was found, prepared and left out, by dataset and reason."""
    report = {"settings": settings, "datasets": {}}
    for name, part in found.groupby("dataset", sort=False):
        ours, labels = volumes[volumes["dataset"] == name], boxes[boxes["dataset"] == name]
        skipped = part[part["problem"] != ""]
        notes = [note for notes in ours["note"] if notes for note in notes.split("; ")]
        report["datasets"][name] = {
            "found": len(part),
            "prepared": len(ours),
            "skipped": len(skipped),
            "reasons": _count(skipped["problem"]),
            "splits": ours["split"].value_counts().sort_index().to_dict(),
            "patients": int(ours["patient"].nunique()),
            "lesions": int(labels["lesion"].nunique()),
            "boxes": len(labels),
            "notes": _count(notes),
            "skipped_volumes": dict(zip(skipped["volume"], skipped["problem"], strict=True)),
        }
    report["manual"] = {"boxes": len(manual), "boxes_of_absent_volumes": manual_lost}
    if not any(volumes["split"] == "test"):
        report["manual"]["note"] = f"no volume of the manual test set; it comes from {deeplesion.MANUAL_SOURCE}"
    report["truth_lesions"] = None if truth is None else int(truth["lesion"].nunique())
    return report


def _count(texts) -> dict[str, int]:
    """How often each kind occurs; a text is `kind: detail`."""
    return dict(sorted(Counter(text.split(":")[0] for text in texts).items()))
