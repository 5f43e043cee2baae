"""Detecting lesions in one CT from anywhere: a table, a picture and 3D Slicer markups (`python -m lensnb detect`).

Positions are given twice: in voxels of the input file, as continuous indices (the centre of the first voxel is 0,
its edges -0.5 and 0.5; z counts the slices of the stack as read, for a DICOM folder along the slice normal), and
in patient millimetres, LPS: x grows to the patient's left, y to the back, z to the head.
"""

import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from lensnb.boxes import BOX, BOX3D, iou
from lensnb.ct import measure
from lensnb.ct.grid import Geometry, grid_to_mm, grid_to_original, mm_to_grid, normalise, transform
from lensnb.ct.read import read_ct
from lensnb.ct.volume import CT
from lensnb.detection import inference
from lensnb.files import all_or_none, read_json, write_json, write_table
from lensnb.lesanet.naming import check_lesanet, find_lesanet, name_lesions
from lensnb.models.build import load_lens
from lensnb.models.lens import LENS
from lensnb.own_ct import slicer
from lensnb.runfolder import CONFIG, DETECTED, Run
from lensnb.settings import Inference, from_dict
from lensnb.show import plots

PHANTOM_WARNING = "these weights know only computer-made phantoms; what they mark in a patient's CT means nothing"
SAME_BOX_IOU = 0.5  # an expert's 2D box that overlaps a detection this much is its opinion on it
TABLE, PICTURE, MARKUPS, ABOUT = DETECTED
IN_PICTURE = 12  # the best detections; the table has all
PICTURE_MM = 1.0  # pixels of the picture, where the network's grid is coarser
COLUMNS = {
    "lesion": "number in the picture and the markups, by falling score",
    "x1, y1, z1, x2, y2, z2": "edges of the box in voxels of the input, continuous indices (first voxel's centre is 0)",
    "first_slice, last_slice": "slices of the input (0-based along z) whose centres lie in the box",
    "x_mm, y_mm, z_mm": "centre of the box in patient millimetres, LPS",
    "x1_mm, y1_mm, z1_mm": "the corner (x1, y1, z1) in patient millimetres, LPS",
    "x2_mm, y2_mm, z2_mm": "the corner (x2, y2, z2) in patient millimetres, LPS",
    "long_mm, short_mm": "longer and shorter side of the box in the axial plane, an estimate of the lesion's axes; "
    "boxes learned from DeepLesion keep a margin of about 4 mm around a lesion on every side",
    "height_mm": "extent of the box along the body",
    "score": "best score of the fused experts",
}
LABELS = "what a trained LesaNet calls the lesion: labels over their thresholds with scores, the most specific ones"


@dataclass(frozen=True)
class Scan:
    """A CT on the network's grid and what was found in it.

    hu: (z, y, x) on the grid; geometry: its way back; lesions: one row per detection in grid coordinates, best
    first: x1, y1, z1, x2, y2, z2, z (slice of the best score), score, expert, each expert's own score, and labels if
    a LesaNet was there.
    """

    hu: np.ndarray
    geometry: Geometry
    lesions: pd.DataFrame


def default_weights() -> Path:
    """The best run of a full phantom run: four datasets with mined labels."""
    return Run("phantom").weights("multi-mined")


def default_lesanet() -> Path:
    """The LesaNet of a full phantom run, which goes with `default_weights`."""
    return Run("phantom").lesanet()


def load_weights(path: Path | str | None = None) -> tuple[LENS, dict]:
    """The network of a weights file and the config.json beside it; None takes `default_weights`.

    Raises FileNotFoundError saying how weights are made, ValueError if the configuration lacks what is needed.
    """
    if path is None:
        path = default_weights()
        if not path.exists():
            raise FileNotFoundError(
                f"there are no weights yet: {path} does not exist. `./run_all.sh --only table2` makes it (phantoms); "
                "or name weights of yours with --weights FILE (config.json must lie beside them)"
            )
    model = load_lens(path)
    config = read_json(Path(path).with_name(CONFIG))
    absent = [key for key in ("spacing_mm", "inference", "phantom") if key not in config]
    if absent:
        raise ValueError(f"{Path(path).with_name(CONFIG)} does not say {', '.join(absent)}; detection needs it")
    return model, config


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
    says into the folder `output`. FileNotFoundError or ValueError say what is wrong with the input or the weights.
    """
    output = Path(output)
    existing = next(path for path in (output, *output.absolute().parents) if path.exists())
    if not existing.is_dir():
        raise ValueError(f"--output {output}: {existing} is a file; name a folder")
    if not os.access(existing, os.W_OK):
        raise ValueError(f"--output {output}: {existing} may not be written to; name another folder")
    model, config = load_weights(weights)
    beside = Path(weights or default_weights()).with_name("lesanet")
    named = Path(lesanet) if lesanet else find_lesanet(beside, *([] if weights else [default_lesanet()]))
    if named:
        check_lesanet(named)
    ct = read_ct(input_path, series)
    scan = find_lesions(ct, model, config)
    origin = {"input": str(input_path), "weights": str(weights or default_weights())}
    if named:
        labels = name_lesions(named, scan.hu, scan.geometry.spacing_mm, scan.lesions)
        scan = replace(scan, lesions=scan.lesions.assign(labels=labels))
        origin["lesanet"] = str(named)
    return save(output, ct, scan, config, origin)


def save(output: Path, ct: CT, scan: Scan, config: dict, origin: dict) -> pd.DataFrame:
    """Write detections.csv (every detection, best first), overlay.png (the best ones on their slices),
    detections.mrk.json (for 3D Slicer) and about.json (`origin`, warnings, what the columns mean); return the table."""
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
    with all_or_none(output, DETECTED):
        write_table(table, output / TABLE)
        plots.save(overlay(ct, scan, warning), output / PICTURE)
        write_json(slicer.markups(table, sides_mm(scan), scan.geometry), output / MARKUPS)
        write_json(about, output / ABOUT)
    return table


def unlike_ct(ct: CT) -> list[str]:
    """A warning if the values do not look like HU: without air, or without anything denser than soft tissue."""
    low, high = int(ct.hu.min()), int(ct.hu.max())
    if low < -200 and high > 200:
        return []
    return [f"the values reach from {low} to {high}; a CT in HU reaches from about -1000 (air) to 1000 (bone)"]


def find_lesions(ct: CT, model: LENS, config: dict) -> Scan:
    """Bring a CT to the network's grid, detect with all experts, fuse, and stack to 3D (LENS Sec. IV-C)."""
    hu, geometry = normalise(ct, tuple(config["spacing_mm"]))
    settings = from_dict(Inference, config["inference"], "config.json: inference")
    proposals = inference.detect_volume(model, hu, settings).assign(volume="input")
    fused = inference.fuse(proposals, nms=settings.nms)
    lesions = inference.detections_3d(fused, settings).sort_values("score", ascending=False, kind="stable")
    lesions = lesions.drop(columns=["volume", "tracklet"]).reset_index(drop=True)
    return Scan(hu, geometry, lesions.join(expert_scores(lesions, proposals, model.experts)))


def expert_scores(lesions: pd.DataFrame, proposals: pd.DataFrame, experts: tuple[str, ...]) -> pd.DataFrame:
    """What each expert alone says of each 3D detection: columns score_<expert>.

    It is the best score of its 2D boxes on the detection's slices that overlap it with IoU >= 0.5, before fusion;
    0 if it has none, that is, nothing above the score limit of the inference.
    """
    expert = proposals["expert"].astype(str).to_numpy()
    z, score, boxes = (proposals[c].to_numpy(dtype=float) for c in ("z", "score", BOX))
    overlaps = iou(lesions[BOX].to_numpy(dtype=float), boxes)
    first, last = (lesions[c].to_numpy(dtype=float)[:, None] for c in ("z1", "z2"))
    same = (overlaps >= SAME_BOX_IOU) & (z >= first) & (z <= last)
    columns = {
        f"score_{name}": np.where(same & (expert == name), score, 0.0).max(axis=1, initial=0.0) for name in experts
    }
    return pd.DataFrame(columns, index=lesions.index)


def describe(scan: Scan) -> pd.DataFrame:
    """Detections in voxels of the input and in patient millimetres, one row each; see COLUMNS."""
    lesions, geometry = scan.lesions, scan.geometry
    box = lesions[BOX3D].to_numpy(dtype=float).reshape(-1, 2, 3)
    edges = box + [[0, 0, -0.5], [0, 0, 0.5]]  # z1 and z2 are slices inside, the box ends half a slice beyond
    corners = grid_to_original(edges, geometry).reshape(-1, 2, 3)
    size = np.array(geometry.original_shape[::-1], dtype=float)
    low = np.clip(corners.min(axis=1), -0.5, size - 0.5)
    high = np.clip(corners.max(axis=1), -0.5, size - 0.5)
    middle = np.rint((low[:, 2] + high[:, 2]) / 2)
    first, last = np.ceil(low[:, 2] - 1e-6), np.floor(high[:, 2] + 1e-6)
    first, last = (np.where(first <= last, slices, middle) for slices in (first, last))
    low, high = low.round(4), high.round(4)
    positions = {
        prefix: transform(geometry.original_to_mm, points).round(4)
        for prefix, points in (("", (low + high) / 2), ("1", low), ("2", high))
    }
    table = pd.DataFrame({"lesion": np.arange(1, len(lesions) + 1)})
    table[BOX3D] = np.hstack([low, high])
    table["first_slice"], table["last_slice"] = first.astype(int), last.astype(int)
    for prefix, points in positions.items():
        table[[f"{axis}{prefix}_mm" for axis in "xyz"]] = points
    axes = measure.from_boxes(lesions, geometry.spacing_mm, inclusive=False)
    table[["long_mm", "short_mm"]] = axes[["long_mm", "short_mm"]].round(2)
    table["height_mm"] = sides_mm(scan)[:, 2].round(2)
    scores = [column for column in lesions.columns if column.startswith("score")]
    labels = lesions[["labels"]] if "labels" in lesions else lesions[[]]
    return pd.concat([table, lesions[scores].astype(float).round(6), labels], axis=1)


def sides_mm(scan: Scan) -> np.ndarray:
    """Sides of the detected boxes in mm (n, 3) along the axes of the grid: to the left, to the back, to the head."""
    box = scan.lesions[BOX3D].to_numpy(dtype=float).reshape(-1, 2, 3)
    return (box[:, 1] - box[:, 0] + [0, 0, 1]) * scan.geometry.spacing_mm


def overlay(ct: CT, scan: Scan, warning: str = "") -> Figure:
    """The best detections on the slices of their best scores, numbered as in the table, coloured by expert.

    The CT is brought to finer pixels than the network's and the boxes get there through patient millimetres.
    """
    best = scan.lesions.head(IN_PICTURE)
    side = min(PICTURE_MM, *scan.geometry.spacing_mm[:2])
    hu, geometry = normalise(ct, (side, side, scan.geometry.spacing_mm[2]))
    corners = grid_to_mm(best[BOX3D].to_numpy(dtype=float).reshape(-1, 3), scan.geometry)
    boxes = mm_to_grid(corners, geometry).reshape(-1, 2, 3)
    shown = best.assign(x1=boxes[:, 0, 0], y1=boxes[:, 0, 1], x2=boxes[:, 1, 0], y2=boxes[:, 1, 1])
    panels = []
    for z in best["z"].drop_duplicates().astype(int):
        here = shown[(shown["z1"] <= z) & (shown["z2"] >= z)]
        z_mm = grid_to_mm([[scan.hu.shape[2] / 2, scan.hu.shape[1] / 2, z]], scan.geometry)[0, 2]
        title = f"z = {z_mm:.1f} mm"
        panels.append({"hu": hu[z], "boxes": here, "window": _window(hu[z], here), "title": title})
    if not panels:
        panels = [{"hu": hu[len(hu) // 2], "title": "nothing was found; the middle slice"}]
    figure = plots.slice_sheet(panels, columns=min(3, len(panels)), colour_by="expert")
    halo = withStroke(linewidth=1.6, foreground="black")
    for ax, panel in zip(figure.axes, panels, strict=False):
        for number, box in panel.get("boxes", shown[:0]).iterrows():
            label = {"color": plots.COLOURS[box["expert"]], "fontsize": 7, "va": "bottom", "path_effects": [halo]}
            ax.text(box["x1"], box["y1"] - 1, f"{number + 1}: {box['score']:.2f}", **label)
    if warning:
        figure.suptitle(f"Not for clinical use: {warning}", fontsize=7, color="#D55E00", wrap=True)
    return figure


def _window(image: np.ndarray, boxes: pd.DataFrame) -> str:
    """The lung's window if the surroundings of the first box are darker than -300 HU, else that for soft tissue."""
    x1, y1, x2, y2 = boxes[BOX].iloc[0].round().astype(int)
    around = image[max(0, y1 - 5) : y2 + 6, max(0, x1 - 5) : x2 + 6]
    return "lung" if -950 < np.median(around) < -300 else "soft tissue"  # below is air outside the body


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
