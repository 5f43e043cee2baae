"""How the patients of each dataset were chosen and scanned: regions, slices, noise, and how many lesions they have.

A number without a source is a guess. Noise and kernels of the four datasets overlap and as many scans have a padded
border, so that the texture does not tell which dataset a scan is of. Slices do differ, as they do in reality, but the
grid that all are brought to is coarser than most.
"""

from dataclasses import dataclass

from lensnb.phantom.lesions import RATES

REGIONS = {  # lowest z of the sub-volume, mm
    "chest": (12.0, 62.0),
    "abdomen": (-165.0, -112.0),
    "base": (-62.0, -30.0),
    "upper abdomen": (-112.0, -80.0),
}
SHARES = {"chest": 0.44, "abdomen": 0.44, "base": 0.12}  # of the universal dataset's patients


@dataclass(frozen=True)
class Scanning:
    """How a dataset's patients were scanned.

    slice_mm: distances of slices with their probabilities. smooth (0 sharp kernel, 1 soft): lowest and highest.
    """

    slice_mm: tuple[tuple[float, ...], tuple[float, ...]]
    smooth: tuple[float, float]


NOISE_HU = (6.0, 12.0)
PADDED = 0.1  # share of scans with -2048 outside of the reconstruction circle
SCANNING = {
    # DL_info.csv: 47.8 % of the marks on slices of 1.25 mm or less, 49.8 % of 4.5 mm or more
    "DeepLesion": Scanning(((1.0, 2.0, 5.0), (0.48, 0.02, 0.50)), (0.2, 0.9)),
    # at most 2.5 mm (Setio et al. 2017); LIDC-IDRI's mean is 1.74 mm (Armato et al. 2011), the shares are a guess
    "LUNA16": Scanning(((1.0, 1.25, 2.0, 2.5), (0.15, 0.35, 0.10, 0.40)), (0.1, 0.8)),
    # 0.7 to 5 mm, in the median 1 mm (Bilic et al. 2019); the shares are a guess
    "LiTS": Scanning(((1.0, 1.5, 2.5, 5.0), (0.50, 0.15, 0.15, 0.20)), (0.3, 1.0)),
    # 139 of 175 cases with 1 mm, 33 with 1.25 mm, one with 1.5 and two with 5 mm
    "NIH-LN": Scanning(((1.0, 1.25, 1.5, 5.0), (0.79, 0.19, 0.01, 0.01)), (0.2, 0.9)),
}


@dataclass(frozen=True)
class Collection:
    """A single-type dataset as a whole.

    volumes: the setting that says how many scans there are. stream, held_out_stream: second number of their random
    seeds. type: of its lesions. mean, shape: their number in a scan is negative binomial with these, in `regions` that
    can have any. regions: with their shares. none_in: regions without a lesion of its type, others have at least one
    if `never_empty`. others: mean number of lesions of the other types by region; a patient selected for one disease
    has them as often as the universal dataset's, which RATES has.
    """

    volumes: str
    stream: int
    held_out_stream: int
    type: str
    mean: float
    shape: float
    regions: dict[str, float]
    others: dict[str, dict[str, float]]
    none_in: tuple[str, ...] = ()
    never_empty: bool = False

    def rates(self, region: str, factor: float) -> dict[str, float]:
        """Mean number of lesions of each type in a scan that has `factor` times the mean number of its own type."""
        own = 0.0 if region in self.none_in else self.mean * factor
        return self.others[region] | {self.type: own}


# 7.5 % of the persons screened by CT had another significant finding (NLST, NEJM 2011); its parts are a guess
_SCREENED = {"node": 0.04, "bone": 0.02, "soft tissue": 0.015}
COLLECTIONS = {
    # 1,186 nodules in 888 scans, 287 of which have none: mean and shape. A screening chest reaches below the lungs, to
    # the adrenal glands: in a quarter of the sub-volumes its expert learns what liver, spleen and kidneys look like.
    # Without them it would take anything there for a nodule, which the real one does not
    "LUNA16": Collection("luna_volumes", 4, 7, "lung", 1.336, 3.5, {"chest": 0.75, "upper abdomen": 0.25},
                         {"chest": _SCREENED, "upper abdomen": {"liver": 0.03, "kidney": 0.03, "adrenal": 0.015}}),
    # 908 tumours in 131 scans, 13 of which have none: 7.7 in each of the others; shape guessed. The scans reach from
    # the abdomen alone to the whole trunk, so a tenth shows the chest and a quarter the liver's dome with lung bases
    "LiTS": Collection("lits_volumes", 5, 8, "liver", 7.2, 1.5, {"abdomen": 0.65, "base": 0.25, "chest": 0.10},
                       RATES, none_in=("chest",), never_empty=True),
    # 983 nodes in 176 cases (90 mediastinal, 86 abdominal), 1 to 34: 5.6 on average with a variance of 33.9
    "NIH-LN": Collection("nihln_volumes", 6, 9, "node", 4.7, 1.1, {"chest": 0.5, "abdomen": 0.5}, RATES,
                         never_empty=True),
}  # fmt: skip


def in_turn(shares: dict | list | tuple, count: int) -> list[int]:
    """Indices of `shares`, `count` of them, so that every beginning of the list has them as nearly as possible."""
    parts = list(shares.values() if isinstance(shares, dict) else shares)
    taken, order = [0] * len(parts), []
    for n in range(1, count + 1):
        lacking = [n * share - had for share, had in zip(parts, taken, strict=True)]
        order.append(lacking.index(max(lacking)))
        taken[order[-1]] += 1
    return order
