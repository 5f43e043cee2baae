"""Several processes that train one network: they compute what one would.

`torchrun --nproc-per-node N -m lensnb train ...` starts them, on one machine or several that share the run's folder.
Each takes its part of every batch. Losses are means over images, so a process weighs its own by its share of the batch,
and DistributedDataParallel's average of the gradients is that of the whole batch, also if the parts differ in size.
Batch norm that learns looks at all images (models/norm.py), and everything random follows from the image's number.
"""

import os

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lensnb.models.norm import share_batch_norm


def start_processes(threads: int) -> tuple[int, int]:
    """Rank and number of the processes that torchrun started; (0, 1) without it. threads: see `use_threads`."""
    use_threads(threads)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    return (dist.get_rank(), world) if world > 1 else (0, 1)


def use_threads(threads: int) -> None:
    """Let torch use so many threads for an operation; 0: torch decides."""
    if threads:
        torch.set_num_threads(threads)


def several() -> bool:
    """Whether several processes train one network."""
    return dist.is_initialized() and dist.get_world_size() > 1


def is_first() -> bool:
    """Whether this process is the one that writes and speaks."""
    return not several() or dist.get_rank() == 0


def part_of_batch(size: int, rank: int, world: int) -> slice:
    """The images of a batch of `size` that process `rank` of `world` takes; their numbers differ by one at most.

    Raises ValueError if there are more processes than images.
    """
    if world > size:
        raise ValueError(
            f"a batch of {size} images cannot be shared by {world} processes; start {size} at most "
            "(run_all.sh trains several experiments at once on several GPUs)"
        )
    return slice(rank * size // world, (rank + 1) * size // world)


def shared(model: nn.Module) -> nn.Module:
    """`model` as several processes train it; itself if there is but one."""
    if not several():
        return model
    share_batch_norm(model)
    # layers of other datasets have no gradient in a batch; buffers are equal in all processes anyway
    return DistributedDataParallel(model, find_unused_parameters=True, broadcast_buffers=False)


def average(values: Tensor) -> Tensor:
    """The mean of a tensor over all processes."""
    if several():
        dist.all_reduce(values)
        values = values / dist.get_world_size()
    return values


def wait_for_all() -> None:
    """Return when every process has come here."""
    if several():
        dist.barrier()
