"""A mined dataset against the truth of a simulated archive: what was found, and how right rules and mergers are.

The truth (lensnb/phantom/pacs.py) says of every bookmark what it is. It is matched by the image that the bookmark is on
and by its ends, never by names of files.
"""

from itertools import combinations

import numpy as np
import pandas as pd

from lensnb.bookmarks.marks import CSV, REPORT, STATE
from lensnb.bookmarks.merge import aligned
from lensnb.bookmarks.noise import RULES
from lensnb.ct.grid_shapes import DIAMETERS

NEAR_PX, SAME_PX = 0.1, 1.0  # ends that are right; ends that are of one bookmark at all
RIGHT = "lesion"  # what the truth calls a RECIST pair around a lesion, on an axial CT slice
KINDS = {
    "small": "small",
    "large": "large",
    "flat": "flat",
    "dark": "outside",
    "faint": "no lesion",
    "thin": "flat",
}  # rule -> what
UNKNOWN = "of no truth"  # of a bookmark that has another place than the truth says


def match(bookmarks: pd.DataFrame, truth: pd.DataFrame) -> pd.DataFrame:
    """Which bookmark with a place is which RECIST pair of the truth.

    bookmarks: form, image, slice, DIAMETERS. truth: form, image, slice (from 0 at the head), what, DIAMETERS. Returns
    the RECIST pairs of truth on axial CT, what RIGHT or a value of KINDS, with found (row label in bookmarks, -1 for
    none) and off_px, the largest distance of an end. On each image the nearest ones go first, and each is used once.
    """
    wanted = truth[truth["what"].isin([RIGHT, *KINDS.values()])]
    placed = bookmarks[bookmarks["slice"] >= 0]
    by_place = placed.groupby(["form", "image", "slice"]).groups
    found, off = pd.Series(-1, index=wanted.index), pd.Series(np.nan, index=wanted.index)
    for place, rows in wanted.groupby(["form", "image", "slice"]).groups.items():
        near = [
            (_apart(placed.loc[label, DIAMETERS], wanted.loc[row, DIAMETERS]), row, label)
            for row in rows
            for label in by_place.get(place, [])
        ]
        used = set()
        for distance, row, label in sorted(near):
            if distance <= SAME_PX and found[row] < 0 and label not in used:
                found[row], off[row] = label, distance
                used.add(label)
    return wanted.assign(found=found, off_px=off)


def _apart(one: pd.Series, other: pd.Series) -> float:
    """The largest distance of an end between two pairs of lines, whichever way round they are."""
    ends, wanted = (np.asarray(row, dtype=float).reshape(4, 2) for row in (one, other))
    return float(np.linalg.norm(aligned(ends, wanted) - wanted, axis=1).max())


def forms(matched: pd.DataFrame) -> pd.DataFrame:
    """A row a form: RECIST pairs of lesions, those found, those found to NEAR_PX, and the largest distance in px."""
    rows = []
    for form in (STATE, REPORT, CSV):
        part = matched[(matched["form"] == form) & (matched["what"] == RIGHT)]
        near = part["off_px"] <= NEAR_PX
        rows.append([form, len(part), int((part["found"] >= 0).sum()), int(near.sum()), part["off_px"].max()])
    return pd.DataFrame(rows, columns=["form", "lesions", "found", "found_to_0.1_px", "largest_off_px"])


def rules(matched: pd.DataFrame, bookmarks: pd.DataFrame) -> pd.DataFrame:
    """How right the rules for wrong bookmarks are, among those that have a place: a row a rule, and one for all.

    matched: as from `match`. bookmarks: with rules and left_out; each counts, whether it was merged or not. flagged:
    those that the rule flags; right: those of them that are wrong, whatever of; precision: their share. of_its_kind:
    wrong ones of the kind that the rule is for (KINDS), in the last row all wrong ones; recall: the share of them that
    it flags; recall_of_any_rule.
    """
    inside = bookmarks[bookmarks["left_out"] == ""]
    what = matched[matched["found"] >= 0].set_index("found")["what"].reindex(inside.index, fill_value=UNKNOWN)
    wrong = (what != RIGHT).to_numpy()
    names = [set(filter(None, text.split(", "))) for text in inside["rules"]]
    any_rule = np.array([bool(one) for one in names], dtype=bool)
    rows = []
    for rule in (*RULES, "any"):
        flagged = any_rule if rule == "any" else np.array([rule in one for one in names], dtype=bool)
        own = wrong if rule == "any" else (what == KINDS[rule]).to_numpy()
        rows.append([rule, KINDS.get(rule, "all wrong ones"), int(flagged.sum()), int((flagged & wrong).sum()),
                     _share(flagged & wrong, flagged), int(own.sum()), _share(flagged & own, own),
                     _share(any_rule & own, own)])  # fmt: skip
    columns = ["rule", "kind", "flagged", "right", "precision", "of_its_kind", "recall", "recall_of_any_rule"]
    return pd.DataFrame(rows, columns=columns)


def merges(matched: pd.DataFrame, bookmarks: pd.DataFrame) -> pd.DataFrame:
    """How right it is what was merged, in one row, counted in pairs of bookmarks on one slice.

    matched: as from `match`, with the truth's bookmark (one drawing has one number in all forms), patient, study and
    identity. twice: pairs that are one drawing, or drawings of one lesion that are right; merged: pairs that became one
    lesion of the dataset; right: both; precision, recall; wrong_with_right: merged pairs of which one alone is right.
    """
    found = matched[matched["found"] >= 0]
    rows = bookmarks.loc[found["found"]]
    into = rows["merged_into"].where(rows["merged_into"] > 0, rows["bookmark"])
    found = found.assign(place=[*zip(rows["series_uid"], rows["slice"], strict=True)], into=into.to_numpy())
    twice, merged, mixed = [], [], []
    for _, part in found.groupby("place"):
        for one, other in combinations(part.to_dict("records"), 2):
            lesion = [one[name] == other[name] for name in ("patient", "study", "identity")]
            right = one["what"] == other["what"] == RIGHT
            twice.append(one["bookmark"] == other["bookmark"] or (right and all(lesion)))
            merged.append(one["into"] == other["into"])
            mixed.append((one["what"] == RIGHT) != (other["what"] == RIGHT))
    twice, merged, mixed = (np.array(each, dtype=bool) for each in (twice, merged, mixed))
    both = twice & merged
    return pd.DataFrame([{"twice": int(twice.sum()), "merged": int(merged.sum()), "right": int(both.sum()),
                          "precision": _share(both, merged), "recall": _share(both, twice),
                          "wrong_with_right": int((merged & mixed).sum())}])  # fmt: skip


def _share(part: np.ndarray, whole: np.ndarray) -> float:
    return float(part.sum() / whole.sum()) if whole.any() else float("nan")
