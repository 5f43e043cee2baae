"""FROC of 2D boxes on DeepLesion's key slices, and what it hides: most lesions of these slices are not marked.

The rule is that of the public code of 3DCE and MULAN, which follows the DeepLesion paper (Sec. 3): boxes include both
end pixels (+1), a box whose IoU with a lesion reaches the threshold hits it, one box may hit several lesions, a further
hit of a lesion is neither right nor wrong, the boxes of all slices are ranked together by their score, and false
positives are counted per slice. That is `froc.match` on volumes of one slice, whose tables, curve and draws of patients
are used here. Reading the curve is another matter:

* At a rate that a false positive meets exactly, as 1 is met by as many of them as there are slices, the public code
  takes the curve's first point there, before the hits that follow; `froc.sensitivity_at` takes the last.
* Beyond the curve's end the public code, scipy's interp1d(fill_value="extrapolate"), goes on along the line through
  the last two points. That is the last sensitivity if a false positive comes last, but infinite or NaN if a hit or a
  repeat does, for then both points stand at the same rate. Here the last sensitivity stays, and the rate is
  `not_reached`.
* Before the curve's beginning (the first box is false, and there are so few slices that it alone meets the rate) the
  public code extrapolates too, to 0, minus infinity or NaN; here it is 0. A curve of one point is NaN there.

Boxes of equal score have the order that `froc.match` gives them.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import pandas as pd

from lensnb.boxes import BOX
from lensnb.evaluation import froc
from lensnb.evaluation.froc import Curve, Difference, Matches

RATES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)  # false positives a slice, as in 3DCE's logs
AVERAGED = RATES[:4]  # whose mean MULAN and MELD (Table 3) print
IOU = 0.5
IOUS = (0.1, 0.3, 0.5, 0.7, 0.9)  # of the chart like Fig. 11, whose own thresholds stand in the picture alone
# mm; the paper's text has those under 10, 15 to 20, and from 50 on (Fig. 10), the others are a choice
SIZES_MM = (10, 15, 20, 30, 50)
PATIENT = re.compile(r"(\d{6})_\d{2}_\d{2}(?:_\d{3,6}-\d{3,6})? ", re.ASCII)


@dataclass(frozen=True)
class Evaluation:
    """Sensitivity at false positive rates, and the mean of those at AVERAGED with its 95 % bootstrap interval.

    end: the false positives a slice where the curve ends. not_reached: the rates beyond, where `sensitivity` is the
    curve's last.
    """

    fp: tuple[float, ...]
    sensitivity: tuple[float, ...]
    not_reached: tuple[float, ...]
    end: float
    average: float
    average_low: float
    average_high: float
    matches: Matches


def slice_names(table: pd.DataFrame) -> np.ndarray:
    """The name of each row's slice, volume and z: (n,) of text. ValueError if a z is no number."""
    z = table["z"].to_numpy(dtype=float)
    if not np.isfinite(z).all():
        raise ValueError(f"row {int(np.argmin(np.isfinite(z))) + 1}: z is not a finite number")
    whole = np.rint(z).astype(int)
    pairs = zip(table["volume"].astype(str), whole, strict=True)
    return np.array([f"{volume} {number}" for volume, number in pairs], dtype=object)


def patients(slices: Sequence[str]) -> list[str]:
    """The patient of each slice (of `slice_names`) where DeepLesion's names tell it, else its volume."""
    names = [PATIENT.match(name) for name in slices]
    return [name[1] if name else text.rpartition(" ")[0] for name, text in zip(names, slices, strict=True)]


def match(
    truth: pd.DataFrame, detections: pd.DataFrame, iou: float = IOU, slices: pd.DataFrame | None = None
) -> Matches:
    """Match 2D detections (volume, z, x1, y1, x2, y2, score) to the lesions of their slices (the same without score).

    `volumes` of the result are names of slices. The slices are those of `slices` (volume, z), or else of the truth,
    where a row without coordinates names one without lesions; lesions of other slices play no part. ValueError as
    `froc.match`: for bad boxes and scores, and for detections on other slices.
    """
    froc.require_columns(truth, ["volume", "z", *BOX], "the truth")
    froc.require_columns(detections, ["volume", "z", *BOX, "score"], "the detections")
    names = pd.unique(slice_names(truth if slices is None else slices))
    lesions = truth[truth[BOX].notna().any(axis=1)]
    boxes = _flat(lesions)
    rows_of = pd.Series(range(len(lesions))).groupby(slice_names(lesions)).indices
    found = pd.DataFrame(_flat(detections), columns=froc.BOX3D)
    found["volume"], found["score"] = slice_names(detections), detections["score"].to_numpy(dtype=float)
    return froc.match({name: boxes[rows_of.get(name, [])] for name in names}, found, "iou", iou)


def _flat(table: pd.DataFrame) -> np.ndarray:
    """2D boxes as 3D ones of one slice, whose IoU is the same: (n, 6)."""
    boxes = table[BOX].to_numpy(dtype=float)
    return np.insert(boxes, [2, 4], 0.0, axis=1)


def sensitivity_at(curve: Curve, rates: Sequence[float] = RATES) -> np.ndarray:
    """Sensitivity at each false positive rate (of those above 0) as the public code reads it; see the top of the file.

    The sensitivity before the first point at or above the rate: a false positive makes that point and finds nothing.
    """
    points = np.searchsorted(curve.false_positives, np.asarray(rates, dtype=float), side="left")
    return np.concatenate([[0.0], curve.sensitivity])[points]


def bootstrap(matches: Matches, resamples: int = 1000, seed: int = 0, rates: Sequence[float] = AVERAGED) -> np.ndarray:
    """Sensitivities of test sets of patients drawn with replacement: (resamples, rates), NaN if one has no lesion.

    The draws are those of `froc.bootstrap`, whose own loop reads the curve by the other rule. They depend on the slices
    and the seed alone, so the samples of two detectors on the same slices can be subtracted.
    """
    draws = froc.times_drawn(matches.volumes, patients(matches.volumes), resamples, seed)
    decides = (matches.new_lesions > 0) | matches.is_false
    volume, found, is_false = matches.volume[decides], matches.new_lesions[decides], matches.is_false[decides]
    samples = np.full((resamples, len(rates)), np.nan)
    for sample, times in zip(samples, draws, strict=True):
        lesions = times @ matches.lesions
        if lesions:
            of_detection = times[volume]
            false_positives = np.cumsum(of_detection * is_false) / times.sum()
            points = np.searchsorted(false_positives, rates, side="left")
            sample[:] = np.concatenate([[0], np.cumsum(of_detection * found)])[points] / lesions
    return samples


def averages(matches: Matches, resamples: int = 1000, seed: int = 0) -> np.ndarray:
    """The average sensitivity, followed by its bootstrap samples: (1 + resamples,)."""
    samples = bootstrap(matches, resamples, seed).mean(axis=1)
    return np.r_[sensitivity_at(froc.curve(matches), AVERAGED).mean(), samples]


def difference(first: Matches, second: Matches, resamples: int = 1000, seed: int = 0) -> Difference:
    """Average sensitivity of one detector minus another's, with the 95 % interval of the paired bootstrap.

    ValueError unless both were matched on the same slices.
    """
    if first.volumes != second.volumes:
        raise ValueError("a paired difference needs two detectors on the same slices in the same order")
    apart = averages(first, resamples, seed) - averages(second, resamples, seed)
    return Difference(float(apart[0]), *froc.interval(apart[1:]))


def evaluate(matches: Matches, rates: Sequence[float] = RATES, resamples: int = 1000, seed: int = 0) -> Evaluation:
    """Read the curve of matched detections at the rates (DeepLesion Fig. 8), and bootstrap its average.

    ValueError if no slice has a lesion.
    """
    curve = froc.curve(matches)
    end = float(curve.false_positives[-1]) if len(curve.score) else 0.0
    average, *samples = averages(matches, resamples, seed)
    low, high = froc.interval(np.array(samples)) if resamples else (float("nan"), float("nan"))
    return Evaluation(
        fp=tuple(rates),
        sensitivity=tuple(sensitivity_at(curve, rates).tolist()),
        not_reached=tuple(rate for rate in rates if rate > end),
        end=end,
        average=float(average),
        average_low=low,
        average_high=high,
        matches=matches,
    )


def size_ranges(size_mm: Sequence[float], edges_mm: Sequence[float] = SIZES_MM) -> pd.Categorical:
    """The range of each lesion's size, in order, as "under 10 mm"; a lesion at an edge belongs to the range above.

    The paper's size is the mean of long and short RECIST diameter (Fig. 10).
    """
    names = [f"under {edges_mm[0]:g} mm", *(f"{low:g} to {high:g} mm" for low, high in pairwise(edges_mm))]
    names.append(f"{edges_mm[-1]:g} mm and more")
    return pd.Categorical.from_codes(np.digitize(size_mm, edges_mm), names, ordered=True)


def strata(
    truth: pd.DataFrame, detections: pd.DataFrame, column: str, iou: float = IOU, others_false: bool = False
) -> dict[str, Matches]:
    """The matches to the lesions with each value of the truth's `column`, those of most lesions first.

    A categorical column keeps its order; lesions without a value are in no stratum. False positives are the boxes that
    hit no lesion of any kind, as a detector names no kinds (DeepLesion Figs. 9 and 10); with `others_false` also those
    that hit lesions of other strata only, as in the tables of 3DCE (its author in issue 31 of CADLab).
    """
    every, values = match(truth, detections, iou), truth[column]
    counts = values.value_counts(sort=not isinstance(values.dtype, pd.CategoricalDtype))
    found = {}
    for value in counts.index[counts > 0]:
        own = match(truth[values == value], detections, iou, slices=truth)
        found[value] = own if others_false else replace(own, is_false=every.is_false)
    return found


def sensitivity_by(
    truth: pd.DataFrame, detections: pd.DataFrame, column: str, iou: float = IOU, others_false: bool = False
) -> pd.DataFrame:
    """A row for each stratum of `strata`: `column`, lesions, fp_0.5 to fp_16 (fractions), average."""
    return pd.DataFrame(
        [
            {column: value, "lesions": int(own.lesions.sum()), **_row(own)}
            for value, own in strata(truth, detections, column, iou, others_false).items()
        ]
    )


def sensitivity_by_iou(truth: pd.DataFrame, detections: pd.DataFrame, ious: Sequence[float] = IOUS) -> pd.DataFrame:
    """A row for each IoU that makes a hit (DeepLesion Fig. 11): iou, fp_0.5 to fp_16 (fractions), average."""
    return pd.DataFrame([{"iou": iou, **_row(match(truth, detections, iou))} for iou in ious])


def _row(matches: Matches) -> dict[str, float]:
    result = evaluate(matches, resamples=0)
    named = {f"fp_{rate:g}": value for rate, value in zip(result.fp, result.sensitivity, strict=True)}
    return named | {"average": result.average}


def lesions_among_false_positives(
    marked: pd.DataFrame,
    complete: pd.DataFrame,
    detections: pd.DataFrame,
    iou: float = IOU,
    rates: Sequence[float] = RATES,
) -> pd.DataFrame:
    """What the "false positives" of the key-slice protocol are, where all lesions of the slices are known.

    The DeepLesion paper says of ten pictures that many are lesions which nobody marked (Secs. 1 and 4.2); this counts
    them. marked: the lesions that the protocol knows, whose slices are judged; complete: all lesions, the marked ones
    among them (those of other slices play no part); detections: of the marked lesions' slices. The tables of `match`.

    A row for each rate: fp, reached, false_positives (detections up to that rate that hit no marked lesion), lesions
    (those of them that hit a true one, also if another has hit it before), share (of them), true_fp (those that hit
    none, a slice), sensitivity_marked, and sensitivity_all by all lesions, at as many of its own false positives.
    """
    by_marked, by_all = match(marked, detections, iou), match(complete, detections, iou, slices=marked)
    # the same detections on the same slices, so both have them in the same order
    is_lesion = by_marked.is_false & ~by_all.is_false
    curve, slices = froc.curve(by_marked), len(by_marked.volumes)
    sensitivities = zip(sensitivity_at(curve, rates), sensitivity_at(froc.curve(by_all), rates), strict=True)
    rows = []
    for rate, (of_marked, of_all) in zip(rates, sensitivities, strict=True):
        within = curve.false_positives <= rate
        false, lesions = int((by_marked.is_false & within).sum()), int((is_lesion & within).sum())
        reached = bool(len(within)) and bool(curve.false_positives[-1] >= rate)
        share = lesions / false if false else np.nan
        rows.append((rate, reached, false, lesions, share, (false - lesions) / slices, of_marked, of_all))
    columns = ["fp", "reached", "false_positives", "lesions", "share", "true_fp", "sensitivity_marked"]
    return pd.DataFrame(rows, columns=[*columns, "sensitivity_all"])
