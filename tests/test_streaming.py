"""Detecting in a volume without holding it: the same numbers as from the features of all slices, in bounded memory."""

import gc
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from lensnb.detection.inference import detect_on_features, detect_volume
from lensnb.models.build import build_lens
from lensnb.models.dense import dense_block
from lensnb.models.inputs import pad, to_grey
from lensnb.settings import load_profile


def network(profile: str, slices: int = 9, at_once: int = 0):
    """A random LENS in the memory layout of a trained one, and the inference's numbers."""
    settings = load_profile(profile)
    torch.manual_seed(slices)
    model = build_lens(replace(settings.network, slices=slices), ("DeepLesion", "LiTS"))
    inference = replace(settings.inference, slices_at_once=at_once or settings.inference.slices_at_once)
    return model.to(memory_format=torch.channels_last).eval(), inference


def volume(depth: int) -> np.ndarray:
    return np.random.default_rng(depth).integers(-1000, 400, (depth, 45, 61)).astype(np.int16)


@torch.no_grad()
def all_features(backbone: torch.nn.Module, grey: torch.Tensor, chunk: int = 48) -> torch.Tensor:
    """Features of all slices as they were computed before they were streamed: chunk by chunk, each with its margin."""
    depth, reach = len(grey), 3 * (backbone.images // 2)
    maps = []
    for start in range(0, depth, chunk):
        centres = torch.arange(start, min(start + chunk, depth))
        first = start - reach
        around = torch.arange(first, int(centres[-1]) + reach + 1)[:, None] + torch.tensor([-1, 0, 1])
        *levels, middle = backbone._lower(grey[around.clamp(0, depth - 1)])
        places = [centres - first + offset for offset in range(-reach, reach + 1, 3)]
        alone = dense_block(backbone.denseblock3, middle)
        seen = [alone[place] for place in places]
        fused = backbone.fuse_middle(torch.cat([middle[place] for place in places], dim=1))
        seen[backbone.images // 2] = dense_block(backbone.denseblock3, fused)
        maps.append(backbone._pyramid([*([level[place] for place in places] for level in levels), seen]))
    return torch.cat(maps)


# one slice, fewer than a group, one more than a part, one less, parts of unequal length
@pytest.mark.parametrize("depth", [1, 2, 7, 47, 48, 49, 50, 97])
@pytest.mark.parametrize("slices", [3, 9])
@pytest.mark.parametrize("profile", ["smoke", "phantom"])
def test_tables_have_the_same_bits_as_those_of_all_features(profile, slices, depth):
    model, inference = network(profile, slices)
    assert inference.slices_at_once == 48
    hu = volume(depth)
    features = all_features(model.backbone, pad(to_grey(hu, model.network), 16))
    before = detect_on_features(model, features.split(48), hu.shape, inference)
    pd.testing.assert_frame_equal(detect_volume(model, hu, inference), before, check_exact=True)
    assert len(before) and set(before["z"]) == set(range(depth))


@pytest.mark.parametrize("slices", [3, 9, 15])
@pytest.mark.parametrize("depth", [1, 8, 9, 26])
def test_each_image_is_computed_once_and_few_slices_are_read_at_a_time(slices, depth):
    backbone = network("smoke", slices)[0].backbone
    images, reads = [], []
    backbone.stem[3].register_forward_pre_hook(lambda _, inputs: images.append(len(inputs[0])))

    def read(first, end):
        reads.append((first, end))
        return torch.zeros(end - first, 16, 16)

    parts = [len(part) for part in backbone.stream_features(read, depth, 8)]
    reach = 3 * (slices // 6)
    assert parts == [8] * (depth // 8) + [depth % 8] * (depth % 8 > 0)
    twice = int(depth % 8 == 1 and depth > 1 and reach > 0)  # the last image goes in a batch of two
    assert sum(images) == depth + 2 * reach + twice
    assert all(0 <= first < end <= depth and end - first <= 8 + 2 * reach + 2 for first, end in reads)
    # nobody goes back: a slice is read again only for the neighbours of the next images
    assert all(after[0] >= before[1] - 2 - reach for before, after in zip(reads, reads[1:], strict=False))


def live_bytes() -> int:
    """The memory of all tensors that there are."""
    storages = {}
    for thing in gc.get_objects():
        if type(thing) is torch.Tensor:
            storage = thing.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def test_memory_does_not_grow_with_the_number_of_slices(monkeypatch):
    peaks = {}
    for depth in (16, 24, 96):
        model, inference = network("smoke", at_once=8)
        held = []
        answer = model.from_features
        monkeypatch.setattr(model, "from_features", lambda part, a=answer, h=held: h.append(live_bytes()) or a(part))
        gc.collect()
        before = live_bytes()
        detect_volume(model, volume(depth), inference)
        assert len(held) == depth // 8
        peaks[depth] = max(held) - before
    one = 8 * 24 * 12 * 16 * 4  # features of eight slices, at least
    assert one < peaks[24] and abs(peaks[96] - peaks[24]) < one / 2, peaks
