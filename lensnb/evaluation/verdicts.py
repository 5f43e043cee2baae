"""What an interval says about a claim: whether it holds, and whether its size is the paper's.

Every verdict of LENS's and LesaNet's claims is given here, so that the words mean the same in all tables.
"""

import numpy as np

HOLDS, FAILS, UNDECIDED = VERDICTS = "holds", "fails", "undecided"
AGREES, SMALLER, LARGER = "agrees", "smaller", "larger"
LEVEL = 0.05  # of a verdict that is wrong, of one claim or of all that are corrected together
# A claim that something does not help can never be shown by an interval above 0: it holds if less than this is gained.
MARGIN = 0.01


def by_interval(low: float, high: float, bound: float = 0.0) -> str:
    """The verdict on "the difference is over `bound`" from its interval.

    "holds" if the whole interval lies above the bound, "fails" if all of it lies below, "undecided" otherwise, also
    without an interval (NaN). For "b does not help" the difference is that of a - b and the bound is -MARGIN: it holds
    if b is certainly better by less than MARGIN, fails if b is certainly better by more (a test of non-inferiority).
    """
    return HOLDS if low > bound else FAILS if high < bound else UNDECIDED


def by_p(value: float, p: float) -> str:
    """The verdict on "the difference is over 0" from its value and a two-sided p, which may be a corrected one."""
    if not p < LEVEL or value == 0:
        return UNDECIDED
    return HOLDS if value > 0 else FAILS


def size(paper: float, low: float, high: float) -> str:
    """Whether the paper's difference of log odds lies in the interval of ours.

    "agrees" if it does, "smaller" if all of ours lies below it, "larger" if above; "" where one of them is missing.
    Log odds, since ours are at another level than the paper's, and a point means more near 0 and 1 than at one half.
    """
    if np.isnan([paper, low, high]).any():
        return ""
    return SMALLER if high < paper else LARGER if low > paper else AGREES


def log_odds(share: np.ndarray | float) -> np.ndarray | float:
    """log(p / (1 - p)), on which differences at different levels can be compared."""
    share = np.clip(share, 1e-6, 1 - 1e-6)
    return np.log(share) - np.log1p(-share)
