"""Batch norm's statistics made anew, because its running means lag behind weights that still change."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


@torch.no_grad()
def learn_statistics(network: nn.Module, batches: Iterable[Tensor]) -> None:
    """Give every batch norm the plain mean of its statistics over batches of slices (n, slices, y, x).

    No weight is changed, and `network` is in train or eval mode as before.
    """
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    momentum, training = [norm.momentum for norm in norms], network.training
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean
    network.train()
    for slices in batches:
        network(slices)
    network.train(training)
    for norm, before in zip(norms, momentum, strict=True):
        norm.momentum = before
