"""One lesion that was bookmarked more than once, as by two radiologists, becomes one bookmark (DeepLesion Sec. 2.2.1).

The paper merges boxes that overlap by more than 60 % by averaging their coordinates. Overlap is the intersection over
union: of the pairs of boxes on one slice that DL_info.csv still has, none has more than .596. Here the ends of the
diameters are averaged, and the box follows from them, since in all rows of DL_info.csv the box is the hull of the ends.
The paper looks for wrong boxes first and for doubles then. So must one: the mean of a right box and a wrong one is
neither, and no rule would flag it.
"""

from itertools import combinations, product

import numpy as np
import pandas as pd

from lensnb.bookmarks.recist import hull_box
from lensnb.boxes import paired_iou
from lensnb.ct.grid_shapes import DIAMETERS

MEAN = [f"mean_{name}" for name in DIAMETERS]  # the ends of a lesion, of all bookmarks that are of it


def merge(bookmarks: pd.DataFrame, margin_px: float, iou: float) -> pd.DataFrame:
    """Merge bookmarks of one slice (series_uid, slice) whose boxes with a margin overlap by more than `iou`.

    Only those are merged that the same rules for wrong ones flag (the column rules), or that none does.
    Those that overlap most go first, and what was merged can be merged again, so that no such pair is left. Returns the
    table with MEAN, which are DIAMETERS, averaged for the first bookmark of a lesion with several, and merged_into, the
    number of that bookmark in the others, 0 in all else. Bookmarks with left_out are not looked at.
    """
    table = bookmarks.assign(merged_into=0)
    table[MEAN] = table[DIAMETERS].to_numpy()
    kept = table[table["left_out"] == ""]
    for _, part in kept.groupby(["series_uid", "slice", "rules"], sort=False):
        if len(part) < 2:
            continue
        groups = _groups(part[DIAMETERS].to_numpy(float).reshape(-1, 4, 2), margin_px, iou)
        for members, mean in groups:
            first, *others = sorted(members)
            table.loc[part.index[first], MEAN] = mean.ravel()
            table.loc[part.index[others], "merged_into"] = table.at[part.index[first], "bookmark"]
    return table


def _groups(ends: np.ndarray, margin_px: float, iou: float) -> list[tuple[list[int], np.ndarray]]:
    """Which of the diameters (n, 4, 2) are of one lesion, and their mean (4, 2); those of several members only."""
    groups = [([i], ends[i]) for i in range(len(ends))]
    while len(groups) > 1:
        boxes = hull_box(np.stack([mean for _, mean in groups]).reshape(-1, 8), margin_px)
        pairs = list(combinations(range(len(groups)), 2))
        overlap = [float(paired_iou(boxes[i], boxes[j])) for i, j in pairs]
        best = int(np.argmax(overlap))
        if overlap[best] <= iou:
            break
        i, j = pairs[best]
        members = groups[i][0] + groups[j][0]
        alike = [aligned(ends[k], ends[members[0]]) for k in members]
        groups = [group for k, group in enumerate(groups) if k not in (i, j)] + [(members, np.mean(alike, axis=0))]
    return [group for group in groups if len(group[0]) > 1]


def aligned(ends: np.ndarray, like: np.ndarray) -> np.ndarray:
    """The same two lines (4, 2), their ends and, in a round lesion, the lines themselves in the order of `like`."""
    ways = []
    for lines, first, second in product((False, True), repeat=3):
        one, other = (ends[2:], ends[:2]) if lines else (ends[:2], ends[2:])
        ways.append(np.concatenate([one[::-1] if first else one, other[::-1] if second else other]))
    return min(ways, key=lambda way: float(((way - like) ** 2).sum()))
