"""Bookmarks that are probably wrong, by the paper's five rules (DeepLesion Sec. 2.2.1).

"Boxes that are too small/large/flat/dark or small in intensity range were manually checked." The paper gives no
thresholds. Here a box is small, large, flat or dark if it lies LIMIT robust units beyond the median of all boxes of its
dataset. A unit is what a standard deviation would be: the distance from the median to the tenth or the ninetieth
percentile over 1.28, for each side by itself. Logarithms are looked at; of the mean HU that of the density over
water's, since lung lesions would else be as far from the others as the air around the patient is. Size and shape are
those of the box without its margin, which would hide a double click.

A sixth rule is not the paper's: a mark is thin if its short diameter is too short for the long one. The sides of a box
tell that only of diameters that lie along them.

Intensity is small where the pixels of a box vary by no more than FAINT times the noise of their slice, whatever other
boxes do: percentiles would call lesions of the liver faint, as lesions of the lung vary ten times as much. Measured on
real slices, a box of plain tissue varies by 1.0 to 1.3 times the noise, and of 27 lesions the faintest by 1.36.

Of 10,857 rows of DL_info.csv the paper's rules on size and shape flag 126, among them 4 of the 17 that are marked as
possibly noisy; with the sixth they are 191 and 5. With fewer than ENOUGH boxes there are no percentiles to speak of, so
REFERENCE stands in.
"""

import numpy as np
import pandas as pd

from lensnb.bookmarks.recist import hull_box

LIMIT, FAINT = 3.0, 1.2
ENOUGH = 30
MEASURES = ["area_mm2", "side_ratio", "axis_ratio", "mean_hu", "sd_hu", "noise_hu"]
NORMAL = 1.2816  # standard deviations from the median to the ninetieth percentile
PAPERS = ("small", "large", "flat", "dark", "faint")
RULES = (*PAPERS, "thin")
LEAST_PX = 0.5  # of a side
LEAST_DENSITY = 0.01  # of air, whose mean is 10 HU off at most
TISSUE_HU = (-200, 300)  # where noise is measured: fat, soft tissue, contrast agent in organs
MAD = 0.6745  # of a normal distribution, in standard deviations
# median, unit below, unit above: from DL_info.csv but for the mean, guessed so that the limit is -930 HU, between air
# and lung
REFERENCE = {
    "area": (5.334, 1.38, 1.44),
    "ratio": (0.232, 0.144, 0.276),
    "axes": (0.288, 0.174, 0.316),
    "mean": (0.04, 0.90, 0.20),
}


def measure(ends: np.ndarray, margin_px: float, spacing_mm: tuple[float, float], plane: np.ndarray) -> pd.DataFrame:
    """What the rules look at, of bookmarks on a slice `plane` (y, x) in HU: a row each, with the columns MEASURES.

    ends (n, 8): of the diameters, x1, y1 to x4, y4. area and side_ratio (the longer side over the shorter one, in mm)
    are those of the box without its margin, axis_ratio is the longer diameter over the other one. mean and sd are those
    of the pixels whose centres lie in the box with its margin and in the image; without any, those of air. noise: of
    the whole slice.
    """
    hulls = hull_box(ends, 0.0)
    sides = np.maximum(hulls[:, 2:] - hulls[:, :2], LEAST_PX) * spacing_mm
    lines = np.asarray(ends, dtype=float).reshape(-1, 2, 2, 2)
    axes = np.maximum(
        np.linalg.norm((lines[:, :, 1] - lines[:, :, 0]) * spacing_mm, axis=2), LEAST_PX * min(spacing_mm)
    )
    low, high = np.ceil(hulls[:, :2] - margin_px).astype(int), np.floor(hulls[:, 2:] + margin_px).astype(int)
    rows, noise = [], noise_of(plane)
    for (x1, y1), (x2, y2) in zip(np.maximum(low, 0), high, strict=True):
        inside = plane[y1 : max(y1, y2 + 1), x1 : max(x1, x2 + 1)]
        rows.append((float(inside.mean()), float(inside.std()), noise) if inside.size else (-1000.0, 0.0, noise))
    found = pd.DataFrame(rows, columns=["mean_hu", "sd_hu", "noise_hu"])
    ratios = [part.max(axis=1) / part.min(axis=1) for part in (sides, axes)]
    return found.assign(area_mm2=sides.prod(axis=1), side_ratio=ratios[0], axis_ratio=ratios[1])[MEASURES]


def noise_of(plane: np.ndarray) -> float:
    """The standard deviation of the noise in a slice (y, x) in HU: the median difference of neighbours in tissue.

    It is short of the truth where a soft kernel makes neighbours alike. NaN in a slice without tissue.
    """
    tissue = (plane > TISSUE_HU[0]) & (plane < TISSUE_HU[1])
    differences = np.abs(np.diff(plane.astype(np.float32), axis=1))[tissue[:, 1:] & tissue[:, :-1]]
    return float(np.median(differences) / MAD / np.sqrt(2)) if differences.size else float("nan")


def in_units(measured: pd.DataFrame) -> pd.DataFrame:
    """The boxes of a dataset as the rules judge them: area, ratio, axes, mean in robust units; noise: sd over it."""
    values = {
        "area": np.log(measured["area_mm2"].to_numpy(float)),
        "ratio": np.log(measured["side_ratio"].to_numpy(float)),
        "axes": np.log(measured["axis_ratio"].to_numpy(float)),
        "mean": np.log(np.maximum(1 + measured["mean_hu"].to_numpy(float) / 1000, LEAST_DENSITY)),
    }
    units = {}
    for name, column in values.items():
        middle, below, above = REFERENCE[name]
        if len(column) >= ENOUGH:
            low, middle, high = np.percentile(column, (10, 50, 90))
            below, above = (max(float(side), 1e-6) / NORMAL for side in (middle - low, high - middle))
        units[name] = np.where(column < middle, (column - middle) / below, (column - middle) / above)
    noise = np.maximum(measured["noise_hu"].to_numpy(float), 1e-3)
    return pd.DataFrame(units | {"noise": measured["sd_hu"].to_numpy(float) / noise}, index=measured.index)


def flag(units: pd.DataFrame) -> pd.DataFrame:
    """Which boxes each rule flags: bool columns RULES."""
    area, ratio, axes, mean, noise = (units[name] for name in ("area", "ratio", "axes", "mean", "noise"))
    flags = (area < -LIMIT, area > LIMIT, ratio > LIMIT, mean < -LIMIT, noise < FAINT, axes > LIMIT)
    return pd.DataFrame(dict(zip(RULES, flags, strict=True)))


def reasons(flags: pd.DataFrame) -> pd.Series:
    """The rules that flag each box, as "dark, faint"; empty for none."""
    texts = [", ".join(rule for rule in RULES if row[rule]) for row in flags.to_dict("records")]
    return pd.Series(texts, index=flags.index, dtype=object)
