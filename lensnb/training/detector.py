"""Training LENS (Sec. VI-B): batches of one dataset, RAdam, checkpoints that resume to the same weights.

One process or several (`torchrun -m lensnb train ...`): each process takes its part of every batch and gradients are
averaged, which is exact because every loss is a mean over images.
"""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch
import torch.distributed as dist

from lensnb import runfolder
from lensnb.datasets import DATASETS, NAMES
from lensnb.datasets.store import Store
from lensnb.files import write_json, write_table
from lensnb.models.lens import LENS
from lensnb.models.weights import initialise, save_weights
from lensnb.settings import load_profile, to_dict
from lensnb.training.experiments import EXPERIMENTS, Experiment, of, training_labels
from lensnb.training.loop import leave_checkpoint, start_processes
from lensnb.training.loop_lens import fit_lens
from lensnb.training.samples import SliceSampler, make_batch, searched_slices


def train_experiment(experiment_name: str, profile_name: str, seed: int = 0, run_dir: Path | None = None) -> Path:
    """Make one experiment's run: weights.safetensors, config.json and log.csv in `run_dir`, which is returned.

    A finished run is left alone, an interrupted one goes on from its last checkpoint and ends with the same weights.
    Raises ValueError for an unknown experiment, FileNotFoundError if the volumes are not prepared.
    """
    if experiment_name not in EXPERIMENTS:
        raise ValueError(f"{experiment_name!r} is not an experiment; choose one of {', '.join(EXPERIMENTS)}")
    profile = load_profile(profile_name)
    runs = runfolder.runs(profile_name, seed)
    run_dir = Path(run_dir or runs / "experiments" / f"{experiment_name}-seed{seed}")
    if (run_dir / "weights.safetensors").exists():
        print(f"{run_dir.name}: already trained")
        return run_dir
    store = Store(runfolder.prepared(profile_name, seed))
    experiment = of(experiment_name, store)
    for name in sorted(set(EXPERIMENTS[experiment_name].datasets) - set(experiment.datasets)):
        print(f"{experiment_name}: no {name} expert, for want of labelled training volumes of {name}")
    rank, world = start_processes(profile.training.threads)
    torch.manual_seed(seed)
    model = LENS(profile.network, experiment.datasets, experiment.proposal_network)
    initialise(model, runs / "pretext" / "weights.safetensors")
    device = torch.device("cuda", rank) if torch.cuda.is_available() else torch.device("cpu")
    batches = Batches(experiment, profile, store, training_labels(experiment, store, runs), seed, rank, world)
    config = {
        "experiment": experiment.name, "datasets": list(experiment.datasets), "profile": profile_name, "seed": seed,
        "proposal_network": experiment.proposal_network, "network": to_dict(profile.network),
        "training": to_dict(profile.training), "inference": to_dict(profile.inference),
        "spacing_mm": profile.grid.spacing_mm, "iterations": len(batches), "phantom": store.truth is not None,
        "torch": torch.__version__,
    }  # fmt: skip
    log = fit_lens(model.to(device), batches, profile.training, run_dir / "checkpoint.pt", experiment.name, rank, world)
    if rank == 0:
        write_table(log, run_dir / "log.csv")
        write_json(config, run_dir / "config.json")
        save_weights(model, run_dir / "weights.safetensors")
        leave_checkpoint(run_dir / "checkpoint.pt")
    if world > 1:
        dist.barrier()
    return run_dir


class Batches(torch.utils.data.Dataset):
    """The batches of a whole training, by iteration number; each holds samples of one dataset."""

    def __init__(
        self, experiment: Experiment, profile: SimpleNamespace, store: Store, labels: pd.DataFrame, seed: int,
        rank: int = 0, world: int = 1,
    ):  # fmt: skip
        self.profile, self.store, self.seed = profile, store, seed
        train_volumes = store.volumes[store.volumes["split"] == "train"]
        pixels = (train_volumes["height"] * train_volumes["width"]).to_dict()
        self.samplers = []
        for name in experiment.datasets:
            rows = labels[labels["dataset"] == name]
            searched = searched_slices(name, train_volumes.loc[train_volumes["dataset"] == name, "depth"], rows)
            negatives = experiment.negatives or not DATASETS[name].universal
            key = (seed, NAMES.index(name))
            self.samplers.append(SliceSampler(rows, searched, negatives, key, pixels))
        self.size = profile.training.batch_size
        if self.size % world:
            raise ValueError(f"a batch of {self.size} cannot be shared by {world} processes")
        self.part = slice(rank * self.size // world, (rank + 1) * self.size // world)
        self.schedule = make_schedule([len(s) for s in self.samplers], profile.training, seed, experiment.length)
        one_hot = self.schedule[:, None] == np.arange(len(self.samplers))
        self.earlier = np.cumsum(one_hot, axis=0) - one_hot  # batches of each dataset before iteration t

    def __len__(self) -> int:
        return len(self.schedule)

    def __getitem__(self, t: int) -> tuple[int, torch.Tensor, list]:
        """Dataset number, slices (n, 9, y, x) and targets of iteration t."""
        dataset = int(self.schedule[t])
        first = int(self.earlier[t, dataset]) * self.size
        indices = list(range(first, first + self.size))
        # the whole batch is drawn by every process, so that all agree on scale, shifts and padding
        batch, targets = make_batch(
            self.samplers[dataset], indices, self.store.hu, self.profile.network, self.profile.training,
            (self.seed, t, 1),
        )  # fmt: skip
        return dataset, batch[self.part], targets[self.part]


def make_schedule(sizes: list[int], training: SimpleNamespace, seed: int, length: float = 1.0) -> np.ndarray:
    """Which dataset each iteration's batch comes from: (iterations,) of dataset numbers.

    `sizes` are the samples of an epoch of each dataset, DeepLesion first. With `training.epochs` every dataset is
    visited that often in full. Otherwise DeepLesion has `training.iterations` batches in every experiment, and the
    others come on top, as in the paper, where all rows are trained for 8 epochs: in proportion to their sizes, but
    together at most `training.others` batches for each of DeepLesion's. `length` multiplies iterations or epochs.
    """
    rng = np.random.default_rng((seed, 2))
    if training.epochs:
        batches = np.repeat(np.arange(len(sizes)), [-(-size // training.batch_size) for size in sizes])
        return np.concatenate([rng.permutation(batches) for _ in range(round(training.epochs * length))])
    share = np.array(sizes[1:]) / sizes[0]
    share *= min(1.0, training.others / max(share.sum(), 1e-9))
    ends = np.rint(training.iterations * length * np.cumsum([1.0, *share])).astype(int)
    return rng.permutation(np.repeat(np.arange(len(sizes)), np.diff(ends, prepend=0)))
