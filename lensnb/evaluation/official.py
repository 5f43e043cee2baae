"""Evaluating a predictions file against a truth file, officially and by stricter rules."""

import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from lensnb.datasets.manual_boxes import load_manual_boxes
from lensnb.evaluation import froc
from lensnb.files import check_output, write_json
from lensnb.files.cells import first_unprintable, no_number, numbers, read_cells

PICKLE_SUFFIXES = (".pkl", ".pickle")


@dataclass(frozen=True)
class Rule:
    """A definition of a hit: which overlap, and whether a detection takes one lesion at most."""

    title: str
    overlap: str
    one_to_one: bool


STRICTER = {
    "iou": Rule("IoU instead of IoBB", "iou", False),
    "one_to_one": Rule("IoBB, one to one, duplicates false", "iobb", True),
    "iou_one_to_one": Rule("IoU, one to one, duplicates false", "iou", True),
}


def read_truth(path: Path | str, split: str = "test") -> dict:
    """Read the true boxes of every volume: volume -> (n, 6) x1, y1, z1, x2, y2, z2.

    The published pickle (.pkl) holds several splits, of which one is taken. A csv has the columns volume, x1,
    y1, z1, x2, y2, z2; a volume without lesions is a row with six empty coordinates; `split` plays no part.
    Raises FileNotFoundError or ValueError naming the file.
    """
    path = Path(path)
    if path.suffix.lower() in PICKLE_SUFFIXES:
        splits = load_manual_boxes(path)
        if split not in splits:
            raise ValueError(f"{path} has no split {split!r}; it has {', '.join(splits) or 'none at all'}")
        if not splits[split]:
            raise ValueError(f"{path}: its split {split!r} has no volumes")
        return splits[split]
    table = read_boxes(path, ["volume", *froc.BOX3D])
    if table.empty:
        raise ValueError(f"{path} has no rows; a volume without lesions is a row with six empty coordinates")
    try:
        return froc.truth_by_volume(table)
    except ValueError as error:
        raise _naming(path, error) from error


def read_boxes(path: Path | str, columns: list[str]) -> pd.DataFrame:
    """Read `columns` of a csv of boxes: `volume`, which is text, and numbers.

    Raises FileNotFoundError, or ValueError naming file, row and column.
    """
    cells = read_cells(path).reset_index(drop=True)
    froc.require_columns(cells, columns, str(path))
    table = cells[columns].copy()
    unnamed = (table["volume"] == "").to_numpy()
    if unnamed.any():
        raise ValueError(f"{path}, row {unnamed.argmax() + 1}: no volume is named")
    odd = first_unprintable(table["volume"])
    if odd is not None:
        raise ValueError(f"{path}, row {odd + 1}: volume {table['volume'][odd]!r} has an invisible character")
    for column in columns[1:]:
        table[column], wrong = numbers(cells[column])
        if wrong.any():
            row = int(wrong.argmax())
            raise ValueError(f"{path}, row {row + 1}: {column} is {no_number(cells[column][row])}")
    return table


def evaluate(truth: dict, predictions: pd.DataFrame, overlap: str = "iobb", threshold: float = 0.3) -> dict:
    """The official result with its bootstrap interval, and the stricter rules beside it, ready for JSON.

    Equal to the authors' evaluation at overlap "iobb" and threshold 0.3 (LENS Sec. VI-C). The interval is that of
    the average over 1,000 resampled sets of patients.
    """
    result = froc.evaluate(truth, predictions, overlap, threshold)
    stricter = {}
    for name, rule in STRICTER.items():
        strict = froc.evaluate(truth, predictions, rule.overlap, threshold, rule.one_to_one, resamples=0)
        stricter[name] = {
            "overlap": rule.overlap,
            "one_to_one": rule.one_to_one,
            "sensitivity": list(strict.sensitivity),
            "average": strict.average,
        }
    return {
        "fp": list(result.fp),
        "sensitivity": list(result.sensitivity),
        "average": result.average,
        "average_low": result.average_low,
        "average_high": result.average_high,
        "overlap": overlap,
        "threshold": threshold,
        "volumes": len(truth),
        "patients": len(set(froc.patients(list(truth)))),
        "lesions": sum(len(boxes) for boxes in truth.values()),
        "predictions": len(predictions),
        "volumes_without_predictions": len(truth) - predictions["volume"].nunique(),
        "stricter": stricter,
    }


def evaluate_files(
    truth: Path, predictions: Path, split: str = "test", overlap: str = "iobb", threshold: float = 0.3
) -> dict:
    """`evaluate` on files, and how many lesions and predictions are there more than once.

    FileNotFoundError or ValueError names the file and the row. Predictions without rows are those of a detector that
    found nothing.
    """
    boxes = read_truth(truth, split)
    table = read_boxes(predictions, ["volume", *froc.BOX3D, "score"])
    try:
        froc.check_detections(table, list(boxes))
    except ValueError as error:
        raise _naming(predictions, error) from error
    if not any(map(len, boxes.values())):
        raise ValueError(f"{truth}: no lesion in its {len(boxes)} volume(s), so there is no sensitivity")
    lesions = (pd.DataFrame(rows).duplicated().sum() for rows in boxes.values())
    return evaluate(boxes, table, overlap, threshold) | {
        "repeated_lesions": int(sum(lesions)),
        "repeated_predictions": int(table.duplicated().sum()),
    }


def report(result: dict) -> str:
    """The result as lines for a terminal."""
    definition = "IoBB" if result["overlap"] == "iobb" else "IoU"
    rows = {f"{definition} >= {result['threshold']:g}": result} | {
        STRICTER[name].title: strict for name, strict in result["stricter"].items()
    }
    width = max(map(len, rows))
    summary = (
        f"{result['volumes']} volumes of {result['patients']} patients, {result['lesions']} lesions, "
        f"{result['predictions']} predictions; {result['volumes_without_predictions']} volumes have none"
    )
    lines = [summary, " " * width + "".join(f"{rate:>8g}" for rate in result["fp"]) + " average"]
    for title, row in rows.items():
        lines.append(f"{title:<{width}}" + "".join(f"{s:8.4f}" for s in [*row["sensitivity"], row["average"]]))
    low, high = result["average_low"], result["average_high"]
    lines.append(f"95 % interval of the first average, patients resampled: {low:.4f} to {high:.4f}")
    return "\n".join(lines)


def command(truth: Path, predictions: Path, split: str, overlap: str, threshold: float, json: Path | None) -> str:
    """The command `evaluate`: the report; the whole result is written to `json`."""
    if json:
        check_output(json, "--json", inputs=(truth, predictions))
    result = evaluate_files(truth, predictions, split, overlap, threshold)
    for name, which in (("repeated_lesions", "lesions of --truth"), ("repeated_predictions", "--predictions")):
        if result[name]:
            sys.stderr.write(
                f"lensnb: note: {result[name]} of the {which} are there more than once; each counts, as in the "
                "authors' evaluation\n"
            )
    if json:
        write_json(result, json)
    return report(result)


def _naming(path: Path | str, error: ValueError) -> ValueError:
    return ValueError(f"{path}: {error}")
