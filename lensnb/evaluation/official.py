"""Evaluating a predictions file against a truth file, officially and by stricter rules."""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from lensnb.datasets.manual_boxes import load_manual_boxes
from lensnb.evaluation import froc
from lensnb.files import check_output, read_csv, write_json

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
            raise ValueError(f"{path} has no split {split!r}; it has {', '.join(splits)}")
        return splits[split]
    try:
        return froc.truth_by_volume(read_boxes(path, ["volume", *froc.BOX3D]))
    except ValueError as error:
        raise _naming(path, error) from error


def read_boxes(path: Path | str, columns: list[str]) -> pd.DataFrame:
    """Read `columns` of a csv of boxes: `volume`, which is text, and numbers.

    Raises FileNotFoundError, or ValueError naming file, row and column.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    table = read_csv(path, dtype={"volume": str}, skipinitialspace=True)
    froc.require_columns(table, columns, str(path))
    unnamed = table["volume"].isna().to_numpy()
    if unnamed.any():
        raise ValueError(f"{path}, row {unnamed.argmax() + 1}: no volume is named")
    for column in columns[1:]:
        numbers = pd.to_numeric(table[column], errors="coerce")
        text = numbers.isna() & table[column].notna()
        if text.any():
            row = int(text.to_numpy().argmax())
            raise ValueError(f"{path}, row {row + 1}: {column} is {table[column].iloc[row]!r}, not a number")
        table[column] = numbers.astype(float)
    return table[columns]


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
    """`evaluate` on files. FileNotFoundError or ValueError names the file and the row."""
    boxes = read_truth(truth, split)
    table = read_boxes(predictions, ["volume", *froc.BOX3D, "score"])
    try:
        froc.check_detections(table, list(boxes))
    except ValueError as error:
        raise _naming(predictions, error) from error
    return evaluate(boxes, table, overlap, threshold)


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
        check_output(json, "--json")
    result = evaluate_files(truth, predictions, split, overlap, threshold)
    if json:
        write_json(result, json)
    return report(result)


def _naming(path: Path | str, error: ValueError) -> ValueError:
    return ValueError(f"{path}: {error}")
