"""What changes from one study of a patient to the next: time goes by, lesions grow, shrink, appear and vanish.

What DeepLesion's table shows was measured in DL_info.csv: patients' ages, and marks of
one type that lie within 3 % of the image and of the body's length in consecutive studies, of which 16.3 % are 20 % or
more longer than before and 5.0 % are 30 % or more shorter, the bounds of RECIST 1.1. `python -m lensnb phantom audit`
measures the same in the phantoms. The rest are guesses, and named so.
"""

import numpy as np

MONTHS = 3.7  # from one study to the next, by the patients' ages
INTERVAL_SD = 0.5  # of the logarithm of an interval: a guess
DOUBLING_MONTHS = 3.0  # a growing lesion's volume doubles in this time, a shrinking one's halves: a guess
# with these shares, DOUBLING_MONTHS and a growth_sd of 0.1, the changes of the table come out
GROWING, SHRINKING = 0.13, 0.13
APPEARS, VANISHES = 0.08, 0.05  # chance of a lesion between two studies: guesses
LARGEST_RADIUS_MM = 40.0  # nothing grows beyond that
ELSEWHERE = 0.16  # of the follow-ups show another region; in 12 % all marks are 9 cm or more from the first study's
OTHER_REGION = {"chest": "abdomen", "abdomen": "chest"}  # the lung bases overlap with both


def months(rng: np.random.Generator, studies: int) -> np.ndarray:
    """Months of each study since the first: (studies,)."""
    apart = np.exp(rng.normal(np.log(MONTHS) - INTERVAL_SD**2 / 2, INTERVAL_SD, studies - 1))
    return np.concatenate([[0.0], np.cumsum(apart)])


def seen(rng: np.random.Generator, studies: int, lesions: int) -> np.ndarray:
    """Which lesions are there in which study: bool (studies, lesions), each in a row of studies."""
    new = rng.random(lesions) > (1 - APPEARS) ** (studies - 1)
    first = np.where(new, rng.integers(1, max(2, studies), lesions), 0)
    last = first + rng.geometric(VANISHES, lesions) - 1
    study = np.arange(studies)[:, None]
    return (first <= study) & (study <= last)


def growth(rng: np.random.Generator, when: np.ndarray, there: np.ndarray, sd: float) -> np.ndarray:
    """Diameters over those in the first study that shows the lesion: (studies, lesions).

    A trend, which is the lesion's own, and beside it lognormal changes with `sd`. when: months of each study; there:
    as from `seen`.
    """
    studies, lesions = there.shape
    luck = rng.random(lesions)
    trend = np.log(2) / 3 / DOUBLING_MONTHS * ((luck < GROWING) * 1.0 - (luck > 1 - SHRINKING))
    first = np.argmax(there, axis=0)
    change = rng.normal(0, sd, (studies, lesions))
    passed = np.maximum(0, when[:, None] - when[first])
    return np.exp(trend * passed + change - change[first, np.arange(lesions)])
