"""Training LENS (LENS Sec. VI-B): batches of one dataset, RAdam, one run folder for each experiment."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from lensnb.datasets import DATASETS, NAMES
from lensnb.datasets.store import Store
from lensnb.models.build import build_lens
from lensnb.models.inputs import slice_group, to_grey
from lensnb.models.lens import LENS, total_loss
from lensnb.models.targets import Target
from lensnb.models.weights import device_of_choice, initialise, weights_fingerprint
from lensnb.provenance.recipe import Recipe, code, values
from lensnb.runfolder import Run
from lensnb.settings import Network, Profile, Training, load_profile, to_dict
from lensnb.streams import Stream, generator, number
from lensnb.training.augment import canvas_size, draw, place_batch
from lensnb.training.experiments import Experiment, named, of, training_labels, training_volumes
from lensnb.training.loop import Course, Validation, fit
from lensnb.training.parallel import part_of_batch, start_processes
from lensnb.training.samples import SliceSampler, searched_slices


@dataclass(frozen=True)
class Batch:
    """A process' part of the batch of an iteration.

    dataset: number of the dataset that all images are from; slices (n, slices, y, x) and a target for each image;
    image_seeds: a seed for what is drawn for each image; share: what its mean losses weigh in those of the batch.
    """

    dataset: int
    slices: torch.Tensor
    targets: list[Target]
    image_seeds: list[int]
    share: float = 1.0


def train_experiment(
    experiment_name: str, profile_name: str, seed: int = 0, run_dir: Path | None = None,
    validation_of: Callable[[Profile, Run, Store, str], Validation] | None = None,
) -> Path:  # fmt: skip
    """Make one experiment's run: weights.safetensors, config.json and log.csv in `run_dir`, which is returned.

    validation_of: gives which weights it ends with, where `training.validations` is not 0: `detection.selection` knows.
    A finished run is left alone as long as it follows from today's code, numbers, labels and volumes; an interrupted
    one goes on from its last checkpoint and ends with the same weights.
    Raises ValueError for an unknown experiment, FileNotFoundError if the volumes are not prepared.
    """
    profile = load_profile(profile_name)
    run = Run(profile_name, seed)
    asked, run_dir = named(experiment_name), Path(run_dir or run.experiment(experiment_name))
    if profile.training.validations and not validation_of:  # else all would seem right, and other weights be kept
        raise ValueError(
            f"profile {profile_name}: training.validations is {profile.training.validations}, but nothing to validate "
            "with was given; call detection.selection.train_and_select, or set it to 0"
        )
    store = Store(run.prepared)
    experiment = of(experiment_name, store)
    for name in sorted(set(asked.datasets) - set(experiment.datasets)):
        print(f"{experiment_name}: no {name} expert, for want of labelled training volumes of {name}")
    rank, world = start_processes(profile.training.threads)
    torch.manual_seed(seed)
    model = build_lens(profile.network, experiment.datasets, experiment.proposal_network)
    initialise(model, run.pretext)
    labels = training_labels(experiment, store, run)
    batches = Batches(experiment, profile, store, labels, seed, model.backbone.multiple, rank, world)
    config = {
        "experiment": experiment.name, "datasets": list(experiment.datasets), "profile": profile_name, "seed": seed,
        "proposal_network": experiment.proposal_network or profile.network.proposal_network,
        "network": to_dict(profile.network),
        "training": to_dict(profile.training), "inference": to_dict(profile.inference),
        "spacing_mm": list(profile.grid.spacing_mm), "iterations": len(batches), "phantom": store.truth is not None,
        "torch": torch.__version__,
    }  # fmt: skip
    train = training_volumes(experiment, store.volumes).index
    recipe = code([__name__]) | values(
        plan={**asdict(experiment), "name": "", "title": ""}, network=config["network"], training=config["training"],
        spacing_mm=config["spacing_mm"], seed=seed, initial_weights=weights_fingerprint(model),
        labels=labels.to_csv(index=False), volumes=store.contents(train),
    )  # fmt: skip
    validation = None
    if profile.training.validations:
        validation = validation_of(profile, run, store, experiment.datasets[0])
    fit_lens(model, batches, profile.training, run_dir, config, recipe, validation=validation)
    return run_dir


def fit_lens(
    model: LENS, batches: torch.utils.data.Dataset, training: Training, run_dir: Path, config: dict, recipe: Recipe,
    kept: tuple[str, ...] = ("",), validation: Validation | None = None,
) -> None:  # fmt: skip
    """Train LENS on batches (of type Batch) with RAdam and LENS Eq. 3; config to validation as in `loop.fit`."""
    model.to(device_of_choice(), memory_format=torch.channels_last)  # the faster layout for convolutions, on CPUs too
    optimizer = torch.optim.RAdam(model.parameters(), lr=training.learning_rate, weight_decay=training.weight_decay)
    course = Course(
        lambda t: learning_rate(t, len(batches), training), training.gradient_clip, training.checkpoint_every,
        training.loader_workers, training.autocast,
    )  # fmt: skip
    fit(model, batches, batch_losses, optimizer, course, run_dir, config, recipe, total_loss, kept, validation)


def batch_losses(lens: torch.nn.Module, batch: Batch) -> dict[str, torch.Tensor]:
    """The terms of LENS Eq. 3 of a process' part of a batch, so that their mean over the processes is the batch's."""
    device = next(lens.parameters()).device
    targets = [Target(target.lesions.to(device), target.uncertain.to(device)) for target in batch.targets]
    generators = [torch.Generator().manual_seed(image_seed) for image_seed in batch.image_seeds]
    losses = lens(batch.slices.to(device), targets, batch.dataset, generators)
    return {name: value * batch.share for name, value in losses.items()}


class Batches(torch.utils.data.Dataset):
    """The batches of a whole training, by iteration number; each holds samples of one dataset.

    multiple: what the sides of a batch's slices must be multiples of. Of `world` processes, `rank` gets its part.
    """

    def __init__(
        self, experiment: Experiment, profile: Profile, store: Store, labels: pd.DataFrame, seed: int, multiple: int,
        rank: int = 0, world: int = 1,
    ):  # fmt: skip
        self.network: Network = profile.network
        self.training: Training = profile.training
        self.store, self.seed, self.multiple, self.spacing_mm = store, seed, multiple, profile.grid.spacing_mm
        train_volumes = training_volumes(experiment, store.volumes)
        self.sides = {
            volume: (int(height), int(width))
            for volume, height, width in train_volumes[["height", "width"]].itertuples()
        }
        self.samplers = []
        for name in experiment.datasets:
            rows = labels[labels["dataset"] == name]
            searched = searched_slices(name, train_volumes.loc[train_volumes["dataset"] == name, "depth"], rows)
            negatives = experiment.negatives or not DATASETS[name].universal
            self.samplers.append(SliceSampler(rows, searched, negatives, seed, NAMES.index(name)))
        self.size = self.training.batch_size
        self.part = part_of_batch(self.size, rank, world)
        self.share = (self.part.stop - self.part.start) * world / self.size
        self.schedule = make_schedule([len(s) for s in self.samplers], self.training, seed, experiment.length)
        self.place = place_in_dataset(self.schedule)

    def __len__(self) -> int:
        return len(self.schedule)

    def __getitem__(self, t: int) -> Batch:
        """The process' part of the batch of iteration t."""
        dataset = int(self.schedule[t])
        sampler, first = self.samplers[dataset], int(self.place[t]) * self.size
        samples = [sampler.slice(i) for i in range(first, first + self.size)]
        # drawn for the whole batch by every process, so that all agree on its size; read for the own part alone
        rngs = [generator(self.seed, Stream.AUGMENTATION, t, image) for image in range(self.size)]
        drawn = [draw(self.training, self.spacing_mm, rng) for rng in rngs]
        sides = [self.sides[volume] for volume, _ in samples]
        size = canvas_size(sides, drawn, self.training.crop, self.multiple)
        images, boxes, uncertain = [], [], []
        for volume, z in samples[self.part]:
            group = slice_group(self.store.hu(volume), z, self.network.slices)
            images.append(to_grey(group, self.network))
            lesions, ignored = sampler.target(volume, z)
            boxes.append(np.concatenate([lesions, ignored]))
            uncertain.append(len(ignored))
        slices, targets = place_batch(images, boxes, uncertain, drawn[self.part], size)
        seeds = [number(self.seed, Stream.PROPOSALS, t, image) for image in range(self.size)[self.part]]
        return Batch(dataset, slices, targets, seeds, self.share)


def make_schedule(sizes: list[int], training: Training, seed: int, length: float = 1.0) -> np.ndarray:
    """Which dataset each iteration's batch comes from: (iterations,) of dataset numbers.

    `sizes` are the samples of an epoch of each dataset, DeepLesion first. With `training.epochs` every dataset is
    visited that often in full. Otherwise DeepLesion has `training.iterations` batches in every experiment, and the
    others come on top, as in the paper, where all rows are trained for 8 epochs: in proportion to their sizes, but
    together at most `training.others` batches for each of DeepLesion's. `length` multiplies iterations or epochs.
    """
    rng = generator(seed, Stream.SCHEDULE)
    if training.epochs:
        batches = np.repeat(np.arange(len(sizes)), [-(-size // training.batch_size) for size in sizes])
        return np.concatenate([rng.permutation(batches) for _ in range(round(training.epochs * length))])
    share = np.array(sizes[1:]) / sizes[0]
    share *= min(1.0, training.others / max(share.sum(), 1e-9))
    ends = np.rint(training.iterations * length * np.cumsum([1.0, *share])).astype(int)
    return rng.permutation(np.repeat(np.arange(len(sizes)), np.diff(ends, prepend=0)))


def place_in_dataset(schedule: np.ndarray) -> np.ndarray:
    """How many batches of an iteration's own dataset come before it: (iterations,). 0, 1, 0 gives 0, 0, 1."""
    place = np.empty(len(schedule), dtype=np.int64)
    for dataset in np.unique(schedule):
        own = schedule == dataset
        place[own] = np.arange(own.sum())
    return place


def learning_rate(t: int, iterations: int, training: Training) -> float:
    """The learning rate of iteration t.

    `steps`: a tenth after one half and a hundredth after three quarters of the training (after epochs 4 and 6 of 8,
    LENS Sec. VI-B). `cosine`: down to 2 %. Both after a linear warm-up.
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
