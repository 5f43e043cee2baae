"""Which slices to show, and how the boxes on them are judged."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from lensnb.boxes import BOX, BOX3D, boxes_on_slice, iobb
from lensnb.datasets.store import Store
from lensnb.files import files_below
from lensnb.show.plots import BOTH, ELSEWHERE, crop

LUNG_HU = -300  # darker than this is lung, or air


def panel(store: Store, volume: str, z: int, boxes: pd.DataFrame, title: str | None = None) -> dict:
    """What `plots.draw_slice` needs to draw slice z of a volume with those of `boxes` that lie on it.

    The window is the lung's, that for soft tissue or that for both, as the boxes lie.
    """
    hu = np.asarray(store.hu(volume)[z])
    here = boxes_on_slice(boxes[boxes["volume"].astype(str) == volume], z)
    title = f"{store.volumes.at[volume, 'dataset']}, slice {z}\n{volume[-20:]}" if title is None else title
    return {"hu": hu, "boxes": here, "window": window_for(hu, here), "title": title}


def raw_truth(raw: Path) -> pd.DataFrame | None:
    """The phantoms' hidden truth in original pixels, a row per lesion and slice, with z1, z2; None for real data."""
    file = raw / "truth" / "lesions.csv"
    if not file.exists():
        return None
    truth = pd.read_csv(file, dtype={"patient": str, "study": str, "series": str, "volume": str, "lesion": str})
    extent = truth.groupby(["volume", "lesion"])["z"]
    return truth.assign(z1=extent.transform("min"), z2=extent.transform("max"))


def raw_examples(raw: Path, reader, rows: pd.DataFrame, truth: pd.DataFrame | None, number: int) -> list[dict]:
    """Panels of labelled slices as they lie in the files, those first that have most lesions without a label.

    reader: a module of `lensnb.datasets`; rows: volumes that it found; truth: see `raw_truth`. One slice per patient.
    """
    found = []
    for _, row in rows.iterrows():
        ct, labelled = reader.read(raw, row)
        for z in labelled["z"].astype(int).unique():
            boxes = [labelled[labelled["z"] == z].assign(source="annotated")]
            if truth is not None:
                missing = truth[(truth["volume"] == row["volume"]) & (truth["z"] == z) & ~truth["marked"].astype(bool)]
                boxes.append(missing.assign(source="unlabelled"))
            shown = pd.concat(boxes, ignore_index=True)
            panel = {
                "hu": ct.hu[z].copy(),
                "boxes": shown,
                "title": f"{row['dataset']}, slice {z + ct.first_slice}\n{row['volume']}",
            }
            found.append((-len(shown), row["patient"], panel | {"window": window_for(ct.hu[z], shown)}))
    best = sorted(found, key=lambda one: one[0])
    patients = dict.fromkeys(patient for _, patient, _ in best)
    return [next(panel for _, owner, panel in best if owner == patient) for patient in list(patients)[:number]]


def file_kinds(root: Path, datasets: Sequence[str]) -> pd.DataFrame:
    """How many files of each kind lie below each dataset's folder, and how large they are."""
    files = [
        (name, path.suffix, path.stat().st_size / 1e6)
        for name in datasets
        for path in sorted(files_below(root / name))
        if path.is_file()
    ]
    table = pd.DataFrame(files, columns=["dataset", "kind of file", "megabytes"])
    groups = table.groupby(["dataset", "kind of file"], sort=False)["megabytes"]
    return groups.agg(files="size", megabytes="sum").reset_index()


def neighbours(store: Store, key: pd.Series, boxes: pd.DataFrame, reach: int) -> list[dict | None]:
    """Panels of the slices around an annotated box, `reach` to each side; None where the volume has ended.

    Of `boxes` the annotated and mined ones of the same lesion are drawn, and the truth.
    """
    same = boxes[(boxes["lesion"] == key["lesion"]) | (boxes["source"] == "truth")]
    window = window_for(store.hu(key["volume"])[int(key["z"])], pd.DataFrame([key]))
    panels = []
    for z in range(int(key["z"]) - reach, int(key["z"]) + reach + 1):
        inside = 0 <= z < store.volumes.at[key["volume"], "depth"]
        title = f"{key['lesion']}, slice {z}"
        panels.append(panel(store, key["volume"], z, same, title) | {"window": window} if inside else None)
    return panels


def patch(store: Store, box: dict, size: int, title: str, meaning: str, column: str = "outcome") -> dict:
    """What `plots.draw_slice` needs to draw one box (volume, z, x1, y1, x2, y2) in a square of `size` pixels around it.

    `meaning` is what the box's colour says, in column `column` (TP, FP, a source, a dataset).
    """
    hu = np.asarray(store.hu(box["volume"])[int(box["z"])])
    boxes = pd.DataFrame([{name: box[name] for name in BOX} | {column: meaning}])
    piece, boxes = crop(hu, boxes, ((box["x1"] + box["x2"]) / 2, (box["y1"] + box["y2"]) / 2), size)
    return {"hu": piece, "boxes": boxes, "window": window_for(piece, boxes), "title": title}


def window_for(hu: np.ndarray, boxes: pd.DataFrame) -> str:
    """The window for a slice (y, x): the lung's if all boxes lie in or beside lung, that for both if some do."""
    beside_lung = []
    for x1, y1, x2, y2 in boxes[BOX].to_numpy(float):
        top, left = max(0, round(y1) - 2), max(0, round(x1) - 2)
        around = hu[top : round(y2) + 3, left : round(x2) + 3]
        beside_lung.append(around.size > 0 and np.quantile(around, 0.3) < LUNG_HU)
    return "soft tissue" if not any(beside_lung) else "lung" if all(beside_lung) else BOTH


def busiest_slices(boxes: pd.DataFrame, number: int, volumes: pd.DataFrame) -> list[tuple[str, int]]:
    """The slices with the most boxes, at most one of each patient: a list of (volume, z)."""
    counts = boxes.astype({"volume": str}).groupby(["volume", "z"]).size().sort_values(ascending=False, kind="stable")
    table = counts.reset_index(name="boxes")
    table["patient"] = table["volume"].map(volumes["patient"])
    chosen = table.drop_duplicates("patient").head(number)
    return [(volume, int(z)) for volume, z in zip(chosen["volume"], chosen["z"], strict=True)]


def most_telling(judged: dict[str, pd.DataFrame], better: str, worse: str, number: int = 1) -> list[tuple[str, int]]:
    """The slices where the detections `better` have most right that `worse` misses: (volume, z), one in a volume.

    `judged` holds the outcomes (see `judge`) of several experts. Counted are the lesions that `worse` misses and
    `better` does not, less half a point for each false positive of `better`; z is the middle of the first of them.
    """
    key = ["volume", *BOX3D]
    missed = judged[worse][judged[worse]["outcome"] == "FN"][key]
    also = judged[better][judged[better]["outcome"] == "FN"][key].assign(also=True)
    gained = missed.merge(also, on=key, how="left")
    gained = gained[gained["also"].isna()]
    wrong = judged[better][judged[better]["outcome"] == "FP"]["volume"].astype(str).value_counts()
    gain = gained["volume"].astype(str).value_counts()
    net = (gain - 0.5 * wrong.reindex(gain.index).fillna(0)).sort_index().sort_values(ascending=False, kind="stable")
    chosen = []
    for volume in net.index[:number]:
        first = gained[gained["volume"].astype(str) == volume].iloc[0]
        chosen.append((volume, int(round((first["z1"] + first["z2"]) / 2))))
    return chosen


def expert_panels(
    store: Store,
    judged: dict[str, pd.DataFrame],
    slices: list[tuple[str, int]],
    score: float,
    lesions: pd.DataFrame | None = None,
) -> list[dict]:
    """Panels of the same slices as each expert sees them, one row of panels for each slice (LENS Fig. 3 and 6).

    Detections under `score` are not drawn; a lesion whose only hits are weaker than that is not drawn as missed.
    lesions: the true 3D boxes that the detections were judged by; those that lie on the slice and were hit on other
    slices only are drawn as such.
    """
    panels = []
    for volume, z in slices:
        windows = []
        for expert, boxes in judged.items():
            shown = boxes[(boxes["outcome"] == "FN") | (boxes["score"] >= score)].drop(columns="z", errors="ignore")
            if lesions is not None:
                own = lesions[lesions["volume"].astype(str) == volume]
                shown = pd.concat([shown, _found_elsewhere(own, shown, volume, z)], ignore_index=True)
            panels.append(panel(store, volume, z, shown, title=expert))
            windows.append(panels[-1]["window"])
        common = windows[0] if len(set(windows)) == 1 else BOTH
        for one in panels[-len(windows) :]:
            one["window"] = common
    return panels


def _found_elsewhere(lesions: pd.DataFrame, judged: pd.DataFrame, volume: str, z: int) -> pd.DataFrame:
    """The lesions on a slice that were neither missed nor have a hit on this slice, with outcome ELSEWHERE."""
    here = boxes_on_slice(lesions, z)
    own = boxes_on_slice(judged[judged["volume"].astype(str) == volume], z)
    drawn = own[own["outcome"].isin(["TP", "FN"])][BOX].to_numpy(float)
    touched = (iobb(here[BOX].to_numpy(float), drawn) > 0).any(axis=1) if len(drawn) else np.zeros(len(here), bool)
    return here[~touched].assign(outcome=ELSEWHERE, score=0.0).drop(columns="z", errors="ignore")
