"""What mining knows of the patients of one split: the tables that every strategy is handed."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pandas as pd


@dataclass(frozen=True)
class Embedded:
    """Unit vectors of annotations (n, d) and of tracklets (m, d), whose `centres` have one row a tracklet."""

    annotations: np.ndarray
    centres: pd.DataFrame
    tracklets: np.ndarray


@dataclass(frozen=True)
class Patients:
    """What mining knows of the patients of one split; a strategy looks at the parts that it needs.

    annotations: label rows of the radiologists' marks.
    proposals: 2D boxes of all experts (volume, z, x1, y1, x2, y2, expert, score) with their origin, see `add_origin`.
    tracklets: the experts' fused 2D boxes, with `tracklet` and their origin.
    mined: label rows that earlier strategies found and that count as lesions; one table for each.
    embedded: vectors of annotations and tracklets, see `embed`.
    """

    annotations: pd.DataFrame
    proposals: pd.DataFrame | None = None
    tracklets: pd.DataFrame | None = None
    mined: tuple[pd.DataFrame, ...] = ()
    embedded: Embedded | None = None

    @cached_property
    def known(self) -> pd.DataFrame:
        """Label rows of all that counts as a lesion so far: annotations and what earlier strategies mined."""
        return pd.concat([self.annotations, *self.mined], ignore_index=True)

    def with_mined(self, mined: pd.DataFrame) -> "Patients":
        """The same patients for the next strategy, which knows these lesions too."""
        return replace(self, mined=(*self.mined, mined))


def needed(patients: Patients, part: str, strategy: str):
    """A part of what is known of the patients; raises ValueError if it was not handed over."""
    value = getattr(patients, part)
    if value is None:
        raise ValueError(f"{strategy} mining needs the {part} of its patients, and they are not there; hand them over")
    return value


def embed(patients: Patients, embed: Callable[[pd.DataFrame], np.ndarray], score: float) -> Patients:
    """The same patients with vectors of their annotations and of the tracklets that score at least `score`.

    embed: from 2D boxes to unit vectors (n, d).
    """
    centres = centre_boxes(needed(patients, "tracklets", "intra-patient"))
    centres = centres[centres["score"] >= score].reset_index(drop=True)
    vectors = Embedded(embed(patients.annotations), centres, embed(centres))
    return replace(patients, embedded=vectors)


def centre_boxes(tracklets: pd.DataFrame) -> pd.DataFrame:
    """One row per tracklet: its box on the centre slice, with the tracklet's extent z1..z2 and highest score."""
    ordered = tracklets.sort_values(["tracklet", "z"], kind="stable")
    groups = ordered.groupby("tracklet", sort=True)
    middle = groups.cumcount().to_numpy() == (groups["z"].transform("size").to_numpy() - 1) // 2
    centre = ordered[middle].reset_index(drop=True)
    extent = groups.agg(z1=("z", "min"), z2=("z", "max"), score=("score", "max")).reset_index()
    return centre.assign(z1=extent["z1"], z2=extent["z2"], score=extent["score"])
