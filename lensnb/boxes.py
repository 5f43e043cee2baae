"""Boxes: the one table schema, overlaps, suppression, and stacking 2D boxes to 3D lesions.

A box is (x1, y1, x2, y2) in pixel-centre index coordinates: the centre of pixel 7 is at 7.0. Slices are counted
by integers, and z1, z2 are both inside the lesion.
"""

import numpy as np
import pandas as pd

BOX = ["x1", "y1", "x2", "y2"]
BOX3D = ["x1", "y1", "z1", "x2", "y2", "z2"]
MARK = ["coordX", "coordY", "coordZ"]  # a point in patient mm (LPS), as LUNA16 calls it
COLUMNS = [
    "dataset",
    "patient",
    "study",
    "series",
    "volume",
    "lesion",
    "z",
    *BOX,
    "z1",
    "z2",
    "source",
    "expert",
    "score",
]


def intersection(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Area that boxes `a` (..., 4) and `b` (..., 4) share, one with one as numpy broadcasts them, in square pixels."""
    width = np.minimum(a[..., 2], b[..., 2]) - np.maximum(a[..., 0], b[..., 0])
    height = np.minimum(a[..., 3], b[..., 3]) - np.maximum(a[..., 1], b[..., 1])
    return width.clip(0) * height.clip(0)


def area(boxes: np.ndarray) -> np.ndarray:
    """Area of boxes (..., 4): (...), in square pixels."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def paired_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes `a` (..., 4) and `b` (..., 4), one with one as numpy broadcasts them."""
    shared = intersection(a, b)
    return shared / np.maximum(area(a) + area(b) - shared, 1e-9)


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of every box of `a` (n, 4) with every box of `b` (m, 4): (n, m)."""
    return paired_iou(a[:, None], b[None, :])


def iobb(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over the area of the detected box `a` (n, 4), for every true box of `b` (m, 4): (n, m)."""
    return intersection(a[:, None], b[None, :]) / np.maximum(area(a)[:, None], 1e-9)


def nms_table(table: pd.DataFrame, threshold: float, keys: tuple[str, ...] = ("volume", "z")) -> pd.DataFrame:
    """Non-maximum suppression among the rows that agree in `keys`: keep the best of boxes with IoU > threshold.

    Returns the kept rows in their original order. Rows with equal scores are decided by their order.
    """
    if table.empty:
        return table
    group = table.groupby(list(keys), observed=True, sort=False).ngroup().to_numpy()
    # lexsort keeps the order of rows with equal keys; its last key is the first to sort by
    order = np.lexsort((-table["score"].to_numpy(np.float64), group))
    group, boxes = group[order], table[BOX].to_numpy(np.float64)[order]
    areas = area(boxes)
    left = np.arange(len(boxes))  # those not decided yet, best first in each group
    kept = []
    while len(left):  # in each round every group keeps its best box and drops what overlaps it
        begins = np.flatnonzero(np.diff(group[left], prepend=-1))
        sizes = np.diff(begins, append=len(left))
        best = left[begins]
        kept.append(best)
        rest, rival = np.delete(left, begins), np.repeat(best, sizes - 1)
        shared = intersection(boxes[rest], boxes[rival])
        # not paired_iou: as torchvision.ops.nms has it, so that boxes of nearly no area are decided alike
        with np.errstate(invalid="ignore", divide="ignore"):
            overlap = shared / (areas[rest] + areas[rival] - shared)
        left = rest[~(overlap > threshold)]
    return table.iloc[np.sort(order[np.concatenate(kept)])]


def stack_to_tracklets(boxes: pd.DataFrame, theta: float) -> pd.DataFrame:
    """Group 2D boxes of consecutive slices into tracklets, each a recovered 3D lesion (LENS Sec. IV-C and V-A).

    A box of slice z continues a tracklet that ends on slice z - 1 if their IoU is over `theta`. The paper does not
    say what happens when several would do; here the pair with the highest IoU goes first and nobody is used twice.

    `boxes`: volume, z, x1, y1, x2, y2, ... Returns the same rows sorted by volume and slice, with `tracklet`, an
    integer that is unique in the table. A box without a partner is a tracklet of one slice.
    """
    ordered = boxes.sort_values(["volume", "z"], kind="stable").reset_index(drop=True)
    volume = pd.factorize(ordered["volume"])[0]
    z = ordered["z"].to_numpy(np.int64)
    coordinates = ordered[BOX].to_numpy(np.float64)
    starts = np.flatnonzero(np.r_[True, (np.diff(volume) != 0) | (np.diff(z) != 0)]) if len(z) else np.array([], int)
    ends = np.r_[starts[1:], len(z)] if len(z) else starts
    tracklet = np.full(len(z), -1)
    count = 0
    for group, (start, end) in enumerate(zip(starts, ends, strict=True)):
        if group and volume[start - 1] == volume[start] and z[start - 1] == z[start] - 1:
            before = slice(starts[group - 1], ends[group - 1])
            for i, j in _best_pairs(iou(coordinates[before], coordinates[start:end]), theta):
                tracklet[start + j] = tracklet[starts[group - 1] + i]
        new = np.flatnonzero(tracklet[start:end] < 0)
        tracklet[start + new] = count + np.arange(len(new))
        count += len(new)
    return ordered.assign(tracklet=tracklet)


def _best_pairs(overlap: np.ndarray, threshold: float) -> list[tuple[int, int]]:
    """Pairs (row, column) with overlap > threshold, best first, each row and column used once."""
    rows, columns = np.nonzero(overlap > threshold)
    used_rows, used_columns, pairs = set(), set(), []
    for k in np.argsort(-overlap[rows, columns], kind="stable"):
        if rows[k] not in used_rows and columns[k] not in used_columns:
            used_rows.add(rows[k])
            used_columns.add(columns[k])
            pairs.append((int(rows[k]), int(columns[k])))
    return pairs


def trim_tracklets(tracklets: pd.DataFrame, fraction: float) -> pd.DataFrame:
    """Drop the boxes of a tracklet whose score is below `fraction` of the tracklet's best score.

    A tracklet tends to run on, with fading scores, into slices where the lesion has ended. 0 keeps all boxes.
    """
    best = tracklets.groupby("tracklet")["score"].transform("max")
    return tracklets[tracklets["score"] >= fraction * best]


def tracklets_to_3d(tracklets: pd.DataFrame) -> pd.DataFrame:
    """One 3D box per tracklet: x and y are the average of its 2D boxes weighted by their scores (LENS Sec. IV-C).

    Returns volume, tracklet, x1, y1, z1, x2, y2, z2, score (the best of its slices), z (the slice with that score)
    and expert (whose box it is), sorted by tracklet.
    """
    if tracklets.empty:
        return pd.DataFrame(columns=["volume", "tracklet", *BOX3D, "z", "score", "expert"])
    weight = tracklets["score"].to_numpy(np.float64)
    sums = (tracklets[BOX].astype(np.float64).mul(weight, axis=0)).groupby(tracklets["tracklet"]).sum()
    mean = sums.div(tracklets["score"].astype(np.float64).groupby(tracklets["tracklet"]).sum(), axis=0)
    groups = tracklets.groupby("tracklet")
    best = tracklets.loc[groups["score"].idxmax()].set_index("tracklet")
    result = mean.assign(z1=groups["z"].min(), z2=groups["z"].max(), z=best["z"], score=best["score"])
    result["volume"] = best["volume"].astype(str)
    result["expert"] = best["expert"].astype(str) if "expert" in best else ""
    return result.reset_index()[["volume", "tracklet", *BOX3D, "z", "score", "expert"]]


def slices_of(boxes3d: pd.DataFrame) -> pd.DataFrame:
    """One row per slice of each 3D box (z1, z2 may be fractional and are rounded), with `z`."""
    first = np.rint(boxes3d["z1"].to_numpy(float)).astype(int)
    last = np.rint(boxes3d["z2"].to_numpy(float)).astype(int)
    count = np.maximum(last - first + 1, 1)
    rows = np.repeat(np.arange(len(boxes3d)), count)
    return boxes3d.iloc[rows].assign(z=ranges(first, count)).reset_index(drop=True)


def ranges(first: np.ndarray, count: np.ndarray) -> np.ndarray:
    """The whole numbers first[i], first[i] + 1, ... of ranges of different lengths count[i], one after another.

    ranges([10, 20], [2, 3]) is [10, 11, 20, 21, 22].
    """
    first, count = np.asarray(first), np.asarray(count)
    before = np.cumsum(count) - count  # how many numbers the earlier ranges have
    return np.arange(count.sum()) + np.repeat(first - before, count)


def overlapping(boxes: pd.DataFrame, others: pd.DataFrame, theta: float) -> np.ndarray:
    """For each row of `boxes` whether a row of `others` on its slice has IoU > theta with it: (n,) bool."""
    pairs = same_slice_pairs(boxes, others)
    hit = np.zeros(len(boxes), dtype=bool)
    hit[pairs.loc[pairs["iou"] > theta, "a"]] = True
    return hit


def on_slices_of(boxes: pd.DataFrame, labels: pd.DataFrame) -> pd.DataFrame:
    """The rows of `boxes` that lie on a slice which has a row in `labels`."""
    a, b = slice_keys(boxes, labels)
    return boxes[np.isin(a, b)]


def same_slice_pairs(a: pd.DataFrame, b: pd.DataFrame) -> pd.DataFrame:
    """All pairs of rows of `a` and `b` on the same slice of the same volume: row positions a, b and their IoU."""
    key_a, key_b = slice_keys(a, b)
    order = np.argsort(key_b, kind="stable")
    # in that order, the rows of b on the slice of row i of a stand together: count[i] of them, beginning at first[i]
    first = np.searchsorted(key_b[order], key_a, side="left")
    count = np.searchsorted(key_b[order], key_a, side="right") - first
    i = np.repeat(np.arange(len(a)), count)
    j = order[ranges(first, count)]
    return pd.DataFrame({"a": i, "b": j, "iou": paired_iou(a[BOX].to_numpy(float)[i], b[BOX].to_numpy(float)[j])})


def slice_keys(a: pd.DataFrame, b: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """A whole number for the slice of each row of `a` (n,) and of `b` (m,), the same for the same slice of a volume."""
    names = np.concatenate([a["volume"].astype(str).to_numpy(object), b["volume"].astype(str).to_numpy(object)])
    volume = pd.factorize(names)[0].astype(np.int64)
    z = np.concatenate([a["z"].to_numpy(float), b["z"].to_numpy(float)])
    key = volume * 1_000_000 + np.rint(z).astype(np.int64)
    return key[: len(a)], key[len(a) :]


def boxes_on_slice(boxes: pd.DataFrame, z: int) -> pd.DataFrame:
    """The boxes that lie on slice z: those with that z, and 3D boxes with z1 <= z <= z2."""
    if "z" in boxes and boxes["z"].notna().all():
        return boxes[boxes["z"] == z]
    return boxes[(boxes["z1"] <= z + 0.5) & (boxes["z2"] >= z - 0.5)]
