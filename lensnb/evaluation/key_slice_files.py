"""Evaluating a file of 2D predictions on DeepLesion's key slices: what is read, what is refused, and the command."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from lensnb.boxes import BOX
from lensnb.datasets.dl_info import ENDS, FILE_NAME, SPLITS, read_info
from lensnb.evaluation import froc, key_slices
from lensnb.evaluation.key_slices import IOU
from lensnb.evaluation.names import altered
from lensnb.files import check_output, write_json
from lensnb.files.cells import first_unprintable, no_number, numbers, read_cells

TYPES = {1: "bone", 2: "abdomen", 3: "mediastinum", 4: "liver", 5: "lung", 6: "kidney", 7: "soft tissue", 8: "pelvis"}
SPLIT_NAMES = {number: name.removeprefix("official-") for number, name in SPLITS.items()}
NOISY = "noisy"
NAMED = "images are named as in DL_info.csv's File_name, 000001_01_01_109.png"


@dataclass(frozen=True)
class KeySlices:
    """The lesions of the images that are judged, and why others are not.

    lesions: image, volume (the series), z, x1, y1, x2, y2 in the file's own coordinates, and from DL_info.csv type (NaN
    where it has none) and size_mm, the mean of the RECIST diameters. elsewhere: image -> the split that it is of, or
    NOISY if all its lesions are marked so.
    """

    lesions: pd.DataFrame
    elsewhere: Mapping[str, str]


def read_truth(path: Path | str, split: str = "test") -> KeySlices:
    """Read the true boxes: DL_info.csv, of which one split is taken, or a csv with image, x1, y1, x2, y2.

    Of DL_info.csv the lesions marked Possibly_noisy are left out, as in the public code, and with them the images that
    have no other. In the other csv an image without lesions is a row with four empty coordinates; `split` plays no
    part. Raises FileNotFoundError, or ValueError that names file and line.
    """
    cells = read_cells(path)
    if "File_name" in cells:
        return _of_dl_info(Path(path), cells, split)
    table = _read(path, BOX, cells, gaps=True)
    if table.empty:
        raise ValueError(f"{path} has no rows; an image without lesions is a row with four empty coordinates")
    empty = table[BOX].isna().all(axis=1)
    both = empty & table["image"].isin(table.loc[~empty, "image"])
    _refuse(both, lambda i: f"{table['image'].iloc[i]} has no box here, but one in another line", path, table.index)
    return KeySlices(table.reset_index(drop=True), {})


def _of_dl_info(path: Path, cells: pd.DataFrame, split: str) -> KeySlices:
    info = read_info(path)
    image = pd.Series([f"{series}_{key:03d}.png" for series, key in zip(info["series"], info["key"], strict=True)])
    table = pd.concat([image.rename("image"), *_places(image)], axis=1)
    table[BOX] = info[BOX] + 1  # the reader takes 1 off; here they are as in the file, and so are the predictions
    if "Coarse_lesion_type" in cells:
        table["type"] = pd.Series(numbers(cells["Coarse_lesion_type"])[0]).map(TYPES)
    # x1, y1, x2, y2 are the ends of one diameter, x3 to y4 those of the other
    ends = info[ENDS].to_numpy().reshape(-1, 2, 2, 2) * info[["spacing_x", "spacing_y"]].to_numpy()[:, None, None]
    table["size_mm"] = np.linalg.norm(ends[:, :, 0] - ends[:, :, 1], axis=2).mean(axis=1)
    name = info["split"].map(SPLIT_NAMES)
    if split not in set(name):
        raise ValueError(f"{path} has no lesions of the split {split!r}; it has {', '.join(sorted(set(name)))}")
    judged = (name == split) & ~info["noisy"]
    _refuse_repeated(table[judged], ["image", *BOX], path, cells.index[judged])
    where = name.mask(name == split, NOISY)[~judged & ~image.isin(image[judged])]
    return KeySlices(table[judged].reset_index(drop=True), dict(zip(image[where.index], where, strict=True)))


def read_predictions(path: Path | str) -> pd.DataFrame:
    """Read a csv with image, x1, y1, x2, y2, score (other columns do not matter) and add volume and z.

    Raises FileNotFoundError, or ValueError that names file and line. The index is the line of each row.
    """
    return _read(path, [*BOX, "score"], read_cells(path))


def _read(path: Path | str, columns: list[str], cells: pd.DataFrame, gaps: bool = False) -> pd.DataFrame:
    """The columns image, volume, z and `columns`; with `gaps` a row may have no number at all."""
    froc.require_columns(cells, ["image", *columns], str(path))
    image, lines = cells["image"], cells.index
    _refuse(image == "", lambda i: f"no image is named; {NAMED}", path, lines)
    odd = first_unprintable(image)
    if odd is not None:
        raise ValueError(f"{path}, line {lines[odd]}: image {image.iloc[odd]!r} has an invisible character")
    table = pd.concat([image, *_places(image)], axis=1)
    needed = ~(cells[columns] == "").all(axis=1) if gaps else True
    for name in columns:
        table[name], wrong = numbers(cells[name])
        texts = cells[name].tolist()
        _refuse(wrong, lambda i, n=name, t=texts: f"{n} is {no_number(t[i])}", path, lines)
        bad = needed & ~np.isfinite(table[name])
        _refuse(bad, lambda i, n=name, t=texts: f"{n} is {t[i] or 'empty'}, not a finite number", path, lines)
    boxes = table[BOX].to_numpy()
    far = (np.abs(boxes) > froc.FARTHEST).any(axis=1)
    _refuse(far, lambda i: f"a coordinate lies outside every image: {boxes[i].tolist()}", path, lines)
    inverted = (boxes[:, 2:] < boxes[:, :2]).any(axis=1)
    _refuse(inverted, lambda i: f"an inverted box, x1, y1, x2, y2 = {boxes[i].tolist()}", path, lines)
    _refuse_repeated(table, ["image", *columns], path, lines)
    return table


def _places(image: pd.Series) -> tuple[pd.Series, pd.Series]:
    """Series and slice number of each image; one with another name than DeepLesion's is a volume of its own."""
    names = [FILE_NAME.fullmatch(text) for text in image]
    volume = [name[1] if name else text for name, text in zip(names, image, strict=True)]
    z = [int(name[2]) if name else 0 for name in names]
    return pd.Series(volume, image.index, name="volume", dtype=object), pd.Series(z, image.index, name="z", dtype=int)


def _refuse(bad: np.ndarray | pd.Series, what: Callable[[int], str], path: Path | str, lines: pd.Index) -> None:
    rows = np.flatnonzero(bad)
    if len(rows):
        raise ValueError(f"{path}, line {lines[rows[0]]}: {what(int(rows[0]))}")


def _refuse_repeated(table: pd.DataFrame, columns: list[str], path: Path | str, lines: pd.Index) -> None:
    row = table.groupby(columns, dropna=False, sort=False).ngroup().to_numpy()  # equal rows have equal numbers
    again = table.duplicated(columns).to_numpy()
    _refuse(
        again,
        lambda i: f"the same as line {lines[np.argmax(row == row[i])]} ({again.sum()} such rows); remove one",
        path,
        lines,
    )


def _judged(predictions: pd.DataFrame, path: Path | str, truth: KeySlices) -> pd.DataFrame:
    """The predictions without those on images whose lesions are all noisy; ValueError if the truth lacks an image."""
    kept = predictions[predictions["image"].map(truth.elsewhere) != NOISY]
    unknown = kept[~kept["image"].isin(truth.lesions["image"])]
    if unknown.empty:
        return kept
    line, image = unknown.index[0], unknown["image"].iloc[0]
    remedy = altered(unknown["image"], truth.lesions["image"])
    if image in truth.elsewhere:
        remedy = f"it is of the split {truth.elsewhere[image]}, choose that with --split, or remove these rows"
    raise ValueError(
        f"{path} names {unknown['image'].nunique()} image(s) that the truth does not have, the first, in line {line}, "
        f"is {image}: {remedy or f'choose the right split, or remove them; {NAMED}'}"
    )


def evaluate_files(truth: Path, predictions: Path, split: str = "test", iou: float = IOU) -> dict:
    """The result on files, ready for JSON: fp, sensitivity, not_reached, max_fp, average, its interval, and counts.

    `average` is the mean sensitivity at .5, 1, 2 and 4 false positives an image, its interval that of 1,000 resampled
    sets of patients. At the rates in `not_reached`, which lie beyond the curve's end `max_fp`, the last sensitivity
    stands. From DL_info.csv there are `by_type` and `by_size`, too. Predictions without rows are those of a detector
    that found nothing. FileNotFoundError or ValueError names the file and the line.
    """
    known, table = read_truth(truth, split), read_predictions(predictions)
    found, lesions = _judged(table, predictions, known), known.lesions
    there = int(lesions[BOX].notna().all(axis=1).sum())
    images = lesions["image"].nunique()
    if not there:
        raise ValueError(f"{truth}: no lesion in its {images} image(s), so there is no sensitivity")
    result = key_slices.evaluate(key_slices.match(lesions, found, iou))
    strata = {}
    if "size_mm" in lesions:
        lesions = lesions.assign(size=key_slices.size_ranges(lesions["size_mm"]))
        strata = {f"by_{c}": _stratified(lesions, found, c, iou) for c in ("type", "size") if c in lesions}
    return {
        "fp": list(result.fp),
        "sensitivity": list(result.sensitivity),
        "not_reached": list(result.not_reached),
        "max_fp": result.end,
        "average": result.average,
        "average_low": result.average_low,
        "average_high": result.average_high,
        "iou": iou,
        "images": images,
        "patients": len(set(key_slices.patients(result.matches.volumes))),
        "lesions": there,
        "predictions": len(found),
        "images_without_predictions": images - found["image"].nunique(),
        "predictions_on_noisy_images": len(table) - len(found),
        **strata,
    }


def _stratified(lesions: pd.DataFrame, found: pd.DataFrame, column: str, iou: float) -> dict[str, dict]:
    rows = key_slices.sensitivity_by(lesions, found, column, iou).to_dict("records")
    rates = [f"fp_{rate:g}" for rate in key_slices.RATES]
    return {
        row[column]: {"lesions": row["lesions"], "sensitivity": [row[r] for r in rates], "average": row["average"]}
        for row in rows
    }


def report(result: dict) -> str:
    """The result as lines for a terminal."""
    rows = {f"IoU >= {result['iou']:g}": result}
    for strata in ("by_type", "by_size"):
        rows |= {f"{name}, {row['lesions']} lesions": row for name, row in result.get(strata, {}).items()}
    width = max(map(len, rows))
    lines = [
        f"{result['images']} images of {result['patients']} patients, {result['lesions']} lesions, "
        f"{result['predictions']} predictions; {result['images_without_predictions']} images have none",
        " " * width + "".join(f"{rate:>8g}" for rate in result["fp"]) + " average of .5 to 4",
    ]
    for title, row in rows.items():
        lines.append(f"{title:<{width}}" + "".join(f"{s:8.4f}" for s in [*row["sensitivity"], row["average"]]))
    low, high = result["average_low"], result["average_high"]
    lines.append(f"95 % interval of the first average, patients resampled: {low:.4f} to {high:.4f}")
    if result["not_reached"]:
        rates = ", ".join(f"{rate:g}" for rate in result["not_reached"])
        lines.append(
            f"not reached: {rates} false positives an image; the curve ends at {result['max_fp']:.4g}, and its last "
            "sensitivity stands there"
        )
    if "by_size" in result:
        lines.append("false positives of a type or size are those of all; size: mean of the two RECIST diameters")
    return "\n".join(lines)


def command(truth: Path, predictions: Path, split: str, iou: float, json: Path | None) -> str:
    """The command `evaluate-slices`: the report; the whole result is written to `json`."""
    if json:
        check_output(json, "--json", inputs=(truth, predictions))
    result = evaluate_files(truth, predictions, split, iou)
    notes = {
        f"{result['predictions_on_noisy_images']} predictions lie on images whose lesions are all marked "
        "Possibly_noisy; they are not scored, as in the public code": result["predictions_on_noisy_images"],
        "--predictions has no rows: nothing was found": not result["predictions"]
        and not result["predictions_on_noisy_images"],
    }
    sys.stderr.writelines(f"lensnb: note: {text}\n" for text, happens in notes.items() if happens)
    if json:
        write_json(result, json)
    return report(result)
