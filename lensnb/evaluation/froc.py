"""FROC of 3D detections: matching, curve, sensitivity at false positive rates, bootstrap intervals.

The official rule is that of the authors' evaluation of the DeepLesion manual test set (LENS Sec. VI-C): boxes
include both end pixels (+1), a detection whose overlap with a lesion reaches the threshold hits it, one
detection may hit several lesions, a further detection of a lesion already found is neither a true nor a false
positive, and false positives are counted per sub-volume over all sub-volumes, also those without lesions.
`one_to_one=True` is stricter: a detection takes one lesion at most, and a second detection of that lesion is a
false positive.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from lensnb.evaluation.names import altered
from lensnb.streams import Stream, generator

RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
BOX3D = ["x1", "y1", "z1", "x2", "y2", "z2"]
FARTHEST = 1e9  # pixels or slices from the first one; the products of such sides stay finite
OVERLAPS = ("iobb", "iou")
DEEPLESION_VOLUME = re.compile(r"(\d{6})_\d{2}_\d{2}_\d{3}-\d{3}", re.ASCII)


@dataclass(frozen=True)
class Matches:
    """What each detection found, by falling score; the arrays of one detection are parallel."""

    volumes: tuple[str, ...]  # every volume of the truth, in its order
    lesions: np.ndarray  # number of lesions of each volume
    volume: np.ndarray  # of each detection: index into `volumes`
    score: np.ndarray  # of each detection
    new_lesions: np.ndarray  # of each detection: lesions that it is the first to hit
    is_false: np.ndarray  # of each detection: whether it is a false positive


@dataclass(frozen=True)
class Curve:
    """One point for each detection, by falling score threshold."""

    false_positives: np.ndarray  # per volume
    sensitivity: np.ndarray
    score: np.ndarray


@dataclass(frozen=True)
class Evaluation:
    """Sensitivity at the false positive rates, their mean, and its 95 % bootstrap interval."""

    fp: tuple[float, ...]
    sensitivity: tuple[float, ...]
    average: float
    average_low: float
    average_high: float
    matches: Matches


@dataclass(frozen=True)
class Difference:
    """Average sensitivity of one method minus another's, with the 95 % interval of the paired bootstrap."""

    value: float
    low: float
    high: float


def truth_by_volume(truth: dict[str, np.ndarray] | pd.DataFrame) -> dict[str, np.ndarray]:
    """Give the truth as a dict volume -> (n, 6) float boxes x1, y1, z1, x2, y2, z2.

    A table names a volume without lesions in a row whose six coordinates are all empty.
    ValueError for a missing column, a coordinate that is not a finite number, or an inverted box.
    """
    if not isinstance(truth, pd.DataFrame):
        boxes = {volume: np.asarray(rows, dtype=float).reshape(-1, 6) for volume, rows in truth.items()}
        for volume, rows in boxes.items():
            check_boxes(rows, f"the truth of {volume}", [f"box {i}" for i in range(len(rows))])
        return boxes
    require_columns(truth, ["volume", *BOX3D], "the truth")
    coordinates = truth[BOX3D].to_numpy(dtype=float)
    empty = np.isnan(coordinates).all(axis=1)
    check_boxes(coordinates[~empty], "the truth", [f"row {i + 1}" for i in np.flatnonzero(~empty)])
    index, names = pd.factorize(np.asarray(truth["volume"], dtype=object))
    for i in np.unique(index[empty]):
        if (index == i).sum() > 1:
            raise ValueError(
                f"the truth has a row without coordinates (a volume without lesions) for {names[i]}, "
                "but other rows of it too: remove one or the other"
            )
    return {name: coordinates[(index == i) & ~empty] for i, name in enumerate(names)}


def check_detections(detections: pd.DataFrame, volumes: Sequence[str]) -> None:
    """Raise ValueError for a missing column, a bad box or score, or a volume that the truth does not name."""
    require_columns(detections, ["volume", *BOX3D, "score"], "the predictions")
    rows = [f"row {i + 1}" for i in range(len(detections))]
    check_boxes(detections[BOX3D].to_numpy(dtype=float), "the predictions", rows)
    score = detections["score"].to_numpy(dtype=float)
    if not np.isfinite(score).all():
        bad = int(np.argmin(np.isfinite(score)))
        raise ValueError(f"the predictions, {rows[bad]}: the score is {score[bad]}, not a finite number")
    unknown = pd.Index(np.asarray(detections["volume"], dtype=object)).difference(pd.Index(volumes, dtype=object))
    if len(unknown):
        remedy = altered(unknown, volumes) or "choose the right split, or remove them"
        raise ValueError(
            f"the predictions name {len(unknown)} volume(s) that the truth does not have, the first is "
            f"{unknown[0]}: {remedy}"
        )


def check_boxes(boxes: np.ndarray, where: str, rows: Sequence[str]) -> None:
    """Raise ValueError naming the first of (n, 6) boxes that is not finite, out of reach or ends before it starts."""
    finite = np.isfinite(boxes).all(axis=1)
    if not finite.all():
        bad = int(np.argmin(finite))
        raise ValueError(f"{where}, {rows[bad]}: a coordinate is not a finite number: {boxes[bad].tolist()}")
    near = (np.abs(boxes) <= FARTHEST).all(axis=1)
    if not near.all():
        bad = int(np.argmin(near))
        raise ValueError(f"{where}, {rows[bad]}: a coordinate lies outside every image: {boxes[bad].tolist()}")
    upright = (boxes[:, 3:] >= boxes[:, :3]).all(axis=1)
    if not upright.all():
        bad = int(np.argmin(upright))
        raise ValueError(f"{where}, {rows[bad]}: an inverted box, x1, y1, z1, x2, y2, z2 = {boxes[bad].tolist()}")


def require_columns(table: pd.DataFrame, columns: Sequence[str], where: str) -> None:
    """Raise ValueError naming the columns that a table lacks."""
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise ValueError(
            f"{where}: column(s) {', '.join(missing)} missing; there are {', '.join(map(str, table.columns))}"
        )


def overlap_3d(detections: np.ndarray, lesions: np.ndarray, overlap: str) -> np.ndarray:
    """Intersection over detection ("iobb") or union ("iou") of (n, 6) detections with (m, 6) lesions: (n, m).

    Both ends of a box belong to it (+1), also where coordinates are fractional. The operations follow the order
    of the definition, so that an overlap exactly at the threshold is judged as the authors' code judges it.
    """
    if overlap not in OVERLAPS:
        raise ValueError(f"overlap is {overlap!r}, must be one of {', '.join(OVERLAPS)}")
    low = np.maximum(detections[:, None, :3], lesions[None, :, :3])
    high = np.minimum(detections[:, None, 3:], lesions[None, :, 3:])
    intersection = np.maximum(high - low + 1.0, 0.0).prod(axis=2)
    detection_size = (detections[:, 3:] - detections[:, :3] + 1.0).prod(axis=1)[:, None]
    if overlap == "iobb":
        return intersection / detection_size
    lesion_size = (lesions[:, 3:] - lesions[:, :3] + 1.0).prod(axis=1)[None, :]
    return intersection / (detection_size + lesion_size - intersection)


def match(
    truth: dict[str, np.ndarray] | pd.DataFrame,
    detections: pd.DataFrame,
    overlap: str = "iobb",
    threshold: float = 0.3,
    one_to_one: bool = False,
) -> Matches:
    """Match detections (columns volume, x1, y1, z1, x2, y2, z2, score) to the lesions of their volumes.

    Detections come in falling score. Equal scores get the order that the authors' code gives them (numpy's
    default sort, reversed, over the volumes in the truth's order): an arbitrary order, but theirs. A volume of
    the truth without detections counts. ValueError as in `truth_by_volume` and `check_detections`.
    """
    truth = truth_by_volume(truth)
    check_detections(detections, list(truth))
    volume = pd.Index(list(truth), dtype=object).get_indexer(np.asarray(detections["volume"], dtype=object))
    in_truth_order = np.argsort(volume, kind="stable")
    score = detections["score"].to_numpy(dtype=float)[in_truth_order]
    order = in_truth_order[np.argsort(score)[::-1]]
    boxes, volume = detections[BOX3D].to_numpy(dtype=float)[order], volume[order]

    new_lesions = np.zeros(len(order), dtype=np.int64)
    is_false = np.ones(len(order), dtype=bool)
    of_volume = np.split(np.argsort(volume, kind="stable"), np.cumsum(np.bincount(volume, minlength=len(truth)))[:-1])
    for rows, lesions in zip(of_volume, truth.values(), strict=True):
        if len(rows) and len(lesions):
            overlaps = overlap_3d(boxes[rows], lesions, overlap)
            assign = _one_to_one if one_to_one else _first_hits
            new_lesions[rows], is_false[rows] = assign(overlaps, threshold)
    return Matches(
        volumes=tuple(truth),
        lesions=np.array([len(lesions) for lesions in truth.values()], dtype=np.int64),
        volume=volume,
        score=detections["score"].to_numpy(dtype=float)[order],
        new_lesions=new_lesions,
        is_false=is_false,
    )


def _first_hits(overlaps: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """Official rule on overlaps (n, m), rows by falling score: lesions first hit by each row, false positives."""
    hit = overlaps >= threshold
    first = np.argmax(hit, axis=0)[hit.any(axis=0)]
    return np.bincount(first, minlength=len(overlaps)), ~hit.any(axis=1)


def _one_to_one(overlaps: np.ndarray, threshold: float) -> tuple[np.ndarray, np.ndarray]:
    """The stricter rule: each row takes the free lesion that it overlaps most, or is a false positive."""
    taken = np.zeros(overlaps.shape[1], dtype=bool)
    found = np.zeros(len(overlaps), dtype=np.int64)
    for row in np.flatnonzero((overlaps >= threshold).any(axis=1)):
        free = np.where(taken, -1.0, overlaps[row])
        best = int(np.argmax(free))
        if free[best] >= threshold:
            taken[best] = True
            found[row] = 1
    return found, found == 0


def curve(matches: Matches) -> Curve:
    """The FROC curve: false positives per volume and sensitivity after each detection, by falling score.

    ValueError if the truth has no lesion at all, for then there is no sensitivity.
    """
    lesions = int(matches.lesions.sum())
    if lesions == 0:
        raise ValueError(f"the truth has no lesion in its {len(matches.volumes)} volume(s), so no sensitivity")
    return Curve(
        false_positives=np.cumsum(matches.is_false) / len(matches.volumes),
        sensitivity=np.cumsum(matches.new_lesions) / lesions,
        score=matches.score,
    )


def sensitivity_at(curve: Curve, rates: Sequence[float] = RATES) -> np.ndarray:
    """Sensitivity at each false positive rate: 0 before the curve begins, its last value after its end.

    The authors interpolate linearly; since a detection is never a hit and a false positive at once, the curve
    is a staircase, and the interpolated value is that of the last point at or below the rate.
    """
    points = np.searchsorted(curve.false_positives, np.asarray(rates, dtype=float), side="right")
    return np.concatenate([[0.0], curve.sensitivity])[points]


def patients(volumes: Sequence[str]) -> list[str]:
    """The patient of each volume where its name tells it (DeepLesion's 000001_01_01_103-115), else the volume."""
    names = [DEEPLESION_VOLUME.fullmatch(volume) for volume in volumes]
    return [name.group(1) if name else volume for name, volume in zip(names, volumes, strict=True)]


def times_drawn(
    volumes: Sequence[str], groups: Sequence[str] | None = None, resamples: int = 1000, seed: int = 0
) -> np.ndarray:
    """How often each volume is in each resampled test set: (resamples, volumes); see `bootstrap`."""
    groups = patients(volumes) if groups is None else list(groups)
    if len(groups) != len(volumes):
        raise ValueError(f"{len(groups)} groups for {len(volumes)} volumes: give one for each volume")
    group_of_volume, names = pd.factorize(np.array(groups, dtype=object))
    rng = generator(seed, Stream.FROC_BOOTSTRAP, len(names))
    return rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)[:, group_of_volume]


def bootstrap(
    matches: Matches,
    groups: Sequence[str] | None = None,
    resamples: int = 1000,
    seed: int = 0,
    rates: Sequence[float] = RATES,
) -> np.ndarray:
    """Sensitivities of resampled test sets: (resamples, rates); the row means are samples of the average.

    Whole groups (patients, by default as `patients` finds them) are drawn with replacement, since the scans of
    one patient are not independent. The draw depends on the groups and the seed alone: methods that were
    matched to the same truth see the same resampled sets, so their samples can be subtracted (paired).
    A resampled set without lesions gives NaN.
    """
    draws = times_drawn(matches.volumes, groups, resamples, seed)
    decides = (matches.new_lesions > 0) | matches.is_false
    volume, found, is_false = matches.volume[decides], matches.new_lesions[decides], matches.is_false[decides]
    samples = np.full((resamples, len(rates)), np.nan)
    for sample, times in zip(samples, draws, strict=True):
        lesions = times @ matches.lesions
        if lesions:
            of_detection = times[volume]
            false_positives = np.cumsum(of_detection * is_false) / times.sum()
            points = np.searchsorted(false_positives, rates, side="right")
            sample[:] = np.concatenate([[0], np.cumsum(of_detection * found)])[points] / lesions
    return samples


def averages(matches: Matches, groups: Sequence[str] | None = None, resamples: int = 1000, seed: int = 0) -> np.ndarray:
    """The average sensitivity, followed by its bootstrap samples: (1 + resamples,)."""
    samples = bootstrap(matches, groups, resamples, seed).mean(axis=1)
    return np.r_[sensitivity_at(curve(matches)).mean(), samples]


def interval(samples: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """The central interval of bootstrap samples (percentiles), NaN samples left out."""
    tail = 50 * (1 - level)
    low, high = np.nanpercentile(samples, [tail, 100 - tail])
    return float(low), float(high)


def evaluate(
    truth: dict[str, np.ndarray] | pd.DataFrame,
    detections: pd.DataFrame,
    overlap: str = "iobb",
    threshold: float = 0.3,
    one_to_one: bool = False,
    groups: Sequence[str] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Evaluation:
    """Match, make the curve, read it at 1/8 to 8 false positives per volume, bootstrap the average (LENS Sec. VI-C)."""
    matches = match(truth, detections, overlap, threshold, one_to_one)
    sensitivity = sensitivity_at(curve(matches))
    low = high = float("nan")
    if resamples:
        low, high = interval(bootstrap(matches, groups, resamples, seed).mean(axis=1))
    return Evaluation(RATES, tuple(sensitivity.tolist()), float(sensitivity.mean()), low, high, matches)


def difference(
    first: Matches, second: Matches, groups: Sequence[str] | None = None, resamples: int = 1000, seed: int = 0
) -> Difference:
    """Average sensitivity of `first` minus that of `second`, and its paired bootstrap interval.

    ValueError unless both were matched to the same volumes.
    """
    if first.volumes != second.volumes:
        raise ValueError("a paired difference needs two methods on the same volumes in the same order")
    apart = averages(first, groups, resamples, seed) - averages(second, groups, resamples, seed)
    return Difference(float(apart[0]), *interval(apart[1:]))
