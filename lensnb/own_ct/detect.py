"""Detecting lesions in one CT from anywhere: a table, a picture and 3D Slicer markups (`python -m lensnb detect`).

What can be wrong is looked for before the network begins: output, weights, LesaNet, input, and where its voxels lie.
"""

import os
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd

from lensnb.ct.grid import normalise, transform
from lensnb.ct.read import read_ct
from lensnb.ct.volume import CT
from lensnb.detection import fusion, inference
from lensnb.files import all_or_none, check_output, read_json, write_json, write_table
from lensnb.files.cells import for_spreadsheet
from lensnb.lesanet.naming import find_lesanet, load_namer, name_lesions
from lensnb.models.build import weights_file
from lensnb.models.lens import LENS
from lensnb.own_ct import second_opinion, slicer
from lensnb.own_ct.picture import overlay
from lensnb.own_ct.scan import COLUMNS, LABELS, Scan, describe, expert_scores, sides_mm
from lensnb.own_ct.trained import check_written, default_lesanet, default_weights, inference_of, load_weights
from lensnb.runfolder import DETECTED
from lensnb.show import plots

PHANTOM_WARNING = "these weights know only computer-made phantoms; what they mark in a patient's CT means nothing"
TABLE, PICTURE, MARKUPS, ABOUT = DETECTED


def detect(
    input_path: Path | str,
    output: Path | str,
    weights: Path | str | None = None,
    series: str | None = None,
    lesanet: Path | str | None = None,
) -> pd.DataFrame:
    """Detect lesions in a DICOM folder, NIfTI, MetaImage or NRRD file of any orientation; return the table.

    `series` chooses by SeriesInstanceUID in a DICOM folder of several. `lesanet` is the folder of a trained LesaNet,
    which adds the column `labels`; without it, a folder `lesanet` beside the weights is looked for. Writes what `save`
    says into the folder `output`. FileNotFoundError or ValueError say what is wrong with the output, the weights, the
    input, or its places in the patient (see second_opinion.py), FloatingPointError that a network's numbers are not
    finite; nothing is written then.

    Memory: that of `inference.detect_volume`, and 1.2 MB a slice of 512 x 512: two or three times the CT as int16
    (0.5 MB each), and the boxes. With the full-size network 3.3 GB for 30 slices and 3.8 GB for 450, all in all.
    """
    output = Path(output)
    _check_place(Path(input_path), output)
    model, config = load_weights(weights)
    beside = weights_file(weights or default_weights()).with_name("lesanet")
    named = Path(lesanet) if lesanet else find_lesanet(beside, *([] if weights else [default_lesanet()]))
    if named:
        check_written(weights_file(named))
    namer = load_namer(named) if named else None
    ct = read_ct(input_path, series)
    opinion = second_opinion.ask(input_path, ct, series)
    points = second_opinion.corners(ct)
    opinion.compare(input_path, points, transform(ct.index_to_mm, points))
    scan = find_lesions(ct, model, config)
    origin = {"input": str(input_path), "weights": str(weights or default_weights())}
    if namer:
        labels = name_lesions(namer, scan.hu, scan.geometry.spacing_mm, scan.lesions)
        scan = replace(scan, lesions=scan.lesions.assign(labels=labels))
        origin["lesanet"] = str(named)
    return save(output, ct, scan, config, origin, opinion)


def _check_place(input_path: Path, output: Path) -> None:
    """ValueError if the files of DETECTED can not be written into `output`, or would become part of the input."""
    for name in DETECTED:
        check_output(output / name, "--output")
    if input_path.is_dir() and output.resolve().is_relative_to(input_path.resolve()):
        raise ValueError(
            f"--output {output} lies in the input {input_path}, where its files would be read as if they were the "
            "CT's; name another folder"
        )


def save(
    output: Path,
    ct: CT,
    scan: Scan,
    config: dict,
    origin: dict,
    opinion: second_opinion.Opinion | None = None,
) -> pd.DataFrame:
    """Write detections.csv (every detection, best first), overlay.png (the best ones on their slices),
    detections.mrk.json (for 3D Slicer) and about.json (`origin`, warnings, what the columns mean); return the table.

    The centres are compared with SimpleITK's `opinion` before, if there is one; see `Opinion.compare`.
    """
    table = describe(scan)
    warning = PHANTOM_WARNING if config["phantom"] else ""
    columns = COLUMNS | ({"labels": LABELS} if "labels" in table else {})
    experts = [column.removeprefix("score_") for column in table.columns if column.startswith("score_")]
    about = {
        **origin,
        "experiment": config.get("experiment"),
        "profile": config.get("profile"),
        "warnings": [*ct.notes, *unlike_ct(ct), *filter(None, [warning])],
        "detections": len(table),
        "score_at_least": config["inference"]["score"],
        "columns": columns | {f"score_{name}": f"best score of expert {name} for this lesion" for name in experts},
    }
    if opinion:
        about["warnings"] += opinion.warning
        if not opinion.warning:
            points = [second_opinion.corners(ct), _middles(table)]
            ours = [transform(ct.index_to_mm, points[0]), table[slicer.POSITION].to_numpy(dtype=float)]
            off = opinion.compare(origin["input"], np.vstack(points), np.vstack(ours))
            about["simpleitk_differs_by_mm"] = round(off, 4)
    with all_or_none(output, DETECTED):
        write_table(for_spreadsheet(table), output / TABLE)  # labels are what a file of the network's calls them
        plots.save(overlay(ct, scan, warning), output / PICTURE)
        write_json(slicer.markups(table, sides_mm(scan), scan.geometry), output / MARKUPS)
        write_json(about, output / ABOUT)
    return table


def _middles(table: pd.DataFrame) -> np.ndarray:
    """The centres of the boxes in voxels of the input (n, 3)."""
    low, high = (table[[f"{axis}{end}" for axis in "xyz"]].to_numpy(dtype=float) for end in "12")
    return (low + high) / 2


def unlike_ct(ct: CT) -> list[str]:
    """A warning if the values do not look like HU: without air, or without anything denser than soft tissue."""
    low, high = int(ct.hu.min()), int(ct.hu.max())
    if low < -200 and high > 200:
        return []
    return [f"the values reach from {low} to {high}; a CT in HU reaches from about -1000 (air) to 1000 (bone)"]


def find_lesions(ct: CT, model: LENS, config: dict) -> Scan:
    """Bring a CT to the network's grid, detect with all experts, fuse, and stack to 3D (LENS Sec. IV-C)."""
    hu, geometry = normalise(ct, tuple(config["spacing_mm"]))
    settings = inference_of(config)
    proposals = inference.detect_volume(model, hu, settings).assign(volume="input")
    fused = fusion.fuse(proposals, nms=settings.nms)
    lesions = fusion.detections_3d(fused, settings).sort_values("score", ascending=False, kind="stable")
    lesions = lesions.drop(columns=["volume", "tracklet"]).reset_index(drop=True)
    return Scan(hu, geometry, lesions.join(expert_scores(lesions, proposals, model.experts)))


def command(input_path: Path, output: Path, weights: Path | None, series: str | None, lesanet: Path | None) -> str:
    """The command `detect`: how many detections there are, and the best ones as a table; warnings go to stderr."""
    if "MPLBACKEND" not in os.environ:
        matplotlib.use("Agg")  # no window is opened, so none must be possible
    table = detect(input_path, output, weights, series, lesanet)
    about = read_json(output / ABOUT)
    for warning in about["warnings"]:
        sys.stderr.write(f"lensnb: warning: {warning}\n")
    if not len(table):
        return f"nothing was found with a score of {about['score_at_least']:g} or more; see {output}"
    sure = int((table["score"] >= 0.5).sum())
    columns = ["lesion", "x_mm", "y_mm", "z_mm", "long_mm", "short_mm", "score"]
    best = table[columns].head(10).to_string(index=False, float_format=lambda value: f"{value:.2f}")
    return f"{len(table)} detections, {sure} scored 0.5 or more, in {output / TABLE}; the best:\n{best}"
