"""One small training in float64, by one process or several: what test_parallel.py starts.

    python parallel_training.py FOLDER EXPERIMENT [WORLD...]

trains once for each number of processes, into FOLDER/<world>. They are forked here, because a new process would load
torch again. Where torchrun starts this file, its variables say who is who, and of how many.
"""

import os
import socket
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed.rendezvous  # so that it is loaded once, before the processes part
import torch.multiprocessing
from torch.nn.parallel import DistributedDataParallel  # noqa: F401  likewise

from lensnb import runfolder
from lensnb.datasets.store import Store
from lensnb.models.build import build_lens
from lensnb.models.targets import Target
from lensnb.settings import load_profile
from lensnb.training.detector import Batches, fit_lens
from lensnb.training.experiments import EXPERIMENTS, training_labels
from lensnb.training.loop import Validation
from lensnb.training.parallel import start_processes

STEPS = 20
SMALL = {"growth_rate": 4, "block_config": (1, 2, 2), "stem_channels": 8, "fpn_channels": 8, "afp_channels": 4,
         "fc_channels": 16}  # fmt: skip


class Doubles(torch.utils.data.Dataset):
    """Batches in float64, where rounding cannot tip a choice among proposals: what differs then differs by design."""

    def __init__(self, batches: Batches):
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, t: int):
        batch = self.batches[t]
        targets = [Target(target.lesions.double(), target.uncertain.double()) for target in batch.targets]
        return replace(batch, slices=batch.slices.double(), targets=targets)


def train(folder: Path, name: str) -> None:
    """Train in this process, which is one of those that the environment tells of."""
    paper = load_profile("paper")
    training = replace(paper.training, epochs=0, iterations=STEPS, others=0.5, threads=1, loader_workers=0)
    network = replace(paper.network, imagenet=False, hard_negatives=0.5, **SMALL)
    profile = replace(paper, network=network, training=training)
    assert not network.freeze_batch_norm and training.batch_size == 4
    rank, world = start_processes(1)
    store, experiment = Store(runfolder.prepared("smoke")), EXPERIMENTS[name]
    labels = training_labels(experiment, store, runfolder.Run("smoke"))
    torch.manual_seed(0)
    model = build_lens(network, experiment.datasets, experiment.proposal_network).double()
    batches = Batches(experiment, profile, store, labels, 0, model.backbone.multiple, rank, world)
    turn = iter(range(9))

    def score(model: torch.nn.Module) -> float:  # worse the second time
        return -float(sum(p.abs().sum() for p in model.parameters())) * 10.0 ** next(turn)

    validation = Validation(score, 2, {})
    fit_lens(model, Doubles(batches), training, folder, {}, {"name": "test"}, validation=validation)


def train_as(rank: int, world: int, port: int, folder: Path, name: str) -> None:
    """Train in this process as number `rank` of `world`, told as torchrun tells it."""
    known = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({key: str(value) for key, value in known.items()})
    train(folder, name)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def main(folder: Path, name: str, worlds: Sequence[int]) -> None:
    """Train with each number of processes; fails, and ends the others, if one of them does."""
    if "RANK" in os.environ:  # one of torchrun's
        return train(folder / os.environ["WORLD_SIZE"], name)
    for world in worlds:
        team = (world, free_port(), folder / str(world), name)
        torch.multiprocessing.start_processes(train_as, team, nprocs=world, start_method="fork")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], [int(world) for world in sys.argv[3:]])
