"""A training loop for the small networks (embedding, FPR): resumes to the same weights, reports, writes whole files."""

import io
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch
import torch.distributed as dist
from torch import Tensor, nn

from lensnb.files import atomic_write, write_table
from lensnb.models.weights import first_words, save_weights
from lensnb.run import processes


def fit(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss_of: Callable[[int], dict[str, Tensor]],
    rate_of: Callable[[int], float],
    iterations: int,
    run_dir: Path,
    label: str,
    gradient_clip: float,
    checkpoint_every: int,
    quiet_s: float = 0.0,
) -> None:
    """Train `model` and write weights.safetensors and log.csv into `run_dir`.

    `loss_of(t)` gives the named losses of iteration t, which follow from t and a seed alone; `rate_of(t)` its learning
    rate, which parameter groups may carry a `factor` for. A stopped training goes on from its last checkpoint. About
    ten lines say how far it is, the last one at the end; of the others none within `quiet_s` seconds of another.
    """
    checkpoint = run_dir / "checkpoint.pt"
    start, (rows, recent) = restore(checkpoint, model, optimizer)
    model.train()
    clock = said = time.monotonic()
    for t in range(start, iterations):
        for group in optimizer.param_groups:
            group["lr"] = rate_of(t) * group.get("factor", 1.0)
        losses = loss_of(t)
        loss = sum(losses.values())
        if not torch.isfinite(loss):
            raise FloatingPointError(f"{label}: the loss is {loss.item()} at iteration {t}; lower the learning rate")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), gradient_clip)
        optimizer.step()
        recent.append({name: value.item() for name, value in losses.items()})
        if (t + 1) % 20 == 0 or t + 1 == iterations:
            rows.append({"iteration": t + 1, **pd.DataFrame(recent).mean().round(6).to_dict()})
            recent = []
        tenth, last = (t + 1) % max(1, iterations // 10) == 0, t + 1 == iterations
        if last or (tenth and time.monotonic() - said >= quiet_s):
            said = time.monotonic()
            left = (time.monotonic() - clock) / (t + 1 - start) * (iterations - t - 1)
            print(f"{label}: iteration {t + 1}/{iterations}, loss {loss.item():.3f}, {left:.0f} s left", flush=True)
        if (t + 1) % checkpoint_every == 0 or t + 1 == iterations:
            save_checkpoint(checkpoint, model, optimizer, t + 1, rows, recent)
    model.eval()
    write_table(pd.DataFrame(rows), run_dir / "log.csv")
    save_weights(model, run_dir / "weights.safetensors")
    leave_checkpoint(checkpoint)


def stepped(rate: float, iterations: int, drops: list[float]) -> Callable[[int], float]:
    """The learning rate by iteration: a tenth after each of `drops`, given as fractions of the training."""
    return lambda t: rate * 0.1 ** sum(t >= drop * iterations for drop in drops)


def without_decay(model: nn.Module, weight_decay: float, bias_factor: float = 1.0) -> list[dict]:
    """Parameter groups: weights with weight decay; biases and norms without, at `bias_factor` times the rate."""
    weights = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    return [
        {"params": weights, "weight_decay": weight_decay, "factor": 1.0},
        {"params": others, "weight_decay": 0.0, "factor": bias_factor},
    ]


def start_processes(threads: int) -> tuple[int, int]:
    """Rank and number of the processes that torchrun started; (0, 1) without it. `threads` = 0: torch decides."""
    if threads:
        torch.set_num_threads(threads)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world > 1 and not dist.is_initialized():
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    return (dist.get_rank(), world) if world > 1 else (0, 1)


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
