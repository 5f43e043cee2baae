"""A training loop for the small networks (embedding, FPR): resumes to the same weights, reports, writes whole files."""

import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor, nn

from lensnb.files import write_table
from lensnb.training import leave_checkpoint, restore, save_checkpoint, save_weights


def best_device() -> torch.device:
    """The GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


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
