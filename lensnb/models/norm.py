"""Batch norm over the images of all processes, so that several of them compute what one does.

torch's own SyncBatchNorm needs GPUs; this one needs a process group of any kind, and is the same on CPUs and GPUs.
"""

import torch
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce


class SharedBatchNorm2d(nn.BatchNorm2d):
    """Batch norm whose mean and variance are those of all processes' images, also if they hold different numbers."""

    def forward(self, x: Tensor) -> Tensor:
        """x: (n, channels, y, x), n the process' own images. In eval mode the same as torch's."""
        if not self.training:
            return super().forward(x)
        over = (0, 2, 3)
        count = torch.full((1,), x.numel() / x.shape[1], dtype=x.dtype, device=x.device)
        sums = all_reduce(torch.cat([x.sum(over), count]))
        count = sums[-1].detach()
        mean = sums[:-1] / count
        centred = x - mean[None, :, None, None]
        variance = all_reduce(centred.square().sum(over)) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean.detach(), self.momentum)
            self.running_var.lerp_(variance.detach() * count / (count - 1), self.momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return centred * scale[None, :, None, None] + self.bias[None, :, None, None]


def share_batch_norm(model: nn.Module) -> None:
    """Let every batch norm of `model` look at the images of all processes; in place."""
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.BatchNorm2d:
                shared = SharedBatchNorm2d(child.num_features, child.eps, child.momentum)
                # the very tensors: an optimizer may hold them already
                shared.weight, shared.bias = child.weight, child.bias
                for buffer in ("running_mean", "running_var", "num_batches_tracked"):
                    setattr(shared, buffer, getattr(child, buffer))
                setattr(parent, name, shared.train(child.training))
