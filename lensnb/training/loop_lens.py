"""LENS's loop."""

import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch
from torch import nn

from lensnb.models.lens import LENS, total_loss
from lensnb.training.loop import average_gradients, learning_rate, restore, save_checkpoint


def fit_lens(
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
