"""The layers of torchvision's DenseNet, computed in fewer passes over memory.

A batch norm whose statistics are frozen (`network.freeze_batch_norm`, and everywhere in inference) multiplies and
shifts a channel by what does not depend on the batch. After a convolution it is a part of this convolution: its weights
times the scale, and a bias. Scale and shift go on learning, through the folded weights. The results are those of the
layers one by one up to rounding, and so are the gradients.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def convolve(conv: nn.Conv2d, norm: nn.BatchNorm2d, x: Tensor) -> Tensor:
    """`norm(conv(x))` for a convolution without bias: one convolution if the norm is frozen."""
    if norm.training:
        return norm(conv(x))
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    shift = norm.bias - norm.running_mean * scale
    return F.conv2d(x, conv.weight * scale[:, None, None, None], shift, conv.stride, conv.padding)


def stem(layers: nn.Sequential, images: Tensor, whole: bool = True) -> tuple[Tensor | None, Tensor]:
    """The stem's map before its pooling (stride 2; None unless `whole`), and after it (stride 4).

    The maximum and the ReLU commute, so that without the first the ReLU is computed of a quarter of the values.
    """
    conv, norm, relu, pool = layers
    x = convolve(conv, norm, images)
    if not whole:
        return None, relu(pool(x))
    x = relu(x)
    return x, pool(x)


def dense_block(block: nn.ModuleDict, x: Tensor) -> Tensor:
    """A dense block: every layer reads the outputs of all before it, which grow by its own; all of them come out."""
    for layer in block.values():
        seen = layer.relu1(layer.norm1(x))
        hidden = layer.relu2(convolve(layer.conv1, layer.norm2, seen))
        x = torch.cat([x, layer.conv2(hidden)], dim=1)
    return x


def transition(layers: nn.Sequential, x: Tensor) -> Tensor:
    """Half of the channels, at half of the resolution.

    The mean of 2 x 2 cells and the 1 x 1 convolution commute, so that the convolution is computed of a quarter of them.
    """
    return layers.conv(layers.pool(layers.relu(layers.norm(x))))
