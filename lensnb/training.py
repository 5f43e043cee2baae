"""Training LENS (Sec. VI-B): batches of one dataset, RAdam, checkpoints that resume to the same weights.

One process or several (`torchrun -m lensnb train ...`): each process takes its part of every batch and gradients are
averaged, which is exact because every loss is a mean over images.
"""

import io
import os
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch
import torch.distributed as dist
from safetensors.torch import load_file, save
from torch import nn

from lensnb import paths, processes, profiles
from lensnb.boxes import DATASETS
from lensnb.experiments import EXPERIMENTS, Experiment, of, training_labels
from lensnb.files import atomic_write, first_words, write_json, write_table
from lensnb.lens import LENS, total_loss
from lensnb.samples import SliceSampler, make_batch, searched_slices
from lensnb.volumes import Store


def train(experiment_name: str, profile_name: str, seed: int = 0, run_dir: Path | None = None) -> Path:
    """Make one experiment's run: weights.safetensors, config.json and log.csv in `run_dir`, which is returned.

    A finished run is left alone, an interrupted one goes on from its last checkpoint and ends with the same weights.
    Raises ValueError for an unknown experiment, FileNotFoundError if the volumes are not prepared.
    """
    if experiment_name not in EXPERIMENTS:
        raise ValueError(f"{experiment_name!r} is not an experiment; choose one of {', '.join(EXPERIMENTS)}")
    profile = profiles.load(profile_name)
    runs = paths.runs(profile_name, seed)
    run_dir = Path(run_dir or runs / "experiments" / f"{experiment_name}-seed{seed}")
    if (run_dir / "weights.safetensors").exists():
        print(f"{run_dir.name}: already trained")
        return run_dir
    store = Store(paths.prepared(profile_name, seed))
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
        "proposal_network": experiment.proposal_network, "network": profiles.to_dict(profile.network),
        "training": profiles.to_dict(profile.training), "inference": profiles.to_dict(profile.inference),
        "spacing_mm": profile.grid.spacing_mm, "iterations": len(batches), "phantom": store.truth is not None,
        "torch": torch.__version__,
    }  # fmt: skip
    log = fit(model.to(device), batches, profile.training, run_dir / "checkpoint.pt", experiment.name, rank, world)
    if rank == 0:
        write_table(log, run_dir / "log.csv")
        write_json(config, run_dir / "config.json")
        save_weights(model, run_dir / "weights.safetensors")
        leave_checkpoint(run_dir / "checkpoint.pt")
    if world > 1:
        dist.barrier()
    return run_dir


def start_processes(threads: int) -> tuple[int, int]:
    """Rank and number of the processes that torchrun started; (0, 1) without it. `threads` = 0: torch decides."""
    if threads:
        torch.set_num_threads(threads)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    return (dist.get_rank(), world) if world > 1 else (0, 1)


def initialise(model: LENS, weights: Path) -> None:
    """Start from the initial weights that all experiments share: ImageNet's or the pretext task's (see pretext.py)."""
    if not weights.exists():
        raise FileNotFoundError(f"{weights} is missing; `python -m lensnb pretext` makes it")
    try:
        unexpected = model.load_state_dict(load_file(weights), strict=False).unexpected_keys
    except Exception as error:  # cut off, no weights, or of another size
        raise ValueError(f"{weights}: {first_words(error)}; delete it to make it again") from error
    if unexpected:
        raise ValueError(
            f"{weights} does not fit the network, which has no {unexpected[0]}; delete it to make it again"
        )


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
            negatives = experiment.negatives or name != "DeepLesion"
            key = (seed, DATASETS.index(name))
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


def learning_rate(t: int, iterations: int, training: SimpleNamespace) -> float:
    """The learning rate of iteration t.

    `steps`: a tenth after one half and a hundredth after three quarters of the training (after epochs 4 and 6 of 8,
    Sec. VI-B). `cosine`: down to 2 %. Both after a linear warm-up.
    """
    warm = min(1.0, (t + 1) / training.warmup) if training.warmup else 1.0
    done = t / iterations
    if training.schedule == "steps":
        factor = 1.0 if done < 0.5 else 0.1 if done < 0.75 else 0.01
    elif training.schedule == "cosine":
        factor = 0.02 + 0.98 * (1 + np.cos(np.pi * done)) / 2
    else:
        raise ValueError(f"training.schedule {training.schedule!r} is neither steps nor cosine")
    return float(training.learning_rate * warm * factor)


def fit(
    model: LENS, batches: torch.utils.data.Dataset, training: SimpleNamespace, checkpoint: Path, label: str,
    rank: int = 0, world: int = 1,
) -> pd.DataFrame:  # fmt: skip
    """Train `model` in place on batches 0 .. len(batches) - 1; return the log, one row for each 20 iterations."""
    optimizer = torch.optim.RAdam(model.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay)
    start, (rows, recent) = restore(checkpoint, model, optimizer)
    device = next(model.parameters()).device
    model.to(memory_format=torch.channels_last)  # the faster layout for convolutions, on CPUs too
    loader = torch.utils.data.DataLoader(
        batches, batch_size=None, sampler=range(start, len(batches)), num_workers=training.loader_workers
    )
    model.train()
    clock = time.monotonic()
    for t, (dataset, slices, targets) in enumerate(loader, start=start):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(t, len(batches), training)
        targets = [type(target)(target.lesions.to(device), target.uncertain.to(device)) for target in targets]
        # one generator for each image of the whole batch: several processes draw what one would
        generators = [torch.Generator().manual_seed(t * 1024 + rank * len(targets) + i) for i in range(len(targets))]
        losses = model.losses(slices.to(device), targets, dataset, generators)
        loss = total_loss(losses)
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"{label}: the loss is {loss.item()} at iteration {t}; lower training.learning_rate"
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        average_gradients(model, world)
        nn.utils.clip_grad_norm_(model.parameters(), training.gradient_clip)
        optimizer.step()
        recent.append([*(losses[k].item() for k in ("center", "size", "class", "box")), loss.item()])
        if (t + 1) % 20 == 0 or t + 1 == len(batches):
            rows.append([t + 1, *np.mean(recent, axis=0).round(6).tolist()])
            recent = []
        if rank == 0 and (t + 1) % max(1, len(batches) // 10) == 0:
            left = (time.monotonic() - clock) / (t + 1 - start) * (len(batches) - t - 1)
            print(f"{label}: iteration {t + 1}/{len(batches)}, loss {rows[-1][-1] if rows else loss.item():.3f}, "
                  f"{left:.0f} s left", flush=True)  # fmt: skip
        if rank == 0 and ((t + 1) % training.checkpoint_every == 0 or t + 1 == len(batches)):
            save_checkpoint(checkpoint, model, optimizer, t + 1, rows, recent)
    model.eval()
    return pd.DataFrame(rows, columns=["iteration", "center", "size", "class", "box", "total"])


def save_checkpoint(
    checkpoint: Path, model: nn.Module, optimizer: torch.optim.Optimizer, done: int, rows: list, recent: list
) -> None:
    """Write what `restore` reads, atomically: after `done` iterations, with the log rows and losses not yet in one."""
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "log": (rows, recent), "done": done}
    content = io.BytesIO()
    torch.save(state, content)  # into memory: writing a file itself, torch does not say when the disk is full
    with atomic_write(checkpoint) as temporary:
        temporary.write_bytes(content.getbuffer())


def leave_checkpoint(checkpoint: Path) -> None:
    """Remove the checkpoint of a training that has its weights.

    Within a step of run_all.sh it stays until the step is done (see execution.py): the weights of an interrupted step
    are removed, and the checkpoint brings them back at once.
    """
    if processes.JOB not in os.environ:
        checkpoint.unlink(missing_ok=True)


def restore(checkpoint: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[int, tuple[list, list]]:
    """Load a checkpoint if there is one; return the iterations done, the log rows and the losses not yet in a row.

    Raises ValueError for a file that is broken or belongs to another network.
    """
    if not checkpoint.exists():
        return 0, ([], [])
    try:
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        return state["done"], state["log"]
    except Exception as error:  # cut off, no checkpoint, a pickle of something else, of another size
        reason = first_words(error)
        raise ValueError(
            f"cannot continue from {checkpoint}: {reason}; delete it to start this training again"
        ) from error


def average_gradients(model: nn.Module, world: int) -> None:
    """Average the gradients of all processes. Layers of other datasets have none, in every process alike."""
    if world > 1:
        for parameter in model.parameters():
            if parameter.grad is not None:
                dist.all_reduce(parameter.grad)
                parameter.grad /= world


def save_weights(model: nn.Module, path: Path, prefixes: tuple[str, ...] = ("",)) -> None:
    """Write the weights whose names start with one of `prefixes` as safetensors, atomically."""
    weights = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items() if k.startswith(prefixes)}
    with atomic_write(path) as temporary:
        temporary.write_bytes(save(weights))  # safetensors' own writing has an error of its own for a full disk
