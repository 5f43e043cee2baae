"""How large lesions are: the long diameters of the real datasets, and how round, by type.

TENTHS are the 10th, 50th and 90th percentiles (mm) of published.csv: of DeepLesion's marks by type, of LUNA16's
diameters and of NIH-LN's short axes. Between them, and beyond to 2 % and 98 %, the logarithm of the diameter is linear
in the rank. Marks are larger than lesions are, because the small ones are left out: published.csv tells the share
marked in each third of all lesions by size, and that turns the rank among all lesions into a rank among the marks.
"""

import numpy as np

TENTHS = {
    "lung": (4.112, 12.58, 37.27),
    "liver": (9.278, 22.88, 64.7),
    "mediastinum": (10.41, 18.17, 35.77),
    "abdomen": (9.988, 20.79, 49.64),
    "kidney": (8.795, 19.33, 50.88),
    "bone": (7.474, 14.98, 29.02),
    "soft tissue": (10.9, 21.18, 42.74),
    "LUNA16": (4.396, 6.434, 15.48),
    "NIH-LN": (9.612, 13.4, 22.6),  # short axes
}
MARKED = (0.1451, 0.1686, 0.4363)  # of the small, middle and large third; together a quarter
# what this body can hold: lesions of a larger long diameter are drawn again (guesses)
LARGEST_MM = {
    "lung": 70, "liver": 75, "node": 50, "kidney": 55, "bone": 40, "soft tissue": 50, "adrenal": 50, "spleen": 45,
}  # fmt: skip
SMALLEST_SHORT_MM = {"node": 8.0}  # thinner nodes are normal ones; between 8 and 10 mm there are both
# short over long diameter at 5, 25, 50, 75 and 95 % of DeepLesion's marks (DL_info.csv, 10857 rows)
RANKS = (0.05, 0.25, 0.5, 0.75, 0.95)
SHORT_OVER_LONG = {
    "lung": (0.41, 0.62, 0.77, 0.88, 0.97),
    "liver": (0.52, 0.71, 0.81, 0.90, 0.98),
    "node": (0.43, 0.60, 0.72, 0.84, 0.96),
    "kidney": (0.57, 0.75, 0.85, 0.93, 0.98),
    "bone": (0.43, 0.61, 0.75, 0.85, 0.97),
    "soft tissue": (0.39, 0.57, 0.69, 0.81, 0.94),
    "adrenal": (0.42, 0.61, 0.73, 0.85, 0.96),
    "spleen": (0.42, 0.61, 0.73, 0.85, 0.96),
}
TRIES = 400  # for a size above smallest_mm


def diameter_mm(tenths: tuple[float, float, float], rank: np.ndarray | float) -> np.ndarray:
    """The diameter (mm) at a rank (0 to 1): log-linear between the percentiles, constant beyond 2 % and 98 %."""
    low, middle, high = np.log(tenths)
    ranks = (0.02, 0.1, 0.5, 0.9, 0.98)
    below, above = low - 0.2 * (middle - low), high + 0.2 * (high - middle)  # as steep as beside it
    return np.exp(np.interp(rank, ranks, (below, low, middle, high, above)))


def rank_among_marks(rank: np.ndarray | float) -> np.ndarray:
    """The rank among the marked lesions of the lesion of this rank (0 to 1) among all."""
    return np.interp(rank, np.linspace(0, 1, 4), np.concatenate([[0], np.cumsum(MARKED)]) / sum(MARKED))


def draw_size(rng: np.random.Generator, kind: str, region: str, smallest_mm: float, sizes: str) -> tuple[float, float]:
    """Long diameter (mm) and short over long of a lesion of a type, drawn again while it is too small or too large.

    `sizes`: "LUNA16" and "NIH-LN" have tables of their own for nodules and nodes, else DeepLesion's serve. Raises
    ValueError if no lesion of the type is as large as `smallest_mm`.
    """
    for _ in range(TRIES):
        aspect = float(np.interp(rng.random(), (0, *RANKS, 1), (0.35, *SHORT_OVER_LONG[kind], 1.0)))
        if sizes == "LUNA16" and kind == "lung":
            long_ = float(diameter_mm(TENTHS[sizes], rng.random()))
        elif sizes == "NIH-LN" and kind == "node":
            long_ = float(diameter_mm(TENTHS[sizes], rng.random())) / aspect
        else:
            long_ = float(diameter_mm(TENTHS[_table(kind, region)], rank_among_marks(rng.random())))
        if smallest_mm <= long_ <= LARGEST_MM[kind] and long_ * aspect >= SMALLEST_SHORT_MM.get(kind, 0):
            return long_, aspect
    raise ValueError(f"no {kind} lesion has a long diameter between {smallest_mm} and {LARGEST_MM[kind]} mm")


def _table(kind: str, region: str) -> str:
    """The row of TENTHS for a lesion type: DeepLesion's coarse types part nodes by where they are."""
    if kind == "node":
        return "abdomen" if region == "abdomen" else "mediastinum"
    return "abdomen" if kind in ("adrenal", "spleen") else kind
