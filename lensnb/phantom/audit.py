"""Phantoms beside the real datasets: the same statistics, measured on the same files of both.

`python -m lensnb phantom audit` puts the phantoms of a profile beside published.csv, which holds what `measure` finds
in the published tables (and for LiTS, whose scans it would have to read, what LENS Table I says). The tolerances there
are fixed: a factor of 1.25 for lengths and counts, .05 for shares. Where the phantoms differ on purpose, or because
their grid cannot show what the real one does, its column `known` says why.
"""

import itertools
from pathlib import Path

import numpy as np
import pandas as pd

from lensnb.datasets import UNIVERSAL, deeplesion, lits, luna16, nih_ln
from lensnb.datasets.dl_info import read_info
from lensnb.datasets.manual_boxes import MANUAL_FILE
from lensnb.files import check_output, write_table
from lensnb.files.cells import numbers, read_cells, read_csv
from lensnb.runfolder import Run

PUBLISHED = Path(__file__).with_name("published.csv")  # statistic, published, kind, tolerance, source, known
COLUMNS = ["statistic", "published", "phantom", "tolerance", "verdict", "source", "known"]
COARSE_TYPES = {1: "bone", 2: "abdomen", 3: "mediastinum", 4: "liver", 5: "lung", 6: "kidney", 7: "soft tissue",
                8: "pelvis"}  # fmt: skip
TENTHS = (0.1, 0.5, 0.9)
SHORT_NODE_MM = 10.0  # RECIST 1.1 calls a shorter node normal
FEWEST = 10  # lesions of a type of which percentiles are told
SAME_PLACE = 0.03  # marks of one lesion in two studies: difference of Normalized_lesion_location in each of its axes
ELSEWHERE = 0.08  # of the body's length, 9 cm: more than a sub-volume of DeepLesion covers (8 cm in the median)
GROWN, SHRUNK = 1.2, 0.7  # of the long diameter: progression and partial response of RECIST 1.1
YEARS = 3  # two studies further apart, or in the wrong order, are a mistake in the table
CHEST, ABDOMEN = {3, 5}, {2, 4, 6}  # coarse types

Found = dict[str, float]


def measure(raw: Path) -> Found:
    """Every statistic that the files of a folder of datasets allow, by name; lengths in mm, shares from 0 to 1."""
    found: Found = {}
    if (raw / UNIVERSAL / "DL_info.csv").exists():
        found |= bookmarks(raw / UNIVERSAL / "DL_info.csv")
        if (raw / MANUAL_FILE).exists():
            found |= missing_labels(raw)
    if luna16.csv_file(raw / luna16.NAME, "annotations.csv").exists():
        found |= nodules(raw / luna16.NAME)
    if (raw / lits.NAME).is_dir():
        found |= tumours(raw)
    if (raw / nih_ln.NAME).is_dir():
        found |= nodes(raw / nih_ln.NAME)
    return found


def bookmarks(path: Path) -> Found:
    """Sizes, slices, studies and types of DeepLesion's marks, from DL_info.csv."""
    info, cells = read_info(path), read_cells(path)
    diameters = [[float(number) for number in cell.split(",")] for cell in cells["Lesion_diameters_Pixel_"]]
    long_mm, short_mm = (np.array(diameters) * info[["spacing_x"]].to_numpy()).T
    found = _tenths("DeepLesion long diameter", long_mm)
    found["DeepLesion short diameter under 10 mm, share"] = float((short_mm < SHORT_NODE_MM).mean())
    found["DeepLesion short over long diameter, median"] = float(np.median(short_mm / long_mm))
    types = numbers(cells["Coarse_lesion_type"])[0]  # the published table tells it outside of the training part
    for number, name in COARSE_TYPES.items():
        own = types == number
        found[f"DeepLesion {name}, share of the marks with a type"] = float(own.sum() / max(1, (types > 0).sum()))
        if own.sum() >= FEWEST:
            found |= _tenths(f"DeepLesion {name} long diameter", long_mm[own])
    found["DeepLesion marks on slices of at most 1.25 mm, share"] = float((info["spacing_z"] <= 1.25).mean())
    found["DeepLesion marks on slices of at least 4.5 mm, share"] = float((info["spacing_z"] >= 4.5).mean())
    names = pd.DataFrame(
        [deeplesion.series_names(series)[:2] for series in info["series"]], columns=["patient", "study"]
    )
    studies = names.drop_duplicates().groupby("patient").size()
    found["DeepLesion studies a patient"] = float(studies.mean())
    found["DeepLesion patients with one study, share"] = float((studies == 1).mean())
    marks = info.groupby(["series", "start", "end"]).size()
    found["DeepLesion marks a sub-volume"] = float(marks.mean())
    return found | _follow_ups(names.assign(mm=long_mm, type=types, age=numbers(cells["Patient_age"])[0]), cells)


def _follow_ups(marks: pd.DataFrame, cells: pd.DataFrame) -> Found:
    """From one study of a patient to the next: time, and marks of one type in the same place.

    marks: patient, study, mm (long diameter), type (nan where unknown) and age of each row of the table.
    """
    places = [[float(number) for number in cell.split(",")] for cell in cells["Normalized_lesion_location"]]
    marks = marks.assign(type=marks["type"].fillna(-1), row=np.arange(len(marks)))
    places, ages, far, pairs, earlier = np.array(places), [], [], [], 0
    for _, patient in marks.groupby("patient"):
        studies = [study for _, study in patient.groupby("study")]
        for before, after in itertools.pairwise(studies):
            ages.append(after["age"].iloc[0] - before["age"].iloc[0])
            z = [places[study["row"], 2] for study in (studies[0], after)]
            far.append(np.abs(z[0][:, None] - z[1]).min())
            apart = np.abs(places[before["row"]][:, None] - places[after["row"]]).max(axis=2)
            apart[before["type"].to_numpy()[:, None] != after["type"].to_numpy()] = np.inf
            nearest, back = apart.argmin(axis=1), apart.argmin(axis=0)
            earlier += len(before)
            pairs += [
                after["mm"].iloc[j] / before["mm"].iloc[i]
                for i, j in enumerate(nearest)
                if apart[i, j] < SAME_PLACE and back[j] == i
            ]
    if len(pairs) < FEWEST:
        return {}
    ages, factor = np.array(ages), np.array(pairs)
    return {
        "DeepLesion months from study to study": 12 * float(ages[(ages >= 0) & (ages <= YEARS)].mean()),
        "DeepLesion follow-ups of another region, share": float((np.array(far) > ELSEWHERE).mean()),
        "DeepLesion marks that the next study repeats, share": len(factor) / earlier,
        "DeepLesion repeated marks grown by 20 %, share": float((factor >= GROWN).mean()),
        "DeepLesion repeated marks shrunk by 30 %, share": float((factor <= SHRUNK).mean()),
    }


def missing_labels(raw: Path) -> Found:
    """How labels are missing: DeepLesion's own marks among the lesions of the completely marked sub-volumes.

    A lesion is marked if the centre of a mark of its sub-volume lies in its 3D box.
    """
    table, lesions = raw / UNIVERSAL / "DL_info.csv", []
    info = read_info(table).assign(type=numbers(read_cells(table)["Coarse_lesion_type"])[0])
    own = dict(tuple(info.groupby(["series", "start", "end"])))
    counts = []
    for volumes in deeplesion.read_manual(raw).values():
        for volume, boxes in volumes.items():
            series, _, slices = volume.rpartition("_")
            marks = own.get((series, *map(int, slices.split("-"))))
            counts.append(len(boxes))
            if marks is None:  # a part of the table
                continue
            x, y = (marks["x1"] + marks["x2"]).to_numpy() / 2, (marks["y1"] + marks["y2"]).to_numpy() / 2
            for x1, y1, z1, x2, y2, z2 in boxes:
                inside = (x1 <= x) & (x <= x2) & (y1 <= y) & (y <= y2)
                inside &= (z1 <= marks["key"].to_numpy()) & (marks["key"].to_numpy() <= z2)
                side_mm = max(x2 - x1, y2 - y1) * marks["spacing_x"].iloc[0]
                lesions.append((side_mm, inside.any(), set(marks["type"]) <= CHEST, set(marks["type"]) <= ABDOMEN))
    side_mm, marked, chest, abdomen = np.array(lesions, dtype=float).T
    small, large = np.quantile(side_mm, (1 / 3, 2 / 3))
    return {
        "all lesions of a sub-volume": float(np.mean(counts)),
        "sub-volumes without a lesion, share": float(np.mean(np.array(counts) == 0)),
        "marked, share of all lesions": float(marked.mean()),
        "marked, share of the smallest third": float(marked[side_mm <= small].mean()),
        "marked, share of the middle third": float(marked[(side_mm > small) & (side_mm <= large)].mean()),
        "marked, share of the largest third": float(marked[side_mm > large].mean()),
        "marked, share where all marks are in the chest": _share(marked[chest == 1]),
        "marked, share where all marks are in the abdomen": _share(marked[abdomen == 1]),
    } | _tenths("all lesions, box side", side_mm)


def _share(marked: np.ndarray) -> float:
    """Of some lesions those that are marked; NaN where there are none."""
    return float(marked.mean()) if len(marked) else np.nan


def nodules(folder: Path) -> Found:
    """LUNA16's nodules."""
    found = luna16.read_annotations(luna16.csv_file(folder, "annotations.csv"))
    scans = luna16.read_seriesuids(luna16.csv_file(folder, "seriesuids.csv"))
    return _tenths("LUNA16 diameter", found["diameter_mm"].to_numpy()) | {
        "LUNA16 nodules a scan": len(found) / len(scans),
        "LUNA16 scans without a nodule, share": 1 - found["seriesuid"].nunique() / len(scans),
    }


def tumours(raw: Path) -> Found:
    """LiTS's tumours: connected components of its masks."""
    found = lits.find(raw)
    usable = found[found["problem"] == ""]
    each = [lits.read(raw, row)[1]["lesion"].nunique() for _, row in usable.iterrows()]
    if not each:
        return {}
    return {
        "LiTS tumours a scan": float(np.mean(each)),
        "LiTS scans without a tumour, share": float(np.mean(np.array(each) == 0)),
    }


def nodes(folder: Path) -> Found:
    """NIH-LN's nodes, from their texts."""
    cases = sorted(path.name for path in (folder / nih_ln.ANNOTATIONS).iterdir() if path.is_dir())
    each = [table for case in cases if (table := nih_ln.read_nodes(folder, case)) is not None]
    short_mm = pd.concat(each)["short_mm"].dropna().to_numpy()
    return _tenths("NIH-LN short diameter", short_mm) | {
        "NIH-LN nodes a case": float(np.mean([len(table) for table in each]))
    }


def _tenths(name: str, values_mm: np.ndarray) -> Found:
    """The 10th, 50th and 90th percentile."""
    return {f"{name}, p{share * 100:.0f}": float(np.quantile(values_mm, share)) for share in TENTHS}


def compare(found: Found) -> pd.DataFrame:
    """Measured phantoms beside the published numbers: COLUMNS, a line for each published statistic.

    verdict: "agrees" within the tolerance, "differs", or "not measured". known: why it differs, where that is known.
    """
    table = read_csv(PUBLISHED).fillna({"known": ""})
    table["phantom"] = [found.get(name, np.nan) for name in table["statistic"]]
    share = table["kind"] == "share"
    apart = (table["phantom"] - table["published"]).abs()
    factor = np.maximum(table["phantom"] / table["published"], table["published"] / table["phantom"])
    agrees = np.where(share, apart <= table["tolerance"], factor <= table["tolerance"])
    table["verdict"] = np.select([table["phantom"].isna(), agrees], ["not measured", "agrees"], "differs")
    return table[COLUMNS]


def command(action: str, profile: str, seed: int, csv: Path | None) -> str:
    """The command `phantom audit`: return the table as text, and write it where `csv` says."""
    run = Run(profile, seed)
    if not (run.raw / UNIVERSAL).is_dir():
        raise FileNotFoundError(f"there are no phantoms in {run.raw}; `python -m lensnb prepare` makes them")
    if csv:
        check_output(csv, "--csv", [".csv"])
    table = compare(measure(run.raw))
    if csv:
        write_table(table, csv)
    agrees, differs = (table["verdict"] == verdict for verdict in ("agrees", "differs"))
    shown = table.drop(columns=["source", "tolerance"]).assign(known=table["known"].where(differs, ""))
    lines = shown.round(3).to_string(index=False)
    named = (differs & (table["known"] != "")).sum()
    counts = f"{agrees.sum()} of {len(table)} statistics agree; {named} of {differs.sum()} differ for a known reason"
    return f"{lines}\n{counts}"
