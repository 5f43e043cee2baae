"""Training samples: which slices an epoch visits, and what is known about each.

An epoch has one random slice of every 3D lesion (LENS Sec. VI-D) and, for every two of them, one slice without a lesion
(LENS Sec. VI-B). Sample i of a dataset follows from the seed and i alone: a resumed training goes on as if undisturbed.
"""

import numpy as np
import pandas as pd

from lensnb.boxes import BOX
from lensnb.datasets import DATASETS
from lensnb.streams import Stream, generator


class SliceSampler:
    """The training slices of one dataset.

    labels: 2D boxes (volume, lesion, z, x1, y1, x2, y2, source); source "uncertain" is ignored in the losses.
    searched: volume -> the slices that negatives may come from (see `searched_slices`).
    negatives: whether slices without a lesion are used (an unmarked slice of a partly labelled dataset may have one).
    dataset: its number, so that each has draws of its own.
    """

    def __init__(self, labels: pd.DataFrame, searched: dict[str, range], negatives: bool, seed: int, dataset: int):
        known = labels[labels["source"] != "uncertain"]
        if known.empty:
            raise ValueError("no lesion to train on: the label table has no box that is not uncertain")
        self.seed, self.dataset = seed, dataset
        self.lesions = [
            (str(volume), np.sort(group["z"].to_numpy(np.int64)))
            for (volume, _), group in known.groupby(["volume", "lesion"], observed=True)
        ]
        self.boxes = {
            (str(volume), int(z)): (
                group[group["source"] != "uncertain"][BOX].to_numpy(np.float32),
                group[group["source"] == "uncertain"][BOX].to_numpy(np.float32),
            )
            for (volume, z), group in labels.groupby(["volume", "z"], observed=True)
        }
        positive = {(volume, z) for (volume, z), (lesions, _) in self.boxes.items() if len(lesions)}
        self.negatives = []
        if negatives:
            self.negatives = [(v, z) for v in sorted(searched) for z in searched[v] if (v, z) not in positive]
        self._epoch = (-1, [])

    def __len__(self) -> int:
        """Samples of an epoch: positives, and half as many negatives."""
        return len(self.lesions) + (len(self.lesions) // 2 if self.negatives else 0)

    def slice(self, i: int) -> tuple[str, int]:
        """Volume and slice of the i-th sample since the training began."""
        epoch, position = divmod(i, len(self))
        if self._epoch[0] != epoch:
            self._epoch = (epoch, self._make_epoch(epoch))
        return self._epoch[1][position]

    def _make_epoch(self, epoch: int) -> list[tuple[str, int]]:
        rng = generator(self.seed, Stream.EPOCH, self.dataset, epoch)
        chosen = [(volume, int(rng.choice(slices))) for volume, slices in self.lesions]
        if self.negatives:
            picked = rng.integers(len(self.negatives), size=len(self.lesions) // 2)
            chosen += [self.negatives[k] for k in picked]
        return [chosen[k] for k in rng.permutation(len(chosen))]

    def target(self, volume: str, z: int) -> tuple[np.ndarray, np.ndarray]:
        """The lesions (n, 4) and uncertain lesions (m, 4) of a slice."""
        empty = np.zeros((0, 4), np.float32)
        return self.boxes.get((volume, z), (empty, empty))


def searched_slices(dataset: str, depths: pd.Series, labels: pd.DataFrame) -> dict[str, range]:
    """The slices of each volume that somebody has searched for lesions, or that count as such: volume -> range.

    All slices, or those from the first to the last labelled one where a dataset labels a part of each scan. depths:
    slices of each volume, by volume name.
    """
    if DATASETS[dataset].searched == "all slices":
        return {str(volume): range(depth) for volume, depth in depths.items()}
    z = labels.groupby(labels["volume"].astype(str))["z"]
    return {volume: range(int(low), int(high) + 1) for volume, low, high in z.agg(["min", "max"]).itertuples()}
