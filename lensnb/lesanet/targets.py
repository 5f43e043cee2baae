"""From what a report says of a lesion to what is known of every label: true, false for sure, or neither.

All matrices are bool: labels (n, C), parents (C, C) [child, parent] closed under parents of parents, exclusive (C, C)
symmetric. `lensnb.lesanet.ontology` makes the last two.
"""

from dataclasses import dataclass

import numpy as np

from lensnb.lesanet.ontology import expand


@dataclass(frozen=True)
class Targets:
    """What training takes for true, what it leaves out, and where it is sure: bool (n, C) each.

    `labels`: true, everything else counts as false. `unknown`: in no weighted cross-entropy. `reliable`: true, or
    false because a true label excludes it; the pairs that hard examples are drawn from (LesaNet Sec. 4.2).
    """

    labels: np.ndarray
    unknown: np.ndarray
    reliable: np.ndarray

    def select(self, rows: np.ndarray) -> "Targets":
        """The lesions of some rows."""
        return Targets(self.labels[rows], self.unknown[rows], self.reliable[rows])


def training_targets(
    relevant: np.ndarray, uncertain: np.ndarray, parents: np.ndarray, exclusive: np.ndarray
) -> Targets:
    """Targets of training lesions: relevant labels with all their parents, and uncertain ones (LesaNet Sec. 4.2, 5.1).

    An uncertain label is most often right as far as the image goes, so it counts as true; what follows from it, its
    parents, is left open unless a relevant label settles it. This is what the published code does. Without label
    expansion, pass no parents (all False).
    """
    true, unknown = scoring_targets(relevant, uncertain, parents, exclusive)
    true = true | uncertain
    return Targets(true, unknown & ~true, true | excluded(true, exclusive))


def scoring_targets(
    relevant: np.ndarray, uncertain: np.ndarray, parents: np.ndarray, exclusive: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """True labels of lesions to score predictions on, and what is not scored: uncertain labels and their parents.

    An uncertain label that is also true, follows from a true one or is excluded by one is scored.
    """
    true = expand(relevant, parents)
    return true, expand(uncertain, parents) & ~true & ~excluded(true, exclusive)


def excluded(labels: np.ndarray, exclusive: np.ndarray) -> np.ndarray:
    """Labels that something true excludes: (n, C). If a report contradicts itself, some of them are true as well."""
    return labels.astype(np.int64) @ exclusive > 0


def most_specific(labels: np.ndarray, parents: np.ndarray) -> np.ndarray:
    """Labels without those that another label of the lesion implies: what expansion would bring back."""
    return labels & ~(labels.astype(np.int64) @ parents > 0)
