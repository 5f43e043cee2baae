"""What share of each kind of lesion is found, with intervals over patients, and counts where a share would say nothing.

The patients are drawn as for the average sensitivity (`froc.bootstrap`), and the same ones for all methods, so that the
samples of two methods can be subtracted. In each draw the score threshold is set anew to the false positive rate.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from lensnb.boxes import BOX3D
from lensnb.evaluation import froc

FEWEST = 30  # lesions of a kind of which a percentage is told; of fewer, how many were found
HIT = 0.3  # 3D IoBB, as in the official evaluation (LENS Sec. VI-C)


def shares_by(
    column: str, found: pd.DataFrame, lesions: pd.DataFrame, volumes: Sequence[str], rate: float = 1.0,
    resamples: int = 1000,
) -> pd.DataFrame:  # fmt: skip
    """Share of the lesions with each value of `column` that are found at `rate` false positives per volume.

    found: 3D detections of `volumes`, with score; lesions: all true lesions of these volumes as 3D boxes with `column`
    (the phantoms' truth knows type, organ and marked), in the same coordinates. One score threshold holds for all
    lesions, and every detection that hits none of them is a false positive.
    Returns a line for the test set itself and one for each of the redrawn ones: (1 + resamples, kinds), columns sorted.
    A draw without a lesion of a kind has NaN there.
    """
    names = np.array([str(volume) for volume in volumes], dtype=object)
    truth = {v: lesions.loc[lesions["volume"].astype(str) == v, BOX3D].to_numpy(float) for v in names}
    matches = froc.match(truth, found.assign(volume=found["volume"].astype(str)))
    wrong = matches.is_false
    volume_of_wrong, score_of_wrong = matches.volume[wrong], matches.score[wrong]
    best, volume_of_lesion = _best_scores(found, lesions), pd.Index(names).get_indexer(lesions["volume"].astype(str))
    kind, kinds = pd.factorize(lesions[column].to_numpy(), sort=True)
    is_kind = np.eye(len(kinds))[kind]
    times = np.vstack([np.ones(len(names), int), froc.times_drawn(names, resamples=resamples)])
    shares = np.full((len(times), len(kinds)), np.nan)
    for line, drawn in zip(shares, times, strict=True):
        allowed = np.searchsorted(np.cumsum(drawn[volume_of_wrong]) / drawn.sum(), rate, side="right")
        above = score_of_wrong[allowed] if allowed < len(score_of_wrong) else -np.inf  # of the first one too many
        weight = drawn[volume_of_lesion]
        all_of_kind = weight @ is_kind
        np.divide((weight * (best > above)) @ is_kind, all_of_kind, out=line, where=all_of_kind > 0)
    return pd.DataFrame(shares, columns=kinds)


def _best_scores(found: pd.DataFrame, lesions: pd.DataFrame) -> np.ndarray:
    """The highest score of a detection that hits each lesion, -inf if none does: (lesions,)."""
    best = np.full(len(lesions), -np.inf)
    of_volume = dict(tuple(found.groupby(found["volume"].astype(str))))
    volumes = lesions["volume"].astype(str).to_numpy()
    for volume in of_volume.keys() & set(volumes):
        rows, boxes = np.flatnonzero(volumes == volume), of_volume[volume]
        overlap = froc.overlap_3d(
            boxes[BOX3D].to_numpy(float), lesions[BOX3D].to_numpy(float)[rows], "iobb"
        )  # (detections, lesions)
        best[rows] = np.where(overlap >= HIT, boxes["score"].to_numpy(float)[:, None], -np.inf).max(axis=0)
    return best


def table(shares: Mapping[str, pd.DataFrame], counts: pd.Series) -> pd.DataFrame:
    """For readers: a line for each kind, a column for each method with the share in % and its 95 % interval.

    shares: by method, see `shares_by`; counts: lesions of each kind. A kind with fewer than FEWEST lesions, or of which
    all or none were found, has the count instead ("7 of 21"): there is no interval to tell.
    """
    lines = {"lesions": [counts[kind] for kind in _kinds(shares)]}
    for method, samples in shares.items():
        lines[method] = [_share(samples[kind].to_numpy(), int(counts[kind])) for kind in _kinds(shares)]
    return pd.DataFrame(lines, index=pd.Index(_kinds(shares), name="kind")).reset_index()


def share_or_count(share: float, lesions: int) -> str:
    """A share in %, or of fewer than FEWEST lesions how many they are."""
    return f"{100 * share:.1f} %" if lesions >= FEWEST else f"{round(share * lesions)} of {lesions}"


def _share(samples: np.ndarray, lesions: int) -> str:
    if lesions < FEWEST or samples[0] in (0, 1):
        return f"{round(samples[0] * lesions)} of {lesions}"
    low, high = froc.interval(samples[1:])
    return f"{100 * samples[0]:.0f} [{100 * low:.0f}, {100 * high:.0f}]"


def changes(shares: Mapping[str, pd.DataFrame], pairs: Sequence[tuple[str, str]], counts: pd.Series) -> pd.DataFrame:
    """First minus second method of each pair, by kind: kind, lesions, pair, change, low, high (fractions), paired.

    A kind with fewer than FEWEST lesions has no low and high.
    """
    lines = []
    for first, second in pairs:
        for kind in _kinds(shares):
            samples = (shares[first][kind] - shares[second][kind]).to_numpy()
            low, high = froc.interval(samples[1:]) if counts[kind] >= FEWEST else (np.nan, np.nan)
            lines.append((kind, int(counts[kind]), f"({first}) - ({second})", samples[0], low, high))
    return pd.DataFrame(lines, columns=["kind", "lesions", "pair", "change", "low", "high"])


def changes_table(changed: pd.DataFrame) -> pd.DataFrame:
    """`changes` for readers: a line for each kind, a column for each pair, in points; of few lesions in lesions."""
    cells = [
        f"{round(c.change * c.lesions):+d} of {c.lesions}" if np.isnan(c.low)
        else f"{100 * c.change:+.0f} [{100 * c.low:+.0f}, {100 * c.high:+.0f}]"
        for c in changed.itertuples()
    ]  # fmt: skip
    shown = changed.assign(cell=cells).pivot(index="kind", columns="pair", values="cell")
    return shown[list(dict.fromkeys(changed["pair"]))].reset_index().rename_axis(columns=None)


def clear_changes(changed: pd.DataFrame, pair: str) -> str:
    """Which kinds one pair of methods clearly changes, in words: those whose interval leaves out 0, and the others."""
    own = changed[changed["pair"] == pair]
    up, down, few = own["low"] > 0, own["high"] < 0, own["low"].isna()
    words = {"more": own[up], "less": own[down]}
    told = [
        f"{word}: " + ", ".join(f"{c.kind} {100 * c.change:+.0f} [{100 * c.low:+.0f}, {100 * c.high:+.0f}]"
                                for c in part.sort_values("change", ascending=False, key=abs).itertuples())
        for word, part in words.items() if len(part)
    ]  # fmt: skip
    rest = {"not clear": own[~up & ~down & ~few], f"fewer than {FEWEST} lesions": own[few]}
    told += [f"{word}: {', '.join(part['kind'])}" for word, part in rest.items() if len(part)]
    return f"{pair}: {'; '.join(told)}"


def _kinds(shares: Mapping[str, pd.DataFrame]) -> list[str]:
    return list(next(iter(shares.values())).columns)
