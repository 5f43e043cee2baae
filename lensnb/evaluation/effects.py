"""What several trainings and all test patients say together of one quantity: its mean, and how far that may be off.

Two things move a difference between two methods: the training (its seed, or its split of the patients) and the choice
of the test patients, whom all trainings share. The variance of the mean is the sum of both. LENS's primary claims take
seeds for trainings, LesaNet's claims take splits.
"""

from dataclasses import dataclass

import numpy as np
import scipy  # its statistics, which take a second to load, come with their first use

from lensnb.evaluation.verdicts import LEVEL

POWER = 0.8


@dataclass(frozen=True)
class Effect:
    """A mean over trainings, its standard error from trainings and patients, and that error's degrees of freedom."""

    value: float
    error: float
    freedom: float

    def interval(self, level: float = 1 - LEVEL) -> tuple[float, float]:
        """Where the true value lies, at this level of confidence."""
        half = scipy.stats.t.ppf((1 + level) / 2, self.freedom) * self.error
        return self.value - half, self.value + half

    def p(self) -> float:
        """Two-sided probability of a mean as far from 0, if that is the true value."""
        if self.error == 0:
            return float(self.value == 0)
        return float(2 * scipy.stats.t.sf(abs(self.value) / self.error, self.freedom))

    @property
    def detectable(self) -> float:
        """The smallest true difference that is found at LEVEL with probability POWER."""
        found, needed = (scipy.stats.t.ppf(part, self.freedom) for part in (1 - LEVEL / 2, POWER))
        return float((found + needed) * self.error)


def effect(values: np.ndarray, resampled: np.ndarray) -> Effect:
    """The mean of a quantity over seeds, or over splits.

    values: (seeds,), one from each seed. resampled: (seeds, draws), the same quantity on redrawn test patients, the
    same draw for all seeds in a column. The seeds' share of the variance is that of their mean, the patients' share
    that of the mean over the seeds from draw to draw; the degrees of freedom follow Satterthwaite (1946), with as good
    as infinitely many for the patients. NaN draws (no lesion among the drawn patients) are left out.
    What seeds and patients do together (a seed that is good at some patients) is in both shares and so counted twice:
    the interval is rather too wide than too narrow. A bootstrap that draws seeds and patients counts it three times.
    With three trainings that differ more than patients do, 95 % intervals hold the truth in 92 of 100 cases.
    Raises ValueError for fewer than two seeds: one says nothing about chance between them.
    """
    count = len(values)
    if count < 2:
        raise ValueError(f"{count} seed says nothing about how far seeds differ; run two or more")
    of_seeds = float(np.var(values, ddof=1)) / count
    of_patients = float(np.nanvar(resampled.mean(axis=0), ddof=1))
    both = of_seeds + of_patients
    freedom = (count - 1) * (both / of_seeds) ** 2 if of_seeds else 1e9
    return Effect(float(np.mean(values)), float(np.sqrt(both)), float(min(freedom, 1e9)))


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's corrected p of several tests, in their order: the k-th smallest of m times m + 1 - k, never falling."""
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(np.sort(p) * np.arange(len(p), 0, -1))
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(steps, 1)
    return corrected
