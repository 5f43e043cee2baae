"""What is computed in fewer steps than the paper writes it has the same results and gradients as the plain form."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F
from torchvision.ops import roi_align

from lensnb.models import dense
from lensnb.models.backbone import double
from lensnb.models.build import densenet
from lensnb.models.cells import pool_boxes
from lensnb.settings import load_profile


def network(**changes):
    return replace(load_profile("smoke").network, **changes)


def backbone(**changes):
    """A backbone in double precision whose norms are not what they begin as."""
    torch.manual_seed(0)
    made = densenet(network(**changes)).double()
    for module in made.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for values in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
                values.add_(0.3 * torch.rand_like(values))
    return made.train()


def results(module, forward, *inputs):
    """A forward's outputs, and the gradients of a fixed sum of them by the inputs and the module's weights."""
    module.zero_grad()
    inputs = [one.clone().requires_grad_() for one in inputs]
    outputs = [one for one in forward(*inputs) if one is not None]
    torch.manual_seed(1)
    sum((one * torch.randn(one.shape, dtype=one.dtype)).sum() for one in outputs).backward()
    weights = [p.grad.clone() for p in module.parameters() if p.grad is not None]
    return [*outputs, *(one.grad for one in inputs), *weights]


def same(ours, plain):
    assert len(ours) == len(plain) > 2
    for one, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("frozen", [True, False])
def test_the_dense_layers_are_torchvisions(frozen):
    made = backbone(freeze_batch_norm=frozen)
    x = torch.randn(3, 16, 8, 12, dtype=torch.float64)
    same(results(made.denseblock1, lambda x: [dense.dense_block(made.denseblock1, x)], x),
         results(made.denseblock1, lambda x: [made.denseblock1(x)], x))  # fmt: skip
    x = torch.randn(3, made.lateral2.in_channels, 8, 12, dtype=torch.float64)
    same(results(made.transition1, lambda x: [dense.transition(made.transition1, x)], x),
         results(made.transition1, lambda x: [made.transition1(x)], x))  # fmt: skip


@pytest.mark.parametrize("frozen", [True, False])
def test_the_stem_is_torchvisions(frozen):
    made = backbone(freeze_batch_norm=frozen)
    images = torch.randn(3, 3, 32, 48, dtype=torch.float64)

    def plain(images):
        whole = made.stem[2](made.stem[1](made.stem[0](images)))
        return whole, made.stem[3](whole)

    same(results(made.stem, lambda x: dense.stem(made.stem, x), images), results(made.stem, plain, images))
    same(results(made.stem, lambda x: dense.stem(made.stem, x, whole=False), images),
         results(made.stem, lambda x: [made.stem(x)], images))  # fmt: skip


def test_only_frozen_norms_are_folded():
    made = backbone(freeze_batch_norm=False)
    before = made.stem[1].running_mean.clone()
    made(torch.randn(2, 9, 32, 32, dtype=torch.float64))
    assert not torch.equal(made.stem[1].running_mean, before)


@pytest.mark.parametrize("stride", [4, 2])
def test_the_pyramid_is_that_of_every_image_and_a_fusion(stride):
    """LENS Sec. IV-A and [25]: laterals, sums from the top down, and one convolution of all images' maps."""
    made = backbone(stride=stride)

    def plain(slices):
        n, _, height, width = slices.shape
        images = slices.reshape(3 * n, 3, height, width)  # A, B, C of the first sample, of the second, ...
        stem = made.stem[2](made.stem[1](made.stem[0](images)))
        c2 = made.denseblock1(made.stem[3](stem))
        c3 = made.denseblock2(made.transition1(c2))
        middle = made.transition2(c3).unflatten(0, (n, 3))
        a, _, c = middle.unbind(1)
        c4 = made.denseblock3(torch.stack([a, made.fuse_middle(middle.flatten(1, 2)), c], dim=1).flatten(0, 1))
        p3 = made.lateral3(c3) + F.interpolate(made.lateral4(c4), scale_factor=2)
        finest = made.lateral2(c2) + F.interpolate(p3, scale_factor=2)
        if stride == 2:
            finest = made.lateral1(stem) + double(finest, linear=True)
        return [made.fuse_final(finest.unflatten(0, (n, 3)).flatten(1, 2))]

    slices = torch.randn(2, 9, 32, 48, dtype=torch.float64)
    same(results(made, lambda x: [made(x)], slices), results(made, plain, slices))


def test_a_level_of_stride_4_is_doubled_between_its_cells():
    row = double(torch.tensor([[[[0.0, 4, 8, 20]]]]).expand(1, 1, 2, 4), linear=True)
    assert row.shape == (1, 1, 4, 8)
    assert row[0, 0, 0].tolist() == [0, 2, 4, 6, 8, 14, 20, 20]


@pytest.mark.parametrize(
    ("shape", "stride", "size", "points"),
    [((3, 7, 9, 12), 4, 5, 1), ((2, 5, 16, 11), 4, 7, 2), ((1, 3, 1, 6), 2, 3, 2), ((2, 3, 4, 4), 8, 2, 3)],
)
def test_pooling_is_roi_align_on_boxes_moved_by_half_a_stride(shape, stride, size, points):
    torch.manual_seed(0)
    features = torch.randn(shape)
    limit = torch.tensor([shape[3], shape[2]]) * stride - 1.0
    corners = [torch.rand(count, 2, 2) * limit for count in (5, 0, 7)[: shape[0]]]
    boxes = [torch.cat([pair.amin(dim=1), pair.amax(dim=1)], dim=1) for pair in corners]
    layouts = (torch.contiguous_format, torch.channels_last)
    both = [features.clone(memory_format=layout).requires_grad_() for layout in layouts]
    ours = [pool_boxes(one, boxes, stride, size, points) for one in both]
    plain = roi_align(
        features.requires_grad_(), [box + stride / 2 for box in boxes], size, 1 / stride, points, aligned=True
    )
    wanted = torch.randn(plain.shape)
    for pooled in (*ours, plain):
        (pooled * wanted).sum().backward()
    for pooled, one in zip(ours, both, strict=True):
        torch.testing.assert_close(pooled, plain, rtol=0, atol=2e-5)
        torch.testing.assert_close(one.grad, features.grad, rtol=0, atol=2e-5)


def test_no_boxes_are_pooled_to_nothing():
    assert pool_boxes(torch.randn(2, 3, 4, 4), [torch.zeros(0, 4)] * 2, 4, size=5, points=1).shape == (0, 3, 5, 5)


def test_boxes_that_are_no_numbers_are_pooled_to_none():
    """So that a training that fails says so by its loss."""
    nan = torch.tensor([[1.0, 1, 6, 6], [float("nan")] * 4])
    pooled = pool_boxes(torch.randn(1, 3, 4, 4), [nan], 4, size=2, points=1)
    assert torch.isfinite(pooled[0]).all() and torch.isnan(pooled[1]).all()
